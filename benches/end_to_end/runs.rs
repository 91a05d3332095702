//! The measurements, one function for each line of the goals.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::harness::{App, Cluster, ConfigText};
use crate::network::Route;
use crate::ours::{Cost, carry, carry_by, instance, section, set_up, set_up_by};
use crate::shape::{self, Shape};
use crate::sink::Sink;
use crate::table::Table;
use crate::{baseline, harness};

pub const MIB: f64 = 1024.0 * 1024.0;

/// What one shape took: the limit's walls, the bare wire's, and ours.
struct Measured {
    limit: Duration,
    wire: Duration,
    ours: Vec<Cost>,
    /// Of the other build, where one was given.
    before: Vec<Cost>,
}

impl Measured {
    fn wall(&self) -> Duration {
        median(self.ours.iter().map(|cost| cost.wall))
    }

    /// A line for the other build's time as the limit.
    fn compare(&self, table: &mut Table, what: &str) {
        if !self.before.is_empty() {
            let before = median(self.before.iter().map(|cost| cost.wall));
            table.ratio(&format!("· {what}, against the build of BESIDE"), before, self.wall(), Some((1.03, 1.1)));
        }
    }

    fn peak(&self) -> f64 {
        self.ours.iter().map(|cost| cost.peak as f64).fold(0.0, f64::max) / MIB
    }
}

pub fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// Another build of the program that is measured beside this one, in turn.
fn beside() -> Option<PathBuf> {
    std::env::var_os("BESIDE")
        .map(|path| std::fs::canonicalize(&path).unwrap_or_else(|error| panic!("BESIDE: {error}")))
}

/// Streams one shape `times` times, in turn with `pg_recvlogical` and with our wire alone, each from a slot of its own.
async fn streamed(cluster: &Cluster, shape: &Shape, times: u64) -> Measured {
    cluster.sql(&shape.tables).await;
    let (route, other) = (Route::loopback(cluster), beside());
    let slot = |kind: &str, at: u64| format!("{}_{kind}_{at}", shape.name);
    let config_of = |kind: &str, at: u64| {
        let sections = shape.sections.iter();
        sections.fold(instance(cluster, &route, &slot(kind, at)), |config, section| config.section(section.clone()))
    };
    let mut configs: Vec<ConfigText> = Vec::new();
    for at in 0..times {
        let config = |kind| config_of(kind, at);
        set_up(&config("ours")).await;
        if other.is_some() {
            set_up_by(&config("before"), other.as_deref()).await;
        }
        for kind in ["limit", "wire"] {
            let name = slot(kind, at);
            cluster.rows(&format!("SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')")).await;
        }
        configs.push(config("ours"));
    }
    cluster.sql(&shape.load).await;
    let end = cluster.text("SELECT pg_current_wal_flush_lsn()").await;
    let (mut limits, mut wires, mut ours, mut before) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (at, config) in (0..).zip(&configs) {
        // The publication of our own instance: what is sent is the same to all.
        let publication = slot("ours", at);
        limits.push(baseline::recvlogical(cluster, &route, &slot("limit", at), &publication, &end));
        ours.push(carry(config, shape.rows * shape.objects).await);
        if other.is_some() {
            let (theirs, objects) = (config_of("before", at), shape.rows * shape.objects);
            before.push(carry_by(&theirs, objects, Duration::ZERO, other.as_deref()).await);
            println!("  {} run {at}: the other build {}", shape.name, before[before.len() - 1]);
        }
        wires.push(baseline::wire(cluster, config, &slot("wire", at), &publication, shape.rows).await);
        let (limit, wire, cost) = (limits[limits.len() - 1], wires[wires.len() - 1], ours[ours.len() - 1]);
        println!("  {} run {at}: limit {:.2?}, wire alone {:.2?}, ours {cost}", shape.name, limit, wire);
    }
    release(cluster).await;
    Measured { limit: median(limits.into_iter()), wire: median(wires.into_iter()), ours, before }
}

/// Lets go of every slot, and of the WAL that they keep.
pub async fn release(cluster: &Cluster) {
    let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active";
    let none_left = || async {
        cluster.rows(drop).await;
        (cluster.number("SELECT count(*) FROM pg_replication_slots").await == 0).then_some(())
    };
    harness::eventually(Duration::from_secs(10), "all slots dropped", none_left).await;
    cluster.sql("CHECKPOINT").await;
}

/// Many small transactions.
pub async fn stream(cluster: &Cluster, table: &mut Table, rows: u64, times: u64) {
    let measured = streamed(cluster, &shape::many("many", rows), times).await;
    table.ratio("stream, 100-row transactions", measured.limit, measured.wall(), Some((0.55, 0.90)));
    measured.compare(table, "stream");
    table.ratio("· our wire alone", measured.limit, measured.wire, None);
    let cpu = median(measured.ours.iter().map(|cost| cost.cpu)).as_secs_f64();
    table.figure("CPU per million rows", cpu * 1e6 / rows as f64, "s", 0.8, 1.5);
    table.figure("peak memory, stream", measured.peak(), "MiB", 64.0, 128.0);
}

/// The same in one transaction.
pub async fn one_transaction(cluster: &Cluster, table: &mut Table, rows: u64, times: u64) {
    let measured = streamed(cluster, &shape::one(rows), times).await;
    table.ratio("stream, one transaction", measured.limit, measured.wall(), Some((0.85, 1.05)));
    table.ratio("· our wire alone", measured.limit, measured.wire, None);
    table.figure("peak memory, one transaction", measured.peak(), "MiB", 64.0, 128.0);
}

/// The backfill, from attach to the last row, against a COPY of the same columns in the same order; of a table that was analysed,
/// and of one that never was.
pub async fn backfill(cluster: &Cluster, table: &mut Table, rows: u64, times: u64) {
    let analysed = shape::many("old", rows);
    cluster.sql(&analysed.tables).await;
    cluster.sql(&analysed.load).await;
    cluster.sql("VACUUM ANALYZE old").await;
    let measured = backfilled(cluster, "old", rows, times).await;
    table.ratio("backfill against COPY", measured.limit, measured.wall(), Some((1.2, 2.0)));
    measured.compare(table, "backfill");
    table.figure("peak memory, backfill", measured.peak(), "MiB", 64.0, 128.0);
    // A plan that looks at all that is left for each chunk shows in the ratio of the two.
    for (name, rows) in [("fresh", rows / 4), ("fresher", rows / 2)] {
        let fresh = shape::many(name, rows);
        cluster.sql(&fresh.tables).await;
        cluster.sql(&fresh.load).await;
        let measured = backfilled(cluster, name, rows, times).await;
        let what = format!("backfill, never analysed ({rows})");
        table.ratio(&what, measured.limit, measured.wall(), Some((1.2, 2.0)));
    }
}

async fn backfilled(cluster: &Cluster, name: &str, rows: u64, times: u64) -> Measured {
    let (route, other) = (Route::loopback(cluster), beside());
    let (mut limits, mut ours, mut before) = (Vec::new(), Vec::new(), Vec::new());
    let config = |instance_name: String| {
        let section = section(name, name).field("dimensionId", "dimension_id").set("start", "backfill");
        instance(cluster, &route, &instance_name).section(section)
    };
    for at in 0..times {
        let query = format!("SELECT external_id, dimension_id, value, at FROM {name} ORDER BY id");
        limits.push(baseline::copy(cluster, &route, &query));
        let ours_now = config(format!("{name}_{at}"));
        set_up(&ours_now).await;
        let cost = carry(&ours_now, rows).await;
        println!("  backfill of {name} run {at}: COPY {:.2?}, ours {cost}", limits[limits.len() - 1]);
        ours.push(cost);
        if other.is_some() {
            let theirs = config(format!("{name}_before_{at}"));
            set_up_by(&theirs, other.as_deref()).await;
            let cost = carry_by(&theirs, rows, Duration::ZERO, other.as_deref()).await;
            println!("  backfill of {name} run {at}: the other build {cost}");
            before.push(cost);
        }
    }
    release(cluster).await;
    Measured { limit: median(limits.into_iter()), wire: Duration::ZERO, ours, before }
}

/// From before a row's INSERT is sent to the end of the request that brought it: 200 commits a second, flush 100 ms.
pub async fn latency(cluster: &Cluster, table: &mut Table, seconds: u64) {
    cluster.sql("CREATE TABLE late (id bigserial PRIMARY KEY, external_id text, value bigint, at timestamptz DEFAULT now())").await;
    let sink = Sink::start().await;
    let section = section("late", "late").set("flush", "100ms");
    let config = instance(cluster, &Route::loopback(cluster), "late").set("planhat.url", sink.url()).section(section);
    set_up(&config).await;
    let app = App::run(&config);
    app.wait_ready().await;
    let client = cluster.client().await;
    let insert = "INSERT INTO late (external_id, value) VALUES ('company-1', $1)";
    let insert = client.prepare(insert).await.unwrap();
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    let commits = seconds * 200;
    let began = crate::ours::cpu(app.id());
    for _ in 0..commits {
        tick.tick().await;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        client.execute(&insert, &[&i64::try_from(now.as_micros()).unwrap()]).await.unwrap();
    }
    sink.wait(commits).await;
    let late = sink.late().await;
    let at = |percent: usize| late[(late.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    let share = (crate::ours::cpu(app.id()) - began).as_secs_f64() / seconds as f64;
    println!(
        "  latency of {} items: p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, most {:.1} ms; {:.1} % of a core",
        late.len(),
        at(50),
        at(90),
        at(99),
        at(100),
        share * 100.0
    );
    assert_eq!(late.len() as u64, commits, "each item once");
    table.figure("commit to accepted, p99, flush 100 ms", at(99), "ms", 120.0, 150.0);
    app.sigterm();
    app.wait_exit(Duration::from_secs(30)).await;
    release(cluster).await;
}

/// From the start of the process to a row that waits in the slot, on an idle database.
pub async fn start(cluster: &Cluster, table: &mut Table, times: u64) {
    cluster.sql(&crate::harness::SectionText::metric_table("first")).await;
    let section = section("first", "first").set("flush", "10ms");
    let config = instance(cluster, &Route::loopback(cluster), "first").section(section);
    set_up(&config).await;
    // Once attached, what is inserted meanwhile waits in the slot.
    let app = App::run(&config);
    app.wait_ready().await;
    app.sigterm();
    app.wait_exit(Duration::from_secs(30)).await;
    let mut walls = Vec::new();
    for _ in 0..times {
        cluster.sql("INSERT INTO first (external_id, value) VALUES ('company-1', 1)").await;
        let sink = Sink::start().await;
        let begun = Instant::now();
        let app = App::run(&config.clone().set("planhat.url", sink.url()));
        sink.wait(1).await;
        walls.push(begun.elapsed());
        app.sigterm();
        app.wait_exit(Duration::from_secs(30)).await;
    }
    table.figure("start to first row", median(walls.into_iter()).as_secs_f64() * 1e3, "ms", 150.0, 500.0);
    release(cluster).await;
}

/// Cost as the work grows: the time per row of a tenth of the rows against that of all, and shapes that are not the usual one.
pub async fn scale(cluster: &Cluster, table: &mut Table, rows: u64) {
    for (what, shape) in [
        ("a tenth of the rows", shape::many("tenth", rows / 10)),
        ("10 sections", shape::ten_sections(rows / 2)),
        ("200 columns", shape::wide(rows / 20)),
        ("rows of 10 KB", shape::long(rows / 40)),
    ] {
        let measured = streamed(cluster, &shape, 1).await;
        table.ratio(&format!("stream, {what} ({})", shape.rows), measured.limit, measured.wall(), None);
        table.figure(&format!("peak memory, {what}"), measured.peak(), "MiB", 64.0, 128.0);
    }
}

/// The program itself.
pub fn size(table: &mut Table) {
    let bytes = std::fs::metadata(env!("CARGO_BIN_EXE_pg2planhat")).unwrap().len();
    table.figure("release binary", bytes as f64 / 1e6, "MB", 12.0, 20.0);
}
