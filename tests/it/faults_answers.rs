//! tests/FAULTS.md, cases 65 to 67 and 97: answers that prove nothing, and what must be true of the rows then.

use std::time::Duration;

use pg2planhat::testing::sim::SimFault;
use serde_json::Value;

use crate::delivery_scene::{PATIENCE, Scene, of_section, seats};
use crate::harness::{App, SectionText, eventually};

fn gateway(status: u16, body: &str) -> SimFault {
    SimFault::Status { status, retry_after: None, body: body.into(), store: true }
}

/// Waits until the section is halted; its reason and its remedy.
pub async fn halted(app: &App) -> (String, String) {
    let halted = |status: &Value| {
        let section = of_section(status, "seats");
        let text = |name: &str| section[name].as_str().unwrap_or_default().to_owned();
        (section["state"] == "halted").then(|| (text("reason"), text("remedy")))
    };
    app.wait_status("the section to be halted", halted).await
}

/// The most that any row was received.
fn most_copies(scene: &Scene) -> u64 {
    scene.received().values().copied().max().unwrap_or(0)
}

async fn in_doubt(app: &App) -> f64 {
    app.metric("rows_in_doubt_total", &[]).await.unwrap()
}

#[tokio::test]
async fn case_65_a_gateways_5xx_after_storing_is_in_doubt_by_name() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    let page = "<html><h1>502 Bad Gateway</h1></html>";
    let (mut last, mut twice) = (0, Vec::new());
    for status in [500, 502, 504, 520, 524, 599] {
        scene.sim.queue_fault(gateway(status, page));
        scene.insert(last + 1, last + 10).await;
        twice.extend(last + 1..=last + 10);
        last += 10;
        scene.metrics(2 * last).await;
        scene.outcomes().await;
    }
    scene.assert_received(last, &twice, &[]);
    assert_eq!(scene.outcomes().await, ["resent", "delivered"].repeat(6));
    let statuses =
        scene.column("SELECT http_status FROM pg2planhat.delivery WHERE outcome = 'resent' ORDER BY id").await;
    assert_eq!(statuses, ["500", "502", "504", "520", "524", "599"], "the status stays in the ledger");
    assert_eq!(in_doubt(&app).await, 60.0);
}

#[tokio::test]
async fn case_65_under_hold_a_gateways_5xx_doubles_nothing() {
    let scene = Scene::of(&[seats().set("in_doubt", "hold")]).await;
    let app = scene.run().await;
    scene.sim.queue_fault(gateway(504, "upstream timed out"));
    scene.insert(1, 100).await;
    scene.number("SELECT count(*) FROM pg2planhat.quarantine WHERE reason LIKE 'in_doubt:%'", 100).await;
    scene.insert(101, 110).await;
    scene.metrics(110).await;
    scene.assert_received(110, &[], &[]);
    assert_eq!(scene.outcomes().await, ["held", "delivered"]);
    assert_eq!(in_doubt(&app).await, 100.0);
}

/// Keeps what it gets and never says so: halved, halted, and probed with one item.
#[tokio::test]
async fn case_66_doubt_without_end_is_halved_then_halted_and_probed_with_one_item() {
    let mut scene = Scene::new().await;
    scene.config = scene.config.set("planhat.timeout", "400ms").set("planhat.halt_probe", "500ms");
    let app = scene.run().await;
    scene.sim.queue_fault(SimFault::Slow { millis: 60_000 }.times(0));
    scene.insert(1, 100).await;
    let (reason, remedy) = halted(&app).await;
    assert!(reason.contains("not answered") && remedy.contains("planhat.timeout"), "{reason} / {remedy}");
    let requests = scene.sim.stats().metrics.requests;
    scene.sink(|stats| stats.metrics.requests >= requests + 2).await;
    let sizes = scene.column("SELECT rows FROM pg2planhat.delivery ORDER BY id LIMIT 5").await;
    assert_eq!(sizes, ["100", "100", "50", "1", "1"]);
    let received = scene.received();
    assert!((2..=100).all(|number| received[&number] <= 3), "{received:?}");
    scene.sim.clear_faults();
    scene.streaming(&app).await;
    scene.metrics(350).await;
    let all = || async {
        let delivered = app.metric("rows_delivered_total", &[("section", "seats")]).await;
        (delivered == Some(100.0)).then_some(())
    };
    eventually(PATIENCE, "every row to be delivered", all).await;
    scene.outcomes().await;
    // Each copy beyond the first is of a batch that the ledger names.
    let doubled: u64 = scene.received().values().map(|copies| copies - 1).sum();
    let named =
        scene.cluster.number("SELECT coalesce(sum(rows), 0) FROM pg2planhat.delivery WHERE outcome = 'resent'").await;
    assert!(doubled <= u64::try_from(named).unwrap(), "{doubled} doubled, {named} named");
}

#[tokio::test]
async fn case_66_under_hold_doubt_without_end_halts_instead_of_quarantining_everything() {
    let mut scene = Scene::of(&[seats().set("in_doubt", "hold").set("batch", "{ rows: 10 }")]).await;
    scene.config = scene.config.set("planhat.timeout", "400ms").set("planhat.halt_probe", "60s");
    let app = scene.run().await;
    scene.sim.queue_fault(SimFault::Slow { millis: 60_000 }.times(0));
    scene.insert(1, 500).await;
    halted(&app).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let held = scene.column("SELECT rows FROM pg2planhat.delivery ORDER BY id").await;
    assert_eq!(held, ["10", "10", "5"], "and nothing more before the probe");
    assert_eq!(scene.cluster.number("SELECT count(*) FROM pg2planhat.quarantine").await, 25);
    assert_eq!(most_copies(&scene), 1);
}

/// A proxy compresses each 200, adds headers, or counts wrongly: what can be read is read.
#[tokio::test]
async fn case_66_answers_that_a_proxy_has_altered_are_read() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    let encoded = |encoding: &str| SimFault::Encoded { encoding: encoding.into() };
    let faults = [
        encoded("gzip"),
        encoded("deflate"),
        SimFault::WrongLength { by: 400 },
        SimFault::ManyHeaders { count: 100 },
        SimFault::ManyHeaders { count: 300 },
        SimFault::Text { body: "\u{feff}{\"processed\":10,\"errors\":[]}\r\n<!-- cached -->".into() },
    ];
    let mut last = 0;
    for fault in faults {
        scene.sim.queue_fault(fault);
        scene.insert(last + 1, last + 10).await;
        last += 10;
        scene.metrics(last).await;
        scene.outcomes().await;
    }
    scene.assert_received(last, &[], &[]);
    assert_eq!(scene.outcomes().await, ["delivered"].repeat(6));
    assert_eq!(in_doubt(&app).await, 0.0);
}

/// What cannot be read was most likely received: never sent again by itself, not after a restart either.
#[tokio::test]
async fn case_66_a_2xx_that_cannot_be_read_is_not_sent_again() {
    let mut scene = Scene::new().await;
    scene.config = scene.config.set("planhat.halt_probe", "60s");
    let app = scene.run().await;
    let brotli = SimFault::Encoded { encoding: "br".into() };
    scene.sim.queue_fault(brotli.clone().times(0));
    scene.insert(1, 50).await;
    let (reason, remedy) = halted(&app).await;
    assert!(reason.contains("(br)") && remedy.contains("in_doubt"), "{reason} / {remedy}");
    // Durable, too.
    scene.number("SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'in_doubt'", 1).await;
    app.kill9().await;
    let app = App::run(&scene.config);
    app.wait_ready().await;
    scene.insert(51, 51).await;
    halted(&app).await;
    scene.assert_received(51, &[], &[]);
    let ledger = scene.column("SELECT outcome || ' ' || first_key || '-' || last_key || ' ' || http_status FROM pg2planhat.delivery ORDER BY id").await;
    assert_eq!(ledger, ["in_doubt 1-50 200", "in_doubt 51-51 200"]);
    let status = app.status().await;
    let section = of_section(&status, "seats");
    assert_eq!((section["rows_in_doubt"].as_u64(), section["rows_delivered"].as_u64()), (Some(51), Some(0)));
    // Rows that come wait for the probe.
    scene.insert(52, 60).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.sim.stats().metrics.requests, 2);
    for fault in [SimFault::Truncated, SimFault::WrongLength { by: -9 }, SimFault::ResetMidAnswer] {
        unread_once(fault).await;
    }
}

/// In a process of its own: the fault once, then all is well.
async fn unread_once(fault: SimFault) {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.sim.queue_fault(fault.clone());
    scene.insert(1, 10).await;
    halted(&app).await;
    scene.insert(11, 30).await;
    scene.metrics(30).await;
    scene.streaming(&app).await;
    scene.assert_received(30, &[], &[]);
    assert_eq!(scene.outcomes().await[0], "in_doubt", "{fault:?}");
    assert_eq!(in_doubt(&app).await, 10.0, "{fault:?}");
}

/// 200s that refuse everything are the mapping's fault: ten go into quarantine, the others stay.
#[tokio::test]
async fn case_66_200s_that_refuse_everything_halt_as_the_mapping() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.sim.queue_fault(SimFault::RefuseFirst { count: 10_000, error: "no such dimension".into() }.times(0));
    scene.insert(1, 200).await;
    let (reason, remedy) = halted(&app).await;
    assert!(reason.contains("mapping") && remedy.contains("no such dimension"), "{reason} / {remedy}");
    let requests = scene.sim.stats().metrics.requests;
    scene.sink(|stats| stats.metrics.requests >= requests + 3).await;
    scene.number("SELECT count(*) FROM pg2planhat.quarantine", 10).await;
    assert_eq!(scene.sim.stats().metrics.items, 0);
    scene.sim.clear_faults();
    scene.metrics(190).await;
    scene.streaming(&app).await;
    scene.assert_received(200, &[], &(1..=10).collect::<Vec<_>>());
}

#[tokio::test]
async fn case_67_a_refusal_without_an_owner_never_counts_as_delivered() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    let without_echo = |count| SimFault::RefuseWithoutEcho { count, error: "dimensionId must be specified".into() };
    // One item: it is the one.
    scene.sim.queue_fault(without_echo(1));
    scene.insert(1, 1).await;
    scene.number("SELECT count(*) FROM pg2planhat.quarantine WHERE key = '1' AND reason LIKE 'refused:%'", 1).await;
    assert_eq!(scene.outcomes().await, ["quarantined"]);
    // As many as items: all of them.
    scene.sim.queue_fault(without_echo(5));
    scene.insert(2, 6).await;
    scene.number("SELECT count(*) FROM pg2planhat.quarantine", 6).await;
    // Fewer: nobody knows which.
    scene.sim.queue_fault(without_echo(1));
    scene.insert(7, 16).await;
    scene.metrics(9).await;
    scene.number("SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'in_doubt'", 1).await;
    scene.insert(17, 20).await;
    scene.metrics(13).await;
    assert_eq!(scene.outcomes().await, ["quarantined", "quarantined", "in_doubt", "delivered"]);
    scene.assert_received(20, &[], &[1, 2, 3, 4, 5, 6, 7]);
    scene.number("SELECT count(*) FROM pg2planhat.quarantine", 6).await;
    let error = scene.cluster.text("SELECT error FROM pg2planhat.delivery WHERE outcome = 'in_doubt'").await;
    assert!(error.contains("dimensionId must be specified") && error.contains("without saying which"), "{error}");
    let totals = scene
        .column("SELECT rows_delivered || ' ' || rows_quarantined || ' ' || rows_in_doubt FROM pg2planhat.section")
        .await;
    assert_eq!(totals, ["4 6 10"]);
    assert_eq!(in_doubt(&app).await, 10.0);
    // The next start does not take it for a batch that is sent again.
    app.sigterm();
    assert_eq!(app.wait_exit(PATIENCE).await, 0);
    let _app = scene.run().await;
    scene.insert(21, 21).await;
    scene.metrics(14).await;
    assert_eq!(scene.outcomes().await[2], "in_doubt");
}

#[tokio::test]
async fn case_67_two_reasons_for_one_item_are_one_refusal() {
    let scene = Scene::new().await;
    let _app = scene.run().await;
    scene.sim.queue_fault(SimFault::RefuseTwice { errors: vec!["no value".into(), "no such company".into()] });
    // Three equal rows: one refused for two reasons, its twins accepted.
    let equal = "INSERT INTO m (external_id, value, at) SELECT 'k1', 1, '2024-01-01' FROM generate_series(1, 3)";
    scene.cluster.sql(equal).await;
    scene.number("SELECT count(*) FROM pg2planhat.quarantine", 1).await;
    scene.metrics(2).await;
    assert_eq!(scene.outcomes().await, ["partial"]);
    let reason = scene.cluster.text("SELECT reason FROM pg2planhat.quarantine").await;
    assert_eq!(reason, "refused: no value; no such company");
    assert_eq!(scene.cluster.text("SELECT rows_delivered::text FROM pg2planhat.section").await, "2");
}

/// A server that refuses large bodies by their head, and resets: the request is halved until it fits.
#[tokio::test]
async fn case_97_a_413_by_headers_alone_then_a_reset_is_halved() {
    // More than the kernel's buffers hold: a smaller request is written before the reset comes, and then nothing tells what
    // became of it.
    let section = seats().set("batch", "{ rows: 10000, bytes: 24MiB }").set("flush", "2s");
    let scene = Scene::of(&[section]).await;
    let app = scene.run().await;
    scene.sim.queue_fault(SimFault::TooLargeReset { over: 12_000_000 }.times(0));
    let big = "INSERT INTO m (external_id, value) SELECT 'k' || g || '-' || repeat('x', 40000), g FROM generate_series(1, 500) g";
    scene.cluster.sql(big).await;
    scene.metrics(500).await;
    scene.assert_received(500, &[], &[]);
    let outcomes = scene.outcomes().await;
    assert!(outcomes.iter().all(|outcome| outcome == "delivered"), "{outcomes:?}");
    assert_eq!(scene.cluster.number("SELECT count(*) FROM pg2planhat.quarantine").await, 0);
    assert_eq!(in_doubt(&app).await, 0.0);
}

/// After an outage the first answer that one section gets hurries all the others.
#[tokio::test]
async fn case_97_one_success_hurries_the_others() {
    let sections: Vec<SectionText> = (1..=12).map(|n| SectionText::metric(&format!("seats{n}"), "m")).collect();
    let scene = Scene::of(&sections).await;
    let app = scene.run().await;
    scene.sim.queue_fault(SimFault::status(503).times(0));
    scene.insert(1, 5).await;
    // Long enough that the pauses have grown to many seconds.
    let tried = || async { app.metric("retries_total", &[("reason", "later")]).await.filter(|n| *n >= 12.0 * 6.0) };
    eventually(Duration::from_secs(90), "six refusals of each section", tried).await;
    let rounds = scene.sim.stats().metrics.requests;
    scene.sim.clear_faults();
    let began = std::time::Instant::now();
    scene.sink(|stats| stats.metrics.accepted >= 1).await;
    let first = began.elapsed();
    scene.metrics(60).await;
    let spread = began.elapsed() - first;
    assert!(spread < Duration::from_secs(5), "the others came {spread:?} after the first, {rounds} requests before");
}

/// A row sent again keeps the date that was sent with it: Planhat would take the time of receipt.
#[tokio::test]
async fn case_75_a_retry_sends_the_date_that_was_sent_before() {
    let scene = Scene::of(&[seats().without("date").set("start", "now")]).await;
    let _app = scene.run().await;
    scene.sim.queue_fault(SimFault::RefuseFirst { count: 1, error: "no such company".into() });
    scene.insert(1, 1).await;
    scene.number("SELECT count(*) FROM pg2planhat.quarantine", 1).await;
    let item = scene.cluster.text("SELECT item FROM pg2planhat.quarantine").await;
    let sent: Value = serde_json::from_str(&item).unwrap();
    assert!(sent["date"].is_string(), "{item}");
    scene.cluster.sql("UPDATE m SET value = 7").await;
    let retried = App::command(&scene.config, &["quarantine", "retry", "--all", "--yes"]).await;
    assert_eq!(retried.code, 0, "{retried:?}");
    scene.metrics(1).await;
    let again = scene.sim.items(pg2planhat::testing::sim::SinkKind::Metric)[0].item();
    assert_eq!((again["value"].as_f64(), &again["date"]), (Some(7.0), &sent["date"]), "mended, and as of then");
}

/// Two hundred quarantined rows of some 600 KB are sent again in rounds, not held at once.
#[tokio::test]
async fn case_84_a_retry_reads_rows_within_a_budget_of_bytes() {
    let section = seats().set("batch", "{ rows: 10000, bytes: 4MiB }");
    let mut scene = Scene::of(&[section]).await;
    scene.config = scene.config.set("memory", "32MiB");
    let app = scene.run().await;
    scene.sim.queue_fault(SimFault::status(413).times(0));
    let big = "INSERT INTO m (external_id, value) SELECT 'k' || g || '-' || repeat('x', 600000), g FROM generate_series(1, 60) g";
    scene.cluster.sql(big).await;
    scene.number("SELECT count(*) FROM pg2planhat.quarantine", 60).await;
    scene.sim.clear_faults();
    let before = app.rss();
    let retried = App::command(&scene.config, &["quarantine", "retry", "--all", "--yes"]).await;
    assert_eq!(retried.code, 0, "{retried:?}");
    let mut most = before;
    while scene.sim.stats().metrics.items < 60 {
        most = most.max(app.rss());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    scene.number("SELECT count(*) FROM pg2planhat.quarantine", 0).await;
    scene.assert_received(60, &[], &[]);
    assert!(most < before + (32 << 20), "{} MiB, {} before", most >> 20, before >> 20);
    let done = || async {
        let result =
            scene.cluster.text("SELECT coalesce(result, '') FROM pg2planhat.event ORDER BY id DESC LIMIT 1").await;
        (result == "60 rows are sent again").then_some(())
    };
    eventually(PATIENCE, "the event's result", done).await;
}
