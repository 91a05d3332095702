//! Decimal numbers by their digits: never parsed into a float, so that no digit is lost.
//!
//! * In: a number's text, as a person or PostgreSQL writes it.
//! * Out: its parts; an exact order.
//! * Never: two numbers that are equal because a double cannot tell them apart.

use std::cmp::Ordering;

/// A decimal number's parts, as they are written.
#[derive(Clone, Debug)]
pub(crate) struct Decimal<'a> {
    pub(crate) plus: bool,
    pub(crate) negative: bool,
    /// Digits before the point; may be none.
    pub(crate) whole: &'a [u8],
    /// Digits behind the point, where there is one; may be none.
    pub(crate) fraction: Option<&'a [u8]>,
    /// Sign and digits behind the `e`; empty where there is none.
    pub(crate) exponent: &'a [u8],
}

impl<'a> Decimal<'a> {
    /// The parts of a number as people write it; `None` where the text is none.
    pub(crate) fn split(text: &'a [u8]) -> Option<Decimal<'a>> {
        let (plus, negative, rest) = match text {
            [b'+', rest @ ..] => (true, false, rest),
            [b'-', rest @ ..] => (false, true, rest),
            rest => (false, false, rest),
        };
        let (whole, rest) = digits(rest);
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => {
                let (fraction, rest) = digits(rest);
                (Some(fraction), rest)
            }
            rest => (None, rest),
        };
        let exponent = match rest {
            [] => rest,
            [b'e' | b'E', exponent @ ..] => {
                let unsigned = exponent.strip_prefix(b"-").or(exponent.strip_prefix(b"+")).unwrap_or(exponent);
                (!unsigned.is_empty() && unsigned.iter().all(u8::is_ascii_digit)).then_some(exponent)?
            }
            [..] => return None,
        };
        let some_digit = !whole.is_empty() || fraction.is_some_and(|fraction| !fraction.is_empty());
        some_digit.then_some(Decimal { plus, negative, whole, fraction, exponent })
    }

    /// Whether JSON takes it as it stands.
    pub(crate) fn is_json(&self) -> bool {
        let whole = matches!(self.whole, [b'0'] | [b'1'..=b'9', ..]);
        whole && !self.plus && self.fraction.is_none_or(|fraction| !fraction.is_empty())
    }

    /// Below 10^(200 + 99) nothing need be parsed.
    pub(crate) fn surely_fits_a_double(&self) -> bool {
        self.whole.len() <= 200
            && self.exponent.len() <= 3
            && (self.exponent.len() < 3 || !self.exponent[0].is_ascii_digit())
    }

    /// JSON's readers hold numbers as doubles; what is beyond becomes infinite there, or fails the whole request.
    pub(crate) fn fits_a_double(&self, text: &[u8]) -> bool {
        let text = std::str::from_utf8(text).ok();
        text.and_then(|text| text.parse::<f64>().ok()).is_some_and(f64::is_finite)
    }
}

fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

/// A number of PostgreSQL, for comparisons. The order is the server's: -Infinity, finite numbers, Infinity, NaN.
#[derive(Clone, Debug)]
pub(crate) enum ExactNumber<'a> {
    /// A finite number.
    Finite(Decimal<'a>),
    /// Both infinities, and `NaN`: in the order of these values, with finite numbers at 0.
    Special(i8),
}

impl<'a> ExactNumber<'a> {
    /// Reads a number; `None` where the text is none.
    pub(crate) fn parse(text: &'a [u8]) -> Option<ExactNumber<'a>> {
        match text {
            b"NaN" => Some(ExactNumber::Special(2)),
            b"Infinity" => Some(ExactNumber::Special(1)),
            b"-Infinity" => Some(ExactNumber::Special(-1)),
            digits => Decimal::split(digits).map(ExactNumber::Finite),
        }
    }

    /// Compares by value: 0.10 equals 0.1, and 1e2 equals 100.
    pub(crate) fn compare(&self, other: &ExactNumber<'_>) -> Ordering {
        match (self, other) {
            (ExactNumber::Finite(a), ExactNumber::Finite(b)) => a.compare(b),
            (ExactNumber::Finite(_), ExactNumber::Special(b)) => 0.cmp(b),
            (ExactNumber::Special(a), ExactNumber::Finite(_)) => a.cmp(&0),
            (ExactNumber::Special(a), ExactNumber::Special(b)) => a.cmp(b),
        }
    }
}

impl Decimal<'_> {
    /// The digits that count, from the first that is not 0 on; and the power of ten that this first one stands for.
    fn significant(&self) -> (impl Iterator<Item = u8>, i64) {
        let fraction = self.fraction.unwrap_or_default();
        let zeros = self.whole.iter().chain(fraction).take_while(|digit| **digit == b'0').count();
        let exponent = std::str::from_utf8(self.exponent).ok().and_then(|text| text.parse::<i64>().ok());
        let exponent = exponent.unwrap_or(if self.exponent.first() == Some(&b'-') { i64::MIN } else { i64::MAX });
        let exponent = if self.exponent.is_empty() { 0 } else { exponent };
        let place = i64::try_from(self.whole.len()).unwrap_or(i64::MAX) - i64::try_from(zeros).unwrap_or(i64::MAX);
        (self.whole.iter().chain(fraction).skip(zeros).copied(), place.saturating_add(exponent))
    }

    fn is_zero(&self) -> bool {
        self.whole.iter().chain(self.fraction.unwrap_or_default()).all(|digit| *digit == b'0')
    }

    fn compare(&self, other: &Decimal<'_>) -> Ordering {
        let sign = |number: &Decimal<'_>| match (number.is_zero(), number.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        let (a, b) = (sign(self), sign(other));
        if a != b || a == 0 {
            return a.cmp(&b);
        }
        let ((mut digits, place), (mut others, other_place)) = (self.significant(), other.significant());
        let magnitude = place.cmp(&other_place).then_with(|| {
            loop {
                match (digits.next(), others.next()) {
                    (None, None) => return Ordering::Equal,
                    (one, two) => {
                        let order = one.unwrap_or(b'0').cmp(&two.unwrap_or(b'0'));
                        if order.is_ne() {
                            return order;
                        }
                    }
                }
            }
        });
        if a < 0 { magnitude.reverse() } else { magnitude }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn order(a: &str, b: &str) -> Ordering {
        ExactNumber::parse(a.as_bytes()).unwrap().compare(&ExactNumber::parse(b.as_bytes()).unwrap())
    }

    #[test]
    fn numbers_are_compared_by_their_digits() {
        for (a, b) in [
            ("0.10", "0.1"),
            ("1e2", "100"),
            ("1e-07", "0.0000001"),
            ("-0", "0"),
            ("+007.50", "7.5"),
            ("0e999999999999999999999", "0"),
            ("NaN", "NaN"),
            (".5", "5e-1"),
        ] {
            assert_eq!(order(a, b), Ordering::Equal, "{a} {b}");
        }
        let ascending = [
            "-Infinity",
            "-1e400",
            "-10",
            "-9.99",
            "-0.1",
            "0",
            "1e-400",
            "0.1",
            "0.11",
            "9",
            "10",
            "9007199254740992",
            "9007199254740993",
            "9007199254740993.0000000000000000000000000001",
            "1e400",
            "1e99999999999999999999",
            "Infinity",
            "NaN",
        ];
        for pair in ascending.windows(2) {
            assert_eq!(order(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(order(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        for text in ["", "-", "x", "1x", "infinity", "e5"] {
            assert!(ExactNumber::parse(text.as_bytes()).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn integers_compare_as_integers(a: i64, b: i64, shift in 0_usize..4) {
            let scaled = |n: i64| format!("{n}e-{shift}");
            prop_assert_eq!(order(&scaled(a), &scaled(b)), a.cmp(&b));
            prop_assert_eq!(order(&a.to_string(), &b.to_string()), a.cmp(&b));
        }
    }
}
