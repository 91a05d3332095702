//! What there is to map: schemas, tables, and what could be their keys.
//!
//! * In: a session; a schema.
//! * Out: lists, in the order of names.
//! * Never: PostgreSQL's own schemas; a table that the role may not see the name of.

use tokio_postgres::{Client, Error};

use crate::config::TableName;
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::catalog::unique_indexes;
use crate::sql;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SchemaInfo {
    pub name: String,
    /// How many tables it holds that can be streamed.
    pub tables: u64,
    /// And how many views and foreign tables, which have no log.
    pub results: u64,
}

/// A table, for a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableEntry {
    pub name: TableName,
    /// Rows, by the planner's estimate; `None` where it was never analyzed.
    pub rows: Option<u64>,
    /// Bytes with indexes and TOAST.
    pub bytes: u64,
    /// What could be a section's key: the columns of each unique index.
    pub keys: Vec<Vec<String>>,
}

const OWN: &str = "n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'";

/// What has no log of its own. A foreign partition stands behind its table.
const RESULT: &str = "c.relkind IN ('v', 'm', 'f') AND NOT c.relispartition";

/// Lists the schemas.
pub(crate) async fn schemas(client: &Client) -> Result<Vec<SchemaInfo>, Error> {
    let sql = format!(
        "SELECT n.nspname::text, (SELECT count(*) FROM pg_catalog.pg_class c
             WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p') AND NOT c.relispartition),
             (SELECT count(*) FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND {RESULT})
         FROM pg_catalog.pg_namespace n WHERE {OWN} ORDER BY 1"
    );
    let rows = sql::query(client, &sql, &[]).await?;
    let schema = |row: &tokio_postgres::Row| SchemaInfo {
        name: row.get(0),
        tables: unsigned(row.get(1)),
        results: unsigned(row.get(2)),
    };
    Ok(rows.iter().map(schema).collect())
}

/// Lists the views, materialized views and foreign tables of a schema.
pub(crate) async fn results(client: &Client, schema: &str) -> Result<Vec<TableName>, Error> {
    let sql = format!(
        "SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND {RESULT} ORDER BY 1"
    );
    let rows = sql::query(client, &sql, &[&schema]).await?;
    Ok(rows.iter().map(|row| TableName { schema: schema.to_owned(), name: row.get(0) }).collect())
}

/// Lists the databases that the role may connect to.
pub(crate) async fn databases(client: &Client) -> Result<Vec<String>, Error> {
    let sql = "SELECT datname::text FROM pg_catalog.pg_database WHERE NOT datistemplate AND datallowconn
        AND has_database_privilege(oid, 'CONNECT') ORDER BY 1";
    let rows = sql::query(client, sql, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Lists the tables of a schema; partitions stand behind their table.
pub(crate) async fn tables(client: &Client, schema: &str) -> Result<Vec<TableEntry>, Error> {
    let sql = "WITH RECURSIVE part AS (
            SELECT c.oid AS root, c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition
            UNION ALL
            SELECT part.root, i.inhrelid FROM part JOIN pg_catalog.pg_inherits i ON i.inhparent = part.oid
            JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid WHERE c.relispartition)
        SELECT r.oid, r.relname::text, sum(CASE WHEN c.relkind = 'r' THEN c.reltuples ELSE 0 END)::float8,
            bool_or(c.relkind = 'r' AND c.reltuples < 0), sum(pg_catalog.pg_total_relation_size(c.oid))::bigint
        FROM part JOIN pg_catalog.pg_class r ON r.oid = part.root JOIN pg_catalog.pg_class c ON c.oid = part.oid
        GROUP BY 1, 2 ORDER BY 2";
    let rows = sql::query(client, sql, &[&schema]).await?;
    let oids: Vec<u32> = rows.iter().map(|row| row.get(0)).collect();
    let unique = unique_indexes::of_tables(client, &oids).await?;
    let entry = |row: &tokio_postgres::Row| {
        let (oid, name): (u32, String) = (row.get(0), row.get(1));
        let keys = unique.iter().filter(|index| index.table == oid && index.valid && index.not_null);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate, and not negative")]
        let estimate = row.get::<_, f64>(2).max(0.0) as u64;
        TableEntry {
            name: TableName { schema: schema.to_owned(), name },
            rows: (!row.get::<_, bool>(3)).then_some(estimate),
            bytes: unsigned(row.get(4)),
            keys: keys.map(|index| index.columns.clone()).collect(),
        }
    };
    Ok(rows.iter().map(entry).collect())
}

/// What could be a section's key: the columns of each unique index of the table, the best first.
pub(crate) async fn keys(client: &Client, table: &TableInfo) -> Result<Vec<Vec<String>>, Error> {
    let unique = unique_indexes::of_tables(client, &[table.oid]).await?;
    Ok(unique.into_iter().filter(|index| index.valid && index.not_null).map(|index| index.columns).collect())
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
