//! Batches that an earlier process announced in the ledger, and whose end it did not record.

use crate::config::InDoubt;
use crate::delivery::section::{InDoubtBatch, Span};
use crate::model::{Key, Phase, SectionName};
use crate::state::{Op, OpenDelivery, Outcome, Totals};

/// One section's batches in doubt.
#[derive(Debug, Default)]
pub struct Left {
    /// To be recorded before anything else.
    pub ops: Vec<Op>,
    /// Rows that will come again.
    pub doubts: Vec<InDoubtBatch>,
    /// Rows newly in doubt, for the metric.
    pub rows: u64,
}

/// Reads what is left of one section. A request that was under way is in doubt; one that is known not to have been received
/// is not: its row is withdrawn, its rows come again.
pub fn left(section: &SectionName, policy: InDoubt, open: &[OpenDelivery]) -> Left {
    let mut left = Left::default();
    for found in open.iter().filter(|found| found.delivery.section == *section) {
        let delivery = &found.delivery;
        if found.outcome == Outcome::Sending && !found.under_way {
            left.ops.push(Op::Withdrawn { id: delivery.id });
            continue;
        }
        if found.outcome == Outcome::Sending {
            left.rows += u64::from(delivery.rows);
            left.ops.push(Op::Ended {
                id: delivery.id,
                outcome: Outcome::InDoubt,
                http_status: None,
                error: "the process ended while the request was under way".to_owned(),
            });
        }
        if let Some(span) = span(delivery.phase, delivery) {
            let open = delivery.rows == 0;
            left.doubts.push(InDoubtBatch { id: delivery.id, rows: delivery.rows, open, span });
        }
    }
    if left.rows > 0 {
        let add = Totals { in_doubt: left.rows, ..Totals::default() };
        left.ops.push(Op::SectionCheckpoint { section: section.clone(), position: None, phase: None, add });
        let word = match policy {
            InDoubt::Resend => "they are sent again",
            InDoubt::Hold => "they go into quarantine",
        };
        tracing::warn!(%section, rows = left.rows, "rows are in doubt from before: {word}");
    }
    left
}

/// What is to be recorded of batches that were under way of a section which is not on any more: nobody waits for them. Where it
/// comes back, its rows are in doubt as others are.
pub(crate) fn left_behind(open: &[OpenDelivery], is_on: impl Fn(&SectionName) -> bool) -> Vec<Op> {
    let mut ops = Vec::new();
    for found in open.iter().filter(|found| found.outcome == Outcome::Sending && !is_on(&found.delivery.section)) {
        let delivery = &found.delivery;
        if !found.under_way {
            ops.push(Op::Withdrawn { id: delivery.id });
            continue;
        }
        tracing::warn!(section = %delivery.section, batch = delivery.id, rows = delivery.rows, "the process ended while this \
            batch was under way, and its section is off or gone: whether Planhat received it nobody knows");
        ops.push(Op::Ended {
            id: delivery.id,
            outcome: Outcome::InDoubt,
            http_status: None,
            error: "the process ended while the request was under way".to_owned(),
        });
        let add = Totals { in_doubt: u64::from(delivery.rows), ..Totals::default() };
        ops.push(Op::SectionCheckpoint { section: delivery.section.clone(), position: None, phase: None, add });
    }
    ops
}

fn span(phase: Phase, delivery: &crate::state::Delivery) -> Option<Span> {
    if let Some((first, last)) = delivery.digests {
        return Some(Span::Digests(first, last));
    }
    match phase {
        Phase::Stream => delivery.span.map(|(first, last)| Span::Stream(first, last)),
        Phase::Backfill | Phase::Resync => {
            // Which rows lie between them is asked of the server, before the backfill goes on.
            Some(Span::between(Key::new(&*delivery.first_key), Key::new(&*delivery.last_key)))
        }
        // Still in quarantine: a person sees it there, and in the ledger as in doubt.
        Phase::Retry | Phase::Repair | Phase::Diff => None,
    }
}
