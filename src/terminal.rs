//! Where results go: tables and text for people, one JSON document for machines.
//!
//! * In: what a command found.
//! * Out: stdout. Text and tables fit the terminal; without one text has 80 columns, and a table one line a row. Colour only on
//!   a terminal, and not where `NO_COLOR` is set.
//! * Never: both forms at once; a fault because the reader went away (`… | head`).

use std::io::{ErrorKind, IsTerminal as _, Write as _};

use comfy_table::{Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::model::{Exit, Fault, washed, washed_output};

/// How wide text is where there is no terminal.
const WIDTH: u16 = 80;
/// The narrowest that text is made.
const NARROWEST: u16 = 40;
/// The narrowest column that text is wrapped in.
const WRAPPED: usize = 14;

/// The colour of a text, by its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// The state is fine.
    Green,
    /// A warning.
    Yellow,
    /// An error.
    Red,
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
    pub fn document(self, value: &impl Serialize) -> Result<(), Fault> {
        let text = serde_json::to_string_pretty(value).map_err(|error| Fault::bug(format!("no JSON: {error}")))?;
        self.line(text)
    }

    /// Prints a line, or several. Control characters that are not this program's own colours are written out, as JSON
    /// writes them: JSON stays what it is.
    pub fn line(self, text: impl AsRef<str>) -> Result<(), Fault> {
        self.raw(&format!("{}\n", washed_output(text.as_ref())))
    }

    /// Prints data: as it is where a program reads it, and washed where a person looks on.
    pub fn data(self, text: &str) -> Result<(), Fault> {
        if std::io::stdout().is_terminal() {
            self.raw(&washed_output(&text.replace("\r\n", "\n")))
        } else {
            self.raw(text)
        }
    }

    /// Prints text as it is.
    /// A reader that went away ends the command quietly: [`Exit::Done`].
    pub fn raw(self, text: &str) -> Result<(), Fault> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| {
            if error.kind() == ErrorKind::BrokenPipe {
                return Fault::new(Exit::Done, "", "");
            }
            Fault::unavailable(format!("stdout cannot be written: {error}"), "free space, or write elsewhere")
        })
    }

    /// The width in columns: the terminal's, or 80 where there is none.
    pub fn width(self) -> usize {
        let terminal = if self.is_terminal() { Table::new().width() } else { None };
        usize::from(terminal.unwrap_or(WIDTH).max(NARROWEST))
    }

    /// Prints prose within the width, each line behind `indent`.
    pub fn prose(self, text: &str, indent: &str) -> Result<(), Fault> {
        self.line(wrapped(text, indent, indent, self.width()))
    }

    /// Prints what to do, each line behind `indent`: prose within the width, SQL alone on its line and whole, so that it can
    /// be pasted.
    pub fn remedy(self, text: &str, indent: &str) -> Result<(), Fault> {
        let mut word = format!("{indent}{} ", self.paint(Colour::Dim, "remedy:"));
        for line in text.lines() {
            if is_sql(line) {
                if !word.is_empty() {
                    self.line(word.trim_end())?;
                }
                self.line(format!("{indent}{}", washed(line)))?;
            } else {
                // Colour codes have no width.
                let plain = if word.is_empty() { indent.to_owned() } else { format!("{indent}remedy: ") };
                let text = wrapped(line, &plain, indent, self.width());
                self.line(text.replacen(
                    "remedy:",
                    &self.paint(Colour::Dim, "remedy:"),
                    usize::from(!word.is_empty()),
                ))?;
            }
            word.clear();
        }
        Ok(())
    }

    /// Prints a table: no frame, within the width, long cells wrapped, numbers to the right.
    pub fn table<R>(self, headers: &[&str], rows: impl IntoIterator<Item = R>) -> Result<(), Fault>
    where
        R: IntoIterator<Item: Into<StyledText>>,
    {
        let headers: Vec<String> = headers.iter().map(|header| header.to_uppercase()).collect();
        let mut table = self.lay_out(&headers, rows);
        if !self.is_terminal() {
            // For a program: one row a line, and no key in two pieces.
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
        for line in table.to_string().lines() {
            self.line(line.trim_end().strip_prefix(' ').unwrap_or(line.trim_end()))?;
        }
        Ok(())
    }

    /// Prints the rows of somebody's query: the columns' names as they are; where a table would not fit, a block for each
    /// row.
    pub fn records(self, columns: &[String], rows: &[Vec<String>]) -> Result<(), Fault> {
        let columns: Vec<String> = columns.iter().map(|name| printable(name)).collect();
        let table = self.lay_out(&columns, rows.iter().map(|row| row.iter().map(String::as_str)));
        let natural: usize = table.column_max_content_widths().iter().map(|width| usize::from(*width) + 2).sum();
        if natural <= self.width() + 2 {
            for line in table.to_string().lines() {
                self.line(line.trim_end().strip_prefix(' ').unwrap_or(line.trim_end()))?;
            }
            return Ok(());
        }
        let name = columns.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        for (number, row) in rows.iter().enumerate() {
            self.line(self.paint(Colour::Dim, format!("-[ row {} ]-", number + 1)))?;
            for (column, value) in columns.iter().zip(row) {
                self.line(format!("{column:<name$}  {}", printable(value)))?;
            }
        }
        Ok(())
    }

    fn lay_out<R>(self, headers: &[String], rows: impl IntoIterator<Item = R>) -> Table
    where
        R: IntoIterator<Item: Into<StyledText>>,
    {
        let rows: Vec<Vec<StyledText>> =
            rows.into_iter().map(|row| row.into_iter().map(Into::into).collect()).collect();
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(u16::try_from(self.width()).unwrap_or(WIDTH)).style_text_only();
        let to_the_right = |index: usize| {
            let cells = || rows.iter().filter_map(|row| row.get(index));
            cells().all(StyledText::is_number)
                && cells().any(|piece| piece.text.starts_with(|c: char| c.is_ascii_digit()))
        };
        let sides: Vec<CellAlignment> = (0..headers.len())
            .map(|index| if to_the_right(index) { CellAlignment::Right } else { CellAlignment::Left })
            .collect();
        let side = |index: usize| sides.get(index).copied().unwrap_or(CellAlignment::Left);
        table.set_header(headers.iter().enumerate().map(|(index, header)| {
            let cell = Cell::new(header).set_alignment(side(index));
            if self.colour { cell.add_attribute(Attribute::Bold) } else { cell }
        }));
        for row in rows {
            table.add_row(row.into_iter().enumerate().map(|(index, piece)| {
                let cell = Cell::new(printable(&piece.text)).set_alignment(side(index));
                match piece.colour {
                    Some(colour) if self.colour => colour.on(cell),
                    Some(_) | None => cell,
                }
            }));
        }
        // Only the widest column is wrapped, where that is enough: times and keys stay in one piece.
        let widths: Vec<usize> =
            table.column_max_content_widths().iter().map(|width| usize::from(*width) + 2).collect();
        let widest = widths.iter().copied().enumerate().max_by_key(|(_, width)| *width);
        if let Some((widest, width)) = widest
            && widths.iter().sum::<usize>() - width + WRAPPED <= self.width()
        {
            for (_, column) in table.column_iter_mut().enumerate().filter(|(index, _)| *index != widest) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        table
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

impl Colour {
    fn on(self, cell: Cell) -> Cell {
        match self {
            Colour::Green => cell.fg(Color::DarkGreen),
            Colour::Yellow => cell.fg(Color::DarkYellow),
            Colour::Red => cell.fg(Color::Red),
            Colour::Bold => cell.add_attribute(Attribute::Bold),
            Colour::Dim => cell.add_attribute(Attribute::Dim),
        }
    }
}

/// Whether a line of a remedy is a statement, and nothing else.
fn is_sql(line: &str) -> bool {
    let first = line.split_whitespace().next().unwrap_or_default();
    let verbs = ["ALTER", "CREATE", "DROP", "GRANT", "REVOKE", "REASSIGN", "REINDEX", "SELECT", "ANALYZE", "UPDATE"];
    line.trim_end().ends_with(';') && verbs.contains(&first)
}

/// Units that may follow a number.
const UNITS: &[&str] = &["%", " B", " KiB", " MiB", " GiB", " TiB", " s", " min", " h", " d"];

/// A table cell's text and alignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StyledText {
    text: String,
    colour: Option<Colour>,
}

impl StyledText {
    pub fn painted(colour: Colour, text: impl Into<String>) -> StyledText {
        StyledText { text: text.into(), colour: Some(colour) }
    }

    /// A number, or the sign for none.
    fn is_number(&self) -> bool {
        let digits = self.text.strip_prefix('-').unwrap_or(&self.text);
        let digits = UNITS.iter().find_map(|unit| digits.strip_suffix(unit)).unwrap_or(digits);
        matches!(&*self.text, "" | "-" | "?" | "NULL")
            || digits.starts_with(|c: char| c.is_ascii_digit())
                && digits.chars().all(|c| c.is_ascii_digit() || matches!(c, ',' | '.'))
    }
}

impl From<String> for StyledText {
    fn from(text: String) -> StyledText {
        StyledText { text, colour: None }
    }
}

impl From<&str> for StyledText {
    fn from(text: &str) -> StyledText {
        StyledText { text: text.to_owned(), colour: None }
    }
}

/// Text in lines of at most `width` columns: the first behind `first`, the others behind `indent`. Words are not broken.
pub(crate) fn wrapped(text: &str, first: &str, indent: &str, width: usize) -> String {
    let options = textwrap::Options::new(width)
        .initial_indent(first)
        .subsequent_indent(indent)
        .break_words(false)
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    let words = printable_lines(text);
    textwrap::fill(&words.split_whitespace().collect::<Vec<_>>().join(" "), options)
}

/// Like [`printable`], with line breaks as blanks.
fn printable_lines(text: &str) -> String {
    printable(&text.replace(['\n', '\t'], " "))
}

/// A number of things: `1 row`, `1,234 rows`.
pub(crate) fn plural(number: u64, one: &str, more: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{} {more}", count(number)) }
}

/// Text out of a database as a terminal may show it: control characters would move the cursor or worse.
pub(crate) fn printable(text: &str) -> String {
    washed(text).into_owned()
}

/// The item on several lines, its digits and the order of its fields unchanged.
pub(crate) fn pretty(item: &[u8]) -> String {
    let fields: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_slice(item);
    let raw: Result<std::collections::HashMap<String, &serde_json::value::RawValue>, _> = serde_json::from_slice(item);
    let (Ok(fields), Ok(raw)) = (fields, raw) else { return String::from_utf8_lossy(item).into_owned() };
    let lines = fields.keys().filter_map(|name| {
        let value = raw.get(name)?;
        Some(format!("  {}: {}", serde_json::Value::from(name.as_str()), printable(value.get())))
    });
    format!("{{\n{}\n}}", lines.collect::<Vec<_>>().join(",\n"))
}

/// Bytes for people: `12.3 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    let mut units = ["KiB", "MiB", "GiB", "TiB"].into_iter();
    let (mut tenths, mut unit) = (u128::from(count) * 10, "B");
    while tenths >= 10_240 {
        let Some(next) = units.next() else { break };
        (tenths, unit) = (tenths / 1024, next);
    }
    if unit == "B" { format!("{count} B") } else { format!("{}.{} {unit}", tenths / 10, tenths % 10) }
}

/// A count for people: `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
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
    fn text_is_wrapped_and_words_are_whole() {
        let text = wrapped(&"word ".repeat(40), "first: ", "  ", 80);
        assert!(text.starts_with("first: word") && text.lines().count() == 3, "{text}");
        assert!(text.lines().skip(1).all(|line| line.len() <= 80 && line.starts_with("  word")), "{text}");
        assert_eq!(wrapped("", "  ", "", 80), "");
        assert_eq!(wrapped(&"x".repeat(90), "", "", 80).len(), 90);
        assert_eq!((plural(1, "row", "rows"), plural(2000, "row", "rows")), ("1 row".into(), "2,000 rows".into()));
    }

    #[test]
    fn numbers_stand_to_the_right_and_wide_rows_in_blocks() {
        let output = Output { json: false, colour: false };
        let table = output.lay_out(&["a".into(), "b".into()], [["1,234", "x"], ["-", "5"]]).to_string();
        let lines: Vec<&str> = table.lines().map(str::trim_end).collect();
        assert_eq!(lines, ["     a  b", " 1,234  x", "     -  5"], "{table}");
        assert!(
            StyledText::from("12.3 KiB").is_number()
                && !StyledText::from("2024-01-01").is_number()
                && !StyledText::from("1 ago").is_number()
        );
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\tc"), "a\\u001b[2Jb\\tc");
        let text = "\x1b[1;31mred\x1b[0m\na\x1b[2Jb\u{9b}\u{202e}c";
        assert_eq!(washed_output(text), "\x1b[1;31mred\x1b[0m\na\\u001b[2Jb\\u009b\\u202ec");
    }
}
