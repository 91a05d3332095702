//! What an audit reads of a section's table: which table, from which key on, and which rows a rule leaves out.
//!
//! * In: a section, its row in the state, the key that a person asks for.
//! * Out: the table, the key to begin behind, the compiled rules.
//! * Never: a part of a block where the whole is needed to prove it.

use crate::audit;
use crate::audit::Comparison;
use crate::config::{Section, Start};
use crate::mapping::row_filter::RowFilter;
use crate::model::{Column, Fault, Key};
use crate::postgres::catalog::table::{self, TableInfo};
use crate::postgres::catalog::types::Types;
use crate::postgres::connection::session::Session;
use crate::runtime::table_fit;
use crate::state::{SectionPhase, SectionRow};

/// The section's rules, for the columns that decide.
pub(crate) async fn rules(session: &Session, section: &Section, table: &TableInfo) -> Result<RowFilter, Fault> {
    let names = RowFilter::columns(section);
    if names.is_empty() {
        return Ok(RowFilter::default());
    }
    let types = Types::load(session).await.map_err(|error| session.fault(&error))?;
    let all = table.row_columns(&types);
    let columns: Vec<Column> =
        names.iter().filter_map(|name| all.iter().find(|column| column.name == *name).cloned()).collect();
    RowFilter::compile(section, &columns).map_err(|faults| {
        let what: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Fault::usage(what.join("; "), "see `pg2planhat check`")
    })
}

/// The table that the section is attached to, under whatever name it has now; none where another one has its name: of the rows
/// there this one says nothing.
pub(crate) async fn attached_table(session: &Session, section: &Section, row: &SectionRow) -> Result<TableInfo, Fault> {
    let (name, table) = (&section.name, &section.table);
    if row.phase == SectionPhase::Waiting {
        let what = format!("section {name} is not attached yet: there is nothing to audit");
        return Err(Fault::usage(
            what,
            "`pg2planhat status` says what it waits for, and `pg2planhat check` what is wrong",
        ));
    }
    let at = |error: tokio_postgres::Error| session.fault(&error);
    let found = table::by_oid(session, row.attachment.table_oid).await.map_err(at)?;
    let named = table::by_name(session, table).await.map_err(at)?;
    match (found, named) {
        (Some(found), Some(named)) if named.oid != found.oid => Err(Fault::needs_person(
            format!(
                "section {name}: {table} is another table than the one that it is attached to, which is {} now: what of its rows \
                 was delivered, an audit of that one does not tell",
                found.name
            ),
            "`pg2planhat status` says how the section goes on",
        )),
        (Some(found), _) => Ok(found),
        (None, _) => Err(Fault::usage(
            format!("section {name}: the table {table} that it is attached to is gone"),
            "see `pg2planhat check`",
        )),
    }
}

/// Where the audit begins: what a person asks for, or where the section itself begins.
pub(crate) async fn from_key(
    session: &Session,
    table: &TableInfo,
    section: &Section,
    asked: Option<&str>,
) -> Result<Option<Key>, Fault> {
    let configured = match &section.start {
        Start::AfterKey(key) => Some(key.as_str()),
        Start::Backfill | Start::Now => None,
    };
    let Some(key) = asked.or(configured) else { return Ok(None) };
    table_fit::typed_key(session, section, table, key).await.map(Some)
}

/// Where to read from, so that the first block is whole: what is before `from` is set aside. Integers alone have blocks in
/// the order of their keys.
pub(crate) fn block_of(
    table: &TableInfo,
    section: &Section,
    from: Option<&Key>,
    comparison: &mut Comparison,
) -> Option<Key> {
    let from = from?;
    let value = audit::integer(from.as_str().as_bytes());
    let Some((least, value)) = least_key(table, section).zip(value) else { return Some(from.clone()) };
    comparison.set_aside(value);
    audit::tally::before_block(value).filter(|before| *before >= least).map(|before| Key::new(before.to_string()))
}

/// The least key that there can be, where the key is one integer: its order is that of the blocks, and of time as a rule.
pub(crate) fn least_key(table: &TableInfo, section: &Section) -> Option<i64> {
    let [only] = section.key.as_slice() else { return None };
    match table.column(only)?.base_type.as_str() {
        "bigint" => Some(i64::MIN),
        "integer" => Some(i64::from(i32::MIN)),
        "smallint" => Some(i64::from(i16::MIN)),
        _ => None,
    }
}
