//! The Quarantine page: groups by reason, the rows, and one row with its item. Retry and drop each go by a plan.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::console::ask::{Ask, number};
use crate::console::draw::{self, Markup};
use crate::console::form_fields::FormFields;
use crate::console::fragments::asked_fragment::asked;
use crate::console::fragments::pieces::Fragments;
use crate::console::json_markup::json_markup;
use crate::console::page_view::Shell;
use crate::console::plans::{Confirmation, Deed};
use crate::console::problem::Refusal;
use crate::console::quarantine_view::{self, GroupNote, word_of};
use crate::console::sheets::keep;
use crate::console::words::{moment, plural, since, time};
use crate::model::{Fault, SectionName};
use crate::operations;
use crate::state::{QuarantineFilter, QuarantineItem, QuarantineRow, Store};
use crate::terminal;

/// The page shows this many rows.
const ROWS: u32 = 100;
/// More rows than this are dropped only after their number was typed.
const FEW: usize = 10;

#[derive(Template)]
#[template(path = "quarantine.html")]
struct QuarantinePage {
    shell: Shell,
    f: Fragments,
    about: String,
    operator: bool,
    groups: Vec<GroupNote>,
    /// Reasons that have no note.
    more_reasons: usize,
    sections: Vec<String>,
    reasons: Vec<&'static str>,
    section: String,
    reason: String,
    filtered: bool,
    rows: Vec<RowLine>,
    older: Option<String>,
    shown: Option<ShownRow>,
}

struct RowLine {
    id: i64,
    href: String,
    section: String,
    key: String,
    reason: String,
    class: &'static str,
    since: String,
    current: bool,
}

/// The row that the page shows whole.
struct ShownRow {
    id: i64,
    section: String,
    key: String,
    since: String,
    batch: Option<i64>,
    batch_href: String,
    answer: String,
    who: &'static str,
    class: &'static str,
    reason: String,
    item: Markup,
    raw: String,
}

/// Returns the filter that the parameters describe.
fn filter(section: &str, reason: &str) -> QuarantineFilter {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    QuarantineFilter {
        section: some(section).map(|name| SectionName::from(name.as_str())),
        reason: some(reason),
        after_id: None,
    }
}

/// Checks that what the list is filtered by exists.
async fn is_known(ask: &Ask, store: &Store) -> Result<(), Refusal> {
    let reason = ask.given("reason");
    if !reason.is_empty() && !quarantine_view::WORDS.contains(&word_of(reason)) {
        return Err(Refusal::no_choice("reason", reason, &quarantine_view::WORDS));
    }
    ask.known_section(store).await
}

/// `GET /quarantine`
pub(crate) async fn page(ask: Ask) -> Result<Response, Refusal> {
    let store = ask.console.store().await?;
    let fate = |error: crate::state::StateError| Refusal::from(error.fault());
    let (id, before) = (ask.number("id")?, ask.number("before")?.unwrap_or(i64::MAX));
    is_known(&ask, &store).await?;
    let item = match id {
        Some(id) => store.quarantine_show(id).await.map_err(fate)?,
        None => None,
    };
    let wanted = filter(ask.given("section"), ask.given("reason"));
    if ask.json {
        return match (id, item) {
            (Some(id), None) => Err(Refusal::not_found(format!("row {id} is not in quarantine"))),
            (_, Some(item)) => Ok(axum::Json(item_document(&ask, &item)).into_response()),
            (None, None) => {
                let rows = store.quarantine_list(&wanted, ROWS).await.map_err(fate)?;
                Ok(axum::Json(rows_document(&ask, rows)).into_response())
            }
        };
    }
    let view = ask.console.view().await?;
    let mut rows = store.quarantine_newest(&wanted, before, ROWS + 1).await.map_err(fate)?;
    let more = rows.len() > ROWS as usize;
    rows.truncate(ROWS as usize);
    let sees = ask.sees_rows();
    let (groups, more_reasons) = quarantine_view::groups(&store.quarantine_groups().await.map_err(fate)?, sees);
    let answer = match item.as_ref().and_then(|item| item.delivery) {
        Some(batch) => answer_of(&store, batch).await,
        None => String::new(),
    };
    let link = |extra: &str| {
        let encoded = |text: &str| askama::filters::urlencode(text).map(|text| text.to_string()).unwrap_or_default();
        format!("/quarantine?section={}&reason={}&{extra}", encoded(ask.given("section")), encoded(ask.given("reason")))
    };
    let line = |row: &QuarantineRow| RowLine {
        id: row.id,
        href: link(&format!("before={}&id={}", ask.given("before"), row.id)),
        section: row.section.clone(),
        key: row.key.clone(),
        reason: quarantine_view::reason_for(&row.reason, sees),
        class: quarantine_view::look(&row.reason).0,
        since: since(&row.created_at, view.now).map(time).unwrap_or_default(),
        current: Some(row.id) == id,
    };
    let total = view.figures.quarantined;
    let page = QuarantinePage {
        shell: Shell::new(&ask, &view, "Quarantine", "quarantine", "", "page=quarantine"),
        f: fragments(&ask).await,
        about: match total {
            0 => "Rows that could not be delivered are kept here, each with its item.".to_owned(),
            _ => format!(
                "{} not be delivered. Each is kept with its item until somebody sends it again or drops it. They do not \
                 hold the slot.",
                plural(total, "row could", "rows could")
            ),
        },
        operator: ask.is_operator(),
        groups,
        more_reasons,
        sections: view.config.sections.iter().map(|section| section.name.to_string()).collect(),
        reasons: quarantine_view::WORDS.to_vec(),
        section: ask.given("section").to_owned(),
        reason: word_of(ask.given("reason")).to_owned(),
        filtered: wanted.section.is_some() || wanted.reason.is_some(),
        older: rows.last().filter(|_| more).map(|row| link(&format!("before={}", row.id))),
        rows: rows.iter().map(line).collect(),
        shown: item.map(|item| shown(&item, answer, sees)),
    };
    Ok(page.shell.around(&page))
}

/// Draws the pieces that follow the program.
pub(crate) async fn fragments(ask: &Ask) -> Fragments {
    let mut pieces = Fragments::default();
    pieces.add("asked", asked(ask, None, &["quarantine_retry", "quarantine_drop"]).await);
    pieces
}

/// Returns how a batch was answered, in words.
async fn answer_of(store: &Store, batch: i64) -> String {
    match store.delivery_of(batch).await {
        Ok(Some((status, outcome))) => match status {
            Some(status) => format!(", answered {status}: {outcome}"),
            None => format!(", never answered: {outcome}"),
        },
        // The ledger has pruned the batch, or the state cannot be reached. The row itself is shown either way.
        Ok(None) | Err(_) => String::new(),
    }
}

fn shown(item: &QuarantineItem, answer: String, sees: bool) -> ShownRow {
    let row = &item.row;
    let raw = if sees { item.item.get().to_owned() } else { String::new() };
    let said = row.reason.split_once(": ").map_or(row.reason.as_str(), |(_, said)| said);
    ShownRow {
        id: row.id,
        section: row.section.clone(),
        key: row.key.clone(),
        since: moment(&row.created_at),
        batch: item.delivery,
        batch_href: format!("/logs?section={}#b{}", row.section, item.delivery.unwrap_or_default()),
        answer,
        who: if word_of(&row.reason) == "refused" { "Planhat said" } else { "Reason" },
        class: quarantine_view::look(&row.reason).0,
        reason: if sees { said.to_owned() } else { "withheld from your role".to_owned() },
        item: json_markup(&terminal::pretty(raw.as_bytes())),
        raw,
    }
}

fn rows_document(ask: &Ask, rows: Vec<QuarantineRow>) -> serde_json::Value {
    let mut document = serde_json::json!(rows);
    if !ask.sees_rows() {
        for row in document.as_array_mut().into_iter().flatten() {
            row["reason"] = serde_json::json!(word_of(row["reason"].as_str().unwrap_or_default()));
            row["withheld"] = serde_json::json!(true);
        }
    }
    document
}

fn item_document(ask: &Ask, item: &QuarantineItem) -> serde_json::Value {
    if ask.sees_rows() {
        return serde_json::json!(item);
    }
    let mut document = serde_json::json!(item.row);
    document["reason"] = serde_json::json!(word_of(&item.row.reason));
    document["withheld"] = serde_json::json!(true);
    document
}

/// Returns the rows that a form selects: those of its ids, or all of a reason.
async fn meant(ask: &Ask, form: &FormFields) -> Result<Vec<QuarantineRow>, Refusal> {
    // An id that was passed over would choose other rows than were meant: all of them, beside `all`.
    let ids = form.all("id").map(|id| number("id", id.trim())).collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<i64> = ids.into_iter().flatten().collect();
    if ids.is_empty() && form.one("all") != "1" {
        return Err(Fault::usage("no row is chosen", "choose rows in the list, or send a whole group").into());
    }
    let store = ask.console.store().await?;
    let (rows, _) = operations::chosen(&store, &ids, &filter(form.one("section"), form.one("reason"))).await?;
    if rows.is_empty() {
        let what = "none of these rows is in quarantine any more";
        return Err(Refusal::new(StatusCode::CONFLICT, what, "look at the list again"));
    }
    Ok(rows)
}

/// `POST /quarantine/retry`
pub(crate) async fn retry(ask: Ask, form: FormFields) -> Result<Response, Refusal> {
    let rows = meant(&ask, &form).await?;
    let doubtful = rows.iter().filter(|row| row.reason.starts_with("in_doubt")).count() as u64;
    let confirmation = if doubtful == 0 { Confirmation::Press } else { Confirmation::Number(doubtful) };
    let (ids, number): (Vec<i64>, _) = (rows.iter().map(|row| row.id).collect(), rows.len() as u64);
    keep(&ask, Deed::Retry { ids, doubtful }, confirmation, Some(number))
}

/// `POST /quarantine/drop`
pub(crate) async fn drop_rows(ask: Ask, form: FormFields) -> Result<Response, Refusal> {
    let rows = meant(&ask, &form).await?;
    let number = rows.len() as u64;
    let confirmation = if rows.len() > FEW { Confirmation::Number(number) } else { Confirmation::Press };
    keep(&ask, Deed::Drop { ids: rows.iter().map(|row| row.id).collect() }, confirmation, Some(number))
}
