//! Keys that a row cannot be told by at first sight: stored out of line, so that an update leaves them out, or NULL beside a
//! constraint that says it is not.

use pg2planhat::testing::sim::SinkKind;

use crate::harness::{App, Cluster, ConfigText, SectionText, Version, eventually};
use crate::main_job_oracle::*;

/// Metrics of this table's values, of each version.
fn versions(table: &str) -> SectionText {
    SectionText::metric(table, table)
        .set("on", "insert_and_update")
        .set("key", "slug")
        .field("externalId", "account")
        .without("date")
        .set("date", "receipt")
}

/// PostgreSQL brings such a key in the old tuple alone, which names the replica identity's columns.
#[tokio::test]
async fn case_260_a_key_that_is_stored_out_of_line_is_known_after_an_update() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster
        .sql(
            "CREATE TABLE e (slug text, part int, account text, value int, PRIMARY KEY (slug, part));
             ALTER TABLE e ALTER slug SET STORAGE external;
             INSERT INTO e SELECT lpad(g::text, 6, '0') || repeat('s', 2400), 1, 'a' || g, g FROM generate_series(1, 5) g",
        )
        .await;
    // One section reads the key, one does not.
    let mapped = versions("e").set("key", "[slug, part]").field("externalId", "slug");
    let beside = SectionText::metric("beside", "e").set("on", "insert_and_update").set("key", "[slug, part]");
    let beside = beside.field("externalId", "account").without("date").set("date", "receipt");
    let config = ConfigText::new(&cluster, &sim.url()).set("audit", "{ every: off }").section(mapped).section(beside);
    let app = App::run(&config);
    arrived(&sim, SinkKind::Metric, 10).await;
    section_is(&app, "e", "streaming").await;
    section_is(&app, "beside", "streaming").await;
    cluster.sql("UPDATE e SET value = value + 100; UPDATE e SET part = 2 WHERE account = 'a1'").await;
    let items = arrived(&sim, SinkKind::Metric, 10 + 2 * 5).await;
    let of_slugs = items.iter().map(|item| text(item, "externalId")).filter(|id| id.len() == 2406).count();
    assert!(of_slugs >= 10, "{of_slugs} of the mapped key");
    cluster.sql("UPDATE e SET value = value + 100 WHERE account = 'a2'").await;
    arrived(&sim, SinkKind::Metric, items.len() + 2).await;
    let key = format!("000002{},1", "s".repeat(2400));
    for section in ["e", "beside"] {
        eventually(PATIENCE, "the third version to be settled", async || {
            let trace = App::command(&config, &["trace", section, &key]).await;
            trace.stdout.contains("newest of 3 versions").then_some(())
        })
        .await;
    }
    drain(app, &cluster).await;
    assert_eq!(cluster.number("SELECT count(*) FROM pg2planhat.quarantine").await, 0);
    assert_eq!(cluster.number("SELECT count(*) FROM pg2planhat.delivery WHERE first_key = ''").await, 0);
}

/// Where the replica identity is another index, nothing tells which row was updated.
#[tokio::test]
async fn case_261_an_update_whose_key_does_not_come_is_quarantined_with_the_true_reason() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster
        .sql(
            "CREATE TABLE e (id bigint PRIMARY KEY, slug text NOT NULL UNIQUE, account text, value int);
             ALTER TABLE e ALTER slug SET STORAGE external;
             INSERT INTO e SELECT g, lpad(g::text, 6, '0') || repeat('s', 2400), 'a' || g, g FROM generate_series(1, 3) g;
             INSERT INTO e VALUES (4, 'short', 'a4', 4)",
        )
        .await;
    let config = ConfigText::new(&cluster, &sim.url()).set("audit", "{ every: off }").section(versions("e"));
    let check = App::command(&config, &["--json", "check"]).await;
    assert!(check.stdout.contains("\"key_not_in_identity\""), "{}", check.stdout);
    let app = App::run(&config);
    arrived(&sim, SinkKind::Metric, 4).await;
    section_is(&app, "e", "streaming").await;
    cluster.sql("UPDATE e SET value = value + 100").await;
    arrived(&sim, SinkKind::Metric, 5).await;
    drain(app, &cluster).await;
    let reasons = "SELECT string_agg(DISTINCT reason, ' | ') FROM pg2planhat.quarantine";
    let said = cluster.text(reasons).await;
    assert!(said.contains("slug is the key, and the update did not bring it") && !said.contains('|'), "{said}");
    assert_eq!(cluster.number("SELECT count(*) FROM pg2planhat.quarantine").await, 3);
}

/// From 18 on a column is NOT NULL by name as soon as a constraint says so that has looked at no row.
#[tokio::test]
async fn case_262_a_not_null_that_is_not_valid_proves_nothing() {
    let Some(cluster) = Cluster::builder().version(Version::V18).start_or_skip().await else { return };
    let sim = sink().await;
    cluster
        .sql(
            "CREATE TABLE e (slug text UNIQUE, account text, value int);
             INSERT INTO e SELECT g::text, 'a' || g, g FROM generate_series(1, 10) g;
             INSERT INTO e SELECT NULL, 'n' || g, g FROM generate_series(1, 5) g;
             ALTER TABLE e ADD CONSTRAINT there NOT NULL slug NOT VALID",
        )
        .await;
    let config = ConfigText::new(&cluster, &sim.url()).section(versions("e").unset("on"));
    let check = App::command(&config, &["--json", "check"]).await.json();
    let found = check["findings"].as_array().unwrap().iter().find(|found| found["code"] == "key_nullable");
    let remedy = found.unwrap_or_else(|| panic!("{check:#}"))["remedy"].as_str().unwrap().to_owned();
    // A key that is guessed is none of these either.
    let guessed = App::command(&config, &["--json", "discover", "e"]).await;
    assert!(!guessed.stdout.contains("\"key\":[\"slug\"]"), "{}", guessed.stdout);
    cluster.sql("DELETE FROM e WHERE slug IS NULL").await;
    cluster.sql(&remedy).await;
    let check = App::command(&config, &["--json", "check"]).await;
    assert!(!check.stdout.contains("key_nullable"), "{}", check.stdout);
    let app = App::run(&config);
    arrived(&sim, SinkKind::Metric, 10).await;
    drain(app, &cluster).await;
}
