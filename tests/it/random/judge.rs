//! The verdict: what the tables hold against what the sink stored, what is in quarantine, and what the ledger names. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What is known of one section in the end.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// The keys that the table holds.
    pub table: BTreeSet<i64>,
    /// Of those, the ones that need not arrive: committed before a section of `start: now` was on.
    pub optional: BTreeSet<i64>,
    /// The keys that were there once and were deleted.
    pub gone: BTreeSet<i64>,
    /// The keys of each request whose items the sink stored, in order.
    pub stored: Vec<Vec<i64>>,
    pub quarantined: Vec<i64>,
    pub ledger: Vec<Batch>,
}

/// A row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub phase: String,
    pub outcome: String,
    pub first: String,
    pub last: String,
    pub rows: usize,
}

impl Batch {
    /// Whether the ledger says of this batch that its rows may have come twice.
    fn names_doubles(&self) -> bool {
        matches!(self.outcome.as_str(), "in_doubt" | "resent" | "held")
            || matches!(self.phase.as_str(), "resync" | "retry")
    }

    fn is(&self, request: &[i64]) -> bool {
        let (first, last) = (request.first().map(i64::to_string), request.last().map(i64::to_string));
        self.rows == request.len() && Some(&self.first) == first.as_ref() && Some(&self.last) == last.as_ref()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub rows: u64,
    pub missing: Vec<i64>,
    /// Times that a row came more than once.
    pub doubled: u64,
    /// Keys that came more often than the ledger explains, with how often, and how often is explained.
    pub unnamed: BTreeMap<i64, (usize, usize)>,
    /// Keys that were never committed.
    pub foreign: Vec<i64>,
    pub quarantined: u64,
}

impl Verdict {
    pub fn is_good(&self) -> bool {
        self.missing.is_empty() && self.unnamed.is_empty() && self.foreign.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let few = |keys: &mut dyn Iterator<Item = String>| keys.take(12).collect::<Vec<_>>().join(" ");
        write!(f, "{} rows, missing {}", self.rows, self.missing.len())?;
        if !self.missing.is_empty() {
            write!(f, " [{}]", few(&mut self.missing.iter().map(i64::to_string)))?;
        }
        write!(f, ", doubled {} of which unnamed {}", self.doubled, self.unnamed.len())?;
        if !self.unnamed.is_empty() {
            let told = |(key, (times, allowed)): (&i64, &(usize, usize))| format!("{key}:{times}>{allowed}");
            write!(f, " [{}]", few(&mut self.unnamed.iter().map(told)))?;
        }
        if !self.foreign.is_empty() {
            write!(
                f,
                ", never committed {} [{}]",
                self.foreign.len(),
                few(&mut self.foreign.iter().map(i64::to_string))
            )?;
        }
        write!(f, ", quarantined {}", self.quarantined)
    }
}

pub fn judge(books: &Books) -> Verdict {
    let mut times: BTreeMap<i64, usize> = BTreeMap::new();
    books.stored.iter().flatten().for_each(|key| *times.entry(*key).or_default() += 1);
    let held: BTreeSet<i64> = books.quarantined.iter().copied().collect();
    let settled = |key: &i64| times.contains_key(key) || held.contains(key);
    let missing = books.table.iter().filter(|key| !settled(key) && !books.optional.contains(key)).copied().collect();
    // A request that was sent twice has one shape; each row of the ledger with that shape explains one more.
    let shapes: BTreeSet<&Vec<i64>> = books.stored.iter().collect();
    let mut allowed: BTreeMap<i64, usize> = BTreeMap::new();
    for request in shapes {
        let named = books.ledger.iter().filter(|batch| batch.names_doubles() && batch.is(request)).count();
        request.iter().for_each(|key| *allowed.entry(*key).or_default() += named);
    }
    let more = |(key, times): (&i64, &usize)| {
        let allowed = 1 + allowed.get(key).copied().unwrap_or(0);
        (*times > allowed).then_some((*key, (*times, allowed)))
    };
    let known = |key: &&i64| !books.table.contains(key) && !books.gone.contains(key);
    Verdict {
        rows: books.table.len() as u64,
        missing,
        doubled: times.values().map(|times| *times as u64 - 1).sum(),
        unnamed: times.iter().filter_map(more).collect(),
        foreign: times.keys().filter(known).copied().collect(),
        quarantined: books.quarantined.len() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(phase: &str, outcome: &str, keys: &[i64]) -> Batch {
        let text = |key: Option<&i64>| key.map(i64::to_string).unwrap_or_default();
        Batch {
            phase: phase.to_owned(),
            outcome: outcome.to_owned(),
            first: text(keys.first()),
            last: text(keys.last()),
            rows: keys.len(),
        }
    }

    #[test]
    fn a_missing_row_is_seen_unless_it_is_held_or_optional() {
        let mut books = Books { table: (1..=4).collect(), stored: vec![vec![1]], ..Books::default() };
        books.quarantined = vec![2];
        books.optional = BTreeSet::from([3]);
        assert_eq!(judge(&books).missing, [4]);
        assert!(!judge(&books).is_good());
    }

    #[test]
    fn a_double_is_good_only_where_the_ledger_names_its_batch() {
        let twice = vec![vec![1, 2], vec![1, 2]];
        let mut books = Books { table: (1..=2).collect(), stored: twice, ..Books::default() };
        books.ledger = vec![batch("stream", "delivered", &[1, 2]), batch("stream", "delivered", &[1, 2])];
        assert_eq!(judge(&books).unnamed.len(), 2);
        books.ledger[0].outcome = "resent".to_owned();
        assert!(judge(&books).is_good());
        assert_eq!(judge(&books).doubled, 2);
        books.stored.push(vec![2]);
        assert_eq!(judge(&books).unnamed, BTreeMap::from([(2, (3, 2))]));
        books.ledger.push(batch("resync", "delivered", &[2]));
        assert!(judge(&books).is_good());
    }

    #[test]
    fn a_row_that_was_never_committed_is_seen_and_a_deleted_one_is_not() {
        let books = Books { gone: BTreeSet::from([1]), stored: vec![vec![1, 2]], ..Books::default() };
        assert_eq!(judge(&books).foreign, [2]);
    }
}
