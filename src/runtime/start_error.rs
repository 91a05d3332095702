//! Why a start does not succeed: try again later, a person must decide, or the process must end.
//!
//! * In: faults, state errors, states that need a person.
//! * Out: [`Hindrance`] and [`Needs`].
//! * Never: a retry of what only a person can decide.

use crate::model::{Exit, Fault};
use crate::state::StateError;
use crate::telemetry::status::Reason;

/// A state that needs a person.
#[derive(Clone, Debug)]
pub(crate) struct Needs {
    /// Its word in `status` and `/readyz`.
    pub reason: Reason,
    /// What happened and what to do.
    pub fault: Fault,
}

impl Needs {
    /// A state that `repair` mends.
    pub(crate) fn repair(reason: Reason, what: String) -> Needs {
        needs(reason, what, REPAIR)
    }
}

pub(crate) const REPAIR: &str =
    "pg2planhat repair --gap (re-reads the rows written since the checkpoint), --backfill, or --accept-loss";

pub(crate) fn needs(reason: Reason, what: String, remedy: &str) -> Needs {
    Needs { reason, fault: Fault::needs_person(what, remedy) }
}

/// Why an instance cannot begin.
#[derive(Debug)]
pub(crate) enum Hindrance {
    /// It may pass by itself.
    Later(Fault),
    /// A named state.
    Needs(Needs),
    /// Configuration, rights.
    Wrong(Fault),
}

impl From<Fault> for Hindrance {
    fn from(fault: Fault) -> Hindrance {
        match fault.exit {
            Exit::Unavailable => Hindrance::Later(fault),
            Exit::Done | Exit::Findings | Exit::Usage | Exit::Bug | Exit::NeedsPerson => Hindrance::Wrong(fault),
        }
    }
}

impl From<Needs> for Hindrance {
    fn from(needs: Needs) -> Hindrance {
        Hindrance::Needs(needs)
    }
}

impl From<StateError> for Hindrance {
    fn from(error: StateError) -> Hindrance {
        match error {
            StateError::Unavailable(fault) => Hindrance::Later(fault),
            StateError::Unwritable(fault) => Hindrance::Needs(Needs { reason: Reason::StateUnwritable, fault }),
            StateError::Fenced => Hindrance::Later(error.fault()),
        }
    }
}
