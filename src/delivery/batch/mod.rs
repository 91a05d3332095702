//! Items gathered into the body of one request: by rows, bytes and age. Pure.
//!
//! * In: encoded items, in order, with their keys and places; rows that are no item, with the reason.
//! * Out: [`Batch`]es, sealed: a JSON array of at most the section's rows and bytes.
//! * Never: an item in two batches, an item out of order, a body over the sink's own limit.

pub(crate) mod builder;
pub(crate) mod origin;

pub(crate) use crate::delivery::batch::origin::{Origin, RejectedRow, RunEnd, SettledUpTo};

use std::time::Duration;

use bytes::Bytes;

use crate::model::{KeyDigest, LeftOut, Lsn, Phase, Position, SeenRow};

/// No body is larger than this, whatever the configuration says (docs/planhat.md: 32 MB a body; stay at or under this).
pub(crate) const MAX_BODY: usize = 30_000_000;

/// The items of one request, and the refused rows among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// How the rows were read.
    pub phase: Phase,
    body: Bytes,
    keys: Vec<u8>,
    items: Vec<ItemSpan>,
    runs: Vec<Run>,
    /// The refused rows.
    pub refused: Vec<RejectedRow>,
    /// Rows that a rule leaves out, settled with it.
    pub left_out: LeftOut,
    left_out_retries: Vec<i64>,
    /// The first streamed row among those left out.
    first_left_out: Option<Position>,
    /// The position or key up to which everything is settled with this batch.
    pub through: SettledUpTo,
    opened: Duration,
    /// Batches in doubt (ledger id, rows) that this one wholly repeats once it is settled; only for retries, whose rows have
    /// no place that could tell.
    pub doubts: Vec<(i64, u32)>,
    /// What is to be remembered of each item, where they came out of a compared result; else empty.
    seen: Vec<SeenRow>,
    /// Rows of a compared result that are settled without an item.
    unsent: Vec<SeenRow>,
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
        self.body.len()
            + self.keys.len()
            + self.items.len() * size_of::<ItemSpan>()
            + refused_weight(&self.refused)
            + (self.seen.len() + self.unsent.len()) * size_of::<SeenRow>()
    }

    /// When the first row was added.
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
        Some(self.items[index].position(&self.runs[run]))
    }

    /// The quarantine rows that its items were retried from.
    pub fn retried(&self) -> Vec<i64> {
        if !self.phase.is_out_of_quarantine() {
            return Vec::new();
        }
        let items = self.items.iter().map(|item| item.retried());
        let refused = self.refused.iter().filter_map(|refused| refused.retried);
        items.chain(refused).chain(self.left_out_retries.iter().copied()).collect()
    }

    /// The quarantine row that one item was retried from.
    pub fn retried_from(&self, index: usize) -> Option<i64> {
        self.phase.is_out_of_quarantine().then(|| self.items[index].retried())
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

    /// The first streamed position in it, of rows refused and left out too.
    pub fn first_position(&self) -> Option<Position> {
        first_position(&self.items, &self.runs, &self.refused).into_iter().chain(self.first_left_out).min()
    }

    /// The first and the last digest of a key, where its items came out of a compared result.
    pub fn digests(&self) -> Option<(KeyDigest, KeyDigest)> {
        self.seen.first().zip(self.seen.last()).map(|(first, last)| (first.key, last.key))
    }

    /// Everything that is to be remembered once it is settled, encoded in the order of the keys' digests.
    pub fn seen(&self) -> Vec<u8> {
        let refused = self.refused.iter().filter_map(|row| row.seen);
        let mut all: Vec<SeenRow> = self.seen.iter().chain(&self.unsent).copied().chain(refused).collect();
        all.sort_unstable_by_key(|row| row.key);
        let mut out = Vec::with_capacity(all.len() * SeenRow::LEN);
        all.iter().for_each(|row| row.encode(&mut out));
        out
    }

    /// Splits the batch in half; the second half is `None` where there is one item or none.
    pub fn split(self) -> (Batch, Option<Batch>) {
        let half = self.items.len() / 2;
        self.split_at(half)
    }

    /// Cuts it behind the first `half` items; the second part is `None` where one of them would have none.
    pub fn split_at(self, half: usize) -> (Batch, Option<Batch>) {
        if half == 0 || half >= self.items.len() {
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
            SettledUpTo::Stream(_) => self.position(half - 1).map_or(SettledUpTo::Apart, SettledUpTo::Stream),
            SettledUpTo::Key(_) | SettledUpTo::BackfillEnd => SettledUpTo::of_key(self.key(half - 1)),
            SettledUpTo::Digest(_) | SettledUpTo::RunEnd(_) => {
                self.seen.get(half - 1).map_or(SettledUpTo::Apart, |seen| SettledUpTo::Digest(seen.key))
            }
            SettledUpTo::Apart => SettledUpTo::Apart,
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
        let (early_seen, late_seen) = self.seen.split_at(half.min(self.seen.len()));
        let shift =
            |item: &ItemSpan| ItemSpan { end: item.end - cut.end, key_end: item.key_end - cut.key_end, ..*item };
        let second = Batch {
            phase: self.phase,
            body: Bytes::from(second),
            keys: self.keys[cut.key_end as usize..].to_vec(),
            items: self.items[half..].iter().map(shift).collect(),
            runs: late_runs,
            refused: late.into_iter().map(|row| RejectedRow { before: row.before - half_u32, ..row }).collect(),
            left_out: self.left_out,
            left_out_retries: self.left_out_retries,
            first_left_out: self.first_left_out,
            through: self.through,
            opened: self.opened,
            doubts: self.doubts,
            seen: late_seen.to_vec(),
            unsent: self.unsent,
        };
        let first = Batch {
            phase: self.phase,
            body: Bytes::from(first),
            keys: self.keys[..cut.key_end as usize].to_vec(),
            items: self.items[..half].to_vec(),
            runs: self.runs[..run_at].to_vec(),
            refused: early,
            left_out: LeftOut::default(),
            left_out_retries: Vec::new(),
            first_left_out: None,
            through: reached,
            opened: self.opened,
            doubts: Vec::new(),
            seen: early_seen.to_vec(),
            unsent: Vec::new(),
        };
        (first, Some(second))
    }
}

/// One item's places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ItemSpan {
    /// Where it ends in the body.
    end: u32,
    /// Where its key ends in the keys.
    key_end: u32,
    /// Number of its row within its WAL record (stream).
    ordinal: u32,
    /// LSN of its row's WAL record (stream), or its quarantine id (retry).
    place: u64,
}

impl ItemSpan {
    /// A streamed item's position; `run` is its transaction's.
    fn position(&self, run: &Run) -> Position {
        Position { final_lsn: run.final_lsn, change_lsn: Lsn(self.place), ordinal: self.ordinal }
    }

    /// The quarantine row that a retried item comes from.
    fn retried(&self) -> i64 {
        self.place.cast_signed()
    }
}

/// Where the items of one transaction begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    first: u32,
    final_lsn: Lsn,
    commit_micros: i64,
}

pub(crate) fn offset(at: usize) -> u32 {
    // Bodies and their keys are bounded by MAX_BODY and one row's length: far below 4 GiB.
    u32::try_from(at).unwrap_or(u32::MAX)
}

pub(crate) fn first_position(items: &[ItemSpan], runs: &[Run], refused: &[RejectedRow]) -> Option<Position> {
    let item = items.first().zip(runs.first()).map(|(item, run)| item.position(run));
    [item, refused.first().and_then(|row| row.position)].into_iter().flatten().min()
}

pub(crate) fn refused_weight(refused: &[RejectedRow]) -> usize {
    refused.iter().map(|row| row.key.len() + row.reason.len() + row.item.len() + size_of::<RejectedRow>()).sum()
}
