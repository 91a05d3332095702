//! Keys of every kind: by the backfill, the stream, a late commit, a kill, a re-sync, trace and audit; and what is refused.

use std::time::Duration;

use pg2planhat::testing::sim::{SimFault, SimOptions, SinkKind};
use serde_json::Value;

use crate::harness::{App, Cluster, ConfigText, SectionText, Version, eventually};
use crate::main_job_oracle::*;
use crate::versions_main_job::on_some_versions;

on_some_versions!({
    key_of_a_bigint
    key_of_a_uuid
    key_of_a_text
    key_of_two_columns
    key_of_a_partitioned_table
    key_of_a_time_with_ties
    case_60_a_rewrite_beside_a_backfill_loses_nothing
    case_60_a_chunk_that_waits_for_a_rewrite_sees_its_rows
});

/// One shape of a key.
struct KeyShape {
    /// `CREATE TABLE t`: it has the columns `n`, unique in the data, and `value`, beside those of the key.
    table: &'static str,
    /// The section's `key`; empty: none is written.
    key: &'static str,
    /// Where the backfill's rows and others lie in the key's order is up to these expressions over `n`.
    insert: &'static str,
    /// SQL: the key's text of the row with `n = 7`.
    text: &'static str,
}

async fn key_of_a_bigint(version: Version) {
    let table = "CREATE TABLE t (id bigint PRIMARY KEY, n bigint, value int)";
    every_way(version, KeyShape { table, key: "", insert: "n", text: "id::text" }).await;
}

async fn key_of_a_uuid(version: Version) {
    let table = "CREATE TABLE t (id uuid PRIMARY KEY, n bigint, value int)";
    every_way(version, KeyShape { table, key: "id", insert: "md5(n::text)::uuid", text: "id::text" }).await;
}

/// A `char(n)` is padded where it is printed, and order and text differ by the collation.
async fn key_of_a_text(version: Version) {
    let table = "CREATE TABLE t (id char(40) COLLATE \"C\" PRIMARY KEY, n bigint, value int)";
    let insert = "chr(65 + (n % 50)::int) || E'\\\\ \"' || n";
    every_way(version, KeyShape { table, key: "id", insert, text: "format('%s', id)" }).await;
}

async fn key_of_two_columns(version: Version) {
    let table = "CREATE TABLE t (\"first\" text, b numeric, n bigint, value int, PRIMARY KEY (\"first\", b))";
    let insert = "'a,' || n % 5, n / 4.0";
    every_way(version, KeyShape { table, key: "[first, b]", insert, text: "'\"' || first || '\",' || b" }).await;
}

async fn key_of_a_partitioned_table(version: Version) {
    let table = "CREATE TABLE t (id bigint, created_at date, n bigint, value int, PRIMARY KEY (id, created_at))
            PARTITION BY RANGE (created_at);
        CREATE TABLE t1 PARTITION OF t FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
        CREATE TABLE t2 PARTITION OF t FOR VALUES FROM ('2024-02-01') TO ('2024-03-01')";
    let insert = "n / 3, date '2024-01-01' + (n % 60)::int";
    every_way(version, KeyShape { table, key: "", insert, text: "id || ',' || created_at" }).await;
}

/// The time orders, and has many ties; the primary key decides.
async fn key_of_a_time_with_ties(version: Version) {
    let table = "CREATE TABLE t (created_at timestamptz NOT NULL, id bigint PRIMARY KEY, n bigint, value int);
        CREATE INDEX ON t (created_at, id)";
    let insert = "timestamptz '2024-01-01 00:00:00+00' + (n % 10) * interval '0.5 s', n";
    every_way(version, KeyShape { table, key: "[created_at, id]", insert, text: "created_at || ',' || id" }).await;
}

/// The rows of these n.
fn insert(shape: &KeyShape, from: i64, to: i64) -> String {
    format!("INSERT INTO t SELECT {}, n, 1 FROM generate_series({from}, {to}) n", shape.insert)
}

async fn audited(config: &ConfigText) -> Value {
    let output = App::command(config, &["--json", "audit", "t"]).await;
    let documents: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{}", output.stderr));
    documents[0].clone()
}

/// 4,000 rows before the attachment, 2,000 committed late beside the backfill, a kill in the middle of it, 500 by the
/// stream; each once but what the ledger names. Then the whole again by a re-sync, a trace and an audit.
async fn every_way(version: Version, shape: KeyShape) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    let latency = Duration::from_millis(30);
    let sim = sink_like(SimOptions { latency, ..SimOptions::default() }).await;
    cluster.sql(&format!("{}; {}", shape.table, insert(&shape, 1, 4_000))).await;
    let section = SectionText::metric("t", "t").field("externalId", "n").without("date").set("date", "receipt");
    let section = section.set("batch", "{ rows: 100 }");
    let section = if shape.key.is_empty() { section.unset("key") } else { section.set("key", shape.key) };
    let config = ConfigText::new(&cluster, &sim.url()).section(section);
    assert_eq!(App::command(&config, &["setup"]).await.code, 0);
    let late = cluster.client().await;
    late.batch_execute(&format!("BEGIN; {}", insert(&shape, 4_001, 5_000))).await.unwrap();
    let app = App::run(&config);
    app.wait_log("backfill begins when").await;
    late.batch_execute("COMMIT").await.unwrap();
    arrived(&sim, SinkKind::Metric, 1_000).await;
    cluster.sql(&insert(&shape, 5_001, 6_000)).await;
    app.kill9().await;
    let app = App::run(&config);
    section_is(&app, "t", "streaming").await;
    cluster.sql(&insert(&shape, 6_001, 6_500)).await;
    eventually(PATIENCE, "every row is accounted for", async || {
        let report = audited(&config).await;
        let exact = (report["delivered"].as_u64(), report["missing"].as_u64()) == (Some(6_500), Some(0));
        (exact && report["rows_source"] == 6_500).then_some(())
    })
    .await;
    let named = cluster.number("SELECT coalesce(sum(rows), 0) FROM pg2planhat.delivery WHERE outcome = 'resent'").await;
    let twice = i64::try_from(sim.stats().metrics.items).unwrap() - 6_500;
    assert!((0..=named).contains(&twice), "{twice} rows were doubled, {named} of them by name");

    let text = cluster.text(&format!("SELECT {} FROM t WHERE n = 7", shape.text)).await;
    let traced = App::command(&config, &["--json", "trace", "t", &text]).await.json();
    assert_eq!((&traced["outcome"], &traced["key"]), (&"delivered".into(), &text.as_str().into()), "{traced}");
    let never = App::command(&config, &["trace", "t", "[1, 2, 3, 4]"]).await;
    assert!(never.code == 64 || never.code == 1, "{}", never.stderr);

    let before = usize::try_from(sim.stats().metrics.items).unwrap();
    let resync = App::command(&config, &["resync", "t", "--from-key", &text, "--yes", "--json"]).await;
    assert_eq!(resync.code, 0, "{}", resync.stderr);
    let rows = usize::try_from(resync.json()["rows"].as_u64().unwrap()).unwrap();
    assert!(rows > 0 && rows < 6_500, "{rows}");
    arrived(&sim, SinkKind::Metric, before + rows).await;
    section_is(&app, "t", "streaming").await;
    drain(app, &cluster).await;
    assert_eq!(sim.stats().metrics.items, (before + rows) as u64);
}

/// `ALTER TABLE` rewrites the table while it is read: what a snapshot from before sees is not the end of the range.
async fn case_60_a_rewrite_beside_a_backfill_loses_nothing(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    let sim = sink().await;
    cluster
        .sql(
            "CREATE TABLE t (id int PRIMARY KEY, value int, filler text DEFAULT repeat('x', 300));
             INSERT INTO t SELECT g, 1 FROM generate_series(1, 60000) g",
        )
        .await;
    let section = SectionText::metric("t", "t").field("externalId", "id").without("date").set("date", "receipt");
    let config = ConfigText::new(&cluster, &sim.url()).section(section.set("batch", "{ rows: 500 }"));
    let app = App::run(&config);
    for ty in ["bigint", "int", "bigint", "int", "bigint"] {
        cluster.sql(&format!("ALTER TABLE t ALTER COLUMN value TYPE {ty}")).await;
    }
    arrived(&sim, SinkKind::Metric, 1_000).await;
    for ty in ["int", "bigint", "numeric", "int"] {
        cluster.sql(&format!("ALTER TABLE t ALTER COLUMN value TYPE {ty}")).await;
    }
    let items = arrived(&sim, SinkKind::Metric, 60_000).await;
    section_is(&app, "t", "streaming").await;
    assert_each_once(&(1..=60_000).collect::<Vec<_>>(), items.iter().map(key).collect());
    drain(app, &cluster).await;
}

/// A chunk comes to a lock that a rewrite holds: of the table, or of one partition, where the chunk is not even short.
async fn case_60_a_chunk_that_waits_for_a_rewrite_sees_its_rows(version: Version) {
    let columns = "(id int PRIMARY KEY, value int, filler text DEFAULT repeat('x', 300))";
    let whole = (format!("CREATE TABLE t {columns}"), "ALTER TABLE t ALTER COLUMN value TYPE bigint");
    let leaf = |n| format!("CREATE TABLE t_{n} PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER {n})");
    let parts = format!("CREATE TABLE t {columns} PARTITION BY HASH (id); {}; {}", leaf(0), leaf(1));
    let one = (parts, "ALTER TABLE t_1 SET UNLOGGED; ALTER TABLE t_1 SET LOGGED");
    for (table, rewrite) in [whole, one] {
        let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
        let sim = sink().await;
        // The first chunks fill the memory and wait for the sink, and the next ones wait for them.
        sim.queue_fault(SimFault::status(503).times(0));
        cluster.sql(&format!("{table}; INSERT INTO t SELECT g, 1 FROM generate_series(1, 40000) g")).await;
        let section = SectionText::metric("t", "t").field("externalId", "id").without("date").set("date", "receipt");
        let section = section.field("dimensionId", "filler").set("batch", "{ rows: 500, bytes: 1MiB }");
        let app = App::run(&ConfigText::new(&cluster, &sim.url()).set("memory", "4MiB").section(section));
        sim.wait_for(|stats| stats.metrics.requests > 0, PATIENCE).await.unwrap();
        let rewriting = cluster.client().await;
        rewriting.batch_execute(&format!("BEGIN; {rewrite}")).await.unwrap();
        sim.clear_faults();
        let waiting = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
            WHERE NOT granted AND application_name LIKE '%backfill%'";
        eventually(PATIENCE, "a chunk to wait", async || (cluster.number(waiting).await > 0).then_some(())).await;
        rewriting.batch_execute("COMMIT").await.unwrap();
        let items = arrived(&sim, SinkKind::Metric, 40_000).await;
        section_is(&app, "t", "streaming").await;
        assert_each_once(&(1..=40_000).collect::<Vec<_>>(), items.iter().map(key).collect());
        drain(app, &cluster).await;
    }
}

/// What `check` calls an error of a section's key, `run` refuses for that section alone, in the same words.
#[tokio::test]
async fn case_61_68_check_and_run_judge_by_the_same_function() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster
        .sql(
            "CREATE TABLE good (id bigint PRIMARY KEY, value int DEFAULT 1); INSERT INTO good SELECT generate_series(1, 50);
             CREATE TABLE ties (id bigint PRIMARY KEY, at timestamptz NOT NULL, value int DEFAULT 1);
             INSERT INTO ties SELECT g, '2024-01-01' FROM generate_series(1, 50) g;
             CREATE TABLE maybe (id bigint UNIQUE, value int DEFAULT 1);
             CREATE TABLE parts (id bigint, day date, value int DEFAULT 1, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
             CREATE UNLOGGED TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')",
        )
        .await;
    let section =
        |name: &str| SectionText::metric(name, name).field("externalId", "id").without("date").set("date", "receipt");
    let config = ConfigText::new(&cluster, &sim.url())
        .section(section("good"))
        .section(section("ties").set("key", "at"))
        .section(section("maybe"))
        .section(section("parts").unset("key"));
    let check = App::command(&config, &["--json", "check"]).await.json();
    let error = |code: &str| {
        let all = check["findings"].as_array().unwrap().iter();
        let found = all.filter(|found| found["code"] == code && found["severity"] == "error").collect::<Vec<_>>();
        assert_eq!(found.len(), 1, "{code}: {check:#}");
        (found[0]["message"].as_str().unwrap().to_owned(), found[0]["remedy"].as_str().unwrap().to_owned())
    };
    let app = App::run(&config);
    arrived(&sim, SinkKind::Metric, 50).await;
    for (name, code) in [("ties", "key_not_unique"), ("maybe", "key_nullable"), ("parts", "partition_unlogged")] {
        let (message, remedy) = error(code);
        let status = app.wait_status("a refused section", |status| {
            let all = status["sections"].as_array().unwrap().iter();
            all.filter(|one| one["name"] == name && one["state"] == "halted").map(Clone::clone).next()
        });
        let status = status.await;
        assert!(status["reason"].as_str().unwrap().contains(&message), "{status:#}\n{message}");
        assert_eq!(status["remedy"], remedy.as_str());
    }
    assert!(error("key_not_unique").1.contains("key: [at, id]"), "{check:#}");
    assert!(error("partition_unlogged").0.contains("parts_1"), "{check:#}");
    section_is(&app, "good", "streaming").await;
    assert_eq!(sim.stats().metrics.items, 50);
}

/// A key that a person types is printed once by the server, so that rows streamed meanwhile are told by it.
#[tokio::test]
async fn case_64_a_typed_key_is_the_servers() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster
        .sql(
            "CREATE TABLE t (id timestamp PRIMARY KEY, value int DEFAULT 1);
             INSERT INTO t SELECT timestamp '2024-05-01' + g * interval '1 hour' FROM generate_series(-100, 100) g",
        )
        .await;
    let section = SectionText::metric("t", "t").field("externalId", "id").without("date").set("date", "receipt");
    let typed = "{ after_key: 2024-5-1T00:00:00Z }";
    let config = ConfigText::new(&cluster, &sim.url()).section(section.clone().set("start", typed));
    assert_eq!(App::command(&config, &["setup"]).await.code, 0);
    let open = cluster.client().await;
    open.batch_execute("BEGIN; CREATE TABLE other ()").await.unwrap();
    let app = App::run(&config);
    app.wait_log("backfill begins when").await;
    // By the stream, while the barrier waits: both sides of the key.
    cluster
        .sql(
            "INSERT INTO t SELECT timestamp '2024-05-01 00:30' + g * interval '1 hour' FROM generate_series(-50, 49) g",
        )
        .await;
    arrived(&sim, SinkKind::Metric, 100).await;
    open.batch_execute("ROLLBACK").await.unwrap();
    arrived(&sim, SinkKind::Metric, 200).await;
    section_is(&app, "t", "streaming").await;
    drain(app, &cluster).await;
    assert_eq!(sim.stats().metrics.items, 200, "100 by the stream, 100 by the backfill, none twice");

    let wrong = ConfigText::new(&cluster, &sim.url())
        .set("source.slot", "other")
        .set("source.publication", "other")
        .set("state.schema", "other")
        .section(section.set("start", "{ after_key: yesterday-ish }"));
    let app = App::run(&wrong);
    let refused = app.wait_status("a key that is none", |status| {
        let one = &status["sections"][0];
        (one["state"] == "halted").then(|| one["reason"].as_str().unwrap().to_owned())
    });
    assert!(refused.await.contains("\"yesterday-ish\" is no key"), "{}", app.log());
}

/// A key column called `first`, and `--from-time`: names in generated SQL are qualified.
#[tokio::test]
async fn case_71_a_key_column_called_first_and_from_time() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster
        .sql(
            "CREATE TABLE t (\"first\" bigint PRIMARY KEY, t int DEFAULT 1, at timestamptz);
             INSERT INTO t SELECT g, 1, timestamptz '2024-01-01 00:00:00+00' + g * interval '1 day' FROM generate_series(1, 300) g",
        )
        .await;
    let section = SectionText::metric("t", "t").set("key", "first").field("externalId", "first").field("value", "t");
    let config = ConfigText::new(&cluster, &sim.url()).section(section);
    let app = App::run(&config);
    arrived(&sim, SinkKind::Metric, 300).await;
    section_is(&app, "t", "streaming").await;
    let resync =
        App::command(&config, &["--json", "resync", "t", "--from-time", "2024-10-01T00:00:00Z", "--yes"]).await;
    assert_eq!(resync.json()["rows"], 27, "{}", resync.stderr);
    arrived(&sim, SinkKind::Metric, 327).await;
    section_is(&app, "t", "streaming").await;
    drain(app, &cluster).await;
    assert_eq!(sim.stats().metrics.items, 327);
}

/// A partition that is made UNLOGGED while the section streams: its rows come no more, and the section says so.
#[tokio::test]
async fn case_68_a_leaf_made_unlogged_halts_its_section_and_leaves_a_gap() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster
        .sql(
            "CREATE TABLE t (id bigint PRIMARY KEY, value int DEFAULT 1) PARTITION BY RANGE (id);
             CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (1000);
             INSERT INTO t SELECT generate_series(1, 10)",
        )
        .await;
    let section = SectionText::metric("t", "t").field("externalId", "id").without("date").set("date", "receipt");
    let app = App::run(&ConfigText::new(&cluster, &sim.url()).section(section.unset("key")));
    arrived(&sim, SinkKind::Metric, 10).await;
    section_is(&app, "t", "streaming").await;
    cluster.sql("ALTER TABLE t_1 SET UNLOGGED").await;
    let halted = app.wait_status("a halted section", |status| {
        let one = &status["sections"][0];
        (one["state"] == "halted").then(|| (one["reason"].as_str().unwrap().to_owned(), one["remedy"].to_string()))
    });
    let (reason, remedy) = halted.await;
    assert!(reason.contains("t_1") && reason.contains("UNLOGGED"), "{reason}");
    assert!(remedy.contains("SET LOGGED") && remedy.contains("repair --gap"), "{remedy}");
    eventually(PATIENCE, "a gap is recorded", async || {
        let open = "SELECT count(*) FROM pg2planhat.gap WHERE section = 't' AND reason = 'partition_unlogged'";
        (cluster.number(open).await == 1).then_some(())
    })
    .await;
}

/// Rows whose key is changed beside a backfill, so that they lie behind it: its end counts them.
#[tokio::test]
async fn case_69_an_update_of_the_key_beside_a_backfill_is_found_at_its_end() {
    let latency = Duration::from_millis(20);
    let (cluster, sim) = (Cluster::start().await, sink_like(SimOptions { latency, ..SimOptions::default() }).await);
    cluster
        .sql(
            "CREATE TABLE t (id bigint PRIMARY KEY, value int DEFAULT 1, filler text DEFAULT repeat('x', 500));
             INSERT INTO t SELECT generate_series(1, 30000)",
        )
        .await;
    let section = SectionText::metric("t", "t").field("externalId", "id").without("date").set("date", "receipt");
    let section = section.field("dimensionId", "filler").set("batch", "{ rows: 200 }");
    let app = App::run(&ConfigText::new(&cluster, &sim.url()).section(section));
    arrived(&sim, SinkKind::Metric, 200).await;
    cluster.sql("UPDATE t SET id = -id WHERE id > 29800").await;
    let reason = app.wait_status("the difference is named", |status| {
        let one = &status["sections"][0];
        (one["state"] == "halted").then(|| format!("{} {}", one["reason"], one["remedy"]))
    });
    let reason = reason.await;
    assert!(reason.contains("200 rows of its range") && reason.contains("audit t --deliver-missing"), "{reason}");
    assert_eq!(sim.stats().metrics.items, 29_800);
}
