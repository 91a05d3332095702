//! The main job and the identity cases on every PostgreSQL that is supported: each case below is a test for each version,
//! `pgNN::case`. By default they run on 15 and 18; `PG2PLANHAT_TEST_VERSIONS` chooses others (`all`, `14 17`).

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use pg2planhat::testing::sim::SimFault;

use crate::faults_slot::{in_step, with_synced_slots};
use crate::faults_stream_scene::{PATIENCE, Scene};
use crate::harness::{App, Cluster, Proxy, Stop, Version, eventually};
use crate::main_job_oracle::drain;

/// A test of each case for each version.
macro_rules! on_every_version {
    ($cases:tt) => {
        on_every_version!(pg14 V14 $cases);
        on_every_version!(pg15 V15 $cases);
        on_every_version!(pg16 V16 $cases);
        on_every_version!(pg17 V17 $cases);
        on_every_version!(pg18 V18 $cases);
    };
    ($module:ident $version:ident { $($case:ident)* }) => {
        mod $module {
            use crate::harness::Version;
            $(
                #[tokio::test]
                async fn $case() {
                    if Version::asked().contains(&Version::$version) {
                        super::$case(Version::$version).await;
                    } else {
                        eprintln!("not asked for: {}", Version::$version);
                    }
                }
            )*
        }
    };
}

/// A test of each case for the oldest and the newest version and for the one between, where the server's part is small.
macro_rules! on_some_versions {
    ($cases:tt) => {
        crate::versions_main_job::on_every_version!(pg14 V14 $cases);
        crate::versions_main_job::on_every_version!(pg15 V15 $cases);
        crate::versions_main_job::on_every_version!(pg18 V18 $cases);
    };
}

pub(crate) use {on_every_version, on_some_versions};

on_every_version!({
    case_01_10_25_the_main_job_brings_each_key_once
    case_11_a_fast_shutdown_is_not_held_up
    case_18_a_prepared_transaction_comes_with_its_commit
    case_19_a_publication_dropped_while_running_loses_nothing_that_a_repair_does_not_bring
    case_19_a_publication_remade_while_down_is_a_named_state
    case_21_a_slot_dropped_while_down_is_a_named_state
    case_21_a_slot_recreated_while_down_is_a_named_state
    case_21_a_slot_moved_while_down_is_a_named_state
    case_21_a_lost_slot_is_a_named_state
    case_21_a_slot_with_two_phase_is_not_taken
    case_26_another_server_is_a_named_state
    case_26_a_restored_data_directory_is_a_named_state
    case_26_a_promotion_without_the_slot_is_a_named_state
    case_26_a_promotion_with_the_slot_loses_and_doubles_nothing
});

async fn scene(version: Version) -> Option<Scene> {
    Some(Scene::at(Cluster::builder().version(version).start_or_skip().await?).await)
}

/// Streams, has delivered three rows, and has stopped cleanly.
async fn stopped(scene: &Scene) {
    let app = scene.run().await;
    scene.insert(3).await;
    scene.exact().await;
    drain(app, &scene.cluster).await;
}

/// Backfill and stream with commits that come late under low keys, clean stops with rows written meanwhile, a restart of
/// the server between, and at last a start that has nothing to do.
async fn case_01_10_25_the_main_job_brings_each_key_once(version: Version) {
    let Some(scene) = scene(version).await else { return };
    scene.insert(3_000).await;
    let early = scene.cluster.client().await;
    early
        .batch_execute("BEGIN; INSERT INTO m (external_id, value) SELECT 'early', g FROM generate_series(1, 50) g")
        .await
        .unwrap();
    scene.insert(500).await;
    let app = App::run(&scene.config);
    let half_made = "SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn IS NULL";
    let waits = || async { (scene.cluster.number(half_made).await > 0).then_some(()) };
    eventually(PATIENCE, "the slot's making to wait for the open transaction", waits).await;
    early.batch_execute("COMMIT").await.unwrap();
    scene.streaming(&app).await;
    let late = scene.cluster.client().await;
    late.batch_execute("BEGIN; INSERT INTO m (external_id, value) SELECT 'late', g FROM generate_series(1, 50) g")
        .await
        .unwrap();
    scene.insert(500).await;
    late.batch_execute("SAVEPOINT a; INSERT INTO m (external_id) VALUES ('never'); ROLLBACK TO a; COMMIT")
        .await
        .unwrap();
    scene.exact().await;

    drain(app, &scene.cluster).await;
    scene.insert(100).await;
    scene.cluster.stop(Stop::Fast).await;
    scene.cluster.start_again().await;
    let app = scene.run().await;
    scene.insert(100).await;
    scene.exact().await;
    scene.cluster.stop(Stop::Fast).await;
    scene.cluster.start_again().await;
    scene.insert(100).await;
    scene.exact().await;

    scene.confirmed().await;
    drain(app, &scene.cluster).await;
    scene.cluster.crash().await;
    scene.cluster.start_again().await;
    let requests = scene.sim.stats().metrics.requests;
    let app = scene.run().await;
    scene.confirmed().await;
    drain(app, &scene.cluster).await;
    assert_eq!(scene.sim.stats().metrics.requests, requests, "a start with nothing to do sends something");
    scene.exact().await;
}

async fn case_11_a_fast_shutdown_is_not_held_up(version: Version) {
    let Some(scene) = scene(version).await else { return };
    let app = scene.run().await;
    scene.sim.queue_fault(SimFault::status(503).times(0));
    scene.insert(50).await;
    let took = scene.cluster.stop(Stop::Fast).await;
    assert!(took < Duration::from_secs(6), "the fast shutdown took {took:?}");
    scene.sim.clear_faults();
    scene.cluster.start_again().await;
    scene.exact().await;
    assert!(app.is_running());
}

async fn case_18_a_prepared_transaction_comes_with_its_commit(version: Version) {
    let Some(scene) = scene(version).await else { return };
    let app = scene.run().await;
    let prepared = "INSERT INTO m (external_id) VALUES ('p'); PREPARE TRANSACTION";
    scene.cluster.sql(&format!("BEGIN; {prepared} 'kept'; BEGIN; {prepared} 'gone'")).await;
    scene.insert(3).await;
    scene.exact().await;
    scene.cluster.sql("ROLLBACK PREPARED 'gone'").await;
    scene.cluster.sql("COMMIT PREPARED 'kept'").await;
    scene.insert(1).await;
    scene.exact().await;
    assert_eq!(scene.accepted().len(), 5);
    scene.confirmed().await;
    drain(app, &scene.cluster).await;
}

/// Until 17 the server refuses to decode without it; 18 warns in its log and skips the rows, while the slot moves on.
async fn case_19_a_publication_dropped_while_running_loses_nothing_that_a_repair_does_not_bring(version: Version) {
    let Some(scene) = scene(version).await else { return };
    let app = scene.run().await;
    scene.insert(3).await;
    scene.exact().await;
    scene.confirmed().await;
    scene.cluster.sql("DROP PUBLICATION pg2planhat").await;
    scene.insert(4).await;
    if version >= Version::V18 {
        scene.cluster.wait_log("skipped loading publication").await;
    }
    scene.needs_person(&app, "publication_changed").await;
    assert_eq!(scene.gaps().await, ["publication_changed"]);
    let skipped =
        "SELECT count(*) FROM m WHERE id > 3 AND xmin::text::bigint < (SELECT xmin_floor FROM pg2planhat.gap)";
    assert_eq!(scene.cluster.number(skipped).await, 0, "rows below the gap's floor: no repair would find them");
    let repaired = App::command(&scene.config, &["--json", "repair", "--gap", "--yes"]).await;
    assert_eq!(repaired.code, 0, "{repaired:?}");
    let app = scene.run().await;
    scene.insert(2).await;
    scene.delivered().await;
    assert_eq!(scene.accepted().len(), 9);
    drain(app, &scene.cluster).await;
}

async fn case_19_a_publication_remade_while_down_is_a_named_state(version: Version) {
    let Some(scene) = scene(version).await else { return };
    stopped(&scene).await;
    scene.cluster.sql("DROP PUBLICATION pg2planhat").await;
    scene.insert(2).await;
    scene.cluster.sql("CREATE PUBLICATION pg2planhat FOR TABLE m WITH (publish = 'insert')").await;
    named(&scene, "publication_changed").await;
}

/// Starts: it ends in this state, nothing was sent, and the gap is recorded.
async fn named(scene: &Scene, reason: &str) {
    let app = App::run(&scene.config);
    scene.needs_person(&app, reason).await;
    assert_eq!(scene.gaps().await, [reason]);
    assert_eq!(scene.accepted().len(), 3);
}

async fn case_21_a_slot_dropped_while_down_is_a_named_state(version: Version) {
    let Some(scene) = scene(version).await else { return };
    stopped(&scene).await;
    scene.insert(2).await;
    scene.cluster.sql("SELECT pg_drop_replication_slot('pg2planhat')").await;
    named(&scene, "slot_missing").await;
}

async fn case_21_a_slot_recreated_while_down_is_a_named_state(version: Version) {
    let Some(scene) = scene(version).await else { return };
    stopped(&scene).await;
    scene.insert(2).await;
    scene.cluster.sql("SELECT pg_drop_replication_slot('pg2planhat')").await;
    scene.cluster.sql("SELECT pg_create_logical_replication_slot('pg2planhat', 'pgoutput')").await;
    named(&scene, "slot_recreated").await;
}

async fn case_21_a_slot_moved_while_down_is_a_named_state(version: Version) {
    let Some(scene) = scene(version).await else { return };
    stopped(&scene).await;
    scene.insert(2).await;
    scene.cluster.sql("SELECT pg_replication_slot_advance('pg2planhat', pg_current_wal_lsn())").await;
    let app = App::run(&scene.config);
    assert_eq!(app.wait_exit(PATIENCE).await, 75, "{}", app.log());
    let reason = scene.recorded_reason().await;
    // Whether its oldest WAL moved as well is the server's affair.
    assert!(["slot_moved", "slot_recreated"].contains(&&*reason), "{reason}");
    assert_eq!(scene.gaps().await, [reason]);
}

async fn case_21_a_lost_slot_is_a_named_state(version: Version) {
    let builder = Cluster::builder().version(version).setting("max_slot_wal_keep_size", "1MB");
    let builder = builder.setting("max_wal_size", "32MB").setting("min_wal_size", "32MB").setting("wal_keep_size", "0");
    let Some(cluster) = builder.start_or_skip().await else { return };
    let scene = Scene::at(cluster).await;
    stopped(&scene).await;
    scene.insert(2).await;
    scene.cluster.sql("CREATE TABLE filler (t text)").await;
    let lost = || async {
        let fill = "INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 10000); SELECT pg_switch_wal(); CHECKPOINT";
        scene.cluster.sql(fill).await;
        let status = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'pg2planhat'";
        (scene.cluster.text(status).await == "lost").then_some(())
    };
    eventually(PATIENCE, "the slot to be lost", lost).await;
    named(&scene, "slot_lost").await;
    let repaired = App::command(&scene.config, &["--json", "repair", "--gap", "--yes"]).await;
    assert_eq!(repaired.code, 0, "{repaired:?}");
    let app = scene.run().await;
    scene.insert(2).await;
    scene.delivered().await;
    drain(app, &scene.cluster).await;
}

async fn case_21_a_slot_with_two_phase_is_not_taken(version: Version) {
    let Some(scene) = scene(version).await else { return };
    scene.cluster.sql("CREATE PUBLICATION pg2planhat FOR TABLE m WITH (publish = 'insert')").await;
    scene.cluster.sql("SELECT pg_create_logical_replication_slot('pg2planhat', 'pgoutput', false, true)").await;
    let checked = App::command(&scene.config, &["--json", "check"]).await;
    assert!(checked.code == 1 && checked.stdout.contains("slot_two_phase"), "{checked:?}");
    let made = App::command(&scene.config, &["setup"]).await;
    assert!(made.code == 75 && made.stderr.contains("pg_drop_replication_slot('pg2planhat')"), "{made:?}");
    // Nor where it takes the place of ours.
    scene.cluster.sql("SELECT pg_drop_replication_slot('pg2planhat')").await;
    stopped(&scene).await;
    scene.cluster.sql("SELECT pg_drop_replication_slot('pg2planhat')").await;
    scene.cluster.sql("SELECT pg_create_logical_replication_slot('pg2planhat', 'pgoutput', false, true)").await;
    let app = App::run(&scene.config);
    scene.needs_person(&app, "slot_recreated").await;
    assert!(app.log().contains("two_phase"), "{}", app.log());
}

async fn case_26_another_server_is_a_named_state(version: Version) {
    let Some(scene) = scene(version).await else { return };
    let other = Cluster::builder().version(version).own_identity().start_or_skip().await.unwrap();
    let state = Cluster::builder().version(version).start_or_skip().await.unwrap();
    let mut scene =
        Scene { config: scene.config.set("state.url", format!("\"{}?sslmode=disable\"", state.dsn())), ..scene };
    let app = scene.run().await;
    scene.insert(3).await;
    scene.exact().await;
    app.sigterm();
    assert_eq!(app.wait_exit(PATIENCE).await, 0);
    other.sql(&crate::harness::SectionText::metric_table("m")).await;
    other.sql("CREATE PUBLICATION pg2planhat FOR TABLE m WITH (publish = 'insert')").await;
    other
        .sql("SELECT pg_create_logical_replication_slot('pg2planhat', 'pgoutput'); INSERT INTO m (value) VALUES (1)")
        .await;
    scene.config = scene.config.through(other.port());
    let app = App::run(&scene.config);
    assert_eq!(app.wait_exit(PATIENCE).await, 75, "{}", app.log());
    assert_eq!(state.text("SELECT reason FROM pg2planhat.instance").await, "other_server");
    assert_eq!(scene.accepted().len(), 3);
}

/// The state is elsewhere, and so knows of more than the server that was put back from its backup.
async fn case_26_a_restored_data_directory_is_a_named_state(version: Version) {
    let Some(scene) = scene(version).await else { return };
    let state = Cluster::builder().version(version).start_or_skip().await.unwrap();
    let scene =
        Scene { config: scene.config.set("state.url", format!("\"{}?sslmode=disable\"", state.dsn())), ..scene };
    let run = async |rows| {
        let app = scene.run().await;
        scene.insert(rows).await;
        scene.exact().await;
        scene.confirmed().await;
        app.sigterm();
        assert_eq!(app.wait_exit(PATIENCE).await, 0);
        scene.cluster.stop(Stop::Fast).await;
    };
    let backup = crate::harness::scratch::Scratch::new("backup");
    let (data, copy) = (scene.cluster.data(), backup.path().join("data"));
    run(3).await;
    crate::harness::scratch::run(Command::new("cp").arg("-a").arg(&data).arg(&copy)).unwrap();
    scene.cluster.start_again().await;
    run(2).await;
    std::fs::remove_dir_all(&data).unwrap();
    crate::harness::scratch::run(Command::new("cp").arg("-a").arg(&copy).arg(&data)).unwrap();
    scene.cluster.start_again().await;
    let app = App::run(&scene.config);
    assert_eq!(app.wait_exit(PATIENCE).await, 75, "{}", app.log());
    assert_eq!(state.text("SELECT reason FROM pg2planhat.instance").await, "restored_backup");
    assert_eq!(scene.accepted().len(), 5);
}

async fn case_26_a_promotion_without_the_slot_is_a_named_state(version: Version) {
    let Some(scene) = scene(version).await else { return };
    let app = scene.run().await;
    scene.insert(3).await;
    scene.exact().await;
    let standby = scene.cluster.standby().await;
    drain(app, &scene.cluster).await;
    scene.insert(2).await;
    standby.catch_up_with(&scene.cluster).await;
    scene.cluster.crash().await;
    standby.promote().await;
    let scene = Scene { config: scene.config.through(standby.port()), cluster: standby, sim: scene.sim };
    let app = App::run(&scene.config);
    scene.needs_person(&app, "timeline_changed").await;
    let repaired = App::command(&scene.config, &["--json", "repair", "--gap", "--yes"]).await;
    assert_eq!(repaired.code, 0, "{repaired:?}");
    let app = scene.run().await;
    scene.insert(2).await;
    scene.delivered().await;
    assert_eq!(scene.accepted().len(), 7);
    drain(app, &scene.cluster).await;
}

/// From 17 on: rows are written all the while, nothing is sent that the standby does not have, and it is promoted.
async fn case_26_a_promotion_with_the_slot_loses_and_doubles_nothing(version: Version) {
    if version < Version::V17 {
        return;
    }
    let Some((mut scene, standby, _network)) = with_synced_slots(version).await else { return };
    scene.cluster.set("synchronized_standby_slots", "standby").await;
    let proxy = Proxy::to_port(scene.cluster.port());
    scene.config = scene.config.through(proxy.port());
    let app = scene.run().await;
    scene.insert(3).await;
    scene.exact().await;
    in_step(&scene, &standby).await;
    let checked = App::command(&scene.config, &["--json", "check"]).await;
    let findings = checked.json();
    let codes: BTreeMap<&str, &str> = findings["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| (finding["code"].as_str().unwrap(), finding["severity"].as_str().unwrap()))
        .collect();
    assert_eq!(
        (checked.code, codes.get("failover_standbys"), codes.get("standby_awaited")),
        (0, Some(&"info"), None),
        "{codes:?}"
    );
    for _ in 0..20 {
        scene.insert(5).await;
    }
    scene.cluster.crash().await;
    standby.promote().await;
    proxy.retarget(standby.port());
    // What the old primary had not passed on was neither sent nor kept: the keys that count are the new one's.
    let scene = Scene { cluster: standby, sim: scene.sim, config: scene.config };
    scene.insert(5).await;
    scene.delivered().await;
    app.wait_ready().await;
    scene.exact_but_in_doubt().await;
    let keys = scene.keys().await;
    assert!(
        scene.accepted().keys().all(|key| keys.contains(key)),
        "a row was delivered that the new primary never had"
    );
    assert_eq!(app.status().await["instance"]["timeline"], 2);
    scene.confirmed().await;
    drain(app, &scene.cluster).await;
}
