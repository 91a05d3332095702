//! Sheets: a question about an action, as a page of its own, which the script shows as a dialog.
//!
//! * In: the markup of a sheet; the action that a person intends.
//! * Out: pages; plans kept, shown and used up.
//! * Never: a plan used up twice.

use std::time::Instant;

use askama::Template;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::console::ask::Ask;
use crate::console::draw::Markup;
use crate::console::lock::held;
use crate::console::page_view::Shell;
use crate::console::plans::{ActionPlan, Confirmation, Deed};
use crate::console::problem::Refusal;
use crate::console::words::time;
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
    Ok((status, page.shell.around(&page)).into_response())
}

/// Returns the refusal for a plan that does not wait any more: the person's own, confirmed before by a first press or
/// behind the back button, or one that was never theirs.
pub(crate) fn gone(ask: &Ask, id: &str) -> Refusal {
    match held(&ask.console.plans).confirmed(id, &ask.person.name, Instant::now()) {
        Some(since) => {
            let what = format!("this plan was confirmed {} ago, and nothing is done twice", time(since.as_secs_f64()));
            Refusal::new(StatusCode::CONFLICT, what, "what came of it is under “What people did” in the Logs")
        }
        None => {
            let what = "this plan is older than ten minutes, unknown, or somebody else's; nothing was done";
            Refusal::new(StatusCode::CONFLICT, what, "go back and have it counted again")
        }
    }
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
    let taken = held(&ask.console.plans).take(id, &ask.person.name, Instant::now());
    taken.ok_or_else(|| gone(ask, id))
}
