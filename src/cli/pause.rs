//! `pause`: a section is paused, or resumed.

use std::sync::Arc;

use crate::cli::context::Context;
use crate::model::{Exit, Fault};
use crate::operations;

/// Arguments of `pause`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The section
    pub section: String,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    switch(context, &args.section, true).await
}

/// Pauses a section, or lets it go on.
pub(crate) async fn switch(context: &Context, section: &str, paused: bool) -> Result<Exit, Fault> {
    let config = Arc::new(context.config()?.clone());
    let name = &context.section(section)?.name;
    let store = operations::store(&config).await?;
    if !operations::pause(&store, name, paused).await? {
        let what = format!("section {name} was never attached: there is nothing to pause");
        return Err(Fault::usage(what, "start `pg2planhat run`, or set `sync: off` in its configuration"));
    }
    let running = operations::holder(&config).await.is_some();
    if context.json() {
        let document = serde_json::json!({ "section": name.as_str(), "paused": paused, "running": running });
        context.output.document(&document)?;
        return Ok(Exit::Done);
    }
    let done = if paused {
        format!("{name} is paused: nothing of it is sent. The slot keeps WAL meanwhile.")
    } else {
        format!("{name} resumed.")
    };
    context.output.line(done)?;
    context.output.line(if running {
        "The running instance obeys within 5 s."
    } else {
        "No instance runs; the next one will obey."
    })?;
    Ok(Exit::Done)
}
