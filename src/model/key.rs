//! A row's key as text. Pure.
//!
//! * In: the texts of the key's columns, as the server prints them under the pinned session.
//! * Out: [`Key`], one text for all of them: the column's own text, or `a,b` for several.
//! * Never: an order. Only the server knows which of two keys is the greater; here they are equal or they are not.
//!
//! The text of several columns is one line of CSV: a part that holds a comma, a quote or a line break, that is empty or
//! begins with a bracket, stands in double quotes, and a quote within it is doubled. So two keys have one text only if
//! they are equal, and no such text is a JSON array, which is the other way to write a key.

use std::borrow::Cow;
use std::fmt;

use crate::model::row::{Row, Value};

/// A key: the text of its columns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(Box<str>);

impl Key {
    /// The key of this text, which the server printed.
    pub fn new(text: impl Into<Box<str>>) -> Key {
        Key(text.into())
    }

    /// The key of these columns' texts.
    pub fn of_parts<T: AsRef<str>>(parts: &[T]) -> Key {
        let mut out = Vec::new();
        join(parts.iter().map(|part| part.as_ref().as_bytes()), &mut out);
        Key(String::from_utf8_lossy(&out).into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The texts of its columns, where it has so many.
    pub fn parts(&self, width: usize) -> Option<Vec<String>> {
        parts(&self.0, width)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text of a row's key; empty where a column of it is NULL, or too large to hold.
#[inline]
pub(crate) fn key_text<'a>(row: &Row<'a>, columns: &[usize]) -> Cow<'a, [u8]> {
    match columns {
        [only] => match row.get(*only) {
            Value::Text(text) => Cow::Borrowed(text),
            Value::Null | Value::Oversize | Value::Unknown => Cow::Borrowed(b""),
        },
        several => Cow::Owned(text_of_several(row, several)),
    }
}

fn text_of_several(row: &Row<'_>, columns: &[usize]) -> Vec<u8> {
    let mut texts = Vec::with_capacity(columns.len());
    for column in columns {
        match row.get(*column) {
            Value::Text(text) => texts.push(text),
            Value::Null | Value::Oversize | Value::Unknown => return Vec::new(),
        }
    }
    let mut out = Vec::with_capacity(texts.iter().map(|text| text.len() + 1).sum());
    join(texts.into_iter(), &mut out);
    out
}

/// Appends the parts as one text.
fn join<'a>(parts: impl ExactSizeIterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    let alone = parts.len() == 1;
    for (index, part) in parts.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let quoted =
            part.is_empty() || part[0] == b'[' || part.iter().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r'));
        if alone || !quoted {
            out.extend_from_slice(part);
            continue;
        }
        out.push(b'"');
        for byte in part {
            if *byte == b'"' {
                out.push(b'"');
            }
            out.push(*byte);
        }
        out.push(b'"');
    }
}

/// The parts of a key of `width` columns, as the program writes it or as a person does: `a,b`, or a JSON array.
pub(crate) fn parts(text: &str, width: usize) -> Option<Vec<String>> {
    if width == 1 {
        return Some(vec![text.to_owned()]);
    }
    if let Ok(serde_json::Value::Array(items)) = serde_json::from_str(text) {
        let item = |item: serde_json::Value| match item {
            serde_json::Value::String(text) => Some(text),
            serde_json::Value::Number(number) => Some(number.to_string()),
            serde_json::Value::Bool(_)
            | serde_json::Value::Null
            | serde_json::Value::Array(_)
            | serde_json::Value::Object(_) => None,
        };
        let items: Option<Vec<String>> = items.into_iter().map(item).collect();
        return items.filter(|items| items.len() == width);
    }
    let (mut parts, mut rest) = (Vec::new(), text);
    loop {
        let (part, behind) = match rest.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        parts.push(part);
        match behind.strip_prefix(',') {
            Some(next) => rest = next,
            None if behind.is_empty() => break,
            None => return None,
        }
    }
    (parts.len() == width).then_some(parts)
}

/// Reads up to the closing quote; a doubled quote is one. Gives what is behind it, too.
fn unquoted(mut rest: &str) -> Option<(String, &str)> {
    let mut part = String::new();
    loop {
        let (before, behind) = rest.split_once('"')?;
        part.push_str(before);
        let Some(next) = behind.strip_prefix('"') else { return Some((part, behind)) };
        part.push('"');
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::row::Cell;
    use proptest::prelude::*;

    #[test]
    fn keys_of_several_columns_are_written_and_read() {
        assert_eq!(Key::of_parts(&["7", "2024-01-01"]).as_str(), "7,2024-01-01");
        assert_eq!(Key::of_parts(&["a,b", "", "\"c", "[1"]).as_str(), r#""a,b","","""c","[1""#);
        assert_eq!(Key::of_parts(&["a,b"]).as_str(), "a,b", "one column is its own text");
        assert_eq!(parts(r#"["a", 7]"#, 2), Some(vec!["a".into(), "7".into()]));
        for wrong in ["a", "a,b,c", "[\"a\"]", "\"a", "\"a\"b,c", "[1,null]"] {
            assert_eq!(parts(wrong, 2), None, "{wrong}");
        }
    }

    #[test]
    fn a_key_with_a_null_in_it_is_none() {
        let row = Row { data: b"7", cells: &[Cell::text(0, 1), Cell::NULL] };
        assert_eq!(*key_text(&row, &[0]), *b"7");
        assert_eq!(*key_text(&row, &[0, 0]), *b"7,7");
        assert!(key_text(&row, &[0, 1]).is_empty() && key_text(&row, &[1]).is_empty());
    }

    proptest! {
        #[test]
        fn the_parts_come_back_and_tell_keys_apart(
            one in proptest::collection::vec("[ab,\"\\[\n]{0,4}", 2..4),
            other in proptest::collection::vec("[ab,\"\\[\n]{0,4}", 2..4),
        ) {
            let (a, b) = (Key::of_parts(&one), Key::of_parts(&other));
            prop_assert_eq!(a.parts(one.len()), Some(one.clone()));
            prop_assert_eq!(one.len() == other.len() && a == b, one == other);
        }
    }
}
