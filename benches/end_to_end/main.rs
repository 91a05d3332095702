//! The whole way, measured against PostgreSQL's own programs: `make bench`.
//!
//! Machines are noisy, so only ratios within one run count: each of our runs has a run of the limit beside it, in turn, and the
//! medians are compared. `ROWS=200000 RUNS=1 make bench` is a quick look.
#![allow(unreachable_pub, reason = "the modules of a test are no interface")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement that fails says so by a panic"
)]

mod audited;
mod baseline;
mod far;
#[expect(dead_code, unused_imports, reason = "the tests use more of it")]
#[path = "../../tests/it/harness/mod.rs"]
mod harness;
mod keys_and_diffs;
mod machine;
mod network;
mod ours;
mod relay;
mod runs;
mod shape;
mod sink;
mod table;

use network::Network;
use table::Table;

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    if std::env::args().any(|argument| argument == sink::ARGUMENT) {
        return sink::serve().await;
    }
    if std::env::args().any(|argument| argument == relay::ARGUMENT) {
        return relay::serve(std::env::args().skip_while(|argument| argument != relay::ARGUMENT).skip(1));
    }
    let (rows, times) = (setting("ROWS", 2_000_000).next_multiple_of(1_000), setting("RUNS", 3));
    let only = std::env::var("ONLY").unwrap_or_default();
    let wanted = |part: &str| only.is_empty() || only.split(',').any(|wanted| wanted == part);
    let mut table = Table::default();
    if NEAR.iter().any(|part| wanted(part)) {
        near(&mut table, &wanted, rows, times).await;
    }
    if FAR.iter().any(|part| wanted(part)) {
        far(&mut table, &wanted, rows / 2, times).await;
    }
    runs::size(&mut table);
    table.print();
}

/// The parts on this machine alone.
const NEAR: [&str; 8] = ["stream", "one", "backfill", "latency", "start", "scale", "audit", "shapes"];
/// The parts over a network.
const FAR: [&str; 5] = ["far-stream", "far-backfill", "far-state", "far-sink", "far-start"];

async fn near(table: &mut Table, wanted: &impl Fn(&str) -> bool, rows: u64, times: u64) {
    let cluster = machine::server().await;
    machine::describe(&cluster, rows, times).await;
    if wanted("stream") {
        runs::stream(&cluster, table, rows, times).await;
    }
    if wanted("one") {
        runs::one_transaction(&cluster, table, rows, times).await;
    }
    if wanted("backfill") {
        runs::backfill(&cluster, table, rows, times).await;
    }
    if wanted("latency") {
        runs::latency(&cluster, table, setting("LATENCY_SECONDS", 20)).await;
    }
    if wanted("start") {
        runs::start(&cluster, table, times.max(5)).await;
    }
    if wanted("scale") {
        runs::scale(&cluster, table, rows).await;
    }
    if wanted("audit") {
        audited::audited(&cluster, table, rows, times).await;
    }
    if wanted("shapes") {
        keys_and_diffs::shapes(&cluster, table, rows, times).await;
    }
}

async fn far(table: &mut Table, wanted: &impl Fn(&str) -> bool, rows: u64, times: u64) {
    let mut network = Network::start().await;
    machine::describe(&network.cluster, rows, times).await;
    if wanted("far-stream") {
        far::stream(&mut network, table, rows, times).await;
    }
    if wanted("far-backfill") {
        far::backfill(&mut network, table, rows, times).await;
    }
    if wanted("far-state") {
        far::state(&mut network, table, rows, times).await;
    }
    if wanted("far-sink") {
        far::sink(&mut network, table, rows / 5, times).await;
    }
    if wanted("far-start") {
        far::start(&mut network, table, times.max(5)).await;
    }
}
