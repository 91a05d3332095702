//! `status`: one look says whether all is well.

use std::sync::Arc;
use std::time::Duration;

use super::output::{bytes, count};
use super::{Colour, Context};
use crate::fault::{Exit, Fault};
use crate::pipeline::operate;
use crate::telemetry::status::{InstanceState, SectionState, SectionStatus, Status};

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Look again every two seconds until Ctrl-C
    #[arg(long, short)]
    pub watch: bool,
}

/// Runs the command.
///
/// # Errors
/// Where neither a running instance nor the state and the source can be reached.
pub async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    let config = Arc::new(context.config()?.clone());
    if !args.watch {
        let status = operate::status(&config).await?;
        if context.json() {
            context.output.document(&status)?;
        } else {
            show(context, &status)?;
        }
        return Ok(Exit::Done);
    }
    loop {
        let status = operate::status(&config).await;
        if context.json() {
            // One document a look, each on a line of its own.
            let status = status?;
            let line = serde_json::to_string(&status).map_err(|error| Fault::bug(error.to_string()))?;
            context.output.line(line)?;
        } else {
            if context.output.is_terminal() {
                context.output.raw("\x1b[H\x1b[2J")?;
            }
            match status {
                Ok(status) => show(context, &status)?,
                Err(fault) => context.output.line(fault.to_string())?,
            }
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

fn show(context: &Context, status: &Status) -> Result<(), Fault> {
    let output = context.output;
    let colour = match status.state {
        InstanceState::Running => Colour::Green,
        InstanceState::Starting | InstanceState::Standby | InstanceState::Draining => Colour::Yellow,
        InstanceState::Stalled | InstanceState::NeedsPerson => Colour::Red,
    };
    let reason = status.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    output.line(format!("{}{reason}", output.paint(colour, status.state.as_str())))?;
    for (word, text) in [("", &status.message), ("remedy: ", &status.remedy)] {
        if let Some(text) = text {
            output.line(wrapped(&format!("{word}{text}"), "  "))?;
        }
    }
    let slot = &status.slot;
    if let Some(lag) = slot.confirmed_lag_bytes {
        let retained = slot.retained_bytes.map(|held| format!(", {} kept", bytes(held))).unwrap_or_default();
        let until = slot.seconds_until_lost.map(|seconds| format!(", lost in {}", time(seconds)));
        let safe =
            slot.safe_wal_bytes.map(|safe| format!(", {} until it is lost", bytes(u64::try_from(safe).unwrap_or(0))));
        let bound = until.or(safe).unwrap_or_default();
        output.line(format!("slot {}: {} behind{retained}{bound}", status.instance.slot, bytes(lag)))?;
    }
    output.line("")?;
    let rows = status.sections.iter().map(row);
    output.table(&["section", "state", "delivered", "quarantined", "in doubt", "lag", "backfill"], rows)?;
    for section in &status.sections {
        if let Some(reason) = &section.reason {
            output.line(wrapped(&format!("{}: {reason}", section.name), ""))?;
            if let Some(remedy) = &section.remedy {
                output.line(wrapped(&format!("remedy: {remedy}"), "  "))?;
            }
        }
    }
    Ok(())
}

fn row(section: &SectionStatus) -> [String; 7] {
    let backfill = match &section.backfill {
        None => "-".to_owned(),
        Some(_) if !matches!(section.state, SectionState::Backfilling) => "done".to_owned(),
        Some(backfill) => {
            let of = backfill.estimated.filter(|estimated| *estimated > 0);
            let part = of.map(|of| format!("{}%", backfill.rows.min(of) * 100 / of));
            let left = backfill.eta_seconds.map(|eta| format!(", {} left", time(eta)));
            format!("{}{}", part.unwrap_or_else(|| count(backfill.rows)), left.unwrap_or_default())
        }
    };
    [
        section.name.clone(),
        section.state.to_string(),
        count(section.rows_delivered),
        count(section.rows_quarantined),
        count(section.rows_in_doubt),
        section.lag_seconds.map_or_else(|| "-".to_owned(), time),
        backfill,
    ]
}

/// A time for people: `3 s`, `12 min`, `5 h`, `3 d`.
fn time(seconds: f64) -> String {
    let units = [(86_400.0, "d"), (3_600.0, "h"), (60.0, "min")];
    match units.iter().find(|(length, _)| seconds >= 2.0 * length) {
        Some((length, unit)) => format!("{:.0} {unit}", seconds / length),
        None => format!("{seconds:.0} s"),
    }
}

/// Text in lines of at most 80 columns, each behind `indent`.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in super::output::printable(text).split_whitespace() {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if line.is_empty() {
            line.push_str(word);
        } else if indent.len() + line.chars().count() + 1 + word.chars().count() <= 80 {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.iter().map(|line| format!("{indent}{line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        for (seconds, shown) in [(0.4, "0 s"), (119.0, "119 s"), (600.0, "10 min"), (7200.0, "2 h"), (1e6, "12 d")] {
            assert_eq!(time(seconds), shown);
        }
    }

    #[test]
    fn text_is_wrapped_at_80_columns() {
        let text = wrapped(&"word ".repeat(40), "  ");
        assert!(text.lines().count() == 3 && text.lines().all(|line| line.len() <= 80 && line.starts_with("  word")));
        assert_eq!(wrapped("", "  "), "  ");
    }
}
