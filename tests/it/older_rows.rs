//! Rows that were written before their table was as the mapping wants it now (FAULTS 91).

use pg2planhat::testing::sim::SinkKind;

use crate::faults_stream_scene::{PATIENCE, Scene};
use crate::harness::{App, ConfigText, SectionText};
use crate::harness::{Cluster, Version};
use crate::main_job_oracle::{drain, section_is, text};
use crate::versions_main_job::on_some_versions;

on_some_versions!({ case_91_a_column_that_older_rows_lack_is_null_or_its_default });

/// Rows in the slot that are older than a column of the table; then a file that maps it.
async fn older_rows(scene: &Scene, ddl: &str) -> ConfigText {
    let app = scene.run().await;
    scene.insert(3).await;
    scene.exact().await;
    drain(app, &scene.cluster).await;
    scene.insert(4).await;
    scene.cluster.sql(ddl).await;
    ConfigText::new(&scene.cluster, &scene.sim.url())
}

fn mapped() -> SectionText {
    SectionText::metric("m", "m").field("value", "id")
}

/// An optional column, and a mandatory one with a default.
async fn case_91_a_column_that_older_rows_lack_is_null_or_its_default(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    let scene = Scene::at(cluster).await;
    let ddl = "ALTER TABLE m ADD COLUMN company text DEFAULT 'acme'; ALTER TABLE m ADD COLUMN happened_at timestamptz";
    let base = older_rows(&scene, ddl).await;
    let section = mapped().field("externalId", "{ column: company, default: unknown }").field("date", "happened_at");
    let app = App::run(&base.section(section));
    section_is(&app, "m", "streaming").await;
    scene.insert(2).await;
    scene.exact().await;
    let items = scene.sim.items(SinkKind::Metric);
    let of = |company: &str| items.iter().filter(|item| text(item, "externalId") == company).count();
    assert_eq!((of("unknown"), of("acme")), (4, 2));
    drop(app);
}

#[tokio::test]
async fn case_91_a_mandatory_column_that_older_rows_lack_halts_with_a_remedy_that_works() {
    let scene = Scene::new().await;
    let base = older_rows(&scene, "ALTER TABLE m ADD COLUMN company text").await;
    let app = App::run(&base.clone().section(mapped().field("externalId", "company")));
    section_is(&app, "m", "halted").await;
    let status = app.status().await;
    let remedy = status["sections"][0]["remedy"].as_str().unwrap();
    assert!(remedy.contains("give the field a default"), "{remedy}");
    scene.cluster.sql("INSERT INTO m (company, value) VALUES ('c', 1)").await;
    app.reload(&base.section(mapped().field("externalId", "{ column: company, default: c }")));
    section_is(&app, "m", "streaming").await;
    scene.exact().await;
}

/// The file follows by a restart. Without the value that the column had then, an item would be wrong, and nobody would know.
#[tokio::test]
async fn case_315_rows_from_before_a_column_was_renamed_keep_its_value() {
    let renamed = [("at", "happened_at", "date", "external_id"), ("external_id", "company", "externalId", "company")];
    for (column, now, field, filled) in renamed {
        let scene = Scene::new().await;
        let base = older_rows(&scene, &format!("ALTER TABLE m RENAME COLUMN {column} TO {now}")).await;
        let fields = |name: &str| match field {
            "date" => mapped().field("date", name),
            _ => mapped().field("externalId", &format!("{{ column: {name}, default: none }}")).field("date", "at"),
        };
        scene.cluster.sql(&format!("INSERT INTO m ({filled}, value) VALUES ('c', 1)")).await;
        let of = async |name: &str| App::run(&base.clone().section(fields(name)));
        let app = of(now).await;
        section_is(&app, "m", "halted").await;
        let status = app.status().await;
        let remedy = status["sections"][0]["remedy"].as_str().unwrap();
        assert!(remedy.contains(&format!("write {column} again in place of {now}, and restart")), "{remedy}");
        assert_eq!(scene.sim.items(SinkKind::Metric).len(), 3, "nothing without its value");
        drain(app, &scene.cluster).await;

        let items = |many: u64| move |stats: &pg2planhat::testing::sim::Stats| stats.metrics.items == many;
        let app = of(column).await;
        scene.sim.wait_for(items(7), PATIENCE).await.unwrap();
        section_is(&app, "m", "halted").await;
        app.reload(&base.clone().section(fields(now)));
        section_is(&app, "m", "streaming").await;
        scene.sim.wait_for(items(8), PATIENCE).await.unwrap();
        let items = scene.sim.items(SinkKind::Metric);
        assert!(
            items[3..7].iter().all(|item| !text(item, field).is_empty() && text(item, field) != "none"),
            "{items:?}"
        );
    }
}
