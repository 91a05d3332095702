//! A source whose volume is put back to an older snapshot while the state, elsewhere, knows of more; and what looks like it and
//! is none: a server that crashed, and has an older slot. Each case is a test for each version, as in `versions_main_job`.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use pg2planhat::testing::sim::SinkKind;

use crate::cli_ops_look::json;
use crate::faults_stream_scene::{PATIENCE, Scene};
use crate::harness::scratch::{Scratch, run};
use crate::harness::{App, Cluster, Proxy, Stop, Version, eventually};
use crate::versions_main_job::on_every_version;

on_every_version!({
    case_299_a_server_that_crashed_is_gone_on_with
    case_299_a_crash_of_both_is_gone_on_with
    case_300_a_volume_that_is_put_back_loses_nothing_after_a_repair
    case_300_rows_between_the_last_one_and_the_checkpoint_are_seen
    case_301_another_transaction_at_the_place_of_the_last_one_is_seen
    case_302_a_volume_that_is_put_back_under_a_running_program_is_seen
    case_303_a_state_that_goes_back_with_its_source_is_gone_on_with
    case_303_a_state_of_an_earlier_version_is_gone_on_with
});

/// What the words are that every command says.
const WORDS: &str = "this server's log is not the one that was delivered from";

/// A source, and a state elsewhere.
async fn apart(version: Version) -> Option<(Scene, Cluster)> {
    let mut scene = Scene::at(Cluster::builder().version(version).start_or_skip().await?).await;
    let state = Cluster::builder().version(version).start_or_skip().await?;
    scene.config = scene.config.set("state.url", format!("\"{}?sslmode=disable\"", state.dsn()));
    Some((scene, state))
}

async fn end(app: App) {
    app.sigterm();
    assert_eq!(app.wait_exit(PATIENCE).await, 0, "{}", app.log());
}

/// A copy of a stopped server's volume.
struct Snapshot(Scratch);

impl Snapshot {
    async fn of(cluster: &Cluster) -> Snapshot {
        let scratch = Scratch::new("snapshot");
        cluster.stop(Stop::Fast).await;
        run(Command::new("cp").arg("-a").arg(cluster.data()).arg(scratch.path().join("data"))).unwrap();
        cluster.start_again().await;
        Snapshot(scratch)
    }

    async fn put_back(&self, cluster: &Cluster) {
        cluster.stop(Stop::Fast).await;
        std::fs::remove_dir_all(cluster.data()).unwrap();
        run(Command::new("cp").arg("-a").arg(self.0.path().join("data")).arg(cluster.data())).unwrap();
        cluster.start_again().await;
    }
}

/// The application writes rows of its own, one a transaction.
async fn write(cluster: &Cluster, name: &str, rows: u32) {
    for row in 1..=rows {
        cluster.sql(&format!("INSERT INTO m (external_id, value) VALUES ('{name}{row}', {row})")).await;
    }
}

/// Others write until the log is longer than it was.
async fn outgrow(cluster: &Cluster) {
    cluster.sql("SELECT pg_logical_emit_message(true, 'others', repeat('x', 300000))").await;
}

/// How often each row was accepted, by the name that the application gave it.
fn accepted(scene: &Scene) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for item in scene.sim.items(SinkKind::Metric) {
        *counts.entry(item.item()["externalId"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

/// Waits until rows of this name were accepted, so many.
async fn arrive(scene: &Scene, name: &str, rows: u32) {
    let all = || async {
        let accepted = accepted(scene);
        (1..=rows).all(|row| accepted.contains_key(&format!("{name}{row}"))).then_some(())
    };
    eventually(PATIENCE, &format!("{rows} rows {name}"), all).await;
}

async fn slot(cluster: &Cluster) -> String {
    cluster.text("SELECT confirmed_flush_lsn FROM pg_replication_slots").await
}

/// The program does not go on: it says why, in the same words everywhere, and the slot stays where it is.
async fn stops(scene: &Scene, state: &Cluster, why: &str) {
    let before = slot(&scene.cluster).await;
    let app = App::run(&scene.config);
    assert_eq!(app.wait_exit(PATIENCE).await, 75, "{}", app.log());
    assert!(app.log().contains(WORDS) && app.log().contains(why), "{}", app.log());
    told(scene, state, &before).await;
}

async fn told(scene: &Scene, state: &Cluster, before: &str) {
    assert_eq!(slot(&scene.cluster).await, before, "the slot keeps what is new");
    assert_eq!(state.text("SELECT reason FROM pg2planhat.instance").await, "restored_backup");
    let status = json(&scene.config, &["status"]).await;
    assert_eq!((status["state"].as_str(), status["reason"].as_str()), (Some("needs_person"), Some("restored_backup")));
    let message = status["message"].as_str().unwrap();
    assert!(message.starts_with(WORDS), "{status}");
    assert!(status["remedy"].as_str().unwrap().contains("repair --accept-loss"), "{status}");
    let checked = App::command(&scene.config, &["--json", "check"]).await;
    let findings = checked.json();
    let is_said = |finding: &&Value| finding["code"] == "restored_backup" && finding["message"] == message;
    assert!(findings["findings"].as_array().unwrap().iter().any(|finding| is_said(&finding)), "{findings}");
    let gap = App::command(&scene.config, &["repair", "--gap", "--yes"]).await;
    assert!(gap.code == 75 && gap.stderr.contains("transactions are numbered anew"), "{gap:?}");
}

/// Goes on from the slot: the rows of this name come all; what came twice was named before.
async fn mended(scene: &Scene, state: &Cluster, name: &str, rows: u32) {
    let before = accepted(scene);
    let asked = App::command(&scene.config, &["repair", "--accept-loss"]).await;
    assert!(asked.stderr.contains(WORDS) && asked.stderr.contains("count twice"), "{asked:?}");
    let plan = json(&scene.config, &["repair", "--accept-loss", "--yes"]).await["repaired"].clone();
    assert_eq!((plan["new_slot"].as_bool(), plan["other_history"].as_bool()), (Some(false), Some(true)), "{plan}");
    let app = scene.run().await;
    arrive(scene, name, rows).await;
    write(&scene.cluster, "after", 3).await;
    arrive(scene, "after", 3).await;
    end(app).await;
    let after = accepted(scene);
    let again: u32 = before.iter().map(|(name, times)| after[name] - times).sum();
    let named = plan["sections"][0]["rows"].as_u64().unwrap();
    assert!(u64::from(again) <= named, "{again} rows came twice, {named} were named: {after:?}");
    assert!((1..=rows).all(|row| after[&format!("{name}{row}")] <= 2), "{after:?}");
    assert_eq!(state.number("SELECT count(*) FROM pg2planhat.gap WHERE closed_at IS NULL").await, 0);
    // And the log that is gone on with is ours from here on.
    scene.cluster.stop(Stop::Immediate).await;
    scene.cluster.start_again().await;
    let app = scene.run().await;
    write(&scene.cluster, "crashed", 2).await;
    arrive(scene, "crashed", 2).await;
    end(app).await;
    assert!((1..=3).all(|row| accepted(scene)[&format!("after{row}")] == 1), "{:?}", accepted(scene));
}

async fn case_300_a_volume_that_is_put_back_loses_nothing_after_a_repair(version: Version) {
    let Some((scene, state)) = apart(version).await else { return };
    let app = scene.run().await;
    write(&scene.cluster, "common", 3).await;
    arrive(&scene, "common", 3).await;
    end(app).await;
    let snapshot = Snapshot::of(&scene.cluster).await;
    let app = scene.run().await;
    write(&scene.cluster, "old", 20).await;
    arrive(&scene, "old", 20).await;
    end(app).await;
    snapshot.put_back(&scene.cluster).await;
    write(&scene.cluster, "written-anew", 25).await;
    outgrow(&scene.cluster).await;
    stops(&scene, &state, "the last transaction that was read").await;
    // It is seen again as often as it is looked at.
    stops(&scene, &state, "the last transaction that was read").await;
    mended(&scene, &state, "written-anew", 25).await;
}

async fn case_300_rows_between_the_last_one_and_the_checkpoint_are_seen(version: Version) {
    let Some((scene, state)) = apart(version).await else { return };
    let app = scene.run().await;
    write(&scene.cluster, "common", 3).await;
    arrive(&scene, "common", 3).await;
    end(app).await;
    let snapshot = Snapshot::of(&scene.cluster).await;
    let app = scene.run().await;
    outgrow(&scene.cluster).await;
    scene.confirmed().await;
    end(app).await;
    snapshot.put_back(&scene.cluster).await;
    write(&scene.cluster, "new", 5).await;
    outgrow(&scene.cluster).await;
    outgrow(&scene.cluster).await;
    stops(&scene, &state, "that were never read").await;
    mended(&scene, &state, "new", 5).await;
}

async fn case_301_another_transaction_at_the_place_of_the_last_one_is_seen(version: Version) {
    let Some((scene, state)) = apart(version).await else { return };
    let app = scene.run().await;
    write(&scene.cluster, "old", 4).await;
    arrive(&scene, "old", 4).await;
    scene.cluster.stop(Stop::Immediate).await;
    app.kill9().await;
    scene.cluster.start_again().await;
    // The same place in another log, as near as a test can come to it.
    let xid = state.number("SELECT read_xid FROM pg2planhat.instance").await;
    state.sql("UPDATE pg2planhat.instance SET read_xid = read_xid + 1").await;
    outgrow(&scene.cluster).await;
    stops(&scene, &state, &format!("the transaction {xid} committed, where {} was read", xid + 1)).await;
    state.sql("UPDATE pg2planhat.instance SET read_xid = read_xid - 1, read_commit = read_commit + 1").await;
    stops(&scene, &state, "committed at another time").await;
    state.sql("UPDATE pg2planhat.instance SET read_commit = read_commit - 1").await;
    let app = scene.run().await;
    write(&scene.cluster, "later", 2).await;
    arrive(&scene, "later", 2).await;
    end(app).await;
    scene.exact().await;
}

async fn case_302_a_volume_that_is_put_back_under_a_running_program_is_seen(version: Version) {
    let Some((mut scene, state)) = apart(version).await else { return };
    let proxy = Proxy::to_port(scene.cluster.port());
    scene.config = scene.config.through(proxy.port());
    let app = scene.run().await;
    write(&scene.cluster, "common", 3).await;
    arrive(&scene, "common", 3).await;
    end(app).await;
    let snapshot = Snapshot::of(&scene.cluster).await;
    let app = scene.run().await;
    write(&scene.cluster, "old", 20).await;
    arrive(&scene, "old", 20).await;
    proxy.refuse();
    proxy.cut();
    snapshot.put_back(&scene.cluster).await;
    write(&scene.cluster, "new", 25).await;
    outgrow(&scene.cluster).await;
    let before = slot(&scene.cluster).await;
    proxy.pass();
    assert_eq!(app.wait_exit(PATIENCE).await, 75, "{}", app.log());
    assert!(app.log().contains(WORDS), "{}", app.log());
    told(&scene, &state, &before).await;
    mended(&scene, &state, "new", 25).await;
}

/// Crashes right behind deliveries: the slot on disk is behind the checkpoint, and the same rows come again.
async fn case_299_a_server_that_crashed_is_gone_on_with(version: Version) {
    let Some((scene, _state)) = apart(version).await else { return };
    let app = scene.run().await;
    for round in 1..=6 {
        write(&scene.cluster, &format!("r{round}-"), 5).await;
        if round % 3 == 0 {
            outgrow(&scene.cluster).await;
        }
        arrive(&scene, &format!("r{round}-"), 5).await;
        scene.cluster.stop(Stop::Immediate).await;
        scene.cluster.start_again().await;
    }
    write(&scene.cluster, "end", 2).await;
    arrive(&scene, "end", 2).await;
    assert!(!app.log().contains(WORDS), "{}", app.log());
    scene.confirmed().await;
    end(app).await;
    scene.exact().await;
}

/// The program ends with the server, and knows no more than its state.
async fn case_299_a_crash_of_both_is_gone_on_with(version: Version) {
    let Some((scene, state)) = apart(version).await else { return };
    let mut older = 0;
    for round in 1..=5 {
        let app = scene.run().await;
        scene.cluster.sql("CREATE TABLE IF NOT EXISTS beside (x int); INSERT INTO beside VALUES (1)").await;
        write(&scene.cluster, &format!("r{round}-"), 5).await;
        scene.cluster.sql("BEGIN; INSERT INTO m (external_id) VALUES ('never'); ROLLBACK; TRUNCATE beside").await;
        arrive(&scene, &format!("r{round}-"), 5).await;
        let settled = "SELECT (checkpoint > read_lsn)::int FROM pg2planhat.instance";
        let is_settled = || async { (state.number(settled).await == 1).then_some(()) };
        eventually(Duration::from_secs(10), "the checkpoint", is_settled).await;
        scene.cluster.stop(Stop::Immediate).await;
        app.kill9().await;
        scene.cluster.start_again().await;
        let checkpoint = state.text("SELECT checkpoint FROM pg2planhat.instance").await;
        let is_older = format!("SELECT (confirmed_flush_lsn < '{checkpoint}')::int FROM pg_replication_slots");
        older += scene.cluster.number(&is_older).await;
    }
    assert!(older > 0, "no slot was behind its checkpoint: nothing was tried");
    let app = scene.run().await;
    write(&scene.cluster, "end", 2).await;
    arrive(&scene, "end", 2).await;
    end(app).await;
    let twice: Vec<_> = accepted(&scene).into_iter().filter(|(_, times)| *times > 1).collect();
    let doubted =
        state.number("SELECT coalesce(sum(rows), 0)::bigint FROM pg2planhat.delivery WHERE outcome = 'resent'");
    assert!(twice.len() as i64 <= doubted.await, "{twice:?}");
}

async fn case_303_a_state_that_goes_back_with_its_source_is_gone_on_with(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    let scene = Scene::at(cluster).await;
    let app = scene.run().await;
    write(&scene.cluster, "common", 3).await;
    arrive(&scene, "common", 3).await;
    end(app).await;
    let snapshot = Snapshot::of(&scene.cluster).await;
    let app = scene.run().await;
    write(&scene.cluster, "old", 20).await;
    arrive(&scene, "old", 20).await;
    end(app).await;
    snapshot.put_back(&scene.cluster).await;
    write(&scene.cluster, "new", 25).await;
    outgrow(&scene.cluster).await;
    let app = scene.run().await;
    arrive(&scene, "new", 25).await;
    end(app).await;
    assert!(accepted(&scene).values().all(|times| *times == 1), "{:?}", accepted(&scene));
}

async fn case_303_a_state_of_an_earlier_version_is_gone_on_with(version: Version) {
    let Some((scene, state)) = apart(version).await else { return };
    let app = scene.run().await;
    write(&scene.cluster, "old", 4).await;
    arrive(&scene, "old", 4).await;
    scene.cluster.stop(Stop::Immediate).await;
    app.kill9().await;
    scene.cluster.start_again().await;
    state.sql("UPDATE pg2planhat.instance SET read_lsn = NULL, read_xid = NULL, read_commit = NULL").await;
    let app = scene.run().await;
    write(&scene.cluster, "later", 2).await;
    arrive(&scene, "later", 2).await;
    end(app).await;
    assert_eq!(state.number("SELECT count(*) FROM pg2planhat.instance WHERE read_xid IS NOT NULL").await, 1);
}
