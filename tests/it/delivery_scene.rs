//! What the tests of the way out share: a cluster, a stand-in for Planhat, a section, and the books of both sides.

use std::collections::BTreeMap;
use std::time::Duration;

use pg2planhat::testing::sim::{Sim, SimHandle, SimOptions, SinkKind, Stats};

use crate::harness::{App, Cluster, ConfigText, SectionText, eventually};

/// How long anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster with the table `m` (metrics, section `seats`), and a sink.
pub struct Scene {
    pub cluster: Cluster,
    pub sim: SimHandle,
    pub config: ConfigText,
}

/// The section `seats` over the table `m`, as these tests want it.
pub fn seats() -> SectionText {
    SectionText::metric("seats", "m")
}

impl Scene {
    /// With the section as it comes.
    pub async fn new() -> Scene {
        Scene::of(&[seats()]).await
    }

    /// With these sections; the tables `m` (metrics) and `a` (activities) exist.
    pub async fn of(sections: &[SectionText]) -> Scene {
        Scene::on(Cluster::start().await, SimOptions::default(), sections).await
    }

    /// On this cluster, with a sink like this.
    pub async fn on(cluster: Cluster, options: SimOptions, sections: &[SectionText]) -> Scene {
        cluster.sql(&format!("{};{}", SectionText::metric_table("m"), SectionText::activity_table("a"))).await;
        let sim = Sim::start(options).await.unwrap();
        let config = ConfigText::new(&cluster, &sim.url()).set("planhat.halt_probe", "200ms");
        let config = sections.iter().fold(config, |config, section| config.section(section.clone()));
        Scene { cluster, sim, config }
    }

    /// Runs the program and waits until every section streams.
    pub async fn run(&self) -> App {
        let app = App::run(&self.config);
        app.wait_ready().await;
        self.streaming(&app).await;
        app
    }

    /// Waits until every section that is not held up streams.
    pub async fn streaming(&self, app: &App) {
        let all = |status: &serde_json::Value| {
            let sections = status["sections"].as_array()?;
            sections.iter().all(|section| section["state"] == "streaming").then_some(())
        };
        app.wait_status("every section to stream", all).await;
    }

    /// Inserts the metrics `from..=to` in one transaction: `external_id` is `k` and the number, which is the row's `id` too
    /// where nothing else was ever inserted.
    pub async fn insert(&self, from: u64, to: u64) {
        let sql = format!("INSERT INTO m (external_id, value) SELECT 'k' || g, g FROM generate_series({from}, {to}) g");
        self.cluster.sql(&sql).await;
    }

    /// Waits for a state of the sink's counters.
    pub async fn sink(&self, predicate: impl FnMut(&Stats) -> bool) -> Stats {
        self.sim.wait_for(predicate, PATIENCE).await.unwrap()
    }

    /// Waits until the sink has accepted so many metrics.
    pub async fn metrics(&self, items: u64) {
        self.sink(|stats| stats.metrics.items >= items).await;
    }

    /// How often each metric was accepted, by its number.
    pub fn received(&self) -> BTreeMap<u64, u64> {
        received(&self.sim, SinkKind::Metric)
    }

    /// The books: all of `1..=to` accepted exactly once, but for those in `twice`, which were accepted twice, and those in
    /// `never`.
    pub fn assert_received(&self, to: u64, twice: &[u64], never: &[u64]) {
        let expected = |number: &u64| match () {
            () if twice.contains(number) => 2,
            () if never.contains(number) => 0,
            () => 1,
        };
        let received = self.received();
        let wrong = (1..=to).filter_map(|number| {
            let (is, should) = (received.get(&number).copied().unwrap_or(0), expected(&number));
            (is != should).then(|| format!("{number}: {is} times, not {should}"))
        });
        let wrong = wrong.collect::<Vec<_>>();
        assert!(wrong.is_empty(), "{wrong:?}");
        assert!(received.keys().all(|number| (1..=to).contains(number)), "rows that were never inserted");
    }

    /// Waits until a query brings this number.
    pub async fn number(&self, query: &str, wanted: i64) {
        let is = || async { (self.cluster.number(query).await == wanted).then_some(()) };
        eventually(PATIENCE, &format!("{wanted} from {query}"), is).await;
    }

    /// Waits until nothing is under way in the ledger, and gives its outcomes in order.
    pub async fn outcomes(&self) -> Vec<String> {
        self.number("SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'sending'", 0).await;
        self.column("SELECT outcome FROM pg2planhat.delivery ORDER BY id").await
    }

    /// One column of a query.
    pub async fn column(&self, query: &str) -> Vec<String> {
        let rows = self.cluster.rows(query).await;
        rows.into_iter().map(|row| row.into_iter().next().flatten().unwrap_or_default()).collect()
    }

    /// The slot's confirmed position against the durable checkpoint, now: the slot is never past it (I2).
    pub async fn assert_confirmed_behind_checkpoint(&self) {
        let query = "SELECT count(*) FROM pg_replication_slots s, pg2planhat.instance i \
                     WHERE s.slot_name = 'pg2planhat' AND s.confirmed_flush_lsn > i.checkpoint";
        assert_eq!(self.cluster.number(query).await, 0, "the slot is past the checkpoint");
    }

    /// Whether the slot has moved past this LSN.
    pub async fn is_confirmed_past(&self, lsn: &str) -> bool {
        let query = format!("SELECT (confirmed_flush_lsn > '{lsn}')::text FROM pg_replication_slots");
        self.cluster.text(&query).await == "true"
    }

    /// The WAL's end now.
    pub async fn wal(&self) -> String {
        self.cluster.text("SELECT pg_current_wal_insert_lsn()").await
    }
}

/// How often each item was accepted, by the number in its `externalId` (`k17`).
pub fn received(sim: &SimHandle, kind: SinkKind) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    for item in sim.items(kind) {
        let item = item.item();
        let id = item["externalId"].as_str().unwrap_or_else(|| panic!("no externalId: {item}"));
        *counts.entry(number(id)).or_insert(0) += 1;
    }
    counts
}

/// The number in `k17` or `k17-and-more`.
fn number(id: &str) -> u64 {
    let digits = id.trim_start_matches('k');
    let digits = digits.split('-').next().unwrap_or_default();
    digits.parse().unwrap_or_else(|_| panic!("not one of ours: {id}"))
}

/// What `status` says of one section.
pub fn of_section<'a>(status: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let sections = status["sections"].as_array().unwrap();
    sections.iter().find(|section| section["name"] == name).unwrap()
}
