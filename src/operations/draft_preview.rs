//! What a draft of a section would make of real rows: the items, what is refused and where, and what the columns hold.
//!
//! * In: a configuration that says the draft.
//! * Out: a [`DraftShown`]; what does not fit, by its field.
//! * Never: a row sent; more than a sample read.

use std::collections::HashSet;

use crate::config::{Config, Section, TableName};
use crate::mapping::{Guess, Mapping, guess};
use crate::model::{Column, CommitTime, Fault, Value};
use crate::operations::preview::{self, Becomes, Previewed};
use crate::operations::reading;
use crate::postgres::backfill::selection;
use crate::postgres::backfill::selection::Selection;
use crate::postgres::catalog::listing;
use crate::postgres::catalog::table;
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::catalog::types::Types;
use crate::postgres::connection::session::Session;
use crate::postgres::setup;
use crate::sql;

/// Rows that a draft is tried with.
pub(crate) const SAMPLE: u32 = 100;

/// Which rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PreviewRows {
    Newest,
    Oldest,
    Key(String),
}

/// A column, and what the sample holds of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnFacts {
    pub name: String,
    pub ty: String,
    /// Of the rows read; none where it was not read.
    pub nulls: Option<usize>,
    pub different: Option<usize>,
}

/// A table, as somebody who maps it wants to know it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TableFacts {
    pub columns: Vec<ColumnFacts>,
    /// Columns that an index holds unique, alone or together, the best first.
    pub keys: Vec<String>,
    pub rows: Option<u64>,
    pub bytes: u64,
    /// First sections for it: at least one.
    pub guesses: Vec<Guess>,
}

/// What a draft does not fit, and at which field (empty: the section).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DraftFault {
    pub field: String,
    pub what: String,
    pub remedy: String,
}

/// What a draft does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DraftShown {
    pub table: TableFacts,
    pub rows: Vec<Previewed>,
    pub faults: Vec<DraftFault>,
}

/// The tables of a schema that could be mapped: name, rows, whether a key is there.
pub(crate) async fn tables(config: &Config, schema: &str) -> Result<Vec<listing::TableEntry>, Fault> {
    let session = reading(config, "discover").await?;
    listing::tables(&session, schema).await.map_err(|error| session.fault(&error))
}

/// The views and foreign tables of a schema: what has no log, and can be compared.
pub(crate) async fn results(config: &Config, schema: &str) -> Result<Vec<TableName>, Fault> {
    let session = reading(config, "discover").await?;
    listing::results(&session, schema).await.map_err(|error| session.fault(&error))
}

/// The databases that the role may connect to.
pub(crate) async fn databases(config: &Config) -> Result<Vec<String>, Fault> {
    let session = reading(config, "discover").await?;
    listing::databases(&session).await.map_err(|error| session.fault(&error))
}

/// A name for a slot of its own, and the database that has the configured one, where that decodes another database.
pub(crate) async fn slot_of_another(config: &Config) -> Result<Option<(String, String)>, Fault> {
    let session = reading(config, "discover").await?;
    let sql = "SELECT slot_name::text, coalesce(database::text, ''), current_database()::text FROM pg_catalog.pg_replication_slots";
    let rows = sql::query(&session, sql, &[]).await.map_err(|error| session.fault(&error))?;
    let database: String = rows.first().map(|row| row.get(2)).unwrap_or_default();
    let slots: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    Ok(free_slot(&slots, &config.source.slot, &database))
}

/// `slots`: each with the database that it decodes; an empty one where it is physical.
fn free_slot(slots: &[(String, String)], wanted: &str, database: &str) -> Option<(String, String)> {
    let others = |name: &str| slots.iter().find(|(known, of)| known == name && of != database);
    let (_, other) = others(wanted)?;
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    // A slot's name has at most 63 characters.
    let own: String = wanted.chars().chain(['_']).chain(database.chars().map(letter)).take(58).collect();
    let numbered = (2..100).map(|number| format!("{own}_{number}"));
    let free = [own.clone()].into_iter().chain(numbered).find(|name| others(name).is_none())?;
    Some((free, other.clone()))
}

/// The schemas that hold tables.
pub(crate) async fn schemas(config: &Config) -> Result<Vec<String>, Fault> {
    let session = reading(config, "discover").await?;
    let schemas = listing::schemas(&session).await.map_err(|error| session.fault(&error))?;
    Ok(schemas.into_iter().filter(|schema| schema.tables > 0 || schema.results > 0).map(|schema| schema.name).collect())
}

/// The facts of a table.
pub(crate) async fn table_facts(config: &Config, name: &TableName) -> Result<TableFacts, Fault> {
    let session = reading(config, "discover").await?;
    let fault = |error: tokio_postgres::Error| session.fault(&error);
    let info = table::by_name(&session, name).await.map_err(fault)?.ok_or_else(|| setup::no_table(name))?;
    let types = Types::load(&session).await.map_err(fault)?;
    facts(&session, &info, &types).await
}

async fn facts(session: &Session, info: &TableInfo, types: &Types) -> Result<TableFacts, Fault> {
    let fault = |error: tokio_postgres::Error| session.fault(&error);
    let keys = listing::keys(session, info).await.map_err(fault)?;
    let entries = listing::tables(session, &info.name.schema).await.map_err(fault)?;
    let entry = entries.iter().find(|entry| entry.name == info.name);
    let usable = usable(info, types);
    let updates = table::updates(session, info.oid).await.map_err(fault)?;
    let is_result = matches!(info.kind, 'v' | 'm' | 'f');
    let guesses = guess(&info.name, &usable, &keys);
    let column = |column: &table::TableColumn| ColumnFacts {
        name: column.name.clone(),
        ty: column.type_name.clone(),
        nulls: None,
        different: None,
    };
    Ok(TableFacts {
        columns: info.columns.iter().filter(|column| !column.generated).map(column).collect(),
        guesses: guesses.into_iter().map(|guess| guess.read_as(is_result, updates, &keys)).collect(),
        keys: keys.iter().map(|key| key.join(", ")).collect(),
        rows: entry.and_then(|entry| entry.rows),
        bytes: entry.map_or(0, |entry| entry.bytes),
    })
}

fn usable(info: &TableInfo, types: &Types) -> Vec<Column> {
    let columns = info.row_columns(types).into_iter();
    columns.filter(|column| info.column(&column.name).is_some_and(|known| !known.generated)).collect()
}

/// Tries a draft.
pub(crate) async fn draft_preview(
    config: &Config,
    section: &Section,
    which: &PreviewRows,
) -> Result<DraftShown, Fault> {
    let session = reading(config, "preview").await?;
    let fault = |error: tokio_postgres::Error| session.fault(&error);
    let info = preview::find(&session, section, &config.source.schema).await?;
    let section = &info.with_key(section);
    let types = Types::load(&session).await.map_err(fault)?;
    let mut shown = DraftShown { table: facts(&session, &info, &types).await?, rows: Vec::new(), faults: Vec::new() };
    let names = config.planhat.bulk_activity_names;
    let all = info.row_columns(&types);
    let unfit = |faults: Vec<crate::mapping::MappingFault>| {
        let one = |fault: &crate::mapping::MappingFault| {
            let text = fault.to_string();
            let what = text.split_once(&format!("{}: ", fault.field)).map_or(text.as_str(), |(_, what)| what);
            DraftFault { field: fault.field.clone(), what: what.to_owned(), remedy: fault.remedy() }
        };
        faults.iter().map(one).collect()
    };
    if let Err(faults) = Mapping::compile(section, names, &all) {
        shown.faults = unfit(faults);
        return Ok(shown);
    }
    let wanted = section.columns();
    let read: Vec<Column> = all.into_iter().filter(|column| wanted.contains(&column.name)).collect();
    let mapping = match Mapping::compile(section, names, &read) {
        Ok(mapping) => mapping,
        Err(faults) => {
            shown.faults = unfit(faults);
            return Ok(shown);
        }
    };
    session.batch_execute(selection::SESSION).await.map_err(fault)?;
    let selection = preview::read_at_all(Selection::new(section, &info, &read), &session, section, &info);
    let rows = match which {
        PreviewRows::Key(key) => selection.read_keys(&session, std::slice::from_ref(key)).await.map_err(fault)?,
        end @ (PreviewRows::Newest | PreviewRows::Oldest) => {
            let newest = *end == PreviewRows::Newest;
            selection.read_end(&session, newest, SAMPLE).await.map_err(fault)?
        }
    };
    for row in rows.iter() {
        let key = String::from_utf8_lossy(&mapping.key_text(&row)).into_owned();
        let mut item = Vec::new();
        let becomes = match mapping.left_out(&row) {
            Ok(Some(rule)) => Becomes::LeftOut(rule),
            Ok(None) => match mapping.encode(&row, CommitTime::Unknown, &mut item) {
                Ok(()) => Becomes::Item(item),
                Err(refusal) => Becomes::Refused(refusal.to_string()),
            },
            Err(refusal) => Becomes::Refused(refusal.to_string()),
        };
        shown.rows.push(Previewed { key, becomes });
    }
    for (at, column) in read.iter().enumerate() {
        let values: Vec<Option<String>> = rows.iter().map(|row| text_of(row.get(at))).collect();
        if let Some(facts) = shown.table.columns.iter_mut().find(|facts| facts.name == column.name) {
            facts.nulls = Some(values.iter().filter(|value| value.is_none()).count());
            facts.different = Some(values.iter().flatten().collect::<HashSet<_>>().len());
        }
    }
    Ok(shown)
}

fn text_of(value: Value<'_>) -> Option<String> {
    match value {
        Value::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        Value::Null | Value::Oversize | Value::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_256_a_slot_of_another_database_is_left_to_it() {
        let slots = |taken: &[(&str, &str)]| {
            let text = |(name, of): &(&str, &str)| ((*name).to_owned(), (*of).to_owned());
            free_slot(&taken.iter().map(text).collect::<Vec<_>>(), "pg2planhat", "App-4")
        };
        let own = |name: &str, other: &str| Some((name.to_owned(), other.to_owned()));
        assert_eq!(slots(&[]), None);
        assert_eq!(slots(&[("pg2planhat", "App-4"), ("x", "app")]), None, "its own");
        assert_eq!(slots(&[("pg2planhat", "app")]), own("pg2planhat_app_4", "app"));
        assert_eq!(slots(&[("pg2planhat", "app"), ("pg2planhat_app_4", "App-4")]), own("pg2planhat_app_4", "app"));
        assert_eq!(slots(&[("pg2planhat", "app"), ("pg2planhat_app_4", "app_4")]), own("pg2planhat_app_4_2", "app"));
        assert_eq!(slots(&[("pg2planhat", "")]), own("pg2planhat_app_4", ""), "a standby's");
    }
}
