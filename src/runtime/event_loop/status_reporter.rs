//! The event loop's side of the status board: when it is shown, and what of the source.
//!
//! * In: what the monitor saw; requests for the status.
//! * Out: the status document and the gauges that only the event loop can set.
//! * Never: a judgement.

use std::time::{Duration, Instant};

use crate::admin::RefreshHandle;
use crate::admin::heartbeat::Beat;
use crate::model::Fault;
use crate::runtime::monitor_event::SourceStatus;
use crate::runtime::status_board::Board;
use crate::state::Identity;
use crate::telemetry::Metrics;
use crate::telemetry::status_document::{InstanceState, SectionStatus};

/// How often the status is shown where nobody asks.
const EVERY: Duration = Duration::from_millis(500);

/// Shows what the event loop knows.
pub(crate) struct StatusReporter {
    board: Board,
    refresh: RefreshHandle,
    shown: Option<Instant>,
    epoch: i64,
}

impl StatusReporter {
    pub(crate) fn new(board: Board, epoch: i64) -> StatusReporter {
        StatusReporter { refresh: board.refresh.attend(), board, shown: None, epoch }
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
    pub(crate) fn show_slot(&self, seen: &SourceStatus, rate: Option<f64>) {
        self.board.metrics.wal_bytes_per_second.set(rate.unwrap_or(0.0));
        let Some(slot) = seen.slot.as_ref().filter(|slot| !slot.is_lost()) else { return };
        let restart = slot.restart_lsn.as_ref().and_then(|lsn| lsn.parse().ok());
        let retained = restart.map(|restart| seen.flushed.bytes_since(restart));
        let safe = slot.safe_wal_size;
        self.board.modify(|status| {
            status.slot.confirmed_flush_lsn = slot.confirmed_flush_lsn.clone();
            status.slot.retained_bytes = retained;
            status.slot.safe_wal_bytes = safe;
            status.slot.seconds_until_lost =
                safe.zip(rate.filter(|rate| *rate > 1.0)).map(|(safe, rate)| safe.max(0) as f64 / rate);
        });
    }

    /// Shows the sections, and the instance: stalled for `trouble`, or running.
    pub(crate) fn show(&self, sections: Vec<SectionStatus>, identity: &Identity, lag: u64, trouble: Option<Fault>) {
        let epoch = self.epoch;
        self.board.modify(|status| {
            status.sections = sections;
            status.instance.system_identifier = Some(identity.system_identifier.clone());
            status.instance.timeline = u32::try_from(identity.timeline).ok();
            status.instance.epoch = Some(epoch);
            status.instance.leader = true;
            status.slot.confirmed_lag_bytes = Some(lag);
            if status.state != InstanceState::Draining {
                status.state = if trouble.is_some() { InstanceState::Stalled } else { InstanceState::Running };
                status.ready = trouble.is_none();
            }
            status.message = trouble.as_ref().map(|fault| fault.what.clone());
            status.remedy = trouble.map(|fault| fault.remedy);
        });
        self.refresh.shown();
    }
}
