//! Requests beside the one whose turn it is, under `batch.in_flight`. Pure.
//!
//! * In: batches that are due while the request before them is under way, and the answers to their requests.
//! * Out: those batches again, each with its answer, in the order in which they were taken.
//! * Never: a batch settled before one that was taken earlier; a further request while anything is wrong.
//!
//! Only the batch whose turn it is moves the section on ([`DeliveryStage`]): an answer that comes early waits for its turn. So
//! whatever is settled is settled up to a place, and a crash leaves at most `in_flight` batches in doubt.

use std::collections::VecDeque;
use std::time::Duration;

use crate::delivery::batch::Batch;
use crate::delivery::section::step::{DeliveryStage, Sending};
use crate::delivery::section::{Blocked, SectionDelivery};
use crate::planhat::{Answer, Verdict};
use crate::state::{Delivery, Op};

/// A batch taken after the one whose turn it is.
#[derive(Debug)]
enum TakenBatch {
    /// Its ledger row is being written.
    Announcing(Sending),
    /// Its request is under way.
    Requesting(Sending),
    /// Its request has ended.
    Answered(Sending, Answer),
    /// It has no items: it is settled without a request when its turn comes.
    Unsent(Batch),
}

impl TakenBatch {
    fn weight(&self) -> usize {
        match self {
            TakenBatch::Announcing(sending) | TakenBatch::Requesting(sending) | TakenBatch::Answered(sending, _) => {
                sending.batch.weight()
            }
            TakenBatch::Unsent(batch) => batch.weight(),
        }
    }
}

/// What the next turn begins with.
#[derive(Debug)]
pub(crate) enum Turn {
    /// The request of the batch has ended already.
    Answered(Answer),
    /// The batch needs no request.
    Unsent(Box<Batch>),
}

/// The batches after the one whose turn it is, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Followers {
    /// What is left of a batch that was cut: it goes before all others.
    rest: VecDeque<Batch>,
    taken: VecDeque<TakenBatch>,
}

impl Followers {
    /// Puts back what is left of a batch that was cut.
    pub(crate) fn put_back(&mut self, rest: Batch) {
        self.rest.push_front(rest);
    }

    /// What is left of a batch that was cut.
    pub(crate) fn take_rest(&mut self) -> Option<Batch> {
        self.rest.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty() && self.taken.is_empty()
    }

    /// Whether batches were taken whose turn is to come.
    pub(crate) fn wait(&self) -> bool {
        !self.taken.is_empty()
    }

    /// Whether a request is being announced or under way.
    pub(crate) fn any_under_way(&self) -> bool {
        self.taken.iter().any(|one| matches!(one, TakenBatch::Announcing(_) | TakenBatch::Requesting(_)))
    }

    /// Bytes held.
    pub(crate) fn weight(&self) -> usize {
        let rest: usize = self.rest.iter().map(Batch::weight).sum();
        rest + self.taken.iter().map(TakenBatch::weight).sum::<usize>()
    }

    /// When the oldest row came.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        let taken = self.taken.iter().map(|one| match one {
            TakenBatch::Announcing(sending) | TakenBatch::Requesting(sending) | TakenBatch::Answered(sending, _) => {
                sending.batch.opened()
            }
            TakenBatch::Unsent(batch) => batch.opened(),
        });
        self.rest.iter().map(Batch::opened).chain(taken).min()
    }
}

impl SectionDelivery {
    /// Whether one more request may be made beside those under way: nothing is wrong, and there is room.
    pub(crate) fn has_room_beside(&self) -> bool {
        let under_way = matches!(self.stage, DeliveryStage::Announcing(_) | DeliveryStage::Requesting(_));
        let failed = |one: &TakenBatch| matches!(one, TakenBatch::Answered(_, answer) if !matches!(answer.verdict, Verdict::Received | Verdict::Partial(_)));
        let harmless = |one: &Blocked| matches!(one, Blocked::Misfit(_) | Blocked::Stopped(_) | Blocked::Harmful(_));
        under_way
            && 1 + self.followers.taken.len() < usize::from(self.limits.in_flight)
            && self.failures == 0
            && self.interrupted == 0
            && self.bad_in_a_row == 0
            && self.brake.is_off()
            && self.probe_at.is_none()
            && self.flow.blocks().iter().all(harmless)
            && self.retry.is_empty()
            && self.followers.rest.is_empty()
            && !self.followers.taken.iter().any(failed)
    }

    /// Whether a request beside the first is being announced or under way.
    pub(crate) fn requests_beside(&self) -> bool {
        self.followers.any_under_way()
    }

    /// The next batch to send beside those under way, if one is due and there is room for it.
    pub fn next_beside(&mut self, now: Duration, force: bool) -> Option<Batch> {
        while self.has_room_beside() {
            let batch = self.next_due_batch(now, force)?;
            if !batch.is_empty() {
                return Some(batch);
            }
            self.followers.taken.push_back(TakenBatch::Unsent(batch));
        }
        None
    }

    /// Announces a batch of [`SectionDelivery::next_beside`]; returns its ledger row.
    pub fn announce_beside(&mut self, batch: Batch, id: i64) -> Op {
        let op = Op::Sending { delivery: self.delivery(&batch, id), attempt: 1 };
        self.followers.taken.push_back(TakenBatch::Announcing(Sending { batch, id, attempt: 1 }));
        op
    }

    /// The announcement of a batch beside the first is durable: returns the body of its request.
    pub(crate) fn request_beside(&mut self, id: i64) -> Option<bytes::Bytes> {
        let announced = |one: &TakenBatch| matches!(one, TakenBatch::Announcing(sending) if sending.id == id);
        let at = self.followers.taken.iter().position(announced)?;
        let Some(TakenBatch::Announcing(sending)) = self.followers.taken.remove(at) else { return None };
        let body = sending.batch.body();
        self.followers.taken.insert(at, TakenBatch::Requesting(sending));
        Some(body)
    }

    /// Keeps the answer to a request beside the first until its turn comes. Returns whether there was such a request.
    pub(crate) fn answer_beside(&mut self, id: i64, answer: &Answer) -> bool {
        let requested = |one: &TakenBatch| matches!(one, TakenBatch::Requesting(sending) if sending.id == id);
        let Some(at) = self.followers.taken.iter().position(requested) else { return false };
        if let Some(TakenBatch::Requesting(sending)) = self.followers.taken.remove(at) {
            self.followers.taken.insert(at, TakenBatch::Answered(sending, answer.clone()));
        }
        true
    }

    /// Gives the turn to the next batch, if the one before it is settled. Returns what is to be done at once, where its request
    /// has ended or it needs none.
    pub(crate) fn next_turn(&mut self) -> Option<Turn> {
        if !matches!(self.stage, DeliveryStage::Idle) || !self.followers.rest.is_empty() {
            return None;
        }
        match self.followers.taken.pop_front()? {
            TakenBatch::Announcing(sending) => self.stage = DeliveryStage::Announcing(sending),
            TakenBatch::Requesting(sending) => self.stage = DeliveryStage::Requesting(sending),
            TakenBatch::Answered(sending, answer) => {
                self.stage = DeliveryStage::Requesting(sending);
                return Some(Turn::Answered(answer));
            }
            TakenBatch::Unsent(batch) => return Some(Turn::Unsent(Box::new(batch))),
        }
        None
    }

    /// The ledger rows of the requests whose answers are not recorded: what a crash would leave in doubt.
    pub(crate) fn under_way(&self) -> Vec<Delivery> {
        let first = match &self.stage {
            DeliveryStage::Requesting(sending) => Some(sending),
            DeliveryStage::Idle | DeliveryStage::Announcing(_) | DeliveryStage::Waiting { .. } => None,
        };
        let beside = self.followers.taken.iter().filter_map(|one| match one {
            TakenBatch::Requesting(sending) | TakenBatch::Answered(sending, _) => Some(sending),
            TakenBatch::Announcing(_) | TakenBatch::Unsent(_) => None,
        });
        first.into_iter().chain(beside).map(|sending| self.delivery(&sending.batch, sending.id)).collect()
    }
}
