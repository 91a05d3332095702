//! How each section begins: attached and going on, attached and not fitting its table any more, or waiting to be attached.
//!
//! * In: the configuration, and what the state recorded.
//! * Out: a [`SectionStart`] for each section that is on and streamed.
//! * Never: a wait for one section that holds another.

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::config::{Config, Section};
use crate::mapping::Mapping;
use crate::model::lsn::Position;
use crate::model::{Column, Fault, Lsn, SectionName};
use crate::postgres::backfill::selection::Selection;
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::catalog::types::Types;
use crate::postgres::catalog::xmin_barrier;
use crate::postgres::catalog::xmin_barrier::is_below;
use crate::postgres::connection::session::Session;
use crate::runtime::section_changes::{ConfiguredTables, SectionHistory, delivered_again, key_changed};
use crate::runtime::start_error::StartError;
use crate::runtime::table_fit::{Fit, describe, first_phase, refusal, still_streams};
use crate::sql;
use crate::state::instance::Opened;
use crate::state::store::Epoch;
use crate::state::store::Store;
use crate::state::{Attachment, SectionPhase, SectionRow};

/// How a section begins in a new event loop.
#[derive(Debug)]
pub(crate) enum SectionStart {
    /// It is attached, and goes on where the state left it.
    On(Box<Attached>),
    /// It was attached before, and does not fit its table now.
    Unfit(Box<Unfit>),
    /// It is not attached: `runtime/attacher.rs` sees to that beside the running stream.
    Waits(Box<Waits>),
}

impl SectionStart {
    pub(crate) fn name(&self) -> &SectionName {
        match self {
            SectionStart::On(attached) => &attached.section.name,
            SectionStart::Unfit(unfit) => &unfit.section.name,
            SectionStart::Waits(waits) => &waits.row.name,
        }
    }

    /// The record of another section that is not to be confirmed past.
    pub(crate) fn holds(&self) -> Option<&SectionRow> {
        match self {
            SectionStart::On(_) | SectionStart::Unfit(_) => None,
            SectionStart::Waits(waits) => waits.renamed.as_ref()?.holds.as_ref(),
        }
    }
}

/// A section that is recorded as `waiting`.
#[derive(Debug)]
pub(crate) struct Waits {
    pub row: SectionRow,
    /// Another section is attached to its table: the publication carried that, and must not be given it again in silence.
    pub carried_before: bool,
    /// It would deliver another section's rows again.
    pub renamed: Option<Renamed>,
}

/// A section that would deliver the rows of another one again.
#[derive(Debug)]
pub(crate) struct Renamed {
    /// What, and the remedy.
    pub fault: Fault,
    /// The other one's row, where that is gone from the file: until a person decides, nothing is confirmed past it.
    pub holds: Option<SectionRow>,
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
    /// Where the WAL ended before its table was seen to fit.
    pub fitted_at: Lsn,
    /// As the state has it.
    pub row: SectionRow,
}

impl Attached {
    fn new(fit: Fit, row: SectionRow, fitted_at: Lsn) -> Attached {
        let Fit { section, table, columns, mapping } = fit;
        Attached { section, table, columns, mapping, fitted_at, row }
    }
}

/// A section that was attached and cannot be resumed, and why.
#[derive(Debug)]
pub(crate) struct Unfit {
    /// As configured; with its key, where that is known.
    pub section: Section,
    /// What, and the remedy.
    pub fault: Fault,
    pub row: SectionRow,
    /// It only streams, and its table is there: rows written when it still fitted can be delivered, so that the stream
    /// decides at which row it halts. Else no mapping could ever deliver them.
    pub streams: bool,
}

/// Resumes what is attached, and records as `waiting` what is not. No section waits here: only at the first start of all,
/// where the slot is younger than the publication, a section is attached at the slot's own beginning.
pub(crate) async fn start_sections(
    config: &Config,
    control: &Session,
    store: &Store,
    term: &Epoch,
    opened: &Opened,
    (types, tables): (&Types, &ConfiguredTables),
) -> Result<Vec<SectionStart>, StartError> {
    // Results alone may be read from a standby, which has no such position.
    if !config.streams() {
        return Ok(Vec::new());
    }
    let looked_at = xmin_barrier::insert_lsn(control).await.map_err(|error| control.fault(&error))?;
    let on = config.sections.iter().filter(|section| section.is_on() && section.is_streamed());
    let history = SectionHistory { config, tables, sections: &opened.sections };
    let start = |section| start_section((history, section), (control, types, looked_at), (store, term), opened);
    // Side by side on one session: what one section asks does not wait for another's answer.
    stream::iter(on).map(start).buffered(SIDE_BY_SIDE).try_collect().await
}

/// Sections that are looked at side by side, at most.
const SIDE_BY_SIDE: usize = 32;

async fn start_section(
    (history, section): (SectionHistory<'_>, &Section),
    (control, types, looked_at): (&Session, &Types, Lsn),
    (store, term): (&Store, &Epoch),
    opened: &Opened,
) -> Result<SectionStart, StartError> {
    let config = history.config;
    let row = opened.sections.iter().find(|row| row.name == section.name);
    let recorded = row.filter(|row| row.phase != SectionPhase::Waiting);
    if let Some(row) = history.moved_from(section)
        && let Some(before) = history.delivered_before(section)
    {
        let fault = delivered_again(before, section, Some(row));
        let unfit = Unfit { section: section.clone(), fault, row: row.clone(), streams: false };
        return Ok(SectionStart::Unfit(Box::new(unfit)));
    }
    let fit = describe(config, control, types, section, recorded).await.map_err(|error| control.fault(&error))?;
    Ok(match (fit, recorded) {
        (Ok(fit), Some(row)) if row.attachment.table_oid == fit.table.oid => {
            if row.attachment.table_name != section.table.to_string() {
                store.name_table(&section.name, &section.table.to_string()).await?;
            }
            resume(config, control, fit, (row, looked_at)).await?
        }
        (Err(fault), Some(row)) => {
            let streams = still_streams(control, section, row).await.map_err(|error| control.fault(&error))?;
            let (streams, section) = (streams.is_some(), streams.unwrap_or_else(|| section.clone()));
            SectionStart::Unfit(Box::new(Unfit { section, fault, row: row.clone(), streams }))
        }
        (fit, _) => {
            let first = match fit {
                Ok(fit) if opened.sections.is_empty() => {
                    attach_first(config, control, store, term, opened, fit).await?
                }
                Ok(_) | Err(_) => None,
            };
            match first {
                Some(attached) => SectionStart::On(Box::new(attached)),
                None => SectionStart::Waits(Box::new(wait(history, store, term, opened, section).await?)),
            }
        }
    })
}

/// A section whose table is the one that it is attached to: it goes on, unless its key is another one, or cannot be read by.
async fn resume(
    config: &Config,
    control: &Session,
    fit: Fit,
    (row, looked_at): (&SectionRow, Lsn),
) -> Result<SectionStart, StartError> {
    let refused = match key_changed(&fit.section, row) {
        Some(fault) => Some(fault),
        None => refusal(config, control, &fit, Some(row)).await.map_err(|error| control.fault(&error))?,
    };
    Ok(match refused {
        Some(fault) => {
            let unfit = Unfit { section: fit.section, fault, row: row.clone(), streams: false };
            SectionStart::Unfit(Box::new(unfit))
        }
        None => SectionStart::On(Box::new(Attached::new(fit, row.clone(), looked_at))),
    })
}

/// Records the attachment of a section at the slot's own beginning, where the slot is younger than the publication's entry of
/// its table and nothing is in the way: else its attacher sees to it.
async fn attach_first(
    config: &Config,
    control: &Session,
    store: &Store,
    term: &Epoch,
    opened: &Opened,
    fit: Fit,
) -> Result<Option<Attached>, StartError> {
    let instance = opened.instance.as_ref();
    let floor = instance.and_then(|instance| instance.xmin_floor);
    let (is_younger, refused, phase) = tokio::join!(
        slot_is_younger(control, config, fit.table.oid, floor),
        refusal(config, control, &fit, None),
        first_phase(control, &fit.section, &fit.table)
    );
    if !is_younger? || refused.map_err(|error| control.fault(&error))?.is_some() {
        return Ok(None);
    }
    let Ok(phase) = phase else { return Ok(None) };
    let attach_lsn = instance.map(|instance| instance.checkpoint);
    let attachment = fit.attachment(attach_lsn);
    // The slot is there: what begins from here on is streamed.
    let began = async { xmin_barrier::xmax(control).await.map_err(|error| StartError::from(control.fault(&error))) };
    let attached = async { Ok(store.attach_section(term, &fit.section.name, &attachment, &phase).await?) };
    let (began, ()) = tokio::try_join!(began, attached)?;
    store.record_attach_xmin(term, &fit.section.name, began).await?;
    let (table, phase) = (attachment.table_name, phase.as_str());
    tracing::info!(section = %fit.section.name, table, attach_lsn = %attach_lsn.unwrap_or_default(), phase, "attached");
    let row = recorded(store, &fit.section).await?;
    Ok(Some(Attached::new(fit, row, attach_lsn.unwrap_or_default())))
}

/// Records that a section waits to be attached, unless that is recorded.
async fn wait(
    history: SectionHistory<'_>,
    store: &Store,
    term: &Epoch,
    opened: &Opened,
    section: &Section,
) -> Result<Waits, StartError> {
    let table_name = section.table.to_string();
    let mut others = opened.sections.iter().filter(|other| other.name != section.name);
    let table = history.tables.of(&section.name);
    let carried_before = others.any(|other| {
        other.attachment.attach_lsn.is_some() && table.is_some_and(|oid| oid == other.attachment.table_oid)
    });
    let renamed = history.delivered_before(section).map(|before| Renamed {
        fault: delivered_again(before, section, None),
        holds: before.is_gone().then(|| before.row.clone()),
    });
    let known = opened.sections.iter().find(|row| row.name == section.name);
    let waits = |row: &&SectionRow| row.phase == SectionPhase::Waiting && row.attachment.table_name == table_name;
    if let Some(row) = known.filter(waits) {
        return Ok(Waits { row: row.clone(), carried_before, renamed });
    }
    let attachment = Attachment::none_yet(&section.table, section.kind);
    store.attach_section(term, &section.name, &attachment, &SectionPhase::Waiting).await?;
    Ok(Waits { row: recorded(store, section).await?, carried_before, renamed })
}

/// Whether the slot was made after the publication carried the table: then every row that the slot brings is published,
/// for the slot waited for every transaction that was open when it was made. `floor`, a 64-bit xid, is what was recorded
/// before the slot was made. Where nothing was, the slot's own `catalog_xmin` can prove it, unless an older slot holds that.
async fn slot_is_younger(
    control: &Session,
    config: &Config,
    table: u32,
    floor: Option<u64>,
) -> Result<bool, StartError> {
    let sql = "SELECT r.xmin::text, age(r.xmin) > age(s.catalog_xmin) FROM pg_catalog.pg_publication p
        JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
        JOIN pg_catalog.pg_replication_slots s ON s.slot_name = $3
        WHERE p.pubname = $1 AND r.prrelid = $2";
    let params: sql::SqlParams<'_> = &[&config.source.publication, &table, &config.source.slot];
    let entry = sql::query_opt(control, sql, params).await.map_err(|error| control.fault(&error))?;
    Ok(entry.is_some_and(|entry| {
        let entered = entry.get::<_, String>(0).parse().ok();
        entered.is_some_and(|xmin| is_below(xmin, floor)) || entry.get::<_, Option<bool>>(1) == Some(true)
    }))
}

async fn recorded(store: &Store, section: &Section) -> Result<SectionRow, StartError> {
    let row = store.sections().await?.into_iter().find(|row| row.name == section.name);
    row.ok_or_else(|| StartError::Wrong(Fault::bug("a section that was recorded is not in the state")))
}

/// A selection that knows by which types the stream brought the section's keys.
pub(crate) fn as_attached(selection: Selection, row: &SectionRow) -> Selection {
    let recorded = &row.attachment.columns;
    selection.attached_as(|name| recorded.iter().find(|column| column.name == name).map(|column| column.ty.as_str()))
}

/// Rows at or before this position are already settled.
pub fn position(row: &SectionRow) -> Position {
    let attach = row.attachment.attach_lsn.unwrap_or_default();
    row.position.unwrap_or(Position::before_transaction(attach))
}
