//! The set-up wizard: six steps from nothing to a written configuration. Before the fifth step nothing is changed in
//! the database, and before the sixth nothing is sent.

use askama::Template;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use crate::config::Config;
use crate::console::ask::Ask;
use crate::console::config_file;
use crate::console::draft_words::table_text;
use crate::console::draw;
use crate::console::finding_lines::{FindingGroup, finding_groups};
use crate::console::page_view::Shell;
use crate::console::problem::Refusal;
use crate::console::setup_draft::{SetupDraft, TwoEnds};
use crate::console::words::{bytes, count};
use crate::model::{Finding, Severity};
use crate::operations::draft_preview::{self, PreviewRows};
use crate::operations::set_up::set_up_script;
use crate::operations::{self, Previewed};

const TLS: [(&str, &str); 4] = [
    ("verify-full", "verify-full: certificate and host name"),
    ("verify-ca", "verify-ca: the certificate's authority"),
    ("require", "require: encrypted, not verified"),
    ("disable", "disable: plaintext"),
];

#[derive(Template)]
#[template(path = "setup_connect.html")]
struct ConnectPage {
    shell: Shell,
    e: TwoEnds,
    looked: bool,
    connected: bool,
    errors: usize,
    databases: Vec<String>,
    groups: Vec<FindingGroup>,
}

#[derive(Template)]
#[template(path = "setup_tables.html")]
struct ChooseTablesPage {
    shell: Shell,
    schema: String,
    schemas: Vec<String>,
    tables: Vec<TableChoice>,
}

struct TableChoice {
    name: String,
    rows: String,
    size: String,
    keys: String,
    /// Whether the entry has no log of its own, so that its result is compared.
    is_result: bool,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "setup_map.html")]
struct MapPage {
    shell: Shell,
    sections: Vec<SectionChoice>,
}

struct SectionChoice {
    name: String,
    table: String,
    kind: &'static str,
    class: &'static str,
    icon: &'static str,
    says: String,
    why: String,
}

#[derive(Template)]
#[template(path = "setup_check.html")]
struct CheckPage {
    shell: Shell,
    class: &'static str,
    icon: &'static str,
    sentence: String,
    groups: Vec<FindingGroup>,
}

#[derive(Template)]
#[template(path = "setup_prepare.html")]
struct PreparePage {
    shell: Shell,
    script: String,
    made: Vec<String>,
}

#[derive(Template)]
#[template(path = "setup_run.html")]
struct RunPage {
    shell: Shell,
    file: String,
    text: String,
    shut: String,
    secrets: Vec<(&'static str, &'static str)>,
}

/// `GET /setup`
pub(crate) async fn page(ask: Ask) -> Result<Response, Refusal> {
    let draft = ask.console.set_up()?;
    match ask.given("step") {
        "tables" if draft.is_connected() => tables(&ask, &draft).await,
        "map" if draft.has_sections() => map(&ask, &draft).await,
        "check" if draft.has_sections() => check(&ask).await,
        "prepare" if draft.has_sections() => prepare(&ask, &draft).await,
        "run" if draft.has_sections() => run(&ask, &draft),
        _ => connect(&ask, &draft),
    }
}

fn connect(ask: &Ask, draft: &SetupDraft) -> Result<Response, Refusal> {
    let findings = draft.findings.clone().unwrap_or_default();
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    if ask.json {
        return Ok(
            axum::Json(serde_json::json!({ "connected": draft.is_connected(), "findings": findings })).into_response()
        );
    }
    let page = ConnectPage {
        shell: Shell::of_setup(ask, draft, "Connect", 0),
        e: draft.ends.clone(),
        looked: draft.findings.is_some(),
        connected: draft.is_connected(),
        errors,
        databases: draft.databases.clone(),
        groups: finding_groups(&findings.iter().collect::<Vec<_>>()),
    };
    Ok(page.shell.around(&page))
}

async fn tables(ask: &Ask, draft: &SetupDraft) -> Result<Response, Refusal> {
    let _leave = ask.console.question()?;
    let config = ask.console.config();
    let schemas: Vec<String> = draft_preview::schemas(&config).await?;
    let wanted = if ask.given("schema").is_empty() { config.source.schema.as_str() } else { ask.given("schema") };
    let schema = schemas.iter().find(|schema| *schema == wanted).or(schemas.first()).cloned().unwrap_or_default();
    let chosen: Vec<String> = chosen(&config, draft);
    let choice = |table: &crate::postgres::catalog::listing::TableEntry| {
        let name = table_text(&table.name);
        TableChoice {
            rows: table.rows.map_or_else(|| "never analyzed".to_owned(), count),
            size: bytes(table.bytes),
            keys: table.keys.iter().map(|key| key.join(" + ")).collect::<Vec<_>>().join(", "),
            is_result: false,
            chosen: chosen.contains(&name),
            name,
        }
    };
    let result = |name: &crate::config::TableName| {
        let name = table_text(name);
        let (rows, size, keys) = (String::new(), String::new(), String::new());
        TableChoice { rows, size, keys, is_result: true, chosen: chosen.contains(&name), name }
    };
    let results = draft_preview::results(&config, &schema).await?;
    let tables = draft_preview::tables(&config, &schema).await?;
    let tables = tables.iter().map(choice).chain(results.iter().map(result)).collect();
    let page = ChooseTablesPage { shell: Shell::of_setup(ask, draft, "Choose tables", 1), schema, schemas, tables };
    Ok(page.shell.around(&page))
}

/// Returns the tables of the chosen sections.
pub(crate) fn chosen(config: &Config, draft: &SetupDraft) -> Vec<String> {
    let sections = config.sections.iter().filter(|_| draft.has_sections());
    sections.map(|section| table_text(&section.table)).collect()
}

async fn map(ask: &Ask, draft: &SetupDraft) -> Result<Response, Refusal> {
    let _leave = ask.console.question()?;
    let config = ask.console.config();
    let mut sections = Vec::new();
    for section in &config.sections {
        let (class, icon, says, why) = match draft_preview::draft_preview(&config, section, &PreviewRows::Newest).await
        {
            Ok(shown) => {
                let bad = shown.rows.iter().filter_map(Previewed::refused);
                let first = bad.map(str::to_owned).next();
                let says = format!(
                    "{} of {} rows become items",
                    shown.rows.iter().filter_map(Previewed::item).count(),
                    shown.rows.len()
                );
                match (shown.faults.first(), first) {
                    (Some(fault), _) => ("is-stop", "stop", "this cannot be used yet".to_owned(), fault.what.clone()),
                    (None, Some(why)) => ("is-warn", "warn", says, why),
                    (None, None) => ("is-flow", "ok", says, String::new()),
                }
            }
            Err(fault) => ("is-stop", "stop", fault.what, fault.remedy),
        };
        let (name, table) = (section.name.to_string(), table_text(&section.table));
        let kind = match section.kind {
            crate::config::Kind::UserActivity => "User activity",
            crate::config::Kind::CustomMetric(_) => "Custom metric",
        };
        sections.push(SectionChoice { name, table, kind, class, icon, says, why });
    }
    let page = MapPage { shell: Shell::of_setup(ask, draft, "Map fields", 2), sections };
    Ok(page.shell.around(&page))
}

async fn check(ask: &Ask) -> Result<Response, Refusal> {
    let _leave = ask.console.question()?;
    let findings = operations::check(&ask.console.config()).await;
    if ask.json {
        return Ok(axum::Json(serde_json::json!({ "findings": findings })).into_response());
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let (class, icon, sentence) = match (errors, warnings) {
        (0, 0) => ("is-flow", "ok", "Ready.".to_owned()),
        (0, warnings) => ("is-warn", "warn", format!("Ready, with {warnings} to look at.")),
        (errors, _) => {
            ("is-stop", "stop", format!("{errors} to mend; what the script of the next step mends is among them."))
        }
    };
    let todo: Vec<&Finding> = findings.iter().filter(|finding| finding.severity != Severity::Ok).collect();
    let draft = ask.console.set_up()?;
    let page = CheckPage {
        shell: Shell::of_setup(ask, &draft, "Check", 3),
        class,
        icon,
        sentence,
        groups: finding_groups(&todo),
    };
    Ok(page.shell.around(&page))
}

async fn prepare(ask: &Ask, draft: &SetupDraft) -> Result<Response, Refusal> {
    let _leave = ask.console.question()?;
    let script = set_up_script(&ask.console.config()).await?;
    if ask.json {
        return Ok(axum::Json(serde_json::json!({ "sql": script })).into_response());
    }
    if !ask.given("download").is_empty() {
        let kind = "application/sql; charset=utf-8";
        let name = "attachment; filename=\"setup.sql\"";
        return Ok(([(CONTENT_TYPE, kind), (CONTENT_DISPOSITION, name)], script).into_response());
    }
    let page =
        PreparePage { shell: Shell::of_setup(ask, draft, "Prepare the database", 4), script, made: draft.made.clone() };
    Ok(page.shell.around(&page))
}

fn run(ask: &Ask, draft: &SetupDraft) -> Result<Response, Refusal> {
    let page = RunPage {
        shell: Shell::of_setup(ask, draft, "Run", 5),
        file: ask.console.path.display().to_string(),
        text: draft.text(),
        shut: config_file::cannot_begin(&ask.console.path).unwrap_or_default(),
        secrets: draft.ends.secrets(),
    };
    Ok(page.shell.around(&page))
}
