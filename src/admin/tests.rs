//! Over real sockets, as a probe or a stranger would ask.

use super::*;
use crate::telemetry::status_document::Reason;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

struct Server {
    address: SocketAddr,
    status: watch::Sender<Status>,
    heartbeat: Arc<Heartbeat>,
    refresh: RefreshRequests,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn server(status: Status) -> Server {
    let listener = bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = watch::channel(status);
    let (stop, stopped) = oneshot::channel::<()>();
    let heartbeat = Arc::new(Heartbeat::new());
    let refresh = RefreshRequests::default();
    let state = AdminState {
        status: receiver,
        metrics: Arc::new(Metrics::new().unwrap()),
        heartbeat: Arc::clone(&heartbeat),
        hosts: Hosts::new(&address.to_string(), &["streamer.example.com"]),
        refresh: refresh.clone(),
    };
    let stopping = async move {
        stopped.await.ok();
    };
    let ended = tokio::spawn(serve(listener, state, stopping));
    Server { address, status: sender, heartbeat, refresh, stop, ended }
}

fn running() -> Status {
    let mut status = Status::starting("slot_a", "publication_a");
    status.state = InstanceState::Running;
    status.ready = true;
    status.instance.leader = true;
    status
}

/// Sends the bytes, reads to the end of the connection: every answer closes it.
async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn ask(server: &Server, method: &str, path: &str, host: &str) -> (u16, String, String) {
    let answer = raw(server.address, &format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

async fn page(server: &Server, path: &str) -> (u16, String) {
    let (status, _, body) = ask(server, "GET", path, &server.address.to_string()).await;
    (status, body)
}

#[tokio::test]
async fn a_running_leader_is_alive_and_ready_and_shows_its_status() {
    let server = server(running()).await;
    assert_eq!(page(&server, "/livez").await, (200, "alive\n".into()));
    assert_eq!(page(&server, "/readyz").await, (200, "ready\n".into()));
    let (code, body) = page(&server, "/status").await;
    assert_eq!((code, serde_json::from_str::<Status>(&body).unwrap()), (200, running()));
    let (code, head, body) = ask(&server, "GET", "/metrics", "localhost").await;
    assert_eq!(code, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(head.contains("cache-control: no-store") && head.contains("connection: close"), "{head}");
    assert!(body.contains("pg2planhat_ready 1\n") && body.contains("pg2planhat_leader 1\n"), "{body}");
    assert_eq!(page(&server, "/").await.0, 404);
}

#[tokio::test]
async fn readiness_follows_the_status_and_says_why_and_what_to_do() {
    let server = server(Status::starting("s", "p")).await;
    assert_eq!(page(&server, "/readyz").await, (503, "not ready: starting\n".into()));
    assert_eq!(page(&server, "/livez").await.0, 200, "liveness does not depend on the servers");
    server.status.send_modify(|status| {
        status.state = InstanceState::NeedsPerson;
        status.reason = Some(Reason::SlotMissing);
        status.message = Some("the slot is gone".into());
        status.remedy = Some("pg2planhat repair --gap".into());
    });
    let expected =
        "not ready: needs_person (slot_missing)\nbecause: the slot is gone\nremedy: pg2planhat repair --gap\n";
    assert_eq!(page(&server, "/readyz").await, (503, expected.into()));
}

#[tokio::test]
async fn a_standby_is_ready_only_for_those_who_say_so_and_only_while_it_can_take_over() {
    let mut status = Status::starting("s", "p");
    status.state = InstanceState::Standby;
    let server = server(status).await;
    assert_eq!(page(&server, "/readyz").await, (503, "not ready: standby\n".into()));
    assert_eq!(page(&server, "/readyz?standby=no").await.0, 503);
    assert_eq!(page(&server, "/readyz?standby=ok").await, (200, "standby\n".into()));
    server.status.send_modify(|status| status.state = InstanceState::Stalled);
    assert_eq!(page(&server, "/readyz?standby=ok").await.0, 503);
}

#[tokio::test]
async fn a_stuck_task_overrules_a_status_that_says_all_is_well() {
    let server = server(running()).await;
    let reader = server.heartbeat.task("stream reader", Duration::ZERO);
    // The pulse counts milliseconds: the first of them past the limit is enough.
    while server.heartbeat.stuck(Instant::now()).is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(page(&server, "/livez").await, (503, "stream reader has not moved for 0 s\n".into()));
    let (code, body) = page(&server, "/readyz").await;
    assert_eq!(code, 503);
    assert!(body.starts_with("not ready: stalled\nbecause: the task stream reader has not moved"), "{body}");
    let (_, body) = page(&server, "/status").await;
    let shown: Status = serde_json::from_str(&body).unwrap();
    assert_eq!((shown.state, shown.ready), (InstanceState::Stalled, false));
    let (_, body) = page(&server, "/metrics").await;
    assert!(body.contains("pg2planhat_ready 0\n") && body.contains("pg2planhat_instance_state{state=\"stalled\"} 1\n"));
    reader.finish();
    assert_eq!(page(&server, "/readyz").await.0, 200);
}

#[tokio::test]
async fn only_get_and_head_are_answered() {
    let server = server(running()).await;
    for path in ["/livez", "/readyz", "/metrics", "/status"] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            assert_eq!(ask(&server, method, path, "localhost").await.0, 405, "{method} {path}");
        }
        let (code, _, body) = ask(&server, "HEAD", path, "localhost").await;
        assert_eq!((code, body.as_str()), (200, ""), "HEAD {path}");
    }
}

#[tokio::test]
async fn a_strangers_name_gets_nothing_whatever_the_path() {
    let server = server(running()).await;
    for path in ["/livez", "/readyz", "/metrics", "/status", "/"] {
        let (code, _, body) = ask(&server, "GET", path, "evil.example:9187").await;
        assert_eq!(code, 421, "{path}");
        assert!(!body.contains("slot_a") && !body.contains("pg2planhat_"), "{body}");
    }
    for request in [
        "GET /status HTTP/1.1\r\n\r\n",
        "GET /status HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        "GET http://evil.example/status HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let answer = raw(server.address, request).await;
        assert!(answer.starts_with("HTTP/1.1 4") && !answer.contains("slot_a"), "{request} {answer}");
    }
    assert!(raw(server.address, "GET /livez HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.0 200"));
    assert_eq!(ask(&server, "GET", "/livez", "streamer.example.com").await.0, 200);
}

#[tokio::test]
async fn it_ends_gracefully_and_a_taken_port_is_a_usage_fault() {
    let server = server(running()).await;
    let taken = bind(&server.address.to_string()).await.unwrap_err();
    assert_eq!(taken.exit, Exit::Usage);
    server.stop.send(()).unwrap();
    server.ended.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn connections_that_say_nothing_are_closed_at_their_deadline_and_make_room() {
    let listener = bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut brief = Brief::new(listener, Duration::from_millis(20));
    let mut silent = Vec::new();
    for _ in 0..listener::CONNECTIONS {
        silent.push(TcpStream::connect(address).await.unwrap());
        let (mut accepted, _) = axum::serve::Listener::accept(&mut brief).await;
        tokio::spawn(async move { accepted.read_u8().await });
    }
    let _one_more = TcpStream::connect(address).await.unwrap();
    // Without deadlines there would be no place for it, ever.
    axum::serve::Listener::accept(&mut brief).await;
    for mut stream in silent {
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn case_100_a_crowd_that_says_nothing_does_not_keep_a_probe_waiting() {
    let server = server(running()).await;
    let mut silent = Vec::new();
    for _ in 0..4 * listener::CONNECTIONS {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    let begun = Instant::now();
    for _ in 0..6 {
        assert_eq!(page(&server, "/livez").await.0, 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_look_waits_for_fresh_figures_where_somebody_writes_them() {
    let server = server(running()).await;
    let handle = server.refresh.attend();
    let writer = async {
        handle.asked().await;
        server.status.send_modify(|status| status.slot.retained_bytes = Some(77));
        handle.shown();
    };
    let (page, ()) = tokio::join!(ask(&server, "GET", "/status", "127.0.0.1"), writer);
    assert!(page.2.contains("\"retained_bytes\":77"), "{}", page.2);
}

#[tokio::test]
async fn a_look_at_a_board_that_nobody_writes_any_more_is_answered_all_the_same() {
    let server = server(running()).await;
    let stuck = server.refresh.attend();
    assert_eq!(ask(&server, "GET", "/readyz", "127.0.0.1").await.0, 200);
    drop(stuck);
    assert_eq!(ask(&server, "GET", "/readyz", "127.0.0.1").await.0, 200);
}
