//! `run`: backfill and stream until SIGTERM, SIGINT or SIGQUIT; SIGHUP reads the file again.

use std::sync::Arc;

use crate::cli::console;
use crate::cli::context::Context;
use crate::cli::reload::reload;
use crate::console::Program;
use crate::model::{Exit, Fault};
use crate::runtime::Board;
use crate::{runtime, shutdown};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where a person must decide: stay, say so on the admin port and go on once it is mended, instead of ending with 75
    #[arg(long)]
    pub stay: bool,
}

/// Runs the command.
pub async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    let config = Arc::new(context.config()?.clone());
    let stop = shutdown::on_signals()?;
    let (file, path) = (config.as_ref().clone(), context.path().to_owned());
    shutdown::on_hangup(move || reload(&file, &path))?;
    let program = Program::elsewhere();
    let board = Board::new(&config)?;
    program.runs_here(runtime::shown(&config, &board));
    let console = console::open(&config, context.path(), &program, config.console.listen.as_deref(), &stop).await?;
    let running = runtime::run(config, board, stop, args.stay);
    match console {
        // The console ends with the program: a drain does not wait for it.
        Some((console, listener)) => tokio::select! {
            ended = running => ended,
            () = crate::console::web_server::serve(listener, console) => Ok(Exit::Done),
        },
        None => running.await,
    }
}
