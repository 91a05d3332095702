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
pub mod config;
pub mod fault;
pub mod mapping;
pub mod planhat;
pub mod postgres;
pub mod row;
pub mod sim;
pub mod state;
pub mod telemetry;
