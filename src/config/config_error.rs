//! Errors of a configuration file: all of them, each with its place and its remedy.
//!
//! * In: what the decoders found wrong.
//! * Out: [`ConfigErrors`], in the order of the file.
//! * Never: the value of a secret; a value of unbounded length.

use std::cell::RefCell;
use std::fmt;

use crate::model::Fault;

/// One error, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1; 0 where the error is of the whole file.
    pub line: usize,
    /// The column in characters, from 1; 0 where the error is of the whole file.
    pub column: usize,
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
            all => Fault {
                parts: all.iter().map(|one| Fault::usage(one.what(), one.remedy.clone())).collect(),
                ..Fault::usage(
                    format!("the configuration has {} errors:", all.len()),
                    "fix these places, then run `pg2planhat check`",
                )
            },
        }
    }
}

/// What is wrong with one value, before it is known where that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) message: String,
    pub(crate) remedy: String,
}

impl Complaint {
    pub(crate) fn new(message: impl Into<String>, remedy: impl Into<String>) -> Complaint {
        Complaint { message: message.into(), remedy: remedy.into() }
    }
}

/// Collects the errors of one file while it is decoded. Shared by all cursors, hence the inner mutability.
#[derive(Default)]
pub(crate) struct ErrorCollector(RefCell<Vec<(Mark, Complaint)>>);

impl ErrorCollector {
    pub(crate) fn add(&self, at: Mark, message: impl Into<String>, remedy: impl Into<String>) {
        self.complain(at, Complaint::new(message, remedy));
    }

    pub(crate) fn complain(&self, at: Mark, complaint: Complaint) {
        self.0.borrow_mut().push((at, complaint));
    }

    /// The errors with the file's name, in the file's order; `None` where there are none.
    pub(crate) fn finish(self, file: &str) -> Option<ConfigErrors> {
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
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 64;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A place in the file: line and column (in characters), both from 1. Zero is the file as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_error_is_a_fault_of_its_own_and_several_are_a_list() {
        let error =
            |line| ConfigError { file: "f.yaml".into(), line, column: 2, message: "bad".into(), remedy: "good".into() };
        let one = Fault::from(ConfigErrors(vec![error(1)]));
        assert_eq!((one.what.as_str(), one.remedy.as_str(), one.exit.code()), ("f.yaml:1:2: bad", "good", 64));
        let two = Fault::from(ConfigErrors(vec![error(1), error(0)]));
        assert!(
            two.what.contains("2 errors") && two.to_string().contains("f.yaml:1:2: bad\n  remedy: good\nf.yaml: bad")
        );
        assert_eq!(two.exit.code(), 64);
    }
}
