//! The proof, for people and for machines.
//!
//! * In: what was counted and compared.
//! * Out: a few lines, or one JSON document.
//! * Never: "nothing lost" where a key is missing, doubled, or was never committed.

use serde::Serialize;
use serde_json::{Value, json};

use crate::demo::cluster::SlotPosition;
use crate::demo::reconcile::{Lateness, Reconciliation};
use crate::demo::streamer::AuditFound;
use crate::demo::view::seconds;
use crate::terminal::count;

/// Keys that are named, at most.
const NAMED: usize = 20;

/// The figures of the final report.
#[derive(Clone, Debug)]
pub(crate) struct DemoReport {
    /// The server's version.
    pub server: String,
    /// How long the writers wrote.
    pub seconds: f64,
    /// Rows before it began.
    pub old: u64,
    /// How long the backfill took; `None` where it did not end.
    pub backfill_seconds: Option<f64>,
    /// Rows committed meanwhile.
    pub written: u64,
    /// Rows taken back meanwhile.
    pub rolled_back: u64,
    /// Transactions held open on purpose.
    pub held: u64,
    /// The audit of each section: its table against what the program says it settled.
    pub audits: Vec<AuditFound>,
    /// The stand-in's word, which no audit can have: each table's keys against those that it received.
    pub verdicts: Vec<Reconciliation>,
    /// Items that no row can have given.
    pub unnamed: u64,
    /// Rows in quarantine.
    pub quarantined: u64,
    /// Requests that the stand-in accepted.
    pub batches: u64,
    /// How late rows were.
    pub late: Lateness,
    /// Where the slot stands.
    pub slot: SlotPosition,
    /// The end of the last transaction that wrote a row.
    pub end: String,
    /// Where it did not drain: why.
    pub not_drained: Option<String>,
}

impl DemoReport {
    fn sum(&self, of: impl Fn(&Reconciliation) -> usize) -> u64 {
        self.verdicts.iter().map(|verdict| of(verdict) as u64).sum()
    }

    fn missing(&self) -> u64 {
        self.sum(|verdict| verdict.missing.len())
    }

    fn doubled(&self) -> u64 {
        self.sum(|verdict| verdict.doubled.len())
    }

    fn uncommitted(&self) -> u64 {
        self.sum(|verdict| verdict.uncommitted.len()) + self.unnamed
    }

    /// Whether the promise was kept.
    pub(crate) fn kept(&self) -> bool {
        let keys = self.missing() == 0 && self.doubled() == 0 && self.uncommitted() == 0;
        let audited = !self.audits.is_empty() && self.audits.iter().all(AuditFound::is_whole);
        keys && audited && self.slot.reached && self.not_drained.is_none()
    }

    /// For people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![String::new(), "Proof: `pg2planhat audit --all`".to_owned()];
        for audit in &self.audits {
            lines.push(format!(
                "  {:<13}source {:>9} · settled   {:>9} · missing {} · doubled {} · looked at in {:.1} s",
                audit.section,
                count(audit.rows_source),
                count(audit.rows_settled),
                audit.missing,
                audit.doubled,
                std::time::Duration::from_millis(audit.took_ms).as_secs_f64()
            ));
            let keys = audit.missing_keys.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
            lines.extend((audit.missing > 0).then(|| format!("    missing: {keys}")));
        }
        lines.push("And the stand-in's word: the keys in the source, held against those that it received".to_owned());
        for verdict in &self.verdicts {
            lines.push(format!(
                "  {:<13}source {:>9} · delivered {:>9} · missing {} · doubled {} · never committed {}",
                verdict.table,
                count(verdict.source),
                count(verdict.delivered),
                verdict.missing.len(),
                verdict.doubled.len(),
                verdict.uncommitted.len()
            ));
            for (what, keys) in [
                ("missing", &verdict.missing),
                ("doubled", &verdict.doubled),
                ("never committed", &verdict.uncommitted),
            ] {
                lines.extend(named(what, keys));
            }
        }
        lines.push(format!(
            "  written      {} rows in {:.0} s beside {} old ones; {} rolled back; {} transactions held open",
            count(self.written),
            self.seconds,
            count(self.old),
            count(self.rolled_back),
            count(self.held)
        ));
        if let Some(took) = self.backfill_seconds {
            lines.push(format!("  backfill     {took:.1} s"));
        }
        lines.push(format!(
            "  late         p50 {} · p99 {} · at most {}, from COMMIT to the stand-in, over {} rows",
            seconds(self.late.p50),
            seconds(self.late.p99),
            seconds(self.late.max),
            count(self.late.rows)
        ));
        lines.push(format!("  batches      {} · rows in quarantine {}", count(self.batches), count(self.quarantined)));
        let confirmed = self.slot.confirmed.as_deref().unwrap_or("nowhere");
        let stands = if self.slot.reached { "at or past" } else { "NOT YET at" };
        lines.push(format!("  slot         confirmed {confirmed}, {stands} the last row's end {}", self.end));
        lines.extend(self.not_drained.iter().map(|why| format!("  streamer     {why}")));
        lines.push(if self.kept() {
            format!("Every row exactly once: missing 0, doubled 0 of {}.", count(self.old + self.written))
        } else {
            format!("THE PROMISE WAS NOT KEPT: missing {}, doubled {}.", self.missing(), self.doubled())
        });
        lines
    }

    /// For machines.
    pub(crate) fn document(&self) -> Value {
        let tables: Vec<Value> = self.verdicts.iter().map(table).collect();
        let rate = self.backfill_seconds.filter(|took| *took > 0.0).map(|took| (self.old as f64 / took).round());
        json!({
            "kept": self.kept(),
            "missing": self.missing(),
            "doubled": self.doubled(),
            "never_committed": self.uncommitted(),
            "quarantined": self.quarantined,
            "server": self.server,
            "seconds": self.seconds,
            "rows": {
                "old": self.old,
                "written": self.written,
                "rolled_back": self.rolled_back,
                "delivered": self.verdicts.iter().map(|verdict| verdict.delivered).sum::<u64>(),
            },
            "held_transactions": self.held,
            "tables": tables,
            "audit": self.audits,
            "batches": self.batches,
            "backfill": { "seconds": self.backfill_seconds, "rows_per_second": rate },
            "commit_to_delivered_seconds": self.late,
            "slot": { "confirmed_flush_lsn": self.slot.confirmed, "end_lsn": self.end, "at_end": self.slot.reached },
            "drained": self.not_drained.is_none(),
        })
    }
}

fn named(what: &str, keys: &[i64]) -> Option<String> {
    let shown: Vec<String> = keys.iter().take(NAMED).map(i64::to_string).collect();
    let more = if keys.len() > NAMED { format!(" and {} more", keys.len() - NAMED) } else { String::new() };
    (!keys.is_empty()).then(|| format!("    {what}: {}{more}", shown.join(", ")))
}

fn table(verdict: &Reconciliation) -> Value {
    #[derive(Serialize)]
    struct TableReport<'a> {
        table: &'a str,
        source: u64,
        delivered: u64,
        missing: &'a [i64],
        doubled: &'a [i64],
        never_committed: &'a [i64],
    }
    json!(TableReport {
        table: verdict.table,
        source: verdict.source,
        delivered: verdict.delivered,
        missing: &verdict.missing[..verdict.missing.len().min(NAMED)],
        doubled: &verdict.doubled[..verdict.doubled.len().min(NAMED)],
        never_committed: &verdict.uncommitted[..verdict.uncommitted.len().min(NAMED)],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> DemoReport {
        let verdict = Reconciliation {
            table: "t",
            source: 5,
            delivered: 5,
            missing: vec![],
            doubled: vec![],
            uncommitted: vec![],
        };
        DemoReport {
            server: "PostgreSQL 17".to_owned(),
            seconds: 3.0,
            old: 4,
            backfill_seconds: Some(0.5),
            written: 1,
            rolled_back: 2,
            held: 1,
            audits: vec![AuditFound { section: "t".into(), rows_source: 5, rows_settled: 5, ..AuditFound::default() }],
            verdicts: vec![verdict],
            unnamed: 0,
            quarantined: 0,
            batches: 2,
            late: Lateness::default(),
            slot: SlotPosition { confirmed: Some("0/2".to_owned()), lag_bytes: Some(0), reached: true },
            end: "0/1".to_owned(),
            not_drained: None,
        }
    }

    #[test]
    fn a_kept_promise_is_said_and_every_way_to_break_it_is_told() {
        assert!(report().kept());
        assert!(report().lines().last().unwrap().contains("missing 0, doubled 0 of 5"));
        let breaks: [fn(&mut DemoReport); 9] = [
            |report| report.verdicts[0].missing = (0..30).collect(),
            |report| report.verdicts[0].doubled = vec![1],
            |report| report.verdicts[0].uncommitted = vec![1],
            |report| report.unnamed = 1,
            |report| report.audits[0].missing = 1,
            |report| report.audits[0].rows_settled = 4,
            |report| report.audits.clear(),
            |report| report.slot.reached = false,
            |report| report.not_drained = Some("exit code 1".to_owned()),
        ];
        for broken in breaks {
            let mut report = report();
            broken(&mut report);
            assert!(!report.kept() && report.lines().last().unwrap().contains("NOT KEPT"), "{:?}", report.lines());
            assert_eq!(report.document()["kept"], false);
        }
    }

    #[test]
    fn the_keys_are_named_but_not_all_of_many() {
        let mut report = report();
        report.verdicts[0].missing = (0..30).collect();
        let text = report.lines().join("\n");
        assert!(text.contains("missing: 0, 1, 2") && text.contains("19 and 10 more"), "{text}");
        assert_eq!(report.document()["missing"], 30);
        assert_eq!(report.document()["tables"][0]["missing"].as_array().unwrap().len(), NAMED);
    }
}
