//! `query`: a read-only SQL console on the source.

use super::Context;
use crate::fault::{Exit, Fault};

/// Arguments of `query`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One statement
    pub sql: String,
}

/// Runs the command.
///
/// # Errors
/// Not made yet.
pub async fn run(_context: &Context, _args: Args) -> Result<Exit, Fault> {
    Err(Fault::bug("`query` is not made yet"))
}
