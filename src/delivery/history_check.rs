//! Whether the log that a new stream brings is the one that was delivered from. Pure.
//!
//! * In: where the stream begins, what was settled and read before; then what comes of it once more.
//! * Out: that it is over, or the [`OtherHistory`] that was seen.
//! * Never: another log taken for ours where it lacks what was read, or has rows where everything counts as settled; ours for
//!   another, because a server that crashed has an older slot.
//!
//! A volume that is put back to an older snapshot has its identifier, its timeline and its slot; what is written anew has the
//! positions of what was written before. Two things tell the logs apart: the newest transaction that was read commits at its
//! place, with its xid and its time; and before the checkpoint no row comes that its section has not settled.

use std::fmt;

use crate::model::{CommitMark, Lsn, NewestRead, Position};

/// What proves that the log is not the one that was delivered from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherHistory {
    /// The transaction that was read here does not come again.
    Missing(Lsn),
    /// Another transaction has committed here.
    Another { at: Lsn, was: CommitMark, is: CommitMark },
    /// A row committed here, before the checkpoint, that was never read.
    Unread { at: Lsn, checkpoint: Lsn },
}

impl fmt::Display for OtherHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OtherHistory::Missing(at) => write!(f, "the last transaction that was read, at {at}, is not in it"),
            OtherHistory::Another { at, was, is } if was.xid == is.xid => {
                write!(f, "the transaction at {at} committed at another time than the one that was read there")
            }
            OtherHistory::Another { at, was, is } => {
                write!(f, "at {at} the transaction {} committed, where {} was read", is.xid, was.xid)
            }
            OtherHistory::Unread { at, checkpoint } => {
                write!(f, "it has rows at {at}, before the checkpoint {checkpoint}, that were never read")
            }
        }
    }
}

/// The verification of one stream, while it goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HistoryCheck {
    /// The newest transaction that was read, until it has come again.
    expected: Option<(Lsn, CommitMark)>,
    /// What committed up to here is known by that transaction.
    known: Lsn,
    /// Everything before this is settled.
    checkpoint: Lsn,
    /// Every transaction before this has come.
    passed: Lsn,
}

impl HistoryCheck {
    /// The verification of a stream that brings what commits from `begins` on.
    pub(crate) fn new(begins: Lsn, checkpoint: Lsn, newest: NewestRead) -> HistoryCheck {
        let expected = newest.commit.map(|commit| (newest.at, commit)).filter(|(at, _)| begins <= *at);
        HistoryCheck { expected, known: newest.at, checkpoint, passed: begins }
    }

    /// Whether nothing is left to be verified.
    pub(crate) fn is_over(&self) -> bool {
        self.expected.is_none() && self.passed >= self.checkpoint
    }

    /// Takes the beginning of a transaction. Returns whether everything of it was settled before.
    ///
    /// # Errors
    /// Where the log cannot be ours.
    pub(crate) fn begin(&mut self, final_lsn: Lsn, commit: CommitMark) -> Result<bool, OtherHistory> {
        self.passed = self.passed.max(final_lsn);
        if let Some((at, was)) = self.expected {
            match final_lsn.cmp(&at) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal if commit == was => self.expected = None,
                std::cmp::Ordering::Equal => return Err(OtherHistory::Another { at, was, is: commit }),
                std::cmp::Ordering::Greater => return Err(OtherHistory::Missing(at)),
            }
        }
        Ok(final_lsn < self.checkpoint)
    }

    /// Takes an inserted row of such a transaction, for a section that has settled everything up to `settled`. An update proves
    /// nothing: its section may not have sent updates yet when it was written.
    ///
    /// # Errors
    /// Where the log cannot be ours.
    pub(crate) fn row(&self, position: Position, settled: Position) -> Result<(), OtherHistory> {
        if position > settled && position.final_lsn > self.known {
            return Err(OtherHistory::Unread { at: position.final_lsn, checkpoint: self.checkpoint });
        }
        Ok(())
    }

    /// Takes a keepalive between two transactions: all that committed before `wal_end` have come.
    ///
    /// # Errors
    /// Where the log cannot be ours.
    pub(crate) fn reached(&mut self, wal_end: Lsn) -> Result<(), OtherHistory> {
        self.passed = self.passed.max(wal_end);
        match self.expected {
            Some((at, _)) if wal_end > at => Err(OtherHistory::Missing(at)),
            Some(_) | None => Ok(()),
        }
    }
}

/// How far the verification of the stream is.
#[derive(Debug, Default)]
pub(crate) enum Verification {
    /// The stream has not begun: nothing of it may be confirmed.
    Awaited,
    /// It brings what was settled before; within a transaction of that, where its last row was.
    UnderWay(HistoryCheck, Option<Position>),
    /// Nothing is left to be verified, or nothing was recorded to verify it by.
    #[default]
    Over,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A transaction: how long it is in the log, whether it has a row of ours, and whether it is sent where it has none.
    #[derive(Clone, Copy, Debug)]
    struct Written {
        bytes: u64,
        rows: bool,
        shown: bool,
    }

    fn written() -> impl Strategy<Value = Written> {
        (1u64..5, any::<bool>(), any::<bool>()).prop_map(|(units, rows, shown)| Written {
            bytes: units * 8,
            rows,
            shown,
        })
    }

    /// A log: transactions with where they end, and their commits.
    type Log = Vec<(Lsn, Lsn, CommitMark, Written)>;

    /// Appends transactions to a log; `life` tells two servers' times apart, xids are given alike.
    fn append(log: &mut Log, written: &[Written], life: i64) {
        for one in written {
            let (end, number) = (log.last().map_or(100, |(_, end, ..)| end.0), log.len());
            let final_lsn = Lsn(end + one.bytes);
            let number = u32::try_from(number).unwrap();
            let commit = CommitMark { xid: 700 + number, micros: i64::from(number) * 10 + life };
            log.push((final_lsn, Lsn(final_lsn.0 + 8), commit, *one));
        }
    }

    fn position(final_lsn: Lsn) -> Position {
        Position { final_lsn, change_lsn: Lsn(final_lsn.0.saturating_sub(1)), ordinal: 0 }
    }

    /// Whether a stream from `begins` on is verified by the end of the log.
    fn verify(log: &Log, begins: Lsn, checkpoint: Lsn, newest: NewestRead, settled: Lsn) -> Result<bool, OtherHistory> {
        let mut check = HistoryCheck::new(begins, checkpoint, newest);
        for (final_lsn, _, commit, one) in log.iter().filter(|(final_lsn, ..)| *final_lsn >= begins) {
            if check.is_over() || !one.rows && !one.shown {
                continue;
            }
            if check.begin(*final_lsn, *commit)? && one.rows {
                check.row(position(*final_lsn), position(settled))?;
            }
        }
        check.reached(log.last().map_or(Lsn(100), |(_, end, ..)| *end))?;
        Ok(check.is_over())
    }

    /// The newest transaction with a row among the first `read`, and where that one committed.
    fn newest(log: &Log, read: usize) -> NewestRead {
        let last = log[..read].iter().rev().find(|(.., one)| one.rows);
        last.map_or(NewestRead { at: Lsn(0), commit: None }, |(at, _, commit, _)| NewestRead {
            at: *at,
            commit: Some(*commit),
        })
    }

    fn end_of(log: &Log, count: usize) -> Lsn {
        count.checked_sub(1).map_or(Lsn(100), |last| log[last].1)
    }

    proptest! {
        #[test]
        fn case_299_our_own_log_is_never_taken_for_another(
            all in proptest::collection::vec(written(), 1..30),
            read in 0usize..30, settled in 0usize..30, slot in 0usize..30, reset in any::<bool>(),
        ) {
            let mut log = Log::new();
            append(&mut log, &all, 0);
            // The slot is behind the checkpoint, the checkpoint behind what was read.
            let read = read.min(log.len());
            let settled = settled.min(read);
            let checkpoint = end_of(&log, settled);
            let slot = end_of(&log, slot.min(settled));
            let was = newest(&log, read);
            let known = if reset { NewestRead { at: checkpoint, commit: None } } else { was };
            let begins = slot.max(known.at.min(checkpoint));
            prop_assert_eq!(verify(&log, begins, checkpoint, known, was.at), Ok(true));
        }

        #[test]
        fn case_300_a_log_written_anew_is_seen_wherever_rows_would_be_skipped(
            kept in proptest::collection::vec(written(), 0..10),
            old in proptest::collection::vec(written(), 0..10),
            anew in proptest::collection::vec(written(), 0..10),
            slot in 0usize..10, settled in 0usize..10,
        ) {
            let mut before = Log::new();
            append(&mut before, &kept, 0);
            let mut after = before.clone();
            append(&mut before, &old, 0);
            append(&mut after, &anew, 1);
            // Everything was read before the volume was put back; the slot is of the time before the snapshot.
            let settled = (kept.len() + settled).min(before.len());
            let checkpoint = end_of(&before, settled);
            let slot = end_of(&before, slot.min(kept.len()));
            let was = newest(&before, before.len());
            let begins = slot.max(was.at.min(checkpoint));
            let skipped = after
                .iter()
                .skip(kept.len())
                .any(|(at, .., one)| one.rows && (*at < checkpoint || *at <= was.at));
            // Where the log does not go far enough yet, nothing is confirmed either.
            let found = verify(&after, begins, checkpoint, was, was.at);
            prop_assert!(!skipped || found != Ok(true), "{before:?}\n{after:?}\n{checkpoint} {slot} {was:?}");
        }
    }

    #[test]
    fn case_301_each_proof_has_its_words() {
        let (was, is) = (CommitMark { xid: 7, micros: 1 }, CommitMark { xid: 8, micros: 2 });
        let read = NewestRead { at: Lsn(50), commit: Some(was) };
        let check = || HistoryCheck::new(Lsn(50), Lsn(100), read);
        assert_eq!(check().begin(Lsn(50), is), Err(OtherHistory::Another { at: Lsn(50), was, is }));
        let later = CommitMark { micros: 9, ..was };
        let said = check().begin(Lsn(50), later).unwrap_err().to_string();
        assert!(said.contains("at another time"), "{said}");
        assert_eq!(check().begin(Lsn(60), is), Err(OtherHistory::Missing(Lsn(50))));
        assert_eq!(check().reached(Lsn(51)), Err(OtherHistory::Missing(Lsn(50))));
        assert_eq!(check().reached(Lsn(50)), Ok(()));
        let mut ours = check();
        assert_eq!(ours.begin(Lsn(50), was), Ok(true));
        assert!(!ours.is_over(), "up to the checkpoint rows could be there that were never read");
        let row = Position { final_lsn: Lsn(60), ..Position::default() };
        let settled = Position { final_lsn: Lsn(50), ..Position::default() };
        assert_eq!(ours.row(row, settled), Err(OtherHistory::Unread { at: Lsn(60), checkpoint: Lsn(100) }));
        assert_eq!(ours.row(row, row), Ok(()), "settled, or of before its section was attached");
        assert_eq!(ours.begin(Lsn(100), is), Ok(false));
        assert!(ours.is_over());
        // A slot that is past the transaction does not bring it again.
        let mut past = HistoryCheck::new(Lsn(70), Lsn(100), read);
        assert_eq!(past.reached(Lsn(100)), Ok(()));
        assert!(past.is_over());
        // Where nothing is recorded but the beginning, only what lies between it and the checkpoint counts.
        let fresh = HistoryCheck::new(Lsn(40), Lsn(100), NewestRead { at: Lsn(80), commit: None });
        assert_eq!(fresh.row(row, Position::default()), Ok(()));
    }
}
