//! A batch that is being filled. Pure.
//!
//! * In: rows, one after the other, with their origin; rows refused by the mapping.
//! * Out: a sealed [`Batch`].
//! * Never: a body over its limits.

use crate::delivery::batch::ItemSpan;
use crate::delivery::batch::Run;
use crate::delivery::batch::first_position;
use crate::delivery::batch::offset;
use crate::delivery::batch::refused_weight;
use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;

use crate::config::BatchLimits;
use crate::delivery::batch::origin::{Origin, RejectedRow, SettledUpTo};
use crate::delivery::batch::{Batch, MAX_BODY};
use crate::model::{FilterRule, LeftOut, Phase, Position, SeenRow};

/// The size of a finished batch, which the next one reserves at once instead of growing by copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capacity {
    body: usize,
    keys: usize,
    items: usize,
}

/// A batch that is being filled.
#[derive(Debug)]
pub(crate) struct BatchBuilder {
    phase: Phase,
    body: Vec<u8>,
    keys: Vec<u8>,
    items: Vec<ItemSpan>,
    runs: Vec<Run>,
    refused: Vec<RejectedRow>,
    /// What the refused rows hold, in bytes.
    refused_weight: usize,
    left_out: LeftOut,
    /// Rows of the quarantine that were left out now.
    left_out_retries: Vec<i64>,
    first_left_out: Option<Position>,
    through: Option<SettledUpTo>,
    /// The text of the backfill's key that was reached last, where `through` is none.
    key_reached: Vec<u8>,
    opened: Duration,
    /// When the first streamed row was committed (µs since 2000-01-01 UTC).
    committed: Option<i64>,
    seen: Vec<SeenRow>,
    unsent: Vec<SeenRow>,
    /// Whether the batch is full: it goes as soon as the place of its newest row is known.
    pub seal_at_reach: bool,
}

impl BatchBuilder {
    /// An empty batch, opened at `now` (any monotonic clock), with room for another like the one before.
    pub(crate) fn new(phase: Phase, now: Duration, room: Capacity) -> BatchBuilder {
        let mut body = Vec::with_capacity(room.body + 1);
        body.push(b'[');
        BatchBuilder {
            phase,
            body,
            keys: Vec::with_capacity(room.keys),
            items: Vec::with_capacity(room.items),
            runs: Vec::new(),
            refused: Vec::new(),
            refused_weight: 0,
            left_out: LeftOut::default(),
            left_out_retries: Vec::new(),
            first_left_out: None,
            through: None,
            key_reached: Vec::new(),
            opened: now,
            committed: None,
            seen: Vec::new(),
            unsent: Vec::new(),
            seal_at_reach: false,
        }
    }

    /// Encodes one item to the end of the body. Where `encode` refuses, the batch is as it was.
    pub(crate) fn push<E>(
        &mut self,
        key: &[u8],
        origin: Origin,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.note_commit(origin);
        let before = self.body.len();
        if !self.items.is_empty() {
            self.body.push(b',');
        }
        if let Err(error) = encode(&mut self.body) {
            self.body.truncate(before);
            return Err(error);
        }
        self.place(key, origin);
        Ok(())
    }

    /// Notes when the first of its rows was committed.
    #[inline]
    pub(crate) fn note_commit(&mut self, origin: Origin) {
        if let (None, Origin::Stream(_, micros)) = (self.committed, origin) {
            self.committed = Some(micros);
        }
    }

    /// Records the places of the item that now ends the body.
    fn place(&mut self, key: &[u8], origin: Origin) {
        self.keys.extend_from_slice(key);
        let (place, ordinal) = match origin {
            Origin::Stream(position, commit_micros) => {
                if self.runs.last().is_none_or(|run| run.final_lsn != position.final_lsn) {
                    let first = offset(self.items.len());
                    self.runs.push(Run { first, final_lsn: position.final_lsn, commit_micros });
                }
                (position.change_lsn.0, position.ordinal)
            }
            Origin::Backfill => (0, 0),
            Origin::Quarantine(id) => (id.cast_unsigned(), 0),
            Origin::Diff(seen) => {
                self.seen.push(seen);
                (0, 0)
            }
        };
        let (end, key_end) = (offset(self.body.len()), offset(self.keys.len()));
        self.items.push(ItemSpan { end, key_end, ordinal, place });
    }

    /// Adds a refused row.
    pub(crate) fn refuse(&mut self, refused: RejectedRow) {
        self.refused_weight += refused_weight(std::slice::from_ref(&refused));
        self.refused.push(RejectedRow { before: offset(self.items.len()), ..refused });
    }

    /// Adds a row of a compared result that is settled without an item.
    pub(crate) fn settle_unsent(&mut self, seen: SeenRow) {
        self.unsent.push(seen);
    }

    /// Counts a row that a rule leaves out.
    pub(crate) fn leave_out(&mut self, rule: FilterRule, origin: Origin) {
        self.note_commit(origin);
        self.left_out.add(rule);
        match origin {
            Origin::Quarantine(id) => self.left_out_retries.push(id),
            Origin::Stream(position, _) => {
                self.first_left_out.get_or_insert(position);
            }
            Origin::Backfill | Origin::Diff(_) => {}
        }
    }

    /// Of the streamed items with one key that are values of one object and day only the last stays: the others are superseded by
    /// it. A value of another day, or of another object, stands for itself.
    pub(crate) fn keep_newest(&mut self) {
        let places = 0..self.items.len();
        let start = |index: usize, end: fn(&ItemSpan) -> u32, first: usize| match index {
            0 => first,
            index => end(&self.items[index - 1]) as usize,
        };
        let key = |index: usize| &self.keys[start(index, |item| item.key_end, 0)..self.items[index].key_end as usize];
        // Behind the bracket, or behind the comma.
        let item = |index: usize| start(index, |item| item.end + 1, 1)..self.items[index].end as usize;
        let (mut seen, mut again) = (HashSet::with_capacity(self.items.len()), HashSet::new());
        again.extend(places.clone().map(key).filter(|key| !key.is_empty() && !seen.insert(*key)));
        if again.is_empty() {
            return;
        }
        let mut newer = HashSet::new();
        let mut is_newest = |index: usize| {
            !again.contains(key(index)) || newer.insert((key(index), object_and_day(&self.body[item(index)])))
        };
        let mut kept: Vec<bool> = places.clone().rev().map(&mut is_newest).collect();
        kept.reverse();
        if kept.iter().all(|kept| *kept) {
            return;
        }
        let mut left = BatchBuilder::new(self.phase, self.opened, self.room());
        let mut before = Vec::with_capacity(kept.len());
        for index in places {
            before.push(offset(left.items.len()));
            let run = self.runs.partition_point(|run| run.first as usize <= index).checked_sub(1);
            let Some(run) = run.and_then(|run| self.runs.get(run)) else { return };
            let origin = Origin::Stream(self.items[index].position(run), run.commit_micros);
            if !kept[index] {
                left.leave_out(FilterRule::Superseded, origin);
                continue;
            }
            let copy = |out: &mut Vec<u8>| {
                out.extend_from_slice(&self.body[item(index)]);
                Ok::<(), ()>(())
            };
            left.push(key(index), origin, copy).ok();
        }
        for row in &mut self.refused {
            row.before = before.get(row.before as usize).copied().unwrap_or_else(|| offset(left.items.len()));
        }
        self.left_out.merge(&left.left_out);
        self.first_left_out = self.first_left_out.into_iter().chain(left.first_left_out).min();
        (self.body, self.keys, self.items, self.runs) = (left.body, left.keys, left.items, left.runs);
    }

    /// Records that every row up to this place has been considered for this batch.
    pub(crate) fn reach(&mut self, through: SettledUpTo) {
        self.through = Some(through);
    }

    /// The backfill has considered everything up to the key of this text.
    pub(crate) fn reach_key(&mut self, text: &[u8]) {
        self.through = None;
        self.key_reached.clear();
        self.key_reached.extend_from_slice(text);
    }

    /// Returns the batch's size, for the next one to reserve.
    pub(crate) fn room(&self) -> Capacity {
        Capacity { body: self.body.len(), keys: self.keys.len(), items: self.items.len() }
    }

    /// Bytes that it holds in memory.
    pub(crate) fn weight(&self) -> usize {
        self.body.len()
            + self.keys.len()
            + self.items.len() * size_of::<ItemSpan>()
            + self.refused_weight
            + (self.seen.len() + self.unsent.len()) * size_of::<SeenRow>()
    }

    /// When the first row was added.
    pub(crate) fn opened(&self) -> Duration {
        self.opened
    }

    /// When the first streamed row was committed (µs since 2000-01-01 UTC).
    pub(crate) fn committed(&self) -> Option<i64> {
        self.committed
    }

    /// Whether the batch holds no row and no place.
    pub(crate) fn is_empty(&self) -> bool {
        let is_reached = self.through.is_some() || !self.key_reached.is_empty();
        self.items.is_empty() && self.refused.is_empty() && self.left_out.total() == 0 && !is_reached
    }

    /// Rows in it that are sent or go into quarantine.
    pub(crate) fn rows(&self) -> usize {
        self.items.len() + self.refused.len()
    }

    /// Rows in it that a rule leaves out.
    pub(crate) fn left_out(&self) -> u64 {
        self.left_out.total()
    }

    /// Whether the batch has reached a limit. The refused rows' bytes count: they are written in one transaction.
    pub(crate) fn is_full(&self, limits: BatchLimits) -> bool {
        self.rows() >= limits.rows as usize
            || self.unsent.len() >= MOST_UNSENT
            || self.body.len() + 1 + self.refused_weight >= body_limit(limits)
    }

    /// Whether its newest item made it too large: then that item must begin the next batch.
    pub(crate) fn overflows(&self, limits: BatchLimits) -> bool {
        self.items.len() > 1 && self.body.len() + 1 > body_limit(limits)
    }

    /// Length of the newest item.
    pub(crate) fn newest_len(&self) -> usize {
        let start = match self.items.len() {
            0 => return 0,
            1 => 1,
            n => self.items[n - 2].end as usize + 1,
        };
        self.body.len() - start
    }

    /// Takes the newest item out again (its bytes), as if it had not been pushed.
    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        let len = self.newest_len();
        self.items.pop()?;
        self.seen.truncate(self.items.len());
        let item = self.body.split_off(self.body.len() - len);
        if !self.items.is_empty() {
            self.body.pop();
        }
        self.keys.truncate(self.items.last().map_or(0, |item| item.key_end as usize));
        if self.runs.last().is_some_and(|run| run.first as usize >= self.items.len()) {
            self.runs.pop();
        }
        Some(item)
    }

    /// The first streamed position in it, of rows refused and left out too.
    pub(crate) fn first_position(&self) -> Option<Position> {
        first_position(&self.items, &self.runs, &self.refused).into_iter().chain(self.first_left_out).min()
    }

    /// Closes the batch.
    pub(crate) fn seal(mut self) -> Batch {
        self.body.push(b']');
        let reached = || match &self.key_reached[..] {
            [] => SettledUpTo::Apart,
            text => SettledUpTo::of_key(text),
        };
        let through = self.through.take().unwrap_or_else(reached);
        Batch {
            phase: self.phase,
            body: Bytes::from(self.body),
            keys: self.keys,
            items: self.items,
            runs: self.runs,
            refused: self.refused,
            left_out: self.left_out,
            left_out_retries: self.left_out_retries,
            first_left_out: self.first_left_out,
            through,
            opened: self.opened,
            doubts: Vec::new(),
            seen: self.seen,
            unsent: self.unsent,
        }
    }
}

/// Rows without an item that one batch settles, at most.
const MOST_UNSENT: usize = 50_000;

pub(crate) fn body_limit(limits: BatchLimits) -> usize {
    usize::try_from(limits.bytes).unwrap_or(MAX_BODY).min(MAX_BODY)
}

/// What a metric's item is the value of: everything in it but the value, and of the date the day (in UTC, as all dates are sent).
fn object_and_day(item: &[u8]) -> Vec<u8> {
    let Ok(mut members) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(item) else {
        return item.to_vec();
    };
    members.remove("value");
    if let Some(serde_json::Value::String(date)) = members.get_mut("date") {
        let day = date.char_indices().nth(DAY).map_or(date.len(), |(at, _)| at);
        date.truncate(day);
    }
    serde_json::to_vec(&members).unwrap_or_else(|_| item.to_vec())
}

/// Characters of `2026-01-31`.
const DAY: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Lsn;
    use proptest::prelude::*;

    /// Two rows share a WAL record.
    fn at(transaction: u64, index: usize) -> Position {
        let (change_lsn, ordinal) = (Lsn(index as u64 / 2 + 1), u32::from(index % 2 == 1));
        Position { final_lsn: Lsn(transaction), change_lsn, ordinal }
    }

    /// `(transaction, item or refusal)` rows with ascending keys.
    fn fill(rows: &[(u64, bool)]) -> Batch {
        let mut open = BatchBuilder::new(Phase::Stream, Duration::ZERO, Capacity::default());
        for (index, (transaction, good)) in rows.iter().enumerate() {
            let position = at(*transaction, index);
            let key = (index + 100).to_string();
            if *good {
                let encode = |out: &mut Vec<u8>| -> Result<(), ()> {
                    out.extend_from_slice(format!("{{\"k\":{key}}}").as_bytes());
                    Ok(())
                };
                open.push(key.as_bytes(), Origin::Stream(position, 7), encode).unwrap();
            } else {
                let half = |out: &mut Vec<u8>| {
                    out.extend_from_slice(b"{half");
                    Err(())
                };
                open.push(key.as_bytes(), Origin::Stream(position, 7), half).unwrap_err();
                let refused = RejectedRow::new(key, "mapping: no".into(), "{}".into());
                open.refuse(RejectedRow { position: Some(position), ..refused });
            }
            open.reach(SettledUpTo::Stream(position));
        }
        open.seal()
    }

    fn parts(batch: Batch, out: &mut Vec<Batch>) {
        match batch.split() {
            (one, None) => out.push(one),
            (first, Some(second)) => {
                parts(first, out);
                parts(second, out);
            }
        }
    }

    proptest! {
        #[test]
        fn halving_keeps_every_row_its_key_its_place_and_the_order(
            rows in proptest::collection::vec((0u64..3, prop::bool::weighted(0.8)), 1..30)
        ) {
            let mut transaction = 0;
            let rows: Vec<(u64, bool)> = rows.into_iter().map(|(step, good)| { transaction += step; (transaction + 1, good) }).collect();
            let whole = fill(&rows);
            let good: Vec<usize> = rows.iter().enumerate().filter(|(_, (_, good))| *good).map(|(i, _)| i).collect();
            let json: Vec<serde_json::Value> = serde_json::from_slice(&whole.body()).unwrap();
            prop_assert_eq!(json.len(), good.len());
            let end = whole.through.clone();
            let mut halves = Vec::new();
            parts(whole, &mut halves);
            let mut seen = Vec::new();
            let mut refused = Vec::new();
            let mut reached = None;
            for half in &halves {
                let json: Vec<serde_json::Value> = serde_json::from_slice(&half.body()).unwrap();
                prop_assert_eq!(json.len(), half.len());
                for (index, value) in json.iter().enumerate() {
                    let row: usize = value["k"].to_string().parse::<usize>().unwrap() - 100;
                    prop_assert_eq!(half.key(index).to_vec(), (row + 100).to_string().into_bytes());
                    prop_assert_eq!(half.item(index).to_vec(), format!("{{\"k\":{}}}", row + 100).into_bytes());
                    prop_assert_eq!(half.position(index), Some(at(rows[row].0, row)));
                    seen.push(row);
                }
                prop_assert_eq!(half.commits().map(|(_, n)| n).sum::<usize>(), half.len());
                for row in &half.refused { refused.push(row.key.clone()); }
                let SettledUpTo::Stream(through) = half.through else { panic!() };
                prop_assert!(reached < Some(through));
                prop_assert!(half.refused.iter().all(|row| row.position.unwrap() <= through));
                reached = Some(through);
            }
            prop_assert_eq!(seen, good);
            prop_assert_eq!(refused.len(), rows.len() - json.len());
            prop_assert_eq!(reached.map(SettledUpTo::Stream), Some(end));
        }

        #[test]
        fn case_266_of_each_key_object_and_day_the_newest_version_stays_with_its_place(
            rows in proptest::collection::vec((0u64..2, 0u8..4, prop::bool::weighted(0.8), 1u8..3, 0u8..2), 1..40)
        ) {
            let mut open = BatchBuilder::new(Phase::Stream, Duration::ZERO, Capacity::default());
            let mut transaction = 1;
            let mut versions = Vec::new();
            for (index, (step, key, good, day, object)) in rows.iter().enumerate() {
                transaction += step;
                let of = format!("\"externalId\":\"a{object}\",\"date\":\"2026-01-0{day}T");
                let (position, key) = (at(transaction, index), if *key == 3 { String::new() } else { key.to_string() });
                if *good {
                    let encode = |out: &mut Vec<u8>| { out.extend_from_slice(format!("{{\"value\":{index},{of}00:00:{index:02}Z\"}}").as_bytes()); Ok::<_, ()>(()) };
                    open.push(key.as_bytes(), Origin::Stream(position, 7), encode).unwrap();
                    versions.push((key, index, position, of));
                } else {
                    open.refuse(RejectedRow { position: Some(position), ..RejectedRow::new(key, "mapping: no".into(), index.to_string()) });
                }
                open.reach(SettledUpTo::Stream(position));
            }
            let first = open.first_position();
            open.keep_newest();
            let batch = open.seal();
            let newest = |(at, (key, .., of)): &(usize, &(String, usize, Position, String))| {
                key.is_empty() || versions[at + 1..].iter().all(|(later, .., its)| later != key || its != of)
            };
            let expected: Vec<_> = versions.iter().enumerate().filter(newest).map(|(_, version)| version).collect();
            prop_assert_eq!(batch.len(), expected.len());
            prop_assert_eq!(batch.left_out.of(FilterRule::Superseded), (versions.len() - expected.len()) as u64);
            prop_assert_eq!(batch.first_position(), first);
            let json: Vec<serde_json::Value> = serde_json::from_slice(&batch.body()).unwrap();
            for (index, (key, row, position, _)) in expected.iter().enumerate() {
                prop_assert_eq!(json[index]["value"].as_u64(), Some(*row as u64));
                prop_assert_eq!(batch.key(index), key.as_bytes());
                prop_assert_eq!(batch.position(index), Some(*position));
            }
            // A refused row stands behind the items that came before it.
            for row in &batch.refused {
                let own: usize = row.item.parse().unwrap();
                let ahead = expected.iter().filter(|(_, index, ..)| *index < own).count();
                prop_assert_eq!(row.before as usize, ahead);
            }
        }

        #[test]
        fn the_newest_item_can_be_taken_out_again(rows in proptest::collection::vec(0u64..2, 2..20)) {
            let mut open = BatchBuilder::new(Phase::Stream, Duration::ZERO, Capacity::default());
            let mut transaction = 1;
            let mut before = None;
            for (index, step) in rows.iter().enumerate() {
                transaction += step;
                let position = at(transaction, index);
                if index + 1 == rows.len() { before = Some((open.body.clone(), open.keys.clone(), open.items.clone(), open.runs.clone())); }
                open.push(b"1", Origin::Stream(position, 0), |out| { out.extend_from_slice(format!("{index}").as_bytes()); Ok::<_, ()>(()) }).unwrap();
            }
            let newest = open.pop().unwrap();
            prop_assert_eq!(newest, (rows.len() - 1).to_string().into_bytes());
            prop_assert_eq!(Some((open.body, open.keys, open.items, open.runs)), before);
        }
    }
}
