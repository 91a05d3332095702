//! The same work over a network: one function for each line of its goals.

use std::time::{Duration, Instant};

use crate::baseline;
use crate::harness::{App, ConfigText, SectionText};
use crate::network::{Network, Route};
use crate::ours::{Cost, carry, carry_by, instance, section, set_up};
use crate::runs::{MIB, median, release};
use crate::shape;
use crate::sink::Sink;
use crate::table::Table;

/// Every way to the server, each plain and by TLS, with the goals of stream and backfill there.
fn routes(network: &mut Network) -> Vec<(Route, f64, f64)> {
    let mut routes = Vec::new();
    for (tls, goals) in [(false, [(0.6, 1.3), (0.6, 1.3), (1.0, 1.5)]), (true, [(0.9, 1.3), (0.9, 1.3), (1.0, 1.5)])] {
        for (millis, (stream, backfill)) in [0, 1, 20].into_iter().zip(goals) {
            routes.push((network.route(Duration::from_millis(millis), tls), stream, backfill));
        }
    }
    routes
}

fn peak(costs: &[Cost]) -> f64 {
    costs.iter().map(|cost| cost.peak as f64).fold(0.0, f64::max) / MIB
}

fn walls(costs: &[Cost]) -> Duration {
    median(costs.iter().map(|cost| cost.wall))
}

/// Many small transactions, by every way, in turn with `pg_recvlogical` by the same.
pub async fn stream(network: &mut Network, table: &mut Table, rows: u64, times: u64) {
    let (shape, routes) = (shape::many("far", rows), routes(network));
    let cluster = &network.cluster;
    cluster.sql(&shape.tables).await;
    let name = |route: &Route, at: u64, who: &str| format!("far_{}_{who}_{at}", route.short);
    let config = |route: &Route, at: u64, who: &str| {
        instance(cluster, route, &name(route, at, who)).section(shape.sections[0].clone())
    };
    for (route, ..) in &routes {
        for at in 0..times {
            set_up(&config(route, at, "ours")).await;
            let limit = name(route, at, "limit");
            cluster.rows(&format!("SELECT pg_create_logical_replication_slot('{limit}', 'pgoutput')")).await;
        }
    }
    cluster.sql(&shape.load).await;
    let end = cluster.text("SELECT pg_current_wal_flush_lsn()").await;
    let mut most: f64 = 0.0;
    for (route, goal, _) in &routes {
        network.take(route);
        let (mut limits, mut ours) = (Vec::new(), Vec::new());
        for at in 0..times {
            let (limit, publication) = (name(route, at, "limit"), name(route, at, "ours"));
            limits.push(baseline::recvlogical(cluster, route, &limit, &publication, &end));
            ours.push(carry(&config(route, at, "ours"), rows).await);
            println!(
                "  stream, {} run {at}: limit {:.2?}, ours {}",
                route.name,
                limits[limits.len() - 1],
                ours[ours.len() - 1]
            );
        }
        most = most.max(peak(&ours));
        table.ratio(
            &format!("stream, {}", route.name),
            median(limits.into_iter()),
            walls(&ours),
            Some((*goal, goal + 0.3)),
        );
    }
    table.figure("peak memory, stream over a network", most, "MiB", 16.0, 64.0);
    release(cluster).await;
}

/// The backfill, by every way, in turn with a COPY by the same.
pub async fn backfill(network: &mut Network, table: &mut Table, rows: u64, times: u64) {
    let (shape, routes) = (shape::many("older", rows), routes(network));
    let cluster = &network.cluster;
    cluster.sql(&shape.tables).await;
    cluster.sql(&shape.load).await;
    cluster.sql("VACUUM ANALYZE older").await;
    let mut most: f64 = 0.0;
    for (route, _, goal) in &routes {
        network.take(route);
        let (mut limits, mut ours) = (Vec::new(), Vec::new());
        for at in 0..times {
            let query = "SELECT external_id, dimension_id, value, at FROM older ORDER BY id";
            limits.push(baseline::copy(cluster, route, query));
            let config = instance(cluster, route, &format!("older_{}_{at}", route.short)).section(older("older"));
            set_up(&config).await;
            ours.push(carry(&config, rows).await);
            println!(
                "  backfill, {} run {at}: COPY {:.2?}, ours {}",
                route.name,
                limits[limits.len() - 1],
                ours[ours.len() - 1]
            );
        }
        most = most.max(peak(&ours));
        table.ratio(&format!("backfill, {}", route.name), median(limits.into_iter()), walls(&ours), Some((*goal, 2.0)));
    }
    table.figure("peak memory, backfill over a network", most, "MiB", 16.0, 64.0);
    release(cluster).await;
}

fn older(name: &str) -> SectionText {
    section(name, name).field("dimensionId", "dimension_id").set("start", "backfill")
}

/// The state 20 ms away, with the source near and with the source as far.
pub async fn state(network: &mut Network, table: &mut Table, rows: u64, times: u64) {
    let near = network.route(Duration::ZERO, false);
    let away = network.route(Duration::from_millis(20), false);
    let url = network.state_url(Duration::from_millis(20));
    let cluster = &network.cluster;
    let shape = shape::many("kept", rows);
    cluster.sql(&shape.tables).await;
    let with = |route: &Route, name: String| {
        instance(cluster, route, &name).section(shape.sections[0].clone().set("batch", "{ rows: 10000 }"))
    };
    let here = |at: u64| with(&near, format!("kept_here_{at}"));
    let there = |at: u64| with(&near, format!("kept_there_{at}")).set("state.url", &url);
    let both = |at: u64| with(&away, format!("kept_both_{at}"));
    for at in 0..times {
        for config in [here(at), there(at), both(at)] {
            set_up(&config).await;
        }
        cluster.rows(&format!("SELECT pg_create_logical_replication_slot('kept_limit_{at}', 'pgoutput')")).await;
    }
    cluster.sql(&shape.load).await;
    let end = cluster.text("SELECT pg_current_wal_flush_lsn()").await;
    let (mut nears, mut fars, mut limits, mut boths) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for at in 0..times {
        network.take(&near);
        nears.push(carry(&here(at), rows).await);
        fars.push(carry(&there(at), rows).await);
        network.take(&away);
        limits.push(baseline::recvlogical(
            cluster,
            &away,
            &format!("kept_limit_{at}"),
            &format!("kept_both_{at}"),
            &end,
        ));
        boths.push(carry(&both(at), rows).await);
        println!(
            "  state, run {at}: near {}; 20 ms away {}; source too {}",
            nears[nears.len() - 1],
            fars[fars.len() - 1],
            boths[boths.len() - 1]
        );
    }
    let what = "stream, batches of 10,000, state 20 ms away (limit: state near)";
    table.ratio(what, walls(&nears), walls(&fars), Some((1.05, 2.0)));
    let limit = median(limits.into_iter());
    table.ratio("stream, batches of 10,000, source and state 20 ms away", limit, walls(&boths), Some((1.05, 2.0)));
    release(cluster).await;
}

/// A sink 200 ms away: the limit is one request after the other, with nothing in between.
pub async fn sink(network: &mut Network, table: &mut Table, rows: u64, times: u64) {
    const DISTANCE: Duration = Duration::from_millis(200);
    let near = network.route(Duration::ZERO, false);
    network.take(&near);
    let cluster = &network.cluster;
    let shape = shape::many("distant", rows);
    cluster.sql(&shape.tables).await;
    let config = |at: u64| {
        let section = shape.sections[0].clone().set("batch", "{ rows: 10000 }");
        instance(cluster, &near, &format!("distant_{at}")).section(section)
    };
    for at in 0..times {
        set_up(&config(at)).await;
    }
    cluster.sql(&shape.load).await;
    let mut ours = Vec::new();
    for at in 0..times {
        ours.push(carry_by(&config(at), rows, DISTANCE, None).await);
        println!("  sink 200 ms away, run {at}: ours {}", ours[ours.len() - 1]);
    }
    let limit = DISTANCE.mul_f64(rows as f64 / 10_000.0);
    table.ratio("stream, sink 200 ms away, batches of 10,000 one by one", limit, walls(&ours), Some((1.1, 1.5)));
    release(cluster).await;
}

/// From the start of the process to the first row at the sink, 20 ms away from source and state.
pub async fn start(network: &mut Network, table: &mut Table, times: u64) {
    let route = network.route(Duration::from_millis(20), false);
    network.take(&route);
    for (name, begin) in [("begun", "now"), ("anew", "backfill")] {
        network.cluster.sql(&SectionText::metric_table(name)).await;
        network.cluster.sql(&format!("INSERT INTO {name} (external_id, value) VALUES ('company-1', 1)")).await;
        let walls = first_rows(network, &route, name, begin, times).await;
        let what = format!("start to first row, 20 ms, {}", if begin == "now" { "stream" } else { "backfill" });
        table.figure(&what, median(walls.into_iter()).as_secs_f64() * 1e3, "ms", 600.0, 1_000.0);
    }
    release(&network.cluster).await;
}

async fn first_rows(network: &Network, route: &Route, name: &str, begin: &str, times: u64) -> Vec<Duration> {
    let cluster = &network.cluster;
    let config = |name: &str, url: String| -> ConfigText {
        instance(cluster, route, name)
            .set("planhat.url", url)
            .section(section(name, name_of(name)).set("flush", "10ms").set("start", begin))
    };
    let until_first = async |name: &str| {
        let sink = Sink::start().await;
        let begun = Instant::now();
        let app = App::run(&config(name, sink.url()));
        sink.wait(1).await;
        let wall = begun.elapsed();
        app.sigterm();
        app.wait_exit(Duration::from_secs(30)).await;
        wall
    };
    let mut walls = Vec::new();
    if begin == "now" {
        set_up(&config(name, "http://127.0.0.1:1".to_owned())).await;
        // Once attached, what is inserted meanwhile waits in the slot.
        let app = App::run(&config(name, "http://127.0.0.1:1".to_owned()));
        app.wait_ready().await;
        app.sigterm();
        app.wait_exit(Duration::from_secs(30)).await;
    }
    for at in 0..times {
        if begin == "now" {
            cluster.sql(&format!("INSERT INTO {name} (external_id, value) VALUES ('company-1', 1)")).await;
            walls.push(until_first(name).await);
        } else {
            let each = format!("{name}_{at}");
            set_up(&config(&each, "http://127.0.0.1:1".to_owned())).await;
            walls.push(until_first(&each).await);
        }
    }
    walls
}

/// The table of an instance's name: `anew_3` reads `anew`.
fn name_of(instance: &str) -> &str {
    instance.split('_').next().unwrap_or(instance)
}
