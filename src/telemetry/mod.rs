//! Logs and metrics: the tracing set-up, and every metric declared once.
//!
//! * In: settings and observations.
//! * Out: lines on stderr, and the registry that `/metrics` shows.
//! * Never: a secret, row data, or an unbounded label.
