//! `schema`: the JSON Schema of the configuration, for editors.

use crate::cli::context::Context;
use crate::config;
use crate::model::{Exit, Fault};

/// Arguments of `schema`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub(crate) async fn run(context: &Context, _args: Args) -> Result<Exit, Fault> {
    context.output.document(&config::json_schema())?;
    Ok(Exit::Done)
}
