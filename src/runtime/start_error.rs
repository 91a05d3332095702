//! Why a start does not succeed: try again later, a person must decide, or the process must end.
//!
//! * In: faults, state errors, states that need a person.
//! * Out: [`StartError`] and [`NeedsPerson`].
//! * Never: a retry of what only a person can decide.

use crate::model::{Exit, Fault};
use crate::state::StateError;
use crate::telemetry::status_document::Reason;

/// A state that needs a person.
#[derive(Clone, Debug)]
pub(crate) struct NeedsPerson {
    /// Its word in `status` and `/readyz`.
    pub reason: Reason,
    /// What happened and what to do.
    pub fault: Fault,
}

impl NeedsPerson {
    /// A state that `repair` mends.
    pub(crate) fn repair(reason: Reason, what: String) -> NeedsPerson {
        needs(reason, what, REPAIR)
    }
}

pub(crate) const REPAIR: &str =
    "pg2planhat repair --gap (re-reads the rows written since the checkpoint), --backfill, or --accept-loss";

pub(crate) fn needs(reason: Reason, what: String, remedy: &str) -> NeedsPerson {
    NeedsPerson { reason, fault: Fault::needs_person(what, remedy) }
}

/// Why an instance cannot begin.
#[derive(Debug)]
pub(crate) enum StartError {
    /// It may pass by itself.
    Later(Fault),
    /// A named state.
    NeedsPerson(NeedsPerson),
    /// Configuration, rights.
    Wrong(Fault),
}

impl From<Fault> for StartError {
    fn from(fault: Fault) -> StartError {
        match fault.exit {
            Exit::Unavailable => StartError::Later(fault),
            Exit::Done | Exit::Findings | Exit::Usage | Exit::Bug | Exit::NeedsPerson => StartError::Wrong(fault),
        }
    }
}

impl From<NeedsPerson> for StartError {
    fn from(needs: NeedsPerson) -> StartError {
        StartError::NeedsPerson(needs)
    }
}

impl From<StateError> for StartError {
    fn from(error: StateError) -> StartError {
        match error {
            StateError::Unavailable(fault) => StartError::Later(fault),
            StateError::Unwritable(fault) => {
                StartError::NeedsPerson(NeedsPerson { reason: Reason::StateUnwritable, fault })
            }
            StateError::Fenced => StartError::Later(error.fault()),
        }
    }
}
