//! The rows that a section takes in, and the order of what it sends where a row has versions. Pure.
//!
//! * In: streamed rows, and the chunks of a backfill whose time has come.
//! * Out: rows in the section's queues.
//! * Never: a row of a chunk that the stream has brought, or that is kept back; an older version of a row behind a newer one.

use std::time::Duration;

use crate::config::{Flush, InDoubt};
use crate::delivery::batch::{Batch, Origin, SettledUpTo};
use crate::delivery::section::{BACKFILL_AGE, BackfillQueue, Chunk, IncomingRow, SectionDelivery, Span};
use crate::mapping::Mapping;
use crate::model::{CommitTime, FilterRule, Phase, Position, Row};

impl SectionDelivery {
    /// Whether updated rows are sent too.
    #[inline]
    pub(crate) fn sends_updates(&self) -> bool {
        self.sends_updates
    }

    /// Takes a streamed row. Returns whether it waits here now (so that progress must know of it).
    #[inline]
    pub fn admit(&mut self, mapping: &Mapping, row: &Row<'_>, position: Position, micros: i64, now: Duration) -> bool {
        self.admit_version((mapping, false), row, position, micros, now)
    }

    /// Takes a streamed version of a row; with the mapping, whether it says that the version changes no mapped column.
    #[inline]
    pub(crate) fn admit_version(
        &mut self,
        (mapping, is_unchanged): (&Mapping, bool),
        row: &Row<'_>,
        position: Position,
        micros: i64,
        now: Duration,
    ) -> bool {
        if position <= self.admitted {
            return false;
        }
        self.admitted = position;
        self.counts.read(Phase::Stream);
        let key = mapping.key_text(row);
        let key = key.as_ref();
        // A version that is not sent leaves the row to the backfill.
        if let Some(backfill) = self.backfill.as_mut().filter(|_| !is_unchanged) {
            backfill.streamed(key);
        }
        let held = self.is_doubted(position) && self.in_doubt == InDoubt::Hold;
        let origin = Origin::Stream(position, micros);
        let left_out = if is_unchanged { Ok(Some(FilterRule::Unchanged)) } else { mapping.left_out(row) };
        let queue = &mut self.stream;
        if let Ok(Some(rule)) = left_out {
            queue.leave_out(Phase::Stream, now, rule, origin);
            queue.reach(SettledUpTo::Stream(position));
            return true;
        }
        // Under no key a row can neither be traced nor sent again.
        let known = if key.is_empty() { mapping.brought_key(row) } else { Ok(()) };
        let encode =
            |out: &mut Vec<u8>| left_out.and(known).and_then(|()| mapping.encode(row, CommitTime::Micros(micros), out));
        let incoming = IncomingRow { limits: self.limits, phase: Phase::Stream, now, key, origin };
        if held {
            queue.hold(incoming, encode, || mapping.describe(row));
        } else {
            self.mapping_brake.taken(queue.push(incoming, encode, || mapping.describe(row)));
        }
        queue.reach(SettledUpTo::Stream(position));
        true
    }

    /// Whether a streamed row is of a batch in doubt. Where nobody knows which rows that had, this one counts.
    fn is_doubted(&mut self, position: Position) -> bool {
        let mut doubted = false;
        for doubt in &mut self.doubts {
            if matches!(&doubt.span, Span::Stream(first, last) if (*first..=*last).contains(&position)) {
                doubt.rows += u32::from(doubt.open);
                doubted = true;
            }
        }
        doubted
    }

    /// Takes the rows of a chunk whose time has come (the stream has been read past it).
    pub fn admit_chunk(&mut self, mapping: &Mapping, chunk: &Chunk, now: Duration) {
        let Some(phase) = self.backfill.as_ref().map(|backfill| backfill.phase) else { return };
        for row in chunk.rows.iter() {
            let key = mapping.key_text(&row);
            let former = if chunk.former.is_empty() { None } else { chunk.former_key(&key) };
            let brought = |backfill: &BackfillQueue| {
                backfill.brought_by_stream(&key) || former.is_some_and(|former| backfill.brought_by_stream(former))
            };
            let is_streamed = self.backfill.as_ref().is_some_and(brought);
            if !is_streamed && let Some(trouble) = self.keeps_back(mapping, &row, CommitTime::Unknown) {
                self.stop_by_mapping(trouble);
                return self.forget_chunks();
            }
            self.counts.read(phase);
            if is_streamed {
                self.backfilled.leave_out(phase, now, FilterRule::Streamed, Origin::Backfill);
            } else {
                self.admit_backfilled(mapping, &row, &key, phase, now);
            }
            // A batch ends where a batch in doubt ended, so that what it settles tells that the doubt is over.
            let ends = !self.doubts.is_empty() && self.doubts.iter().any(|doubt| doubt.span.ends_with(&key));
            self.backfilled.reach_key(&key, ends);
        }
        // Behind the last row only the count is awaited: its batch need not be.
        let last = chunk.rows.iter().last().map(|row| mapping.key_text(&row));
        let ceiling = self.backfill.as_ref().and_then(|backfill| backfill.ceiling.as_ref());
        if last.is_some_and(|last| ceiling.is_some_and(|ceiling| ceiling.as_str().as_bytes() == &*last)) {
            self.backfilled.seal();
        }
        if chunk.last {
            if let Some(backfill) = &mut self.backfill {
                backfill.count_range(chunk.range_rows);
            }
            self.backfilled.pass(phase, now);
            self.backfilled.reach(SettledUpTo::BackfillEnd);
            self.backfilled.seal();
        }
    }

    fn admit_backfilled(&mut self, mapping: &Mapping, row: &Row<'_>, key: &[u8], phase: Phase, now: Duration) {
        let held = self.in_doubt == InDoubt::Hold
            && self.doubts.iter().any(|doubt| matches!(&doubt.span, Span::Keys(_, _, rows) if rows.contains(key)));
        let left_out = mapping.left_out(row);
        if let Ok(Some(rule)) = left_out {
            return self.backfilled.leave_out(phase, now, rule, Origin::Backfill);
        }
        let encode = |out: &mut Vec<u8>| left_out.and_then(|_| mapping.encode(row, CommitTime::Unknown, out));
        let describe = || mapping.describe(row);
        let incoming = IncomingRow { limits: self.limits, phase, now, key, origin: Origin::Backfill };
        if held {
            self.backfilled.hold(incoming, encode, describe);
        } else {
            self.mapping_brake.taken(self.backfilled.push(incoming, encode, describe));
        }
    }

    /// The batch that is due. A backfilled one goes first: it may have an older version of a row that the stream brought. What
    /// was brought before its chunk was taken it does not have.
    pub(crate) fn next_in_order(&mut self, now: Duration, force: bool) -> Option<Batch> {
        let is_due = self.stream.has_sealed()
            || self.stream.open_since().is_some_and(|opened| force || self.is_due(opened, now));
        self.stream_waits = is_due && !self.backfilled.is_empty();
        if is_due && !self.stream_waits {
            return self.stream.take(|_| true);
        }
        let age = match &self.flush {
            Flush::Every(age) => *age,
            Flush::DailyAt(..) => BACKFILL_AGE,
        };
        self.backfilled.take(|opened| is_due || force || now >= opened.taken + age)
    }
}
