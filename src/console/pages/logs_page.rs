//! The Logs page: the ledger, what people did, and the program's own lines.

use std::collections::BTreeMap;

use askama::Template;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::console::ask::Ask;
use crate::console::draw::{self, Markup};
use crate::console::fragments::overview_fragments::events_of;
use crate::console::fragments::section_fragments::{Batches, batches_of};
use crate::console::log_documents::{LogFile, holds, program_file, withheld};
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
/// A search for a key reads this many rows of the ledger.
const MANY: u32 = 5000;
/// The page shows this many lines of the program's log.
const LINES: usize = 500;
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

/// Returns which log the address names.
fn tab(ask: &Ask) -> Result<&'static str, Refusal> {
    match ask.given("tab") {
        "" | "batches" => Ok("batches"),
        "events" => Ok("events"),
        "program" if !ask.sees_rows() => {
            let what = "a line of the program's log may quote a row, and rows are withheld from your role";
            Err(Refusal::new(StatusCode::FORBIDDEN, what, "ask somebody who may see them (console.rows)"))
        }
        "program" if !ask.console.program.is_here() => {
            Err(Refusal::not_found("no instance runs in this process: its log is where it runs"))
        }
        "program" => Ok("program"),
        other => Err(Refusal::no_choice("tab", other, &["batches", "events", "program"])),
    }
}

/// `GET /logs`
pub(crate) async fn page(ask: Ask) -> Result<Response, Refusal> {
    let tab = tab(&ask)?;
    let as_csv = match ask.given("format") {
        "" => false,
        "csv" => true,
        other => return Err(Refusal::no_choice("format", other, &["csv"])),
    };
    let lines = if tab == "program" { program_lines(&ask)? } else { Vec::new() };
    match (tab, as_csv, ask.json) {
        ("program", true, _) => return Ok(program_file(&lines)),
        ("program", false, true) => return Ok(axum::Json(lines).into_response()),
        _ => {}
    }
    let store = ask.console.store().await?;
    if as_csv {
        let file = if tab == "events" { LogFile::Events } else { batches_file(&ask, &store).await? };
        return Ok(file.download(store).await.map_err(|error| error.fault())?);
    }
    if ask.json && tab == "events" {
        return Ok(axum::Json(store.events(MANY).await.map_err(|error| error.fault())?).into_response());
    }
    let found = if tab == "batches" { found(&ask, &store, ROWS).await? } else { FoundBatches::default() };
    if ask.json {
        let mut rows = found.rows;
        rows.reverse();
        return Ok(axum::Json(withheld(ask.sees_rows(), &rows)).into_response());
    }
    let view = ask.console.view().await?;
    drawn(&ask, &view, &store, tab, found, lines).await
}

/// Returns the file of the batches that the parameters select.
async fn batches_file(ask: &Ask, store: &Store) -> Result<LogFile, Refusal> {
    let filter = filter(ask, store).await?;
    Ok(LogFile::Batches { filter, key: ask.given("key").to_owned(), sees: ask.sees_rows() })
}

async fn drawn(
    ask: &Ask,
    view: &PageView,
    store: &Store,
    tab: &'static str,
    found: FoundBatches,
    lines: Vec<String>,
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
            true => format!(
                "The newest {} batches were searched; “until” reaches older ones, and the CSV file has all.",
                count(MANY.into())
            ),
            false => String::new(),
        },
        events,
        levels: LEVELS,
        level: level(ask).to_owned(),
        text: ask.given("text").to_owned(),
        lines: lines.into_iter().take(LINES).collect(),
    };
    Ok(page.shell.around(&page))
}

fn csv_link(ask: &Ask, tab: &str) -> String {
    let kept: BTreeMap<&String, &String> =
        ask.query.iter().filter(|(name, _)| !["tab", "format"].contains(&name.as_str())).collect();
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

/// Returns the filter that the parameters describe.
async fn filter(ask: &Ask, store: &Store) -> Result<DeliveryFilter, Refusal> {
    ask.known_section(store).await?;
    let time = |name: &str| {
        let text = ask.given(name);
        let wrong = |_| Refusal::from(Fault::usage(format!("{name}: {text:?} is no time"), times::TIMES));
        if text.is_empty() { Ok(None) } else { times::time(text).map(Some).map_err(wrong) }
    };
    Ok(DeliveryFilter { since: time("since")?, until: time("until")?, ..ledger_filter(ask)? })
}

/// Returns the rows of the ledger that the parameters select.
async fn found(ask: &Ask, store: &Store, limit: u32) -> Result<FoundBatches, Refusal> {
    let filter = filter(ask, store).await?;
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

/// Returns the level of the program's log that the page shows, and all graver ones with it.
fn level(ask: &Ask) -> &str {
    if ask.given("level").is_empty() { "INFO" } else { ask.given("level") }
}

/// Returns the lines of the program's log that the parameters select, the newest first.
fn program_lines(ask: &Ask) -> Result<Vec<String>, Refusal> {
    let (level, text) = (level(ask), ask.given("text"));
    let worst = LEVELS.iter().position(|known| *known == level);
    let worst = worst.ok_or_else(|| Refusal::no_choice("level", level, &LEVELS))?;
    let shown = |line: &String| {
        let own = LEVELS.iter().position(|known| line.contains(known)).unwrap_or(0);
        own <= worst && (text.is_empty() || line.contains(text))
    };
    let mut lines: Vec<String> = log_ring::lines().into_iter().filter(shown).collect();
    lines.reverse();
    Ok(lines)
}
