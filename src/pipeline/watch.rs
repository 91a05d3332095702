//! The watch: what the server says of the slot, the publication and the tables, and what operators ask for.
//!
//! * In: a control connection of its own, looked through at least every 5 s.
//! * Out: [`Seen`], and the news that the server goes down, at once.
//! * Never: anything changed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::connect::StateConnector;
use super::start::{Hindrance, Prepared};
use crate::config::Config;
use crate::fault::Fault;
use crate::postgres::server_error::ServerError;
use crate::postgres::slot::{self, Publication, Slot};
use crate::postgres::sql::{Session, connect_sql};
use crate::row::{Lsn, SectionName};
use crate::state::{Event, Store};

/// How often it looks.
pub const LOOK: Duration = Duration::from_secs(3);

/// One look.
#[derive(Debug)]
pub struct Look {
    /// The slot; `None` where it is gone.
    pub slot: Option<Slot>,
    /// The server's flushed end of WAL.
    pub flushed: Lsn,
    /// Every transaction below this 64-bit xid had ended at `floor_at`.
    pub xmin: u64,
    /// The WAL's end when `xmin` was taken.
    pub floor_at: Lsn,
    /// The publication and where each watched table is now. Looked at behind `xmin`: where all is in order, rows are missing
    /// of no transaction below it.
    pub published: Published,
}

/// What decides which rows the server sends.
#[derive(Debug)]
pub struct Published {
    /// The publication; `None` where it is gone.
    pub publication: Option<Publication>,
    /// Which OID each configured name has now.
    pub names: Vec<(String, Option<u32>)>,
    /// The partitions of watched tables.
    pub partitions: Vec<Partition>,
}

/// A partition of a watched table.
#[derive(Debug)]
pub struct Partition {
    /// The watched table.
    pub root: u32,
    /// Its own OID.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// It was a table of its own before: its entry as a partition is younger than itself.
    pub attached: bool,
}

/// What the watch tells.
#[derive(Debug)]
pub enum Seen {
    /// What the server says.
    Look(Box<Look>),
    /// The server goes down: let go of the slot at once, or its fast shutdown hangs.
    Shutdown(Fault),
    /// It cannot look.
    Blind(Fault),
    /// Paused sections, as people want them.
    Paused(Vec<(SectionName, bool)>),
    /// Rows in quarantine now.
    Quarantine(Vec<(SectionName, u64)>),
    /// What an operator asks for.
    Asked(Event),
    /// Rows of the quarantine, read again because an operator asked.
    Reread(Box<super::corridor::Reread>),
}

/// Watches the server until nobody listens.
pub async fn server(config: Arc<Config>, seen: mpsc::Sender<Seen>) {
    loop {
        let session = match connect_sql(&config.source, &purpose(&config)).await {
            Ok(session) => session,
            Err(fault) => {
                if seen.send(Seen::Blind(fault)).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        if !look_on(&config, &session, &seen).await {
            return;
        }
    }
}

/// Looks until the connection ends. Returns whether anybody still listens.
async fn look_on(config: &Config, session: &Session, seen: &mpsc::Sender<Seen>) -> bool {
    loop {
        let looked = tokio::time::timeout(Duration::from_secs(10), look(config, session)).await;
        let news = match looked {
            Ok(Ok(look)) => Seen::Look(Box::new(look)),
            // A look that was under way when the server said that it goes down.
            Ok(Err(error)) if is_shutdown(&error) => Seen::Shutdown(session.fault(&error)),
            Ok(Err(error)) => Seen::Blind(session.fault(&error)),
            Err(_) => Seen::Blind(Fault::unavailable(
                "the server does not answer the watch",
                "check the server and the network",
            )),
        };
        let blind = matches!(news, Seen::Blind(_) | Seen::Shutdown(_));
        if seen.send(news).await.is_err() {
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK), if !blind => {}
            ending = session.closed() => {
                let news = if ending.shutdown { Seen::Shutdown(ending.fault) } else { Seen::Blind(ending.fault) };
                return seen.send(news).await.is_ok();
            }
            () = tokio::time::sleep(Duration::from_secs(1)), if blind => return true,
        }
    }
}

fn is_shutdown(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| ServerError::from(error).is_shutdown())
}

/// Where each configured name leads now.
const NAMES: &str = "SELECT wanted.schema || '.' || wanted.name, c.oid
    FROM unnest($1::text[], $2::text[]) AS wanted (schema, name)
    LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema
    LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name";

/// The row type is made with the table, and nothing changes its row of the catalog; so a younger entry in `pg_inherits`
/// tells of a table that was attached later. Nothing comes back for a table without partitions.
const PARTITIONS: &str = "SELECT root, c.oid, c.relname::text, y.xmin <> i.xmin
    FROM unnest($1::oid[]) AS root
    CROSS JOIN LATERAL pg_catalog.pg_partition_tree(root::regclass) t
    JOIN pg_catalog.pg_class c ON c.oid = t.relid JOIN pg_catalog.pg_type y ON y.oid = c.reltype
    JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
    WHERE t.isleaf AND t.level > 0";

async fn look(config: &Config, session: &Session) -> Result<Look, tokio_postgres::Error> {
    // The position first: what had ended by the snapshot's xmin was committed before it.
    let sql = "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text,
        pg_catalog.pg_current_wal_insert_lsn()::text, pg_catalog.pg_current_wal_flush_lsn()::text";
    let row = session.query_one(sql, &[]).await?;
    let lsn = |index| row.get::<_, String>(index).parse().unwrap_or_default();
    Ok(Look {
        slot: slot::slot(session, &config.source.slot).await?,
        flushed: lsn(2),
        xmin: row.get::<_, String>(0).parse().unwrap_or_default(),
        floor_at: lsn(1),
        published: published(config, session).await?,
    })
}

async fn published(config: &Config, session: &Session) -> Result<Published, tokio_postgres::Error> {
    let tables = crate::postgres::setup::tables(config);
    let schemas: Vec<&str> = tables.iter().map(|table| &*table.schema).collect();
    let tables: Vec<&str> = tables.iter().map(|table| &*table.name).collect();
    let rows = session.query(NAMES, &[&schemas, &tables]).await?;
    let names: Vec<(String, Option<u32>)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let roots: Vec<u32> = names.iter().filter_map(|(_, oid)| *oid).collect();
    let rows = session.query(PARTITIONS, &[&roots]).await?;
    let partition = |row: &tokio_postgres::Row| Partition {
        root: row.get(0),
        oid: row.get(1),
        name: row.get(2),
        attached: row.get(3),
    };
    let partitions = rows.iter().map(partition).collect();
    let publication = slot::publication(session, &config.source.publication).await?;
    Ok(Published { publication, names, partitions })
}

/// How often the operators' wishes are looked for: they are obeyed within 5 s.
const WISHES: Duration = Duration::from_secs(2);

/// Watches the state for what operators ask, and prunes the ledger, until nobody listens.
pub async fn operators(connector: StateConnector, keep: Duration, seen: mpsc::Sender<Seen>) {
    let mut store: Option<Store> = None;
    let mut pruned: Option<Instant> = None;
    loop {
        let current = match store.take() {
            Some(store) if !store.is_closed() => Ok(store),
            Some(_) | None => connector.store().await,
        };
        if let Ok(current) = current {
            match wishes(&current, &seen).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => tracing::debug!(%error, "the operators' wishes could not be read"),
            }
            if pruned.is_none_or(|at| at.elapsed() > Duration::from_secs(600)) {
                match current.prune(keep, 5000).await {
                    Ok(rows) => tracing::debug!(rows, "pruned the ledger"),
                    Err(error) => tracing::debug!(%error, "the ledger could not be pruned"),
                }
                pruned = Some(Instant::now());
            }
            store = Some(current);
        }
        tokio::time::sleep(WISHES).await;
        if seen.is_closed() {
            return;
        }
    }
}

async fn wishes(store: &Store, seen: &mpsc::Sender<Seen>) -> Result<bool, crate::state::StateError> {
    let paused = store.sections().await?.into_iter().map(|row| (row.name, row.paused)).collect();
    let quarantine = store.quarantine_counts().await?;
    let mut news = vec![Seen::Paused(paused), Seen::Quarantine(quarantine)];
    news.extend(store.unhandled_events(100).await?.into_iter().map(Seen::Asked));
    for news in news {
        if seen.send(news).await.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Waits as standby until the slot seems free, or a look shows that its holder is frozen.
///
/// # Errors
/// Where the server cannot be looked at.
pub async fn standby(config: &Config, prepared: &Prepared, every: Duration) -> Result<(), Hindrance> {
    let control = &prepared.control;
    let fault = |error: tokio_postgres::Error| control.fault(&error);
    let mut frozen = 0;
    loop {
        tokio::time::sleep(every).await;
        let Some(slot) = slot::slot(control, &config.source.slot).await.map_err(fault)? else { return Ok(()) };
        let Some(holder) = slot.active_pid.filter(|_| slot.active) else { return Ok(()) };
        // The holder's watch looks every few seconds under a name of its own; a process that does not is frozen, even
        // where its connections still stand.
        let sql = "SELECT COALESCE(min(extract(epoch FROM clock_timestamp() - query_start)), 1e9)::float8
            FROM pg_catalog.pg_stat_activity
            WHERE datname = current_database() AND usename = current_user AND query_start IS NOT NULL
              AND right(application_name, length($1)) = $1";
        let silent: f64 = control.query_one(sql, &[&purpose(config)]).await.map_err(fault)?.get(0);
        frozen = if silent > FROZEN.as_secs_f64() { frozen + 1 } else { 0 };
        if frozen >= 2 {
            tracing::warn!(pid = holder, silent_seconds = silent, "the holder of the slot is frozen: taking over");
            control.execute("SELECT pg_catalog.pg_terminate_backend($1)", &[&holder]).await.map_err(fault)?;
            return Ok(());
        }
    }
}

/// What the watch's connection of the slot's holder is for, as its `application_name` ends.
pub fn purpose(config: &Config) -> String {
    let name = format!("watch {}", config.source.slot);
    // PostgreSQL cuts an application_name after 63 bytes, and the product's name stands before this.
    name.chars().take(40).collect()
}

/// A holder whose watch has not looked for so long is frozen.
const FROZEN: Duration = Duration::from_secs(10);
