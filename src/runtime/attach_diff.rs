//! Attaching sections whose result is compared: they need no publication, no slot, and no table that is there already.
//!
//! * In: the configuration, and what the state has.
//! * Out: each such section with its row of the state.
//! * Never: a section taken for what it was not: rows that were streamed would all be sent again.

use crate::config::{Config, Section};
use crate::model::{Fault, SectionName};
use crate::runtime::section_changes::{ConfiguredTables, SectionHistory, delivered_again};
use crate::runtime::start_error::StartError;
use crate::state::{Attachment, BackfillProgress, DiffRun, Epoch, Opened, SectionPhase, SectionRow, Store};

/// A section whose result is compared.
#[derive(Debug)]
pub(crate) struct AttachedDiff {
    /// Its name.
    pub name: SectionName,
    /// As the state has it; or why it cannot go on as it is.
    pub row: Result<SectionRow, (Fault, SectionRow)>,
    /// Its last comparison.
    pub last: Option<DiffRun>,
}

/// Attaches what is new and resumes what is known.
pub(crate) async fn attach(
    config: &Config,
    store: &Store,
    term: &Epoch,
    (opened, tables): (&Opened, &ConfiguredTables),
) -> Result<Vec<AttachedDiff>, StartError> {
    let wanted: Vec<&Section> =
        config.sections.iter().filter(|section| section.is_on() && !section.is_streamed()).collect();
    let mut attached = Vec::new();
    if wanted.is_empty() {
        return Ok(attached);
    }
    let history = SectionHistory { config, tables, sections: &opened.sections };
    let mut runs = store.diff_runs().await?;
    for section in wanted {
        let known = opened.sections.iter().find(|row| row.name == section.name && row.phase != SectionPhase::Waiting);
        let row = match known {
            Some(row) if row.attachment.attach_lsn.is_some() => Err((was_streamed(section), row.clone())),
            Some(row) => Ok(row.clone()),
            None => match history.delivered_before(section) {
                Some(before) => Err((delivered_again(before, section, None), wait(store, term, section).await?)),
                None => Ok(attach_new(store, term, section).await?),
            },
        };
        let last = runs.iter().position(|(name, _)| *name == section.name).map(|at| runs.swap_remove(at).1);
        attached.push(AttachedDiff { name: section.name.clone(), row, last });
    }
    Ok(attached)
}

fn was_streamed(section: &Section) -> Fault {
    let name = &section.name;
    Fault::needs_person(
        format!("section {name}: its rows were streamed, and `read: diff` does not know which of them are settled"),
        "give the section a new name, and narrow its result to what is not delivered yet (`within`, or a `query` with a \
         WHERE): it begins by sending all of it",
    )
}

/// Records that a section waits until a person decides.
async fn wait(store: &Store, term: &Epoch, section: &Section) -> Result<SectionRow, StartError> {
    let attachment = Attachment::none_yet(&section.table, section.kind);
    store.attach_section(term, &section.name, &attachment, &SectionPhase::Waiting).await?;
    Ok(SectionRow::waiting(&section.name, attachment))
}

async fn attach_new(store: &Store, term: &Epoch, section: &Section) -> Result<SectionRow, StartError> {
    let attachment = Attachment {
        table_oid: 0,
        table_name: section.table.to_string(),
        kind: section.kind.as_str().to_owned(),
        attach_lsn: None,
        columns: Vec::new(),
    };
    let phase = SectionPhase::Backfilling(BackfillProgress::default());
    store.attach_section(term, &section.name, &attachment, &phase).await?;
    tracing::info!(section = %section.name, from = attachment.table_name, "its result is compared from here on");
    let row = store.sections().await?.into_iter().find(|row| row.name == section.name);
    row.ok_or_else(|| StartError::Wrong(Fault::bug("an attached section is not in the state")))
}
