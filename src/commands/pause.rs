//! `pause`: a section rests.

use super::Context;
use crate::fault::{Exit, Fault};

/// Arguments of `pause`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The section
    pub section: String,
}

/// Runs the command.
///
/// # Errors
/// Not made yet.
pub async fn run(_context: &Context, _args: Args) -> Result<Exit, Fault> {
    Err(Fault::bug("`pause` is not made yet"))
}
