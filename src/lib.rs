//! pg2planhat carries rows from PostgreSQL into Planhat in near real time, with exact accounting.
//!
//! ```text
//!            ┌──────────────────────────── LSN safe to confirm ───────────────────────────┐
//!            v                                                                            │
//!      ┌──────────┐  row   ┌─────────┐ item ┌───────┐ batch ┌─────────┐ receipt ┌─────────┴┐
//! PG ─>│ postgres ├───────>│ mapping ├─────>│ batch ├──────>│ planhat ├────────>│ progress │
//!      └──────────┘        └────┬────┘      └───────┘       └────┬────┘         └────┬─────┘
//!        backfill, stream       └──────── refused ──────> quarantine <──┘            └─> state
//! ```
//!
//! Imports run one way, held by `tests/tidy.rs`:
//! `row, fault ← config ← {postgres, mapping, batch, planhat, state} ← progress/pipeline ← commands ← main`.

pub mod admin;
pub mod batch;
pub mod commands;
pub mod config;
pub mod engine;
pub mod fault;
pub mod keys;
pub mod lane;
pub mod mapping;
pub mod pipeline;
pub mod planhat;
pub mod postgres;
pub mod progress;
pub mod row;
pub mod shutdown;
pub mod sim;
pub mod state;
pub mod telemetry;
