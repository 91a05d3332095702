//! `repair`: mend a slot that is missing, lost or was moved (DESIGN section 3).

use super::Context;
use crate::fault::{Exit, Fault};

/// Arguments of `repair`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How
    #[command(flatten)]
    pub how: How,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

/// The ways to mend.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct How {
    /// New slot; read again the rows that came after the last checkpoint
    #[arg(long)]
    pub gap: bool,
    /// New slot; deliver every row again
    #[arg(long)]
    pub backfill: bool,
    /// New slot; rows in between are not delivered
    #[arg(long)]
    pub accept_loss: bool,
}

/// Runs the command.
///
/// # Errors
/// Not made yet.
pub async fn run(_context: &Context, _args: Args) -> Result<Exit, Fault> {
    Err(Fault::bug("`repair` is not made yet"))
}
