//! A set of keys that stays small: what the stream brought beside a backfill. Pure.
//!
//! Integer keys coalesce into ranges (a sequence's keys are dense), others are kept one by one. The text form is part of
//! the checkpoint: `5-7,9` for integers (`-5--3` for negative ones), a JSON array of texts for the rest.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Key, KeyType};

/// The keys of one section that the stream has brought since it attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeySet {
    /// First → last of each range, both included.
    Ranges(BTreeMap<i64, i64>),
    /// Keys that cannot be counted through.
    Each(BTreeSet<Key>),
}

impl KeySet {
    /// An empty set for keys of `ty`.
    pub(crate) fn new(ty: KeyType) -> KeySet {
        match ty {
            KeyType::Int => KeySet::Ranges(BTreeMap::new()),
            KeyType::Numeric | KeyType::Timestamp | KeyType::TimestampTz | KeyType::Date => {
                KeySet::Each(BTreeSet::new())
            }
        }
    }

    /// Adds a key. A key of another type than the set's is ignored: sections have one key type.
    pub(crate) fn insert(&mut self, key: Key) {
        match (self, key) {
            (KeySet::Ranges(ranges), Key::Int(key)) => insert_range(ranges, key, key),
            (KeySet::Each(keys), key) => {
                keys.insert(key);
            }
            (KeySet::Ranges(_), Key::Numeric(_) | Key::Time(..)) => {}
        }
    }

    /// Whether the key is in the set.
    pub(crate) fn contains(&self, key: &Key) -> bool {
        match (self, key) {
            (KeySet::Ranges(ranges), Key::Int(key)) => {
                ranges.range(..=key).next_back().is_some_and(|(_, last)| last >= key)
            }
            (KeySet::Each(keys), key) => keys.contains(key),
            (KeySet::Ranges(_), Key::Numeric(_) | Key::Time(..)) => false,
        }
    }

    /// Forgets the keys up to and including `cursor`: the backfill is past them.
    pub(crate) fn forget_through(&mut self, cursor: &Key) {
        match (self, cursor) {
            (KeySet::Ranges(ranges), Key::Int(cursor)) => {
                while let Some(entry) = ranges.first_entry() {
                    if entry.key() > cursor {
                        break;
                    }
                    let (_, last) = entry.remove_entry();
                    if last > *cursor {
                        ranges.insert(cursor + 1, last);
                        break;
                    }
                }
            }
            (KeySet::Each(keys), cursor) => {
                while keys.first().is_some_and(|first| first <= cursor) {
                    keys.pop_first();
                }
            }
            (KeySet::Ranges(_), Key::Numeric(_) | Key::Time(..)) => {}
        }
    }

    /// Forgets the keys over `ceiling`: the backfill does not reach them.
    pub(crate) fn forget_over(&mut self, ceiling: &Key) {
        match (self, ceiling) {
            (KeySet::Ranges(ranges), Key::Int(ceiling)) => {
                if *ceiling < i64::MAX {
                    ranges.split_off(&(ceiling + 1));
                }
                if let Some(mut entry) = ranges.last_entry() {
                    let last = *entry.get();
                    entry.insert(last.min(*ceiling));
                }
            }
            (KeySet::Each(keys), ceiling) => {
                while keys.last().is_some_and(|last| last > ceiling) {
                    keys.pop_last();
                }
            }
            (KeySet::Ranges(_), Key::Numeric(_) | Key::Time(..)) => {}
        }
    }

    /// The text form for the checkpoint.
    pub(crate) fn to_text(&self) -> String {
        match self {
            KeySet::Ranges(ranges) => {
                let range = |(first, last): (&i64, &i64)| {
                    if first == last { first.to_string() } else { format!("{first}-{last}") }
                };
                ranges.iter().map(range).collect::<Vec<_>>().join(",")
            }
            KeySet::Each(keys) if keys.is_empty() => String::new(),
            KeySet::Each(keys) => {
                serde_json::Value::from(keys.iter().map(ToString::to_string).collect::<Vec<_>>()).to_string()
            }
        }
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// The text, where this program did not write it: the state was edited by hand.
    pub(crate) fn from_text(text: &str, ty: KeyType) -> Result<KeySet, String> {
        let mut set = KeySet::new(ty);
        if text.is_empty() {
            return Ok(set);
        }
        match &mut set {
            KeySet::Ranges(ranges) => {
                for range in text.split(',') {
                    let (first, last) = parse_range(range).ok_or_else(|| format!("not a key range: {range:?}"))?;
                    insert_range(ranges, first, last);
                }
            }
            KeySet::Each(keys) => {
                let texts: Vec<String> = serde_json::from_str(text).map_err(|error| error.to_string())?;
                for text in texts {
                    keys.insert(Key::parse(text.as_bytes(), ty).map_err(|error| error.to_string())?);
                }
            }
        }
        Ok(set)
    }
}

fn insert_range(ranges: &mut BTreeMap<i64, i64>, mut first: i64, mut last: i64) {
    if let Some((&before, &end)) = ranges.range(..=first).next_back()
        && end >= first.saturating_sub(1)
    {
        ranges.remove(&before);
        (first, last) = (before, last.max(end));
    }
    while let Some((&after, &end)) = ranges.range(first..=last.saturating_add(1)).next() {
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

    proptest! {
        #[test]
        fn behaves_as_a_set_of_integers(
            keys in proptest::collection::vec(-20i64..20, 0..40), cursor in -22i64..22, ceiling in -22i64..22
        ) {
            let mut set = KeySet::new(KeyType::Int);
            let mut model = BTreeSet::new();
            for key in keys { set.insert(Key::Int(key)); model.insert(key); }
            prop_assert_eq!(&KeySet::from_text(&set.to_text(), KeyType::Int).unwrap(), &set);
            set.forget_through(&Key::Int(cursor));
            model.retain(|key| *key > cursor);
            for key in -25..25 { prop_assert_eq!(set.contains(&Key::Int(key)), model.contains(&key), "{} in {:?}", key, set); }
            if ceiling >= cursor {
                set.forget_over(&Key::Int(ceiling));
                model.retain(|key| *key <= ceiling);
                for key in -25..25 { prop_assert_eq!(set.contains(&Key::Int(key)), model.contains(&key), "{} in {:?}", key, set); }
            }
        }
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut set = KeySet::new(KeyType::Int);
        for key in [i64::MAX, i64::MIN, i64::MAX - 1, i64::MIN + 1] {
            set.insert(Key::Int(key));
        }
        assert_eq!(set.to_text(), format!("{}-{},{}-{}", i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX));
        assert_eq!(KeySet::from_text(&set.to_text(), KeyType::Int).unwrap(), set);
        set.forget_over(&Key::Int(i64::MAX));
        set.forget_through(&Key::Int(i64::MAX));
        assert_eq!(set.to_text(), "");
    }

    #[test]
    fn other_types_are_kept_as_texts() {
        let mut set = KeySet::new(KeyType::Date);
        for day in ["2024-01-03", "2024-01-01"] {
            set.insert(Key::parse(day.as_bytes(), KeyType::Date).unwrap());
        }
        assert_eq!(set.to_text(), r#"["2024-01-01","2024-01-03"]"#);
        assert_eq!(KeySet::from_text(&set.to_text(), KeyType::Date).unwrap(), set);
    }
}
