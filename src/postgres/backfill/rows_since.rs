//! Which rows came since a transaction: written by it or later, or with a partition that was attached then. Pure.
//!
//! * In: a selection, and the transaction's 64-bit xid.
//! * Out: a selection of fewer rows.
//! * Never: a new row taken for an old one.

use crate::postgres::backfill::chunk_reader::Selection;

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

/// SQL for: the transaction `floor`, or a later one, wrote the row that has this `xmin`.
fn written_since(xmin: &str, floor: u64) -> String {
    format!(
        "{xmin}::text::bigint >= 3 AND (({xmin}::text::bigint - {floor}) & 4294967295) <= (SELECT \
         pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint - {floor})"
    )
}
