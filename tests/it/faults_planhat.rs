//! tests/FAULTS.md, "Planhat": what the sink may do, and what then must be true on both sides.

use std::time::{Duration, Instant};

use pg2planhat::testing::sim::{SimFault, SimOptions, SinkKind, SinkRoute};
use serde_json::Value;

use crate::cli_ops_look::stop;
use crate::delivery_scene::{PATIENCE, Scene, of_section, received, seats};
use crate::harness::{App, Cluster, SectionText, eventually};

fn reject(number: u64, status: u16) -> SimFault {
    SimFault::Reject { field: "externalId".into(), equals: format!("k{number}").into(), status }
}

fn busy(status: u16, retry_after: Option<&str>) -> SimFault {
    SimFault::Status { status, retry_after: retry_after.map(str::to_owned), body: String::new(), store: false }
}

/// Waits until the section is halted; its reason.
async fn halted(app: &App, section: &str) -> String {
    let reason = |status: &Value| {
        let section = of_section(status, section);
        (section["state"] == "halted").then(|| section["reason"].as_str().unwrap().to_owned())
    };
    app.wait_status("the section to be halted", reason).await
}

#[tokio::test]
async fn case_43_items_named_in_a_200_are_quarantined_and_the_rest_settled() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    let refuse = |n: u64| SimFault::Refuse {
        field: "externalId".into(),
        equals: format!("k{n}").into(),
        error: "no such company".into(),
    };
    scene.sim.queue_fault(refuse(7));
    scene.insert(1, 20).await;
    scene.metrics(19).await;
    // A whole batch refused, item by item.
    scene.sim.queue_fault(SimFault::RefuseFirst { count: 100, error: "unwanted".into() });
    scene.insert(21, 25).await;
    scene.number("SELECT count(*) FROM pg2planhat.quarantine", 6).await;
    scene.insert(26, 30).await;
    scene.metrics(24).await;
    let held = scene.column("SELECT key || ' ' || reason FROM pg2planhat.quarantine ORDER BY id").await;
    assert_eq!(held[0], "7 refused: no such company");
    assert_eq!(held[1..], ["21", "22", "23", "24", "25"].map(|key| format!("{key} refused: unwanted")));
    let item = scene.cluster.text("SELECT item FROM pg2planhat.quarantine WHERE key = '7'").await;
    assert_eq!(serde_json::from_str::<Value>(&item).unwrap()["externalId"], "k7");
    assert_eq!(scene.outcomes().await, ["partial", "quarantined", "delivered"]);
    scene.assert_received(30, &[], &[7, 21, 22, 23, 24, 25]);
    let counted = || async {
        let refused = app.metric("rows_quarantined_total", &[("reason", "refused")]).await;
        (refused == Some(6.0)).then_some(())
    };
    eventually(PATIENCE, "the metric of quarantined rows", counted).await;
}

#[tokio::test]
async fn case_43_the_same_item_twice_and_one_of_them_refused() {
    let scene = Scene::new().await;
    let _app = scene.run().await;
    scene.sim.queue_fault(SimFault::RefuseFirst { count: 1, error: "once".into() });
    let twins = "INSERT INTO m (external_id, value, at) SELECT 'k1', 1, '2024-01-01' FROM generate_series(1, 2)";
    scene.cluster.sql(twins).await;
    scene.number("SELECT count(*) FROM pg2planhat.quarantine", 1).await;
    scene.metrics(1).await;
    assert_eq!(scene.outcomes().await, ["partial"]);
    assert_eq!(scene.received()[&1], 1);
}

#[tokio::test]
async fn case_44_a_bad_item_is_found_by_halving_and_the_rest_delivered_in_order() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    for (number, status) in [(1, 400), (50, 422), (51, 409), (100, 400)] {
        scene.sim.queue_fault(reject(number, status).times(0));
    }
    scene.insert(1, 100).await;
    scene.metrics(96).await;
    scene.number("SELECT count(*) FROM pg2planhat.quarantine", 4).await;
    scene.assert_received(100, &[], &[1, 50, 51, 100]);
    let order =
        scene.sim.items(SinkKind::Metric).iter().map(|item| item.item()["value"].as_f64().unwrap()).collect::<Vec<_>>();
    assert!(order.is_sorted(), "the last value of a day must stay the last: {order:?}");
    let held =
        scene.column("SELECT key || ' ' || split_part(reason, ':', 1) FROM pg2planhat.quarantine ORDER BY id").await;
    assert_eq!(held, ["1 refused", "50 refused", "51 refused", "100 refused"]);
    let status = app.status().await;
    assert_eq!(of_section(&status, "seats")["state"], "streaming");
    scene.assert_confirmed_behind_checkpoint().await;
}

#[tokio::test]
async fn case_44_many_in_a_row_halt_the_section_as_the_mapping_until_it_is_mended() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.sim.queue_fault(SimFault::status(400).times(0));
    scene.insert(1, 64).await;
    let after = scene.wal().await;
    let reason = halted(&app, "seats").await;
    assert!(reason.contains("mapping"), "{reason}");
    // It probes, and quarantines nothing by that.
    let requests = scene.sim.stats().metrics.requests;
    scene.sink(|stats| stats.metrics.requests >= requests + 3).await;
    scene.number("SELECT count(*) FROM pg2planhat.quarantine", 10).await;
    assert!(!scene.is_confirmed_past(&after).await);
    scene.sim.clear_faults();
    scene.metrics(54).await;
    scene.streaming(&app).await;
    scene.number("SELECT count(*) FROM pg2planhat.quarantine", 10).await;
    scene.assert_received(64, &[], &(1..=10).collect::<Vec<_>>());
}

#[tokio::test]
async fn case_45_what_is_too_large_is_halved_and_a_single_item_quarantined() {
    let scene = Scene::new().await;
    let _app = scene.run().await;
    scene.sim.queue_fault(SimFault::TooLarge { over: 2_000 }.times(0));
    scene.cluster.sql("INSERT INTO m (external_id, value) SELECT 'k' || g || repeat(CASE g WHEN 33 THEN '-x' ELSE '' END, 2000), g FROM generate_series(1, 100) g").await;
    scene.metrics(99).await;
    scene.number("SELECT count(*) FROM pg2planhat.quarantine WHERE reason LIKE 'too_large:%' AND key = '33'", 1).await;
    scene.number("SELECT count(*) FROM pg2planhat.quarantine", 1).await;
    scene.assert_received(100, &[], &[33]);
}

/// 40 rows of 2 MB: under the largest limits no body is over 30,000,000 bytes; a row over that goes into quarantine without
/// a request.
#[tokio::test]
async fn case_45_no_body_is_over_thirty_million_bytes() {
    let sections = [seats().set("batch", "{ rows: 10000, bytes: 30000000 }").set("flush", "2s")];
    let options = SimOptions { max_body: 30_000_000, ..SimOptions::default() };
    let mut scene = Scene::on(Cluster::start().await, options, &sections).await;
    scene.config = scene.config.set("memory", "512MiB");
    let _app = scene.run().await;
    let big = "INSERT INTO m (external_id, value) SELECT 'k' || g || '-' || repeat('x', 2000000), g FROM generate_series(1, 40) g";
    scene.cluster.sql(big).await;
    scene.metrics(40).await;
    scene.cluster.sql("INSERT INTO m (external_id, value) VALUES ('k41-' || repeat('x', 31000000), 41)").await;
    scene.number("SELECT count(*) FROM pg2planhat.quarantine", 1).await;
    let held = scene.column("SELECT key || ' ' || reason FROM pg2planhat.quarantine").await;
    assert!(held[0].starts_with("41 too_large:"), "{held:?}");
    scene.assert_received(41, &[], &[41]);
    let stats = scene.sim.stats().metrics;
    assert_eq!((stats.accepted, stats.requests), (3, 3), "40 rows of 2 MB are 3 bodies of at most 30,000,000 bytes");
}

/// The environment: halted, said, probed, resumed; nothing confirmed past it, nothing quarantined, nothing doubled.
async fn halts_and_resumes(faults: Vec<(SimFault, &str)>) {
    let scene = Scene::new().await;
    let app = scene.run().await;
    let mut last = 0;
    for (fault, word) in faults {
        let before = scene.wal().await;
        scene.sim.queue_fault(fault.clone().times(0));
        let (from, to) = (last + 1, last + 10);
        scene.insert(from, to).await;
        let reason = halted(&app, "seats").await;
        assert!(reason.contains(word), "{fault:?}: {reason}");
        let status = app.status().await;
        assert!(!of_section(&status, "seats")["remedy"].as_str().unwrap().is_empty());
        let is_halted = app.metric("section_state", &[("section", "seats"), ("state", "halted")]).await;
        assert_eq!(is_halted, Some(1.0), "{fault:?}");
        let requests = scene.sim.stats().metrics.requests;
        scene.sink(|stats| stats.metrics.requests >= requests + 2).await;
        let after = scene.wal().await;
        assert!(!scene.is_confirmed_past(&after).await && before < after, "{fault:?}");
        scene.assert_confirmed_behind_checkpoint().await;
        scene.number("SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'sending' AND NOT under_way", 1).await;
        scene.sim.clear_faults();
        scene.metrics(to).await;
        scene.streaming(&app).await;
        assert_eq!(app.metric("section_state", &[("section", "seats"), ("state", "streaming")]).await, Some(1.0));
        last = to;
    }
    scene.assert_received(last, &[], &[]);
    assert_eq!(scene.cluster.number("SELECT count(*) FROM pg2planhat.quarantine").await, 0);
    assert_eq!(app.metric("rows_in_doubt_total", &[]).await, Some(0.0));
}

#[tokio::test]
async fn case_46_refused_access_halts_probes_and_resumes() {
    let status = |status| SimFault::status(status);
    halts_and_resumes(vec![(status(401), "401"), (status(403), "403"), (status(404), "404"), (status(410), "410")])
        .await;
}

#[tokio::test]
async fn case_46_redirects_and_pages_halt_probe_and_resume() {
    let redirect = |status| SimFault::Redirect { status, location: "https://login.test/".into() };
    let page = SimFault::Html { status: 200 };
    halts_and_resumes(vec![
        (redirect(302), "302"),
        (redirect(308), "308"),
        (page, "html"),
        (SimFault::status(405), "405"),
    ])
    .await;
}

/// One section halted from the first request on, and still halted after a restart: nothing of it is lost.
#[tokio::test]
async fn case_46_a_halt_outlives_a_restart() {
    let scene = Scene::new().await;
    scene.sim.queue_fault(SimFault::status(403).times(0));
    scene.insert(1, 10).await;
    let app = App::run(&scene.config);
    halted(&app, "seats").await;
    app.kill9().await;
    let app = App::run(&scene.config);
    halted(&app, "seats").await;
    scene.sim.clear_faults();
    scene.metrics(10).await;
    scene.streaming(&app).await;
    scene.assert_received(10, &[], &[]);
    assert!(scene.outcomes().await.iter().all(|outcome| outcome == "delivered"));
}

#[tokio::test]
async fn case_47_later_is_later_for_ever_whatever_retry_after_says() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    let absurd = ["9999999999999", "-1", "soon", "", "Thu, 01 Jan 1970 00:00:00 GMT"];
    for (status, retry_after) in [408, 425, 429, 503, 503].into_iter().zip(absurd) {
        scene.sim.queue_fault(busy(status, Some(retry_after)));
    }
    scene.sim.queue_fault(busy(429, None));
    scene.insert(1, 10).await;
    scene.metrics(10).await;
    assert_eq!(scene.outcomes().await, ["delivered"]);
    scene.number("SELECT attempts FROM pg2planhat.delivery", 7).await;
    scene.assert_received(10, &[], &[]);
    assert_eq!(app.metric("retries_total", &[("reason", "later")]).await, Some(6.0));
    assert_eq!(app.metric("rows_in_doubt_total", &[]).await, Some(0.0));
    assert_eq!(scene.cluster.number("SELECT count(*) FROM pg2planhat.quarantine").await, 0);
}

#[tokio::test]
async fn case_47_retry_after_in_seconds_and_as_a_date_is_obeyed_and_shown() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    let date = || {
        let at = jiff::Timestamp::now() + Duration::from_secs(4);
        at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    };
    for number in [1, 2] {
        let retry_after = if number == 1 { "2".to_owned() } else { date() };
        scene.sim.queue_fault(busy(503, Some(&retry_after)));
        let began = Instant::now();
        scene.insert(number, number).await;
        let shown = |status: &Value| {
            of_section(status, "seats")["reason"].as_str().is_some_and(|reason| reason.contains("503")).then_some(())
        };
        app.wait_status("the sink's trouble in the status", shown).await;
        scene.metrics(number).await;
        // A date has whole seconds only.
        assert!(began.elapsed() >= Duration::from_millis(1900), "{retry_after}: {:?}", began.elapsed());
        let gone = |status: &Value| of_section(status, "seats")["reason"].is_null().then_some(());
        app.wait_status("the trouble to be over", gone).await;
    }
    scene.assert_received(2, &[], &[]);
}

#[tokio::test]
async fn case_48_a_refused_connection_is_not_in_doubt() {
    let mut scene = Scene::new().await;
    let app = scene.run().await;
    scene.sim.stop().await;
    scene.insert(1, 10).await;
    let tried = || async { app.metric("retries_total", &[("reason", "not_sent")]).await.filter(|n| *n >= 3.0) };
    eventually(PATIENCE, "three refused connections", tried).await;
    scene.sim.restart().await.unwrap();
    scene.metrics(10).await;
    assert_eq!(scene.outcomes().await, ["delivered"]);
    scene.assert_received(10, &[], &[]);
    assert_eq!(app.metric("rows_in_doubt_total", &[]).await, Some(0.0));
    // And across a crash meanwhile: what was surely not received is no doubt at the next start.
    scene.sim.stop().await;
    scene.insert(11, 20).await;
    scene.number("SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'sending' AND NOT under_way", 1).await;
    app.kill9().await;
    scene.sim.restart().await.unwrap();
    let app = scene.run().await;
    scene.metrics(20).await;
    scene.assert_received(20, &[], &[]);
    assert_eq!(app.metric("rows_in_doubt_total", &[]).await, Some(0.0));
}

#[tokio::test]
async fn case_48_no_such_name_and_no_tls_are_not_in_doubt() {
    let scene = Scene::new().await;
    for (url, word) in [("http://sink.invalid:1".to_owned(), ""), (scene.sim.url().replace("http", "https"), "")] {
        let config = scene.config.clone().set("planhat.url", &url).set("planhat.timeout", "2s");
        let app = App::run(&config);
        app.wait_ready().await;
        scene.insert(1, 3).await;
        let tried = || async { app.metric("retries_total", &[("reason", "not_sent")]).await.filter(|n| *n >= 2.0) };
        eventually(PATIENCE, &format!("{url} to fail"), tried).await;
        assert_eq!(app.metric("rows_in_doubt_total", &[]).await, Some(0.0));
        let log = app.log();
        assert!(log.contains("not received") && log.contains(word), "{log}");
        app.sigterm();
        assert_eq!(app.wait_exit(PATIENCE).await, 0);
        scene.cluster.sql("TRUNCATE m").await;
    }
    assert_eq!(scene.cluster.number("SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'in_doubt'").await, 0);
}

/// What may happen to a request whose answer never comes, and whether the sink kept its items.
fn doubts() -> [(SimFault, bool); 4] {
    [
        (SimFault::ResetAfterStoring, true),
        (SimFault::Status { status: 504, retry_after: None, body: String::new(), store: true }, true),
        (SimFault::Hang { store: true }, true),
        (SimFault::Hang { store: false }, false),
    ]
}

#[tokio::test]
async fn case_49_a_lost_answer_is_in_doubt_counted_named_and_sent_again() {
    let mut scene = Scene::new().await;
    scene.config = scene.config.set("planhat.timeout", "500ms");
    let app = scene.run().await;
    let (mut twice, mut last) = (Vec::new(), 0);
    for (fault, stored) in doubts() {
        scene.sim.queue_fault(fault);
        scene.insert(last + 1, last + 10).await;
        if stored {
            twice.extend(last + 1..=last + 10);
        }
        last += 10;
        scene.metrics(last + twice.len() as u64).await;
        scene.outcomes().await;
    }
    scene.assert_received(last, &twice, &[]);
    let ledger = scene
        .column("SELECT outcome || ' ' || first_key || '-' || last_key FROM pg2planhat.delivery ORDER BY id")
        .await;
    let expected = (0..4).flat_map(|n| {
        let keys = format!("{}-{}", n * 10 + 1, n * 10 + 10);
        [format!("resent {keys}"), format!("delivered {keys}")]
    });
    assert_eq!(ledger, expected.collect::<Vec<_>>());
    let counted = || async {
        let metrics = app.metrics().await;
        let is = |name, rows| metrics.get(name, &[("section", "seats")]) == Some(rows);
        (is("rows_in_doubt_total", 40.0) && is("rows_resent_total", 40.0) && is("rows_delivered_total", 40.0))
            .then_some(())
    };
    eventually(PATIENCE, "the metrics of doubt", counted).await;
    let status = app.status().await;
    let section = of_section(&status, "seats");
    assert_eq!((section["rows_in_doubt"].as_u64(), section["rows_resent"].as_u64()), (Some(40), Some(40)));
}

/// Reset before the body was read: in doubt or surely not received, as it happens; nothing lost, nothing doubled.
#[tokio::test]
async fn case_49_a_reset_before_reading_loses_and_doubles_nothing() {
    let scene = Scene::new().await;
    let _app = scene.run().await;
    scene.sim.queue_fault(SimFault::ResetBeforeReading.times(3));
    scene.insert(1, 10).await;
    scene.metrics(10).await;
    let outcomes = scene.outcomes().await;
    assert!(outcomes.iter().all(|outcome| outcome == "resent" || outcome == "delivered"), "{outcomes:?}");
    scene.assert_received(10, &[], &[]);
}

#[tokio::test]
async fn case_49_under_hold_what_is_in_doubt_waits_for_a_person() {
    let mut scene = Scene::of(&[seats().set("in_doubt", "hold")]).await;
    scene.config = scene.config.set("planhat.timeout", "500ms");
    let app = scene.run().await;
    scene.sim.queue_fault(SimFault::ResetAfterStoring);
    scene.insert(1, 10).await;
    scene.number("SELECT count(*) FROM pg2planhat.quarantine WHERE reason LIKE 'in_doubt:%'", 10).await;
    scene.insert(11, 20).await;
    scene.metrics(20).await;
    assert_eq!(scene.outcomes().await, ["held", "delivered"]);
    scene.assert_received(20, &[], &[]);
    let counted = || async {
        let metrics = app.metrics().await;
        let held = metrics.get("rows_quarantined_total", &[("reason", "in_doubt")]) == Some(10.0);
        (held && metrics.get("rows_in_doubt_total", &[]) == Some(10.0)).then_some(())
    };
    eventually(PATIENCE, "the metrics of doubt", counted).await;
}

/// Killed while the second of three batches hangs: the next start sends exactly that one again, or holds it.
async fn killed_while_a_request_hangs(policy: &str, stored: bool, backfill: bool) {
    let section = seats().set("in_doubt", policy).set("batch", "{ rows: 10 }");
    let mut scene = Scene::of(&[section]).await;
    scene.config = scene.config.set("planhat.timeout", "60s");
    let app = if backfill {
        scene.insert(1, 25).await;
        hang_second(&scene, stored);
        App::run(&scene.config)
    } else {
        let app = scene.run().await;
        hang_second(&scene, stored);
        scene.insert(1, 25).await;
        app
    };
    let brought = if stored { 20 } else { 10 };
    scene
        .sink(|stats| stats.metrics.requests == 2 && stats.metrics.under_way == 1 && stats.metrics.items == brought)
        .await;
    scene.number("SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'delivered'", 1).await;
    app.kill9().await;
    let app = App::run(&scene.config);
    app.wait_ready().await;
    let second = (11..=20).collect::<Vec<_>>();
    let (twice, never, items): (&[u64], &[u64], u64) = match (policy, stored) {
        ("resend", true) => (&second, &[], 35),
        ("resend", false) => (&[], &[], 25),
        ("hold", true) => (&[], &[], 25),
        _ => (&[], &second, 15),
    };
    scene.metrics(items).await;
    scene.outcomes().await;
    scene.assert_received(25, twice, never);
    let word = if policy == "hold" { "held" } else { "resent" };
    let ledger = scene
        .column("SELECT outcome || ' ' || first_key || '-' || last_key FROM pg2planhat.delivery ORDER BY id")
        .await;
    assert_eq!(ledger[..2], ["delivered 1-10".to_owned(), format!("{word} 11-20")], "{ledger:?}");
    assert!(ledger[2..].iter().all(|row| row.starts_with("delivered")), "{ledger:?}");
    let held = scene.column("SELECT key FROM pg2planhat.quarantine WHERE reason LIKE 'in_doubt:%' ORDER BY id").await;
    let expected: Vec<String> = if policy == "hold" { second.iter().map(u64::to_string).collect() } else { Vec::new() };
    assert_eq!(held, expected);
    assert_eq!(app.metric("rows_in_doubt_total", &[]).await, Some(10.0));
}

/// Lets the first request pass and hangs the second.
fn hang_second(scene: &Scene, stored: bool) {
    scene.sim.queue_fault(SimFault::Slow { millis: 0 });
    scene.sim.queue_fault(SimFault::Hang { store: stored });
}

#[tokio::test]
async fn case_49_killed_under_a_stored_request_resends_exactly_that_batch() {
    killed_while_a_request_hangs("resend", true, false).await;
}

#[tokio::test]
async fn case_49_killed_under_a_request_that_was_not_stored_loses_nothing() {
    killed_while_a_request_hangs("resend", false, false).await;
}

#[tokio::test]
async fn case_49_killed_under_a_request_holds_exactly_that_batch() {
    killed_while_a_request_hangs("hold", true, false).await;
}

#[tokio::test]
async fn case_49_killed_under_a_request_of_a_backfill_resends_exactly_that_batch() {
    killed_while_a_request_hangs("resend", true, true).await;
}

#[tokio::test]
async fn case_49_killed_under_a_request_of_a_backfill_holds_exactly_that_batch() {
    killed_while_a_request_hangs("hold", false, true).await;
}

#[tokio::test]
async fn case_50_answers_that_drip_never_end_or_explode_are_cut_and_in_doubt() {
    let mut scene = Scene::new().await;
    scene.config = scene.config.set("planhat.timeout", "700ms").set("memory", "32MiB");
    let app = scene.run().await;
    let faults = [SimFault::Drip { millis: 5 }, SimFault::Endless, SimFault::GzipBomb];
    let mut last = 0;
    for fault in faults {
        scene.sim.queue_fault(fault);
        scene.insert(last + 1, last + 5).await;
        last += 5;
        // Most likely received: never sent again by itself, and named.
        scene.metrics(last).await;
        // It probes with what comes next.
        last += 1;
        scene.insert(last, last).await;
        scene.metrics(last).await;
        scene.streaming(&app).await;
        scene.outcomes().await;
    }
    scene.assert_received(last, &[], &[]);
    let outcomes = scene.outcomes().await;
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "in_doubt").count(), 3, "{outcomes:?}");
    assert!(outcomes.iter().all(|outcome| outcome == "in_doubt" || outcome == "delivered"), "{outcomes:?}");
    let named = scene.cluster.number("SELECT sum(rows) FROM pg2planhat.delivery WHERE outcome = 'in_doubt'").await;
    assert_eq!(app.metric("rows_in_doubt_total", &[]).await, Some(named as f64));
    // 4 MiB of an answer are kept at most, beside twice the request: nothing of the 160 MB and more.
    assert!(app.rss() < 96 << 20, "{} MiB", app.rss() >> 20);
}

fn logins() -> SectionText {
    SectionText::activity("logins", "a").set("batch", "{ rows: 500, bytes: 1MiB }")
}

#[tokio::test]
async fn case_51_one_sections_sink_is_down_and_the_other_goes_on_beyond_the_memory() {
    let mut scene = Scene::of(&[seats().set("batch", "{ rows: 500, bytes: 1MiB }"), logins()]).await;
    scene.config = scene.config.set("memory", "4MiB");
    let app = scene.run().await;
    scene.sim.queue_fault(SimFault::status(503).times(0).on(SinkRoute::Bulk));
    // Some 10 MB of activities beside as many metrics: more than twice the memory, which both share.
    let rows = 400;
    let rounds = 25;
    let mut buffered: f64 = 0.0;
    for round in 0..rounds {
        let (from, to) = (round * rows + 1, (round + 1) * rows);
        let both = format!(
            "INSERT INTO a (user_id, action, weight) SELECT 'k' || g, repeat('x', 1000), 1 FROM generate_series({from}, {to}) g; \
             INSERT INTO m (external_id, value) SELECT 'k' || g || '-' || repeat('x', 1000), g FROM generate_series({from}, {to}) g"
        );
        scene.cluster.sql(&both).await;
        buffered = buffered.max(app.metric("buffered_bytes", &[]).await.unwrap());
    }
    let total = rows * rounds;
    scene.metrics(total).await;
    assert_eq!(scene.sim.stats().activities.items, 0);
    assert!(buffered <= f64::from(4 << 20), "{buffered}");
    let named = |status: &serde_json::Value| {
        of_section(status, "logins")["reason"].as_str().filter(|reason| reason.contains("503")).map(str::to_owned)
    };
    app.wait_status("the section that waits, and why", named).await;
    scene.assert_confirmed_behind_checkpoint().await;
    scene.sim.clear_faults();
    scene.sink(|stats| stats.activities.items >= total).await;
    scene.outcomes().await;
    scene.assert_received(total, &[], &[]);
    let activities = received(&scene.sim, SinkKind::Activity);
    assert!(activities.len() as u64 == total && activities.values().all(|times| *times == 1), "each exactly once");
    let balanced = || async {
        let metrics = app.metrics().await;
        let count = |name, section| metrics.get(name, &[("section", section)]).unwrap_or(0.0);
        ["seats", "logins"].iter().all(|section| count("rows_delivered_total", section) == total as f64).then_some(())
    };
    eventually(PATIENCE, "both sections' counters", balanced).await;
}

#[tokio::test]
async fn case_316_another_tenant_or_address_is_told_of_once() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.insert(1, 3).await;
    scene.metrics(3).await;
    stop(&app).await;
    assert!(!app.log().contains("the sink is another one"), "{}", app.log());
    let tenant = "99999999-2222-4333-8444-555555555555";
    let moved = scene.config.clone().set("planhat.tenant", tenant);
    for (config, said) in
        [(&moved, Some("rows go to another tenant of")), (&moved, None), (&scene.config, Some("another tenant"))]
    {
        let app = App::run(config);
        app.wait_ready().await;
        stop(&app).await;
        let log = app.log();
        assert_eq!(log.contains("the sink is another one"), said.is_some(), "{log}");
        assert!(said.is_none_or(|said| log.contains(said)) && !log.contains(tenant), "{log}");
    }
    let kept = "SELECT count(*) FROM pg2planhat.event WHERE args::text LIKE '%99999999-%' OR result LIKE '%99999999-%'";
    assert_eq!(scene.cluster.number(kept).await, 0, "the credential stays out of the state");
}
