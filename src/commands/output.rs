//! Where results go: tables and text for people, one JSON document for machines.
//!
//! * In: what a command found.
//! * Out: stdout. Tables fit 80 columns; colour only on a terminal, and not where `NO_COLOR` is set.
//! * Never: both forms at once; a fault because the reader went away (`… | head`).

use std::io::{ErrorKind, IsTerminal as _, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::fault::{Exit, Fault};

/// The widest that a table becomes.
const WIDTH: u16 = 80;

/// What a piece of text is, to the eye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// All is well.
    Green,
    /// Look at this.
    Yellow,
    /// This is wrong.
    Red,
    /// A heading.
    Bold,
    /// An aside.
    Dim,
}

/// Where results go.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
    colour: bool,
}

impl Output {
    /// To stdout.
    pub fn new(json: bool) -> Output {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Output { json, colour: !json && !no_colour && std::io::stdout().is_terminal() }
    }

    /// Whether one JSON document is wanted.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Whether a person is looking on (for live views and progress bars).
    pub fn is_terminal(self) -> bool {
        !self.json && std::io::stdout().is_terminal()
    }

    /// Prints the one JSON document.
    ///
    /// # Errors
    /// Where stdout cannot be written.
    pub fn document(self, value: &impl Serialize) -> Result<(), Fault> {
        let text = serde_json::to_string_pretty(value).map_err(|error| Fault::bug(format!("no JSON: {error}")))?;
        self.line(text)
    }

    /// Prints a line.
    ///
    /// # Errors
    /// Where stdout cannot be written.
    pub fn line(self, text: impl AsRef<str>) -> Result<(), Fault> {
        self.raw(text.as_ref())?;
        self.raw("\n")
    }

    /// Prints text as it is.
    ///
    /// # Errors
    /// Where stdout cannot be written. A reader that went away ends the command quietly: [`Exit::Done`].
    pub fn raw(self, text: &str) -> Result<(), Fault> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| {
            if error.kind() == ErrorKind::BrokenPipe {
                return Fault::new(Exit::Done, "", "");
            }
            Fault::unavailable(format!("stdout cannot be written: {error}"), "free space, or write elsewhere")
        })
    }

    /// Prints a table: no frame, at most 80 columns wide, long cells wrapped.
    ///
    /// # Errors
    /// Where stdout cannot be written.
    pub fn table<R>(self, headers: &[&str], rows: impl IntoIterator<Item = R>) -> Result<(), Fault>
    where
        R: IntoIterator<Item: AsRef<str>>,
    {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
        table.set_header(headers.iter().map(|header| header.to_uppercase()));
        for row in rows {
            table.add_row(row.into_iter().map(|cell| printable(cell.as_ref())));
        }
        for line in table.to_string().lines() {
            self.line(line.trim_end().strip_prefix(' ').unwrap_or(line.trim_end()))?;
        }
        Ok(())
    }

    /// The text in a colour, where colour is wanted.
    pub fn paint(self, colour: Colour, text: impl AsRef<str>) -> String {
        let text = text.as_ref();
        let code = match colour {
            _ if !self.colour => return text.to_owned(),
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Red => "1;31",
            Colour::Bold => "1",
            Colour::Dim => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Text out of a database as a terminal may show it: control characters would move the cursor or worse.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Bytes for people: `12.3 MiB`.
pub(super) fn bytes(count: u64) -> String {
    let mut units = ["KiB", "MiB", "GiB", "TiB"].into_iter();
    let (mut tenths, mut unit) = (u128::from(count) * 10, "B");
    while tenths >= 10_240 {
        let Some(next) = units.next() else { break };
        (tenths, unit) = (tenths / 1024, next);
    }
    if unit == "B" { format!("{count} B") } else { format!("{}.{} {unit}", tenths / 10, tenths % 10) }
}

/// A count for people: `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_counts_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
        assert_eq!(count(0), "0");
        assert_eq!(count(123), "123");
        assert_eq!(count(1_234_567), "1,234,567");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\tc"), "a\u{fffd}[2Jb\u{fffd}c");
    }
}
