//! `preview`: real rows, and the exact items that they become. Sends nothing.

use serde::Serialize;
use serde_json::value::RawValue;

use super::output::{bytes, count, printable};
use super::{Colour, Context};
use crate::config::Section;
use crate::fault::{Exit, Fault};
use crate::mapping::{Mapping, MappingFault};
use crate::postgres::range::{self, Selection};
use crate::postgres::sql::{Session, connect_sql};
use crate::postgres::table::{self, TableInfo};
use crate::postgres::types::Types;
use crate::postgres::{preflight, quote, setup};
use crate::row::{Column, CommitTime, Row, Value};

/// Arguments of `preview`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The section
    pub section: String,
    /// How many rows
    #[arg(long, short = 'n', value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rows: u32,
    /// The oldest rows instead of the newest
    #[arg(long)]
    pub oldest: bool,
}

/// What a row becomes.
struct Shown {
    key: String,
    item: Result<Vec<u8>, String>,
}

/// Runs the command.
///
/// # Errors
/// Where the section does not fit its table, or the table cannot be read.
pub async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    let section = context.section(&args.section)?;
    let config = context.config()?;
    let session = connect_sql(&config.source, "preview").await?;
    let info = find(&session, section).await?;
    let types = Types::load(&session).await.map_err(|error| session.fault(&error))?;
    let names = config.planhat.bulk_activity_names;
    // Against all columns first, so that a misspelt one finds the one that was meant.
    Mapping::compile(section, names, &info.row_columns(&types)).map_err(|faults| unfit(&faults))?;
    let wanted = section.columns();
    let read: Vec<Column> =
        info.row_columns(&types).into_iter().filter(|column| wanted.contains(&column.name)).collect();
    let mapping = Mapping::compile(section, names, &read).map_err(|faults| unfit(&faults))?;
    session.batch_execute(range::SESSION).await.map_err(|error| session.fault(&error))?;
    let columns: Vec<String> = read.iter().map(|column| column.name.clone()).collect();
    let selection = Selection::new(section, &info, &columns);
    let rows = selection.read_end(&session, !args.oldest, args.rows).await.map_err(|error| session.fault(&error))?;
    let shown: Vec<Shown> = rows.iter().map(|row| encode(&mapping, &row)).collect();
    if context.json() {
        context.output.document(&document(section, &shown)?)?;
    } else {
        print(context, section, &shown)?;
    }
    Ok(Exit::Done)
}

async fn find(session: &Session, section: &Section) -> Result<TableInfo, Fault> {
    let at = |error: tokio_postgres::Error| session.fault(&error);
    match table::by_name(session, &section.table).await.map_err(at)? {
        Some(info) => Ok(info),
        None => Err(match preflight::nearest_table(session, &section.table).await.map_err(at)? {
            Some(near) => Fault::usage(
                format!("there is no table {}", quote::qualified(&section.table)),
                format!("did you mean {}?", quote::qualified(&near)),
            ),
            None => setup::no_table(&section.table),
        }),
    }
}

fn unfit(faults: &[MappingFault]) -> Fault {
    let what: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let remedy: Vec<String> = faults.iter().map(MappingFault::remedy).collect();
    Fault::usage(what.join("\n"), remedy.join("\n          "))
}

fn encode(mapping: &Mapping, row: &Row<'_>) -> Shown {
    let key = match row.get(mapping.key_column()) {
        Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Value::Null | Value::Oversize => String::new(),
    };
    let mut item = Vec::new();
    let encoded = mapping.encode(row, CommitTime::Unknown, &mut item).map_err(|refusal| refusal.to_string());
    Shown { key, item: encoded.map(|()| item) }
}

/// What the items weigh: how many, all of them, the largest.
fn weigh(shown: &[Shown]) -> (usize, usize, usize) {
    let sizes = shown.iter().filter_map(|shown| shown.item.as_ref().ok().map(Vec::len));
    sizes.fold((0, 0, 0), |(number, sum, largest), size| (number + 1, sum + size, largest.max(size)))
}

/// Items of an average batch, and its bytes: brackets and commas, too.
fn batch(section: &Section, number: usize, sum: usize) -> Option<(u64, u64)> {
    let average = u64::try_from(sum.checked_div(number)?).unwrap_or(u64::MAX) + 1;
    let items = (section.batch.bytes.saturating_sub(2) / average).min(u64::from(section.batch.rows)).max(1);
    Some((items, items * average + 1))
}

/// The JSON form. Items go through as they are: another writer would change their digits.
#[derive(Serialize)]
struct Document<'a> {
    section: &'a str,
    items: Vec<Entry<'a>>,
    batch: Option<Batch>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Item { key: &'a str, item: &'a RawValue, bytes: usize },
    Refused { key: &'a str, refused: &'a str },
}

#[derive(Serialize)]
struct Batch {
    rows: u64,
    bytes: u64,
    largest_item_bytes: usize,
}

fn document<'a>(section: &'a Section, shown: &'a [Shown]) -> Result<Document<'a>, Fault> {
    let no_json = |error| Fault::bug(format!("an item that is not JSON: {error}"));
    let mut items = Vec::new();
    for Shown { key, item } in shown {
        items.push(match item {
            Ok(item) => Entry::Item { key, item: serde_json::from_slice(item).map_err(no_json)?, bytes: item.len() },
            Err(refused) => Entry::Refused { key, refused },
        });
    }
    let (number, sum, largest_item_bytes) = weigh(shown);
    let batch = batch(section, number, sum).map(|(rows, bytes)| Batch { rows, bytes, largest_item_bytes });
    Ok(Document { section: section.name.as_str(), items, batch })
}

fn print(context: &Context, section: &Section, shown: &[Shown]) -> Result<(), Fault> {
    let output = context.output;
    for Shown { key, item } in shown {
        let key = output.paint(Colour::Bold, format!("key {}", printable(key)));
        match item {
            Ok(item) => {
                output.line(format!("{key}  {}", output.paint(Colour::Dim, bytes(item.len() as u64))))?;
                output.line(pretty(item))?;
            }
            Err(refused) => {
                output.line(format!("{key}  {} {}", output.paint(Colour::Red, "refused:"), printable(refused)))?;
            }
        }
    }
    let (number, sum, largest) = weigh(shown);
    let refused = shown.len() - number;
    if shown.is_empty() {
        return output.line(format!("the table {} has no rows", quote::qualified(&section.table)));
    }
    output.line(format!("\n{number} items, {refused} refused; nothing was sent"))?;
    if let Some((items, weight)) = batch(section, number, sum) {
        output.line(format!(
            "an item is {} on average, {} at most; a full batch holds {} items, {}",
            bytes((sum / number.max(1)) as u64),
            bytes(largest as u64),
            count(items),
            bytes(weight)
        ))?;
    }
    Ok(())
}

/// The item on several lines, its digits and the order of its fields unchanged.
fn pretty(item: &[u8]) -> String {
    let fields: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_slice(item);
    let raw: Result<std::collections::HashMap<String, &RawValue>, _> = serde_json::from_slice(item);
    let (Ok(fields), Ok(raw)) = (fields, raw) else { return String::from_utf8_lossy(item).into_owned() };
    let lines = fields.keys().filter_map(|name| {
        let value = raw.get(name)?;
        Some(format!("  {}: {}", serde_json::Value::from(name.as_str()), printable(value.get())))
    });
    format!("{{\n{}\n}}", lines.collect::<Vec<_>>().join(",\n"))
}
