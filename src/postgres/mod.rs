//! THE WAY IN: everything that speaks to PostgreSQL about rows.
//!
//! * In: a [`crate::config::Source`], and positions to start from.
//! * Out: rows as text values by column, boundaries between them, and findings about the server.
//! * Never: an HTTP type; a snapshot held longer than one chunk; a position confirmed that was not received.

pub(crate) mod backfill;
pub(crate) mod catalog;
pub(crate) mod connection;
pub(crate) mod console;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod preflight;
pub(crate) mod replication;
pub(crate) mod setup;
