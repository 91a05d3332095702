//! The page of a plan: what it would do, and the number to type; and the carrying out.

use std::time::Instant;

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;

use crate::console::ask::Ask;
use crate::console::draw;
use crate::console::form_fields::FormFields;
use crate::console::lock::held;
use crate::console::page_view::drawn;
use crate::console::pages::config_page::Applied;
use crate::console::pages::{config_page, resync_page};
use crate::console::plans::{ActionPlan, Confirmation, Deed, differs};
use crate::console::problem::Refusal;
use crate::console::sheets::{gone, sheet_page, used};
use crate::console::words::{count, plural};
use crate::operations::repair::repair_ways::look;
use crate::operations::{self, Mend};
use crate::state::{QuarantineRow, Store};

/// The question that a person answers before an action is done.
#[derive(Template)]
#[template(path = "confirm.html")]
struct ConfirmSheet<'a> {
    title: String,
    note: &'a str,
    class: &'static str,
    icon: &'static str,
    harm: String,
    detail: &'a str,
    plan: &'a str,
    word: String,
    /// What the text to type stands for.
    meaning: &'a str,
    back: &'a str,
    button: &'static str,
    act: String,
}

/// Returns the person's plan, if it waits.
fn waiting(ask: &Ask, id: &str) -> Result<ActionPlan, Refusal> {
    let plan = held(&ask.console.plans).look(id, &ask.person.name, Instant::now()).cloned();
    plan.ok_or_else(|| gone(ask, id))
}

/// `GET /plans/ID`
pub(crate) async fn page(ask: Ask, Path(id): Path<String>) -> Result<Response, Refusal> {
    let plan = waiting(&ask, &id)?;
    show(&ask, StatusCode::OK, &id, &plan, "").await
}

/// Draws a plan, with a note above it.
async fn show(ask: &Ask, status: StatusCode, id: &str, plan: &ActionPlan, note: &str) -> Result<Response, Refusal> {
    let rows = |number: usize| plural(number as u64, "row", "rows");
    let word = plan.confirmation.word();
    let sheet = match &plan.deed {
        Deed::Resync { section, given, plan, .. } => {
            return resync_page::show(ask, status, section, given, Some((id, plan)), note).await;
        }
        Deed::Retry { ids, doubtful: 0 } => ConfirmSheet {
            title: format!("Send {} again", rows(ids.len())),
            note,
            class: "is-fill",
            icon: "info",
            harm: "They are read from the table and mapped anew".to_owned(),
            detail: "What was mended in the rows or in the mapping counts. A row that is refused again stays here.",
            plan: id,
            word,
            meaning: "",
            back: "/quarantine",
            button: "btn--main",
            act: format!("Send {} again", rows(ids.len())),
        },
        Deed::Retry { ids, doubtful } => ConfirmSheet {
            title: format!("Send {} again", rows(ids.len())),
            note,
            class: "is-stop",
            icon: "warn",
            harm: format!("{} may count twice in Planhat, for ever", plural(*doubtful, "row", "rows")),
            detail: "They were sent, and no answer came: Planhat may have them already.",
            plan: id,
            word,
            meaning: "the rows that may count twice",
            back: "/quarantine",
            button: "btn--stop-main",
            act: format!("Send {} again", rows(ids.len())),
        },
        Deed::Drop { ids } => ConfirmSheet {
            title: format!("Drop {}", rows(ids.len())),
            note,
            class: "is-stop",
            icon: "warn",
            harm: format!("{} never delivered", plural(ids.len() as u64, "row is", "rows are")),
            detail: "Their items leave the quarantine for ever; their keys stay on record. The table keeps the rows.",
            plan: id,
            word,
            meaning: "the rows that are dropped",
            back: "/quarantine",
            button: "btn--stop-main",
            act: format!("Drop {}", rows(ids.len())),
        },
        Deed::Save { .. } | Deed::Apply { .. } | Deed::Repair { .. } => of_the_program(id, plan, note),
    };
    let (title, back) = (sheet.title.clone(), sheet.back);
    let word = match back {
        "/repair" => "Repair",
        "/config" => "Configuration",
        _ => "Quarantine",
    };
    sheet_page(ask, status, &title, (back, word), drawn(&sheet)).await
}

/// Returns the sheet of a plan that concerns the whole program. The page it comes from says more.
fn of_the_program<'a>(id: &'a str, plan: &'a ActionPlan, note: &'a str) -> ConfirmSheet<'a> {
    let word = plan.confirmation.word();
    let harm = if let Deed::Apply { harm, .. } = &plan.deed { harm.as_str() } else { "" };
    match &plan.deed {
        Deed::Repair { how, .. } => ConfirmSheet {
            title: "Repair".to_owned(),
            note,
            class: "is-warn",
            icon: "warn",
            harm: format!("repair --{}", how.as_str()),
            detail: "The repair page says what each way does.",
            plan: id,
            word,
            meaning: "what this way is about",
            back: "/repair",
            button: "btn--main",
            act: "Repair".to_owned(),
        },
        Deed::Save { .. } | Deed::Apply { .. } | Deed::Resync { .. } | Deed::Retry { .. } | Deed::Drop { .. } => {
            ConfirmSheet {
                title: "Configuration".to_owned(),
                note,
                class: "is-warn",
                icon: "warn",
                harm: match harm {
                    "" => "The Configuration page says what this does".to_owned(),
                    _ => "Rows may count twice, or not be delivered".to_owned(),
                },
                detail: harm,
                plan: id,
                word,
                meaning: match &plan.confirmation {
                    Confirmation::Number(_) => "the rows that this concerns",
                    Confirmation::Name(_) | Confirmation::Press => "the name of what this concerns",
                },
                back: "/config",
                button: "btn--main",
                act: if matches!(plan.deed, Deed::Save { .. }) { "Save to the file" } else { "Apply the file" }
                    .to_owned(),
            }
        }
    }
}

/// `POST /plans`: carries a plan out, once, if the typed text fits and the count still holds.
pub(crate) async fn carry_out(ask: Ask, form: FormFields) -> Result<Response, Refusal> {
    let id = form.one("plan");
    let plan = waiting(&ask, id)?;
    if !plan.confirmation.fits(form.one("typed")) {
        let word = plan.confirmation.word();
        let what = match &plan.confirmation {
            Confirmation::Name(_) => format!("Type {word} to go on. Nothing was done."),
            Confirmation::Number(_) | Confirmation::Press => {
                format!("Type {word} to go on: that is how much it is. Nothing was done.")
            }
        };
        if ask.json {
            return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, what, "send it as the field `typed`"));
        }
        return show(&ask, StatusCode::UNPROCESSABLE_ENTITY, id, &plan, &what).await;
    }
    if matches!(plan.deed, Deed::Repair { sure: true, .. }) && form.one("sure").is_empty() {
        let what = "tick that the newer server is gone for good: otherwise two servers would feed one account";
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, what, "go back to the repair page"));
    }
    let _leave = ask.console.question()?;
    match plan.deed.clone() {
        Deed::Resync { section, from, given, plan: counted } => {
            resync_page::carry_out(&ask, id, &section, from, given, &counted).await
        }
        Deed::Retry { ids, .. } => {
            let store = ask.console.store().await?;
            let rows = still_there(&store, &ids).await?;
            used(&ask, id)?;
            let asked = operations::retry(&store, &rows).await?;
            let events: Vec<i64> = asked.iter().map(|asked| asked.event).collect();
            ask.leads_to("/quarantine", serde_json::json!({ "rows": rows.len(), "events": events }))
        }
        Deed::Drop { ids } => {
            let store = ask.console.store().await?;
            let rows = still_there(&store, &ids).await?;
            if differs(ids.len() as u64, rows.len() as u64) {
                used(&ask, id)?;
                let what = format!("of {} rows {} are left", count(ids.len() as u64), count(rows.len() as u64));
                return Err(Refusal::new(StatusCode::CONFLICT, what, "go back and have them counted again"));
            }
            used(&ask, id)?;
            let dropped = operations::drop_rows(&store, &rows).await?;
            ask.leads_to("/quarantine", serde_json::json!({ "dropped": dropped }))
        }
        Deed::Save { text, base, section } => config_page::save(&ask, id, &text, &base, &section).await,
        Deed::Apply { sha256, .. } => apply(&ask, id, &sha256, &plan.confirmation).await,
        Deed::Repair { how, .. } => repair(&ask, id, how, &plan.confirmation).await,
    }
}

/// Applies the file; where that does more harm by now than was confirmed, shows the new plan.
async fn apply(ask: &Ask, id: &str, sha256: &str, confirmed: &Confirmation) -> Result<Response, Refusal> {
    let id = match config_page::apply(ask, id, sha256, confirmed).await? {
        Applied::Done(answer) => return Ok(answer),
        Applied::Asks(id) => id,
    };
    let what =
        "what the file does has changed since it was looked at: look at it, and confirm it anew. Nothing was done.";
    if ask.json {
        return Err(Refusal::new(StatusCode::CONFLICT, what, "look at the Configuration again"));
    }
    let plan = waiting(ask, &id)?;
    show(ask, StatusCode::CONFLICT, &id, &plan, what).await
}

async fn still_there(store: &Store, ids: &[i64]) -> Result<Vec<QuarantineRow>, Refusal> {
    let mut rows = Vec::new();
    for ids in ids.chunks(5000) {
        rows.extend(store.quarantine_rows(ids).await.map_err(|error| error.fault())?);
    }
    Ok(rows)
}

async fn repair(ask: &Ask, id: &str, how: Mend, confirmation: &Confirmation) -> Result<Response, Refusal> {
    let config = ask.console.config();
    let Some(repair) = look(&config, how).await? else {
        used(ask, id)?;
        return Err(Refusal::new(StatusCode::CONFLICT, "there is nothing to mend any more", "look at the Overview"));
    };
    let rows: Option<u64> = repair.plan.sections.iter().map(|section| section.rows).sum();
    // The number of a way that accepts the loss is that of the gap, which its own plan does not count.
    if let (Confirmation::Number(planned), Some(now), Mend::Gap | Mend::Backfill) = (confirmation, rows, how)
        && differs(*planned, now)
    {
        used(ask, id)?;
        let what = format!("the number has changed: it was {}, and is {} now", count(*planned), count(now));
        return Err(Refusal::new(StatusCode::CONFLICT, what, "look at the repair page again; nothing was done"));
    }
    used(ask, id)?;
    let plan = repair.run().await?;
    tracing::warn!(by = ask.person.name, how = how.as_str(), "repaired from the console");
    ask.leads_to("/repair", serde_json::json!({ "repaired": plan }))
}
