//! A set of keys that stays small: what the stream brought beside a backfill. Pure.
//!
//! * In: the texts of keys.
//! * Out: whether a key is in the set; the set as text, for the checkpoint.
//! * Never: an order of keys; a key forgotten.
//!
//! Integers coalesce into ranges (a sequence's keys are dense), others are kept as digests of 128 bits: 16 bytes a key.

use std::collections::{BTreeMap, HashSet};

/// The keys of one section that the stream has brought since it attached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet {
    /// First → last of each range of integers, both included.
    ranges: BTreeMap<i64, i64>,
    /// Digests, ascending.
    digests: Vec<u128>,
    /// Digests that are not in `digests` yet.
    newest: HashSet<u128>,
}

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
            KeptKey::Integer(key) => insert_range(&mut self.ranges, key, key),
            KeptKey::Digest(digest) => {
                if self.digests.binary_search(&digest).is_err() {
                    self.newest.insert(digest);
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
    #[cfg(test)]
    pub(crate) fn len(&self) -> u64 {
        let ranges: u64 = self.ranges.iter().map(|(first, last)| last.abs_diff(*first).saturating_add(1)).sum();
        ranges + (self.digests.len() + self.newest.len()) as u64
    }

    /// Bytes that it holds in memory, about.
    #[cfg(test)]
    pub(crate) fn weight(&self) -> usize {
        // A node of the tree holds 11 entries, and is half full at the least; a hash table is full to seven eighths at most.
        self.ranges.len() * 32 + self.digests.capacity() * size_of::<u128>() + self.newest.capacity() * 20
    }

    /// The text form for the checkpoint: `5-7,9` for integers (`-5--3` for negative ones), and behind a `;` the digests.
    pub(crate) fn to_text(&self) -> String {
        let range = |(first, last): (&i64, &i64)| {
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        };
        let ranges = self.ranges.iter().map(range).collect::<Vec<_>>().join(",");
        if self.digests.is_empty() && self.newest.is_empty() {
            return ranges;
        }
        let digests = self.digests.iter().chain(&self.newest).map(|digest| format!("{digest:032x}"));
        format!("{ranges};{}", digests.collect::<Vec<_>>().join(","))
    }

    /// Reads the text form, or that of earlier versions, which kept keys that are no integers as a JSON array of texts.
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
        let (ranges, digests) = text.split_once(';').unwrap_or((text, ""));
        for range in ranges.split(',').filter(|range| !range.is_empty()) {
            let (first, last) = parse_range(range).ok_or_else(|| format!("not a key range: {range:?}"))?;
            insert_range(&mut set.ranges, first, last);
        }
        for digest in digests.split(',').filter(|digest| !digest.is_empty()) {
            set.digests.push(u128::from_str_radix(digest, 16).map_err(|error| format!("{digest:?}: {error}"))?);
        }
        set.digests.sort_unstable();
        Ok(set)
    }
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
            keys in proptest::collection::vec(-20i64..20, 0..40), texts in proptest::collection::vec("[a-c0]{0,3}", 0..20),
        ) {
            let mut set = KeySet::default();
            let mut model = BTreeSet::new();
            for key in keys.iter().map(ToString::to_string).chain(texts) {
                set.insert(key.as_bytes());
                model.insert(key);
            }
            let read = KeySet::from_text(&set.to_text()).unwrap();
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
        assert_eq!(set.to_text(), format!("{}-{},{}-{}", i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX));
        assert_eq!(KeySet::from_text(&set.to_text()).unwrap(), set);
        assert_eq!(set.len(), 4);
    }

    #[test]
    fn what_earlier_versions_wrote_is_read() {
        let old = KeySet::from_text(r#"["2024-01-01","2024-01-03"]"#).unwrap();
        assert!(old.contains(b"2024-01-01") && old.contains(b"2024-01-03") && !old.contains(b"2024-01-02"));
        assert!(KeySet::from_text("5-7,9").unwrap().contains(b"6"));
        for wrong in ["5-", "9-5", "x", ";xyz", "[1"] {
            assert!(KeySet::from_text(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_key_that_is_no_integer_costs_about_sixteen_bytes() {
        let mut set = KeySet::default();
        (0..200_000).for_each(|number| set.insert(format!("2024-01-01 00:00:00.{number}").as_bytes()));
        assert_eq!(set.len(), 200_000);
        assert!(set.weight() < 200_000 * 40, "{} bytes", set.weight());
    }
}
