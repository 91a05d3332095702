//! How far a server has come that a result is read from: those that answer at one address may be behind each other.
//!
//! * In: a session.
//! * Out: a [`ResultPosition`], as text for the state, and whether one is behind another.
//! * Never: positions of two histories compared.

use std::fmt;

use tokio_postgres::Error;

use crate::model::Lsn;
use crate::postgres::connection::session::Session;
use crate::sql;

/// Where the log of a server is, or how far a standby has replayed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResultPosition {
    /// System identifier and timeline.
    history: String,
    pub(crate) lsn: Lsn,
}

impl ResultPosition {
    /// Where it is now; `None` where the server does not tell (a service's own kind of replica).
    pub(crate) async fn now(session: &Session) -> Result<Option<ResultPosition>, Error> {
        let sql =
            "SELECT s.system_identifier::text || '/' || c.timeline_id::text, CASE WHEN pg_catalog.pg_is_in_recovery()
            THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END::text
            FROM pg_catalog.pg_control_system() s, pg_catalog.pg_control_checkpoint() c";
        let row = match sql::query_one(session, sql, &[]).await {
            Ok(row) => row,
            Err(error) if error.as_db_error().is_some() => return Ok(None),
            Err(error) => return Err(error),
        };
        let (history, lsn): (Option<String>, Option<String>) = (row.get(0), row.get(1));
        let lsn = lsn.and_then(|lsn| lsn.parse().ok());
        Ok(history.zip(lsn).map(|(history, lsn)| ResultPosition { history, lsn }))
    }

    /// Reads what [`fmt::Display`] writes.
    pub(crate) fn parse(text: &str) -> Option<ResultPosition> {
        let (history, lsn) = text.split_once(' ')?;
        Some(ResultPosition { history: history.to_owned(), lsn: lsn.parse().ok()? })
    }

    /// Whether it has seen less of the same history.
    pub(crate) fn is_behind(&self, other: &ResultPosition) -> bool {
        self.history == other.history && self.lsn < other.lsn
    }
}

impl fmt::Display for ResultPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.history, self.lsn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_positions_of_one_history_are_behind_each_other() {
        let at = |text| ResultPosition::parse(text).unwrap();
        let (early, late) = (at("7/1 0/10"), at("7/1 1/0"));
        assert!(early.is_behind(&late) && !late.is_behind(&early) && !early.is_behind(&early));
        assert!(!at("7/2 0/10").is_behind(&late) && !at("8/1 0/10").is_behind(&late));
        assert_eq!(at(&late.to_string()), late);
        assert_eq!(ResultPosition::parse("7/1"), None);
    }
}
