//! The page of a section: its state, its progress, its last batches, its mapping, its last audit.

use askama::Template;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};

use crate::config::splice::section_line;
use crate::config::{Constant, Field, Flush, InDoubt, Section, Start, Sync};
use crate::console::ask::Ask;
use crate::console::draw::{self, Markup};
use crate::console::fragments::asked_fragment::asked;
use crate::console::fragments::pieces::Fragments;
use crate::console::fragments::section_fragments::{Batches, acts, section};
use crate::console::lock::held;
use crate::console::page_view::{PageView, Shell, drawn};
use crate::console::problem::Refusal;
use crate::console::words::{self, bytes, count};
use crate::model::SectionName;
use crate::state::{DeliveryFilter, Outcome};
use crate::telemetry::status_document::SectionStatus;

/// The page shows this many batches.
const BATCHES: u32 = 20;

#[derive(Template)]
#[template(path = "section.html")]
struct SectionPage<'a> {
    shell: Shell,
    f: Fragments,
    name: &'a str,
    tabs: Markup,
    mapping_act: Markup,
    fields: Vec<(String, String, String)>,
    settings: Vec<(&'static str, String)>,
    line: String,
}

#[derive(Template)]
#[template(path = "section_audit.html")]
struct AuditCard<'a> {
    name: &'a str,
    operator: bool,
    under_way: bool,
    says: String,
    bad: bool,
    /// Whether the audit named rows that can be delivered.
    missing: bool,
}

/// `GET /sections/NAME`
pub(crate) async fn page(ask: Ask, Path(name): Path<String>) -> Result<Response, Refusal> {
    let view = ask.console.view().await?;
    let (own, status) = find(&view, &name)?;
    if ask.json {
        return Ok(axum::Json(status).into_response());
    }
    let live = format!("page=section&name={name}&span={}", ask.span().as_str());
    let page = SectionPage {
        shell: Shell::new(&ask, &view, &name, "section", &name, &live),
        f: fragments(&ask, &view, &name).await?,
        name: &name,
        tabs: Markup::default(),
        mapping_act: if ask.is_operator() {
            let text = "Edit, with live preview";
            Markup(format!("<a class='btn btn--s' href='/sections/{}/mapping'>{text}</a>", draw::escaped(&name)))
        } else {
            Markup::default()
        },
        fields: fields(&own.fields, ""),
        settings: settings(own),
        line: place(&ask, &name),
    };
    Ok(page.shell.around(&page))
}

/// Returns where the section stands: the file, and the line.
fn place(ask: &Ask, name: &str) -> String {
    let file = ask.console.path.file_name().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
    let line = ask.console.file().ok().and_then(|file| section_line(&file.text, name));
    line.map_or_else(|| format!("in {file}"), |line| format!("in {file}, line {line}"))
}

async fn audit_card<'a>(ask: &Ask, name: &'a str) -> AuditCard<'a> {
    let now = held(&ask.console.audits).get(name).cloned();
    let card = |says: String, bad| AuditCard {
        name,
        operator: ask.is_operator(),
        under_way: false,
        says,
        bad,
        missing: false,
    };
    match now {
        Some(None) => AuditCard {
            under_way: true,
            ..card("The table is held against everything that was settled…".to_owned(), false)
        },
        Some(Some(why)) => card(format!("The audit has failed. {why}"), true),
        None => {
            let (says, bad) = last_audit(ask, name).await;
            AuditCard { missing: bad, ..card(says, bad) }
        }
    }
}

/// Returns the result of a section's last audit in words, and whether rows are missing.
async fn last_audit(ask: &Ask, name: &str) -> (String, bool) {
    let audits = match ask.console.store().await {
        Ok(store) => store.last_audits().await.unwrap_or_default(),
        Err(_) => return ("The state cannot be reached now.".to_owned(), false),
    };
    let Some(last) = audits.iter().find(|audit| audit.section == name) else {
        return (
            "It was not audited yet: an audit holds the table against everything that was settled.".to_owned(),
            false,
        );
    };
    let at = jiff::Timestamp::from_second(last.at_seconds).unwrap_or_default();
    let at = at.strftime("%Y-%m-%d %H:%M UTC");
    match last.missing {
        0 => (format!("No row is missing: every row of the table was accounted for at {at}."), false),
        missing => {
            let rows = words::plural(missing, "row is", "rows are");
            (format!("{rows} missing, as of {at}: neither delivered, nor in quarantine, nor left out."), true)
        }
    }
}

/// Returns a section of the configuration with its part of the status.
pub(crate) fn find<'a>(view: &'a PageView, name: &str) -> Result<(&'a Section, &'a SectionStatus), Refusal> {
    let own = view.config.sections.iter().find(|section| section.name.as_str() == name);
    let status = view.status.sections.iter().find(|section| section.name == name);
    own.zip(status).ok_or_else(|| Refusal::not_found(format!("there is no section {name}")))
}

/// Draws the pieces of the page.
pub(crate) async fn fragments(ask: &Ask, view: &PageView, name: &str) -> Result<Fragments, Refusal> {
    let (own, status) = find(view, name)?;
    let filter = DeliveryFilter { section: Some(SectionName::from(name)), ..DeliveryFilter::default() };
    let rows = match ask.console.store().await {
        Ok(store) => store.deliveries(&filter, BATCHES).await.unwrap_or_default(),
        // The verdict of the Overview tells that the state cannot be reached.
        Err(_) => Vec::new(),
    };
    let batches = Batches { rows: &rows, with_section: false, words: ask.sees_rows() };
    let mut pieces = section(view, &held(&ask.console.history), own, status, ask.span(), &batches);
    pieces.add("acts", if ask.is_operator() { acts(view, status) } else { Markup::default() });
    pieces.add("audit", drawn(&audit_card(ask, name).await));
    pieces.add("asked", asked(ask, Some(name), &["pause", "resume", "probe", "resync"]).await);
    Ok(pieces)
}

/// Returns the filter of the ledger that the parameters describe. A parameter that cannot be read is left out.
///
/// # Errors
/// There is no such outcome.
pub(crate) fn ledger_filter(ask: &Ask) -> Result<DeliveryFilter, Refusal> {
    let named = Some(ask.given("section")).filter(|name| !name.is_empty());
    let outcomes = match (ask.given("outcome"), Outcome::parse(ask.given("outcome"))) {
        ("", _) => Vec::new(),
        (_, Some(outcome)) => vec![outcome],
        (given, None) => {
            let known: Vec<&str> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
            return Err(Refusal::no_choice("outcome", given, &known));
        }
    };
    Ok(DeliveryFilter { section: named.map(SectionName::from), outcomes, ..DeliveryFilter::default() })
}

/// Returns the fields in words: name, source, note.
pub(crate) fn fields(fields: &[(String, Field)], within: &str) -> Vec<(String, String, String)> {
    let mut lines = Vec::new();
    for (name, field) in fields {
        let path = if within.is_empty() { name.clone() } else { format!("{within}.{name}") };
        match field {
            Field::Column { column, default, as_text } => {
                let default = default.as_ref().map(|default| format!("else {}", constant(default)));
                let notes = default.into_iter().chain(as_text.then(|| "as text".to_owned()));
                lines.push((path, column.clone(), notes.collect::<Vec<_>>().join(", ")));
            }
            Field::Constant(value) => lines.push((path, constant(value), "constant".to_owned())),
            Field::Object(members) => lines.extend(self::fields(members, &path)),
        }
    }
    lines
}

fn constant(value: &Constant) -> String {
    match value {
        Constant::Bool(value) => value.to_string(),
        Constant::Number(digits) => digits.clone(),
        Constant::Text(text) => format!("“{text}”"),
    }
}

fn settings(own: &Section) -> Vec<(&'static str, String)> {
    let start = match &own.start {
        Start::Backfill => "every row there is (backfill)".to_owned(),
        Start::Now => "new rows only".to_owned(),
        Start::AfterKey(key) => format!("rows behind the key {key}"),
    };
    let goes = match &own.flush {
        Flush::Every(time) => format!("when full, or {} after its first row", words::took(time.as_secs_f64())),
        Flush::DailyAt(time, zone) => {
            format!("once a day at {time} in {}", zone.iana_name().unwrap_or("UTC"))
        }
    };
    let batch = format!("at most {} rows, {}", count(own.batch.rows.into()), bytes(own.batch.bytes));
    let doubt = match own.in_doubt {
        InDoubt::Resend => "sent again: may count twice, never lost",
        InDoubt::Hold => "held in quarantine for a person",
    };
    let sync = if own.sync == Sync::Receive { "receive" } else { "off" };
    let read = match (own.diff(), own.sends_updates()) {
        (Some(diff), _) => {
            let every = match &diff.every {
                Flush::Every(time) => format!("every {}", words::took(time.as_secs_f64())),
                Flush::DailyAt(time, zone) => format!("at {time} in {}", zone.iana_name().unwrap_or("UTC")),
            };
            let sent = if diff.send_changed { "new rows, and changed ones again" } else { "new rows alone" };
            format!("compared {every}: {sent}")
        }
        (None, true) => "from the log: inserts and updates".to_owned(),
        (None, false) => "from the log: inserts".to_owned(),
    };
    let start = if own.diff().is_some() { "the whole result".to_owned() } else { start };
    vec![
        ("Sync", sync.to_owned()),
        ("Rows come", read),
        ("Starts with", start),
        ("A batch", batch),
        ("Goes", goes),
        ("In doubt", doubt.to_owned()),
    ]
}
