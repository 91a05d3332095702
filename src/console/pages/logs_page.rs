//! The Logs page: the ledger, what people did, and the program's own lines.

use std::collections::BTreeMap;

use askama::Template;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use crate::console::ask::Ask;
use crate::console::draw::{self, Markup};
use crate::console::fragments::overview_fragments::events_of;
use crate::console::fragments::section_fragments::{Batches, batches_of};
use crate::console::page_view::{PageView, Shell};
use crate::console::pages::section_page::ledger_filter;
use crate::console::problem::Refusal;
use crate::console::words::count;
use crate::model::Fault;
use crate::operations::times;
use crate::state::{DeliveryFilter, DeliveryRow, Outcome, Store};
use crate::telemetry::log_ring;

/// The page shows this many rows.
const ROWS: u32 = 100;
/// A search for a key reads this many rows of the ledger, and a CSV file holds this many.
const MANY: u32 = 5000;
/// The levels of the program's log, the gravest first.
const LEVELS: [&str; 5] = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];

#[derive(Template)]
#[template(path = "logs.html")]
struct LogsPage {
    shell: Shell,
    tab: &'static str,
    about: &'static str,
    csv: String,
    program: bool,
    sections: Vec<String>,
    outcomes: Vec<&'static str>,
    section: String,
    outcome: String,
    since: String,
    until: String,
    key: String,
    batches: Markup,
    /// What was left out of the search for a key; empty where nothing was.
    left_out: String,
    follow: String,
    events: Markup,
    levels: [&'static str; 5],
    level: String,
    text: String,
    lines: Vec<String>,
}

/// `GET /logs`
pub(crate) async fn page(ask: Ask) -> Result<Response, Refusal> {
    match (ask.given("tab"), ask.given("format")) {
        ("events", "csv") => return events_csv(&ask).await,
        (_, "csv") => return batches_csv(&ask).await,
        _ => {}
    }
    let tab = match ask.given("tab") {
        "events" => "events",
        // A line of the log may quote a row.
        "program" if ask.sees_rows() && ask.console.program.is_here() => "program",
        _ => "batches",
    };
    let store = ask.console.store().await?;
    if ask.json && tab == "events" {
        return Ok(axum::Json(store.events(MANY).await.map_err(|error| error.fault())?).into_response());
    }
    let found = if tab == "batches" { found(&ask, &store, ROWS).await? } else { FoundBatches::default() };
    if ask.json {
        let mut rows = found.rows;
        rows.reverse();
        return Ok(axum::Json(withheld(&ask, rows)).into_response());
    }
    let view = ask.console.view().await?;
    drawn(&ask, &view, &store, tab, &found).await
}

async fn drawn(
    ask: &Ask,
    view: &PageView,
    store: &Store,
    tab: &'static str,
    found: &FoundBatches,
) -> Result<Response, Refusal> {
    // A list that ends at a time, or that was searched by a key, does not grow.
    let follows = tab == "batches" && [ask.given("until"), ask.given("key")].iter().all(|given| given.is_empty());
    let (section, outcome) = (ask.given("section"), ask.given("outcome"));
    let live = match follows {
        true => format!("page=logs&section={section}&outcome={outcome}&after={}", found.last),
        false => "page=logs".to_owned(),
    };
    let events = match tab {
        "events" => events_of(&store.events(ROWS).await.map_err(|error| error.fault())?),
        _ => Markup::default(),
    };
    let level = if ask.given("level").is_empty() { "INFO" } else { ask.given("level") };
    let lines = if tab == "program" { program_lines(level, ask.given("text")) } else { Vec::new() };
    let page = LogsPage {
        shell: Shell::new(ask, view, "Logs", "logs", "", &live),
        tab,
        about: match tab {
            "events" => "What people asked of the program, and what came of it.",
            "program" => "What the program says of itself; it goes to stderr, too.",
            _ => "The ledger: each batch, and what Planhat answered. It lives in the state schema.",
        },
        csv: csv_link(ask, tab),
        program: ask.sees_rows() && ask.console.program.is_here(),
        sections: view.config.sections.iter().map(|section| section.name.to_string()).collect(),
        outcomes: Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect(),
        section: section.to_owned(),
        outcome: outcome.to_owned(),
        since: ask.given("since").to_owned(),
        until: ask.given("until").to_owned(),
        key: ask.given("key").to_owned(),
        batches: batches_of(&Batches { rows: &found.rows, with_section: true, words: ask.sees_rows() }),
        follow: if follows { "1".to_owned() } else { String::new() },
        left_out: match found.older {
            true => format!("The newest {} batches were searched; “until” reaches older ones.", count(MANY.into())),
            false => String::new(),
        },
        events,
        levels: LEVELS,
        level: level.to_owned(),
        text: ask.given("text").to_owned(),
        lines,
    };
    Ok(page.shell.around(&page))
}

fn csv_link(ask: &Ask, tab: &str) -> String {
    let kept: BTreeMap<&String, &String> = ask.query.iter().filter(|(name, _)| *name != "tab").collect();
    let mut link = format!("/logs?format=csv&tab={tab}");
    for (name, value) in kept {
        link.push_str(&format!(
            "&{name}={}",
            askama::filters::urlencode(value).map(|text| text.to_string()).unwrap_or_default()
        ));
    }
    link
}

/// The rows of the ledger that the parameters select.
#[derive(Default)]
struct FoundBatches {
    /// The newest first.
    rows: Vec<DeliveryRow>,
    /// The number of the ledger's last write before they were read.
    last: i64,
    /// Whether older rows exist that were not searched for the key.
    older: bool,
}

/// Returns the rows of the ledger that the parameters select.
async fn found(ask: &Ask, store: &Store, limit: u32) -> Result<FoundBatches, Refusal> {
    let time = |name: &str| {
        let text = ask.given(name);
        let wrong = |_| Refusal::from(Fault::usage(format!("{name}: {text:?} is no time"), times::TIMES));
        if text.is_empty() { Ok(None) } else { times::time(text).map(Some).map_err(wrong) }
    };
    let filter = DeliveryFilter { since: time("since")?, until: time("until")?, ..ledger_filter(ask) };
    let last = store.last_change().await.map_err(|error| error.fault())?;
    let key = ask.given("key");
    let read = if key.is_empty() { limit } else { MANY };
    let mut rows = store.deliveries(&filter, read).await.map_err(|error| error.fault())?;
    let older = !key.is_empty() && rows.len() >= MANY as usize;
    if !key.is_empty() {
        rows.retain(|row| holds(row, key));
        rows.truncate(limit as usize);
    }
    Ok(FoundBatches { rows, last, older })
}

/// Returns whether a key lies between a batch's first and last key. Numbers are compared as numbers.
fn holds(row: &DeliveryRow, key: &str) -> bool {
    let plain = |text: &str| text.replace(',', "").parse::<i128>();
    match (plain(&row.first_key), plain(&row.last_key), plain(key)) {
        (Ok(first), Ok(last), Ok(key)) => (first.min(last)..=first.max(last)).contains(&key),
        _ => row.first_key.as_str() <= key && key <= row.last_key.as_str(),
    }
}

/// Returns rows of the ledger as a document, without Planhat's answers for people who may not see rows.
fn withheld(ask: &Ask, rows: Vec<DeliveryRow>) -> serde_json::Value {
    let mut document = serde_json::json!(rows);
    if !ask.sees_rows() {
        for row in document.as_array_mut().into_iter().flatten() {
            if row["error"] != "" {
                row["error"] = serde_json::json!("");
                row["withheld"] = serde_json::json!(true);
            }
        }
    }
    document
}

fn program_lines(level: &str, text: &str) -> Vec<String> {
    let worst = LEVELS.iter().position(|known| *known == level).unwrap_or(LEVELS.len() - 1);
    let shown = |line: &String| {
        let own = LEVELS.iter().position(|known| line.contains(known)).unwrap_or(0);
        own <= worst && (text.is_empty() || line.contains(text))
    };
    let mut lines: Vec<String> = log_ring::lines().into_iter().filter(shown).collect();
    lines.reverse();
    lines.truncate(500);
    lines
}

async fn batches_csv(ask: &Ask) -> Result<Response, Refusal> {
    let store = ask.console.store().await?;
    let rows = found(ask, &store, MANY).await?.rows;
    Ok(download("batches.csv", table(&DeliveryRow::FIELDS, &withheld(ask, rows))))
}

async fn events_csv(ask: &Ask) -> Result<Response, Refusal> {
    let store = ask.console.store().await?;
    let events = store.events(MANY).await.map_err(|error| error.fault())?;
    let fields = ["id", "at", "actor", "action", "section", "args", "handled_at", "result"];
    Ok(download("events.csv", table(&fields, &serde_json::json!(events))))
}

/// Returns the rows of a JSON list as CSV below the names of their fields. Null becomes an empty field.
fn table(fields: &[&str], rows: &serde_json::Value) -> String {
    let cell = |value: &serde_json::Value| match value.as_str() {
        Some(text) => text.to_owned(),
        None if value.is_null() => String::new(),
        None => value.to_string(),
    };
    let mut text = csv(fields);
    for row in rows.as_array().into_iter().flatten() {
        let cells: Vec<String> = fields.iter().map(|field| cell(&row[*field])).collect();
        text += &csv(&cells.iter().map(String::as_str).collect::<Vec<_>>());
    }
    text
}

/// Returns one line of CSV by RFC 4180. A quote goes before what a spreadsheet would take for a formula.
fn csv(fields: &[&str]) -> String {
    let field = |text: &&str| {
        let formula = text.starts_with(['=', '+', '-', '@', '\t']) && text.parse::<f64>().is_err();
        let text = if formula { format!("'{text}") } else { (*text).to_owned() };
        if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
    };
    fields.iter().map(field).collect::<Vec<_>>().join(",") + "\r\n"
}

/// Answers with a file to save.
fn download(name: &str, text: String) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    ([(CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()), (CONTENT_DISPOSITION, disposition)], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_csv_is_no_formula() {
        assert_eq!(csv(&["-5", "=1+1", "a,\"b\""]), "-5,'=1+1,\"a,\"\"b\"\"\"\r\n");
    }
}
