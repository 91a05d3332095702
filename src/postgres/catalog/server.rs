//! Facts about the server: version, settings, recovery.
//!
//! * In: a session.
//! * Out: [`Server`].
//! * Never: a judgement of them.

use tokio_postgres::{Client, Error};

/// Settings and facts of the server that the program's behaviour depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub version: i32,
    /// The database's OID and name.
    pub database: (u32, String),
    pub wal_level: String,
    /// It is a standby.
    pub in_recovery: bool,
    /// `wal_sender_timeout` in milliseconds; 0 is none.
    pub wal_sender_timeout: i64,
    /// The role that we are.
    pub role: String,
    /// The role may replicate.
    pub replication: bool,
    /// Where it listens, as it says itself; `None` from a socket.
    pub address: Option<String>,
}

/// Reads them.
pub(crate) async fn server(client: &Client) -> Result<Server, Error> {
    let sql = "SELECT current_setting('server_version_num')::int, d.oid, d.datname::text, current_setting('wal_level'),
            pg_catalog.pg_is_in_recovery(),
            (SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'),
            current_user::text,
            (SELECT rolreplication OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user),
            pg_catalog.host(pg_catalog.inet_server_addr()) || ':' || pg_catalog.inet_server_port()
        FROM pg_catalog.pg_database d WHERE d.datname = current_database()";
    let row = crate::sql::query_one(client, sql, &[]).await?;
    Ok(Server {
        version: row.get(0),
        database: (row.get(1), row.get(2)),
        wal_level: row.get(3),
        in_recovery: row.get(4),
        wal_sender_timeout: row.get::<_, Option<i64>>(5).unwrap_or(60_000),
        role: row.get(6),
        replication: row.get::<_, Option<bool>>(7).unwrap_or(false),
        address: row.get(8),
    })
}

/// What tells one server from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerIdentity {
    pub system_identifier: String,
    pub timeline: u32,
}

/// Which server this is; an error on a standby.
pub(crate) async fn identity(client: &Client) -> Result<ServerIdentity, Error> {
    // A WAL file's name begins with the timeline; the control file has that of the last checkpoint.
    let sql = "SELECT s.system_identifier::text,
            pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8)
        FROM pg_catalog.pg_control_system() s";
    let row = crate::sql::query_one(client, sql, &[]).await?;
    let timeline = u32::from_str_radix(row.get(1), 16).unwrap_or_default();
    Ok(ServerIdentity { system_identifier: row.get(0), timeline })
}
