//! `setup`: publication, slot and state schema, in this order.

use serde::Serialize;

use super::{Colour, Context};
use crate::config::Config;
use crate::fault::{Exit, Fault};
use crate::postgres::sql::{connect_sql, connect_url};
use crate::postgres::{script, setup};
use crate::state::{self, Schema, Store};

/// Arguments of `setup`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do nothing; print one script that a DBA can read and run
    #[arg(long)]
    pub print_sql: bool,
}

/// One step.
#[derive(Debug, Serialize)]
struct Step {
    /// `publication`, `slot`, `state`.
    what: &'static str,
    name: String,
    /// Whether it was made or changed now; otherwise it was there.
    made: bool,
    detail: String,
}

/// Runs the command.
///
/// # Errors
/// What is missing, where `manage` is off or a right is lacking; the remedy is the SQL.
pub async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    let config = context.config()?;
    if args.print_sql {
        let schema = Schema::new(&config.state.schema)?;
        let state = script::StateScript {
            apart: config.state.url.is_some(),
            ddl: &|role| state::ddl(&schema, role),
            schema: schema.quoted(),
        };
        let text = script::dba(config, &state).await;
        if context.json() {
            context.output.document(&serde_json::json!({ "sql": text }))?;
        } else {
            context.output.raw(&text)?;
        }
        return Ok(Exit::Done);
    }
    let steps = make(config).await?;
    if context.json() {
        context.output.document(&serde_json::json!({ "steps": steps }))?;
        return Ok(Exit::Done);
    }
    for step in &steps {
        let word = if step.made { context.output.paint(Colour::Green, "made ") } else { "there".to_owned() };
        context.output.line(format!("{word}  {} {}{}", step.what, step.name, step.detail))?;
    }
    context.output.line("\nnext: pg2planhat check, then pg2planhat run")?;
    Ok(Exit::Done)
}

async fn make(config: &Config) -> Result<Vec<Step>, Fault> {
    let session = connect_sql(&config.source, "setup").await?;
    let altered = setup::ensure_publication(&session, config).await?;
    let publication = Step {
        what: "publication",
        name: config.source.publication.clone(),
        made: !altered.is_empty(),
        detail: altered.iter().map(|sql| format!("\n       {sql}")).collect(),
    };
    let lsn = setup::ensure_slot(&session, config).await?;
    let slot = Step {
        what: "slot",
        name: config.source.slot.clone(),
        made: lsn.is_some(),
        detail: lsn.map(|lsn| format!(", from {lsn} on")).unwrap_or_default(),
    };
    let client = match &config.state.url {
        Some(url) => connect_url(url, "setup").await?.into_client(),
        None => session.into_client(),
    };
    let at = |error: state::StateError| error.fault();
    let mut store = Store::new(client, Schema::new(&config.state.schema)?).await.map_err(at)?;
    let there = store.is_there().await.map_err(at)?;
    if !there && !config.source.manage {
        return Err(Fault::needs_person(
            format!("there is no state schema {}, and `source.manage` is false", config.state.schema),
            "let a DBA run the script of `pg2planhat setup --print-sql`",
        ));
    }
    if !there {
        store.migrate().await.map_err(at)?;
    }
    let state = Step {
        what: "state schema",
        name: config.state.schema.clone(),
        made: !there,
        detail: format!(", version {}", state::version()),
    };
    Ok(vec![publication, slot, state])
}
