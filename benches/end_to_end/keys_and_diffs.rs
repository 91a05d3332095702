//! Tables of other shapes than the usual one: backfills by other keys than an integer, and results that are compared.
//!
//! A backfill by each kind of key has one by a bigint beside it, in turn: the same columns, the same number of rows. A
//! comparison is measured by its own record in the state, from its begin to the settlement of its last row.

use std::time::Duration;

use tokio_postgres::Client;

use crate::baseline;
use crate::harness::{self, App, Cluster, SectionText};
use crate::network::Route;
use crate::ours::{Cost, carry, instance, section};
use crate::runs::{MIB, median, release};
use crate::sink::Sink;
use crate::table::Table;

/// How long one comparison may take before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(300);

/// A table and its key.
struct Keyed {
    name: &'static str,
    /// Columns of the key, as SQL and as YAML have them.
    key: &'static str,
    definition: &'static str,
    /// The key's values, made of `n`.
    values: &'static str,
    /// Bytes of proof a row that are aimed at.
    bytes: f64,
}

/// The first is what the others are held against.
const KEYED: [Keyed; 4] = [
    Keyed { name: "by_bigint", key: "id", definition: "id bigint", values: "n", bytes: 0.1 },
    Keyed { name: "by_uuid", key: "id", definition: "id uuid", values: "md5(n::text)::uuid", bytes: 9.0 },
    Keyed {
        name: "by_two",
        key: "account, id",
        definition: "account int, id bigint",
        values: "n % 1000, n",
        bytes: 9.0,
    },
    Keyed {
        name: "by_month",
        key: "id, day",
        definition: "id bigint, day date",
        values: "n, date '2026-01-01' + (n % 360)::int",
        bytes: 9.0,
    },
];

/// The months of the partitioned table.
const MONTHS: u32 = 12;

/// What the tables have beside their keys: the metric table's columns.
const COLUMNS: &str = "external_id text, dimension_id text, value float8, at timestamptz";
const VALUES: &str = "'company-' || n % 1000, 'seats_used', n * 1.5, now()";

impl Keyed {
    fn is_partitioned(&self) -> bool {
        self.name == "by_month"
    }

    /// Makes and fills the table.
    async fn fill(&self, cluster: &Cluster, rows: u64) {
        let Keyed { name, key, definition, values, .. } = self;
        let partitioned = if self.is_partitioned() { "PARTITION BY RANGE (day)" } else { "" };
        cluster.sql(&format!("CREATE TABLE {name} ({definition}, {COLUMNS}, PRIMARY KEY ({key})) {partitioned}")).await;
        for month in (0..MONTHS).filter(|_| self.is_partitioned()) {
            let bound = |month: u32| format!("date '2026-01-01' + {}", month * 30);
            cluster
                .sql(&format!(
                    "CREATE TABLE {name}_{month} PARTITION OF {name} FOR VALUES FROM ({}) TO ({})",
                    bound(month),
                    bound(month + 1)
                ))
                .await;
        }
        cluster.sql(&format!("INSERT INTO {name} SELECT {values}, {VALUES} FROM generate_series(1, {rows}) n")).await;
        cluster.sql(&format!("VACUUM ANALYZE {name}")).await;
    }

    fn section(&self) -> SectionText {
        let section = section(self.name, self.name).field("dimensionId", "dimension_id");
        section.set("start", "backfill").set("key", format!("[{}]", self.key))
    }
}

/// All of it: backfills of so many rows, comparisons of half as many.
pub async fn shapes(cluster: &Cluster, table: &mut Table, rows: u64, times: u64) {
    backfills(cluster, table, rows, times).await;
    let compared = rows / 2;
    let columns = "external_id, dimension_id, value, at";
    cluster.sql(&format!("CREATE TABLE compared (id bigint PRIMARY KEY, {COLUMNS})")).await;
    cluster.sql(&format!("INSERT INTO compared SELECT n, {VALUES} FROM generate_series(1, {compared}) n")).await;
    cluster.sql(&format!("CREATE VIEW compared_view AS SELECT id, {columns} FROM compared WHERE value >= 0")).await;
    cluster.sql("VACUUM ANALYZE compared").await;
    for (what, name) in [("a table", "compared"), ("a view", "compared_view")] {
        comparisons(cluster, table, (what, name), compared, times).await;
    }
}

/// Backfills by every kind of key, in turn.
async fn backfills(cluster: &Cluster, table: &mut Table, rows: u64, times: u64) {
    let route = Route::loopback(cluster);
    for keyed in &KEYED {
        keyed.fill(cluster, rows).await;
    }
    let mut costs: Vec<Vec<(Duration, Cost)>> = vec![Vec::new(); KEYED.len()];
    for at in 0..times {
        for (keyed, costs) in KEYED.iter().zip(&mut costs) {
            let Keyed { name, key, .. } = keyed;
            let query = format!("SELECT external_id, dimension_id, value, at FROM {name} ORDER BY {key}");
            let limit = baseline::copy(cluster, &route, &query);
            let config = instance(cluster, &route, &format!("{name}_{at}")).section(keyed.section());
            let cost = carry(&config, rows).await;
            println!("  backfill {name} run {at}: COPY {limit:.2?}, ours {cost}");
            costs.push((limit, cost));
        }
    }
    let ours = |costs: &[(Duration, Cost)]| median(costs.iter().map(|(_, cost)| cost.wall));
    let bigint = ours(&costs[0]);
    for (keyed, costs) in KEYED.iter().zip(&costs) {
        let name = keyed.name;
        let limit = median(costs.iter().map(|(limit, _)| *limit));
        table.ratio(&format!("backfill {name} against COPY"), limit, ours(costs), None);
        if name != KEYED[0].name {
            // A rate of 0.8 × is a time of 1.25 ×.
            table.ratio(&format!("backfill {name} against {}", KEYED[0].name), bigint, ours(costs), Some((1.25, 1.5)));
        }
        let peak = costs.iter().map(|(_, cost)| cost.peak as f64).fold(0.0, f64::max) / MIB;
        table.figure(&format!("peak memory, backfill {name}"), peak, "MiB", 64.0, 128.0);
        let kept = ["delivery_keys", "tally"].map(|table| format!("pg_total_relation_size('{name}_0.{table}')"));
        let kept = cluster.number(&format!("SELECT {}", kept.join(" + "))).await as f64 / rows as f64;
        table.figure(&format!("state, bytes a row ({name})"), kept, "B", keyed.bytes, 12.0);
    }
    release(cluster).await;
}

/// One comparison, as the state has it.
struct Compared {
    run: i64,
    changed: u64,
    took: Duration,
}

/// The section's next comparison behind `after`.
async fn next(client: &Client, name: &str, after: i64) -> Compared {
    let asked = format!(
        "SELECT run, changed, (extract(epoch FROM ended_at - started_at) * 1000)::bigint FROM {name}.diff WHERE run > {after}"
    );
    let look = async || {
        // The first one makes the state's tables.
        let row = client.query_opt(&asked, &[]).await.ok().flatten()?;
        let number = |column: usize| u64::try_from(row.get::<_, i64>(column)).unwrap();
        Some(Compared { run: row.get(0), changed: number(1), took: Duration::from_millis(number(2)) })
    };
    harness::eventually(PATIENCE, "a comparison", look).await
}

/// Comparisons of so many rows, all of them as they were, and with a hundredth of them changed, in turn.
async fn comparisons(cluster: &Cluster, table: &mut Table, (what, name): (&str, &str), rows: u64, times: u64) {
    let (route, client) = (Route::loopback(cluster), cluster.client().await);
    let state = format!("{name}_state");
    let section = section(name, name).unset("start").field("dimensionId", "dimension_id").set("read", "diff");
    let config = instance(cluster, &route, &state).section(section.set("every", "1s"));
    let limit = baseline::copy(cluster, &route, &format!("SELECT * FROM {name} ORDER BY md5(id::text)"));
    let sink = Sink::start().await;
    let app = App::run(&config.set("planhat.url", sink.url()));
    let mut last = next(&client, &state, 0).await;
    assert_eq!(sink.taken().await.objects, rows, "each row once");
    println!("  first comparison of {name}: {:.2?}", last.took);
    let size = format!("SELECT pg_total_relation_size('{state}.seen')");
    let bytes = cluster.number(&size).await as f64 / rows as f64;
    // What the first one left is put together by the one behind it.
    last = next(&client, &state, last.run).await;
    let (mut unchanged, mut changed) = (Vec::new(), Vec::new());
    for at in 0..times {
        last = next(&client, &state, last.run).await;
        assert_eq!(last.changed, 0, "nothing has changed");
        unchanged.push(last.took);
        cluster.sql("UPDATE compared SET value = value + 1 WHERE id % 100 = 0").await;
        while last.changed == 0 {
            last = next(&client, &state, last.run).await;
        }
        assert_eq!(last.changed, rows / 100, "each changed row once");
        changed.push(last.took);
        println!(
            "  {name} run {at}: COPY {limit:.2?}, unchanged {:.2?}, 1 % changed {:.2?}",
            unchanged[unchanged.len() - 1],
            last.took
        );
    }
    assert_eq!(sink.taken().await.objects, rows + times * (rows / 100), "each version once");
    let (unchanged, changed) = (median(unchanged.into_iter()), median(changed.into_iter()));
    table.ratio(&format!("comparison of {what} of {rows} against COPY in order of digests"), limit, unchanged, None);
    // Of a million rows.
    let goal = rows as f64 * 5.0 / 1e6;
    table.figure(
        &format!("comparison of {what}, {rows} unchanged rows"),
        unchanged.as_secs_f64(),
        "s",
        goal,
        goal * 1.5,
    );
    table.ratio(&format!("comparison of {what}, 1 % changed against unchanged"), unchanged, changed, Some((1.2, 1.5)));
    table.figure(&format!("state, bytes a row compared ({what})"), bytes, "B", 40.0, 60.0);
    table.figure(&format!("peak memory, comparison of {what}"), app.rss() as f64 / MIB, "MiB", 64.0, 128.0);
    app.sigterm();
    assert_eq!(app.wait_exit(Duration::from_secs(30)).await, 0, "{}", app.log());
}
