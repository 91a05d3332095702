//! Positions in the write-ahead log. Pure.
//!
//! * In: PostgreSQL's text form of an LSN.
//! * Out: [`Lsn`] and [`Position`], with total orders.
//! * Never: arithmetic that wraps.

use std::fmt;
use std::str::FromStr;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_text_round_trips() {
        for text in ["0/0", "16/B374D848", "7FFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().unwrap().to_string(), text);
        }
        assert!("16".parse::<Lsn>().is_err());
        assert!("16/XYZ".parse::<Lsn>().is_err());
    }
}
