//! Updated rows whose values must be read from their table, which does not let them be read: a matter of their section alone.

use std::time::Duration;

use pg2planhat::testing::sim::SinkKind;

use crate::harness::{App, Cluster, ConfigText, SectionText, eventually};
use crate::main_job_oracle::*;

/// What keeps a row from being read, and what mends it: a statement each, of a session that stays.
const HINDRANCES: [(&str, &str); 4] = [
    ("BEGIN; LOCK TABLE wide", "ROLLBACK"),
    ("ALTER TABLE wide RENAME v TO was_v", "ALTER TABLE wide RENAME was_v TO v"),
    ("REVOKE SELECT ON wide FROM reader", "GRANT SELECT ON wide TO reader"),
    ("ALTER TABLE wide ENABLE ROW LEVEL SECURITY", "ALTER TABLE wide DISABLE ROW LEVEL SECURITY"),
];

#[tokio::test]
async fn case_264_a_row_that_cannot_be_read_stops_its_own_section_alone() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster
        .sql(
            "CREATE ROLE reader LOGIN REPLICATION; GRANT CREATE ON DATABASE postgres TO reader;
             CREATE TABLE wide (id bigint PRIMARY KEY, v int, note text); ALTER TABLE wide ALTER note SET STORAGE external;
             INSERT INTO wide SELECT g, 0, repeat('x', 3000) FROM generate_series(1, 3) g;
             CREATE TABLE other (id bigint PRIMARY KEY, v int);
             GRANT SELECT ON wide, other TO reader;
             CREATE PUBLICATION pg2planhat FOR TABLE ONLY wide, ONLY other
                WITH (publish = 'insert', publish_via_partition_root = true);
             CREATE PUBLICATION pg2planhat_updates FOR TABLE ONLY wide
                WITH (publish = 'insert, update', publish_via_partition_root = true)",
        )
        .await;
    let section = |table: &str| {
        let section = SectionText::activity(table, table).without("email").field("externalId", "id");
        section.field("action", "{ value: seen }").field("weight", "v").without("date").set("date", "receipt")
    };
    let wide = section("wide").set("on", "insert_and_update").field("info", "{ note: note }");
    let config = ConfigText::new(&cluster, &sim.url()).set("source.user", "reader").set("audit", "{ every: off }");
    let config = config.section(wide).section(section("other"));
    let app = App::run(&config);
    let mut wanted = 3;
    arrived(&sim, SinkKind::Activity, wanted).await;
    section_is(&app, "wide", "streaming").await;
    section_is(&app, "other", "streaming").await;
    let carried = "SELECT count(*) FROM pg2planhat.instance WHERE checkpoint >= updates_from";
    eventually(PATIENCE, "a stream with updates", async || (cluster.number(carried).await == 1).then_some(())).await;
    let person = cluster.client().await;
    for (round, (hinder, mend)) in HINDRANCES.into_iter().enumerate() {
        // Both are there before the row is read.
        person.batch_execute(&format!("BEGIN; UPDATE wide SET v = v + 1; COMMIT; {hinder}")).await.unwrap();
        let (from, to) = (round * 5 + 1, round * 5 + 5);
        cluster.sql(&format!("INSERT INTO other SELECT g, g FROM generate_series({from}, {to}) g")).await;
        wanted += 5;
        let others = sim.wait_for(|stats| stats.activities.items >= wanted as u64, Duration::from_secs(30)).await;
        assert!(others.is_ok(), "{hinder}: the other section waits");
        let status = app.wait_status("a section that says why", |status| {
            let one = status["sections"].as_array()?.iter().find(|one| one["name"] == "wide")?.clone();
            (one["state"] == "halted").then_some(one)
        });
        let status = status.await;
        assert!(status["reason"].as_str().unwrap().contains("cannot be read"), "{hinder}: {status:#}");
        if hinder.contains("LOCK") {
            assert!(status["reason"].as_str().unwrap().contains("pid"), "who holds it: {status:#}");
        }
        person.batch_execute(mend).await.unwrap();
        wanted += 3;
        arrived(&sim, SinkKind::Activity, wanted).await;
        section_is(&app, "wide", "streaming").await;
    }
    drain(app, &cluster).await;
    assert_eq!(cluster.number("SELECT count(*) FROM pg2planhat.quarantine").await, 0);
    assert_eq!(sim.stats().activities.items, wanted as u64, "nothing twice");
}
