//! `teardown`: drop slot, publication and state schema.

use super::Context;
use crate::fault::{Exit, Fault};

/// Arguments of `teardown`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

/// Runs the command.
///
/// # Errors
/// Not made yet.
pub async fn run(_context: &Context, _args: Args) -> Result<Exit, Fault> {
    Err(Fault::bug("`teardown` is not made yet"))
}
