//! `schema`: the JSON Schema of the configuration, for editors; or the reference of its keys, for people.

use crate::cli::context::Context;
use crate::config;
use crate::model::{Exit, Fault};

/// Arguments of `schema`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The reference of every key as Markdown, instead
    #[arg(long)]
    pub markdown: bool,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    if args.markdown {
        context.output.raw(&config::key_reference())?;
        return Ok(Exit::Done);
    }
    context.output.document(&config::json_schema())?;
    Ok(Exit::Done)
}
