//! The replication slot and the publication, as the server has them.

use serde::Deserialize;
use tokio_postgres::{Client, Error};

use crate::model::{Fault, Lsn};

/// A row of `pg_replication_slots`. Columns differ between versions 14 and 18: those that a server does not have are `None`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Slot {
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
    pub(crate) fn confirmed(&self) -> Option<Lsn> {
        self.confirmed_flush_lsn.as_ref()?.parse().ok()
    }

    /// Whether it is of this database, and speaks our protocol: one of this name may be another's.
    ///
    /// # Errors
    /// Whose it is instead.
    pub(crate) fn ours(&self, name: &str, database: &str) -> Result<(), Fault> {
        let whose = match (self.plugin.as_deref(), self.database.as_deref()) {
            (Some("pgoutput"), Some(other)) if other == database => return Ok(()),
            (Some("pgoutput"), other) => {
                format!("it decodes the database {}, and this is {database}", other.unwrap_or("?"))
            }
            (Some(plugin), _) => format!("its plugin is {plugin}, not pgoutput"),
            (None, _) => "it is physical".to_owned(),
        };
        let what = format!("the slot {name} is another's: {whose}");
        Err(Fault::needs_person(what, "give this instance a slot of its own: `slot: NAME` in source"))
    }

    /// Whether its WAL is gone.
    pub(crate) fn is_lost(&self) -> bool {
        self.wal_status.as_deref() == Some("lost") || self.invalidation_reason.is_some()
    }

    /// Why it was lost.
    pub(crate) fn why_lost(&self) -> String {
        lost_because(self.invalidation_reason.as_deref())
    }
}

/// Reads the slot.
pub(crate) async fn slot(client: &Client, name: &str) -> Result<Option<Slot>, Error> {
    let sql = "SELECT row_to_json(s)::text FROM pg_catalog.pg_replication_slots s WHERE slot_name = $1";
    let row = crate::sql::query_opt(client, sql, &[&name]).await?;
    Ok(row.and_then(|row| serde_json::from_str(&row.get::<_, String>(0)).ok()))
}
