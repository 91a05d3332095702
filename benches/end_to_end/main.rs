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

mod baseline;
#[expect(dead_code, unused_imports, reason = "the tests use more of it")]
#[path = "../../tests/it/harness/mod.rs"]
mod harness;
mod machine;
mod ours;
mod runs;
mod shape;
mod sink;
mod table;

use table::Table;

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    if std::env::args().any(|argument| argument == sink::ARGUMENT) {
        return sink::serve().await;
    }
    let (rows, times) = (setting("ROWS", 2_000_000).next_multiple_of(1_000), setting("RUNS", 3));
    let only = std::env::var("ONLY").unwrap_or_default();
    let wanted = |part: &str| only.is_empty() || only.split(',').any(|wanted| wanted == part);
    let cluster = machine::server().await;
    machine::describe(&cluster, rows, times).await;
    let mut table = Table::default();
    if wanted("stream") {
        runs::stream(&cluster, &mut table, rows, times).await;
    }
    if wanted("one") {
        runs::one_transaction(&cluster, &mut table, rows, times).await;
    }
    if wanted("backfill") {
        runs::backfill(&cluster, &mut table, rows, times).await;
    }
    if wanted("latency") {
        runs::latency(&cluster, &mut table, setting("LATENCY_SECONDS", 20)).await;
    }
    if wanted("start") {
        runs::start(&cluster, &mut table, times.max(5)).await;
    }
    if wanted("scale") {
        runs::scale(&cluster, &mut table, rows).await;
    }
    runs::size(&mut table);
    table.print();
}
