//! `repair`: mend a slot that is missing, lost or was moved.

use std::sync::Arc;

use crate::cli::context::Context;
use crate::model::{Exit, Fault};
use crate::operations::{Mend, RemovedGaps, Repair, RepairPlan, SectionPlan};
use crate::terminal::{bytes, plural, wrapped};

/// Arguments of `repair`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How
    #[command(flatten)]
    pub how: How,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

/// The ways to mend.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct How {
    /// New slot; read again the rows that came after the last checkpoint
    #[arg(long)]
    pub gap: bool,
    /// New slot; deliver every row again
    #[arg(long)]
    pub backfill: bool,
    /// New slot; rows in between are not delivered
    #[arg(long)]
    pub accept_loss: bool,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    let how = match args.how {
        How { gap: true, .. } => Mend::Gap,
        How { backfill: true, .. } => Mend::Backfill,
        How { .. } => Mend::AcceptLoss,
    };
    let config = Arc::new(context.config()?.clone());
    let removed = RemovedGaps::look(&config).await?;
    let looked = Repair::look(&config, how).await;
    if let (Some(removed), Ok(None)) | (Some(removed), Err(Fault { exit: Exit::Unavailable, .. })) = (&removed, &looked)
    {
        let whose = removed.said();
        if how != Mend::AcceptLoss {
            looked?;
            let text = format!(
                "There is nothing to mend of the sections in the file. Open are gaps of sections that are not in it: {whose}. Put those \
                 back and repair again, or give their rows up: `pg2planhat repair --accept-loss`."
            );
            return said(context, None, &wrapped(&text, "", "", 80));
        }
        return give_up(context, args.yes, removed).await;
    }
    let Some(repair) = looked? else {
        return said(context, None, "There is nothing to mend: slot, publication and state belong together.");
    };
    if !context.confirm(&question(how, &repair.plan), args.yes)? {
        return said(context, None, "Nothing was done.");
    }
    let plan = repair.run().await?;
    said(context, Some(&plan), "Done, and recorded. `pg2planhat run` goes on from here.")
}

/// Closes the gaps of sections that are not in the file: an instance may run meanwhile.
async fn give_up(context: &Context, yes: bool, removed: &RemovedGaps) -> Result<Exit, Fault> {
    let whose = removed.said();
    let asked = format!(
        "Gaps are open of sections that are not in the file: {whose}. Their rows are given up: they are never delivered."
    );
    if !context.confirm(&wrapped(&asked, "", "", 80), yes)? {
        return said(context, None, "Nothing was done.");
    }
    removed.give_up().await?;
    said(context, None, "Done, and recorded: these gaps are closed.")
}

fn question(how: Mend, plan: &RepairPlan) -> String {
    let mut lines = vec![plan.what.clone()];
    let wal = plan.wal_bytes.map(|wal| format!(" ({} of WAL up to now)", bytes(wal))).unwrap_or_default();
    if !plan.other_history {
        lines
            .push(format!("Settled is everything before {}; the gap is what was committed since{wal}.", plan.from_lsn));
    }
    lines.push(if plan.new_slot {
        "The slot is made anew (and the publication, where it is missing).".to_owned()
    } else {
        "The slot is kept: what it still has is streamed.".to_owned()
    });
    match how {
        Mend::AcceptLoss if plan.brings_again() => lines.push(
            "Every row that this server has from the slot's position on is delivered. Those of them that Planhat has already \
             it will count twice; they are among:"
                .to_owned(),
        ),
        Mend::AcceptLoss => lines.push("Rows committed in the gap are given up: they are never delivered.".to_owned()),
        Mend::Gap => lines.push(format!(
            "No row committed in the gap is lost: the rows that transaction {} or a later one wrote, or updated, are read \
             again and delivered. Those of them that Planhat has already it will count twice. They are among:",
            plan.xmin_floor.unwrap_or_default()
        )),
        Mend::Backfill => lines.push(
            "No row is lost: every row is delivered again. Those that Planhat has already it will count twice. They are \
             among:"
                .to_owned(),
        ),
    }
    let mut text: Vec<String> = lines.iter().map(|line| wrapped(line, "", "", 80)).collect();
    let named = |section: &SectionPlan| match plan.brings_again() {
        true => section.rows.map_or_else(String::new, |rows| format!("up to {}", plural(rows, "row", "rows"))),
        false => rows(section),
    };
    if how != Mend::AcceptLoss || plan.brings_again() {
        text.extend(plan.sections.iter().map(|section| format!("  {}: {}", section.section, named(section))));
    }
    text.join("\n")
}

/// Which rows of a section come (again).
fn rows(section: &SectionPlan) -> String {
    let all = if section.xmin_floor.is_none() { ", which is every row" } else { "" };
    let rows = match section.rows {
        None => return format!("more rows than could be counted in time{all}"),
        Some(rows) => plural(rows, "row", "rows"),
    };
    match &section.keys {
        Some((first, last)) if first != last => format!("{rows}, keys {first}…{last}{all}"),
        Some((only, _)) => format!("{rows}, key {only}{all}"),
        None => rows,
    }
}

fn said(context: &Context, plan: Option<&RepairPlan>, text: &str) -> Result<Exit, Fault> {
    if context.json() {
        context.output.document(&serde_json::json!({ "repaired": plan }))?;
    } else {
        context.output.line(text)?;
    }
    Ok(Exit::Done)
}
