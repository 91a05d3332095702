//! `resync`: deliver again from a key, a time or the start.

use std::sync::Arc;
use std::time::Duration;

use crate::cli::context::Context;
use crate::config::{Kind, Section};
use crate::model::{Exit, Fault};
use crate::operations;
use crate::terminal::{plural, wrapped};

/// Arguments of `resync`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The section
    pub section: String,
    /// Where to begin
    #[command(flatten)]
    pub from: FromArgs,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

/// Where a re-sync begins.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct FromArgs {
    /// Rows behind this key
    #[arg(long, value_name = "K", allow_hyphen_values = true)]
    pub from_key: Option<String>,
    /// Rows of this time and later: RFC 3339, or an age such as 2h
    #[arg(long, value_name = "T")]
    pub from_time: Option<String>,
    /// Every row
    #[arg(long)]
    pub all: bool,
}

/// How long the running instance may take to obey, before this command leaves it to itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the command.
pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    let config = Arc::new(context.config()?.clone());
    let section = context.section(&args.section)?;
    if !section.is_on() {
        return Err(Fault::usage(format!("section {} is off", section.name), "set `sync: receive`, and restart"));
    }
    let store = operations::store(&config).await?;
    let from = match (&args.from.from_key, &args.from.from_time) {
        (Some(key), _) => operations::ResyncFrom::Key(key.clone()),
        (None, Some(time)) => {
            let wrong = |_| Fault::usage(format!("{time:?} is no time"), operations::times::TIMES);
            operations::ResyncFrom::Time(operations::times::time(time).map_err(wrong)?)
        }
        (None, None) => operations::ResyncFrom::All,
    };
    let Some(plan) = operations::plan_resync(&config, section, &from).await? else {
        let plan = operations::ResyncPlan {
            section: section.name.to_string(),
            key: String::new(),
            from: None,
            rows: 0,
            counted: true,
            closes_gaps: Vec::new(),
            leaves_gaps: Vec::new(),
        };
        return say(context, &Said { plan, event: None, result: Some("there are no such rows".to_owned()) });
    };
    if args.yes && !context.json() {
        context.output.line(question(section, &plan))?;
    }
    if !context.confirm(&question(section, &plan), args.yes)? {
        return say(context, &Said { plan, event: None, result: Some("nothing was done".to_owned()) });
    }
    let event = operations::ask_resync(&store, section, &plan).await?;
    let mut result = None;
    if operations::holder(&config).await.is_some() {
        result = operations::result_of(&store, event, PATIENCE).await?;
    }
    if let Some(refused) = result.as_ref().and_then(|result| result.strip_prefix("refused: ")) {
        let what = format!("the running instance refused: {refused}");
        return Err(Fault::usage(what, format!("look at `pg2planhat status`, then re-sync {} again", section.name)));
    }
    say(context, &Said { plan, event: Some(event), result })
}

fn question(section: &Section, plan: &operations::ResyncPlan) -> String {
    let about = if plan.counted { "" } else { "about " };
    let from = plan.from.as_ref().map_or_else(String::new, |key| format!(" with {} > {key}", plan.key));
    let harm = match section.kind {
        Kind::UserActivity => "Planhat keeps what it has: each of these activities will be counted twice.",
        Kind::CustomMetric(_) => {
            "Planhat keeps what it has: a metric shown as SUM will count these rows twice; one shown as LAST stays right."
        }
    };
    let mut harm = wrapped(harm, "", "", 80);
    if section.fields.iter().all(|(name, _)| name != "date") {
        let undated = "No column is mapped to `date`, and the time of a row's commit is known only while it is streamed: \
                       Planhat will date these rows by their receipt.";
        harm = format!("{harm}\n{}", wrapped(undated, "", "", 80));
    }
    let harm = [Some(harm), gaps(plan)].into_iter().flatten().collect::<Vec<_>>().join("\n");
    format!("{about}{} of {}{from} will be delivered again.\n{harm}", plural(plan.rows, "row", "rows"), section.name)
}

/// What it is to the section's open gaps.
fn gaps(plan: &operations::ResyncPlan) -> Option<String> {
    let remedy = "take --all; or begin at an earlier key; or, if you know that it has none, close it with `pg2planhat repair \
                  --accept-loss` afterwards.";
    let lines: Vec<String> = plan.about_gaps(remedy).iter().map(|line| wrapped(line, "", "", 80)).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// What came of it.
#[derive(serde::Serialize)]
struct Said {
    #[serde(flatten)]
    plan: operations::ResyncPlan,
    /// The event that asks the running instance.
    event: Option<i64>,
    /// What came of it; none where no instance has obeyed yet.
    result: Option<String>,
}

fn say(context: &Context, said: &Said) -> Result<Exit, Fault> {
    if context.json() {
        context.output.document(said)?;
        return Ok(Exit::Done);
    }
    context.output.line(match &said.result {
        Some(result) if result == "begun" || result.starts_with("begun:") => {
            "The re-sync has begun; `pg2planhat status` shows how far it is."
        }
        Some(result) => result,
        None => "Asked. No running instance has obeyed yet; one that runs, or starts, will.",
    })?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_75_a_resync_that_cannot_know_the_date_says_so_before_it_is_begun() {
        let asked = |date: &str| {
            let text = format!(
                "source: {{host: h, database: d, user: u}}\nplanhat: {{tenant: t}}\nsections:\n  - {{name: m, kind: custom_metric, \
                 model: Company, table: t, key: id, fields: {{dimensionId: n, value: v, externalId: e{date}}}}}\n"
            );
            let config = crate::config::parse(&text, "test").unwrap();
            let plan = operations::ResyncPlan {
                section: "m".to_owned(),
                key: "id".to_owned(),
                from: None,
                rows: 3,
                counted: true,
                closes_gaps: vec![7],
                leaves_gaps: vec![8, 9],
            };
            question(&config.sections[0], &plan)
        };
        assert!(asked("").contains("by their receipt"), "{}", asked(""));
        assert!(!asked(", date: d").contains("receipt"), "{}", asked(", date: d"));
        let said = asked("");
        assert!(said.contains("closes the open gap 7") && said.contains("gap 8, 9 may have rows beside"), "{said}");
    }
}
