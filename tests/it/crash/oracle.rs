//! What must be true: the keys in the tables against those at the sink and in quarantine, and the ledger's word on doubles.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::sink::Sink;
use crate::harness::{App, Cluster};

const SECTIONS: [&str; 2] = ["seats", "logins"];

pub struct Oracle<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl Oracle<'_> {
    pub fn new<'a>(cluster: &'a Cluster, name: &str) -> Oracle<'a> {
        Oracle { cluster, name: name.to_owned() }
    }

    async fn keys(&self, query: &str) -> Vec<i64> {
        let rows = self.cluster.rows(query).await;
        rows.into_iter().map(|row| row[0].as_deref().unwrap().parse().unwrap()).collect()
    }

    async fn quarantined(&self, section: &str) -> Vec<i64> {
        self.keys(&format!("SELECT key FROM {}_state.quarantine WHERE section = '{section}'", self.name)).await
    }

    /// I2: the slot is not past the durable checkpoint.
    pub async fn confirmed_is_not_early(&self) {
        let there = format!(
            "SELECT count(*) FROM pg_tables WHERE schemaname = '{}_state' AND tablename = 'instance'",
            self.name
        );
        if self.cluster.number(&there).await == 0 {
            return;
        }
        let early = format!(
            "SELECT s.confirmed_flush_lsn || ' > ' || i.checkpoint FROM pg_replication_slots s, {0}_state.instance i
             WHERE s.slot_name = '{0}' AND s.confirmed_flush_lsn > i.checkpoint",
            self.name
        );
        let early = self.cluster.rows(&early).await;
        assert!(early.is_empty(), "I2: {}: confirmed before the checkpoint: {early:?}", self.name);
    }

    /// I1: every key of the tables is at the sink or in quarantine, in the end.
    pub async fn everything_arrives(&self, app: &App, sink: &Sink) {
        let began = Instant::now();
        loop {
            let mut missing = Vec::new();
            for section in SECTIONS {
                let stored = sink.seen(section).stored;
                let held: BTreeSet<i64> = match began.elapsed() < Duration::from_millis(100) {
                    true => BTreeSet::new(),
                    false => self.quarantined(section).await.into_iter().collect(),
                };
                let keys = self.keys(&format!("SELECT id FROM {}.{section}", self.name)).await;
                missing.extend(
                    keys.into_iter()
                        .filter(|key| !stored.contains_key(key) && !held.contains(key))
                        .map(|key| (section, key)),
                );
            }
            if missing.is_empty() && self.is_settled().await {
                return;
            }
            assert!(app.is_running(), "{}: the program has ended:\n{}", self.name, app.log());
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "I1: {}: missing {} rows: {:?}\n{}",
                self.name,
                missing.len(),
                &missing[..missing.len().min(30)],
                app.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// No batch is under way, no range is being read.
    async fn is_settled(&self) -> bool {
        let open = format!(
            "SELECT (SELECT count(*) FROM {0}_state.delivery WHERE outcome IN ('sending', 'in_doubt'))
                + (SELECT count(*) FROM {0}_state.section WHERE phase <> 'streaming')",
            self.name
        );
        self.cluster.number(&open).await == 0
    }

    /// I3 and I4: what came twice was in batches that the ledger names in doubt, and nothing came that is not in the table.
    /// Returns how many rows there are, how many came twice, and how many are in quarantine.
    pub async fn nothing_doubled(&self, sink: &Sink) -> (u64, u64, u64) {
        let (mut rows, mut doubled, mut quarantined) = (0, 0, 0);
        for section in SECTIONS {
            let seen = sink.seen(section);
            let keys: BTreeSet<i64> =
                self.keys(&format!("SELECT id FROM {}.{section}", self.name)).await.into_iter().collect();
            let mut settled: HashMap<i64, u32> = seen.stored.clone();
            for key in self.quarantined(section).await {
                *settled.entry(key).or_default() += 1;
                quarantined += 1;
            }
            let ledger = format!(
                "SELECT first_key || ' ' || last_key || ' ' || rows FROM {}_state.delivery
                 WHERE section = '{section}' AND outcome IN ('in_doubt', 'resent', 'held')",
                self.name
            );
            let mut doubts: HashMap<String, u32> = HashMap::new();
            for row in self.cluster.rows(&ledger).await {
                *doubts.entry(row[0].clone().unwrap()).or_default() += 1;
            }
            let mut allowed: HashMap<i64, u32> = HashMap::new();
            let requests: BTreeSet<&Vec<i64>> = seen.requests.iter().collect();
            for request in requests {
                let batch = format!("{} {} {}", request[0], request[request.len() - 1], request.len());
                if let Some(times) = doubts.get(&batch) {
                    request.iter().for_each(|key| *allowed.entry(*key).or_default() += times);
                }
            }
            for (key, times) in settled {
                assert!(keys.contains(&key), "I4: {}: {section} {key} is not in the table", self.name);
                let allowed = 1 + allowed.get(&key).copied().unwrap_or(0);
                assert!(
                    times <= allowed,
                    "I3: {}: {section} {key} came {times} times, {allowed} are explained",
                    self.name
                );
                doubled += u64::from(times - 1);
            }
            rows += keys.len() as u64;
        }
        (rows, doubled, quarantined)
    }

    /// Leaves the server as it was.
    pub async fn clean_up(&self) {
        let name = &self.name;
        self.cluster
            .sql(&format!(
                "SELECT pg_drop_replication_slot('{name}'); DROP PUBLICATION {name};
                 DROP SCHEMA {name} CASCADE; DROP SCHEMA {name}_state CASCADE"
            ))
            .await;
    }
}
