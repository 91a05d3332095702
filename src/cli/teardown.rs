//! `teardown`: drop slot, publication and state schema.

use std::sync::Arc;

use crate::cli::context::Context;
use crate::model::{Exit, Fault};
use crate::operations::{Teardown, TeardownPlan};
use crate::terminal::plural;

/// Arguments of `teardown`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    let teardown = Teardown::look(&Arc::new(context.config()?.clone())).await?;
    let plan = teardown.plan.clone();
    if plan.is_empty() {
        return said(context, &plan, "There is nothing to drop.");
    }
    if !context.confirm(&question(&plan), args.yes)? {
        return said(context, &TeardownPlan::default(), "Nothing was dropped.");
    }
    let dropped = teardown.run().await?;
    let text = match dropped.kept.is_empty() {
        true => "Slot, publication and state schema are gone; roles and grants are as they were.",
        false => "Slot and state schema are gone; roles and grants are as they were.",
    };
    said(context, &dropped, text)
}

fn question(plan: &TeardownPlan) -> String {
    let mut lines = vec!["This will be dropped:".to_owned()];
    lines.extend(plan.slots().map(|name| format!("  the replication slot {name}")));
    lines.extend(plan.publications().map(|name| format!("  the publication {name}")));
    lines.extend(plan.state_schema.as_ref().map(|name| {
        let held = match plan.quarantined {
            0 => String::new(),
            rows => format!(", and {} in quarantine", plural(rows, "row", "rows")),
        };
        format!("  the schema {name}: the ledger, the checkpoints{held}")
    }));
    lines.extend(kept(plan));
    lines.push("Running again afterwards begins anew, and delivers old rows a second time.".to_owned());
    lines.join("\n")
}

/// What stays, and why.
fn kept(plan: &TeardownPlan) -> impl Iterator<Item = String> {
    plan.kept.iter().map(|kept| format!("The publication stays: {kept}"))
}

fn said(context: &Context, dropped: &TeardownPlan, text: &str) -> Result<Exit, Fault> {
    if context.json() {
        context.output.document(&serde_json::json!({ "dropped": dropped }))?;
    } else {
        context.output.line(text)?;
        for line in kept(dropped) {
            context.output.line(line)?;
        }
    }
    Ok(Exit::Done)
}
