//! The event loop's knowledge of the source, beside the stream.
//!
//! * In: what the monitor saw of the slot and of the publication.
//! * Out: a named state where a person must decide; figures for the status.
//! * Never: a change of anything.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::config::Source;
use crate::model::{Fault, Lsn};
use crate::postgres::catalog::server::Server;
use crate::runtime::identity::{Observed, Recorded, compare};
use crate::runtime::monitor_event::{MonitorEvent, SourceStatus};
use crate::runtime::section_report::WalRate;
use crate::runtime::start_error::NeedsPerson;
use crate::state::{Identity, UpdatePublication};

/// The known state of the source.
pub(crate) struct SourceMonitor {
    events: mpsc::Receiver<MonitorEvent>,
    /// Where whoever looks at the source tells of it.
    events_in: mpsc::Sender<MonitorEvent>,
    identity: Identity,
    /// The publication of updates, as it was recorded.
    updates: Option<UpdatePublication>,
    wal: WalRate,
    /// The server's end of WAL when it was last seen.
    flushed: Lsn,
    hindrances: SourceHindrances,
    /// Since when the walsender waits for standbys.
    waits_for_standby: Option<Instant>,
    restart: StreamRestart,
}

/// What keeps the source from being looked at.
#[derive(Default)]
struct SourceHindrances {
    /// Since when the server cannot be reached, and why.
    unreachable: Option<(Instant, Fault)>,
    /// Since when the standby that results are read from stands still, and why.
    replica_stands: Option<(Instant, Fault)>,
    /// Who keeps a system catalog from being read.
    locked: Option<Fault>,
}

impl SourceMonitor {
    pub(crate) fn new(
        (events_in, events): (mpsc::Sender<MonitorEvent>, mpsc::Receiver<MonitorEvent>),
        (identity, updates): (Identity, Option<UpdatePublication>),
        server: &Server,
        checkpoint: Lsn,
    ) -> SourceMonitor {
        SourceMonitor {
            events,
            events_in,
            identity,
            updates,
            wal: WalRate::default(),
            flushed: checkpoint,
            hindrances: SourceHindrances::default(),
            waits_for_standby: None,
            restart: StreamRestart { forgets: server.version >= 150_000, behind: None },
        }
    }

    pub(crate) async fn event(&mut self) -> Option<MonitorEvent> {
        self.events.recv().await
    }

    /// Where another task tells of the source.
    pub(crate) fn sender(&self) -> mpsc::Sender<MonitorEvent> {
        self.events_in.clone()
    }

    /// The identity that was recorded for the slot.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The publication of updates was made, or looked at again. Returns whether none was known before.
    pub(crate) fn expect_updates(&mut self, made: &UpdatePublication) -> bool {
        let is_new = self.updates.is_none();
        self.updates.get_or_insert_with(|| made.clone());
        is_new
    }

    /// The server's end of WAL when it was last seen.
    pub(crate) fn flushed(&self) -> Lsn {
        self.flushed
    }

    /// Notes that the server cannot be looked at.
    pub(crate) fn set_unreachable(&mut self, fault: Fault) {
        self.hindrances.unreachable.get_or_insert((Instant::now(), fault));
    }

    /// Notes that a system catalog is locked.
    pub(crate) fn set_locked(&mut self, fault: Fault) {
        if self.hindrances.locked.is_none() {
            let (what, remedy) = (&fault.what, &fault.remedy);
            tracing::warn!(what, remedy, "nothing can be looked at, and perhaps nothing decoded");
        }
        self.hindrances.locked = Some(fault);
    }

    /// Who keeps a system catalog from being read: the cause of every other silence of the server.
    pub(crate) fn locked(&self) -> Option<&Fault> {
        self.hindrances.locked.as_ref()
    }

    /// Why the server cannot be looked at, where that has lasted for longer than `bound`.
    pub(crate) fn unreachable(&self, bound: Duration) -> Option<&Fault> {
        self.hindrances.unreachable.as_ref().filter(|(since, _)| since.elapsed() > bound).map(|(_, fault)| fault)
    }

    /// Notes whether the standby that results are read from stands still.
    pub(crate) fn set_replica_stands(&mut self, stands: Option<(Instant, Fault)>) {
        self.hindrances.replica_stands = stands;
    }

    /// For how long the standby that results are read from has stood still, and why.
    pub(crate) fn replica_stands(&self) -> Option<(Duration, &Fault)> {
        self.hindrances.replica_stands.as_ref().map(|(since, fault)| (since.elapsed(), fault))
    }

    /// Why the server sends nothing, where a standby has held it up for longer than `bound`.
    pub(crate) fn held_by_standby(&self, bound: Duration) -> Option<Fault> {
        self.waits_for_standby.filter(|since| since.elapsed() > bound).map(|since| {
            let what = format!(
                "the server has sent nothing for {} s: it waits for a standby of synchronized_standby_slots",
                since.elapsed().as_secs()
            );
            Fault::unavailable(what, "start that standby, or take its slot out of synchronized_standby_slots")
        })
    }

    /// Takes in what the monitor saw; returns the server's rate of WAL in bytes per second, once that is known.
    pub(crate) fn on_source_status(&mut self, seen: &SourceStatus) -> Option<f64> {
        (self.hindrances.unreachable, self.hindrances.locked) = (None, None);
        self.flushed = seen.flushed;
        let since = self.waits_for_standby.unwrap_or_else(Instant::now);
        self.waits_for_standby = seen.waits_for_standby.then_some(since);
        self.wal.observe(seen.flushed, Instant::now())
    }

    /// Holds what the monitor saw against what is recorded; `checkpoint` is the newest one that was written.
    pub(crate) fn compare(&self, source: &Source, seen: &SourceStatus, checkpoint: Lsn) -> Result<(), NeedsPerson> {
        let (slot, publication) = (seen.slot.as_ref(), seen.published.publication.as_ref());
        let recorded = Recorded { identity: &self.identity, checkpoint, updates: self.updates.as_ref() };
        let updates = self.updates.as_ref().map(|_| seen.published.updates.as_ref());
        compare(&recorded, &Observed { source, server: None, slot, publication, updates })
    }

    /// A partition was attached by then. Returns whether the stream must be opened again for it.
    pub(crate) fn partition_attached(&mut self, by: Lsn) -> bool {
        if !self.restart.forgets {
            self.restart.behind = Some(by);
        }
        !self.restart.forgets
    }

    /// Whether the stream is to be opened again now, for an attached partition; once.
    pub(crate) fn restart_is_due(&mut self, confirmed: Lsn) -> bool {
        self.restart.behind.take_if(|behind| confirmed >= *behind).is_some()
    }
}

/// When the stream is to be opened again for an attached partition. pgoutput of PostgreSQL 14 remembers that it does not
/// publish a table for as long as the walsender lives, and a new walsender learns it again from what was written before the
/// table was attached: so not before all of that is confirmed. What is skipped meanwhile is in the gap.
struct StreamRestart {
    /// Whether the server forgets by itself.
    forgets: bool,
    /// The stream is opened again once this is confirmed.
    behind: Option<Lsn>,
}
