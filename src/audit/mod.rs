//! The arithmetic of proof: which keys a batch carried, kept small; and what a comparison with the source shows. Pure.
//!
//! * In: the texts of keys, from batches, from the ledger, from the source.
//! * Out: [`BatchKeys`] for the ledger, a [`Tally`] for each section, a [`Comparison`] for people.
//! * Never: a verdict without evidence: what neither a set nor a tally proves is counted as unknown.

pub(crate) mod batch_keys;
pub(crate) mod comparison;
pub(crate) mod tally;

pub(crate) use crate::audit::batch_keys::BatchKeys;
pub(crate) use crate::audit::comparison::{Compared, Comparison, Evidence, Whereabouts};
pub(crate) use crate::audit::tally::{Tally, TallyEntry};

/// A key as the audit holds it: integers by value, everything else by a digest of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum AuditKey {
    /// The text is a 64-bit integer in its shortest form.
    Integer(i64),
    /// XXH3 of the text, 64 bits.
    Digest(u64),
}

impl AuditKey {
    pub(crate) fn of(text: &[u8]) -> AuditKey {
        match integer(text) {
            Some(value) => AuditKey::Integer(value),
            None => AuditKey::Digest(xxhash_rust::xxh3::xxh3_64(text)),
        }
    }
}

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
    fn holds_block(self, block: i64) -> bool {
        match tally::as_digest_block(block) {
            None => self.index == 0,
            Some(digests) => digests % self.of == self.index,
        }
    }
}

/// Bytes of digests that are held in memory at once.
const DIGESTS_AT_ONCE: u64 = 16 << 20;

/// An integer as PostgreSQL prints it: no plus sign, no leading zero, so that the text and the value tell each other.
pub(crate) fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let shortest = matches!(digits, [b'0'] | [b'1'..=b'9', ..]) && text != b"-0";
    if !shortest || digits.len() > 19 {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_shortest_text_is_an_integer() {
        for (text, value) in
            [("0", 0), ("-7", -7), ("9223372036854775807", i64::MAX), ("-9223372036854775808", i64::MIN)]
        {
            assert_eq!(AuditKey::of(text.as_bytes()), AuditKey::Integer(value));
        }
        for text in ["", "-", "+1", "01", "-0", "1.0", "9223372036854775808", "a", "1 "] {
            assert!(matches!(AuditKey::of(text.as_bytes()), AuditKey::Digest(_)), "{text}");
        }
    }

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

    proptest! {
        #[test]
        fn every_integer_is_one(value: i64) {
            prop_assert_eq!(AuditKey::of(value.to_string().as_bytes()), AuditKey::Integer(value));
        }
    }
}
