//! `preview`: real rows, and the exact items that they become. Sends nothing.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::cli::context::Context;
use crate::config::Section;
use crate::model::{Exit, Fault};
use crate::operations;
use crate::operations::{Becomes, Previewed};
use crate::postgres::catalog::quote;
use crate::terminal::{Colour, bytes, plural, pretty, printable};

/// Arguments of `preview`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The section
    pub section: String,
    /// How many rows
    #[arg(long, short = 'n', value_name = "N", allow_negative_numbers = true, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rows: u32,
    /// The oldest rows instead of the newest
    #[arg(long)]
    pub oldest: bool,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    let section = context.section(&args.section)?;
    let shown = operations::preview(context.config()?, section, !args.oldest, args.rows).await?;
    if context.json() {
        context.output.document(&document(section, &shown)?)?;
    } else {
        print(context, section, &shown)?;
    }
    Ok(Exit::Done)
}

/// What the items weigh: how many, all of them, the largest.
fn weigh(shown: &[Previewed]) -> (usize, usize, usize) {
    let sizes = shown.iter().filter_map(|shown| shown.item().map(<[u8]>::len));
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
struct PreviewDocument<'a> {
    section: &'a str,
    items: Vec<PreviewEntry<'a>>,
    batch: Option<PreviewBatch>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum PreviewEntry<'a> {
    Item { key: &'a str, item: &'a RawValue, bytes: usize },
    Refused { key: &'a str, refused: &'a str },
    LeftOut { key: &'a str, filtered: &'static str },
}

#[derive(Serialize)]
struct PreviewBatch {
    rows: u64,
    bytes: u64,
    largest_item_bytes: usize,
}

fn document<'a>(section: &'a Section, shown: &'a [Previewed]) -> Result<PreviewDocument<'a>, Fault> {
    let no_json = |error| Fault::bug(format!("an item that is not JSON: {error}"));
    let mut items = Vec::new();
    for Previewed { key, becomes } in shown {
        items.push(match becomes {
            Becomes::Item(item) => {
                PreviewEntry::Item { key, item: serde_json::from_slice(item).map_err(no_json)?, bytes: item.len() }
            }
            Becomes::Refused(refused) => PreviewEntry::Refused { key, refused },
            Becomes::LeftOut(rule) => PreviewEntry::LeftOut { key, filtered: rule.as_str() },
        });
    }
    let (number, sum, largest_item_bytes) = weigh(shown);
    let batch = batch(section, number, sum).map(|(rows, bytes)| PreviewBatch { rows, bytes, largest_item_bytes });
    Ok(PreviewDocument { section: section.name.as_str(), items, batch })
}

fn print(context: &Context, section: &Section, shown: &[Previewed]) -> Result<(), Fault> {
    let output = context.output;
    for Previewed { key, becomes } in shown {
        let key = output.paint(Colour::Bold, format!("key {}", printable(key)));
        match becomes {
            Becomes::Item(item) => {
                output.line(format!("{key}  {}", output.paint(Colour::Dim, bytes(item.len() as u64))))?;
                output.line(pretty(item))?;
            }
            Becomes::Refused(refused) => {
                output.line(format!("{key}  {} {}", output.paint(Colour::Red, "refused:"), printable(refused)))?;
            }
            Becomes::LeftOut(rule) => {
                let why = rule.said();
                output.line(format!("{key}  {} {why}", output.paint(Colour::Dim, "left out:")))?;
            }
        }
    }
    let (number, sum, largest) = weigh(shown);
    let refused = shown.iter().filter(|row| row.refused().is_some()).count();
    let left_out = match shown.len() - number - refused {
        0 => String::new(),
        rows => format!(", {rows} left out"),
    };
    if shown.is_empty() {
        if section.table.name.is_empty() {
            return output.line("the query gives no rows");
        }
        return output.line(format!("the table {} has no rows", quote::qualified(&section.table)));
    }
    let items = plural(number as u64, "item", "items");
    output.line(format!("\n{items}, {refused} refused{left_out}; nothing was sent"))?;
    if let Some((items, weight)) = batch(section, number, sum) {
        output.line(format!(
            "an item is {} on average, {} at most; a full batch holds {}, {}",
            bytes((sum / number.max(1)) as u64),
            bytes(largest as u64),
            plural(items, "item", "items"),
            bytes(weight)
        ))?;
    }
    Ok(())
}
