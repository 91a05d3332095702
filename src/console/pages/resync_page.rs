//! The Re-sync sheet: where it begins, how many rows that is, and what it does in Planhat.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;

use crate::config::{Kind, Section};
use crate::console::ask::Ask;
use crate::console::draw;
use crate::console::form_fields::FormFields;
use crate::console::page_view::drawn;
use crate::console::plans::{Confirmation, Deed, ResyncGiven, differs};
use crate::console::problem::Refusal;
use crate::console::sheets::{keep, sheet_page, stored, used};
use crate::console::words::{count, plural};
use crate::model::Fault;
use crate::operations::{self, ResyncFrom, ResyncPlan, times};

#[derive(Template)]
#[template(path = "resync.html")]
struct ResyncSheet<'a> {
    name: &'a str,
    note: &'a str,
    given: &'a ResyncGiven,
    from: String,
    plan: &'a str,
    none: bool,
    rows: String,
    harm: &'static str,
    /// Whether Planhat dates the rows by their receipt.
    undated: bool,
    counted: &'static str,
    /// What it is to the section's open gaps. Their rows are among those that are counted, and Planhat has them not.
    gaps: Vec<String>,
    word: String,
}

/// What can be done about a gap that the re-sync leaves open.
const LEAVES: &str = "choose Everything, or begin earlier; or, if you know that it has none, close it with `pg2planhat repair \
                      --accept-loss` afterwards.";

/// The note that stands for "no row lies there".
const NOTHING: &str = "nothing";

/// Returns a section that delivers.
fn section(ask: &Ask, name: &str) -> Result<Section, Refusal> {
    let config = ask.console.config();
    let found = config.sections.iter().find(|section| section.name.as_str() == name);
    let section = found.ok_or_else(|| Refusal::not_found(format!("there is no section {name}")))?;
    if !section.is_on() {
        let what = format!("section {name} is off: nothing of it is delivered");
        return Err(Fault::usage(what, "set `sync: receive` in the configuration").into());
    }
    Ok(section.clone())
}

/// `GET /sections/NAME/resync`
pub(crate) async fn page(ask: Ask, Path(name): Path<String>) -> Result<Response, Refusal> {
    let name = section(&ask, &name)?.name.to_string();
    let given = ResyncGiven { by: "time".to_owned(), ..ResyncGiven::default() };
    show(&ask, StatusCode::OK, &name, &given, None, "").await
}

/// Draws the form, and the plan where one exists.
pub(crate) async fn show(
    ask: &Ask,
    status: StatusCode,
    name: &str,
    given: &ResyncGiven,
    plan: Option<(&str, &ResyncPlan)>,
    note: &str,
) -> Result<Response, Refusal> {
    let own = section(ask, name)?;
    let harm = match own.kind {
        Kind::UserActivity => "Planhat keeps what it has and cannot take anything back: each activity counts again.",
        Kind::CustomMetric(_) => {
            "Planhat keeps what it has: a metric shown as SUM counts these rows twice; one shown as LAST stays right."
        }
    };
    let shown = plan.map(|(_, plan)| plan);
    let counted = match shown {
        Some(plan) if !plan.counted => "Estimated by the server: there are too many to be counted in time.",
        _ => "Counted just now, not estimated.",
    };
    let sheet = ResyncSheet {
        name,
        note: if note == NOTHING { "" } else { note },
        given,
        from: shown.map_or_else(String::new, |plan| match &plan.from {
            Some(from) => format!("{} > {from}", plan.key),
            None => "every row".to_owned(),
        }),
        plan: plan.map_or("", |(id, _)| id),
        none: note == NOTHING,
        rows: shown.map_or_else(String::new, |plan| plural(plan.rows, "row", "rows")),
        harm,
        undated: own.fields.iter().all(|(field, _)| field != "date"),
        counted,
        gaps: shown.map(|plan| plan.about_gaps(LEAVES)).unwrap_or_default(),
        word: shown.map_or_else(String::new, |plan| plan.rows.to_string()),
    };
    let title = format!("Deliver rows of {name} again");
    sheet_page(ask, status, &title, (&format!("/sections/{name}"), name), drawn(&sheet)).await
}

/// Returns the place that the form names.
fn meant(given: &ResyncGiven) -> Result<ResyncFrom, Fault> {
    match given.by.as_str() {
        "key" if given.key.is_empty() => Err(Fault::usage("no key was given", "write the key behind which to begin")),
        "key" => Ok(ResyncFrom::Key(given.key.clone())),
        "time" => {
            let wrong = |_| Fault::usage(format!("{:?} is no time", given.time), times::TIMES);
            Ok(ResyncFrom::Time(times::time(&given.time).map_err(wrong)?))
        }
        "all" => Ok(ResyncFrom::All),
        other => Err(Fault::usage(format!("from {other:?} cannot be"), "choose a time, a key, or everything")),
    }
}

/// `POST /sections/NAME/resync`: counts the rows, and keeps a plan.
pub(crate) async fn plan(ask: Ask, Path(name): Path<String>, form: FormFields) -> Result<Response, Refusal> {
    let own = section(&ask, &name)?;
    let given = ResyncGiven {
        by: form.one("by").to_owned(),
        time: form.one("time").to_owned(),
        key: form.one("key").to_owned(),
    };
    let _leave = ask.console.question()?;
    let looked = match meant(&given) {
        Ok(from) => operations::plan_resync(&ask.console.config(), &own, &from).await.map(|plan| (from, plan)),
        Err(fault) => Err(fault),
    };
    match looked {
        Ok((from, Some(plan))) => {
            let (rows, section) = (plan.rows, own.name.to_string());
            keep(&ask, Deed::Resync { section, from, given, plan }, Confirmation::Number(rows), Some(rows))
        }
        Ok((_, None)) if ask.json => ask.leads_to("", serde_json::json!({ "plan": null, "rows": 0, "typed": "" })),
        Ok((_, None)) => show(&ask, StatusCode::OK, &name, &given, None, NOTHING).await,
        Err(fault) if ask.json => Err(fault.into()),
        Err(fault) => {
            let refusal = Refusal::from(fault);
            let note = format!("{}: {}", refusal.what, refusal.remedy);
            show(&ask, refusal.status, &name, &given, None, &note).await
        }
    }
}

/// Counts again, and asks the running instance for the re-sync; where the number has changed, shows the new one.
pub(crate) async fn carry_out(
    ask: &Ask,
    id: &str,
    name: &str,
    from: ResyncFrom,
    given: ResyncGiven,
    counted: &ResyncPlan,
) -> Result<Response, Refusal> {
    let own = section(ask, name)?;
    let now = operations::plan_resync(&ask.console.config(), &own, &from).await?;
    let rows = now.as_ref().map_or(0, |plan| plan.rows);
    let plan = match now {
        Some(plan) if !differs(counted.rows, rows) => plan,
        plan => {
            used(ask, id)?;
            return changed(ask, name, from, given, counted, plan).await;
        }
    };
    used(ask, id)?;
    let store = ask.console.store().await?;
    let event = operations::ask_resync(&store, &own, &plan).await?;
    ask.leads_to(
        &format!("/sections/{name}"),
        serde_json::json!({ "rows": plan.rows, "from": plan.from, "event": event }),
    )
}

/// Answers 409 with a plan of the new number.
async fn changed(
    ask: &Ask,
    name: &str,
    from: ResyncFrom,
    given: ResyncGiven,
    counted: &ResyncPlan,
    plan: Option<ResyncPlan>,
) -> Result<Response, Refusal> {
    let rows = plan.as_ref().map_or(0, |plan| plan.rows);
    let what = format!("The number has changed: it was {}, and is {} now.", count(counted.rows), count(rows));
    let (Some(plan), false) = (plan, ask.json) else {
        return Err(Refusal::new(StatusCode::CONFLICT, what, "have it counted again; nothing was done"));
    };
    let deed = Deed::Resync { section: name.to_owned(), from, given: given.clone(), plan: plan.clone() };
    let id = stored(ask, deed, Confirmation::Number(rows))?;
    let note = format!("{what} Nothing was done.");
    show(ask, StatusCode::CONFLICT, name, &given, Some((&id, &plan)), &note).await
}
