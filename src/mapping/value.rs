//! One encoder per source type and target: which there are, and what each writes.
//!
//! * In: one value's text, as PostgreSQL printed it.
//! * Out: its JSON text, appended. After a refusal a stump may be left; the caller cuts it off.
//! * Never: a number that was parsed and printed again: digits are copied.

use jiff::tz::TimeZone;

use crate::mapping::decimal::Decimal;
use crate::mapping::time::Fraction;
use crate::mapping::{Reason, json, time};
use crate::model::Type;

/// What Planhat, or a place within the item, wants of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonTarget {
    /// A JSON string.
    Text,
    /// A JSON string that tells whose the item is: blanks that only fill a `char(n)` are no part of it.
    Identity,
    /// `dimensionId`: a JSON string, and no json column can ever hold one.
    Dimension,
    /// A finite number.
    Number,
    /// A time with milliseconds.
    Date,
    /// `info` as a whole: a JSON object.
    Object,
    /// Whatever the column is.
    Any,
}

/// What Planhat takes in a field of this name.
pub(crate) fn target_of(name: &str) -> JsonTarget {
    match name {
        "email" | "externalId" | "companyExternalId" | "companyId" => JsonTarget::Identity,
        "action" | "name" | "firstName" | "lastName" => JsonTarget::Text,
        "dimensionId" => JsonTarget::Dimension,
        "value" | "weight" => JsonTarget::Number,
        "date" => JsonTarget::Date,
        "info" => JsonTarget::Object,
        _ => JsonTarget::Any,
    }
}

/// How one column's text becomes JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoder {
    /// The text as a string.
    Text,
    /// The text of a `char(n)` as a string, less the blanks behind it.
    Unpadded,
    /// `true`, `false`.
    Bool,
    /// `"true"`, `"false"`.
    BoolText,
    Number,
    /// The digits of a JSON scalar.
    JsonNumber,
    /// A `timestamp with time zone`.
    Instant(Fraction),
    /// A `timestamp without time zone`.
    Naive(Fraction),
    Date,
    /// ISO text.
    FreeTime,
    Json,
    /// A JSON string as it is, other JSON as a string of its text.
    JsonText,
    /// A JSON object as it is.
    JsonObject,
}

impl Encoder {
    /// The encoder from a column of type `ty` to `target`; `None` where no value could ever fit.
    pub(crate) fn new(ty: Type, target: JsonTarget) -> Option<Encoder> {
        match target {
            JsonTarget::Dimension if ty == Type::Json => None,
            JsonTarget::Text | JsonTarget::Identity | JsonTarget::Dimension => Some(match ty {
                Type::Char if target != JsonTarget::Text => Encoder::Unpadded,
                Type::Bool => Encoder::BoolText,
                Type::Timestamp => Encoder::Naive(Fraction::AsPrinted),
                Type::TimestampTz => Encoder::Instant(Fraction::AsPrinted),
                Type::Date => Encoder::Date,
                Type::Json => Encoder::JsonText,
                Type::Int | Type::Float | Type::Numeric | Type::Char | Type::Text => Encoder::Text,
            }),
            JsonTarget::Number => match ty {
                Type::Int | Type::Float | Type::Numeric | Type::Char | Type::Text => Some(Encoder::Number),
                Type::Json => Some(Encoder::JsonNumber),
                Type::Bool | Type::Timestamp | Type::TimestampTz | Type::Date => None,
            },
            JsonTarget::Date => match ty {
                Type::Timestamp => Some(Encoder::Naive(Fraction::Millis)),
                Type::TimestampTz => Some(Encoder::Instant(Fraction::Millis)),
                Type::Date => Some(Encoder::Date),
                Type::Char | Type::Text => Some(Encoder::FreeTime),
                Type::Bool | Type::Int | Type::Float | Type::Numeric | Type::Json => None,
            },
            JsonTarget::Object => (ty == Type::Json).then_some(Encoder::JsonObject),
            JsonTarget::Any => Some(match ty {
                Type::Bool => Encoder::Bool,
                Type::Int | Type::Float | Type::Numeric => Encoder::Number,
                Type::Timestamp => Encoder::Naive(Fraction::AsPrinted),
                Type::TimestampTz => Encoder::Instant(Fraction::AsPrinted),
                Type::Date => Encoder::Date,
                Type::Json => Encoder::Json,
                Type::Char | Type::Text => Encoder::Text,
            }),
        }
    }

    /// Whether `text` says "nothing": JSON's `null`, where it is not passed on verbatim; as `info` also an array or a
    /// scalar (`[]` is what PHP writes for "no properties").
    pub(crate) fn reads_as_null(self, text: &[u8]) -> bool {
        match self {
            Encoder::JsonNumber | Encoder::JsonText => json::is_null(text),
            Encoder::JsonObject => !text.trim_ascii_start().starts_with(b"{"),
            Encoder::Text
            | Encoder::Unpadded
            | Encoder::Bool
            | Encoder::BoolText
            | Encoder::Number
            | Encoder::Instant(_)
            | Encoder::Naive(_)
            | Encoder::Date
            | Encoder::FreeTime
            | Encoder::Json => false,
        }
    }

    /// Whether `text` is the empty string.
    pub(crate) fn reads_as_empty(self, text: &[u8]) -> bool {
        match self {
            Encoder::Unpadded => unpadded(text).is_empty(),
            Encoder::JsonText => text.is_empty() || text.trim_ascii() == b"\"\"",
            Encoder::Text
            | Encoder::Bool
            | Encoder::BoolText
            | Encoder::Number
            | Encoder::JsonNumber
            | Encoder::Instant(_)
            | Encoder::Naive(_)
            | Encoder::Date
            | Encoder::FreeTime
            | Encoder::Json
            | Encoder::JsonObject => text.is_empty(),
        }
    }

    /// Appends `text` as JSON.
    pub(crate) fn write(self, text: &[u8], zone: Option<&TimeZone>, out: &mut Vec<u8>) -> Result<(), Reason> {
        match self {
            Encoder::Text => json::string(text, out),
            Encoder::Unpadded => json::string(unpadded(text), out),
            Encoder::Bool => boolean(text).map(|value| out.extend_from_slice(value.as_bytes())),
            Encoder::BoolText => boolean(text).map(|value| json::escaped(value, out)),
            Encoder::Number | Encoder::JsonNumber => number(text, out),
            Encoder::Instant(fraction) => time::instant(text, fraction, out),
            Encoder::Naive(fraction) => time::naive(text, zone, fraction, out),
            Encoder::Date => time::date(text, out),
            Encoder::FreeTime => time::free_text(text, zone, out),
            Encoder::Json | Encoder::JsonObject => json::checked(text).map(|value| out.extend_from_slice(value)),
            Encoder::JsonText => match json::checked(text)? {
                scalar @ [b'"', ..] => {
                    out.extend_from_slice(scalar);
                    Ok(())
                }
                other => json::string(other, out),
            },
        }
    }
}

/// A `char(n)` less the blanks behind it, which PostgreSQL itself takes for no part of the value.
pub(crate) fn unpadded(text: &[u8]) -> &[u8] {
    let blanks = text.iter().rev().take_while(|byte| **byte == b' ').count();
    &text[..text.len() - blanks]
}

/// The stream brings `t`; a cast to text in a SELECT would bring `true`.
pub(crate) fn boolean(text: &[u8]) -> Result<&'static str, Reason> {
    match text {
        b"t" | b"true" => Ok("true"),
        b"f" | b"false" => Ok("false"),
        [..] => Err(Reason::NotABoolean),
    }
}

/// Appends a number with its digits unchanged. What people write and JSON does not (`+1`, `007`, `.5`, `5.`, white
/// space around it) is brought into JSON's form, which changes no digit that counts.
pub(crate) fn number(text: &[u8], out: &mut Vec<u8>) -> Result<(), Reason> {
    let text = text.trim_ascii();
    let Some(parts) = Decimal::split(text) else {
        return Err(not_a_number(text));
    };
    if !parts.surely_fits_a_double() && !parts.fits_a_double(text) {
        return Err(Reason::OutsideDouble);
    }
    if parts.is_json() {
        out.extend_from_slice(text);
        return Ok(());
    }
    if parts.negative {
        out.push(b'-');
    }
    let zeros = parts.whole.iter().take_while(|digit| **digit == b'0').count();
    match &parts.whole[zeros..] {
        [] => out.push(b'0'),
        digits => out.extend_from_slice(digits),
    }
    if let Some(digits @ [_, ..]) = parts.fraction {
        out.push(b'.');
        out.extend_from_slice(digits);
    }
    if !parts.exponent.is_empty() {
        out.push(b'e');
        out.extend_from_slice(parts.exponent);
    }
    Ok(())
}

fn not_a_number(text: &[u8]) -> Reason {
    let unsigned = text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text);
    match unsigned {
        [] if text.is_empty() => Reason::Empty,
        word if [&b"nan"[..], b"inf", b"infinity"].iter().any(|name| word.eq_ignore_ascii_case(name)) => {
            Reason::NotFinite
        }
        [..] if std::str::from_utf8(text).is_err() => Reason::NotUtf8,
        [..] => Reason::NotANumber,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    fn written(encoder: Encoder, text: &[u8]) -> Result<String, Reason> {
        let mut out = Vec::new();
        encoder.write(text, None, &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn numbers_keep_their_digits() {
        let long = "1".repeat(308);
        for text in [
            "0",
            "-0",
            "9223372036854775807",
            "-9223372036854775808",
            "123456789012345678901234567890",
            "0.10",
            "1.000",
            "-0.000000000000000000000000000001",
            "1e+20",
            "1e-07",
            "1.7976931348623157e+308",
            "5e-324",
            &long,
        ] {
            assert_eq!(written(Encoder::Number, text.as_bytes()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn loose_numbers_are_brought_into_jsons_form() {
        for (from, to) in [
            (" 12\t", "12"),
            ("+5", "5"),
            ("007", "7"),
            ("-007.50", "-7.50"),
            ("000", "0"),
            (".5", "0.5"),
            ("-.5", "-0.5"),
            ("5.", "5"),
            ("5.e3", "5e3"),
            ("+.5E-2", "0.5e-2"),
            ("00.00", "0.00"),
        ] {
            assert_eq!(written(Encoder::Number, from.as_bytes()).as_deref(), Ok(to), "{from}");
        }
    }

    #[test]
    fn what_is_no_finite_number_is_refused() {
        for text in ["NaN", "Infinity", "-Infinity", "nan", "+inf"] {
            assert_eq!(written(Encoder::Number, text.as_bytes()), Err(Reason::NotFinite), "{text}");
        }
        for text in
            [".", "-", "+", "e5", "1e", "1e+", "1,5", "1_000", "0x10", "1 2", "--1", "twelve", "\"5\"", "true", "1.2.3"]
        {
            assert_eq!(written(Encoder::Number, text.as_bytes()), Err(Reason::NotANumber), "{text}");
        }
        for text in ["1e309", "-1e400", "1e0999", &"9".repeat(309), &("1".repeat(200) + "e200")] {
            assert_eq!(written(Encoder::Number, text.as_bytes()), Err(Reason::OutsideDouble), "{text}");
        }
        assert_eq!(written(Encoder::Number, b"  "), Err(Reason::Empty));
        assert_eq!(written(Encoder::Number, b"1\xFF"), Err(Reason::NotUtf8));
    }

    #[test]
    fn booleans_are_words() {
        assert_eq!(written(Encoder::Bool, b"t").as_deref(), Ok("true"));
        assert_eq!(written(Encoder::Bool, b"f").as_deref(), Ok("false"));
        assert_eq!(written(Encoder::BoolText, b"t").as_deref(), Ok("\"true\""));
        assert_eq!(written(Encoder::Bool, b"yes"), Err(Reason::NotABoolean));
    }

    #[test]
    fn json_is_verbatim_where_it_fits() {
        let twice = "{\"a\": 1,\n \"a\": 2}";
        assert_eq!(written(Encoder::Json, twice.as_bytes()).as_deref(), Ok(twice));
        assert_eq!(written(Encoder::JsonObject, twice.as_bytes()).as_deref(), Ok(twice));
        for (text, is_nothing) in
            [("[1]", true), ("[]", true), ("3", true), ("\"x\"", true), ("null", true), (" {\"a\":1}", false)]
        {
            assert_eq!(Encoder::JsonObject.reads_as_null(text.as_bytes()), is_nothing, "{text}");
        }
        assert_eq!(written(Encoder::JsonText, br#" "a\u0000\"b" "#).as_deref(), Ok(r#""a\u0000\"b""#));
        assert_eq!(written(Encoder::JsonText, br#"{"a":1}"#).as_deref(), Ok(r#""{\"a\":1}""#));
        assert_eq!(written(Encoder::JsonText, b"12").as_deref(), Ok("\"12\""));
        assert_eq!(written(Encoder::JsonNumber, b"12.50").as_deref(), Ok("12.50"));
        assert_eq!(written(Encoder::JsonNumber, b"\"12\""), Err(Reason::NotANumber));
        assert_eq!(written(Encoder::Json, b"{"), Err(Reason::NotJson));
    }

    const ENCODERS: [Encoder; 14] = [
        Encoder::Text,
        Encoder::Bool,
        Encoder::BoolText,
        Encoder::Number,
        Encoder::JsonNumber,
        Encoder::Instant(Fraction::AsPrinted),
        Encoder::Instant(Fraction::Millis),
        Encoder::Naive(Fraction::AsPrinted),
        Encoder::Naive(Fraction::Millis),
        Encoder::Date,
        Encoder::FreeTime,
        Encoder::Json,
        Encoder::JsonText,
        Encoder::JsonObject,
    ];

    proptest! {
        #[test]
        fn all_that_is_written_is_json(
            encoder in prop::sample::select(&ENCODERS[..]),
            text in prop_oneof![
                any::<Vec<u8>>(),
                "[-+.eE0-9 ]{0,12}".prop_map(String::into_bytes),
                "[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{0,9})?)?(Z|[+]0[0-9])?)?".prop_map(String::into_bytes),
                r#"[{}\[\]":,a0-9 \\]{0,12}"#.prop_map(String::into_bytes),
            ],
        ) {
            let mut out = Vec::new();
            if encoder.write(&text, None, &mut out).is_ok() {
                let json = std::str::from_utf8(&out).unwrap();
                prop_assert!(serde_json::from_str::<IgnoredAny>(json).is_ok(), "{:?} wrote {json}", encoder);
            }
        }

        #[test]
        fn a_loose_number_keeps_its_value(text in "[+-]?(0{0,3}[0-9]{1,9}[.]?[0-9]{0,9}|[.][0-9]{1,9})([eE][+-]?[0-9]{1,2})?") {
            let json = written(Encoder::Number, text.as_bytes()).unwrap();
            prop_assert_eq!(json.parse::<f64>().unwrap().to_bits(), text.parse::<f64>().unwrap().to_bits());
        }

        #[test]
        fn floats_and_integers_pass_unchanged(float in any::<f64>().prop_filter("finite", |f| f.is_finite()), int in any::<i64>()) {
            for text in [format!("{float:e}"), int.to_string()] {
                let json = written(Encoder::Number, text.as_bytes());
                prop_assert_eq!(json.as_deref(), Ok(text.as_str()));
            }
        }
    }
}
