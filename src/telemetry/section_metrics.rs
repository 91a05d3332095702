//! The metrics of one section, with every label resolved once: the hot path looks nothing up.
//!
//! * In: what became of batches and requests; the count of rows, at each scrape.
//! * Out: counts in [`Metrics`].
//! * Never: a label from data; a series that first appears with its first event (a rate over it would miss that event).

use std::sync::Arc;
use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounter, IntGauge};

use crate::model::RowCounts;
use crate::planhat::Verdict;
use crate::state::Outcome;
use crate::telemetry::age::Age;
use crate::telemetry::metrics::Metrics;

const OUTCOMES: [Outcome; 6] =
    [Outcome::Delivered, Outcome::Partial, Outcome::InDoubt, Outcome::Resent, Outcome::Held, Outcome::Quarantined];
/// What an answer may mean; the last four make a request be made again.
const VERDICTS: [&str; 8] =
    ["received", "partial", "bad_item", "too_large", "environment", "later", "not_sent", "unknown"];
fn verdict_index(verdict: &Verdict) -> usize {
    match verdict {
        Verdict::Received => 0,
        Verdict::Partial(_) => 1,
        Verdict::BadItem => 2,
        Verdict::TooLarge => 3,
        Verdict::Environment { .. } => 4,
        Verdict::Later { .. } => 5,
        Verdict::NotSent | Verdict::Interrupted => 6,
        Verdict::Unknown | Verdict::Unreadable => 7,
    }
}

/// The handles of one section. Cheap to clone.
#[derive(Clone)]
pub struct SectionMetrics(Arc<Handles>);

struct Handles {
    batches: [IntCounter; 6],
    batch_rows: Histogram,
    batch_bytes: Histogram,
    requests: [Histogram; 8],
    retries: [IntCounter; 8],
    late: Histogram,
    oldest_unsettled: Age,
    quarantine_rows: IntGauge,
    audit_missing: Gauge,
    audit_timestamp: Gauge,
}

impl Metrics {
    /// The handles of one section, resolved once; all its series are there from then on, at 0.
    pub fn section(&self, name: &str) -> SectionMetrics {
        SectionMetrics::new(self, name)
    }
}

/// A gauge of which nothing is known yet.
fn unknown(gauge: Gauge) -> Gauge {
    gauge.set(f64::NAN);
    gauge
}

impl SectionMetrics {
    pub(crate) fn new(all: &Metrics, name: &str) -> SectionMetrics {
        all.reflect_counts(name, &RowCounts::default());
        SectionMetrics(Arc::new(Handles {
            batches: OUTCOMES.map(|outcome| all.batches_total.with_label_values(&[name, outcome.as_str()])),
            batch_rows: all.batch_rows.with_label_values(&[name]),
            batch_bytes: all.batch_bytes.with_label_values(&[name]),
            requests: VERDICTS.map(|verdict| all.request_duration_seconds.with_label_values(&[name, verdict])),
            retries: VERDICTS.map(|verdict| all.retries_total.with_label_values(&[name, verdict])),
            late: all.commit_to_delivered_seconds.with_label_values(&[name]),
            oldest_unsettled: all.age(all.oldest_unsettled_seconds.with_label_values(&[name]), 0.0),
            quarantine_rows: all.quarantine_rows.with_label_values(&[name]),
            audit_missing: unknown(all.audit_missing_rows.with_label_values(&[name])),
            audit_timestamp: unknown(all.audit_timestamp_seconds.with_label_values(&[name])),
        }))
    }

    /// The age of the oldest row that is read and not settled; `None` where there is none. It grows by itself until it is set again.
    pub fn oldest_unsettled(&self, age: Option<Duration>) {
        match age {
            Some(age) => self.0.oldest_unsettled.ago(age),
            None => self.0.oldest_unsettled.nothing(),
        }
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

    /// What the last audit found, and when it ended (Unix time).
    pub(crate) fn set_audit(&self, missing: u64, at: i64) {
        self.0.audit_missing.set(missing as f64);
        self.0.audit_timestamp.set(at as f64);
    }

    /// Rows in quarantine now.
    pub fn quarantine_rows(&self, rows: u64) {
        self.0.quarantine_rows.set(i64::try_from(rows).unwrap_or(i64::MAX));
    }
}
