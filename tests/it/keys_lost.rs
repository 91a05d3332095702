//! Keys that stop being unique, or may be NULL, after their section attached (FAULTS 270–272): what evidence by the key cannot
//! prove any more is unknown, and what `check` calls an error holds for sections that are attached, too.

use std::time::Duration;

use pg2planhat::testing::sim::{SimHandle, SimOptions, SinkKind};
use serde_json::Value;

use crate::cli_ops_look::stop;
use crate::harness::{App, Cluster, ConfigText, SectionText, eventually};
use crate::main_job_oracle::*;

fn section() -> SectionText {
    let section = SectionText::metric("t", "t").field("externalId", "n").without("date").set("date", "receipt");
    section.set("key", "id")
}

/// `t` with 20 rows delivered, whose key an index holds unique that is no constraint.
async fn streams() -> (Cluster, SimHandle, ConfigText, App) {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster
        .sql(
            "CREATE TABLE t (id bigint NOT NULL, n bigint, value int DEFAULT 1); CREATE UNIQUE INDEX held ON t (id);
             INSERT INTO t SELECT g, g FROM generate_series(1, 20) g",
        )
        .await;
    let config = ConfigText::new(&cluster, &sim.url()).set("audit", "{ every: off }").section(section());
    let app = App::run(&config);
    arrived(&sim, SinkKind::Metric, 20).await;
    section_is(&app, "t", "streaming").await;
    (cluster, sim, config, app)
}

/// What an audit counts: rows, delivered, unknown, missing.
async fn audited(config: &ConfigText) -> (Vec<u64>, Value) {
    let output = App::command(config, &["--json", "audit", "t"]).await;
    let documents: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{}", output.stderr));
    let report = documents[0].clone();
    let counts = ["rows_source", "delivered", "unknown", "missing"];
    (counts.iter().map(|count| report[*count].as_u64().unwrap()).collect(), report)
}

async fn settles(config: &ConfigText, wanted: &[u64]) -> String {
    let patience = Duration::from_secs(20);
    let last = std::cell::RefCell::new(Value::Null);
    eventually(patience, &format!("rows, delivered, unknown, missing: {wanted:?}"), async || {
        let (counts, report) = audited(config).await;
        *last.borrow_mut() = report.clone();
        (counts == wanted).then(|| report["caveat"].as_str().unwrap().to_owned())
    })
    .await
}

/// The reason for which `t` is halted by a new process.
async fn halts(config: &ConfigText) -> (App, String) {
    let app = App::run(config);
    let reason = app.wait_status("a halted section", |status| {
        let one = &status["sections"][0];
        (one["state"] == "halted").then(|| one["reason"].as_str().unwrap().to_owned())
    });
    let reason = reason.await;
    (app, reason)
}

#[tokio::test]
async fn case_270_rows_that_share_a_key_are_unknown_and_a_restart_refuses_the_section() {
    let (cluster, sim, config, app) = streams().await;
    cluster.sql("DROP INDEX held; CREATE INDEX ON t (id)").await;
    cluster.sql("INSERT INTO t SELECT g, 100 + g FROM generate_series(11, 15) g").await;
    arrived(&sim, SinkKind::Metric, 25).await;
    let caveat = settles(&config, &[25, 20, 5, 0]).await;
    assert!(caveat.contains("of 5 rows the key is another row's, too"), "{caveat}");
    stop(&app).await;
    let (app, reason) = halts(&config).await;
    assert!(reason.contains("unique: rows with the same key would be taken for one"), "{reason}");
    // Mended, it goes on, and a row that came meanwhile is delivered.
    cluster.sql("INSERT INTO t VALUES (30, 30)").await;
    stop(&app).await;
    cluster.sql("DELETE FROM t WHERE n > 100; CREATE UNIQUE INDEX held ON t (id)").await;
    let app = App::run(&config);
    section_is(&app, "t", "streaming").await;
    arrived(&sim, SinkKind::Metric, 26).await;
    settles(&config, &[21, 21, 0, 0]).await;
    stop(&app).await;
}

#[tokio::test]
async fn case_271_rows_without_a_key_are_counted_and_a_restart_refuses_the_section() {
    let (cluster, _sim, config, app) = streams().await;
    cluster.sql("ALTER TABLE t ALTER id DROP NOT NULL; UPDATE t SET id = NULL WHERE n > 17").await;
    let caveat = settles(&config, &[20, 17, 3, 0]).await;
    assert!(caveat.contains("of 3 rows the key is NULL"), "{caveat}");
    stop(&app).await;
    let (app, reason) = halts(&config).await;
    assert!(reason.contains("may be NULL"), "{reason}");
    stop(&app).await;
}

#[tokio::test]
async fn case_272_a_backfill_that_ended_short_is_halted_until_an_audit_has_counted() {
    let latency = Duration::from_millis(20);
    let (cluster, sim) = (Cluster::start().await, sink_like(SimOptions { latency, ..SimOptions::default() }).await);
    cluster
        .sql(
            "CREATE TABLE t (id bigint PRIMARY KEY, n bigint, value int DEFAULT 1, filler text DEFAULT repeat('x', 500));
             INSERT INTO t SELECT g, g FROM generate_series(1, 20000) g",
        )
        .await;
    let section = section().field("dimensionId", "filler").set("batch", "{ rows: 200 }");
    let config = ConfigText::new(&cluster, &sim.url()).set("audit", "{ every: off }").section(section);
    let app = App::run(&config);
    arrived(&sim, SinkKind::Metric, 200).await;
    cluster.sql("UPDATE t SET id = -id WHERE id > 19900").await;
    section_is(&app, "t", "halted").await;
    stop(&app).await;
    let (app, reason) = halts(&config).await;
    assert!(reason.contains("100 rows of its range"), "{reason}");
    let (counts, report) = audited(&config).await;
    assert_eq!(counts[3], 100, "{report}");
    stop(&app).await;
    let app = App::run(&config);
    section_is(&app, "t", "streaming").await;
    stop(&app).await;
}
