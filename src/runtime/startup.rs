//! From a configuration to a running event loop: connect, compare, make what is missing, take the slot, attach.
//!
//! * In: the configuration.
//! * Out: a [`Leader`]: the slot's stream has begun, the epoch is ours, the sections are attached.
//! * Never: a slot or publication made where an instance is recorded already; a section attached without its xmin barrier.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::model::{Fault, Lsn};
use crate::postgres::catalog::{locks, publication, server, slot};
use crate::postgres::connection::session::{Session, connect_sql};
use crate::postgres::replication::connection::ReplicationConnection;
use crate::postgres::replication::event::UpdateStream;
use crate::postgres::setup;
use crate::runtime::first_slot;
use crate::runtime::identity::{Found, compare};
use crate::runtime::same_server::SameServer;
use crate::runtime::start_error::{NeedsPerson, StartError};
use crate::runtime::state_connector::StateConnector;
use crate::runtime::update_stream;
use crate::state::{Identity, Store};
use crate::telemetry::status_document::Reason;

/// The result of the preparation, before the slot is taken.
pub(crate) struct Prepared {
    /// The session for the monitor, the xmin barriers and look-ups.
    pub control: Session,
    pub store: Store,
    /// Where the stream begins.
    pub checkpoint: Lsn,
    /// From where it is to bring again what was read, where that is recorded.
    pub again_from: Option<Lsn>,
    /// Whose state it is.
    pub identity: Identity,
    pub server: server::Server,
    /// The server's timeline is another than recorded, and that is in order: the timeline before, and where it was left.
    pub promoted: Option<(i64, Lsn)>,
    /// The publication of updates, where one is wanted.
    pub updates: Option<UpdateStream>,
}

/// Connects, compares, and at the very first start makes what is missing. `waiting` is told for whom that waits.
pub(crate) async fn prepare(config: &Arc<Config>, waiting: setup::Waiting<'_>) -> Result<Prepared, StartError> {
    let connector = StateConnector::new(Arc::clone(config));
    // Side by side; where both fail, the source's fault is the one to mend first.
    let (control, store) = tokio::join!(connect_sql(&config.source, "control"), connector.store());
    let (control, mut store) = (control?, store?);
    lock(config, &control, waiting).await?;
    let prepared = async {
        let prepared = prepare_locked(config, &control, &mut store, waiting).await?;
        let updates = update_stream::prepare(config, &control, &store, waiting).await?;
        Ok::<_, StartError>((prepared, updates))
    };
    let prepared = prepared.await;
    control.batch_execute("SELECT pg_catalog.pg_advisory_unlock_all()").await.map_err(|error| control.fault(&error))?;
    let (((checkpoint, again_from), identity, server, promoted), updates) = prepared?;
    Ok(Prepared { control, store, checkpoint, again_from, identity, server, promoted, updates })
}

/// How often a lock is tried again that another process holds.
const TRY_LOCK: Duration = Duration::from_millis(500);

/// Keeps others from starting meanwhile. While another process does, or a repair, that is shown by its name.
async fn lock(config: &Config, control: &Session, waiting: setup::Waiting<'_>) -> Result<(), Fault> {
    let name = format!("pg2planhat {}", config.source.slot);
    let mut told = false;
    loop {
        let tried = locks::try_advisory(control, &name).await.map_err(|error| control.fault(&error))?;
        let Some(held) = tried else {
            if told {
                waiting(None);
            }
            return Ok(());
        };
        let holders = setup::names(&held);
        if !told {
            tracing::warn!(holders, "another process starts, or repairs: waiting for it");
        }
        told = true;
        let what = format!("another process starts, or repairs, and is waited for: {holders}");
        waiting(Some(&Fault::unavailable(
            what,
            "wait; where that process is frozen: SELECT pg_terminate_backend(PID)",
        )));
        tokio::time::sleep(TRY_LOCK).await;
    }
}

/// The slot is there, and the state schema is not.
pub(crate) fn without_state(config: &Config) -> Fault {
    let (slot, schema) = (&config.source.slot, &config.state.schema);
    let what = format!(
        "the slot {slot} is there, and the state schema {schema} is not: it was dropped, or is named otherwise in `state.schema`, \
         or the slot is another program's"
    );
    let remedy = format!(
        "correct `state.schema`; or put the schema back from its newest backup; or run `pg2planhat setup` and then `pg2planhat \
         repair`; or, to begin with every section anew: SELECT pg_drop_replication_slot({})",
        crate::postgres::catalog::quote::literal(slot)
    );
    Fault::needs_person(what, remedy)
}

async fn prepare_locked(
    config: &Config,
    control: &Session,
    store: &mut Store,
    waiting: setup::Waiting<'_>,
) -> Result<((Lsn, Option<Lsn>), Identity, server::Server, Option<(i64, Lsn)>), StartError> {
    let fault = |error: tokio_postgres::Error| control.fault(&error);
    let (server, instance) = tokio::join!(server::server(control), store.instance());
    let server = server.map_err(fault)?;
    if server.in_recovery {
        let what = format!("{} is a standby: it cannot hold the slot", control.place());
        return Err(StartError::Later(Fault::unavailable(
            what,
            "point `source` at the primary (several hosts are tried in turn)",
        )));
    }
    // It cannot be read where the tables are not there, or are older.
    let instance = match instance {
        Ok(instance) => instance,
        Err(_) => {
            make_tables(config, control, store).await?;
            store.instance().await?
        }
    };
    match instance {
        Some(instance) if !instance.identity.slot.is_empty() => {
            let found = find(config, control, server).await?;
            compare(&instance.recorded(), &found.observed(config))?;
            let identity = found.identity(config);
            if let Some(version) = &identity.publication_version {
                store.record_publication_version(version).await?;
            }
            let before = instance.identity.timeline;
            let left = found.history.iter().find(|(ended, _)| i64::from(*ended) == i64::from(before));
            let promoted =
                (identity.timeline != before).then(|| (i64::from(before), left.map_or(Lsn::ZERO, |(_, at)| *at)));
            let again_from = instance.newest.map(|newest| newest.at);
            Ok(((instance.checkpoint, again_from), identity, found.server, promoted))
        }
        // The first start; or the first with a streamed section, where results were compared before.
        Some(_) | None => {
            make_publications(config, control, waiting).await?;
            if let Some(lsn) = first_slot::make(control, config, store, waiting).await? {
                tracing::info!(slot = config.source.slot, %lsn, "made the slot");
            }
            let floor = async { Ok(store.floor_before_slot().await?) };
            let found = async { Ok::<_, StartError>(find(config, control, server).await?) };
            let (floor, found) = tokio::try_join!(floor, found)?;
            let Some(confirmed) = found.slot.as_ref().and_then(slot::Slot::confirmed) else {
                let what = "the slot vanished while it was being set up";
                return Err(StartError::Later(Fault::unavailable(what, "it is tried again")));
            };
            let identity = found.identity(config);
            store.adopt(&identity, confirmed, floor, None).await?;
            let updates = found.updates.as_ref().filter(|updates| updates.is_older_than(floor));
            update_stream::record_from_the_start(store, updates, confirmed).await?;
            Ok(((confirmed, None), identity, found.server, None))
        }
    }
}

/// Makes the tables of the state, or brings them to this version.
async fn make_tables(config: &Config, control: &Session, store: &mut Store) -> Result<(), StartError> {
    if store.is_there().await? {
        return Ok(());
    }
    if !config.source.manage {
        let what = format!("there is no state schema {}, and `source.manage` is false", config.state.schema);
        return Err(StartError::Wrong(Fault::needs_person(
            what,
            "let a DBA run what `pg2planhat setup --print-sql` prints",
        )));
    }
    // At a first start there is neither; our own order makes the schema before the slot.
    let there = slot::slot(control, &config.source.slot).await.map_err(|error| control.fault(&error))?;
    if there.is_some() && store.schema_version().await?.is_none() {
        let fault = without_state(config);
        return Err(StartError::NeedsPerson(NeedsPerson { reason: Reason::StateUnwritable, fault }));
    }
    Ok(store.migrate().await?)
}

/// Makes the publications at a first start, before the slot.
async fn make_publications(config: &Config, control: &Session, waiting: setup::Waiting<'_>) -> Result<(), StartError> {
    for sql in setup::ensure_publication(control, config, &[], waiting).await? {
        tracing::info!(sql, "made the publication");
    }
    for sql in setup::ensure_update_publication(control, config, &[], waiting).await? {
        tracing::info!(sql, "made the publication of updates");
    }
    Ok(())
}

/// What the server says, by a real replication connection and by SQL.
pub(crate) async fn find(config: &Config, control: &Session, server: server::Server) -> Result<Found, Fault> {
    let fault = |error: tokio_postgres::Error| control.fault(&error);
    let identified = async {
        let mut wire = ReplicationConnection::connect(&config.source, "pg2planhat identify").await?;
        let system = wire.identify_system().await.map_err(|error| wire.fault(&error))?;
        let history = wire.timeline_history(system.timeline).await.map_err(|error| wire.fault(&error))?;
        wire.close().await;
        Ok::<_, Fault>((system, history))
    };
    let slot = slot::slot(control, &config.source.slot);
    let publication = publication::publication(control, &config.source.publication);
    let (identified, slot, publication) = tokio::join!(identified, slot, publication);
    let (system, history) = identified?;
    let updates = match config.sends_updates() {
        true => publication::publication(control, &config.source.update_publication()).await.map_err(fault)?,
        false => None,
    };
    let (slot, publication) = (slot.map_err(fault)?, publication.map_err(fault)?);
    let found = Found { system, history, server, slot, publication, updates };
    // Two connections: where `source` names several servers, they may have led to two.
    SameServer::of(&found.identity(config)).check(control).await?;
    Ok(found)
}
