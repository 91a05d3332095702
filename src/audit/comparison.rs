//! The comparison of the source with the settled rows. Pure.
//!
//! * In: [`Evidence`]; then each key of the source, in any order, equal ones one behind the other.
//! * Out: the whereabouts of each key, and at the end the keys that no evidence names.
//! * Never: a key called missing that a set or a tally accounts for; a key called delivered that neither names.

use std::collections::BTreeMap;

use crate::audit::tally::block;
use crate::audit::{AuditKey, Evidence, TallyEntry, Whereabouts};

/// The most keys without evidence that are kept by name; further ones are only counted.
const NAMED: usize = 100_000;

/// What is known of a row by its age alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Earlier {
    /// It was there before the section attached, which does not deliver such rows.
    BeforeAttach,
    /// An earlier audit found it settled.
    Settled,
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
    /// Keys that no set names, or a re-sync's alone, by block.
    blocks: BTreeMap<i64, BlockSeen>,
    named: usize,
    /// Rows that no set names, and that an earlier audit found settled.
    settled_before: u64,
    /// Rows that no set names, of before the attachment.
    before_attach: u64,
    /// Rows whose key the row before them has, too, and that evidence names.
    alike: u64,
    /// The key that was given last.
    last: Vec<u8>,
    /// Integer keys up to here only make their block whole, which the tally knows as a whole: they are not audited.
    aside: Option<i64>,
}

/// The keys of one block that no set names, or a re-sync's alone.
#[derive(Debug, Default)]
struct BlockSeen {
    shown: TallyEntry,
    /// Those that only a re-sync's sets name: a batch that is pruned may have delivered them first.
    again: TallyEntry,
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
    /// Found settled by an earlier audit.
    pub(crate) settled_before: u64,
    /// From before the section attached.
    pub(crate) before_attach: u64,
    /// Keys without evidence, by name; the caller finds out which of them wait, are gone, or came before the attachment.
    pub(crate) nowhere: Vec<String>,
    /// The count of further keys without evidence.
    pub(crate) more_nowhere: u64,
    /// Rows that neither a set nor a tally proves, in either direction: their batches are pruned, and the block has changed.
    pub(crate) unknown: u64,
    /// Rows whose key another row has, too, and that was settled at least once: which of them was, nothing tells. The first of
    /// each key counts as the evidence says.
    pub(crate) alike: u64,
    /// Keys delivered more than once by the batches of the ledger.
    pub(crate) doubled: u64,
    /// Keys delivered that the source does not have any more.
    pub(crate) gone: u64,
}

impl Comparison {
    pub(crate) fn new(evidence: Evidence) -> Comparison {
        Comparison {
            evidence: evidence.sorted(),
            rows: 0,
            delivered: 0,
            quarantined: 0,
            in_doubt: 0,
            filtered: 0,
            blocks: BTreeMap::new(),
            named: 0,
            settled_before: 0,
            before_attach: 0,
            alike: 0,
            last: Vec::new(),
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
    /// `is_earlier` tells what is known of it by its age.
    pub(crate) fn row(
        &mut self,
        text: &[u8],
        is_left_out: impl FnOnce() -> bool,
        is_earlier: impl FnOnce() -> Option<Earlier>,
    ) -> Whereabouts {
        let key = AuditKey::of(text);
        if !self.evidence.share.holds(key) {
            return Whereabouts::Elsewhere;
        }
        let named = self.evidence.find(key);
        let found = if named == Whereabouts::Nowhere && is_left_out() { Whereabouts::Filtered } else { named };
        let is_alike = self.rows > 0 && self.last == text && named != Whereabouts::Nowhere;
        self.last.clear();
        self.last.extend_from_slice(text);
        if let (AuditKey::Integer(value), Some(aside)) = (key, self.aside)
            && value <= aside
        {
            match found {
                Whereabouts::Nowhere => {
                    let block = self.blocks.entry(block(key)).or_default();
                    block.shown = block.shown.with(key);
                    block.aside += 1;
                }
                Whereabouts::DeliveredAgain => self.delivered_again(key),
                Whereabouts::Delivered
                | Whereabouts::Quarantined
                | Whereabouts::InDoubt
                | Whereabouts::Filtered
                | Whereabouts::Elsewhere => {}
            }
            return found;
        }
        self.rows += 1;
        if is_alike {
            self.alike += 1;
            return found;
        }
        match is_earlier().filter(|_| found == Whereabouts::Nowhere) {
            Some(Earlier::BeforeAttach) => self.before_attach += 1,
            Some(Earlier::Settled) if self.evidence.by_earlier_audits => self.settled_before += 1,
            Some(Earlier::Settled) | None => self.count(key, text, found),
        }
        found
    }

    fn delivered_again(&mut self, key: AuditKey) {
        let block = self.blocks.entry(block(key)).or_default();
        block.again = block.again.with(key);
    }

    fn count(&mut self, key: AuditKey, text: &[u8], found: Whereabouts) {
        match found {
            Whereabouts::Delivered => self.delivered += 1,
            Whereabouts::DeliveredAgain => {
                self.delivered += 1;
                self.delivered_again(key);
            }
            Whereabouts::Quarantined => self.quarantined += 1,
            Whereabouts::InDoubt => self.in_doubt += 1,
            Whereabouts::Filtered => self.filtered += 1,
            Whereabouts::Elsewhere => {}
            Whereabouts::Nowhere => {
                let block = self.blocks.entry(block(key)).or_default();
                block.shown = block.shown.with(key);
                if self.named < NAMED {
                    self.named += 1;
                    block.names.push(String::from_utf8_lossy(text).into_owned());
                }
            }
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
            settled_before: self.settled_before,
            before_attach: self.before_attach,
            alike: self.alike,
            doubled: self.evidence.doubled,
            gone: self.evidence.distinct.saturating_sub(self.delivered),
            ..Compared::default()
        };
        let mut blocks = self.blocks;
        for block in self.evidence.blocks() {
            blocks.entry(block).or_default();
        }
        for (block, BlockSeen { shown, again, aside, names }) in blocks {
            let (pruned, resync) = self.evidence.pruned(block);
            let audited = count(shown.rows) - aside;
            // A re-sync brings again what was delivered before: all of the block or some of it; or what never was.
            let proofs = [pruned, resync, pruned.with_all(resync)];
            let is_proven = proofs.contains(&shown) || shown.with_all(again) == pruned;
            if shown.rows == 0 {
                compared.gone += count(pruned.rows.max(resync.rows) - again.rows);
            } else if is_proven {
                compared.delivered += audited;
            } else if pruned.rows + resync.rows <= 0 || self.evidence.by_earlier_audits {
                compared.more_nowhere += audited - names.len() as u64;
                compared.nowhere.extend(names);
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
        self.settled_before += other.settled_before;
        self.before_attach += other.before_attach;
        let room = NAMED.saturating_sub(self.nowhere.len());
        self.more_nowhere += other.more_nowhere + other.nowhere.len().saturating_sub(room) as u64;
        self.nowhere.extend(other.nowhere.into_iter().take(room));
        self.unknown += other.unknown;
        self.alike += other.alike;
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
    use crate::audit::{BatchKeys, DeliveredBy, Share, Tally, tally};
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn keys(texts: &[&str]) -> BatchKeys {
        BatchKeys::new(texts.iter().map(|text| AuditKey::of(text.as_bytes())))
    }

    fn tally(texts: &[&str]) -> Tally {
        Tally::of(texts.iter().map(|text| AuditKey::of(text.as_bytes())))
    }

    fn compare(evidence: Evidence, source: &[&str]) -> Compared {
        let mut comparison = Comparison::new(evidence);
        source.iter().for_each(|text| {
            comparison.row(text.as_bytes(), || false, || None);
        });
        comparison.end()
    }

    #[test]
    fn each_key_is_told_apart() {
        let mut evidence = Evidence::with_tally(tally(&["1", "2", "2", "x"]));
        evidence.delivered(&keys(&["1", "2"]), DeliveredBy::Course, true);
        evidence.delivered(&keys(&["2", "x"]), DeliveredBy::Course, true);
        evidence.quarantined(AuditKey::of(b"3"));
        evidence.in_doubt(keys(&["4"]));
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
        evidence.delivered(&keys(&["1"]), DeliveredBy::Course, true);
        let mut comparison = Comparison::new(evidence);
        assert_eq!(comparison.row(b"1", || true, || None), Whereabouts::Delivered);
        assert_eq!(comparison.row(b"2", || true, || None), Whereabouts::Filtered);
        assert_eq!(comparison.row(b"3", || false, || None), Whereabouts::Nowhere);
        let compared = comparison.end();
        assert_eq!((compared.rows, compared.delivered, compared.filtered), (3, 1, 1));
        assert_eq!(compared.nowhere, ["3"]);
    }

    #[test]
    fn rows_of_one_key_are_not_told_apart_by_it() {
        let mut evidence = Evidence::with_tally(tally(&["1", "x", "3"]));
        evidence.delivered(&keys(&["1", "x", "3"]), DeliveredBy::Course, true);
        let compared = compare(evidence, &["1", "1", "1", "2", "2", "3", "x", "x"]);
        assert_eq!((compared.rows, compared.delivered, compared.alike, compared.gone), (8, 3, 3, 0));
        assert_eq!(compared.nowhere, ["2", "2"], "what no evidence names is missing, however often it is there");
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
            evidence.delivered(&keys(&sent[150..]), DeliveredBy::Course, true);
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
        evidence.delivered(&keys(&["1"]), DeliveredBy::Course, true);
        evidence.in_doubt_for_good(keys(&["2", "3"]), DeliveredBy::Course);
        let compared = compare(evidence, &["1", "2", "3", "4"]);
        assert_eq!((compared.in_doubt, compared.unknown, compared.gone, compared.nowhere), (2, 0, 0, vec!["4".into()]));
    }

    #[test]
    fn a_batch_that_ended_after_the_tally_was_read_makes_nothing_unknown() {
        let mut evidence = Evidence::with_tally(tally(&["1", "2"]));
        evidence.delivered(&keys(&["1", "2"]), DeliveredBy::Course, true);
        evidence.delivered(&keys(&["3"]), DeliveredBy::Course, false);
        let compared = compare(evidence, &["1", "2", "3", "4"]);
        assert_eq!((compared.delivered, compared.unknown, compared.nowhere), (3, 0, vec!["4".to_owned()]));
    }

    #[test]
    fn what_an_earlier_audit_found_settled_is_told_from_what_came_later() {
        // 1 to 3 are pruned, and 2 is deleted since: the tally fits no more.
        let evidence = || Evidence::with_tally(tally(&["1", "2", "3"]));
        assert_eq!(compare(evidence(), &["1", "3", "4"]).unknown, 3);
        let mut comparison = Comparison::new(evidence().by_earlier_audits(true));
        for (text, was_settled) in [("1", true), ("3", true), ("4", false)] {
            comparison.row(text.as_bytes(), || false, || was_settled.then_some(Earlier::Settled));
        }
        let compared = comparison.end();
        assert_eq!((compared.rows, compared.settled_before, compared.unknown), (3, 2, 0));
        assert_eq!(compared.nowhere, ["4"]);
    }

    /// All of a re-sync's keys again, some of them, and such as were never delivered before; pruned, and still in the ledger.
    #[test]
    fn what_a_resync_delivered_again_is_proven_by_the_tally_and_hides_no_loss() {
        let all = ["1", "2", "3", "x"];
        let tally_of = |first: &[&str], resync: &[&str]| {
            let again = tally(resync).0.into_iter().map(|(block, entry)| (tally::resync_block(block), entry));
            Tally(tally(first).0.into_iter().chain(again).collect())
        };
        for (first, resync) in [(&all[..], &all[..]), (&all, &all[1..3]), (&[], &all), (&all[..2], &all[2..])] {
            let proven = compare(Evidence::with_tally(tally_of(first, resync)), &all);
            assert_eq!((proven.delivered, proven.unknown, proven.nowhere.len()), (4, 0, 0), "{first:?} {resync:?}");
            let mut evidence = Evidence::with_tally(tally_of(first, resync));
            evidence.delivered(&keys(resync), DeliveredBy::Resync, true);
            let proven = compare(evidence, &all);
            assert_eq!((proven.delivered, proven.unknown, proven.nowhere.len()), (4, 0, 0), "{first:?} {resync:?}");
            let lossy = compare(Evidence::with_tally(tally_of(first, resync)), &["1", "2", "3", "4", "x", "65536"]);
            assert_eq!((lossy.delivered, lossy.unknown, lossy.nowhere), (1, 4, vec!["65536".to_owned()]));
        }
        let gone = compare(Evidence::with_tally(tally_of(&all, &all)), &[]);
        assert_eq!((gone.gone, gone.unknown), (4, 0));
    }

    #[test]
    fn a_part_of_a_block_is_proven_by_the_whole_block() {
        let mut comparison = Comparison::new(Evidence::with_tally(tally(&["1", "2", "3"])));
        comparison.set_aside(2);
        ["1", "2", "3", "65536"].iter().for_each(|text| {
            comparison.row(text.as_bytes(), || false, || None);
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
            for chunk in sent.chunks(batch) { evidence.delivered(&BatchKeys::new(chunk.iter().map(of)), DeliveredBy::Course, true); }
            let mut comparison = Comparison::new(evidence);
            for row in &rows { comparison.row(row.as_bytes(), || false, || None); }
            let compared = comparison.end();
            let named: HashSet<String> = compared.nowhere.iter().cloned().collect();
            prop_assert_eq!(&named, &lost);
            prop_assert_eq!((compared.delivered, compared.gone, compared.doubled, compared.unknown),
                (sent.len() as u64, 0, 0, 0));
        }
    }
}
