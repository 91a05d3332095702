//! The metrics of one section, with every label resolved once: the hot path looks nothing up.
//!
//! * In: what became of rows, batches and requests.
//! * Out: counts in [`Metrics`].
//! * Never: a label from data; a series that first appears with its first event (a rate over it would miss that event).

use std::sync::Arc;
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};
use serde::{Deserialize, Serialize};

use crate::planhat::Verdict;
use crate::state::{Outcome, Phase};
use crate::telemetry::age::Age;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status_document::words;

words! {
    /// The rule by which a row was left out.
    pub enum Filtered {
        /// The stream brought this row: the backfill yields to it.
        Streamed = "streamed",
        /// It was settled before; the stream brought it again after a reconnect.
        Settled = "settled",
        /// It lies outside the range that the section begins with.
        BeforeStart = "before_start",
        /// The section is off, or was not attached yet at its commit.
        Off = "off",
    }
}

const PHASES: [Phase; 4] = [Phase::Backfill, Phase::Stream, Phase::Resync, Phase::Retry];
const OUTCOMES: [Outcome; 6] =
    [Outcome::Delivered, Outcome::Partial, Outcome::InDoubt, Outcome::Resent, Outcome::Held, Outcome::Quarantined];
/// What an answer may mean; the last four make a request be made again.
const VERDICTS: [&str; 8] =
    ["received", "partial", "bad_item", "too_large", "environment", "later", "not_sent", "unknown"];
/// The words that quarantine reasons begin with; whatever else there may be is counted as the last.
const QUARANTINES: [&str; 5] = ["refused", "mapping", "too_large", "in_doubt", "other"];

fn verdict_index(verdict: &Verdict) -> usize {
    match verdict {
        Verdict::Received => 0,
        Verdict::Partial(_) => 1,
        Verdict::BadItem => 2,
        Verdict::TooLarge => 3,
        Verdict::Environment { .. } => 4,
        Verdict::Later { .. } => 5,
        Verdict::NotSent => 6,
        Verdict::Unknown => 7,
    }
}

/// The handles of one section. Cheap to clone.
#[derive(Clone)]
pub struct SectionMetrics(Arc<Handles>);

struct Handles {
    read: [IntCounter; 4],
    delivered: [IntCounter; 4],
    filtered: [[IntCounter; 4]; 4],
    quarantined: [IntCounter; 5],
    unsettled: IntGauge,
    in_doubt: IntCounter,
    resent: IntCounter,
    batches: [IntCounter; 6],
    batch_rows: Histogram,
    batch_bytes: Histogram,
    requests: [Histogram; 8],
    retries: [IntCounter; 8],
    late: Histogram,
    oldest_unsettled: Age,
    quarantine_rows: IntGauge,
}

impl Metrics {
    /// The handles of one section, resolved once; all its series are there from then on, at 0.
    pub fn section(&self, name: &str) -> SectionMetrics {
        SectionMetrics::new(self, name)
    }
}

impl SectionMetrics {
    pub(crate) fn new(all: &Metrics, name: &str) -> SectionMetrics {
        let phased = |vec: &prometheus::IntCounterVec| PHASES.map(|p| vec.with_label_values(&[name, p.as_str()]));
        let rules = |phase: Phase| {
            let rule = |rule: usize| [name, phase.as_str(), Filtered::ALL[rule].as_str()];
            std::array::from_fn(|index| all.rows_filtered_total.with_label_values(&rule(index)))
        };
        SectionMetrics(Arc::new(Handles {
            read: phased(&all.rows_read_total),
            delivered: phased(&all.rows_delivered_total),
            filtered: PHASES.map(rules),
            quarantined: QUARANTINES.map(|reason| all.rows_quarantined_total.with_label_values(&[name, reason])),
            unsettled: all.rows_unsettled.with_label_values(&[name]),
            in_doubt: all.rows_in_doubt_total.with_label_values(&[name]),
            resent: all.rows_resent_total.with_label_values(&[name]),
            batches: OUTCOMES.map(|outcome| all.batches_total.with_label_values(&[name, outcome.as_str()])),
            batch_rows: all.batch_rows.with_label_values(&[name]),
            batch_bytes: all.batch_bytes.with_label_values(&[name]),
            requests: VERDICTS.map(|verdict| all.request_duration_seconds.with_label_values(&[name, verdict])),
            retries: VERDICTS.map(|verdict| all.retries_total.with_label_values(&[name, verdict])),
            late: all.commit_to_delivered_seconds.with_label_values(&[name]),
            oldest_unsettled: all.age(all.oldest_unsettled_seconds.with_label_values(&[name]), 0.0),
            quarantine_rows: all.quarantine_rows.with_label_values(&[name]),
        }))
    }

    /// Rows came in.
    pub fn read(&self, phase: Phase, rows: u64) {
        self.0.read[phase as usize].inc_by(rows);
    }

    /// Planhat received rows.
    pub fn delivered(&self, phase: Phase, rows: u64) {
        self.0.delivered[phase as usize].inc_by(rows);
    }

    /// Rows were left out by a rule.
    pub fn filtered(&self, phase: Phase, rule: Filtered, rows: u64) {
        self.0.filtered[phase as usize][rule as usize].inc_by(rows);
    }

    /// Rows went into quarantine. `reason` is the ledger's: its first word, up to a colon, counts.
    pub fn quarantined(&self, reason: &str, rows: u64) {
        let word = reason.split(':').next().unwrap_or_default();
        let index = QUARANTINES.iter().position(|known| *known == word).unwrap_or(QUARANTINES.len() - 1);
        self.0.quarantined[index].inc_by(rows);
    }

    /// How many rows are read and not settled: counted from the lanes, not from the counters, so that the books are a check.
    pub fn unsettled(&self, rows: u64) {
        self.0.unsettled.set(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    /// The age of the oldest such row now; `None` where there is none. It grows by itself until it is set again.
    pub fn oldest_unsettled(&self, age: Option<Duration>) {
        match age {
            Some(age) => self.0.oldest_unsettled.ago(age),
            None => self.0.oldest_unsettled.nothing(),
        }
    }

    /// A batch of rows is in doubt.
    pub fn in_doubt(&self, rows: u64) {
        self.0.in_doubt.inc_by(rows);
    }

    /// Rows are sent again after doubt.
    pub fn resent(&self, rows: u64) {
        self.0.resent.inc_by(rows);
    }

    /// A batch ended; `Sending` is no end and is not counted.
    pub fn batch(&self, outcome: Outcome, rows: u64, bytes: u64) {
        if let Some(index) = OUTCOMES.iter().position(|known| *known == outcome) {
            self.0.batches[index].inc();
            self.0.batch_rows.observe(rows as f64);
            self.0.batch_bytes.observe(bytes as f64);
        }
    }

    /// A request ended.
    pub fn request(&self, verdict: &Verdict, took: Duration) {
        self.0.requests[verdict_index(verdict)].observe(took.as_secs_f64());
    }

    /// A request will be made again because of this answer.
    pub fn retry(&self, verdict: &Verdict) {
        self.0.retries[verdict_index(verdict)].inc();
    }

    /// One streamed row took this long from its commit to its delivery.
    pub fn commit_to_delivered(&self, late: Duration) {
        self.0.late.observe(late.as_secs_f64());
    }

    /// Rows in quarantine now.
    pub fn quarantine_rows(&self, rows: u64) {
        self.0.quarantine_rows.set(i64::try_from(rows).unwrap_or(i64::MAX));
    }
}
