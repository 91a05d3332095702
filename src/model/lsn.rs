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

/// Where a streamed row stands: its transaction's commit LSN, the LSN of its own WAL record, then its number among the
/// rows of that record (from 0: a COPY writes several rows into one record).
///
/// Each part is a fact of the row's own WAL record and of its commit. An ordinal over the whole transaction is not:
/// it depends on which other tables the walsender publishes, and two walsenders may decode one transaction differently
/// where `ALTER PUBLICATION` ran beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// `final_lsn` of the BEGIN message: the LSN of the commit record.
    pub final_lsn: Lsn,
    /// LSN of the row's own WAL record, from the header of its XLogData message.
    pub change_lsn: Lsn,
    /// Number of the row within that record, from 0.
    pub ordinal: u32,
}

impl Position {
    /// The position before every row of the transaction that commits at `final_lsn`.
    pub fn before_transaction(final_lsn: Lsn) -> Position {
        Position::last_of(Lsn(final_lsn.0.saturating_sub(1)))
    }

    /// The position behind every row of the transaction that commits at `final_lsn`.
    pub fn last_of(final_lsn: Lsn) -> Position {
        Position { final_lsn, change_lsn: Lsn(u64::MAX), ordinal: u32::MAX }
    }

    /// The greatest position below this one.
    pub fn before(self) -> Position {
        match (self.ordinal.checked_sub(1), self.change_lsn.0.checked_sub(1)) {
            (Some(ordinal), _) => Position { ordinal, ..self },
            (None, Some(change)) => Position { change_lsn: Lsn(change), ordinal: u32::MAX, ..self },
            (None, None) => Position::before_transaction(self.final_lsn),
        }
    }

    /// The position of the next row of the same transaction, whose record is at `change_lsn`. It is always greater than
    /// this one, whatever the server says of the record: a row that is new never looks like one that came before.
    pub fn next(self, change_lsn: Lsn) -> Position {
        if change_lsn > self.change_lsn {
            Position { change_lsn, ordinal: 0, ..self }
        } else {
            Position { ordinal: self.ordinal.saturating_add(1), ..self }
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}#{}", self.final_lsn, self.change_lsn, self.ordinal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_59_a_position_depends_on_the_rows_own_record_alone() {
        let begin = Position { final_lsn: Lsn(900), change_lsn: Lsn(0), ordinal: 0 };
        let place = |records: &[u64]| {
            let mut at = begin;
            records
                .iter()
                .map(|lsn| {
                    at = at.next(Lsn(*lsn));
                    at
                })
                .collect::<Vec<_>>()
        };
        let (whole, without) = (place(&[100, 100, 200, 300]), place(&[200, 300]));
        assert_eq!(whole[2..], without, "rows left out before a row do not move it");
        assert!(whole.is_sorted_by(|one, other| one < other));
        assert!(begin < whole[0] && Position::before_transaction(Lsn(900)) < whole[0]);
        assert!(whole[3] < Position::last_of(Lsn(900)));
    }

    #[test]
    fn the_position_before_another_is_below_it() {
        for (change, ordinal) in [(0, 0), (0, 3), (7, 0), (7, 3)] {
            let at = Position { final_lsn: Lsn(900), change_lsn: Lsn(change), ordinal };
            assert!(at.before() < at);
        }
    }

    #[test]
    fn lsn_text_round_trips() {
        for text in ["0/0", "16/B374D848", "7FFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().unwrap().to_string(), text);
        }
        assert!("16".parse::<Lsn>().is_err());
        assert!("16/XYZ".parse::<Lsn>().is_err());
    }
}
