//! `check`: everything that can be known before running.

use serde::Serialize;

use super::{Colour, Context};
use crate::config::{self, Config};
use crate::fault::{Exit, Fault, Finding, Severity};
use crate::mapping::Mapping;
use crate::planhat;
use crate::postgres::preflight::{self, Examination};
use crate::postgres::sql::{connect_sql, connect_url};
use crate::state::{Schema, Store};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// The JSON form.
#[derive(Debug, Serialize)]
struct Document<'a> {
    findings: &'a [Finding],
}

/// Runs the command.
///
/// # Errors
/// A configuration that cannot be read; everything else is a finding.
pub async fn run(context: &Context, _args: Args) -> Result<Exit, Fault> {
    let config = context.config()?;
    let mut findings = config::advice(config);
    let mut examination = preflight::examine(config).await;
    findings.append(&mut examination.findings);
    mappings(config, &examination, &mut findings);
    if examination.role.is_some() || config.state.url.is_some() {
        findings.push(state(config).await);
    }
    findings.push(planhat::probe(&config.planhat).await);
    findings.sort_by_key(|finding| finding.severity);
    if context.json() {
        context.output.document(&Document { findings: &findings })?;
    } else {
        print(context, &findings)?;
    }
    let errors = findings.iter().any(|finding| finding.severity == Severity::Error);
    Ok(if errors { Exit::Findings } else { Exit::Done })
}

/// Whether the fields of every section fit the columns of its table.
fn mappings(config: &Config, examination: &Examination, findings: &mut Vec<Finding>) {
    for section in config.sections.iter().filter(|section| section.is_on()) {
        let Some(columns) = examination.columns.get(&section.table) else { continue };
        if let Err(faults) = Mapping::compile(section, config.planhat.bulk_activity_names, columns) {
            findings.extend(faults.iter().map(|fault| {
                Finding::error(fault.code(), format!("section {}", section.name), fault.to_string(), fault.remedy())
            }));
        }
    }
}

/// Whether the state schema is there, or can be made.
async fn state(config: &Config) -> Finding {
    let subject = format!("state schema {}", config.state.schema);
    let looked = async {
        let session = match &config.state.url {
            Some(url) => connect_url(url, "check").await?,
            None => connect_sql(&config.source, "check").await?,
        };
        let asked = "SELECT has_database_privilege(current_database(), 'CREATE'), current_database()::text,
            (SELECT pg_has_role(nspowner, 'USAGE') OR has_schema_privilege(oid, 'CREATE') FROM pg_catalog.pg_namespace
             WHERE nspname = $1)";
        let row = session.query_one(asked, &[&config.state.schema]).await.map_err(|error| session.fault(&error))?;
        let (create, database, schema): (bool, String, Option<bool>) = (row.get(0), row.get(1), row.get(2));
        let store = Store::new(session.into_client(), Schema::new(&config.state.schema)?).await;
        let there = store.map_err(|error| error.fault())?.is_there().await.map_err(|error| error.fault())?;
        Ok::<_, Fault>((there, schema.unwrap_or(create), database))
    };
    let by_hand = "let a DBA run the script of `pg2planhat setup --print-sql`";
    match looked.await {
        Ok((true, ..)) => Finding::ok("state", subject, "it is there, in this program's version"),
        Ok((false, ..)) if !config.source.manage => {
            Finding::error("state_missing", subject, "it is not there, and `source.manage` is false", by_hand)
        }
        Ok((false, true, _)) => Finding::info(
            "state_missing",
            subject,
            "it is not there, or of an earlier version",
            "`pg2planhat setup` makes it, and so does `run`",
        ),
        Ok((false, false, database)) => {
            let message = format!("it is not there, and the role may not make it in database {database}");
            Finding::error("state_rights", subject, message, by_hand)
        }
        Err(fault) => Finding::of(fault, "state", subject),
    }
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
        let sign = output.paint(colour, format!("{sign:<7}"));
        output.line(format!("{sign} {}: {}", finding.subject, finding.message))?;
        if !finding.remedy.is_empty() {
            output.line(format!("        {} {}", output.paint(Colour::Dim, "remedy:"), finding.remedy))?;
        }
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let verdict = match errors {
        0 => output.paint(Colour::Green, format!("ready to run: no errors, {warnings} warnings")),
        _ => output.paint(Colour::Red, format!("not ready: {errors} errors, {warnings} warnings")),
    };
    output.line(format!("\n{verdict}"))
}
