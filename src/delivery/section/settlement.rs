//! The one place where a batch becomes settled: its end, its quarantined rows and its checkpoint together. Pure.

use crate::audit::tally::resync_block;
use crate::audit::{AuditKey, BatchKeys, Tally};
use crate::config::InDoubt;
use crate::delivery::batch::{Batch, RejectedRow, RunEnd, SettledUpTo};
use crate::delivery::section::step::{BatchEnd, DeliveryStep, Settled};
use crate::delivery::section::{BackfillQueue, DiffQueue, InDoubtBatch, SectionDelivery, Trouble};
use crate::model::{FilterRule, Phase, Position, SectionName};
use crate::state::{Op, Outcome, Quarantined, RANGE_SHORT, Totals};

/// A backfill has ended, and the table has more rows in its range than it settled.
fn lost(section: &SectionName, missing: u64) -> Trouble {
    Trouble::new(
        format!(
            "{RANGE_SHORT} {missing} rows of its range are neither settled by it nor brought by the stream: \
             their keys may have been changed while it ran"
        ),
        format!("pg2planhat audit {section} --deliver-missing (names them and delivers them), then restart"),
    )
}

/// How many rows each word has that their reasons begin with.
fn by_word(quarantined: &[Quarantined]) -> Vec<(String, u64)> {
    let mut words: Vec<(String, u64)> = Vec::new();
    for row in quarantined {
        let word = row.reason.split(':').next().unwrap_or_default();
        match words.iter_mut().find(|(known, _)| known == word) {
            Some((_, count)) => *count += 1,
            None => words.push((word.to_owned(), 1)),
        }
    }
    words
}

impl SectionDelivery {
    /// The one place where a batch becomes settled: its end, its quarantined rows and its checkpoint together.
    pub(crate) fn settle(&mut self, batch: Batch, end: Option<BatchEnd<'_>>, step: &mut DeliveryStep) {
        let mut quarantined = Vec::new();
        for row in &batch.refused {
            quarantined.push(self.quarantine_refused(row, end.as_ref().map(|end| end.id)));
        }
        let items = batch.len() as u64;
        let mut lost = 0;
        if let Some(end) = &end {
            for (index, reason) in &end.refused {
                quarantined.push(self.quarantine_item(&batch, *index, reason, end.id));
                lost += 1;
            }
            let (id, http_status) = (end.id, end.answer.status);
            step.ops.push(match &end.unresolved {
                Some(why) => Op::Unresolved { id, http_status, error: format!("{}; {why}", end.answer.message) },
                None => Op::Ended { id, outcome: end.outcome, http_status, error: end.answer.message.clone() },
            });
        }
        if let Some(end) = &end {
            step.ops.extend(self.keys_of(&batch, end));
        }
        let seen = batch.seen();
        if !seen.is_empty() {
            let (run, columns) = self.diff().map_or((0, 0), DiffQueue::run);
            step.ops.push(Op::Seen { section: self.name.clone(), run, columns, rows: seen });
        }
        let (resent, named) = self.end_doubts(&batch, step);
        let retried = batch.retried();
        if !retried.is_empty() {
            step.ops.push(Op::Unquarantine(retried.clone()));
        }
        let outcome = end.as_ref().map(|end| end.outcome);
        let unresolved = end.as_ref().is_some_and(|end| end.unresolved.is_some());
        let in_doubt = match outcome {
            Some(Outcome::Held) => quarantined.iter().filter(|row| row.reason.starts_with("in_doubt")).count() as u64,
            Some(_) if unresolved => items - lost,
            Some(_) | None => 0,
        };
        step.in_doubt += in_doubt + named;
        let words = by_word(&quarantined);
        if let SettledUpTo::Stream(reached) = &batch.through {
            self.answered = *reached;
            if !quarantined.is_empty() {
                self.quarantined = *reached;
            }
        }
        let delivered = if unresolved { 0 } else { items - lost };
        let quarantined_rows = quarantined.len() as u64;
        let add = Totals { delivered, quarantined: quarantined_rows, in_doubt: in_doubt + named, resent };
        step.ops.extend(quarantined.into_iter().map(Op::Quarantine));
        // What the stream has brought is settled by the stream.
        let left_out = batch.left_out.total() - batch.left_out.of(FilterRule::Streamed);
        let rows = add.delivered + add.quarantined + left_out + if unresolved { in_doubt } else { 0 };
        self.checkpoint(&batch.through, add, rows, step);
        step.settled = Some(Settled {
            phase: batch.phase,
            through: batch.through.clone(),
            delivered: add.delivered,
            quarantined: words,
            left_out: batch.left_out,
            resent,
            in_doubt,
            outcome,
            bytes: batch.body().len() as u64,
            commits: batch.commits().collect(),
            retried,
        });
    }

    /// The batches in doubt of which nothing is left now have ended; returns how many rows were sent again, and how many of
    /// them are in doubt by name only now.
    fn end_doubts(&mut self, batch: &Batch, step: &mut DeliveryStep) -> (u64, u64) {
        let all = std::mem::take(&mut self.doubts);
        let (ended, left): (Vec<InDoubtBatch>, Vec<InDoubtBatch>) =
            all.into_iter().partition(|one| one.span.ends_by(&batch.through));
        self.doubts = left;
        let named: u64 = ended.iter().filter(|doubt| doubt.open).map(|doubt| u64::from(doubt.rows)).sum();
        let ended = ended.iter().map(|doubt| (doubt.id, doubt.rows)).chain(batch.doubts.iter().copied());
        let outcome = if self.in_doubt == InDoubt::Hold { Outcome::Held } else { Outcome::Resent };
        let mut rows = 0;
        for (id, doubted) in ended {
            rows += u64::from(doubted);
            step.ops.push(Op::Ended { id, outcome, http_status: None, error: String::new() });
        }
        // What is held counts as in doubt with its batch.
        if self.in_doubt == InDoubt::Hold { (0, 0) } else { (rows, named) }
    }

    fn checkpoint(&mut self, through: &SettledUpTo, add: Totals, rows: u64, step: &mut DeliveryStep) {
        let mut position: Option<Position> = None;
        let mut ended = false;
        match (through, &mut self.backfill) {
            (SettledUpTo::Stream(reached), _) => position = Some(*reached),
            (SettledUpTo::Key(key), Some(backfill)) => backfill.settle(key.clone(), rows),
            (SettledUpTo::BackfillEnd, Some(_)) => ended = true,
            (SettledUpTo::Digest(_), _) => {
                if let Some(diff) = &mut self.diff {
                    diff.settle(rows);
                }
            }
            (SettledUpTo::RunEnd(end), _) => self.end_diff(end, rows, step),
            (SettledUpTo::Key(_) | SettledUpTo::BackfillEnd, None) | (SettledUpTo::Apart, _) => {}
        }
        if ended && let Some(backfill) = self.backfill.take() {
            let missing = backfill.rows_at_end(rows);
            if missing > 0 {
                self.stop(lost(&self.name, missing));
                step.stopped = true;
            } else if backfill.phase == Phase::Resync {
                step.ops.push(Op::CloseGaps { section: self.name.clone() });
            }
        }
        let diffs = self.diff.as_mut().is_some_and(DiffQueue::written);
        let changed = ended || diffs || self.backfill.as_mut().is_some_and(BackfillQueue::written);
        let phase = changed.then(|| self.phase());
        step.ops.push(Op::SectionCheckpoint { section: self.name.clone(), position, phase, add });
        if changed {
            step.ops.extend(self.streamed_op());
        }
    }

    /// A comparison is settled to its end, or failed: the first is recorded, the second halts the section.
    fn end_diff(&mut self, end: &RunEnd, rows: u64, step: &mut DeliveryStep) {
        let Some(diff) = &mut self.diff else { return };
        diff.settle(rows);
        diff.end(end.failed.is_none());
        if end.failed.is_none() {
            step.ops.push(Op::Compared { section: self.name.clone(), run: end.run.clone() });
        }
        let why = end.failed.as_ref().map(|fault| (fault.what.clone(), fault.remedy.clone()));
        let trouble = why.as_ref().map(|(what, remedy)| Trouble::new(what, remedy));
        if self.set_backfill_trouble(trouble) {
            step.ops.push(Op::Halted { section: self.name.clone(), why });
        }
    }

    /// The keys of the items that were received, for the ledger and the section's tally.
    fn keys_of(&self, batch: &Batch, end: &BatchEnd<'_>) -> Option<Op> {
        let mut refused: Vec<usize> = end.refused.iter().map(|(index, _)| *index).collect();
        refused.sort_unstable();
        let received = (0..batch.len()).filter(|index| refused.binary_search(index).is_err());
        let keys = BatchKeys::new(received.map(|index| AuditKey::of(batch.key(index))));
        // Of the set: the tally less the sets of the ledger is what was pruned, to the row.
        let counted = Tally::of(keys.iter()).0.into_iter();
        let tally: Vec<_> = match batch.phase {
            Phase::Resync => counted.map(|(block, entry)| (resync_block(block), entry)).collect(),
            Phase::Backfill | Phase::Stream | Phase::Retry | Phase::Diff | Phase::Repair => counted.collect(),
        };
        let op = Op::Keys { delivery: end.id, section: self.name.clone(), keys: keys.encode(), tally };
        (!keys.is_empty()).then_some(op)
    }

    fn quarantine_refused(&self, row: &RejectedRow, delivery: Option<i64>) -> Quarantined {
        Quarantined {
            section: self.name.clone(),
            key: row.key.clone(),
            reason: row.reason.clone(),
            item: row.item.clone(),
            position: row.position,
            delivery,
        }
    }

    fn quarantine_item(&self, batch: &Batch, index: usize, reason: &str, delivery: i64) -> Quarantined {
        Quarantined {
            section: self.name.clone(),
            key: String::from_utf8_lossy(batch.key(index)).into_owned(),
            reason: reason.to_owned(),
            item: String::from_utf8_lossy(batch.item(index)).into_owned(),
            position: batch.position(index),
            delivery: Some(delivery),
        }
    }
}
