//! The publication of updates: made and recorded, and from where in the WAL it may be named to the server.
//!
//! * In: a configuration with sections that send updates; what the state recorded.
//! * Out: an [`UpdateStream`]; later, from where it may be named.
//! * Never: a publication named before it was there: PostgreSQL decodes with the catalog as it was, does not find it, and
//!   ends the stream for ever (before 18).
//!
//! The way there: the publication is made, then every transaction that was open ends, then the WAL's end is taken. What is
//! decoded from there on was begun when the publication was there. Until the checkpoint is past that place the stream goes on
//! without it; then it is opened again with it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::config::{Config, TableName};
use crate::model::{Fault, Lsn};
use crate::postgres::catalog::publication::Publication;
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::catalog::{publication, xmin_barrier};
use crate::postgres::connection::session::Session;
use crate::postgres::replication::event::UpdateStream;
use crate::postgres::setup;
use crate::postgres::setup::PublicationKind;
use crate::runtime::monitor_event::MonitorEvent;
use crate::runtime::same_server::SameServer;
use crate::runtime::start_error::StartError;
use crate::runtime::state_connector::StateConnector;
use crate::state::{SectionRow, StateError, Store, UpdatePublication};

/// How long a try waits for the next one.
const AGAIN: Duration = Duration::from_secs(1);

/// What parts the two entries of a section that sends updates.
pub(crate) const BESIDE: &str = " | ";

/// A section's entries in the two publications, as the state keeps them.
pub(crate) fn both_entries(inserts: &str, updates: &str) -> String {
    format!("{inserts}{BESIDE}{updates}")
}

/// The entries in the publication of inserts and in that of updates, as far as they are recorded.
pub(crate) fn entries(recorded: Option<&str>) -> (Option<&str>, Option<&str>) {
    match recorded.and_then(|both| both.split_once(BESIDE)) {
        Some((inserts, updates)) => (Some(inserts), Some(updates)),
        None => (recorded, None),
    }
}

/// Makes the publication carry what it must, and records it; `None` where no section sends updates.
pub(crate) async fn prepare(
    config: &Config,
    control: &Session,
    store: &Store,
    waiting: setup::Waiting<'_>,
) -> Result<Option<UpdateStream>, StartError> {
    let recorded = store.instance().await?.and_then(|instance| instance.updates);
    if !config.sends_updates() {
        if recorded.is_some() {
            tracing::info!("no section sends updates any more: they are not streamed from here on");
            store.record_update_publication(None).await?;
        }
        return Ok(None);
    }
    // A table that was taken out since is not put back in silence: its section says so.
    let rows = if recorded.is_some() { store.sections().await? } else { Vec::new() };
    let known: Vec<TableName> = setup::tables(config).into_iter().filter(|table| was_carried(&rows, table)).collect();
    for sql in setup::ensure_update_publication(control, config, &known, waiting).await? {
        tracing::info!(sql, "made the publication of updates carry its tables");
    }
    let name = config.source.update_publication();
    let found = publication::publication(control, &name).await.map_err(|error| control.fault(&error))?;
    // Of no table the updates may be published: each of its sections says why.
    let Some(found) = found else { return Ok(None) };
    store.record_update_publication(Some((found.oid, &found.version))).await?;
    let from = store.instance().await?.and_then(|instance| instance.updates).and_then(|updates| updates.from);
    Ok(Some(UpdateStream { publication: name, oid: found.oid, from }))
}

/// Whether the publication of updates carried this table before.
fn was_carried(rows: &[SectionRow], table: &TableName) -> bool {
    let is_carried = |row: &&SectionRow| entries(row.publication_entry.as_deref()).1.is_some();
    rows.iter().filter(is_carried).any(|row| row.attachment.table_name == table.to_string())
}

/// Makes the publication of updates carry a table whose section is taken up while the stream runs: at the start it could not
/// be published. Recorded, and given back for the stream.
pub(crate) async fn carry(
    config: &Arc<Config>,
    session: &Session,
    table: &TableInfo,
    waiting: setup::Waiting<'_>,
) -> Result<UpdatePublication, Fault> {
    let store = StateConnector::new(Arc::clone(config)).store().await?;
    let recorded = store.instance().await.map_err(|error| error.fault())?.and_then(|instance| instance.updates);
    let rows = if recorded.is_some() { store.sections().await.map_err(|error| error.fault())? } else { Vec::new() };
    let kind = PublicationKind::updates(config);
    let carried = was_carried(&rows, &table.name);
    if let Some(sql) = setup::carry::carry(session, config, (&kind, table), carried, waiting).await? {
        tracing::info!(sql, "made the publication of updates carry its tables");
    }
    let found = publication::publication(session, &kind.name).await.map_err(|error| session.fault(&error))?;
    let Some(found) = found else {
        let what = format!("the publication {} is gone again", kind.name);
        return Err(Fault::unavailable(what, "look who drops it; it is tried again"));
    };
    store.record_update_publication(Some((found.oid, &found.version))).await.map_err(|error| error.fault())?;
    let recorded = store.instance().await.map_err(|error| error.fault())?.and_then(|instance| instance.updates);
    recorded.ok_or_else(|| Fault::bug("the publication of updates was recorded and is not in the state"))
}

/// Records the publication of updates as it is now, for a repair. Where it is another than before, the stream finds out anew
/// from where it may be named.
pub(crate) async fn record(config: &Config, control: &Session, store: &Store) -> Result<(), Fault> {
    let found = match config.sends_updates() {
        true => publication::publication(control, &config.source.update_publication()).await,
        false => Ok(None),
    };
    let found = found.map_err(|error| control.fault(&error))?;
    let found = found.as_ref().map(|found| (found.oid, found.version.as_str()));
    store.record_update_publication(found).await.map_err(|error| error.fault())
}

/// Records that a publication which is older than the slot may be named from the slot's beginning on.
pub(crate) async fn record_from_the_start(
    store: &Store,
    found: Option<&Publication>,
    slot: Lsn,
) -> Result<(), StateError> {
    let Some(found) = found else { return Ok(()) };
    store.record_update_publication(Some((found.oid, &found.version))).await?;
    store.record_updates_from(found.oid, slot).await
}

/// Finds out from where the publication may be named, records it, and tells the event loop.
pub(crate) async fn find_start(
    config: Arc<Config>,
    server: SameServer,
    updates: UpdateStream,
    events: mpsc::Sender<MonitorEvent>,
) {
    loop {
        match start(&config, &server, &updates).await {
            Ok(from) => {
                tracing::info!(publication = updates.publication, %from, "updates can be streamed from here on");
                events.send(MonitorEvent::UpdatesFrom(from)).await.ok();
                return;
            }
            Err(fault) => {
                tracing::warn!(what = fault.what, "updates cannot be streamed yet");
                tokio::time::sleep(AGAIN).await;
            }
        }
        if events.is_closed() {
            return;
        }
    }
}

async fn start(config: &Arc<Config>, server: &SameServer, updates: &UpdateStream) -> Result<Lsn, Fault> {
    let session = server.connect(&config.source, "updates").await?;
    let at = |error: tokio_postgres::Error| session.fault(&error);
    let waiting = |blockers: &[xmin_barrier::Blocker]| {
        let held_by = setup::names(blockers);
        tracing::warn!(waiting_for = %held_by, "updates are not streamed before open transactions end");
    };
    xmin_barrier::pass(&session, waiting).await.map_err(at)?;
    let from = xmin_barrier::insert_lsn(&session).await.map_err(at)?;
    let store = StateConnector::new(Arc::clone(config)).store().await?;
    store.record_updates_from(updates.oid, from).await.map_err(|error| error.fault())?;
    let recorded = store.instance().await.map_err(|error| error.fault())?.and_then(|instance| instance.updates);
    // Where another process was quicker, its place counts.
    Ok(recorded.and_then(|recorded| recorded.from).unwrap_or(from))
}
