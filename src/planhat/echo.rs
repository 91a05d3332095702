//! Digests of an item's JSON by value, which tell items apart. Pure.
//!
//! * In: an item's JSON, as it was sent or as an answer echoes it.
//! * Out: an [`Echo`]: equal for equal values, whatever the order of fields and the spelling of numbers.
//! * Never: an item kept parsed. Of ten thousand echoes only ten thousand digests stay.

use std::fmt::Write as _;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// The first 128 bits of a SHA-256.
pub(crate) type ItemDigest = [u8; 16];

/// An item's digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// With numbers by their exact value.
    pub(crate) exact: ItemDigest,
    /// With numbers as JavaScript keeps them.
    pub(crate) double: ItemDigest,
}

impl Echo {
    /// The digests of this JSON; `None` where it cannot be parsed.
    pub fn of(json: &[u8]) -> Option<Echo> {
        let value = serde_json::from_slice(json).ok()?;
        Some(Echo { exact: digest(&value, Numbers::Exact), double: digest(&value, Numbers::Double) })
    }
}

/// How numbers are compared.
#[derive(Clone, Copy)]
pub(crate) enum Numbers {
    /// `1`, `1.0` and `1e0` are one; 2^53 and 2^53 + 1 are two.
    Exact,
    /// As 64-bit floats: 2^53 and 2^53 + 1 are one.
    Double,
}

/// The digest of this JSON with numbers told apart so.
pub(crate) fn digest_of(json: &[u8], numbers: Numbers) -> Option<ItemDigest> {
    serde_json::from_slice(json).ok().map(|value| digest(&value, numbers))
}

fn digest(value: &Value, numbers: Numbers) -> ItemDigest {
    let mut form = String::new();
    write_canonical(&mut form, value, numbers);
    let whole = Sha256::digest(form.as_bytes());
    std::array::from_fn(|index| whole[index])
}

/// Writes a form that is equal for equal values: fields sorted, texts with their length, numbers by value.
fn write_canonical(form: &mut String, value: &Value, numbers: Numbers) {
    match value {
        Value::Null => form.push('n'),
        Value::Bool(value) => form.push(if *value { 't' } else { 'f' }),
        Value::Number(number) => write_number(form, number, numbers),
        Value::String(text) => write_text(form, text),
        Value::Array(values) => {
            form.push('[');
            values.iter().for_each(|value| write_canonical(form, value, numbers));
            form.push(']');
        }
        Value::Object(object) => write_object(form, object, numbers),
    }
}

fn write_object(form: &mut String, object: &Map<String, Value>, numbers: Numbers) {
    let mut fields: Vec<_> = object.iter().collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    form.push('{');
    for (name, value) in fields {
        write_text(form, name);
        write_canonical(form, value, numbers);
    }
    form.push('}');
}

fn write_text(form: &mut String, text: &str) {
    // Writing to a String cannot fail.
    write!(form, "\"{}:{text}", text.len()).unwrap_or_default();
}

fn write_number(form: &mut String, number: &serde_json::Number, numbers: Numbers) {
    let double = number.as_f64().unwrap_or_default();
    let exact = matches!(numbers, Numbers::Exact) && !number.is_f64();
    // `+ 0.0` makes -0 and 0 one; a float below 2^53 without a fraction prints as the integer that it is.
    if exact { write!(form, "#{number}") } else { write!(form, "#{}", double + 0.0) }.unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_goes_by_value_not_by_spelling() {
        let one = Echo::of(br#"{"a":1.50,"b":{"c":[1e2,null]}}"#);
        assert_eq!(one, Echo::of(br#" {"b":{"c":[100,null]}, "a":1.5}"#));
        assert_ne!(one, Echo::of(br#"{"a":1.5,"b":{"c":[100]}}"#));
        assert_eq!(Echo::of(b"{1"), None);
    }

    #[test]
    fn javascripts_numbers_are_equal_only_as_doubles() {
        let sent = Echo::of(br#"{"v":9007199254740993}"#).unwrap();
        let echoed = Echo::of(br#"{"v":9007199254740992}"#).unwrap();
        assert!(sent.exact != echoed.exact && sent.double == echoed.double);
    }

    /// Texts hold their length, so that no text can pass for structure.
    #[test]
    fn texts_do_not_pass_for_structure() {
        assert_ne!(Echo::of(br#"{"a":"1","b":"2"}"#), Echo::of(br#"{"a":"1\"1:b\"1:2"}"#));
    }
}
