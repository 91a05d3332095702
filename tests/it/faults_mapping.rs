//! tests/FAULTS.md, cases 210 to 212: a mapping that refuses one row after the other halts its section, as a sink's refusals do.

use std::collections::BTreeSet;

use pg2planhat::testing::sim::SinkKind;

use crate::delivery_scene::{PATIENCE, Scene, of_section, seats};
use crate::faults_answers::halted;
use crate::harness::{App, Cluster, ConfigText, SectionText, eventually};

/// Rows whose mandatory value is NULL.
async fn insert_null(scene: &Scene, from: u64, to: u64) {
    let sql = format!("INSERT INTO m (external_id) SELECT 'k' || g FROM generate_series({from}, {to}) g");
    scene.cluster.sql(&sql).await;
}

async fn quarantined(scene: &Scene, rows: i64) {
    scene.number("SELECT count(*) FROM pg2planhat.quarantine", rows).await;
}

/// A command beside the instance, which must do it.
async fn command(scene: &Scene, app: &App, arguments: &[&str]) -> String {
    let output = App::launch(&scene.config).beside(app).arguments(arguments).output().await;
    assert_eq!(output.code, 0, "{output:?}");
    output.stdout
}

/// The configuration with this section alone.
fn with(scene: &Scene, section: SectionText) -> ConfigText {
    scene.config.clone().without_sections().section(section)
}

/// A column that gets another type in the middle of the stream.
#[tokio::test]
async fn case_210_a_type_that_changes_halts_after_ten_rows_and_resume_lets_the_rest_into_quarantine() {
    let scene = Scene::of(&[seats(), SectionText::activity("logins", "a")]).await;
    let app = scene.run().await;
    scene.insert(1, 5).await;
    scene.metrics(5).await;
    scene.cluster.sql("ALTER TABLE m ALTER COLUMN value TYPE text").await;
    // Nine are nine odd rows.
    let odd = |from: u64, to: u64| {
        format!(
            "INSERT INTO m (external_id, value) SELECT 'k' || g, 'about ' || g FROM generate_series({from}, {to}) g"
        )
    };
    scene.cluster.sql(&odd(6, 14)).await;
    scene.cluster.sql("INSERT INTO m (external_id, value) VALUES ('k15', '15')").await;
    scene.metrics(6).await;
    scene.cluster.sql(&odd(16, 215)).await;
    let (reason, remedy) = halted(&app).await;
    assert!(reason.contains("the mapping") && reason.contains("value not a number"), "{reason}");
    assert!(!reason.contains("about") && remedy.contains("pg2planhat resume seats"), "{reason} / {remedy}");
    quarantined(&scene, 19).await;
    let state = app.metric("section_state", &[("section", "seats"), ("state", "halted")]).await;
    assert_eq!(state, Some(1.0));
    assert_eq!(app.metric("rows_quarantined_total", &[("reason", "mapping")]).await, Some(19.0));
    app.wait_log("halted: the slot waits for it").await;
    // The other one flows, and the slot waits.
    let wal = scene.wal().await;
    scene
        .cluster
        .sql("INSERT INTO a (user_id, action, weight) SELECT 'k1', 'login', 1 FROM generate_series(1, 50)")
        .await;
    scene.sink(|stats| stats.activities.items == 50).await;
    assert!(!scene.is_confirmed_past(&wal).await, "rows that are kept back would be lost");
    quarantined(&scene, 19).await;
    // A person has looked.
    let said = command(&scene, &app, &["resume", "seats"]).await;
    assert!(said.contains("resumed"), "{said}");
    quarantined(&scene, 209).await;
    let keys = scene.cluster.number("SELECT count(DISTINCT key) FROM pg2planhat.quarantine").await;
    assert_eq!(keys, 209, "each of them is named");
    scene.streaming(&app).await;
    // One that fits: from here on it is braked as before.
    scene.cluster.sql("INSERT INTO m (external_id, value) VALUES ('k216', '216')").await;
    scene.metrics(7).await;
    scene.cluster.sql(&odd(217, 300)).await;
    halted(&app).await;
    quarantined(&scene, 219).await;
}

/// A column that became NULL; the mapping is mended while it runs.
#[tokio::test]
async fn case_210_a_mapping_that_is_mended_goes_on_and_loses_nothing() {
    let scene = Scene::of(&[seats()]).await;
    let app = scene.run().await;
    insert_null(&scene, 1, 200).await;
    halted(&app).await;
    quarantined(&scene, 10).await;
    assert_eq!(app.get("/readyz").await.unwrap().status, 503, "nothing flows");
    let mended = with(&scene, seats().field("value", "{ column: value, default: 0 }"));
    app.reload(&mended);
    scene.metrics(190).await;
    scene.streaming(&app).await;
    quarantined(&scene, 10).await;
    command(&scene, &app, &["quarantine", "retry", "--all", "--yes"]).await;
    scene.metrics(200).await;
    quarantined(&scene, 0).await;
    scene.assert_received(200, &[], &[]);
}

/// A kill loses nothing of what is kept back, and a start does not let more than ten more go.
#[tokio::test]
async fn case_210_a_kill_keeps_what_is_kept_back() {
    let scene = Scene::of(&[seats()]).await;
    let app = scene.run().await;
    scene.insert(1, 3).await;
    scene.metrics(3).await;
    insert_null(&scene, 4, 103).await;
    halted(&app).await;
    quarantined(&scene, 10).await;
    app.kill9().await;
    let app = App::run(&scene.config);
    halted(&app).await;
    quarantined(&scene, 20).await;
    scene.insert(104, 106).await;
    command(&scene, &app, &["resume", "seats"]).await;
    scene.metrics(6).await;
    quarantined(&scene, 100).await;
    let keys: BTreeSet<String> = scene.column("SELECT key FROM pg2planhat.quarantine").await.into_iter().collect();
    assert_eq!(keys.len(), 100);
    scene.assert_received(106, &[], &(4..=103).collect::<Vec<_>>());
}

/// Rows that a backfill reads: mended in the table, they are read again.
#[tokio::test]
async fn case_211_a_backfill_of_rows_that_are_no_items_halts_and_reads_them_again_when_it_goes_on() {
    let scene = Scene::of(&[seats().set("batch", "{ rows: 50 }")]).await;
    scene.insert(1, 100).await;
    insert_null(&scene, 101, 400).await;
    scene.insert(401, 500).await;
    let app = App::run(&scene.config);
    halted(&app).await;
    scene.metrics(100).await;
    quarantined(&scene, 10).await;
    // What the stream brings waits with it.
    scene.insert(501, 510).await;
    app.kill9().await;
    let app = App::run(&scene.config);
    halted(&app).await;
    quarantined(&scene, 20).await;
    scene.cluster.sql("UPDATE m SET value = id WHERE value IS NULL").await;
    command(&scene, &app, &["resume", "seats"]).await;
    scene.metrics(490).await;
    scene.streaming(&app).await;
    quarantined(&scene, 20).await;
    scene.assert_received(510, &[], &(101..=120).collect::<Vec<_>>());
    command(&scene, &app, &["quarantine", "retry", "--all", "--yes"]).await;
    scene.metrics(510).await;
    scene.assert_received(510, &[], &[]);
}

/// A view whose column is NULL from some moment on.
#[tokio::test]
async fn case_212_a_compared_result_that_becomes_no_items_halts_and_goes_on_when_it_is_mended() {
    let cluster = Cluster::start().await;
    let section = seats().set("table", "v").set("read", "diff").set("every", "1s");
    let scene = Scene::on(cluster, pg2planhat::testing::sim::SimOptions::default(), &[]).await;
    scene.insert(1, 300).await;
    let view = |value: &str| {
        format!("CREATE OR REPLACE VIEW v AS SELECT id, external_id, ({value})::float8 AS value, at FROM m")
    };
    scene.cluster.sql(&view("value")).await;
    let scene = Scene { config: scene.config.clone().section(section), ..scene };
    let app = App::run(&scene.config);
    scene.metrics(300).await;
    scene.cluster.sql(&view("NULL")).await;
    let (reason, remedy) = halted(&app).await;
    assert!(reason.contains("the mapping") && remedy.contains("pg2planhat resume seats"), "{reason} / {remedy}");
    quarantined(&scene, 10).await;
    let known: BTreeSet<String> = scene.column("SELECT key FROM pg2planhat.quarantine").await.into_iter().collect();
    scene.cluster.sql(&view("value + 1000")).await;
    // It is compared again by itself.
    scene.metrics(590).await;
    let flows = |status: &serde_json::Value| (of_section(status, "seats")["flows"] == true).then_some(());
    app.wait_status("it to flow", flows).await;
    let now = || async {
        let items = scene.sim.items(SinkKind::Metric);
        let mended = items.iter().map(|item| item.item()["value"].as_f64().unwrap());
        (mended.filter(|value| *value > 1000.0).count() == 300).then_some(())
    };
    eventually(PATIENCE, "every row as it is now", now).await;
    quarantined(&scene, 10).await;
    assert_eq!(known.len(), 10);
}
