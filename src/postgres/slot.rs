//! The replication slot and the publication, as the server has them.

use serde::Deserialize;
use tokio_postgres::{Client, Error};

use crate::config::TableName;
use crate::row::Lsn;

/// A row of `pg_replication_slots`. Columns differ between versions 14 and 18: those that a server does not have are `None`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Slot {
    /// The output plugin; ours is `pgoutput`.
    pub plugin: Option<String>,
    /// The database that it decodes.
    pub database: Option<String>,
    /// A walsender holds it.
    pub active: bool,
    /// That walsender.
    pub active_pid: Option<i32>,
    /// The oldest WAL that it keeps.
    pub restart_lsn: Option<String>,
    /// Up to where its client has confirmed. NULL: half-made, its maker vanished while it waited.
    pub confirmed_flush_lsn: Option<String>,
    /// `reserved`, `extended`, `unreserved`, `lost`.
    pub wal_status: Option<String>,
    /// Bytes that may be written before it may be lost; NULL without `max_slot_wal_keep_size`.
    pub safe_wal_size: Option<i64>,
    /// Prepared transactions come at PREPARE already, in messages of their own (15; ours never).
    pub two_phase: Option<bool>,
    /// Survives a failover (17).
    pub failover: Option<bool>,
    /// Why it is of no more use (17).
    pub invalidation_reason: Option<String>,
}

/// What became of a lost slot, in words.
fn lost_because(reason: Option<&str>) -> String {
    match reason {
        None => "the server removed WAL that it needed".to_owned(),
        Some("wal_removed") => "the server removed WAL that it needed (wal_removed)".to_owned(),
        Some("idle_timeout") => {
            "nobody read from it for longer than idle_replication_slot_timeout (idle_timeout)".to_owned()
        }
        Some("rows_removed") => "rows of the catalog that it needed were vacuumed away (rows_removed)".to_owned(),
        Some("wal_level_insufficient") => "wal_level was lowered (wal_level_insufficient)".to_owned(),
        Some(other) => format!("a reason that the server calls {other}"),
    }
}

impl Slot {
    /// The confirmed position.
    pub fn confirmed(&self) -> Option<Lsn> {
        self.confirmed_flush_lsn.as_ref()?.parse().ok()
    }

    /// Whether its WAL is gone.
    pub fn is_lost(&self) -> bool {
        self.wal_status.as_deref() == Some("lost") || self.invalidation_reason.is_some()
    }

    /// Why it was lost.
    pub fn why_lost(&self) -> String {
        lost_because(self.invalidation_reason.as_deref())
    }
}

/// Reads the slot.
///
/// # Errors
/// Where the query fails.
pub async fn slot(client: &Client, name: &str) -> Result<Option<Slot>, Error> {
    let sql = "SELECT row_to_json(s)::text FROM pg_catalog.pg_replication_slots s WHERE slot_name = $1";
    let row = client.query_opt(sql, &[&name]).await?;
    Ok(row.and_then(|row| serde_json::from_str(&row.get::<_, String>(0)).ok()))
}

/// A publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Its OID: a publication dropped and remade has another.
    pub oid: u32,
    /// Whether it publishes inserts.
    pub insert: bool,
    /// Whether it publishes anything else: harmful to tables without primary key.
    pub others: bool,
    /// `publish_via_partition_root`.
    pub via_root: bool,
    /// It publishes stored generated columns (18).
    pub generated: bool,
    /// Its tables.
    pub tables: Vec<Published>,
}

/// A table in a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The table.
    pub name: TableName,
    /// Its OID.
    pub oid: u32,
    /// A row filter leaves rows out, silently.
    pub filter: bool,
    /// A column list leaves columns out, silently.
    pub column_list: bool,
    /// The OID of its entry (`pg_publication_rel`): another one after it was taken out and put back. None where the
    /// publication names no tables (`FOR ALL TABLES`).
    pub entry: Option<u32>,
}

/// Reads the publication.
///
/// # Errors
/// Where a query fails.
pub async fn publication(client: &Client, name: &str) -> Result<Option<Publication>, Error> {
    let sql = "SELECT oid, pubinsert, pubupdate OR pubdelete OR pubtruncate, pubviaroot,
            COALESCE(to_jsonb(p) ->> 'pubgencols' = 's', false)
        FROM pg_catalog.pg_publication p WHERE pubname = $1";
    let Some(row) = client.query_opt(sql, &[&name]).await? else { return Ok(None) };
    // Filters and column lists exist from 15 on; before, the view has neither column.
    let sql = "SELECT t.schemaname::text, t.tablename::text, c.oid,
            to_jsonb(t) ->> 'rowfilter' IS NOT NULL,
            COALESCE(jsonb_array_length(NULLIF(to_jsonb(t) -> 'attnames', 'null'::jsonb)), 32767) < (
                SELECT count(*) FROM pg_catalog.pg_attribute a
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''),
            (SELECT r.oid FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = $2 AND r.prrelid = c.oid)
        FROM pg_catalog.pg_publication_tables t
        JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname
        JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
        WHERE t.pubname = $1";
    let oid: u32 = row.get(0);
    let tables = client.query(sql, &[&name, &oid]).await?;
    let published = |row: &tokio_postgres::Row| Published {
        name: TableName { schema: row.get(0), name: row.get(1) },
        oid: row.get(2),
        filter: row.get(3),
        column_list: row.get(4),
        entry: row.get(5),
    };
    Ok(Some(Publication {
        oid,
        insert: row.get(1),
        others: row.get(2),
        via_root: row.get(3),
        generated: row.get(4),
        tables: tables.iter().map(published).collect(),
    }))
}

/// Settings and facts of the server that the program's behaviour depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `server_version_num`.
    pub version: i32,
    /// The database's OID and name.
    pub database: (u32, String),
    /// `wal_level`.
    pub wal_level: String,
    /// It is a standby.
    pub in_recovery: bool,
    /// `wal_sender_timeout` in milliseconds; 0 is none.
    pub wal_sender_timeout: i64,
    /// The role that we are.
    pub role: String,
    /// The role may replicate.
    pub replication: bool,
}

/// Reads them.
///
/// # Errors
/// Where the query fails.
pub async fn server(client: &Client) -> Result<Server, Error> {
    let sql = "SELECT current_setting('server_version_num')::int, d.oid, d.datname::text, current_setting('wal_level'),
            pg_catalog.pg_is_in_recovery(),
            (SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'),
            current_user::text,
            (SELECT rolreplication OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
        FROM pg_catalog.pg_database d WHERE d.datname = current_database()";
    let row = client.query_one(sql, &[]).await?;
    Ok(Server {
        version: row.get(0),
        database: (row.get(1), row.get(2)),
        wal_level: row.get(3),
        in_recovery: row.get(4),
        wal_sender_timeout: row.get::<_, Option<i64>>(5).unwrap_or(60_000),
        role: row.get(6),
        replication: row.get::<_, Option<bool>>(7).unwrap_or(false),
    })
}
