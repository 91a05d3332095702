//! The Checks page: the findings of `check` by subject, the worst first.

use std::sync::Arc;
use std::time::Instant;

use askama::Template;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::console::app::Console;
use crate::console::ask::Ask;
use crate::console::draw;
use crate::console::finding_lines::{FindingGroup, finding_groups};
use crate::console::last_check::Checked;
use crate::console::lock::held;
use crate::console::page_view::Shell;
use crate::console::problem::Refusal;
use crate::console::words::{plural, time};
use crate::model::{Finding, Severity};
use crate::operations;

#[derive(Template)]
#[template(path = "checks.html")]
struct ChecksPage {
    shell: Shell,
    operator: bool,
    looked: bool,
    when: String,
    all: bool,
    class: &'static str,
    icon: &'static str,
    sentence: String,
    detail: &'static str,
    todo: usize,
    total: usize,
    groups: Vec<FindingGroup>,
    text: String,
}

/// `GET /checks`
pub(crate) async fn page(ask: Ask) -> Result<Response, Refusal> {
    let mut checked = held(&ask.console.checks).clone();
    if ask.json && checked.is_none() {
        // A script would read an empty list as "there are no findings".
        if !ask.is_operator() {
            let remedy = "ask with the token of an operator: then it is looked";
            return Err(Refusal::new(
                StatusCode::CONFLICT,
                "nobody has looked yet, and looking needs an operator",
                remedy,
            ));
        }
        checked = Some(looked(&ask.console).await?);
    }
    let mut findings = checked.as_ref().map(|checked| checked.findings.clone()).unwrap_or_default();
    if !ask.sees_rows() {
        findings.iter_mut().for_each(withhold);
    }
    if ask.json {
        return Ok(axum::Json(serde_json::json!({ "findings": findings })).into_response());
    }
    let view = ask.console.view().await?;
    let all = !ask.given("all").is_empty();
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let (class, icon) = match (errors, warnings) {
        (0, 0) => ("is-flow", "ok"),
        (0, _) => ("is-warn", "warn"),
        _ => ("is-stop", "stop"),
    };
    let warned = plural(warnings as u64, "warning", "warnings");
    let shown: Vec<&Finding> = findings
        .iter()
        .filter(|finding| all || matches!(finding.severity, Severity::Error | Severity::Warning))
        .collect();
    let page = ChecksPage {
        shell: Shell::new(&ask, &view, "Checks", "checks", "", "page=checks"),
        operator: ask.is_operator(),
        looked: checked.is_some(),
        when: checked.map(|checked| when(&checked)).unwrap_or_default(),
        all,
        class,
        icon,
        sentence: match errors {
            0 => format!("Ready to run: no errors, {warned}."),
            _ => format!("Not ready: {}, {warned}.", plural(errors as u64, "error", "errors")),
        },
        detail: if errors + warnings == 0 { "Nothing is to be done." } else { "Each finding says what to do." },
        todo: errors + warnings,
        total: findings.len(),
        groups: finding_groups(&shown),
        text: shown.iter().map(|finding| text(finding)).collect(),
    };
    Ok(page.shell.around(&page))
}

/// `POST /checks`: makes the checks again.
pub(crate) async fn look(State(console): State<Arc<Console>>) -> Result<Response, Refusal> {
    looked(&console).await?;
    Ok((StatusCode::SEE_OTHER, [(LOCATION, HeaderValue::from_static("/checks"))]).into_response())
}

/// Makes the checks, and keeps their findings for all pages.
async fn looked(console: &Console) -> Result<Checked, Refusal> {
    let _leave = console.question()?;
    let began = Instant::now();
    let findings = operations::check(&console.config()).await;
    let checked = Checked { at: Instant::now(), took: began.elapsed().as_secs_f64(), findings };
    *held(&console.checks) = Some(checked.clone());
    Ok(checked)
}

fn when(checked: &Checked) -> String {
    format!("Looked {} ago, in {}.", time(checked.at.elapsed().as_secs_f64()), time(checked.took))
}

/// Withholds findings that quote rows, or the SQL of other sessions, from people who may not see rows.
fn withhold(finding: &mut Finding) {
    if matches!(finding.code, "rows_refused" | "dimension_id" | "open_transaction" | "sample") {
        "withheld from your role".clone_into(&mut finding.message);
    }
}

/// Returns a finding as text for a ticket.
fn text(finding: &Finding) -> String {
    let remedy = if finding.remedy.is_empty() { String::new() } else { format!("\n  remedy: {}", finding.remedy) };
    format!("{} {}: {}{remedy}\n", severity_word(finding.severity), finding.subject, finding.message)
}

fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "info",
        Severity::Ok => "ok",
    }
}
