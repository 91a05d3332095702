//! What an outsider met on the way to the first rows, and at a change of the file: rights that end in the middle of a
//! script, a slot of another database, a file whose harm nobody told.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::cli_ops_look::{insert, stage};
use crate::harness::{App, Cluster, ConfigText, SectionText, Stop, eventually};

/// Runs a script in a database as somebody who is no superuser; what psql said.
fn psql_as(cluster: &Cluster, user: &str, database: &str, script: &str) -> (bool, String) {
    let file = cluster.socket_directory().join("first.sql");
    std::fs::write(&file, script).unwrap();
    let output = Command::new("psql")
        .args(["-X", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", database, "-h"])
        .arg(cluster.socket_directory())
        .args(["-p", &cluster.port().to_string(), "-f"])
        .arg(&file)
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

async fn findings(config: &ConfigText) -> Vec<(String, String, String)> {
    let document = App::command(config, &["--json", "check"]).await.json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = document["findings"].as_array().unwrap().iter();
    findings.map(|one| (text(&one["severity"]), text(&one["code"]), text(&one["message"]))).collect()
}

async fn changes(config: &ConfigText) -> (i32, Vec<Value>) {
    let output = App::command(config, &["--json", "plan"]).await;
    (output.code, output.json()["changes"].as_array().unwrap().clone())
}

#[tokio::test]
async fn case_256_a_script_that_cannot_be_done_says_so_before_it_makes_anything_and_needs_psql() {
    let cluster = Cluster::start().await;
    // As an owner without REPLICATION, and as one who owns nothing, would run it.
    cluster
        .sql(
            "CREATE ROLE app_owner LOGIN CREATEROLE; CREATE ROLE pg2planhat LOGIN REPLICATION;
             CREATE ROLE stranger LOGIN CREATEROLE REPLICATION",
        )
        .await;
    cluster.sql("CREATE DATABASE app OWNER app_owner").await;
    let dba = cluster.client_of("app").await;
    dba.batch_execute(&format!("{}; ALTER TABLE usage OWNER TO app_owner", SectionText::metric_table("usage")))
        .await
        .unwrap();
    let config = ConfigText::new(&cluster, "http://127.0.0.1:9")
        .set("source.database", "app")
        .set("source.user", "pg2planhat")
        .section(SectionText::metric("seats", "usage"));
    let script = App::command(&config, &["setup", "--print-sql"]).await.stdout;
    for (user, what) in [("app_owner", "needs REPLICATION"), ("stranger", "must own the tables")] {
        let (done, said) = psql_as(&cluster, user, "app", &script);
        assert!(!done && said.contains(what) && said.contains("Nothing was made"), "{user}: {said}");
        let made = "SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_namespace WHERE nspname = 'pg2planhat')";
        let made: i64 = dba.query_one(made, &[]).await.unwrap().get(0);
        assert_eq!(made, 0, "{user}");
    }
    assert!(script.contains("and replicate (REPLICATION;"), "its head says who may run it: {script}");
    cluster.sql("ALTER ROLE app_owner REPLICATION").await;
    for round in ["first", "again"] {
        let (done, said) = psql_as(&cluster, "app_owner", "app", &script);
        assert!(done, "{round}: {said}");
    }
    // A second database of the server, with the same slot in its file.
    cluster.sql("CREATE DATABASE app2").await;
    let second = cluster.client_of("app2").await;
    second.batch_execute(&SectionText::metric_table("usage")).await.unwrap();
    let config = config.set("source.database", "app2");
    let script = App::command(&config, &["setup", "--print-sql"]).await.stdout;
    let (done, said) = psql_as(&cluster, "postgres", "app2", &script);
    assert!(!done && said.contains("in use for something else: database app") && said.contains("slot: NAME"), "{said}");
    let script = App::command(&config.set("source.slot", "second"), &["setup", "--print-sql"]).await.stdout;
    let (done, said) = psql_as(&cluster, "postgres", "app2", &script);
    assert!(done, "{said}");
}

#[tokio::test]
async fn case_258_whoever_follows_the_ledger_follows_it_through_a_restart_of_the_server() {
    let (cluster, _sim, config) = stage().await;
    let app = App::run(&config);
    app.wait_ready().await;
    let follow = App::launch(&config).arguments(&["logs", "--follow"]).start();
    follow.wait_out("keys 1…100").await;
    cluster.stop(Stop::Fast).await;
    follow.wait_log("trying again until it can").await;
    cluster.start_again().await;
    insert(&cluster, 5).await;
    follow.wait_out("keys 101…105").await;
    follow.kill9().await;
    // An end that is past is an end.
    let ended = App::launch(&config).arguments(&["logs", "--follow", "--until", "1h"]).output();
    let ended = tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it ends");
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""), "{}", ended.stderr);
    app.kill9().await;
}

#[tokio::test]
async fn case_259_what_would_stop_or_drop_is_said_before_it_does() {
    let (cluster, _sim, config) = stage().await;
    let app = App::run(&config);
    app.wait_ready().await;
    let delivered = || async {
        let rows = cluster.number("SELECT coalesce(sum(rows_delivered), 0)::bigint FROM pg2planhat.section").await;
        (rows >= 100).then_some(())
    };
    eventually(Duration::from_secs(20), "the rows in the state", delivered).await;
    app.kill9().await;
    assert_eq!(changes(&config).await, (0, Vec::new()));
    // A state schema that is named otherwise: `run` refuses it, and so do these.
    let typo = config.clone().set("state.schema", "other");
    let (code, said) = changes(&typo).await;
    assert_eq!((code, &said[0]["danger"]), (1, &Value::Bool(true)), "{said:?}");
    assert!(said[0]["said"].as_str().unwrap().contains("the state schema other is not"), "{said:?}");
    let found = findings(&typo).await;
    let is = |found: &[(String, String, String)], code: &str| found.iter().any(|one| one.0 == "error" && one.1 == code);
    assert!(is(&found, "slot_without_state"), "{found:?}");
    assert!(!is(&findings(&config).await, "slot_without_state"));
    // Rows of the quarantine that a shorter time would drop.
    cluster
        .sql(
            "INSERT INTO pg2planhat.quarantine (section, key, reason, item, created_at)
                VALUES ('logins', '7', 'refused: no', '{}', now() - interval '3 days');
             UPDATE pg2planhat.delivery SET started_at = now() - interval '3 days'",
        )
        .await;
    assert_eq!(changes(&config).await, (0, Vec::new()));
    let (code, said) = changes(&config.clone().set("state", "{ keep_quarantine: 1d, keep_deliveries: 1d }")).await;
    assert_eq!((code, said.len(), &said[0]["rows"]), (1, 2, &Value::from(1)), "{said:?}");
    assert!(said[0]["said"].as_str().unwrap().contains("dropped for good"), "{said:?}");
    assert!(said[1]["said"].as_str().unwrap().contains("the ledger forgets"), "{said:?}");
    let zero = App::command(&config.clone().set("state", "{ keep_quarantine: 0d }"), &["plan"]).await;
    assert!(zero.code == 64 && zero.stderr.contains("removed for good"), "{zero:?}");
    // A role whose transactions only read.
    cluster.sql("ALTER ROLE postgres SET default_transaction_read_only = on").await;
    let found = findings(&config).await;
    let state = found.iter().find(|one| one.1 == "state").unwrap();
    assert!(state.0 == "error" && state.2.contains("only read"), "{found:?}");
}
