//! Logs, metrics and the status document: what the process says of itself.
//!
//! * In: settings and observations.
//! * Out: lines on stderr, the registry that `/metrics` shows, and the snapshot that `/status` shows.
//! * Never: a secret, row data, or an unbounded label.

pub(crate) mod age;
pub(crate) mod declare;
pub(crate) mod log_output;
pub(crate) mod log_ring;
pub(crate) mod log_writer;
pub(crate) mod metrics;
pub(crate) mod process;
pub(crate) mod section_metrics;
pub(crate) mod status_document;

pub(crate) use crate::telemetry::age::Age;
pub use crate::telemetry::metrics::Metrics;
pub use crate::telemetry::section_metrics::SectionMetrics;
