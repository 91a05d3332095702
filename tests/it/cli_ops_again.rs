//! Sending again: `resync` and `quarantine`.

use std::time::Duration;

use pg2planhat::testing::sim::{SimFault, SinkKind};
use serde_json::json;

use crate::cli_ops_look::{insert, json, received, stage, stop, wait_items};
use crate::harness::{App, eventually};

#[tokio::test]
async fn case_40_a_resync_delivers_its_range_once_and_no_streamed_row_twice() {
    let (cluster, sim, config) = stage().await;
    let app = App::run(&config);
    wait_items(&sim, 100).await;
    app.wait_status("the stream", |status| (status["sections"][0]["state"] == "streaming").then_some(())).await;

    let nobody = App::command(&config, &["resync", "logins", "--from-key", "60"]).await;
    assert_eq!(nobody.code, 64);
    assert!(nobody.stderr.contains("40 rows of logins with id > 60"), "{nobody:?}");
    assert!(nobody.stderr.contains("twice") && nobody.stderr.contains("--yes"), "{nobody:?}");
    let wrong = App::command(&config, &["resync", "logins", "--from-key", "x", "--yes"]).await;
    assert_eq!(wrong.code, 64, "{wrong:?}");

    // A transaction that is open holds the xmin barrier up: what is streamed meanwhile is within the range.
    let client = cluster.client().await;
    client.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    let asked = json(&config, &["resync", "logins", "--from-key", "60", "--yes"]).await;
    assert_eq!((asked["rows"].as_u64(), asked["result"].as_str()), (Some(40), Some("begun")), "{asked}");
    let again = App::command(&config, &["resync", "logins", "--all", "--yes"]).await;
    assert_eq!(again.code, 64);
    assert!(again.stderr.contains("under way"), "{again:?}");
    insert(&cluster, 50).await;
    wait_items(&sim, 150).await;
    client.batch_execute("COMMIT").await.unwrap();
    wait_items(&sim, 190).await;
    app.wait_status("the stream", |status| (status["sections"][0]["state"] == "streaming").then_some(())).await;
    insert(&cluster, 1).await;
    wait_items(&sim, 191).await;
    let expected: Vec<_> = (1..=151).map(|user| (user, if (61..=100).contains(&user) { 2 } else { 1 })).collect();
    assert_eq!(received(&sim), expected);
    let phases = json(&config, &["logs", "-n", "1000"]).await;
    assert!(phases.as_array().unwrap().iter().any(|row| row["phase"] == "resync" && row["outcome"] == "delivered"));
    stop(&app).await;
}

#[tokio::test]
async fn a_resync_from_a_time_is_kept_for_the_next_instance() {
    let (cluster, sim, config) = stage().await;
    cluster.sql("UPDATE app_event SET at = timestamptz '2024-01-01 00:00Z' + id * interval '1 hour'").await;
    let app = App::run(&config);
    wait_items(&sim, 100).await;
    app.wait_status("the stream", |status| (status["sections"][0]["state"] == "streaming").then_some(())).await;
    stop(&app).await;
    let time = ["resync", "logins", "--from-time", "2024-01-05T00:00:00Z", "--yes"];
    let asked = json(&config, &time).await;
    assert_eq!((asked["from"].as_str(), asked["rows"].as_u64(), &asked["result"]), (Some("95"), Some(5), &json!(null)));
    let none = json(&config, &["resync", "logins", "--from-time", "2030-01-01T00:00:00Z", "--yes"]).await;
    assert_eq!(none["event"], json!(null));
    let app = App::run(&config);
    wait_items(&sim, 105).await;
    app.wait_status("the stream", |status| (status["sections"][0]["state"] == "streaming").then_some(())).await;
    stop(&app).await;
    let app = App::run(&config);
    app.wait_ready().await;
    insert(&cluster, 1).await;
    wait_items(&sim, 106).await;
    let expected: Vec<_> = (1..=101).map(|user| (user, if (96..=100).contains(&user) { 2 } else { 1 })).collect();
    assert_eq!(received(&sim), expected);
    stop(&app).await;
}

#[tokio::test]
async fn quarantined_rows_are_listed_shown_sent_again_and_dropped() {
    let (cluster, sim, config) = stage().await;
    sim.queue_fault(SimFault::RefuseFirst { count: 3, error: "no such user".into() });
    cluster.sql("UPDATE app_event SET email = NULL, user_id = NULL WHERE id = 50").await;
    let app = App::run(&config);
    wait_items(&sim, 96).await;
    let held = || async {
        let held = json(&config, &["quarantine", "list"]).await;
        (held.as_array().unwrap().len() == 4).then_some(held)
    };
    let held = eventually(Duration::from_secs(20), "four rows in quarantine", held).await;
    let id = |key: &str| held.as_array().unwrap().iter().find(|row| row["key"] == key).unwrap()["id"].to_string();
    let refused = json(&config, &["quarantine", "list", "--reason", "refused"]).await;
    assert_eq!(refused.as_array().unwrap().len(), 3);
    assert!(refused[0]["reason"].as_str().unwrap().contains("no such user"));
    let shown = json(&config, &["quarantine", "show", &id("2")]).await;
    assert_eq!(shown["item"]["externalId"], "u2");
    let absent = App::command(&config, &["quarantine", "show", "999"]).await;
    assert_eq!(absent.code, 64, "{absent:?}");
    let people = App::command(&config, &["quarantine", "list"]).await.stdout;
    // Without a terminal a row is one line, however long.
    assert_eq!(people.lines().filter(|line| line.contains("logins")).count(), 4, "{people}");

    // Of the first the row is gone: its item is sent. The second is read again. The third is mended in the table.
    cluster.sql("DELETE FROM app_event WHERE id = 1; UPDATE app_event SET action = 'mended' WHERE id = 2").await;
    let retried = json(&config, &["quarantine", "retry", &id("1"), &id("2")]).await;
    assert_eq!(
        (retried["rows"].as_u64(), retried["events"][0]["result"].as_str()),
        (Some(2), Some("2 rows are sent again"))
    );
    wait_items(&sim, 98).await;
    let items = sim.items(SinkKind::Activity);
    let action = |user: &str| {
        let found = items.iter().map(|item| item.item()).find(|item| item["externalId"] == user).unwrap();
        found["action"].as_str().unwrap().to_owned()
    };
    assert_eq!((action("u1").as_str(), action("u2").as_str()), ("login", "mended"));
    let left = || async { (json(&config, &["quarantine", "list"]).await.as_array().unwrap().len() == 2).then_some(()) };
    eventually(Duration::from_secs(10), "them to leave the quarantine", left).await;

    // The row that is no item goes in again, with a new id; refused ones can be chosen by reason.
    let nothing = App::command(&config, &["quarantine", "drop", "--reason", "mapping"]).await;
    assert!(nothing.code == 64 && nothing.stderr.contains("1 row leaves"), "{nothing:?}");
    assert_eq!(json(&config, &["quarantine", "drop", "--reason", "mapping", "--yes"]).await["dropped"], 1);
    let all = json(&config, &["quarantine", "retry", "--all"]).await;
    assert_eq!(all["rows"], 1);
    wait_items(&sim, 99).await;
    let empty = || async { (json(&config, &["quarantine", "list"]).await == json!([])).then_some(()) };
    eventually(Duration::from_secs(10), "an empty quarantine", empty).await;
    let expected: Vec<_> = (1..=100).filter(|user| *user != 50).map(|user| (user, 1)).collect();
    assert_eq!(received(&sim), expected);
    let retries = json(&config, &["logs", "--outcome", "delivered", "-n", "1000"]).await;
    assert!(retries.as_array().unwrap().iter().any(|row| row["phase"] == "retry"));
    stop(&app).await;
}

#[tokio::test]
async fn a_retry_waits_for_an_instance() {
    let (_cluster, sim, config) = stage().await;
    sim.queue_fault(SimFault::RefuseFirst { count: 2, error: "no such user".into() });
    let app = App::run(&config);
    wait_items(&sim, 98).await;
    app.wait_status("the stream", |status| (status["sections"][0]["state"] == "streaming").then_some(())).await;
    stop(&app).await;
    let said = App::command(&config, &["quarantine", "retry", "--section", "logins"]).await;
    assert!(said.code == 0 && said.stdout.contains("the next one will send them"), "{said:?}");
    // Asked twice, sent once.
    assert_eq!(json(&config, &["quarantine", "retry", "--all"]).await["rows"], 2);
    let app = App::run(&config);
    wait_items(&sim, 100).await;
    app.wait_log("0 rows are sent again").await;
    let expected: Vec<_> = (1..=100).map(|user| (user, 1)).collect();
    assert_eq!(received(&sim), expected);
    stop(&app).await;
}
