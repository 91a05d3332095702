//! The newest that the stream has brought of the source's log, so that another log at the same places is told from it. Pure.
//!
//! * In: nothing.
//! * Out: [`CommitMark`], [`NewestRead`].
//! * Never: a clock: the time is the server's, as its log has it.

use crate::model::Lsn;

/// What a transaction's commit has that another one at the same place in another log does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CommitMark {
    pub xid: u32,
    /// When it committed: microseconds since 2000.
    pub micros: i64,
}

/// The newest transaction that brought a row to any section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NewestRead {
    /// Its `final_lsn`.
    pub at: Lsn,
    /// `None` where no transaction has brought a row since the instance began at this place.
    pub commit: Option<CommitMark>,
}
