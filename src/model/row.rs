//! The nouns that every room shares: positions in the WAL, keys, columns and rows. Pure.
//!
//! * In: nothing. This is the bottom of the module graph.
//! * Out: small value types with total orders and text forms.
//! * Never: a Postgres wire type, an HTTP type, a clock, a lock.

use std::fmt;
use std::sync::Arc;

/// The name of a section, as configured. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectionName(pub Arc<str>);

impl SectionName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for SectionName {
    fn from(name: &str) -> Self {
        SectionName(name.into())
    }
}

impl fmt::Display for SectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which way the rows of a batch came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// In key order, before or beside the stream.
    Backfill,
    /// By the replication slot.
    Stream,
    /// In key order, asked by a person.
    Resync,
    /// Out of quarantine, asked by a person.
    Retry,
    /// Out of a result that was compared again: new or changed since.
    Diff,
    /// An audit found them missing, and a person asked for them.
    Repair,
}

impl Phase {
    pub const ALL: [Phase; 6] =
        [Phase::Backfill, Phase::Stream, Phase::Resync, Phase::Retry, Phase::Diff, Phase::Repair];

    /// The word in the ledger, in metrics and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Backfill => "backfill",
            Phase::Stream => "stream",
            Phase::Resync => "resync",
            Phase::Retry => "retry",
            Phase::Diff => "diff",
            Phase::Repair => "repair",
        }
    }

    /// Whether its rows come out of quarantine, where they stay until they are delivered.
    pub fn is_out_of_quarantine(self) -> bool {
        matches!(self, Phase::Retry | Phase::Repair)
    }

    pub fn parse(word: &str) -> Option<Phase> {
        Phase::ALL.into_iter().find(|phase| phase.as_str() == word)
    }
}

/// What kind of value a column holds, as far as the encoder must tell kinds apart. A domain is its base type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// `boolean`: text `t` or `f`.
    Bool,
    /// `smallint`, `integer`, `bigint`, `oid`.
    Int,
    /// `real`, `double precision`: may be `NaN`, `Infinity`, `-Infinity`, and may use an exponent.
    Float,
    /// `numeric`: may be `NaN`, and from PostgreSQL 14 `Infinity`, `-Infinity`.
    Numeric,
    /// `timestamp without time zone`.
    Timestamp,
    /// `timestamp with time zone`; under the pinned session always `+00`.
    TimestampTz,
    Date,
    /// `json`, `jsonb`.
    Json,
    /// `char(n)`: text with blanks behind it, up to its length.
    Char,
    /// Everything else is its text.
    Text,
}

/// A column as a row brings it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The column's name, unquoted, exactly as the catalog has it.
    pub name: String,
    /// What its text means.
    pub ty: Type,
}

/// Where one column's text lies within its row's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    start: u32,
    /// `u32::MAX` is NULL; the two below it are values that are not here.
    len: u32,
}

impl Cell {
    /// SQL NULL.
    pub const NULL: Cell = Cell { start: 0, len: u32::MAX };
    /// A value that was left out because it is larger than memory allows.
    pub const OVERSIZE: Cell = Cell { start: 0, len: u32::MAX - 1 };
    /// A value that an update did not bring, because it had not changed and was stored out of line.
    pub const UNKNOWN: Cell = Cell { start: 0, len: u32::MAX - 2 };

    /// The text at `start..start + len` of the row's buffer.
    pub fn text(start: u32, len: u32) -> Cell {
        Cell { start, len }
    }

    /// The same text, in a buffer that has so many bytes before.
    #[must_use]
    pub(crate) fn shifted(&self, bytes: u32) -> Cell {
        let is_text = ![Cell::NULL, Cell::OVERSIZE, Cell::UNKNOWN].contains(self);
        if is_text { Cell { start: self.start + bytes, len: self.len } } else { *self }
    }
}

/// A column's value: borrowed text, NULL, or a value too large to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// SQL NULL, or a column that the row does not have.
    Null,
    /// The text form under the pinned session settings.
    Text(&'a [u8]),
    /// There was a value, larger than the memory budget allows for one row.
    Oversize,
    /// There was a value, which an update did not bring and nobody knows.
    Unknown,
}

/// One row as text values by column; borrowed, never owned.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The bytes that the cells point into.
    pub data: &'a [u8],
    /// One per column, in the order of the table's [`Column`]s.
    pub cells: &'a [Cell],
}

impl<'a> Row<'a> {
    /// The value of column `index`.
    #[inline]
    pub fn get(&self, index: usize) -> Value<'a> {
        match self.cells.get(index) {
            None | Some(&Cell::NULL) => Value::Null,
            Some(&Cell::OVERSIZE) => Value::Oversize,
            Some(&Cell::UNKNOWN) => Value::Unknown,
            Some(cell) => Value::Text(&self.data[cell.start as usize..][..cell.len as usize]),
        }
    }
}

/// Rows of one table, owned: what a backfill reads at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    data: Vec<u8>,
    cells: Vec<Cell>,
    width: usize,
}

impl Default for Rows {
    fn default() -> Rows {
        Rows::new(1)
    }
}

impl Rows {
    /// No rows yet, of `width` columns each (at least 1).
    pub fn new(width: usize) -> Rows {
        Rows { data: Vec::new(), cells: Vec::new(), width: width.max(1) }
    }

    /// Adds a row. `fill` appends its text to the buffer and its cells (places in that buffer) to the list; missing
    /// cells are NULL, those over the width are dropped.
    pub fn push_with(&mut self, fill: impl FnOnce(&mut Vec<u8>, &mut Vec<Cell>)) {
        let end = self.cells.len() + self.width;
        fill(&mut self.data, &mut self.cells);
        self.cells.resize(end, Cell::NULL);
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.cells.len() / self.width
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The rows in order.
    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        self.cells.chunks_exact(self.width).map(|cells| Row { data: &self.data, cells })
    }

    /// Bytes that they hold in memory.
    pub fn weight(&self) -> usize {
        self.data.len() + size_of_val(self.cells.as_slice())
    }
}

/// When a row was committed, as far as its way in can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitTime {
    /// Microseconds since 2000-01-01 00:00 UTC (PostgreSQL's epoch), from the stream's BEGIN.
    Micros(i64),
    /// A backfilled row: PostgreSQL does not say.
    Unknown,
}
