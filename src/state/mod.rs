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
//!                                        a Term: the epoch, and the number of the last list applied under it
//! ```

mod model;
mod schema;

mod error;
mod store;

mod apply;
mod writes;

mod events;
mod instance;
mod ledger;
mod quarantine;
mod sections;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

pub use error::StateError;
pub use events::{Event, Gap, NewEvent, NewGap};
pub use instance::{Identity, Instance, Opened};
pub use ledger::{DeliveryFilter, DeliveryRow, OpenDelivery};
pub use model::*;
pub use quarantine::{QuarantineFilter, QuarantineItem, QuarantineRow};
pub use schema::{Schema, ddl, version};
pub use sections::{Attachment, MappedColumn, SectionRow};
pub use store::{Store, Term};

/// What the sessions of this room are called in `pg_stat_activity`.
pub const APPLICATION_NAME: &str = "pg2planhat state";
