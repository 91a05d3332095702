//! What the status board holds for one section, and the rate at which the source writes WAL.
//!
//! * In: the delivery core's counts and the section's row of the state.
//! * Out: the section's part of the status document and of the metrics.
//! * Never: a count that the metrics do not have.

use std::time::{Duration, Instant};

use crate::config::Section;
use crate::delivery::section::{Counts, PHASES, SectionDelivery, StopReason};
use crate::model::Lsn;
use crate::state::{SectionRow, Totals};
use crate::telemetry::status_document::{Backfill, SectionState, SectionStatus};
use crate::telemetry::{Filtered, SectionMetrics};

/// A section before anything is known of it.
pub(crate) fn unknown(section: &Section) -> SectionStatus {
    SectionStatus {
        name: section.name.to_string(),
        kind: section.kind.as_str().to_owned(),
        table: section.table.to_string(),
        state: if section.is_on() { SectionState::Waiting } else { SectionState::Off },
        reason: None,
        remedy: None,
        rows_delivered: 0,
        rows_quarantined: 0,
        rows_in_doubt: 0,
        rows_resent: 0,
        lag_seconds: None,
        last_delivered_at: None,
        backfill: None,
    }
}

/// What the corridor knows of one section beyond its lane.
#[derive(Debug)]
pub(crate) struct SectionReport {
    /// As the state had it at the start.
    pub row: Option<SectionRow>,
    /// Totals since.
    pub since: Totals,
    /// When rows were last received (RFC 3339).
    pub last_delivered: Option<String>,
    /// Why it cannot be attached or its range not be read.
    pub trouble: Option<(String, String)>,
    /// Why the sink did not take its last batch, where it is tried again: the section goes on, and says so.
    pub sink: Option<(String, String)>,
    /// Rows put into quarantine that the counters do not show yet, by reason.
    pub quarantined: Vec<(String, u64)>,
    /// What did not fit when the process began, though rows still flow.
    pub warning: Option<(String, String)>,
    /// When its range began here, and how many rows were settled then.
    pub range_began: Option<(Instant, u64)>,
    /// What the counters showed last.
    shown: [Counts; 4],
}

impl SectionReport {
    /// A book that goes on from the state's row, and from what the corridor before left.
    pub(crate) fn new(row: Option<SectionRow>, left: [u64; 4]) -> SectionReport {
        let last_delivered = row.as_ref().and_then(|row| row.last_delivered_at.clone());
        let shown = left.map(|read| Counts { read, ..Counts::default() });
        SectionReport {
            row,
            since: Totals::default(),
            last_delivered,
            trouble: None,
            sink: None,
            quarantined: Vec::new(),
            warning: None,
            range_began: None,
            shown,
        }
    }

    fn totals(&self) -> Totals {
        let before = self.row.as_ref().map(|row| row.totals).unwrap_or_default();
        Totals {
            delivered: before.delivered + self.since.delivered,
            quarantined: before.quarantined + self.since.quarantined,
            in_doubt: before.in_doubt + self.since.in_doubt,
            resent: before.resent + self.since.resent,
        }
    }

    /// Moves the counters to what the lane has counted: what is within one call is seen whole by a scrape.
    pub(crate) fn show(&mut self, lane: &SectionDelivery, metrics: &SectionMetrics, now: Duration) {
        for (index, phase) in PHASES.into_iter().enumerate() {
            let (is, was) = (lane.counts[index], self.shown[index]);
            // Rows that were shed are taken in again: the count of rows read goes back and waits.
            metrics.read(phase, is.read.saturating_sub(was.read));
            metrics.filtered(phase, Filtered::Streamed, is.filtered - was.filtered);
            metrics.delivered(phase, is.delivered - was.delivered);
            self.shown[index] = Counts { read: is.read.max(was.read), ..is };
        }
        for (reason, rows) in self.quarantined.drain(..) {
            metrics.quarantined(&reason, rows);
        }
        // Rows that were shed were read once, and are not settled.
        let shed: u64 = self.shown.iter().zip(&lane.counts).map(|(shown, is)| shown.read - is.read).sum();
        metrics.unsettled(lane.unsettled().iter().sum::<u64>() + shed);
        metrics.oldest_unsettled(lane.oldest().map(|oldest| now.saturating_sub(oldest)));
    }

    /// Rows that the counters show as read and not as settled, by phase.
    pub(crate) fn left(&self) -> [u64; 4] {
        self.shown.map(|shown| shown.read - shown.filtered - shown.delivered - shown.quarantined)
    }

    /// The section's part of the status.
    pub(crate) fn status(&self, section: &Section, lane: Option<&SectionDelivery>, now: Duration) -> SectionStatus {
        let totals = self.totals();
        let mut status = SectionStatus {
            rows_delivered: totals.delivered,
            rows_quarantined: totals.quarantined,
            rows_in_doubt: totals.in_doubt,
            rows_resent: totals.resent,
            last_delivered_at: self.last_delivered.clone(),
            ..unknown(section)
        };
        let mut trouble = self.trouble.clone();
        if let Some(lane) = lane {
            status.lag_seconds = Some(lane.oldest().map_or(0.0, |oldest| now.saturating_sub(oldest).as_secs_f64()));
            status.state = if lane.range.is_some() { SectionState::Backfilling } else { SectionState::Streaming };
            status.backfill = self.backfill(lane);
            if lane.paused {
                status.state = SectionState::Paused;
                trouble.get_or_insert_with(|| {
                    (
                        "paused by an operator; the slot keeps WAL for it".into(),
                        format!("pg2planhat resume {}", lane.name),
                    )
                });
            }
            if let Some(why) = &lane.halted {
                trouble = Some(why.clone());
            }
            if let Some(StopReason::Mapping(what, remedy)) = &lane.shut {
                trouble = Some((what.clone(), remedy.clone()));
            }
        }
        if trouble.is_none()
            && let Some((reason, remedy)) = &self.sink
        {
            (status.reason, status.remedy) = (Some(reason.clone()), Some(remedy.clone()));
        }
        if let Some((reason, remedy)) = trouble {
            if status.state != SectionState::Paused {
                status.state = SectionState::Halted;
            }
            (status.reason, status.remedy) = (Some(reason), Some(remedy));
        } else if let Some((reason, remedy)) = &self.warning {
            (status.reason, status.remedy) = (Some(reason.clone()), Some(remedy.clone()));
        }
        status
    }

    fn backfill(&self, lane: &SectionDelivery) -> Option<Backfill> {
        let Some(range) = &lane.range else {
            let row = self.row.as_ref()?;
            let rows = row.backfill_rows.max(self.range_rows());
            return (rows > 0 || self.range_began.is_some()).then(|| Backfill {
                rows,
                estimated: Some(row.backfill_estimated.max(rows)),
                eta_seconds: Some(0.0),
            });
        };
        let eta = self.range_began.and_then(|(began, rows)| {
            let done = range.rows.saturating_sub(rows);
            let rate = done as f64 / began.elapsed().as_secs_f64().max(0.001);
            (done > 0).then(|| range.estimated.saturating_sub(range.rows) as f64 / rate)
        });
        Some(Backfill {
            rows: range.rows,
            estimated: range.ceiling.as_ref().map(|_| range.estimated),
            eta_seconds: eta,
        })
    }

    fn range_rows(&self) -> u64 {
        self.shown[0].delivered + self.shown[0].quarantined + self.shown[2].delivered + self.shown[2].quarantined
    }
}

/// How fast the server writes WAL, from looks some seconds apart.
#[derive(Debug, Default)]
pub(crate) struct WalRate {
    last: Option<(Instant, Lsn)>,
    rate: Option<f64>,
}

impl WalRate {
    /// Another look. Gives bytes per second, smoothed over some looks.
    pub(crate) fn look(&mut self, end: Lsn, now: Instant) -> Option<f64> {
        if let Some((at, before)) = self.last {
            let seconds = now.duration_since(at).as_secs_f64();
            if seconds > 0.1 {
                let fresh = end.bytes_since(before) as f64 / seconds;
                self.rate = Some(self.rate.map_or(fresh, |rate| rate * 0.7 + fresh * 0.3));
                self.last = Some((now, end));
            }
        } else {
            self.last = Some((now, end));
        }
        self.rate
    }
}
