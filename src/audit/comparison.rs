//! The comparison of the source with the settled rows. Pure.
//!
//! * In: [`Evidence`]: the ledger's sets, the quarantine, the batches in doubt, the section's tally; then each key of the
//!   source, in any order.
//! * Out: the whereabouts of each key, and at the end the keys that no evidence names.
//! * Never: a key called missing that a set or a tally accounts for; a key called delivered that neither names.
//!
//! Memory: 16 bytes for each gap between integer keys, 8 bytes for each other key of the ledger that is of the share.

use std::collections::{BTreeMap, HashSet};

use crate::audit::tally::block;
use crate::audit::{AuditKey, BatchKeys, Share, Tally, TallyEntry, integer};

/// The most keys without evidence that are kept by name; further ones are only counted.
const NAMED: usize = 100_000;

/// The keys of many batches, before and after they are sorted.
#[derive(Debug, Default)]
struct BatchesSeen {
    ranges: Vec<(i64, i64)>,
    digests: Vec<u64>,
    /// Keys that were there more than once.
    repeated: u64,
}

impl BatchesSeen {
    /// Sorts and merges; counts what was there more than once.
    fn sort(&mut self) {
        self.digests.sort_unstable();
        let before = self.digests.len();
        self.digests.dedup();
        self.repeated += (before - self.digests.len()) as u64;
        self.ranges.sort_unstable();
        let mut merged: Vec<(i64, i64)> = Vec::new();
        for (first, last) in std::mem::take(&mut self.ranges) {
            match merged.last_mut() {
                Some((_, end)) if first <= *end => {
                    self.repeated += last.min(*end).abs_diff(first) + 1;
                    *end = last.max(*end);
                }
                Some((_, end)) if end.checked_add(1) == Some(first) => *end = last,
                Some(_) | None => merged.push((first, last)),
            }
        }
        self.ranges = merged;
    }
}

/// The state's knowledge of a section's rows.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// It is of these keys alone.
    share: Share,
    /// Of batches that carry each row once: backfill and stream.
    once: BatchesSeen,
    /// Of batches that a person asked for: re-sync, retry, repair.
    again: BatchesSeen,
    ranges: Vec<(i64, i64)>,
    digests: Vec<u64>,
    /// Rows delivered by batches that the ledger still has; the tally's count less this is what was pruned.
    retained: Tally,
    tally: Tally,
    quarantined: HashSet<AuditKey>,
    in_doubt: Vec<BatchKeys>,
    doubled: u64,
    distinct: u64,
}

impl Evidence {
    /// The section's tally: everything that was ever delivered. Of the keys of this share alone.
    pub(crate) fn of_share(share: Share, tally: Tally) -> Evidence {
        Evidence { share, tally, ..Evidence::default() }
    }

    /// The same, of every key.
    #[cfg(test)]
    fn with_tally(tally: Tally) -> Evidence {
        Evidence::of_share(Share::default(), tally)
    }

    /// A batch that was delivered; `again`: because a person asked for it, so that it doubles nothing without a name.
    pub(crate) fn delivered(&mut self, keys: &BatchKeys, again: bool) {
        let share = self.share;
        let seen = if again { &mut self.again } else { &mut self.once };
        if share.index == 0 {
            seen.ranges.extend_from_slice(&keys.ranges);
        }
        seen.digests.extend(keys.digests.iter().filter(|digest| share.holds(AuditKey::Digest(**digest))));
    }

    /// Adds a batch in doubt; `for_good`: it is not sent again, and the tally counts it.
    pub(crate) fn in_doubt(&mut self, keys: BatchKeys, for_good: bool) {
        if for_good {
            self.retain(&keys.ranges, &keys.digests);
        }
        self.in_doubt.push(keys);
    }

    /// Adds a batch in doubt of which only the ends are known: integers that are nowhere else and lie between them are its own,
    /// as far as anybody can tell.
    pub(crate) fn in_doubt_between(&mut self, ends: &[String; 2]) {
        if let [Some(one), Some(other)] = ends.each_ref().map(|end| integer(end.as_bytes())) {
            let ranges = vec![(one.min(other), one.max(other))];
            self.in_doubt(BatchKeys { ranges, digests: Vec::new() }, false);
        }
    }

    fn retain(&mut self, ranges: &[(i64, i64)], digests: &[u64]) {
        digests.iter().for_each(|digest| self.retained.add(AuditKey::Digest(*digest)));
        let values = ranges.iter().flat_map(|(first, last)| *first..=*last);
        values.for_each(|value| self.retained.add(AuditKey::Integer(value)));
    }

    /// Adds a row in quarantine.
    pub(crate) fn quarantined(&mut self, key: AuditKey) {
        if self.share.holds(key) {
            self.quarantined.insert(key);
        }
    }

    /// Prepares the evidence for look-ups: sorts, counts keys delivered more than once, and merges.
    fn sort(&mut self) {
        let (mut once, again) = (std::mem::take(&mut self.once), std::mem::take(&mut self.again));
        for seen in [&once, &again] {
            self.retain(&seen.ranges, &seen.digests);
        }
        once.sort();
        self.doubled = once.repeated;
        once.ranges.extend(again.ranges);
        once.digests.extend(again.digests);
        once.sort();
        (self.ranges, self.digests) = (once.ranges, once.digests);
        let integers = self.ranges.iter().map(|(first, last)| last.abs_diff(*first) + 1);
        self.distinct = self.digests.len() as u64 + integers.sum::<u64>();
    }

    fn is_delivered(&self, key: AuditKey) -> bool {
        match key {
            AuditKey::Integer(value) => {
                let after = self.ranges.partition_point(|(first, _)| *first <= value);
                after > 0 && self.ranges[after - 1].1 >= value
            }
            AuditKey::Digest(digest) => self.digests.binary_search(&digest).is_ok(),
        }
    }
}

/// The whereabouts of one key of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// A batch of the ledger delivered it.
    Delivered,
    Quarantined,
    /// Its batch is in doubt.
    InDoubt,
    /// No set names it, and a rule of the configuration leaves it out.
    Filtered,
    /// No set names it; the tally may account for it.
    Nowhere,
    /// It is of another share.
    Elsewhere,
}

/// A comparison under way.
#[derive(Debug)]
pub(crate) struct Comparison {
    evidence: Evidence,
    /// Rows of the source that were looked at.
    pub(crate) rows: u64,
    /// Rows found in delivered batches.
    pub(crate) delivered: u64,
    /// Rows found in quarantine.
    pub(crate) quarantined: u64,
    /// Rows found in batches in doubt.
    pub(crate) in_doubt: u64,
    /// Rows that no set names, and that a rule leaves out.
    pub(crate) filtered: u64,
    /// Keys that no set names, by block.
    nowhere: BTreeMap<i64, NowhereBlock>,
    named: usize,
    /// Integer keys up to here only make their block whole, which the tally knows as a whole: they are not audited.
    aside: Option<i64>,
}

/// The keys of one block that no set names.
#[derive(Debug, Default)]
struct NowhereBlock {
    shown: TallyEntry,
    /// How many of them are not audited.
    aside: u64,
    /// Their texts, as far as they are kept.
    names: Vec<String>,
}

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Compared {
    /// Rows of the source that were looked at.
    pub(crate) rows: u64,
    /// Delivered: by a set, or proven by the tally.
    pub(crate) delivered: u64,
    pub(crate) quarantined: u64,
    /// In a batch in doubt.
    pub(crate) in_doubt: u64,
    /// Left out by a rule.
    pub(crate) filtered: u64,
    /// Keys without evidence, by name; the caller finds out which of them wait, are gone, or came before the attachment.
    pub(crate) nowhere: Vec<String>,
    /// The count of further keys without evidence.
    pub(crate) more_nowhere: u64,
    /// Rows that neither a set nor a tally proves, in either direction: their batches are pruned, and the block has changed.
    pub(crate) unknown: u64,
    /// Keys delivered more than once by the batches of the ledger.
    pub(crate) doubled: u64,
    /// Keys delivered that the source does not have any more.
    pub(crate) gone: u64,
}

impl Comparison {
    pub(crate) fn new(mut evidence: Evidence) -> Comparison {
        evidence.sort();
        Comparison {
            evidence,
            rows: 0,
            delivered: 0,
            quarantined: 0,
            in_doubt: 0,
            filtered: 0,
            nowhere: BTreeMap::new(),
            named: 0,
            aside: None,
        }
    }

    /// Audits integer keys greater than this alone. Those before it, from the beginning of its block on, are given all the
    /// same: of a part of a block the tally proves nothing.
    pub(crate) fn set_aside(&mut self, up_to: i64) {
        self.aside = Some(up_to);
    }

    /// One row of the source. `is_left_out` tells whether a rule leaves it out as it is now, and is asked only for rows that
    /// no set names: what was delivered stays delivered, whatever became of the row since.
    pub(crate) fn row(&mut self, text: &[u8], is_left_out: impl FnOnce() -> bool) -> Whereabouts {
        let key = AuditKey::of(text);
        if !self.evidence.share.holds(key) {
            return Whereabouts::Elsewhere;
        }
        let named = self.find(key);
        let found = if named == Whereabouts::Nowhere && is_left_out() { Whereabouts::Filtered } else { named };
        if let (AuditKey::Integer(value), Some(aside)) = (key, self.aside)
            && value <= aside
        {
            if found == Whereabouts::Nowhere {
                let block = self.nowhere.entry(block(key)).or_default();
                block.shown = block.shown.with(key);
                block.aside += 1;
            }
            return found;
        }
        self.rows += 1;
        match found {
            Whereabouts::Delivered => self.delivered += 1,
            Whereabouts::Quarantined => self.quarantined += 1,
            Whereabouts::InDoubt => self.in_doubt += 1,
            Whereabouts::Filtered => self.filtered += 1,
            Whereabouts::Elsewhere => {}
            Whereabouts::Nowhere => {
                let block = self.nowhere.entry(block(key)).or_default();
                block.shown = block.shown.with(key);
                if self.named < NAMED {
                    self.named += 1;
                    block.names.push(String::from_utf8_lossy(text).into_owned());
                }
            }
        }
        found
    }

    /// Returns a key's whereabouts.
    pub(crate) fn find(&self, key: AuditKey) -> Whereabouts {
        if self.evidence.is_delivered(key) {
            Whereabouts::Delivered
        } else if self.evidence.quarantined.contains(&key) {
            Whereabouts::Quarantined
        } else if self.evidence.in_doubt.iter().any(|keys| keys.contains(key)) {
            Whereabouts::InDoubt
        } else {
            Whereabouts::Nowhere
        }
    }

    /// Ends the comparison: every row of the source was given.
    pub(crate) fn end(self) -> Compared {
        let mut compared = Compared {
            rows: self.rows,
            delivered: self.delivered,
            quarantined: self.quarantined,
            in_doubt: self.in_doubt,
            filtered: self.filtered,
            doubled: self.evidence.doubled,
            gone: self.evidence.distinct.saturating_sub(self.delivered),
            ..Compared::default()
        };
        let mut blocks = self.nowhere;
        let share = self.evidence.share;
        for block in self.evidence.tally.0.keys().filter(|block| share.holds_block(**block)) {
            blocks.entry(*block).or_default();
        }
        for (block, NowhereBlock { shown, aside, names }) in blocks {
            let pruned = self.evidence.tally.block(block).without(self.evidence.retained.block(block));
            let (audited, pruned_rows) = (count(shown.rows) - aside, count(pruned.rows));
            if shown == pruned {
                compared.delivered += audited;
            } else if pruned_rows == 0 {
                compared.more_nowhere += audited - names.len() as u64;
                compared.nowhere.extend(names);
            } else if shown.rows == 0 {
                compared.gone += pruned_rows;
            } else {
                // Some of them are delivered, and nothing tells which.
                compared.unknown += audited;
            }
        }
        compared
    }
}

impl Compared {
    /// Adds what the comparison of another share has shown.
    pub(crate) fn add(&mut self, other: Compared) {
        self.rows += other.rows;
        self.delivered += other.delivered;
        self.quarantined += other.quarantined;
        self.in_doubt += other.in_doubt;
        self.filtered += other.filtered;
        let room = NAMED.saturating_sub(self.nowhere.len());
        self.more_nowhere += other.more_nowhere + other.nowhere.len().saturating_sub(room) as u64;
        self.nowhere.extend(other.nowhere.into_iter().take(room));
        self.unknown += other.unknown;
        self.doubled += other.doubled;
        self.gone += other.gone;
    }
}

fn count(rows: i64) -> u64 {
    u64::try_from(rows).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(texts: &[&str]) -> BatchKeys {
        BatchKeys::new(texts.iter().map(|text| AuditKey::of(text.as_bytes())))
    }

    fn tally(texts: &[&str]) -> Tally {
        Tally::of(texts.iter().map(|text| AuditKey::of(text.as_bytes())))
    }

    fn compare(evidence: Evidence, source: &[&str]) -> Compared {
        let mut comparison = Comparison::new(evidence);
        source.iter().for_each(|text| {
            comparison.row(text.as_bytes(), || false);
        });
        comparison.end()
    }

    #[test]
    fn each_key_is_told_apart() {
        let mut evidence = Evidence::with_tally(tally(&["1", "2", "2", "x"]));
        evidence.delivered(&keys(&["1", "2"]), false);
        evidence.delivered(&keys(&["2", "x"]), false);
        evidence.quarantined(AuditKey::of(b"3"));
        evidence.in_doubt(keys(&["4"]), false);
        let compared = compare(evidence, &["1", "3", "4", "5", "x", "y"]);
        let expected = Compared {
            rows: 6,
            delivered: 2,
            quarantined: 1,
            in_doubt: 1,
            nowhere: vec!["y".into(), "5".into()],
            doubled: 1,
            gone: 1,
            ..Compared::default()
        };
        assert_eq!(compared, expected);
    }

    #[test]
    fn only_what_no_set_names_can_be_filtered() {
        let mut evidence = Evidence::with_tally(tally(&["1"]));
        evidence.delivered(&keys(&["1"]), false);
        let mut comparison = Comparison::new(evidence);
        assert_eq!(comparison.row(b"1", || true), Whereabouts::Delivered);
        assert_eq!(comparison.row(b"2", || true), Whereabouts::Filtered);
        assert_eq!(comparison.row(b"3", || false), Whereabouts::Nowhere);
        let compared = comparison.end();
        assert_eq!((compared.rows, compared.delivered, compared.filtered), (3, 1, 1));
        assert_eq!(compared.nowhere, ["3"]);
    }

    #[test]
    fn pruned_batches_are_proven_by_the_tally_or_unknown() {
        let texts = ["1", "2", "3"];
        let proven = compare(Evidence::with_tally(tally(&texts)), &texts);
        assert_eq!((proven.delivered, proven.unknown, proven.nowhere.len()), (3, 0, 0));
        let changed = compare(Evidence::with_tally(tally(&texts)), &["1", "2", "4"]);
        assert_eq!((changed.delivered, changed.unknown, changed.nowhere.len()), (0, 3, 0), "nothing tells which");
        let gone = compare(Evidence::with_tally(tally(&texts)), &[]);
        assert_eq!((gone.gone, gone.unknown), (3, 0));
    }

    #[test]
    fn shares_add_up_to_the_whole() {
        let texts: Vec<String> = (0..300).map(|n| if n % 3 == 0 { n.to_string() } else { format!("k{n}") }).collect();
        let all: Vec<&str> = texts.iter().map(String::as_str).collect();
        let sent: Vec<&str> = all.iter().copied().filter(|text| *text != "k7" && *text != "9").collect();
        let compared = |share: Share| {
            let mut evidence = Evidence::of_share(share, tally(&sent));
            // The first half is pruned; the second has a row in quarantine and one that is gone.
            evidence.delivered(&keys(&sent[150..]), false);
            evidence.quarantined(AuditKey::of(b"held"));
            compare(evidence, &[all.as_slice(), &["held"]].concat())
        };
        let mut sum = Compared::default();
        Share::of_digests(100 << 20).for_each(|share| sum.add(compared(share)));
        let mut whole = compared(Share::default());
        whole.nowhere.sort();
        sum.nowhere.sort();
        assert_eq!(sum, whole);
        assert_eq!((whole.rows, whole.quarantined), (301, 1));
    }

    #[test]
    fn doubt_for_good_hides_no_loss_beside_it() {
        let mut evidence = Evidence::with_tally(tally(&["1", "2", "3"]));
        evidence.delivered(&keys(&["1"]), false);
        evidence.in_doubt(keys(&["2", "3"]), true);
        let compared = compare(evidence, &["1", "2", "3", "4"]);
        assert_eq!((compared.in_doubt, compared.unknown, compared.gone, compared.nowhere), (2, 0, 0, vec!["4".into()]));
    }

    #[test]
    fn a_part_of_a_block_is_proven_by_the_whole_block() {
        let mut comparison = Comparison::new(Evidence::with_tally(tally(&["1", "2", "3"])));
        comparison.set_aside(2);
        ["1", "2", "3", "65536"].iter().for_each(|text| {
            comparison.row(text.as_bytes(), || false);
        });
        let compared = comparison.end();
        assert_eq!((compared.rows, compared.delivered, compared.unknown), (2, 1, 0));
        assert_eq!(compared.nowhere, ["65536"]);
    }

    proptest! {
        #[test]
        fn planted_losses_are_named_and_healthy_histories_are_silent(
            rows in proptest::collection::btree_set(-2_000_i64..200_000, 1..200),
            batch in 1_usize..40, lost in proptest::collection::vec(any::<prop::sample::Index>(), 0..5), text: bool,
        ) {
            let name = |n: &i64| if text { format!("k{n}") } else { n.to_string() };
            let rows: Vec<String> = rows.iter().map(name).collect();
            let lost: HashSet<String> = lost.iter().map(|index| index.get(&rows).clone()).collect();
            let sent: Vec<&String> = rows.iter().filter(|row| !lost.contains(*row)).collect();
            let of = |row: &&String| AuditKey::of(row.as_bytes());
            let mut evidence = Evidence::with_tally(Tally::of(sent.iter().map(of)));
            for chunk in sent.chunks(batch) { evidence.delivered(&BatchKeys::new(chunk.iter().map(of)), false); }
            let mut comparison = Comparison::new(evidence);
            for row in &rows { comparison.row(row.as_bytes(), || false); }
            let compared = comparison.end();
            let named: HashSet<String> = compared.nowhere.iter().cloned().collect();
            prop_assert_eq!(&named, &lost);
            prop_assert_eq!((compared.delivered, compared.gone, compared.doubled, compared.unknown),
                (sent.len() as u64, 0, 0, 0));
        }
    }
}
