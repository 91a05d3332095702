//! The actions of the wizard: it tries a connection, takes tables, prepares the database, writes the file and starts.

use std::path::Path;
use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;

use crate::config::{self, Config, remember};
use crate::console::app::Console;
use crate::console::ask::Ask;
use crate::console::config_file::{self, FileText};
use crate::console::demo_child;
use crate::console::form_fields::FormFields;
use crate::console::lock::held;
use crate::console::pages::setup_page::chosen;
use crate::console::people::secret;
use crate::console::problem::Refusal;
use crate::console::setup_draft::{PASSWORD, SetupDraft, TENANT, URL};
use crate::model::{Fault, Finding};
use crate::operations;
use crate::operations::draft_preview;
use crate::operations::set_up::set_up;

/// Findings about these subjects are left out until tables are chosen.
const OF_TABLES: [&str; 5] = ["section", "table", "publication", "slot", "state"];

fn next(ask: &Ask, step: &str) -> Result<Response, Refusal> {
    ask.leads_to(&format!("/setup?step={step}"), serde_json::json!({ "step": step }))
}

/// Parses the draft, and takes it over as the configuration of this process.
fn taken(console: &Console, draft: &SetupDraft) -> Result<Arc<Config>, Fault> {
    let config = Arc::new(config::parse(&draft.text(), "what was typed").map_err(Fault::from)?);
    *held(&console.config) = Arc::clone(&config);
    Ok(config)
}

/// `POST /setup/connect`
pub(crate) async fn connect(ask: Ask, form: FormFields) -> Result<Response, Refusal> {
    let _leave = ask.console.question()?;
    let mut draft = ask.console.set_up()?;
    for (field, variable) in [("password", PASSWORD), ("tenant", TENANT), ("url", URL)] {
        let typed = if field == "password" { form.exact(field) } else { form.one(field) };
        if !typed.is_empty() {
            remember(variable, typed);
        }
    }
    draft.ends = draft.ends.sent(&form);
    let findings = match taken(&ask.console, &draft) {
        Ok(config) => found(&ask.console, &mut draft, config).await,
        Err(fault) => {
            let parts = if fault.parts.is_empty() { vec![fault] } else { fault.parts };
            parts.into_iter().map(|part| Finding::of(part, "typed", "what was typed")).collect()
        }
    };
    draft.findings = Some(findings);
    ask.console.set_up_as(draft);
    next(&ask, "connect")
}

/// Returns the findings about the two ends. Where the usual slot decodes another database of the server, this instance gets
/// one of its own.
async fn found(console: &Console, draft: &mut SetupDraft, mut config: Arc<Config>) -> Vec<Finding> {
    let (usual, mut own_slot) = (config.source.slot.clone(), None);
    if let Ok(Some((slot, other))) = draft_preview::slot_of_another(&config).await {
        draft.ends.slot = Some(slot.clone());
        if let Ok(with_slot) = taken(console, draft) {
            config = with_slot;
            let message = format!("it is in use for the database {other}: this instance gets one of its own, {slot}");
            own_slot = Some(Finding::info("slot_name", format!("slot {usual}"), message, ""));
        }
    }
    let mut findings = operations::check(&config).await;
    if !draft.has_sections() {
        let early = |finding: &Finding| {
            finding.code == "no_section_on" || OF_TABLES.iter().any(|of| finding.subject.starts_with(of))
        };
        findings.retain(|finding| !early(finding));
    }
    if !draft.ends.tenant {
        findings.retain(|finding| finding.subject != "sink");
        let remedy = "Planhat shows it to administrators; until it is typed everything but Run can be done";
        findings.push(Finding::warning("tenant", "sink", "no tenant's UUID was typed yet", remedy));
    }
    findings.extend(own_slot);
    draft.databases = draft_preview::databases(&config).await.unwrap_or_default();
    findings
}

/// `POST /setup/tables`
pub(crate) async fn tables(ask: Ask, form: FormFields) -> Result<Response, Refusal> {
    let _leave = ask.console.question()?;
    let mut draft = ask.console.set_up()?;
    let config = ask.console.config();
    let wanted: Vec<&str> = form.all("table").collect();
    let in_schema = |table: &str| config::table_name(table, &config.source.schema).map(|name| name.schema).ok();
    // Tables that were chosen in another schema stay chosen.
    let stays =
        |table: &str| wanted.contains(&table) || in_schema(table).is_some_and(|schema| schema != form.exact("schema"));
    let known = chosen(&config, &draft);
    let own = if draft.has_sections() { config.sections.as_slice() } else { &[] };
    let kept: Vec<String> =
        own.iter().zip(&known).filter(|(_, table)| stays(table)).map(|(section, _)| section.name.to_string()).collect();
    let mut names = kept.clone();
    let mut new = Vec::new();
    for table in wanted.into_iter().filter(|table| !known.iter().any(|known| known == table)) {
        let facts = draft_preview::table_facts(&config, &config::table_name(table, &config.source.schema)?).await?;
        // A wide table has one guess for each of its numbers.
        for guess in &facts.guesses {
            let (lines, name) = (guess.yaml(), guess.name());
            let taken = |name: &String| names.contains(name);
            let free = if taken(&name) {
                (2..).map(|number| format!("{name}_{number}")).find(|name| !taken(name)).unwrap_or_default()
            } else {
                name.clone()
            };
            new.push(lines.replacen(&name, &free, 1));
            names.push(free);
        }
    }
    if names.is_empty() {
        let what = "no table is chosen";
        return Err(Refusal::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            what,
            "tick the tables whose rows Planhat should get",
        ));
    }
    draft.choose(&kept, &new);
    taken(&ask.console, &draft)?;
    ask.console.set_up_as(draft);
    next(&ask, "map")
}

/// `POST /setup/prepare`: makes in the database what the script would make, where the role may.
pub(crate) async fn prepare(ask: Ask) -> Result<Response, Refusal> {
    let _leave = ask.console.question()?;
    let mut draft = ask.console.set_up()?;
    let steps = set_up(&ask.console.config()).await?;
    let line = |step: &operations::set_up::SetupStep| {
        let word = if step.made { "made" } else { "was there" };
        let detail = if step.detail.is_empty() { String::new() } else { format!(", {}", step.detail) };
        format!("{} {}: {word}{detail}", step.what, step.name)
    };
    draft.made = steps.iter().map(line).collect();
    ask.console.set_up_as(draft);
    next(&ask, "prepare")
}

/// `POST /setup/run`: writes the file, and starts the instance.
pub(crate) async fn run(ask: Ask, form: FormFields) -> Result<Response, Refusal> {
    let mut draft = ask.console.set_up()?;
    draft.ends.admin = free_admin_port();
    if !draft.has_sections() || !draft.ends.tenant {
        let what = if draft.has_sections() { "no tenant's UUID was typed yet" } else { "no table is chosen yet" };
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, what, "go back to that step; nothing was written"));
    }
    let in_files = !form.one("in_files").is_empty();
    let path = &ask.console.path;
    let secrets = if in_files { draft.ends.secrets() } else { Vec::new() };
    let mut files = Vec::new();
    for (variable, file) in secrets {
        let secret = config::Secret::Env(variable.to_owned()).reveal()?;
        files.push((path.with_file_name(file), secret, 0o600));
    }
    let folder = in_files.then(|| path.parent().unwrap_or(Path::new("")));
    let FileText { text, sha256 } = FileText::of(draft.with_secrets(folder));
    // What does not load is not written: the wizard is for a file that is not there yet.
    config::parse(&draft.text(), "what was typed").map_err(Fault::from)?;
    files.push((path.clone(), text.clone(), 0o644));
    config_file::begin_all(&files)?;
    let config = config::parse(&text, &path.display().to_string()).map_err(Fault::from)?;
    ask.console.set_up_is_done();
    ask.console.apply(config, sha256)?;
    ask.leads_to("/", serde_json::json!({ "written": path.display().to_string() }))
}

/// Returns another address for the admin port, where a demonstration or another instance has the usual one.
fn free_admin_port() -> Option<String> {
    let free = |listen: &str| std::net::TcpListener::bind(listen).and_then(|listener| listener.local_addr());
    if free("127.0.0.1:9187").is_ok() {
        return None;
    }
    free("127.0.0.1:0").ok().map(|address| address.to_string())
}

/// `POST /setup/demo`: starts the demonstration as a process of its own, and leads to its console.
pub(crate) async fn demo(ask: Ask) -> Result<Response, Refusal> {
    let mut draft = ask.console.set_up()?;
    let says = std::env::temp_dir().join(format!("pg2planhat-demo-{}", secret().unwrap_or_default()));
    held(&ask.console.demo).begin(&says)?;
    let link = demo_child::link(&says, || held(&ask.console.demo).runs()).await;
    // The demonstration may still write to the file, which then has no name any more.
    std::fs::remove_file(&says).ok();
    let link = link?;
    draft.demo = Some(link.clone());
    ask.console.set_up_as(draft);
    ask.leads_to("/setup", serde_json::json!({ "console": link }))
}

/// `POST /run`: starts an instance in this process, where `ui` so far only watched.
pub(crate) async fn run_here(ask: Ask) -> Result<Response, Refusal> {
    if !ask.console.can_run() {
        let what = "an instance runs in this process already, or this command runs none";
        return Err(Refusal::new(StatusCode::CONFLICT, what, "`pg2planhat run` runs one"));
    }
    let file = config_file::read(&ask.console.path)?;
    let config = config::parse(&file.text, &ask.console.path.display().to_string()).map_err(Fault::from)?;
    ask.console.apply(config, file.sha256)?;
    ask.leads_to("/", serde_json::json!({ "running": true }))
}
