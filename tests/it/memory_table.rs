//! The table of memory: each input that once grew without a bound, at `memory: 64MiB`, in a cgroup of 192 MiB.
//!
//! `cargo test --test it -- --ignored --nocapture soak_memory_table`; with `PG2PLANHAT_TEST_PROGRAM` another build stands in the
//! table instead. Where there is no cgroup to be had, VmHWM alone is watched, and the table says so.

use std::cell::Cell;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pg2planhat::testing::sim::{Keep, SimFault, SimOptions};

use crate::delivery_scene::{Scene, seats};
use crate::harness::metrics::Metrics;
use crate::harness::{App, Cluster, SectionText};

const MIB: u64 = 1 << 20;
/// The cgroup's bound: what the manifests give for `memory: 64MiB`.
const BOUND: u64 = 192 * MIB;
/// The longest that one input may take.
const LONG: Duration = Duration::from_secs(150);

/// A cgroup of its own; version 2 or 1, whichever this machine lets us have.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Option<Cgroup> {
        let name = format!("pg2planhat-{}-{name}", std::process::id());
        for (root, bound) in [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")] {
            let path = Path::new(root).join(&name);
            // A directory of another kind takes any file, and bounds nothing.
            if !Path::new(root).join("cgroup.procs").exists() || std::fs::create_dir(&path).is_err() {
                continue;
            }
            let group = Cgroup(path);
            if std::fs::write(group.0.join(bound), BOUND.to_string()).is_ok() {
                return Some(group);
            }
        }
        None
    }

    /// The most that it ever held, its files in memory among it.
    fn most(&self) -> Option<u64> {
        let read = |file: &str| std::fs::read_to_string(self.0.join(file)).ok()?.trim().parse().ok();
        read("memory.peak").or_else(|| read("memory.max_usage_in_bytes"))
    }

    fn take(&self, app: &App) {
        std::fs::write(self.0.join("cgroup.procs"), app.id().to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its process has ended, and the kernel has not taken notice yet.
        for _ in 0..50 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// An input whose size says something, in percent of the usual: `SCALE=1000` is ten times as much.
fn scaled(usual: u64) -> u64 {
    usual * std::env::var("SCALE").map_or(100, |percent| percent.parse::<u64>().unwrap()) / 100
}

/// One line of the table, while its input is given.
struct Measured {
    scene: Scene,
    app: App,
    group: Option<Cgroup>,
    begun: Instant,
    /// The most that was ever seen, of it and of what it says that it holds.
    seen: Cell<(u64, f64)>,
}

impl Measured {
    async fn begin(name: &str, scene: Scene) -> Measured {
        let scene = Scene { config: scene.config.set("memory", "64MiB"), ..scene };
        let app = App::run(&scene.config);
        let group = Cgroup::new(name);
        if let Some(group) = &group {
            group.take(&app);
        }
        app.wait_ready().await;
        Measured { scene, app, group, begun: Instant::now(), seen: Cell::default() }
    }

    fn peak(&self) -> u64 {
        if self.app.is_running() { self.app.rss() } else { u64::MAX }
    }

    /// Looks at what it holds now: where it is killed, nobody can ask it any more.
    async fn look(&self) {
        if self.app.is_running() {
            let (most, buffered) = self.seen.get();
            let now = self.app.get("/metrics").await.map(|answer| Metrics::parse(&answer.body)).ok();
            let now = now.and_then(|metrics| metrics.get("buffered_bytes", &[])).unwrap_or_default();
            let held = if self.app.is_running() { self.app.rss() } else { 0 };
            self.seen.set((most.max(held), buffered.max(now)));
        }
    }

    /// The most that was held before the input, and the most by its end.
    fn end(self, case: &str, input: &str, before: u64, table: &mut String) {
        let (peak, seconds) = (self.peak(), self.begun.elapsed().as_secs());
        let (seen, buffered) = self.seen.get();
        let held = match peak {
            u64::MAX => format!("killed (at more than {} MiB)", seen / MIB),
            peak => format!("{} MiB", peak / MIB),
        };
        let most = self.group.as_ref().map(|group| group.most().map(|most| most / MIB));
        let bound = match most {
            Some(Some(most)) => format!(", its cgroup {most} MiB"),
            Some(None) => ", its cgroup unknown".to_owned(),
            None => ", no cgroup".to_owned(),
        };
        let before = before / MIB;
        writeln!(
            table,
            "| {case} | {input} | {before} MiB | {held}{bound} | {:.0} MiB | {seconds} s |",
            buffered / MIB as f64
        )
        .unwrap();
        eprintln!("{table}");
        assert!(peak < BOUND || std::env::var_os("PG2PLANHAT_TEST_PROGRAM").is_some(), "{table}\n{}", self.app.log());
    }
}

async fn scene(sections: &[SectionText], keep: Keep) -> Scene {
    let options = SimOptions { keep, ..SimOptions::default() };
    Scene::on(Cluster::start().await, options, sections).await
}

/// Waits until `done`, or until the program has ended.
async fn until(measured: &Measured, mut done: impl AsyncFnMut() -> bool) -> bool {
    let begun = Instant::now();
    while measured.app.is_running() && begun.elapsed().as_secs() < scaled(LONG.as_secs()).max(LONG.as_secs()) {
        if done().await {
            return true;
        }
        measured.look().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    false
}

/// Waits until the stream has been read up to where the WAL ends now, or for long.
async fn read_on(measured: &Measured) {
    let end = measured.scene.wal().await;
    let sent = format!("SELECT count(*) FROM pg_stat_replication WHERE sent_lsn >= '{end}'");
    until(measured, async || measured.scene.cluster.number(&sent).await > 0).await;
}

async fn stuck_section(table: &mut String) {
    let measured =
        Measured::begin("80", scene(&[seats(), SectionText::activity("logins", "a")], Keep::Counts).await).await;
    let pause = App::launch(&measured.scene.config).beside(&measured.app).arguments(&["pause", "seats"]);
    assert_eq!(pause.output().await.code, 0);
    measured.scene.insert(1, 1).await;
    let before = measured.peak();
    // Of a table that is published: a server sends no other commits.
    let commits = "DO $$ BEGIN FOR i IN 1..100000 LOOP
        INSERT INTO a (user_id, action, weight) VALUES ('k', 'login', 1); COMMIT; END LOOP; END $$";
    let writer = measured.scene.cluster.client().await;
    writer.batch_execute("SET synchronous_commit = off").await.unwrap();
    // Not faster than they are delivered: what waits for the sink is another matter.
    let parts = scaled(25);
    for part in 1..=parts {
        writer.batch_execute(commits).await.unwrap();
        until(&measured, async || measured.scene.sim.stats().activities.items >= part * 100_000).await;
    }
    let input = format!("{} commits of one row beside a section that is paused with one row", parts * 100_000);
    measured.end("80", &input, before, table);
}

async fn streamed_keys(table: &mut String) {
    let section = SectionText::metric("seats", "by_time").set("key", "at");
    let scene = scene(&[section], Keep::Counts).await;
    scene.cluster.sql(
        "CREATE TABLE by_time (at timestamptz PRIMARY KEY, external_id text NOT NULL, value numeric, created_at timestamptz NOT NULL DEFAULT now());
         INSERT INTO by_time SELECT 'epoch'::timestamptz + g * interval '1 ms', 'k' || g, g FROM generate_series(1, 1000) g",
    ).await;
    let measured = Measured::begin("81", scene).await;
    until(&measured, async || measured.scene.sim.stats().metrics.items >= 1000).await;
    // A re-sync waits for the transaction, and meanwhile remembers what the stream brings.
    let idle = measured.scene.cluster.client().await;
    idle.batch_execute("BEGIN; CREATE TABLE held ()").await.unwrap();
    let resync =
        App::launch(&measured.scene.config).beside(&measured.app).arguments(&["resync", "seats", "--all", "--yes"]);
    let _resync = resync.start();
    let waits = async || measured.app.status().await["sections"][0]["state"] == "backfilling";
    until(&measured, waits).await;
    let before = measured.peak();
    for part in 0..20 {
        let rows = format!(
            "INSERT INTO by_time SELECT 'epoch'::timestamptz + (10000 + {part} * 50000 + g) * interval '1 ms', 'k' || g, g FROM generate_series(1, 50000) g"
        );
        measured.scene.cluster.sql(&rows).await;
        read_on(&measured).await;
    }
    measured.end(
        "81",
        "1,000,000 rows with a timestamp as key, streamed while a transaction holds a re-sync up",
        before,
        table,
    );
}

async fn chunks_without_state(table: &mut String) {
    let scene = scene(&[seats()], Keep::Counts).await;
    // Nine of ten are no items: they wait for no sink, only for the state.
    let rows = scaled(100_000);
    scene.cluster.sql(&format!("INSERT INTO m (external_id, value) SELECT 'k' || g || '-' || repeat('x', 4000), CASE g % 10 WHEN 0 THEN g END FROM generate_series(1, {rows}) g")).await;
    let measured = Measured::begin("82", scene).await;
    let before = measured.peak();
    let locker = measured.scene.cluster.client().await;
    locker.batch_execute("BEGIN; LOCK TABLE pg2planhat.quarantine").await.unwrap();
    let begun = Instant::now();
    until(&measured, async || begun.elapsed() > Duration::from_secs(20)).await;
    locker.batch_execute("ROLLBACK").await.unwrap();
    until(&measured, async || measured.scene.sim.stats().metrics.items >= rows / 10).await;
    let input = format!(
        "a backfill of {} MB, nine of ten rows refused by the mapping, while the quarantine cannot be written for 20 s",
        rows / 250
    );
    measured.end("82", &input, before, table);
}

async fn one_refusal(table: &mut String) {
    let section = seats().set("batch", "{ rows: 100000, bytes: 8MiB }").set("flush", "2s");
    let measured = Measured::begin("83", scene(&[section], Keep::Items).await).await;
    let before = measured.peak();
    measured.scene.sim.queue_fault(SimFault::RefuseFirst { count: 1, error: "no".into() }.times(0));
    // Many and small: as values of the program they are many times as large as their text.
    measured.scene.insert(1, 400_000).await;
    until(&measured, async || measured.scene.sim.stats().metrics.items >= 399_000).await;
    assert!(measured.scene.sim.stats().metrics.refused > 0, "nothing was refused");
    measured.end("83", "400,000 small items in batches of 8 MiB, one of each refused", before, table);
}

async fn large_retry(table: &mut String) {
    let section = seats().set("batch", "{ rows: 200, bytes: 8MiB }");
    let measured = Measured::begin("84", scene(&[section], Keep::Counts).await).await;
    // Mandatory, and NULL but for each tenth: ten in a row would halt the section.
    measured
        .scene
        .cluster
        .sql(
            "INSERT INTO m (external_id, value) SELECT 'k' || g || '-' || repeat('x', 2500000), CASE g % 10 WHEN 0 THEN g END FROM generate_series(1, 222) g",
        )
        .await;
    let kept = "SELECT count(*) FROM pg2planhat.quarantine";
    until(&measured, async || measured.scene.cluster.number(kept).await >= 200).await;
    let before = measured.peak();
    measured.scene.cluster.sql("UPDATE m SET value = id").await;
    let retry =
        App::launch(&measured.scene.config).beside(&measured.app).arguments(&["quarantine", "retry", "--all", "--yes"]);
    let retrying = retry.start();
    until(&measured, async || measured.scene.cluster.number(kept).await == 0).await;
    drop(retrying);
    let left = measured.scene.cluster.number(kept).await;
    let input = format!("`quarantine retry` of 200 rows of 2.5 MB: {left} left");
    measured.end("84", &input, before, table);
}

async fn old_ledger(table: &mut String) {
    let scene = scene(&[seats()], Keep::Counts).await;
    let app = App::run(&scene.config);
    app.wait_ready().await;
    app.sigterm();
    app.wait_exit(Duration::from_secs(20)).await;
    scene.cluster.sql(
        "INSERT INTO pg2planhat.delivery (id, section, phase, rows, bytes, first_key, last_key, outcome, under_way, attempts, started_at, epoch, changed)
         SELECT -g, 'seats', 'stream', 1, 1, '1', '1', 'delivered', false, 1, now() - interval '40 days', 0, 0 FROM generate_series(1, 300000) g",
    ).await;
    let measured = Measured::begin("85", scene).await;
    let before = measured.peak();
    let pruned =
        until(&measured, async || measured.scene.cluster.number("SELECT count(*) FROM pg2planhat.delivery").await == 0)
            .await;
    let input = format!(
        "300,000 batches older than `keep_deliveries`: {}",
        if pruned { "all pruned" } else { "not pruned in 120 s" }
    );
    measured.end("85", &input, before, table);
}

#[tokio::test]
#[ignore = "long: the table of memory"]
async fn soak_memory_table() {
    let mut table =
        "| case | input | VmHWM before it | after it | most buffered | took |\n|---|---|---|---|---|---|\n".to_owned();
    let only = std::env::var("ONLY").unwrap_or_default();
    let is_asked = |case: &str| only.is_empty() || only.split(',').any(|asked| asked == case);
    if is_asked("80") {
        stuck_section(&mut table).await;
    }
    if is_asked("81") {
        streamed_keys(&mut table).await;
    }
    if is_asked("82") {
        chunks_without_state(&mut table).await;
    }
    if is_asked("83") {
        one_refusal(&mut table).await;
    }
    if is_asked("84") {
        large_retry(&mut table).await;
    }
    if is_asked("85") {
        old_ledger(&mut table).await;
    }
    eprintln!("{table}");
}
