//! Tables that change under a running program (FAULTS 28 to 33): the mapping follows names and the table its OID; what
//! cannot be mapped halts its own section, and nothing of it is confirmed.

use pg2planhat::testing::model::Lsn;
use pg2planhat::testing::sim::{Received, SimHandle, SinkKind};

use crate::harness::{App, Cluster, ConfigText, SectionText, Version};
use crate::main_job_oracle::*;

const READING: &str =
    "CREATE TABLE reading (id bigserial PRIMARY KEY, junk text, value numeric, at timestamptz DEFAULT now())";

fn reading(name: &str) -> SectionText {
    SectionText::metric(name, "reading").field("externalId", "id")
}

fn lsn(text: &str) -> Lsn {
    text.parse().unwrap()
}

/// The raw text of an item's `value`.
fn value(item: &Received) -> String {
    item.item()["value"].to_string()
}

/// A row's arrival, as the event that shows that the other sections go on.
async fn others_go_on(cluster: &Cluster, sim: &SimHandle, arrive: usize) {
    cluster.sql("INSERT INTO other (external_id, value) VALUES ('o', 1)").await;
    sim.wait_for(|stats| stats.metrics.items >= arrive as u64, PATIENCE).await.unwrap();
}

/// Every change of columns that leaves the mapped names there, between and inside transactions: each row as it was then.
#[tokio::test]
async fn case_28_columns_change_between_and_inside_transactions() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster.sql(&format!("{READING}; INSERT INTO reading (value) VALUES (1)")).await;
    let app = App::run(&ConfigText::new(&cluster, &sim.url()).section(reading("reading")));
    section_is(&app, "reading", "streaming").await;
    let between = [
        "INSERT INTO reading (value) VALUES (2)",
        "ALTER TABLE reading ADD COLUMN extra int DEFAULT 5",
        "INSERT INTO reading (value) VALUES (3)",
        "ALTER TABLE reading DROP COLUMN junk",
        "INSERT INTO reading (value) VALUES (4)",
        "ALTER TABLE reading ALTER value TYPE text USING value::text",
        "INSERT INTO reading (value) VALUES ('5.10')",
        "ALTER TABLE reading ALTER value TYPE float8 USING value::float8",
        "INSERT INTO reading (value) VALUES (6)",
    ];
    for statement in between {
        cluster.sql(statement).await;
    }
    cluster
        .sql(
            "BEGIN; INSERT INTO reading (value) VALUES (7);
             ALTER TABLE reading DROP COLUMN extra; INSERT INTO reading (value) VALUES (8);
             ALTER TABLE reading RENAME value TO old_value; ALTER TABLE reading ADD COLUMN value int DEFAULT 99;
             INSERT INTO reading (value, old_value) VALUES (9, 1000);
             SAVEPOINT s; ALTER TABLE reading DROP COLUMN value; INSERT INTO reading (old_value) VALUES (2000);
             ROLLBACK TO s; INSERT INTO reading (value, old_value) VALUES (10, 3000);
             ALTER TABLE reading ALTER value TYPE bigint; INSERT INTO reading (value) VALUES (11); COMMIT",
        )
        .await;
    cluster.sql("ALTER TABLE reading ALTER id TYPE numeric, ALTER at TYPE timestamp").await;
    cluster.sql("INSERT INTO reading (value) VALUES (12)").await;
    let items = arrived(&sim, SinkKind::Metric, 12).await;
    let values = items.iter().map(value).collect::<Vec<_>>();
    assert_eq!(values, ["1", "2", "3", "4", "5.1", "6", "7", "8", "9", "10", "11", "12"]);
    assert_each_once(&table_keys(&cluster, "SELECT id FROM reading").await, keys(&items));
    assert!(String::from_utf8_lossy(&items[4].raw).contains(":5.10"), "digits unchanged");
    drain(app, &cluster).await;
}

/// A mapped column vanishes: its section halts by name, the others go on, nothing is confirmed past its first row; a
/// mended mapping brings every row.
#[tokio::test]
async fn case_29_a_mapped_column_vanishes_and_only_its_section_halts() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster.sql(&format!("{READING}; {}", SectionText::metric_table("other"))).await;
    let other = SectionText::metric("other", "other");
    let same = SectionText::activity("same", "reading").without("email").without("weight").without("date");
    let same = same.field("externalId", "id").field("action", "{ value: read }");
    let config = |mapped: &str| {
        ConfigText::new(&cluster, &sim.url())
            .section(reading("reading").field("value", mapped))
            .section(same.clone())
            .section(other.clone())
    };
    let app = App::run(&config("value"));
    section_is(&app, "reading", "streaming").await;
    cluster.sql("INSERT INTO reading (value) VALUES (1)").await;
    arrived(&sim, SinkKind::Metric, 1).await;
    let before = cluster.text("SELECT pg_current_wal_insert_lsn()").await;
    cluster
        .sql("BEGIN; INSERT INTO reading (value) VALUES (2); ALTER TABLE reading RENAME value TO amount; COMMIT")
        .await;
    arrived(&sim, SinkKind::Metric, 2).await;
    cluster.sql("INSERT INTO reading (amount) SELECT g FROM generate_series(3, 50) g").await;
    let behind = cluster.text("SELECT pg_current_wal_insert_lsn()").await;
    section_is(&app, "reading", "halted").await;
    let reason =
        app.wait_status("the reason", |status| status["sections"][0]["reason"].as_str().map(str::to_owned)).await;
    assert!(reason.contains("value"), "names the column: {reason}");
    others_go_on(&cluster, &sim, 3).await;
    // Of the same table, the section that still fits.
    arrived(&sim, SinkKind::Activity, 50).await;
    let stood = drain(app, &cluster).await;
    assert!(lsn(&before) <= lsn(&stood) && lsn(&stood) < lsn(&behind), "{before} <= {stood} < {behind}");

    // As long as nothing is mended, a restart changes nothing.
    let app = App::run(&config("value"));
    section_is(&app, "reading", "halted").await;
    section_is(&app, "other", "streaming").await;
    others_go_on(&cluster, &sim, 4).await;
    assert_eq!(drain(app, &cluster).await, stood);

    let app = App::run(&config("amount"));
    let items = arrived(&sim, SinkKind::Metric, 52).await;
    let readings = items.iter().filter(|item| text(item, "externalId") != "o").cloned().collect::<Vec<_>>();
    assert_each_once(&table_keys(&cluster, "SELECT id FROM reading").await, keys(&readings));
    section_is(&app, "reading", "streaming").await;
    wait_confirmed(&cluster, &behind).await;
    drain(app, &cluster).await;
    assert_each_once(&(1..=50).collect::<Vec<_>>(), keys(&sim.items(SinkKind::Activity)));
    assert_eq!(sim.stats().metrics.items, 52, "nothing twice");
}

/// A column that comes back under its name lets the section go on by itself at its next start.
#[tokio::test]
async fn case_29_a_column_put_back_needs_no_change_of_the_mapping() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster.sql(READING).await;
    let config = ConfigText::new(&cluster, &sim.url()).section(reading("reading"));
    let app = App::run(&config);
    section_is(&app, "reading", "streaming").await;
    cluster.sql("ALTER TABLE reading DROP COLUMN value; INSERT INTO reading (junk) VALUES ('1'), ('2')").await;
    section_is(&app, "reading", "halted").await;
    drain(app, &cluster).await;
    cluster.sql("ALTER TABLE reading ADD COLUMN value numeric; INSERT INTO reading (value) VALUES (3)").await;
    let app = App::run(&config);
    // The two rows without the column cannot be mapped as they are in the WAL: still halted, still not confirmed.
    section_is(&app, "reading", "halted").await;
    assert_eq!(sim.stats().metrics.items, 0);
    drain(app, &cluster).await;
}

/// Renamed, moved to another schema: the same table by its OID, streamed and backfilled, also over a restart.
#[tokio::test]
async fn case_30_a_renamed_table_is_followed_by_its_oid() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster.sql(&format!("{READING}; CREATE SCHEMA elsewhere")).await;
    let config = ConfigText::new(&cluster, &sim.url()).section(reading("reading"));
    let app = App::run(&config);
    section_is(&app, "reading", "streaming").await;
    cluster.sql("INSERT INTO reading (value) VALUES (1); ALTER TABLE reading RENAME TO renamed").await;
    cluster.sql("INSERT INTO renamed (value) VALUES (2); ALTER TABLE renamed SET SCHEMA elsewhere").await;
    cluster.sql("INSERT INTO elsewhere.renamed (value) VALUES (3)").await;
    arrived(&sim, SinkKind::Metric, 3).await;
    drain(app, &cluster).await;
    cluster.sql("INSERT INTO elsewhere.renamed (value) VALUES (4)").await;
    let app = App::run(&config);
    app.wait_log("followed by its OID").await;
    let items = arrived(&sim, SinkKind::Metric, 4).await;
    assert_eq!(keys(&items), [1, 2, 3, 4]);
    section_is(&app, "reading", "streaming").await;
    drain(app, &cluster).await;
    // Named as it is now: the same attachment, nothing again.
    let app =
        App::run(&ConfigText::new(&cluster, &sim.url()).section(reading("reading").set("table", "elsewhere.renamed")));
    section_is(&app, "reading", "streaming").await;
    cluster.sql("INSERT INTO elsewhere.renamed (value) VALUES (5)").await;
    assert_eq!(keys(&arrived(&sim, SinkKind::Metric, 5).await), [1, 2, 3, 4, 5]);
    drain(app, &cluster).await;
}

/// Renamed in the middle of its backfill.
#[tokio::test]
async fn case_30_a_table_renamed_during_its_backfill_is_read_to_its_end() {
    let cluster = Cluster::start().await;
    let sim = sink_like(pg2planhat::testing::sim::SimOptions {
        latency: std::time::Duration::from_millis(20),
        ..Default::default()
    })
    .await;
    cluster
        .sql(&format!(
            "{READING}; INSERT INTO reading (value, junk) SELECT g, repeat('x', 200) FROM generate_series(1, 60000) g"
        ))
        .await;
    let config = ConfigText::new(&cluster, &sim.url()).section(reading("reading").set("batch", "{ rows: 500 }"));
    let app = App::run(&config);
    arrived(&sim, SinkKind::Metric, 1).await;
    cluster.sql("ALTER TABLE reading RENAME TO renamed; INSERT INTO renamed (value) VALUES (1)").await;
    let items = arrived(&sim, SinkKind::Metric, 60001).await;
    section_is(&app, "reading", "streaming").await;
    assert_each_once(&(1..=60001).collect::<Vec<_>>(), keys(&items));
    drain(app, &cluster).await;
}

/// Names with everything that SQL allows: quoted once, everywhere.
#[tokio::test]
async fn case_32_odd_names_are_quoted_once_everywhere() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    // 63 bytes, the longest; é and ü are two each.
    let odd = "Tab.\"le\" é'ü ";
    let table = format!("{odd}{}", "x".repeat(63 - odd.len()));
    assert_eq!(table.len(), 63);
    let (schema, key, column) = ("Schemä.\"S\"", "Key \"no\".1", "the $1 'Välue\" \\");
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let full = format!("{}.{}", quoted(schema), quoted(&table));
    cluster
        .sql(&format!(
            "CREATE SCHEMA {}; CREATE TABLE {full} ({} bigserial PRIMARY KEY, {} numeric, select text, \"\u{1F600}\" text)",
            quoted(schema),
            quoted(key),
            quoted(column)
        ).replace("select text", "\"select\" text"))
        .await;
    let insert = format!(
        "INSERT INTO {full} ({}, \"select\", \"\u{1F600}\") VALUES (1.5, 's', 'e'), (2.5, 's', 'e')",
        quoted(column)
    );
    cluster.sql(&insert).await;
    let yaml = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let section = SectionText::metric("odd", &yaml(&full))
        .set("key", yaml(key))
        .field("externalId", &yaml(key))
        .field("value", &yaml(column))
        .without("date")
        .set("date", "receipt");
    let config = ConfigText::new(&cluster, &sim.url())
        .set("source.publication", yaml("Pub \"li\".cation '1'"))
        .set("source.slot", "slot_1")
        .set("state.schema", yaml("State \"schema\".é"))
        .section(section);
    let app = App::run(&config);
    arrived(&sim, SinkKind::Metric, 2).await;
    section_is(&app, "odd", "streaming").await;
    cluster.sql(&insert).await;
    let items = arrived(&sim, SinkKind::Metric, 4).await;
    assert_eq!(keys(&items), [1, 2, 3, 4]);
    assert_eq!(items.iter().map(value).collect::<Vec<_>>(), ["1.5", "2.5", "1.5", "2.5"]);
    app.sigterm();
    assert_eq!(app.wait_exit(PATIENCE).await, 0, "{}", app.log());
    let app = App::run(&config);
    section_is(&app, "odd", "streaming").await;
    cluster.sql(&insert).await;
    assert_eq!(keys(&arrived(&sim, SinkKind::Metric, 6).await), [1, 2, 3, 4, 5, 6]);
}

/// Before 18 a SELECT shows a generated column and the stream does not: refused before anything is sent.
#[tokio::test]
async fn case_33_a_generated_column_is_refused_by_name() {
    let version = Version::usual();
    if version >= Version::V18 {
        return;
    }
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster
        .sql("CREATE TABLE reading (id bigserial PRIMARY KEY, raw int, value int GENERATED ALWAYS AS (raw * 2) STORED, at timestamptz)")
        .await;
    cluster.sql(&format!("{}; INSERT INTO reading (raw) VALUES (1)", SectionText::metric_table("other"))).await;
    let config = ConfigText::new(&cluster, &sim.url())
        .section(reading("reading"))
        .section(SectionText::metric("other", "other"));
    let checked = App::command(&config, &["--json", "check"]).await;
    assert!(
        checked.code == 1 && checked.stdout.contains("column_generated") && checked.stdout.contains("value"),
        "{checked:?}"
    );
    let app = App::run(&config);
    section_is(&app, "other", "streaming").await;
    section_is(&app, "reading", "halted").await;
    let reason =
        app.wait_status("the reason", |status| status["sections"][0]["reason"].as_str().map(str::to_owned)).await;
    assert!(reason.contains("value") && reason.contains("generated"), "{reason}");
    others_go_on(&cluster, &sim, 1).await;
    assert_eq!(keys(&[]), keys(&sim.items(SinkKind::Activity)));
    assert_eq!(sim.items(SinkKind::Metric).iter().filter(|item| text(item, "externalId") != "o").count(), 0);
    drain(app, &cluster).await;
}

/// Rows in the WAL from before a rename, never delivered, and a program that starts after it: the old mapping brings what
/// fits it and halts there; the new one brings the rest. No order of mending loses them.
#[tokio::test]
async fn case_29_rows_from_before_a_rename_that_nobody_saw_are_delivered() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster.sql(READING).await;
    let config = |mapped: &str| {
        let section = SectionText::activity("other", "reading").without("email").without("weight").without("date");
        ConfigText::new(&cluster, &sim.url())
            .section(reading("reading").field("value", mapped))
            .section(section.field("externalId", "id").field("action", "{ value: read }"))
    };
    let app = App::run(&config("value"));
    section_is(&app, "reading", "streaming").await;
    drain(app, &cluster).await;
    cluster.sql("INSERT INTO reading (value) VALUES (1), (2)").await;
    cluster.sql("ALTER TABLE reading RENAME value TO amount").await;
    cluster.sql("INSERT INTO reading (amount) VALUES (3), (4)").await;

    let app = App::run(&config("amount"));
    section_is(&app, "reading", "halted").await;
    arrived(&sim, SinkKind::Activity, 4).await;
    assert_eq!(sim.stats().metrics.items, 0);
    let stood = drain(app, &cluster).await;

    let app = App::run(&config("value"));
    assert_eq!(keys(&arrived(&sim, SinkKind::Metric, 2).await), [1, 2]);
    section_is(&app, "reading", "halted").await;
    assert!(lsn(&drain(app, &cluster).await) > lsn(&stood));

    let app = App::run(&config("amount"));
    assert_eq!(keys(&arrived(&sim, SinkKind::Metric, 4).await), [1, 2, 3, 4]);
    section_is(&app, "reading", "streaming").await;
    drain(app, &cluster).await;
    assert_eq!((sim.stats().metrics.items, sim.stats().activities.items), (4, 4));
}
