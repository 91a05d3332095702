//! The way of a batch through its attempts: the table in docs/planhat.md, as a state machine. Pure.
//!
//! Order, held by the types here and the engine: the ledger's `sending` is durable before a request is made; the batch's
//! end, its section's checkpoint and its quarantined rows are one transaction; only then may the slot move.

use std::time::Duration;

use crate::delivery::batch::Batch;
use crate::delivery::section::step::{BatchEnd, DeliveryStage, DeliveryStep, Sending, Settled};
use crate::delivery::section::{BAD_IN_A_ROW, Blocked, SectionDelivery, Trouble};
use crate::model::backoff::delay;
use crate::planhat::{Answer, Verdict};
use crate::state::{Delivery, Op, Outcome};

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
            digests: batch.digests(),
        }
    }

    /// A batch is announced: its ledger row, and the stage that waits for it.
    pub fn announce(&mut self, batch: Batch, id: i64, attempt: u32) -> Op {
        let op = Op::Sending { delivery: self.delivery(&batch, id), attempt };
        self.stage = DeliveryStage::Announcing(Sending { batch, id, attempt });
        op
    }

    /// Starts the request once its announcement is durable; returns the body.
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
                self.request_beside(id)
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
                let batch = self.first_of(sending.batch, self.brake.most());
                Some((self.announce(batch, id, attempt), id))
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

    /// Takes the answer of the request.
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
                self.brake.answered();
                self.end(sending, Outcome::Delivered, answer, Vec::new(), &mut step);
            }
            Verdict::Partial(refused) => self.partial(sending, refused, answer, now, halt_probe, &mut step),
            Verdict::BadItem if sending.batch.len() == 1 && self.bad_in_a_row >= BAD_IN_A_ROW => {
                self.halt_as_mapping(sending, answer, now + halt_probe, &mut step);
            }
            Verdict::BadItem => self.halve(sending, answer, "refused", &mut step),
            Verdict::TooLarge => self.halve(sending, answer, "too_large", &mut step),
            Verdict::Environment { remedy } => {
                let trouble = Trouble::new(answer.message.clone(), remedy.clone());
                self.halt(sending, answer, trouble, now + halt_probe, &mut step);
            }
            Verdict::Later { retry_after } => {
                let until = now + delay(self.failures + 1, *retry_after, random);
                self.wait(sending, answer, until, &mut step);
                self.asked_to_wait = retry_after.is_some();
            }
            Verdict::NotSent => {
                let until = now + delay(self.failures + 1, None, random);
                self.wait(sending, answer, until, &mut step);
            }
            Verdict::Interrupted => {
                let until = now + delay(self.failures + 1, None, random);
                self.interrupted(sending, answer, until, &mut step);
            }
            Verdict::Unknown => {
                let until = now + delay(self.failures + 1, None, random);
                self.doubt(sending, answer, until, now, halt_probe, &mut step);
            }
            Verdict::Unreadable => self.unreadable(sending, answer, now, halt_probe, &mut step),
        }
        step
    }

    /// Clears the reasons against sending: the sink has taken something.
    pub(crate) fn recovered(&mut self, step: &mut DeliveryStep) {
        self.failures = 0;
        self.bad_in_a_row = 0;
        self.interrupted = 0;
        self.probe_at = None;
        self.unhalt(step);
    }

    pub(crate) fn unhalt(&mut self, step: &mut DeliveryStep) {
        if self.flow.unblock(|blocked| matches!(blocked, Blocked::Halted(_))) {
            step.ops.push(Op::Halted { section: self.name.clone(), why: None });
        }
    }

    pub(crate) fn end(
        &mut self,
        sending: Sending,
        outcome: Outcome,
        answer: &Answer,
        refused: Vec<(usize, String)>,
        step: &mut DeliveryStep,
    ) {
        let end = BatchEnd { id: sending.id, outcome, answer, refused, unresolved: None };
        self.settle(sending.batch, Some(end), step);
    }

    /// Nothing was taken, because of some item (or of the size): halve down to it.
    pub(crate) fn halve(&mut self, sending: Sending, answer: &Answer, word: &str, step: &mut DeliveryStep) {
        self.failures = 0;
        self.unhalt(step);
        if sending.batch.len() == 1 {
            if word == "refused" {
                self.bad_in_a_row += 1;
            }
            let reason = format!("{word}: {}", answer.message);
            return self.end(sending, Outcome::Quarantined, answer, vec![(0, reason)], step);
        }
        let half = sending.batch.len() / 2;
        step.again = Some(self.first_of(sending.batch, half));
        step.again_id = Some(sending.id);
    }

    /// The first items of a batch, at most `most`; the others are the next batch.
    pub(crate) fn first_of(&mut self, batch: Batch, most: usize) -> Batch {
        let (first, rest) = batch.split_at(most);
        if let Some(rest) = rest {
            self.followers.put_back(rest);
        }
        first
    }

    pub(crate) fn retrying(sending: &Sending, answer: &Answer) -> Op {
        Op::Retrying { id: sending.id, http_status: answer.status, error: answer.message.clone() }
    }

    pub(crate) fn wait(&mut self, sending: Sending, answer: &Answer, until: Duration, step: &mut DeliveryStep) {
        self.asked_to_wait = false;
        self.failures = self.failures.saturating_add(1);
        step.ops.push(Self::retrying(&sending, answer));
        self.stage = DeliveryStage::Waiting { sending, until, new_id: false };
    }

    /// Nothing of the batch was taken, and nothing will be until a person mends something: it probes.
    pub(crate) fn halt(
        &mut self,
        sending: Sending,
        answer: &Answer,
        trouble: Trouble,
        until: Duration,
        step: &mut DeliveryStep,
    ) {
        step.ops.push(Self::retrying(&sending, answer));
        self.note_halt(trouble, step);
        self.stage = DeliveryStage::Waiting { sending, until, new_id: false };
    }

    /// Halts the section, with the reason.
    pub(crate) fn note_halt(&mut self, trouble: Trouble, step: &mut DeliveryStep) {
        let why = Some((trouble.what.clone(), trouble.remedy.clone()));
        if self.flow.block(Blocked::Halted(trouble)) {
            step.ops.push(Op::Halted { section: self.name.clone(), why });
        }
    }

    /// Rows are counted as settled: the recording is durable.
    pub fn count(&mut self, settled: &Settled) {
        for id in &settled.retried {
            self.retrying.remove(id);
        }
        self.counts.settled(settled.phase, settled.delivered, &settled.quarantined, &settled.left_out);
        self.counts.resent += settled.resent;
    }

    /// The batch under way is sent at once when its turn comes (a resume, a drain): waiting ends now.
    pub fn hurry(&mut self, now: Duration) {
        self.probe_at = self.probe_at.map(|at| at.min(now));
        if let DeliveryStage::Waiting { until, .. } = &mut self.stage {
            *until = (*until).min(now);
        }
    }

    /// Whether its last request was not taken.
    pub fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// The host that this section's batch waits for has answered another section: it need not wait out its pause. Returns
    /// whether there was one. Not where the host itself asked for the pause, nor where the section is halted.
    pub fn hurry_after_success(&mut self, by: Duration) -> bool {
        if self.asked_to_wait || self.flow.halted().is_some() || self.flow.is_paused() {
            return false;
        }
        let DeliveryStage::Waiting { until, .. } = &mut self.stage else { return false };
        let sooner = by < *until;
        *until = (*until).min(by);
        sooner
    }
}
