//! A section that is not what was recorded under its name: another key, or another name. Pure.
//!
//! * In: a section as the file has it, and what is recorded.
//! * Out: the fault, with its ways out.
//! * Never: a difference taken for a new section where rows would be delivered again.

use crate::config::{Config, Section, Start};
use crate::model::Fault;
use crate::state::{SectionPhase, SectionRow};

/// The section that one of another name looks like: gone from the file, recorded for the same table and kind.
pub(crate) fn renamed_from<'a>(
    config: &Config,
    sections: &'a [SectionRow],
    section: &Section,
) -> Option<&'a SectionRow> {
    let is_new = !sections.iter().any(|row| row.name == section.name && row.phase != SectionPhase::Waiting);
    let gone = |row: &&SectionRow| !config.sections.iter().any(|section| section.name == row.name);
    let same = |row: &&SectionRow| {
        row.attachment.attach_lsn.is_some()
            && row.attachment.table_name == section.table.to_string()
            && row.attachment.kind == section.kind.as_str()
            && row.totals.delivered > 0
    };
    if !is_new || !section.is_streamed() || section.start == Start::Now {
        return None;
    }
    sections.iter().filter(gone).find(same)
}

/// The fault of such a section.
pub(crate) fn renamed(from: &SectionRow, section: &Section) -> Fault {
    let (name, rows) = (&section.name, from.totals.delivered);
    Fault::needs_person(
        format!(
            "section {name}: {} is gone from the file and reads the same table: under the new name {} would be delivered again",
            from.name,
            crate::terminal::plural(rows, "row", "rows")
        ),
        format!(
            "keep the name {}, or write `start: now` (then `pg2planhat resync {name}` delivers older rows, on purpose)",
            from.name
        ),
    )
}

/// The fault of a section whose key is not the one that its cursor, its ledger and its quarantine were recorded with.
pub(crate) fn key_changed(section: &Section, row: &SectionRow) -> Option<Fault> {
    let (before, now) = (row.key.as_ref()?, &section.key);
    if now.is_empty() || before == now {
        return None;
    }
    let (before, now) = (before.join(", "), now.join(", "));
    Some(Fault::needs_person(
        format!("section {}: its key is {now} in the file, and what is recorded of it goes by {before}", section.name),
        format!("put `key: {before}` back; or give the section a new name, with `start: now`"),
    ))
}
