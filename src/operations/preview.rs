//! The exact items that real rows would become. Sends nothing.

use crate::config::{Config, Section};
use crate::mapping::{Mapping, MappingFault};
use crate::model::{Column, CommitTime, Fault, FilterRule, Row};
use crate::postgres::backfill::result_reader::ResultSelection;
use crate::postgres::backfill::selection;
use crate::postgres::backfill::selection::Selection;
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::catalog::types::Types;
use crate::postgres::catalog::{locks, quote, result, table};
use crate::postgres::connection::session::{Session, connect_sql};
use crate::postgres::setup;

/// One row, with its item or its refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Previewed {
    pub key: String,
    /// What it becomes.
    pub becomes: Becomes,
}

/// What a row becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Becomes {
    /// An item, as JSON.
    Item(Vec<u8>),
    /// It goes into quarantine, for this reason.
    Refused(String),
    /// A rule leaves it out.
    LeftOut(FilterRule),
}

impl Previewed {
    /// Its item, where it becomes one.
    pub(crate) fn item(&self) -> Option<&[u8]> {
        match &self.becomes {
            Becomes::Item(item) => Some(item),
            Becomes::Refused(_) | Becomes::LeftOut(_) => None,
        }
    }

    /// Why it goes into quarantine, where it does.
    pub(crate) fn refused(&self) -> Option<&str> {
        match &self.becomes {
            Becomes::Refused(why) => Some(why),
            Becomes::Item(_) | Becomes::LeftOut(_) => None,
        }
    }
}

/// Reads the newest rows of a section (or the oldest), and makes their items.
///
/// # Errors
/// Where the section does not fit its table, or the table cannot be read.
pub(crate) async fn preview(
    config: &Config,
    section: &Section,
    newest: bool,
    rows: u32,
) -> Result<Vec<Previewed>, Fault> {
    let session = connect_sql(&config.source, "preview").await?;
    let info = find(&session, section, &config.source.schema).await?;
    let section = &info.with_key(section);
    let types = Types::load(&session).await.map_err(|error| session.fault(&error))?;
    let names = config.planhat.bulk_activity_names;
    // Against all columns first, so that a misspelt one finds the one that was meant.
    Mapping::compile(section, names, &info.row_columns(&types)).map_err(|faults| unfit(&faults))?;
    let wanted = section.columns();
    let read: Vec<Column> =
        info.row_columns(&types).into_iter().filter(|column| wanted.contains(&column.name)).collect();
    let mapping = Mapping::compile(section, names, &read).map_err(|faults| unfit(&faults))?;
    session.batch_execute(selection::SESSION).await.map_err(|error| session.fault(&error))?;
    // A key without an index is sorted for: a person waits, the server should not work for ever.
    let bounds = format!("{}; SET statement_timeout = '60s'", locks::LOCK_TIMEOUT);
    session.batch_execute(&bounds).await.map_err(|error| session.fault(&error))?;
    let selection = read_at_all(Selection::new(section, &info, &read), &session, section, &info);
    let rows = match selection.read_end(&session, newest, rows).await {
        Ok(rows) => rows,
        Err(error) => {
            let what = format!("{} is locked", quote::qualified(&section.table));
            let locked = setup::locked(&session, &error, info.oid, &what).await;
            return Err(locked.unwrap_or_else(|| session.fault(&error)));
        }
    };
    Ok(rows.iter().map(|row| encode(&mapping, &row)).collect())
}

/// Of a result that is compared, the rows that a comparison reads: not those that `within` leaves out.
pub(crate) fn read_at_all(selection: Selection, session: &Session, section: &Section, info: &TableInfo) -> Selection {
    if section.is_streamed() {
        return selection;
    }
    selection.only(ResultSelection::new(section, info, &section.columns(), session, None, &[]).condition())
}

/// What a section reads: its table, view or query.
pub(crate) async fn find(session: &Session, section: &Section, schema: &str) -> Result<TableInfo, Fault> {
    let at = |error: tokio_postgres::Error| session.fault(&error);
    if !section.is_streamed() {
        return result::described(session, section, schema).await;
    }
    match table::by_name(session, &section.table).await.map_err(at)? {
        Some(info) => Ok(info),
        None => Err(match table::nearest(session, &section.table).await.map_err(at)? {
            Some(near) => Fault::usage(
                format!("there is no table {}", quote::qualified(&section.table)),
                format!("did you mean {}?", quote::qualified(&near)),
            ),
            None => setup::no_table(&section.table),
        }),
    }
}

fn unfit(faults: &[MappingFault]) -> Fault {
    let what: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let remedy: Vec<String> = faults.iter().map(MappingFault::remedy).collect();
    Fault::usage(what.join("\n       "), remedy.join("\n          "))
}

fn encode(mapping: &Mapping, row: &Row<'_>) -> Previewed {
    let key = String::from_utf8_lossy(&mapping.key_text(row)).into_owned();
    let mut item = Vec::new();
    let becomes = match mapping.left_out(row) {
        Ok(Some(rule)) => Becomes::LeftOut(rule),
        Ok(None) => match mapping.encode(row, CommitTime::Unknown, &mut item) {
            Ok(()) => Becomes::Item(item),
            Err(refusal) => Becomes::Refused(refusal.to_string()),
        },
        Err(refusal) => Becomes::Refused(refusal.to_string()),
    };
    Previewed { key, becomes }
}
