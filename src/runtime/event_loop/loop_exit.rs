//! The ends of an event loop.
//!
//! * In: nothing.
//! * Out: [`LoopExit`].
//! * Never: a decision.

use crate::model::Fault;
use crate::runtime::start_error::NeedsPerson;
use crate::telemetry::status_document::Reason;

/// The end of an event loop.
#[derive(Debug)]
pub(crate) enum LoopExit {
    /// Told to end, and drained.
    Drained,
    /// A named state.
    NeedsPerson(NeedsPerson),
    /// Another process leads.
    Fenced(Fault),
    /// A part of the program has failed: a bug.
    Failed(Fault),
    /// Begin again from the start: the slot went to another process.
    Again,
}

impl LoopExit {
    /// A state that `repair` mends.
    pub(crate) fn repair(reason: Reason, what: String) -> LoopExit {
        LoopExit::NeedsPerson(NeedsPerson::repair(reason, what))
    }
}
