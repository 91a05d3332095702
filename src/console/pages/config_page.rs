//! The Configuration page: the file without its secrets, and what its changes would do; and the review of a draft.

use std::sync::Arc;

use askama::Template;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::config::{self, Config};
use crate::console::ask::Ask;
use crate::console::config_file;
use crate::console::draft::SectionDraft;
use crate::console::draft_state::try_draft;
use crate::console::draw::{self, Markup};
use crate::console::form_fields::FormFields;
use crate::console::line_diff::patch;
use crate::console::lock::held;
use crate::console::page_view::Shell;
use crate::console::pages::mapping_page::cannot_save;
use crate::console::plans::{Confirmation, Deed};
use crate::console::problem::Refusal;
use crate::console::sheets::{stored, used};
use crate::console::yaml_markup::yaml_markup;
use crate::model::Fault;
use crate::operations;
use crate::operations::plan::{PlannedChange, elsewhere, plan};

#[derive(Template)]
#[template(path = "config.html")]
struct ConfigPage {
    shell: Shell,
    file: String,
    name: String,
    operator: bool,
    shut: String,
    drift: bool,
    trouble: Vec<String>,
    changes: Vec<ChangeLine>,
    plan: String,
    word: String,
    closed: String,
    hidden: usize,
    text: Markup,
}

#[derive(Template)]
#[template(path = "review.html")]
struct ReviewPage {
    shell: Shell,
    file: String,
    changes: Vec<ChangeLine>,
    diff: Vec<(&'static str, String)>,
    patch: String,
    section: String,
    shut: String,
    plan: String,
}

struct ChangeLine {
    class: &'static str,
    icon: &'static str,
    head: String,
    what: String,
}

/// One line of what a file would do, as `plan` judges it.
#[derive(serde::Serialize)]
struct ReviewedChange {
    /// The section's name; empty for another part of the file.
    section: String,
    change: &'static str,
    what: String,
    rows: Option<u64>,
    /// Whether rows may count twice or be lost.
    danger: bool,
    /// Whether the change is refused, because the recorded state would no longer be true.
    refused: bool,
}

impl From<PlannedChange> for ReviewedChange {
    fn from(change: PlannedChange) -> ReviewedChange {
        let refused = change.is_refused();
        let PlannedChange { section, kind, said, rows, danger } = change;
        ReviewedChange { section, change: kind, what: said, rows, danger, refused }
    }
}

fn line(change: &ReviewedChange) -> ChangeLine {
    let (class, icon) = match (change.refused, change.danger) {
        (true, _) => ("is-stop", "stop"),
        (false, true) => ("is-warn", "warn"),
        (false, false) => ("is-fill", "info"),
    };
    let word = match change.change {
        "new" => "new",
        "fields" => "fields change",
        "renamed?" => "a new name for a table that is delivered already?",
        "removed" => "removed",
        "off" => "off",
        "on again" => "on again",
        "table" | "key" => "table or key change",
        "read" => "another way of reading",
        "rules" => "rows are left out by other rules",
        "batch" | "flush" | "in_doubt" | "settings" => "settings change",
        _ => "beside the sections",
    };
    let head = if change.section.is_empty() { word.to_owned() } else { format!("{} · {word}", change.section) };
    let refused = if change.refused { " This is refused." } else { "" };
    ChangeLine { class, icon, head, what: format!("{}.{refused}", change.what) }
}

/// Returns what a configuration would do to the running instance. `plan` judges it by what is recorded.
async fn changes(ask: &Ask, next: &Config) -> Vec<ReviewedChange> {
    let running = ask.console.config();
    let beside = |what: String, refused| ReviewedChange {
        section: String::new(),
        change: "connection",
        what,
        rows: None,
        danger: false,
        refused,
    };
    // `plan` compares sections on one server; the other parts of the file are listed below.
    let judged = Config { sections: next.sections.clone(), ..Config::clone(&running) };
    let mut found: Vec<ReviewedChange> = match plan(&Arc::new(judged)).await {
        Ok(changes) => changes.into_iter().map(ReviewedChange::from).collect(),
        // A change that nobody can judge is refused.
        Err(fault) => vec![unknown(&fault.what)],
    };
    found.extend(elsewhere(&running, next).into_iter().map(|name| {
        let what = match name {
            "source" => "source changes: it is connected anew; another server than before is refused, and said",
            "planhat" => "planhat changes: requests go there from now on",
            "state" => "state changes: it is read and written there",
            "console" => "console changes: `listen`, `cert` and `key` take a restart of the process",
            name => return beside(format!("{name} changes"), false),
        };
        beside(what.to_owned(), false)
    }));
    found
}

/// The change of a file that nobody can judge now.
const UNKNOWN: &str = "unknown";

fn unknown(why: &str) -> ReviewedChange {
    let what = format!("what the sections would do is not known now: {why}");
    ReviewedChange { section: String::new(), change: UNKNOWN, what, rows: None, danger: false, refused: true }
}

/// Returns what no page shows: the secrets that the running configuration and the file hold as literal text, and the
/// digests of their tokens.
fn not_shown(running: &Config, file: Option<&Config>) -> (Vec<String>, Vec<String>) {
    let both = || [Some(running), file].into_iter().flatten();
    (both().flat_map(config_file::literals).collect(), both().flat_map(config_file::digests).collect())
}

/// `GET /config`
pub(crate) async fn page(ask: Ask) -> Result<Response, Refusal> {
    let path = ask.console.path.clone();
    let file = config_file::read(&path)?;
    let running = ask.console.config();
    let parsed = config::parse(&file.text, &path.display().to_string());
    let (literals, digests) = not_shown(&running, parsed.as_ref().ok());
    let (text, hidden) = config_file::masked(&file.text, &literals);
    let (mut text, _) = config_file::masked(&text, &digests);
    if parsed.is_err() {
        // A file that does not parse may hold a secret anywhere.
        text = "The file is not shown while it cannot be read: it may have a secret in it.".to_owned();
    }
    let drift = file.sha256 != *held(&ask.console.loaded);
    let found = match &parsed {
        Ok(config) if drift => match ask.console.question() {
            Ok(_leave) => changes(&ask, config).await,
            Err(busy) => vec![unknown(&busy.what)],
        },
        Ok(_) | Err(_) => Vec::new(),
    };
    if ask.json {
        let error = parsed.as_ref().err().map(ToString::to_string);
        let document = serde_json::json!({
            "file": path.display().to_string(), "sha256": file.sha256, "drift": drift, "changes": found, "error": error,
            "writable": cannot_save(&ask).is_none(),
        });
        return Ok(axum::Json(document).into_response());
    }
    let view = ask.console.view().await?;
    let closed = cannot_apply(&ask, &found);
    let (plan, word) = match drift && parsed.is_ok() && closed.is_empty() {
        true => {
            let (deed, confirmation) = to_apply(&running, &file.sha256, &found);
            let word = confirmation.word();
            (stored(&ask, deed, confirmation)?, word)
        }
        false => (String::new(), String::new()),
    };
    let page = ConfigPage {
        shell: Shell::new(&ask, &view, "Configuration", "config", "", "page=config"),
        file: path.display().to_string(),
        name: path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        operator: ask.is_operator(),
        shut: cannot_save(&ask).unwrap_or_default(),
        drift,
        trouble: match parsed {
            Err(errors) if drift => errors.0.iter().map(|error| format!("{error}")).collect(),
            Ok(_) | Err(_) => Vec::new(),
        },
        changes: found.iter().map(line).collect(),
        plan,
        word,
        closed,
        hidden,
        text: yaml_markup(&text),
    };
    Ok(page.shell.around(&page))
}

/// Returns the deed that applies a file, and what must be typed for it: where rows count twice or are lost, their number;
/// where that cannot be known, the name of the section, or of the slot where more than one section is concerned.
fn to_apply(running: &Config, sha256: &str, changes: &[ReviewedChange]) -> (Deed, Confirmation) {
    let dangers: Vec<&ReviewedChange> = changes.iter().filter(|change| change.danger).collect();
    let rows: u64 = dangers.iter().filter_map(|change| change.rows).sum();
    let confirmation = match dangers.as_slice() {
        [] => Confirmation::Press,
        _ if rows > 0 => Confirmation::Number(rows),
        [one] if !one.section.is_empty() => Confirmation::Name(one.section.clone()),
        _ => Confirmation::Name(running.source.slot.clone()),
    };
    let harm = dangers.into_iter().map(line).map(|line| format!("{}: {}", line.head, line.what));
    (Deed::Apply { sha256: sha256.to_owned(), harm: harm.collect::<Vec<_>>().join(" ") }, confirmation)
}

/// Returns why the file cannot be applied from here; an empty text where it can.
fn cannot_apply(ask: &Ask, changes: &[ReviewedChange]) -> String {
    let refused = changes.iter().any(|change| change.refused);
    let judged = changes.iter().all(|change| change.change != UNKNOWN);
    match (ask.is_operator(), ask.console.config().console.edit, ask.console.program.is_here(), refused) {
        (false, ..) => "Applying it needs the role operator.".to_owned(),
        (_, false, ..) => "console.edit is false: restart the process to apply it.".to_owned(),
        (_, _, false, _) => {
            "No instance runs in this process: the one that runs takes the file at its next start.".to_owned()
        }
        (_, _, _, true) if !judged => "Load this page again: it is applied once that is known.".to_owned(),
        (_, _, _, true) => "A change above is refused; mend it in the file.".to_owned(),
        _ => String::new(),
    }
}

/// `POST /config/plan`: shows what a draft would do, and the ways to save it.
pub(crate) async fn review(ask: Ask, form: FormFields) -> Result<Response, Refusal> {
    let draft = SectionDraft::from_form(&form);
    let state = try_draft(&ask, &draft, None).await?;
    if let Some(fault) = state.faults.first() {
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, fault.what.clone(), fault.remedy.clone()));
    }
    if form.one("base") != state.file.sha256 {
        let what = "the file was changed by somebody else since this form was opened";
        return Err(Refusal::new(
            StatusCode::PRECONDITION_FAILED,
            what,
            "open the mapping again: it shows what the file says now",
        ));
    }
    let (Some(text), Some(next)) = (state.spliced, state.config) else {
        return Err(Fault::bug("a draft without a file").into());
    };
    if let Ok(mut made) = ask.console.set_up() {
        // Nothing runs and no file exists yet, so there is nothing to review.
        made.rewritten(&text);
        *held(&ask.console.config) = Arc::new(next);
        ask.console.set_up_as(made);
        return ask.leads_to("/setup?step=map", serde_json::json!({ "step": "map" }));
    }
    let (mut literals, digests) = not_shown(&ask.console.config(), Some(&next));
    literals.extend(digests);
    let name = ask.console.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let secret = config_file::secret_lines(&state.file.text, &literals);
    let hidden = |line: &str| secret.contains(line);
    let patch = patch(&name, &state.file.text, &text, hidden);
    let found = changes(&ask, &next).await;
    let shut = cannot_save(&ask).unwrap_or_default();
    let deed = Deed::Save { text, base: state.file.sha256, section: draft.name.clone() };
    let plan = stored(&ask, deed, Confirmation::Press)?;
    if ask.json {
        let document =
            serde_json::json!({ "plan": plan, "changes": found, "patch": patch, "writable": shut.is_empty() });
        return Ok(axum::Json(document).into_response());
    }
    let view = ask.console.view().await?;
    let class = |line: &str| match line.as_bytes().first() {
        Some(b'+') => "add",
        Some(b'-') => "del",
        Some(b'@') => "c",
        _ => "",
    };
    let page = ReviewPage {
        shell: Shell::new(&ask, &view, "Review and save", "config", "", "page=none"),
        file: ask.console.path.display().to_string(),
        changes: found.iter().map(line).collect(),
        diff: patch.lines().skip(2).map(|line| (class(line), line.to_owned())).collect(),
        section: format!("  - {}\n", draft.lines().join("\n    ")),
        patch,
        shut,
        plan,
    };
    Ok(page.shell.around(&page))
}

/// Writes the file as it was reviewed.
pub(crate) async fn save(ask: &Ask, id: &str, text: &str, base: &str, section: &str) -> Result<Response, Refusal> {
    if let Some(why) = cannot_save(ask) {
        return Err(Refusal::new(StatusCode::FORBIDDEN, why, "copy the patch, and apply it where the file is kept"));
    }
    used(ask, id)?;
    config_file::save(&ask.console.path, base, text).map_err(|fault| {
        let mut refusal = Refusal::from(fault);
        if refusal.status == StatusCode::CONFLICT {
            refusal.status = StatusCode::PRECONDITION_FAILED;
        }
        refusal
    })?;
    record(ask, "config_save", section, "the file was written").await;
    ask.leads_to("/config", serde_json::json!({ "saved": section }))
}

/// What came of a wish to apply the file.
pub(crate) enum Applied {
    /// The instance restarts; the answer.
    Done(Response),
    /// Nothing was done: what the file would do now is more than was confirmed. A new plan has the id.
    Asks(String),
}

/// Restarts the instance with the file, after it has drained. What the changes do is judged anew, because the state has
/// moved since: what became a danger meanwhile is confirmed by its own number.
pub(crate) async fn apply(ask: &Ask, id: &str, sha256: &str, confirmed: &Confirmation) -> Result<Applied, Refusal> {
    let file = config_file::read(&ask.console.path)?;
    if file.sha256 != sha256 {
        used(ask, id)?;
        let what = "the file has changed again since it was looked at; nothing was applied";
        return Err(Refusal::new(StatusCode::PRECONDITION_FAILED, what, "look at the Configuration again"));
    }
    let next = config::parse(&file.text, &ask.console.path.display().to_string()).map_err(Fault::from)?;
    let found = changes(ask, &next).await;
    let closed = cannot_apply(ask, &found);
    if !closed.is_empty() {
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, closed, "nothing was applied"));
    }
    let (deed, wanted) = to_apply(&ask.console.config(), sha256, &found);
    used(ask, id)?;
    if !confirmed.covers(&wanted) {
        return Ok(Applied::Asks(stored(ask, deed, wanted)?));
    }
    record(ask, "config_apply", "", "the instance begins anew with the file").await;
    ask.console.apply(next, file.sha256)?;
    Ok(Applied::Done(ask.leads_to("/config", serde_json::json!({ "applied": found }))?))
}

/// Records an action in the state, where that can be reached. A failure does not undo the action, because the file is
/// the truth.
async fn record(ask: &Ask, action: &str, section: &str, result: &str) {
    let recorded = async {
        let store = ask.console.store().await?;
        operations::record(&store, action, section, serde_json::json!({}), result).await
    };
    if let Err(fault) = recorded.await {
        tracing::warn!(what = fault.what, action, by = ask.person.name, "the state could not be told");
    }
}
