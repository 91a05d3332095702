//! A set of keys that stays small: what the stream brought beside a backfill. Pure.
//!
//! * In: the texts of keys.
//! * Out: whether a key is in the set; as bytes, for the state: the whole set, or what was added since it was last written.
//! * Never: an order of keys; a key forgotten.
//!
//! Integers coalesce into ranges (a sequence's keys are dense), others are kept as digests of 128 bits: 16 bytes a key.
//!
//! The bytes: the count of ranges (varint); for each its distance from the end of the one before (zigzag varint) and its
//! length less one (varint); then the digests, 16 bytes each, little-endian.

use std::collections::{BTreeMap, HashSet};

use crate::audit::batch_keys::{take_varint, unzigzag, varint, zigzag};

/// The keys of one section that the stream has brought since it attached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet {
    /// First → last of each range of integers, both included.
    ranges: BTreeMap<i64, i64>,
    /// Digests, ascending.
    digests: Vec<u128>,
    /// Digests that are not in `digests` yet.
    newest: HashSet<u128>,
    /// What was added since the set was last written.
    added: KeysAdded,
}

/// Keys that were added since the set was last written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct KeysAdded {
    ranges: BTreeMap<i64, i64>,
    digests: Vec<u128>,
}

/// A set as it is to be written.
pub(crate) struct KeysToWrite {
    /// It is the whole set; else what was added.
    pub all: bool,
    pub keys: Vec<u8>,
}

/// A set of at most so many parts is written whole: one row of the state is less than many.
const WHOLE: usize = 128;

/// A key as the set holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeptKey {
    Integer(i64),
    Digest(u128),
}

/// As many digests are gathered before they are sorted in.
const NEWEST: usize = 4096;

impl KeySet {
    /// Adds a key.
    pub(crate) fn insert(&mut self, key: &[u8]) {
        match kept(key) {
            KeptKey::Integer(key) => {
                insert_range(&mut self.ranges, key, key);
                insert_range(&mut self.added.ranges, key, key);
            }
            KeptKey::Digest(digest) => {
                if self.digests.binary_search(&digest).is_err() && self.newest.insert(digest) {
                    self.added.digests.push(digest);
                }
                // An eighth of what is there: each digest is moved a bounded number of times.
                if self.newest.len() >= NEWEST.max(self.digests.len() / 8) {
                    self.sort();
                }
            }
        }
    }

    fn sort(&mut self) {
        self.digests.extend(self.newest.drain());
        self.digests.sort_unstable();
    }

    /// Whether nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.digests.is_empty() && self.newest.is_empty()
    }

    /// Whether the key is in it.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        if self.is_empty() {
            return false;
        }
        match kept(key) {
            KeptKey::Integer(key) => self.ranges.range(..=key).next_back().is_some_and(|(_, last)| *last >= key),
            KeptKey::Digest(digest) => self.digests.binary_search(&digest).is_ok() || self.newest.contains(&digest),
        }
    }

    /// Keys in it.
    pub(crate) fn len(&self) -> u64 {
        let ranges = self.ranges.iter().map(|(first, last)| last.abs_diff(*first).saturating_add(1));
        ranges.fold(0, u64::saturating_add) + (self.digests.len() + self.newest.len()) as u64
    }

    /// Bytes that it holds in memory, about.
    pub(crate) fn weight(&self) -> usize {
        // A node of the tree holds 11 entries, and is half full at the least; a hash table is full to seven eighths at most.
        let ranges = (self.ranges.len() + self.added.ranges.len()) * 32;
        let digests = self.digests.capacity() + self.added.digests.capacity();
        ranges + digests * size_of::<u128>() + self.newest.capacity() * 20
    }

    /// What is to be written now; `None` where nothing was added since. It is taken as written.
    pub(crate) fn take_unwritten(&mut self) -> Option<KeysToWrite> {
        let added = std::mem::take(&mut self.added);
        if added.ranges.is_empty() && added.digests.is_empty() {
            return None;
        }
        if self.ranges.len() + self.digests.len() + self.newest.len() <= WHOLE {
            return Some(self.whole());
        }
        Some(KeysToWrite { all: false, keys: encode(&added.ranges, added.digests.iter()) })
    }

    /// The whole set, to be written in the place of what was.
    pub(crate) fn whole(&mut self) -> KeysToWrite {
        self.added = KeysAdded::default();
        KeysToWrite { all: true, keys: encode(&self.ranges, self.digests.iter().chain(&self.newest)) }
    }

    /// Adds a set that was written.
    ///
    /// # Errors
    /// Where this program did not write it: the state was edited by hand.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<(), String> {
        let wrong = || format!("a set of {} bytes is none", bytes.len());
        let mut rest = bytes;
        let count = take_varint(&mut rest).ok_or_else(wrong)?;
        let mut end = 0_i64;
        for _ in 0..count {
            let first = end.wrapping_add(unzigzag(take_varint(&mut rest).ok_or_else(wrong)?));
            let last = first.wrapping_add(take_varint(&mut rest).ok_or_else(wrong)?.cast_signed());
            if last < first {
                return Err(wrong());
            }
            insert_range(&mut self.ranges, first, last);
            end = last;
        }
        let (digests, []) = rest.as_chunks::<16>() else { return Err(wrong()) };
        self.newest.extend(digests.iter().map(|digest| u128::from_le_bytes(*digest)));
        self.sort();
        self.digests.dedup();
        Ok(())
    }

    /// Reads the text that earlier versions wrote: `5-7,9` for integers (`-5--3` for negative ones), a JSON array of texts for
    /// others.
    ///
    /// # Errors
    /// The text, where it is none of ours: the state was edited by hand.
    pub(crate) fn from_text(text: &str) -> Result<KeySet, String> {
        let mut set = KeySet::default();
        if text.starts_with('[') {
            let texts: Vec<String> = serde_json::from_str(text).map_err(|error| error.to_string())?;
            texts.iter().for_each(|text| set.insert(text.as_bytes()));
            return Ok(set);
        }
        for range in text.split(',').filter(|range| !range.is_empty()) {
            let (first, last) = parse_range(range).ok_or_else(|| format!("not a key range: {range:?}"))?;
            insert_range(&mut set.ranges, first, last);
        }
        Ok(set)
    }
}

fn encode<'a>(ranges: &BTreeMap<i64, i64>, digests: impl Iterator<Item = &'a u128>) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, ranges.len() as u64);
    let mut end = 0_i64;
    for (first, last) in ranges {
        varint(&mut out, zigzag(first.wrapping_sub(end)));
        varint(&mut out, last.wrapping_sub(*first).cast_unsigned());
        end = *last;
    }
    digests.for_each(|digest| out.extend_from_slice(&digest.to_le_bytes()));
    out
}

/// An integer in its shortest form is kept by its value: no other text has it.
fn kept(key: &[u8]) -> KeptKey {
    match crate::audit::integer(key) {
        Some(value) => KeptKey::Integer(value),
        None => KeptKey::Digest(xxhash_rust::xxh3::xxh3_128(key)),
    }
}

fn insert_range(ranges: &mut BTreeMap<i64, i64>, mut first: i64, mut last: i64) {
    if let Some((&before, end)) = ranges.range_mut(..=first).next_back()
        && *end >= first.saturating_sub(1)
    {
        if *end >= last {
            return;
        }
        (first, last) = (before, last);
        *end = last;
    }
    while let Some((&after, &end)) =
        ranges.range((std::ops::Bound::Excluded(first), std::ops::Bound::Included(last.saturating_add(1)))).next()
    {
        ranges.remove(&after);
        last = last.max(end);
    }
    ranges.insert(first, last);
}

fn parse_range(text: &str) -> Option<(i64, i64)> {
    if let Ok(key) = text.parse() {
        return Some((key, key));
    }
    // The dash after the first number's first character: that character may itself be a sign.
    let dash = text.get(1..)?.find('-')? + 1;
    let (first, last) = (text.get(..dash)?.parse().ok()?, text.get(dash + 1..)?.parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_as_a_set_of_texts(
            keys in proptest::collection::vec(-20i64..20, 0..40), texts in proptest::collection::vec("[a-c0]{0,3}", 0..20), rewrite: bool,
        ) {
            let mut set = KeySet::default();
            let mut model = BTreeSet::new();
            let mut written: Vec<Vec<u8>> = Vec::new();
            for key in keys.iter().map(ToString::to_string).chain(texts) {
                set.insert(key.as_bytes());
                model.insert(key);
                if model.len() % 3 == 0 && let Some(one) = set.take_unwritten() {
                    if one.all { written.clear(); }
                    written.push(one.keys);
                }
            }
            if let Some(one) = set.take_unwritten() {
                if one.all { written.clear(); }
                written.push(one.keys);
            }
            prop_assert!(set.take_unwritten().is_none(), "nothing is written twice");
            let mut read = KeySet::default();
            for (number, bytes) in written.iter().enumerate() {
                if number > 0 && rewrite { read.read(bytes).unwrap(); }
                read.read(bytes).unwrap();
            }
            for key in (-25..25).map(|key: i64| key.to_string()).chain(["a", "ab", "0a", "", "abc"].map(str::to_owned)) {
                prop_assert_eq!(set.contains(key.as_bytes()), model.contains(&key), "{} in {:?}", key, set);
                prop_assert_eq!(read.contains(key.as_bytes()), model.contains(&key));
            }
            prop_assert_eq!((set.len(), read.len()), (model.len() as u64, model.len() as u64));
        }
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut set = KeySet::default();
        for key in [i64::MAX, i64::MIN, i64::MAX - 1, i64::MIN + 1] {
            set.insert(key.to_string().as_bytes());
        }
        let mut read = KeySet::default();
        read.read(&set.whole().keys).unwrap();
        assert_eq!(read, set);
        assert_eq!(set.len(), 4);
    }

    #[test]
    fn what_earlier_versions_wrote_is_read() {
        let old = KeySet::from_text(r#"["2024-01-01","2024-01-03"]"#).unwrap();
        assert!(old.contains(b"2024-01-01") && old.contains(b"2024-01-03") && !old.contains(b"2024-01-02"));
        assert!(KeySet::from_text("5-7,9").unwrap().contains(b"6"));
        for wrong in ["5-", "9-5", "x", "[1"] {
            assert!(KeySet::from_text(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn case_81_a_key_that_is_no_integer_costs_about_sixteen_bytes_and_is_written_once() {
        let mut set = KeySet::default();
        (0..200_000).for_each(|number| set.insert(format!("2024-01-01 00:00:00.{number}").as_bytes()));
        assert_eq!(set.len(), 200_000);
        assert!(set.take_unwritten().is_some_and(|one| !one.all && one.keys.len() < 200_000 * 16 + 8));
        assert!(set.weight() < 200_000 * 40, "{} bytes", set.weight());
        set.insert(b"one more");
        assert!(
            set.take_unwritten().is_some_and(|one| !one.all && one.keys.len() < 32),
            "what was added, not the whole"
        );
    }
}
