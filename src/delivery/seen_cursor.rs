//! What was settled of a result, row by row in the order of the keys' digests, out of blocks that overlap. Pure.
//!
//! * In: the heads of all blocks; the blocks, a few at a time.
//! * Out: each settled row once, as the latest run left it.
//! * Never: more blocks held than are needed to know the next row, and a few read ahead.

use std::cmp::Reverse;
use std::collections::VecDeque;

use crate::model::SeenRow;
use crate::state::{SeenBlock, SeenHead};

/// Blocks that are read at once.
const AHEAD: usize = 8;

/// The settled rows of a section.
#[derive(Debug)]
pub(crate) struct SeenCursor {
    /// Blocks that were not read yet, in the order of their first rows.
    heads: VecDeque<SeenHead>,
    open: Vec<OpenBlock>,
}

#[derive(Debug)]
struct OpenBlock {
    run: i64,
    columns: i64,
    entries: Vec<u8>,
    at: usize,
    next: SeenRow,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextSeen {
    /// This row, and the digest of the names of the columns that its values were compared by.
    Row(SeenRow, i64),
    /// Nobody knows before further blocks are read.
    Unread,
    /// Nothing.
    End,
}

impl SeenCursor {
    /// The rows of these blocks, which are in the order of their first rows.
    pub(crate) fn new(heads: Vec<SeenHead>) -> SeenCursor {
        SeenCursor { heads: heads.into(), open: Vec::new() }
    }

    /// The next row.
    #[inline]
    pub(crate) fn peek(&self) -> NextSeen {
        let next = self.open.iter().min_by_key(|block| (block.next.key, Reverse(block.run)));
        match (next, self.heads.front()) {
            (Some(block), Some(head)) if block.next.key < head.first => NextSeen::Row(block.next, block.columns),
            (_, Some(_)) => NextSeen::Unread,
            (Some(block), None) => NextSeen::Row(block.next, block.columns),
            (None, None) => NextSeen::End,
        }
    }

    /// Goes past the next row, in every block that has it.
    #[inline]
    pub(crate) fn advance(&mut self) {
        let Some(key) = self.open.iter().map(|block| block.next.key).min() else { return };
        self.open.retain_mut(|block| block.next.key != key || block.advance());
    }

    /// The blocks to be read next: those that may hold the next row, and a few behind.
    pub(crate) fn unread(&mut self) -> Vec<SeenHead> {
        let last = self.heads.get(AHEAD - 1).or(self.heads.back()).map(|head| head.first);
        let count = self.heads.iter().take_while(|head| Some(head.first) <= last).count();
        self.heads.drain(..count).collect()
    }

    /// Takes blocks that were read.
    pub(crate) fn give(&mut self, blocks: Vec<SeenBlock>) {
        for SeenBlock { run, columns, entries } in blocks {
            if let Some(next) = SeenRow::decode(&entries, 0) {
                self.open.push(OpenBlock { run, columns, entries, at: 0, next });
            }
        }
    }
}

impl OpenBlock {
    /// Goes to its next row; `false` where there is none.
    fn advance(&mut self) -> bool {
        self.at += SeenRow::LEN;
        match SeenRow::decode(&self.entries, self.at) {
            Some(next) => {
                self.next = next;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::KeyDigest;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn seen(key: u8, values: u64) -> SeenRow {
        SeenRow { key: KeyDigest([key; 16]), values, day: 0 }
    }

    proptest! {
        #[test]
        fn each_row_comes_once_in_order_as_the_latest_run_left_it(
            runs in proptest::collection::vec(proptest::collection::btree_set(0..60_u8, 0..40), 1..6),
            cut in 1..7_usize,
        ) {
            let (mut expected, mut blocks) = (BTreeMap::new(), Vec::new());
            for (run, keys) in (0_u64..).zip(&runs) {
                let rows: Vec<SeenRow> = keys.iter().map(|key| seen(*key, run)).collect();
                rows.iter().for_each(|row| { expected.insert(row.key, *row); });
                for rows in rows.chunks(cut) {
                    let mut entries = Vec::new();
                    rows.iter().for_each(|row| row.encode(&mut entries));
                    blocks.push((rows[0].key, SeenBlock { run: run.cast_signed(), columns: 0, entries }));
                }
            }
            blocks.sort_by_key(|(first, block)| (*first, block.run));
            let heads = blocks.iter().map(|(first, block)| SeenHead {
                run: block.run, first: *first, columns: 0, rows: u32::try_from(block.entries.len() / SeenRow::LEN).unwrap(),
            });
            let mut cursor = SeenCursor::new(heads.collect());
            let mut found = Vec::new();
            loop {
                match cursor.peek() {
                    NextSeen::Row(row, _) => { found.push(row); cursor.advance(); }
                    NextSeen::Unread => {
                        let wanted = cursor.unread();
                        prop_assert!(!wanted.is_empty());
                        let is_wanted = |(first, block): &&(KeyDigest, SeenBlock)| {
                            wanted.iter().any(|head| head.first == *first && head.run == block.run)
                        };
                        cursor.give(blocks.iter().filter(is_wanted).map(|(_, block)| block.clone()).collect());
                    }
                    NextSeen::End => break,
                }
            }
            prop_assert_eq!(found, expected.into_values().collect::<Vec<_>>());
        }
    }
}
