//! Attacks on tables and results, after what people report of other tools: indexes that tell apart what a comparison does not,
//! windows of time that rows slip out of, keys written in another way, partitions that come and go.

use std::collections::BTreeMap;
use std::time::Duration;

use pg2planhat::testing::sim::{SimHandle, SinkKind};
use serde_json::Value;

use crate::harness::{App, Cluster, ConfigText, SectionText, Version, eventually};
use crate::main_job_oracle::*;
use crate::versions_main_job::on_some_versions;

on_some_versions!({
    case_220_an_index_that_tells_apart_what_a_comparison_does_not_is_no_key
    case_226_partitions_that_come_and_go_beside_updates
});

async fn json(config: &ConfigText, arguments: &[&str]) -> Value {
    App::command(config, &[&["--json"], arguments].concat()).await.json()
}

/// Two texts that a collation takes for one, two values that an operator class tells apart by their bytes: as ties they could
/// stand on both sides of a chunk's end. An index by the column's own equality is a key.
async fn case_220_an_index_that_tells_apart_what_a_comparison_does_not_is_no_key(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    let tables = "CREATE TYPE pair AS (a numeric, b int);
        CREATE TABLE images (k pair NOT NULL, n int, value float8 DEFAULT 1);
        CREATE UNIQUE INDEX ON images (k record_image_ops);
        INSERT INTO images SELECT ROW(CASE g % 2 WHEN 0 THEN 1.0 ELSE 1.00 END, (g + 1) / 2)::pair, g FROM generate_series(1, 40) g;
        CREATE TABLE patterns (k text NOT NULL, n int, value float8 DEFAULT 1);
        CREATE UNIQUE INDEX ON patterns (k text_pattern_ops);
        INSERT INTO patterns SELECT 'k' || g, g FROM generate_series(1, 40) g";
    cluster.sql(tables).await;
    let mut refused = vec!["images"];
    let mut taken = vec!["patterns"];
    let has_icu = cluster.number("SELECT count(*) FROM pg_collation WHERE collprovider = 'i'").await > 0;
    assert!(has_icu || version != Version::V15, "the distribution's server has collations of ICU");
    if has_icu {
        let collated = "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
            CREATE TABLE texts (k text COLLATE loose NOT NULL, n int, value float8 DEFAULT 1);
            CREATE UNIQUE INDEX ON texts (k COLLATE \"C\");
            INSERT INTO texts VALUES ('0', 0);
            INSERT INTO texts SELECT CASE g % 2 WHEN 0 THEN 'k' ELSE 'K' END || (g + 1) / 2, g FROM generate_series(1, 40) g;
            CREATE TABLE loosely (k text COLLATE loose PRIMARY KEY, n int, value float8 DEFAULT 1);
            INSERT INTO loosely SELECT 'k' || g, g FROM generate_series(1, 40) g";
        cluster.sql(collated).await;
        refused.push("texts");
        taken.push("loosely");
    }
    let sim = sink().await;
    let of = |name: &&str| {
        let section = SectionText::metric(name, name).set("key", "k").field("externalId", "n");
        section.field("dimensionId", &format!("{{ value: {name} }}")).without("date").set("date", "receipt")
    };
    let all = refused.iter().chain(&taken);
    let config = all.fold(ConfigText::new(&cluster, &sim.url()), |config, name| config.section(of(name)));
    let check = App::command(&config, &["--json", "check"]).await;
    let findings = check.json()["findings"].as_array().unwrap().clone();
    let no_key = |name: &&str| {
        let subject = format!("section {name}");
        findings
            .iter()
            .any(|one| one["code"] == "key_not_unique" && one["severity"] == "error" && one["subject"] == *subject)
    };
    assert!(refused.iter().all(no_key) && !taken.iter().any(no_key), "{findings:#?}");
    let app = App::run(&config);
    for name in &refused {
        section_is(&app, name, "halted").await;
    }
    for name in &taken {
        section_is(&app, name, "streaming").await;
    }
    arrived(&sim, SinkKind::Metric, 40 * taken.len()).await;
    assert_eq!(sim.stats().metrics.items, 40 * taken.len() as u64);
    drop(app);
}

/// A metric section over this result, compared every second.
fn compared(table: &str) -> SectionText {
    SectionText::metric("m", table)
        .set("read", "diff")
        .set("every", "1s")
        .field("externalId", "n")
        .without("date")
        .set("date", "receipt")
}

/// `externalId`s of everything that was received, in order.
fn received(sim: &SimHandle) -> Vec<i64> {
    sorted(keys(&sim.items(SinkKind::Metric)))
}

/// Waits until a comparison has ended that began after now.
async fn next_run(cluster: &Cluster) {
    let runs = async || {
        let there = "SELECT count(*) FROM pg_class WHERE oid = to_regclass('pg2planhat.diff')";
        match cluster.number(there).await {
            0 => 0,
            _ => cluster.number("SELECT coalesce(max(run), 0) FROM pg2planhat.diff").await,
        }
    };
    let before = runs().await;
    let look = async || (runs().await > before + i64::from(before > 0)).then_some(());
    eventually(PATIENCE, "another comparison", look).await;
}

async fn end(app: App) {
    app.sigterm();
    assert_eq!(app.wait_exit(Duration::from_secs(30)).await, 0, "{}", app.log());
}

/// `within`, and nothing ran for longer than that: what came meanwhile is sent, and what was sent before is not sent again.
#[tokio::test]
async fn case_222_what_came_while_nothing_ran_is_sent_though_it_is_older_than_within() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster
        .sql(
            "CREATE TABLE t (n bigint PRIMARY KEY, value int, at timestamptz);
             INSERT INTO t SELECT g, g, now() - interval '22 days' FROM generate_series(1, 100) g",
        )
        .await;
    let section = |within: &str| {
        let section = compared("t").set("key", "n").unset("date").field("date", "at").set("within", within);
        // Each request leaves a block of its own: so many are put together.
        section.set("batch", "{ rows: 1 }")
    };
    let config = |within: &str| ConfigText::new(&cluster, &sim.url()).section(section(within));
    let app = App::run(&config("60d"));
    next_run(&cluster).await;
    assert_eq!(received(&sim).len(), 100);
    end(app).await;
    // As if that had been 20 days ago.
    cluster
        .sql(
            "UPDATE pg2planhat.diff SET started_at = started_at - interval '20 days', ended_at = ended_at - interval '20 days';
             INSERT INTO t VALUES (101, 1, now() - interval '15 days'), (102, 1, now() - interval '3 days'),
                (103, 1, now() - interval '50 days')",
        )
        .await;
    let app = App::run(&config("7d"));
    next_run(&cluster).await;
    next_run(&cluster).await;
    assert_eq!(received(&sim)[100..], [101, 102], "what was older than the window even then is not asked for");
    assert_eq!(received(&sim)[..100], (1..=100).collect::<Vec<_>>());
    let report = json(&config("7d"), &["audit", "m"]).await;
    assert!(report[0]["caveat"].as_str().unwrap().contains("within"), "{report}");
    end(app).await;
}

/// `within` of a time without zone is of the section's zone, and of a day that has begun the whole counts.
#[tokio::test]
async fn case_222_within_goes_by_the_sections_zone_and_by_whole_days() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster
        .sql(
            "CREATE TABLE t (n bigint PRIMARY KEY, value int, at timestamp);
             INSERT INTO t VALUES (1, 1, (now() - interval '10 min') AT TIME ZONE 'America/New_York'),
                (2, 1, (now() - interval '3 h') AT TIME ZONE 'America/New_York'),
                (3, 1, (now() - interval '10 min') AT TIME ZONE 'Asia/Tokyo');
             CREATE TABLE d (n bigint PRIMARY KEY, value int, at date);
             INSERT INTO d SELECT 10 + g, 1, (now() AT TIME ZONE 'UTC')::date - g FROM generate_series(0, 3) g",
        )
        .await;
    let of = |name: &str| {
        let section = compared(name).set("name", name).set("key", "n").unset("date").field("date", "at");
        section.field("dimensionId", &format!("{{ value: {name} }}"))
    };
    let zone = of("t").set("within", "1h").set("timezone", "America/New_York");
    let config = ConfigText::new(&cluster, &sim.url()).section(zone).section(of("d").set("within", "1d"));
    let app = App::run(&config);
    arrived(&sim, SinkKind::Metric, 3).await;
    next_run(&cluster).await;
    next_run(&cluster).await;
    // Tokyo's clock is ahead of New York's: read in that zone, it is a time that is still to come.
    assert_eq!(received(&sim), [1, 3, 10, 11]);
    end(app).await;
}

/// A key as a person writes it, of a compared result: read in the key's types, as everywhere.
#[tokio::test]
async fn case_223_a_row_of_a_compared_result_is_traced_by_a_key_however_it_is_written() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster
        .sql(
            "CREATE TYPE mood AS ENUM ('low', 'high');
             CREATE TABLE t (u uuid, x numeric, c char(6), m mood, n int, value float8 DEFAULT 1);
             INSERT INTO t VALUES ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 1.50, 'ab', 'high', 7)",
        )
        .await;
    let sections = [
        ("u", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("x", "01.5", "1.50"),
        ("c", "ab", "ab    "),
        ("[m, n]", "high,007", "high,7"),
    ];
    for (key, written, printed) in sections {
        for query in [None, Some("SELECT * FROM t WHERE value > 0")] {
            sim.clear();
            cluster.sql("DROP SCHEMA IF EXISTS pg2planhat CASCADE").await;
            let section = compared("t").set("key", key);
            let section = query.map_or(section.clone(), |query| section.unset("table").set("query", query));
            let config = ConfigText::new(&cluster, &sim.url()).section(section);
            let app = App::run(&config);
            next_run(&cluster).await;
            let traced = json(&config, &["trace", "m", written]).await;
            let told = (&traced["source"], &traced["outcome"], &traced["key"]);
            assert_eq!(told, (&"present".into(), &"delivered".into(), &printed.into()), "{key}: {traced}");
            end(app).await;
        }
    }
}

/// Last value of each `externalId` at the sink.
fn last(sim: &SimHandle) -> BTreeMap<String, i64> {
    let items = sim.items(SinkKind::Metric);
    items.iter().map(|item| (text(item, "externalId"), item.item()["value"].as_i64().unwrap())).collect()
}

/// A partitioned table whose updates are sent: partitions are made, attached with their columns in another order, detached and
/// attached again; rows move between them; the process is killed.
async fn case_226_partitions_that_come_and_go_beside_updates(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    cluster
        .sql(
            "CREATE TABLE totals (account text, day date, value int, note text, PRIMARY KEY (account, day)) PARTITION BY RANGE (day);
             CREATE TABLE jan PARTITION OF totals FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
             INSERT INTO totals SELECT 'a' || g, '2026-01-05', g FROM generate_series(1, 20) g",
        )
        .await;
    let sim = sink().await;
    let section = SectionText::metric("totals", "totals").set("key", "[account, day]").set("on", "insert_and_update");
    let section = section.field("externalId", "account").field("date", "day");
    let config = ConfigText::new(&cluster, &sim.url()).set("audit", "{ every: off }").section(section);
    let app = App::run(&config);
    arrived(&sim, SinkKind::Metric, 20).await;
    let settles = async |what: &str| {
        let rows = cluster.rows("SELECT account, value FROM totals ORDER BY day").await;
        let wanted: BTreeMap<String, i64> =
            rows.into_iter().map(|row| (row[0].clone().unwrap(), row[1].as_ref().unwrap().parse().unwrap())).collect();
        eventually(PATIENCE, what, async || (last(&sim) == wanted).then_some(())).await;
    };
    cluster.sql("UPDATE totals SET value = value + 100 WHERE account IN ('a1', 'a2')").await;
    settles("updates of a partition").await;
    // One that is made as a partition, and one that was a table, with its columns in another order and one dropped.
    cluster
        .sql(
            "CREATE TABLE mar PARTITION OF totals FOR VALUES FROM ('2026-03-01') TO ('2026-04-01');
             INSERT INTO totals SELECT 'm' || g, '2026-03-05', g FROM generate_series(1, 5) g;
             UPDATE totals SET value = value + 300 WHERE account LIKE 'm%';
             CREATE TABLE feb (note text, gone int, value int, day date NOT NULL, account text NOT NULL, PRIMARY KEY (account, day));
             ALTER TABLE feb DROP gone; ALTER TABLE totals ATTACH PARTITION feb FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')",
        )
        .await;
    settles("a partition that was made").await;
    cluster
        .sql(
            "INSERT INTO totals SELECT 'f' || g, '2026-02-05', g FROM generate_series(1, 5) g;
             UPDATE totals SET value = value + 200 WHERE account LIKE 'f%'; UPDATE feb SET note = 'x', value = 7 WHERE account = 'f1'",
        )
        .await;
    settles("a partition that was attached").await;
    app.kill9().await;
    // A row that moves is a new one under its new key.
    cluster.sql("UPDATE totals SET day = '2026-03-07', value = 999 WHERE account = 'a3'").await;
    let app = App::run(&config);
    settles("a row that moved").await;
    // Detached, the application writes to it as before, and nothing of it is sent.
    cluster.sql("ALTER TABLE totals DETACH PARTITION jan").await;
    cluster
        .sql(
            "UPDATE jan SET value = -1 WHERE account = 'a5';
             INSERT INTO jan VALUES ('alone', '2026-01-06', -1); DELETE FROM jan WHERE account = 'a6';
             INSERT INTO totals VALUES ('m6', '2026-03-06', 6); UPDATE totals SET value = 66 WHERE account = 'm6'",
        )
        .await;
    eventually(PATIENCE, "the others", async || (last(&sim).get("m6") == Some(&66)).then_some(())).await;
    // 14 does not notice before the stream is opened again.
    let is_sent = sim.items(SinkKind::Metric).iter().any(|item| item.item()["value"] == -1);
    assert!(!is_sent || version == Version::V14, "of a detached partition");
    cluster.sql("ALTER TABLE totals ATTACH PARTITION jan FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')").await;
    app.wait_log("the partition jan was attached").await;
    // 14 may skip rows of the first seconds: the stream is opened again.
    eventually(PATIENCE, "rows of a partition that was attached again", async || {
        cluster.sql("UPDATE totals SET value = value + 1 WHERE account = 'a7'").await;
        (last(&sim).get("a7").is_some_and(|value| *value > 7)).then_some(())
    })
    .await;
    let report = eventually(PATIENCE, "an audit with nothing on its way", async || {
        let report = json(&config, &["audit", "totals"]).await;
        (report[0]["waiting"] == 0).then(|| report[0].clone())
    })
    .await;
    let missing = if is_sent { serde_json::json!([]) } else { serde_json::json!(["alone,2026-01-06"]) };
    assert_eq!((&report["missing_keys"], &report["doubled"]), (&missing, &0.into()), "{report}");
    let gaps = cluster.rows("SELECT reason FROM pg2planhat.gap WHERE reason = 'partition_attached'").await;
    assert!(!gaps.is_empty(), "{}", app.log());
    // Between two looks: it was never seen away.
    cluster
        .sql(
            "BEGIN; ALTER TABLE totals DETACH PARTITION mar; INSERT INTO mar VALUES ('quick', '2026-03-08', -2);
             ALTER TABLE totals ATTACH PARTITION mar FOR VALUES FROM ('2026-03-01') TO ('2026-04-01'); COMMIT",
        )
        .await;
    app.wait_log("the partition mar was attached").await;
    drop(app);
}
