//! The nouns that every room shares: positions in the WAL, keys, columns and rows. Pure.
//!
//! * In: nothing. This is the bottom of the module graph.
//! * Out: small value types with total orders and text forms.
//! * Never: a Postgres wire type, an HTTP type, a clock, a lock.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A byte position in PostgreSQL's write-ahead log, in PostgreSQL's own text form (`16/B374D848`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// "No position": PostgreSQL's `InvalidXLogRecPtr`.
    pub const ZERO: Lsn = Lsn(0);

    /// Bytes of WAL from `earlier` up to this position; 0 where `earlier` is not earlier.
    pub fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = |part: &str| u32::from_str_radix(part, 16).map(u64::from);
        match text.split_once('/').map(|(high, low)| (parse(high), parse(low))) {
            Some((Ok(high), Ok(low))) => Ok(Lsn(high << 32 | low)),
            Some(_) | None => Err(format!("not a WAL position: {text:?} (expected the form 16/B374D848)")),
        }
    }
}

/// Where a streamed row stands: its transaction's commit LSN, then its number among that transaction's inserts
/// (from 0). Never a change's own LSN: the rows of one COPY share one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// `final_lsn` of the BEGIN message: the LSN of the commit record.
    pub final_lsn: Lsn,
    /// Ordinal of the insert within its transaction, from 0, over all tables of the publication.
    pub ordinal: u64,
}

impl Position {
    /// The greatest position below this one.
    pub fn before(self) -> Position {
        match self.ordinal.checked_sub(1) {
            Some(ordinal) => Position { ordinal, ..self },
            None => Position { final_lsn: Lsn(self.final_lsn.0.saturating_sub(1)), ordinal: u64::MAX },
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.final_lsn, self.ordinal)
    }
}

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
}

impl Phase {
    /// The word in the ledger, in metrics and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Backfill => "backfill",
            Phase::Stream => "stream",
            Phase::Resync => "resync",
            Phase::Retry => "retry",
        }
    }

    /// The phase of this word.
    pub fn parse(word: &str) -> Option<Phase> {
        [Phase::Backfill, Phase::Stream, Phase::Resync, Phase::Retry].into_iter().find(|phase| phase.as_str() == word)
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
    /// `date`.
    Date,
    /// `json`, `jsonb`.
    Json,
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
    /// `u32::MAX` is NULL; `u32::MAX - 1` is a value that the stream did not bring (unchanged TOAST).
    len: u32,
}

impl Cell {
    /// SQL NULL.
    pub const NULL: Cell = Cell { start: 0, len: u32::MAX };
    /// A value that was left out because it is larger than memory allows.
    pub const OVERSIZE: Cell = Cell { start: 0, len: u32::MAX - 1 };

    /// The text at `start..start + len` of the row's buffer.
    pub fn text(start: u32, len: u32) -> Cell {
        Cell { start, len }
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
            Some(cell) => Value::Text(&self.data[cell.start as usize..][..cell.len as usize]),
        }
    }
}

/// Rows of one table, owned: what a backfill reads at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    data: Vec<u8>,
    cells: Vec<Cell>,
    width: usize,
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

/// The types that a section's key may have (DESIGN section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// `smallint`, `integer`, `bigint`.
    Int,
    /// `numeric`, up to 32 characters.
    Numeric,
    /// `timestamp without time zone`.
    Timestamp,
    /// `timestamp with time zone`.
    TimestampTz,
    /// `date`.
    Date,
}

/// A key's value: ordered as PostgreSQL orders it, shown as PostgreSQL shows it. Keys of one section are of one type.
#[derive(Clone, Debug)]
pub enum Key {
    /// An integer key.
    Int(i64),
    /// A finite numeric, in its own text.
    Numeric(Box<str>),
    /// A finite timestamp or date: its signed year, and its whole text.
    Time(i32, Box<str>),
}

/// Why a text is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key column is NULL.
    #[error("the key is NULL")]
    Null,
    /// Numerics of over 32 characters, `NaN`, infinities, or text of another type.
    #[error("not a usable key: {0:?}")]
    Unusable(String),
}

/// The most characters that a numeric key may have.
pub const KEY_MAX_CHARS: usize = 32;

impl Key {
    /// Reads a key from a column's text.
    ///
    /// # Errors
    /// [`KeyError::Unusable`] where the text is not a finite value of the type, or a numeric of over 32 characters.
    pub fn parse(text: &[u8], ty: KeyType) -> Result<Key, KeyError> {
        let unusable = || KeyError::Unusable(String::from_utf8_lossy(&text[..text.len().min(64)]).into_owned());
        let text = std::str::from_utf8(text).map_err(|_| unusable())?;
        match ty {
            KeyType::Int => text.parse().map(Key::Int).map_err(|_| unusable()),
            KeyType::Numeric if text.len() <= KEY_MAX_CHARS && is_finite_decimal(text) => Ok(Key::Numeric(text.into())),
            KeyType::Numeric => Err(unusable()),
            KeyType::Timestamp | KeyType::TimestampTz | KeyType::Date => {
                let (year, _) = text.split_once('-').ok_or_else(unusable)?;
                let year: i32 = year.parse().map_err(|_| unusable())?;
                let year = if text.ends_with(" BC") { 1 - year } else { year };
                Ok(Key::Time(year, text.into()))
            }
        }
    }
}

fn is_finite_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.bytes().any(|b| b.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && digits.bytes().filter(|b| *b == b'.').count() <= 1
}

/// A decimal's sign, integer digits without leading zeros, and fraction without trailing zeros.
fn decimal_parts(text: &str) -> (bool, &str, &str) {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    (negative && !(whole.is_empty() && fraction.is_empty()), whole, fraction)
}

fn cmp_decimal(a: &str, b: &str) -> Ordering {
    let (a_negative, a_whole, a_fraction) = decimal_parts(a);
    let (b_negative, b_whole, b_fraction) = decimal_parts(b);
    let magnitude = (a_whole.len(), a_whole, a_fraction).cmp(&(b_whole.len(), b_whole, b_fraction));
    match (a_negative, b_negative) {
        (false, true) => Ordering::Greater,
        (true, false) => Ordering::Less,
        (false, false) => magnitude,
        (true, true) => magnitude.reverse(),
    }
}

/// A timestamp's text behind its year, less the zone and era, which are the same for all keys of a column and year.
fn within_year(text: &str) -> &str {
    let text = text.strip_suffix(" BC").unwrap_or(text);
    let text = text.strip_suffix("+00").unwrap_or(text);
    text.split_once('-').map_or("", |(_, rest)| rest)
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Key::Int(a), Key::Int(b)) => a.cmp(b),
            (Key::Numeric(a), Key::Numeric(b)) => cmp_decimal(a, b),
            (Key::Time(a_year, a), Key::Time(b_year, b)) => {
                a_year.cmp(b_year).then_with(|| within_year(a).cmp(within_year(b)))
            }
            // Keys of one section are of one type; the rest is only there to make the order total.
            (Key::Int(_), _) | (Key::Numeric(_), Key::Time(..)) => Ordering::Less,
            (Key::Numeric(_), Key::Int(_)) | (Key::Time(..), _) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key {}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Int(value) => write!(f, "{value}"),
            Key::Numeric(text) | Key::Time(_, text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lsn_text_round_trips() {
        for text in ["0/0", "16/B374D848", "7FFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().unwrap().to_string(), text);
        }
        assert!("16".parse::<Lsn>().is_err());
        assert!("16/XYZ".parse::<Lsn>().is_err());
    }

    #[test]
    fn timestamps_order_across_eras_and_fractions() {
        let ordered = [
            "0045-03-15 12:00:00+00 BC",
            "0044-03-15 12:00:00+00 BC",
            "0001-01-01 00:00:00+00",
            "2024-01-02 03:04:05+00",
            "2024-01-02 03:04:05.12+00",
            "2024-01-02 03:04:05.2+00",
            "10000-01-01 00:00:00+00",
        ];
        let keys: Vec<Key> = ordered.iter().map(|t| Key::parse(t.as_bytes(), KeyType::TimestampTz).unwrap()).collect();
        assert!(keys.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn unusable_keys_are_refused() {
        for (text, ty) in [
            ("NaN", KeyType::Numeric),
            ("Infinity", KeyType::Numeric),
            ("123456789012345678901234567890123", KeyType::Numeric),
            ("infinity", KeyType::Timestamp),
            ("x", KeyType::Int),
        ] {
            assert!(Key::parse(text.as_bytes(), ty).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn decimals_order_as_numbers(a in -1_000_000i64..1_000_000, b in -1_000_000i64..1_000_000, places in 0usize..4) {
            let text = |n: i64| {
                let sign = if n < 0 { "-" } else { "" };
                let unit = 10i64.pow(u32::try_from(places).unwrap());
                let n = n.abs();
                if places == 0 { format!("{sign}{n}") } else { format!("{sign}{}.{:0places$}", n / unit, n % unit) }
            };
            let key = |n| Key::parse(text(n).as_bytes(), KeyType::Numeric).unwrap();
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        }
    }
}
