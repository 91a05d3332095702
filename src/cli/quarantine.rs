//! `quarantine`: rows that could not be delivered.

use std::sync::Arc;

use serde_json::json;

use crate::cli::context::Context;
use crate::cli::resync::PATIENCE;
use crate::config::Config;
use crate::model::{Exit, Fault};
use crate::operations;
use crate::state::{QuarantineFilter, QuarantineItem, QuarantineRow, Store};
use crate::terminal::{count, plural, pretty, printable};

/// Arguments of `quarantine`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do with them
    #[command(subcommand)]
    pub action: QuarantineCommand,
}

/// What to do with held rows.
#[derive(Debug, clap::Subcommand)]
pub enum QuarantineCommand {
    /// List them, oldest first
    List {
        /// Which
        #[command(flatten)]
        filter: Filter,
        /// The most rows to show
        #[arg(long, short = 'n', value_name = "N", allow_negative_numbers = true, default_value_t = 100)]
        limit: u32,
    },
    /// Show one with its item
    Show {
        /// Its id
        id: i64,
    },
    /// Send them again, by the ordinary way
    Retry(Chosen),
    /// Forget them: they will never be delivered
    Drop(Chosen),
}

/// Which rows.
#[derive(Debug, clap::Args)]
pub struct Filter {
    /// Only this section's
    #[arg(long, short)]
    pub section: Option<String>,
    /// Only those whose reason begins with this: refused, mapping, too_large, in_doubt
    #[arg(long, short)]
    pub reason: Option<String>,
}

/// Which rows, said expressly.
#[derive(Debug, clap::Args)]
pub struct Chosen {
    /// Their ids
    #[arg(required_unless_present_any = ["section", "reason", "all"])]
    pub ids: Vec<i64>,
    /// Which
    #[command(flatten)]
    pub filter: Filter,
    /// All of them
    #[arg(long)]
    pub all: bool,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

impl Filter {
    fn meant(&self, context: &Context) -> Result<QuarantineFilter, Fault> {
        let section = match &self.section {
            Some(name) => Some(context.section(name)?.name.clone()),
            None => None,
        };
        Ok(QuarantineFilter { section, reason: self.reason.clone(), after_id: None })
    }
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    let config = Arc::new(context.config()?.clone());
    match args.action {
        QuarantineCommand::List { filter, limit } => {
            let filter = filter.meant(context)?;
            let store = operations::store(&config).await?;
            let mut rows =
                store.quarantine_list(&filter, limit.saturating_add(1)).await.map_err(|error| error.fault())?;
            let more = rows.len() > limit as usize;
            rows.truncate(limit as usize);
            list(context, &rows, more)
        }
        QuarantineCommand::Show { id } => {
            let store = operations::store(&config).await?;
            let shown = store.quarantine_show(id).await.map_err(|error| error.fault())?;
            show(context, &shown.ok_or_else(|| absent(&[id]))?)
        }
        QuarantineCommand::Retry(chosen) => retry(context, &config, &chosen).await,
        QuarantineCommand::Drop(chosen) => forget(context, &config, &chosen).await,
    }
}

fn absent(ids: &[i64]) -> Fault {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    Fault::usage(format!("not in quarantine: {}", ids.join(", ")), "`pg2planhat quarantine list` shows what is")
}

fn list(context: &Context, rows: &[QuarantineRow], more: bool) -> Result<Exit, Fault> {
    if context.json() {
        context.output.document(&rows)?;
    } else if rows.is_empty() {
        context.output.line("Nothing is in quarantine.")?;
    } else {
        let cells = rows.iter().map(|row| {
            let since = row.created_at.get(..19).unwrap_or(&row.created_at).replace('T', " ");
            [row.id.to_string(), row.section.clone(), row.key.clone(), since, row.reason.clone()]
        });
        context.output.table(&["id", "section", "key", "since (UTC)", "reason"], cells)?;
        if more {
            context.output.line("There are more, younger ones: -n N shows N.")?;
        }
    }
    Ok(Exit::Done)
}

fn show(context: &Context, item: &QuarantineItem) -> Result<Exit, Fault> {
    if context.json() {
        context.output.document(item)?;
        return Ok(Exit::Done);
    }
    let row = &item.row;
    let batch = item.delivery.map(|batch| format!(", of batch {batch}")).unwrap_or_default();
    let head = format!("{} of {}, key {}, since {}{batch}", row.id, row.section, row.key, row.created_at);
    context.output.line(printable(&head))?;
    context.output.prose(&row.reason, "")?;
    context.output.line(pretty(item.item.get().as_bytes()))?;
    Ok(Exit::Done)
}

async fn pick(context: &Context, store: &Store, chosen: &Chosen) -> Result<Vec<QuarantineRow>, Fault> {
    let filter = chosen.filter.meant(context)?;
    let (rows, gone) = operations::chosen(store, &chosen.ids, &filter).await?;
    if gone.is_empty() { Ok(rows) } else { Err(absent(&gone)) }
}

async fn retry(context: &Context, config: &Arc<Config>, chosen: &Chosen) -> Result<Exit, Fault> {
    let store = operations::store(config).await?;
    let rows = pick(context, &store, chosen).await?;
    let doubtful = rows.iter().filter(|row| row.reason.starts_with("in_doubt")).count();
    if doubtful > 0 {
        let question = format!(
            "{} of {} in doubt: Planhat may have them, and would count them twice.",
            count(doubtful as u64),
            plural(rows.len() as u64, "row was", "rows were")
        );
        if !context.confirm(&question, chosen.yes)? {
            return said(context, &json!({ "rows": 0, "events": [] }), "Nothing was done.");
        }
    }
    let asked = operations::retry(&store, &rows).await?;
    let running = operations::holder(config).await.is_some();
    let mut events = Vec::new();
    let mut lines = Vec::new();
    let until = tokio::time::Instant::now() + PATIENCE;
    for asked in &asked {
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        let result = if running { operations::result_of(&store, asked.event, left).await? } else { None };
        lines.push(format!("{}: {}", asked.section, result.as_deref().unwrap_or("asked")));
        events.push(json!({ "id": asked.event, "section": asked.section, "rows": asked.rows, "result": result }));
    }
    if !running {
        lines.push("No instance runs; the next one will send them.".to_owned());
    }
    if rows.is_empty() {
        lines = vec!["There are no such rows in quarantine.".to_owned()];
    }
    said(context, &json!({ "rows": rows.len(), "events": events }), &lines.join("\n"))
}

async fn forget(context: &Context, config: &Arc<Config>, chosen: &Chosen) -> Result<Exit, Fault> {
    let store = operations::store(config).await?;
    let rows = pick(context, &store, chosen).await?;
    let question = format!(
        "{} the quarantine for ever, and will never be delivered.",
        plural(rows.len() as u64, "row leaves", "rows leave")
    );
    if rows.is_empty() || !context.confirm(&question, chosen.yes)? {
        return said(context, &json!({ "dropped": 0 }), "Nothing was dropped.");
    }
    let dropped = operations::drop_rows(&store, &rows).await?;
    said(context, &json!({ "dropped": dropped }), &format!("{} dropped.", plural(dropped, "row was", "rows were")))
}

fn said(context: &Context, document: &serde_json::Value, text: &str) -> Result<Exit, Fault> {
    if context.json() {
        context.output.document(document)?
    } else {
        context.output.line(text)?
    }
    Ok(Exit::Done)
}
