//! The messages of the monitor to the event loop.
//!
//! * In: answers of the source's catalog and of the state store.
//! * Out: [`MonitorEvent`], one observation.
//! * Never: a judgement; the event loop judges.

use std::time::Instant;

use crate::model::{Fault, Lsn, SectionName};
use crate::postgres::catalog::partition_entries::PartitionEntry;
use crate::postgres::catalog::publication::Publication;
use crate::postgres::catalog::slot::Slot;
use crate::runtime::quarantine_reader::ReadAgain;
use crate::state::{Event, SectionRow};

/// What decides whether an audit may be due: it is not looked for before one of these has changed, or the time has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AuditCause {
    sections: Vec<SectionCause>,
    /// Requests that nobody has handled yet.
    requests: Vec<i64>,
}

/// Of one section.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SectionCause {
    name: SectionName,
    phase: &'static str,
    attached_at: Option<String>,
    backfill_started_at: Option<String>,
    last_audit: Option<i64>,
}

impl AuditCause {
    pub(crate) fn new(rows: &[SectionRow], requests: &[Event]) -> AuditCause {
        let section = |row: &SectionRow| SectionCause {
            name: row.name.clone(),
            phase: row.phase.as_str(),
            attached_at: row.attached_at.clone(),
            backfill_started_at: row.backfill_started_at.clone(),
            last_audit: row.last_audit,
        };
        AuditCause {
            sections: rows.iter().map(section).collect(),
            requests: requests.iter().map(|event| event.id).collect(),
        }
    }
}

/// The result of one poll of the server's catalog.
#[derive(Debug)]
pub(crate) struct SourceStatus {
    /// The slot; `None` where it is gone.
    pub slot: Option<Slot>,
    /// The server's flushed end of WAL.
    pub flushed: Lsn,
    /// The walsender sends nothing before standbys have it, too (17).
    pub waits_for_standby: bool,
    /// Every transaction below this 64-bit xid had ended at `floor_at`.
    pub xmin: u64,
    /// No transaction from this 64-bit xid on had begun to write then.
    pub next_xid: u64,
    /// The WAL's end when `xmin` was taken.
    pub floor_at: Lsn,
    /// The publication and where each watched table is now. Queried after `xmin`: where all is in order, rows are missing
    /// of no transaction below it.
    pub published: PublicationStatus,
}

/// The catalog entries that decide which rows the server sends.
#[derive(Debug)]
pub(crate) struct PublicationStatus {
    /// The publication; `None` where it is gone.
    pub publication: Option<Publication>,
    /// The publication of updates; `None` where there is none.
    pub updates: Option<Publication>,
    /// Which OID each configured name has now.
    pub names: Vec<(String, Option<u32>)>,
    /// The tables whose updates are published though they have no replica identity (any more): what, and the remedy.
    pub without_identity: Vec<(u32, String, String)>,
    /// The partitions of watched tables.
    pub partitions: Vec<Partition>,
}

/// A partition of a watched table.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) entry: PartitionEntry,
    /// Its own transaction filled it before it attached it.
    pub(crate) filled: bool,
}

impl Partition {
    /// Whether it may have come with rows that the stream does not bring.
    pub(crate) fn came_with_rows(&self) -> bool {
        self.entry.attached || self.filled
    }
}

/// A message of the monitor.
#[derive(Debug)]
pub(crate) enum MonitorEvent {
    /// The result of a poll.
    SourceStatus(Box<SourceStatus>),
    /// The server goes down: let go of the slot at once, or its fast shutdown hangs.
    Shutdown(Fault),
    /// The server cannot be looked at.
    Unreachable(Fault),
    /// The standby that results are read from stands still: since when, and why; or it does not (any more).
    ReplicaStands(Option<(Instant, Fault)>),
    /// A system catalog is locked, and by whom: the server answers whoever does not need it.
    Locked(Fault),
    /// Paused sections, as people want them.
    Paused(Vec<(SectionName, bool)>),
    /// Rows in quarantine now.
    Quarantine(Vec<(SectionName, u64)>),
    /// The open gaps: the section of each, or all.
    OpenGaps(Vec<Option<String>>),
    /// From here on the publication of updates can be named to the server.
    UpdatesFrom(Lsn),
    /// The lock that says who runs is lost.
    LockLost(Fault),
    /// What an operator asks for.
    Requested(Event),
    /// Rows of the quarantine, read again because an operator asked.
    ReadAgain(Box<ReadAgain>),
}
