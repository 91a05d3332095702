//! Rows of `COPY (SELECT …) TO STDOUT` in text format, read as text values by column. Pure.
//!
//! COPY's text is made by the same output functions as pgoutput's text, so one encoder serves both. Its escapes
//! (documentation of COPY, "Text Format"): `\N` alone is NULL; `\\ \b \f \n \r \t \v` stand for one character each.

use crate::model::Cell;
use crate::postgres::connection::charset::Charset;

/// Reads one line as COPY sends it, with its line break: text of a single-byte encoding is decoded first.
pub(crate) fn sent_line(sent: &[u8], charset: Option<&Charset>, data: &mut Vec<u8>, cells: &mut Vec<Cell>) {
    let sent = sent.strip_suffix(b"\n").unwrap_or(sent);
    let Some(charset) = charset.filter(|_| !sent.is_ascii()) else { return line(sent, data, cells) };
    let mut decoded = Vec::with_capacity(sent.len() * 2);
    charset.decode(sent, &mut decoded);
    line(&decoded, data, cells);
}

/// Reads one line (without its line break): appends its text to `data` and its cells to `cells`.
fn line(line: &[u8], data: &mut Vec<u8>, cells: &mut Vec<Cell>) {
    if memchr::memchr(b'\\', line).is_none() {
        return plain(line, data, cells);
    }
    for field in line.split(|byte| *byte == b'\t') {
        if field == b"\\N" {
            cells.push(Cell::NULL);
            continue;
        }
        let start = data.len();
        unescape(field, data);
        cells.push(Cell::text(offset(start), offset(data.len() - start)));
    }
}

/// A line without escapes and NULLs: copied as it is, its tabs between the cells.
fn plain(line: &[u8], data: &mut Vec<u8>, cells: &mut Vec<Cell>) {
    let first = data.len();
    data.extend_from_slice(line);
    let mut start = 0;
    for end in memchr::memchr_iter(b'\t', line).chain([line.len()]) {
        cells.push(Cell::text(offset(first + start), offset(end - start)));
        start = end + 1;
    }
}

/// A message of the server is under 1 GiB, so an offset within it fits.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX - 2)
}

fn unescape(mut field: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = memchr::memchr(b'\\', field) {
        out.extend_from_slice(&field[..at]);
        let Some(escaped) = field.get(at + 1) else {
            return out.push(b'\\');
        };
        out.push(match escaped {
            b'b' => 0x08,
            b'f' => 0x0C,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0B,
            other => *other,
        });
        field = &field[at + 2..];
    }
    out.extend_from_slice(field);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Row, Value};
    use proptest::prelude::*;

    fn escape(value: Option<&[u8]>) -> Vec<u8> {
        let Some(value) = value else { return b"\\N".to_vec() };
        value
            .iter()
            .flat_map(|byte| match byte {
                b'\\' => b"\\\\".to_vec(),
                0x08 => b"\\b".to_vec(),
                0x0C => b"\\f".to_vec(),
                b'\n' => b"\\n".to_vec(),
                b'\r' => b"\\r".to_vec(),
                b'\t' => b"\\t".to_vec(),
                0x0B => b"\\v".to_vec(),
                byte => vec![*byte],
            })
            .collect()
    }

    proptest! {
        #[test]
        fn what_the_server_escapes_comes_back(
            values in proptest::collection::vec(proptest::option::of(proptest::collection::vec(any::<u8>(), 0..12)), 1..6)
        ) {
            let text = values.iter().map(|v| escape(v.as_deref())).collect::<Vec<_>>().join(&b'\t');
            let (mut data, mut cells) = (Vec::new(), Vec::new());
            line(&text, &mut data, &mut cells);
            let row = Row { data: &data, cells: &cells };
            prop_assert_eq!(cells.len(), values.len());
            for (i, value) in values.iter().enumerate() {
                prop_assert_eq!(row.get(i), value.as_deref().map_or(Value::Null, Value::Text));
            }
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            line(&bytes, &mut Vec::new(), &mut Vec::new());
        }
    }
}
