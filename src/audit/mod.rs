//! The arithmetic of proof: which keys a batch carried, kept small; and what a comparison with the source shows. Pure.
//!
//! * In: the texts of keys, from batches, from the ledger, from the source.
//! * Out: [`BatchKeys`] for the ledger, a [`Tally`] for each section, a [`Comparison`] for people.
//! * Never: a verdict without evidence: what neither a set nor a tally proves is counted as unknown.

pub(crate) mod batch_keys;
pub(crate) mod comparison;
pub(crate) mod evidence;
pub(crate) mod share;
pub(crate) mod tally;

pub(crate) use crate::audit::batch_keys::BatchKeys;
pub(crate) use crate::audit::comparison::{Compared, Comparison, Earlier};
pub(crate) use crate::audit::evidence::{DeliveredBy, Evidence, Whereabouts};
pub(crate) use crate::audit::share::Share;
pub(crate) use crate::audit::tally::{Tally, TallyEntry};

/// A key as the audit holds it: integers by value, everything else by a digest of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum AuditKey {
    /// The text is a 64-bit integer in its shortest form.
    Integer(i64),
    /// XXH3 of the text, 64 bits.
    Digest(u64),
}

impl AuditKey {
    pub(crate) fn of(text: &[u8]) -> AuditKey {
        match integer(text) {
            Some(value) => AuditKey::Integer(value),
            None => AuditKey::Digest(xxhash_rust::xxh3::xxh3_64(text)),
        }
    }
}

/// An integer as PostgreSQL prints it: no plus sign, no leading zero, so that the text and the value tell each other.
pub(crate) fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let shortest = matches!(digits, [b'0'] | [b'1'..=b'9', ..]) && text != b"-0";
    if !shortest || digits.len() > 19 {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_shortest_text_is_an_integer() {
        for (text, value) in
            [("0", 0), ("-7", -7), ("9223372036854775807", i64::MAX), ("-9223372036854775808", i64::MIN)]
        {
            assert_eq!(AuditKey::of(text.as_bytes()), AuditKey::Integer(value));
        }
        for text in ["", "-", "+1", "01", "-0", "1.0", "9223372036854775808", "a", "1 "] {
            assert!(matches!(AuditKey::of(text.as_bytes()), AuditKey::Digest(_)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_integer_is_one(value: i64) {
            prop_assert_eq!(AuditKey::of(value.to_string().as_bytes()), AuditKey::Integer(value));
        }
    }
}
