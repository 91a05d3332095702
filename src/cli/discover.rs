//! `discover`: what there is to map.

use serde_json::{Value, json};

use crate::cli::context::Context;
use crate::cli::context::nearest;
use crate::mapping::Guess;
use crate::model::{Column, Exit, Fault};
use crate::postgres::catalog::listing::TableEntry;
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::catalog::types::Types;
use crate::postgres::catalog::{listing, quote, table};
use crate::postgres::connection::session::{Session, connect_sql};
use crate::terminal::{Colour, bytes, count, printable};
use crate::{config, mapping};

/// Arguments of `discover`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this schema
    #[arg(long, value_name = "S")]
    pub schema: Option<String>,
    /// Show its columns, and write a section for it
    pub table: Option<String>,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    let source = context.source()?;
    let session = connect_sql(&source, "discover").await?;
    let schema = args.schema.as_deref().unwrap_or(&source.schema);
    match (&args.table, &args.schema) {
        (Some(table), _) => one(context, &session, table, schema).await?,
        (None, Some(schema)) => {
            there(&session, schema).await?;
            list(context, &session, schema).await?;
        }
        (None, None) => overview(context, &session, schema).await?,
    }
    Ok(Exit::Done)
}

async fn overview(context: &Context, session: &Session, schema: &str) -> Result<(), Fault> {
    let schemas = listing::schemas(session).await.map_err(|error| session.fault(&error))?;
    if context.json() {
        let schemas: Vec<Value> =
            schemas.iter().map(|schema| json!({"name": schema.name, "tables": schema.tables})).collect();
        return context.output.document(&json!({ "schemas": schemas }));
    }
    let rows = schemas.iter().map(|schema| [printable(&schema.name), count(schema.tables)]);
    context.output.table(&["schema", "tables"], rows)?;
    context.output.line("")?;
    list(context, session, schema).await
}

/// A schema that is not there is a mistake, one without tables is none.
async fn there(session: &Session, schema: &str) -> Result<(), Fault> {
    let schemas = listing::schemas(session).await.map_err(|error| session.fault(&error))?;
    if schemas.iter().any(|known| known.name == schema) {
        return Ok(());
    }
    let remedy = match nearest(schema, schemas.iter().map(|known| &*known.name)) {
        Some(near) => format!("did you mean {near}?"),
        None => "`pg2planhat discover` lists them; upper and lower case differ".to_owned(),
    };
    Err(Fault::usage(format!("there is no schema {}", quote::ident(schema)), remedy))
}

async fn list(context: &Context, session: &Session, schema: &str) -> Result<(), Fault> {
    let tables = listing::tables(session, schema).await.map_err(|error| session.fault(&error))?;
    let name = |table: &TableEntry| format!("{}.{}", table.name.schema, table.name.name);
    if context.json() {
        let entry = |table: &TableEntry| json!({"name": name(table), "rows_estimated": table.rows, "bytes": table.bytes, "keys": table.keys.iter().map(|key| key.join(", ")).collect::<Vec<_>>()});
        return context.output.document(&json!({ "tables": tables.iter().map(entry).collect::<Vec<_>>() }));
    }
    if tables.is_empty() {
        return context.output.line(format!("The schema {} has no tables that this role may see.", printable(schema)));
    }
    let unknown = tables.iter().any(|table| table.rows.is_none());
    let rows = tables.iter().map(|table| {
        let rows = table.rows.map_or_else(|| "?".to_owned(), count);
        let keys = if table.keys.is_empty() { "none".to_owned() } else { printable(&shown_keys(&table.keys)) };
        [printable(&name(table)), rows, bytes(table.bytes), keys]
    });
    context.output.table(&["table", "rows (estimated)", "size", "candidate keys"], rows)?;
    if unknown {
        context.output.line("\n?: never analyzed; ANALYZE estimates the rows")?;
    }
    context.output.line("\nnext: pg2planhat discover TABLE writes a section for it")
}

async fn one(context: &Context, session: &Session, text: &str, schema: &str) -> Result<(), Fault> {
    let at = |error: tokio_postgres::Error| session.fault(&error);
    let name = config::table_name(text, schema)?;
    let Some(info) = table::by_name(session, &name).await.map_err(at)? else {
        let remedy = match table::nearest(session, &name).await.map_err(at)? {
            Some(near) => format!("did you mean {}.{}?", near.schema, near.name),
            None => "`pg2planhat discover` lists them; upper and lower case differ".to_owned(),
        };
        return Err(Fault::usage(format!("there is no table {}", quote::qualified(&name)), remedy));
    };
    let types = Types::load(session).await.map_err(at)?;
    let keys = listing::keys(session, &info).await.map_err(at)?;
    // A generated column is not in the stream of older servers: it is shown, and never guessed.
    let usable: Vec<Column> = info
        .row_columns(&types)
        .into_iter()
        .filter(|column| info.column(&column.name).is_some_and(|known| !known.generated))
        .collect();
    let updates = table::updates(session, info.oid).await.map_err(at)?;
    let is_result = matches!(info.kind, 'v' | 'm' | 'f');
    let read_as = |guess: Guess| guess.read_as(is_result, updates, &keys);
    let guesses: Vec<Guess> = mapping::guess(&info.name, &usable, &keys).into_iter().map(read_as).collect();
    if context.json() {
        let columns: Vec<Value> = info
            .columns
            .iter()
            .map(|column| json!({"name": column.name, "type": column.type_name, "nullable": !column.not_null}))
            .collect();
        let name = format!("{}.{}", info.name.schema, info.name.name);
        let sections: Vec<Value> = guesses.iter().map(Guess::json).collect();
        let mut document = json!({"table": name, "columns": columns, "section": sections.first()});
        if sections.len() > 1 {
            document["sections"] = json!(sections);
        }
        return context.output.document(&document);
    }
    print(context, &info, &keys, &guesses)
}

/// `id, (account_id, day)`.
fn shown_keys(keys: &[Vec<String>]) -> String {
    let key = |key: &Vec<String>| if let [only] = &key[..] { only.clone() } else { format!("({})", key.join(", ")) };
    keys.iter().map(key).collect::<Vec<_>>().join(", ")
}

/// Columns as comments, so that the whole of it may be appended to a file.
fn print(context: &Context, info: &TableInfo, keys: &[Vec<String>], guesses: &[Guess]) -> Result<(), Fault> {
    let output = context.output;
    let dim = |line: String| output.line(output.paint(Colour::Dim, line));
    dim(format!("# {}", printable(&quote::qualified(&info.name))))?;
    if keys.iter().any(|key| key.len() > 1) {
        dim(format!("# unique together: {}", printable(&shown_keys(keys))))?;
    }
    dim("# guessed from its columns: check each line, then `pg2planhat preview`".into())?;
    let odd = match info.kind {
        'v' => Some("a view: its rows are not in the WAL, so that nothing can be streamed from it; map its tables"),
        'm' => Some("a materialized view: its rows are not in the WAL; map its tables"),
        'f' => Some("a foreign table: its rows are in another server's WAL; connect there"),
        _ => None,
    };
    if let Some(odd) = odd {
        dim(format!("# THIS IS {odd}"))?;
    }
    let width = info.columns.iter().map(|column| column.name.chars().count()).max().unwrap_or(0);
    for column in &info.columns {
        let mut notes = vec![printable(&column.type_name)];
        if column.not_null {
            notes.push("not null".into());
        }
        if keys.iter().any(|key| *key == [column.name.as_str()]) {
            notes.push("unique".into());
        }
        if column.generated {
            notes.push("generated".into());
        }
        dim(format!("#   {:<width$}  {}", printable(&column.name), notes.join(", ")))?;
    }
    if context.config().is_ok() {
        dim("# put this under the `sections:` that you have".into())?;
    } else {
        output.line("sections:")?;
    }
    output.raw(&guesses.iter().map(Guess::yaml).collect::<String>())
}
