//! From a configuration without a streamed section to what an event loop needs: no slot, no publication, no replication.
//!
//! * In: the configuration.
//! * Out: [`Prepared`], as for a streamed instance, at the beginning of a log that nobody reads.
//! * Never: a write on the source, where the state is elsewhere: it may be a standby.

use std::sync::Arc;

use crate::config::Config;
use crate::model::{Fault, Lsn};
use crate::postgres::catalog::server;
use crate::postgres::catalog::server::Server;
use crate::postgres::connection::session::{Session, connect_sql};
use crate::runtime::start_error::StartError;
use crate::runtime::startup::Prepared;
use crate::runtime::state_connector::StateConnector;
use crate::sql;
use crate::state::{Identity, Store};

/// Whether this instance reads no log: no section is streamed, and none ever was, whose slot would keep WAL for ever.
pub(crate) async fn is_solo(config: &Arc<Config>) -> Result<bool, StartError> {
    if config.streams() {
        return Ok(false);
    }
    let store = StateConnector::new(Arc::clone(config)).store().await?;
    Ok(!store.is_there().await? || store.instance().await?.is_none_or(|instance| instance.identity.slot.is_empty()))
}

/// Connects, and makes the state at the first start.
pub(crate) async fn prepare(config: &Arc<Config>) -> Result<Prepared, StartError> {
    let control = connect_sql(&config.source, "control").await?;
    let server = server::server(&control).await.map_err(|error| control.fault(&error))?;
    if server.in_recovery && config.state.url.is_none() {
        return Err(StartError::Wrong(unwritable(&control)));
    }
    let mut store = StateConnector::new(Arc::clone(config)).store().await?;
    if !store.is_there().await? {
        if !config.source.manage {
            let what = format!("there is no state schema {}, and `source.manage` is false", config.state.schema);
            let remedy = "let a DBA run the script of `pg2planhat setup --print-sql`";
            return Err(StartError::Wrong(Fault::needs_person(what, remedy)));
        }
        store.migrate().await?;
    }
    let identity = identity(&control, &server).await.map_err(|error| control.fault(&error))?;
    let recorded = store.instance().await?.map(|instance| instance.identity);
    if recorded.as_ref() != Some(&identity) {
        if let Some(recorded) = &recorded {
            let told = |identity: &Identity| {
                let Identity { database, system_identifier, timeline, .. } = identity;
                format!("database {database}, system identifier {system_identifier}, timeline {timeline}")
            };
            tracing::warn!(
                was = told(recorded),
                is = told(&identity),
                "another database or server than before, or another timeline: its results are compared with what was settled of \
                 the other, and rows of a key and values that were sent from there are not sent from here"
            );
        }
        adopt(&mut store, &identity).await?;
    }
    let checkpoint = Lsn::ZERO;
    Ok(Prepared { control, store, checkpoint, again_from: None, identity, server, promoted: None, updates: None })
}

/// That the state cannot be written where the source is a standby.
pub(crate) fn unwritable(control: &Session) -> Fault {
    Fault::usage(
        format!("{} is a standby, and the state cannot be written there", control.place()),
        "set `state.url` to a database that can be written; the sections with `read: diff` then read from the standby",
    )
}

/// That what was settled of the results was read from another database than the one that the file names now. One that was renamed
/// is the same.
pub(crate) fn other_database(recorded: &Identity, found: &Server) -> Option<Fault> {
    let (oid, name) = &found.database;
    if !recorded.slot.is_empty() || recorded.database_oid == *oid || recorded.database == *name {
        return None;
    }
    Some(Fault::usage(
        format!(
            "this is another database ({name}), recorded was {}: rows of it that have the key and the values of rows that were sent \
             from there are not sent, and others of the same keys are sent as changed",
            recorded.database
        ),
        "mend `source.database`; where this database takes the other's place, leave it so; where it is one of its own, give its \
         sections new names or the instance a `state.schema` of its own",
    ))
}

async fn adopt(store: &mut Store, identity: &Identity) -> Result<(), StartError> {
    store.adopt(identity, Lsn::ZERO, None, None).await?;
    Ok(())
}

/// What the server says of itself, as far as the role may know it.
async fn identity(control: &Session, server: &Server) -> Result<Identity, tokio_postgres::Error> {
    let asked = "SELECT s.system_identifier::text, c.timeline_id
        FROM pg_catalog.pg_control_system() s, pg_catalog.pg_control_checkpoint() c";
    let row = match sql::query_one(control, asked, &[]).await {
        Ok(row) => Some(row),
        Err(error) if error.as_db_error().is_some() => None,
        Err(error) => return Err(error),
    };
    Ok(Identity {
        system_identifier: row.as_ref().map(|row| row.get(0)).unwrap_or_default(),
        timeline: row.as_ref().map(|row| row.get(1)).unwrap_or_default(),
        database_oid: server.database.0,
        database: server.database.1.clone(),
        slot: String::new(),
        publication: String::new(),
        publication_oid: 0,
        publication_version: None,
    })
}
