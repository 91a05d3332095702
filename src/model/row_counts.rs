//! The one count of a section's rows since the process began. Pure.
//!
//! * In: rows as they come in and as they are settled.
//! * Out: the figures that status and metrics show.
//! * Never: rows that are read, and neither settled nor shown as unsettled: that figure is the difference.

use crate::model::indexed::ByPhase;
use crate::model::row::Phase;

/// Why a row that was taken in is neither delivered nor held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FilterRule {
    /// A range was read beside the stream, which has brought the row already.
    Streamed,
    /// The section's `where` leaves it out.
    Where,
    /// A mandatory field is NULL, and the section says `on_null: skip`.
    Null,
    /// An update that changes no mapped column.
    Unchanged,
    /// A newer version of the row is in the same batch.
    Superseded,
}

impl FilterRule {
    /// All of them.
    pub const ALL: [FilterRule; 5] =
        [FilterRule::Streamed, FilterRule::Where, FilterRule::Null, FilterRule::Unchanged, FilterRule::Superseded];

    /// The word in metrics and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            FilterRule::Streamed => "streamed",
            FilterRule::Where => "where",
            FilterRule::Null => "null",
            FilterRule::Unchanged => "unchanged",
            FilterRule::Superseded => "superseded",
        }
    }

    /// The rule in words, for people.
    pub fn said(self) -> &'static str {
        match self {
            FilterRule::Streamed => "the stream has brought it",
            FilterRule::Where => "a condition of `where` does not hold",
            FilterRule::Null => "a mandatory field is NULL, and `on_null` says skip",
            FilterRule::Unchanged => "the update changes no mapped column",
            FilterRule::Superseded => "a newer version of the row is in the same batch",
        }
    }
}

/// How many rows each rule has left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut([u64; FilterRule::ALL.len()]);

impl LeftOut {
    /// One row more.
    #[inline]
    pub fn add(&mut self, rule: FilterRule) {
        self.0[rule as usize] += 1;
    }

    /// The rows of one rule.
    pub fn of(&self, rule: FilterRule) -> u64 {
        self.0[rule as usize]
    }

    /// The rows of all rules.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds those of another count.
    pub fn merge(&mut self, other: &LeftOut) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }
}

/// Rows of one phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhaseCounts {
    /// Rows taken in.
    pub read: u64,
    /// Rows left out, by the rule.
    pub filtered: LeftOut,
    /// Rows received by the sink, durably recorded.
    pub delivered: u64,
    /// Rows put into quarantine, durably recorded.
    pub quarantined: u64,
    /// Rows among those read that were given back unsettled: they come again, and are not counted again.
    again: u64,
}

impl PhaseCounts {
    /// Rows read and not settled.
    pub fn unsettled(&self) -> u64 {
        self.read - self.filtered.total() - self.delivered - self.quarantined
    }

    /// Rows read and not settled that are here.
    pub fn held(&self) -> u64 {
        self.unsettled() - self.again
    }
}

/// The rows of one section since the process began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowCounts {
    phases: ByPhase<PhaseCounts>,
    /// Rows put into quarantine, by the word that their reason begins with.
    quarantined: Vec<(String, u64)>,
    /// Rows of batches that were in doubt.
    pub in_doubt: u64,
    /// Rows sent again after doubt.
    pub resent: u64,
}

impl RowCounts {
    /// The counts of a process whose event loop begins again: what is not settled comes again.
    pub fn resumed(mut self) -> RowCounts {
        for phase in Phase::ALL {
            let counts = &mut self.phases[phase];
            counts.again = counts.unsettled();
        }
        self
    }

    /// A row was taken in.
    #[inline]
    pub fn read(&mut self, phase: Phase) {
        let counts = &mut self.phases[phase];
        if counts.again > 0 {
            counts.again -= 1;
        } else {
            counts.read += 1;
        }
    }

    /// Rows that were taken in were given back; they come again.
    pub fn given_back(&mut self, phase: Phase, rows: u64) {
        self.phases[phase].again += rows;
    }

    /// Rows are settled: so many were delivered, these were put into quarantine, by their reason's word, and these left out.
    pub fn settled(&mut self, phase: Phase, delivered: u64, quarantined: &[(String, u64)], left_out: &LeftOut) {
        self.phases[phase].delivered += delivered;
        self.phases[phase].filtered.merge(left_out);
        for (word, rows) in quarantined {
            self.phases[phase].quarantined += rows;
            match self.quarantined.iter_mut().find(|(known, _)| known == word) {
                Some((_, count)) => *count += rows,
                None => self.quarantined.push((word.clone(), *rows)),
            }
        }
    }

    /// The rows of one phase.
    pub fn of(&self, phase: Phase) -> &PhaseCounts {
        &self.phases[phase]
    }

    /// Rows put into quarantine, by the word that their reason begins with.
    pub fn quarantined_by_word(&self) -> &[(String, u64)] {
        &self.quarantined
    }

    /// Rows received by the sink.
    pub fn delivered(&self) -> u64 {
        self.phases.values().map(|counts| counts.delivered).sum()
    }

    /// Rows put into quarantine.
    pub fn quarantined(&self) -> u64 {
        self.phases.values().map(|counts| counts.quarantined).sum()
    }

    /// Rows read and not settled.
    pub fn unsettled(&self) -> u64 {
        self.phases.values().map(PhaseCounts::unsettled).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_given_back_are_read_once_and_unsettled_until_they_have_come_again() {
        let mut counts = RowCounts::default();
        (0..5).for_each(|_| counts.read(Phase::Stream));
        counts.settled(Phase::Stream, 1, &[("mapping".into(), 1)], &LeftOut::default());
        counts.given_back(Phase::Stream, 2);
        let stream = counts.of(Phase::Stream);
        assert_eq!((stream.read, stream.unsettled(), stream.held()), (5, 3, 1));
        // The event loop begins again: the row that was held is not here either.
        let mut counts = counts.resumed();
        assert_eq!((counts.unsettled(), counts.of(Phase::Stream).held()), (3, 0));
        (0..4).for_each(|_| counts.read(Phase::Stream));
        let stream = counts.of(Phase::Stream);
        assert_eq!((stream.read, stream.unsettled(), stream.held()), (6, 4, 4));
        let mut left_out = LeftOut::default();
        left_out.add(FilterRule::Where);
        counts.settled(Phase::Stream, 2, &[("mapping".into(), 1)], &left_out);
        assert_eq!(counts.of(Phase::Stream).filtered.of(FilterRule::Where), 1);
        assert_eq!((counts.delivered(), counts.quarantined(), counts.unsettled()), (3, 2, 0));
        assert_eq!(counts.quarantined_by_word(), [("mapping".to_owned(), 2)]);
    }
}
