//! The crash harness: the real program on real PostgreSQL, killed at every boundary of the delivery and the backfill order.
//!
//! A seed is a plan: at which points the program is killed, one after the other, while rows go on being written. The points
//! are seen from outside, by the sink and by what passes between the program and PostgreSQL; the program knows of nothing.
//! After the last kill it runs undisturbed; then the keys at the sink and in quarantine are held against those in the
//! tables, and those that came twice against the ledger's batches in doubt.
//!
//! `CRASH_SEED=42 cargo test --test it crash` runs one plan again; `make soak SEEDS=500` runs many.

mod oracle;
mod sink;
mod tap;
mod trigger;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::harness::{App, Cluster, ConfigText, SectionText};
use oracle::Oracle;
use sink::Sink;
use tap::Tap;
use trigger::{Kill, Moment, Point, Side, Trigger, Word};
use writer::Writer;

/// Plans in `make test`.
const SEEDS: u64 = 20;
/// Plans that run side by side.
const SIDE_BY_SIDE: usize = 4;
/// A point that does not come up by then is given up for this very instant.
const PATIENCE: Duration = Duration::from_secs(2);

/// What plans have shown, summed up.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    seeds: u64,
    kills: u64,
    rows: u64,
    doubled: u64,
    quarantined: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { seeds, kills, rows, doubled, quarantined } = self;
        write!(
            f,
            "{seeds} seeds, {kills} kills, {rows} rows, missing 0, quarantined {quarantined}, doubled {doubled} of which in \
             doubt {doubled}"
        )
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")))
}

/// The points of one plan. What happens only once, at the first start, is tried by the first process.
fn plan(dice: &mut Rng) -> Vec<Kill> {
    let mut kills = Vec::new();
    for turn in 0..dice.usize(2..=4) {
        let side = *dice.choice(&[Side::Before, Side::After, Side::Answered]).unwrap();
        let first =
            [Word::Schema, Word::Publication, Word::Slot, Word::Attach, Word::Barrier, Word::Epoch, Word::Chunk];
        let any = [
            Word::Commit,
            Word::Commit,
            Word::Commit,
            Word::Status,
            Word::Chunk,
            Word::Barrier,
            Word::Stream,
            Word::Epoch,
        ];
        let moments = [Moment::Arrives, Moment::Read, Moment::Stored, Moment::HalfAnswered, Moment::Answered];
        let (point, most) = match dice.u8(0..10) {
            0..=2 if turn == 0 => (Point::Wire(*dice.choice(&first).unwrap(), side), 1),
            0..=2 => (Point::Wire(*dice.choice(&any).unwrap(), side), 12),
            3..=7 => (Point::Sink(*dice.choice(&moments).unwrap()), 12),
            8 => (Point::Bytes, 60_000),
            _ => (Point::Instant, 900),
        };
        kills.push(Kill { point, nth: dice.u32(1..=most) });
    }
    kills
}

/// Runs one plan in a database of its own, with a slot of its own, on a shared server. A database: with one for all, two of
/// 70 plans met a server (15.18) that answered `could not map filenode … to relation OID` for ever. The cause is not known;
/// the DDL of the plans beside them (CREATE TABLE and its rows in one transaction, then DROP) is suspected.
async fn run(cluster: &Cluster, seed: u64) -> Tally {
    let mut dice = Rng::with_seed(seed);
    let kills = plan(&mut dice);
    let name = format!("crash_{seed}");
    eprintln!("seed {seed}: {kills:?}");
    cluster.sql(&format!("CREATE DATABASE {name}")).await;
    let oracle = Oracle::new(cluster, &name).await;
    let (seats, logins) = (dice.u32(0..1500), dice.u32(0..300));
    oracle
        .sql(&format!(
            "CREATE TABLE seats (id bigserial PRIMARY KEY, value float8);
             CREATE TABLE logins (id bigserial PRIMARY KEY, who text);
             INSERT INTO seats (value) SELECT n FROM generate_series(1, {seats}) n;
             INSERT INTO logins (who) SELECT 'x' FROM generate_series(1, {logins}) n"
        ))
        .await;
    let trigger = Arc::new(Trigger::default());
    let sink = Sink::start(Arc::clone(&trigger), dice.fork()).await;
    let tap = Tap::start(cluster.port(), Arc::clone(&trigger)).await;
    let policy = if dice.u8(0..4) == 0 { "hold" } else { "resend" };
    let config = ConfigText::new(cluster, &sink.url())
        .through(tap.port())
        .set("source.database", &name)
        .set("source.slot", &name)
        .set("planhat.timeout", "5s")
        .section(
            SectionText::metric("seats", "seats")
                .set("in_doubt", policy)
                .set("batch", "{ rows: 40 }")
                .field("externalId", "id")
                .without("date")
                .set("date", "receipt"),
        )
        .section(
            SectionText::activity("logins", "logins")
                .set("batch", "{ rows: 9 }")
                .without("email")
                .field("externalId", "id")
                .field("action", "who")
                .without("weight")
                .without("date")
                .set("date", "receipt"),
        );
    let writer = Writer::start(cluster, &name, dice.fork()).await;
    for kill in &kills {
        let app = App::run(&config);
        trigger.arm(*kill, app.id());
        trigger.wait(&app, *kill, PATIENCE).await;
        app.wait_exit(Duration::from_secs(10)).await;
        oracle.confirmed_is_not_early().await;
    }
    sink.mend();
    let app = App::run(&config);
    writer.stop().await;
    oracle.everything_arrives(&app, &sink).await;
    app.sigterm();
    assert_eq!(app.wait_exit(Duration::from_secs(30)).await, 0, "seed {seed}: a drain\n{}", app.log());
    oracle.confirmed_is_not_early().await;
    let (rows, doubled, quarantined) = oracle.nothing_doubled(&sink).await;
    oracle.audited(&config, &sink).await;
    oracle.clean_up().await;
    eprintln!(
        "seed {seed}: {rows} rows, doubled {doubled} (all in doubt), quarantined {quarantined}, in_doubt: {policy}"
    );
    Tally { seeds: 1, kills: kills.len() as u64, rows, doubled, quarantined }
}

async fn run_all(first: u64, seeds: u64) {
    let cluster = Cluster::builder()
        .setting("max_replication_slots", "30")
        .setting("max_wal_senders", "30")
        .setting("max_connections", "200")
        .start()
        .await;
    let cluster = Arc::new(cluster);
    let turns = Arc::new(Semaphore::new(SIDE_BY_SIDE));
    let mut plans = JoinSet::new();
    for seed in first..first + seeds {
        let (cluster, turns) = (Arc::clone(&cluster), Arc::clone(&turns));
        plans.spawn(async move {
            let _turn = turns.acquire_owned().await.unwrap();
            let ran = tokio::spawn(async move { run(&cluster, seed).await }).await;
            ran.map_err(|error| (seed, error))
        });
    }
    let (mut sum, mut failed) = (Tally::default(), Vec::new());
    while let Some(ran) = plans.join_next().await {
        match ran.unwrap() {
            Ok(tally) => {
                sum.seeds += tally.seeds;
                sum.kills += tally.kills;
                sum.rows += tally.rows;
                sum.doubled += tally.doubled;
                sum.quarantined += tally.quarantined;
            }
            Err((seed, error)) => {
                eprintln!("FAILED: CRASH_SEED={seed}: {error}");
                failed.push(seed);
            }
        }
    }
    eprintln!("crashes: {sum}");
    assert!(failed.is_empty(), "plans failed: {failed:?}; each runs again with CRASH_SEED");
}

#[tokio::test]
async fn case_53_killed_at_named_points_and_random_instants() {
    match number("CRASH_SEED") {
        Some(seed) => run_all(seed, 1).await,
        None => run_all(1, SEEDS).await,
    }
}

#[tokio::test]
#[ignore = "long: make soak SEEDS=500"]
async fn soak_crashes() {
    run_all(number("FIRST").unwrap_or(1_000), number("SEEDS").unwrap_or(500)).await;
}
