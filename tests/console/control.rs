//! The control port: by it the tests in the browser change the world.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use pg2planhat::testing::sim::SimFault;
use tokio::sync::Mutex;

use crate::harness::{App, ConfigText};
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
        .route("/freeze", post(freeze))
        .route("/thaw", post(thaw))
        .route("/start", post(start))
        .route("/configmap", post(configmap))
        .route("/received", get(received))
        .route("/metrics", get(metrics))
        .route("/link", get(link))
        .route("/port", get(port))
        .route("/sim", get(sim))
        .route("/psql", post(psql))
        .route("/check", get(check))
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
        ("saying", error) => {
            world.sim.queue_fault(SimFault::RefuseFirst { count: 1, error: error.into() });
        }
        (other, _) => return Err((StatusCode::BAD_REQUEST, format!("no fault {other}"))),
    }
    Ok(())
}

async fn kill(State(world): Shared) {
    world.lock().await.app.kill9().await;
}

/// The program stands still, as one that hangs does: its connections stay, and nothing comes by them.
async fn freeze(State(world): Shared) {
    world.lock().await.app.sigstop();
}

async fn thaw(State(world): Shared) {
    world.lock().await.app.sigcont();
}

/// The folder of the file looks as Kubernetes mounts a ConfigMap (`yes`), or as it did.
async fn configmap(State(world): Shared, how: String) {
    let data = world.lock().await.app.config_path().with_file_name("..data");
    if how.trim() == "yes" { std::fs::create_dir(data).unwrap() } else { std::fs::remove_dir(data).unwrap() }
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

/// The link that `ui` has printed.
async fn link(State(world): Shared) -> String {
    let log = world.lock().await.app.log();
    log.split_whitespace().find(|word| word.contains("/login#k=")).unwrap().to_owned()
}

async fn port(State(world): Shared) -> String {
    world.lock().await.cluster.port().to_string()
}

async fn sim(State(world): Shared) -> String {
    world.lock().await.sim.url()
}

/// Runs a script as a DBA does.
async fn psql(State(world): Shared, script: String) -> Result<(), (StatusCode, String)> {
    let world = world.lock().await;
    let file = world.cluster.socket_directory().join("dba.sql");
    std::fs::write(&file, script).unwrap();
    let mut psql = tokio::process::Command::new("psql");
    psql.args(["-X", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres", "-h"])
        .arg(world.cluster.socket_directory());
    psql.args(["-p", &world.cluster.port().to_string(), "-f"]).arg(&file);
    let output = psql.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    output.status.success().then_some(()).ok_or((StatusCode::BAD_REQUEST, said))
}

/// `check` of the file as it was written, with the secrets in the environment: its exit code.
async fn check(State(world): Shared) -> String {
    let path = world.lock().await.app.config_path();
    let mut check = tokio::process::Command::new(env!("CARGO_BIN_EXE_pg2planhat"));
    check.arg("--config").arg(path).arg("check");
    check.env("PGPASSWORD", "first-secret").env("PLANHAT_TENANT_UUID", ConfigText::TENANT);
    let output = check.output().await.unwrap();
    match output.status.code() {
        Some(0) => "0".to_owned(),
        code => format!("{code:?}: {}", String::from_utf8_lossy(&output.stdout)),
    }
}

async fn metrics(State(world): Shared) -> String {
    world.lock().await.app.get("/metrics").await.map(|answer| answer.body).unwrap_or_default()
}
