//! Errors of a configuration file: all of them, each with its place and its remedy.
//!
//! * In: what the decoders found wrong.
//! * Out: [`ConfigErrors`], in the order of the file.
//! * Never: the value of a secret; a value of unbounded length.

use std::cell::RefCell;
use std::fmt;

use super::tree::Mark;
use crate::fault::Fault;

/// One error, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1; 0 where the error is of the whole file.
    pub line: usize,
    /// The column in characters, from 1; 0 where the error is of the whole file.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub remedy: String,
}

impl ConfigError {
    fn what(&self) -> String {
        if self.line == 0 {
            format!("{}: {}", self.file, self.message)
        } else {
            format!("{}:{}:{}: {}", self.file, self.line, self.column, self.message)
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  remedy: {}", self.what(), self.remedy)
    }
}

impl std::error::Error for ConfigError {}

/// Everything that is wrong with a file: at least one error, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigErrors> for Fault {
    fn from(errors: ConfigErrors) -> Fault {
        match errors.0.as_slice() {
            [one] => Fault::usage(one.what(), one.remedy.clone()),
            all => Fault::usage(
                format!("the configuration has {} errors:\n{errors}", all.len()),
                "mend these places, then run `pg2planhat check`",
            ),
        }
    }
}

/// What is wrong with one value, before it is known where that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    pub(super) message: String,
    pub(super) remedy: String,
}

impl Complaint {
    pub(super) fn new(message: impl Into<String>, remedy: impl Into<String>) -> Complaint {
        Complaint { message: message.into(), remedy: remedy.into() }
    }
}

/// Collects the errors of one file while it is decoded. Shared by all cursors, hence the inner mutability.
#[derive(Default)]
pub(super) struct Report(RefCell<Vec<(Mark, Complaint)>>);

impl Report {
    pub(super) fn add(&self, at: Mark, message: impl Into<String>, remedy: impl Into<String>) {
        self.complain(at, Complaint::new(message, remedy));
    }

    pub(super) fn complain(&self, at: Mark, complaint: Complaint) {
        self.0.borrow_mut().push((at, complaint));
    }

    /// The errors with the file's name, in the file's order; `None` where there are none.
    pub(super) fn finish(self, file: &str) -> Option<ConfigErrors> {
        let mut found = self.0.into_inner();
        found.sort_by_key(|(at, _)| *at);
        let errors: Vec<ConfigError> = found
            .into_iter()
            .map(|(at, Complaint { message, remedy })| ConfigError {
                file: file.to_owned(),
                line: at.line,
                column: at.column,
                message,
                remedy,
            })
            .collect();
        (!errors.is_empty()).then_some(ConfigErrors(errors))
    }
}

/// A value of the file as a message may show it: quoted, escaped, not endless.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 64;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// The candidate that `name` was most likely meant to be, if any is near.
pub(super) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted: String = name.chars().take(128).collect::<String>().to_lowercase();
    let limit = (wanted.chars().count() / 3).max(1);
    let distance = |candidate: &str| {
        let candidate = candidate.to_lowercase();
        // A beginning is near, too: `dimension` for `dimensionId`.
        let begins = wanted.len() >= 3 && candidate.starts_with(&wanted);
        let distance = strsim::damerau_levenshtein(&wanted, &candidate);
        if begins { distance.min(limit) } else { distance }
    };
    candidates
        .into_iter()
        .map(|candidate| (distance(candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The remedy for a word that is not one of `candidates`.
pub(super) fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(name, candidates.clone()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("known here: {}", candidates.into_iter().collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_suggested_and_far_ones_are_not() {
        let known = ["table", "timezone", "batch", "externalId", "EndUser", "after_key"];
        for (name, expected) in [
            ("tabel", Some("table")),
            ("Table", Some("table")),
            ("externalID", Some("externalId")),
            ("external_id", Some("externalId")),
            ("Enduser", Some("EndUser")),
            ("after", Some("after_key")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known), expected, "{name}");
        }
    }

    #[test]
    fn one_error_is_a_fault_of_its_own_and_several_are_a_list() {
        let error =
            |line| ConfigError { file: "f.yaml".into(), line, column: 2, message: "bad".into(), remedy: "good".into() };
        let one = Fault::from(ConfigErrors(vec![error(1)]));
        assert_eq!((one.what.as_str(), one.remedy.as_str(), one.exit.code()), ("f.yaml:1:2: bad", "good", 64));
        let two = Fault::from(ConfigErrors(vec![error(1), error(0)]));
        assert!(two.what.contains("2 errors") && two.what.contains("f.yaml:1:2: bad\n  remedy: good\nf.yaml: bad"));
        assert_eq!(two.exit.code(), 64);
    }
}
