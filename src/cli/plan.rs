//! `plan`: what this file would change, and what that would do.

use std::sync::Arc;

use crate::cli::context::Context;
use crate::model::{Exit, Fault};
use crate::operations;
use crate::terminal::Colour;

/// Arguments of `plan`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command: exit 1 where rows would count twice or be lost.
pub(crate) async fn run(context: &Context, _: Args) -> Result<Exit, Fault> {
    let config = Arc::new(context.config()?.clone());
    let changes = operations::plan::plan(&config).await?;
    if context.json() {
        context.output.document(&serde_json::json!({ "changes": changes }))?;
    } else if changes.is_empty() {
        context.output.line("nothing: the file says what is recorded")?;
    }
    for change in changes.iter().filter(|_| !context.json()) {
        let word = if change.danger { context.output.paint(Colour::Red, "danger") } else { "ok    ".to_owned() };
        let whose = if change.section.is_empty() { String::new() } else { format!("{}: ", change.section) };
        context.output.line(format!("{word}  {whose}{}: {}", change.kind, change.said))?;
    }
    Ok(if changes.iter().any(|change| change.danger) { Exit::Findings } else { Exit::Done })
}
