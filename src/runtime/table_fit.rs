//! Whether a section fits its table: found by its OID where it was attached before, under whatever name.
//!
//! * In: a section, and what the state recorded of its table.
//! * Out: the table, what is read of it, and how that becomes items; or what is in the way, with its remedy.
//! * Never: another table taken for the one attached because it has its name.

use crate::config::{Config, Section, Start};
use crate::mapping::Mapping;
use crate::model::{Column, Fault, Key, Lsn};
use crate::postgres::catalog::key_columns::KeyColumns;
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::catalog::types::Types;
use crate::postgres::catalog::{partition_roots, publication, quote, replica_identity, server, table};
use crate::postgres::connection::session::{Session, is_transient};
use crate::postgres::preflight::{key_findings, table_findings};
use crate::postgres::setup;
use crate::runtime::update_stream;
use crate::state::model::{BackfillProgress, RangeStart};
use crate::state::{Attachment, MappedColumn, SectionPhase, SectionRow};

/// A section that fits its table.
#[derive(Debug)]
pub(crate) struct Fit {
    /// The section, with its key.
    pub section: Section,
    pub table: TableInfo,
    /// The columns that it reads, as rows bring them.
    pub columns: Vec<Column>,
    /// How rows of the table become items.
    pub mapping: Mapping,
}

impl Fit {
    /// What the state keeps of it.
    pub(crate) fn attachment(&self, attach_lsn: Option<Lsn>) -> Attachment {
        let column = |name: &String| {
            let ty = self.table.column(name).map(|column| column.type_name.clone()).unwrap_or_default();
            MappedColumn { name: name.clone(), ty }
        };
        Attachment {
            table_oid: self.table.oid,
            table_name: self.section.table.to_string(),
            kind: self.section.kind.as_str().to_owned(),
            attach_lsn,
            columns: self.section.columns().iter().map(column).collect(),
        }
    }
}

/// The section with its key, where it does not fit its table now and can go on with what is in the WAL.
pub(crate) async fn still_streams(
    control: &Session,
    section: &Section,
    row: &SectionRow,
) -> Result<Option<Section>, tokio_postgres::Error> {
    if row.phase != SectionPhase::Streaming {
        return Ok(None);
    }
    let oid = row.attachment.table_oid;
    let by_name = table::by_name(control, &section.table).await?;
    let table = match by_name {
        Some(table) if table.oid != oid => None,
        Some(table) => Some(table),
        None => table::by_oid(control, oid).await?,
    };
    Ok(table.and_then(|table| {
        let section = table.with_key(section);
        let there = section.key.iter().all(|name| table.column(name).is_some());
        (there && !section.key.is_empty()).then_some(section)
    }))
}

/// The table of a section that was attached before: the same OID, under whatever name.
pub(crate) async fn follow(
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
    let configured = section.table.to_string();
    let moved = configured != row.attachment.table_name;
    Ok(match (by_oid, by_name) {
        // The configuration names another table now: a new attachment.
        (_, Some(table)) if moved => Ok(table),
        (Some(table), None) => {
            tracing::warn!(section = %section.name, table = %table.name, "the table was renamed: followed by its OID; \
                name it so in the configuration");
            Ok(table)
        }
        (Some(_), Some(_)) | (None, Some(_)) => Err(Fault::needs_person(
            format!("section {}: {configured} was dropped and re-created, or replaced by a rename", section.name),
            "pg2planhat repair --gap, or give the section a new name to attach it anew",
        )),
        (None, None) => Err(Fault::needs_person(
            format!("section {}: its table {configured} was dropped", section.name),
            "set `sync: off`, or remove the section",
        )),
    })
}

/// Looks at a section's table, by its OID where it was attached before.
pub(crate) async fn describe(
    config: &Config,
    control: &Session,
    types: &Types,
    section: &Section,
    row: Option<&SectionRow>,
) -> Result<Result<Fit, Fault>, tokio_postgres::Error> {
    let by_name = table::by_name(control, &section.table).await?;
    let recorded = row.filter(|row| row.phase != SectionPhase::Waiting);
    let table = match (recorded, by_name) {
        (None, Some(table)) => table,
        (None, None) => return Ok(Err(setup::no_table(&section.table))),
        (Some(row), by_name) => match follow(control, section, row, by_name).await? {
            Ok(table) => table,
            Err(fault) => return Ok(Err(fault)),
        },
    };
    if let Some((what, remedy)) = partition_roots::root_is_mapped(control, config, section, table.oid).await? {
        return Ok(Err(Fault::usage(format!("section {}: {what}", section.name), remedy)));
    }
    let section = table.with_key(section);
    let columns = section.columns();
    if columns.iter().any(|name| table.column(name).is_some_and(|column| column.generated)) {
        let version = server::server(control).await?.version;
        let publication = &config.source.publication;
        let published = publication::publication(control, publication).await?.map(|publication| publication.generated);
        let left_out = columns.iter().find_map(|name| table.left_out(name, version, (publication, published)));
        if let Some((what, remedy)) = left_out {
            return Ok(Err(Fault::usage(format!("section {}: {what}", section.name), remedy)));
        }
    }
    let all = table.row_columns(types);
    let chosen: Vec<_> =
        columns.iter().filter_map(|name| all.iter().find(|column| column.name == *name).cloned()).collect();
    let names = config.planhat.bulk_activity_names;
    // Compiled against all columns for its faults (a near miss is one of them), against those read for its use.
    let mapping = match Mapping::compile(&section, names, &all).and_then(|_| Mapping::compile(&section, names, &chosen))
    {
        Ok(mapping) => mapping,
        Err(faults) => {
            let what: Vec<String> = faults.iter().map(ToString::to_string).collect();
            let remedy = faults.first().map(crate::mapping::MappingFault::remedy).unwrap_or_default();
            return Ok(Err(Fault::usage(what.join("; "), remedy)));
        }
    };
    Ok(Ok(Fit { section, table, columns: chosen, mapping }))
}

/// Why a section is refused: what `check` calls an error of its table or its key. Of one that streams already, what it calls
/// an error of the key's meaning: without an index that holds it unique the stream goes on, and what is proven by it is not
/// true any more.
pub(crate) async fn refusal(
    config: &Config,
    control: &Session,
    fit: &Fit,
    row: Option<&SectionRow>,
) -> Result<Option<Fault>, tokio_postgres::Error> {
    if let Some(fault) = row.and_then(short) {
        return Ok(Some(fault));
    }
    let reads = match row.map(|row| &row.phase) {
        Some(SectionPhase::Streaming) if row.is_some_and(|row| row.attachment.table_oid == fit.table.oid) => {
            if let Some(fault) = unpublishable(config, control, fit, row).await? {
                return Ok(Some(fault));
            }
            return key_findings::meaning_refusal(control, &fit.section, &fit.table).await;
        }
        Some(SectionPhase::Backfilling(_) | SectionPhase::Resyncing(_)) => true,
        Some(SectionPhase::Streaming | SectionPhase::Comparing | SectionPhase::Waiting) | None => {
            fit.section.start != Start::Now
        }
    };
    let (of_table, of_key) = tokio::try_join!(
        table_findings::refusal(control, config, (&fit.section, &fit.table)),
        key_findings::refusal(control, &fit.section, &fit.table, reads)
    )?;
    Ok(of_table.or(of_key))
}

/// Why a section that streams inserts cannot turn to updates: its table's may not be published. Of one that sends updates already
/// the monitor tells, for the application is refused by then.
async fn unpublishable(
    config: &Config,
    control: &Session,
    fit: &Fit,
    row: Option<&SectionRow>,
) -> Result<Option<Fault>, tokio_postgres::Error> {
    let is_carried = row.is_some_and(|row| update_stream::entries(row.publication_entry.as_deref()).1.is_some());
    if is_carried || !fit.section.sends_updates() {
        return Ok(None);
    }
    let missing = replica_identity::missing(control, config, &fit.table).await?;
    let table = quote::qualified(&fit.table.name);
    Ok(missing
        .map(|(what, remedy)| Fault::needs_person(format!("section {}: {table}: {what}", fit.section.name), remedy)))
}

/// Its range ended short, and which rows these are nobody has asked yet: a restart is no answer.
fn short(row: &SectionRow) -> Option<Fault> {
    row.halted.clone().filter(|_| row.uncounted).map(|(what, remedy)| Fault::needs_person(what, remedy))
}

/// How a new section begins. A key that a person typed is printed once by the server, in the key's type, and refused here
/// where it is none.
pub(crate) async fn first_phase(
    control: &Session,
    section: &Section,
    table: &TableInfo,
) -> Result<SectionPhase, Fault> {
    let cursor = match &section.start {
        Start::Now => return Ok(SectionPhase::Streaming),
        Start::Backfill => None,
        Start::AfterKey(typed) => Some(typed_key(control, section, table, typed).await?.to_string()),
    };
    let from = RangeStart::behind(cursor.clone());
    Ok(SectionPhase::Backfilling(BackfillProgress { cursor, from, ..BackfillProgress::default() }))
}

/// A key as a person writes it, as the server prints it.
pub(crate) async fn typed_key(
    control: &Session,
    section: &Section,
    table: &TableInfo,
    typed: &str,
) -> Result<Key, Fault> {
    let columns = KeyColumns::new(table, &section.key);
    let remedy = "give a key as `pg2planhat preview` shows it; of several columns: a,b or a JSON array";
    let refused = |why: String| Fault::usage(format!("section {}: {typed:?} is no key: {why}", section.name), remedy);
    match columns.canonical(control, typed).await {
        Ok(Some(key)) => Ok(key),
        Ok(None) => Err(refused(format!("the key is of {} columns: {}", columns.width(), section.key.join(", ")))),
        Err(error) if is_transient(&error) => Err(control.fault(&error)),
        Err(error) => Err(refused(control.fault(&error).what)),
    }
}
