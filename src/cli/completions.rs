//! `completions`: a script for a shell.

use clap_complete::Shell;

use crate::cli::context::Context;
use crate::model::{Exit, Fault};

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    pub shell: Shell,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: Args, mut command: clap::Command) -> Result<Exit, Fault> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "pg2planhat", &mut script);
    context.output.raw(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
