//! `setup`: state schema, publication and slot, in this order.

use std::sync::Arc;

use crate::cli::context::Context;
use crate::model::{Exit, Fault};
use crate::operations::set_up::{set_up, set_up_script};
use crate::terminal::Colour;

/// Arguments of `setup`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do nothing; print one script that a DBA can read and run
    #[arg(long)]
    pub print_sql: bool,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    let config = context.config()?;
    if args.print_sql {
        let text = set_up_script(config).await?;
        if context.json() {
            context.output.document(&serde_json::json!({ "sql": text }))?;
        } else {
            context.output.raw(&text)?;
        }
        return Ok(Exit::Done);
    }
    let steps = set_up(&Arc::new(config.clone())).await?;
    if context.json() {
        context.output.document(&serde_json::json!({ "steps": steps }))?;
        return Ok(Exit::Done);
    }
    for step in &steps {
        let word = if step.made { context.output.paint(Colour::Green, "made ") } else { "there".to_owned() };
        let detail = if step.detail.is_empty() { String::new() } else { format!(", {}", step.detail) };
        context.output.line(format!("{word}  {} {}{detail}", step.what, step.name))?;
        for sql in &step.sql {
            context.output.line(format!("       {sql};"))?;
        }
    }
    context.output.line("\nnext: pg2planhat check, then pg2planhat run")?;
    Ok(Exit::Done)
}
