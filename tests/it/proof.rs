//! Trace and audit: every row can be found, every loss that is planted is named, and a healthy history is silent.

use std::time::Duration;

use pg2planhat::testing::sim::{SimFault, SinkKind};
use serde_json::Value;

use crate::harness::{App, Cluster, ConfigText, SectionText, eventually};
use crate::main_job_oracle::*;

const EVENTS: &str =
    "CREATE TABLE event (id bigserial PRIMARY KEY, email text DEFAULT 'a@example.com', n numeric DEFAULT 1,
    at timestamptz DEFAULT now())";

fn events() -> SectionText {
    SectionText::activity("events", "event")
        .without("email")
        .field("externalId", "id")
        .field("weight", "n")
        .field("action", "{ value: login }")
}

async fn audit(config: &ConfigText, arguments: &[&str]) -> (i32, Value) {
    let output = App::command(config, &[&["--json", "audit"], arguments].concat()).await;
    let documents: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{}", output.stderr));
    (output.code, documents[0].clone())
}

async fn trace(config: &ConfigText, key: &str) -> Value {
    let output = App::command(config, &["--json", "trace", "events", key]).await;
    serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{}", output.stderr))
}

fn number(document: &Value, field: &str) -> u64 {
    document[field].as_u64().unwrap_or_else(|| panic!("{field} in {document}"))
}

#[tokio::test]
async fn a_healthy_history_is_silent_and_each_row_is_found() {
    let cluster = Cluster::start().await;
    cluster.sql(&format!("{EVENTS}; INSERT INTO event (n) SELECT 1 FROM generate_series(1, 700)")).await;
    let sim = sink().await;
    let config = ConfigText::new(&cluster, &sim.url()).section(events().set("flush", "200ms"));
    let app = App::run(&config);
    arrived(&sim, SinkKind::Activity, 700).await;
    for _ in 0..30 {
        cluster.sql("INSERT INTO event (n) VALUES (2), (2)").await;
    }
    cluster.sql("INSERT INTO event (n) VALUES ('NaN')").await;
    arrived(&sim, SinkKind::Activity, 760).await;
    // On its way: no verdict of "missing", however long it stays open.
    let open = cluster.client().await;
    open.batch_execute("BEGIN; INSERT INTO event (n) VALUES (3)").await.unwrap();
    eventually(PATIENCE, "the whole table is accounted for", async || {
        let (code, report) = audit(&config, &["events"]).await;
        let exact = number(&report, "delivered") == 760 && number(&report, "quarantined") == 1;
        let silent = ["missing", "unknown", "doubled", "gone"].iter().all(|field| number(&report, field) == 0);
        (code == 0 && exact && silent && number(&report, "rows_source") == 761).then_some(())
    })
    .await;
    open.batch_execute("COMMIT").await.unwrap();

    let old = trace(&config, "350").await;
    assert_eq!((&old["outcome"], &old["source"]), (&"delivered".into(), &"present".into()), "{old}");
    assert_eq!(
        (&old["deliveries"][0]["phase"], &old["deliveries"][0]["http_status"]),
        (&"backfill".into(), &200.into())
    );
    let new = trace(&config, "755").await;
    assert_eq!((&new["outcome"], &new["deliveries"][0]["phase"]), (&"delivered".into(), &"stream".into()), "{new}");
    assert_eq!(trace(&config, "761").await["outcome"], "quarantined");
    let never = trace(&config, "99999").await;
    assert_eq!((&never["outcome"], &never["source"]), (&"unknown".into(), &"absent".into()), "{never}");
    let refused = App::command(&config, &["trace", "events", "no-number"]).await;
    assert_eq!(refused.code, 64, "{}", refused.stderr);

    // Deleted at the source: gone, which is no error.
    cluster.sql("DELETE FROM event WHERE id BETWEEN 10 AND 19").await;
    let (code, report) = audit(&config, &["events"]).await;
    assert_eq!((code, number(&report, "gone"), number(&report, "missing")), (0, 10, 0), "{report}");
    assert_eq!(trace(&config, "15").await["source"], "absent");
    app.sigterm();
    assert_eq!(app.wait_exit(Duration::from_secs(20)).await, 0, "{}", app.log());
    // Without an instance, too.
    assert_eq!(audit(&config, &["events"]).await.0, 0);
}

#[tokio::test]
async fn planted_losses_are_named_and_can_be_delivered() {
    let cluster = Cluster::start().await;
    cluster.sql(&format!("{EVENTS}; INSERT INTO event (n) SELECT 1 FROM generate_series(1, 400)")).await;
    let sim = sink().await;
    let config =
        ConfigText::new(&cluster, &sim.url()).section(events().set("flush", "100ms").set("batch", "{ rows: 50 }"));
    let app = App::run(&config);
    arrived(&sim, SinkKind::Activity, 400).await;
    cluster.sql("INSERT INTO event (n) SELECT 2 FROM generate_series(1, 100)").await;
    arrived(&sim, SinkKind::Activity, 500).await;
    eventually(PATIENCE, "the ledger has ended", async || {
        (audit(&config, &["events"]).await.1["delivered"] == 500).then_some(())
    })
    .await;
    // A skipped chunk and a skipped transaction, as the ledger would look after them.
    let plant = "DELETE FROM pg2planhat.delivery_keys WHERE delivery IN (
            SELECT id FROM pg2planhat.delivery WHERE first_key IN ('101', '451'));
        DELETE FROM pg2planhat.tally";
    let lost: Vec<(i64, i64)> = cluster
        .rows("SELECT first_key, last_key FROM pg2planhat.delivery WHERE first_key IN ('101', '451') ORDER BY id")
        .await
        .iter()
        .map(|row| (row[0].as_ref().unwrap().parse().unwrap(), row[1].as_ref().unwrap().parse().unwrap()))
        .collect();
    assert!(!lost.is_empty(), "{}", app.log());
    let keys: Vec<String> = lost.iter().flat_map(|(first, last)| *first..=*last).map(|key| key.to_string()).collect();
    cluster.sql(plant).await;
    let (code, report) = audit(&config, &["events"]).await;
    let named: Vec<&str> = report["missing_keys"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!((code, named), (1, keys.iter().map(String::as_str).collect::<Vec<_>>()), "{report}");
    assert_eq!(trace(&config, &keys[0]).await["outcome"], "unknown");

    let delivered = App::command(&config, &["audit", "events", "--deliver-missing", "--yes"]).await;
    assert_eq!(delivered.code, 1, "{}", delivered.stderr);
    arrived(&sim, SinkKind::Activity, 500 + keys.len()).await;
    eventually(PATIENCE, "nothing is missing any more", async || {
        (audit(&config, &["events"]).await.0 == 0).then_some(())
    })
    .await;
    let found = trace(&config, &keys[0]).await;
    let newest = found["deliveries"].as_array().unwrap().last().unwrap();
    assert_eq!((&newest["phase"], &newest["certain"]), (&"retry".into(), &true.into()), "{found}");
}

#[tokio::test]
async fn an_in_doubt_row_and_a_dropped_one_are_told_apart() {
    let cluster = Cluster::start().await;
    cluster.sql(EVENTS).await;
    let sim = sink().await;
    let config = ConfigText::new(&cluster, &sim.url()).section(events().set("flush", "100ms").set("in_doubt", "hold"));
    let app = App::run(&config);
    app.wait_ready().await;
    cluster.sql("INSERT INTO event (n) VALUES (1)").await;
    arrived(&sim, SinkKind::Activity, 1).await;
    sim.queue_fault(SimFault::ResetAfterStoring);
    cluster.sql("INSERT INTO event (n) VALUES (1), ('NaN')").await;
    eventually(PATIENCE, "both rows wait in quarantine", async || {
        (cluster.rows("SELECT 1 FROM pg2planhat.quarantine").await.len() == 2).then_some(())
    })
    .await;
    let held = trace(&config, "2").await;
    assert_eq!(held["outcome"], "quarantined", "{held}");
    let dropped = App::command(&config, &["quarantine", "drop", "--all", "--yes"]).await;
    assert_eq!(dropped.code, 0, "{}", dropped.stderr);
    let (code, report) = audit(&config, &["events"]).await;
    assert_eq!((code, number(&report, "missing"), number(&report, "quarantined")), (0, 0, 2), "{report}");
    assert!(trace(&config, "3").await["why"].as_str().unwrap().contains("dropped it"));
}

#[tokio::test]
async fn the_end_of_a_backfill_is_audited_by_itself() {
    let cluster = Cluster::start().await;
    cluster.sql(&format!("{EVENTS}; INSERT INTO event (n) SELECT 1 FROM generate_series(1, 300)")).await;
    let sim = sink().await;
    let config = ConfigText::new(&cluster, &sim.url()).section(events().set("flush", "100ms"));
    let app = App::run(&config);
    arrived(&sim, SinkKind::Activity, 300).await;
    let labels = [("section", "events")];
    eventually(PATIENCE, "an audit by itself", async || {
        let missing = app.metric("pg2planhat_audit_missing_rows", &labels).await;
        let at = app.metric("pg2planhat_audit_timestamp_seconds", &labels).await;
        (missing == Some(0.0) && at.is_some_and(|at| at > 1.7e9)).then_some(())
    })
    .await;
    let kept = cluster.rows("SELECT cause, result->>'delivered' FROM pg2planhat.audit ORDER BY id LIMIT 1").await;
    assert_eq!(kept[0][1].as_deref(), Some("300"), "{kept:?}");
}
