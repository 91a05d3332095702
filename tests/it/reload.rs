//! SIGHUP (FAULTS 76): what of the file harms nobody is taken over while it runs; what is dangerous is refused, and then nothing
//! of the file counts.

use pg2planhat::testing::sim::SinkKind;

use crate::faults_stream_scene::{Scene, section};
use crate::harness::{App, ConfigText, SectionText};
use crate::main_job_oracle::{drain, section_is, text};

/// A section whose items say whose they are, with the row's key as `value`.
fn named(name: &str, table: &str) -> SectionText {
    SectionText::metric(name, table).field("value", "id").field("dimensionId", &format!("{{ value: {name} }}"))
}

fn of(scene: &Scene, dimension: &str) -> Vec<i64> {
    let items = scene.sim.items(SinkKind::Metric);
    let of_it = items.iter().filter(|item| text(item, "dimensionId") == dimension);
    let mut keys: Vec<i64> = of_it.map(|item| item.item()["value"].as_i64().unwrap()).collect();
    keys.sort_unstable();
    keys
}

async fn are(scene: &Scene, dimension: &str, keys: std::ops::RangeInclusive<i64>) {
    let wanted: Vec<i64> = keys.collect();
    let patience = crate::faults_stream_scene::PATIENCE;
    if scene.sim.wait_for(|_| of(scene, dimension) == wanted, patience).await.is_err() {
        panic!("{dimension}: {:?}, wanted {wanted:?}", of(scene, dimension));
    }
}

/// `m` streams, with these rows delivered.
async fn streams(rows: u32) -> (Scene, App, ConfigText) {
    let mut scene = Scene::new().await;
    let base = ConfigText::new(&scene.cluster, &scene.sim.url());
    scene.config = base.clone().section(named("m", "m"));
    let app = scene.run().await;
    scene.insert(rows).await;
    are(&scene, "m", 1..=i64::from(rows)).await;
    (scene, app, base)
}

/// One leader, one epoch, one connection of the stream: nothing was paused or begun anew.
async fn never_paused(scene: &Scene, app: &App, walsender: i64) {
    assert_eq!(scene.walsender().await, walsender, "the stream goes on\n{}", app.log());
    assert_eq!(app.log().matches("leading").count(), 1, "{}", app.log());
}

#[tokio::test]
async fn case_76_a_new_section_is_taken_over_beside_the_running_stream() {
    let (scene, app, base) = streams(5).await;
    let walsender = scene.walsender().await;
    scene.cluster.sql(&SectionText::metric_table("b")).await;
    scene.cluster.sql("INSERT INTO b (external_id, value) SELECT 'c', g FROM generate_series(1, 30) g").await;
    // A writer keeps it waiting: the other one goes on meanwhile.
    let open = scene.cluster.client().await;
    open.batch_execute("BEGIN; INSERT INTO b (external_id, value) VALUES ('c', 1)").await.unwrap();
    let grown = base.section(named("m", "m")).section(named("b", "b"));
    app.reload(&grown);
    section_is(&app, "b", "waiting").await;
    scene.insert(5).await;
    are(&scene, "m", 1..=10).await;
    open.batch_execute("COMMIT").await.unwrap();
    section_is(&app, "b", "streaming").await;
    scene.cluster.sql("INSERT INTO b (external_id, value) SELECT 'c', g FROM generate_series(1, 9) g").await;
    are(&scene, "b", 1..=40).await;
    scene.insert(5).await;
    are(&scene, "m", 1..=15).await;
    never_paused(&scene, &app, walsender).await;
    // As a start with the same file goes on.
    drain(app, &scene.cluster).await;
    let app = App::run(&grown);
    section_is(&app, "b", "streaming").await;
    scene.cluster.sql("INSERT INTO b (external_id, value) VALUES ('c', 1)").await;
    are(&scene, "b", 1..=41).await;
    drop(app);
}

#[tokio::test]
async fn case_76_a_mapping_that_changes_holds_for_rows_from_then_on() {
    let (scene, app, base) = streams(5).await;
    let walsender = scene.walsender().await;
    scene.cluster.sql("ALTER TABLE m ADD COLUMN account text DEFAULT 'acme'").await;
    let other = named("m", "m").field("dimensionId", "{ value: other }").set("batch", "{ rows: 3 }");
    app.reload(&base.clone().section(other.field("externalId", "account")));
    app.wait_log("the section goes on as it is written now").await;
    scene.insert(7).await;
    are(&scene, "other", 6..=12).await;
    assert_eq!(of(&scene, "m"), (1..=5).collect::<Vec<_>>());
    let items = scene.sim.items(SinkKind::Metric);
    let accounts = items.iter().filter(|item| text(item, "externalId") == "acme").count();
    assert_eq!(accounts, 7, "a column that the mapping did not have before is read");
    never_paused(&scene, &app, walsender).await;
    // What does not fit its table is refused, and the section goes on as it is.
    app.reload(&base.section(named("m", "m").field("value", "nowhere")));
    app.wait_log("a section would not fit its table").await;
    scene.insert(3).await;
    are(&scene, "other", 6..=15).await;
    never_paused(&scene, &app, walsender).await;
}

#[tokio::test]
async fn case_76_what_is_dangerous_is_refused_and_nothing_of_the_file_counts() {
    let (scene, app, base) = streams(5).await;
    let walsender = scene.walsender().await;
    scene.cluster.sql(&SectionText::metric_table("b")).await;
    scene.cluster.sql("ALTER TABLE m ADD COLUMN seq bigserial UNIQUE").await;
    let dangers = [
        ("key:", vec![named("m", "m").set("key", "seq"), named("b", "b")]),
        ("renamed?:", vec![named("n", "m"), named("b", "b")]),
        ("off:", vec![named("m", "m").set("sync", "off"), named("b", "b")]),
        ("removed:", vec![named("b", "b")]),
    ];
    for (at, (word, sections)) in dangers.into_iter().enumerate() {
        app.reload(&sections.into_iter().fold(base.clone(), ConfigText::section));
        app.wait_log(word).await;
        let refused = || async { (app.log().matches("nothing was changed").count() > at).then_some(()) };
        crate::harness::eventually(crate::faults_stream_scene::PATIENCE, "the file to be refused", refused).await;
    }
    assert_eq!(app.metric("config_last_reload_successful", &[]).await, Some(0.0));
    scene.insert(5).await;
    are(&scene, "m", 1..=10).await;
    let status = app.status().await;
    assert_eq!(status["sections"].as_array().unwrap().len(), 1, "{status}");
    assert_eq!(scene.cluster.number("SELECT count(*) FROM pg2planhat.section").await, 1);
    never_paused(&scene, &app, walsender).await;
    // The same file with what is dangerous taken out of it.
    app.reload(&base.section(section().field("dimensionId", "{ value: m }")).section(named("b", "b")));
    section_is(&app, "b", "streaming").await;
    assert_eq!(app.metric("config_last_reload_successful", &[]).await, Some(1.0));
    never_paused(&scene, &app, walsender).await;
}

#[tokio::test]
async fn case_91_a_mapping_that_fits_again_lets_a_halted_section_go_on() {
    let (scene, app, base) = streams(5).await;
    scene.cluster.sql("ALTER TABLE m RENAME COLUMN external_id TO account").await;
    scene.cluster.sql("INSERT INTO m (account, value) SELECT 'c', g FROM generate_series(1, 5) g").await;
    section_is(&app, "m", "halted").await;
    app.reload(&base.section(named("m", "m").field("externalId", "account")));
    section_is(&app, "m", "streaming").await;
    scene.cluster.sql("INSERT INTO m (account, value) SELECT 'c', g FROM generate_series(1, 2) g").await;
    are(&scene, "m", 1..=12).await;
    assert_eq!(app.log().matches("leading").count(), 1, "{}", app.log());
}

#[tokio::test]
async fn case_242_a_file_that_is_not_what_runs_is_said_in_the_status() {
    let (scene, app, _) = streams(3).await;
    let file = app.config_path();
    let runs = std::fs::read_to_string(&file).unwrap();
    // Nobody has told the program: a ConfigMap was changed, and the next start reads it.
    for (text, what) in [(format!("memory: 32MiB\n{runs}"), "memory differs"), ("[".to_owned(), "cannot be used")] {
        std::fs::write(&file, text).unwrap();
        let said = |status: &serde_json::Value| status["message"].as_str()?.contains(what).then(|| status.clone());
        let status = app.wait_status(what, said).await;
        assert_eq!((&status["state"], &status["ready"]), (&"running".into(), &true.into()), "{status}");
    }
    std::fs::write(&file, runs).unwrap();
    app.wait_status("nothing to say", |status| status["message"].is_null().then_some(())).await;
    scene.insert(3).await;
    are(&scene, "m", 1..=6).await;
}
