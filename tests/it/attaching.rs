//! Sections that are attached while others stream (FAULTS 62, 86): nothing is lost beside a publication that grows, and no
//! section's waiting holds another.

use std::collections::BTreeMap;

use pg2planhat::testing::sim::SinkKind;
use tokio_postgres::Client;

use crate::faults_stream_scene::{PATIENCE, Scene};
use crate::harness::{App, Cluster, ConfigText, SectionText, Version, eventually};
use crate::least_role::psql;
use crate::main_job_oracle::{drain, section_is, text};
use crate::versions_main_job::on_every_version;

on_every_version!({
    case_62_rows_of_a_transaction_open_across_the_publication_arrive
    case_62_a_wait_outlives_a_kill
    case_62_setup_and_run_at_the_same_moment_make_one_publication
    case_199_rows_between_the_set_up_and_the_first_run_arrive_beside_an_older_slot
});

/// A section whose items say whose they are, with the row's key as `value`.
fn named(name: &str) -> SectionText {
    SectionText::metric(name, name).field("value", "id").field("dimensionId", &format!("{{ value: {name} }}"))
}

/// `m` streams, and `b` is there, mapped by nothing; rows of `b` older than `start: now` are in it.
async fn scene(version: Version) -> Option<(Scene, ConfigText)> {
    let cluster = Cluster::builder().version(version).start_or_skip().await?;
    let mut scene = Scene::at(cluster).await;
    scene.config = ConfigText::new(&scene.cluster, &scene.sim.url()).section(named("m"));
    scene.cluster.sql(&SectionText::metric_table("b")).await;
    scene.cluster.sql("INSERT INTO b (external_id, value) SELECT 'c', g FROM generate_series(1, 100) g").await;
    drain(scene.run().await, &scene.cluster).await;
    let grown = scene.config.clone().section(named("b").set("start", "now"));
    Some((scene, grown))
}

/// The keys that arrived for a section, each with how often.
fn arrived(scene: &Scene, name: &str) -> BTreeMap<i64, u32> {
    let mut times = BTreeMap::new();
    for item in scene.sim.items(SinkKind::Metric).iter().filter(|item| text(item, "dimensionId") == name) {
        *times.entry(item.item()["value"].as_i64().unwrap()).or_default() += 1;
    }
    times
}

async fn are(scene: &Scene, name: &str, keys: std::ops::RangeInclusive<i64>) {
    let wanted: BTreeMap<i64, u32> = keys.map(|key| (key, 1)).collect();
    if scene.sim.wait_for(|_| arrived(scene, name) == wanted, PATIENCE).await.is_err() {
        panic!("rows of {name}: {:?}, wanted {:?}", arrived(scene, name), wanted.keys());
    }
}

/// T: ten rows of `b`, some of them in savepoints, and stays open.
async fn open_writer(scene: &Scene) -> Client {
    let open = scene.cluster.client().await;
    let rows = |n: u32| format!("INSERT INTO b (external_id, value) SELECT 'c', g FROM generate_series(1, {n}) g;");
    let sql = format!("BEGIN; {} SAVEPOINT a; {} RELEASE a; SAVEPOINT b; {}", rows(4), rows(3), rows(3));
    open.batch_execute(&sql).await.unwrap();
    open
}

/// The section waits, says for whom, and the other one goes on.
async fn waits_alone(app: &App, scene: &Scene, pid: i64) {
    let waits = |status: &serde_json::Value| {
        let section = status["sections"].as_array()?.iter().find(|section| section["name"] == "b")?;
        let reason = section["reason"].as_str()?;
        (section["state"] == "waiting" && reason.contains(&format!("pid {pid} "))).then_some(())
    };
    app.wait_status("b to wait for the open transaction", waits).await;
    let before = arrived(scene, "m").len() as i64;
    scene.insert(20).await;
    are(scene, "m", 1..=before + 20).await;
    section_is(app, "m", "streaming").await;
}

async fn pid(client: &Client) -> i64 {
    i64::from(client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get::<_, i32>(0))
}

/// A DBA adds the table beside T; this process altered nothing.
async fn case_62_rows_of_a_transaction_open_across_the_publication_arrive(version: Version) {
    let Some((scene, grown)) = scene(version).await else { return };
    let open = open_writer(&scene).await;
    scene.cluster.sql("ALTER PUBLICATION pg2planhat ADD TABLE b").await;
    let app = App::run(&grown);
    waits_alone(&app, &scene, pid(&open).await).await;
    open.batch_execute("INSERT INTO b (external_id, value) VALUES ('c', 1); COMMIT").await.unwrap();
    section_is(&app, "b", "streaming").await;
    scene.cluster.sql("INSERT INTO b (external_id, value) SELECT 'c', g FROM generate_series(1, 50) g").await;
    are(&scene, "b", 101..=161).await;
    drain(app, &scene.cluster).await;
    let known = "SELECT attach_xmin IS NOT NULL FROM pg2planhat.section WHERE name = 'b'";
    assert_eq!(scene.cluster.text(known).await, "t");
}

/// Killed while it waits; T commits while nothing runs.
async fn case_62_a_wait_outlives_a_kill(version: Version) {
    let Some((scene, grown)) = scene(version).await else { return };
    let open = open_writer(&scene).await;
    let app = App::run(&grown);
    waits_alone(&app, &scene, pid(&open).await).await;
    app.kill9().await;
    open.batch_execute("COMMIT").await.unwrap();
    let app = App::run(&grown);
    section_is(&app, "b", "streaming").await;
    are(&scene, "b", 101..=110).await;
    scene.cluster.sql("INSERT INTO b (external_id, value) VALUES ('c', 1)").await;
    are(&scene, "b", 101..=111).await;
    drop(app);
}

/// Both make what is missing in a database where there is nothing.
async fn case_62_setup_and_run_at_the_same_moment_make_one_publication(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    let scene = Scene::at(cluster).await;
    let (first, second) = (App::command(&scene.config, &["setup"]), App::command(&scene.config, &["setup"]));
    let app = App::run(&scene.config);
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first.code, second.code), (0, 0), "{first:?} {second:?}\n{}", app.log());
    scene.insert(3).await;
    scene.exact().await;
    drop(app);
}

/// Another program's slot holds the oldest catalog row that any slot needs: the server then says of every slot that it is as
/// old as that one. `start: now` begins at the slot all the same, whoever made it.
async fn case_199_rows_between_the_set_up_and_the_first_run_arrive_beside_an_older_slot(version: Version) {
    for by in ["setup", "the script", "a run that was killed"] {
        let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
        cluster.sql("SELECT pg_create_logical_replication_slot('older', 'pgoutput')").await;
        let mut scene = Scene::at(cluster).await;
        scene.config = ConfigText::new(&scene.cluster, &scene.sim.url()).section(named("m").set("start", "now"));
        scene.insert(5).await;
        match by {
            "setup" => assert_eq!(App::command(&scene.config, &["setup"]).await.code, 0),
            "the script" => {
                let script = App::command(&scene.config, &["setup", "--print-sql"]).await.stdout;
                psql(&scene.cluster, &script).unwrap();
            }
            _ => {
                // Held between the slot and the adoption of the identity.
                let held = scene.cluster.client().await;
                assert_eq!(App::command(&scene.config, &["setup"]).await.code, 0);
                held.batch_execute("BEGIN; LOCK TABLE pg2planhat.section IN ACCESS EXCLUSIVE MODE").await.unwrap();
                let app = App::run(&scene.config);
                let adopted = "SELECT count(*) FROM pg2planhat.instance WHERE slot <> ''";
                let is_adopted = || async { (scene.cluster.number(adopted).await == 1).then_some(()) };
                eventually(PATIENCE, "the adoption", is_adopted).await;
                app.kill9().await;
                held.batch_execute("ROLLBACK").await.unwrap();
            }
        }
        scene.insert(5).await;
        let app = App::run(&scene.config);
        section_is(&app, "m", "streaming").await;
        scene.insert(5).await;
        are(&scene, "m", 6..=15).await;
        drop(app);
    }
}

/// Sections over tables that nothing can be read of just now, and one that can be read.
#[tokio::test]
async fn case_86_a_backfill_that_cannot_go_on_keeps_no_turn() {
    let mut scene = Scene::new().await;
    let locked = ["one", "two", "three", "four", "five"];
    scene.config = ConfigText::new(&scene.cluster, &scene.sim.url());
    let client = scene.cluster.client().await;
    client.batch_execute("BEGIN").await.unwrap();
    let mut held = String::new();
    for name in locked {
        scene.cluster.sql(&SectionText::metric_table(name)).await;
        scene.cluster.sql(&format!("INSERT INTO {name} (external_id, value) VALUES ('c', 1)")).await;
        scene.config = scene.config.section(named(name));
        held += &format!("LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE;");
    }
    scene.insert(500).await;
    scene.config = scene.config.section(named("m"));
    // Attached first, so that the lock meets the reading alone.
    let app = App::run(&scene.config.clone().set("planhat.url", "http://127.0.0.1:9"));
    section_is(&app, "m", "backfilling").await;
    let begun = "SELECT count(*) FROM pg2planhat.section WHERE ceiling IS NOT NULL";
    eventually(PATIENCE, "all backfills to begin", || async { (scene.cluster.number(begun).await == 6).then_some(()) })
        .await;
    drain(app, &scene.cluster).await;
    client.batch_execute(&held).await.unwrap();
    let app = App::run(&scene.config);
    are(&scene, "m", 1..=500).await;
    section_is(&app, "m", "streaming").await;
    for name in locked {
        section_is(&app, name, "waiting").await;
    }
    client.batch_execute("ROLLBACK").await.unwrap();
    for name in locked {
        are(&scene, name, 1..=1).await;
        section_is(&app, name, "streaming").await;
    }
    drop(app);
}

/// An orphan of another database holds the xmin barrier: it is named, and the others go on.
#[tokio::test]
async fn case_86_whoever_holds_a_backfill_is_named_whatever_its_database() {
    let (scene, _) = scene(Version::V15).await.expect("15 is always there");
    scene.cluster.sql("CREATE DATABASE elsewhere").await;
    let elsewhere = scene.cluster.client_of("elsewhere").await;
    let orphan = "CREATE TABLE t (); BEGIN; INSERT INTO t DEFAULT VALUES; PREPARE TRANSACTION 'orphan'";
    elsewhere.batch_execute(orphan).await.unwrap();
    let old = ConfigText::new(&scene.cluster, &scene.sim.url()).section(named("m")).section(named("b"));
    let app = App::run(&old);
    let named = |status: &serde_json::Value| {
        let section = status["sections"].as_array()?.iter().find(|section| section["name"] == "b")?;
        let reason = section["reason"].as_str()?;
        (section["state"] == "waiting" && reason.contains("prepared transaction orphan")).then_some(())
    };
    app.wait_status("b to wait for the orphan", named).await;
    scene.insert(5).await;
    are(&scene, "m", 1..=5).await;
    scene.cluster.sql("INSERT INTO b (external_id, value) VALUES ('c', 1)").await;
    are(&scene, "b", 101..=101).await;
    elsewhere.batch_execute("ROLLBACK PREPARED 'orphan'").await.unwrap();
    are(&scene, "b", 1..=101).await;
    drop(app);
}
