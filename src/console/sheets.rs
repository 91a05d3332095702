//! Sheets: a question about an action, as a page of its own, which the script shows as a dialog.
//!
//! * In: the markup of a sheet; the action that a person intends.
//! * Out: pages; plans kept, shown and used up.
//! * Never: a plan used up twice.

use std::time::Instant;

use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};

use crate::console::ask::Ask;
use crate::console::draw::{self, Markup};
use crate::console::lock::held;
use crate::console::page_view::Shell;
use crate::console::plans::{ActionPlan, Confirmation, Deed};
use crate::console::problem::Refusal;
use crate::model::Fault;

#[derive(Template)]
#[template(path = "sheet.html")]
struct SheetPage {
    shell: Shell,
    back: String,
    back_word: String,
    sheet: Markup,
}

/// Draws the page around a sheet. The script takes the sheet out of it and shows a dialog.
pub(crate) async fn sheet_page(
    ask: &Ask,
    status: StatusCode,
    title: &str,
    back: (&str, &str),
    sheet: Markup,
) -> Result<Response, Refusal> {
    let view = ask.console.view().await?;
    let (at, name) = back.0.strip_prefix("/sections/").map_or(("", ""), |name| ("section", name));
    let shell = Shell::new(ask, &view, title, at, name, "page=none");
    let page = SheetPage { shell, back: back.0.to_owned(), back_word: back.1.to_owned(), sheet };
    Ok((status, Html(page.render().unwrap_or_default())).into_response())
}

pub(crate) fn gone() -> Refusal {
    let what = "this plan was done already, is older than ten minutes, or is somebody else's";
    Refusal::new(StatusCode::CONFLICT, what, "go back and have it counted again; nothing was done by this")
}

/// Keeps a plan and leads to its page. A script gets the plan's id and the text that it must send.
pub(crate) fn keep(ask: &Ask, deed: Deed, confirmation: Confirmation, rows: Option<u64>) -> Result<Response, Refusal> {
    let word = confirmation.word();
    let id = stored(ask, deed, confirmation)?;
    let document = serde_json::json!({ "plan": id, "rows": rows, "typed": word });
    ask.leads_to(&format!("/plans/{id}"), document)
}

/// Keeps a plan, and returns its id.
pub(crate) fn stored(ask: &Ask, deed: Deed, confirmation: Confirmation) -> Result<String, Refusal> {
    let plan = ActionPlan::new(&ask.person.name, deed, confirmation, Instant::now());
    let kept = held(&ask.console.plans).keep(plan);
    kept.ok_or_else(|| Fault::unavailable("the system gives no random bits", "try again").into())
}

/// Removes the plan, so that a second press finds none.
pub(crate) fn used(ask: &Ask, id: &str) -> Result<ActionPlan, Refusal> {
    held(&ask.console.plans).take(id, &ask.person.name, Instant::now()).ok_or_else(gone)
}
