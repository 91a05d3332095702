//! What proof costs: the keys and tallies that are kept with each batch, and an audit.
//!
//! "Without" is the same program on a state whose tables of proof take no rows: what it then still does for them (a set and a
//! tally of each batch) is in `core`, and what it saves are the rows, their WAL and their indexes.

use std::time::{Duration, Instant};

use crate::baseline;
use crate::harness::{App, Cluster, ConfigText};
use crate::network::Route;
use crate::ours::{Cost, carry, instance};
use crate::runs::{MIB, median, release};
use crate::shape::{self, Shape};
use crate::table::Table;

/// The state's tables of proof take no rows.
fn without(schema: &str) -> String {
    let never =
        format!("CREATE FUNCTION {schema}.never() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'");
    let triggers = ["delivery_keys", "tally"].map(|table| {
        format!("CREATE TRIGGER never BEFORE INSERT ON {schema}.{table} FOR EACH ROW EXECUTE FUNCTION {schema}.never()")
    });
    format!("{never}; {}", triggers.join("; "))
}

/// An instance whose state is there and whose section has attached; it is stopped.
async fn attached(config: &ConfigText) {
    let app = App::run(config);
    app.wait_ready().await;
    app.sigterm();
    assert_eq!(app.wait_exit(Duration::from_secs(60)).await, 0, "{}", app.log());
}

/// The same work with proof and without it, in turn.
async fn in_turn(cluster: &Cluster, table: &mut Table, what: &str, shape: &Shape, times: u64, start: &str, goal: f64) {
    let route = Route::loopback(cluster);
    let (mut with_proof, mut without_proof): (Vec<Cost>, Vec<Cost>) = (Vec::new(), Vec::new());
    let is_stream = start == "now";
    cluster.sql(&shape.tables).await;
    let config = |kind: &str, at: u64| {
        let name = format!("{}_{kind}_{at}", shape.name);
        let sections = shape.sections.iter().cloned().map(|section| section.set("start", start));
        (sections.fold(instance(cluster, &route, &name), |config, section| config.section(section)), name)
    };
    for at in 0..times {
        for kind in ["with", "without"] {
            let (config, name) = config(kind, at);
            attached(&config).await;
            if kind == "without" {
                cluster.sql(&without(&name)).await;
            }
        }
    }
    if is_stream {
        cluster.sql(&shape.load).await;
    }
    for at in 0..times {
        for (kind, costs) in [("with", &mut with_proof), ("without", &mut without_proof)] {
            let (config, _) = config(kind, at);
            costs.push(carry(&config, shape.rows * shape.objects).await);
            println!("  {what} run {at}, {kind} proof: {}", costs[costs.len() - 1]);
        }
    }
    let of = |costs: &[Cost]| median(costs.iter().map(|cost| cost.wall));
    table.ratio(what, of(&without_proof), of(&with_proof), Some((goal, goal + 0.05)));
    release(cluster).await;
}

/// Streaming and backfill with proof and without it; then an audit of five times the rows, of integers and of UUIDs.
pub async fn audited(cluster: &Cluster, table: &mut Table, rows: u64, times: u64) {
    let streamed = shape::many("proven", rows);
    in_turn(cluster, table, "stream, with proof against without", &streamed, times, "now", 1.03).await;
    for (name, key) in [("integers", "id"), ("uuids", "md5(id::text)::uuid")] {
        one_audit(cluster, table, (name, key), rows * 5, times).await;
    }
}

/// A table is backfilled, with proof and without; then it is audited beside a COPY of its keys.
async fn one_audit(cluster: &Cluster, table: &mut Table, (name, key): (&'static str, &str), rows: u64, times: u64) {
    let route = Route::loopback(cluster);
    let ty = if name == "integers" { "bigint" } else { "uuid" };
    let fill = format!(
        "CREATE TABLE {name} (id {ty} PRIMARY KEY, external_id text, dimension_id text, value float8, at timestamptz);
         INSERT INTO {name} SELECT {key}, 'company-' || id % 1000, 'seats_used', id * 1.5, now()
            FROM generate_series(1, {rows}) id;
         VACUUM ANALYZE {name}"
    );
    let (fill, vacuum) = fill.rsplit_once(';').unwrap();
    cluster.sql(fill).await;
    cluster.sql(vacuum).await;
    let section = || crate::ours::section(name, name).field("dimensionId", "dimension_id").set("start", "backfill");
    let config = |kind: &str| instance(cluster, &route, &format!("{name}_{kind}")).section(section());
    cluster.sql("CREATE TABLE IF NOT EXISTS other (LIKE proven INCLUDING ALL)").await;
    let (mut with_proof, mut without_proof) = (Vec::new(), Vec::new());
    for at in 0..times {
        // The last one is audited.
        let with = if at + 1 == times { "with".to_owned() } else { format!("with_{at}") };
        for (kind, walls) in [(format!("without_{at}"), &mut without_proof), (with, &mut with_proof)] {
            // The state first, with nothing in it: the section is not attached yet.
            let empty = instance(cluster, &route, &format!("{name}_{kind}"))
                .section(crate::ours::section("other", "other").field("dimensionId", "dimension_id"));
            attached(&empty).await;
            if kind.starts_with("without") {
                cluster.sql(&without(&format!("{name}_{kind}"))).await;
            }
            let cost = carry(&config(&kind), rows).await;
            println!("  backfill of {rows} {name}, {kind} proof: {cost}");
            walls.push(cost.wall);
        }
    }
    let (with_proof, without_proof) = (median(with_proof.into_iter()), median(without_proof.into_iter()));
    let what = format!("backfill, with proof against without ({name})");
    table.ratio(&what, without_proof, with_proof, Some((1.05, 1.10)));
    let bytes = format!(
        "SELECT pg_total_relation_size('{name}_with.delivery_keys') + pg_total_relation_size('{name}_with.tally')"
    );
    let bytes = cluster.number(&bytes).await as f64 / rows as f64;
    table.figure(&format!("state, bytes a row ({name})"), bytes, "B", if name == "integers" { 0.1 } else { 9.0 }, 12.0);

    let limit = baseline::copy(cluster, &route, &format!("SELECT id FROM {name} ORDER BY id"));
    let begun = Instant::now();
    let running = App::launch(&config("with")).arguments(&["--json", "audit", name]).start();
    let mut peak = 0;
    while running.is_running() {
        peak = peak.max(running.rss());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = begun.elapsed();
    // What it printed has been read only when its pipes have closed.
    running.wait_exit(Duration::from_secs(30)).await;
    assert!(running.out().replace(' ', "").contains("\"missing\":0"), "{}{}", running.out(), running.log());
    table.ratio(&format!("audit of {rows} {name} against COPY of the keys"), limit, took, None);
    table.figure(&format!("audit of {rows} {name}"), took.as_secs_f64(), "s", 20.0, 30.0);
    table.figure(&format!("peak memory, audit of {name}"), peak as f64 / MIB, "MiB", 64.0, 96.0);
    release(cluster).await;
}
