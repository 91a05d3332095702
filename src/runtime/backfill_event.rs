//! What a backfill's reader tells the event loop.
//!
//! * In: what was read of a section's range, and what is in the way.
//! * Out: [`BackfillEvent`]s, in order, under the reader's number.
//! * Never: a word taken for that of another reader.

use tokio::sync::mpsc;

use crate::model::{Fault, Key, SectionId};
use crate::postgres::backfill::range_reader::TableChunk;

/// What a backfill's reader tells the event loop.
#[derive(Debug)]
pub(crate) enum BackfillEvent {
    /// The xmin barrier has passed: the range ends at this key, after so many rows, by estimate. `None`: there are no rows.
    EndFound(SectionId, Option<(Key, u64)>),
    /// A chunk was read.
    Chunk(SectionId, TableChunk),
    /// The table has rows with these keys between the ends of a batch in doubt (its ledger id).
    Doubted(SectionId, i64, Vec<Key>),
    /// It cannot be read until somebody mends something; it is tried again.
    Failed(SectionId, Fault),
    /// It waits for open transactions to end; and whose.
    Waits(SectionId, Fault),
    /// It can be read again.
    Recovered(SectionId),
}

impl BackfillEvent {
    pub(crate) fn section(&self) -> SectionId {
        match self {
            BackfillEvent::EndFound(id, _)
            | BackfillEvent::Chunk(id, _)
            | BackfillEvent::Doubted(id, ..)
            | BackfillEvent::Failed(id, _)
            | BackfillEvent::Waits(id, _)
            | BackfillEvent::Recovered(id) => *id,
        }
    }
}

/// Where a reader tells, under its number.
#[derive(Clone, Debug)]
pub(crate) struct BackfillNews {
    pub(crate) number: u64,
    pub(crate) events: mpsc::Sender<(u64, BackfillEvent)>,
}

impl BackfillNews {
    /// Returns whether somebody listens.
    pub(crate) async fn send(&self, event: BackfillEvent) -> Result<(), ()> {
        self.events.send((self.number, event)).await.map_err(|_| ())
    }

    /// As far as there is room.
    pub(crate) fn try_send(&self, event: BackfillEvent) -> Result<(), ()> {
        self.events.try_send((self.number, event)).map_err(|_| ())
    }
}
