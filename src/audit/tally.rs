//! How many keys of each block are settled, and their digest: what is proven of rows whose batches the ledger has pruned. Pure.
//!
//! * In: keys, as they are settled or as the source shows them.
//! * Out: rows and a digest for each block; the digests are combined by XOR, so that order does not matter.
//! * Never: two different sets of keys taken for one, but by a collision of 64-bit digests.

use std::collections::BTreeMap;

use crate::audit::AuditKey;

/// Integer keys are counted in blocks of so many, as a power of two.
const BLOCK_BITS: u32 = 16;
/// Other keys are counted in 16 blocks, by the top bits of their digest; these lie below every block of integers.
const DIGEST_BITS: u32 = 4;
const DIGEST_BASE: i64 = i64::MIN;
/// Blocks of what a re-sync delivers lie so far behind those of what was delivered before.
const RESYNC: i64 = 1 << 60;
/// So many blocks of keys that are no integers.
pub(crate) const DIGEST_BLOCKS: u64 = 1 << DIGEST_BITS;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TallyEntry {
    /// Keys counted.
    pub rows: i64,
    /// Their digests, combined by XOR.
    pub digest: i64,
}

impl TallyEntry {
    /// Adds a key.
    pub(crate) fn with(self, key: AuditKey) -> TallyEntry {
        TallyEntry { rows: self.rows + 1, digest: self.digest ^ digest(key) }
    }

    /// Adds `other`.
    pub(crate) fn with_all(self, other: TallyEntry) -> TallyEntry {
        TallyEntry { rows: self.rows + other.rows, digest: self.digest ^ other.digest }
    }

    /// Subtracts `other`.
    pub(crate) fn without(self, other: TallyEntry) -> TallyEntry {
        TallyEntry { rows: self.rows - other.rows, digest: self.digest ^ other.digest }
    }
}

/// Blocks by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally(pub(crate) BTreeMap<i64, TallyEntry>);

impl Tally {
    /// Counts a key.
    pub(crate) fn add(&mut self, key: AuditKey) {
        let entry = self.0.entry(block(key)).or_default();
        *entry = entry.with(key);
    }

    /// Counts a batch's keys.
    pub(crate) fn add_all(&mut self, ranges: &[(i64, i64)], digests: &[u64]) {
        digests.iter().for_each(|digest| self.add(AuditKey::Digest(*digest)));
        ranges.iter().flat_map(|(first, last)| *first..=*last).for_each(|value| self.add(AuditKey::Integer(value)));
    }

    /// Of these keys.
    pub(crate) fn of(keys: impl IntoIterator<Item = AuditKey>) -> Tally {
        let mut tally = Tally::default();
        keys.into_iter().for_each(|key| tally.add(key));
        tally
    }

    pub(crate) fn block(&self, block: i64) -> TallyEntry {
        self.0.get(&block).copied().unwrap_or_default()
    }
}

/// The block in which the keys of a re-sync are counted beside those of this block: they were delivered before, as a rule, and
/// counted there; together, they would hide each other.
pub(crate) fn resync_block(block: i64) -> i64 {
    block.wrapping_add(RESYNC)
}

/// The block beside which this one counts what re-syncs delivered; `None`: it is one of what came first.
pub(crate) fn beside_resync(block: i64) -> Option<i64> {
    let beside = block.wrapping_sub(RESYNC);
    let is_integer = beside.unsigned_abs() <= 1 << (63 - BLOCK_BITS);
    (is_integer || as_digest_block(beside).is_some()).then_some(beside)
}

/// The key before the first one of the block that this one is counted in; `None` where there is none before it.
pub(crate) fn before_block(value: i64) -> Option<i64> {
    ((value >> BLOCK_BITS) << BLOCK_BITS).checked_sub(1)
}

/// The block that a key is counted in.
pub(crate) fn block(key: AuditKey) -> i64 {
    match key {
        AuditKey::Integer(value) => value >> BLOCK_BITS,
        AuditKey::Digest(digest) => DIGEST_BASE + digest_block(digest).cast_signed(),
    }
}

/// Which of the [`DIGEST_BLOCKS`] a digest is counted in.
pub(crate) fn digest_block(digest: u64) -> u64 {
    digest >> (64 - DIGEST_BITS)
}

/// Which of the [`DIGEST_BLOCKS`] a block is; `None`: it is one of integers.
pub(crate) fn as_digest_block(block: i64) -> Option<u64> {
    Some(block.wrapping_sub(DIGEST_BASE).cast_unsigned()).filter(|block| *block < DIGEST_BLOCKS)
}

/// A key's digest: mixed, so that different sets of neighbours differ (the finalizer of SplitMix64).
fn digest(key: AuditKey) -> i64 {
    let mut mixed = match key {
        AuditKey::Integer(value) => value.cast_unsigned(),
        AuditKey::Digest(digest) => digest,
    }
    .wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ (mixed >> 31)).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_missing_key_and_a_swapped_pair_are_seen() {
        let all = Tally::of((1..=100).map(AuditKey::Integer));
        assert_ne!(Tally::of((1..=100).filter(|n| *n != 50).map(AuditKey::Integer)), all);
        assert_ne!(Tally::of((1..=99).chain([101]).map(AuditKey::Integer)), all);
        assert_eq!(Tally::of((1..=100).rev().map(AuditKey::Integer)), all);
    }

    #[test]
    fn a_block_begins_behind_the_key_before_it() {
        for (value, before) in [(1, -1), (65_535, -1), (65_536, 65_535), (-1, -65_537)] {
            assert_eq!(before_block(value), Some(before));
        }
        assert_eq!(before_block(i64::MIN + 5), None);
    }

    proptest! {
        #[test]
        fn integers_and_digests_never_share_a_block(value: i64, digest: u64) {
            let integer = block(AuditKey::Integer(value));
            let other = block(AuditKey::Digest(digest));
            prop_assert!(other < i64::MIN + 16 && integer >= i64::MIN >> BLOCK_BITS);
            for block in [integer, other] {
                prop_assert_eq!(beside_resync(block), None);
                prop_assert_eq!(beside_resync(resync_block(block)), Some(block));
            }
        }
    }
}
