//! The Overview: the verdict, four answers, the sections, plots, and what people did.

use askama::Template;
use axum::response::{IntoResponse, Response};

use crate::console::ask::Ask;
use crate::console::draw;
use crate::console::draw::Markup;
use crate::console::fragments::overview_fragments::overview;
use crate::console::fragments::pieces::Fragments;
use crate::console::lock::held;
use crate::console::page_view::{PageView, Shell};
use crate::console::problem::Refusal;

/// The page shows this many events.
const EVENTS: u32 = 8;

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    shell: Shell,
    f: Fragments,
    acts: Markup,
}

/// `GET /`
pub(crate) async fn page(ask: Ask) -> Result<Response, Refusal> {
    let view = ask.console.view().await?;
    if ask.json {
        return Ok(axum::Json(view.status).into_response());
    }
    let live = format!("page=overview&span={}", ask.span().as_str());
    let shell = Shell::new(&ask, &view, "Overview", "overview", "", &live);
    let f = fragments(&ask, &view).await;
    let page = OverviewPage { shell, f, acts: add(&ask) };
    Ok(page.shell.around(&page))
}

/// Draws the buttons of an operator: start an instance here, and add a section.
fn add(ask: &Ask) -> Markup {
    if !ask.is_operator() {
        return Markup::default();
    }
    let run = if ask.console.can_run() {
        "<form method='post' action='/run'><button class='btn btn--s btn--main' type='submit'>Run here</button></form>"
    } else {
        ""
    };
    Markup(format!(
        "<div class='row-of'>{run}<a class='btn btn--s' href='/mapping'>{}Add section</a></div>",
        draw::icon("plus", 13)
    ))
}

/// Draws the pieces of the page.
pub(crate) async fn fragments(ask: &Ask, view: &PageView) -> Fragments {
    let events = match ask.console.store().await {
        Ok(store) => store.events(EVENTS).await.unwrap_or_default(),
        // The verdict tells that the state cannot be reached.
        Err(_) => Vec::new(),
    };
    overview(view, &held(&ask.console.history), ask.span(), &events)
}
