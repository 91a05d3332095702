//! One section's part of the status board, and the rate at which the source writes WAL.
//!
//! * In: the delivery core's counts and the section's row of the state.
//! * Out: the section's part of the status document, which the metrics reflect.
//! * Never: a count of its own: delivery counts the rows.

use std::time::{Duration, Instant};

use crate::config::Section;
use crate::delivery::section::{BackfillQueue, Blocked, DiffQueue, SectionDelivery};
use crate::model::{FilterRule, Lsn, Phase, RowCounts};
use crate::runtime::diff_schedule::DiffSchedule;
use crate::state::{SectionPhase, SectionRow, of_removed};
use crate::telemetry::status_document::{Backfill, DiffStatus, RemovedStatus, SectionState, SectionStatus};

/// The status of a section before the state was read.
pub(crate) fn unknown(section: &Section) -> SectionStatus {
    let state = if section.is_on() { SectionState::Waiting } else { SectionState::Off };
    SectionStatus::new(section.name.as_str(), section.kind.as_str(), section.table.to_string(), state)
}

/// The facts about one section that the event loop holds beyond its delivery.
#[derive(Debug)]
pub(crate) struct SectionReport {
    /// As the state had it at the start, or as it was attached since.
    row: Option<SectionRow>,
    /// When rows were last received (RFC 3339).
    last_delivered: Option<String>,
    /// When its backfill began here, and how many rows were settled then.
    backfill_began: Option<(Instant, u64)>,
    /// Rows in quarantine now.
    pub(crate) quarantined_now: Option<u64>,
    /// Gaps that are open.
    pub(crate) open_gaps: Option<u64>,
    /// From when on rows of its result are read at all, where that is later than it asks for.
    pub(crate) not_before: Option<String>,
    /// The count of its rows when this event loop began: what the state's row holds already.
    at_start: RowCounts,
}

impl SectionReport {
    /// A report that goes on from the state's row; `at_start` is the count of rows of this process so far.
    pub(crate) fn new(row: Option<SectionRow>, at_start: &RowCounts) -> SectionReport {
        let last_delivered = row.as_ref().and_then(|row| row.last_delivered_at.clone());
        SectionReport {
            row,
            last_delivered,
            backfill_began: None,
            quarantined_now: None,
            open_gaps: None,
            not_before: None,
            at_start: at_start.clone(),
        }
    }

    /// As the state had it at the start, or as it was attached since.
    pub(crate) fn row(&self) -> Option<&SectionRow> {
        self.row.as_ref()
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

    /// Rows were received just now.
    pub(crate) fn delivered(&mut self, now: jiff::Timestamp) {
        self.last_delivered = Some(format!("{now:.3}"));
    }

    /// The section's part of the status.
    pub(crate) fn status(
        &self,
        section: &Section,
        delivery: &SectionDelivery,
        schedule: Option<&DiffSchedule>,
        now: Duration,
    ) -> SectionStatus {
        let (counts, before) = (delivery.counts(), &self.at_start);
        let recorded = self.row.as_ref().map(|row| row.totals).unwrap_or_default();
        let blocked = delivery.blocked();
        let trouble = blocked.iter().find_map(|blocked| blocked.trouble(delivery.name().as_str()));
        let (reason, remedy) = trouble.map(|trouble| (trouble.what, trouble.remedy)).unzip();
        let oldest = || delivery.oldest().map_or(0.0, |oldest| now.saturating_sub(oldest).as_secs_f64());
        let attached = |row: &SectionRow| row.phase != SectionPhase::Waiting;
        let is_attached = !delivery.is_off() && self.row.as_ref().is_some_and(attached);
        SectionStatus {
            rows_delivered: recorded.delivered + counts.delivered() - before.delivered(),
            rows_quarantined: recorded.quarantined + counts.quarantined() - before.quarantined(),
            rows_in_doubt: recorded.in_doubt + counts.in_doubt - before.in_doubt,
            rows_resent: recorded.resent + counts.resent - before.resent,
            flows: is_attached && delivery.flows(now),
            quarantined_now: self.quarantined_now,
            in_doubt_now: delivery.in_doubt_now(),
            open_gaps: self.open_gaps,
            counts: counts.clone(),
            last_delivered_at: self.last_delivered.clone(),
            lag_seconds: is_attached.then(oldest),
            late_since: is_attached.then(|| delivery.late(now).map_or(0.0, before_now)),
            totals_known: self.row.is_some(),
            state: state(delivery),
            diff: schedule.map(comparisons),
            backfill: if is_attached { self.backfill(delivery) } else { None },
            reason,
            remedy,
            ..unknown(section)
        }
    }

    fn backfill(&self, delivery: &SectionDelivery) -> Option<Backfill> {
        let under_way = delivery.diff().filter(|diff| diff.phase() != Phase::Diff).map(DiffQueue::progress);
        let backfill = delivery.backfill().map(BackfillQueue::progress);
        let Some(backfill) = backfill.as_ref().or(under_way) else {
            let row = self.row.as_ref()?;
            let rows = row.backfill_rows.max(self.backfilled_rows(delivery.counts()));
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
            estimated: (backfill.ceiling.is_some() || backfill.estimated > 0).then_some(backfill.estimated),
            eta_seconds: eta,
        })
    }

    /// Rows that backfills and re-syncs of this event loop have settled.
    fn backfilled_rows(&self, counts: &RowCounts) -> u64 {
        let settled = |counts: &RowCounts, phase| {
            let counts = counts.of(phase);
            counts.delivered + counts.quarantined + counts.filtered.total() - counts.filtered.of(FilterRule::Streamed)
        };
        let both = |counts| settled(counts, Phase::Backfill) + settled(counts, Phase::Resync);
        both(counts) - both(&self.at_start)
    }
}

/// The moment so long ago, in Unix time.
fn before_now(ago: Duration) -> f64 {
    jiff::Timestamp::now().as_duration().as_secs_f64() - ago.as_secs_f64()
}

/// The status's word for what a section is doing.
fn state(delivery: &SectionDelivery) -> SectionState {
    let blocked = delivery.blocked();
    match blocked.first() {
        Some(Blocked::Off) => SectionState::Off,
        Some(_) if blocked.contains(&Blocked::Paused) => SectionState::Paused,
        Some(Blocked::Stopped(_) | Blocked::Halted(_) | Blocked::BackfillFails(_) | Blocked::Harmful(_)) => {
            SectionState::Halted
        }
        Some(Blocked::Waiting(_)) => SectionState::Waiting,
        Some(Blocked::Paused | Blocked::Misfit(_) | Blocked::Retrying(_) | Blocked::Shed) | None => {
            match (delivery.diff(), delivery.backfill()) {
                (Some(diff), _) if diff.phase() == Phase::Diff => SectionState::Comparing,
                (Some(_), _) | (None, Some(_)) => SectionState::Backfilling,
                (None, None) => SectionState::Streaming,
            }
        }
    }
}

/// The section's comparisons, as the status shows them.
pub(crate) fn comparisons(schedule: &DiffSchedule) -> DiffStatus {
    let last = schedule.last.clone().unwrap_or_default();
    DiffStatus {
        next_at: (!schedule.is_under_way()).then(|| format!("{:.3}", schedule.next())),
        started_at: schedule.last.as_ref().map(|run| run.started_at.clone()),
        ended_at: last.ended_at,
        rows: last.rows,
        new: last.new,
        changed: last.changed,
        gone: last.gone,
    }
}

/// How fast the server writes WAL, from observations some seconds apart.
#[derive(Debug, Default)]
pub(crate) struct WalRate {
    last: Option<(Instant, Lsn)>,
    rate: Option<f64>,
}

impl WalRate {
    /// Takes another observation. Returns bytes per second, smoothed over the last ones.
    pub(crate) fn observe(&mut self, end: Lsn, now: Instant) -> Option<f64> {
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
/// Sections that the file does not have, and whose gaps are open.
pub(crate) fn removed<'a>(
    gaps: impl Iterator<Item = Option<&'a str>>,
    is_named: impl Fn(&str) -> bool,
) -> Vec<RemovedStatus> {
    let removed = of_removed(gaps, is_named).into_iter();
    removed.map(|(section, open_gaps)| RemovedStatus { section, open_gaps }).collect()
}
