//! The page "Where is a row?": the answer of `trace` for one section, or for all.

use askama::Template;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};

use crate::console::ask::Ask;
use crate::console::draw::{self, Markup, outcome_look};
use crate::console::page_view::Shell;
use crate::console::problem::Refusal;
use crate::console::words::moment;
use crate::model::Fault;
use crate::operations;
use crate::operations::trace::Traced;

/// At most this many sections are asked for one key.
const SECTIONS: usize = 20;

/// At most this many of them at the same moment.
const SIDE_BY_SIDE: usize = 4;

#[derive(Template)]
#[template(path = "trace.html")]
struct TracePage {
    shell: Shell,
    key: String,
    section: String,
    sections: Vec<String>,
    /// What was left out of the search; empty where nothing was.
    left_out: String,
    found: Vec<TracedView>,
}

struct TracedView {
    section: String,
    key: String,
    chip: Markup,
    why: String,
    source: &'static str,
    batches: Vec<TracedBatch>,
}

struct TracedBatch {
    id: i64,
    phase: String,
    chip: Markup,
    status: String,
    ended: String,
}

/// `GET /trace`
pub(crate) async fn page(ask: Ask) -> Result<Response, Refusal> {
    let config = ask.console.config();
    let (key, wanted) = (ask.given("key").to_owned(), ask.given("section").to_owned());
    let own: Vec<&str> = config.sections.iter().map(|section| section.name.as_str()).collect();
    if !wanted.is_empty() && !own.contains(&wanted.as_str()) {
        return Err(Refusal::no_choice("section", &wanted, &own));
    }
    if ask.json && key.is_empty() {
        // An empty list would say that no section knows the row.
        return Err(
            Fault::usage("no key was given", "ask for /trace?key=KEY, with &section=NAME for one section").into()
        );
    }
    let mut found = Vec::new();
    if !key.is_empty() {
        let _leave = ask.console.question()?;
        let store = ask.console.store().await?;
        let chosen = config.sections.iter().filter(|own| wanted.is_empty() || own.name.as_str() == wanted);
        let asked: Vec<_> =
            chosen.take(SECTIONS).map(|section| operations::trace(&config, &store, section, &key)).collect();
        // Each has a connection of its own for its table.
        let mut asked = stream::iter(asked).buffered(SIDE_BY_SIDE);
        while let Some(traced) = asked.next().await {
            match traced {
                Ok(traced) => found.push(traced),
                // Among all sections, those whose keys have another type know nothing of this key.
                Err(_) if wanted.is_empty() => {}
                Err(fault) => return Err(fault.into()),
            }
        }
    }
    if !ask.sees_rows() {
        for traced in found.iter_mut().filter(|traced| traced.outcome == "quarantined") {
            // The reason may quote the row.
            "it is in quarantine; why is withheld from your role".clone_into(&mut traced.why);
        }
    }
    if ask.json {
        return Ok(axum::Json(found).into_response());
    }
    let view = ask.console.view().await?;
    let page = TracePage {
        shell: Shell::new(&ask, &view, "Where is a row?", "trace", "", "page=none"),
        found: found.into_iter().map(drawn).collect(),
        sections: config.sections.iter().map(|section| section.name.to_string()).collect(),
        left_out: match config.sections.len() {
            all if all > SECTIONS && wanted.is_empty() && !key.is_empty() => {
                format!("The first {SECTIONS} of {all} sections were asked. Choose a section to ask another.")
            }
            _ => String::new(),
        },
        key,
        section: wanted,
    };
    Ok(page.shell.around(&page))
}

fn drawn(traced: Traced) -> TracedView {
    let (class, icon) = match traced.outcome {
        "delivered" => ("is-flow", "check"),
        "quarantined" => ("is-stop", "box"),
        "in_doubt" => ("is-doubt", "again"),
        "waiting" => ("is-fill", "dots"),
        _ => ("is-rest", "dots"),
    };
    let batches = traced.deliveries.iter().map(|batch| {
        let (class, icon) = outcome_look(&batch.outcome);
        TracedBatch {
            id: batch.id,
            phase: batch.phase.clone(),
            chip: draw::chip(class, icon, &batch.outcome),
            status: batch.http_status.map_or_else(|| "–".to_owned(), |status| status.to_string()),
            ended: batch.finished_at.as_deref().map(moment).unwrap_or_default(),
        }
    });
    TracedView {
        chip: draw::chip(class, icon, traced.outcome),
        source: traced.source,
        batches: batches.collect(),
        section: traced.section,
        key: traced.key,
        why: traced.why,
    }
}
