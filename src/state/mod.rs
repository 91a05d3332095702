//! The state schema: identity, checkpoint, ledger, quarantine, gaps, operator's events.
//!
//! * In: [`Op`]s, applied in one transaction under an epoch; a connection, made by another room.
//! * Out: what an instance needs to go on after a restart, and what people ask of the ledger.
//! * Never: a write by a process whose epoch is past; a list of writes applied twice; a position or checkpoint moved
//!   back by an [`Op`]; a secret.
//!
//! ```text
//!   Store::new(client) → migrate → instance, adopt (first use, repair) → take_epoch → open → apply, apply, …
//!                                                                            │
//!                                        a Epoch: the epoch, and the number of the last list applied under it
//! ```

pub(crate) mod apply;
pub(crate) mod attachment;
pub(crate) mod audit_rows;
pub(crate) mod events;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod instance;
pub(crate) mod ledger;
pub(crate) mod migrations;
pub(crate) mod model;
pub(crate) mod proof;
pub(crate) mod quarantine_groups;
pub(crate) mod quarantine_rows;
pub(crate) mod resolve;
pub(crate) mod section_names;
pub(crate) mod section_rows;
pub(crate) mod seen_rows;
pub(crate) mod state_error;
pub(crate) mod store;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod write_sql;
pub(crate) mod writes;

pub use crate::state::attachment::*;
pub(crate) use crate::state::audit_rows::{LastAudit, WholeAudit};
pub(crate) use crate::state::events::{Event, Gap, NewEvent, SERVER_ADDRESS, SINK_ADDRESS};
pub(crate) use crate::state::instance::{Identity, Instance, Opened, UpdatePublication};
pub use crate::state::ledger::OpenDelivery;
pub(crate) use crate::state::ledger::{DeliveryFilter, DeliveryRow};
pub(crate) use crate::state::migrations::{Schema, ddl, drop_script, version};
pub use crate::state::model::*;
pub(crate) use crate::state::proof::{MISSING, ProofBounds, TracedDelivery};
pub(crate) use crate::state::quarantine_groups::QuarantineGroup;
pub(crate) use crate::state::quarantine_rows::{HeldVersion, QuarantineFilter, QuarantineItem, QuarantineRow};
pub(crate) use crate::state::section_names::of_removed;
pub(crate) use crate::state::section_rows::RANGE_SHORT;
pub use crate::state::section_rows::{Rules, SectionRow};
pub(crate) use crate::state::seen_rows::{SeenBlock, SeenHead};
pub(crate) use crate::state::state_error::StateError;
pub(crate) use crate::state::store::{Epoch, Store};

/// The `application_name` of this room's sessions.
pub(crate) const APPLICATION_NAME: &str = "pg2planhat state";
