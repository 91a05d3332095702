//! The auditor, audited: losses of many kinds are planted, and an audit must name exactly the rows that are lost.
//!
//! Where a loss can be made for real (a position moved, rows that the stream never carries), it is. The others are a state
//! that looks as it would after a fault of the program: the batch, its keys and its share of the tally never were.

use std::collections::BTreeSet;
use std::time::Duration;

use pg2planhat::testing::sim::{SimFault, SimHandle, SimOptions, SinkKind};
use serde_json::Value;

use crate::harness::{App, Cluster, ConfigText, SectionText, eventually};
use crate::main_job_oracle::*;

/// A table's DDL, the section's `key`, and what an INSERT gives for the row of number `n`.
struct PlantedTable {
    name: &'static str,
    columns: &'static str,
    key: &'static str,
    insert: &'static str,
    /// SQL: the key as an audit prints it.
    text: &'static str,
}

const INTEGER: PlantedTable =
    PlantedTable { name: "integers", columns: "id bigint PRIMARY KEY", key: "id", insert: "n", text: "id::text" };

const TABLES: [PlantedTable; 4] = [
    INTEGER,
    PlantedTable {
        name: "uuids",
        columns: "id uuid PRIMARY KEY",
        key: "id",
        insert: "md5(n::text)::uuid",
        text: "id::text",
    },
    PlantedTable {
        name: "texts",
        columns: "id text COLLATE \"C\" PRIMARY KEY",
        key: "id",
        insert: "'k ' || n",
        text: "id",
    },
    PlantedTable {
        name: "pairs",
        columns: "a text, b bigint, PRIMARY KEY (a, b)",
        key: "[a, b]",
        insert: "'g' || n % 3, n",
        text: "a || ',' || b",
    },
];

impl PlantedTable {
    fn named(&self, name: &'static str) -> PlantedTable {
        PlantedTable { name, ..*self }
    }

    fn create(&self) -> String {
        format!("CREATE TABLE {} ({}, n bigint, v float8 DEFAULT 1)", self.name, self.columns)
    }

    /// The rows of these numbers.
    fn insert(&self, numbers: &str) -> String {
        format!("INSERT INTO {} SELECT {}, n FROM {numbers} AS numbers (n)", self.name, self.insert)
    }

    fn section(&self) -> SectionText {
        SectionText::metric(self.name, self.name)
            .set("key", self.key)
            .field("externalId", "n")
            .field("value", "v")
            .field("dimensionId", &format!("{{ value: {} }}", self.name))
            .without("date")
            .set("date", "receipt")
    }

    /// The keys of the rows for which this holds.
    async fn keys(&self, cluster: &Cluster, condition: &str) -> BTreeSet<String> {
        let query = format!("SELECT {} FROM {} WHERE {condition}", self.text, self.name);
        cluster.rows(&query).await.into_iter().map(|mut row| row.remove(0).unwrap()).collect()
    }
}

async fn audit(config: &ConfigText, arguments: &[&str]) -> (i32, Value) {
    let output = App::command(config, &[&["--json", "audit"], arguments].concat()).await;
    let documents: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{}", output.stderr));
    (output.code, documents)
}

/// An audit of this section must find these rows of the table missing, by name, and no others.
async fn names(cluster: &Cluster, config: &ConfigText, table: &PlantedTable, lost: &str) -> Value {
    let wanted = table.keys(cluster, lost).await;
    assert!(!wanted.is_empty(), "nothing was planted in {}", table.name);
    let (code, reports) = audit(config, &[table.name]).await;
    let report = reports[0].clone();
    let named: BTreeSet<String> =
        report["missing_keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()).collect();
    assert_eq!((code, report["missing"].as_u64()), (1, Some(wanted.len() as u64)), "{}: {report}", table.name);
    match wanted.len() > 100 {
        true => assert!(named.len() == 100 && named.is_subset(&wanted), "{}: {report}", table.name),
        false => assert_eq!(named, wanted, "{}: {report}", table.name),
    }
    report
}

/// Waits until an audit of everything finds each row settled.
async fn healthy(config: &ConfigText) {
    eventually(PATIENCE, "every row is settled, and nothing is missing", async || {
        let (code, reports) = audit(config, &["--all"]).await;
        let all = reports.as_array().unwrap().iter();
        (code == 0 && all.clone().all(|report| report["rows_settled"] == report["rows_source"])).then_some(())
    })
    .await;
}

/// Waits until the transactions of these rows are below the floor, where a row that is nowhere is missing and not on its way;
/// nobody writes meanwhile.
pub async fn floored(cluster: &Cluster) {
    let xid = cluster.number("SELECT pg_snapshot_xmin(pg_current_snapshot())::text").await;
    let floor = format!("SELECT count(*) FROM pg2planhat.instance WHERE xmin_floor >= {xid}");
    eventually(PATIENCE, "the floor", async || (cluster.number(&floor).await == 1).then_some(())).await;
}

async fn ends(app: App) {
    app.sigterm();
    assert_eq!(app.wait_exit(Duration::from_secs(30)).await, 0, "{}", app.log());
}

async fn wait_items(sim: &SimHandle, items: usize) {
    arrived(sim, SinkKind::Metric, items).await;
}

fn config(cluster: &Cluster, sim: &SimHandle, tables: &[PlantedTable]) -> ConfigText {
    let config = ConfigText::new(cluster, &sim.url()).set("audit.every", "off");
    tables.iter().fold(config, |config, table| config.section(table.section()))
}

/// What the ledger and the tally say now is kept, so that what comes next can be forgotten without a trace.
pub const REMEMBER: &str = "CREATE SCHEMA kept; CREATE TABLE kept.tally AS TABLE pg2planhat.tally;
    CREATE TABLE kept.delivery AS SELECT id FROM pg2planhat.delivery";
pub const FORGET: &str = "DELETE FROM pg2planhat.delivery_keys WHERE delivery NOT IN (SELECT id FROM kept.delivery);
    DELETE FROM pg2planhat.delivery WHERE id NOT IN (SELECT id FROM kept.delivery);
    DELETE FROM pg2planhat.tally; INSERT INTO pg2planhat.tally TABLE kept.tally; DROP SCHEMA kept CASCADE";

/// Kinds 1 to 3: a batch that never was (of each kind of key), a row out of the middle of what was delivered, and the rows of
/// a key range that the ledger has pruned and the tally forgotten.
#[tokio::test]
async fn case_162_batches_rows_and_ranges_that_were_forgotten_are_named() {
    let cluster = Cluster::start().await;
    let sparse = INTEGER.named("sparse");
    let mut create: String = TABLES.iter().map(|table| format!("{};", table.create())).collect();
    create += &TABLES.iter().map(|table| format!("{};", table.insert("generate_series(1, 300)"))).collect::<String>();
    cluster.sql(&format!("{create} {}; {}", sparse.create(), sparse.insert("generate_series(1, 300000, 1000)"))).await;
    let sim = sink().await;
    let config = config(&cluster, &sim, &TABLES).section(sparse.section());
    let app = App::run(&config);
    wait_items(&sim, 1_500).await;
    // 310 comes alone, and late: the keys around it are in other batches.
    let around = "(SELECT n FROM generate_series(301, 320) n WHERE n <> 310)";
    cluster.sql(&TABLES.iter().map(|table| format!("{};", table.insert(around))).collect::<String>()).await;
    wait_items(&sim, 1_576).await;
    healthy(&config).await;

    cluster.sql(REMEMBER).await;
    cluster
        .sql(&TABLES.iter().map(|table| format!("{};", table.insert("generate_series(310, 310)"))).collect::<String>())
        .await;
    wait_items(&sim, 1_580).await;
    cluster.sql(&TABLES.iter().map(|table| table.insert("generate_series(401, 430)") + ";").collect::<String>()).await;
    wait_items(&sim, 1_700).await;
    healthy(&config).await;
    floored(&cluster).await;
    ends(app).await;
    cluster.sql(FORGET).await;
    for table in &TABLES {
        let report = names(&cluster, &config, table, "n = 310 OR n > 400").await;
        let proven = (report["delivered"].as_u64(), report["unknown"].as_u64());
        assert_eq!(proven, (Some(319), Some(0)), "{report}");
    }

    // As pruning leaves it: the tally alone proves the rows.
    let prune = "DELETE FROM pg2planhat.delivery_keys WHERE section = 'sparse';
        DELETE FROM pg2planhat.delivery WHERE section = 'sparse'";
    cluster.sql(prune).await;
    let (code, reports) = audit(&config, &["sparse"]).await;
    assert_eq!((code, &reports[0]["delivered"]), (0, &300.into()), "{reports}");
    cluster.sql("DELETE FROM pg2planhat.tally WHERE section = 'sparse' AND block = 2").await;
    names(&cluster, &config, &sparse, "n / 65536 = 2").await;
    // From a key in the middle of a block on, and by what is left of it.
    let (code, reports) = audit(&config, &["sparse", "--from-key", "100001"]).await;
    let report = &reports[0];
    assert_eq!((code, &report["rows_source"], &report["unknown"]), (1, &199.into(), &0.into()), "{report}");
    // A block that fits no more proves nothing in either direction, and says so.
    cluster.sql("UPDATE pg2planhat.tally SET digest = digest # 1 WHERE section = 'sparse' AND block = 1").await;
    let (_, reports) = audit(&config, &["sparse"]).await;
    let unknown = cluster.number("SELECT count(*) FROM sparse WHERE n / 65536 = 1").await;
    assert_eq!(reports[0]["unknown"], unknown, "{reports}");
    assert!(!reports[0]["caveat"].as_str().unwrap().is_empty(), "{reports}");
}

/// Kinds 4 and 5: a row that left quarantine without a word, and a batch in doubt for good of which nobody knows any more;
/// the rows in doubt themselves are told apart from both.
#[tokio::test]
async fn case_162_rows_that_left_quarantine_and_doubt_without_a_word_are_named() {
    let cluster = Cluster::start().await;
    let (held, doubt) = (INTEGER.named("held"), INTEGER.named("doubt"));
    cluster.sql(&format!("{}; {}", held.create(), doubt.create())).await;
    let sim = sink().await;
    let config =
        config(&cluster, &sim, &[]).set("planhat.halt_probe", "200ms").section(held.section()).section(doubt.section());
    let app = App::run(&config);
    app.wait_ready().await;
    cluster.sql("INSERT INTO held SELECT n, n, CASE WHEN n % 10 = 0 THEN float8 'NaN' ELSE 1 END FROM generate_series(1, 50) n").await;
    cluster.sql(&doubt.insert("generate_series(1, 20)")).await;
    wait_items(&sim, 65).await;
    healthy(&config).await;
    // Answered by something that nobody can read: most likely received, and not sent again.
    sim.queue_fault(SimFault::Text { body: "{\"errors\": [".to_owned() });
    cluster.sql(&doubt.insert("generate_series(21, 30)")).await;
    wait_items(&sim, 75).await;
    // One row tries whether it goes again.
    cluster.sql(&doubt.insert("generate_series(31, 31)")).await;
    wait_items(&sim, 76).await;
    eventually(PATIENCE, "rows in doubt for good", async || {
        let (_, reports) = audit(&config, &["doubt"]).await;
        let fields = ["in_doubt", "delivered", "missing", "unknown", "gone", "doubled"];
        (fields.map(|field| reports[0][field].as_u64()) == [10, 21, 0, 0, 0, 0].map(Some)).then_some(())
    })
    .await;

    cluster.sql(REMEMBER).await;
    sim.queue_fault(SimFault::Text { body: "{\"errors\": [".to_owned() });
    cluster.sql(&doubt.insert("generate_series(32, 40)")).await;
    wait_items(&sim, 85).await;
    eventually(PATIENCE, "more rows in doubt for good", async || {
        let (_, reports) = audit(&config, &["doubt"]).await;
        let [in_doubt, delivered] = ["in_doubt", "delivered"].map(|field| reports[0][field].as_u64().unwrap());
        (in_doubt > 10 && in_doubt + delivered == 40).then_some(())
    })
    .await;
    floored(&cluster).await;
    ends(app).await;
    cluster.sql(FORGET).await;
    cluster.sql("DELETE FROM pg2planhat.quarantine WHERE section = 'held' AND key = '30'").await;
    names(&cluster, &config, &held, "n = 30").await;
    let report = names(&cluster, &config, &doubt, "n > 31").await;
    assert_eq!(report["in_doubt"], 10, "{report}");
}

/// Kind 6: a backfill that went on behind a chunk that it never read.
#[tokio::test]
async fn case_162_a_chunk_that_was_skipped_is_named() {
    let cluster = Cluster::start().await;
    let tables = [INTEGER, TABLES[1].named("uuids")];
    for table in &tables {
        cluster.sql(&format!("{}; {}", table.create(), table.insert("generate_series(1, 3000)"))).await;
    }
    let latency = Duration::from_millis(30);
    let sim = sink_like(SimOptions { latency, ..SimOptions::default() }).await;
    let config = ConfigText::new(&cluster, &sim.url()).set("audit.every", "off");
    let section = |table: &PlantedTable| table.section().set("batch", "{ rows: 100 }");
    let config = tables.iter().fold(config, |config, table| config.section(section(table)));
    let app = App::run(&config);
    wait_items(&sim, 1_000).await;
    app.kill9().await;
    let mut skipped = Vec::new();
    for table in &tables {
        let cursor =
            cluster.text(&format!("SELECT cursor FROM pg2planhat.section WHERE name = '{}'", table.name)).await;
        let sql =
            format!("SELECT id::text FROM {} t WHERE id > '{cursor}' ORDER BY t.id OFFSET 250 LIMIT 1", table.name);
        let moved = cluster.text(&sql).await;
        // What was under way when it was killed comes again, and is no part of what is skipped.
        let open = format!("DELETE FROM pg2planhat.delivery WHERE section = '{}' AND outcome = 'sending'", table.name);
        let skip = format!("UPDATE pg2planhat.section SET cursor = '{moved}' WHERE name = '{}'", table.name);
        cluster.sql(&format!("{open}; {skip}")).await;
        skipped.push(format!("id > '{cursor}' AND id <= '{moved}'"));
    }
    let app = App::run(&config);
    eventually(PATIENCE, "the end of both backfills", async || {
        let open = "SELECT count(*) FROM pg2planhat.section WHERE phase <> 'streaming'";
        (cluster.number(open).await == 0).then_some(())
    })
    .await;
    for (table, lost) in tables.iter().zip(&skipped) {
        let report = names(&cluster, &config, table, lost).await;
        assert_eq!((&report["missing"], &report["delivered"]), (&251.into(), &2_749.into()), "{report}");
    }
    drop(app);
}

/// Kinds 7 to 10: a section's position moved past rows that it never had; a partition that came with its rows; a key that
/// was changed after its row was delivered; rows of a time when the publication left the table out.
#[tokio::test]
async fn case_162_rows_that_the_stream_never_carried_are_named() {
    let cluster = Cluster::start().await;
    let (moved, parts, changed) = (INTEGER.named("moved"), INTEGER.named("parts"), INTEGER.named("changed"));
    cluster
        .sql(&format!(
            "{}; {}; CREATE TABLE parts (id bigint PRIMARY KEY, n bigint, v float8 DEFAULT 1) PARTITION BY RANGE (id);
             CREATE TABLE parts1 PARTITION OF parts FOR VALUES FROM (1) TO (1000);
             CREATE TABLE parts2 (id bigint PRIMARY KEY, n bigint, v float8 DEFAULT 1);
             INSERT INTO parts2 SELECT n, n FROM generate_series(1001, 1020) n",
            moved.create(),
            changed.create()
        ))
        .await;
    let sim = sink().await;
    let tables = [moved, parts, changed];
    let config = config(&cluster, &sim, &tables);
    let app = App::run(&config);
    app.wait_ready().await;
    cluster.sql(&tables.iter().map(|table| table.insert("generate_series(1, 50)") + ";").collect::<String>()).await;
    wait_items(&sim, 150).await;
    healthy(&config).await;
    cluster.sql("ALTER TABLE parts ATTACH PARTITION parts2 FOR VALUES FROM (1000) TO (2000)").await;
    cluster.sql("UPDATE changed SET id = id + 1000 WHERE n IN (7, 8)").await;
    ends(app).await;
    cluster.sql(&tables[0].insert("generate_series(51, 65)")).await;
    cluster
        .sql(
            "UPDATE pg2planhat.section SET position_lsn = pg_current_wal_insert_lsn(),
                position_change_lsn = pg_current_wal_insert_lsn(), position_ordinal = 0 WHERE name = 'moved'",
        )
        .await;
    let app = App::run(&config);
    cluster.sql(&tables.iter().map(|table| table.insert("generate_series(70, 79)") + ";").collect::<String>()).await;
    wait_items(&sim, 180).await;
    names(&cluster, &config, &tables[0], "n BETWEEN 51 AND 65").await;
    names(&cluster, &config, &tables[1], "n > 1000").await;
    let report = names(&cluster, &config, &tables[2], "n IN (7, 8)").await;
    assert_eq!(report["gone"], 2, "under their old keys: {report}");
    ends(app).await;

    let unpublished = "ALTER PUBLICATION pg2planhat SET (publish = 'update'); INSERT INTO changed VALUES (500, 500);
        ALTER PUBLICATION pg2planhat SET (publish = 'insert')";
    cluster.sql(unpublished).await;
    let mended = App::command(&config, &["repair", "--accept-loss", "--yes"]).await;
    assert_eq!(mended.code, 0, "{}", mended.stderr);
    let app = App::run(&config);
    cluster.sql(&tables.iter().map(|table| table.insert("generate_series(80, 89)") + ";").collect::<String>()).await;
    wait_items(&sim, 210).await;
    names(&cluster, &config, &tables[2], "n IN (7, 8, 500)").await;
    drop(app);
}

/// All tables with twenty rows each, delivered and audited.
struct Delivered {
    cluster: Cluster,
    sim: SimHandle,
    config: ConfigText,
    app: App,
}

async fn delivered_twenty() -> Delivered {
    let cluster = Cluster::start().await;
    cluster.sql(&TABLES.iter().map(|table| table.create() + ";").collect::<String>()).await;
    let sim = sink().await;
    let config = config(&cluster, &sim, &TABLES);
    let app = App::run(&config);
    app.wait_ready().await;
    cluster.sql(&insert_everywhere("generate_series(1, 20)")).await;
    wait_items(&sim, 80).await;
    healthy(&config).await;
    Delivered { cluster, sim, config, app }
}

/// Rows with these numbers for each of the tables.
fn insert_everywhere(numbers: &str) -> String {
    TABLES.iter().map(|table| table.insert(numbers) + ";").collect()
}

/// No loss: a batch that was under way when the program was killed, and whose rows a repair gave up. Planhat may have them.
#[tokio::test]
async fn case_162_rows_in_doubt_whose_keys_were_never_kept_are_not_called_missing() {
    let Delivered { cluster, sim, config, app } = delivered_twenty().await;
    sim.set_fault_rate(1, 1.0, vec![SimFault::Hang { store: true }]);
    cluster.sql(&insert_everywhere("generate_series(21, 25)")).await;
    let under_way = "SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'sending' AND under_way";
    eventually(PATIENCE, "four requests under way", async || (cluster.number(under_way).await == 4).then_some(()))
        .await;
    // What is under way may not be there yet.
    sim.wait_for(|stats| stats.faults == 4, PATIENCE).await.unwrap();
    app.kill9().await;
    sim.clear_faults();
    cluster.sql("SELECT pg_drop_replication_slot('pg2planhat')").await;
    let mended = App::command(&config, &["repair", "--accept-loss", "--yes"]).await;
    assert_eq!(mended.code, 0, "{}", mended.stderr);
    let app = App::run(&config);
    app.wait_ready().await;
    cluster.sql(&insert_everywhere("generate_series(31, 35)")).await;
    wait_items(&sim, 120).await;
    eventually(PATIENCE, "every row is told apart", async || {
        let (code, reports) = audit(&config, &["--all"]).await;
        let told = |report: &Value| {
            let of = |field: &str| report[field].as_u64().unwrap();
            let doubt = if report["section"] == "integers" { of("in_doubt") } else { of("unknown") };
            assert_eq!((code, of("missing")), (0, 0), "{report}");
            (of("delivered"), doubt) == (25, 5) && (doubt == of("in_doubt") || report["caveat"] != "")
        };
        reports.as_array().unwrap().iter().all(told).then_some(())
    })
    .await;
    drop(app);
}

/// Kind 11: rows that a person gave up, when somebody had moved the slot.
#[tokio::test]
async fn case_162_rows_that_a_repair_gave_up_are_named() {
    let Delivered { cluster, sim, config, app } = delivered_twenty().await;
    ends(app).await;
    cluster.sql(&insert_everywhere("generate_series(21, 25)")).await;
    cluster.sql("SELECT pg_replication_slot_advance('pg2planhat', pg_current_wal_lsn())").await;
    let mended = App::command(&config, &["repair", "--accept-loss", "--yes"]).await;
    assert_eq!(mended.code, 0, "{}", mended.stderr);
    let app = App::run(&config);
    app.wait_ready().await;
    cluster.sql(&insert_everywhere("generate_series(31, 35)")).await;
    wait_items(&sim, 100).await;
    for table in &TABLES {
        names(&cluster, &config, table, "n BETWEEN 21 AND 25").await;
    }
    drop(app);
}
