//! The monitor: it polls the slot, the publication and the tables, and operators' requests.
//!
//! * In: a control connection of its own, queried at least every 5 s.
//! * Out: [`MonitorEvent`]s; at once where the server goes down.
//! * Never: anything changed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::config::{Config, StateConfig};
use crate::model::Fault;
use crate::postgres::catalog::{locks, publication, replica_identity, slot};
use crate::postgres::connection::server_error::{ServerError, is_not_now};
use crate::postgres::connection::session::Session;
use crate::postgres::setup;
use crate::runtime::monitor_event::{AuditCause, MonitorEvent, PublicationStatus, SourceStatus};
use crate::runtime::partition_watch::PartitionWatch;
use crate::runtime::same_server::SameServer;
use crate::runtime::standby::purpose;
use crate::runtime::state_connector::StateConnector;
use crate::sql;
use crate::state::Store;

/// How often the server is queried.
pub(crate) const QUERY_EVERY: Duration = Duration::from_secs(3);

/// How long the monitor waits for a lock before it says who has it.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '2s'";

/// Watches the server until the event loop is gone.
/// It follows the configuration that counts: which tables the publication must carry.
pub(crate) async fn server(
    configs: watch::Receiver<Arc<Config>>,
    server: SameServer,
    seen: mpsc::Sender<MonitorEvent>,
) {
    let mut partitions = PartitionWatch::default();
    let mut is_told = false;
    loop {
        let config = Arc::clone(&configs.borrow());
        let session = match server.connect(&config.source, &purpose(&config)).await {
            Ok(session) => session,
            Err(fault) => {
                // It was up: the stream was taken before. A server that goes down waits for the stream to let go. Told once.
                let event = match is_not_now(&fault) && !std::mem::replace(&mut is_told, true) {
                    true => MonitorEvent::Shutdown(fault),
                    false => MonitorEvent::Unreachable(fault),
                };
                if seen.send(event).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        is_told = false;
        if !poll(&configs, &session, &seen, &mut partitions).await {
            return;
        }
    }
}

/// Queries the server until the connection ends. Returns whether the event loop still listens.
async fn poll(
    configs: &watch::Receiver<Arc<Config>>,
    session: &Session,
    seen: &mpsc::Sender<MonitorEvent>,
    partitions: &mut PartitionWatch,
) -> bool {
    // Asked once beforehand, so that the session need not look it up in a catalog that is locked by then.
    let known = async {
        session.batch_execute(LOCK_TIMEOUT).await?;
        locks::catalog_holders(session).await
    };
    if let Err(error) = known.await {
        tracing::debug!(%error, "the monitor could not look for locks");
    }
    loop {
        let config = Arc::clone(&configs.borrow());
        let queried = tokio::time::timeout(Duration::from_secs(10), query(&config, session, partitions)).await;
        let event = match queried {
            Ok(Ok(status)) => MonitorEvent::SourceStatus(Box::new(status)),
            // The query was under way when the server said that it goes down.
            Ok(Err(error)) if is_shutdown(&error) => MonitorEvent::Shutdown(session.fault(&error)),
            Ok(Err(error)) if setup::is_locked(&error) => locked(session, &error).await,
            Ok(Err(error)) => MonitorEvent::Unreachable(session.fault(&error)),
            Err(_) => MonitorEvent::Unreachable(Fault::unavailable(
                "the server does not answer the monitor",
                "check the server and the network",
            )),
        };
        let unreachable = matches!(event, MonitorEvent::Unreachable(_) | MonitorEvent::Shutdown(_));
        if seen.send(event).await.is_err() {
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep(QUERY_EVERY), if !unreachable => {}
            ending = session.closed() => {
                let event = if ending.shutdown { MonitorEvent::Shutdown(ending.fault) } else { MonitorEvent::Unreachable(ending.fault) };
                return seen.send(event).await.is_ok();
            }
            () = tokio::time::sleep(Duration::from_secs(1)), if unreachable => return true,
        }
    }
}

/// Who keeps a system catalog from being read. The session is kept: a new one could not be opened.
async fn locked(session: &Session, error: &tokio_postgres::Error) -> MonitorEvent {
    let asked = tokio::time::timeout(QUERY_EVERY, locks::catalog_holders(session)).await;
    match asked {
        Ok(Ok(holders)) if !holders.is_empty() => {
            MonitorEvent::Locked(setup::held_up("a system catalog of the server is locked", &holders, session))
        }
        Ok(Ok(_) | Err(_)) | Err(_) => MonitorEvent::Unreachable(session.fault(error)),
    }
}

fn is_shutdown(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| ServerError::from(error).is_shutdown())
}

/// The OID behind each configured name.
const NAMES: &str = "SELECT wanted.schema || '.' || wanted.name, c.oid
    FROM unnest($1::text[], $2::text[]) AS wanted (schema, name)
    LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema
    LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name";

async fn query(
    config: &Config,
    session: &Session,
    partitions: &mut PartitionWatch,
) -> Result<SourceStatus, tokio_postgres::Error> {
    // The position first: what had ended by the snapshot's xmin was committed before it.
    let sql = "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text,
        pg_catalog.pg_current_wal_insert_lsn()::text, pg_catalog.pg_current_wal_flush_lsn()::text,
        EXISTS (SELECT FROM pg_catalog.pg_replication_slots s JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid
            WHERE s.slot_name = $1 AND a.wait_event = 'WaitForStandbyConfirmation'),
        pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text";
    let row = sql::query_one(session, sql, &[&config.source.slot]).await?;
    let lsn = |index| row.get::<_, String>(index).parse().unwrap_or_default();
    Ok(SourceStatus {
        slot: slot::slot(session, &config.source.slot).await?,
        flushed: lsn(2),
        waits_for_standby: row.get(3),
        xmin: row.get::<_, String>(0).parse().unwrap_or_default(),
        next_xid: row.get::<_, String>(4).parse().unwrap_or_default(),
        floor_at: lsn(1),
        published: published(config, session, partitions).await?,
    })
}

async fn published(
    config: &Config,
    session: &Session,
    partitions: &mut PartitionWatch,
) -> Result<PublicationStatus, tokio_postgres::Error> {
    let wanted = crate::postgres::setup::tables(config);
    let schemas: Vec<&str> = wanted.iter().map(|table| &*table.schema).collect();
    let tables: Vec<&str> = wanted.iter().map(|table| &*table.name).collect();
    let rows = sql::query(session, NAMES, &[&schemas, &tables]).await?;
    let names: Vec<(String, Option<u32>)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let roots = names.iter().filter_map(|(name, oid)| {
        let table = wanted.iter().find(|table| table.to_string() == *name)?;
        oid.map(|oid| (oid, table.clone()))
    });
    let partitions = partitions.look(session, &roots.collect()).await?;
    let publication = publication::publication(session, &config.source.publication).await?;
    // Also where no section sends updates any more: as long as it carries a table, the application may be refused.
    let updates = publication::publication(session, &config.source.update_publication()).await?;
    let mut without_identity = Vec::new();
    for published in updates.iter().flat_map(|updates| &updates.tables) {
        let missing = replica_identity::missing_of(session, config, (published.oid, &published.name)).await?;
        without_identity.extend(missing.map(|(what, remedy)| (published.oid, what, remedy)));
    }
    Ok(PublicationStatus { publication, updates, without_identity, names, partitions })
}

/// How often operators' requests are polled: they are obeyed within 5 s.
const POLL: Duration = Duration::from_secs(2);

/// How long is pruned at once: operators wait for no more than that.
const PRUNE_FOR: Duration = Duration::from_secs(1);

/// Rows of the ledger that one statement removes.
const PRUNE_ROWS: u32 = 5_000;

/// Watches the state for what operators ask, and prunes the ledger, until the event loop is gone.
/// Tells the audits' schedule what may be a cause.
pub(crate) async fn operators(
    connector: StateConnector,
    kept: StateConfig,
    seen: mpsc::Sender<MonitorEvent>,
    causes: watch::Sender<AuditCause>,
) {
    let mut store: Option<Store> = None;
    let mut pruned: Option<Instant> = None;
    loop {
        let current = match store.take() {
            Some(store) if !store.is_closed() => Ok(store),
            Some(_) | None => connector.store().await,
        };
        if let Ok(current) = current {
            match poll_requests(&current, &seen, &causes).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => tracing::debug!(%error, "the operators' requests cannot be read"),
            }
            if pruned.is_none_or(|at| at.elapsed() > Duration::from_secs(600)) {
                let by = Instant::now() + PRUNE_FOR;
                let done = prune(&current, kept.keep_deliveries, by).await
                    && prune_quarantine(&current, kept.keep_quarantine, by).await;
                // What is left goes after the next look at what operators ask.
                pruned = done.then(Instant::now);
            }
            store = Some(current);
        }
        tokio::time::sleep(POLL).await;
        if seen.is_closed() {
            return;
        }
    }
}

/// Removes what is older than `keep` from the ledger, in small bites, until nothing of it is left: as fast as it grows. Returns
/// whether it has done what it can; it has not where `by` comes first.
async fn prune(store: &Store, keep: Duration, by: Instant) -> bool {
    while Instant::now() < by {
        match store.prune(keep, PRUNE_ROWS).await {
            Ok(rows) if rows < u64::from(PRUNE_ROWS) => return true,
            Ok(rows) => tracing::debug!(rows, "pruned the ledger"),
            Err(error) => {
                tracing::debug!(%error, "the ledger could not be pruned");
                return true;
            }
        }
    }
    false
}

/// Removes what is older than `keep` from the quarantine: it holds personal data, which nobody decided on in all that time.
/// Returns whether it has done what it can.
async fn prune_quarantine(store: &Store, keep: Duration, by: Instant) -> bool {
    let (mut gone, mut done) = (0, false);
    while !done && Instant::now() < by {
        match store.quarantine_prune(keep, PRUNE_ROWS).await {
            Ok(rows) => (gone, done) = (gone + rows, rows < u64::from(PRUNE_ROWS)),
            Err(error) => {
                tracing::debug!(%error, "the quarantine could not be pruned");
                done = true;
            }
        }
    }
    if gone > 0 {
        tracing::warn!(rows = gone, "dropped from the quarantine: older than state.keep_quarantine, never delivered");
    }
    done
}

async fn poll_requests(
    store: &Store,
    seen: &mpsc::Sender<MonitorEvent>,
    causes: &watch::Sender<AuditCause>,
) -> Result<bool, crate::state::StateError> {
    let rows = store.sections().await?;
    let quarantine = store.quarantine_counts().await?;
    let gaps = store.gaps(true).await?.into_iter().map(|gap| gap.section).collect();
    let requests = store.unhandled_events(100).await?;
    let cause = AuditCause::new(&rows, &requests);
    causes.send_if_modified(|last| {
        let is_new = *last != cause;
        *last = cause;
        is_new
    });
    let paused = rows.into_iter().map(|row| (row.name, row.paused)).collect();
    let mut events =
        vec![MonitorEvent::Paused(paused), MonitorEvent::Quarantine(quarantine), MonitorEvent::OpenGaps(gaps)];
    events.extend(requests.into_iter().map(MonitorEvent::Requested));
    for event in events {
        if seen.send(event).await.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}
