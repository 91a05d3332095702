//! Over real sockets, with requests written by hand: the stand-in must not be judged by the client that it judges.

use crate::sim::received::KindStats;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

const SOON: Duration = Duration::from_secs(20);

async fn start() -> SimHandle {
    Sim::start(SimOptions::default()).await.unwrap()
}

/// What came back: status, head, body; an error where the connection was reset.
type Told = std::io::Result<(u16, String, String)>;

async fn ask(sim: &SimHandle, method: &str, path: &str, headers: &str, body: &str) -> Told {
    let mut stream = TcpStream::connect(sim.address()).await?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut told = Vec::new();
    stream.read_to_end(&mut told).await?;
    let told = String::from_utf8_lossy(&told).into_owned();
    let (head, body) = told.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, head.to_lowercase(), body.to_owned()))
}

async fn metrics(sim: &SimHandle, body: &str) -> Told {
    ask(sim, "POST", "/dimensiondata/T", "", body).await
}

async fn own(sim: &SimHandle, method: &str, path: &str, body: &Value) -> Value {
    let body = body.to_string();
    let (status, _, body) = ask(sim, method, path, "Content-Type: application/json\r\n", &body).await.unwrap();
    assert!((200..300).contains(&status), "{status} {body}");
    serde_json::from_str(&body).unwrap_or_default()
}

fn metric(n: i32) -> String {
    format!(r#"{{"dimensionId":"d","value":{n},"externalId":"e{n}","date":"1970-01-0{n}T00:00:00.000Z"}}"#)
}

fn values(sim: &SimHandle) -> Vec<i64> {
    sim.items(SinkKind::Metric).iter().map(|received| received.item()["value"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn answers_as_planhat_does() {
    let mut sim = start().await;
    let body = format!(r#"[{}, {{"value":1,"externalId":"my_id","model":"Company"}}, {}]"#, metric(1), metric(1));
    let (status, head, body) = metrics(&sim, &body).await.unwrap();
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/json"), "{head}");
    assert_eq!(
        body,
        r#"{"processed":2,"errors":[{"item":{"value":1,"externalId":"my_id","model":"Company"},"error":"dimensionId must be specified"}]}"#
    );
    assert_eq!(values(&sim), [1, 1], "nothing is deduplicated");

    let (status, _, body) = ask(&sim, "POST", "/analytics/bulk/T", "", r#"[{"email":"a@b"}]"#).await.unwrap();
    assert_eq!((status, body.as_str()), (200, ""));
    let (status, _, body) = ask(&sim, "POST", "/analytics/T", "", r#"{"action":"a"}"#).await.unwrap();
    assert_eq!(status, 200);
    assert_eq!(
        body,
        r#"{"processed":0,"errors":[{"item":{"action":"a"},"error":"email or externalId must be specified"}]}"#
    );
    assert_eq!(metrics(&sim, "[{]").await.unwrap().0, 400);

    let stats = sim.stats();
    let metrics = KindStats { requests: 2, under_way: 0, accepted: 1, items: 2, refused: 1, bytes: 0 };
    assert_eq!(KindStats { bytes: 0, ..stats.metrics }, metrics);
    assert_eq!((stats.activities.requests, stats.activities.items, stats.activities.refused), (2, 1, 1));
    sim.stop().await;
}

#[tokio::test]
async fn its_own_routes_show_what_it_received() {
    let sim = start().await;
    for n in 1..=4 {
        metrics(&sim, &metric(n)).await.unwrap();
    }
    ask(&sim, "POST", "/analytics/bulk/T", "", r#"[{"email":"a@b"}]"#).await.unwrap();
    let page = own(&sim, "GET", "/sim/received?kind=metric&offset=1&limit=2", &Value::Null).await;
    assert_eq!(page["total"], 4);
    let numbers: Vec<_> =
        page["items"].as_array().unwrap().iter().map(|one| (&one["request"], &one["item"]["value"])).collect();
    assert_eq!(numbers, [(&json!(2), &json!(2)), (&json!(3), &json!(3))]);
    assert!(page["items"][0]["at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    assert_eq!(own(&sim, "GET", "/sim/stats", &Value::Null).await["metrics"]["items"], 4);
    own(&sim, "POST", "/sim/clear", &Value::Null).await;
    assert_eq!(own(&sim, "GET", "/sim/received", &Value::Null).await, json!({"total": 0, "items": []}));
    assert_eq!(sim.stats().metrics, KindStats::default());
}

#[tokio::test]
async fn metrics_can_be_read_back() {
    let sim = Sim::start(SimOptions { token: Some("secret".into()), ..SimOptions::default() }).await.unwrap();
    let items: Vec<String> = (1..=5).map(metric).collect();
    metrics(&sim, &format!("[{}]", items.join(","))).await.unwrap();
    let read = async |query: &str, token: &str| {
        let path = format!("/dimensiondata{query}");
        let (status, _, body) =
            ask(&sim, "GET", &path, &format!("Authorization: Bearer {token}\r\n"), "").await.unwrap();
        let items: Value = serde_json::from_str(&body).unwrap();
        let values: Option<Vec<i64>> =
            items.as_array().map(|items| items.iter().map(|item| item["value"].as_i64().unwrap()).collect());
        (status, values.unwrap_or_default())
    };
    assert_eq!(read("", "wrong").await, (401, vec![]));
    assert_eq!(read("", "secret").await, (200, vec![1, 2, 3, 4, 5]));
    assert_eq!(read("?from=1&to=3&limit=2&offset=1", "secret").await, (200, vec![3, 4]));
    assert_eq!(read("?cId=e2&dimid=d", "secret").await, (200, vec![2]));
    assert_eq!(read("?dimid=other", "secret").await, (200, vec![]));
}

#[tokio::test]
async fn options_bind() {
    let options =
        SimOptions { tenants: vec!["T".into()], names: Names::Current, max_body: 100, ..SimOptions::default() };
    let sim = Sim::start(options).await.unwrap();
    assert_eq!(ask(&sim, "POST", "/dimensiondata/other", "", &metric(1)).await.unwrap().0, 404);
    let (_, _, body) = ask(&sim, "POST", "/analytics/bulk/T", "", r#"[{"euExtId":"1"}]"#).await.unwrap();
    assert!(body.contains("euExtId is not known"), "{body}");
    assert_eq!(metrics(&sim, &format!("[{},{}]", metric(1), metric(2))).await.unwrap().0, 413);
    assert_eq!(metrics(&sim, &metric(3)).await.unwrap().0, 200);
    assert_eq!(values(&sim), [3]);
}

#[tokio::test]
async fn items_can_be_counted_without_being_kept() {
    let body = format!("[{},{}]", metric(1), metric(2));
    for (keep, items) in [(Keep::Counts, 2), (Keep::Bytes, 0)] {
        let sim = Sim::start(SimOptions { keep, ..SimOptions::default() }).await.unwrap();
        assert_eq!(metrics(&sim, &body).await.unwrap().2, format!(r#"{{"processed":{items},"errors":[]}}"#));
        let stats = sim.stats().metrics;
        assert_eq!((stats.requests, stats.items, stats.bytes), (1, items, body.len() as u64));
        assert!(sim.items(SinkKind::Metric).is_empty());
    }
}

/// A fault, whether it stores, and what the peer sees of it.
#[tokio::test]
async fn faults_that_answer() {
    let sim = start().await;
    let status =
        |status, store| SimFault::Status { status, retry_after: Some("soon".into()), body: "no".into(), store };
    let refuse = |error: &str| SimFault::Refuse { field: "value".into(), equals: json!(1), error: error.into() };
    let cases: Vec<(SimFault, bool, u16, &str)> = vec![
        (status(503, false), false, 503, "no"),
        (status(503, true), true, 503, "no"),
        (refuse("bad"), false, 200, r#""error":"bad"}]}"#),
        (SimFault::RefuseFirst { count: 1, error: "first".into() }, false, 200, r#""error":"first"}]}"#),
        (SimFault::Reject { field: "value".into(), equals: json!(1), status: 422 }, false, 422, "value is not valid"),
        (SimFault::TooLarge { over: 10 }, false, 413, "too large"),
        (SimFault::Slow { millis: 1 }, true, 200, r#"{"processed":1,"errors":[]}"#),
        (SimFault::Text { body: "OK".into() }, true, 200, "OK"),
        (SimFault::Html { status: 200 }, false, 200, "<!DOCTYPE html>"),
        (SimFault::Redirect { status: 307, location: "http://elsewhere.test/".into() }, false, 307, ""),
        (SimFault::GzipBomb, true, 200, "\u{1f}"),
    ];
    for (n, (fault, stores, status, body)) in cases.into_iter().enumerate() {
        sim.clear();
        // Through JSON, as people queue them.
        own(&sim, "POST", "/sim/faults", &serde_json::to_value(QueuedFault::from(fault.clone())).unwrap()).await;
        let told = metrics(&sim, &metric(1)).await.unwrap();
        assert!(told.0 == status && told.2.contains(body), "{fault:?}: {} {}", told.0, told.2.len());
        assert_eq!(values(&sim).len(), usize::from(stores), "{n} {fault:?}");
        assert_eq!(sim.stats().faults, 1, "{fault:?}");
        assert_eq!(told.1.contains("retry-after: soon"), status == 503, "{fault:?}");
        assert_eq!(told.1.contains("location: http://elsewhere.test/"), status == 307, "{fault:?}");
        // Used up.
        assert_eq!(metrics(&sim, &metric(2)).await.unwrap().0, 200);
    }
}

#[tokio::test]
async fn faults_that_reset() {
    let sim = start().await;
    for (fault, stores) in
        [(SimFault::ResetBeforeReading, 0), (SimFault::ResetAfterStoring, 1), (SimFault::ResetMidAnswer, 1)]
    {
        sim.clear();
        sim.queue_fault(fault.clone());
        let error = metrics(&sim, &metric(1)).await.expect_err("a reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{fault:?}: {error}");
        assert_eq!(values(&sim).len(), stores, "{fault:?}");
        let done = sim.wait_for(|stats| stats.metrics.under_way == 0, SOON).await.unwrap();
        assert_eq!(done.faults, 1);
    }
}

#[tokio::test]
async fn half_an_answer_is_seen_before_the_reset() {
    let sim = start().await;
    sim.queue_fault(SimFault::ResetMidAnswer);
    let mut stream = TcpStream::connect(sim.address()).await.unwrap();
    let body = metric(1);
    let head = format!("POST /dimensiondata/T HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut told = Vec::new();
    // Linux gives what came before the reset, then the reset.
    let error = stream.read_to_end(&mut told).await.expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let told = String::from_utf8(told).unwrap();
    assert!(told.ends_with("\r\n\r\n{\"processed\":") && told.contains("content-length: 27"), "{told}");
}

#[tokio::test]
async fn faults_without_end() {
    let sim = start().await;
    for (fault, stores) in [
        (SimFault::Hang { store: false }, 0),
        (SimFault::Hang { store: true }, 1),
        (SimFault::Endless, 1),
        (SimFault::Drip { millis: 1 }, 1),
    ] {
        sim.clear();
        sim.queue_fault(fault.clone());
        let mut stream = TcpStream::connect(sim.address()).await.unwrap();
        let body = metric(1);
        let head = format!("POST /dimensiondata/T HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        sim.wait_for(|stats| stats.faults == 1 && stats.metrics.accepted == stores, SOON).await.unwrap();
        let read = if fault == SimFault::Endless { 4 << 20 } else { 200 };
        if matches!(fault, SimFault::Hang { .. }) {
            assert_eq!(sim.stats().metrics.under_way, 1);
        } else {
            stream.read_exact(&mut vec![0; read]).await.unwrap();
        }
        // The client leaves, and the request is over.
        drop(stream);
        sim.wait_for(|stats| stats.metrics.under_way == 0, SOON).await.unwrap();
    }
}

#[tokio::test]
async fn faults_wait_for_the_request_that_fits() {
    let sim = start().await;
    let faults = json!([
        {"fault": "reject", "field": "value", "equals": 2, "status": 400, "times": 0},
        {"fault": "status", "status": 500, "route": "bulk"},
        {"fault": "reset_before_reading", "route": "single"},
    ]);
    own(&sim, "POST", "/sim/faults", &faults).await;
    for (n, status) in [(1, 200), (2, 400), (2, 400), (3, 200)] {
        assert_eq!(metrics(&sim, &metric(n)).await.unwrap().0, status);
    }
    assert_eq!(values(&sim), [1, 3]);
    assert_eq!(ask(&sim, "POST", "/analytics/bulk/T", "", "[]").await.unwrap().0, 500);
    assert!(ask(&sim, "POST", "/analytics/T", "", "[]").await.is_err());
    own(&sim, "DELETE", "/sim/faults", &Value::Null).await;
    assert_eq!(metrics(&sim, &metric(2)).await.unwrap().0, 200);
}

#[tokio::test]
async fn faults_by_chance_replay() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let sim = start().await;
        let faults = json!([{"fault": "status", "status": 429}, {"fault": "hang"}, {"fault": "status", "status": 500}]);
        own(&sim, "POST", "/sim/rate", &json!({"seed": 42, "probability": 0.5, "faults": faults})).await;
        sim.set_fault_rate(42, 0.5, vec![SimFault::status(429), SimFault::status(500)]);
        let mut run = Vec::new();
        for _ in 0..40 {
            run.push(metrics(&sim, &metric(1)).await.unwrap().0);
        }
        assert_eq!(values(&sim).len(), run.iter().filter(|status| **status == 200).count());
        runs.push(run);
    }
    assert_eq!(runs[0], runs[1]);
    assert!([200, 429, 500].iter().all(|status| runs[0].contains(status)), "{:?}", runs[0]);
}

#[tokio::test]
async fn stops_and_comes_back_with_what_it_had() {
    let mut sim = start().await;
    metrics(&sim, &metric(1)).await.unwrap();
    let mut open = TcpStream::connect(sim.address()).await.unwrap();
    sim.wait_for(|stats| stats.connections == 2, SOON).await.unwrap();
    sim.stop().await;
    assert_eq!(open.read(&mut [0; 1]).await.unwrap_or(0), 0, "connections end");
    assert_eq!(metrics(&sim, &metric(2)).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    sim.restart().await.unwrap();
    metrics(&sim, &metric(3)).await.unwrap();
    assert_eq!(values(&sim), [1, 3]);
    let missed = sim.wait_for(|stats| stats.metrics.items > 2, Duration::from_millis(1)).await.unwrap_err();
    assert!(missed.what.contains("items: 2"), "{}", missed.what);
}
