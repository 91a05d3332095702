//! The control port: by it the tests in the browser change the world.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use pg2planhat::testing::sim::SimFault;
use tokio::sync::Mutex;

use crate::harness::App;
use crate::world::World;

type Shared = State<Arc<Mutex<World>>>;

/// Serves it; its port.
pub async fn serve(world: World) -> (u16, Arc<Mutex<World>>) {
    let world = Arc::new(Mutex::new(world));
    let router = Router::new()
        .route("/sql", post(sql))
        .route("/text", post(text))
        .route("/insert", post(insert))
        .route("/fault", post(fault))
        .route("/kill", post(kill))
        .route("/start", post(start))
        .route("/received", get(received))
        .route("/metrics", get(metrics))
        .route("/config", get(config).post(write_config))
        .with_state(Arc::clone(&world));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (port, world)
}

async fn sql(State(world): Shared, statements: String) -> Result<(), (StatusCode, String)> {
    let done = world.lock().await.cluster.try_sql(&statements).await;
    done.map_err(|error| (StatusCode::BAD_REQUEST, format!("{error:?}")))
}

async fn text(State(world): Shared, query: String) -> String {
    world.lock().await.cluster.text(&query).await
}

async fn insert(State(world): Shared, rows: String) {
    world.lock().await.insert(rows.trim().parse().unwrap()).await;
}

async fn fault(State(world): Shared, what: String) -> Result<(), (StatusCode, String)> {
    let world = world.lock().await;
    let away = |status| SimFault::Status { status, retry_after: None, body: String::new(), store: false };
    match what.trim().split_once(' ').unwrap_or((what.trim(), "")) {
        ("clear", _) => world.sim.clear_faults(),
        ("status", code) => world.sim.set_fault_rate(1, 1.0, vec![away(code.parse().unwrap())]),
        ("refuse", count) => {
            let count = count.parse().unwrap();
            world.sim.queue_fault(SimFault::RefuseFirst {
                count,
                error: "no such company <img src=x onerror=alert(1)>".into(),
            });
        }
        (other, _) => return Err((StatusCode::BAD_REQUEST, format!("no fault {other}"))),
    }
    Ok(())
}

async fn kill(State(world): Shared) {
    world.lock().await.app.kill9().await;
}

/// Starts the program again; `unready`: it is not waited for, as where it needs a person.
async fn start(State(world): Shared, how: String) {
    let mut world = world.lock().await;
    world.app = App::launch(&world.config).arguments(&["run", "--stay"]).start();
    if how.trim() == "unready" {
        return;
    }
    tokio::time::timeout(Duration::from_secs(30), world.app.wait_ready()).await.unwrap();
}

async fn received(State(world): Shared) -> String {
    let world = world.lock().await;
    let items = world.sim.items_after(0, usize::MAX).len();
    items.to_string()
}

/// The configuration's file.
async fn config(State(world): Shared) -> String {
    std::fs::read_to_string(world.lock().await.app.config_path()).unwrap()
}

/// Somebody else changes the file: `{"from": TEXT, "to": TEXT}`.
async fn write_config(State(world): Shared, change: String) {
    let change: serde_json::Value = serde_json::from_str(&change).unwrap();
    let path = world.lock().await.app.config_path();
    let text = std::fs::read_to_string(&path).unwrap();
    let (from, to) = (change["from"].as_str().unwrap(), change["to"].as_str().unwrap());
    assert!(text.contains(from), "{text}");
    std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
}

async fn metrics(State(world): Shared) -> String {
    world.lock().await.app.get("/metrics").await.map(|answer| answer.body).unwrap_or_default()
}
