//! `repair`, from each state that needs a person, in each of its ways, and then the books: keys in the table against keys at
//! the stand-in. What Planhat will count twice was named before it was done.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::cli_ops_look::{json, stop};
use crate::faults_stream_scene::{PATIENCE, Scene};
use crate::harness::{App, Cluster, ConfigText, eventually};

/// A scene after an ordinary day: 40 rows delivered, the program stopped.
async fn after_a_day(scene: &Scene, state: &Cluster) {
    scene.insert(30).await;
    let app = scene.run().await;
    scene.insert(10).await;
    scene.exact().await;
    let known = || async {
        let sql = "SELECT count(*) FROM pg2planhat.instance WHERE xmin_floor IS NOT NULL";
        (state.number(sql).await == 1).then_some(())
    };
    eventually(PATIENCE, "an xmin floor", known).await;
    scene.confirmed().await;
    stop(&app).await;
}

/// What the books must say after the repair.
struct Books<'a> {
    /// The server and the configuration that are gone on with.
    cluster: &'a Cluster,
    config: ConfigText,
    /// The state's word.
    reason: &'a str,
    /// How it is mended.
    how: &'a str,
    /// Keys that are given up with `--accept-loss`.
    lost: BTreeSet<i64>,
}

impl Books<'_> {
    /// Starts in vain, repairs, goes on, and compares.
    async fn hold(&self, scene: &Scene) {
        let option = format!("--{}", self.how);
        let before = scene.accepted();
        let refused = App::run(&self.config);
        assert_eq!(refused.wait_exit(Duration::from_secs(20)).await, 75, "{}", refused.log());
        assert!(refused.log().contains(self.reason), "{}", refused.log());
        let asked = App::command(&self.config, &["repair", &option]).await;
        assert!(asked.code == 64 && asked.stderr.contains("no terminal to ask at"), "{asked:?}");
        let plan = json(&self.config, &["repair", &option, "--yes"]).await["repaired"].clone();
        assert_eq!(plan["reason"], self.reason, "{plan}");
        let named = self.named(&plan, &asked.stderr);

        let app = App::run(&self.config);
        scene.streaming(&app).await;
        self.cluster.sql("INSERT INTO m (external_id, value) SELECT 'new', g FROM generate_series(1, 3) g").await;
        let keys: BTreeSet<i64> = {
            let rows = self.cluster.rows("SELECT id FROM m").await;
            rows.iter().map(|row| row[0].as_ref().unwrap().parse().unwrap()).collect()
        };
        let wanted: BTreeSet<i64> = keys.difference(&self.lost).copied().collect();
        let arrived = || async { wanted.iter().all(|key| scene.accepted().contains_key(key)).then_some(()) };
        let found = tokio::time::timeout(PATIENCE, eventually(PATIENCE * 2, "every key", arrived)).await;
        let accepted = scene.accepted();
        let missing: Vec<_> = wanted.iter().filter(|key| !accepted.contains_key(key)).collect();
        assert!(found.is_ok(), "missing: {missing:?}\n{}", app.log());
        // To the end: what is in doubt comes last.
        stop(&app).await;
        let accepted = scene.accepted();
        let strange: Vec<_> = accepted.keys().filter(|key| !wanted.contains(key)).collect();
        assert!(strange.is_empty(), "given up, and delivered all the same: {strange:?}");
        for (key, times) in &accepted {
            let once_before = before.get(key).copied().unwrap_or(0);
            assert!(
                *times == 1 || *times == 2 && once_before == 1 && named.contains(key),
                "{key} came {times} times: {plan}"
            );
        }
        let again: u32 = accepted.values().sum::<u32>() - before.values().sum::<u32>() - 3;
        // What the slot still had is streamed beside what the plan reads again.
        let read = u32::try_from(plan["sections"][0]["rows"].as_u64().unwrap()).unwrap();
        assert!(again >= read && (plan["new_slot"] == false || again == read), "{again} rows came, {read} were named");
        assert_eq!(json(&self.config, &["repair", &option]).await["repaired"], Value::Null, "it is mended");
    }

    /// The keys that the plan named, and the question, too.
    fn named(&self, plan: &Value, question: &str) -> std::ops::RangeInclusive<i64> {
        let keys = &plan["sections"][0]["keys"];
        #[allow(clippy::reversed_empty_ranges, reason = "none")]
        let none = 1..=0;
        if self.how == "accept-loss" {
            assert!(keys.is_null() && question.contains("never delivered"), "{plan}\n{question}");
            return none;
        }
        let Some([first, last]) = keys.as_array().map(|keys| [&keys[0], &keys[1]]) else { return none };
        let number = |key: &Value| key.as_str().unwrap().parse::<i64>().unwrap();
        let (first, last) = (number(first), number(last));
        assert!(question.contains(&format!("keys {first}…{last}")) && question.contains("twice"), "{question}");
        first..=last
    }
}

const WAYS: [&str; 3] = ["gap", "backfill", "accept-loss"];

/// The slot is advanced past rows that were never sent.
async fn moved(how: &str) {
    let scene = Scene::new().await;
    after_a_day(&scene, &scene.cluster).await;
    scene.insert(5).await;
    scene.cluster.sql("SELECT pg_replication_slot_advance('pg2planhat', pg_current_wal_lsn())").await;
    scene.insert(2).await;
    let lost = if how == "accept-loss" { (41..=45).collect() } else { BTreeSet::new() };
    let config = scene.config.clone();
    Books { cluster: &scene.cluster, config, reason: "slot_moved", how, lost }.hold(&scene).await;
}

#[tokio::test]
async fn case_21_a_moved_slot_is_mended_by_gap() {
    moved(WAYS[0]).await;
}

#[tokio::test]
async fn case_21_a_moved_slot_is_mended_by_backfill() {
    moved(WAYS[1]).await;
}

#[tokio::test]
async fn case_21_a_moved_slot_is_mended_by_accepting_the_loss() {
    moved(WAYS[2]).await;
}

/// A standby without the slot is promoted.
async fn promoted(how: &str) {
    let scene = Scene::new().await;
    after_a_day(&scene, &scene.cluster).await;
    let standby = scene.cluster.standby().await;
    scene.insert(5).await;
    standby.catch_up_with(&scene.cluster).await;
    scene.cluster.crash().await;
    standby.promote().await;
    standby.sql("INSERT INTO m (external_id, value) VALUES ('after', 1), ('after', 2)").await;
    let keys = standby.rows("SELECT id FROM m WHERE id > 40").await;
    let late: BTreeSet<i64> = keys.iter().map(|row| row[0].as_ref().unwrap().parse().unwrap()).collect();
    assert_eq!(late.len(), 7);
    let lost = if how == "accept-loss" { late } else { BTreeSet::new() };
    let config = scene.config.clone().through(standby.port());
    Books { cluster: &standby, config, reason: "timeline_changed", how, lost }.hold(&scene).await;
}

#[tokio::test]
async fn case_26_a_promoted_standby_is_mended_by_gap() {
    promoted(WAYS[0]).await;
}

#[tokio::test]
async fn case_26_a_promoted_standby_is_mended_by_backfill() {
    promoted(WAYS[1]).await;
}

#[tokio::test]
async fn case_26_a_promoted_standby_is_mended_by_accepting_the_loss() {
    promoted(WAYS[2]).await;
}

/// The rows were moved to another server; the state is in a third.
async fn other_server(how: &str) {
    let state = Cluster::start().await;
    let mut scene = Scene::new().await;
    scene.config = scene.config.set("state.url", format!("\"{}?sslmode=disable\"", state.dsn()));
    after_a_day(&scene, &state).await;
    let other = Cluster::builder().own_identity().start().await;
    other.sql(&crate::harness::SectionText::metric_table("m")).await;
    other.sql("INSERT INTO m (id, external_id, value) SELECT g, 'c' || g, g FROM generate_series(1, 45) g").await;
    other.sql("SELECT setval('m_id_seq', 45)").await;
    let config = scene.config.clone().set("source.port", other.port());
    if how == "backfill" {
        let cannot = App::command(&config, &["repair", "--gap", "--yes"]).await;
        assert!(cannot.code == 75 && cannot.stderr.contains("transactions are numbered anew"), "{cannot:?}");
        assert!(cannot.stderr.contains("--backfill, or --accept-loss"), "{cannot:?}");
    }
    let lost = if how == "accept-loss" { (41..=45).collect() } else { BTreeSet::new() };
    Books { cluster: &other, config, reason: "other_server", how, lost }.hold(&scene).await;
}

#[tokio::test]
async fn case_26_another_server_is_adopted_by_backfill_and_not_by_gap() {
    other_server(WAYS[1]).await;
}

#[tokio::test]
async fn case_26_another_server_is_adopted_by_accepting_the_loss() {
    other_server(WAYS[2]).await;
}

/// Another table takes the name of the one that was attached, with a copy of its rows and two more.
async fn swapped(how: &str, running: bool) {
    let scene = Scene::new().await;
    after_a_day(&scene, &scene.cluster).await;
    let swap = "BEGIN; ALTER TABLE m RENAME TO m_old; CREATE TABLE m (LIKE m_old INCLUDING ALL);
        INSERT INTO m SELECT * FROM m_old; INSERT INTO m (external_id, value) VALUES ('x', 1), ('x', 2); COMMIT";
    let app = if running { Some(scene.run().await) } else { None };
    scene.cluster.sql(swap).await;
    // The section halts; the others, and the slot, go on.
    let app = app.unwrap_or_else(|| App::run(&scene.config));
    let halted = |status: &Value| (status["sections"][0]["state"] == "halted").then_some(());
    app.wait_status("the section to halt", halted).await;
    let status = app.status().await;
    assert!(status["sections"][0]["remedy"].as_str().unwrap().contains("repair --gap"), "{status}");
    stop(&app).await;
    let before = scene.accepted();
    let option = format!("--{how}");
    let plan = json(&scene.config, &["repair", &option, "--yes"]).await["repaired"].clone();
    assert_eq!(
        (plan["reason"].as_str(), plan["new_slot"].as_bool()),
        (Some("publication_changed"), Some(false)),
        "{plan}"
    );
    let app = App::run(&scene.config);
    scene.streaming(&app).await;
    scene.insert(3).await;
    let keys = scene.keys().await;
    let lost = |key: &i64| how == "accept-loss" && (41..=42).contains(key);
    let arrived = || async { keys.iter().all(|key| lost(key) || scene.accepted().contains_key(key)).then_some(()) };
    eventually(PATIENCE, "every key", arrived).await;
    stop(&app).await;
    let accepted = scene.accepted();
    assert_eq!(accepted.keys().filter(|key| lost(key)).count(), 0, "{accepted:?}");
    let again = accepted.values().sum::<u32>() - before.values().sum::<u32>() - 3;
    let read = plan["sections"][0]["rows"].as_u64().unwrap();
    assert_eq!(u64::from(again), read, "{plan}");
    assert!(accepted.values().all(|times| *times <= 2));
    assert_eq!(read, if how == "accept-loss" { 0 } else { 42 }, "every row of the new table is new: {plan}");
    assert_eq!(json(&scene.config, &["repair", &option]).await["repaired"], Value::Null, "it is mended");
}

#[tokio::test]
async fn case_20_a_swapped_table_is_mended_by_gap() {
    swapped(WAYS[0], true).await;
}

#[tokio::test]
async fn case_20_a_swapped_table_is_mended_by_backfill() {
    swapped(WAYS[1], true).await;
}

#[tokio::test]
async fn case_20_a_swapped_table_is_mended_by_accepting_the_loss() {
    swapped(WAYS[2], true).await;
}

#[tokio::test]
async fn case_20_a_table_swapped_while_nothing_ran_is_mended_by_gap() {
    swapped(WAYS[0], false).await;
}

/// The table is taken out of the publication while nothing runs, and nothing runs until the repair either.
async fn taken_out(how: &str) {
    let scene = Scene::new().await;
    after_a_day(&scene, &scene.cluster).await;
    scene.cluster.sql("ALTER PUBLICATION pg2planhat DROP TABLE m").await;
    scene.insert(5).await;
    let option = format!("--{how}");
    let plan = json(&scene.config, &["repair", &option, "--yes"]).await["repaired"].clone();
    assert_eq!(
        (plan["reason"].as_str(), plan["new_slot"].as_bool()),
        (Some("publication_changed"), Some(false)),
        "{plan}"
    );
    let gap = "SELECT section || ' ' || reason || ' ' || (closed_at IS NOT NULL) FROM pg2planhat.gap";
    assert_eq!(scene.cluster.text(gap).await, "m publication_changed true", "it is on record");
    let before = scene.accepted();
    let app = scene.run().await;
    scene.insert(3).await;
    let lost = |key: &i64| how == "accept-loss" && (41..=45).contains(key);
    let keys = scene.keys().await;
    let arrived = || async { keys.iter().all(|key| lost(key) || scene.accepted().contains_key(key)).then_some(()) };
    eventually(PATIENCE, "every key", arrived).await;
    stop(&app).await;
    let accepted = scene.accepted();
    assert_eq!(accepted.keys().filter(|key| lost(key)).count(), 0, "{accepted:?}");
    let again = accepted.values().sum::<u32>() - before.values().sum::<u32>() - 3;
    assert_eq!(Some(u64::from(again)), plan["sections"][0]["rows"].as_u64(), "{plan}");
    assert_eq!(json(&scene.config, &["repair", &option]).await["repaired"], Value::Null, "it is mended");
}

#[tokio::test]
async fn case_20_a_table_taken_out_while_nothing_ran_is_mended_by_gap() {
    taken_out(WAYS[0]).await;
}

#[tokio::test]
async fn case_20_a_table_taken_out_while_nothing_ran_is_mended_by_accepting_the_loss() {
    taken_out(WAYS[2]).await;
}

#[tokio::test]
async fn case_331_a_slot_that_is_named_otherwise_in_the_file_is_not_left_behind() {
    let scene = Scene::new().await;
    scene.insert(10).await;
    let app = scene.run().await;
    scene.exact().await;
    let other = scene.config.clone().set("source.slot", "other");
    // Beside the first: a copy of the file that differs in the slot alone.
    let beside = App::command(&other, &["repair", "--gap", "--yes"]).await;
    assert!(beside.code == 69 && beside.stderr.contains("an instance holds the slot pg2planhat"), "{beside:?}");
    stop(&app).await;
    scene.insert(5).await;

    let refused = App::run(&other);
    assert_eq!(refused.wait_exit(PATIENCE).await, 75, "{}", refused.log());
    let log = refused.log();
    assert!(log.contains("the file names the slot other, and this state belongs to the slot pg2planhat"), "{log}");
    let checked = App::command(&other, &["check"]).await;
    assert!(checked.code == 1 && checked.stdout.contains("the file names the slot other"), "{checked:?}");
    let kept = App::command(&other, &["repair", "--gap", "--yes"]).await;
    assert!(kept.code == 75 && kept.stderr.contains("which is there still and keeps WAL"), "{kept:?}");

    // The remedy, word by word.
    scene.cluster.sql("SELECT pg_drop_replication_slot('pg2planhat')").await;
    json(&other, &["repair", "--gap", "--yes"]).await;
    let app = App::run(&other);
    scene.streaming(&app).await;
    scene.insert(1).await;
    scene.exact().await;
    stop(&app).await;

    // And back by hand: the teardown takes the slot of the state, too.
    json(&scene.config, &["teardown", "--yes"]).await;
    assert_eq!(scene.cluster.number("SELECT count(*) FROM pg_replication_slots").await, 0);
}
