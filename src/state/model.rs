//! The types of what the state schema holds.

pub use crate::model::Phase;

use crate::audit::TallyEntry;
use crate::config::definition::Definition;
use crate::model::{Forgotten, KeyDigest, Lsn, NewestRead, Position, SectionName};
use crate::state::attachment::Attachment;

/// A batch's outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Announced; a request may be under way.
    Sending,
    /// All items were received.
    Delivered,
    /// Received, less the items that the answer refused.
    Partial,
    /// A request was sent and its answer never came.
    InDoubt,
    /// Was in doubt; its rows were sent again.
    Resent,
    /// Was in doubt; its rows wait in quarantine.
    Held,
    /// All its rows are in quarantine; nothing was received.
    Quarantined,
}

impl Outcome {
    /// Every outcome, in the order in which it is shown.
    pub const ALL: [Outcome; 7] = [
        Outcome::Sending,
        Outcome::Delivered,
        Outcome::Partial,
        Outcome::InDoubt,
        Outcome::Resent,
        Outcome::Held,
        Outcome::Quarantined,
    ];

    /// The word in the ledger, in metrics and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Sending => "sending",
            Outcome::Delivered => "delivered",
            Outcome::Partial => "partial",
            Outcome::InDoubt => "in_doubt",
            Outcome::Resent => "resent",
            Outcome::Held => "held",
            Outcome::Quarantined => "quarantined",
        }
    }

    pub fn parse(word: &str) -> Option<Outcome> {
        Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == word)
    }
}

/// One batch's row of the ledger, when its request is about to be made. `id`s are given by the one writer (the holder
/// of the epoch), ascending.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Delivery {
    pub id: i64,
    pub section: SectionName,
    /// How its rows were read.
    pub phase: Phase,
    /// Items in the request.
    pub rows: u32,
    /// Bytes of the request's body.
    pub bytes: u64,
    /// Key of the first row, as text.
    pub first_key: String,
    /// Key of the last row, as text.
    pub last_key: String,
    /// First and last position, for streamed rows.
    pub span: Option<(Position, Position)>,
    /// First and last digest of a key, for rows of a compared result.
    pub digests: Option<(KeyDigest, KeyDigest)>,
}

/// One row that cannot be delivered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Quarantined {
    pub section: SectionName,
    /// The row's key as text; empty where it could not be read.
    pub key: String,
    /// A word for metrics (`refused`, `mapping`, `too_large`, `in_doubt`), then a colon and the reason for people.
    pub reason: String,
    /// The item as JSON text where there is one, else the mapped columns as a JSON object of strings.
    pub item: String,
    /// Where it stood in the stream, if it came by it.
    pub position: Option<Position>,
    /// The ledger row of the batch it was in, if there was one.
    pub delivery: Option<i64>,
}

/// How far a section's backfill (or re-sync) is.
#[derive(Clone, Debug, PartialEq, Eq, Default, Hash)]
pub struct BackfillProgress {
    /// Everything up to this key is settled (text); `None` at the start.
    pub cursor: Option<String>,
    /// The last key of the backfill (text); `None` until the xmin barrier has passed.
    pub ceiling: Option<String>,
    /// Where the range begins.
    pub from: RangeStart,
    /// It goes on where the state left it: the keys noted there stay noted.
    pub resumes: bool,
    /// The keys that the stream brought since the section attached, as an earlier version wrote them: ranges for integers
    /// (`5-7,9`), a JSON array of texts for other types.
    pub streamed: String,
    /// The same, as [`Op::Streamed`] writes them: each what was new then. Read when a leader begins.
    pub streamed_sets: Vec<Vec<u8>>,
    /// Rows settled by this backfill.
    pub rows: u64,
    /// Rows to read, estimated when it began.
    pub estimated: u64,
    /// Only rows written by this transaction (64-bit xid) or a later one: a gap is read again. `None`: every row.
    pub xmin_floor: Option<u64>,
}

/// Where a range begins.
#[derive(Clone, Debug, PartialEq, Eq, Default, Hash)]
pub enum RangeStart {
    /// An earlier version began it, and did not record where.
    #[default]
    Unknown,
    /// At the first key.
    First,
    /// Behind this key.
    Behind(String),
}

impl RangeStart {
    /// The key that it begins behind.
    pub fn key(&self) -> Option<&str> {
        match self {
            RangeStart::Behind(key) => Some(key),
            RangeStart::First | RangeStart::Unknown => None,
        }
    }

    /// Behind this key, or at the first one.
    pub fn behind(cursor: Option<String>) -> RangeStart {
        cursor.map_or(RangeStart::First, RangeStart::Behind)
    }
}

/// A section's way of getting rows, kept in the state. `paused` and `halted` are not phases: they are laid over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SectionPhase {
    /// Known by name only: not attached yet.
    Waiting,
    /// Attached; older rows are being read beside the stream.
    Backfilling(BackfillProgress),
    /// Attached; a person asked for rows to be read again.
    Resyncing(BackfillProgress),
    /// Only the stream.
    Streaming,
    /// No stream: its result is compared from time to time, and was compared whole at least once.
    Comparing,
}

impl SectionPhase {
    /// The word in the state schema and in JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            SectionPhase::Waiting => "waiting",
            SectionPhase::Backfilling(_) => "backfilling",
            SectionPhase::Resyncing(_) => "resyncing",
            SectionPhase::Streaming => "streaming",
            SectionPhase::Comparing => "comparing",
        }
    }

    /// How far a backfill or re-sync is; `None` where there is none.
    pub fn progress(&self) -> Option<&BackfillProgress> {
        match self {
            SectionPhase::Backfilling(progress) | SectionPhase::Resyncing(progress) => Some(progress),
            SectionPhase::Waiting | SectionPhase::Streaming | SectionPhase::Comparing => None,
        }
    }
}

/// What is added to a section's totals by one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct Totals {
    /// Rows received by the sink.
    pub delivered: u64,
    /// Rows put into quarantine.
    pub quarantined: u64,
    /// Rows of batches in doubt.
    pub in_doubt: u64,
    /// Rows sent again after doubt.
    pub resent: u64,
}

/// What one comparison of a result found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DiffRun {
    /// Its number; ascends over the runs of a section.
    pub run: i64,
    /// When it began: RFC 3339, UTC.
    pub started_at: String,
    /// When it was settled: RFC 3339, UTC. Set by the state.
    pub ended_at: Option<String>,
    /// Rows of the result.
    pub rows: u64,
    /// Rows whose key was never settled before.
    pub new: u64,
    /// Rows whose mapped values had changed.
    pub changed: u64,
    /// Rows that were settled before, and are not in the result.
    pub gone: u64,
    /// The key's columns.
    pub key: Vec<String>,
    /// The columns whose values were compared, by name.
    pub columns: Vec<String>,
    /// Where the log of the server was that was read, where that is known.
    pub read_at: Option<String>,
}

/// A stretch of the log that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NewGap {
    /// The section, or all.
    pub section: Option<SectionName>,
    /// The reason's word: `slot_missing`, `publication_changed`, …
    pub reason: String,
    /// What was seen, for people.
    pub detail: String,
    /// Settled up to here.
    pub from_lsn: Option<Lsn>,
    /// Read again from here, where it is known.
    pub to_lsn: Option<Lsn>,
    /// Every transaction below this 64-bit xid was settled.
    pub xmin_floor: Option<u64>,
}

/// One write. A list of them is applied in one transaction, in order, if the epoch still holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// A request is about to be made: the row `sending`, with `under_way` true; inserted, or updated if the id is there.
    Sending {
        delivery: Delivery,
        /// 1 for the first request of it.
        attempt: u32,
    },
    /// The request of this row is known not to have been received; the row stays `sending`, `under_way` false, so that a
    /// crash while it waits is no doubt.
    Retrying {
        id: i64,
        /// The answer's status.
        http_status: Option<u16>,
        /// The answer, for people.
        error: String,
    },
    /// The batch ended, or its answer is in doubt.
    Ended {
        id: i64,
        /// The batch's outcome.
        outcome: Outcome,
        /// The answer's status.
        http_status: Option<u16>,
        /// The answer, for people; empty where all went well.
        error: String,
    },
    /// The keys that a batch carried: of its items that were received, or of all while it is in doubt.
    Keys {
        delivery: i64,
        section: SectionName,
        /// The set, encoded.
        keys: Vec<u8>,
        /// What is added to the section's tally: block, rows, digest. Empty while the batch is in doubt.
        tally: Vec<(i64, TallyEntry)>,
    },
    /// The batch is in doubt for good: its rows are settled, and are not sent again.
    Unresolved {
        id: i64,
        /// The answer's status.
        http_status: Option<u16>,
        /// The answer and its meaning, for people.
        error: String,
    },
    /// The batch of this row was never received, and its rows come again under another id: the row goes.
    Withdrawn { id: i64 },
    /// A section's checkpoint: replaces position and phase, adds to the totals. Sets `last_delivered_at` where rows were
    /// delivered.
    SectionCheckpoint {
        section: SectionName,
        /// Streamed rows up to here are settled; never moves back.
        position: Option<Position>,
        /// Its phase; `None` leaves it.
        phase: Option<SectionPhase>,
        /// Added to the totals.
        add: Totals,
    },
    /// Keys that the stream brought beside the section's backfill.
    Streamed {
        section: SectionName,
        /// They are all of them; else they are added.
        all: bool,
        /// The set, encoded.
        keys: Vec<u8>,
    },
    /// Rows of a compared result are settled: they are not sent again as they are.
    Seen {
        section: SectionName,
        /// The run that settled them.
        run: i64,
        /// A digest of the names of the columns whose values were compared.
        columns: i64,
        /// The rows, encoded, in the order of their keys' digests; at least one.
        rows: Vec<u8>,
    },
    /// Nothing of a section's result counts as settled any more.
    Forget {
        section: SectionName,
        /// What is not sent again for that.
        older: Option<Forgotten>,
    },
    /// A result was compared whole, and what was found is settled; or that failed.
    Compared { section: SectionName, run: DiffRun },
    /// A row goes into quarantine.
    Quarantine(Quarantined),
    /// A retry delivered these rows: they leave quarantine.
    Unquarantine(Vec<i64>),
    /// What publishes the section's table, when it is first seen in order.
    Published {
        section: SectionName,
        /// The entries' OIDs and versions.
        entry: String,
    },
    /// The section is halted (reason, remedy), or goes again (`None`).
    Halted {
        section: SectionName,
        /// Reason and remedy; `None` where the section goes again.
        why: Option<(String, String)>,
    },
    /// The section's attachment is recorded: what it waits for, or that it is on. Its position is forgotten (it was of
    /// another attachment) and it is not halted; totals and a pause stay.
    Attach {
        section: SectionName,
        /// What it is attached to.
        to: Attachment,
        /// `Waiting`, or how it gets its rows.
        phase: SectionPhase,
    },
    /// What the section is by the file that was taken over: the columns of its key, and the rest of it.
    Defined {
        section: SectionName,
        /// Its key, as the next start must have it.
        key: Vec<String>,
        /// The rest, for `plan`.
        definition: Definition,
    },
    /// Transactions from this 64-bit xid on are judged by the rules that were taken over last, and by these alone.
    RulesSince { section: SectionName, xid: u64 },
    /// What is known of the transactions beside an attachment; what is `None` stays as it is.
    AttachXids {
        section: SectionName,
        /// The oldest transaction (64-bit xid) that had written to the table and was open when the publication carried
        /// it. The smallest one that was ever seen stays, until the section is attached.
        writers_from: Option<u64>,
        /// Every transaction from this 64-bit xid on began after the attachment.
        attach_xmin: Option<u64>,
    },
    /// Rows may not have come: a gap is opened, unless one of the section and the reason is open.
    OpenGap(NewGap),
    /// A re-sync that begins brings the rows of these gaps of the section: its end closes them.
    CoverGaps { section: SectionName, gaps: Vec<i64>, by: String },
    /// The section's re-sync has ended: the gaps that it covers are closed.
    CloseGaps { section: SectionName },
    /// What an operator asked for was done, or cannot be: in one transaction with what was done, so that a crash cannot
    /// make it be done twice.
    Handled {
        event: i64,
        /// The result, for people.
        result: String,
    },
    /// The instance's checkpoint: everything before it is settled. Never moves back.
    Checkpoint {
        /// The LSN that may be confirmed once this is durable.
        checkpoint: Lsn,
        /// Every transaction below this xid (64 bits, with epoch) is settled.
        xmin_floor: Option<u64>,
        /// What was read of the log by then; `None` where it is written already.
        newest: Option<NewestRead>,
    },
}

/// PostgreSQL's integers are signed; no count of ours comes near the end.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
