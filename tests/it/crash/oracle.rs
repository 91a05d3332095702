//! What must be true: the keys in the tables against those at the sink and in quarantine, and the ledger's word on doubles.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, SimpleQueryMessage};

use super::sink::Sink;
use crate::harness::{App, Cluster, ConfigText, eventually};

const SECTIONS: [&str; 2] = ["seats", "logins"];

pub struct Oracle<'a> {
    cluster: &'a Cluster,
    /// The plan's database, which its slot is named after.
    name: String,
    client: Client,
}

impl Oracle<'_> {
    pub async fn new<'a>(cluster: &'a Cluster, name: &str) -> Oracle<'a> {
        Oracle { cluster, name: name.to_owned(), client: cluster.client_of(name).await }
    }

    /// Runs statements in the plan's database.
    pub async fn sql(&self, statements: &str) {
        self.client.batch_execute(statements).await.unwrap();
    }

    /// The first column of a query, as text.
    async fn texts(&self, query: &str) -> Vec<String> {
        let messages = self.client.simple_query(query).await.unwrap_or_else(|error| panic!("{query}\n{error:?}"));
        let text = |message| {
            let SimpleQueryMessage::Row(row) = message else { return None };
            row.get(0).map(str::to_owned)
        };
        messages.into_iter().filter_map(text).collect()
    }

    async fn keys(&self, query: &str) -> Vec<i64> {
        self.texts(query).await.iter().map(|key| key.parse().unwrap()).collect()
    }

    async fn quarantined(&self, section: &str) -> Vec<i64> {
        self.keys(&format!("SELECT key FROM pg2planhat.quarantine WHERE section = '{section}'")).await
    }

    /// I2: the slot is not past the durable checkpoint.
    pub async fn confirmed_is_not_early(&self) {
        let there = "SELECT 1 FROM pg_tables WHERE schemaname = 'pg2planhat' AND tablename = 'instance'";
        if self.texts(there).await.is_empty() {
            return;
        }
        let early = format!(
            "SELECT s.confirmed_flush_lsn || ' > ' || i.checkpoint FROM pg_replication_slots s, pg2planhat.instance i
             WHERE s.slot_name = '{}' AND s.confirmed_flush_lsn > i.checkpoint",
            self.name
        );
        let early = self.texts(&early).await;
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
                let keys = self.keys(&format!("SELECT id FROM {section}")).await;
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
        let open = "SELECT (SELECT count(*) FROM pg2planhat.delivery WHERE outcome IN ('sending', 'in_doubt'))
                + (SELECT count(*) FROM pg2planhat.section WHERE phase <> 'streaming')";
        self.keys(open).await == [0]
    }

    /// I3 and I4: what came twice was in batches that the ledger names in doubt, and nothing came that is not in the table.
    /// Returns how many rows there are, how many came twice, and how many are in quarantine.
    pub async fn nothing_doubled(&self, sink: &Sink) -> (u64, u64, u64) {
        let (mut rows, mut doubled, mut quarantined) = (0, 0, 0);
        for section in SECTIONS {
            let seen = sink.seen(section);
            let keys: BTreeSet<i64> = self.keys(&format!("SELECT id FROM {section}")).await.into_iter().collect();
            let mut settled: HashMap<i64, u32> = seen.stored.clone();
            for key in self.quarantined(section).await {
                *settled.entry(key).or_default() += 1;
                quarantined += 1;
            }
            let ledger = format!(
                "SELECT first_key || ' ' || last_key || ' ' || rows FROM pg2planhat.delivery
                 WHERE section = '{section}' AND outcome IN ('in_doubt', 'resent', 'held')"
            );
            let mut doubts: HashMap<String, u32> = HashMap::new();
            for batch in self.texts(&ledger).await {
                *doubts.entry(batch).or_default() += 1;
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

    /// The auditor, audited: it says of each row what the sink's truth says, and names a row that is forgotten then.
    pub async fn audited(&self, config: &ConfigText, sink: &Sink) {
        let audit = async || {
            let output = App::command(config, &["--json", "audit", "--all"]).await;
            let reports: Vec<serde_json::Value> =
                serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{}: {}", self.name, output.stderr));
            reports
        };
        for report in audit().await {
            let section = report["section"].as_str().unwrap();
            let of = |field: &str| report[field].as_u64().unwrap();
            let rows = self.keys(&format!("SELECT id FROM {section}")).await.len() as u64;
            let settled = of("rows_settled") + of("in_doubt");
            assert_eq!((of("rows_source"), settled), (rows, rows), "{}: {report}", self.name);
            let wrong = ["missing", "unknown", "doubled", "gone", "waiting"].map(of);
            assert_eq!(wrong, [0; 5], "{}: {report}", self.name);
            let stored = sink.seen(section).stored.len() as u64;
            assert!(of("delivered") <= stored, "{}: {stored} rows were stored: {report}", self.name);
        }
        // One row that was delivered by itself alone and settled long ago loses its batch.
        let last = "SELECT d.id || ' ' || d.section || ' ' || d.first_key FROM pg2planhat.delivery d
            WHERE d.outcome = 'delivered' AND d.rows = 1 AND d.phase IN ('stream', 'backfill')
                AND NOT EXISTS (SELECT FROM pg2planhat.delivery o WHERE o.section = d.section AND o.outcome <> 'delivered')
            ORDER BY d.id LIMIT 1";
        let Some(one) = self.texts(last).await.pop() else { return };
        let [id, section, key] = one.split(' ').collect::<Vec<_>>()[..] else { panic!("{one}") };
        let forget = format!(
            "DELETE FROM pg2planhat.delivery_keys WHERE delivery = {id}; DELETE FROM pg2planhat.delivery WHERE id = {id};
             DELETE FROM pg2planhat.tally WHERE section = '{section}'"
        );
        self.sql(&forget).await;
        let reports = audit().await;
        let report = reports.iter().find(|report| report["section"] == section).unwrap();
        // Of a transaction that the last floor does not reach yet, nobody can know.
        let told = (report["missing_keys"].to_string(), report["waiting"].as_u64());
        assert!(
            told == (format!("[\"{key}\"]"), Some(0)) || told == ("[]".to_owned(), Some(1)),
            "{}: {report}",
            self.name
        );
    }

    /// Leaves the server as it was.
    pub async fn clean_up(&self) {
        let name = &self.name;
        let active = format!("SELECT 1 FROM pg_replication_slots WHERE slot_name = '{name}' AND active");
        let left = || async { self.texts(&active).await.is_empty().then_some(()) };
        eventually(Duration::from_secs(10), "the slot to be let go", left).await;
        self.sql(&format!("SELECT pg_drop_replication_slot('{name}')")).await;
        self.cluster.sql(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
    }
}
