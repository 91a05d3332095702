//! The engine while a new stream brings once more what was settled before. Pure.
//!
//! * In: the stream's beginning; its transactions, until it is past the checkpoint and past what was read last.
//! * Out: a confirmation only when all of it is known to be the log that was delivered from; else [`Action::OtherHistory`].
//! * Never: a row of what was settled taken in again.

use crate::delivery::history_check::{HistoryCheck, OtherHistory, Verification};
use crate::delivery::*;
use crate::model::{CommitMark, NewestRead};

impl Engine {
    /// What was read of the log by an earlier process, where that is recorded: the first stream is to be verified by it.
    pub fn expect_history(&mut self, newest: Option<NewestRead>) {
        (self.newest, self.newest_written) = (newest, newest);
        self.verification = Verification::Awaited;
    }

    /// From where the next stream is to bring again what was read; `None` where nothing is recorded.
    pub fn verifies_from(&self) -> Option<Lsn> {
        self.newest.map(|newest| newest.at.min(self.confirmed))
    }

    /// The stream has begun: it brings what commits from `begins` on.
    pub fn stream_began(&mut self, begins: Lsn) {
        let Some(newest) = self.newest else {
            self.verification = Verification::Over;
            return self.actions.push_back(Action::Confirm(self.confirmed));
        };
        self.verification = Verification::UnderWay(HistoryCheck::new(begins, self.confirmed, newest), None);
        self.end_verification();
    }

    fn end_verification(&mut self) {
        if let Verification::UnderWay(check, _) = &self.verification
            && check.is_over()
        {
            self.verification = Verification::Over;
            self.actions.push_back(Action::Confirm(self.confirmed));
        }
    }

    /// Whether the slot may move.
    pub(crate) fn may_confirm(&self) -> bool {
        matches!(self.verification, Verification::Over)
    }

    /// Whether a transaction that begins was settled before, or is of no log of ours: then nothing of it is taken in.
    pub(crate) fn comes_again(&mut self, final_lsn: Lsn, commit: CommitMark) -> bool {
        let Verification::UnderWay(check, within) = &mut self.verification else { return false };
        match check.begin(final_lsn, commit) {
            Ok(settled) => {
                *within = settled.then_some(Position { final_lsn, ..Position::default() });
                self.end_verification();
                settled
            }
            Err(other) => {
                self.give_up(other);
                true
            }
        }
    }

    /// Takes a row outside of the transactions that are taken in.
    pub(crate) fn row_again(&mut self, oid: u32, change_lsn: Lsn, is_update: bool) {
        let Verification::UnderWay(check, Some(at)) = &mut self.verification else { return };
        *at = at.next(change_lsn);
        let (check, position) = (*check, *at);
        if is_update {
            return;
        }
        let routes = self.routes.get(&oid).into_iter().flatten();
        let found = routes.map(|route| check.row(position, self.sections[route.section].admitted()));
        if let Some(other) = found.filter_map(Result::err).next() {
            self.give_up(other);
        }
    }

    /// Takes the end of a transaction. Returns whether it was settled before.
    pub(crate) fn ends_again(&mut self) -> bool {
        match &mut self.verification {
            Verification::UnderWay(_, within) => within.take().is_some(),
            Verification::Awaited | Verification::Over => false,
        }
    }

    /// Takes a keepalive. Returns whether it counts: within a transaction that was settled before, it may lie past others.
    pub(crate) fn keepalive_counts(&mut self, wal_end: Lsn) -> bool {
        let is_between = self.transaction.is_none();
        let Verification::UnderWay(check, within) = &mut self.verification else { return true };
        if within.is_some() {
            return false;
        }
        if is_between {
            if let Err(other) = check.reached(wal_end) {
                self.give_up(other);
                return false;
            }
            self.end_verification();
        }
        true
    }

    /// The log is not the one that was delivered from: nothing more of it is taken in, and nothing confirmed.
    fn give_up(&mut self, other: OtherHistory) {
        (self.stale, self.transaction) = (true, None);
        self.verification = Verification::Awaited;
        self.actions.push_back(Action::OtherHistory(other));
    }
}
