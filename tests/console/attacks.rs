//! Trials from the bug reports of other consoles, over plain sockets.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{OPERATOR, World, bearer};

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\nAccept: application/json\r\n";
const HERE: &str = "Sec-Fetch-Site: same-origin\r\n";

/// Sends these bytes, and takes what comes within the time.
async fn raw(port: u16, request: &str, within: Duration) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    tokio::time::timeout(within, stream.read_to_end(&mut bytes)).await.ok();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The value of a field of a JSON document.
fn field(body: &str, name: &str) -> String {
    let document: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{body}"));
    document[name].as_str().unwrap_or_else(|| panic!("{name}: {body}")).to_owned()
}

#[tokio::test]
async fn case_193_a_plan_that_is_sent_eight_times_at_once_is_done_once() {
    let world = World::new().await;
    world.insert(120).await;
    world.wait_delivered(120).await;
    let operator = format!("{}{FORM}", bearer(OPERATOR));
    let planned = world.ask("POST", "/sections/logins/resync", &operator, "by=all").await;
    let body = format!("plan={}&typed=120", field(&planned.body, "plan"));
    let sent = (0..8).map(|_| world.ask("POST", "/plans", &operator, &body));
    let statuses: Vec<u16> = futures_util::future::join_all(sent).await.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 409, 429].contains(status)), "{statuses:?}");
    let events = world.cluster.text("SELECT count(*) FROM pg2planhat.event WHERE action = 'resync'").await;
    assert_eq!(events, "1");
}

#[tokio::test]
async fn case_193_wrong_logins_keep_nobody_out_and_a_trickle_is_cut() {
    let world = World::new().await;
    let form = format!("{FORM}{HERE}");
    let mut later = 0;
    for round in 0..40 {
        let answer = world.ask("POST", "/session", &form, "token=wrong").await;
        later += usize::from(answer.status == 429);
        if round % 10 == 9 {
            let answer = world.ask("POST", "/session", &form, &format!("token={OPERATOR}")).await;
            assert_eq!(answer.status, 303, "a right token beside {round} wrong ones");
        }
    }
    assert!(later > 0, "wrong ones are bounded");
    // A body that comes a byte at a time, or never.
    let began = Instant::now();
    let request = format!("POST /session HTTP/1.1\r\nHost: 127.0.0.1\r\n{form}Content-Length: 4000\r\n\r\ntoken=");
    let answer = raw(world.port, &request, Duration::from_secs(20)).await;
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test]
async fn case_193_odd_requests_get_no_page() {
    let world = World::new().await;
    let (operator, soon) = (bearer(OPERATOR), Duration::from_secs(3));
    // An address of another host in the request itself; two hosts; none.
    for head in [
        "GET http://evil.example/ HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n",
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nHost: evil.example@127.0.0.1\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n",
        "GET / HTTP/1.1\r\nHost: localhost.evil.example\r\nX-Forwarded-Host: 127.0.0.1\r\n",
    ] {
        let answer = raw(world.port, &format!("{head}Connection: close\r\n{operator}\r\n"), soon).await;
        let status: u16 = answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(400);
        assert!([400, 421].contains(&status) && !answer.contains("logins"), "{head}\n{answer}");
    }
    // A page of nowhere, a body without an end, a method that hides another.
    for (method, path, extra, statuses) in [
        ("POST", "/sections/logins/pause", format!("{operator}Origin: null\r\n{FORM}"), &[403][..]),
        ("POST", "/sections/logins/pause", format!("{operator}Origin: http://127.0.0.1:1\r\n{FORM}"), &[403]),
        ("GET", "/sections/logins/pause", format!("{operator}X-HTTP-Method-Override: POST\r\n"), &[404, 405]),
        ("GET", "/sections/logins/pause?_method=POST", operator.clone(), &[404, 405]),
        ("TRACE", "/", operator.clone(), &[403, 404, 405]),
        ("GET", "/assets/%2e%2e/%2e%2e%2fetc%2fpasswd", operator.clone(), &[404]),
        ("GET", "/sections/..%2f..%2fconfig", operator.clone(), &[404]),
    ] {
        let answer = world.ask(method, path, &extra, "").await;
        assert!(statuses.contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.body);
    }
    let chunk = format!("10000\r\n{}\r\n", "a".repeat(0x10000)).repeat(40);
    let request = format!(
        "POST /session HTTP/1.1\r\nHost: 127.0.0.1\r\n{FORM}{HERE}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{chunk}0\r\n\r\n"
    );
    let mut stream = TcpStream::connect(("127.0.0.1", world.port)).await.unwrap();
    // It is refused while it is sent: the writing may fail.
    stream.write_all(request.as_bytes()).await.ok();
    let mut bytes = Vec::new();
    tokio::time::timeout(soon, stream.read_to_end(&mut bytes)).await.ok();
    let answer = String::from_utf8_lossy(&bytes);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");
    let asked = world.cluster.text("SELECT count(*) FROM pg2planhat.event WHERE actor <> 'pg2planhat'").await;
    assert_eq!(asked, "0", "nothing was done");
}

#[tokio::test]
async fn case_193_a_stream_goes_through_an_old_proxy_and_a_missing_file_is_said() {
    let world = World::new().await;
    let operator = bearer(OPERATOR);
    // A proxy that speaks HTTP/1.0 to what is behind it, as nginx does.
    let request = format!("GET /live?page=overview HTTP/1.0\r\nHost: 127.0.0.1\r\n{operator}\r\n");
    let answer = raw(world.port, &request, Duration::from_secs(4)).await;
    assert!(answer.contains("text/event-stream") && answer.contains("event: verdict"), "{answer}");
    assert!(answer.to_lowercase().contains("x-accel-buffering: no") && !answer.contains("chunked"), "{answer}");
    // Somebody has taken the file away: each page says so, or does without.
    let path = world.app.config_path();
    std::fs::rename(&path, path.with_extension("away")).unwrap();
    for page in ["/", "/config", "/sections/logins", "/sections/logins/mapping", "/logs"] {
        let answer = world.ask("GET", page, &operator, "").await;
        assert!([200, 503].contains(&answer.status), "{page}: {}", answer.status);
        if answer.status == 503 {
            assert!(
                answer.body.contains("cannot be read") && answer.body.contains("What to do"),
                "{page}: {}",
                answer.body
            );
        }
    }
    // What is no text, and what is very long.
    std::fs::write(&path, [0xff, 0xfe, 0x00, 0x41]).unwrap();
    assert_eq!(world.ask("GET", "/config", &operator, "").await.status, 503);
    let text = std::fs::read_to_string(path.with_extension("away")).unwrap();
    std::fs::write(&path, format!("{text}{}", "# a comment that goes on and on\n".repeat(60_000))).unwrap();
    let began = Instant::now();
    let answer = world.ask("GET", "/config", &operator, "").await;
    assert!([200, 503].contains(&answer.status) && began.elapsed() < Duration::from_secs(3), "{}", answer.status);
}
