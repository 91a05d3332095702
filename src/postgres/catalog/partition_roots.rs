//! The tables of which a table is a partition.
//!
//! * In: a section's table, and the other sections.
//! * Out: what is wrong with mapping both, and the remedy.
//! * Never: a change; a section whose result is compared: it needs no stream.

use tokio_postgres::Client;

use crate::config::{Config, Section, TableName};
use crate::sql;

/// What is wrong with a section over a partition whose root has a section, too, and the remedy: the partition's rows are
/// published as the root's, so that none would ever come for the partition.
pub(crate) async fn root_is_mapped(
    client: &Client,
    config: &Config,
    section: &Section,
    oid: u32,
) -> Result<Option<(String, String)>, tokio_postgres::Error> {
    let sql = "SELECT n.nspname::text, c.relname::text
        FROM pg_catalog.pg_partition_ancestors($1::oid::pg_catalog.regclass) WITH ORDINALITY AS a (relid, nth)
        JOIN pg_catalog.pg_class c ON c.oid = a.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE a.relid <> $1 ORDER BY a.nth";
    let rows = sql::query(client, sql, &[&oid]).await?;
    let roots: Vec<TableName> = rows.iter().map(|row| TableName { schema: row.get(0), name: row.get(1) }).collect();
    let root = config
        .sections
        .iter()
        .filter(|other| other.is_on() && other.is_streamed())
        .find(|other| roots.contains(&other.table));
    Ok(root.map(|root| {
        let (table, above) = (&section.table, &root.table);
        (
            format!("{table} is a partition of {above}, which the section {} reads: its rows are published as those of {above}", root.name),
            format!("map one of the two: set `sync: off` for {} or for {}", section.name, root.name),
        )
    }))
}
