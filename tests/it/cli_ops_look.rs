//! Looking, and the switch: `status`, `logs`, `pause`, `resume`, `sim`.

use std::time::Duration;

use pg2planhat::testing::sim::{Sim, SimFault, SimHandle, SimOptions, SinkKind};
use serde_json::Value;

use crate::harness::{App, Cluster, ConfigText, SectionText, eventually};

/// A cluster with 100 rows of activities, a stand-in, and a configuration over both.
pub async fn stage() -> (Cluster, SimHandle, ConfigText) {
    let cluster = Cluster::start().await;
    cluster.sql(&SectionText::activity_table("app_event")).await;
    insert(&cluster, 100).await;
    let sim = Sim::start(SimOptions::default()).await.unwrap();
    let config = ConfigText::new(&cluster, &sim.url()).section(SectionText::activity("logins", "app_event"));
    (cluster, sim, config)
}

/// Adds rows, each with a `user_id` of its own: the key that the table gives it.
pub async fn insert(cluster: &Cluster, rows: u32) {
    let sql = format!(
        "INSERT INTO app_event (email, user_id, action, weight) SELECT 'a@b.c', 'u' || g, 'login', 1 FROM \
         generate_series((SELECT coalesce(max(id), 0) + 1 FROM app_event), \
         (SELECT coalesce(max(id), 0) + {rows} FROM app_event)) g"
    );
    cluster.sql(&sql).await;
}

/// How often each user was received, in order of users' numbers.
pub fn received(sim: &SimHandle) -> Vec<(u32, usize)> {
    let mut times = std::collections::BTreeMap::new();
    for item in sim.items(SinkKind::Activity) {
        let user = item.item()["externalId"].as_str().unwrap()[1..].parse().unwrap();
        *times.entry(user).or_insert(0) += 1;
    }
    times.into_iter().collect()
}

/// Waits until so many activities were received.
pub async fn wait_items(sim: &SimHandle, items: u64) {
    sim.wait_for(|stats| stats.activities.items >= items, Duration::from_secs(30)).await.unwrap();
}

/// Runs a command that must end well, and reads its document.
pub async fn json(config: &ConfigText, arguments: &[&str]) -> Value {
    let output = App::command(config, &[&["--json"], arguments].concat()).await;
    // `status` says by its end, too, whether all is well.
    assert!(output.code == 0 || output.code == 1 && arguments == ["status"], "{arguments:?}: {output:?}");
    output.json()
}

/// Ends an instance in order.
pub async fn stop(app: &App) {
    app.sigterm();
    assert_eq!(app.wait_exit(Duration::from_secs(30)).await, 0, "{}", app.log());
}

#[tokio::test]
async fn status_tells_of_an_instance_that_runs_here_elsewhere_or_not() {
    let (cluster, sim, config) = stage().await;
    let before = json(&config, &["status"]).await;
    assert_eq!((before["state"].as_str(), before["sections"][0]["state"].as_str()), (Some("stalled"), Some("waiting")));
    assert!(before["message"].as_str().unwrap().contains("nothing has run here yet"), "{before}");

    let app = App::run(&config);
    app.wait_ready().await;
    wait_items(&sim, 100).await;
    app.wait_status("the stream", |status| (status["sections"][0]["state"] == "streaming").then_some(())).await;
    let here = App::launch(&config).arguments(&["--json", "status"]).beside(&app).output().await.json();
    assert_eq!((here["state"].as_str(), here["instance"]["leader"].as_bool()), (Some("running"), Some(true)), "{here}");
    assert_eq!(here["sections"][0]["lag_seconds"], 0.0);

    let elsewhere = json(&config, &["status"]).await;
    assert_eq!(elsewhere["state"], "running");
    assert_eq!(elsewhere["instance"]["leader"], false);
    let section = &elsewhere["sections"][0];
    assert_eq!((section["state"].as_str(), section["rows_delivered"].as_u64()), (Some("streaming"), Some(100)));
    assert_eq!((section["backfill"]["rows"].as_u64(), &section["lag_seconds"]), (Some(100), &Value::Null));

    let human = App::launch(&config).arguments(&["status"]).beside(&app).output().await;
    assert!(human.stdout.starts_with("running\n") && human.stdout.contains("streaming"), "{}", human.stdout);
    assert!(human.stdout.lines().all(|line| line.chars().count() <= 80), "{}", human.stdout);

    stop(&app).await;
    let after = json(&config, &["status"]).await;
    assert_eq!((after["state"].as_str(), after["ready"].as_bool()), (Some("stalled"), Some(false)));
    assert!(after["message"].as_str().unwrap().contains("no instance runs"), "{after}");
    assert!(after["slot"]["retained_bytes"].is_u64(), "{after}");
    let watched = App::launch(&config).arguments(&["status", "--watch"]).start();
    watched.wait_out("no instance runs").await;
    watched.wait_out("Ctrl-C ends this view").await;
    watched.kill9().await;

    cluster.sql("SELECT pg_drop_replication_slot('pg2planhat')").await;
    let broken = json(&config, &["status"]).await;
    assert_eq!((broken["state"].as_str(), broken["reason"].as_str()), (Some("needs_person"), Some("slot_missing")));
    assert!(broken["remedy"].as_str().unwrap().contains("repair"), "{broken}");
}

#[tokio::test]
async fn logs_show_the_ledger_and_follow_it() {
    let (cluster, sim, config) = stage().await;
    sim.queue_fault(SimFault::RefuseFirst { count: 1, error: "no such user".into() });
    let app = App::run(&config);
    wait_items(&sim, 99).await;
    app.wait_status("the stream", |status| (status["sections"][0]["state"] == "streaming").then_some(())).await;

    let follow = App::launch(&config).arguments(&["--json", "logs", "--follow"]).start();
    insert(&cluster, 5).await;
    wait_items(&sim, 104).await;
    let logs = async || {
        let rows = json(&config, &["logs"]).await;
        let rows = rows.as_array().unwrap().clone();
        let ended = rows.len() >= 2 && rows.iter().all(|row| row["outcome"] != "sending");
        ended.then_some(rows)
    };
    let rows = eventually(Duration::from_secs(20), "two batches in the ledger", logs).await;
    let told = |field: &str| rows.iter().map(|row| row[field].clone()).collect::<Vec<_>>();
    assert_eq!((told("phase")[0].as_str(), told("outcome")[0].as_str()), (Some("backfill"), Some("partial")));
    let last = rows.last().unwrap();
    assert_eq!((last["phase"].as_str(), last["outcome"].as_str()), (Some("stream"), Some("delivered")));
    assert_eq!((last["http_status"].as_u64(), last["last_key"].as_str()), (Some(200), Some("105")));

    let partial = json(&config, &["logs", "logins", "--outcome", "partial", "--since", "1h"]).await;
    assert_eq!(partial.as_array().unwrap().len(), 1);
    assert_eq!(json(&config, &["logs", "--until", "1h"]).await, serde_json::json!([]));
    let typo = App::command(&config, &["logs", "login"]).await;
    assert_eq!(typo.code, 64);
    assert!(typo.stderr.contains("did you mean logins?"), "{typo:?}");
    let people = App::command(&config, &["logs"]).await.stdout;
    assert!(people.contains("partial") && people.lines().all(|line| line.chars().count() <= 80), "{people}");

    follow.wait_out(r#""last_key":"105","outcome":"delivered""#).await;
    follow.kill9().await;
    // Filters hold for what comes, too; people get one line a batch.
    let filtered = App::launch(&config).arguments(&["logs", "logins", "--follow", "--outcome", "partial"]).start();
    filtered.wait_out("partial").await;
    insert(&cluster, 2).await;
    wait_items(&sim, 106).await;
    sim.queue_fault(SimFault::RefuseFirst { count: 1, error: "later".into() });
    insert(&cluster, 2).await;
    filtered.wait_out("later").await;
    let shown = filtered.out();
    assert!(shown.lines().count() == 2 && shown.lines().all(|line| line.contains(" partial ")), "{shown}");
    filtered.kill9().await;
    stop(&app).await;
}

#[tokio::test]
async fn a_paused_section_rests_within_5_s_and_goes_on() {
    let (cluster, sim, config) = stage().await;
    let typo = App::command(&config, &["pause", "login"]).await;
    assert!(typo.code == 64 && typo.stderr.contains("did you mean logins?"), "{typo:?}");
    let app = App::run(&config);
    wait_items(&sim, 100).await;

    let paused = json(&config, &["pause", "logins"]).await;
    assert_eq!(paused, serde_json::json!({ "section": "logins", "paused": true, "running": true }));
    let resting = |status: &Value| (status["sections"][0]["state"] == "paused").then_some(());
    tokio::time::timeout(Duration::from_secs(5), app.wait_status("the pause", resting)).await.unwrap();
    insert(&cluster, 3).await;
    // It is read, and waits.
    app.wait_status("a lag", |status| (status["sections"][0]["lag_seconds"].as_f64()? > 0.5).then_some(())).await;
    assert_eq!(sim.stats().activities.items, 100);
    let shown = json(&config, &["status"]).await;
    assert_eq!(shown["sections"][0]["remedy"], "pg2planhat resume logins");

    let resumed = App::command(&config, &["resume", "logins"]).await;
    assert!(resumed.code == 0 && resumed.stdout.contains("within 5 s"), "{resumed:?}");
    sim.wait_for(|stats| stats.activities.items == 103, Duration::from_secs(5)).await.unwrap();
    stop(&app).await;

    json(&config, &["pause", "logins"]).await;
    insert(&cluster, 1).await;
    let app = App::run(&config);
    app.wait_status("the pause", resting).await;
    json(&config, &["resume", "logins"]).await;
    wait_items(&sim, 104).await;
    assert!(received(&sim).iter().all(|(_, times)| *times == 1));
    stop(&app).await;
}

#[tokio::test]
async fn the_stand_in_runs_alone() {
    let cluster = Cluster::start().await;
    let config = ConfigText::new(&cluster, "http://127.0.0.1:9");
    let arguments = ["--json", "sim", "--listen", "127.0.0.1:0", "--strict", "current", "--keep", "counts"];
    let app = App::launch(&config).arguments(&arguments).start();
    app.wait_out("http://127.0.0.1:").await;
    app.sigterm();
    assert_eq!(app.wait_exit(Duration::from_secs(10)).await, 0);
    let wrong = App::command(&config, &["sim", "--fault-rate", "2"]).await;
    assert_eq!(wrong.code, 64);
}
