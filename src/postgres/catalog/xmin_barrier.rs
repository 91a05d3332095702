//! The xmin barrier: behind it, every transaction that was running before it has ended and is visible to every snapshot.
//!
//! A commit can be in the WAL, before the slot's start, while no snapshot sees it yet; with a synchronous standby that
//! window is seconds long (tried on 15.18: the stream had the row, `pg_current_snapshot()` read `979:979:`). "Make the
//! slot, then select" loses it. Waiting until the snapshot's xmin is past an xid of one's own, taken after the slot was
//! made, is enough.

use std::time::Duration;

use tokio_postgres::{Client, Error, Row};

use crate::model::Lsn;
use crate::sql;

/// A session that something waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blocker {
    /// `pid 123`, or `prepared transaction "x"`.
    pub who: String,
    /// Age of its transaction, as PostgreSQL shows intervals.
    pub age: String,
    /// Role and client, then the state and query, as far as rights show them.
    pub what: String,
    /// The server hides from this role what it does.
    pub hidden: bool,
}

impl Blocker {
    /// A session or a prepared transaction, by the first three columns of a row; of what is NULL the server shows nothing to
    /// this role.
    pub(crate) fn of(row: &Row) -> Blocker {
        Blocker::from_column(row, 0)
    }

    /// The same, by three columns from `first` on.
    pub(crate) fn from_column(row: &Row, first: usize) -> Blocker {
        // Names and queries of other databases come in those databases' encodings, which may be no UTF-8.
        let text = |index: usize| row.try_get(first + index).unwrap_or_else(|_| Some("?".to_owned()));
        let (who, age, what): (Option<String>, Option<String>, Option<String>) = (text(0), text(1), text(2));
        let or = |text: Option<String>, other: &str| text.unwrap_or_else(|| other.to_owned());
        let hidden = what.is_none();
        Blocker { who: or(who, "?"), age: or(age, "?"), what: or(what, "hidden from this role"), hidden }
    }
}

impl std::fmt::Display for Blocker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (open for {}): {}", self.who, self.age, self.what)
    }
}

const BLOCKERS: &str = "SELECT who, date_trunc('seconds', now() - since)::text, what FROM (
        SELECT 'pid ' || pid AS who, xact_start AS since, CASE
            WHEN datname IS DISTINCT FROM current_database() THEN 'in another database'
            WHEN state IS NOT NULL THEN state || ': ' || COALESCE(usename::text, '?') || ': ' || left(query, 200) END AS what
        FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
        UNION ALL
        SELECT 'prepared transaction ' || quote_ident(gid), prepared, CASE WHEN database = current_database()
            THEN owner::text ELSE 'in the database ' || quote_ident(database) END
        FROM pg_catalog.pg_prepared_xacts) AS blocker
    ORDER BY since LIMIT 5";

/// The open write transactions of all databases, oldest first, at most five.
pub(crate) async fn blockers(client: &Client) -> Result<Vec<Blocker>, Error> {
    let rows = sql::query(client, BLOCKERS, &[]).await?;
    Ok(rows.iter().map(Blocker::of).collect())
}

/// The oldest transaction that a snapshot taken now does not see as ended (64 bits).
pub(crate) async fn xmin(client: &Client) -> Result<u64, Error> {
    let sql = "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text";
    Ok(sql::query_one(client, sql, &[]).await?.get::<_, String>(0).parse().unwrap_or_default())
}

/// Whether a row's transaction lies below the floor, a 64-bit xid: the two are less than 2^31 apart. Xids below 3 are no
/// transactions of their own: a row that is frozen in that way is old.
pub(crate) fn is_below(xmin: u32, floor: Option<u64>) -> bool {
    let Some(floor) = floor else { return false };
    let floor = u32::try_from(floor & u64::from(u32::MAX)).unwrap_or_default();
    xmin < 3 || xmin.wrapping_sub(floor).cast_signed() < 0
}

/// The first transaction (64 bits) that had not begun to write.
pub(crate) async fn xmax(client: &Client) -> Result<u64, Error> {
    let sql = "SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text";
    Ok(sql::query_one(client, sql, &[]).await?.get::<_, String>(0).parse().unwrap_or_default())
}

/// The end of the WAL as written so far.
pub(crate) async fn insert_lsn(client: &Client) -> Result<Lsn, Error> {
    let row = sql::query_one(client, "SELECT pg_catalog.pg_current_wal_insert_lsn()::text", &[]).await?;
    Ok(row.get::<_, String>(0).parse().unwrap_or_default())
}

/// Waits until every transaction that runs now has ended and is visible. `waiting` is told by whom it is held up, every
/// second.
pub(crate) async fn pass(client: &Client, waiting: impl Fn(&[Blocker])) -> Result<(), Error> {
    let row = sql::query_one(client, "SELECT pg_catalog.pg_current_xact_id()::text::bigint", &[]).await?;
    let own: i64 = row.get(0);
    let mut pause = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    let mut told = Duration::ZERO;
    loop {
        let sql = "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::bigint";
        let xmin: i64 = sql::query_one(client, sql, &[]).await?.get(0);
        if xmin > own {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        waited += pause;
        pause = (pause * 2).min(Duration::from_millis(500));
        if waited - told >= Duration::from_secs(1) {
            told = waited;
            waiting(&blockers(client).await?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_are_compared_across_the_wrap() {
        assert!(is_below(100, Some(101)) && !is_below(101, Some(101)) && !is_below(100, None));
        let after_wrap = (5_u64 << 32) + 10;
        assert!(
            is_below(u32::MAX - 5, Some(after_wrap))
                && is_below(9, Some(after_wrap))
                && !is_below(10, Some(after_wrap))
        );
        assert!(is_below(2, Some(1)), "frozen");
    }
}
