//! The report of an audit, as people and `audit --json` get it.
//!
//! * In: counts and keys, from the audit.
//! * Out: [`AuditReport`].
//! * Never: a row of the source in two of its counts.

/// What an audit found: `audit --json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct AuditReport {
    pub section: String,
    /// Keys greater than this were looked at; none: every key.
    pub from: Option<String>,
    /// The last key that was looked at.
    pub to: Option<String>,
    /// Every row was looked at that the section delivers.
    pub whole: bool,
    pub rows_source: u64,
    /// Rows of the source that are settled: delivered, quarantined or filtered.
    pub rows_settled: u64,
    /// Rows delivered.
    pub delivered: u64,
    /// Rows in quarantine, or dropped from it by a person.
    pub quarantined: u64,
    /// Rows left out by a rule of the configuration.
    pub filtered: u64,
    /// Rows that an earlier audit found settled, and whose batches the ledger has pruned since.
    pub settled_before: u64,
    /// Rows whose batch is in doubt.
    pub in_doubt: u64,
    /// Rows that are on their way: not settled yet, and not late.
    pub waiting: u64,
    /// Rows from before the section attached, which it does not deliver.
    pub before_attach: u64,
    /// Rows that nothing proves, in either direction.
    pub unknown: u64,
    /// Rows that should be settled, and that no evidence names.
    pub missing: u64,
    /// Keys that were delivered more than once, without a re-sync, a retry or a doubt that explains it.
    pub doubled: u64,
    /// Keys that were delivered and are not in the source any more.
    pub gone: u64,
    /// At most 100 keys of missing rows.
    pub missing_keys: Vec<String>,
    /// Batches that began since then are proven by their keys, and older ones by counts; none: no batch's keys are kept.
    pub by_key_since: Option<String>,
    /// The first key of the oldest of them.
    pub by_key_from: Option<String>,
    /// Everything that was delivered since then is counted; none: rows were delivered before counts were kept.
    pub by_count_since: Option<String>,
    /// From where later audits go on.
    pub horizon: Horizon,
    /// What the audit could not look at, or cannot prove, and why; empty where it proves everything.
    pub caveat: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Every missing key that is known by name: what is delivered on request.
    #[serde(skip)]
    pub missing_all: Vec<String>,
    /// Updated rows are sent: that a key was delivered does not tell that its newest version was.
    #[serde(skip)]
    pub of_versions: bool,
}

impl AuditReport {
    /// Rows of the source that are settled, by its counts.
    pub(crate) fn settled(&self) -> u64 {
        self.delivered + self.quarantined + self.filtered + self.settled_before
    }

    /// Whether every row of the table is settled, or named as in doubt: then nothing of a gap before it is missing.
    pub(crate) fn proves_all(&self) -> bool {
        self.whole && !self.of_versions && self.missing + self.unknown + self.waiting == 0
    }

    pub(crate) fn add_caveat(&mut self, caveat: &str) {
        if !self.caveat.is_empty() {
            self.caveat.push_str("; ");
        }
        self.caveat.push_str(caveat);
    }
}

/// How far the source and the ledger were when an audit began: where it finds everything settled, a later one need not prove
/// again what it has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Horizon {
    /// The section's last batch that had ended.
    pub delivery: Option<i64>,
    /// Every transaction below this 64-bit xid was settled; none: the section had not reached all of its rows.
    pub settled: Option<u64>,
    /// No transaction from this one on had ended.
    pub next: Option<u64>,
}
