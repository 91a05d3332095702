//! What the status board holds for one section, and the rate at which the source writes WAL.
//!
//! * In: the delivery core's counts and the section's row of the state.
//! * Out: the section's part of the status document and of the metrics.
//! * Never: a count that the metrics do not have.

use std::time::{Duration, Instant};

use crate::config::Section;
use crate::delivery::section::{Blocked, Counts, SectionDelivery, Settled};
use crate::model::{ByPhase, Lsn, Phase};
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

/// What the event loop knows of one section beyond its delivery.
#[derive(Debug)]
pub(crate) struct SectionReport {
    /// As the state had it at the start.
    row: Option<SectionRow>,
    /// Totals since.
    pub(crate) since: Totals,
    /// When rows were last received (RFC 3339).
    last_delivered: Option<String>,
    /// Rows put into quarantine that the counters do not show yet, by reason.
    quarantined: Vec<(String, u64)>,
    /// When its backfill began here, and how many rows were settled then.
    backfill_began: Option<(Instant, u64)>,
    /// What the counters showed last.
    shown: ByPhase<Counts>,
}

impl SectionReport {
    /// A report that goes on from the state's row, and from the unsettled rows that the event loop before handed over.
    pub(crate) fn new(row: Option<SectionRow>, unsettled: ByPhase<u64>) -> SectionReport {
        let mut report = SectionReport {
            row: None,
            since: Totals::default(),
            last_delivered: None,
            quarantined: Vec::new(),
            backfill_began: None,
            shown: ByPhase::from_fn(|phase| Counts { read: unsettled[phase], ..Counts::default() }),
        };
        if let Some(row) = row {
            report.set_row(row);
        }
        report
    }

    /// Goes on from this row of the state.
    pub(crate) fn set_row(&mut self, row: SectionRow) {
        self.last_delivered = row.last_delivered_at.clone();
        self.row = Some(row);
    }

    /// A backfill begins to be read, of which so many rows are settled.
    pub(crate) fn backfill_begins(&mut self, settled: u64) {
        self.backfill_began = Some((Instant::now(), settled));
    }

    /// A batch is settled, durably.
    pub(crate) fn on_settled(&mut self, settled: &Settled, now: jiff::Timestamp) {
        for (reason, rows) in &settled.quarantined {
            self.quarantined.push((reason.clone(), *rows));
            self.since.quarantined += rows;
        }
        self.since.resent += settled.resent;
        self.since.delivered += settled.delivered;
        if settled.delivered > 0 {
            self.last_delivered = Some(format!("{now:.3}"));
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

    /// Moves the counters to what was counted: what is within one call is seen whole by a scrape.
    pub(crate) fn show(&mut self, delivery: &SectionDelivery, metrics: &SectionMetrics, now: Duration) {
        let mut shed = 0;
        for phase in Phase::ALL {
            let (is, was) = (delivery.counts()[phase], self.shown[phase]);
            // Rows that were shed are taken in again: the count of rows read goes back and waits.
            metrics.read(phase, is.read.saturating_sub(was.read));
            metrics.filtered(phase, Filtered::Streamed, is.filtered - was.filtered);
            metrics.delivered(phase, is.delivered - was.delivered);
            self.shown[phase] = Counts { read: is.read.max(was.read), ..is };
            // Rows that were shed were read once, and are not settled.
            shed += self.shown[phase].read - is.read;
        }
        for (reason, rows) in self.quarantined.drain(..) {
            metrics.quarantined(&reason, rows);
        }
        metrics.unsettled(delivery.unsettled().values().sum::<u64>() + shed);
        metrics.oldest_unsettled(delivery.oldest().map(|oldest| now.saturating_sub(oldest)));
    }

    /// Rows that the counters show as read and not as settled.
    pub(crate) fn unsettled(&self) -> ByPhase<u64> {
        ByPhase::from_fn(|phase| {
            let shown = &self.shown[phase];
            shown.read - shown.filtered - shown.delivered - shown.quarantined
        })
    }

    /// The section's part of the status.
    pub(crate) fn status(&self, section: &Section, delivery: &SectionDelivery, now: Duration) -> SectionStatus {
        let totals = self.totals();
        let blocked = delivery.blocked();
        let trouble = blocked.iter().find_map(|blocked| blocked.trouble(delivery.name().as_str()));
        let (reason, remedy) = trouble.map(|trouble| (trouble.what, trouble.remedy)).unzip();
        let oldest = || delivery.oldest().map_or(0.0, |oldest| now.saturating_sub(oldest).as_secs_f64());
        let is_attached = !delivery.is_off() && self.row.is_some();
        SectionStatus {
            rows_delivered: totals.delivered,
            rows_quarantined: totals.quarantined,
            rows_in_doubt: totals.in_doubt,
            rows_resent: totals.resent,
            last_delivered_at: self.last_delivered.clone(),
            lag_seconds: is_attached.then(oldest),
            state: state(delivery),
            backfill: if is_attached { self.backfill(delivery) } else { None },
            reason,
            remedy,
            ..unknown(section)
        }
    }

    fn backfill(&self, delivery: &SectionDelivery) -> Option<Backfill> {
        let Some(backfill) = delivery.backfill() else {
            let row = self.row.as_ref()?;
            let rows = row.backfill_rows.max(self.backfilled_rows());
            return (rows > 0 || self.backfill_began.is_some()).then(|| Backfill {
                rows,
                estimated: Some(row.backfill_estimated.max(rows)),
                eta_seconds: Some(0.0),
            });
        };
        let eta = self.backfill_began.and_then(|(began, rows)| {
            let done = backfill.rows.saturating_sub(rows);
            let rate = done as f64 / began.elapsed().as_secs_f64().max(0.001);
            (done > 0).then(|| backfill.estimated.saturating_sub(backfill.rows) as f64 / rate)
        });
        Some(Backfill {
            rows: backfill.rows,
            estimated: backfill.ceiling.as_ref().map(|_| backfill.estimated),
            eta_seconds: eta,
        })
    }

    fn backfilled_rows(&self) -> u64 {
        let of = |phase: Phase| self.shown[phase].delivered + self.shown[phase].quarantined;
        of(Phase::Backfill) + of(Phase::Resync)
    }
}

/// The status's word for what a section is doing.
fn state(delivery: &SectionDelivery) -> SectionState {
    let blocked = delivery.blocked();
    match blocked.first() {
        Some(Blocked::Off) => SectionState::Off,
        Some(_) if blocked.contains(&Blocked::Paused) => SectionState::Paused,
        Some(Blocked::Stopped(_) | Blocked::Halted(_) | Blocked::BackfillFails(_)) => SectionState::Halted,
        Some(Blocked::Paused | Blocked::Misfit(_) | Blocked::Retrying(_) | Blocked::Shed) | None => {
            if delivery.backfill().is_some() { SectionState::Backfilling } else { SectionState::Streaming }
        }
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
