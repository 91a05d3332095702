//! `check`: everything that can be known before running.

use serde::Serialize;

use crate::cli::context::Context;
use crate::model::{Exit, Fault, Finding, Severity};
use crate::operations;
use crate::terminal::{Colour, plural, wrapped};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// The JSON form.
#[derive(Debug, Serialize)]
struct CheckDocument<'a> {
    findings: &'a [Finding],
}

/// Runs the command.
pub(crate) async fn run(context: &Context, _args: Args) -> Result<Exit, Fault> {
    let config = context.config()?;
    let findings = operations::check(config).await;
    if context.json() {
        context.output.document(&CheckDocument { findings: &findings })?;
    } else {
        print(context, &findings)?;
    }
    let errors = findings.iter().any(|finding| finding.severity == Severity::Error);
    Ok(if errors { Exit::Findings } else { Exit::Done })
}

fn print(context: &Context, findings: &[Finding]) -> Result<(), Fault> {
    let output = context.output;
    for finding in findings {
        let (sign, colour) = match finding.severity {
            Severity::Error => ("error", Colour::Red),
            Severity::Warning => ("warning", Colour::Yellow),
            Severity::Info => ("info", Colour::Dim),
            Severity::Ok => ("ok", Colour::Green),
        };
        let text = wrapped(&format!("{}: {}", finding.subject, finding.message), BEHIND, BEHIND, output.width());
        output.line(format!("{} {}", output.paint(colour, format!("{sign:<7}")), text.trim_start()))?;
        if !finding.remedy.is_empty() {
            output.remedy(&finding.remedy, BEHIND)?;
        }
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count() as u64;
    let (errors, warnings) = (count(Severity::Error), plural(count(Severity::Warning), "warning", "warnings"));
    let verdict = match errors {
        0 => output.paint(Colour::Green, format!("ready to run: no errors, {warnings}")),
        _ => output.paint(Colour::Red, format!("not ready: {}, {warnings}", plural(errors, "error", "errors"))),
    };
    output.line(format!("\n{verdict}"))
}

/// The indent of what belongs to a finding.
const BEHIND: &str = "        ";
