//! What the tests of the way in share: a cluster with one table, a sink, and the comparison of the two.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pg2planhat::testing::sim::{Sim, SimHandle, SimOptions, SinkKind};

use crate::harness::cluster::Builder;
use crate::harness::{App, Cluster, ConfigText, SectionText, eventually};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// A cluster with the table `m`, whose keys arrive as the items' `value`, and a sink.
pub struct Scene {
    pub cluster: Cluster,
    pub sim: SimHandle,
    pub config: ConfigText,
}

/// The section `m` over the table `m`.
pub fn section() -> SectionText {
    SectionText::metric("m", "m").field("value", "id")
}

impl Scene {
    /// As it comes.
    pub async fn new() -> Scene {
        Scene::on(Cluster::builder()).await
    }

    /// On such a cluster.
    pub async fn on(builder: Builder) -> Scene {
        Scene::at(builder.start().await).await
    }

    /// On this cluster.
    pub async fn at(cluster: Cluster) -> Scene {
        cluster.sql(&SectionText::metric_table("m")).await;
        let sim = Sim::start(SimOptions::default()).await.unwrap();
        let config = ConfigText::new(&cluster, &sim.url()).section(section());
        Scene { cluster, sim, config }
    }

    /// Starts the program, and waits until it streams.
    pub async fn run(&self) -> App {
        let app = App::run(&self.config);
        self.streaming(&app).await;
        app
    }

    /// Waits until the section streams and the program is ready.
    pub async fn streaming(&self, app: &App) {
        app.wait_ready().await;
        let streaming = |status: &serde_json::Value| (status["sections"][0]["state"] == "streaming").then_some(());
        app.wait_status("the section to stream", streaming).await;
    }

    /// Inserts so many rows in one transaction.
    pub async fn insert(&self, rows: u32) {
        let sql = format!("INSERT INTO m (external_id, value) SELECT 'c' || g, g FROM generate_series(1, {rows}) g");
        self.cluster.sql(&sql).await;
    }

    /// How often each key was accepted.
    pub fn accepted(&self) -> BTreeMap<i64, u32> {
        let mut counts = BTreeMap::new();
        for item in self.sim.items(SinkKind::Metric) {
            let key = item.item()["value"].as_i64().expect("a key");
            *counts.entry(key).or_default() += 1;
        }
        counts
    }

    /// The keys in the table now.
    pub async fn keys(&self) -> BTreeSet<i64> {
        let rows = self.cluster.rows("SELECT id FROM m ORDER BY id").await;
        rows.into_iter().map(|row| row[0].as_ref().unwrap().parse().unwrap()).collect()
    }

    /// Waits until every key of the table was accepted.
    pub async fn delivered(&self) {
        let keys = self.keys().await;
        let all = |_: &pg2planhat::testing::sim::Stats| {
            let accepted = self.accepted();
            keys.iter().all(|key| accepted.contains_key(key))
        };
        if self.sim.wait_for(all, PATIENCE).await.is_err() {
            let accepted = self.accepted();
            let missing: Vec<_> = keys.iter().filter(|key| !accepted.contains_key(key)).take(20).collect();
            panic!("missing at the sink: {missing:?}, of {} keys", keys.len());
        }
    }

    /// Waits until every key was accepted, then: none twice, and nothing that is not in the table.
    pub async fn exact(&self) {
        self.delivered().await;
        let (keys, accepted) = (self.keys().await, self.accepted());
        let doubled: Vec<_> = accepted.iter().filter(|(_, times)| **times > 1).take(20).collect();
        assert!(doubled.is_empty(), "doubled at the sink: {doubled:?}");
        let strange: Vec<_> = accepted.keys().filter(|key| !keys.contains(key)).take(20).collect();
        assert!(strange.is_empty(), "never committed: {strange:?}");
    }

    /// As [`Scene::exact`], but rows of batches that the ledger names as in doubt may have come twice.
    pub async fn exact_but_in_doubt(&self) {
        self.delivered().await;
        let doubted = self
            .cluster
            .rows("SELECT first_key, last_key FROM pg2planhat.delivery WHERE outcome IN ('in_doubt', 'resent', 'held')")
            .await;
        let number = |text: &Option<String>| text.as_ref().unwrap().parse::<i64>().unwrap();
        let doubted: Vec<_> = doubted.iter().map(|row| number(&row[0])..=number(&row[1])).collect();
        for (key, times) in self.accepted() {
            assert!(
                times == 1 || doubted.iter().any(|range| range.contains(&key)),
                "{key} came {times} times: {doubted:?}"
            );
        }
    }

    /// Waits until the slot has been confirmed up to where the WAL ends now.
    pub async fn confirmed(&self) {
        let end = self.cluster.text("SELECT pg_current_wal_insert_lsn()").await;
        self.confirmed_to(&end).await;
    }

    /// Waits until the slot has been confirmed up to `lsn`.
    pub async fn confirmed_to(&self, lsn: &str) {
        let sql = format!("SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn >= '{lsn}'");
        let reached = || async { (self.cluster.number(&sql).await > 0).then_some(()) };
        // Something must move the WAL past it, and then every three seconds a checkpoint follows it.
        self.cluster.sql("SELECT pg_logical_emit_message(false, 'test', repeat('x', 2000))").await;
        eventually(PATIENCE, "the slot to be confirmed", reached).await;
    }

    /// The walsender of the slot; 0 where there is none.
    pub async fn walsender(&self) -> i64 {
        self.cluster.number("SELECT coalesce(max(active_pid), 0) FROM pg_replication_slots").await
    }

    /// Ends the walsender and does something to the slot before it can be taken again.
    pub async fn with_the_slot_free(&self, sql: &str) {
        let statement = format!(
            "DO $$ BEGIN
               FOR i IN 1..2000 LOOP
                 BEGIN
                   PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active_pid IS NOT NULL;
                   {sql};
                   RETURN;
                 EXCEPTION WHEN object_in_use THEN PERFORM pg_sleep(0.005);
                 END;
               END LOOP;
               RAISE EXCEPTION 'the slot was never free';
             END $$"
        );
        self.cluster.sql(&statement).await;
    }

    /// The reason's word in the row of the instance.
    pub async fn recorded_reason(&self) -> String {
        self.cluster.text("SELECT coalesce(reason, '') FROM pg2planhat.instance").await
    }

    /// The reasons of the gaps that are open.
    pub async fn gaps(&self) -> Vec<String> {
        let rows = self.cluster.rows("SELECT reason FROM pg2planhat.gap WHERE closed_at IS NULL ORDER BY id").await;
        rows.into_iter().map(|mut row| row.remove(0).unwrap()).collect()
    }

    /// The program ends with 75 within 15 s, and says why in its log, and in the instance's row.
    pub async fn needs_person(&self, app: &App, reason: &str) {
        assert_eq!(app.wait_exit(Duration::from_secs(15)).await, 75, "{}", app.log());
        let log = app.log();
        assert!(log.contains(reason), "the log does not name {reason}:\n{log}");
        assert!(log.contains("repair"), "no remedy:\n{log}");
        assert_eq!(self.recorded_reason().await, reason);
    }
}
