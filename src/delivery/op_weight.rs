//! What a write holds in memory until it is durable. Pure.

use crate::state::Op;

/// What an operation holds in memory until it is durable: a quarantined row goes with its item, and rows that the mapping
/// refuses wait for no sink, only for the state.
pub(crate) fn weight(op: &Op) -> usize {
    let more = match op {
        Op::Quarantine(row) => row.key.len() + row.reason.len() + row.item.len(),
        Op::Keys { keys, tally, .. } => keys.len() + size_of_val(tally.as_slice()),
        Op::Streamed { keys, .. } => keys.len(),
        Op::Seen { rows, .. } => rows.len(),
        Op::CoverGaps { gaps, by, .. } => size_of_val(gaps.as_slice()) + by.len(),
        Op::OpenGap(gap) => gap.reason.len() + gap.detail.len(),
        Op::Sending { .. }
        | Op::Retrying { .. }
        | Op::Ended { .. }
        | Op::Unresolved { .. }
        | Op::Withdrawn { .. }
        | Op::SectionCheckpoint { .. }
        | Op::Unquarantine(_)
        | Op::Halted { .. }
        | Op::Handled { .. }
        | Op::Published { .. }
        | Op::Attach { .. }
        | Op::AttachXids { .. }
        | Op::Defined { .. }
        | Op::RulesSince { .. }
        | Op::Forget { .. }
        | Op::CloseGaps { .. }
        | Op::Compared { .. }
        | Op::Checkpoint { .. } => 0,
    };
    size_of::<Op>() + more
}
