//! The state schema: identity, checkpoint, ledger, quarantine, gaps, operator's events.
//!
//! * In: [`Op`]s, applied in one transaction under an epoch.
//! * Out: what an instance needs to go on after a restart, and what people ask of the ledger.
//! * Never: a write by a process whose epoch is past; a secret.

mod model;

pub use model::*;
