//! `read: diff` on the shapes that customers have: a key of several columns, a time of day, a foreign table, and an instance
//! that streams other tables beside it. The application writes and changes its tables as before.

use std::time::Duration;

use pg2planhat::testing::sim::{SimHandle, SinkKind};

use crate::harness::{App, Cluster, ConfigText, SectionText, Version, eventually};
use crate::main_job_oracle::*;
use crate::versions_main_job::on_some_versions;

on_some_versions!({
    case_158_a_result_with_a_key_of_several_columns
    case_159_a_result_that_is_compared_at_a_time_of_day
    case_160_compared_and_streamed_sections_run_beside_each_other
});

fn compared(name: &str, table: &str) -> SectionText {
    SectionText::metric(name, table)
        .set("read", "diff")
        .set("every", "1s")
        .field("dimensionId", &format!("{{ value: {name} }}"))
        .without("date")
        .set("date", "receipt")
}

/// `externalId value` of everything that was received of a dimension, sorted.
fn received(sim: &SimHandle, dimension: &str) -> Vec<String> {
    let items: Vec<_> = sim.items(SinkKind::Metric).iter().map(|item| item.item()).collect();
    let of = items.iter().filter(|item| item["dimensionId"] == dimension);
    sorted(of.map(|item| format!("{} {}", item["externalId"].as_str().unwrap(), item["value"])).collect())
}

async fn has(sim: &SimHandle, dimension: &str, expected: &[&str]) {
    eventually(PATIENCE, &format!("{dimension} to be {expected:?}"), async || {
        (received(sim, dimension) == expected).then_some(())
    })
    .await;
}

async fn case_158_a_result_with_a_key_of_several_columns(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    cluster
        .sql(
            "CREATE TABLE usage (account text, day date, n int);
             INSERT INTO usage VALUES ('a', '2026-01-01', 1), ('a', '2026-01-02', 2), ('b,c', '2026-01-01', 3), ('b', '2026-01-01', 4);
             CREATE VIEW totals AS SELECT account, day, sum(n) AS value FROM usage GROUP BY account, day",
        )
        .await;
    let sim = sink().await;
    let section = compared("totals", "totals").set("key", "[account, day]").field("externalId", "account");
    let config = ConfigText::new(&cluster, &sim.url()).section(section);
    let json = async |arguments: &[&str]| App::command(&config, &[&["--json"], arguments].concat()).await.json();
    let app = App::run(&config);
    has(&sim, "totals", &["a 1", "a 2", "b 4", "b,c 3"]).await;
    // One of two rows that share a part of their key changes; the application changes its table and its view.
    cluster
        .sql(
            "UPDATE usage SET n = 20 WHERE account = 'a' AND day = '2026-01-02'; DELETE FROM usage WHERE account = 'b';
             INSERT INTO usage VALUES ('a', '2026-01-03', 5); ALTER TABLE usage ADD COLUMN note text;
             CREATE OR REPLACE VIEW totals AS SELECT account, day, sum(n) AS value, count(note) AS notes FROM usage GROUP BY account, day",
        )
        .await;
    has(&sim, "totals", &["a 1", "a 2", "a 20", "a 5", "b 4", "b,c 3"]).await;
    for key in ["a,2026-01-02", "[\"b,c\",\"2026-01-01\"]"] {
        let traced = json(&["trace", "totals", key]).await;
        assert_eq!((&traced["outcome"], &traced["source"]), (&"delivered".into(), &"present".into()), "{traced}");
    }
    assert_eq!(json(&["trace", "totals", "b,2026-01-01"]).await["source"], "absent");
    eventually(PATIENCE, "an audit that finds nothing", async || {
        let report = json(&["audit", "totals"]).await;
        let figures = ["rows_source", "rows_settled", "waiting", "gone"].map(|name| report[0][name].as_u64().unwrap());
        (figures == [4, 4, 0, 1]).then_some(())
    })
    .await;
    app.kill9().await;
    cluster.sql("TRUNCATE usage; INSERT INTO usage VALUES ('a', '2026-01-01', 1), ('z', '2026-01-01', 9)").await;
    let app = App::run(&config);
    has(&sim, "totals", &["a 1", "a 2", "a 20", "a 5", "b 4", "b,c 3", "z 9"]).await;
    app.sigterm();
    assert_eq!(app.wait_exit(Duration::from_secs(30)).await, 0, "{}", app.log());
}

async fn case_159_a_result_that_is_compared_at_a_time_of_day(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    cluster.sql("CREATE TABLE t (id text, value int); INSERT INTO t VALUES ('a', 1), ('b', 2)").await;
    let sim = sink().await;
    let zone = jiff::tz::TimeZone::get("Asia/Tokyo").unwrap();
    // A whole second, as the schedule has it.
    let at = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + 25).unwrap();
    let every = format!("{{ daily_at: \"{}\", timezone: Asia/Tokyo }}", at.to_zoned(zone).strftime("%H:%M:%S"));
    let section = compared("t", "t").set("every", every).field("externalId", "id");
    let config = ConfigText::new(&cluster, &sim.url()).section(section);
    let app = App::run(&config);
    // The first comparison is the backfill, at once.
    has(&sim, "t", &["a 1", "b 2"]).await;
    eventually(PATIENCE, "the first comparison", async || {
        (cluster.number("SELECT count(*) FROM pg2planhat.diff").await == 1).then_some(())
    })
    .await;
    cluster.sql("UPDATE t SET value = 10 WHERE id = 'a'; INSERT INTO t VALUES ('c', 3)").await;
    let before = jiff::Timestamp::now() < at;
    has(&sim, "t", &["a 1", "a 10", "b 2", "c 3"]).await;
    assert!(before && jiff::Timestamp::now() >= at, "not before its time");
    // It is not late now, and the next is tomorrow.
    app.wait_ready().await;
    cluster.sql("UPDATE t SET value = 11 WHERE id = 'a'").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(received(&sim, "t").len(), 4);
    app.sigterm();
    assert_eq!(app.wait_exit(Duration::from_secs(30)).await, 0, "{}", app.log());
}

async fn case_160_compared_and_streamed_sections_run_beside_each_other(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    let other = Cluster::start().await;
    other.sql("CREATE TABLE far (id text PRIMARY KEY, value int); INSERT INTO far VALUES ('f1', 1), ('f2', 2)").await;
    cluster
        .sql(&format!(
            "CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw
                OPTIONS (host '127.0.0.1', port '{}', dbname 'postgres');
             CREATE USER MAPPING FOR PUBLIC SERVER far OPTIONS (user 'postgres');
             CREATE FOREIGN TABLE far (id text, value int) SERVER far;
             CREATE TABLE event (id bigserial PRIMARY KEY, external_id text, value int, at timestamptz DEFAULT now());
             CREATE TABLE totals (account text PRIMARY KEY, value int);
             CREATE VIEW per_account AS SELECT external_id AS account, count(*) AS value FROM event GROUP BY external_id;
             INSERT INTO event (external_id, value) VALUES ('e1', 1), ('e1', 2), ('e2', 3); INSERT INTO totals VALUES ('t1', 1)",
            other.port()
        ))
        .await;
    let sim = sink().await;
    let event = SectionText::metric("event", "event").field("dimensionId", "{ value: event }");
    let totals = SectionText::metric("totals", "totals")
        .set("key", "account")
        .set("on", "insert_and_update")
        .set("start", "backfill")
        .field("dimensionId", "{ value: totals }")
        .field("externalId", "account")
        .without("date")
        .set("date", "receipt");
    let config = ConfigText::new(&cluster, &sim.url())
        .section(event)
        .section(compared("far", "far").field("externalId", "id"))
        .section(compared("per_account", "per_account").set("key", "account").field("externalId", "account"))
        .section(totals);
    let found = App::command(&config, &["--json", "check"]).await.json();
    let errors: Vec<_> =
        found["findings"].as_array().unwrap().iter().filter(|one| one["severity"] == "error").collect();
    assert!(errors.is_empty(), "{errors:?}");
    let app = App::run(&config);
    has(&sim, "event", &["e1 1", "e1 2", "e2 3"]).await;
    has(&sim, "far", &["f1 1", "f2 2"]).await;
    has(&sim, "per_account", &["e1 2", "e2 1"]).await;
    has(&sim, "totals", &["t1 1"]).await;
    app.wait_ready().await;
    // The application goes on with everything that it may do.
    cluster
        .sql(
            "INSERT INTO event (external_id, value) VALUES ('e2', 4); UPDATE event SET value = 9 WHERE external_id = 'e1';
             DELETE FROM event WHERE id = 1; UPDATE totals SET value = 2; UPDATE far SET value = 20 WHERE id = 'f2';
             INSERT INTO far VALUES ('f3', 3); ALTER TABLE event ADD COLUMN note text; ALTER TABLE totals ADD COLUMN note text",
        )
        .await;
    has(&sim, "event", &["e1 1", "e1 2", "e2 3", "e2 4"]).await;
    has(&sim, "far", &["f1 1", "f2 2", "f2 20", "f3 3"]).await;
    has(&sim, "totals", &["t1 1", "t1 2"]).await;
    eventually(PATIENCE, "the view as it is now", async || {
        let all = received(&sim, "per_account");
        (all.contains(&"e1 1".to_owned()) && all.iter().filter(|one| *one == "e2 2").count() == 1).then_some(())
    })
    .await;
    // The other server goes away: its section halts by itself, and the others do not wait for it.
    other.crash().await;
    app.wait_status("the foreign table to be missed", |status| {
        let sections = status["sections"].as_array()?;
        let far = sections.iter().find(|one| one["name"] == "far")?;
        (!far["reason"].is_null()).then_some(())
    })
    .await;
    cluster
        .sql("INSERT INTO event (external_id, value) VALUES ('e3', 5); UPDATE totals SET value = 3; TRUNCATE event")
        .await;
    has(&sim, "event", &["e1 1", "e1 2", "e2 3", "e2 4", "e3 5"]).await;
    has(&sim, "totals", &["t1 1", "t1 2", "t1 3"]).await;
    other.start_again().await;
    other.sql("INSERT INTO far VALUES ('f4', 4)").await;
    has(&sim, "far", &["f1 1", "f2 2", "f2 20", "f3 3", "f4 4"]).await;
    drain(app, &cluster).await;
    let again = App::run(&config);
    again.wait_ready().await;
    cluster.sql("INSERT INTO event (external_id, value) VALUES ('e4', 6)").await;
    has(&sim, "event", &["e1 1", "e1 2", "e2 3", "e2 4", "e3 5", "e4 6"]).await;
    has(&sim, "far", &["f1 1", "f2 2", "f2 20", "f3 3", "f4 4"]).await;
    drain(again, &cluster).await;
}
