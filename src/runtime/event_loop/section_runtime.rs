//! One section beside its delivery: its endpoint, its table, its permits, its report.
//!
//! * In: what was attached.
//! * Out: plain data for the files that act.
//! * Never: I/O.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::config::Section;
use crate::model::{Column, Key, Lsn, Position};
use crate::planhat::Endpoint;
use crate::postgres::backfill::selection::Selection;
use crate::runtime::diff_schedule::DiffSchedule;
use crate::runtime::event_loop::fitted_columns::FittedColumns;
use crate::runtime::section_report::SectionReport;
use crate::state::{OpenDelivery, SectionRow};
use crate::telemetry::SectionMetrics;

/// Chunks that a backfill may be ahead of their use.
const AHEAD: usize = 3;

/// One configured section beside its delivery.
pub(crate) struct SectionRuntime {
    pub(crate) config: Section,
    pub(crate) endpoint: Endpoint,
    /// What is known of it while it is not attached.
    pub(crate) waits: Option<WaitingSection>,
    /// The table that it is attached to; `None` where it never was.
    pub(crate) table: Option<AttachedTable>,
    pub(crate) permits: ChunkPermits,
    /// Its older rows are not read before the stream brings updates.
    pub(crate) waits_for_updates: bool,
    /// What was tried where its table does not fit.
    pub(crate) refits: RefitTries,
    /// Its rules are other ones than before: since when, a look at the source tells that began behind that.
    pub(crate) new_rules: Option<LookBehind>,
    pub(crate) report: SectionReport,
    pub(crate) metrics: SectionMetrics,
    /// When its result is compared, where it is read so.
    pub(crate) diff: Option<DiffSchedule>,
    /// How its result is read by keys, as the last comparison saw it.
    pub(crate) result: Option<Selection>,
}

/// A look at the source that began behind what is read now: the second from now on (one may be under way), which saw the WAL
/// past all that had come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LookBehind {
    looks: u8,
    read: Lsn,
}

impl LookBehind {
    /// Everything before was read.
    pub(crate) fn new(read: Lsn) -> LookBehind {
        LookBehind { looks: 0, read }
    }

    /// A look that saw the WAL up to there. `None`: it began behind.
    pub(crate) fn looked(self, at: Lsn) -> Option<LookBehind> {
        let looks = self.looks.saturating_add(1);
        (looks < 2 || at < self.read).then_some(LookBehind { looks, ..self })
    }
}

/// The table of a section, and what the monitor last saw of it.
pub(crate) struct AttachedTable {
    pub(crate) oid: u32,
    /// Where it was attached: what the monitor saw before says nothing of it.
    pub(crate) attached_at: Lsn,
    /// Where the WAL ended before the table was last seen to fit the mapping: rows of before may be older than a column.
    pub(crate) fitted_at: Lsn,
    /// The columns that it had then.
    pub(crate) fitted: FittedColumns,
    /// How its rows are read; `None` where it does not fit the mapping.
    pub(crate) reading: Option<Selection>,
    /// The transaction from which on rows are read of a section of `start: now` that was attached in this process.
    pub(crate) asked_since: Option<u64>,
    /// The WAL's end and the xmin when the publication was last seen to carry it as it should.
    pub(crate) verified: Option<(Lsn, u64)>,
    /// Its entry in the publication when it was first seen there: a new one was taken out in between.
    pub(crate) entry: Option<String>,
    /// The partitions that came with rows, and the transactions that made their entries, when they were last seen.
    pub(crate) partitions: Option<Vec<(u32, u32)>>,
}

/// A section that is not attached yet.
pub(crate) struct WaitingSection {
    pub(crate) row: SectionRow,
    /// Another section is attached to its table.
    pub(crate) carried_before: bool,
    /// What an earlier attachment left in the ledger.
    pub(crate) left: Vec<OpenDelivery>,
}

/// The columns of a section's table, and where the section stands: its last streamed row, and its backfill's cursor.
pub(crate) type RefitState = (Vec<Column>, Position, Option<Key>);

/// How often a table that does not fit is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The looks at a table that does not fit.
#[derive(Default)]
pub(crate) struct RefitTries {
    next: Option<Instant>,
    /// What the section went on with last. Halted again at the same row by the same table, it would be halted for ever.
    last: Option<RefitState>,
    /// The key of the row that it halted before because that could not be read.
    unread: Option<String>,
}

impl RefitTries {
    /// Whether it is time for a look; then the next one is later.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.next.is_none_or(|next| now >= next);
        if is_due {
            self.next = Some(now + LOOK_AGAIN);
        }
        is_due
    }

    /// It halts before the row with this key, which cannot be read now: it is read before the section goes on.
    pub(crate) fn set_unread(&mut self, key: String) {
        self.next = None;
        self.unread = Some(key);
    }

    /// The row that must be read before the section goes on.
    pub(crate) fn to_be_read(&self) -> Option<String> {
        self.unread.clone()
    }

    pub(crate) fn was_tried(&self, state: &RefitState) -> bool {
        self.unread.is_none() && self.last.as_ref() == Some(state)
    }

    pub(crate) fn tried(&mut self, state: RefitState) {
        self.last = Some(state);
        self.unread = None;
    }
}

/// How far a backfill may read ahead.
pub(crate) struct ChunkPermits {
    ahead: Arc<Semaphore>,
    /// Chunks read and not yet used.
    chunks: usize,
}

impl ChunkPermits {
    pub(crate) fn new() -> ChunkPermits {
        ChunkPermits { ahead: Arc::new(Semaphore::new(AHEAD)), chunks: 0 }
    }

    /// The permits of a backfill that begins: the ones of an earlier backfill count no more.
    pub(crate) fn renew(&mut self) -> Arc<Semaphore> {
        *self = ChunkPermits::new();
        Arc::clone(&self.ahead)
    }

    /// A chunk was read.
    pub(crate) fn chunk_read(&mut self) {
        self.chunks += 1;
    }

    /// So many chunks are held still: for each that was used another may be read.
    pub(crate) fn chunks_held(&mut self, held: usize) {
        if held < self.chunks {
            self.ahead.add_permits(self.chunks - held);
            self.chunks = held;
        }
    }
}
