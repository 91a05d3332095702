//! Shares of all keys, so that an audit of any number of them holds a bounded part at once. Pure.
//!
//! * In: how many bytes of digests the ledger has of a section.
//! * Out: the shares; of each key and each block of the tally the one that it belongs to.
//! * Never: a block of the tally divided; a key of two shares.

use crate::audit::{AuditKey, tally};

/// A share of all keys. Of more keys than memory may hold, an audit goes over them once for each share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub index: u64,
    pub of: u64,
}

impl Default for Share {
    /// Every key.
    fn default() -> Share {
        Share { index: 0, of: 1 }
    }
}

impl Share {
    /// All shares, where so many bytes of digests were kept.
    pub(crate) fn of_digests(bytes: u64) -> impl Iterator<Item = Share> {
        let of = bytes.div_ceil(DIGESTS_AT_ONCE).clamp(1, tally::DIGEST_BLOCKS);
        (0..of).map(move |index| Share { index, of })
    }

    /// Whether a key belongs to it. Integers, which are kept as ranges, are all of the first; a block is never divided.
    pub(crate) fn holds(self, key: AuditKey) -> bool {
        match key {
            AuditKey::Integer(_) => self.index == 0,
            AuditKey::Digest(digest) => tally::digest_block(digest) % self.of == self.index,
        }
    }

    /// Whether a block of the tally belongs to it.
    pub(crate) fn holds_block(self, block: i64) -> bool {
        match tally::as_digest_block(block) {
            None => self.index == 0,
            Some(digests) => digests % self.of == self.index,
        }
    }
}

/// Bytes of digests that are held in memory at once.
const DIGESTS_AT_ONCE: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_and_its_block_are_of_one_share() {
        let shares: Vec<Share> = Share::of_digests(70 << 20).collect();
        assert_eq!((shares.len(), Share::of_digests(0).count(), Share::of_digests(u64::MAX).count()), (5, 1, 16));
        for text in (0..500).map(|n| format!("{}{n}", if n % 2 == 0 { "" } else { "k" })) {
            let key = AuditKey::of(text.as_bytes());
            let held: Vec<&Share> = shares.iter().filter(|share| share.holds(key)).collect();
            assert!(held.len() == 1 && held[0].holds_block(tally::block(key)), "{text}");
        }
    }
}
