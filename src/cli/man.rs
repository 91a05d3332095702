//! `man`: the man pages, one a command.

use std::path::PathBuf;

use crate::cli::context::Context;
use crate::model::{Exit, Fault};

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where they go; made where it is missing
    pub directory: PathBuf,
}

/// Runs the command.
pub(crate) async fn run(_context: &Context, args: Args, command: clap::Command) -> Result<Exit, Fault> {
    let written =
        std::fs::create_dir_all(&args.directory).and_then(|()| clap_mangen::generate_to(command, &args.directory));
    written.map_err(|error| {
        let what = format!("the man pages cannot be written into {}: {error}", args.directory.display());
        Fault::usage(what, "name a directory that you may write")
    })?;
    Ok(Exit::Done)
}
