//! A draft, tried: the file that it would make, what is wrong with it, and what it makes of rows.
//!
//! * In: a form, and the file.
//! * Out: a [`DraftState`].
//! * Never: a file that says anything else than the form; a secret of the file in what is shown.

use axum::http::StatusCode;

use crate::config::splice::{SpliceError, add_section, edit_section, replace_section};
use crate::config::{self, Config, Section};
use crate::console::ask::Ask;
use crate::console::config_file::{self, FileText};
use crate::console::draft::SectionDraft;
use crate::console::problem::Refusal;
use crate::model::Fault;
use crate::operations::draft_preview::{DraftFault, DraftShown, PreviewRows, draft_preview};

/// What came of a draft.
pub(crate) struct DraftState {
    pub file: FileText,
    /// What the file says of the section now; none: it is new.
    pub before: Option<SectionDraft>,
    /// The file as it would be.
    pub spliced: Option<String>,
    /// The section is written anew, and its comments go.
    pub anew: bool,
    /// The file as it would be, read; none where it cannot be.
    pub config: Option<Config>,
    pub shown: Option<DraftShown>,
    pub faults: Vec<DraftFault>,
}

/// A section of the file as a form.
pub(crate) fn form_of(section: &Section) -> Result<SectionDraft, Refusal> {
    let odd = || {
        let what = format!("the fields of {} are named in a way that this form cannot show", section.name);
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, what, "edit the file, and look at it with `pg2planhat preview`")
    };
    SectionDraft::of(section).ok_or_else(odd)
}

fn fault(what: impl Into<String>, remedy: impl Into<String>) -> DraftFault {
    DraftFault { field: String::new(), what: what.into(), remedy: remedy.into() }
}

fn faults_of(fault: Fault) -> Vec<DraftFault> {
    let parts = if fault.parts.is_empty() { vec![fault] } else { fault.parts };
    parts.into_iter().map(|part| self::fault(part.what, part.remedy)).collect()
}

/// The file and what it says of a section.
pub(crate) fn in_file(ask: &Ask, name: &str) -> Result<(FileText, Option<SectionDraft>), Refusal> {
    let file = config_file::read(&ask.console.path)?;
    let parsed = config::parse(&file.text, &ask.console.path.display().to_string()).map_err(Fault::from)?;
    let before = parsed.sections.iter().find(|section| section.name.as_str() == name).map(form_of).transpose()?;
    Ok((file, before))
}

/// The new text of the file; and whether the section is written anew.
fn spliced(file: &str, draft: &SectionDraft, before: Option<&SectionDraft>) -> Result<(String, bool), SpliceError> {
    let Some(before) = before else { return add_section(file, &draft.lines()).map(|text| (text, false)) };
    match edit_section(file, &draft.name, &draft.edits(before)) {
        Ok(text) => Ok((text, false)),
        Err(SpliceError::Shared) => replace_section(file, &draft.name, &draft.lines()).map(|text| (text, true)),
        Err(other) => Err(other),
    }
}

/// Tries it; reads rows where `which` says so.
pub(crate) async fn tried(ask: &Ask, draft: &SectionDraft, which: Option<&PreviewRows>) -> Result<DraftState, Refusal> {
    let (file, before) = in_file(ask, &draft.name)?;
    let mut state =
        DraftState { file, before, spliced: None, anew: false, config: None, shown: None, faults: Vec::new() };
    match spliced(&state.file.text, draft, state.before.as_ref()) {
        Ok((text, anew)) => (state.spliced, state.anew) = (Some(text), anew),
        Err(_) => {
            let remedy = "write the section by hand; `pg2planhat preview` shows what it does";
            state.faults.push(fault("the file is written in a way that is not changed from here", remedy));
            return Ok(state);
        }
    }
    let text = state.spliced.as_deref().unwrap_or_default();
    match config::parse(text, "the file") {
        Ok(config) => state.config = Some(config),
        Err(errors) => {
            state.faults = faults_of(errors.into());
            return Ok(state);
        }
    }
    let found = state.config.as_ref().and_then(|config| {
        let section = config.sections.iter().find(|section| section.name.as_str() == draft.name)?;
        Some((config, section))
    });
    if let (Some((config, section)), Some(which)) = (found, which) {
        match draft_preview(config, section, which).await {
            Ok(shown) => {
                state.faults.clone_from(&shown.faults);
                state.shown = Some(shown);
            }
            Err(fault) => state.faults = faults_of(fault),
        }
    }
    Ok(state)
}
