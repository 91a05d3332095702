//! `run`: backfill and stream until SIGTERM or SIGINT.

use super::Context;
use crate::fault::{Exit, Fault};
use crate::{pipeline, shutdown};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// As [`pipeline::run`].
pub async fn run(context: &Context, _args: Args) -> Result<Exit, Fault> {
    let config = context.config()?.clone();
    let stop = shutdown::on_signals()?;
    pipeline::run(config, stop).await
}
