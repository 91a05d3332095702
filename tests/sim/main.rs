//! The seeded simulation of the pure core, with both ends faked: PostgreSQL before it, Planhat and the state behind it.
//!
//! A seed is a schedule: which of the things that may happen next does happen. After every step the invariants are
//! checked; at the end everything is mended, and every row must be accounted for.
//!
//! * `SIM_SEEDS=100000 cargo test --release --test sim` runs that many schedules (3,000 without it).
//! * `SIM_SEED=42 cargo test --test sim` replays one of them, and tells every step.
//! * `SIM_FIRST=1000000` begins at another seed.

#![allow(unreachable_pub, reason = "the modules of a test are no interface")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "in a test a panic is the verdict, and stderr its report")]
#![allow(
    clippy::too_many_lines,
    clippy::cast_possible_truncation,
    reason = "a scenario reads best in one piece; its numbers are small"
)]

mod process;
mod server;
mod shed;
mod state;
mod updates;
mod world;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use world::{SEVERAL_IN_FLIGHT, Tally, World};

/// Schedules without `SIM_SEEDS`: some seconds.
const SCHEDULES: u64 = 3_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")))
}

/// No schedule takes a second; one that takes so long never ends.
const HUNG: Duration = Duration::from_secs(60);

/// The seeds under way, and since when.
static UNDER_WAY: Mutex<BTreeMap<u64, Instant>> = Mutex::new(BTreeMap::new());

/// Ends everything with the seed's name when a schedule hangs, whoever runs the tests.
fn end_hung_schedules() {
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let under_way = UNDER_WAY.lock().unwrap().clone();
        if let Some((seed, _)) = under_way.iter().find(|(_, since)| since.elapsed() > HUNG) {
            // Not by the print macros: what they say is kept for the end of the test.
            drop(writeln!(std::io::stderr(), "FAILED: SIM_SEED={seed}: hung, not ended after {HUNG:?}"));
            std::process::abort();
        }
    }
}

/// Runs one schedule; the error is what it violated.
fn schedule(seed: u64, trace: bool) -> Result<Tally, String> {
    watched(seed, || World::new(seed, trace))
}

fn watched(seed: u64, world: impl FnOnce() -> World) -> Result<Tally, String> {
    let told = |panic: Box<dyn std::any::Any + Send>| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    };
    UNDER_WAY.lock().unwrap().insert(seed, Instant::now());
    let ran = catch_unwind(AssertUnwindSafe(|| world().run())).map_err(told);
    UNDER_WAY.lock().unwrap().remove(&seed);
    ran
}

#[test]
fn every_schedule_keeps_the_invariants() {
    drop(std::thread::spawn(end_hung_schedules));
    if let Some(seed) = number("SIM_SEED") {
        let tally = schedule(seed, true).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        eprintln!("seed {seed}: {tally}");
        return;
    }
    schedules_from(number("SIM_FIRST").unwrap_or(1), number("SIM_SEEDS").unwrap_or(SCHEDULES));
}

#[test]
fn every_schedule_with_several_requests_under_way_keeps_the_invariants() {
    if number("SIM_SEED").is_none() {
        drop(std::thread::spawn(end_hung_schedules));
        schedules_from(SEVERAL_IN_FLIGHT, number("SIM_SEEDS").unwrap_or(SCHEDULES));
    }
}

fn schedules_from(first: u64, schedules: u64) {
    let began = Instant::now();
    let next = AtomicU64::new(first);
    let failures = AtomicU64::new(0);
    // A failed schedule is told by its seed; the panics themselves would only drown that.
    std::panic::set_hook(Box::new(|_| {}));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let tally = std::thread::scope(|scope| {
        let work = || {
            let mut tally = Tally::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + schedules || failures.load(Ordering::Relaxed) >= 10 {
                    return tally;
                }
                match schedule(seed, false) {
                    Ok(one) => tally.add(&one),
                    Err(error) => {
                        failures.fetch_add(1, Ordering::Relaxed);
                        eprintln!("FAILED: SIM_SEED={seed}: {error}");
                    }
                }
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut tally = Tally::default();
        threads.into_iter().for_each(|thread| tally.add(&thread.join().unwrap()));
        tally
    });
    drop(std::panic::take_hook());
    eprintln!("{schedules} schedules from seed {first} in {:.1} s: {tally}", began.elapsed().as_secs_f64());
    assert_eq!(failures.into_inner(), 0, "schedules failed; each is named above and replays with SIM_SEED");
}

/// `SIM_UPDATES=42` replays one of these.
#[test]
fn every_schedule_of_updated_rows_ends_with_what_the_table_has() {
    if let Some(seed) = number("SIM_UPDATES") {
        let (sent, superseded) = updates::World::new(seed, true).run();
        return eprintln!("seed {seed}: {sent} versions sent, {superseded} superseded");
    }
    let (mut sent, mut superseded, mut failed) = (0, 0, Vec::new());
    let seeds = number("SIM_SEEDS").unwrap_or(250);
    for seed in 1..=seeds {
        match catch_unwind(AssertUnwindSafe(|| updates::World::new(seed, false).run())) {
            Ok((one, other)) => (sent, superseded) = (sent + one, superseded + other),
            Err(_) => failed.push(seed),
        }
    }
    eprintln!("{seeds} schedules of updated rows: {sent} versions sent, for {superseded} a newer one stood");
    assert!(failed.is_empty(), "schedules failed: {failed:?}; each replays with SIM_UPDATES");
    assert!(superseded > 0, "no version was ever superseded");
}

/// Seeds that lost or doubled rows of a section that was attached beside an open transaction, when the world still attached
/// it behind the process' back, or the process does not wait (`World::hasty`).
const BESIDE_A_WRITER: [u64; 12] = [235, 529, 533, 795, 940, 1009, 1305, 1411, 1818, 1914, 1992, 2056];

#[test]
fn case_62_a_section_attached_beside_open_writers_loses_and_doubles_nothing() {
    for seed in BESIDE_A_WRITER {
        schedule(seed, false).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

/// The schedules are no proof unless they see the loss.
#[test]
fn case_62_schedules_notice_a_process_that_does_not_wait_for_writers() {
    let notices = |seed: &u64| watched(*seed, || World::hasty(*seed)).is_err();
    assert!(BESIDE_A_WRITER.iter().any(notices), "none of {BESIDE_A_WRITER:?} notices it");
}
