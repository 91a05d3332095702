//! What is recorded of a section carries its meaning (FAULTS 63, 92): a file that says something else is told of before, and
//! refused by the section alone.

use pg2planhat::testing::sim::SinkKind;

use crate::faults_stream_scene::{Scene, section};
use crate::harness::{App, ConfigText, SectionText};
use crate::main_job_oracle::{drain, section_is};

async fn changes(config: &ConfigText) -> (i32, Vec<(String, String, bool)>) {
    let output = App::command(config, &["plan", "--json"]).await;
    let text = |change: &serde_json::Value, field: &str| change[field].as_str().unwrap_or_default().to_owned();
    let changes = output.json()["changes"].as_array().unwrap().clone();
    let told = |change: &serde_json::Value| {
        (text(change, "section"), text(change, "kind"), change["danger"].as_bool().unwrap())
    };
    (output.code, changes.iter().map(told).collect())
}

fn change(section: &str, kind: &str, danger: bool) -> (String, String, bool) {
    (section.to_owned(), kind.to_owned(), danger)
}

/// `m` has delivered ten rows.
async fn delivered() -> Scene {
    let scene = Scene::new().await;
    assert_eq!(changes(&scene.config).await, (0, vec![change("m", "new", false)]));
    let app = scene.run().await;
    scene.insert(10).await;
    scene.exact().await;
    drain(app, &scene.cluster).await;
    assert_eq!(changes(&scene.config).await, (0, vec![]));
    scene
}

#[tokio::test]
async fn case_63_a_key_that_changed_halts_its_section_until_it_is_put_back() {
    let scene = delivered().await;
    scene.cluster.sql("ALTER TABLE m ADD COLUMN seq bigserial UNIQUE").await;
    let base = ConfigText::new(&scene.cluster, &scene.sim.url());
    let other = base.clone().section(section().set("key", "seq"));
    let (code, told) = changes(&other).await;
    assert_eq!(code, 1);
    assert!(told.contains(&change("m", "key", true)), "{told:?}");
    let app = App::run(&other);
    section_is(&app, "m", "halted").await;
    scene.insert(5).await;
    drain(app, &scene.cluster).await;
    assert_eq!(scene.sim.items(SinkKind::Metric).len(), 10);
    let tuned = base.section(section().set("batch", "{ rows: 7 }").set("flush", "1s"));
    let (code, told) = changes(&tuned).await;
    assert_eq!((code, told), (0, vec![change("m", "batch", false), change("m", "flush", false)]));
    let app = scene.run().await;
    scene.exact().await;
    drop(app);
}

#[tokio::test]
async fn case_63_a_renamed_section_asks_before_it_delivers_the_table_again() {
    let scene = delivered().await;
    let named = || SectionText::metric("n", "m").field("value", "id");
    let base = ConfigText::new(&scene.cluster, &scene.sim.url());
    let renamed = base.clone().section(named());
    assert_eq!(changes(&renamed).await, (1, vec![change("n", "renamed?", true)]));
    let app = App::run(&renamed);
    section_is(&app, "n", "halted").await;
    drain(app, &scene.cluster).await;
    assert_eq!(scene.sim.items(SinkKind::Metric).len(), 10, "nothing was sent again");
    let app = App::run(&base.section(named().set("start", "now")));
    section_is(&app, "n", "streaming").await;
    scene.insert(3).await;
    scene.exact().await;
    drop(app);
}

#[tokio::test]
async fn case_92_an_after_key_of_the_wrong_type_halts_its_section_alone() {
    let mut scene = Scene::new().await;
    scene.cluster.sql(&SectionText::metric_table("b")).await;
    let with = |scene: &Scene, start: &str| {
        let b = SectionText::metric("b", "b").set("start", start);
        ConfigText::new(&scene.cluster, &scene.sim.url()).section(section()).section(b)
    };
    let good = scene.config.clone();
    scene.config = with(&scene, "{ after_key: monday }");
    let app = App::run(&scene.config);
    section_is(&app, "b", "halted").await;
    scene.insert(3).await;
    scene.exact().await;
    drain(app, &scene.cluster).await;
    let app = App::run(&with(&scene, "{ after_key: 5 }"));
    section_is(&app, "b", "streaming").await;
    drop((app, good));
}

#[tokio::test]
async fn case_92_a_partition_beside_its_root_is_refused_and_the_root_goes_on() {
    let mut scene = Scene::new().await;
    let table = "CREATE TABLE r (id bigint PRIMARY KEY, external_id text, value int, date timestamptz DEFAULT now())
        PARTITION BY RANGE (id); CREATE TABLE r_1 PARTITION OF r FOR VALUES FROM (0) TO (1000)";
    scene.cluster.sql(table).await;
    scene.config = ConfigText::new(&scene.cluster, &scene.sim.url());
    for name in ["r", "r_1"] {
        let of = SectionText::metric(name, name).field("value", "id").field("date", "date").set("key", "id");
        scene.config = scene.config.section(of);
    }
    let setup = App::command(&scene.config, &["setup"]).await;
    assert!(setup.code == 64 && setup.stderr.contains("r_1 is a partition of"), "{setup:?}");
    let check = App::command(&scene.config, &["check", "--json"]).await;
    assert!(check.stdout.contains("partition_beside_root"), "{check:?}");
    let app = App::run(&scene.config);
    section_is(&app, "r_1", "halted").await;
    section_is(&app, "r", "streaming").await;
    scene.cluster.sql("INSERT INTO r (id, external_id) VALUES (1, 'c')").await;
    assert!(scene.sim.wait_for(|stats| stats.metrics.items == 1, crate::faults_stream_scene::PATIENCE).await.is_ok());
    drop(app);
}
