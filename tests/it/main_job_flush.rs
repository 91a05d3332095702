//! When a batch goes, how large it is, and what its items are called.

use std::time::Duration;

use pg2planhat::testing::sim::{Names, Received, SimFault, SimOptions, SinkKind};

use crate::harness::{App, Cluster, ConfigText, SectionText, eventually};
use crate::main_job_oracle::*;

const TABLE: &str = "CREATE TABLE t (id bigserial PRIMARY KEY, value int DEFAULT 1, account text DEFAULT 'acme')";

fn section() -> SectionText {
    SectionText::metric("t", "t").field("externalId", "id").without("date").set("date", "receipt")
}

fn activity() -> SectionText {
    SectionText::activity("t", "t").without("email").field("externalId", "id").field("action", "{ value: login }")
}

/// Items of each request, in order.
fn requests(items: &[Received]) -> Vec<Vec<i64>> {
    let mut requests: Vec<(u64, Vec<i64>)> = Vec::new();
    for item in items {
        match requests.last_mut() {
            Some((request, keys)) if *request == item.request => keys.push(key(item)),
            _ => requests.push((item.request, vec![key(item)])),
        }
    }
    requests.into_iter().map(|(_, keys)| keys).collect()
}

/// Rows wait for their interval together; a full batch does not wait.
#[tokio::test]
async fn flush_by_interval_gathers_and_a_full_batch_never_waits() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster.sql(TABLE).await;
    let section = section().set("flush", "2s").set("batch", "{ rows: 10 }");
    let app = App::run(&ConfigText::new(&cluster, &sim.url()).section(section));
    section_is(&app, "t", "streaming").await;
    let begun = jiff::Timestamp::now();
    for _ in 0..5 {
        cluster.sql("INSERT INTO t DEFAULT VALUES").await;
    }
    let items = arrived(&sim, SinkKind::Metric, 5).await;
    assert_eq!(requests(&items), [vec![1, 2, 3, 4, 5]]);
    let waited = items[0].at.duration_since(begun);
    assert!(waited >= jiff::SignedDuration::from_millis(1900), "{waited}");
    // 25 rows: two full batches at once, the rest after the interval.
    let begun = jiff::Timestamp::now();
    cluster.sql("INSERT INTO t SELECT FROM generate_series(1, 25)").await;
    let items = arrived(&sim, SinkKind::Metric, 30).await.split_off(5);
    assert_eq!(requests(&items).iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
    let waited = |at: usize| items[at].at.duration_since(begun);
    assert!(waited(19) < jiff::SignedDuration::from_millis(1500), "{} {}", waited(9), waited(19));
    assert!(waited(24) >= jiff::SignedDuration::from_millis(1900), "{}", waited(24));
    drain(app, &cluster).await;
}

/// Once a day: what came before the hour goes at the hour, what came after it waits; a drain sends it all the same.
#[tokio::test]
async fn flush_daily_at_waits_for_its_hour() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster.sql(&format!("{TABLE}; INSERT INTO t SELECT FROM generate_series(1, 3)")).await;
    let due = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(12);
    let due = due.round(jiff::Unit::Second).unwrap();
    let zone = "Asia/Kathmandu";
    let clock = due.in_tz(zone).unwrap().strftime("%H:%M:%S").to_string();
    let section = section().set("flush", format!("{{ daily_at: \"{clock}\", timezone: {zone} }}"));
    let app = App::run(&ConfigText::new(&cluster, &sim.url()).section(section));
    // A backfill does not wait for the hour.
    arrived(&sim, SinkKind::Metric, 3).await;
    section_is(&app, "t", "streaming").await;
    assert!(jiff::Timestamp::now() < due, "too slow to have tried anything");
    cluster.sql("INSERT INTO t DEFAULT VALUES").await;
    cluster.sql("INSERT INTO t DEFAULT VALUES").await;
    let items = arrived(&sim, SinkKind::Metric, 5).await.split_off(3);
    assert_eq!(requests(&items), [vec![4, 5]]);
    let late = items[0].at.duration_since(due);
    assert!(late >= jiff::SignedDuration::from_millis(-50), "{late} after its hour");
    assert!(late < jiff::SignedDuration::from_secs(5), "{late} after its hour");
    // After the hour: waits for tomorrow's, or for the end. The two are settled first: their own age would be taken for its.
    let settled = |status: &serde_json::Value| (status["sections"][0]["rows_delivered"] == 5).then_some(());
    app.wait_status("the two to be settled", settled).await;
    cluster.sql("INSERT INTO t DEFAULT VALUES").await;
    let read = |status: &serde_json::Value| (status["sections"][0]["lag_seconds"].as_f64()? > 1.0).then_some(());
    app.wait_status("the row to wait", read).await;
    assert_eq!(sim.stats().metrics.items, 5);
    drain(app, &cluster).await;
    assert_eq!(sim.stats().metrics.items, 6);
}

/// Batches are cut by rows and by bytes.
#[tokio::test]
async fn batches_are_cut_by_rows_and_by_bytes() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster.sql(&format!("{TABLE}; INSERT INTO t SELECT FROM generate_series(1, 1000)")).await;
    let by_rows = section().set("batch", "{ rows: 64 }");
    let by_bytes =
        activity().set("name", "bytes").without("date").without("weight").field("info", "{ account: account }");
    let by_bytes = by_bytes.set("batch", "{ bytes: 4KiB }").set("date", "receipt");
    let app = App::run(&ConfigText::new(&cluster, &sim.url()).section(by_rows).section(by_bytes));
    for _ in 0..2 {
        let metrics = arrived(&sim, SinkKind::Metric, 1000).await;
        let activities = arrived(&sim, SinkKind::Activity, 1000).await;
        let sizes = requests(&metrics).iter().map(Vec::len).collect::<Vec<_>>();
        assert!(sizes.iter().all(|rows| *rows <= 64) && sizes.contains(&64), "{sizes:?}");
        assert_eq!(sizes.iter().sum::<usize>(), 1000);
        let mut bytes = std::collections::BTreeMap::<u64, usize>::new();
        activities.iter().for_each(|item| *bytes.entry(item.request).or_insert(1) += item.raw.len() + 1);
        assert!(bytes.values().all(|bytes| *bytes <= 4096), "{bytes:?}");
        assert!(
            bytes.values().filter(|bytes| **bytes > 3900).count() + 3 >= bytes.len() - bytes.len() / 4,
            "{bytes:?}"
        );
        section_is(&app, "t", "streaming").await;
        section_is(&app, "bytes", "streaming").await;
        sim.clear();
        // The same by the stream.
        cluster.sql("INSERT INTO t SELECT FROM generate_series(1, 1000)").await;
    }
    arrived(&sim, SinkKind::Metric, 1000).await;
    arrived(&sim, SinkKind::Activity, 1000).await;
    drain(app, &cluster).await;
}

/// Without a mapped date: a streamed row has its commit's time, a backfilled one none.
#[tokio::test]
async fn date_is_the_commit_time_where_it_is_known() {
    let cluster = Cluster::builder().setting("track_commit_timestamp", "on").start().await;
    let sim = sink().await;
    cluster.sql(&format!("{TABLE}; INSERT INTO t DEFAULT VALUES")).await;
    let app = App::run(&ConfigText::new(&cluster, &sim.url()).section(section()));
    section_is(&app, "t", "streaming").await;
    cluster.sql("BEGIN; INSERT INTO t DEFAULT VALUES; SELECT pg_sleep(0.3); COMMIT").await;
    let items = arrived(&sim, SinkKind::Metric, 2).await;
    assert_eq!(items[0].item().get("date"), None);
    let committed = cluster
        .text(
            "SELECT to_char(pg_xact_commit_timestamp(xmin) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')
             FROM t WHERE id = 2",
        )
        .await;
    assert_eq!(text(&items[1], "date"), committed);
    drain(app, &cluster).await;
}

/// The old names of bulk activities, for a tenant that knows only those.
#[tokio::test]
async fn legacy_names_are_sent_where_asked_for() {
    let cluster = Cluster::start().await;
    let sim = sink_like(SimOptions { names: Names::Legacy, ..SimOptions::default() }).await;
    cluster.sql(&format!("{TABLE}; INSERT INTO t DEFAULT VALUES")).await;
    let section = activity().field("weight", "value").field("companyExternalId", "account").without("date");
    let config = ConfigText::new(&cluster, &sim.url())
        .set("planhat.bulk_activity_names", "legacy")
        .section(section.set("date", "receipt"));
    let app = App::run(&config);
    section_is(&app, "t", "streaming").await;
    cluster.sql("INSERT INTO t DEFAULT VALUES").await;
    let items = arrived(&sim, SinkKind::Activity, 2).await;
    for (at, item) in items.iter().enumerate() {
        let mut item = item.item();
        item.as_object_mut().unwrap().shift_remove("date");
        let id = (at + 1).to_string();
        assert_eq!(item, serde_json::json!({"euExtId": id, "action": "login", "count": 1, "cId": "acme"}));
    }
    drain(app, &cluster).await;
}

/// A process that is killed before the hour, and begins again after it: what was committed before it goes at once.
#[tokio::test]
async fn case_98_a_kill_across_the_hour_does_not_wait_a_day() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster.sql(TABLE).await;
    let due = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(15);
    let due = due.round(jiff::Unit::Second).unwrap();
    let zone = "America/St_Johns";
    let clock = due.in_tz(zone).unwrap().strftime("%H:%M:%S").to_string();
    let section = section().set("flush", format!("{{ daily_at: \"{clock}\", timezone: {zone} }}"));
    let config = ConfigText::new(&cluster, &sim.url()).section(section);
    let app = App::run(&config);
    section_is(&app, "t", "streaming").await;
    cluster.sql("INSERT INTO t SELECT FROM generate_series(1, 2)").await;
    let read = |status: &serde_json::Value| (status["sections"][0]["lag_seconds"].as_f64()? > 0.0).then_some(());
    app.wait_status("the rows to wait", read).await;
    app.kill9().await;
    assert!(jiff::Timestamp::now() < due, "too slow to have tried anything");
    assert_eq!(sim.stats().metrics.items, 0);
    // The clock itself is what is waited for.
    let left = due.duration_since(jiff::Timestamp::now()) + jiff::SignedDuration::from_secs(1);
    tokio::time::sleep(left.try_into().unwrap()).await;
    let app = App::run(&config);
    let items = arrived(&sim, SinkKind::Metric, 2).await;
    assert_eq!(requests(&items), [vec![1, 2]]);
    let settled = |status: &serde_json::Value| (status["sections"][0]["rows_delivered"] == 2).then_some(());
    app.wait_status("the two to be settled", settled).await;
    // What comes after the hour waits for the next.
    cluster.sql("INSERT INTO t DEFAULT VALUES").await;
    let waits = |status: &serde_json::Value| (status["sections"][0]["lag_seconds"].as_f64()? > 6.0).then_some(());
    app.wait_status("the row to wait", waits).await;
    assert_eq!(sim.stats().metrics.items, 2);
    drain(app, &cluster).await;
    assert_eq!(sim.stats().metrics.items, 3);
}

/// Planhat is away at the hour: since then the section is late, a day before its rows are older than its flush.
#[tokio::test]
async fn case_244_a_missed_hour_is_late_since_that_hour() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster.sql(TABLE).await;
    let due = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(12);
    let due = due.round(jiff::Unit::Second).unwrap();
    let clock = due.in_tz("UTC").unwrap().strftime("%H:%M:%S").to_string();
    let section = section().set("flush", format!("{{ daily_at: \"{clock}\", timezone: UTC }}"));
    let config = ConfigText::new(&cluster, &sim.url()).set("planhat.halt_probe", "200ms").section(section);
    let app = App::run(&config);
    section_is(&app, "t", "streaming").await;
    let late_since = async || app.metric("late_since_timestamp_seconds", &[]).await;
    let is = async |wanted: f64| late_since().await.filter(|since| (since - wanted).abs() < 1.0);
    // Halted, it probes each moment: it is on time soon after.
    sim.queue_fault(SimFault::status(404).times(0));
    cluster.sql("INSERT INTO t SELECT FROM generate_series(1, 2)").await;
    let read = |status: &serde_json::Value| (status["sections"][0]["lag_seconds"].as_f64()? > 0.0).then_some(());
    app.wait_status("the rows to wait", read).await;
    assert!(jiff::Timestamp::now() < due, "too slow to have tried anything");
    assert_eq!(late_since().await, Some(0.0), "they wait for their hour");
    // A minute is allowed.
    let hour = due.as_second() as f64;
    eventually(Duration::from_secs(100), "it to be late since its hour", async || is(hour).await).await;
    assert!(due.duration_since(jiff::Timestamp::now()).abs() < jiff::SignedDuration::from_secs(90));
    let status = app.status().await;
    assert_eq!(status["sections"][0]["flows"], false, "as the status judges: {status}");
    sim.clear_faults();
    eventually(Duration::from_secs(60), "it to be on time", async || is(0.0).await).await;
    arrived(&sim, SinkKind::Metric, 2).await;
    drain(app, &cluster).await;
}
