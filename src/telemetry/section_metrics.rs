//! The metrics of one section. What is counted a row is resolved once; what is counted a batch or a request is looked up.
//!
//! * In: what became of batches and requests; the count of rows, at each scrape.
//! * Out: counts in [`Metrics`].
//! * Never: a label from data; more than 60 series of a section at rest; a series that an alert is written on and that first appears
//!   with its first event (a rate over it would miss that event).

use std::sync::Arc;
use std::time::Duration;

use prometheus::{Gauge, Histogram, HistogramVec, IntCounterVec, IntGauge};

use crate::model::RowCounts;
use crate::planhat::Verdict;
use crate::state::Outcome;
use crate::telemetry::age::Age;
use crate::telemetry::metrics::Metrics;

/// What an answer means, in one word.
fn verdict_word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Received => "received",
        Verdict::Partial(_) => "partial",
        Verdict::BadItem => "bad_item",
        Verdict::TooLarge => "too_large",
        Verdict::Environment { .. } => "environment",
        Verdict::Later { .. } => "later",
        Verdict::NotSent | Verdict::Interrupted => "not_sent",
        Verdict::Unknown | Verdict::Unreadable => "unknown",
    }
}

/// The handles of one section. Cheap to clone.
#[derive(Clone)]
pub struct SectionMetrics(Arc<Handles>);

struct Handles {
    name: String,
    batches: IntCounterVec,
    batch_rows: Histogram,
    batch_bytes: Histogram,
    requests: HistogramVec,
    retries: IntCounterVec,
    late: Histogram,
    oldest_unsettled: Age,
    flush: Gauge,
    quarantine_rows: IntGauge,
    audit_missing: Gauge,
    audit_timestamp: Gauge,
}

impl Metrics {
    /// The handles of one section; the series of what is usual are there from then on, at 0.
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
        all.batches_total.with_label_values(&[name, Outcome::Delivered.as_str()]);
        all.request_duration_seconds.with_label_values(&[name, verdict_word(&Verdict::Received)]);
        all.retries_total.with_label_values(&[name, verdict_word(&Verdict::Later { retry_after: None })]);
        SectionMetrics(Arc::new(Handles {
            name: name.to_owned(),
            batches: all.batches_total.clone(),
            batch_rows: all.batch_rows.with_label_values(&[name]),
            batch_bytes: all.batch_bytes.with_label_values(&[name]),
            requests: all.request_duration_seconds.clone(),
            retries: all.retries_total.clone(),
            late: all.commit_to_delivered_seconds.with_label_values(&[name]),
            oldest_unsettled: all.age(all.oldest_unsettled_seconds.with_label_values(&[name]), 0.0),
            flush: all.flush_seconds.with_label_values(&[name]),
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

    /// How long rows wait by the section's own schedule.
    pub fn flush(&self, longest: Duration) {
        self.0.flush.set(longest.as_secs_f64());
    }

    /// A batch ended; `Sending` is no end and is not counted.
    pub fn batch(&self, outcome: Outcome, rows: u64, bytes: u64) {
        if outcome != Outcome::Sending {
            self.0.batches.with_label_values(&[self.0.name.as_str(), outcome.as_str()]).inc();
            self.0.batch_rows.observe(rows as f64);
            self.0.batch_bytes.observe(bytes as f64);
        }
    }

    /// A request ended.
    pub fn request(&self, verdict: &Verdict, took: Duration) {
        let labels = [self.0.name.as_str(), verdict_word(verdict)];
        self.0.requests.with_label_values(&labels).observe(took.as_secs_f64());
    }

    /// A request will be made again because of this answer.
    pub fn retry(&self, verdict: &Verdict) {
        self.0.retries.with_label_values(&[self.0.name.as_str(), verdict_word(verdict)]).inc();
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
