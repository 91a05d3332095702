//! `run`: backfill and stream until SIGTERM, SIGINT or SIGQUIT; SIGHUP reads the file again.

use crate::cli::context::Context;
use crate::cli::reload::reload;
use crate::model::{Exit, Fault};
use crate::{runtime, shutdown};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where a person must decide: stay, say so on the admin port and go on once it is mended, instead of ending with 75
    #[arg(long)]
    pub stay: bool,
}

/// Runs the command.
///
/// # Errors
/// As [`runtime::run`].
pub async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    let config = context.config()?.clone();
    let stop = shutdown::on_signals()?;
    let (running, path) = (config.clone(), context.path().to_owned());
    shutdown::on_hangup(move || reload(&running, &path))?;
    runtime::run(config, stop, args.stay).await
}
