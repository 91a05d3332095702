//! `query`: a read-only SQL console on the source.

use std::time::Duration;

use clap::ValueEnum;

use crate::cli::context::Context;
use crate::config;
use crate::model::{Exit, Fault};
use crate::postgres::connection::session::connect_sql;
use crate::postgres::console;
use crate::postgres::console::{Bounds, QueryAnswer};
use crate::terminal::{count, plural};

/// Arguments of `query`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One statement: SELECT, VALUES, TABLE, SHOW or EXPLAIN
    pub sql: String,
    /// How rows are printed; --json is short for json
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
    /// The most rows
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1000)]
    pub rows: usize,
    /// The most that it may take
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = config::duration)]
    pub timeout: Duration,
    /// Ask with the program's own rights, where source.query_role is not set
    #[arg(long)]
    pub allow_source_role: bool,
}

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// RFC 4180; NULL is an empty field, the empty string ""
    Csv,
    /// One document
    Json,
}

/// Bytes of text that are shown at most.
const BYTES: usize = 16 << 20;

/// Runs the command.
///
/// # Errors
/// Where it is off, the statement is not allowed, or the server refuses it.
pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    let source = context.source()?;
    if source.query_role.is_none() && !args.allow_source_role {
        return Err(Fault::usage(
            "query is off: source.query_role is not set",
            "set `query_role: ROLE` in source to a role that may only read; or say --allow-source-role",
        ));
    }
    let session = connect_sql(&source, "query").await?;
    let bounds = Bounds {
        role: source.query_role.clone(),
        schema: source.schema.clone(),
        timeout: args.timeout.max(Duration::from_millis(1)),
        rows: args.rows,
        bytes: BYTES,
    };
    let answer = console::ask(session, &args.sql, &bounds).await?;
    let format = if context.json() { Format::Json } else { args.format };
    match format {
        Format::Json => {
            let QueryAnswer { columns, rows, truncated } = &answer;
            context.output.document(&serde_json::json!({"columns": columns, "rows": rows, "truncated": truncated}))?;
        }
        Format::Csv => {
            context.output.raw(&csv(answer.columns.iter().map(|name| Some(name.as_str()))))?;
            for row in &answer.rows {
                context.output.raw(&csv(row.iter().map(Option::as_deref)))?;
            }
        }
        Format::Table => table(context, &answer)?,
    }
    if answer.truncated && format != Format::Json {
        eprint(&format!(
            "not all of it: {} shown (-n N shows more), and of a value {} characters at most",
            plural(answer.rows.len() as u64, "row is", "rows are"),
            count(console::longest(&bounds, answer.columns.len()) as u64)
        ));
    }
    Ok(Exit::Done)
}

fn table(context: &Context, answer: &QueryAnswer) -> Result<(), Fault> {
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "NULL".to_owned());
    let rows: Vec<Vec<String>> = answer.rows.iter().map(|row| row.iter().map(shown).collect()).collect();
    context.output.records(&answer.columns, &rows)?;
    context.output.line(format!("({})", plural(rows.len() as u64, "row", "rows")))
}

/// One line, as RFC 4180 has it.
fn csv<'a>(values: impl Iterator<Item = Option<&'a str>>) -> String {
    let field = |value: Option<&str>| match value {
        None => String::new(),
        Some(text) if text.is_empty() || text.contains([',', '"', '\n', '\r']) => {
            format!("\"{}\"", text.replace('"', "\"\""))
        }
        Some(text) => text.to_owned(),
    };
    format!("{}\r\n", values.map(field).collect::<Vec<_>>().join(","))
}

/// An aside to the person, which is no part of the result.
fn eprint(text: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "{text}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_tells_null_from_empty() {
        assert_eq!(csv([Some("a"), None, Some(""), Some("b,\"c\"")].into_iter()), "a,,\"\",\"b,\"\"c\"\"\"\r\n");
    }
}
