//! A publication, as the catalog has it.
//!
//! * In: a session and a name.
//! * Out: [`Publication`] and the tables in it.
//! * Never: a judgement of them.

use tokio_postgres::{Client, Error};

use crate::config::TableName;
use crate::postgres::catalog::quote;
use crate::postgres::catalog::xmin_barrier::is_below;
use crate::postgres::connection::session::Session;
use crate::sql;
use crate::sql::SqlParams;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publication {
    /// Its name.
    pub name: String,
    /// Its OID: a publication dropped and remade has another.
    pub oid: u32,
    /// The `xmin` of its row: every ALTER PUBLICATION of its options or its owner makes another one.
    pub version: String,
    /// Whether it publishes inserts.
    pub insert: bool,
    /// Whether it publishes updates: harmful to tables without replica identity.
    pub update: bool,
    /// Whether it publishes deletes or truncates.
    pub removals: bool,
    /// `publish_via_partition_root`.
    pub via_root: bool,
    /// It publishes stored generated columns (18).
    pub generated: bool,
    pub tables: Vec<PublishedTable>,
}

impl Publication {
    /// Whether the transaction that made or altered it last lies below the floor, a 64-bit xid.
    pub(crate) fn is_older_than(&self, floor: Option<u64>) -> bool {
        self.version.parse().is_ok_and(|xmin| is_below(xmin, floor))
    }
}

/// A table in a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublishedTable {
    pub name: TableName,
    pub oid: u32,
    /// A row filter leaves rows out, silently.
    pub filter: bool,
    /// A column list leaves columns out, silently.
    pub column_list: bool,
    /// The OID and `xmin` of the entries that publish it, by its name or by its schema: others after it was taken out and
    /// put back. None where the publication names neither (`FOR ALL TABLES`).
    pub entry: Option<String>,
}

/// The slots, but for this one, that stream from the publication now: shown to whoever may see what others run.
pub(crate) async fn streamed_by(client: &Client, name: &str, but: &str) -> Result<Vec<String>, Error> {
    let sql = "SELECT s.slot_name::text FROM pg_catalog.pg_replication_slots s
            JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid
        WHERE s.slot_name <> $1 AND s.database = pg_catalog.current_database()
            AND pg_catalog.strpos(a.query, 'publication_names') > 0 AND pg_catalog.strpos(a.query, $2) > 0";
    let rows = sql::query(client, sql, &[&but, &quote::ident(name)]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Reads the publication.
pub(crate) async fn publication(session: &Session, name: &str) -> Result<Option<Publication>, Error> {
    let sql = "SELECT oid, pubinsert, pubdelete OR pubtruncate, pubviaroot,
            COALESCE(to_jsonb(p) ->> 'pubgencols' = 's', false), p.xmin::text, pubupdate
        FROM pg_catalog.pg_publication p WHERE pubname = $1";
    let named: SqlParams<'_> = &[&name];
    let row = sql::query_opt(session, sql, named);
    // Filters, column lists and schemas in publications exist from 15 on.
    let by_schema = match session.major() >= 15 {
        true => {
            "UNION ALL SELECT 'schema ' || s.oid || '/' || s.xmin FROM pg_catalog.pg_publication_namespace s
                WHERE s.pnpubid = p.oid AND s.pnnspid = n.oid"
        }
        false => "",
    };
    let sql = format!(
        "SELECT t.schemaname::text, t.tablename::text, c.oid,
            to_jsonb(t) ->> 'rowfilter' IS NOT NULL,
            COALESCE(jsonb_array_length(NULLIF(to_jsonb(t) -> 'attnames', 'null'::jsonb)), 32767) < (
                SELECT count(*) FROM pg_catalog.pg_attribute a
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''),
            (SELECT string_agg(entry, ', ' ORDER BY entry) FROM (
                SELECT 'table ' || r.oid || '/' || r.xmin AS entry FROM pg_catalog.pg_publication_rel r
                WHERE r.prpubid = p.oid AND r.prrelid = c.oid {by_schema}) AS entries)
        FROM pg_catalog.pg_publication_tables t
        JOIN pg_catalog.pg_publication p ON p.pubname = t.pubname
        JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname
        JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
        WHERE t.pubname = $1"
    );
    let (row, tables) = tokio::try_join!(row, sql::query(session, &sql, named))?;
    let Some(row) = row else { return Ok(None) };
    let published = |row: &tokio_postgres::Row| PublishedTable {
        name: TableName { schema: row.get(0), name: row.get(1) },
        oid: row.get(2),
        filter: row.get(3),
        column_list: row.get(4),
        entry: row.get(5),
    };
    Ok(Some(Publication {
        name: name.to_owned(),
        oid: row.get(0),
        version: row.get(5),
        insert: row.get(1),
        update: row.get(6),
        removals: row.get(2),
        via_root: row.get(3),
        generated: row.get(4),
        tables: tables.iter().map(published).collect(),
    }))
}
