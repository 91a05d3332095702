//! Prints the demonstration's progress.
//!
//! * In: lines for a person.
//! * Out: stdout; stderr where stdout is for one JSON document.
//! * Never: an end of the demonstration because nobody listens.

use std::io::{IsTerminal as _, Write as _};

/// Speaks to a person.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProgressPrinter {
    /// Whether stdout is for one JSON document.
    pub json: bool,
}

impl ProgressPrinter {
    pub(crate) fn say(self, line: &str) {
        // A closed pipe must not keep the demonstration from cleaning up.
        drop(if self.json { writeln!(std::io::stderr(), "{line}") } else { writeln!(std::io::stdout(), "{line}") });
    }

    /// Whether the output is a terminal, so that lines can be redrawn.
    pub(crate) fn is_terminal(self) -> bool {
        if self.json { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() }
    }
}
