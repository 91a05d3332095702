//! What is remembered of a settled row of a compared result: which row it is, and what its mapped values were. Pure.
//!
//! * In: the texts of a row's key and of its mapped columns.
//! * Out: [`SeenRow`], 26 bytes, and lists of them as bytes.
//! * Never: a value of the row itself.
//!
//! The digest of a key is made twice, here and by the server, which orders the result by it; both take the first 16 bytes of
//! SHA-256 of the column's text, or of the digests of the columns' texts one behind the other.

use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_64;

use crate::model::row::{Row, Value};

/// Which row it is: the digest of its key. Rows of a result come in the order of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyDigest(pub [u8; 16]);

impl KeyDigest {
    /// The digest of a row's key; `None` where a column of it is NULL, or too large to hold.
    pub fn of_row(row: &Row<'_>, columns: &[usize]) -> Option<KeyDigest> {
        let text = |column: &usize| match row.get(*column) {
            Value::Text(text) => Some(text),
            Value::Null | Value::Oversize | Value::Unknown => None,
        };
        if let [only] = columns {
            return Some(KeyDigest::first_of(&Sha256::digest(text(only)?)));
        }
        let mut all = Sha256::new();
        for column in columns {
            all.update(Sha256::digest(text(column)?));
        }
        Some(KeyDigest::first_of(&all.finalize()))
    }

    /// The digest of the key of these texts.
    pub fn of_texts<T: AsRef<[u8]>>(texts: &[T]) -> KeyDigest {
        if let [only] = texts {
            return KeyDigest::first_of(&Sha256::digest(only));
        }
        let mut all = Sha256::new();
        texts.iter().for_each(|text| all.update(Sha256::digest(text)));
        KeyDigest::first_of(&all.finalize())
    }

    fn first_of(whole: &[u8]) -> KeyDigest {
        let mut first = [0; 16];
        first.copy_from_slice(&whole[..16]);
        KeyDigest(first)
    }

    /// The digest in these bytes, where they are 16.
    pub fn from_bytes(bytes: &[u8]) -> Option<KeyDigest> {
        bytes.try_into().ok().map(KeyDigest)
    }
}

/// A settled row of a compared result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeenRow {
    /// Which row it is.
    pub key: KeyDigest,
    /// A digest of its mapped values.
    pub values: u64,
    /// The day of its date, counted from 1970; 0 where none is asked for.
    pub day: u16,
}

impl SeenRow {
    /// Bytes of one.
    pub const LEN: usize = 26;

    /// Appends it to a list.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.key.0);
        out.extend_from_slice(&self.values.to_be_bytes());
        out.extend_from_slice(&self.day.to_be_bytes());
    }

    /// The same row as one that a rule left out: it was settled without an item. Where the rule takes it later, it is not settled.
    #[must_use]
    pub(crate) fn left_out(self) -> SeenRow {
        SeenRow { values: left_out(self.values), ..self }
    }

    /// The one that begins at `at` of a list.
    pub fn decode(list: &[u8], at: usize) -> Option<SeenRow> {
        let bytes: &[u8; SeenRow::LEN] = list.get(at..at + SeenRow::LEN)?.try_into().ok()?;
        let (mut key, mut values) = ([0; 16], [0; 8]);
        key.copy_from_slice(&bytes[..16]);
        values.copy_from_slice(&bytes[16..24]);
        let day = u16::from_be_bytes([bytes[24], bytes[25]]);
        Some(SeenRow { key: KeyDigest(key), values: u64::from_be_bytes(values), day })
    }
}

/// The digest that stands for the values of a row which a rule left out. Rows that a version before this one left out have the
/// values' own.
pub(crate) fn left_out(values: u64) -> u64 {
    values ^ 0x6c65_6674_206f_7574
}

/// The digest of a row's values in these columns. `buffer` is only there to be used again.
pub(crate) fn values_digest(row: &Row<'_>, columns: &[usize], buffer: &mut Vec<u8>) -> u64 {
    buffer.clear();
    for column in columns {
        match row.get(*column) {
            Value::Null => buffer.push(0),
            // That it changed cannot be seen: it is not held.
            Value::Oversize | Value::Unknown => buffer.push(2),
            Value::Text(text) => {
                buffer.push(1);
                buffer.extend_from_slice(&(text.len() as u64).to_le_bytes());
                buffer.extend_from_slice(text);
            }
        }
    }
    xxh3_64(buffer)
}

/// Rows of a result that may have been sent, and are not remembered any more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Forgotten {
    /// The column of their date.
    pub column: String,
    /// They are older than this: RFC 3339, UTC, in whole seconds, so that the later of two is the greater text.
    pub before: String,
}

impl Forgotten {
    /// Rows whose date in this column is before then.
    pub(crate) fn before(column: &str, then: jiff::Timestamp) -> Forgotten {
        Forgotten { column: column.to_owned(), before: then.strftime("%Y-%m-%dT%H:%M:%SZ").to_string() }
    }
}

/// The day that a time's text begins with, counted from 1970; 0 where it begins with none.
pub(crate) fn day_of(text: &[u8]) -> u16 {
    let date = text.get(..10).and_then(|date| std::str::from_utf8(date).ok());
    let date = date.and_then(|date| date.parse::<jiff::civil::Date>().ok());
    let days = date.and_then(|date| date.since(jiff::civil::date(1970, 1, 1)).ok()).map_or(0, |span| span.get_days());
    u16::try_from(days).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::row::Cell;

    #[test]
    fn rows_survive_their_bytes_and_differ_by_what_they_hold() {
        let row = |data: &'static [u8], cells: &'static [Cell]| (data, cells);
        let (data, cells) = row(b"ab", &[const { Cell::NULL }, const { Cell::NULL }]);
        let none = Row { data, cells };
        assert_eq!(KeyDigest::of_row(&none, &[0]), None);
        let cells = [Cell::text(0, 1), Cell::text(1, 1), Cell::text(0, 2), Cell::text(2, 0), Cell::NULL];
        let row = Row { data: b"ab", cells: &cells };
        let key = |columns: &[usize]| KeyDigest::of_row(&row, columns).unwrap();
        assert!(key(&[0]) != key(&[1]) && key(&[0, 1]) != key(&[2]) && key(&[0, 1]) != key(&[2, 3]));
        let mut buffer = Vec::new();
        let mut values = |columns: &[usize]| values_digest(&row, columns, &mut buffer);
        let all = [values(&[0, 1]), values(&[2, 3]), values(&[3, 2]), values(&[2, 4]), values(&[2])];
        assert!(all.iter().enumerate().all(|(at, one)| all[at + 1..].iter().all(|other| one != other)));
        let seen = SeenRow { key: key(&[0]), values: all[0], day: day_of(b"2026-11-26 10:00:00+00") };
        assert_eq!((seen.day, day_of(b"infinity"), day_of(b"0044-03-15 BC")), (20_783, 0, 0));
        let mut list = Vec::new();
        seen.encode(&mut list);
        assert_eq!(
            (list.len(), SeenRow::decode(&list, 0), SeenRow::decode(&list, 1)),
            (SeenRow::LEN, Some(seen), None)
        );
    }

    #[test]
    fn the_digest_is_the_one_that_postgresql_makes() {
        // SELECT substr(sha256(convert_to('42', 'UTF8')), 1, 16)
        let row = Row { data: b"42", cells: &[Cell::text(0, 2)] };
        let expected = "73475cb40a568e8da8a045ced110137e";
        let shown: String = KeyDigest::of_row(&row, &[0]).unwrap().0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown, expected);
    }
}
