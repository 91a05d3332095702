//! Logs, metrics and the status document: what the process says of itself.
//!
//! * In: settings and observations.
//! * Out: lines on stderr, the registry that `/metrics` shows, and the snapshot that `/status` shows.
//! * Never: a secret, row data, or an unbounded label.

mod declare;
pub mod logs;
pub mod metrics;
mod process;
mod section;
pub mod status;

pub use metrics::Metrics;
pub use section::{Age, Filtered, SectionMetrics};
