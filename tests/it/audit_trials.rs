//! Attacks on the auditor, after what people report of other tools: comparisons that wait for ever beside a transaction that
//! nobody ends, keys that are printed in another way than before, old rows that cannot be told from new ones.

use pg2planhat::testing::sim::{SimFault, SinkKind};
use serde_json::Value;

use crate::harness::{App, Cluster, ConfigText, SectionText, Version, eventually};
use crate::main_job_oracle::*;
use crate::versions_main_job::on_some_versions;

on_some_versions!({ case_225_keys_that_are_printed_in_another_way_are_unknown_and_not_missing });

/// A metric over a table with this key column, and `n`, which is the item's `externalId`.
fn section(key: &str) -> SectionText {
    SectionText::metric("m", "m")
        .set("key", key)
        .set("batch", "{ rows: 10 }")
        .field("externalId", "n")
        .without("date")
        .set("date", "receipt")
}

fn config(cluster: &Cluster, url: &str, section: SectionText) -> ConfigText {
    ConfigText::new(cluster, url).set("audit", "{ every: off }").section(section)
}

async fn audit(config: &ConfigText) -> (i32, Value) {
    let output = App::command(config, &["--json", "audit", "m"]).await;
    let document: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{}", output.stderr));
    (output.code, document[0].clone())
}

fn figures<const N: usize>(report: &Value, names: [&str; N]) -> [u64; N] {
    names.map(|name| report[name].as_u64().unwrap_or_else(|| panic!("{name} in {report}")))
}

/// Waits until an audit finds so many rows delivered.
async fn delivered(config: &ConfigText, rows: u64) {
    eventually(PATIENCE, "all rows in the ledger", async || (audit(config).await.1["delivered"] == rows).then_some(()))
        .await;
}

/// The last batch is as if it had never been; how many rows it had.
async fn forget_the_last_batch(cluster: &Cluster) -> u64 {
    let rows = "SELECT rows FROM pg2planhat.delivery ORDER BY id DESC LIMIT 1";
    let rows = u64::try_from(cluster.number(rows).await).unwrap();
    cluster
        .sql(
            "DELETE FROM pg2planhat.delivery_keys WHERE delivery = (SELECT max(id) FROM pg2planhat.delivery);
             DELETE FROM pg2planhat.delivery WHERE id = (SELECT max(id) FROM pg2planhat.delivery);
             DELETE FROM pg2planhat.tally",
        )
        .await;
    rows
}

/// A transaction stays open for ever, as one of a pool that nobody looks at: what was lost beside it is named all the same. And
/// what waits for a sink is not called missing.
#[tokio::test]
async fn case_221_a_loss_beside_a_transaction_that_stays_open_is_named() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster.sql("CREATE TABLE m (id bigint PRIMARY KEY, n bigint, value float8); CREATE TABLE other (n int)").await;
    let config = config(&cluster, &sim.url(), section("id"));
    let app = App::run(&config);
    section_is(&app, "m", "streaming").await;
    cluster.sql("CREATE DATABASE elsewhere").await;
    let forgotten = cluster.client_of("elsewhere").await;
    forgotten.batch_execute("CREATE TABLE t (n int); BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    cluster.sql("INSERT INTO m SELECT g, g, g FROM generate_series(1, 50) g").await;
    arrived(&sim, SinkKind::Metric, 50).await;
    delivered(&config, 50).await;
    let lost = forget_the_last_batch(&cluster).await;
    let (code, report) = audit(&config).await;
    assert_eq!((code, figures(&report, ["missing", "waiting", "delivered"])), (1, [lost, 0, 50 - lost]), "{report}");
    let named = report["missing_keys"].as_array().unwrap();
    assert_eq!(named.last().unwrap(), "50", "{report}");

    // Not delivered, and on their way.
    let later = SimFault::Status { status: 503, retry_after: None, body: String::new(), store: false };
    sim.set_fault_rate(1, 1.0, vec![later]);
    cluster.sql("INSERT INTO m SELECT g, g, g FROM generate_series(51, 60) g").await;
    let (_, report) = audit(&config).await;
    // What was lost lies behind them now, as far as anybody can tell.
    assert_eq!(figures(&report, ["missing", "waiting"]), [0, lost + 10], "{report}");
    sim.clear_faults();
    arrived(&sim, SinkKind::Metric, 60).await;
    delivered(&config, 60 - lost).await;
    assert_eq!(figures(&audit(&config).await.1, ["missing", "waiting"]), [lost, 0]);
    drop((forgotten, app));
}

/// The key's column is altered so that each key is printed in another way: nothing is missing, and nothing can be proven. What
/// comes after it is proven as ever.
async fn case_225_keys_that_are_printed_in_another_way_are_unknown_and_not_missing(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    cluster.sql("CREATE TYPE mood AS ENUM ('low', 'high')").await;
    let tables = [
        ("id numeric", "n", "ALTER TABLE m ALTER id TYPE numeric(12, 2)"),
        ("id timestamp", "timestamp '2026-01-01' + n * interval '1 h'", "ALTER TABLE m ALTER id TYPE timestamptz"),
        ("id char(6)", "n", "ALTER TABLE m ALTER id TYPE char(9)"),
        ("a mood, id bigint", "'low', n", "ALTER TYPE mood RENAME VALUE 'low' TO 'lower'"),
    ];
    // Each audit waits for the statistics: half of the tables on 15, and all on the others together.
    let on_this = |place: usize| match version {
        Version::V14 => place == 0,
        Version::V15 => place % 2 == 1,
        Version::V16 | Version::V17 | Version::V18 => place == 2,
    };
    for (_, (key, values, alter)) in tables.into_iter().enumerate().filter(|(place, _)| on_this(*place)) {
        let sim = sink().await;
        let names: Vec<&str> = key.split(", ").map(|column| column.split(' ').next().unwrap()).collect();
        let names = format!("[{}]", names.join(", "));
        let list = names.trim_matches(['[', ']']).to_owned();
        cluster
            .sql(&format!(
                "DROP SCHEMA IF EXISTS pg2planhat CASCADE; DROP PUBLICATION IF EXISTS pg2planhat; DROP TABLE IF EXISTS m;
                 CREATE TABLE m ({key}, n bigint, value float8 DEFAULT 1, PRIMARY KEY ({list}));
                 INSERT INTO m SELECT {values}, n FROM generate_series(1, 25) n"
            ))
            .await;
        cluster.rows("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots").await;
        let config = config(&cluster, &sim.url(), section(&names));
        let app = App::run(&config);
        arrived(&sim, SinkKind::Metric, 25).await;
        delivered(&config, 25).await;
        cluster.sql(alter).await;
        let of = ["missing", "unknown", "delivered"];
        let (code, report) = audit(&config).await;
        assert_eq!((code, figures(&report, of)), (0, [0, 25, 0]), "{alter}: {report}");
        assert!(report["caveat"].as_str().unwrap().contains("printed"), "{alter}: {report}");
        cluster
            .sql(
                &format!("INSERT INTO m SELECT {values}, n FROM generate_series(26, 30) n").replace("'low'", "'lower'"),
            )
            .await;
        arrived(&sim, SinkKind::Metric, 30).await;
        eventually(PATIENCE, "what came since to be proven", async || {
            (figures(&audit(&config).await.1, of) == [0, 25, 5]).then_some(())
        })
        .await;
        drain(app, &cluster).await;
    }
}

/// `start: now` from the first start on, together with the slot: the rows of before are told from rows that were lost.
#[tokio::test]
async fn case_224_rows_of_before_a_first_start_are_told_from_lost_ones() {
    for by_setup in [false, true] {
        let (cluster, sim) = (Cluster::start().await, sink().await);
        cluster
            .sql(
                "CREATE TABLE m (id bigint PRIMARY KEY, n bigint, value float8);
                 INSERT INTO m SELECT g, g, g FROM generate_series(1, 20) g",
            )
            .await;
        let config = config(&cluster, &sim.url(), section("id").set("start", "now"));
        let mut from_then_on = 0;
        if by_setup {
            assert_eq!(App::command(&config, &["setup"]).await.code, 0);
            cluster.sql("INSERT INTO m SELECT g, g, g FROM generate_series(21, 25) g").await;
            from_then_on = 5;
        }
        let app = App::run(&config);
        section_is(&app, "m", "streaming").await;
        let recorded = "SELECT count(*) FROM pg2planhat.section WHERE attach_xmin IS NOT NULL";
        assert_eq!(cluster.number(recorded).await, 1, "{}", app.log());
        cluster.sql("INSERT INTO m SELECT g, g, g FROM generate_series(26, 65) g").await;
        let all = from_then_on + 40;
        arrived(&sim, SinkKind::Metric, usize::try_from(all).unwrap()).await;
        delivered(&config, all).await;
        let of = ["before_attach", "missing", "unknown"];
        let (code, report) = audit(&config).await;
        assert_eq!((code, figures(&report, of)), (0, [20, 0, 0]), "{report}");
        let lost = forget_the_last_batch(&cluster).await;
        let (code, report) = audit(&config).await;
        assert_eq!((code, figures(&report, of)), (1, [20, lost, 0]), "{report}");
        let why = async |key: &str| {
            let traced = App::command(&config, &["--json", "trace", "m", key]).await.json();
            (traced["outcome"].as_str().unwrap().to_owned(), traced["why"].as_str().unwrap().to_owned())
        };
        let (outcome, said) = why("3").await;
        assert!(outcome == "unknown" && said.contains("before the section attached"), "{outcome}: {said}");
        let (outcome, said) = why("65").await;
        assert!(outcome == "unknown" && said.contains("no batch of the ledger"), "{outcome}: {said}");
        drain(app, &cluster).await;
    }
}

/// `audit --all` where one section is not attached yet and another's table is locked: they are told of, and the others are
/// audited; a loss of theirs is what the exit code says.
#[tokio::test]
async fn case_227_a_section_that_cannot_be_audited_hides_nothing_of_the_others() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    let table = |name: &str| format!("CREATE TABLE {name} (id bigint PRIMARY KEY, n bigint, value float8);");
    cluster.sql(&["a", "m", "z"].map(table).concat()).await;
    let of = |name: &str| section("id").set("name", name).set("table", name);
    let known = ConfigText::new(&cluster, &sim.url()).set("audit", "{ every: off }").section(of("a"));
    let known = known.section(section("id"));
    let app = App::run(&known);
    section_is(&app, "m", "streaming").await;
    section_is(&app, "a", "streaming").await;
    cluster.sql("INSERT INTO m SELECT g, g, g FROM generate_series(1, 20) g").await;
    arrived(&sim, SinkKind::Metric, 20).await;
    delivered(&known, 20).await;
    let config = known.section(of("z"));
    let locker = cluster.client().await;
    locker.batch_execute("BEGIN; LOCK TABLE a").await.unwrap();
    let all = async || {
        let output = App::command(&config, &["--json", "audit", "--all"]).await;
        let reports: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{}", output.stderr));
        let names: Vec<&Value> = reports.as_array().unwrap().iter().map(|report| &report["section"]).collect();
        assert_eq!(names, ["m"], "{reports}\n{}", output.stderr);
        assert!(
            output.stderr.contains("section z was never attached") && output.stderr.contains("lock"),
            "{}",
            output.stderr
        );
        output.code
    };
    assert_ne!(all().await, 0);
    let lost = forget_the_last_batch(&cluster).await;
    assert!(lost > 0 && all().await == 1);
    drop((locker, app));
}

/// Many sections whose sink is away: that rows of theirs are on their way is shown without a wait for each.
#[tokio::test]
async fn case_227_an_audit_of_many_sections_waits_once_for_a_sink_that_is_away() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    let names: Vec<String> = (0..8).map(|n| format!("t{n}")).collect();
    let mut config = ConfigText::new(&cluster, &sim.url()).set("audit", "{ every: off }");
    for name in &names {
        cluster.sql(&format!("CREATE TABLE {name} (id bigint PRIMARY KEY, n bigint, value float8)")).await;
        config = config.section(section("id").set("name", name).set("table", name));
    }
    let app = App::run(&config);
    for name in &names {
        section_is(&app, name, "streaming").await;
    }
    let later = SimFault::Status { status: 503, retry_after: None, body: String::new(), store: false };
    sim.set_fault_rate(1, 1.0, vec![later]);
    for name in &names {
        cluster.sql(&format!("INSERT INTO {name} VALUES (1, 1, 1)")).await;
    }
    let begun = std::time::Instant::now();
    let output = App::command(&config, &["--json", "audit", "--all"]).await;
    let reports: Vec<Value> = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{}", output.stderr));
    assert!(reports.iter().all(|report| report["waiting"] == 1), "{reports:?}");
    // 10 s for the first, 1 s for each other; not 80 s.
    assert!(begun.elapsed().as_secs() < 40, "{:?}", begun.elapsed());
    drop(app);
}

/// Another table has the name of the one that a section is attached to; and a section was never attached at all. The audit says
/// nothing of rows that it does not look at.
#[tokio::test]
async fn case_269_an_audit_tells_of_another_table_and_of_none() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster
        .sql(
            "CREATE SCHEMA old; CREATE TABLE m (id bigint PRIMARY KEY, n bigint, value float8 DEFAULT 1);
             INSERT INTO m SELECT g, g FROM generate_series(1, 25) g;
             CREATE TABLE never (id bigint, n bigint, value float8)",
        )
        .await;
    let never = SectionText::metric("never", "never").set("key", "id").field("externalId", "n").without("date");
    let config = config(&cluster, &sim.url(), section("id")).section(never.set("date", "receipt"));
    let app = App::run(&config);
    arrived(&sim, SinkKind::Metric, 25).await;
    delivered(&config, 25).await;
    let output = App::command(&config, &["audit", "never"]).await;
    assert_ne!(output.code, 0, "{output:?}");
    assert!(output.stderr.contains("is not attached yet"), "{}", output.stderr);
    cluster
        .sql(
            "ALTER TABLE m SET SCHEMA old; CREATE TABLE m (LIKE old.m INCLUDING ALL);
             INSERT INTO m SELECT g, g FROM generate_series(26, 30) g",
        )
        .await;
    let output = App::command(&config, &["audit", "m"]).await;
    assert_eq!(output.code, 75, "{output:?}");
    let said = "public.m is another table than the one that it is attached to, which is old.m now";
    assert!(output.stderr.contains(said), "{}", output.stderr);
    // A name alone is no other table.
    cluster.sql("DROP TABLE m; ALTER TABLE old.m SET SCHEMA public; ALTER TABLE m RENAME TO n").await;
    assert_eq!(audit(&config).await.0, 0);
    drop(app);
}
