//! The unique indexes of tables: what can be a section's key.
//!
//! * In: a session; table OIDs.
//! * Out: [`UniqueIndex`]es, the best first: the primary key, then those of fewer columns.
//! * Never: an index that holds not all rows (partial), not at once (deferrable), or expressions instead of columns.

use tokio_postgres::{Client, Error};

/// A unique index over columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UniqueIndex {
    /// Its table.
    pub table: u32,
    /// Its columns, in its order.
    pub columns: Vec<String>,
    /// It was built to the end.
    pub valid: bool,
    /// None of its columns may be NULL.
    pub not_null: bool,
}

impl UniqueIndex {
    /// Whether it keeps two rows from having the same values in these columns.
    pub(crate) fn tells_apart(&self, key: &[String]) -> bool {
        self.columns.iter().all(|column| key.contains(column))
    }
}

/// The unique indexes of these tables.
pub(crate) async fn of_tables(client: &Client, tables: &[u32]) -> Result<Vec<UniqueIndex>, Error> {
    let sql = "SELECT i.indrelid, array_agg(a.attname::text ORDER BY k.place), i.indisvalid, bool_and(a.attnotnull)
        FROM pg_catalog.pg_index i
            CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
            JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
        WHERE i.indrelid = ANY($1) AND i.indisunique AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
            AND k.place <= i.indnkeyatts
        GROUP BY i.indexrelid, i.indrelid, i.indisvalid, i.indisprimary, i.indnkeyatts
        ORDER BY i.indrelid, i.indisprimary DESC, i.indnkeyatts, 2, i.indexrelid";
    let rows = client.query(sql, &[&tables]).await?;
    let of = |row: &tokio_postgres::Row| UniqueIndex {
        table: row.get(0),
        columns: row.get(1),
        valid: row.get(2),
        not_null: row.get(3),
    };
    Ok(rows.iter().map(of).collect())
}
