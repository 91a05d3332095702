//! THE WAY IN: everything that speaks to PostgreSQL about rows.
//!
//! * In: a [`crate::config::Source`], and positions to start from.
//! * Out: rows as text values by column, boundaries between them, and findings about the server.
//! * Never: an HTTP type; a snapshot held longer than one chunk; a position confirmed that was not received.

mod auth;
pub mod catalog;
pub mod console;
pub mod copy;
mod copying;
pub mod decode;
mod dial;
pub mod fence;
#[cfg(test)]
mod fixture;
pub mod frames;
mod given;
mod guard;
mod halves;
mod handover;
mod pace;
mod passfile;
pub mod pgoutput;
pub mod preflight;
pub mod quote;
pub mod range;
mod resume;
pub mod script;
pub mod server_error;
pub mod setup;
mod skim;
pub mod slot;
pub mod sql;
pub mod stream;
pub mod table;
pub mod target;
pub mod timeline;
mod tls;
pub mod types;
mod url;
pub mod wire;
mod x509;
