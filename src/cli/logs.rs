//! `logs`: the ledger, newest last.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::cli::context::Context;
use crate::model::{Exit, Fault, SectionName};
use crate::operations;
use crate::state::{DeliveryFilter, DeliveryRow, Outcome, Store};
use crate::terminal::{Colour, StyledText, bytes, count, plural};

/// Arguments of `logs`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this section
    pub section: Option<String>,
    /// Go on with what comes; with --until, up to that time
    #[arg(long, short)]
    pub follow: bool,
    /// Only this outcome: sending, delivered, partial, in_doubt, resent, held, quarantined; may be repeated
    #[arg(long, value_name = "OUTCOME", value_parser = outcome)]
    pub outcome: Vec<Outcome>,
    /// Only from this time on: RFC 3339, or an age such as 2h
    #[arg(long, value_name = "TIME", value_parser = operations::times::time)]
    pub since: Option<Timestamp>,
    /// Only before this time: RFC 3339, or an age such as 2h
    #[arg(long, value_name = "TIME", value_parser = operations::times::time)]
    pub until: Option<Timestamp>,
    /// The most rows to show
    #[arg(long, short = 'n', value_name = "N", allow_negative_numbers = true, default_value_t = 50)]
    pub limit: u32,
}

/// How often the ledger is looked at for what is new.
const LOOK: Duration = Duration::from_millis(500);
/// How often the state's server is tried again that is away.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs the command. With `--json --follow`, one JSON object a line; a batch comes again when its row changes.
pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    let mut store = operations::store(&Arc::new(context.config()?.clone())).await?;
    if let Some(name) = &args.section {
        // One that the configuration has no more has its history all the same.
        let known = store.sections().await.map_err(|error| error.fault())?;
        if !known.iter().any(|row| row.name.as_str() == name) {
            context.section(name)?;
        }
    }
    let mut filter = DeliveryFilter {
        section: args.section.as_deref().map(SectionName::from),
        outcomes: args.outcome,
        since: args.since,
        until: args.until,
        ..DeliveryFilter::default()
    };
    let mut seen = store.last_change().await.map_err(|error| error.fault())?;
    let mut rows = store.deliveries(&filter, args.limit).await.map_err(|error| error.fault())?;
    rows.reverse();
    let output = context.output;
    if !args.follow {
        if rows.len() >= args.limit as usize && context.json() {
            crate::telemetry::log_writer::say(&format!("the newest {}; -n N shows more", rows.len()));
        }
        if context.json() {
            output.document(&rows)?;
        } else if rows.is_empty() {
            output.line("The ledger has no such batch.")?;
        } else {
            output.table(&HEADERS, rows.iter().map(cells))?;
            for row in rows.iter().filter(|row| !row.error.is_empty()) {
                output.prose(&format!("batch {}: {}", row.id, row.error), "")?;
            }
        }
        return Ok(Exit::Done);
    }
    loop {
        for row in &rows {
            line(context, row)?;
            seen = seen.max(row.changed);
        }
        if filter.until.is_some_and(|until| until <= Timestamp::now()) && rows.len() < 1000 {
            return Ok(Exit::Done);
        }
        if rows.is_empty() || filter.changed_after.is_none() {
            tokio::time::sleep(LOOK).await;
        }
        filter.changed_after = Some(seen);
        rows = match store.deliveries(&filter, 1000).await {
            Ok(rows) => rows,
            Err(error) if store.is_closed() || error.fault().exit == Exit::Unavailable => {
                store = reconnected(context, error.fault()).await?;
                Vec::new()
            }
            Err(error) => return Err(error.fault()),
        };
    }
}

/// Connects again, for as long as the state's server is away: whoever follows is told once, and waits.
async fn reconnected(context: &Context, fault: Fault) -> Result<Store, Fault> {
    tracing::warn!(what = fault.what, "the ledger cannot be read; trying again until it can");
    let config = Arc::new(context.config()?.clone());
    loop {
        match operations::store(&config).await {
            Ok(store) => {
                tracing::warn!("the ledger can be read again");
                return Ok(store);
            }
            Err(fault) if fault.exit == Exit::Unavailable => tokio::time::sleep(PATIENCE).await,
            Err(fault) => return Err(fault),
        }
    }
}

const HEADERS: [&str; 8] = ["id", "when (UTC)", "section", "phase", "rows", "keys", "outcome", "answer"];

fn cells(row: &DeliveryRow) -> [StyledText; 8] {
    let status = row.http_status.map(|status| status.to_string()).unwrap_or_default();
    [
        row.id.to_string().into(),
        // Without the year: the ledger is pruned.
        row.started_at.get(5..19).unwrap_or(&row.started_at).replace('T', " ").into(),
        (&*row.section).into(),
        (&*row.phase).into(),
        count(u64::try_from(row.rows).unwrap_or(0)).into(),
        keys(row).into(),
        StyledText::painted(colour(&row.outcome), &*row.outcome),
        format!("{status}{}", again(row)).into(),
    ]
}

fn again(row: &DeliveryRow) -> String {
    if row.attempts > 1 { format!(" ({} tries)", row.attempts) } else { String::new() }
}

fn colour(outcome: &str) -> Colour {
    match outcome {
        "delivered" => Colour::Green,
        "sending" | "resent" => Colour::Dim,
        "partial" | "held" | "in_doubt" => Colour::Yellow,
        _ => Colour::Red,
    }
}

fn keys(row: &DeliveryRow) -> String {
    if row.first_key == row.last_key { row.first_key.clone() } else { format!("{}…{}", row.first_key, row.last_key) }
}

fn answer(row: &DeliveryRow) -> String {
    // The reason may begin with it.
    let status = row.http_status.map(|status| status.to_string()).filter(|status| !row.error.starts_with(&**status));
    let status = status.unwrap_or_default();
    format!("{status} {}{}", row.error, again(row)).trim().to_owned()
}

fn line(context: &Context, row: &DeliveryRow) -> Result<(), Fault> {
    if context.json() {
        let text = serde_json::to_string(row).map_err(|error| Fault::bug(error.to_string()))?;
        return context.output.line(text);
    }
    let outcome = context.output.paint(colour(&row.outcome), &row.outcome);
    let at = row.finished_at.as_deref().unwrap_or(&row.started_at);
    let size = bytes(u64::try_from(row.bytes).unwrap_or(0));
    let rows = plural(u64::try_from(row.rows).unwrap_or(0), "row", "rows");
    let answer = crate::terminal::printable(&answer(row));
    let text = format!("{at} {} #{} {}: {rows}, {size}, keys {}", row.section, row.id, row.phase, keys(row));
    context.output.line(format!("{} {outcome} {answer}", crate::terminal::printable(&text)).trim_end())
}

fn outcome(word: &str) -> Result<Outcome, String> {
    Outcome::parse(word).ok_or_else(|| {
        let known: Vec<&str> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
        format!("choose of {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_that_is_none_is_refused_with_the_choice() {
        assert!(outcome("lost").unwrap_err().contains("delivered"));
    }
}
