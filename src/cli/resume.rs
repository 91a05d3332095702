//! `resume`: a paused section goes on.

use crate::cli::context::Context;
use crate::model::{Exit, Fault};

/// Arguments of `resume`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The section
    pub section: String,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    crate::cli::pause::switch(context, &args.section, false).await
}
