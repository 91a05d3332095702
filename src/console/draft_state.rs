//! The trial of a draft: the file that it would make, its faults, and what it makes of rows.
//!
//! * In: a form, and the file.
//! * Out: a [`DraftState`].
//! * Never: a file that says anything but what the form says; a secret of the file in what is shown.

use axum::http::StatusCode;

use crate::config::splice::{SpliceError, add_section, edit_section};
use crate::config::{self, Config, Section};
use crate::console::ask::Ask;
use crate::console::config_file::FileText;
use crate::console::draft::SectionDraft;
use crate::console::problem::Refusal;
use crate::model::Fault;
use crate::operations::draft_preview::{DraftFault, DraftShown, PreviewRows, draft_preview};

/// The result of trying a draft.
pub(crate) struct DraftState {
    pub file: FileText,
    /// What the file says of the section now; `None` for a new section.
    pub before: Option<SectionDraft>,
    /// The text of the file with the draft in it.
    pub spliced: Option<String>,
    /// The lines that a person has to write by hand, where this program does not change the file.
    pub by_hand: Vec<String>,
    /// The text of the file with the draft in it, parsed; `None` where it does not parse.
    pub config: Option<Config>,
    pub shown: Option<DraftShown>,
    pub faults: Vec<DraftFault>,
}

/// Returns the form of a section of the file.
pub(crate) fn form_of(section: &Section) -> Result<SectionDraft, Refusal> {
    let odd = |name: String| {
        let what = format!("this form cannot show {name:?} of the section {}", section.name);
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, what, "edit the file, and look at it with `pg2planhat preview`")
    };
    SectionDraft::of(section).map_err(odd)
}

fn fault(what: impl Into<String>, remedy: impl Into<String>) -> DraftFault {
    DraftFault { field: String::new(), what: what.into(), remedy: remedy.into() }
}

fn faults_of(fault: Fault) -> Vec<DraftFault> {
    let parts = if fault.parts.is_empty() { vec![fault] } else { fault.parts };
    parts.into_iter().map(|part| self::fault(part.what, part.remedy)).collect()
}

/// Reads the file, and returns it with what it says of a section.
pub(crate) fn in_file(ask: &Ask, name: &str) -> Result<(FileText, Option<SectionDraft>), Refusal> {
    let file = ask.console.file()?;
    let parsed = config::parse(&file.text, &ask.console.path.display().to_string()).map_err(Fault::from)?;
    let before = parsed.sections.iter().find(|section| section.name.as_str() == name).map(form_of).transpose()?;
    Ok((file, before))
}

/// Returns the new text of the file; as an error why it is not made, and the lines to write by hand.
fn spliced(
    file: &str,
    draft: &SectionDraft,
    before: Option<&SectionDraft>,
) -> Result<String, (DraftFault, Vec<String>)> {
    let edits = before.map(|before| draft.edits(before));
    let done = match &edits {
        Some(edits) => edit_section(file, &draft.name, edits),
        None => add_section(file, &draft.lines()),
    };
    done.map_err(|error| {
        let remedy = "write it by hand, as below; `pg2planhat preview` shows what it does";
        let fault = match error {
            SpliceError::Loses { key, what } => DraftFault {
                field: key,
                what: format!("a change from here would lose {what}"),
                remedy: remedy.to_owned(),
            },
            SpliceError::Absent | SpliceError::Odd => {
                fault("the file is written in a way that is not changed from here", remedy)
            }
        };
        (fault, edits.map_or_else(|| draft.lines(), |edits| SectionDraft::by_hand(&edits)))
    })
}

/// Tries a draft. Where `which` is given, it reads rows of the source and maps them.
pub(crate) async fn try_draft(
    ask: &Ask,
    draft: &SectionDraft,
    which: Option<&PreviewRows>,
) -> Result<DraftState, Refusal> {
    let (file, before) = in_file(ask, &draft.name)?;
    let mut state =
        DraftState { file, before, spliced: None, by_hand: Vec::new(), config: None, shown: None, faults: Vec::new() };
    match spliced(&state.file.text, draft, state.before.as_ref()) {
        Ok(text) => state.spliced = Some(text),
        Err((fault, by_hand)) => {
            state.by_hand = by_hand;
            state.faults.push(fault);
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
