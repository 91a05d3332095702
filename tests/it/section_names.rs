//! Which section is which, and which table is whose: a file that names either otherwise delivers nothing twice, and loses nothing
//! unsaid (FAULTS 305 to 310).

use pg2planhat::testing::sim::SinkKind;

use crate::diff::{compared, next_run, received};
use crate::faults_stream_scene::{PATIENCE, Scene, section};
use crate::harness::{App, ConfigText, SectionText, eventually};
use crate::main_job_oracle::{drain, section_is};

const OPEN: &str = "SELECT count(*) FROM pg2planhat.gap WHERE closed_at IS NULL";

/// `m` has delivered ten rows, and five more are committed since.
async fn away() -> (Scene, ConfigText) {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.insert(10).await;
    scene.exact().await;
    drain(app, &scene.cluster).await;
    scene.insert(5).await;
    let base = ConfigText::new(&scene.cluster, &scene.sim.url());
    (scene, base)
}

fn over(name: &str, table: &str) -> SectionText {
    SectionText::metric(name, table).field("value", "id")
}

/// The kinds that `plan` tells of each section, and how it ends.
async fn planned(config: &ConfigText) -> (i32, Vec<String>) {
    let output = App::command(config, &["plan", "--json"]).await;
    let document = output.json();
    let text = |change: &serde_json::Value, field: &str| change[field].as_str().unwrap_or_default().to_owned();
    let told = |change: &serde_json::Value| format!("{} {}", text(change, "section"), text(change, "kind"));
    (output.code, document["changes"].as_array().unwrap().iter().map(told).collect())
}

/// Of a section: delivered, missing.
async fn audited(config: &ConfigText, name: &str) -> (i64, i64) {
    let report = App::command(config, &["--json", "audit", name]).await;
    let first = &report.json()[0];
    (first["delivered"].as_i64().unwrap_or(-1), first["missing"].as_i64().unwrap_or(-1))
}

async fn halted_with(app: &App, name: &str, words: &[&str]) {
    section_is(app, name, "halted").await;
    let status = app.status().await.to_string();
    for word in words {
        assert!(status.contains(word), "{word}: {status}");
    }
}

#[tokio::test]
async fn case_305_a_section_that_is_renamed_as_its_remedy_says_loses_nothing() {
    let (scene, base) = away().await;
    let app = App::run(&base.clone().section(over("n", "m")));
    halted_with(&app, "n", &["start: now"]).await;
    scene.insert(5).await;
    drain(app, &scene.cluster).await;
    let next = base.section(over("n", "m").set("start", "now"));
    assert_eq!(planned(&next).await, (0, vec!["n renamed?".to_owned()]));
    let app = App::run(&next);
    section_is(&app, "n", "streaming").await;
    scene.insert(5).await;
    scene.exact().await;
    assert_eq!(audited(&next, "n").await, (25, 0));
    assert_eq!(App::command(&next, &["status"]).await.code, 0, "{}", app.status().await);
    drain(app, &scene.cluster).await;
    // And back again.
    let app = App::run(&ConfigText::new(&scene.cluster, &scene.sim.url()).section(section().set("start", "now")));
    scene.insert(1).await;
    scene.exact().await;
    drop(app);
}

#[tokio::test]
async fn case_305_a_name_that_was_a_mistake_for_one_start_costs_nothing() {
    let (scene, base) = away().await;
    let app = App::run(&base.section(over("n", "m")));
    section_is(&app, "n", "halted").await;
    // Something must move the slot, if anything does.
    scene.cluster.sql("CREATE TABLE other AS SELECT generate_series(1, 10000)").await;
    drain(app, &scene.cluster).await;
    let app = scene.run().await;
    scene.exact().await;
    assert_eq!(scene.cluster.number(OPEN).await, 0);
    drop(app);
}

#[tokio::test]
async fn case_305_a_new_name_with_another_key_reads_on_from_where_the_first_was_left() {
    let scene = Scene::new().await;
    scene.cluster.sql("ALTER TABLE m ADD COLUMN seq bigserial UNIQUE").await;
    let app = scene.run().await;
    scene.insert(10).await;
    scene.exact().await;
    drain(app, &scene.cluster).await;
    scene.insert(5).await;
    let base = ConfigText::new(&scene.cluster, &scene.sim.url());
    let next = base.section(over("n", "m").set("start", "now").set("key", "seq"));
    let app = App::run(&next);
    section_is(&app, "n", "streaming").await;
    scene.insert(5).await;
    scene.exact().await;
    assert_eq!(audited(&next, "n").await.1, 0);
    drop(app);
}

#[tokio::test]
async fn case_306_sections_that_exchange_their_tables_send_nothing_again() {
    let mut scene = Scene::new().await;
    scene.cluster.sql(&SectionText::metric_table("b")).await;
    scene
        .cluster
        .sql("INSERT INTO b (id, external_id, value) SELECT 1000 + g, 'b', g FROM generate_series(1, 10) g")
        .await;
    let base = ConfigText::new(&scene.cluster, &scene.sim.url());
    scene.config = base.clone().section(section()).section(over("b", "b"));
    let app = scene.run().await;
    scene.insert(10).await;
    let all = |stats: &pg2planhat::testing::sim::Stats| stats.metrics.items >= 20;
    assert!(scene.sim.wait_for(all, PATIENCE).await.is_ok());
    drain(app, &scene.cluster).await;
    let exchanged = base.clone().section(over("m", "b")).section(over("b", "m"));
    assert_eq!(planned(&exchanged).await.0, 1);
    let app = App::run(&exchanged);
    halted_with(&app, "m", &["known by their names"]).await;
    section_is(&app, "b", "halted").await;
    scene.insert(3).await;
    drain(app, &scene.cluster).await;
    assert_eq!(scene.sim.items(SinkKind::Metric).len(), 20, "nothing was sent again");
    // Put back, as the remedy says.
    let app = scene.run().await;
    let all = |stats: &pg2planhat::testing::sim::Stats| stats.metrics.items >= 23;
    assert!(scene.sim.wait_for(all, PATIENCE).await.is_ok());
    drain(app, &scene.cluster).await;
    // One takes the other's, which is gone.
    let app = App::run(&base.section(over("b", "m")));
    halted_with(&app, "b", &["public.m", "public.b"]).await;
    drain(app, &scene.cluster).await;
    assert_eq!(scene.sim.items(SinkKind::Metric).len(), 23, "nothing was sent again");
}

#[tokio::test]
async fn case_307_a_table_and_its_section_renamed_together_are_not_sent_again() {
    let (scene, base) = away().await;
    scene.cluster.sql("ALTER TABLE m RENAME TO m2").await;
    let both = base.clone().section(over("m2", "m2"));
    assert_eq!(planned(&both).await, (1, vec!["m2 renamed?".to_owned()]));
    let app = App::run(&both);
    section_is(&app, "m2", "halted").await;
    drain(app, &scene.cluster).await;
    assert_eq!(scene.sim.items(SinkKind::Metric).len(), 10, "nothing was sent again");
    let app = App::run(&base.section(over("m2", "m2").set("start", "now")));
    section_is(&app, "m2", "streaming").await;
    scene.cluster.sql("ALTER TABLE m2 RENAME TO m").await;
    scene.exact().await;
    drop(app);
}

#[tokio::test]
async fn case_307_a_table_that_was_renamed_may_be_named_so_in_the_file() {
    let (scene, base) = away().await;
    scene.cluster.sql("ALTER TABLE m RENAME TO m2").await;
    let app = scene.run().await;
    let follows = base.clone().section(over("m", "m2"));
    assert_eq!(planned(&follows).await.0, 0);
    app.reload(&follows);
    app.wait_log("the section goes on as it is written now").await;
    assert_eq!(app.metric("config_last_reload_successful", &[]).await, Some(1.0));
    drain(app, &scene.cluster).await;
    let app = App::run(&follows);
    section_is(&app, "m", "streaming").await;
    assert_eq!(planned(&follows).await, (0, Vec::new()));
    app.reload(&base.section(over("m", "m2").set("flush", "300ms")));
    app.wait_log("the section goes on as it is written now").await;
    assert_eq!(scene.cluster.text("SELECT table_name FROM pg2planhat.section").await, "public.m2");
    scene.cluster.sql("ALTER TABLE m2 RENAME TO m").await;
    scene.exact().await;
    drop(app);
}

#[tokio::test]
async fn case_308_a_compared_section_under_another_name_sends_nothing_again() {
    let scene = Scene::new().await;
    let (cluster, sim) = (&scene.cluster, &scene.sim);
    cluster
        .sql("CREATE TABLE r (id int PRIMARY KEY, value int); INSERT INTO r SELECT g, g FROM generate_series(1, 10) g")
        .await;
    let base = ConfigText::new(cluster, &sim.url());
    let a = base.clone().section(compared("a", "r"));
    let app = App::run(&a);
    next_run(cluster, "a").await;
    app.sigterm();
    app.wait_exit(PATIENCE).await;
    assert_eq!(received(sim).len(), 10);
    let b = base.section(compared("b", "r"));
    assert_eq!(planned(&b).await, (1, vec!["b renamed?".to_owned()]));
    let app = App::run(&b);
    halted_with(&app, "b", &["keep the name a"]).await;
    app.sigterm();
    app.wait_exit(PATIENCE).await;
    assert_eq!(received(sim).len(), 10, "nothing was sent again");
    let app = App::run(&a);
    cluster.sql("INSERT INTO r VALUES (11, 11)").await;
    next_run(cluster, "a").await;
    assert_eq!(received(sim).len(), 11);
    drop(app);
}

#[tokio::test]
async fn case_308_a_new_name_beside_one_that_is_off_sends_nothing_again() {
    let (scene, base) = away().await;
    let both = base.section(section().set("sync", "off")).section(over("n", "m"));
    assert_eq!(planned(&both).await.0, 1);
    let app = App::run(&both);
    halted_with(&app, "n", &["switched off"]).await;
    drain(app, &scene.cluster).await;
    assert_eq!(scene.sim.items(SinkKind::Metric).len(), 10, "nothing was sent again");
}

#[tokio::test]
async fn case_309_rows_of_another_table_are_not_proven_by_the_keys_of_the_first() {
    let (scene, base) = away().await;
    scene.cluster.sql(&SectionText::metric_table("g")).await;
    scene.cluster.sql("INSERT INTO g (external_id, value) SELECT 'g', v FROM generate_series(1, 20) v").await;
    let next = base.clone().section(over("m", "g").set("start", "{ after_key: 10 }"));
    let (code, told) = planned(&next).await;
    assert_eq!((code, told), (1, vec!["m table".to_owned()]));
    let app = App::run(&next);
    section_is(&app, "m", "streaming").await;
    let traced = App::command(&next, &["--json", "trace", "m", "7"]).await.json();
    assert_ne!(traced["outcome"], "delivered", "{traced}");
    let traced = App::command(&next, &["--json", "trace", "m", "17"]).await.json();
    assert_eq!(traced["outcome"], "delivered", "{traced}");
    assert_eq!(audited(&next, "m").await.0, 10);
    app.wait_log("the section has another table").await;
    drain(app, &scene.cluster).await;
    // The first one's rows are not sent again by going back to it.
    let app = App::run(&base.section(section()));
    halted_with(&app, "m", &["10 rows would be delivered again"]).await;
    drop(app);
}

#[tokio::test]
async fn case_310_an_open_gap_is_shown_where_its_section_is_not_in_the_file() {
    let mut scene = Scene::new().await;
    scene.cluster.sql(&SectionText::metric_table("b")).await;
    let base = ConfigText::new(&scene.cluster, &scene.sim.url());
    scene.config = base.clone().section(section()).section(over("b", "b"));
    let app = scene.run().await;
    section_is(&app, "b", "streaming").await;
    scene.insert(10).await;
    scene.exact().await;
    drain(app, &scene.cluster).await;
    let alone = base.section(over("b", "b"));
    let app = App::run(&alone);
    section_is(&app, "b", "streaming").await;
    let told = |status: &serde_json::Value| (status["removed"][0]["section"] == "m").then_some(());
    app.wait_status("the gap to be shown", told).await;
    let shown = App::command(&alone, &["status"]).await;
    assert_eq!(shown.code, 1);
    assert!(shown.stdout.contains("m is not in the file") && shown.stdout.contains("--accept-loss"), "{shown:?}");
    // As the remedy says, beside the instance.
    let closed = App::command(&alone, &["repair", "--accept-loss", "--yes"]).await;
    assert_eq!(closed.code, 0, "{closed:?}");
    let none = |status: &serde_json::Value| status["removed"].as_array().is_some_and(Vec::is_empty).then_some(());
    app.wait_status("the gap to be closed", none).await;
    assert_eq!(App::command(&alone, &["status"]).await.code, 0);
    drop(app);
}

#[tokio::test]
async fn case_311_a_table_that_was_replaced_and_a_new_name_leave_an_open_gap() {
    let (scene, base) = away().await;
    let cluster = &scene.cluster;
    cluster.sql("ALTER TABLE m RENAME TO m_old; CREATE TABLE m (LIKE m_old INCLUDING ALL)").await;
    cluster.sql("INSERT INTO m SELECT * FROM m_old WHERE id > 10").await;
    let app = App::run(&base.clone().section(over("n", "m")));
    halted_with(&app, "n", &["an open gap"]).await;
    drain(app, cluster).await;
    let next = base.section(over("n", "m").set("start", "now"));
    let app = App::run(&next);
    section_is(&app, "n", "streaming").await;
    let told = |status: &serde_json::Value| (status["sections"][0]["open_gaps"] == 1).then_some(());
    app.wait_status("the gap to be shown", told).await;
    cluster.sql("INSERT INTO m (id, external_id, value) VALUES (100, 'c', 1)").await;
    eventually(PATIENCE, "the row behind it", || async { scene.accepted().contains_key(&100).then_some(()) }).await;
    audited(&next, "n").await;
    assert_eq!(cluster.number(OPEN).await, 1, "an audit of the new name knows nothing of it");
    drain(app, cluster).await;
    let mended = App::command(&next, &["repair", "--gap", "--yes"]).await;
    assert_eq!(mended.code, 0, "{mended:?}");
    let app = App::run(&next);
    scene.delivered().await;
    assert_eq!(cluster.number(OPEN).await, 0);
    drop(app);
}
