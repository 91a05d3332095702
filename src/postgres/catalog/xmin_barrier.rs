//! The xmin barrier: behind it, every transaction that was running before it has ended and is visible to every snapshot.
//!
//! A commit can be in the WAL, before the slot's start, while no snapshot sees it yet; with a synchronous standby that
//! window is seconds long (tried on 15.18: the stream had the row, `pg_current_snapshot()` read `979:979:`). "Make the
//! slot, then select" loses it. Waiting until the snapshot's xmin is past an xid of one's own, taken after the slot was
//! made, is enough.

use std::time::Duration;

use tokio_postgres::{Client, Error};

use crate::model::Lsn;

/// A session that something waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blocker {
    /// `pid 123`, or `prepared transaction "x"`.
    pub who: String,
    /// Age of its transaction, as PostgreSQL shows intervals.
    pub age: String,
    /// Role and client, then the state and query, as far as rights show them.
    pub what: String,
}

impl std::fmt::Display for Blocker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (open for {}): {}", self.who, self.age, self.what)
    }
}

const BLOCKERS: &str = "SELECT 'pid ' || pid, COALESCE(date_trunc('seconds', now() - xact_start)::text, '?'),
    COALESCE(state, '?') || ': ' || CASE WHEN datname = current_database() THEN
        COALESCE(usename::text, '?') || ': ' || COALESCE(left(query, 200), '?') ELSE 'in another database' END
 FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
 UNION ALL
 SELECT 'prepared transaction ' || quote_ident(gid), date_trunc('seconds', now() - prepared)::text, owner::text
 FROM pg_catalog.pg_prepared_xacts WHERE database = current_database()
 ORDER BY 2 DESC LIMIT 5";

/// The open write transactions, oldest first, at most five.
pub(crate) async fn blockers(client: &Client) -> Result<Vec<Blocker>, Error> {
    let rows = client.query(BLOCKERS, &[]).await?;
    // Names and queries of other databases come in those databases' encodings, which may be no UTF-8.
    let text = |row: &tokio_postgres::Row, index| row.try_get(index).unwrap_or_else(|_| "?".to_owned());
    Ok(rows.iter().map(|row| Blocker { who: text(row, 0), age: text(row, 1), what: text(row, 2) }).collect())
}

/// The oldest transaction that a snapshot taken now does not see as ended (64 bits).
pub(crate) async fn xmin(client: &Client) -> Result<u64, Error> {
    let sql = "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text";
    Ok(client.query_one(sql, &[]).await?.get::<_, String>(0).parse().unwrap_or_default())
}

/// The end of the WAL as written so far.
pub(crate) async fn insert_lsn(client: &Client) -> Result<Lsn, Error> {
    let row = client.query_one("SELECT pg_catalog.pg_current_wal_insert_lsn()::text", &[]).await?;
    Ok(row.get::<_, String>(0).parse().unwrap_or_default())
}

/// Waits until every transaction that runs now has ended and is visible. `waiting` is told by whom it is held up, every
/// few seconds.
pub(crate) async fn pass(client: &Client, waiting: impl Fn(&[Blocker])) -> Result<(), Error> {
    let row = client.query_one("SELECT pg_catalog.pg_current_xact_id()::text::bigint", &[]).await?;
    let own: i64 = row.get(0);
    let mut pause = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    let mut told = Duration::ZERO;
    loop {
        let sql = "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::bigint";
        let xmin: i64 = client.query_one(sql, &[]).await?.get(0);
        if xmin > own {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        waited += pause;
        pause = (pause * 2).min(Duration::from_millis(500));
        if waited - told >= Duration::from_secs(5) {
            told = waited;
            waiting(&blockers(client).await?);
        }
    }
}
