//! `check`: every trouble is named with its remedy, all in one run.

use std::collections::BTreeMap;

use pg2planhat::testing::sim::{Sim, SimOptions};
use serde_json::Value;

use crate::harness::{App, Cluster, ConfigText, SectionText, Version};

/// The findings by code, each with its severity; checks the shape of all.
pub async fn check(config: &ConfigText) -> (i32, BTreeMap<String, Vec<Value>>) {
    let output = App::command(config, &["--json", "check"]).await;
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for finding in output.json()["findings"].as_array().unwrap() {
        let text = |key: &str| finding[key].as_str().unwrap_or_else(|| panic!("{key} in {finding}"));
        assert!(["error", "warning", "info", "ok"].contains(&text("severity")), "{finding}");
        assert!(!text("message").is_empty() && !text("subject").is_empty(), "{finding}");
        assert!(text("severity") != "error" || !text("remedy").is_empty(), "no remedy: {finding}");
        found.entry(text("code").to_owned()).or_default().push(finding.clone());
    }
    (output.code, found)
}

pub fn expect(found: &BTreeMap<String, Vec<Value>>, code: &str, severity: &str, remedy: &str) {
    let findings = found.get(code).unwrap_or_else(|| panic!("no {code} among {:?}", found.keys()));
    let fits =
        |finding: &Value| finding["severity"] == severity && finding["remedy"].as_str().unwrap().contains(remedy);
    assert!(findings.iter().any(fits), "no {severity} {code} with {remedy:?}: {findings:?}");
}

async fn sim() -> pg2planhat::testing::sim::SimHandle {
    Sim::start(SimOptions::default()).await.unwrap()
}

#[tokio::test]
async fn a_good_set_up_has_no_errors_and_sends_nothing() {
    let (cluster, mut sim) = (Cluster::start().await, sim().await);
    cluster.sql(&SectionText::metric_table("usage")).await;
    let config = ConfigText::new(&cluster, &sim.url()).section(SectionText::metric("seats", "usage"));
    let (code, found) = check(&config).await;
    assert_eq!(code, 0, "{found:?}");
    expect(&found, "replication", "ok", "");
    expect(&found, "publication_missing", "info", "setup");
    expect(&found, "slot_missing", "info", "setup");
    expect(&found, "slot_wal_unbounded", "warning", "max_slot_wal_keep_size");
    expect(&found, "sink", "ok", "");
    let people = App::command(&config, &["check"]).await;
    assert!(people.stdout.contains("ready to run: no errors"), "{}", people.stdout);
    assert!(!people.stdout.contains('\x1b'), "colour without a terminal");
    assert!(sim.items(pg2planhat::testing::sim::SinkKind::Metric).is_empty());

    let output = App::command(&config, &["setup"]).await;
    assert_eq!(output.code, 0, "{}", output.stderr);
    let (code, found) = check(&config.clone().set("source.manage", "false")).await;
    assert_eq!(code, 0, "{found:?}");
    for ok in ["publication", "slot", "state"] {
        expect(&found, ok, "ok", "");
    }
    sim.stop().await;
}

#[tokio::test]
async fn case_17_42_every_trouble_of_tables_is_named_in_one_run() {
    let cluster = Cluster::start().await;
    cluster
        .sql(
            "CREATE TABLE app_event (id bigint, email text, action text, at timestamptz);
             CREATE UNLOGGED TABLE unlogged (id bigserial PRIMARY KEY, external_id text, value float8, at timestamptz);
             CREATE VIEW a_view AS SELECT * FROM unlogged;
             CREATE TABLE policed (id bigserial PRIMARY KEY, external_id text, value float8, at timestamptz);
             ALTER TABLE policed ENABLE ROW LEVEL SECURITY;
             CREATE TABLE half (id bigserial PRIMARY KEY, external_id text, value float8, at timestamptz);
             CREATE TABLE made (id bigserial PRIMARY KEY, external_id text, a int, value int GENERATED ALWAYS AS (a + 1) STORED, at timestamptz);
             CREATE TABLE long (id numeric PRIMARY KEY, external_id text, value float8, at timestamptz);
             INSERT INTO long VALUES (12345678901234567890123456789012345), (1);
             CREATE TABLE parted (id bigint NOT NULL, external_id text, value float8, at timestamptz NOT NULL) PARTITION BY RANGE (at);
             CREATE ROLE plain LOGIN;
             GRANT SELECT ON app_event, policed, made, long, unlogged, a_view, parted TO plain;
             GRANT SELECT (id, external_id) ON half TO plain;",
        )
        .await;
    let metric = |name: &str| SectionText::metric(name, name);
    let config = ConfigText::new(&cluster, "http://127.0.0.1:9")
        .set("source.user", "plain")
        .section(
            SectionText::activity("events", "app_event")
                .without("action")
                .without("date")
                .without("externalId")
                .without("weight"),
        )
        .section(metric("unlogged"))
        .section(metric("a_view"))
        .section(metric("policed"))
        .section(metric("half"))
        .section(metric("made"))
        .section(metric("long"))
        .section(metric("parted"))
        .section(SectionText::metric("missing", "app_evnt"))
        .section(SectionText::metric("misspelt", "half").field("value", "valeu"));
    let (code, found) = check(&config).await;
    assert_eq!(code, 1);
    for (finding, severity, remedy) in [
        ("role_replication", "error", "ALTER ROLE \"plain\" REPLICATION"),
        ("replication", "error", "REPLICATION"),
        ("date_unmapped", "error", "date: receipt"),
        ("action_unmapped", "warning", "action"),
        ("key_not_unique", "error", "CREATE UNIQUE INDEX CONCURRENTLY ON \"public\".\"app_event\" (\"id\")"),
        ("key_not_unique", "warning", "sequence"),
        ("key_nullable", "error", "SET NOT NULL"),
        ("key_index", "warning", "CREATE UNIQUE INDEX"),
        ("table_no_primary_key", "info", ""),
        ("table_unlogged", "error", "SET LOGGED"),
        ("table_view", "error", "pg_get_viewdef"),
        ("row_security", "error", "BYPASSRLS"),
        (
            "select_denied",
            "error",
            "GRANT SELECT (\"id\", \"value\", \"external_id\", \"at\") ON \"public\".\"half\" TO \"plain\"",
        ),
        ("table_partitioned", "info", ""),
        ("table_missing", "error", "app_event"),
        ("column_unknown", "error", "`value`"),
        ("publication_rights", "error", "--print-sql"),
        ("state_rights", "error", "--print-sql"),
        ("sink_unreachable", "error", "planhat.url"),
    ] {
        expect(&found, finding, severity, remedy);
    }
    // 18 publishes them.
    if cluster.version() < Version::V18 {
        expect(&found, "column_generated", "error", "made from");
    }
}

#[tokio::test]
async fn case_17_a_foreign_publication_and_slot_are_named() {
    let (cluster, mut sim) = (Cluster::start().await, sim().await);
    cluster.sql("CREATE TABLE usage (id bigserial, external_id text, value float8, at timestamptz)").await;
    cluster.sql("CREATE UNIQUE INDEX ON usage (id)").await;
    // Before 15 there are neither filters nor column lists.
    let filters = cluster.version() >= Version::V15;
    let narrowed = if filters { "(id, value) WHERE (id > 5)" } else { "" };
    cluster.sql(&format!("CREATE PUBLICATION pg2planhat FOR TABLE usage {narrowed} WITH (publish = 'insert')")).await;
    cluster.sql("CREATE PUBLICATION harmful FOR TABLE usage").await;
    cluster.sql("CREATE PUBLICATION useless FOR TABLE usage WITH (publish = 'truncate')").await;
    cluster.sql("SELECT pg_create_logical_replication_slot('theirs', 'test_decoding')").await;
    cluster.sql("SELECT pg_create_physical_replication_slot('physical')").await;
    let config = ConfigText::new(&cluster, &sim.url()).section(SectionText::metric("seats", "usage"));
    let (code, found) = check(&config.clone().set("source.slot", "theirs")).await;
    assert_eq!(code, 1);
    if filters {
        expect(&found, "publication_filter", "error", "DROP TABLE \"public\".\"usage\"");
    }
    expect(&found, "slot_plugin", "error", "slot:");
    let (_, found) = check(&config.clone().set("source.publication", "harmful").set("source.slot", "physical")).await;
    expect(&found, "publication_harm", "error", "SET (publish = 'insert')");
    expect(&found, "slot_plugin", "error", "slot:");
    let held = cluster.client().await;
    held.batch_execute("BEGIN; INSERT INTO usage (value) VALUES (1)").await.unwrap();
    let (_, found) = check(&config.clone().set("source.publication", "useless").set("source.manage", "false")).await;
    expect(&found, "publication_insert", "error", "publish = 'insert'");
    expect(&found, "slot_missing", "error", "pg_create_logical_replication_slot");
    expect(&found, "state_missing", "error", "--print-sql");
    expect(&found, "open_transaction", "info", "pg_terminate_backend");
    sim.stop().await;
}

#[tokio::test]
async fn case_17_a_server_without_room_and_one_that_is_away_are_named() {
    let cluster = Cluster::builder()
        .setting("wal_level", "replica")
        .setting("max_replication_slots", "0")
        .setting("wal_sender_timeout", "1s")
        .setting("max_slot_wal_keep_size", "16MB")
        .start()
        .await;
    cluster.sql(&SectionText::metric_table("usage")).await;
    let config = ConfigText::new(&cluster, "http://127.0.0.1:9").section(SectionText::metric("seats", "usage"));
    let (code, found) = check(&config).await;
    assert_eq!(code, 1);
    expect(&found, "wal_level", "error", "ALTER SYSTEM SET wal_level = 'logical'");
    expect(&found, "replication_slots", "error", "max_replication_slots");
    expect(&found, "wal_sender_timeout", "warning", "60s");
    expect(&found, "slot_wal_small", "warning", "max_slot_wal_keep_size");
    let (code, found) = check(&config.set("source.database", "nowhere")).await;
    assert_eq!(code, 1);
    expect(&found, "connect", "error", "source.database");
    expect(&found, "sink_unreachable", "error", "planhat.url");
}
