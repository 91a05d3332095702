//! From a configuration to a running corridor: connect, compare, make what is missing, take the slot, attach.
//!
//! * In: the configuration.
//! * Out: a [`Leader`]: the slot's stream has begun, the epoch is ours, the sections are attached.
//! * Never: a slot or publication made where an instance is recorded already; a section attached without its fence.

use std::sync::Arc;

use super::connect::StateConnector;
use super::follow::{follow, still_streams};
use super::identity::{Found, Needs};
use crate::config::{Config, Section, Start, TableName};
use crate::fault::{Exit, Fault};
use crate::mapping::Mapping;
use crate::postgres::sql::{Session, connect_sql};
use crate::postgres::table::{self, TableInfo};
use crate::postgres::types::Types;
use crate::postgres::wire::Wire;
use crate::postgres::{fence, setup, slot};
use crate::row::{KeyType, Lsn, Position};
use crate::state::{
    Attachment, BackfillProgress, Identity, MappedColumn, Opened, SectionPhase, SectionRow, StateError, Store, Term,
};
use crate::telemetry::status::Reason;

/// Why an instance cannot begin.
#[derive(Debug)]
pub enum Hindrance {
    /// It may pass by itself.
    Later(Fault),
    /// A named state.
    Needs(Needs),
    /// Configuration, rights.
    Wrong(Fault),
}

impl From<Fault> for Hindrance {
    fn from(fault: Fault) -> Hindrance {
        match fault.exit {
            Exit::Unavailable => Hindrance::Later(fault),
            Exit::Done | Exit::Findings | Exit::Usage | Exit::Bug | Exit::NeedsPerson => Hindrance::Wrong(fault),
        }
    }
}

impl From<Needs> for Hindrance {
    fn from(needs: Needs) -> Hindrance {
        Hindrance::Needs(needs)
    }
}

impl From<StateError> for Hindrance {
    fn from(error: StateError) -> Hindrance {
        match error {
            StateError::Unavailable(fault) => Hindrance::Later(fault),
            StateError::Unwritable(fault) => Hindrance::Needs(Needs { reason: Reason::StateUnwritable, fault }),
            StateError::Fenced => Hindrance::Later(error.fault()),
        }
    }
}

/// What is known before the slot is taken.
pub struct Prepared {
    /// For the watch, fences and look-ups.
    pub control: Session,
    /// The state.
    pub store: Store,
    /// Where the stream begins.
    pub checkpoint: Lsn,
    /// Whose state it is.
    pub identity: Identity,
    /// The server.
    pub server: slot::Server,
    /// The server's timeline is another than recorded, and that is in order.
    pub timeline_moved: bool,
}

/// Connects, compares, and at the very first start makes what is missing. `waiting` is told for whom that waits.
///
/// # Errors
/// What is in the way.
pub async fn prepare(config: &Arc<Config>, waiting: setup::Waiting<'_>) -> Result<Prepared, Hindrance> {
    let control = connect_sql(&config.source, "control").await?;
    let mut store = StateConnector::new(Arc::clone(config)).store().await?;
    let lock = format!(
        "SELECT pg_catalog.pg_advisory_lock(hashtext({}))",
        crate::postgres::quote::literal(&format!("pg2planhat {}", config.source.slot))
    );
    control.batch_execute(&lock).await.map_err(|error| control.fault(&error))?;
    let prepared = prepare_locked(config, &control, &mut store, waiting).await;
    control.batch_execute("SELECT pg_catalog.pg_advisory_unlock_all()").await.map_err(|error| control.fault(&error))?;
    let (checkpoint, identity, server, timeline_moved) = prepared?;
    Ok(Prepared { control, store, checkpoint, identity, server, timeline_moved })
}

async fn prepare_locked(
    config: &Config,
    control: &Session,
    store: &mut Store,
    waiting: setup::Waiting<'_>,
) -> Result<(Lsn, Identity, slot::Server, bool), Hindrance> {
    let fault = |error: tokio_postgres::Error| control.fault(&error);
    let server = slot::server(control).await.map_err(fault)?;
    if server.in_recovery {
        let what = format!("{} is a standby: it cannot hold the slot", control.place());
        return Err(Hindrance::Later(Fault::unavailable(
            what,
            "point `source` at the primary (several hosts are tried in turn)",
        )));
    }
    if !store.is_there().await? {
        if !config.source.manage {
            let what = format!("there is no state schema {}, and `source.manage` is false", config.state.schema);
            return Err(Hindrance::Wrong(Fault::needs_person(
                what,
                "let a DBA run what `pg2planhat setup --print-sql` prints",
            )));
        }
        // At a first start there is neither; our own order makes the schema before the slot.
        let slot = &config.source.slot;
        if store.schema_version().await?.is_none() && slot::slot(control, slot).await.map_err(fault)?.is_some() {
            let what = format!(
                "the slot {slot} is there, and the state schema {} is not: it was dropped, or the slot is another program's",
                config.state.schema
            );
            let remedy = format!(
                "put the schema back from its newest backup; or run `pg2planhat setup` and then `pg2planhat repair`; or, to begin \
                 with every section anew: SELECT pg_drop_replication_slot({})",
                crate::postgres::quote::literal(slot)
            );
            let fault = Fault::needs_person(what, remedy);
            return Err(Hindrance::Needs(Needs { reason: Reason::StateUnwritable, fault }));
        }
        store.migrate().await?;
    }
    match store.instance().await? {
        Some(instance) => {
            let found = find(config, control, server).await?;
            found.compare(config, &instance)?;
            let identity = found.identity(config);
            let moved = identity.timeline != instance.identity.timeline;
            Ok((instance.checkpoint, identity, found.server, moved))
        }
        None => {
            for sql in setup::ensure_publication(control, config, &[], waiting).await? {
                tracing::info!(sql, "made the publication");
            }
            // Taken before the slot is made: every transaction below it has ended before the slot's beginning.
            let floor = fence::xmin(control).await.map_err(fault)?;
            let made = setup::ensure_slot(control, config, waiting).await?;
            if let Some(lsn) = made {
                tracing::info!(slot = config.source.slot, %lsn, "made the slot");
            }
            let found = find(config, control, server).await?;
            let Some(confirmed) = found.slot.as_ref().and_then(slot::Slot::confirmed) else {
                let what = "the slot vanished while it was being set up";
                return Err(Hindrance::Later(Fault::unavailable(what, "it is tried again")));
            };
            let identity = found.identity(config);
            store.adopt(&identity, confirmed, made.map(|_| floor)).await?;
            Ok((confirmed, identity, found.server, false))
        }
    }
}

/// What the server says, by a real replication connection and by SQL.
///
/// # Errors
/// As every connection.
pub async fn find(config: &Config, control: &Session, server: slot::Server) -> Result<Found, Fault> {
    let fault = |error: tokio_postgres::Error| control.fault(&error);
    let mut wire = Wire::connect(&config.source, "pg2planhat identify").await?;
    let system = wire.identify_system().await.map_err(|error| wire.fault(&error))?;
    let history = wire.timeline_history(system.timeline).await.map_err(|error| wire.fault(&error))?;
    wire.close().await;
    Ok(Found {
        system,
        history,
        server,
        slot: slot::slot(control, &config.source.slot).await.map_err(fault)?,
        publication: slot::publication(control, &config.source.publication).await.map_err(fault)?,
    })
}

/// A section, attached.
#[derive(Debug)]
pub struct Attached {
    /// As configured.
    pub section: Section,
    /// Its table now.
    pub table: TableInfo,
    /// The columns that its ranges read.
    pub columns: Vec<String>,
    /// How ranges become items.
    pub mapping: Mapping,
    /// How its keys are read.
    pub key_type: KeyType,
    /// As the state has it.
    pub row: SectionRow,
}

/// A section that cannot be attached or resumed, and why.
#[derive(Debug)]
pub struct Unfit {
    /// As configured.
    pub section: Section,
    /// What, and the remedy.
    pub fault: Fault,
    /// As the state has it, where it was attached before.
    pub row: Option<SectionRow>,
    /// It only streams, and its table is there: rows written when it still fitted can be delivered, so that the stream
    /// decides at which row it halts. Else no mapping could ever deliver them.
    pub streams: Option<KeyType>,
}

/// Attaches what is new and resumes what is known. `waiting` is told for whom that waits.
///
/// # Errors
/// What is in the way of all sections; what is in the way of one is in its [`Unfit`].
pub async fn attach(
    config: &Config,
    control: &Session,
    store: &Store,
    term: &Term,
    opened: &Opened,
    types: &Types,
    waiting: setup::Waiting<'_>,
) -> Result<Vec<Result<Attached, Unfit>>, Hindrance> {
    let known = |section: &Section| opened.sections.iter().find(|row| row.name == section.name);
    let wanted: Vec<&Section> = config.sections.iter().filter(|section| section.is_on()).collect();
    let fresh = wanted.iter().any(|section| known(section).is_none_or(|row| row.phase == SectionPhase::Waiting));
    let mut published = Vec::new();
    if fresh {
        let before = |section: &&&Section| {
            let row = known(section).filter(|row| row.phase != SectionPhase::Waiting);
            row.is_some_and(|row| row.attachment.table_name == written(&section.table))
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
                let streams = still_streams(control, types, section, row.as_ref()).await;
                let streams = streams.map_err(|error| control.fault(&error))?;
                attached.push(Err(Unfit { section: section.clone(), fault, row, streams }));
                continue;
            }
        };
        let (table, columns, mapping, key_type) = fit;
        let same =
            row.as_ref().is_some_and(|row| row.attachment.table_oid == table.oid && row.phase != SectionPhase::Waiting);
        let row = match row {
            Some(row) if same => row,
            Some(_) | None => attach_new(control, store, term, opened, section, &table, !published.is_empty()).await?,
        };
        attached.push(Ok(Attached { section: section.clone(), table, columns, mapping, key_type, row }));
    }
    Ok(attached)
}

type Fit = (TableInfo, Vec<String>, Mapping, KeyType);

/// Looks at a section's table, by its OID where it was attached before.
pub(super) async fn describe(
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
    let columns = section.columns();
    if columns.iter().any(|name| table.column(name).is_some_and(|column| column.generated)) {
        let version = slot::server(control).await?.version;
        let publication = &config.source.publication;
        let published = slot::publication(control, publication).await?.map(|publication| publication.generated);
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
    let mapping = match Mapping::compile(section, names, &all).and_then(|_| Mapping::compile(section, names, &chosen)) {
        Ok(mapping) => mapping,
        Err(faults) => {
            let what: Vec<String> = faults.iter().map(ToString::to_string).collect();
            let remedy = faults.first().map(crate::mapping::MappingFault::remedy).unwrap_or_default();
            return Ok(Err(Fault::usage(what.join("; "), remedy)));
        }
    };
    let key_type = mapping.key_type();
    Ok(Ok((table, columns, mapping, key_type)))
}

/// A table's name as the state and people write it.
pub fn written(name: &TableName) -> String {
    format!("{}.{}", name.schema, name.name)
}

/// Records a section's attachment: from here on the stream carries its inserts.
async fn attach_new(
    control: &Session,
    store: &Store,
    term: &Term,
    opened: &Opened,
    section: &Section,
    table: &TableInfo,
    just_published: bool,
) -> Result<SectionRow, Hindrance> {
    let fault = |error: tokio_postgres::Error| control.fault(&error);
    let progress = |cursor: Option<String>| BackfillProgress { cursor, ..BackfillProgress::default() };
    let phase = match &section.start {
        Start::Backfill => SectionPhase::Backfilling(progress(None)),
        Start::AfterKey(key) => SectionPhase::Backfilling(progress(Some(key.clone()))),
        Start::Now => SectionPhase::Streaming,
    };
    // Rows written before the table was published, and committed after, are not in the stream. A backfill finds them
    // behind its fence; without one, the attachment itself must wait for their transactions to end.
    if just_published && section.start == Start::Now {
        let waiting = |blockers: &[fence::Blocker]| {
            tracing::warn!(section = %section.name, waiting_for = %setup::names(blockers), "attaching waits for open transactions");
        };
        fence::pass(control, waiting).await.map_err(fault)?;
    }
    let attach_lsn = match &opened.instance {
        // At the first start of all, the slot's own beginning: it was made after the publication.
        Some(instance) if opened.sections.is_empty() && !just_published => instance.checkpoint,
        Some(_) | None => fence::insert_lsn(control).await.map_err(fault)?,
    };
    let column = |name: &String| {
        let ty = table.column(name).map(|column| column.type_name.clone()).unwrap_or_default();
        MappedColumn { name: name.clone(), ty }
    };
    let attachment = Attachment {
        table_oid: table.oid,
        table_name: written(&section.table),
        kind: section.kind.as_str().to_owned(),
        attach_lsn: Some(attach_lsn),
        columns: section.columns().iter().map(column).collect(),
    };
    store.attach_section(term, &section.name, &attachment, &phase).await?;
    tracing::info!(section = %section.name, table = attachment.table_name, %attach_lsn, phase = phase.as_str(), "attached");
    let row = store.sections().await?.into_iter().find(|row| row.name == section.name);
    row.ok_or_else(|| Hindrance::Wrong(Fault::bug("an attached section is not in the state")))
}

/// The position behind which a section's lane begins.
pub fn position(row: &SectionRow) -> Position {
    let attach = row.attachment.attach_lsn.unwrap_or_default();
    row.position.unwrap_or(Position { final_lsn: attach, ordinal: 0 }.before())
}
