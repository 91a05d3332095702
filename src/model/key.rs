//! A section's key: its types, its order, and what cannot be one. Pure.
//!
//! * In: the text of a key column.
//! * Out: [`Key`], ordered as the server orders it.
//! * Never: a key that cannot be compared (NaN, infinities, more than 32 characters).

use std::cmp::Ordering;
use std::fmt;

/// The types that a section's key may have.
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
pub(crate) const KEY_MAX_CHARS: usize = 32;

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

pub(crate) fn is_finite_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.bytes().any(|b| b.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && digits.bytes().filter(|b| *b == b'.').count() <= 1
}

/// A decimal's sign, integer digits without leading zeros, and fraction without trailing zeros.
pub(crate) fn decimal_parts(text: &str) -> (bool, &str, &str) {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    (negative && !(whole.is_empty() && fraction.is_empty()), whole, fraction)
}

pub(crate) fn cmp_decimal(a: &str, b: &str) -> Ordering {
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
pub(crate) fn within_year(text: &str) -> &str {
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
