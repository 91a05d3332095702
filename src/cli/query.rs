//! `query`: a read-only SQL console on the source.

use std::time::Duration;

use clap::ValueEnum;

use crate::cli::context::Context;
use crate::config;
use crate::model::{Exit, Fault};
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
    #[arg(long, short = 'n', value_name = "N", allow_negative_numbers = true, default_value_t = 1000)]
    pub rows: usize,
    /// The most that it may take
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = timeout)]
    pub timeout: Duration,
    /// Refused with a remedy: it was the way before there was a login for it
    #[arg(long, hide = true)]
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

const READER: &str = "write `reader: { user: ROLE, password: { env: NAME } }` in source: a login that may only read. \
`pg2planhat setup --print-sql` makes it, and `pg2planhat check` proves its rights";

fn timeout(text: &str) -> Result<Duration, String> {
    let limit = config::duration(text)?;
    match limit {
        _ if limit.is_zero() => Err("it must be more than nothing".to_owned()),
        _ if limit > console::LONGEST => Err("a statement may take 1h at most".to_owned()),
        limit => Ok(limit),
    }
}

/// Bytes of text that are shown at most.
const BYTES: usize = 16 << 20;

/// Runs the command.
pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    let source = context.source()?;
    if args.allow_source_role {
        return Err(Fault::usage(
            "--allow-source-role is no longer taken: the program's own role can write and replicate",
            format!("leave it out; {READER}"),
        ));
    }
    if source.reader.is_none() {
        return Err(Fault::usage("query is off: source.reader is not set", READER));
    }
    let bounds = Bounds { timeout: args.timeout, rows: args.rows, bytes: BYTES };
    let answer = console::ask(&source, &args.sql, &bounds).await?;
    let format = if context.json() { Format::Json } else { args.format };
    match format {
        Format::Json => {
            let QueryAnswer { columns, rows, truncated } = &answer;
            context.output.document(&serde_json::json!({"columns": columns, "rows": rows, "truncated": truncated}))?;
        }
        Format::Csv => {
            context.output.data(&csv(answer.columns.iter().map(|name| Some(name.as_str()))))?;
            for row in &answer.rows {
                context.output.data(&csv(row.iter().map(Option::as_deref)))?;
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
    crate::telemetry::log_writer::say(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_tells_null_from_empty() {
        assert_eq!(csv([Some("a"), None, Some(""), Some("b,\"c\"")].into_iter()), "a,,\"\",\"b,\"\"c\"\"\"\r\n");
    }
}
