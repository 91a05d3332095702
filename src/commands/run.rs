//! `run`: backfill and stream until SIGTERM or SIGINT.

use super::Context;
use crate::fault::{Exit, Fault};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// Not made yet.
pub async fn run(_context: &Context, _args: Args) -> Result<Exit, Fault> {
    Err(Fault::bug("`run` is not made yet"))
}
