//! pg2planhat carries rows from PostgreSQL into Planhat in near real time, with exact accounting.
//!
//! ```text
//!                   console   cli   demo                                 what a person runs
//!                       │      │     │
//!                      operations                                        what a person asks: status, repair, resync
//!                          │
//!                       runtime ──── event_loop                          the one place that waits, spawns and decides
//!            ┌────────┬────┴─────┬──────────┬──────────┐
//!         postgres  mapping   delivery   planhat     state    telemetry, admin
//!            │         │      (pure)        │          │
//!            └─────────┴────┬────┴──────────┴──────────┘
//!                     config   audit
//!                           │
//!                         model                                          positions, keys, rows, errors
//! ```
//!
//! A row passes `postgres` (bytes to columns), `mapping` (columns to an item), `delivery` (batches, order, progress),
//! `planhat` (the request) and `state` (the ledger and the checkpoint); `runtime` hands it from one to the next. Imports
//! run downwards only, and no two files import each other in a circle: `tests/tidy.rs` holds both.

pub(crate) mod model;

pub(crate) mod config;

pub(crate) mod audit;
pub(crate) mod mapping;
pub(crate) mod planhat;
pub(crate) mod postgres;
pub(crate) mod sim;
pub(crate) mod state;

pub(crate) mod delivery;
pub(crate) mod telemetry;

pub(crate) mod admin;
pub(crate) mod shutdown;
pub(crate) mod sql;
pub(crate) mod terminal;

pub(crate) mod runtime;

pub(crate) mod operations;

pub(crate) mod console;

pub(crate) mod cli;
pub(crate) mod demo;

pub use crate::cli::{Cli, run, usage};
pub use crate::model::{Exit, Fault};
pub use crate::telemetry::log_writer::{flush, say};

/// What tests and benchmarks reach into. No interface: it changes with the code.
#[doc(hidden)]
pub mod testing;
