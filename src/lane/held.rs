//! What goes into quarantine, as the state keeps it. Pure.

use super::{Lane, Sending};
use crate::batch::{Batch, Refused};
use crate::planhat::RefusedItem;
use crate::state::{Op, Quarantined};

impl Lane {
    pub(super) fn quarantine_refused(&self, row: &Refused, delivery: Option<i64>) -> Quarantined {
        Quarantined {
            section: self.name.clone(),
            key: row.key.clone(),
            reason: row.reason.clone(),
            item: row.item.clone(),
            position: row.position,
            delivery,
        }
    }

    pub(super) fn quarantine_item(&self, batch: &Batch, index: usize, reason: &str, delivery: i64) -> Quarantined {
        Quarantined {
            section: self.name.clone(),
            key: String::from_utf8_lossy(batch.key(index)).into_owned(),
            reason: reason.to_owned(),
            item: String::from_utf8_lossy(batch.item(index)).into_owned(),
            position: batch.position(index),
            delivery: Some(delivery),
        }
    }

    /// A refusal whose echo is none of the batch's items: kept, so that nothing is lost without a word.
    pub(super) fn stray(&self, sending: &Sending, stray: &RefusedItem) -> Op {
        Op::Quarantine(Quarantined {
            section: self.name.clone(),
            key: String::new(),
            reason: format!(
                "refused_unmatched: the answer named an item that this batch does not have: {}",
                stray.error
            ),
            item: stray.item.as_ref().map(ToString::to_string).unwrap_or_default(),
            position: None,
            delivery: Some(sending.id),
        })
    }
}
