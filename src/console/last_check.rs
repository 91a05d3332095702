//! The findings of the last check, which all pages share.

use std::time::Instant;

use crate::model::Finding;

/// The findings of a check, and when it was made.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub at: Instant,
    /// The number of seconds that the check took.
    pub took: f64,
    pub findings: Vec<Finding>,
}
