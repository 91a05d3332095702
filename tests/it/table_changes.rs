//! A table that is changed under its section while it runs, or while nothing does: what fits again goes on by itself (FAULTS 91),
//! what is seen once is never lost again (168 to 170), and rows are taken only
//! from where, and since when, they were asked for (78, 171).

use std::time::Duration;

use pg2planhat::testing::sim::{SimFault, SinkKind};

use crate::faults_stream_scene::{PATIENCE, Scene, section};
use crate::harness::{App, Cluster, ConfigText, SectionText, Stop, Version, eventually};
use crate::main_job_oracle::{drain, section_is};
use crate::versions_main_job::on_every_version;

on_every_version!({
    case_169_a_partition_that_was_attached_while_nothing_ran_is_told_of
    case_170_a_replica_identity_that_is_dropped_is_told_of_while_it_runs
});

/// An optional column goes and comes back, with rows written meanwhile; nobody restarts anything.
#[tokio::test]
async fn case_91_a_table_that_fits_again_lets_its_section_go_on_by_itself() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.insert(5).await;
    scene.exact().await;
    for round in 0..2 {
        scene.cluster.sql("ALTER TABLE m DROP COLUMN at").await;
        scene.insert(3).await;
        section_is(&app, "m", "halted").await;
        scene.cluster.sql("ALTER TABLE m ADD COLUMN at timestamptz DEFAULT now()").await;
        section_is(&app, "m", "streaming").await;
        scene.insert(2).await;
        scene.exact().await;
        let items = scene.sim.items(SinkKind::Metric);
        let undated = items.iter().filter(|item| item.item().get("date").is_none()).count();
        assert_eq!(undated, 3 * (round + 1), "rows of the time when there was no such column");
    }
    assert_eq!(app.log().matches("leading").count(), 1, "{}", app.log());
    drain(app, &scene.cluster).await;
}

/// The backfill of a section whose table did not fit when the process began.
#[tokio::test]
async fn case_91_a_backfill_goes_on_when_its_table_fits_again() {
    let scene = Scene::new().await;
    scene.insert(500).await;
    let app = App::run(&scene.config.clone().set("planhat.url", "http://127.0.0.1:9"));
    section_is(&app, "m", "backfilling").await;
    drain(app, &scene.cluster).await;
    scene.cluster.sql("ALTER TABLE m RENAME COLUMN external_id TO account").await;
    let app = App::run(&scene.config);
    section_is(&app, "m", "halted").await;
    scene.cluster.sql("ALTER TABLE m RENAME COLUMN account TO external_id").await;
    scene.insert(5).await;
    section_is(&app, "m", "streaming").await;
    scene.exact().await;
    assert_eq!(app.log().matches("leading").count(), 1, "{}", app.log());
    drain(app, &scene.cluster).await;
}

/// A type that cannot be mapped, in the middle of a backfill, with chunks read ahead of it.
#[tokio::test]
async fn case_91_a_type_that_changes_and_changes_back_beside_a_backfill_loses_no_chunk() {
    let mut scene = Scene::new().await;
    scene.config = ConfigText::new(&scene.cluster, &scene.sim.url())
        .set("memory", "4MiB")
        .section(section().field("value", "value").set("batch", "{ rows: 100, bytes: 1KiB }"));
    scene.insert(6_000).await;
    scene.sim.set_fault_rate(1, 1.0, vec![SimFault::Slow { millis: 100 }]);
    let app = App::run(&scene.config);
    scene.sim.wait_for(|stats| stats.metrics.items > 200, PATIENCE).await.unwrap();
    scene.cluster.sql("ALTER TABLE m ALTER COLUMN value TYPE timestamptz USING to_timestamp(value)").await;
    scene.sim.clear_faults();
    section_is(&app, "m", "halted").await;
    let back = "ALTER TABLE m ALTER COLUMN value TYPE float8 USING extract(epoch FROM value)";
    scene.cluster.sql(back).await;
    // Not before all is settled that was read with the type before.
    let goes_on = async || app.log().contains("its table fits its mapping again").then_some(());
    eventually(Duration::from_secs(100), "the section to go on", goes_on).await;
    scene.exact().await;
    drain(app, &scene.cluster).await;
}

/// A column whose type changes beside a backfill, and before a retry and a re-sync: each row is encoded by the type that it was
/// read with.
#[tokio::test]
async fn case_90_a_type_that_changes_beside_a_backfill_a_retry_and_a_resync_refuses_no_row() {
    let mut scene = Scene::new().await;
    scene.config = ConfigText::new(&scene.cluster, &scene.sim.url())
        .set("memory", "4MiB")
        .section(section().field("dimensionId", "external_id").set("batch", "{ rows: 100, bytes: 1KiB }"));
    scene.cluster.sql("ALTER TABLE m ALTER COLUMN at TYPE timestamp").await;
    scene.insert(5_000).await;
    // Refused for another reason, to be sent again later.
    scene.cluster.sql("INSERT INTO m (value) VALUES (1), (2)").await;
    scene.insert(2_000).await;
    scene.sim.set_fault_rate(1, 1.0, vec![SimFault::Slow { millis: 50 }]);
    let app = App::run(&scene.config);
    scene.sim.wait_for(|stats| stats.metrics.items > 200, PATIENCE).await.unwrap();
    scene.cluster.sql("ALTER TABLE m ALTER COLUMN at TYPE timestamptz USING at AT TIME ZONE 'UTC'").await;
    assert!(scene.sim.stats().metrics.items < 5_000, "too fast to have tried anything");
    scene.sim.clear_faults();
    scene.sim.wait_for(|stats| stats.metrics.items >= 7_000, PATIENCE).await.unwrap();
    section_is(&app, "m", "streaming").await;
    let refused = "SELECT count(*) FROM pg2planhat.quarantine WHERE reason NOT LIKE '%externalId%'";
    assert_eq!(scene.cluster.number(refused).await, 0, "good rows are in quarantine");
    assert_eq!(scene.cluster.number("SELECT count(*) FROM pg2planhat.quarantine").await, 2);
    scene.cluster.sql("UPDATE m SET external_id = 'c' WHERE external_id IS NULL").await;
    let beside = |arguments: &[&str]| App::launch(&scene.config).beside(&app).arguments(arguments).output();
    assert_eq!(beside(&["quarantine", "retry", "--all", "--yes"]).await.code, 0);
    let none = async || (scene.cluster.number("SELECT count(*) FROM pg2planhat.quarantine").await == 0).then_some(());
    eventually(PATIENCE, "the retried rows to be delivered", none).await;
    scene.exact().await;
    // And back again, for a re-sync.
    scene.cluster.sql("ALTER TABLE m ALTER COLUMN at TYPE timestamp USING at AT TIME ZONE 'UTC'").await;
    scene.sim.clear();
    assert_eq!(beside(&["resync", "m", "--all", "--yes"]).await.code, 0);
    scene.exact().await;
    assert_eq!(scene.cluster.number("SELECT count(*) FROM pg2planhat.quarantine").await, 0);
    drain(app, &scene.cluster).await;
}

/// It is written in order with all else: no connection of its own can fail, and no end of the process comes before it.
#[tokio::test]
async fn case_168_a_gap_is_recorded_though_nobody_can_connect_and_the_process_ends() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.insert(3).await;
    scene.exact().await;
    let (inside, outside) = (scene.cluster.client().await, scene.cluster.client_of("template1").await);
    let name: String = inside.query_one("SELECT current_database()::text", &[]).await.unwrap().get(0);
    outside.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await.unwrap();
    inside.batch_execute("ALTER PUBLICATION pg2planhat DROP TABLE m").await.unwrap();
    app.wait_log("halted: rows may have been skipped since").await;
    app.sigterm();
    assert_eq!(app.wait_exit(Duration::from_secs(30)).await, 0, "{}", app.log());
    outside.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await.unwrap();
    assert_eq!(scene.gaps().await, ["publication_changed"], "{}", app.log());
}

async fn case_169_a_partition_that_was_attached_while_nothing_ran_is_told_of(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    let scene = Scene::at(cluster).await;
    let columns = "(id bigint NOT NULL, external_id text, value float8, at timestamptz DEFAULT now())";
    let made = format!(
        "DROP TABLE m; CREATE TABLE m {columns} PARTITION BY LIST (external_id);
         CREATE TABLE m_a PARTITION OF m FOR VALUES IN ('a'); CREATE TABLE m_b {columns}; INSERT INTO m_b VALUES (1, 'b');
         ALTER TABLE m ATTACH PARTITION m_b FOR VALUES IN ('b')"
    );
    for statement in made.split(';') {
        scene.cluster.sql(statement).await;
    }
    let config =
        ConfigText::new(&scene.cluster, &scene.sim.url()).section(section().set("key", "id").set("start", "now"));
    let restart = async || {
        let app = App::run(&config);
        scene.streaming(&app).await;
        // The floor, as it is written with the checkpoint.
        scene.cluster.sql("INSERT INTO m (id, external_id) VALUES (nextval('ids'), 'a')").await;
        scene.confirmed().await;
        let floor = "SELECT count(*) FROM pg2planhat.instance WHERE xmin_floor IS NOT NULL";
        eventually(PATIENCE, "a floor", async || (scene.cluster.number(floor).await == 1).then_some(())).await;
        // The monitor has looked: only then the slot's retained bytes are known.
        app.wait_status("the first look", |status| status["slot"]["retained_bytes"].as_i64()).await;
        let log = app.log();
        drain(app, &scene.cluster).await;
        log
    };
    scene.cluster.sql("CREATE SEQUENCE ids START 100").await;
    restart().await;
    scene.cluster.sql("CREATE TABLE m_d PARTITION OF m FOR VALUES IN ('d')").await;
    let log = restart().await;
    assert!(!log.contains("was attached:"), "one made empty, and those of before the section: {log}");
    scene.cluster.sql(&format!("CREATE TABLE m_c {columns}")).await;
    scene.cluster.sql("INSERT INTO m_c VALUES (2, 'c')").await;
    scene.cluster.sql("ALTER TABLE m ATTACH PARTITION m_c FOR VALUES IN ('c')").await;
    let log = restart().await;
    assert!(log.contains("the partition m_c was attached"), "{log}");
    assert_eq!(scene.gaps().await, ["partition_attached"]);
}

async fn case_170_a_replica_identity_that_is_dropped_is_told_of_while_it_runs(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    let mut scene = Scene::at(cluster).await;
    let updated = SectionText::metric("m", "m").field("value", "id").set("on", "insert_and_update");
    scene.config = ConfigText::new(&scene.cluster, &scene.sim.url()).section(updated);
    let app = scene.run().await;
    scene.insert(3).await;
    scene.exact().await;
    scene.cluster.sql("ALTER TABLE m REPLICA IDENTITY NOTHING").await;
    assert!(scene.cluster.try_sql("UPDATE m SET value = 7").await.is_err(), "PostgreSQL refuses it");
    section_is(&app, "m", "halted").await;
    let status = app.status().await;
    let said = status["sections"][0].to_string();
    assert!(said.contains("refuses the application's own UPDATE") && said.contains("DROP TABLE"), "{said}");
    // Nothing of it is held back meanwhile.
    scene.insert(2).await;
    scene.exact().await;
    scene.cluster.sql("ALTER TABLE m REPLICA IDENTITY DEFAULT").await;
    section_is(&app, "m", "streaming").await;
    drain(app, &scene.cluster).await;
}

/// `source.host` names two servers, and another than the one that streams is reached when a range is read.
#[tokio::test]
async fn case_78_a_backfill_reads_no_rows_of_another_server_than_the_streams() {
    let other = Cluster::builder().own_identity().start().await;
    other.sql(&SectionText::metric_table("m")).await;
    other.sql("INSERT INTO m (external_id, value) SELECT 'other', g FROM generate_series(1, 40) g").await;
    let mut scene = Scene::new().await;
    let hosts = format!("\"127.0.0.1:{},127.0.0.1:{}\"", other.port(), scene.cluster.port());
    scene.config = scene.config.clone().unset("source.port").set("source.host", hosts);
    other.stop(Stop::Fast).await;
    let app = scene.run().await;
    scene.insert(20).await;
    scene.exact().await;
    // Holds the range back until the other server is there.
    let open = scene.cluster.client().await;
    open.batch_execute("CREATE TABLE unmapped (); BEGIN; INSERT INTO unmapped DEFAULT VALUES").await.unwrap();
    let asked = App::launch(&scene.config).arguments(&["resync", "m", "--all", "--yes"]).beside(&app).start();
    section_is(&app, "m", "waiting").await;
    other.start_again().await;
    let readers =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE '%backfill%'";
    assert_eq!(scene.cluster.number(readers).await, 1);
    open.batch_execute("COMMIT").await.unwrap();
    let told =
        |status: &serde_json::Value| status["sections"][0]["reason"].as_str()?.contains("another server").then_some(());
    app.wait_status("the section to say so", told).await;
    assert_eq!(scene.accepted(), (1..=20).map(|key| (key, 1)).collect(), "nothing of the other server");
    other.stop(Stop::Fast).await;
    let twice = |_: &pg2planhat::testing::sim::Stats| scene.accepted() == (1..=20).map(|key| (key, 2)).collect();
    assert!(scene.sim.wait_for(twice, PATIENCE).await.is_ok(), "{:?}", scene.accepted());
    drop((asked, app));
}

/// A writer that is open while a section of `start: now` is attached updates older rows.
#[tokio::test]
async fn case_171_older_rows_that_an_open_writer_updates_are_not_taken_for_new_ones() {
    let scene = Scene::new().await;
    scene.cluster.sql(&SectionText::metric_table("b")).await;
    scene.cluster.sql("INSERT INTO b (external_id, value) SELECT 'c', g FROM generate_series(1, 100) g").await;
    let app = scene.run().await;
    drain(app, &scene.cluster).await;
    let open = scene.cluster.client().await;
    open.batch_execute(
        "BEGIN; UPDATE b SET value = value + 1 WHERE id <= 10;
         INSERT INTO b (external_id, value) SELECT 'c', g FROM generate_series(1, 5) g",
    )
    .await
    .unwrap();
    let named = |name: &str| {
        SectionText::metric(name, name).field("value", "id").field("dimensionId", &format!("{{ value: {name} }}"))
    };
    let grown =
        ConfigText::new(&scene.cluster, &scene.sim.url()).section(named("m")).section(named("b").set("start", "now"));
    let app = App::run(&grown);
    // For so long that its rows are read: those of a shorter one count as older than the section.
    let waits = |status: &serde_json::Value| {
        let section = status["sections"].as_array()?.iter().find(|section| section["name"] == "b")?;
        section["reason"].as_str()?.contains("transactions have ended that wrote").then_some(())
    };
    app.wait_status("b to wait for the open transaction", waits).await;
    open.batch_execute("COMMIT").await.unwrap();
    section_is(&app, "b", "streaming").await;
    scene.cluster.sql("INSERT INTO b (external_id, value) VALUES ('c', 1)").await;
    let keys = || {
        let mut keys: Vec<i64> = scene.accepted().into_keys().collect();
        keys.sort_unstable();
        keys
    };
    eventually(PATIENCE, "the last row", async || keys().contains(&106).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(keys(), (101..=106).collect::<Vec<_>>());
    drop(app);
}

/// A migration that rewrites the table is queued behind the writer that such a section waits for: each row is as new as the
/// migration then, and none of them is sent.
#[tokio::test]
async fn case_265_a_table_rewritten_before_the_new_rows_are_read_brings_none_of_the_old() {
    let scene = Scene::new().await;
    scene.cluster.sql(&SectionText::metric_table("b")).await;
    scene.cluster.sql("INSERT INTO b (external_id, value) SELECT 'c', g FROM generate_series(1, 500) g").await;
    let app = scene.run().await;
    drain(app, &scene.cluster).await;
    let (open, migrating) = (scene.cluster.client().await, scene.cluster.client().await);
    open.batch_execute("BEGIN; INSERT INTO b (external_id, value) VALUES ('c', 1)").await.unwrap();
    let named = |name: &str| {
        SectionText::metric(name, name).field("value", "id").field("dimensionId", &format!("{{ value: {name} }}"))
    };
    let config = ConfigText::new(&scene.cluster, &scene.sim.url()).section(named("m"));
    let app = App::run(&config.section(named("b").set("start", "now")));
    let waits = |status: &serde_json::Value| {
        let section = status["sections"].as_array()?.iter().find(|section| section["name"] == "b")?;
        section["reason"].as_str()?.contains("transactions have ended that wrote").then_some(())
    };
    app.wait_status("b to wait for the open transaction", waits).await;
    let migration = tokio::spawn(async move {
        migrating.batch_execute("ALTER TABLE b ADD COLUMN u uuid DEFAULT gen_random_uuid()").await.unwrap();
    });
    let queued = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'";
    eventually(PATIENCE, "the migration to wait", async || (scene.cluster.number(queued).await > 0).then_some(()))
        .await;
    open.batch_execute("COMMIT").await.unwrap();
    migration.await.unwrap();
    section_is(&app, "b", "streaming").await;
    scene.cluster.sql("INSERT INTO b (external_id, value) VALUES ('c', 2)").await;
    eventually(PATIENCE, "the row after it", async || scene.accepted().contains_key(&502).then_some(())).await;
    assert_eq!(scene.accepted().into_keys().filter(|key| *key <= 500).count(), 0, "rows of before were sent");
    app.wait_log("rewritten while the section waited").await;
    drain(app, &scene.cluster).await;
}
