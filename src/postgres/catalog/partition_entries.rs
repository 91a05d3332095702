//! How the partitions of a table became its partitions.
//!
//! * In: a session; the OIDs of tables.
//! * Out: [`PartitionEntry`]s; which of them held rows when they were attached.
//! * Never: a table that was made as a partition, and empty, taken for one that came with rows.
//!
//! A table's system columns are written into the catalog with the table and never again. (Its row type is: by RENAME, OWNER
//! TO and SET SCHEMA.) So an entry in `pg_inherits` that is younger, its own or that of a partition above it, tells of a table
//! that was attached later. Where both are of one transaction it was made as a partition, or made, perhaps filled, and
//! attached: the commands within that transaction are numbered, and its rows bear the number of theirs.

use std::fmt::Write as _;

use tokio_postgres::{Client, Error};

use crate::config::TableName;
use crate::postgres::catalog::quote;
use crate::postgres::catalog::table::Leaf;
use crate::sql;

/// A partition that holds rows, however deep it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionEntry {
    /// The table that was asked for.
    pub root: u32,
    /// Its own OID.
    pub oid: u32,
    pub name: String,
    /// The transaction that made the youngest entry between it and the root: another one after it was detached.
    pub joined_by: u32,
    /// It was a table of its own, or below one, before that entry was made: it may have come with rows.
    pub attached: bool,
    /// It was made by the transaction that made the entry, and that is so far into it. Only its rows tell whether it was filled
    /// between.
    pub command: Option<i64>,
    /// Its rows are not in the WAL: it is unlogged, or foreign.
    pub without_wal: Option<Leaf>,
}

const ENTRIES: &str = "WITH RECURSIVE up AS (
        SELECT root, t.relid::oid AS leaf, t.relid::oid AS at, NULL::bigint AS joined, NULL::bigint AS command
        FROM unnest($1::oid[]) AS root CROSS JOIN LATERAL pg_catalog.pg_partition_tree(root::pg_catalog.regclass) t
        WHERE t.isleaf AND t.level > 0
        UNION ALL
        SELECT up.root, up.leaf, i.inhparent, i.xmin::text::bigint, i.cmin::text::bigint
        FROM up JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.at WHERE up.at <> up.root),
    aged AS (
        SELECT up.*, m.xmin::text::bigint AS made, (joined - m.xmin::text::bigint + 2147483648) & 4294967295 AS age
        FROM up JOIN pg_catalog.pg_attribute m ON m.attrelid = up.leaf AND m.attname = 'tableoid'
        WHERE joined IS NOT NULL)
    SELECT a.root, a.leaf, c.relname::text, (array_agg(joined ORDER BY age DESC))[1], max(age) > 2147483648,
        max(command) FILTER (WHERE joined = made),
        CASE WHEN c.relkind = 'f' THEN 'f' WHEN c.relpersistence = 'u' THEN 'r' END, n.nspname::text
    FROM aged a JOIN pg_catalog.pg_class c ON c.oid = a.leaf JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    GROUP BY 1, 2, 3, 7, 8";

/// The partitions of these tables. Nothing comes back for a table without partitions.
pub(crate) async fn entries(client: &Client, roots: &[u32]) -> Result<Vec<PartitionEntry>, Error> {
    let rows = sql::query(client, ENTRIES, &[&roots]).await?;
    let entry = |row: &tokio_postgres::Row| PartitionEntry {
        root: row.get(0),
        oid: row.get(1),
        name: row.get(2),
        joined_by: u32::try_from(row.get::<_, i64>(3)).unwrap_or_default(),
        attached: row.get(4),
        command: row.get(5),
        without_wal: row
            .get::<_, Option<String>>(6)
            .and_then(|kind| kind.chars().next())
            .map(|kind| Leaf { name: TableName { schema: row.get(7), name: row.get(2) }, kind }),
    };
    Ok(rows.iter().map(entry).collect())
}

/// Those of the partitions of `root` that have a row of the transaction that made them, from before it attached them. What was
/// written first into a table stands in its first block.
pub(crate) async fn filled_before(
    client: &Client,
    root: &TableName,
    partitions: &[&PartitionEntry],
) -> Result<Vec<u32>, Error> {
    let mut made = String::new();
    for PartitionEntry { oid, joined_by, command, .. } in partitions {
        let comma = if made.is_empty() { "" } else { ", " };
        write!(made, "{comma}({oid}::oid, {joined_by}::bigint, {}::bigint)", command.unwrap_or_default()).ok();
    }
    let sql = format!(
        "SELECT DISTINCT t.tableoid FROM {} AS t JOIN (VALUES {made}) AS made (oid, xid, command) ON made.oid = t.tableoid
         WHERE t.ctid < '(1,0)' AND t.xmin::text::bigint = made.xid AND t.cmin::text::bigint < made.command",
        quote::qualified(root)
    );
    Ok(sql::query(client, &sql, &[]).await?.iter().map(|row| row.get(0)).collect())
}
