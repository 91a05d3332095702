//! One row's part in a batch: its origin, its place, and the reason where it was refused. Pure.

use crate::model::{Fault, Key, KeyDigest, Position, SeenRow};
use crate::state::DiffRun;

/// How far a settled batch moves its source: the stream's position or the backfill's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettledUpTo {
    /// The stream, up to and including this position.
    Stream(Position),
    /// The backfill, up to and including this key.
    Key(Key),
    /// The end of the backfill: it is complete.
    BackfillEnd,
    /// A compared result, up to and including this digest of a key.
    Digest(KeyDigest),
    /// The end of a comparison, and what it found.
    RunEnd(Box<RunEnd>),
    /// Rows taken out of quarantine; settling says nothing about either way.
    Apart,
}

impl SettledUpTo {
    /// The backfill, up to the key of this text. A key that is no text is none: its batch says nothing about the backfill.
    pub(crate) fn of_key(text: &[u8]) -> SettledUpTo {
        std::str::from_utf8(text).map_or(SettledUpTo::Apart, |text| SettledUpTo::Key(Key::new(text)))
    }
}

/// How a comparison ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEnd {
    /// What it found.
    pub run: DiffRun,
    /// Why it did not get to its end.
    pub failed: Option<Fault>,
}

/// A row that could not become an item: it goes into quarantine when its batch is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRow {
    /// The number of items of the batch before it.
    pub(crate) before: u32,
    pub key: String,
    /// A word for metrics, a colon, and the reason for people.
    pub reason: String,
    /// The mapped columns of the row, as JSON.
    pub item: String,
    /// Where it stood in the stream.
    pub position: Option<Position>,
    /// The quarantine row that it was retried from.
    pub retried: Option<i64>,
    /// What is to be remembered of it, where it came out of a compared result.
    pub seen: Option<SeenRow>,
}

impl RejectedRow {
    /// A refused row.
    pub fn new(key: String, reason: String, item: String) -> RejectedRow {
        RejectedRow { before: 0, key, reason, item, position: None, retried: None, seen: None }
    }
}

impl RejectedRow {
    /// The row's place, as its origin tells it.
    pub fn of(mut self, origin: Origin) -> RejectedRow {
        match origin {
            Origin::Stream(position, _) => self.position = Some(position),
            Origin::Backfill => {}
            Origin::Quarantine(id) => self.retried = Some(id),
            Origin::Diff(seen) => self.seen = Some(seen),
        }
        self
    }
}

/// Where a row came from, for the item made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The stream: its place, and when its transaction committed (µs since 2000-01-01 UTC).
    Stream(Position, i64),
    /// A backfill or re-sync.
    Backfill,
    /// Quarantine, by its id there.
    Quarantine(i64),
    /// A compared result, and what is to be remembered of the row.
    Diff(SeenRow),
}
