//! The rows of one source (stream, backfill or retry), gathered into batches in order. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::BatchLimits;
use crate::delivery::batch::builder::{BatchBuilder, Capacity};
use crate::delivery::batch::{Batch, MAX_BODY, Origin, RejectedRow, SettledUpTo};
use crate::delivery::section::schedule::OpenedAt;
use crate::mapping::Refuses;
use crate::model::{FilterRule, Phase, Position, SeenRow};

/// Sealed batches, and the one being filled.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    open: Option<BatchBuilder>,
    ready: VecDeque<Batch>,
    ready_weight: usize,
    room: Capacity,
    /// Of the versions of a row in one batch only the newest is sent.
    newest_only: bool,
}

/// A row on its way into a queue: the batch's limits, how and when the row came, its key, and its place.
#[derive(Clone, Copy)]
pub(crate) struct IncomingRow<'a> {
    pub(crate) limits: BatchLimits,
    pub(crate) phase: Phase,
    pub(crate) now: Duration,
    pub(crate) key: &'a [u8],
    pub(crate) origin: Origin,
}

impl Queue {
    /// A queue whose batches have one version of each row.
    pub(crate) fn of_newest(newest_only: bool) -> Queue {
        Queue { newest_only, ..Queue::default() }
    }

    fn open(&mut self, phase: Phase, now: Duration) -> &mut BatchBuilder {
        let room = self.room;
        self.open.get_or_insert_with(|| BatchBuilder::new(phase, now, room))
    }

    /// Encodes a row into the open batch, or refuses it; seals the batch when it is full. Returns whether the mapping makes no
    /// item of such a row.
    #[inline]
    pub(crate) fn push<E: Refuses>(
        &mut self,
        row: IncomingRow<'_>,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
        describe: impl FnOnce() -> String,
    ) -> bool {
        let IncomingRow { limits, phase, now, key, origin } = row;
        let open = self.open(phase, now);
        match open.push(key, origin, encode) {
            Ok(()) => {}
            Err(error) => {
                let row = RejectedRow::new(text(key), format!("{}: {error}", error.word()), describe());
                self.refuse(limits, phase, now, row.of(origin));
                return error.is_of_the_mapping();
            }
        }
        if open.newest_len() + 2 > MAX_BODY {
            open.pop();
            let row = RejectedRow::new(text(key), "too_large: the item is over 30,000,000 bytes".into(), describe());
            self.refuse(limits, phase, now, row.of(origin));
            return false;
        }
        if open.overflows(limits)
            && let Some(item) = open.pop()
        {
            self.seal();
            let again = |out: &mut Vec<u8>| -> Result<(), E> {
                out.extend_from_slice(&item);
                Ok(())
            };
            // Cannot be refused: it is encoded already.
            self.open(phase, now).push(key, origin, again).ok();
        }
        if self.open.as_ref().is_some_and(|open| open.is_full(limits)) {
            self.seal_after_reach();
        }
        false
    }

    /// A full batch is sealed only when its last row's place is known ([`Queue::reach`] follows each push).
    fn seal_after_reach(&mut self) {
        if let Some(open) = &mut self.open {
            open.seal_at_reach = true;
        }
    }

    /// Encodes a row of a batch in doubt that a person decides about: it goes into quarantine with its item.
    pub(crate) fn hold<E: Refuses>(
        &mut self,
        row: IncomingRow<'_>,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
        describe: impl FnOnce() -> String,
    ) {
        let IncomingRow { limits, phase, now, key, origin } = row;
        self.open(phase, now).note_commit(origin);
        let mut item = Vec::new();
        let row = match encode(&mut item) {
            Ok(()) => RejectedRow::new(text(key), IN_DOUBT.into(), String::from_utf8_lossy(&item).into_owned()),
            Err(error) => RejectedRow::new(text(key), format!("{}: {error}", error.word()), describe()),
        };
        self.refuse(limits, phase, now, row.of(origin));
    }

    /// Adds a refused row.
    pub(crate) fn refuse(&mut self, limits: BatchLimits, phase: Phase, now: Duration, row: RejectedRow) {
        let open = self.open(phase, now);
        open.refuse(row);
        if open.is_full(limits) {
            self.seal_after_reach();
        }
    }

    /// A row that a rule leaves out: it is counted, and its place, when the batch is settled.
    #[inline]
    pub(crate) fn leave_out(&mut self, phase: Phase, now: Duration, rule: FilterRule, origin: Origin) {
        self.open(phase, now).leave_out(rule, origin);
    }

    /// Leaves a row out: only its place counts.
    pub(crate) fn pass(&mut self, phase: Phase, now: Duration) {
        self.open(phase, now);
    }

    /// A row of a compared result that is settled without an item.
    pub(crate) fn settle_unsent(&mut self, limits: BatchLimits, phase: Phase, now: Duration, seen: SeenRow) {
        let open = self.open(phase, now);
        open.settle_unsent(seen);
        if open.is_full(limits) {
            self.seal_after_reach();
        }
    }

    /// Records that every row up to this place has been considered.
    #[inline]
    pub(crate) fn reach(&mut self, through: SettledUpTo) {
        if let Some(open) = &mut self.open {
            open.reach(through);
            if open.seal_at_reach {
                self.seal();
            }
        }
    }

    /// The backfill has considered everything up to the key of this text. `ends`: the batch goes no further.
    #[inline]
    pub(crate) fn reach_key(&mut self, text: &[u8], ends: bool) {
        if let Some(open) = &mut self.open {
            open.reach_key(text);
            if open.seal_at_reach || ends {
                self.seal();
            }
        }
    }

    /// Seals the open batch.
    pub(crate) fn seal(&mut self) {
        if let Some(mut open) = self.open.take()
            && !open.is_empty()
        {
            if self.newest_only {
                open.keep_newest();
            }
            self.room = open.room();
            self.put_back_last(open.seal());
        }
    }

    fn put_back_last(&mut self, batch: Batch) {
        self.ready_weight += batch.weight();
        self.ready.push_back(batch);
    }

    /// The oldest batch, if it is sealed or `due` says so of the open one's age.
    pub(crate) fn take(&mut self, due: impl Fn(OpenedAt) -> bool) -> Option<Batch> {
        if self.ready.is_empty() && self.open_since().is_some_and(due) {
            self.seal();
        }
        let batch = self.ready.pop_front()?;
        self.ready_weight -= batch.weight();
        Some(batch)
    }

    /// When the open batch's first row came, and when it was committed.
    pub(crate) fn open_since(&self) -> Option<OpenedAt> {
        self.open.as_ref().map(|open| OpenedAt { taken: open.opened(), committed: open.committed() })
    }

    /// When the open batch's first row came; `ZERO` where a sealed one waits.
    pub(crate) fn opened(&self) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        self.open.as_ref().filter(|open| !open.is_empty()).map(BatchBuilder::opened)
    }

    /// Whether a batch waits that takes no more rows.
    pub(crate) fn has_sealed(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When the oldest row was added.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        let ready = self.ready.front().map(Batch::opened);
        ready.or_else(|| self.open.as_ref().filter(|open| !open.is_empty()).map(BatchBuilder::opened))
    }

    /// Bytes held.
    pub(crate) fn weight(&self) -> usize {
        self.ready_weight + self.open.as_ref().map_or(0, BatchBuilder::weight)
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.open.as_ref().is_none_or(BatchBuilder::is_empty)
    }

    /// The first streamed position that waits, of rows refused and left out too.
    pub(crate) fn first_position(&self) -> Option<Position> {
        let ready = self.ready.iter().filter_map(Batch::first_position).next();
        ready.or_else(|| self.open.as_ref().and_then(BatchBuilder::first_position))
    }

    /// Drops everything; returns how many rows.
    pub(crate) fn clear(&mut self) -> u64 {
        let ready = self.ready.iter().map(|batch| (batch.len() + batch.refused.len()) as u64 + batch.left_out.total());
        let open = self.open.as_ref().map_or(0, |open| open.rows() as u64 + open.left_out());
        let rows = ready.sum::<u64>() + open;
        *self = Queue::of_newest(self.newest_only);
        rows
    }
}

/// The reason in quarantine of rows whose batch's answer never came, under `in_doubt: hold`.
pub(crate) const IN_DOUBT: &str = "in_doubt: the request was sent and its answer never came; Planhat may have the row";

fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}
