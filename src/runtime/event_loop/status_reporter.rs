//! The event loop's side of the status board: when it is shown, and the source's part of it.
//!
//! * In: what the monitor saw; requests for the status.
//! * Out: the status document and the gauges that only the event loop can set.
//! * Never: a judgement.

use std::time::{Duration, Instant};

use crate::admin::RefreshHandle;
use crate::admin::heartbeat::Beat;
use crate::model::Fault;
use crate::runtime::event_loop::narrator::Narrator;
use crate::runtime::monitor_event::SourceStatus;
use crate::runtime::retained_growth::RetainedGrowth;
use crate::runtime::status_board::Board;
use crate::state::Identity;
use crate::telemetry::Metrics;
use crate::telemetry::status_document::{InstanceState, SectionState, SectionStatus};

/// How often the status is shown where nobody asks.
const EVERY: Duration = Duration::from_millis(500);

/// Shows what the event loop knows.
pub(crate) struct StatusReporter {
    board: Board,
    refresh: RefreshHandle,
    shown: Option<Instant>,
    narrator: Narrator,
    epoch: i64,
    began: Instant,
    growth: RetainedGrowth,
    /// Since when nothing flows, and why.
    stalled: Option<(Instant, String)>,
}

impl StatusReporter {
    /// The epoch that this process leads under.
    pub(crate) fn epoch(&self) -> i64 {
        self.epoch
    }

    pub(crate) fn new(board: Board, epoch: i64) -> StatusReporter {
        StatusReporter {
            refresh: board.refresh.attend(),
            board,
            shown: None,
            narrator: Narrator::default(),
            epoch,
            began: Instant::now(),
            growth: RetainedGrowth::default(),
            stalled: None,
        }
    }

    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.board.metrics
    }

    /// The loop's pulse.
    pub(crate) fn heartbeat(&self) -> Beat {
        self.board.heartbeat.task("event_loop", Duration::from_secs(30))
    }

    /// Resolves when someone asks for the status.
    pub(crate) async fn asked(&self) {
        self.refresh.asked().await;
    }

    /// Has the status shown on the way round, whenever it was shown last.
    pub(crate) fn show_soon(&mut self) {
        self.shown = None;
    }

    /// Whether the status is to be shown now; it counts as shown then.
    pub(crate) fn is_due(&mut self) -> bool {
        let due = self.shown.is_none_or(|shown| shown.elapsed() >= EVERY);
        if due {
            self.shown = Some(Instant::now());
        }
        due
    }

    pub(crate) fn draining(&self) {
        self.board.modify(|status| {
            status.state = InstanceState::Draining;
            status.ready = false;
        });
    }

    /// Shows the slot as the monitor saw it; `rate` is the server's rate of WAL.
    pub(crate) fn show_slot(&mut self, seen: &SourceStatus, rate: Option<f64>) {
        self.board.metrics.wal_bytes_per_second.set(rate.unwrap_or(0.0));
        let Some(slot) = seen.slot.as_ref().filter(|slot| !slot.is_lost()) else { return };
        let restart = slot.restart_lsn.as_ref().and_then(|lsn| lsn.parse().ok());
        let retained = restart.map(|restart| seen.flushed.bytes_since(restart));
        let safe = slot.safe_wal_size;
        if let Some(retained) = retained {
            self.growth.observe(self.began.elapsed(), retained);
        }
        let until_lost = safe.and_then(|safe| self.growth.seconds_until(safe));
        self.board.modify(|status| {
            status.slot.confirmed_flush_lsn = slot.confirmed_flush_lsn.clone();
            status.slot.retained_bytes = retained;
            status.slot.safe_wal_bytes = safe;
            status.slot.seconds_until_lost = until_lost;
        });
    }

    /// Shows the sections, and the instance: stalled for `trouble`, or running. `lag`: WAL that is not confirmed; `None` where the
    /// server cannot be looked at, and nothing is known of the slot.
    pub(crate) fn show(
        &mut self,
        sections: Vec<SectionStatus>,
        identity: &Identity,
        lag: Option<u64>,
        trouble: Option<Fault>,
    ) {
        let epoch = self.epoch;
        self.tell_recovery(trouble.as_ref());
        let standstill = standstill(&sections);
        if lag.is_none() {
            self.board.metrics.wal_bytes_per_second.set(f64::NAN);
        }
        self.narrator.tell(&sections, Instant::now());
        self.board.modify(|status| {
            status.sections = sections;
            status.instance.system_identifier = Some(identity.system_identifier.clone());
            status.instance.timeline = u32::try_from(identity.timeline).ok();
            status.instance.database = Some(identity.database.clone());
            status.instance.epoch = Some(epoch);
            status.instance.leader = true;
            status.slot.confirmed_lag_bytes = lag;
            if lag.is_none() {
                (status.slot.retained_bytes, status.slot.safe_wal_bytes, status.slot.seconds_until_lost) =
                    (None, None, None);
            }
            if status.state != InstanceState::Draining {
                status.state = if trouble.is_some() { InstanceState::Stalled } else { InstanceState::Running };
                status.ready = trouble.is_none() && standstill.is_none();
            }
            let fault = trouble.or(standstill).or_else(|| self.board.file_note());
            status.message = fault.as_ref().map(|fault| fault.what.clone());
            status.remedy = fault.map(|fault| fault.remedy);
        });
        self.refresh.shown();
    }
}

impl StatusReporter {
    /// Notes that nothing flows, and why: that it does again is logged.
    pub(crate) fn note_stall(&mut self, fault: &Fault) {
        self.stalled.get_or_insert_with(|| (Instant::now(), fault.what.clone()));
    }

    /// Logs that rows flow again: the last line was that they do not.
    fn tell_recovery(&mut self, trouble: Option<&Fault>) {
        if let Some(fault) = trouble {
            self.note_stall(fault);
        } else if let Some((since, was)) = self.stalled.take() {
            tracing::info!(seconds = since.elapsed().as_secs(), was, "connected again: rows flow");
        }
    }
}

/// Why the instance is not ready though it runs: sections are on, and none of them flows.
fn standstill(sections: &[SectionStatus]) -> Option<Fault> {
    let on: Vec<&SectionStatus> = sections.iter().filter(|section| section.state != SectionState::Off).collect();
    if on.is_empty() || on.iter().any(|section| section.flows) {
        return None;
    }
    let name = |section: &&SectionStatus| match &section.reason {
        Some(reason) => format!("{} ({}: {reason})", section.name, section.state),
        None => format!("{} ({}, {:.0} s late)", section.name, section.state, section.lag_seconds.unwrap_or(0.0)),
    };
    let names: Vec<String> = on.iter().map(name).collect();
    let remedy = on.iter().find_map(|section| section.remedy.clone());
    let remedy = remedy.unwrap_or_else(|| "see `pg2planhat status` and the log".to_owned());
    Some(Fault::unavailable(format!("no section flows: {}", names.join(", ")), remedy))
}
