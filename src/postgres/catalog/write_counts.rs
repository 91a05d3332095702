//! What the server's statistics say of the rows that were written to a table.
//!
//! * In: a table, and the time from which on it matters.
//! * Out: [`WriteCounts`], of its partitions, too.
//! * Never: an exact count. A crash, a reset or a failover loses it, and an idle session counts up to 10 s late.

use tokio_postgres::{Client, Error};

use crate::postgres::catalog::partition_entries;
use crate::postgres::catalog::partition_entries::PartitionEntry;
use crate::sql;

/// Rows that were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WriteCounts {
    pub updated: i64,
    pub inserted: u64,
    /// The table was rewritten: its rows may have other transactions than those that inserted them.
    pub is_rewritten: bool,
    /// The statistics were lost or reset since.
    pub is_reset: bool,
}

/// Reads them. A reset of the background writer's statistics alone is no loss, which is why the archiver's are asked, too.
pub(crate) async fn write_counts(client: &Client, oid: u32, since: Option<&str>) -> Result<WriteCounts, Error> {
    let sql = "SELECT coalesce(sum(pg_catalog.pg_stat_get_tuples_updated(c.oid)), 0)::bigint,
            coalesce(sum(pg_catalog.pg_stat_get_tuples_inserted(c.oid)), 0)::bigint,
            coalesce(bool_or(c.relkind = 'r' AND pg_catalog.pg_relation_filenode(c.oid) <> c.oid), false),
            coalesce((SELECT greatest(pg_catalog.pg_stat_get_db_stat_reset_time(d.oid),
                    least(pg_catalog.pg_stat_get_bgwriter_stat_reset_time(), a.stats_reset)) > $2::text::timestamptz
                FROM pg_catalog.pg_database d, pg_catalog.pg_stat_archiver a
                WHERE d.datname = pg_catalog.current_database()), false)
        FROM pg_catalog.pg_class c
        WHERE c.oid = $1 OR c.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree($1))";
    let row = sql::query_one(client, sql, &[&oid, &since]).await?;
    Ok(WriteCounts {
        updated: row.get(0),
        inserted: u64::try_from(row.get::<_, i64>(1)).unwrap_or_default(),
        is_rewritten: row.get(2),
        is_reset: row.get(3),
    })
}

/// Whether a partition of a table was attached by a transaction that is not below this 64-bit xid.
pub(crate) async fn attached_since(client: &Client, oid: u32, floor: u64) -> Result<bool, Error> {
    let floor = u32::try_from(floor & u64::from(u32::MAX)).unwrap_or_default();
    let is_since = |entry: &PartitionEntry| {
        entry.attached && entry.joined_by >= 3 && entry.joined_by.wrapping_sub(floor).cast_signed() >= 0
    };
    Ok(partition_entries::entries(client, &[oid]).await?.iter().any(is_since))
}
