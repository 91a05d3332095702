//! Batches whose fate is unknown: in doubt, not readable, or broken off while they were sent. Pure.
//!
//! * In: the batch that was under way, and what came back.
//! * Out: the batch waiting to be sent again, in smaller pieces where that repeats itself; or settled as in doubt for good.
//! * Never: a batch repeated without end; a 2xx answered by sending again.

use std::time::Duration;

use crate::audit::{AuditKey, BatchKeys};
use crate::config::InDoubt;
use crate::delivery::batch::Batch;
use crate::delivery::batch::SettledUpTo;
use crate::delivery::section::doubt_brake::DoubtCourse;
use crate::delivery::section::queue::IN_DOUBT;
use crate::delivery::section::step::{BatchEnd, DeliveryStage, DeliveryStep, Sending};
use crate::delivery::section::{BAD_IN_A_ROW, InDoubtBatch, SectionDelivery, Span, Trouble};
use crate::model::{Key, Phase};
use crate::planhat::Answer;
use crate::state::{Op, Outcome, Totals};

/// How often in a row a connection may break while one batch is sent, before that counts as the batch's own fault.
const INTERRUPTED: u32 = 3;
/// The same for a single item, which goes into quarantine then.
const INTERRUPTED_ALONE: u32 = 8;

const REMEDY: &str = "see that Planhat is reached and answers in time: raise planhat.timeout, lower batch.rows, look at what \
                      stands between (a proxy, a gateway); it probes with one item and goes on by itself. `pg2planhat \
                      logs --outcome in_doubt` names the batches that Planhat may have";

impl SectionDelivery {
    /// Handles a request that was sent and whose answer proves nothing.
    pub(crate) fn doubt(
        &mut self,
        mut sending: Sending,
        answer: &Answer,
        until: Duration,
        now: Duration,
        halt_probe: Duration,
        step: &mut DeliveryStep,
    ) {
        self.failures = self.failures.saturating_add(1);
        self.asked_to_wait = false;
        let rows = sending.batch.len();
        let course = self.brake.doubt(rows);
        let mut until = until;
        if course == DoubtCourse::Halt {
            until = now + self.brake.probe_after(halt_probe);
            let what = format!("requests are not answered, and Planhat may have each of them: {}", answer.message);
            self.note_halt(Trouble::new(what, REMEDY), step);
        }
        match self.in_doubt {
            InDoubt::Hold => {
                if course == DoubtCourse::Halt {
                    self.probe_at = Some(until);
                }
                let reasons = (0..rows).map(|index| (index, IN_DOUBT.to_owned())).collect();
                self.end(sending, Outcome::Held, answer, reasons, step);
            }
            InDoubt::Resend => {
                step.ops.push(Op::Ended {
                    id: sending.id,
                    outcome: Outcome::InDoubt,
                    http_status: answer.status,
                    error: answer.message.clone(),
                });
                let keys = (0..rows).map(|index| AuditKey::of(sending.batch.key(index)));
                let keys = BatchKeys::new(keys).encode();
                step.ops.push(Op::Keys { delivery: sending.id, section: self.name.clone(), keys, tally: Vec::new() });
                let add = Totals { in_doubt: rows as u64, ..Totals::default() };
                step.ops.push(Op::SectionCheckpoint { section: self.name.clone(), position: None, phase: None, add });
                step.in_doubt += rows as u64;
                let (id, rows) = (sending.id, u32::try_from(rows).unwrap_or(u32::MAX));
                match Self::span(&sending.batch) {
                    Some(span) => self.doubts.push(InDoubtBatch { id, rows, open: false, span }),
                    None => sending.batch.doubts.push((id, rows)),
                }
                self.stage = DeliveryStage::Waiting { sending, until, new_id: true };
            }
        }
    }

    /// Handles a 2xx that cannot be read: the batch was most likely received. It is settled as in doubt, and the section halts.
    pub(crate) fn unreadable(
        &mut self,
        sending: Sending,
        answer: &Answer,
        now: Duration,
        halt_probe: Duration,
        step: &mut DeliveryStep,
    ) {
        self.brake.halt();
        self.probe_at = Some(now + self.brake.probe_after(halt_probe));
        let remedy = "see what stands between (a proxy that compresses or cuts answers): Planhat's answers must arrive as \
                      it gives them; it probes with one item and goes on by itself. The batch is not sent again: \
                      `pg2planhat logs --outcome in_doubt` names it";
        self.note_halt(Trouble::new(answer.message.clone(), remedy), step);
        let why = "most likely received, and not sent again";
        self.unresolved(sending, Vec::new(), why, answer, step);
    }

    /// Settles a batch of which `refused` is known and nothing else: the rest is in doubt for good.
    pub(crate) fn unresolved(
        &mut self,
        sending: Sending,
        mut refused: Vec<(usize, String)>,
        why: &str,
        answer: &Answer,
        step: &mut DeliveryStep,
    ) {
        if self.in_doubt == InDoubt::Hold {
            let mut known = vec![false; sending.batch.len()];
            refused.iter().for_each(|(index, _)| known[*index] = true);
            let rest = known.iter().enumerate().filter(|(_, known)| !**known);
            refused.extend(rest.map(|(index, _)| (index, format!("in_doubt: {why}"))));
            return self.end(sending, Outcome::Held, answer, refused, step);
        }
        let end =
            BatchEnd { id: sending.id, outcome: Outcome::InDoubt, answer, refused, unresolved: Some(why.to_owned()) };
        self.settle(sending.batch, Some(end), step);
    }

    /// The connection was made and broke while the request was sent: nobody has it. Where that repeats itself, the request
    /// is too large for somebody who does not say so.
    pub(crate) fn interrupted(&mut self, sending: Sending, answer: &Answer, until: Duration, step: &mut DeliveryStep) {
        self.interrupted = self.interrupted.saturating_add(1);
        let alone = sending.batch.len() == 1;
        let enough = if alone { INTERRUPTED_ALONE } else { INTERRUPTED };
        // So many single items in a row are no matter of their size.
        if self.interrupted < enough || (alone && self.bad_in_a_row >= BAD_IN_A_ROW) {
            return self.wait(sending, answer, until, step);
        }
        // One more such end, and its half is halved, too.
        self.interrupted = if alone { 0 } else { INTERRUPTED - 1 };
        if alone {
            self.bad_in_a_row += 1;
        }
        self.halve(sending, answer, "too_large", step);
    }

    /// Where a batch's rows are, as far as settling others tells that they are settled.
    fn span(batch: &Batch) -> Option<Span> {
        let key = |index| std::str::from_utf8(batch.key(index)).ok().map(Key::new);
        if let Some((first, last)) = batch.digests() {
            return Some(Span::Digests(first, last));
        }
        match batch.phase {
            Phase::Stream => batch.span().map(|(first, last)| Span::Stream(first, last)),
            Phase::Backfill | Phase::Resync => {
                let last = match &batch.through {
                    SettledUpTo::Key(through) => through.clone(),
                    SettledUpTo::BackfillEnd
                    | SettledUpTo::Stream(_)
                    | SettledUpTo::Digest(_)
                    | SettledUpTo::RunEnd(_)
                    | SettledUpTo::Apart => key(batch.len().checked_sub(1)?)?,
                };
                Some(Span::between(key(0)?, last))
            }
            Phase::Retry | Phase::Repair | Phase::Diff => None,
        }
    }
}
