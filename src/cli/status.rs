//! `status`: one look says whether all is well.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::cli::context::Context;
use crate::model::{Exit, Fault};
use crate::operations;
use crate::telemetry::status_document::{Backfill, InstanceState, RemovedStatus, SectionState, SectionStatus, Status};
use crate::terminal::{Colour, StyledText, bytes, count, plural};

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Look again every two seconds until Ctrl-C
    #[arg(long, short)]
    pub watch: bool,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    let config = Arc::new(context.config()?.clone());
    if !args.watch {
        let status = operations::status(&config).await?;
        if context.json() {
            context.output.document(&status)?;
        } else {
            show(context, &status)?;
        }
        return Ok(if is_well(&status) { Exit::Done } else { Exit::Findings });
    }
    loop {
        let status = operations::status(&config).await;
        if context.json() {
            // One document a look, each on a line of its own.
            let status = status?;
            let line = serde_json::to_string(&status).map_err(|error| Fault::bug(error.to_string()))?;
            context.output.line(line)?;
        } else {
            if context.output.is_terminal() {
                context.output.raw("\x1b[H\x1b[2J")?;
            }
            let now = Timestamp::now().strftime("%Y-%m-%d %H:%M:%SZ");
            context
                .output
                .line(context.output.paint(Colour::Dim, format!("{now}, every 2 s; Ctrl-C ends this view")))?;
            match status {
                Ok(status) => show(context, &status)?,
                Err(fault) => context.output.line(fault.to_string())?,
            }
            context.output.line("")?;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// Whether nobody needs to look: an instance runs, or waits as standby; the rows of every section flow, but of those that a
/// person switched off or paused; and no gap is open.
fn is_well(status: &Status) -> bool {
    let state = match status.state {
        InstanceState::Running => status.ready,
        InstanceState::Standby => true,
        InstanceState::Starting | InstanceState::Draining | InstanceState::Stalled | InstanceState::NeedsPerson => {
            false
        }
    };
    let is_well = |section: &SectionStatus| match section.state {
        SectionState::Off => true,
        SectionState::Paused => section.open_gaps.unwrap_or(0) == 0,
        SectionState::Halted => false,
        // A standby has nothing that flows.
        SectionState::Waiting | SectionState::Backfilling | SectionState::Streaming | SectionState::Comparing => {
            (section.flows || status.state == InstanceState::Standby) && section.open_gaps.unwrap_or(0) == 0
        }
    };
    state && status.removed.is_empty() && status.sections.iter().all(is_well)
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
    if let Some(text) = &status.message {
        output.prose(text, "  ")?;
    }
    if let Some(remedy) = &status.remedy {
        output.remedy(remedy, "  ")?;
    }
    slot(context, status)?;
    output.line("")?;
    let now = Timestamp::now();
    let flows = matches!(status.state, InstanceState::Running | InstanceState::Draining);
    let rows = status.sections.iter().map(|section| row(section, flows, now));
    output.table(&["section", "state", "delivered", "quarantined", "lag", "last delivery", "backfill"], rows)?;
    for section in &status.sections {
        notes(context, section)?;
    }
    for RemovedStatus { section, open_gaps } in &status.removed {
        let are = plural(*open_gaps, "gap is", "gaps are");
        output.prose(
            &format!(
                "{section} is not in the file, and {are} open: its rows committed since are delivered by nobody. Put the section back \
                 and `pg2planhat repair --gap` to deliver them; or give them up by `pg2planhat repair --accept-loss`, which may be \
                 done while the instance runs"
            ),
            "",
        )?;
    }
    Ok(())
}

fn slot(context: &Context, status: &Status) -> Result<(), Fault> {
    let slot = &status.slot;
    let Some(lag) = slot.confirmed_lag_bytes else { return Ok(()) };
    let retained = slot.retained_bytes.map(|held| format!(", {} kept", bytes(held))).unwrap_or_default();
    let until = slot.seconds_until_lost.map(|seconds| format!(", lost in {}", time(seconds)));
    let safe = slot.safe_wal_bytes.map(|safe| format!(", {} of WAL headroom", bytes(u64::try_from(safe).unwrap_or(0))));
    let bound = until.or(safe).unwrap_or_default();
    context.output.line(format!("slot {}: {} behind{retained}{bound}", status.instance.slot, bytes(lag)))
}

fn row(section: &SectionStatus, flows: bool, now: Timestamp) -> [StyledText; 7] {
    let colour = match section.state {
        // As it was when an instance last ran.
        SectionState::Streaming | SectionState::Comparing | SectionState::Backfilling if !flows => Colour::Dim,
        SectionState::Streaming | SectionState::Comparing => Colour::Green,
        SectionState::Waiting | SectionState::Backfilling | SectionState::Paused => Colour::Yellow,
        SectionState::Halted => Colour::Red,
        SectionState::Off => Colour::Dim,
    };
    let backfill = match &section.backfill {
        None => "-".to_owned(),
        Some(_) if !matches!(section.state, SectionState::Backfilling) => "done".to_owned(),
        Some(backfill) => percent(backfill).map_or_else(|| count(backfill.rows), |part| format!("{part}%")),
    };
    let last = section.last_delivered_at.as_ref().and_then(|at| at.parse::<Timestamp>().ok());
    // What is there now; the total where only that is known.
    let rows = section.quarantined_now.unwrap_or(section.rows_quarantined);
    let quarantined = count(rows);
    [
        section.name.clone().into(),
        StyledText::painted(colour, section.state.to_string()),
        count(section.rows_delivered).into(),
        if rows > 0 { StyledText::painted(Colour::Yellow, quarantined) } else { quarantined.into() },
        section.lag_seconds.map_or_else(|| "-".to_owned(), time).into(),
        last.map_or_else(
            || "-".to_owned(),
            |at| format!("{} ago", time(now.duration_since(at).as_secs_f64().max(0.0))),
        )
        .into(),
        backfill.into(),
    ]
}

fn percent(backfill: &Backfill) -> Option<u64> {
    let of = backfill.estimated.filter(|estimated| *estimated > 0)?;
    Some(backfill.rows.min(of) * 100 / of)
}

/// What the table has no room for: a backfill's way, why a section does not flow, what was in doubt.
fn notes(context: &Context, section: &SectionStatus) -> Result<(), Fault> {
    let output = context.output;
    if let (SectionState::Backfilling, Some(backfill)) = (section.state, &section.backfill)
        && let (Some(part), Some(of)) = (percent(backfill), backfill.estimated)
    {
        let full = usize::try_from(part / 5).unwrap_or(0).min(20);
        let bar = format!("{}{}", "█".repeat(full), "░".repeat(20 - full));
        let left = backfill.eta_seconds.map(|eta| format!(", {} left", time(eta))).unwrap_or_default();
        let bar = output.paint(Colour::Green, bar);
        output.line(format!("{}: {bar} {} of about {}{left}", section.name, count(backfill.rows), count(of)))?;
    }
    if let Some(reason) = &section.reason {
        output.prose(&format!("{}: {reason}", section.name), "")?;
        if let Some(remedy) = &section.remedy {
            output.remedy(remedy, "  ")?;
        }
    }
    for note in [gaps(section), quarantine(section), doubt(section)].into_iter().flatten() {
        output.prose(&note, "")?;
    }
    Ok(())
}

/// Stretches whose rows may be missing.
fn gaps(section: &SectionStatus) -> Option<String> {
    let open = section.open_gaps.filter(|open| *open > 0 && section.state != SectionState::Off)?;
    let (name, are) = (&section.name, plural(open, "gap is", "gaps are"));
    Some(format!(
        "{name}: {are} open, rows of that time may be missing; `pg2planhat audit {name}` names them, and closes the gap where none \
         is missing. Deliver them by `pg2planhat audit {name} --deliver-missing` and audit again; or by `pg2planhat resync {name}`, \
         whose end closes what it covers; or by `pg2planhat repair --gap`: by two of these they would count twice"
    ))
}

/// The total of the quarantine, where it is not what is there now.
fn quarantine(section: &SectionStatus) -> Option<String> {
    let now = section.quarantined_now.filter(|now| *now != section.rows_quarantined)?;
    Some(format!(
        "{}: {} quarantined now, {} ever; see `pg2planhat quarantine list --section {}`",
        section.name,
        plural(now, "row is", "rows are"),
        count(section.rows_quarantined),
        section.name
    ))
}

/// What is in doubt now, and what ever was.
fn doubt(section: &SectionStatus) -> Option<String> {
    if section.rows_in_doubt == 0 && section.in_doubt_now == 0 {
        return None;
    }
    let now = match section.in_doubt_now {
        0 => "none is now".to_owned(),
        now => format!("{} now", plural(now, "row is", "rows are")),
    };
    Some(format!(
        "{}: {} been in doubt, {} sent again, {now}; see `pg2planhat logs {} --outcome resent --outcome held`",
        section.name,
        plural(section.rows_in_doubt, "row has", "rows have"),
        count(section.rows_resent),
        section.name
    ))
}

/// A time for people: `3 s`, `12 min`, `5 h`, `3 d`.
fn time(seconds: f64) -> String {
    let units = [(86_400.0, "d"), (3_600.0, "h"), (60.0, "min")];
    match units.iter().find(|(length, _)| seconds >= 2.0 * length) {
        Some((length, unit)) => format!("{:.0} {unit}", seconds / length),
        None => format!("{seconds:.0} s"),
    }
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
}
