//! A database that was copied within its server, as for a staging: it has the state of the first one, and neither its slot nor
//! its instance.

use std::time::Duration;

use serde_json::Value;

use crate::cli_ops_look::{insert, stage};
use crate::harness::{App, Cluster, ConfigText};

/// Makes `copy` of the usual database, which nobody may use meanwhile.
async fn copy(cluster: &Cluster) {
    let maker = cluster.client_of("template1").await;
    let others = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = 'postgres'";
    maker.batch_execute(others).await.unwrap();
    maker.batch_execute("CREATE DATABASE copy TEMPLATE postgres").await.unwrap();
}

async fn findings(config: &ConfigText) -> Vec<(String, String)> {
    let document = App::command(config, &["--json", "check"]).await.json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let errors = document["findings"].as_array().unwrap().iter().filter(|one| one["severity"] == "error");
    errors.map(|one| (text(&one["code"]), text(&one["message"]))).collect()
}

#[tokio::test]
async fn case_240_a_copied_database_is_not_taken_for_the_one_that_the_slot_is_of() {
    let (cluster, sim, config) = stage().await;
    let app = App::run(&config);
    app.wait_ready().await;
    crate::cli_ops_look::wait_items(&sim, 100).await;
    app.sigterm();
    assert_eq!(app.wait_exit(Duration::from_secs(30)).await, 0);
    copy(&cluster).await;
    let app = App::run(&config);
    app.wait_ready().await;
    let copied = config.clone().set("source.database", "copy");
    let is_said = |text: &str| text.contains("this is another database (copy), recorded was postgres");
    // Alone, and with the first one's instance behind the admin port that its file names.
    for beside in [false, true] {
        let launch = App::launch(&copied).arguments(&["--json", "status"]);
        let status = if beside { launch.beside(&app) } else { launch }.output().await;
        let (code, status) = (status.code, status.json());
        let said = (status["state"].as_str(), status["reason"].as_str(), &status["ready"]);
        assert_eq!((code, said), (1, (Some("needs_person"), Some("other_server"), &Value::Bool(false))), "{status}");
        assert!(is_said(status["message"].as_str().unwrap()), "{status}");
        assert!(status["remedy"].as_str().unwrap().contains("pg2planhat teardown"), "{status}");
        assert_eq!(status["slot"]["retained_bytes"], Value::Null, "they are the other's: {status}");
    }
    let found = findings(&copied).await;
    assert!(found.iter().any(|(code, what)| code == "other_server" && is_said(what)), "{found:?}");
    assert!(found.iter().any(|(code, _)| code == "slot_database"), "{found:?}");
    assert!(!found.iter().any(|(_, what)| what.contains("re-created")), "nothing was dropped: {found:?}");
    let setup = App::command(&copied, &["setup"]).await;
    assert!(setup.code == 75 && is_said(&setup.stderr), "{setup:?}");
    for command in [&["repair", "--gap", "--yes"][..], &["teardown", "--yes"]] {
        let refused = App::command(&copied, command).await;
        let why = "the slot pg2planhat is another's: it decodes the database postgres, and this is copy";
        assert!(refused.code == 75 && refused.stderr.contains(why), "{command:?}: {refused:?}");
    }
    let paused = App::command(&copied, &["pause", "logins"]).await;
    assert!(!paused.stdout.contains("within 5 s"), "no instance obeys here: {paused:?}");
    // As the remedy says; the first one goes on.
    let own = copied.set("source.slot", "own");
    let gone = App::command(&own, &["teardown", "--yes"]).await;
    assert_eq!(gone.code, 0, "{gone:?}");
    let status = app.status().await;
    assert_eq!((&status["state"], &status["instance"]["database"]), (&"running".into(), &"postgres".into()));
    insert(&cluster, 5).await;
    crate::cli_ops_look::wait_items(&sim, 105).await;
}
