//! Several entries of one key in the quarantine: versions of a row, or rows that had the key one after the other.

use pg2planhat::testing::sim::{SimFault, SimHandle, SinkKind};
use serde_json::Value;

use crate::harness::{App, Cluster, ConfigText, SectionText, eventually};
use crate::main_job_oracle::*;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, who text, value int, at timestamptz DEFAULT now())";

fn events() -> SectionText {
    SectionText::activity("events", "t")
        .without("email")
        .field("externalId", "who")
        .field("action", "{ value: x }")
        .field("weight", "value")
}

/// A running instance over the table `t`, whose first row was delivered.
async fn running(cluster: &Cluster, sim: &SimHandle, section: SectionText) -> (App, ConfigText) {
    cluster.sql(&format!("{TABLE}; INSERT INTO t VALUES (1, 'first', 1)")).await;
    let config = ConfigText::new(cluster, &sim.url()).set("audit", "{ every: off }").section(section);
    let app = App::run(&config);
    app.wait_ready().await;
    let begun = || async { (sim.stats().activities.items + sim.stats().metrics.items == 1).then_some(()) };
    eventually(PATIENCE, "the first row", begun).await;
    (app, config)
}

/// Runs `sql`, whose one row Planhat refuses; the quarantine has `rows` then.
async fn refused(cluster: &Cluster, sim: &SimHandle, sql: &str, rows: i64) {
    sim.queue_fault(SimFault::status(400));
    cluster.sql(sql).await;
    held(cluster, rows).await;
}

async fn held(cluster: &Cluster, rows: i64) {
    let held = async || (cluster.number("SELECT count(*) FROM pg2planhat.quarantine").await == rows).then_some(());
    eventually(PATIENCE, "the quarantine", held).await;
}

/// The weights or values of what was accepted, in order.
fn accepted(sim: &SimHandle, kind: SinkKind) -> Vec<i64> {
    let figure = |item: &Value| item["weight"].as_i64().or(item["value"].as_i64()).unwrap();
    sim.items(kind).iter().map(|item| figure(&item.item())).collect()
}

async fn retry(config: &ConfigText) -> String {
    let retried = App::command(config, &["--json", "quarantine", "retry", "--all", "--yes"]).await.json();
    retried["events"][0]["result"].as_str().unwrap().to_owned()
}

/// Waits until updates are streamed.
async fn carries_updates(cluster: &Cluster) {
    let named = "SELECT count(*) FROM pg2planhat.instance WHERE updates_from IS NOT NULL";
    eventually(PATIENCE, "the updates", async || (cluster.number(named).await == 1).then_some(())).await;
}

#[tokio::test]
async fn case_276_each_version_in_quarantine_is_sent_where_each_counts() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    let (app, config) = running(&cluster, &sim, events().set("on", "insert_and_update")).await;
    carries_updates(&cluster).await;
    for (version, rows) in [(10, 1), (11, 2), (12, 3)] {
        refused(&cluster, &sim, &format!("UPDATE t SET value = {version}"), rows).await;
    }
    // The table has a later version than all of them, which was delivered.
    cluster.sql("UPDATE t SET value = 13").await;
    arrived(&sim, SinkKind::Activity, 2).await;
    let result = retry(&config).await;
    held(&cluster, 0).await;
    assert_eq!(accepted(&sim, SinkKind::Activity), [1, 13, 10, 11, 12], "{result}");
    drain(app, &cluster).await;
}

#[tokio::test]
async fn case_276_no_older_value_is_sent_behind_a_newer_one() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    let section = SectionText::metric("totals", "t").field("externalId", "id").set("on", "insert_and_update");
    let (app, config) = running(&cluster, &sim, section).await;
    carries_updates(&cluster).await;
    refused(&cluster, &sim, "UPDATE t SET value = 100", 1).await;
    cluster.sql("UPDATE t SET value = 101").await;
    arrived(&sim, SinkKind::Metric, 2).await;
    refused(&cluster, &sim, "UPDATE t SET value = 200", 2).await;
    refused(&cluster, &sim, "UPDATE t SET value = 300", 3).await;
    cluster.sql("DELETE FROM t").await;
    let result = retry(&config).await;
    held(&cluster, 1).await;
    assert!(result.contains("a newer version was sent"), "{result}");
    assert_eq!(accepted(&sim, SinkKind::Metric), [1, 101, 200, 300], "{result}");
    drain(app, &cluster).await;
}

#[tokio::test]
async fn case_277_rows_that_had_one_key_after_the_other_are_all_sent() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    let (app, config) = running(&cluster, &sim, events()).await;
    refused(&cluster, &sim, "INSERT INTO t VALUES (5, 'alice', 5)", 1).await;
    refused(&cluster, &sim, "DELETE FROM t WHERE id = 5; INSERT INTO t VALUES (5, 'bob', 6)", 2).await;
    // Only one of them is asked for: the other's row is not sent in its place.
    let first = cluster.number("SELECT min(id) FROM pg2planhat.quarantine").await;
    let arguments = ["--json", "quarantine", "retry", &first.to_string(), "--yes"];
    let retried = App::command(&config, &arguments).await.json();
    held(&cluster, 1).await;
    assert_eq!(accepted(&sim, SinkKind::Activity), [1, 5], "{retried}");
    let result = retry(&config).await;
    held(&cluster, 0).await;
    assert_eq!(accepted(&sim, SinkKind::Activity), [1, 5, 6], "{result}");
    drain(app, &cluster).await;
}

/// What comes next of the key waits in its batch when the retry reads the table: the ledger knows nothing of it yet.
#[tokio::test]
async fn case_279_a_retry_sends_no_row_that_waits_in_a_batch() {
    for on in ["insert", "insert_and_update"] {
        let (cluster, sim) = (Cluster::start().await, sink().await);
        let section = events().set("on", on).set("flush", "3s");
        let (app, config) = running(&cluster, &sim, section).await;
        if on == "insert_and_update" {
            carries_updates(&cluster).await;
        }
        refused(&cluster, &sim, "INSERT INTO t VALUES (5, 'alice', 5)", 1).await;
        match on {
            "insert" => cluster.sql("DELETE FROM t WHERE id = 5; INSERT INTO t VALUES (5, 'bob', 6)").await,
            _ => cluster.sql("UPDATE t SET value = 6 WHERE id = 5").await,
        }
        let result = retry(&config).await;
        let sent = if on == "insert" { vec![1, 6] } else { vec![1, 6, 5] };
        held(&cluster, if on == "insert" { 1 } else { 0 }).await;
        let all = || async { (accepted(&sim, SinkKind::Activity).len() >= sent.len()).then_some(()) };
        eventually(PATIENCE, "the rows", all).await;
        let mut is = accepted(&sim, SinkKind::Activity);
        is.sort_unstable();
        let mut wanted = sent.clone();
        wanted.sort_unstable();
        assert_eq!(is, wanted, "{on}: {result}");
        drain(app, &cluster).await;
        assert_eq!(accepted(&sim, SinkKind::Activity).len(), sent.len(), "{on}: {result}");
    }
}

/// The documented way: mend the data, then retry. The stream brings the mended version by itself.
#[tokio::test]
async fn case_279_a_row_that_was_mended_is_sent_once() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    let section = events().set("on", "insert_and_update").set("flush", "2s");
    let (app, config) = running(&cluster, &sim, section).await;
    carries_updates(&cluster).await;
    cluster.sql("INSERT INTO t VALUES (5, NULL, 5)").await;
    held(&cluster, 1).await;
    cluster.sql("UPDATE t SET who = 'mended' WHERE id = 5").await;
    let result = retry(&config).await;
    assert!(result.contains("a newer version was sent"), "{result}");
    drain(app, &cluster).await;
    assert_eq!(accepted(&sim, SinkKind::Activity), [1, 5], "{result}");
}

#[tokio::test]
async fn case_277_a_row_that_a_resync_brought_again_is_sent_once() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    let (app, config) = running(&cluster, &sim, events()).await;
    refused(&cluster, &sim, "INSERT INTO t VALUES (2, 'second', 2)", 1).await;
    sim.queue_fault(SimFault::Refuse { field: "weight".into(), equals: 2.into(), error: "no".into() });
    assert_eq!(App::command(&config, &["resync", "events", "--all", "--yes"]).await.code, 0);
    held(&cluster, 2).await;
    section_is(&app, "events", "streaming").await;
    let result = retry(&config).await;
    held(&cluster, 0).await;
    assert!(result.contains("a re-sync brought them again"), "{result}");
    assert_eq!(accepted(&sim, SinkKind::Activity), [1, 1, 2], "{result}");
    drain(app, &cluster).await;
}
