//! What waits for a person's word, and what was found out for one.

use std::time::Instant;

use crate::model::Finding;

/// What the checks found, and when.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub at: Instant,
    /// Seconds that it took.
    pub took: f64,
    pub findings: Vec<Finding>,
}
