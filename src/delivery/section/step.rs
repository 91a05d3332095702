//! The steps of a batch on its way, as data. Pure.
//!
//! * In: nothing.
//! * Out: [`DeliveryStage`], [`DeliveryStep`], [`Settled`]: what `attempt` decides and `settlement` carries out.
//! * Never: a decision.

use std::time::Duration;

use crate::delivery::batch::{Batch, SettledUpTo};
use crate::model::{LeftOut, Phase};
use crate::planhat::Answer;
use crate::state::{Op, Outcome};

/// A batch with its ledger row.
#[derive(Debug)]
pub struct Sending {
    pub batch: Batch,
    /// Its ledger id; a new one after each doubt.
    pub id: i64,
    /// Requests made under this id, the one announced included.
    pub attempt: u32,
}

/// What a section does with its batch.
#[derive(Debug)]
pub enum DeliveryStage {
    /// No batch is under way.
    Idle,
    /// The ledger row is being written; the request follows when it is durable.
    Announcing(Sending),
    /// The request is under way.
    Requesting(Sending),
    /// Surely not received, or in doubt and to be sent again: at `until`.
    Waiting {
        /// The batch; its ledger row is not under way.
        sending: Sending,
        /// On the monotonic clock.
        until: Duration,
        /// A new ledger id is needed: the old one is in doubt.
        new_id: bool,
    },
}

impl DeliveryStage {
    pub fn sending(&self) -> Option<&Sending> {
        match self {
            DeliveryStage::Idle => None,
            DeliveryStage::Announcing(sending)
            | DeliveryStage::Requesting(sending)
            | DeliveryStage::Waiting { sending, .. } => Some(sending),
        }
    }
}

/// What follows from an answer.
#[derive(Debug, Default)]
pub struct DeliveryStep {
    /// Operations to write, in order, in one transaction.
    pub ops: Vec<Op>,
    /// The batch that is settled once they are written.
    pub settled: Option<Settled>,
    /// The batch to announce again now (halved).
    pub again: Option<Batch>,
    /// The ledger id under which it was, to be kept.
    pub again_id: Option<i64>,
    /// Rows that are in doubt now.
    pub in_doubt: u64,
    /// The section is stopped.
    pub stopped: bool,
}

/// A settled batch, for progress and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// How the rows were read.
    pub phase: Phase,
    pub through: SettledUpTo,
    /// Rows received.
    pub delivered: u64,
    /// Rows quarantined, by the reason's word.
    pub quarantined: Vec<(String, u64)>,
    /// Rows left out, by the rule.
    pub left_out: LeftOut,
    /// Rows of batches that were in doubt and are now resent.
    pub resent: u64,
    /// Rows in doubt for good (held, or unresolved).
    pub in_doubt: u64,
    /// The ledger's word; `None` where there was no request.
    pub outcome: Option<Outcome>,
    /// Bytes of the body.
    pub bytes: u64,
    /// Commit times (µs since 2000-01-01 UTC) and the items that have each.
    pub commits: Vec<(i64, usize)>,
    /// Rows of the quarantine that were retried, and have left it.
    pub retried: Vec<i64>,
}

/// How a batch ended, for the ledger.
pub(crate) struct BatchEnd<'a> {
    pub(crate) id: i64,
    pub(crate) outcome: Outcome,
    pub(crate) answer: &'a Answer,
    /// Index and reason of each item that was not received.
    pub(crate) refused: Vec<(usize, String)>,
    /// The fate of the other items is unknown, and stays so: they are not sent again.
    pub(crate) unresolved: Option<String>,
}
