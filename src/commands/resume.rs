//! `resume`: a paused section goes on.

use super::Context;
use crate::fault::{Exit, Fault};

/// Arguments of `resume`.
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
    Err(Fault::bug("`resume` is not made yet"))
}
