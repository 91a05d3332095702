//! `audit`: the source held against what was settled.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cli::context::Context;
use crate::config::Section;
use crate::model::{Exit, Fault};
use crate::operations;
use crate::runtime::audit_report::AuditReport;
use crate::terminal::{count, plural};

/// Arguments of `audit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The section
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub section: Option<String>,
    /// Every section that is on
    #[arg(long)]
    pub all: bool,
    /// Only rows of this time and later: RFC 3339, or an age such as 2h
    #[arg(long, value_name = "T", value_parser = crate::operations::times::time)]
    pub since: Option<jiff::Timestamp>,
    /// Only rows with a key greater than this
    #[arg(long, value_name = "K", allow_hyphen_values = true, conflicts_with_all = ["since", "all"])]
    pub from_key: Option<String>,
    /// Deliver what is missing, after asking
    #[arg(long)]
    pub deliver_missing: bool,
    /// Deliver it without asking
    #[arg(long, requires = "deliver_missing")]
    pub yes: bool,
}

/// How often progress is told.
const TOLD: Duration = Duration::from_secs(5);

/// Runs the command: exit 1 where anything is missing; else where a section could not be audited, that fault's.
pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    let config = Arc::new(context.config()?.clone());
    let sections: Vec<&Section> = match &args.section {
        Some(name) => vec![context.section(name)?],
        None => config.sections.iter().filter(|section| section.is_on()).collect(),
    };
    let store = operations::store(&config).await?;
    let from = operations::AuditFrom { key: args.from_key, time: args.since };
    let (mut audited, mut reports, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    let mut patience = operations::audit::PATIENCE;
    for section in sections {
        let mut told = Instant::now();
        let begun = Instant::now();
        let mut progress = |rows: u64, about: f64| {
            if told.elapsed() >= TOLD && std::io::stderr().is_terminal() {
                told = Instant::now();
                let left = seconds_left(begun.elapsed(), rows, about).map(|left| format!("{left:.0}"));
                tracing::warn!(section = %section.name, rows, seconds_left = left, "looking at the rows of the source");
            }
        };
        match operations::audit(&config, &store, section, &from, (&mut progress, &mut patience)).await {
            Ok(report) => {
                audited.push(section);
                reports.push(report);
            }
            // One that cannot be audited hides nothing of the others.
            Err(fault) if fault.what.starts_with("section ") => failed.push(fault),
            Err(fault) => failed.push(Fault { what: format!("section {}: {}", section.name, fault.what), ..fault }),
        }
    }
    if args.section.is_some() && !failed.is_empty() {
        return Err(failed.remove(0));
    }
    let missing: u64 = reports.iter().map(|report| report.missing).sum();
    if context.json() {
        context.output.document(&reports)?;
    } else {
        reports.iter().try_for_each(|report| say(context, report))?;
    }
    if missing > 0 && args.deliver_missing {
        let rows = plural(missing, "row", "rows");
        if context.confirm(&format!("{rows} will be delivered now, by way of the quarantine."), args.yes)? {
            for (section, report) in audited.iter().zip(&reports).filter(|(_, report)| report.missing > 0) {
                operations::deliver_missing(&store, section, report).await?;
            }
            context.output.line("Asked. A running instance sends them; `pg2planhat logs` shows the batches.")?;
        }
    }
    if missing == 0 && failed.len() == 1 {
        return Err(failed.remove(0));
    }
    for fault in &failed {
        tracing::warn!(what = fault.what, remedy = fault.remedy, "a section could not be audited");
    }
    let worst = failed.into_iter().map(|fault| fault.exit).next().unwrap_or(Exit::Done);
    Ok(if missing > 0 { Exit::Findings } else { worst })
}

/// How long it still takes, at the rate so far; `None` where the planner's estimate is no help.
fn seconds_left(elapsed: Duration, rows: u64, about: f64) -> Option<f64> {
    let left = about - rows as f64;
    (left > 0.0).then(|| elapsed.as_secs_f64() * left / rows.max(1) as f64)
}

fn say(context: &Context, report: &AuditReport) -> Result<(), Fault> {
    let output = context.output;
    let verdict = match (report.missing, report.unknown) {
        (0, 0) => "nothing is missing".to_owned(),
        (0, unknown) => format!("nothing is known to be missing; {} cannot be proven", plural(unknown, "row", "rows")),
        (missing, _) => format!("{} missing", plural(missing, "row is", "rows are")),
    };
    output.line(format!("{}: {verdict}", report.section))?;
    let seconds = Duration::from_millis(report.took_ms).as_secs_f64();
    output
        .line(format!("  {} in the source, looked at in {seconds:.1} s", plural(report.rows_source, "row", "rows")))?;
    let counts = [
        ("delivered", report.delivered),
        ("settled, as an earlier audit found; pruned since", report.settled_before),
        ("quarantined", report.quarantined),
        ("filtered", report.filtered),
        ("in doubt", report.in_doubt),
        ("on their way", report.waiting),
        ("from before the section attached", report.before_attach),
        ("unknown", report.unknown),
        ("missing", report.missing),
        ("delivered more than once", report.doubled),
        ("delivered, and deleted at the source since", report.gone),
    ];
    for (what, rows) in counts.iter().filter(|(_, rows)| *rows > 0) {
        output.line(format!("  {:>14}  {what}", count(*rows)))?;
    }
    if let Some(since) = &report.by_key_since {
        let from = report.by_key_from.as_deref().unwrap_or_default();
        let counted = match report.by_count_since.as_deref() {
            Some(counted) => format!("what was sent before, since {counted}, by counts"),
            None => "what was sent before keys were kept is not proven".to_owned(),
        };
        output.prose(&format!("proven by keys: what was sent since {since} (from key {from} on); {counted}"), "  ")?;
    }
    if !report.missing_keys.is_empty() {
        let more = if report.missing > report.missing_keys.len() as u64 { ", …" } else { "" };
        output.prose(&format!("missing keys: {}{more}", report.missing_keys.join(", ")), "  ")?;
    }
    if !report.caveat.is_empty() {
        output.prose(&report.caveat, "  ")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_told_at_the_rate_so_far() {
        let ten = Duration::from_secs(10);
        assert_eq!(seconds_left(ten, 1_000, 4_000.0), Some(30.0));
        assert_eq!(seconds_left(ten, 5_000, 4_000.0), None, "more rows than were expected");
        assert_eq!(seconds_left(ten, 5_000, 0.0), None, "never analyzed");
    }
}
