//! Tables that were attached before, and are not what they were: renamed, swapped, dropped, altered.
//!
//! * In: a section, and what the state recorded of its table.
//! * Out: the same table under whatever name; or what became of it, with its remedy.
//! * Never: another table taken for the one attached because it has its name.

use super::start::written;
use crate::config::Section;
use crate::fault::Fault;
use crate::postgres::sql::Session;
use crate::postgres::table::{self, TableInfo};
use crate::postgres::types::Types;
use crate::row::KeyType;
use crate::state::{SectionPhase, SectionRow};

/// The type of its keys, where a section that does not fit its table now can go on with what is in the WAL.
pub(super) async fn still_streams(
    control: &Session,
    types: &Types,
    section: &Section,
    row: Option<&SectionRow>,
) -> Result<Option<KeyType>, tokio_postgres::Error> {
    let Some(row) = row.filter(|row| row.phase == SectionPhase::Streaming) else { return Ok(None) };
    let oid = row.attachment.table_oid;
    let by_name = table::by_name(control, &section.table).await?;
    let table = match by_name {
        Some(table) if table.oid != oid => None,
        Some(table) => Some(table),
        None => table::by_oid(control, oid).await?,
    };
    let column = table.as_ref().and_then(|table| table.column(&section.key));
    Ok(column.and_then(|column| table::key_type(types.of(column.type_oid))))
}

/// The table of a section that was attached before: the same OID, under whatever name.
pub(super) async fn follow(
    control: &Session,
    section: &Section,
    row: &SectionRow,
    by_name: Option<TableInfo>,
) -> Result<Result<TableInfo, Fault>, tokio_postgres::Error> {
    let oid = row.attachment.table_oid;
    if let Some(table) = &by_name
        && table.oid == oid
    {
        return Ok(Ok(table.clone()));
    }
    let by_oid = table::by_oid(control, oid).await?;
    let configured = written(&section.table);
    let moved = configured != row.attachment.table_name;
    Ok(match (by_oid, by_name) {
        // The configuration names another table now: a new attachment.
        (_, Some(table)) if moved => Ok(table),
        (Some(table), None) => {
            tracing::warn!(section = %section.name, table = %written(&table.name), "the table was renamed: followed by its OID; \
                name it so in the configuration");
            Ok(table)
        }
        (Some(_), Some(_)) | (None, Some(_)) => Err(Fault::needs_person(
            format!(
                "section {}: {configured} is another table than the one attached (it was swapped or remade)",
                section.name
            ),
            "pg2planhat repair --gap, or give the section a new name to attach it anew",
        )),
        (None, None) => Err(Fault::needs_person(
            format!("section {}: its table {configured} was dropped", section.name),
            "set `sync: off`, or remove the section",
        )),
    })
}
