//! `setup`: publication, slot and state schema.

use super::Context;
use crate::fault::{Exit, Fault};

/// Arguments of `setup`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do nothing; print one script that a DBA can read and run
    #[arg(long)]
    pub print_sql: bool,
}

/// Runs the command.
///
/// # Errors
/// Not made yet.
pub async fn run(_context: &Context, _args: Args) -> Result<Exit, Fault> {
    Err(Fault::bug("`setup` is not made yet"))
}
