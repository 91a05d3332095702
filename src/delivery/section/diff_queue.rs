//! What one comparison of a result found, on its way to the sink. Pure.
//!
//! * In: pieces of what is new or changed, in the order of the keys' digests; the end of the comparison.
//! * Out: rows in the queue of the backfill, each with what is to be remembered of it.
//! * Never: a second comparison while one is not settled: it would find the same rows again.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::config::InDoubt;
use crate::delivery::batch::{Origin, RunEnd, SettledUpTo};
use crate::delivery::section::{IncomingRow, SectionDelivery, Span, Trouble};
use crate::mapping::Mapping;
use crate::model::{CommitTime, Fault, Forgotten, KeyDigest, Phase, Rows, SeenRow};
use crate::state::{BackfillProgress, Op, SectionPhase};

/// A piece of what a comparison found.
#[derive(Clone, Debug, Default)]
pub(crate) struct DiffChunk {
    /// Rows to send, in the order of their keys' digests.
    pub rows: Rows,
    /// What is to be remembered of each.
    pub seen: Vec<SeenRow>,
    /// Rows that are settled as they are.
    pub left_out: Vec<SeenRow>,
    /// How the comparison ended, where this is its last piece.
    pub end: Option<RunEnd>,
}

impl DiffChunk {
    /// Bytes that it holds in memory.
    pub(crate) fn weight(&self) -> usize {
        self.rows.weight() + (self.seen.len() + self.left_out.len()) * size_of::<SeenRow>()
    }

    /// The last of its rows.
    pub(crate) fn through(&self) -> Option<KeyDigest> {
        self.seen.last().into_iter().chain(self.left_out.last()).map(|row| row.key).max()
    }
}

/// The comparisons of a section.
#[derive(Debug)]
pub(crate) struct DiffQueue {
    /// `Backfill` for the first one, `Resync` where everything was forgotten, else `Diff`.
    phase: Phase,
    /// The number of the one under way, and the digest of the names of the columns that it compares.
    run: (i64, i64),
    /// Rows settled by it, and rows expected.
    progress: BackfillProgress,
    chunks: VecDeque<DiffChunk>,
    /// The rest of the comparison under way is kept back: the mapping refused one row after the other.
    kept_back: Option<Trouble>,
    /// From when on no comparison has ended that should have.
    late_from: Option<Duration>,
    dirty: bool,
}

impl DiffQueue {
    /// A section whose result is compared from `phase` on.
    pub(crate) fn new(phase: Phase) -> DiffQueue {
        DiffQueue {
            phase,
            run: (0, 0),
            progress: BackfillProgress::default(),
            chunks: VecDeque::new(),
            kept_back: None,
            late_from: None,
            dirty: false,
        }
    }

    /// Which way its rows come.
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// The number of the comparison under way, and the digest of the names of the columns that it compares.
    pub(crate) fn run(&self) -> (i64, i64) {
        self.run
    }

    /// How far the first comparison is.
    pub(crate) fn progress(&self) -> &BackfillProgress {
        &self.progress
    }

    /// Pieces that wait.
    pub(crate) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Bytes that they hold.
    pub(crate) fn weight(&self) -> usize {
        self.chunks.iter().map(DiffChunk::weight).sum()
    }

    /// Rows of the comparison under way are settled.
    pub(crate) fn settle(&mut self, rows: u64) {
        self.progress.rows += rows;
        self.dirty = self.phase != Phase::Diff;
    }

    /// The comparison is settled to its end, or failed.
    pub(crate) fn end(&mut self, whole: bool) {
        if whole && self.phase != Phase::Diff {
            self.phase = Phase::Diff;
            self.dirty = true;
        }
    }

    /// Whether it has changed since it was last written; it is taken as written now.
    pub(crate) fn written(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// As the state keeps it.
    pub(crate) fn to_phase(&self) -> SectionPhase {
        match self.phase {
            Phase::Backfill => SectionPhase::Backfilling(self.progress.clone()),
            Phase::Resync => SectionPhase::Resyncing(self.progress.clone()),
            Phase::Diff | Phase::Stream | Phase::Retry | Phase::Repair => SectionPhase::Comparing,
        }
    }
}

impl SectionDelivery {
    /// The comparisons of its result, where it is read so.
    pub(crate) fn diff(&self) -> Option<&DiffQueue> {
        self.diff.as_ref()
    }

    /// Its rows come out of a result that is compared.
    pub(crate) fn set_diff(&mut self, diff: DiffQueue) {
        self.diff = Some(diff);
    }

    /// The comparison under way has this number, and gives rows like these; so many are expected.
    pub(crate) fn describe_diff(&mut self, run: (i64, i64), mapping: Rc<Mapping>, estimated: u64) {
        self.table_mapping = Some(mapping);
        if let Some(diff) = &mut self.diff {
            diff.run = run;
            diff.progress.estimated = estimated;
            diff.dirty = diff.phase != Phase::Diff;
        }
    }

    /// Sets from when on it is late, if no comparison has ended by then.
    pub(crate) fn set_diff_late_from(&mut self, late_from: Option<Duration>) {
        if let Some(diff) = &mut self.diff {
            diff.late_from = late_from;
        }
    }

    /// By how much its last comparison is older than its schedule allows.
    pub(crate) fn diff_late_by(&self, now: Duration) -> Option<Duration> {
        now.checked_sub(self.diff.as_ref()?.late_from?)
    }

    /// Everything that was settled of its result is forgotten: the next comparison sends all of it. Returns the writes that
    /// record it; `older` rows are not in it. Not while a comparison is under way: what it settles would be remembered.
    pub(crate) fn forget_diff(&mut self, older: Option<Forgotten>) -> Vec<Op> {
        self.diff = Some(DiffQueue::new(Phase::Resync));
        std::iter::once(Op::Forget { section: self.name.clone(), older }).chain(self.phase_ops()).collect()
    }

    /// A piece of what a comparison found was read.
    pub(crate) fn push_diff_chunk(&mut self, chunk: DiffChunk) {
        if let Some(diff) = &mut self.diff {
            diff.chunks.push_back(chunk);
        }
    }

    /// Takes the rows of the next pieces, while there is room.
    pub(crate) fn take_diff_chunks(&mut self, now: Duration) {
        while self.takes_chunks()
            && let Some(diff) = &mut self.diff
            && let Some(chunk) = diff.chunks.pop_front()
        {
            let phase = diff.phase;
            self.admit_diff_chunk(chunk, phase, now);
        }
    }

    fn admit_diff_chunk(&mut self, chunk: DiffChunk, phase: Phase, now: Duration) {
        self.admit_diff_rows(&chunk, phase, now);
        if let Some(mut end) = chunk.end {
            if let Some(Trouble { what, remedy }) = self.diff.as_mut().and_then(|diff| diff.kept_back.take()) {
                end.failed.get_or_insert_with(|| Fault::usage(what, remedy));
            }
            self.backfilled.pass(phase, now);
            self.backfilled.reach(SettledUpTo::RunEnd(Box::new(end)));
            self.backfilled.seal();
        }
    }

    /// Takes the rows of a piece, up to one that is kept back: the next comparison finds the rest again.
    fn admit_diff_rows(&mut self, chunk: &DiffChunk, phase: Phase, now: Duration) {
        if self.diff.as_ref().is_none_or(|diff| diff.kept_back.is_some()) {
            return;
        }
        if let Some(mapping) = self.table_mapping.clone() {
            for (row, seen) in chunk.rows.iter().zip(&chunk.seen) {
                if let Some(trouble) = self.keeps_back(&mapping, &row, CommitTime::Unknown) {
                    if let Some(diff) = &mut self.diff {
                        diff.kept_back = Some(trouble);
                    }
                    return;
                }
                self.counts.read(phase);
                let left_out = mapping.left_out(&row);
                if let Ok(Some(rule)) = left_out {
                    // Remembered all the same: it comes again when it changes, or when the rule takes it.
                    self.backfilled.leave_out(phase, now, rule, Origin::Backfill);
                    self.backfilled.settle_unsent(self.limits, phase, now, seen.left_out());
                    self.backfilled.reach(SettledUpTo::Digest(seen.key));
                    continue;
                }
                let encode = |out: &mut Vec<u8>| left_out.and_then(|_| mapping.encode(&row, CommitTime::Unknown, out));
                let (key, describe) = (mapping.key_text(&row), || mapping.describe(&row));
                let incoming = IncomingRow { limits: self.limits, phase, now, key: &key, origin: Origin::Diff(*seen) };
                if self.is_held(seen.key) {
                    self.backfilled.hold(incoming, encode, describe);
                } else {
                    self.mapping_brake.taken(self.backfilled.push(incoming, encode, describe));
                }
                self.backfilled.reach(SettledUpTo::Digest(seen.key));
            }
        }
        for seen in &chunk.left_out {
            self.backfilled.settle_unsent(self.limits, phase, now, *seen);
        }
        if let Some(through) = chunk.through() {
            self.backfilled.reach(SettledUpTo::Digest(through));
        }
    }

    /// Whether a person decides about this row: it was in a batch whose answer never came.
    fn is_held(&self, key: KeyDigest) -> bool {
        let within = |span: &Span| matches!(span, Span::Digests(first, last) if (first..=last).contains(&&key));
        self.in_doubt == InDoubt::Hold && self.doubts.iter().any(|doubt| within(&doubt.span))
    }
}
