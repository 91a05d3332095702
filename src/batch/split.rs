//! Halving a batch. Pure.

use bytes::Bytes;

use super::{Batch, Item, Refused, Run, Through, offset};
use crate::row::Key;

impl Batch {
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
