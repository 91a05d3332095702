//! Whether a table's updates may be published without harm.
//!
//! * In: a session; a table.
//! * Out: what stands in the way, with the SQL that mends it.
//! * Never: a change. PostgreSQL refuses the application's own UPDATE of a table that publishes updates and has no replica
//!   identity: such a table is never published.

use tokio_postgres::{Client, Error};

use crate::config::{Config, TableName};
use crate::postgres::catalog::quote;
use crate::postgres::catalog::table::TableInfo;

/// The tables, the root and its partitions, that have no replica identity: none, the primary key that is not there, or an
/// index that is gone. From 18 on one that has a generated column which is not published is none either: a virtual one never
/// is.
const WITHOUT: &str = "WITH generated AS (
        SELECT a.attrelid, a.attname, a.attgenerated = 'v' AS is_virtual, c.relreplident = 'f' OR EXISTS (
                SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND a.attnum = ANY (i.indkey)
                    AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident)) AS is_in
        FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
        WHERE a.attgenerated <> '' AND NOT a.attisdropped
            AND pg_catalog.current_setting('server_version_num')::int >= 180000
            AND (a.attgenerated = 'v' OR EXISTS (
                SELECT FROM pg_catalog.pg_publication p
                WHERE p.pubname = ANY ($2) AND to_jsonb(p) ->> 'pubgencols' <> 's')))
    SELECT n.nspname::text, c.relname::text, c.relkind = 'p',
        EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate),
        (SELECT g.attname::text FROM generated g WHERE g.attrelid = c.oid AND g.is_in ORDER BY g.is_virtual DESC LIMIT 1),
        EXISTS (SELECT FROM generated g WHERE g.attrelid = c.oid AND g.is_in AND g.is_virtual),
        (SELECT array_agg(p.pubname::text) FROM pg_catalog.pg_publication p WHERE p.pubname = ANY ($2)), c.relreplident = 'f'
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
        OR EXISTS (SELECT FROM generated g WHERE g.attrelid = c.oid AND g.is_in)
    ORDER BY c.relkind = 'p' DESC, c.oid LIMIT 1";

/// The columns of a key that an update may leave out, in SQL: stored out of line, and not in the replica identity; and the
/// index by which the identity would have them.
const LEFT_OUT: &str = "SELECT string_agg(pg_catalog.quote_ident(a.attname), ', '),
        (SELECT x.indexrelid::regclass::text FROM pg_catalog.pg_index x
            WHERE x.indrelid = $1 AND x.indisunique AND x.indimmediate AND x.indisvalid AND x.indpred IS NULL
                AND x.indexprs IS NULL AND (
                    SELECT array_agg(k.attname::text ORDER BY k.attname::text) FROM pg_catalog.pg_attribute k
                    WHERE k.attrelid = $1 AND k.attnum = ANY (x.indkey)) = (
                    SELECT array_agg(name ORDER BY name) FROM unnest($2::text[]) AS name) LIMIT 1)
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
    WHERE a.attrelid = $1 AND a.attname = ANY ($2::text[]) AND a.attstorage IN ('x', 'e') AND c.relreplident <> 'f'
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = $1 AND a.attnum = ANY (i.indkey)
            AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident))";

/// The columns of this key that an update does not bring where they are stored out of line, and what to do.
pub(crate) async fn left_out(
    client: &Client,
    table: &TableInfo,
    key: &[String],
) -> Result<Option<(String, String)>, Error> {
    let rows = crate::sql::query_opt(client, LEFT_OUT, &[&table.oid, &key]).await?;
    let Some((columns, index)) = rows.and_then(|row| Some((row.get::<_, Option<String>>(0)?, row.get(1)))) else {
        return Ok(None);
    };
    let name = quote::qualified(&table.name);
    let index: Option<String> = index;
    let remedy = index.map_or_else(
        || format!("ALTER TABLE {name} REPLICA IDENTITY FULL; (every update writes the whole row to the WAL)"),
        |index| format!("ALTER TABLE {name} REPLICA IDENTITY USING INDEX {index};"),
    );
    Ok(Some((columns, remedy)))
}

/// Why the updates of this table must not be published, and what to do; `None` where they may.
pub(crate) async fn missing(
    client: &Client,
    config: &Config,
    table: &TableInfo,
) -> Result<Option<(String, String)>, Error> {
    missing_of(client, config, (table.oid, &table.name)).await
}

/// As [`missing`], of the table with this OID.
pub(crate) async fn missing_of(
    client: &Client,
    config: &Config,
    (oid, table): (u32, &TableName),
) -> Result<Option<(String, String)>, Error> {
    let publications = [config.source.publication.clone(), config.source.update_publication()];
    let params: crate::sql::SqlParams<'_> = &[&oid, &publications.as_slice()];
    let Some(row) = crate::sql::query_opt(client, WITHOUT, params).await? else { return Ok(None) };
    let found = TableName { schema: row.get(0), name: row.get(1) };
    let name = quote::qualified(&found);
    let said = if found == *table { "it has".to_owned() } else { format!("its partition {name} has") };
    let (is_partitioned, has_key): (bool, bool) = (row.get(2), row.get(3));
    if let Some(column) = row.get::<_, Option<String>>(4) {
        let there: Vec<String> = row.get::<_, Option<_>>(6).unwrap_or_default();
        return Ok(Some(unpublished(&there, (&name, &column), has_key && row.get(7), row.get(5))));
    }
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

/// Of a generated column in the replica identity of a table that the publications leave out (18).
fn unpublished(
    publications: &[String],
    (table, column): (&str, &str),
    is_full_beside_key: bool,
    is_virtual: bool,
) -> (String, String) {
    let column = quote::ident(column);
    let what = format!(
        "the replica identity of {table} has the generated column {column}, which is not published: once its updates are \
         published, PostgreSQL refuses the application's own UPDATE and DELETE of it"
    );
    let publish = || {
        let set = |name: &String| {
            format!("ALTER PUBLICATION {} SET (publish_generated_columns = stored);", quote::ident(name))
        };
        publications.iter().map(set).collect::<Vec<_>>().join(" ")
    };
    let remedy = match (is_full_beside_key, is_virtual) {
        (true, _) => format!("ALTER TABLE {table} REPLICA IDENTITY DEFAULT; (its primary key)"),
        (false, true) => {
            format!("ALTER TABLE {table} ADD PRIMARY KEY (…); ALTER TABLE {table} REPLICA IDENTITY DEFAULT;")
        }
        (false, false) => publish(),
    };
    (what, format!("{remedy}; or write `on: insert`"))
}
