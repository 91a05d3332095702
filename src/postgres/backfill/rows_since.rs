//! Which rows came since a transaction: written by it or later, or with a partition that was attached then.
//!
//! * In: a selection, and the transaction's 64-bit xid.
//! * Out: a selection of fewer rows.
//! * Never: a new row taken for an old one.

use tokio_postgres::{Client, Error};

use crate::postgres::backfill::selection::Selection;

impl Selection {
    /// Only rows written by the transaction `floor` or a later one.
    ///
    /// A row shows the lower 32 bits of its xid, frozen or not. So it counts where it lies between the floor and the
    /// snapshot's end, less than 2^32 apart, modulo 2^32: a row that was frozen whole ages ago may be taken for a new
    /// one, a new one never for an old one. Xids below 3 are no transactions.
    pub(crate) fn since(self, floor: u64) -> Selection {
        self.only(&written_since("t.xmin", floor))
    }

    /// Only rows of partitions that the transaction `floor` or a later one made or attached, however deep below. Which of them
    /// held rows before is not asked: a partition that may have is one.
    pub(crate) fn of_partitions_attached_since(self, floor: u64) -> Selection {
        self.only(&format!(
            "t.tableoid IN (SELECT leaf.relid::oid FROM pg_catalog.pg_inherits i CROSS JOIN LATERAL \
             pg_catalog.pg_partition_tree(i.inhrelid) leaf WHERE {})",
            written_since("i.xmin", floor)
        ))
    }
}

/// Whether the table, or a partition of it, was rewritten since the transaction `floor`: each of its rows has the xid of the
/// rewriting then, and none tells what came when. A right that was granted of a table which was rewritten before counts, too.
pub(crate) async fn rewritten_since(client: &Client, table: u32, floor: u64) -> Result<bool, Error> {
    let sql = format!(
        "SELECT EXISTS (SELECT FROM (SELECT $1::oid AS oid UNION SELECT relid::oid FROM pg_catalog.pg_partition_tree($1))
         AS part JOIN pg_catalog.pg_class c ON c.oid = part.oid WHERE c.relkind = 'r' AND c.relfilenode <> c.oid AND {})",
        written_since("c.xmin", floor)
    );
    Ok(crate::sql::query_opt(client, &sql, &[&table]).await?.is_some_and(|row| row.get(0)))
}

/// SQL for: the transaction `floor`, or a later one, wrote the row that has this `xmin`.
fn written_since(xmin: &str, floor: u64) -> String {
    format!(
        "{xmin}::text::bigint >= 3 AND (({xmin}::text::bigint - {floor}) & 4294967295) <= (SELECT \
         pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint - {floor})"
    )
}
