//! Tables that were attached before, and are not what they were: renamed, swapped, dropped, altered.
//!
//! * In: a section, and what the state recorded of its table.
//! * Out: the same table under whatever name; or what became of it, with its remedy.
//! * Never: another table taken for the one attached because it has its name.

use crate::config::{Config, Section, Start, TableName};
use crate::mapping::Mapping;
use crate::model::lsn::Position;
use crate::model::{Column, Fault, Key};
use crate::postgres::catalog::key_columns::KeyColumns;
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::catalog::types::Types;
use crate::postgres::catalog::{publication, server, table, xmin_barrier};
use crate::postgres::connection::session::{Session, is_transient};
use crate::postgres::preflight::{key_findings, table_findings};
use crate::postgres::setup;
use crate::runtime::start_error::StartError;
use crate::state::instance::Opened;
use crate::state::model::{BackfillProgress, RangeStart};
use crate::state::section_rows::{Attachment, MappedColumn};
use crate::state::store::Epoch;
use crate::state::store::Store;
use crate::state::{SectionPhase, SectionRow};

/// The section with its key, where it does not fit its table now and can go on with what is in the WAL.
pub(crate) async fn still_streams(
    control: &Session,
    section: &Section,
    row: Option<&SectionRow>,
) -> Result<Option<Section>, tokio_postgres::Error> {
    let Some(row) = row.filter(|row| row.phase == SectionPhase::Streaming) else { return Ok(None) };
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

/// A section, attached.
#[derive(Debug)]
pub(crate) struct Attached {
    /// The section, with its key.
    pub section: Section,
    /// Its table now.
    pub table: TableInfo,
    /// The columns that its ranges read, as rows bring them.
    pub columns: Vec<Column>,
    /// How ranges become items.
    pub mapping: Mapping,
    /// As the state has it.
    pub row: SectionRow,
}

/// A section that cannot be attached or resumed, and why.
#[derive(Debug)]
pub(crate) struct Unfit {
    /// As configured; with its key, where that is known.
    pub section: Section,
    /// What, and the remedy.
    pub fault: Fault,
    /// As the state has it, where it was attached before.
    pub row: Option<SectionRow>,
    /// It only streams, and its table is there: rows written when it still fitted can be delivered, so that the stream
    /// decides at which row it halts. Else no mapping could ever deliver them.
    pub streams: bool,
}

/// Attaches what is new and resumes what is known. `waiting` is told for whom that waits.
///
/// # Errors
/// What is in the way of all sections; what is in the way of one is in its [`Unfit`].
pub(crate) async fn attach(
    config: &Config,
    control: &Session,
    store: &Store,
    term: &Epoch,
    opened: &Opened,
    types: &Types,
    waiting: setup::Waiting<'_>,
) -> Result<Vec<Result<Attached, Unfit>>, StartError> {
    let known = |section: &Section| opened.sections.iter().find(|row| row.name == section.name);
    let wanted: Vec<&Section> =
        config.sections.iter().filter(|section| section.is_on() && section.is_streamed()).collect();
    let fresh = wanted.iter().any(|section| known(section).is_none_or(|row| row.phase == SectionPhase::Waiting));
    let mut published = Vec::new();
    if fresh {
        let before = |section: &&&Section| {
            let row = known(section).filter(|row| row.phase != SectionPhase::Waiting);
            row.is_some_and(|row| row.attachment.table_name == section.table.to_string())
        };
        let carried: Vec<TableName> = wanted.iter().filter(before).map(|section| section.table.clone()).collect();
        published = setup::ensure_publication(control, config, &carried, waiting).await?;
        for sql in &published {
            tracing::info!(sql, "added tables to the publication");
        }
    }
    let mut attached = Vec::new();
    for section in wanted {
        let row = known(section).cloned();
        let fit = match describe(config, control, types, section, row.as_ref())
            .await
            .map_err(|error| control.fault(&error))?
        {
            Ok(fit) => fit,
            Err(fault) => {
                let streams = still_streams(control, section, row.as_ref()).await;
                let streams = streams.map_err(|error| control.fault(&error))?;
                let (streams, section) = (streams.is_some(), streams.unwrap_or_else(|| section.clone()));
                attached.push(Err(Unfit { section, fault, row, streams }));
                continue;
            }
        };
        if let Some(fault) = refusal(control, &fit, row.as_ref()).await.map_err(|error| control.fault(&error))? {
            attached.push(Err(Unfit { section: fit.section, fault, row, streams: false }));
            continue;
        }
        let Fit { section, table, columns, mapping } = fit;
        let same =
            row.as_ref().is_some_and(|row| row.attachment.table_oid == table.oid && row.phase != SectionPhase::Waiting);
        let row = match row {
            Some(row) if same => row,
            Some(_) | None => {
                let phase = match first_phase(control, &section, &table).await {
                    Ok(phase) => phase,
                    Err(fault) => {
                        attached.push(Err(Unfit { section, fault, row, streams: false }));
                        continue;
                    }
                };
                attach_new(control, store, term, opened, (&section, &table), &phase, !published.is_empty()).await?
            }
        };
        attached.push(Ok(Attached { section, table, columns, mapping, row }));
    }
    Ok(attached)
}

/// A section that fits its table.
pub(crate) struct Fit {
    /// The section, with its key.
    pub section: Section,
    pub table: TableInfo,
    /// The columns that it reads, as rows bring them.
    pub columns: Vec<Column>,
    /// How rows of the table become items.
    pub mapping: Mapping,
}

/// Why a section is refused whose rows are to be read from the table, or that is new: what `check` calls an error of its
/// table or its key. A section that streams already goes on: the stream needs no index.
async fn refusal(
    control: &Session,
    fit: &Fit,
    row: Option<&SectionRow>,
) -> Result<Option<Fault>, tokio_postgres::Error> {
    let reads = match row.map(|row| &row.phase) {
        Some(SectionPhase::Streaming) if row.is_some_and(|row| row.attachment.table_oid == fit.table.oid) => {
            return Ok(None);
        }
        Some(SectionPhase::Backfilling(_) | SectionPhase::Resyncing(_)) => true,
        Some(SectionPhase::Streaming | SectionPhase::Comparing | SectionPhase::Waiting) | None => {
            fit.section.start != Start::Now
        }
    };
    match table_findings::refusal(control, &fit.section, &fit.table).await? {
        Some(fault) => Ok(Some(fault)),
        None => key_findings::refusal(control, &fit.section, &fit.table, reads).await,
    }
}

/// How a new section begins. A key that a person typed is printed once by the server, in the key's type, and refused here
/// where it is none.
async fn first_phase(control: &Session, section: &Section, table: &TableInfo) -> Result<SectionPhase, Fault> {
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

/// Records a section's attachment: from here on the stream carries its inserts.
async fn attach_new(
    control: &Session,
    store: &Store,
    term: &Epoch,
    opened: &Opened,
    (section, table): (&Section, &TableInfo),
    phase: &SectionPhase,
    just_published: bool,
) -> Result<SectionRow, StartError> {
    let fault = |error: tokio_postgres::Error| control.fault(&error);
    // Rows written before the table was published, and committed after, are not in the stream. A backfill finds them
    // behind its fence; without one, the attachment itself must wait for their transactions to end.
    if just_published && section.start == Start::Now {
        let waiting = |blockers: &[xmin_barrier::Blocker]| {
            tracing::warn!(section = %section.name, waiting_for = %setup::names(blockers), "attaching waits for open transactions");
        };
        xmin_barrier::pass(control, waiting).await.map_err(fault)?;
    }
    let attach_lsn = match &opened.instance {
        // At the first start of all, the slot's own beginning: it was made after the publication.
        Some(instance) if opened.sections.is_empty() && !just_published => instance.checkpoint,
        Some(_) | None => xmin_barrier::insert_lsn(control).await.map_err(fault)?,
    };
    let column = |name: &String| {
        let ty = table.column(name).map(|column| column.type_name.clone()).unwrap_or_default();
        MappedColumn { name: name.clone(), ty }
    };
    let attachment = Attachment {
        table_oid: table.oid,
        table_name: section.table.to_string(),
        kind: section.kind.as_str().to_owned(),
        attach_lsn: Some(attach_lsn),
        columns: section.columns().iter().map(column).collect(),
    };
    store.attach_section(term, &section.name, &attachment, phase).await?;
    tracing::info!(section = %section.name, table = attachment.table_name, %attach_lsn, phase = phase.as_str(), "attached");
    let row = store.sections().await?.into_iter().find(|row| row.name == section.name);
    row.ok_or_else(|| StartError::Wrong(Fault::bug("an attached section is not in the state")))
}

/// Rows at or before this position are already settled.
pub fn position(row: &SectionRow) -> Position {
    let attach = row.attachment.attach_lsn.unwrap_or_default();
    row.position.unwrap_or(Position::before_transaction(attach))
}
