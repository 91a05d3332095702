//! Who has written to a table and is not done: the transactions of which no walsender is sure to send every row, where the
//! table joined a publication beside them.
//!
//! * In: a session and a table's OID.
//! * Out: [`Writer`]s: open transactions, prepared ones too, that hold the lock of a writer and have an xid.
//! * Never: one that has only read; one that began to write after it was asked.
//!
//! Whoever inserts holds ROW EXCLUSIVE on the table (and on the partition) until the transaction has ended and every
//! snapshot sees its rows. A transaction that writes its first row after the publication carries the table is published
//! whole, however old it is: the walsender decodes each row by the catalog as it was at that row.

use tokio_postgres::{Client, Error};

use crate::postgres::catalog::xmin_barrier::Blocker;
use crate::sql;

/// An open transaction that has written to the table, or is about to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Writer {
    /// Its virtual transaction: no two at once have the same one, and none comes back.
    pub transaction: String,
    /// Its oldest 64-bit xid, subtransactions included.
    pub xid: u64,
    /// Who it is, for people.
    pub blocker: Blocker,
}

/// `pg_locks` shows 32 bits of an xid; the other half is that of the newest one, which may have been given out since.
const WRITERS: &str = "WITH newest AS (
        SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint + 1048576 AS xid),
    locks AS MATERIALIZED (SELECT * FROM pg_catalog.pg_locks WHERE granted),
    writers AS (
        SELECT DISTINCT l.virtualtransaction AS transaction, l.pid FROM locks l
        WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
            AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
            AND (l.relation = $1 OR l.relation IN (
                SELECT t.relid::oid FROM pg_catalog.pg_partition_tree($1::oid::pg_catalog.regclass) t))),
    xids AS (
        SELECT x.virtualtransaction AS transaction, x.transactionid AS xid,
            newest.xid - ((newest.xid - x.transactionid::text::bigint) & 4294967295) AS long_xid
        FROM locks x, newest WHERE x.locktype = 'transactionid' AND x.mode = 'ExclusiveLock')
    SELECT w.transaction, (SELECT min(x.long_xid) FROM xids x WHERE x.transaction = w.transaction),
        COALESCE('pid ' || w.pid, 'prepared transaction ' || quote_ident(p.gid), 'a prepared transaction'),
        date_trunc('seconds', now() - COALESCE(a.xact_start, p.prepared))::text,
        CASE WHEN p.gid IS NOT NULL THEN p.owner::text
            WHEN a.state IS NOT NULL THEN a.state || ': ' || COALESCE(a.usename::text, '?') || ': ' || left(a.query, 200) END
    FROM writers w
    LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = w.pid
    LEFT JOIN pg_catalog.pg_prepared_xacts p ON w.pid IS NULL
        AND p.transaction IN (SELECT x.xid FROM xids x WHERE x.transaction = w.transaction)
    WHERE EXISTS (SELECT FROM xids x WHERE x.transaction = w.transaction)
    ORDER BY 2";

/// The open transactions that have written to the table or to a partition of it, the oldest first.
pub(crate) async fn writers(client: &Client, table: u32) -> Result<Vec<Writer>, Error> {
    let rows = sql::query(client, WRITERS, &[&table]).await?;
    let writer = |row: &tokio_postgres::Row| Writer {
        transaction: row.get(0),
        xid: u64::try_from(row.get::<_, i64>(1)).unwrap_or_default(),
        blocker: Blocker::from_column(row, 2),
    };
    Ok(rows.iter().map(writer).collect())
}
