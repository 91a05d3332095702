//! The set of keys of one batch, as bytes for the ledger. Pure.
//!
//! * In: the texts of keys, in any order.
//! * Out: bytes: integers as ranges (a few bytes for a dense batch), other keys as sorted digests of 8 bytes.
//! * Never: a set that decodes to other keys than it was made of.
//!
//! The bytes: the count of ranges (varint); for each its distance from the end of the one before (zigzag varint) and its
//! length less one (varint); then digests, 8 bytes each, little-endian, ascending.

use crate::audit::AuditKey;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BatchKeys {
    /// First and last of each range, ascending, with a gap between any two.
    pub(crate) ranges: Vec<(i64, i64)>,
    /// Digests in ascending order, each once.
    pub(crate) digests: Vec<u64>,
}

impl BatchKeys {
    /// The set of these keys; a key given twice counts once.
    pub(crate) fn new(keys: impl IntoIterator<Item = AuditKey>) -> BatchKeys {
        let (mut integers, mut digests) = (Vec::new(), Vec::new());
        for key in keys {
            match key {
                AuditKey::Integer(value) => integers.push(value),
                AuditKey::Digest(digest) => digests.push(digest),
            }
        }
        if !integers.is_sorted() {
            integers.sort_unstable();
        }
        digests.sort_unstable();
        digests.dedup();
        let mut ranges: Vec<(i64, i64)> = Vec::new();
        for value in integers {
            match ranges.last_mut() {
                Some((_, last)) if value <= *last => {}
                Some((_, last)) if last.checked_add(1) == Some(value) => *last = value,
                Some(_) | None => ranges.push((value, value)),
            }
        }
        BatchKeys { ranges, digests }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.digests.is_empty()
    }

    /// Its keys, each once.
    pub(crate) fn iter(&self) -> impl Iterator<Item = AuditKey> {
        let integers = self.ranges.iter().flat_map(|(first, last)| *first..=*last).map(AuditKey::Integer);
        integers.chain(self.digests.iter().copied().map(AuditKey::Digest))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + self.ranges.len() * 4 + self.digests.len() * 8);
        varint(&mut out, self.ranges.len() as u64);
        let mut end = 0_i64;
        for (first, last) in &self.ranges {
            varint(&mut out, zigzag(first.wrapping_sub(end)));
            varint(&mut out, last.wrapping_sub(*first).cast_unsigned());
            end = *last;
        }
        for digest in &self.digests {
            out.extend_from_slice(&digest.to_le_bytes());
        }
        out
    }

    /// Decodes a set; `None` where the bytes are not one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<BatchKeys> {
        let mut rest = bytes;
        let count = usize::try_from(take_varint(&mut rest)?).ok()?;
        let mut ranges = Vec::with_capacity(count.min(bytes.len()));
        let mut end = 0_i64;
        for _ in 0..count {
            let first = end.wrapping_add(unzigzag(take_varint(&mut rest)?));
            let last = first.wrapping_add(take_varint(&mut rest)?.cast_signed());
            if last < first || ranges.last().is_some_and(|(_, before)| first <= *before) {
                return None;
            }
            ranges.push((first, last));
            end = last;
        }
        let (digests, []) = rest.as_chunks::<8>() else { return None };
        let digests: Vec<u64> = digests.iter().map(|digest| u64::from_le_bytes(*digest)).collect();
        digests.is_sorted_by(|one, next| one < next).then_some(BatchKeys { ranges, digests })
    }

    /// Whether the set holds the key.
    pub(crate) fn contains(&self, key: AuditKey) -> bool {
        match key {
            AuditKey::Integer(value) => {
                let after = self.ranges.partition_point(|(first, _)| *first <= value);
                after > 0 && self.ranges[after - 1].1 >= value
            }
            AuditKey::Digest(digest) => self.digests.binary_search(&digest).is_ok(),
        }
    }
}

pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

pub(crate) fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7F).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_dense_batch_costs_a_few_bytes_and_others_eight_a_row() {
        let dense = BatchKeys::new((5_000_001..=5_010_000).map(AuditKey::Integer)).encode();
        assert!(dense.len() <= 10, "{} bytes for 10,000 rows", dense.len());
        let others = BatchKeys::new((0..1_000_u32).map(|n| AuditKey::of(format!("k{n}").as_bytes()))).encode();
        assert!(others.len() <= 9 * 1_000);
    }

    #[test]
    fn bytes_that_are_no_set_are_refused() {
        for bytes in [&[][..], &[1], &[0, 1, 2], &[1, 2, 0x80], &[0xFF; 12]] {
            assert_eq!(BatchKeys::decode(bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn a_set_survives_its_bytes_and_knows_its_keys(
            near in proptest::collection::vec(-40_i64..40, 0..60),
            far in proptest::collection::vec(any::<i64>(), 0..10),
            texts in proptest::collection::vec("[a-z]{1,4}", 0..20),
        ) {
            let keys: Vec<AuditKey> = near.iter().chain(&far).map(|n| AuditKey::Integer(*n))
                .chain(texts.iter().map(|text| AuditKey::of(text.as_bytes()))).collect();
            let set = BatchKeys::new(keys.iter().copied());
            prop_assert_eq!(BatchKeys::decode(&set.encode()), Some(set.clone()));
            let known: BTreeSet<AuditKey> = keys.iter().copied().collect();
            for key in &keys { prop_assert!(set.contains(*key)); }
            for n in -45_i64..45 {
                prop_assert_eq!(set.contains(AuditKey::Integer(n)), known.contains(&AuditKey::Integer(n)));
            }
        }
    }
}
