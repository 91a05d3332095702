//! Batches in doubt: the request was sent, and its answer never came. Pure.
//!
//! A doubt lasts until everything that it spans is settled again, by whichever batches; then its ledger row ends.

use std::time::Duration;

use super::delivery::{Sending, Stage, Step};
use super::{Lane, queue};
use crate::batch::{Batch, Through};
use crate::config::InDoubt;
use crate::planhat::Answer;
use crate::row::{Key, Phase, Position};
use crate::state::{Op, Outcome, Totals};

/// The span of a batch in doubt: its rows come again, and this says when they have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// Streamed rows.
    Stream(Position, Position),
    /// Rows of the key range.
    Keys(Key, Key),
}

impl Span {
    /// Whether nothing of it is left once everything up to `through` is settled.
    fn ends_by(&self, through: &Through) -> bool {
        match (self, through) {
            (Span::Stream(_, last), Through::Stream(reached)) => last <= reached,
            (Span::Keys(_, last), Through::Key(reached)) => last <= reached,
            (Span::Keys(..), Through::RangeEnd) => true,
            (Span::Stream(..), Through::Key(_) | Through::RangeEnd | Through::Apart)
            | (Span::Keys(..), Through::Stream(_) | Through::Apart) => false,
        }
    }
}

/// A batch in doubt whose rows are not settled yet: from before this process, or from a request of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Its ledger id.
    pub id: i64,
    /// Its items.
    pub rows: u32,
    /// Where its rows were.
    pub span: Span,
}

impl Lane {
    /// The batches in doubt of which nothing is left now have ended; returns how many rows were sent again.
    pub(super) fn end_doubts(&mut self, batch: &Batch, step: &mut Step) -> u64 {
        let all = std::mem::take(&mut self.doubts);
        let (ended, left): (Vec<Doubt>, Vec<Doubt>) = all.into_iter().partition(|one| one.span.ends_by(&batch.through));
        self.doubts = left;
        let ended = ended.iter().map(|doubt| (doubt.id, doubt.rows)).chain(batch.doubts.iter().copied());
        let outcome = if self.in_doubt == InDoubt::Hold { Outcome::Held } else { Outcome::Resent };
        let mut rows = 0;
        for (id, doubted) in ended {
            rows += u64::from(doubted);
            step.ops.push(Op::Ended { id, outcome, http_status: None, error: String::new() });
        }
        if self.in_doubt == InDoubt::Hold { 0 } else { rows }
    }

    /// The request was sent and its answer never came.
    pub(super) fn doubt(&mut self, mut sending: Sending, answer: &Answer, until: Duration, step: &mut Step) {
        self.failures = self.failures.saturating_add(1);
        let rows = sending.batch.len();
        match self.in_doubt {
            InDoubt::Hold => {
                let reasons = (0..rows).map(|index| (index, queue::IN_DOUBT.to_owned())).collect();
                self.end(sending, Outcome::Held, answer, reasons, step);
            }
            InDoubt::Resend => {
                step.ops.push(Op::Ended {
                    id: sending.id,
                    outcome: Outcome::InDoubt,
                    http_status: answer.status,
                    error: answer.message.clone(),
                });
                let add = Totals { in_doubt: rows as u64, ..Totals::default() };
                step.ops.push(Op::Checkpoint { section: self.name.clone(), position: None, phase: None, add });
                let (id, rows) = (sending.id, u32::try_from(rows).unwrap_or(u32::MAX));
                match self.span(&sending.batch) {
                    Some(span) => self.doubts.push(Doubt { id, rows, span }),
                    None => sending.batch.doubts.push((id, rows)),
                }
                self.stage = Stage::Waiting { sending, until, anew: true };
            }
        }
    }

    /// Where a batch's rows are, as far as settling others tells that they are settled.
    fn span(&self, batch: &Batch) -> Option<Span> {
        let key = |index| Key::parse(batch.key(index), self.key_type).ok();
        match batch.phase {
            Phase::Stream => batch.span().map(|(first, last)| Span::Stream(first, last)),
            Phase::Backfill | Phase::Resync => Some(Span::Keys(key(0)?, key(batch.len().checked_sub(1)?)?)),
            Phase::Retry => None,
        }
    }
}
