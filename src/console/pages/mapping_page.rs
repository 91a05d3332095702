//! The Mapping page: a section as a form, and what the form makes of real rows while it changes.

use askama::Template;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};

use crate::config;
use crate::console::ask::Ask;
use crate::console::config_file;
use crate::console::draft::{NO_TABLE, SectionDraft};
use crate::console::draft_state::{DraftState, form_of, in_file, try_draft};
use crate::console::draft_words::{DraftField, table_text};
use crate::console::draw::{self, Markup};
use crate::console::form_fields::FormFields;
use crate::console::json_markup::json_markup;
use crate::console::page_view::Shell;
use crate::console::problem::Refusal;
use crate::console::words::{bytes, count, plural};
use crate::mapping::Guess;
use crate::model::Fault;
use crate::operations::Previewed;
use crate::operations::draft_preview::{self, ColumnFacts, DraftFault, DraftShown, PreviewRows, TableFacts};
use crate::terminal;

/// The page shows this many items whole.
const ITEMS: usize = 5;
const MODELS: [&str; 4] = ["Company", "EndUser", "Project", "Asset"];
const EVERIES: [&str; 6] = ["5m", "10m", "30m", "1h", "1d", "daily"];
const FLUSHES: [&str; 7] = ["5s", "1m", "5m", "10m", "30m", "1h", "daily"];

#[derive(Template)]
#[template(path = "mapping.html")]
struct MappingPage {
    shell: Shell,
    action: String,
    is_new: bool,
    d: SectionDraft,
    base: String,
    changed: usize,
    faults: Vec<DraftFault>,
    by_hand: String,
    file: String,
    about: String,
    key_about: String,
    keys: Vec<String>,
    columns: Vec<ColumnFacts>,
    flushes: Vec<String>,
    everies: Vec<String>,
    fields: Vec<FieldRow>,
    known: Vec<&'static str>,
    unused: Vec<String>,
    which: String,
    at_key: String,
    p: PreviewView,
}

struct FieldRow {
    name: String,
    /// The field's name in labels; it is unique on the page.
    label: String,
    fixed: bool,
    tag: &'static str,
    column: String,
    absent: bool,
    constant: String,
    bad: bool,
    class: &'static str,
    why: String,
}

#[derive(Default)]
struct PreviewView {
    withheld: bool,
    rows: usize,
    good: usize,
    bad: usize,
    about: String,
    tally: Markup,
    items: Vec<ItemView>,
}

struct ItemView {
    bad: bool,
    key: String,
    why: String,
    size: String,
    json: Markup,
}

#[derive(Template)]
#[template(path = "tables.html")]
struct TablesPage {
    shell: Shell,
    schema: String,
    schemas: Vec<String>,
    tables: Vec<TableLine>,
}

struct TableLine {
    name: String,
    rows: String,
    size: String,
    keys: String,
    /// Whether the entry has no log of its own, so that its result is compared.
    is_result: bool,
    href: String,
}

fn which(kind: &str, key: &str) -> PreviewRows {
    match kind {
        "oldest" => PreviewRows::Oldest,
        "key" if !key.is_empty() => PreviewRows::Key(key.to_owned()),
        _ => PreviewRows::Newest,
    }
}

/// `GET /sections/NAME/mapping`
pub(crate) async fn page(ask: Ask, Path(name): Path<String>) -> Result<Response, Refusal> {
    let (_, before) = in_file(&ask, &name)?;
    let draft = before.ok_or_else(|| Refusal::not_found(format!("the file has no section {name}")))?;
    let _leave = ask.console.question()?;
    let state = try_draft(&ask, &draft, Some(&PreviewRows::Newest)).await?;
    show(&ask, draft, state, "newest", "").await
}

/// `GET /mapping`: shows the tables; with one chosen, the guessed form of a section for it.
pub(crate) async fn new_page(ask: Ask) -> Result<Response, Refusal> {
    let config = ask.console.config();
    let _leave = ask.console.question()?;
    let table = ask.given("table");
    if table.is_empty() {
        return choose_table(&ask).await;
    }
    let name = config::table_name(table, &config.source.schema)?;
    let facts = draft_preview::table_facts(&config, &name).await?;
    let text = format!(
        "source: {{ host: h, database: d, user: u }}\nplanhat: {{ tenant: t }}\nsections:\n{}",
        facts.guesses.iter().map(Guess::yaml).collect::<String>()
    );
    let guessed = config::parse(&text, "the guess").map_err(Fault::from)?;
    let taken: Vec<String> = config.sections.iter().map(|section| section.name.to_string()).collect();
    // A wide table has one guess for each of its numbers. The first that the file lacks is the next.
    let is_new = |section: &&config::Section| !taken.contains(&section.name.to_string());
    let next = guessed.sections.iter().find(is_new).or_else(|| guessed.sections.first());
    let mut draft = next.map(form_of).transpose()?.unwrap_or_default();
    if taken.contains(&draft.name) {
        let name = draft.name.clone();
        draft.name = (2..).map(|number| format!("{name}_{number}")).find(|name| !taken.contains(name)).unwrap_or(name);
    }
    let state = try_draft(&ask, &draft, Some(&PreviewRows::Newest)).await?;
    show(&ask, draft, state, "newest", "").await
}

async fn choose_table(ask: &Ask) -> Result<Response, Refusal> {
    let config = ask.console.config();
    let schema =
        if ask.given("schema").is_empty() { config.source.schema.clone() } else { ask.given("schema").to_owned() };
    let (schemas, tables) = (draft_preview::schemas(&config).await?, draft_preview::tables(&config, &schema).await?);
    let results = draft_preview::results(&config, &schema).await?;
    let view = ask.console.view().await?;
    let encoded = |text: &str| askama::filters::urlencode(text).map(|text| text.to_string()).unwrap_or_default();
    let line = |table: &crate::postgres::catalog::listing::TableEntry| {
        let name = table_text(&table.name);
        TableLine {
            rows: table.rows.map_or_else(|| "?".to_owned(), count),
            size: bytes(table.bytes),
            keys: table.keys.iter().map(|key| key.join(" + ")).collect::<Vec<_>>().join(", "),
            is_result: false,
            href: format!("/mapping?table={}", encoded(&name)),
            name,
        }
    };
    let result = |name: &config::TableName| {
        let name = table_text(name);
        let href = format!("/mapping?table={}", encoded(&name));
        TableLine { rows: String::new(), size: String::new(), keys: String::new(), is_result: true, href, name }
    };
    let lines = tables.iter().map(line).chain(results.iter().map(result)).collect();
    let shell = Shell::new(ask, &view, "New section", "config", "", "page=none");
    let page = TablesPage { shell, schema, schemas, tables: lines };
    Ok(page.shell.around(&page))
}

/// `POST /mapping`: shows the form and its preview, and changes nothing.
pub(crate) async fn draft(ask: Ask, form: FormFields) -> Result<Response, Refusal> {
    let draft = SectionDraft::from_form(&form);
    let _leave = ask.console.question()?;
    let (kind, key) = (form.one("which").to_owned(), form.one("at_key").to_owned());
    let state = try_draft(&ask, &draft, Some(&which(&kind, &key))).await?;
    if ask.json {
        let rows = state.shown.as_ref().map_or(0, |shown| shown.rows.len());
        let faults: Vec<&String> = state.faults.iter().map(|fault| &fault.what).collect();
        return Ok(axum::Json(serde_json::json!({ "rows": rows, "faults": faults })).into_response());
    }
    show(&ask, draft, state, &kind, &key).await
}

async fn show(
    ask: &Ask,
    draft: SectionDraft,
    state: DraftState,
    which: &str,
    at_key: &str,
) -> Result<Response, Refusal> {
    let view = ask.console.view().await?;
    let is_new = state.before.is_none();
    let facts = match &state.shown {
        Some(shown) => Some(shown.table.clone()),
        // A draft that cannot be tried still shows the columns of its table.
        None => facts_of(ask, &draft).await,
    };
    let columns = facts.as_ref().map(|facts| facts.columns.clone()).unwrap_or_default();
    let used: Vec<&str> = draft.fields.iter().map(|field| field.column.as_str()).collect();
    let unused = columns.iter().filter(|column| !used.contains(&column.name.as_str()) && column.name != draft.key);
    let title = if is_new { "New section".to_owned() } else { format!("Mapping of {}", draft.name) };
    let at = if is_new { "config" } else { "section" };
    let shell = match ask.console.set_up() {
        Ok(made) => Shell::of_setup(ask, &made, &title, 2),
        Err(_) => Shell::new(ask, &view, &title, at, &draft.name, "page=none"),
    };
    let page = MappingPage {
        shell,
        action: "/mapping".to_owned(),
        is_new,
        base: state.file.sha256.clone(),
        by_hand: state.by_hand.join("\n"),
        file: ask.console.path.display().to_string(),
        changed: state.before.as_ref().map_or(0, |before| draft.edits(before).len()),
        about: facts.as_ref().map(about).unwrap_or_default(),
        keys: facts.as_ref().map(|facts| facts.keys.clone()).unwrap_or_default(),
        key_about: facts.as_ref().map(|facts| key_about(facts, &draft.key)).unwrap_or_default(),
        fields: rows(&draft, &state, &columns),
        known: config::known_fields(&draft.kind),
        unused: unused.map(|column| column.name.clone()).collect(),
        which: which.to_owned(),
        at_key: at_key.to_owned(),
        p: state.shown.as_ref().map(|shown| preview(shown, ask.sees_rows())).unwrap_or_default(),
        faults: state.faults,
        columns,
        flushes: with_own(&FLUSHES, &draft.flush),
        everies: with_own(&EVERIES, &draft.every),
        d: draft,
    };
    Ok(page.shell.around(&page))
}

/// Returns the choices, with the section's own value before them where it is none of them.
fn with_own(words: &[&str], own: &str) -> Vec<String> {
    let own = Some(own).filter(|own| !own.is_empty() && !words.contains(own));
    own.into_iter().chain(words.iter().copied()).map(str::to_owned).collect()
}

async fn facts_of(ask: &Ask, draft: &SectionDraft) -> Option<TableFacts> {
    let config = ask.console.config();
    let name = config::table_name(&draft.table, &config.source.schema).ok()?;
    draft_preview::table_facts(&config, &name).await.ok()
}

fn about(facts: &TableFacts) -> String {
    let rows = facts.rows.map_or_else(|| "never analyzed".to_owned(), |rows| format!("about {} rows", count(rows)));
    format!("{rows}, {}", bytes(facts.bytes))
}

fn key_about(facts: &TableFacts, key: &str) -> String {
    match key.is_empty() || facts.keys.iter().any(|known| known == key) {
        true if key.is_empty() => "the primary key".to_owned(),
        true => "unique by an index".to_owned(),
        false => "no index holds it unique".to_owned(),
    }
}

fn tag(kind: &str, name: &str) -> &'static str {
    match (kind, name) {
        ("user_activity", "email" | "externalId") => "one of two",
        ("user_activity", "action" | "date") => "recommended",
        ("custom_metric", "dimensionId" | "value" | "externalId") => "mandatory",
        ("custom_metric", "date") => "recommended",
        _ => "",
    }
}

/// Returns the rows of the form: the fields, and an empty row for the next one.
fn rows(draft: &SectionDraft, state: &DraftState, columns: &[ColumnFacts]) -> Vec<FieldRow> {
    let one = |field: &DraftField| {
        let (class, why) = why(field, state, columns);
        FieldRow {
            label: field.name.clone(),
            name: field.name.clone(),
            fixed: true,
            tag: tag(&draft.kind, &field.name),
            absent: !field.column.is_empty() && columns.iter().all(|column| column.name != field.column),
            column: field.column.clone(),
            constant: field.constant.clone(),
            bad: class == "is-stop",
            class,
            why,
        }
    };
    let next = FieldRow {
        label: "the next field".to_owned(),
        name: String::new(),
        fixed: false,
        tag: "",
        column: String::new(),
        absent: false,
        constant: String::new(),
        bad: false,
        class: "",
        why: String::new(),
    };
    draft.fields.iter().map(one).chain([next]).collect()
}

/// Returns the remark on a field: its fault, the rows refused for it, or what the sample holds.
fn why(field: &DraftField, state: &DraftState, columns: &[ColumnFacts]) -> (&'static str, String) {
    if let Some(fault) = state.faults.iter().find(|fault| fault.field == field.name) {
        return ("is-stop", format!("{}: {}", fault.what, fault.remedy));
    }
    let Some(shown) = &state.shown else { return ("", String::new()) };
    let of_field = |why: &&str| {
        let rest = why.strip_prefix(field.name.as_str());
        rest.is_some_and(|rest| rest.starts_with([':', ' ']))
    };
    let refused = shown.rows.iter().filter_map(Previewed::refused).filter(of_field).count();
    if refused > 0 {
        let rows = format!("{refused} of {}", plural(shown.rows.len() as u64, "row", "rows"));
        return ("is-stop", format!("{rows} would go into quarantine for it"));
    }
    let Some(facts) = columns.iter().find(|column| column.name == field.column) else { return ("", String::new()) };
    let rows = shown.rows.len();
    match (facts.nulls, facts.different) {
        (Some(0), Some(different)) => {
            let values = plural(different as u64, "value", "different values");
            ("", format!("{values} in {rows} rows; never NULL"))
        }
        (Some(nulls), Some(different)) => {
            let class = if field.constant.is_empty() { "is-warn" } else { "" };
            (
                class,
                format!("NULL in {nulls} of {rows} rows; {}", plural(different as u64, "value", "different values")),
            )
        }
        _ => ("", String::new()),
    }
}

/// Returns the preview: refusals first, then the first items.
fn preview(shown: &DraftShown, sees: bool) -> PreviewView {
    if !sees {
        return PreviewView { withheld: true, ..PreviewView::default() };
    }
    let bad = shown.rows.iter().filter(|row| row.refused().is_some()).count();
    let sizes: usize = shown.rows.iter().filter_map(Previewed::item).map(<[u8]>::len).sum();
    let good = shown.rows.iter().filter(|row| row.item().is_some()).count();
    let about = match sizes.checked_div(good) {
        Some(size) => format!("read just now · {size} bytes an item"),
        None => "read just now".to_owned(),
    };
    let refused = shown.rows.iter().filter(|row| row.refused().is_some()).take(ITEMS);
    let items = refused.chain(shown.rows.iter().filter(|row| row.item().is_some()).take(ITEMS)).map(|row| ItemView {
        bad: row.refused().is_some(),
        key: row.key.clone(),
        why: row.refused().map(str::to_owned).unwrap_or_default(),
        size: row.item().map(|item| bytes(item.len() as u64)).unwrap_or_default(),
        json: json_markup(&row.item().map(terminal::pretty).unwrap_or_default()),
    });
    let tally = draw::tally(good, shown.rows.len() - good - bad, bad);
    PreviewView { withheld: false, rows: shown.rows.len(), good, bad, about, tally, items: items.collect() }
}

/// Returns why the person cannot write the file from here; `None` where they can.
pub(crate) fn cannot_save(ask: &Ask) -> Option<String> {
    if !ask.is_operator() {
        return Some("this needs the role operator".to_owned());
    }
    config_file::cannot_write(&ask.console.path, &ask.console.config())
}
