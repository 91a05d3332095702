//! What the state knows of a section's rows. Pure.
//!
//! * In: the ledger's sets, the quarantine, the batches in doubt, the section's tally.
//! * Out: [`Evidence`]: the whereabouts of a key, and what is counted of batches that were pruned.
//! * Never: a key called delivered that no set names.
//!
//! Memory: 16 bytes for each gap between integer keys, 8 bytes for each other key of the ledger that is of the share.

use std::collections::HashSet;

use crate::audit::{AuditKey, BatchKeys, Share, Tally, TallyEntry, integer, tally};

/// The keys of many batches, before and after they are sorted.
#[derive(Clone, Debug, Default)]
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

    /// How many keys they are, once sorted.
    fn keys(&self) -> u64 {
        let integers = self.ranges.iter().map(|(first, last)| last.abs_diff(*first) + 1);
        self.digests.len() as u64 + integers.sum::<u64>()
    }

    /// Whether a key is one of them, once sorted.
    fn hold(&self, key: AuditKey) -> bool {
        match key {
            AuditKey::Integer(value) => {
                let after = self.ranges.partition_point(|(first, _)| *first <= value);
                after > 0 && self.ranges[after - 1].1 >= value
            }
            AuditKey::Digest(digest) => self.digests.binary_search(&digest).is_ok(),
        }
    }
}

/// Why a batch was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeliveredBy {
    /// Backfill and stream, which carry each row once.
    Course,
    /// A person asked for rows that were held or missing.
    Request,
    /// A person asked for rows to be delivered again.
    Resync,
}

/// The state's knowledge of a section's rows.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// It is of these keys alone.
    pub(crate) share: Share,
    /// Of batches that carry each row once: backfill and stream.
    once: BatchesSeen,
    /// Of batches that a person asked for.
    asked: BatchesSeen,
    /// Of re-syncs.
    resync: BatchesSeen,
    /// Everything that was delivered first, sorted.
    first: BatchesSeen,
    /// What batches delivered that the ledger still has; the tally less this is what was pruned.
    retained: Tally,
    retained_resync: Tally,
    tally: Tally,
    /// Of what re-syncs delivered.
    tally_resync: Tally,
    quarantined: HashSet<AuditKey>,
    in_doubt: Vec<BatchKeys>,
    /// What no set names is proven by what earlier audits found, and not by the tally.
    pub(crate) by_earlier_audits: bool,
    pub(crate) doubled: u64,
    pub(crate) distinct: u64,
}

impl Evidence {
    /// The section's tally: everything that was ever delivered. Of the keys of this share alone.
    pub(crate) fn of_share(share: Share, all: Tally) -> Evidence {
        let mut evidence = Evidence { share, ..Evidence::default() };
        for (block, entry) in all.0 {
            match tally::beside_resync(block) {
                Some(beside) => evidence.tally_resync.0.insert(beside, entry),
                None => evidence.tally.0.insert(block, entry),
            };
        }
        evidence
    }

    /// The same, of every key.
    #[cfg(test)]
    pub(crate) fn with_tally(tally: Tally) -> Evidence {
        Evidence::of_share(Share::default(), tally)
    }

    /// The same, where what earlier audits found proves what no set names.
    pub(crate) fn by_earlier_audits(mut self, by_earlier_audits: bool) -> Evidence {
        self.by_earlier_audits = by_earlier_audits;
        self
    }

    /// A batch that was delivered. `is_counted`: the tally counts it, which it does not where the batch ended later.
    pub(crate) fn delivered(&mut self, keys: &BatchKeys, why: DeliveredBy, is_counted: bool) {
        let share = self.share;
        let (seen, retained) = match why {
            DeliveredBy::Course => (&mut self.once, &mut self.retained),
            DeliveredBy::Request => (&mut self.asked, &mut self.retained),
            DeliveredBy::Resync => (&mut self.resync, &mut self.retained_resync),
        };
        let (ranges, digests) = (seen.ranges.len(), seen.digests.len());
        if share.index == 0 {
            seen.ranges.extend_from_slice(&keys.ranges);
        }
        seen.digests.extend(keys.digests.iter().filter(|digest| share.holds(AuditKey::Digest(**digest))));
        if is_counted {
            retained.add_all(&seen.ranges[ranges..], &seen.digests[digests..]);
        }
    }

    /// Adds a batch in doubt.
    pub(crate) fn in_doubt(&mut self, keys: BatchKeys) {
        self.in_doubt.push(keys);
    }

    /// Adds a batch in doubt that is not sent again: the tally counts it.
    pub(crate) fn in_doubt_for_good(&mut self, keys: BatchKeys, why: DeliveredBy) {
        let retained = match why {
            DeliveredBy::Course | DeliveredBy::Request => &mut self.retained,
            DeliveredBy::Resync => &mut self.retained_resync,
        };
        retained.add_all(&keys.ranges, &keys.digests);
        self.in_doubt.push(keys);
    }

    /// Adds a batch in doubt of which only the ends are known: integers that are nowhere else and lie between them are its own,
    /// as far as anybody can tell.
    pub(crate) fn in_doubt_between(&mut self, ends: &[String; 2]) {
        if let [Some(one), Some(other)] = ends.each_ref().map(|end| integer(end.as_bytes())) {
            let ranges = vec![(one.min(other), one.max(other))];
            self.in_doubt(BatchKeys { ranges, digests: Vec::new() });
        }
    }

    /// Adds a row in quarantine.
    pub(crate) fn quarantined(&mut self, key: AuditKey) {
        if self.share.holds(key) {
            self.quarantined.insert(key);
        }
    }

    /// Prepares the evidence for look-ups: sorts, counts keys delivered more than once, and merges.
    pub(crate) fn sorted(mut self) -> Evidence {
        let [mut once, asked] = [&mut self.once, &mut self.asked].map(std::mem::take);
        once.sort();
        self.doubled = once.repeated;
        once.ranges.extend(asked.ranges);
        once.digests.extend(asked.digests);
        once.sort();
        self.resync.sort();
        self.distinct = once.keys();
        if self.resync.keys() > 0 {
            let mut all = once.clone();
            all.ranges.extend_from_slice(&self.resync.ranges);
            all.digests.extend_from_slice(&self.resync.digests);
            all.sort();
            self.distinct = all.keys();
        }
        self.first = once;
        self
    }

    /// Returns a key's whereabouts.
    pub(crate) fn find(&self, key: AuditKey) -> Whereabouts {
        if self.first.hold(key) {
            Whereabouts::Delivered
        } else if self.resync.hold(key) {
            Whereabouts::DeliveredAgain
        } else if self.quarantined.contains(&key) {
            Whereabouts::Quarantined
        } else if self.in_doubt.iter().any(|keys| keys.contains(key)) {
            Whereabouts::InDoubt
        } else {
            Whereabouts::Nowhere
        }
    }

    /// What is counted of a block, and what the ledger does not have any more of it: delivered first, and by re-syncs.
    pub(crate) fn pruned(&self, block: i64) -> (TallyEntry, TallyEntry) {
        let first = self.tally.block(block).without(self.retained.block(block));
        (first, self.tally_resync.block(block).without(self.retained_resync.block(block)))
    }

    /// The blocks of its share that anything is counted in.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = i64> {
        let counted = self.tally.0.keys().chain(self.tally_resync.0.keys()).copied();
        counted.filter(|block| self.share.holds_block(*block))
    }
}

/// The whereabouts of one key of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// A batch of the ledger delivered it.
    Delivered,
    /// Only a re-sync delivered it, of the batches of the ledger.
    DeliveredAgain,
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
