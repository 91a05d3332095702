//! Who holds a lock that a statement could not have in time.
//!
//! * In: a table's OID, or the key of an advisory lock; for a system catalog nothing.
//! * Out: the holders, as [`Blocker`]s, as far as rights show them.
//! * Never: a wait; a holder ended.

use tokio_postgres::{Client, Error};

use crate::postgres::catalog::xmin_barrier::Blocker;
use crate::sql;

/// How long a command waits for a table's lock before it names the holder, as SQL.
pub(crate) const LOCK_TIMEOUT: &str = "SET lock_timeout = '5s'";

/// What a backend does, in the columns of a [`Blocker`].
const HOLDER: &str = "'pid ' || l.pid, date_trunc('seconds', now() - a.xact_start)::text,
    CASE WHEN a.state IS NOT NULL THEN a.state || ': ' || COALESCE(a.usename::text, '?') || ' ('
        || COALESCE(a.application_name, '') || '): ' || left(a.query, 200) END
 FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid";

/// Those that keep a table, or one of its partitions, from being read.
pub(crate) async fn holders(client: &Client, table: u32) -> Result<Vec<Blocker>, Error> {
    let sql = format!(
        "SELECT {HOLDER} WHERE l.granted AND l.mode = 'AccessExclusiveLock' AND l.pid IS NOT NULL AND l.pid <> pg_backend_pid()
            AND l.relation IN (SELECT $1::oid UNION SELECT t.relid FROM pg_catalog.pg_partition_tree($1::oid) t)
            AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
         UNION ALL
         SELECT 'prepared transaction ' || quote_ident(p.gid), date_trunc('seconds', now() - p.prepared)::text, p.owner::text
         FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_prepared_xacts p ON l.virtualtransaction = '-1/' || p.transaction::text
         WHERE l.granted AND l.mode = 'AccessExclusiveLock' AND l.relation = $1::oid AND p.database = current_database()
         ORDER BY 2 DESC LIMIT 5"
    );
    read(client, &sql, &table).await
}

/// Those that keep a system catalog from being read: then no session can be opened, and nothing be decoded.
pub(crate) async fn catalog_holders(client: &Client) -> Result<Vec<Blocker>, Error> {
    // Objects of the server's own have OIDs below this (FirstNormalObjectId); shared ones are of no database.
    let sql = format!(
        "SELECT {HOLDER} WHERE l.granted AND l.mode = 'AccessExclusiveLock' AND l.pid IS NOT NULL AND l.pid <> pg_backend_pid()
            AND l.relation < 16384 AND l.relation <> $1::oid
            AND (l.database = 0 OR l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database()))
         UNION ALL
         SELECT 'prepared transaction ' || quote_ident(p.gid), date_trunc('seconds', now() - p.prepared)::text, p.owner::text
         FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_prepared_xacts p ON l.virtualtransaction = '-1/' || p.transaction::text
         WHERE l.granted AND l.mode = 'AccessExclusiveLock' AND l.relation < 16384
         ORDER BY 2 DESC LIMIT 5"
    );
    read(client, &sql, &0_u32).await
}

/// Takes an advisory lock by its name, or says who holds it.
pub(crate) async fn try_advisory(client: &Client, name: &str) -> Result<Option<Vec<Blocker>>, Error> {
    let taken = sql::query_one(client, "SELECT pg_catalog.pg_try_advisory_lock(hashtext($1))", &[&name]).await?;
    if taken.get(0) {
        return Ok(None);
    }
    let sql = format!(
        "SELECT {HOLDER} WHERE l.granted AND l.locktype = 'advisory' AND l.objsubid = 1 AND l.pid <> pg_backend_pid()
            AND ((l.classid::bigint << 32) | l.objid::bigint) = hashtext($1)::bigint
            AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())"
    );
    read(client, &sql, &name).await.map(Some)
}

async fn read(client: &Client, sql: &str, of: &dyn sql::SqlParam) -> Result<Vec<Blocker>, Error> {
    let rows = sql::query(client, sql, &[of]).await?;
    Ok(rows.iter().map(Blocker::of).collect())
}
