//! Whether a table's updates may be published without harm.
//!
//! * In: a session; a table.
//! * Out: what stands in the way, with the SQL that mends it.
//! * Never: a change. PostgreSQL refuses the application's own UPDATE of a table that publishes updates and has no replica
//!   identity: such a table is never published.

use tokio_postgres::{Client, Error};

use crate::config::TableName;
use crate::postgres::catalog::quote;
use crate::postgres::catalog::table::TableInfo;

/// The tables, the root and its partitions, that have no replica identity: none, the primary key that is not there, or an
/// index that is gone.
const WITHOUT: &str = "SELECT n.nspname::text, c.relname::text, c.relkind = 'p',
        EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate)
    FROM (SELECT $1::oid AS oid UNION SELECT relid::oid FROM pg_catalog.pg_partition_tree($1)) AS all_of_it
    JOIN pg_catalog.pg_class c ON c.oid = all_of_it.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relreplident = 'n'
        OR c.relreplident = 'd' AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate)
        OR c.relreplident = 'i' AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisreplident)
        -- A partition that is made later has the root's primary key, and nothing else of it.
        OR c.relkind = 'p' AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
    ORDER BY c.relkind = 'p' DESC, c.oid LIMIT 1";

/// Why the updates of this table must not be published, and what to do; `None` where they may.
pub(crate) async fn missing(client: &Client, table: &TableInfo) -> Result<Option<(String, String)>, Error> {
    missing_of(client, table.oid, &table.name).await
}

/// As [`missing`], of the table with this OID.
pub(crate) async fn missing_of(
    client: &Client,
    oid: u32,
    table: &TableName,
) -> Result<Option<(String, String)>, Error> {
    let Some(row) = crate::sql::query_opt(client, WITHOUT, &[&oid]).await? else { return Ok(None) };
    let found = TableName { schema: row.get(0), name: row.get(1) };
    let name = quote::qualified(&found);
    let said = if found == *table { "it has".to_owned() } else { format!("its partition {name} has") };
    let (is_partitioned, has_key): (bool, bool) = (row.get(2), row.get(3));
    let what = format!(
        "{said} no replica identity: once its updates are published, PostgreSQL refuses the application's own UPDATE and \
         DELETE of it"
    );
    let remedy = match (has_key, is_partitioned) {
        (true, _) => format!("ALTER TABLE {name} REPLICA IDENTITY DEFAULT; (its primary key)"),
        (false, true) => format!("ALTER TABLE {name} ADD PRIMARY KEY (…); its partitions have it then, too"),
        (false, false) => format!(
            "ALTER TABLE {name} ADD PRIMARY KEY (…); or ALTER TABLE {name} REPLICA IDENTITY FULL; (every update writes the \
             whole row to the WAL)"
        ),
    };
    Ok(Some((what, format!("{remedy}; or write `on: insert`"))))
}
