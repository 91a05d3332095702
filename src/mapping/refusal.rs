//! Why a row is no item.

use std::fmt;
use std::sync::Arc;

/// The most bytes of a value that a refusal repeats.
const EXCERPT: usize = 64;

/// Why a row is no item: the field, the reason, and the beginning of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodeError {
    /// The field as configured: `value`, `info.plan`.
    pub field: Arc<str>,
    pub reason: Reason,
    /// The value's beginning, at most 64 bytes; `None` where there is nothing to show.
    pub excerpt: Option<Box<str>>,
}

impl EncodeError {
    pub(crate) fn new(field: &Arc<str>, reason: Reason, value: &[u8]) -> EncodeError {
        let excerpt = match reason {
            Reason::Null
            | Reason::Empty
            | Reason::NoIdentity
            | Reason::TooLarge
            | Reason::Unknown
            | Reason::KeyUnknown => None,
            Reason::NotUtf8
            | Reason::NotFinite
            | Reason::NotANumber
            | Reason::OutsideDouble
            | Reason::NotABoolean
            | Reason::NotATime
            | Reason::OutsideYears
            | Reason::NotJson => Some(shortened(value, EXCERPT, "…").into()),
        };
        EncodeError { field: field.clone(), reason, excerpt }
    }

    /// The word that a quarantined row's reason begins with.
    pub fn word(&self) -> &'static str {
        if self.reason == Reason::TooLarge { "too_large" } else { "mapping" }
    }

    /// Whether the mapping may be at fault: not where one row is too large, or went before its values could be read.
    pub(crate) fn is_of_the_mapping(&self) -> bool {
        !matches!(self.reason, Reason::TooLarge | Reason::Unknown)
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EncodeError { field, reason, excerpt } = self;
        match excerpt {
            Some(value) => write!(f, "{field}: {}: {value:?}", reason.as_str()),
            None => write!(f, "{field} {}", reason.as_str()),
        }
    }
}

impl std::error::Error for EncodeError {}

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A mandatory field is NULL.
    Null,
    /// A mandatory field is the empty string, or a number or a date is.
    Empty,
    /// `email` and `externalId` are both missing.
    NoIdentity,
    /// The value was larger than memory allows for one row.
    TooLarge,
    /// The update did not bring the value, and its row was gone when it was looked for.
    Unknown,
    /// The update did not bring the row's key, by which the row could be looked for.
    KeyUnknown,
    /// Bytes that are no UTF-8: they come from `SQL_ASCII` databases.
    NotUtf8,
    /// `NaN` or an infinity, which JSON cannot say.
    NotFinite,
    /// Text that is no number.
    NotANumber,
    /// A number that readers of JSON would take for infinite.
    OutsideDouble,
    /// Neither true nor false.
    NotABoolean,
    /// Text that is no ISO date or RFC 3339 time.
    NotATime,
    /// An infinite time, BC, or a year beyond 9999.
    OutsideYears,
    NotJson,
}

impl Reason {
    /// The reason in words, to stand behind the field's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Null => "is NULL",
            Reason::Empty => "is empty",
            Reason::NoIdentity => "are both NULL or empty",
            Reason::TooLarge => "is too large",
            Reason::Unknown => "is not known: the update did not bring it, and the row is gone",
            Reason::KeyUnknown => {
                "is the key, and the update did not bring it: it is stored out of line, and the table's replica identity \
                 does not have it"
            }
            Reason::NotUtf8 => "not valid UTF-8",
            Reason::NotFinite => "not a finite number",
            Reason::NotANumber => "not a number",
            Reason::OutsideDouble => "larger than a JSON reader's number",
            Reason::NotABoolean => "not a boolean",
            Reason::NotATime => "not an ISO date or RFC 3339 time",
            Reason::OutsideYears => "not within the years 0001 to 9999",
            Reason::NotJson => "not valid JSON",
        }
    }
}

/// `value` as text, cut after at most `limit` bytes, with `mark` behind the cut.
pub(crate) fn shortened(value: &[u8], limit: usize, mark: &str) -> String {
    if value.len() <= limit {
        return String::from_utf8_lossy(value).into_owned();
    }
    // Not within a character: its continuation bytes go with it (at most three, also in bytes that are no UTF-8).
    let cut = (limit.saturating_sub(3)..=limit).rev().find(|&end| value[end] & 0xC0 != 0x80).unwrap_or(limit);
    String::from_utf8_lossy(&value[..cut]).into_owned() + mark
}

/// Why a row is no item, as the quarantine names it: a word, and a sentence ([`std::fmt::Display`]).
pub(crate) trait Refuses: std::fmt::Display {
    /// The first word of the reason, which is counted.
    fn word(&self) -> &'static str {
        "mapping"
    }

    /// Whether the mapping may be at fault.
    fn is_of_the_mapping(&self) -> bool {
        false
    }
}

impl Refuses for EncodeError {
    fn word(&self) -> &'static str {
        EncodeError::word(self)
    }

    fn is_of_the_mapping(&self) -> bool {
        EncodeError::is_of_the_mapping(self)
    }
}

impl Refuses for &str {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_alone() {
        let field: Arc<str> = "value".into();
        assert_eq!(
            EncodeError::new(&field, Reason::NotFinite, b"NaN").to_string(),
            "value: not a finite number: \"NaN\""
        );
        assert_eq!(EncodeError::new(&field, Reason::Null, b"").to_string(), "value is NULL");
        assert_eq!(EncodeError::new(&field, Reason::TooLarge, b"").word(), "too_large");
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let refusal = EncodeError::new(&"f".into(), Reason::NotANumber, "ä".repeat(100).as_bytes());
        assert_eq!(refusal.excerpt.as_deref(), Some(&*("ä".repeat(32) + "…")));
        let refusal =
            EncodeError::new(&"f".into(), Reason::NotANumber, ("x".to_owned() + &"😀".repeat(100)).as_bytes());
        assert_eq!(refusal.excerpt.as_deref(), Some(&*("x".to_owned() + &"😀".repeat(15) + "…")));
        assert_eq!(shortened(&[0x80; 100], 8, "…").chars().count(), 9);
    }
}
