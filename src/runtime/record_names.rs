//! Which section each record of the state belongs to, before a start goes by them.
//!
//! * In: the file; what is recorded, and which table each name is.
//! * Out: the record of a section that is gone, under the name of the one that goes on with it (`start: now`); the record of a
//!   table that its section has left, under a name of its own. A gap, where neither can be.
//! * Never: rows of one table proven by the keys of another; a section that begins anew over rows that were delivered.

use crate::config::{Config, Section, Start};
use crate::model::SectionName;
use crate::postgres::catalog::{table, xmin_barrier};
use crate::postgres::connection::session::Session;
use crate::runtime::section_changes::{ConfiguredTables, SectionHistory};
use crate::runtime::start_error::StartError;
use crate::state::{Epoch, NewGap, SectionPhase, SectionRow, Store};

/// The reason's word of the gap between a section that is gone and the one that begins anew in its place.
pub(crate) const REPLACED: &str = "replaced";

/// Names what is recorded by the sections of the file. Returns where the tables are.
pub(crate) async fn settle(
    config: &Config,
    control: &Session,
    store: &mut Store,
    term: &Epoch,
) -> Result<ConfiguredTables, StartError> {
    let tables = ConfiguredTables::find(control, config).await.map_err(|error| control.fault(&error))?;
    let mut rows = store.sections().await?;
    for section in config.sections.iter().filter(|section| section.is_on() && section.is_streamed()) {
        let history = SectionHistory { config, tables: &tables, sections: &rows };
        if let Some(from) = history.takes_over(section) {
            take_over(control, store, term, (section, from)).await?;
            // A record is one section's alone.
            rows = store.sections().await?;
        } else if let Some(row) = history.moved_from(section)
            && tables.of(&section.name).is_some()
            && history.delivered_before(section).is_none()
        {
            leave(store, term, &rows, (section, row)).await?;
            rows = store.sections().await?;
        }
    }
    Ok(tables)
}

/// The section goes on with the record of another one.
async fn take_over(
    control: &Session,
    store: &mut Store,
    term: &Epoch,
    (section, from): (&Section, &SectionRow),
) -> Result<(), StartError> {
    let table = table::by_name(control, &section.table).await.map_err(|error| control.fault(&error))?;
    let key = table.map(|table| table.with_key(section).key).unwrap_or_default();
    let (name, was) = (&section.name, &from.name);
    if from.key.as_ref().is_none_or(|before| *before == key) {
        tracing::warn!(section = %name, %was, rows = from.totals.delivered, "the section goes on with what is recorded of \
            one that is gone from the file, from where it was left: its table is the same");
        return Ok(store.name_section_anew(term, was, name, "its table is the same").await?);
    }
    if from.phase == SectionPhase::Streaming {
        let began = xmin_barrier::xmax(control).await.map_err(|error| control.fault(&error))?;
        tracing::warn!(section = %name, %was, "the section reads the stream from where one was left that is gone from the \
            file: its table is the same; its key is another, so what was delivered before is not known by it");
        return Ok(store.hand_position_over(term, was, name, began).await?);
    }
    Ok(())
}

/// The section has another table now, of which no row was ever delivered: it begins anew.
async fn leave(
    store: &mut Store,
    term: &Epoch,
    rows: &[SectionRow],
    (section, row): (&Section, &SectionRow),
) -> Result<(), StartError> {
    let left = &row.attachment;
    let mut kept = SectionName::from(format!("{} ({})", section.name, left.table_name).as_str());
    if rows.iter().any(|row| row.name == kept) {
        kept = SectionName::from(format!("{} ({}, {})", section.name, left.table_name, left.table_oid).as_str());
    }
    tracing::warn!(section = %section.name, left = left.table_name, table = %section.table, delivered = row.totals.delivered,
        %kept, "the section has another table: it begins anew with it; rows of the one before are not delivered from here on, \
        and what is recorded of it is kept under another name");
    Ok(store.name_section_anew(term, &section.name, &kept, "its table is another").await?)
}

/// Records as gaps of a section that begins now what was committed since the one was left that is gone, where it cannot go on with
/// that one's record: the table was replaced, or the key is another. Returns whose gap is told by that.
pub(crate) async fn note_replaced(
    config: &Config,
    tables: &ConfiguredTables,
    store: &Store,
    (rows, at): (&[SectionRow], (Option<crate::model::Lsn>, Option<u64>)),
) -> Result<Vec<SectionName>, StartError> {
    let mut told = Vec::new();
    let gone = |row: &&SectionRow| {
        row.phase != SectionPhase::Waiting
            && row.attachment.attach_lsn.is_some()
            && !config.sections.iter().any(|section| section.name == row.name)
    };
    let gaps = store.gaps(false).await?;
    for row in rows.iter().filter(gone) {
        let is_next = |section: &&Section| {
            let is_fresh = !rows.iter().any(|row| row.name == section.name && row.phase != SectionPhase::Waiting);
            let is_named_so = row.attachment.table_name == section.table.to_string();
            let is_same = tables.of(&section.name) == Some(row.attachment.table_oid);
            section.is_on()
                && section.is_streamed()
                && section.start == Start::Now
                && section.kind.as_str() == row.attachment.kind
                && (is_named_so || is_same)
                && (is_fresh || gaps.iter().any(|gap| gap.reason == REPLACED && gap.detail == detail(row, section)))
        };
        let Some(next) = config.sections.iter().find(is_next) else { continue };
        told.push(row.name.clone());
        if gaps.iter().any(|gap| gap.reason == REPLACED && gap.detail == detail(row, next)) {
            continue;
        }
        // Since it was left, by whatever was recorded first.
        let own: Vec<_> = gaps
            .iter()
            .filter(|gap| gap.closed_at.is_none() && gap.section.as_deref() == Some(row.name.as_str()))
            .collect();
        let first = own.iter().min_by_key(|gap| gap.id);
        let floor = own.iter().filter_map(|gap| gap.xmin_floor).min().and_then(|floor| u64::try_from(floor).ok());
        let gap = NewGap {
            section: Some(next.name.clone()),
            reason: REPLACED.to_owned(),
            detail: detail(row, next),
            from_lsn: first.and_then(|gap| gap.from_lsn.as_ref()?.parse().ok()).or(at.0),
            to_lsn: None,
            xmin_floor: floor.or(at.1),
        };
        store.open_gap(&gap).await?;
        for gap in own {
            store.close_gap(gap.id, &format!("recorded as a gap of {}", next.name)).await?;
        }
    }
    Ok(told)
}

fn detail(row: &SectionRow, next: &Section) -> String {
    format!(
        "{} reads {} in the place of {}, which is gone from the file: what was committed since that was left was delivered by neither",
        next.name, next.table, row.name
    )
}
