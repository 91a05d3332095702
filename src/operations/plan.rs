//! What a file would change against what is recorded, and what that would do.
//!
//! * In: a configuration; the state, and how large tables are.
//! * Out: [`PlannedChange`]s, worst first: rows that would count twice or be lost are a danger.
//! * Never: a change; a secret.

use std::fmt::Debug;
use std::sync::Arc;

use serde::Serialize;

use crate::config::definition::{Definition, NO_RULES};
use crate::config::{Config, Section, Start};
use crate::model::{Fault, SectionName};
use crate::operations::consistency::slot_without_state;
use crate::postgres::catalog::quote;
use crate::postgres::catalog::server;
use crate::postgres::catalog::types::Types;
use crate::postgres::connection::session::Session;
use crate::runtime::StateConnector;
use crate::runtime::diff_compare::not_before;
use crate::runtime::section_changes::{
    ConfiguredTables, DeliveredBefore, SectionHistory, delivered_again, key_changed,
};
use crate::runtime::startup_diff::other_database;
use crate::runtime::table_fit::describe;
use crate::runtime::update_leftovers;
use crate::sql;
use crate::state::{Gap, Identity, SectionPhase, SectionRow, Store};
use crate::terminal::plural;

/// One thing that the file would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PlannedChange {
    /// The section; empty where all are concerned.
    pub section: String,
    /// `new`, `fields`, `renamed?`, `removed`, `off`, `on again`, `table`, `key`, `read`,
    /// `batch`, `flush`, `in_doubt`, `rules`, `within`, `settings`, `connection`.
    pub kind: &'static str,
    /// One sentence for people.
    pub said: String,
    /// The rows that it concerns, as far as that is known.
    pub rows: Option<u64>,
    /// Rows would count twice or be lost.
    pub danger: bool,
}

/// What is recorded.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecordedState {
    pub sections: Vec<SectionRow>,
    /// Names of the sections that were switched off, and whose gap nobody closed.
    pub off: Vec<String>,
    pub identity: Option<Identity>,
    /// Which table each name of the file is.
    pub tables: ConfiguredTables,
}

impl PlannedChange {
    /// It is refused while an instance runs: what is recorded of the section would not be true any more; or a record would go on
    /// under another name, which it does at a start only. (That rows count twice is for a person to confirm, by their number.)
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self.kind, "table" | "key" | "read") || self.kind == "renamed?" && !self.danger
    }
}

/// Compares a file with the state. Sends nothing, changes nothing.
pub(crate) async fn plan(config: &Arc<Config>) -> Result<Vec<PlannedChange>, Fault> {
    let store = StateConnector::new(Arc::clone(config)).store().await?;
    let mut recorded = RecordedState::default();
    let there = store.is_there().await.map_err(crate::operations::fate)?;
    if there {
        recorded.sections = store.sections().await.map_err(crate::operations::fate)?;
        let gaps = store.gaps(true).await.map_err(crate::operations::fate)?;
        let off = |gap: &&Gap| gap.reason == "switched_off";
        recorded.off = gaps.iter().filter(off).filter_map(|gap| gap.section.clone()).collect();
        let instance = store.instance().await.map_err(crate::operations::fate)?;
        recorded.identity = instance.map(|instance| instance.identity);
    }
    let mut sizes = Vec::new();
    let session = crate::operations::reading(config, "plan").await?;
    for section in config.sections.iter().filter(|section| section.is_on() && !section.table.name.is_empty()) {
        let sql = "SELECT greatest(c.reltuples, 0)::bigint FROM pg_catalog.pg_class c WHERE c.oid = to_regclass($1)";
        let row = sql::query_opt(&session, sql, &[&quote::qualified(&section.table)]).await;
        let rows = row.map_err(|error| session.fault(&error))?.and_then(|row| u64::try_from(row.get::<_, i64>(0)).ok());
        sizes.push((section.name.to_string(), rows));
    }
    recorded.tables = ConfiguredTables::find(&session, config).await.map_err(|error| session.fault(&error))?;
    let size =
        |section: &Section| sizes.iter().find(|(name, _)| *name == section.name.as_str()).and_then(|(_, rows)| *rows);
    let mut changes = compare(config, &recorded, &size);
    if there {
        changes.extend(forgotten(config, &store).await?);
    }
    let left = update_leftovers::said(config, &session, &recorded.sections).await;
    let left = left.map_err(|error| session.fault(&error))?;
    let own = |kind, said: String, rows, danger| PlannedChange { section: String::new(), kind, said, rows, danger };
    if there && let Some(fault) = other_database_of(config, &session, &recorded).await? {
        changes.push(own("connection", fault.what, None, true));
    }
    changes.extend(left.map(|fault| own("settings", format!("{}; {}", fault.what, fault.remedy), None, false)));
    if let Some(fault) = slot_without_state(config).await? {
        changes
            .insert(0, own("connection", format!("{}: the instance stops and asks a person", fault.what), None, true));
    } else if there {
        let kept = &config.state;
        let (batches, rows) =
            store.overdue(kept.keep_deliveries, kept.keep_quarantine).await.map_err(crate::operations::fate)?;
        if rows > 0 {
            let said = format!(
                "{} in quarantine, never delivered, are dropped for good: older than state.keep_quarantine",
                plural(rows, "row", "rows")
            );
            changes.insert(0, own("settings", said, Some(rows), true));
        }
        if batches > 0 {
            let said =
                format!("the ledger forgets {}: older than state.keep_deliveries", plural(batches, "batch", "batches"));
            changes.push(own("settings", said, None, false));
        }
    }
    Ok(changes)
}

/// Results that are compared with what was settled of another database.
async fn other_database_of(
    config: &Config,
    session: &Session,
    recorded: &RecordedState,
) -> Result<Option<Fault>, Fault> {
    let Some(identity) = recorded.identity.as_ref().filter(|_| !config.streams()) else { return Ok(None) };
    let found = server::server(session).await.map_err(|error| session.fault(&error))?;
    Ok(other_database(identity, &found))
}

/// Sections whose result is asked for rows that may have been sent and forgotten.
async fn forgotten(config: &Config, store: &Store) -> Result<Vec<PlannedChange>, Fault> {
    let mut changes = Vec::new();
    for section in config.sections.iter().filter(|section| section.is_on() && !section.is_streamed()) {
        let gone = store.forgotten(&section.name).await.map_err(crate::operations::fate)?;
        if let Some(before) = not_before(section, &gone, jiff::Timestamp::now()) {
            let name = section.name.to_string();
            let said = format!(
                "rows of a date before {before} are not read: some of them were sent, and which is forgotten (`within`); \
                 `pg2planhat resync {name} --all` sends everything again, those a second time"
            );
            changes.push(PlannedChange { section: name, kind: "within", said, rows: None, danger: false });
        }
    }
    Ok(changes)
}

/// Why sections that are attached cannot be taken over as they are written: each is held against its table.
pub(crate) async fn misfits(config: &Arc<Config>, names: &[SectionName]) -> Result<Vec<Fault>, Fault> {
    let store = StateConnector::new(Arc::clone(config)).store().await?;
    let rows = store.sections().await.map_err(crate::operations::fate)?;
    let session = crate::operations::reading(config, "plan").await?;
    let at = |error: tokio_postgres::Error| session.fault(&error);
    let types = Types::load(&session).await.map_err(at)?;
    let mut faults = Vec::new();
    for section in config.sections.iter().filter(|section| names.contains(&section.name)) {
        let Some(row) = rows.iter().find(|row| row.name == section.name && row.phase != SectionPhase::Waiting) else {
            continue;
        };
        faults.extend(describe(config, &session, &types, section, Some(row)).await.map_err(at)?.err());
    }
    Ok(faults)
}

/// What differs beside the sections between what runs and what the file says, by its name. Pure.
pub(crate) fn elsewhere(running: &Config, read: &Config) -> Vec<&'static str> {
    // Debug forms hide inline secrets, so these are compared by themselves.
    fn unlike<T: Debug>(one: &T, other: &T) -> bool {
        format!("{one:?}") != format!("{other:?}")
    }
    let reader = |config: &Config| config.source.reader.as_ref().map(|reader| reader.password.clone());
    let secrets = |config: &Config| (config.source.url.clone(), config.source.password.clone(), reader(config));
    let differs = [
        ("source", unlike(&running.source, &read.source) || secrets(running) != secrets(read)),
        ("planhat", unlike(&running.planhat, &read.planhat) || running.planhat.tenant != read.planhat.tenant),
        ("state", unlike(&running.state, &read.state) || running.state.url != read.state.url),
        ("admin", unlike(&running.admin, &read.admin)),
        ("audit", unlike(&running.audit, &read.audit)),
        ("console", unlike(&running.console, &read.console)),
        ("memory", running.memory != read.memory),
        ("shutdown_grace", running.shutdown_grace != read.shutdown_grace),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

/// The comparison itself. Pure: `size` gives the rows of a section's table, by estimate.
pub(crate) fn compare(
    config: &Config,
    recorded: &RecordedState,
    size: &dyn Fn(&Section) -> Option<u64>,
) -> Vec<PlannedChange> {
    let mut changes = Vec::new();
    if let Some(identity) = &recorded.identity {
        connection(config, identity, &mut changes);
    }
    let history = SectionHistory { config, tables: &recorded.tables, sections: &recorded.sections };
    for section in &config.sections {
        let row = recorded.sections.iter().find(|row| row.name == section.name);
        match row.filter(|row| row.phase != SectionPhase::Waiting) {
            None if section.is_on() => changes.push(begins(history, section, size(section))),
            None => {}
            Some(row) => differs((history, section), row, recorded, &mut changes),
        }
    }
    for row in recorded.sections.iter().filter(|row| row.phase != SectionPhase::Waiting) {
        let name = row.name.as_str();
        let renamed = config.sections.iter().any(|section| {
            let again = history.delivered_before(section).filter(DeliveredBefore::is_gone);
            [history.takes_over(section), again.map(|before| before.row)]
                .iter()
                .flatten()
                .any(|from| from.name == row.name)
        });
        let there = config.sections.iter().any(|section| section.name == row.name);
        if !there && !renamed && !recorded.off.iter().any(|off| off == name) {
            changes.push(rests(name, "removed", "taken out of the file"));
        }
    }
    changes.sort_by_key(|change| !change.danger);
    changes
}

fn connection(config: &Config, identity: &Identity, changes: &mut Vec<PlannedChange>) {
    let pairs = [
        ("slot", &identity.slot, &config.source.slot),
        ("publication", &identity.publication, &config.source.publication),
    ];
    // Nothing is recorded where no section was ever streamed.
    let differ = pairs.into_iter().filter(|(_, before, now)| !before.is_empty() && before != now);
    for (what, before, now) in differ {
        changes.push(PlannedChange {
            section: String::new(),
            kind: "connection",
            said: format!(
                "the {what} recorded is {before}, and the file says {now}: the instance stops and asks a person"
            ),
            rows: None,
            danger: true,
        });
    }
}

/// A section that is not attached.
fn begins(history: SectionHistory<'_>, section: &Section, size: Option<u64>) -> PlannedChange {
    let name = section.name.to_string();
    if let Some(from) = history.takes_over(section) {
        let rows = plural(from.totals.delivered, "row", "rows");
        let said = format!(
            "goes on with what is recorded of {}, which is gone from the file and reads the same table: {rows} delivered already stay \
             as they are, and it reads on from where that was left",
            from.name
        );
        return PlannedChange {
            section: name,
            kind: "renamed?",
            said,
            rows: Some(from.totals.delivered),
            danger: false,
        };
    }
    if let Some(before) = history.delivered_before(section) {
        let rows = before.row.totals.delivered;
        let Fault { what, remedy, .. } = delivered_again(before, section, None);
        let said = format!("{what}, and would count twice; {remedy}");
        return PlannedChange { section: name, kind: "renamed?", said, rows: Some(rows), danger: true };
    }
    let about = size.map_or("its rows".to_owned(), |rows| format!("about {}", plural(rows, "row", "rows")));
    let (said, rows) = match &section.start {
        Start::Backfill => (format!("a backfill of {about}; none was sent before"), size),
        Start::Now => ("new rows only, from now on".to_owned(), Some(0)),
        Start::AfterKey(key) => (format!("a backfill of the rows with a key greater than {key}"), None),
    };
    PlannedChange { section: name, kind: "new", said, rows, danger: false }
}

/// A section whose rows are not delivered from here on.
fn rests(name: &str, kind: &'static str, how: &str) -> PlannedChange {
    PlannedChange {
        section: name.to_owned(),
        kind,
        said: format!("{how}: rows committed from then on are not delivered; a gap is recorded"),
        rows: None,
        danger: true,
    }
}

/// What other rules than before mean.
fn other_rules(section: &Section) -> String {
    if !section.is_streamed() {
        return "the next comparison sends the rows that an earlier rule left out and these take (`where`, `on_null`); none that \
                was delivered comes again"
            .to_owned();
    }
    let name = &section.name;
    format!(
        "the rules that leave rows out (`where`, `on_null`) hold for rows read from now on: what an earlier rule left out is not \
         sent, and `audit` counts it as unknown; `pg2planhat resync {name}` sends the rows, and those delivered before a second \
         time"
    )
}

/// A section that is attached, against what it was.
fn differs(
    (history, section): (SectionHistory<'_>, &Section),
    row: &SectionRow,
    recorded: &RecordedState,
    changes: &mut Vec<PlannedChange>,
) {
    let name = section.name.to_string();
    let was_off = recorded.off.contains(&name);
    let mut note = |kind, said: String, rows, danger| {
        changes.push(PlannedChange { section: name.clone(), kind, said, rows, danger });
    };
    if !section.is_on() {
        if !was_off {
            changes.push(rests(section.name.as_str(), "off", "switched off"));
        }
        return;
    }
    if was_off {
        let said = "rows committed while it was off were not delivered: bring them with `pg2planhat repair --gap`, or leave them";
        note("on again", said.to_owned(), None, true);
    }
    let table = section.table.to_string();
    let is_named_otherwise = !section.is_streamed() && row.attachment.table_name != table;
    if is_named_otherwise || history.moved_from(section).is_some() {
        let before = history.delivered_before(section).map(|before| delivered_again(before, section, Some(row)));
        let (was, rows) = (&row.attachment.table_name, row.totals.delivered);
        let said = match before {
            Some(Fault { what, remedy, .. }) => format!("the table recorded is {was}; {what}: it halts; {remedy}"),
            None => format!(
                "the table recorded is {was}: the section is attached anew to {table}, and rows of {was} are not delivered from then on"
            ),
        };
        note("table", said, Some(rows), true);
        return;
    }
    if section.is_streamed() != row.attachment.attach_lsn.is_some() {
        let said = "rows that were settled by one way of reading are not known to the other: the section halts; give it a new \
            name, and a beginning behind what is delivered";
        note("read", said.to_owned(), Some(row.totals.delivered), true);
        return;
    }
    if let Some(fault) = key_changed(section, row) {
        note("key", format!("{}; {}", fault.what, fault.remedy), Some(row.totals.delivered), true);
    }
    let Some(before) = &row.definition else { return };
    let now = Definition::of(section);
    if before.fields != now.fields {
        let sent = plural(row.totals.delivered, "row", "rows");
        let said = format!("the fields change from now on; {sent} delivered already stay as they are");
        note("fields", said, Some(row.totals.delivered), false);
    }
    if !before.rules.is_empty() && before.rules != NO_RULES && before.rules != now.rules {
        note("rules", other_rules(section), None, false);
    }
    let tuned = [
        ("batch", &before.batch, &now.batch),
        ("flush", &before.flush, &now.flush),
        ("in_doubt", &before.in_doubt, &now.in_doubt),
        ("settings", &before.rest, &now.rest),
    ];
    for (kind, _, _) in tuned.into_iter().filter(|(_, before, now)| before != now) {
        let what = if kind == "settings" { "what else is set of it" } else { &format!("`{kind}`") };
        note(kind, format!("{what} takes effect at once; no row is sent again"), None, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Attachment;

    fn config(sections: &str) -> Config {
        let text =
            format!("source: {{ host: h, database: d, user: u }}\nplanhat: {{ tenant: t }}\nsections:\n{sections}");
        crate::config::parse(&text, "test").unwrap()
    }

    fn section(name: &str, extra: &str) -> String {
        format!(
            "  - {{ name: {name}, kind: custom_metric, table: t, key: id, {extra}fields: {{ dimensionId: {{ value: x }}, value: v, \
             externalId: e, date: d }} }}\n"
        )
    }

    /// The lines of a file beside what is recorded of another one that has delivered rows.
    fn lines(before: &str, next: &str) -> Vec<(String, &'static str, bool)> {
        let row = |section: &Section| {
            let attachment = Attachment {
                attach_lsn: Some(crate::model::Lsn(1)),
                ..Attachment::none_yet(&section.table, section.kind)
            };
            let mut row = SectionRow::waiting(&section.name, attachment);
            row.phase = SectionPhase::Streaming;
            row.totals.delivered = 10;
            row.key = Some(section.key.clone());
            row.definition = Some(Definition::of(section));
            row
        };
        let sections = config(before).sections.iter().map(row).collect();
        let recorded = RecordedState { sections, ..RecordedState::default() };
        let changes = compare(&config(next), &recorded, &|_| None);
        changes.into_iter().map(|change| (change.section, change.kind, change.danger)).collect()
    }

    #[test]
    fn each_change_has_its_line_and_only_what_changes() {
        let one = section("a", "");
        let line = |section: &str, kind, danger| (section.to_owned(), kind, danger);
        assert_eq!(lines(&one, &one), []);
        assert_eq!(lines(&one, &(one.clone() + &section("b", ""))), [line("b", "new", false)]);
        assert_eq!(lines(&one, &section("b", "")), [line("b", "renamed?", true)]);
        assert_eq!(
            lines(&one, &section("b", "start: now, ")),
            [line("b", "renamed?", false)],
            "it goes on with the record"
        );
        assert_eq!(lines(&one, &section("a", "sync: off, ")), [line("a", "off", true)]);
        assert_eq!(lines(&one, &section("a", "flush: 1m, ")), [line("a", "flush", false)]);
        assert_eq!(lines(&one, &one.replace("value: v", "value: w")), [line("a", "fields", false)]);
        assert_eq!(lines(&one, &one.replace("table: t", "table: u")), [line("a", "table", true)]);
        assert_eq!(lines(&one, &one.replace("key: id", "key: e")), [line("a", "key", true)]);
    }

    #[test]
    fn what_is_kept_by_table_and_key_is_refused_while_it_runs() {
        let change =
            |kind| PlannedChange { section: String::new(), kind, said: String::new(), rows: None, danger: true };
        let refused = ["table", "key", "read", "off", "fields"].map(|kind| change(kind).is_refused());
        assert_eq!(refused, [true, true, true, false, false]);
    }
}
