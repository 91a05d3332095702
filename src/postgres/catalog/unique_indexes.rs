//! The unique indexes of tables: what can be a section's key.
//!
//! * In: a session; table OIDs.
//! * Out: [`UniqueIndex`]es, the best first: the primary key, then those of fewer columns.
//! * Never: an index that holds not all rows (partial), not at once (deferrable), or expressions instead of columns; one that
//!   keeps values apart which a comparison of the column takes for one.

use tokio_postgres::{Client, Error};

use crate::postgres::catalog::table::NOT_NULL;
use crate::sql;

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

/// That a column's place in an index is by the column's own equality. An index may have another: by a collation that tells `a`
/// from `A` where the column's does not, by an operator class for the bytes of a value. Rows that differ for the index alone
/// are ties to `ORDER BY` and `>`: where a chunk ends between them, the next one begins behind both.
const OWN_EQUALITY: &str = "(i.indcollation[k.place - 1] = a.attcollation OR NOT EXISTS (
        SELECT FROM pg_catalog.pg_collation c WHERE c.oid = a.attcollation AND NOT c.collisdeterministic))
    AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_opclass used
            JOIN pg_catalog.pg_amop same ON same.amopfamily = used.opcfamily AND same.amoplefttype = used.opcintype
                AND same.amoprighttype = used.opcintype AND same.amopstrategy = 3
            JOIN pg_catalog.pg_type ty ON ty.oid = a.atttypid
            JOIN pg_catalog.pg_opclass own ON own.opcmethod = used.opcmethod AND own.opcdefault
                AND own.opcintype IN (used.opcintype, CASE ty.typtype WHEN 'd' THEN ty.typbasetype ELSE ty.oid END)
            JOIN pg_catalog.pg_amop wanted ON wanted.amopfamily = own.opcfamily AND wanted.amoplefttype = own.opcintype
                AND wanted.amoprighttype = own.opcintype AND wanted.amopstrategy = 3
        WHERE used.oid = i.indclass[k.place - 1] AND wanted.amopopr <> same.amopopr)";

/// The unique indexes of these tables.
pub(crate) async fn of_tables(client: &Client, tables: &[u32]) -> Result<Vec<UniqueIndex>, Error> {
    let sql = format!(
        "SELECT i.indrelid, array_agg(a.attname::text ORDER BY k.place), i.indisvalid, bool_and({NOT_NULL})
        FROM pg_catalog.pg_index i
            CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
            JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
        WHERE i.indrelid = ANY($1) AND i.indisunique AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
            AND k.place <= i.indnkeyatts
        GROUP BY i.indexrelid, i.indrelid, i.indisvalid, i.indisprimary, i.indnkeyatts
        HAVING bool_and({OWN_EQUALITY})
        ORDER BY i.indrelid, i.indisprimary DESC, i.indnkeyatts, 2, i.indexrelid"
    );
    let rows = sql::query(client, &sql, &[&tables]).await?;
    let of = |row: &tokio_postgres::Row| UniqueIndex {
        table: row.get(0),
        columns: row.get(1),
        valid: row.get(2),
        not_null: row.get(3),
    };
    Ok(rows.iter().map(of).collect())
}
