//! What an answer means for a batch: the table in docs/planhat.md, as a state machine. Pure.
//!
//! Order, held by the types here and the engine: the ledger's `sending` is durable before a request is made; the batch's
//! end, its section's checkpoint and its quarantined rows are one transaction; only then may the slot move.

use std::time::Duration;

use crate::audit::{AuditKey, BatchKeys};
use crate::config::InDoubt;
use crate::delivery::batch::Batch;
use crate::delivery::section::step::{BatchEnd, DeliveryStage, DeliveryStep, Sending, Settled};
use crate::delivery::section::{BAD_IN_A_ROW, Blocked, InDoubtBatch, SectionDelivery, Span, Trouble};
use crate::model::backoff::delay;
use crate::model::{Key, Phase};
use crate::planhat::{Answer, Verdict, match_refused};
use crate::state::{Delivery, Op, Outcome, Totals};

impl SectionDelivery {
    /// The ledger's row for a batch.
    pub fn delivery(&self, batch: &Batch, id: i64) -> Delivery {
        let key = |index| String::from_utf8_lossy(batch.key(index)).into_owned();
        Delivery {
            id,
            section: self.name.clone(),
            phase: batch.phase,
            rows: u32::try_from(batch.len()).unwrap_or(u32::MAX),
            bytes: batch.body().len() as u64,
            first_key: key(0),
            last_key: key(batch.len() - 1),
            span: batch.span(),
        }
    }

    /// A batch is announced: its ledger row, and the stage that waits for it.
    pub fn announce(&mut self, batch: Batch, id: i64, attempt: u32) -> Op {
        let op = Op::Sending { delivery: self.delivery(&batch, id), attempt };
        self.stage = DeliveryStage::Announcing(Sending { batch, id, attempt });
        op
    }

    /// The announcement is durable: the request may be made. Returns its body.
    pub fn request(&mut self, id: i64) -> Option<bytes::Bytes> {
        match std::mem::replace(&mut self.stage, DeliveryStage::Idle) {
            DeliveryStage::Announcing(sending) if sending.id == id => {
                let body = sending.batch.body();
                self.stage = DeliveryStage::Requesting(sending);
                Some(body)
            }
            other @ (DeliveryStage::Idle
            | DeliveryStage::Announcing(_)
            | DeliveryStage::Requesting(_)
            | DeliveryStage::Waiting { .. }) => {
                self.stage = other;
                None
            }
        }
    }

    /// A waiting batch whose time has come.
    pub fn wake(&mut self, now: Duration, next_id: &mut i64) -> Option<(Op, i64)> {
        match std::mem::replace(&mut self.stage, DeliveryStage::Idle) {
            DeliveryStage::Waiting { sending, until, new_id } if until <= now && !self.flow.is_paused() => {
                let (id, attempt) = if new_id {
                    let id = *next_id;
                    *next_id += 1;
                    (id, 1)
                } else {
                    (sending.id, sending.attempt + 1)
                };
                Some((self.announce(sending.batch, id, attempt), id))
            }
            other @ (DeliveryStage::Idle
            | DeliveryStage::Announcing(_)
            | DeliveryStage::Requesting(_)
            | DeliveryStage::Waiting { .. }) => {
                self.stage = other;
                None
            }
        }
    }

    /// A batch without items is settled without a request.
    pub fn settle_unsent(&mut self, batch: Batch) -> DeliveryStep {
        let mut step = DeliveryStep::default();
        self.settle(batch, None, &mut step);
        step
    }

    /// The request has ended.
    pub fn verdict(&mut self, answer: &Answer, now: Duration, halt_probe: Duration, random: f64) -> DeliveryStep {
        let sending = match std::mem::replace(&mut self.stage, DeliveryStage::Idle) {
            DeliveryStage::Requesting(sending) => sending,
            other @ (DeliveryStage::Idle | DeliveryStage::Announcing(_) | DeliveryStage::Waiting { .. }) => {
                self.stage = other;
                return DeliveryStep::default();
            }
        };
        let mut step = DeliveryStep::default();
        match &answer.verdict {
            Verdict::Received => {
                self.recovered(&mut step);
                self.end(sending, Outcome::Delivered, answer, Vec::new(), &mut step);
            }
            Verdict::Partial(refused) => {
                self.recovered(&mut step);
                let items: Vec<&[u8]> = (0..sending.batch.len()).map(|index| sending.batch.item(index)).collect();
                let matched = match_refused(&items, refused);
                step.ops.extend(matched.unmatched.iter().map(|stray| self.stray(&sending, stray)));
                let all = matched.by_index.len() == sending.batch.len();
                let outcome = if all { Outcome::Quarantined } else { Outcome::Partial };
                let reasons = matched.by_index.into_iter().map(|(i, why)| (i, format!("refused: {why}"))).collect();
                self.end(sending, outcome, answer, reasons, &mut step);
            }
            Verdict::BadItem if sending.batch.len() == 1 && self.bad_in_a_row >= BAD_IN_A_ROW => {
                let remedy = format!(
                    "compare the section's fields with Planhat's answer ({}); mend the mapping and restart, or mend the \
                     data: the section probes by itself",
                    answer.message
                );
                self.halt(
                    sending,
                    answer,
                    "the mapping: one item after the other is refused",
                    &remedy,
                    now + halt_probe,
                    &mut step,
                );
            }
            Verdict::BadItem => self.halve(sending, answer, "refused", &mut step),
            Verdict::TooLarge => self.halve(sending, answer, "too_large", &mut step),
            Verdict::Environment { remedy } => {
                let remedy = remedy.clone();
                self.halt(sending, answer, &answer.message, &remedy, now + halt_probe, &mut step);
            }
            Verdict::Later { retry_after } => {
                let until = now + delay(self.failures + 1, *retry_after, random);
                self.wait(sending, answer, until, &mut step);
            }
            Verdict::NotSent => {
                let until = now + delay(self.failures + 1, None, random);
                self.wait(sending, answer, until, &mut step);
            }
            Verdict::Unknown => self.doubt(sending, answer, now + delay(self.failures + 1, None, random), &mut step),
        }
        step
    }

    /// The sink has taken something: whatever stood in the way is over.
    fn recovered(&mut self, step: &mut DeliveryStep) {
        self.failures = 0;
        self.bad_in_a_row = 0;
        self.unhalt(step);
    }

    fn unhalt(&mut self, step: &mut DeliveryStep) {
        if self.flow.unblock(|blocked| matches!(blocked, Blocked::Halted(_))) {
            step.ops.push(Op::Halted { section: self.name.clone(), why: None });
        }
    }

    fn end(
        &mut self,
        sending: Sending,
        outcome: Outcome,
        answer: &Answer,
        refused: Vec<(usize, String)>,
        step: &mut DeliveryStep,
    ) {
        let end = BatchEnd { id: sending.id, outcome, answer, refused };
        self.settle(sending.batch, Some(end), step);
    }

    /// Nothing was taken, because of some item (or of the size): halve down to it.
    fn halve(&mut self, sending: Sending, answer: &Answer, word: &str, step: &mut DeliveryStep) {
        self.failures = 0;
        self.unhalt(step);
        if sending.batch.len() == 1 {
            if word == "refused" {
                self.bad_in_a_row += 1;
            }
            let reason = format!("{word}: {}", answer.message);
            return self.end(sending, Outcome::Quarantined, answer, vec![(0, reason)], step);
        }
        let key_type = self.key_type;
        let (first, second) = sending.batch.split(|text| Key::parse(text, key_type).ok());
        if let Some(second) = second {
            self.queue_of(first.phase).put_first(second);
        }
        step.again = Some(first);
        step.again_id = Some(sending.id);
    }

    fn queue_of(&mut self, phase: Phase) -> &mut crate::delivery::section::Queue {
        match phase {
            Phase::Stream => &mut self.stream,
            Phase::Backfill | Phase::Resync => &mut self.backfilled,
            Phase::Retry => &mut self.retry,
        }
    }

    fn retrying(sending: &Sending, answer: &Answer) -> Op {
        Op::Retrying { id: sending.id, http_status: answer.status, error: answer.message.clone() }
    }

    fn wait(&mut self, sending: Sending, answer: &Answer, until: Duration, step: &mut DeliveryStep) {
        self.failures = self.failures.saturating_add(1);
        step.ops.push(Self::retrying(&sending, answer));
        self.stage = DeliveryStage::Waiting { sending, until, new_id: false };
    }

    fn halt(
        &mut self,
        sending: Sending,
        answer: &Answer,
        what: &str,
        remedy: &str,
        until: Duration,
        step: &mut DeliveryStep,
    ) {
        step.ops.push(Self::retrying(&sending, answer));
        if self.flow.block(Blocked::Halted(Trouble::new(what, remedy))) {
            let why = Some((what.to_owned(), remedy.to_owned()));
            step.ops.push(Op::Halted { section: self.name.clone(), why });
        }
        self.stage = DeliveryStage::Waiting { sending, until, new_id: false };
    }

    /// The request was sent and its answer never came.
    fn doubt(&mut self, mut sending: Sending, answer: &Answer, until: Duration, step: &mut DeliveryStep) {
        self.failures = self.failures.saturating_add(1);
        let rows = sending.batch.len();
        match self.in_doubt {
            InDoubt::Hold => {
                let reasons =
                    (0..rows).map(|index| (index, crate::delivery::section::queue::IN_DOUBT.to_owned())).collect();
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
                let (id, rows) = (sending.id, u32::try_from(rows).unwrap_or(u32::MAX));
                match self.span(&sending.batch) {
                    Some(span) => self.doubts.push(InDoubtBatch { id, rows, span }),
                    None => sending.batch.doubts.push((id, rows)),
                }
                self.stage = DeliveryStage::Waiting { sending, until, new_id: true };
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

    /// Rows are counted as settled: the recording is durable.
    pub fn count(&mut self, settled: &Settled) {
        for id in &settled.retried {
            self.retrying.remove(id);
        }
        self.counts.settled(settled.phase, settled.delivered, &settled.quarantined);
        self.counts.resent += settled.resent;
    }

    /// The batch under way is sent at once when its turn comes (a resume, a drain): waiting ends now.
    pub fn hurry(&mut self, now: Duration) {
        if let DeliveryStage::Waiting { until, .. } = &mut self.stage {
            *until = (*until).min(now);
        }
    }
}
