//! `check`: everything that can be known before running.

use super::Context;
use crate::fault::{Exit, Fault};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// Not made yet.
pub async fn run(_context: &Context, _args: Args) -> Result<Exit, Fault> {
    Err(Fault::bug("`check` is not made yet"))
}
