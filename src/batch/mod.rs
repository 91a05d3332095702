//! Items gathered into the body of one request: by rows, bytes and age. Pure.
//!
//! * In: encoded items, in order, with their keys and places; rows that are no item, with the reason.
//! * Out: [`Batch`]es, sealed: a JSON array of at most the section's rows and bytes.
//! * Never: an item in two batches, an item out of order, a body over the sink's own limit.

mod row;

use std::time::Duration;

pub use row::{Origin, Refused, Through};

use bytes::Bytes;

use crate::config::BatchLimits;
use crate::row::{Key, Lsn, Phase, Position};

/// No body is larger than this, whatever the configuration says (PLANHAT.md: 32 MB a body; stay at or under this).
pub const MAX_BODY: usize = 30_000_000;

/// One item's places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    /// Where it ends in the body.
    end: u32,
    /// Where its key ends in the keys.
    key_end: u32,
    /// Ordinal of its row in its transaction (stream), or its quarantine id (retry).
    ordinal: i64,
}

/// Where the items of one transaction begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: u32,
    final_lsn: Lsn,
    commit_micros: i64,
}

/// How large a batch became: what the next one had better reserve at once, instead of growing by copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    body: usize,
    keys: usize,
    items: usize,
}

/// A batch that is being filled.
#[derive(Debug)]
pub struct Open {
    phase: Phase,
    body: Vec<u8>,
    keys: Vec<u8>,
    items: Vec<Item>,
    runs: Vec<Run>,
    refused: Vec<Refused>,
    through: Option<Through>,
    opened: Duration,
    /// It is full: it goes as soon as the place of its newest row is known.
    pub seal_at_reach: bool,
}

fn offset(at: usize) -> u32 {
    // Bodies and their keys are bounded by MAX_BODY and one row's length: far below 4 GiB.
    u32::try_from(at).unwrap_or(u32::MAX)
}

impl Open {
    /// An empty batch, opened at `now` (any monotonic clock), with room for another like the one before.
    pub fn new(phase: Phase, now: Duration, room: Room) -> Open {
        let mut body = Vec::with_capacity(room.body + 1);
        body.push(b'[');
        Open {
            phase,
            body,
            keys: Vec::with_capacity(room.keys),
            items: Vec::with_capacity(room.items),
            runs: Vec::new(),
            refused: Vec::new(),
            through: None,
            opened: now,
            seal_at_reach: false,
        }
    }

    /// Encodes one item to the end of the body. Where `encode` refuses, the batch is as it was.
    ///
    /// # Errors
    /// What `encode` returns.
    pub fn push<E>(
        &mut self,
        key: &[u8],
        origin: Origin,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
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

    /// Records the places of the item that now ends the body.
    fn place(&mut self, key: &[u8], origin: Origin) {
        self.keys.extend_from_slice(key);
        let ordinal = match origin {
            Origin::Stream(position, commit_micros) => {
                if self.runs.last().is_none_or(|run| run.final_lsn != position.final_lsn) {
                    let first = offset(self.items.len());
                    self.runs.push(Run { first, final_lsn: position.final_lsn, commit_micros });
                }
                i64::try_from(position.ordinal).unwrap_or(i64::MAX)
            }
            Origin::Range => 0,
            Origin::Quarantine(id) => id,
        };
        self.items.push(Item { end: offset(self.body.len()), key_end: offset(self.keys.len()), ordinal });
    }

    /// Adds a row that is no item.
    pub fn refuse(&mut self, refused: Refused) {
        self.refused.push(Refused { before: offset(self.items.len()), ..refused });
    }

    /// Everything up to here has been considered for this batch.
    pub fn reach(&mut self, through: Through) {
        self.through = Some(through);
    }

    /// The room that it took.
    pub fn room(&self) -> Room {
        Room { body: self.body.len(), keys: self.keys.len(), items: self.items.len() }
    }

    /// Bytes that it holds in memory.
    pub fn weight(&self) -> usize {
        self.body.len() + self.keys.len() + self.items.len() * size_of::<Item>() + refused_weight(&self.refused)
    }

    /// When its first row came.
    pub fn opened(&self) -> Duration {
        self.opened
    }

    /// Whether nothing was put into it, not even a place reached.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.refused.is_empty() && self.through.is_none()
    }

    /// Rows in it, refused ones included.
    pub fn rows(&self) -> usize {
        self.items.len() + self.refused.len()
    }

    /// Whether it must go now.
    pub fn is_full(&self, limits: BatchLimits) -> bool {
        self.rows() >= limits.rows as usize || self.body.len() + 1 >= body_limit(limits)
    }

    /// Whether its newest item made it too large: then that item must begin the next batch.
    pub fn overflows(&self, limits: BatchLimits) -> bool {
        self.items.len() > 1 && self.body.len() + 1 > body_limit(limits)
    }

    /// Length of the newest item.
    pub fn newest_len(&self) -> usize {
        let start = match self.items.len() {
            0 => return 0,
            1 => 1,
            n => self.items[n - 2].end as usize + 1,
        };
        self.body.len() - start
    }

    /// Takes the newest item out again (its bytes), as if it had not been pushed.
    pub fn pop(&mut self) -> Option<Vec<u8>> {
        let len = self.newest_len();
        self.items.pop()?;
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

    /// The first streamed position in it.
    pub fn first_position(&self) -> Option<Position> {
        first_position(&self.items, &self.runs, &self.refused)
    }

    /// Closes the batch.
    pub fn seal(mut self) -> Batch {
        self.body.push(b']');
        Batch {
            phase: self.phase,
            body: Bytes::from(self.body),
            keys: self.keys,
            items: self.items,
            runs: self.runs,
            refused: self.refused,
            through: self.through.unwrap_or(Through::Apart),
            opened: self.opened,
            doubts: Vec::new(),
        }
    }
}

fn body_limit(limits: BatchLimits) -> usize {
    usize::try_from(limits.bytes).unwrap_or(MAX_BODY).min(MAX_BODY)
}

fn first_position(items: &[Item], runs: &[Run], refused: &[Refused]) -> Option<Position> {
    let item = items.first().zip(runs.first()).map(|(item, run)| Position {
        final_lsn: run.final_lsn,
        ordinal: u64::try_from(item.ordinal).unwrap_or_default(),
    });
    [item, refused.first().and_then(|row| row.position)].into_iter().flatten().min()
}

fn refused_weight(refused: &[Refused]) -> usize {
    refused.iter().map(|row| row.key.len() + row.reason.len() + row.item.len() + size_of::<Refused>()).sum()
}

/// The items of one request, and the refused rows among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Which way its rows came.
    pub phase: Phase,
    body: Bytes,
    keys: Vec<u8>,
    items: Vec<Item>,
    runs: Vec<Run>,
    /// Rows that are no items.
    pub refused: Vec<Refused>,
    /// What its settlement settles.
    pub through: Through,
    opened: Duration,
    /// Batches in doubt (ledger id, rows) that this one wholly repeats once it is settled; only for retries, whose rows have
    /// no place that could tell.
    pub doubts: Vec<(i64, u32)>,
}

impl Batch {
    /// Items in it.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The request's body: a JSON array.
    pub fn body(&self) -> Bytes {
        self.body.clone()
    }

    /// Bytes that it holds in memory.
    pub fn weight(&self) -> usize {
        self.body.len() + self.keys.len() + self.items.len() * size_of::<Item>() + refused_weight(&self.refused)
    }

    /// When its first row came.
    pub fn opened(&self) -> Duration {
        self.opened
    }

    /// One item's JSON.
    pub fn item(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 1 } else { self.items[index - 1].end as usize + 1 };
        &self.body[start..self.items[index].end as usize]
    }

    /// One item's key.
    pub fn key(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.items[index - 1].key_end as usize };
        &self.keys[start..self.items[index].key_end as usize]
    }

    /// One item's place in the stream.
    pub fn position(&self, index: usize) -> Option<Position> {
        let run = self.runs.partition_point(|run| run.first as usize <= index).checked_sub(1)?;
        let ordinal = u64::try_from(self.items[index].ordinal).unwrap_or_default();
        Some(Position { final_lsn: self.runs[run].final_lsn, ordinal })
    }

    /// The quarantine rows that its items were retried from.
    pub fn retried(&self) -> Vec<i64> {
        if self.phase != Phase::Retry {
            return Vec::new();
        }
        let items = self.items.iter().map(|item| item.ordinal);
        items.chain(self.refused.iter().filter_map(|refused| refused.retried)).collect()
    }

    /// The quarantine row that one item was retried from.
    pub fn retried_from(&self, index: usize) -> Option<i64> {
        (self.phase == Phase::Retry).then(|| self.items[index].ordinal)
    }

    /// For each transaction in it: when it committed (µs since 2000-01-01 UTC) and how many items it has here.
    pub fn commits(&self) -> impl Iterator<Item = (i64, usize)> + '_ {
        self.runs.iter().enumerate().map(|(index, run)| {
            let end = self.runs.get(index + 1).map_or(self.items.len(), |next| next.first as usize);
            (run.commit_micros, end - run.first as usize)
        })
    }

    /// First and last position, for streamed items.
    pub fn span(&self) -> Option<(Position, Position)> {
        let last = self.items.len().checked_sub(1)?;
        Some((self.position(0)?, self.position(last)?))
    }

    /// The first streamed position in it, refused rows included.
    pub fn first_position(&self) -> Option<Position> {
        first_position(&self.items, &self.runs, &self.refused)
    }

    /// Halves it; the second half is `None` where there is one item (or none).
    pub fn split(self, key_of: impl Fn(&[u8]) -> Option<Key>) -> (Batch, Option<Batch>) {
        let half = self.items.len() / 2;
        if half == 0 {
            return (self, None);
        }
        let cut = self.items[half - 1];
        let mut first = Vec::with_capacity(cut.end as usize + 1);
        first.extend_from_slice(&self.body[..cut.end as usize]);
        first.push(b']');
        let mut second = Vec::with_capacity(self.body.len() - cut.end as usize);
        second.push(b'[');
        second.extend_from_slice(&self.body[cut.end as usize + 1..]);

        let half_u32 = offset(half);
        let reached = match &self.through {
            Through::Stream(_) => self.position(half - 1).map_or(Through::Apart, Through::Stream),
            Through::Key(_) | Through::RangeEnd => key_of(self.key(half - 1)).map_or(Through::Apart, Through::Key),
            Through::Apart => Through::Apart,
        };
        let (early, late): (Vec<_>, Vec<_>) = self.refused.into_iter().partition(|row| row.before < half_u32);
        let run_at = self.runs.partition_point(|run| run.first < half_u32);
        let mut late_runs: Vec<Run> = self.runs[run_at.saturating_sub(1)..].to_vec();
        for run in &mut late_runs {
            run.first = run.first.saturating_sub(half_u32);
        }
        if late_runs.len() > 1 && late_runs[1].first == 0 {
            late_runs.remove(0);
        }
        let shift =
            |item: &Item| Item { end: item.end - cut.end, key_end: item.key_end - cut.key_end, ordinal: item.ordinal };
        let second = Batch {
            phase: self.phase,
            body: Bytes::from(second),
            keys: self.keys[cut.key_end as usize..].to_vec(),
            items: self.items[half..].iter().map(shift).collect(),
            runs: late_runs,
            refused: late.into_iter().map(|row| Refused { before: row.before - half_u32, ..row }).collect(),
            through: self.through,
            opened: self.opened,
            doubts: self.doubts,
        };
        let first = Batch {
            phase: self.phase,
            body: Bytes::from(first),
            keys: self.keys[..cut.key_end as usize].to_vec(),
            items: self.items[..half].to_vec(),
            runs: self.runs[..run_at].to_vec(),
            refused: early,
            through: reached,
            opened: self.opened,
            doubts: Vec::new(),
        };
        (first, Some(second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::KeyType;
    use proptest::prelude::*;

    fn key_of(text: &[u8]) -> Option<Key> {
        Key::parse(text, KeyType::Int).ok()
    }

    /// `(transaction, item or refusal)` rows with ascending keys.
    fn fill(rows: &[(u64, bool)]) -> Batch {
        let mut open = Open::new(Phase::Stream, Duration::ZERO, Room::default());
        for (index, (transaction, good)) in rows.iter().enumerate() {
            let position = Position { final_lsn: Lsn(*transaction), ordinal: index as u64 };
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
                let refused = Refused::new(key, "mapping: no".into(), "{}".into());
                open.refuse(Refused { position: Some(position), ..refused });
            }
            open.reach(Through::Stream(position));
        }
        open.seal()
    }

    fn parts(batch: Batch, out: &mut Vec<Batch>) {
        match batch.split(key_of) {
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
                    prop_assert_eq!(half.position(index), Some(Position { final_lsn: Lsn(rows[row].0), ordinal: row as u64 }));
                    seen.push(row);
                }
                prop_assert_eq!(half.commits().map(|(_, n)| n).sum::<usize>(), half.len());
                for row in &half.refused { refused.push(row.key.clone()); }
                let Through::Stream(through) = half.through else { panic!() };
                prop_assert!(reached < Some(through));
                prop_assert!(half.refused.iter().all(|row| row.position.unwrap() <= through));
                reached = Some(through);
            }
            prop_assert_eq!(seen, good);
            prop_assert_eq!(refused.len(), rows.len() - json.len());
            prop_assert_eq!(reached.map(Through::Stream), Some(end));
        }

        #[test]
        fn the_newest_item_can_be_taken_out_again(rows in proptest::collection::vec(0u64..2, 2..20)) {
            let mut open = Open::new(Phase::Stream, Duration::ZERO, Room::default());
            let mut transaction = 1;
            let mut before = None;
            for (index, step) in rows.iter().enumerate() {
                transaction += step;
                let position = Position { final_lsn: Lsn(transaction), ordinal: index as u64 };
                if index + 1 == rows.len() { before = Some((open.body.clone(), open.keys.clone(), open.items.clone(), open.runs.clone())); }
                open.push(b"1", Origin::Stream(position, 0), |out| { out.extend_from_slice(format!("{index}").as_bytes()); Ok::<_, ()>(()) }).unwrap();
            }
            let newest = open.pop().unwrap();
            prop_assert_eq!(newest, (rows.len() - 1).to_string().into_bytes());
            prop_assert_eq!(Some((open.body, open.keys, open.items, open.runs)), before);
        }
    }
}
