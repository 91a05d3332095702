//! Generated columns beside `on: insert_and_update` (FAULTS 201): PostgreSQL 18 refuses the application's UPDATE where the
//! replica identity has a generated column that is not published, and ends the stream where two publications differ in it.

use pg2planhat::testing::sim::{SimHandle, SinkKind};

use crate::faults_stream_scene::PATIENCE;
use crate::harness::{App, Cluster, ConfigText, SectionText, Version, eventually};
use crate::main_job_oracle::{drain, section_is, sink};
use crate::versions_main_job::on_some_versions;

on_some_versions!({
    case_201_a_generated_column_in_the_replica_identity_does_not_harm_the_application
    case_201_generated_columns_of_two_publications_stream
});

fn updates(name: &str) -> SectionText {
    SectionText::metric(name, name).field("value", "value").set("on", "insert_and_update")
}

fn table(name: &str, generated: &str) -> String {
    format!(
        "CREATE TABLE {name} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, external_id text, value int,
         twice int GENERATED ALWAYS AS (value * 2) {generated}, at timestamptz DEFAULT now())"
    )
}

async fn values(sim: &SimHandle, wanted: &[i64]) {
    let values = || -> Vec<i64> {
        let mut values: Vec<i64> =
            sim.items(SinkKind::Metric).iter().map(|item| item.item()["value"].as_i64().unwrap()).collect();
        values.sort_unstable();
        values
    };
    if sim.wait_for(|_| values() == wanted, PATIENCE).await.is_err() {
        panic!("{:?}, wanted {wanted:?}", values());
    }
}

async fn case_201_a_generated_column_in_the_replica_identity_does_not_harm_the_application(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    cluster.sql(&format!("{}; ALTER TABLE t REPLICA IDENTITY FULL", table("t", "STORED"))).await;
    let sim = sink().await;
    let app = App::run(&ConfigText::new(&cluster, &sim.url()).section(updates("t")));
    section_is(&app, "t", "streaming").await;
    cluster.sql("INSERT INTO t (external_id, value) VALUES ('a', 1)").await;
    values(&sim, &[1]).await;
    cluster.sql("UPDATE t SET value = 5").await;
    values(&sim, &[1, 5]).await;
    if version >= Version::V18 {
        // Virtual ones cannot be published at all: refused, by `check` and `run`, and never published.
        cluster.sql(&format!("{}; ALTER TABLE v REPLICA IDENTITY FULL", table("v", "VIRTUAL"))).await;
        let both = ConfigText::new(&cluster, &sim.url()).section(updates("t")).section(updates("v"));
        drain(app, &cluster).await;
        let checked = App::command(&both, &["check"]).await;
        assert!(checked.code != 0 && checked.stdout.contains("twice"), "{}", checked.stdout);
        let app = App::run(&both);
        section_is(&app, "v", "halted").await;
        cluster.sql("INSERT INTO v (external_id, value) VALUES ('a', 1); UPDATE v SET value = 2").await;
        drop(app);
        // One that is added later, beside a table whose updates are published.
        let app = App::run(&ConfigText::new(&cluster, &sim.url()).section(updates("t")));
        section_is(&app, "t", "streaming").await;
        cluster.sql("ALTER TABLE t ADD COLUMN later int GENERATED ALWAYS AS (value + 1) VIRTUAL").await;
        let said =
            |status: &serde_json::Value| status["sections"][0]["reason"].as_str()?.contains("later").then_some(());
        app.wait_status("the section to say so", said).await;
        cluster.sql("ALTER TABLE t REPLICA IDENTITY DEFAULT; UPDATE t SET value = 6").await;
        values(&sim, &[1, 5, 6]).await;
        section_is(&app, "t", "streaming").await;
        drain(app, &cluster).await;
        return;
    }
    drain(app, &cluster).await;
}

/// One section maps a generated column, another sends updates of a table that has one.
async fn case_201_generated_columns_of_two_publications_stream(version: Version) {
    if version < Version::V18 {
        return;
    }
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    cluster.sql(&format!("{}; {}", table("a", "STORED"), table("b", "STORED"))).await;
    let sim = sink().await;
    let mapped = SectionText::metric("a", "a").field("value", "twice");
    let app = App::run(&ConfigText::new(&cluster, &sim.url()).section(mapped).section(updates("b")));
    section_is(&app, "a", "streaming").await;
    section_is(&app, "b", "streaming").await;
    let beside = "SELECT count(*) FROM pg2planhat.instance WHERE checkpoint >= updates_from";
    eventually(PATIENCE, "a stream with updates", async || {
        cluster.sql("SELECT pg_logical_emit_message(false, 'test', repeat('x', 2000))").await;
        (cluster.number(beside).await == 1).then_some(())
    })
    .await;
    cluster.sql("INSERT INTO a (external_id, value) VALUES ('a', 50)").await;
    cluster.sql("INSERT INTO b (external_id, value) VALUES ('b', 7)").await;
    values(&sim, &[7, 100]).await;
    cluster.sql("UPDATE b SET value = 8").await;
    values(&sim, &[7, 8, 100]).await;
    drain(app, &cluster).await;
}
