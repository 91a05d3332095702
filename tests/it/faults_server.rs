//! A server that takes connections and says nothing, and one that is a copy of another: tests/FAULTS.md, cases 175 to 180.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::faults_stream_scene::{PATIENCE, Scene, section};
use crate::harness::{App, Cluster, ConfigText, Proxy, Stop, eventually};

/// A server's messages up to the first question: authenticated, its version, ready.
fn greeting() -> Vec<u8> {
    let message = |tag: u8, body: &[u8]| {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[tag], &length[..], body].concat()
    };
    [
        message(b'R', &[0; 4]),
        message(b'S', b"server_version\x0016.4\0"),
        message(b'S', b"server_encoding\0UTF8\0"),
        message(b'Z', b"I"),
    ]
    .concat()
}

/// Greets whoever connects, and never answers; counts the connections.
fn silent_server() -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, taken) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&taken);
    let greet = |mut stream: TcpStream| {
        let begun = stream.read(&mut [0; 4096]).and_then(|_| stream.write_all(&greeting()));
        while begun.is_ok() && stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::Relaxed);
            std::thread::spawn(move || greet(stream));
        }
    });
    (port, taken)
}

#[tokio::test]
async fn case_176_a_server_that_is_silent_after_its_greeting_is_shown_and_tried_again() {
    let (port, taken) = silent_server();
    let config = ConfigText::for_port(port, "http://127.0.0.1:1").section(section());
    let app = App::launch(&config).env("PGCONNECT_TIMEOUT", "2").start();
    let named =
        |status: &serde_json::Value| status["message"].as_str().filter(|what| what.contains("answer")).map(drop);
    let begun = Instant::now();
    app.wait_status("the server's silence", named).await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let status = app.status().await;
    assert!(status["remedy"].as_str().is_some() && status["ready"] == false, "{status}");
    assert_eq!(app.get("/livez").await.unwrap().status, 200);
    let before = taken.load(Ordering::Relaxed);
    let again = || async { (taken.load(Ordering::Relaxed) > before).then_some(()) };
    eventually(Duration::from_secs(20), "another connection", again).await;
    app.sigterm();
    assert_eq!(app.wait_exit(Duration::from_secs(3)).await, 0);
}

#[tokio::test]
async fn case_176_commands_at_a_silent_server_end() {
    let (port, _taken) = silent_server();
    let config = ConfigText::for_port(port, "http://127.0.0.1:1").section(section());
    let commands: [&[&str]; 14] = [
        &["status"],
        &["check"],
        &["setup"],
        &["plan"],
        &["logs"],
        &["preview", "m"],
        &["pause", "m"],
        &["trace", "m", "1"],
        &["audit", "--all"],
        &["quarantine", "list"],
        &["quarantine", "retry", "--all", "--yes"],
        &["resync", "m", "--all", "--yes"],
        &["repair", "--gap", "--yes"],
        &["teardown", "--yes"],
    ];
    let ended = commands.iter().map(|arguments| {
        let launch = App::launch(&config).arguments(arguments).env("PGCONNECT_TIMEOUT", "1");
        async move {
            let output = tokio::time::timeout(Duration::from_secs(20), launch.output()).await;
            match output {
                Err(_) => Some(format!("{arguments:?} hangs")),
                Ok(output) if ![1, 69].contains(&output.code) => Some(format!("{arguments:?}: {output:?}")),
                Ok(_) => None,
            }
        }
    });
    let wrong: Vec<String> = futures_util::future::join_all(ended).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a standby asks of the server is lost on the way, and nobody tells it: a proxy that forgot the connection, say. It
/// must find out before the leader ends.
#[tokio::test]
async fn case_176_a_standby_whose_connection_fell_silent_still_takes_over() {
    let scene = Scene::new().await;
    let leader = scene.run().await;
    let proxy = Proxy::to_port(scene.cluster.port());
    let standby = App::launch(&scene.config.clone().through(proxy.port())).env("PGCONNECT_TIMEOUT", "2").start();
    let waits = |status: &serde_json::Value| (status["state"] == "standby").then_some(());
    standby.wait_status("the standby to wait", waits).await;
    proxy.forget();
    leader.kill9().await;
    scene.insert(3).await;
    standby.wait_ready().await;
    scene.exact_but_in_doubt().await;
}

/// The connection that reads older rows falls silent in the middle of a chunk. Its neighbours must not wait for it.
#[tokio::test]
async fn case_177_a_backfill_whose_connection_fell_silent_reads_on_by_another() {
    // The walsender that is forgotten, too, holds the slot until the server gives it up.
    let mut scene = Scene::on(Cluster::builder().setting("wal_sender_timeout", "5s")).await;
    scene.insert(20_000).await;
    let proxy = Proxy::to_port(scene.cluster.port());
    proxy.rate(150_000);
    scene.config = scene.config.through(proxy.port());
    let app = App::launch(&scene.config).env("PGCONNECT_TIMEOUT", "1").start();
    let reads = |status: &serde_json::Value| (status["sections"][0]["backfill"]["rows"].as_u64()? > 100).then_some(());
    app.wait_status("the backfill to read", reads).await;
    proxy.forget();
    proxy.rate(100_000_000);
    scene.exact_but_in_doubt().await;
}

/// The volume of a server, started as another server: the same system identifier, the same timeline, the slot and the state
/// in it. Nothing in the data tells it from the first one.
#[tokio::test]
async fn case_175_a_clone_of_the_volume_is_told_of_by_check_and_run() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.insert(3).await;
    scene.exact().await;
    app.sigterm();
    assert_eq!(app.wait_exit(PATIENCE).await, 0);
    scene.cluster.stop(Stop::Fast).await;
    let clone = scene.cluster.clone_of_volume().await;
    scene.cluster.start_again().await;
    // The first server was restarted, and is itself.
    let app = scene.run().await;
    assert!(!app.log().contains("clone"), "{}", app.log());
    app.sigterm();
    assert_eq!(app.wait_exit(PATIENCE).await, 0);

    let config = ConfigText::new(&clone, &scene.sim.url()).section(section());
    let told = async || {
        let checked = App::command(&config, &["--json", "check"]).await.json();
        let findings = checked["findings"].as_array().unwrap().clone();
        findings.into_iter().find(|finding| finding["code"] == "server_address")
    };
    let finding = told().await.expect("a finding");
    let message = finding["message"].as_str().unwrap();
    let (first, second) = (format!("127.0.0.1:{}", scene.cluster.port()), format!("127.0.0.1:{}", clone.port()));
    assert!(message.contains(&first) && message.contains(&second) && message.contains("clone"), "{message}");
    assert_eq!(finding["severity"], "warning");
    let app = App::run(&config);
    app.wait_ready().await;
    app.wait_log("clone").await;
    assert!(app.log().contains(&first) && app.log().contains(&second), "{}", app.log());
    app.sigterm();
    assert_eq!(app.wait_exit(PATIENCE).await, 0);
    // Said once: from then on this is where the server is.
    assert_eq!(told().await, None);
    let recorded = "SELECT count(*) FROM pg2planhat.event WHERE action = 'server_address'";
    assert_eq!(clone.number(recorded).await, 2);
}

/// A password is changed at the server first, and in the file a minute later. A standby, or a process that must begin anew,
/// connects in between.
#[tokio::test]
async fn case_178_a_standby_outlives_a_role_that_may_not_log_in_for_a_while() {
    let scene = Scene::new().await;
    scene.cluster.sql("CREATE ROLE app LOGIN SUPERUSER").await;
    let config = scene.config.clone().set("source.user", "app");
    let leader = scene.run().await;
    let standby = App::run(&config);
    let waits = |status: &serde_json::Value| (status["state"] == "standby").then_some(());
    standby.wait_status("the standby to wait", waits).await;
    scene
        .cluster
        .sql("ALTER ROLE app NOLOGIN; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
        .await;
    let refused = |status: &serde_json::Value| {
        status["message"].as_str().filter(|what| what.contains("not permitted to log in")).map(drop)
    };
    standby.wait_status("the refusal", refused).await;
    assert_eq!(standby.get("/livez").await.unwrap().status, 200);
    scene.cluster.sql("ALTER ROLE app LOGIN").await;
    standby.wait_status("the standby to wait again", waits).await;
    drop(leader);
    scene.insert(3).await;
    scene.exact_but_in_doubt().await;
    // A role that never worked is a mistake of the configuration, as ever.
    let wrong = App::run(&scene.config.clone().set("source.user", "nobody"));
    assert_eq!(wrong.wait_exit(PATIENCE).await, 64, "{}", wrong.log());
}

#[tokio::test]
async fn case_179_without_file_descriptors_it_waits_and_says_which_limit_to_raise() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    let limit = |files: u64| {
        let pid = rustix::process::Pid::from_raw(app.id()).unwrap();
        let limits = rustix::process::Rlimit { current: Some(files), maximum: Some(4096) };
        rustix::process::prlimit(Some(pid), rustix::process::Resource::Nofile, limits).unwrap();
    };
    limit(4);
    scene
        .cluster
        .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'pg2planhat%'")
        .await;
    // The admin port has no descriptor either: the log must do.
    app.wait_log("ulimit -n").await;
    assert!(!app.log().contains("this is a bug"), "{}", app.log());
    limit(1024);
    scene.insert(3).await;
    scene.exact().await;
    app.wait_ready().await;
}

#[tokio::test]
async fn case_180_a_roles_idle_session_timeout_does_not_end_the_connections() {
    let scene = Scene::new().await;
    scene.cluster.sql("CREATE ROLE app LOGIN SUPERUSER; ALTER ROLE app SET idle_session_timeout = '1s'").await;
    let config = scene.config.clone().set("source.user", "app");
    let app = App::run(&config);
    scene.streaming(&app).await;
    let sessions = "SELECT string_agg(pid::text, ',' ORDER BY pid) FROM pg_stat_activity WHERE usename = 'app' AND (application_name LIKE '%watch%' OR application_name LIKE '%state')";
    let before = scene.cluster.text(sessions).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(scene.cluster.text(sessions).await, before, "{}", scene.cluster.log());
    assert!(!scene.cluster.log().contains("idle-session timeout"), "{}", scene.cluster.log());
}
