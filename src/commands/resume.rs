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
/// As `pause`.
pub async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    super::pause::switch(context, &args.section, false).await
}
