//! What went wrong and what to do about it, as data: written once, shown alike by `check`, `status` and the log.
//!
//! * In: nothing.
//! * Out: [`Fault`], the two lines that every error of this program has; [`Finding`], what `check` has to say.
//! * Never: a secret in either line.

use std::fmt;

use crate::model::wash::{washed, washed_lines};

/// How the process ends, after `sysexits.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or drained.
    Done,
    /// `check` found errors.
    Findings,
    /// Usage or configuration.
    Usage,
    /// A server stayed unavailable.
    Unavailable,
    Bug,
    /// Stopped in a state that needs a person.
    NeedsPerson,
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Findings => 1,
            Exit::Usage => 64,
            Exit::Unavailable => 69,
            Exit::Bug => 70,
            Exit::NeedsPerson => 75,
        }
    }
}

/// An error for a person: what happened, what to do, and how the process should end if it ends by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happened, naming the place.
    pub what: String,
    /// What to do: a command, SQL, a setting. May be of several lines.
    pub remedy: String,
    /// The exit code that fits.
    pub exit: Exit,
    /// Where it is of several: each by itself.
    pub parts: Vec<Fault>,
}

impl Fault {
    /// A fault that ends with `exit`.
    pub fn new(exit: Exit, what: impl Into<String>, remedy: impl Into<String>) -> Fault {
        Fault { what: what.into(), remedy: remedy.into(), exit, parts: Vec::new() }
    }

    /// Usage or configuration (64).
    pub fn usage(what: impl Into<String>, remedy: impl Into<String>) -> Fault {
        Fault::new(Exit::Usage, what, remedy)
    }

    /// A server is unavailable (69).
    pub fn unavailable(what: impl Into<String>, remedy: impl Into<String>) -> Fault {
        Fault::new(Exit::Unavailable, what, remedy)
    }

    /// A person must decide (75).
    pub fn needs_person(what: impl Into<String>, remedy: impl Into<String>) -> Fault {
        Fault::new(Exit::NeedsPerson, what, remedy)
    }

    /// A bug (70).
    pub fn bug(what: impl Into<String>) -> Fault {
        Fault::new(Exit::Bug, what, "this is a bug in pg2planhat: please report it with the log")
    }
}

/// As a person sees it: what happened in one line, what to do behind an indent. Nobody's text makes a line of its own.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", washed(&self.what))?;
        for part in &self.parts {
            write!(f, "\n{part}")?;
        }
        write!(f, "\n  remedy: {}", washed_lines(&self.remedy, "    "))
    }
}

impl std::error::Error for Fault {}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// It will not work, or it will lose or double rows.
    Error,
    /// It works, until something else happens.
    Warning,
    /// Worth knowing.
    Info,
    /// Looked at, and as it should be.
    Ok,
}

/// One thing that `check` found out. Never a secret in any of its texts.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// A word for machines, which is never renamed.
    pub code: &'static str,
    /// What it is about: `server`, `table public.orders`, `section logins`.
    pub subject: String,
    /// What is so, and why it matters.
    pub message: String,
    /// What to do: SQL, a setting, a command. Empty where there is nothing to do.
    pub remedy: String,
}

impl Finding {
    /// A finding of this severity.
    pub(crate) fn new(
        severity: Severity,
        code: &'static str,
        subject: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding { severity, code, subject: subject.into(), message: message.into(), remedy: remedy.into() }
    }

    /// It will not work.
    pub(crate) fn error(
        code: &'static str,
        subject: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding::new(Severity::Error, code, subject, message, remedy)
    }

    /// It works, until something else happens.
    pub(crate) fn warning(
        code: &'static str,
        subject: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding::new(Severity::Warning, code, subject, message, remedy)
    }

    /// Worth knowing.
    pub(crate) fn info(
        code: &'static str,
        subject: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding::new(Severity::Info, code, subject, message, remedy)
    }

    /// As it should be.
    pub(crate) fn ok(code: &'static str, subject: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding::new(Severity::Ok, code, subject, message, "")
    }

    /// A fault met while looking.
    pub(crate) fn of(fault: Fault, code: &'static str, subject: impl Into<String>) -> Finding {
        Finding::error(code, subject, fault.what, fault.remedy)
    }
}
