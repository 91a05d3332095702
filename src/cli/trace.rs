//! `trace`: what became of one row.

use std::sync::Arc;

use crate::cli::context::Context;
use crate::model::{Exit, Fault};
use crate::operations;

/// Arguments of `trace`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The section
    pub section: String,
    /// The row's key; of several columns: a,b or a JSON array
    #[arg(allow_hyphen_values = true)]
    pub key: String,
}

/// Runs the command: exit 1 where the row is neither delivered, nor on its way, nor held for a reason.
pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    let config = Arc::new(context.config()?.clone());
    let section = context.section(&args.section)?;
    let store = operations::store(&config).await?;
    let traced = operations::trace(&config, &store, section, &args.key).await?;
    let exit = if traced.outcome == "unknown" { Exit::Findings } else { Exit::Done };
    let output = context.output;
    if context.json() {
        output.document(&traced)?;
        return Ok(exit);
    }
    output.line(format!("{} {}: {}", traced.section, traced.key, traced.outcome))?;
    output.line(format!("  {}", traced.why))?;
    output.line(format!("  in the source: {}", traced.source))?;
    if !traced.deliveries.is_empty() {
        let rows = traced.deliveries.iter().map(|one| {
            [
                one.id.to_string(),
                one.finished_at.clone().unwrap_or_default(),
                one.phase.clone(),
                one.outcome.clone(),
                one.http_status.map(|status| status.to_string()).unwrap_or_default(),
                if one.certain { String::new() } else { "may carry it".to_owned() },
            ]
        });
        output.table(&["batch", "ended (UTC)", "phase", "outcome", "answer", ""], rows)?;
    }
    Ok(exit)
}
