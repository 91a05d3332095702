//! Every command as the role that `setup --print-sql` makes, and the ways back of `setup` and `teardown`: tests/FAULTS.md,
//! case 93.

use std::process::Command;
use std::time::Duration;

use pg2planhat::testing::sim::{Sim, SimFault, SimHandle, SimOptions};

use crate::cli_ops_look::{insert, json, received, stop, wait_items};
use crate::cli_ops_mend::assert_nothing_is_left;
use crate::harness::{App, Cluster, ConfigText, SectionText, Version, eventually};

/// Runs a script as a DBA does; what psql said where it failed.
pub fn psql(cluster: &Cluster, script: &str) -> Result<(), String> {
    let file = cluster.socket_directory().join("dba.sql");
    std::fs::write(&file, script).unwrap();
    let output = Command::new("psql")
        .args(["-X", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres", "-h"])
        .arg(cluster.socket_directory())
        .args(["-p", &cluster.port().to_string(), "-f"])
        .arg(&file)
        .output()
        .unwrap();
    output.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A server that a DBA has set up by the script, and a configuration for the role that it made.
async fn set_up_by_a_dba(version: Version) -> Option<(Cluster, SimHandle, ConfigText)> {
    let cluster = Cluster::builder().version(version).start_or_skip().await?;
    cluster.sql(&SectionText::activity_table("app_event")).await;
    insert(&cluster, 100).await;
    let sim = Sim::start(SimOptions::default()).await.unwrap();
    let config = ConfigText::new(&cluster, &sim.url())
        .set("source.user", "least")
        .section(SectionText::activity("logins", "app_event"));
    let script = App::command(&config, &["setup", "--print-sql"]).await;
    psql(&cluster, &script.stdout).unwrap_or_else(|stderr| panic!("{stderr}\n{}", script.stdout));
    Some((cluster, sim, config))
}

async fn streaming(config: &ConfigText) -> App {
    let app = App::run(config);
    app.wait_status("the stream", |status| (status["sections"][0]["state"] == "streaming").then_some(())).await;
    app
}

#[tokio::test]
async fn case_93_the_least_role_can_do_everything_that_mends_needs_psql() {
    for version in Version::asked() {
        let Some((cluster, sim, config)) = set_up_by_a_dba(version).await else { continue };
        let check = App::command(&config, &["--json", "check"]).await.json();
        let bad = |severity: &str| {
            let all = check["findings"].as_array().unwrap().iter();
            all.filter(|finding| finding["severity"] == severity).cloned().collect::<Vec<_>>()
        };
        assert_eq!(bad("error"), [serde_json::Value::Null; 0]);
        assert!(bad("warning").iter().all(|finding| finding["code"] != "select_xmin"), "{check}");
        assert_eq!(json(&config, &["setup"]).await["steps"].as_array().unwrap().len(), 3);
        assert!(json(&config, &["preview", "logins"]).await.is_object());
        let app = streaming(&config).await;
        wait_items(&sim, 100).await;
        sim.queue_fault(SimFault::status(400));
        insert(&cluster, 1).await;
        let held = || async {
            let sql = "SELECT count(*) FROM pg2planhat.quarantine";
            (cluster.number(sql).await == 1).then_some(())
        };
        eventually(Duration::from_secs(30), "a row in quarantine", held).await;
        json(&config, &["quarantine", "retry", "--section", "logins", "--yes"]).await;
        wait_items(&sim, 101).await;
        json(&config, &["pause", "logins"]).await;
        json(&config, &["resume", "logins"]).await;
        let known = || async {
            let sql = "SELECT count(*) FROM pg2planhat.instance WHERE xmin_floor IS NOT NULL";
            (cluster.number(sql).await == 1).then_some(())
        };
        eventually(Duration::from_secs(30), "an xmin floor", known).await;
        let audit = App::command(&config, &["--json", "audit", "logins"]).await;
        assert_eq!(audit.code, 0, "{audit:?}");
        json(&config, &["logs"]).await;
        json(&config, &["trace", "logins", "1"]).await;
        stop(&app).await;

        insert(&cluster, 10).await;
        cluster.sql("SELECT pg_drop_replication_slot('pg2planhat')").await;
        assert_eq!(json(&config, &["status"]).await["reason"], "slot_missing");
        let repaired = json(&config, &["repair", "--gap", "--yes"]).await;
        assert!(repaired["repaired"]["sections"][0]["rows"].as_u64().unwrap() >= 10, "{repaired}");
        let app = streaming(&config).await;
        let every = || async { (received(&sim).len() == 111).then_some(()) };
        eventually(Duration::from_secs(30), "every row", every).await;
        stop(&app).await;

        let torn = App::command(&config, &["teardown", "--yes"]).await;
        assert_eq!(torn.code, 75, "{torn:?}");
        assert_eq!(
            cluster.number("SELECT count(*) FROM pg_replication_slots").await,
            1,
            "the slot goes last: {torn:?}"
        );
        let script = torn.stderr.split_once("BEGIN;").map(|(_, rest)| rest.to_owned()).expect("a script");
        let script: String = script.lines().map(str::trim_start).collect::<Vec<_>>().join("\n");
        psql(&cluster, &format!("BEGIN;{script}")).unwrap_or_else(|stderr| panic!("{stderr}\n{script}"));
        assert_nothing_is_left(&cluster, &config).await;
    }
}

#[tokio::test]
async fn case_93_a_role_without_xmin_is_told_by_check_and_by_repair_before_anything_is_done_needs_psql() {
    let Some((cluster, sim, config)) = set_up_by_a_dba(Version::usual()).await else { return };
    // As the script of an earlier version granted it.
    cluster.sql("REVOKE SELECT (xmin) ON app_event FROM least").await;
    let app = streaming(&config).await;
    wait_items(&sim, 100).await;
    insert(&cluster, 5).await;
    wait_items(&sim, 105).await;
    let known = || async {
        let sql = "SELECT count(*) FROM pg2planhat.instance WHERE xmin_floor IS NOT NULL";
        (cluster.number(sql).await == 1).then_some(())
    };
    eventually(Duration::from_secs(30), "an xmin floor", known).await;
    stop(&app).await;
    let check = App::command(&config, &["--json", "check"]).await.json();
    let told = check["findings"].as_array().unwrap().iter().find(|finding| finding["code"] == "select_xmin").cloned();
    let remedy = told.expect("a finding")["remedy"].as_str().unwrap().to_owned();
    assert!(remedy.contains("GRANT SELECT (xmin)"), "{remedy}");
    cluster.sql("SELECT pg_drop_replication_slot('pg2planhat')").await;
    let refused = App::command(&config, &["repair", "--gap", "--yes"]).await;
    assert!(refused.code == 75 && refused.stderr.contains("GRANT SELECT (xmin)"), "{refused:?}");
    assert_eq!(cluster.number("SELECT count(*) FROM pg_replication_slots").await, 0, "nothing was done");
    cluster.sql(&remedy).await;
    json(&config, &["repair", "--gap", "--yes"]).await;
}

#[tokio::test]
async fn case_93_a_setup_that_fails_leaves_nothing_behind() {
    let cluster = Cluster::builder().setting("max_replication_slots", "0").start().await;
    cluster.sql(&SectionText::metric_table("usage")).await;
    cluster.sql("CREATE TABLE foreign_table (id int PRIMARY KEY, value int, external_id text, dimension text)").await;
    let config = ConfigText::new(&cluster, "http://127.0.0.1:9").section(SectionText::metric("seats", "usage"));
    let left = "SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_publication)
        + (SELECT count(*) FROM pg_namespace WHERE nspname = 'pg2planhat')";
    let refused = App::command(&config, &["setup"]).await;
    assert!(refused.code != 0 && refused.stderr.contains("max_replication_slots"), "{refused:?}");
    assert_eq!(cluster.number(left).await, 0, "{refused:?}");
    // What was there before stays.
    cluster.sql("CREATE PUBLICATION pg2planhat FOR TABLE foreign_table WITH (publish = 'insert')").await;
    let refused = App::command(&config, &["setup"]).await;
    assert_ne!(refused.code, 0);
    let tables = "SELECT string_agg(tablename, ' ') FROM pg_publication_tables WHERE pubname = 'pg2planhat'";
    assert_eq!(cluster.text(tables).await, "foreign_table");
    // A role that may make the schema and no publication of this table.
    cluster.sql("CREATE ROLE little LOGIN REPLICATION; GRANT CREATE ON DATABASE postgres TO little").await;
    cluster.sql("GRANT SELECT ON usage TO little; DROP PUBLICATION pg2planhat").await;
    let refused = App::command(&config.clone().set("source.user", "little"), &["setup"]).await;
    assert!(refused.code != 0 && refused.stderr.contains("--print-sql"), "{refused:?}");
    assert_eq!(cluster.number(left).await, 0, "{refused:?}");
}
