//! The LSN that is safe to confirm. Pure.
//!
//! * In: transactions and keepalives as the stream brings them, rows admitted to sections, and what sections have settled.
//! * Out: the checkpoint: everything before it is settled.
//! * Never: a checkpoint past an unsettled row, past an open transaction, past what was received, or behind an earlier one.
//!
//! Facts it rests on (tried on 15.18): confirming a transaction's `end_lsn` stops it from coming again, confirming its
//! `commit_lsn` does not; the keepalive right after a COMMIT already carries its `end_lsn`, so a keepalive says nothing
//! about delivery; inside a transaction a keepalive's `wal_end` may lie past the transaction's own commit.

use std::collections::VecDeque;

use crate::model::{BySection, Lsn, Position, SectionId};

/// A place up to which the slot may move once every transaction up to `after` is settled.
#[derive(Clone, Copy, Debug)]
struct Boundary {
    after: Lsn,
    end: Lsn,
}

/// One section's rows that are admitted and not settled.
#[derive(Debug, Default)]
struct Outstanding {
    /// Of each transaction with unsettled rows the last row admitted.
    transactions: VecDeque<Position>,
    /// Nothing from here on is admitted (the section sheds rows, or cannot map them): the checkpoint may not pass.
    held_back: Option<Position>,
}

impl Outstanding {
    /// `final_lsn` of the oldest transaction with an unsettled row.
    fn oldest(&self) -> Option<Lsn> {
        let admitted = self.transactions.front().map(|first| first.final_lsn);
        let held_back = self.held_back.map(|position| position.final_lsn);
        [admitted, held_back].into_iter().flatten().min()
    }
}

/// Up to this many boundaries are kept without merging.
const FEW_BOUNDARIES: usize = 64;

/// The progress of one slot over all sections.
#[derive(Debug)]
pub struct Progress {
    sections: BySection<Outstanding>,
    boundaries: VecDeque<Boundary>,
    /// With more boundaries than this, those that no unsettled transaction tells apart are put together.
    most_boundaries: usize,
    /// The transaction being received.
    open: Option<Lsn>,
    /// `final_lsn` of the newest transaction that has ended here.
    last: Lsn,
    /// All commits before this were received whole.
    received: Lsn,
    checkpoint: Lsn,
}

impl Progress {
    /// Progress that resumes at the durable checkpoint.
    pub fn new(sections: usize, checkpoint: Lsn) -> Progress {
        Progress {
            sections: (0..sections).map(|_| Outstanding::default()).collect(),
            boundaries: VecDeque::new(),
            most_boundaries: FEW_BOUNDARIES,
            open: None,
            last: Lsn::ZERO,
            received: checkpoint,
            checkpoint,
        }
    }

    /// Another section takes rows from here on.
    pub fn add_section(&mut self) {
        self.sections.push(Outstanding::default());
    }

    /// The stream starts over at the checkpoint, or before it (a new connection). What was admitted stays admitted; but what was
    /// received beyond the checkpoint counts as such only when it has come again: sections may have left rows of it out.
    pub fn restart(&mut self) {
        self.open = None;
        self.boundaries.clear();
        self.last = Lsn::ZERO;
        self.received = self.checkpoint;
    }

    /// Records that a transaction begins.
    pub fn begin(&mut self, final_lsn: Lsn) {
        self.open = Some(final_lsn);
    }

    /// Records that a row of the open transaction waits in `section`.
    pub fn admit(&mut self, section: SectionId, position: Position) {
        let transactions = &mut self.sections[section].transactions;
        match transactions.back_mut() {
            Some(last) if last.final_lsn == position.final_lsn => *last = (*last).max(position),
            Some(_) | None => transactions.push_back(position),
        }
    }

    /// From `position` on `section` takes nothing: the checkpoint stays before it until [`Progress::release`].
    pub fn hold_back(&mut self, section: SectionId, position: Position) {
        let held_back = &mut self.sections[section].held_back;
        *held_back = Some(held_back.map_or(position, |earlier| earlier.min(position)));
    }

    /// Rows admitted to `section` after `position` are dropped unsettled; they must come again.
    pub fn retract_after(&mut self, section: SectionId, position: Position) {
        let transactions = &mut self.sections[section].transactions;
        while transactions.back().is_some_and(|last| last.final_lsn > position.final_lsn) {
            transactions.pop_back();
        }
        if let Some(last) = transactions.back_mut()
            && last.final_lsn == position.final_lsn
        {
            *last = (*last).min(position);
        }
    }

    /// `section` takes rows again. The stream must bring those left out once more, from the checkpoint on: [`Progress::restart`]
    /// belongs to it.
    pub fn release(&mut self, section: SectionId) {
        self.sections[section].held_back = None;
    }

    /// The open transaction ends at `end_lsn`.
    pub fn commit(&mut self, end_lsn: Lsn) {
        let Some(final_lsn) = self.open.take() else { return };
        self.last = self.last.max(final_lsn);
        self.boundary(end_lsn);
    }

    /// The server has sent, in order, every transaction that committed before `wal_end`.
    pub fn keepalive(&mut self, wal_end: Lsn) {
        if self.open.is_none() {
            self.boundary(wal_end);
        }
    }

    fn boundary(&mut self, end: Lsn) {
        self.received = self.received.max(end);
        match self.boundaries.back_mut() {
            Some(newest) if newest.after == self.last => newest.end = newest.end.max(end),
            Some(newest) if newest.end >= end => {} // received again after a reconnect
            Some(_) | None => self.boundaries.push_back(Boundary { after: self.last, end }),
        }
        if self.boundaries.len() > self.most_boundaries {
            self.join_boundaries();
            self.most_boundaries = FEW_BOUNDARIES.max(2 * self.boundaries.len());
        }
    }

    /// Keeps of the boundaries between two unsettled transactions the last one: the checkpoint can never stop between them. So
    /// what is kept follows what is outstanding, not the commits since.
    fn join_boundaries(&mut self) {
        let outstanding = self.sections.iter().flat_map(|section| {
            let admitted = section.transactions.iter().map(|position| position.final_lsn);
            admitted.chain(section.held_back.map(|position| position.final_lsn))
        });
        let mut outstanding: Vec<Lsn> = outstanding.collect();
        outstanding.sort_unstable();
        let mut joined: VecDeque<Boundary> = VecDeque::new();
        for next in self.boundaries.drain(..) {
            match joined.back_mut() {
                Some(last) => {
                    // The oldest unsettled transaction that may hold `next` up and not `last`.
                    let first = outstanding.partition_point(|final_lsn| *final_lsn <= last.after);
                    if outstanding.get(first).is_some_and(|final_lsn| *final_lsn <= next.after) {
                        joined.push_back(next);
                    } else {
                        *last = Boundary { after: next.after, end: next.end.max(last.end) };
                    }
                }
                None => joined.push_back(next),
            }
        }
        self.boundaries = joined;
    }

    /// Every row admitted to `section` up to `through` is settled.
    pub fn settle(&mut self, section: SectionId, through: Position) {
        let transactions = &mut self.sections[section].transactions;
        while transactions.front().is_some_and(|first| *first <= through) {
            transactions.pop_front();
        }
    }

    /// Moves the checkpoint as far as it may go, and returns it.
    pub fn advance(&mut self) -> Lsn {
        let oldest = self.oldest_unsettled();
        while let Some(first) = self.boundaries.front() {
            if oldest.is_some_and(|oldest| first.after >= oldest) {
                break;
            }
            self.checkpoint = self.checkpoint.max(first.end);
            self.boundaries.pop_front();
        }
        self.checkpoint
    }

    /// `final_lsn` of the oldest transaction with an unsettled row.
    pub fn oldest_unsettled(&self) -> Option<Lsn> {
        self.sections.iter().filter_map(Outstanding::oldest).min()
    }

    /// Whether every row of `section` that was committed before `lsn` is settled.
    pub fn is_settled_past(&self, section: SectionId, lsn: Lsn) -> bool {
        self.received >= lsn && self.sections[section].oldest().is_none_or(|oldest| oldest > lsn)
    }

    /// The stream has been read past every commit before this.
    pub fn received(&self) -> Lsn {
        self.received
    }

    /// The LSN before which everything is settled.
    pub fn checkpoint(&self) -> Lsn {
        self.checkpoint
    }

    /// Whether nothing waits in any section and no transaction is open.
    pub fn is_idle(&self) -> bool {
        self.open.is_none() && self.oldest_unsettled().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(final_lsn: u64, row: u64) -> Position {
        Position { final_lsn: Lsn(final_lsn), change_lsn: Lsn(row / 2 + 1), ordinal: (row % 2) as u32 }
    }

    #[test]
    fn case_08_a_keepalive_does_not_pass_an_undelivered_row() {
        let mut progress = Progress::new(1, Lsn(10));
        progress.begin(Lsn(100));
        progress.admit(SectionId(0), at(100, 0));
        progress.keepalive(Lsn(500)); // inside the transaction: says nothing
        progress.commit(Lsn(110));
        progress.keepalive(Lsn(110));
        progress.keepalive(Lsn(300));
        assert_eq!(progress.advance(), Lsn(10));
        progress.settle(SectionId(0), at(100, 0));
        assert_eq!(progress.advance(), Lsn(300));
    }

    #[test]
    fn a_row_settled_before_its_commit_arrives_confirms_nothing_yet() {
        let mut progress = Progress::new(1, Lsn(10));
        progress.begin(Lsn(100));
        progress.admit(SectionId(0), at(100, 0));
        progress.settle(SectionId(0), at(100, 0));
        assert_eq!(progress.advance(), Lsn(10));
        progress.admit(SectionId(0), at(100, 1));
        progress.commit(Lsn(110));
        assert_eq!(progress.advance(), Lsn(10));
        progress.settle(SectionId(0), at(100, 1));
        assert_eq!(progress.advance(), Lsn(110));
    }

    #[test]
    fn a_section_held_back_holds_the_checkpoint_and_only_that() {
        let mut progress = Progress::new(2, Lsn(10));
        for (final_lsn, section) in [(100, 0), (200, 1), (300, 0)] {
            progress.begin(Lsn(final_lsn));
            if section == 1 {
                progress.hold_back(SectionId(1), at(final_lsn, 0))
            } else {
                progress.admit(SectionId(section), at(final_lsn, 0))
            }
            progress.commit(Lsn(final_lsn + 10));
        }
        progress.settle(SectionId(0), at(300, 0));
        assert_eq!(progress.advance(), Lsn(110));
        progress.release(SectionId(1));
        progress.restart();
        assert_eq!(
            (progress.advance(), progress.received()),
            (Lsn(110), Lsn(110)),
            "the row left out has not come yet"
        );
        progress.begin(Lsn(200));
        progress.admit(SectionId(1), at(200, 0));
        progress.commit(Lsn(210));
        progress.begin(Lsn(300));
        progress.commit(Lsn(310));
        assert_eq!(progress.advance(), Lsn(110));
        progress.settle(SectionId(1), at(200, 0));
        assert_eq!(progress.advance(), Lsn(310));
    }

    #[test]
    fn case_80_what_is_kept_follows_what_is_outstanding_not_the_commits_since() {
        let mut progress = Progress::new(2, Lsn(10));
        for commit in 1..=100_000 {
            let final_lsn = commit * 100;
            progress.begin(Lsn(final_lsn));
            // One section is stuck with a row of each ten-thousandth transaction; the other goes on.
            let stuck = commit % 10_000 == 1;
            progress.admit(SectionId(usize::from(!stuck)), at(final_lsn, 0));
            progress.commit(Lsn(final_lsn + 10));
            if !stuck {
                progress.settle(SectionId(1), at(final_lsn, 0));
            }
            progress.advance();
            assert!(progress.boundaries.len() <= 2 * FEW_BOUNDARIES, "{}", progress.boundaries.len());
        }
        assert_eq!(progress.advance(), Lsn(10));
        progress.settle(SectionId(0), at(100, 0));
        assert_eq!(progress.advance(), Lsn(1_000_010), "up to the next row of the stuck section");
        progress.settle(SectionId(0), at(9_000_100, 0));
        assert_eq!(progress.advance(), Lsn(10_000_010));
    }

    /// A model of a WAL with transactions over three sections, and of what happens to them.
    #[derive(Clone, Debug)]
    enum Step {
        Transaction(Vec<usize>),
        Keepalive,
        Settle(usize, usize),
        Reconnect,
        CrashAndRestart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => proptest::collection::vec(0usize..3, 0..5).prop_map(Step::Transaction),
            2 => Just(Step::Keepalive),
            6 => (0usize..3, 1usize..6).prop_map(|(section, rows)| Step::Settle(section, rows)),
            1 => Just(Step::Reconnect),
            1 => Just(Step::CrashAndRestart),
        ]
    }

    /// The world: every transaction with its rows' sections, and per section what is settled and what waits.
    struct World {
        progress: Progress,
        wal: Vec<(Lsn, Lsn, Vec<usize>)>,
        end: u64,
        admitted: [Position; 3],
        settled: [Position; 3],
        waiting: [VecDeque<Position>; 3],
        checkpoint: Lsn,
    }

    impl World {
        fn receive(&mut self, from: Lsn) {
            for (final_lsn, end_lsn, rows) in self.wal.clone() {
                if end_lsn <= from {
                    continue;
                }
                self.progress.begin(final_lsn);
                for (ordinal, section) in rows.into_iter().enumerate() {
                    let position = at(final_lsn.0, ordinal as u64);
                    if position > self.admitted[section] {
                        self.admitted[section] = position;
                        self.progress.admit(SectionId(section), position);
                        self.waiting[section].push_back(position);
                    }
                    self.check();
                }
                self.progress.commit(end_lsn);
                self.check();
            }
        }

        fn check(&mut self) {
            let before = self.progress.checkpoint();
            let checkpoint = self.progress.advance();
            assert!(checkpoint >= before, "the checkpoint moved back");
            assert!(checkpoint <= Lsn(self.end), "the checkpoint is past what there is");
            for (final_lsn, end_lsn, rows) in &self.wal {
                for (ordinal, section) in rows.iter().enumerate() {
                    let position = at(final_lsn.0, ordinal as u64);
                    assert!(
                        *end_lsn > checkpoint || position <= self.settled[*section],
                        "{position} is confirmed, not settled"
                    );
                }
            }
            self.checkpoint = checkpoint;
        }

        fn settle(&mut self, section: usize, rows: usize) {
            let mut through = None;
            for _ in 0..rows {
                through = self.waiting[section].pop_front().or(through);
            }
            if let Some(through) = through {
                self.settled[section] = self.settled[section].max(through);
                self.progress.settle(SectionId(section), through);
            }
            self.check();
        }
    }

    proptest! {
        #[test]
        fn the_checkpoint_is_never_past_an_unsettled_row_and_always_reaches_the_end(steps in proptest::collection::vec(step(), 0..60)) {
            let mut world = World {
                progress: Progress::new(3, Lsn(1)), wal: vec![], end: 1,
                admitted: Default::default(), settled: Default::default(), waiting: Default::default(), checkpoint: Lsn(1),
            };
            for step in steps {
                match step {
                    Step::Transaction(rows) => {
                        let (final_lsn, end_lsn) = (Lsn(world.end + 10), Lsn(world.end + 15));
                        let from = Lsn(world.end);
                        world.end = end_lsn.0;
                        world.wal.push((final_lsn, end_lsn, rows));
                        world.receive(from);
                    }
                    Step::Keepalive => { world.end += 3; world.progress.keepalive(Lsn(world.end)); world.check(); }
                    Step::Settle(section, rows) => world.settle(section, rows),
                    Step::Reconnect => { world.progress.restart(); world.receive(world.checkpoint); }
                    Step::CrashAndRestart => {
                        world.progress = Progress::new(3, world.checkpoint);
                        world.admitted = world.settled;
                        world.waiting = Default::default();
                        world.receive(world.checkpoint);
                    }
                }
            }
            for section in 0..3 { world.settle(section, 10_000); }
            world.progress.keepalive(Lsn(world.end));
            prop_assert_eq!(world.progress.advance(), Lsn(world.end));
            prop_assert!(world.progress.is_idle());
        }
    }
}
