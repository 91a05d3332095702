//! Making the publication and the slot, in this order, harming nobody.
//!
//! * In: the names, and the tables that the publication must carry.
//! * Out: what was made; or what is missing, with the SQL that a DBA can run.
//! * Never: a publication of more than inserts, but for tables whose updates are wanted; one with a column list or a row
//!   filter; a slot before its publication (the historic catalog decides at decode time: a publication younger than the
//!   slot is an error for ever).

pub(crate) mod carry;
pub(crate) mod dba_script;
pub(crate) mod publication_kind;

pub(crate) use crate::postgres::setup::publication_kind::{PublicationKind, tables};

use std::time::Duration;

use futures_util::future::try_join_all;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::config::{Config, TableName};
use crate::model::{Fault, Lsn};
use crate::postgres::catalog::publication::Publication;
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::catalog::xmin_barrier::Blocker;
use crate::postgres::catalog::{
    defects, locks, partition_roots, publication, quote, replica_identity, server, slot, table, xmin_barrier,
};
use crate::postgres::connection::session::{Session, first_value};

/// `CREATE PUBLICATION` for these tables; `generated`: with stored generated columns (18).
pub(crate) fn create_publication(kind: &PublicationKind, tables: &[String], generated: bool) -> String {
    format!(
        "CREATE PUBLICATION {} FOR TABLE {} WITH (publish = '{}', publish_via_partition_root = true{})",
        quote::ident(&kind.name),
        tables.join(", "),
        kind.publishes(),
        if generated { ", publish_generated_columns = stored" } else { "" }
    )
}

/// Whether a publication that is made on this server publishes stored generated columns. From 18 on it does, so that they can
/// be mapped, and so that an application may update a table which has one in its replica identity. Where the other one of the
/// two is there, as that does: PostgreSQL ends a stream whose publications differ in it.
pub(crate) async fn generated(session: &Session, config: &Config, version: i32) -> Result<bool, tokio_postgres::Error> {
    if version < 180_000 {
        return Ok(false);
    }
    for name in [config.source.publication.clone(), config.source.update_publication()] {
        if let Some(there) = publication::publication(session, &name).await? {
            return Ok(there.generated);
        }
    }
    Ok(true)
}

/// `ALTER PUBLICATION … ADD TABLE`.
pub(crate) fn add_tables(name: &str, tables: &[String]) -> String {
    format!("ALTER PUBLICATION {} ADD TABLE {}", quote::ident(name), tables.join(", "))
}

/// `ALTER PUBLICATION … DROP TABLE`.
pub(crate) fn drop_tables(name: &str, tables: &[TableName]) -> String {
    let tables: Vec<String> = tables.iter().map(quote::qualified).collect();
    format!("ALTER PUBLICATION {} DROP TABLE {}", quote::ident(name), tables.join(", "))
}

/// `pg_create_logical_replication_slot` for our plugin.
pub(crate) fn create_slot(name: &str, failover: bool) -> String {
    let name = quote::literal(name);
    let more = if failover { ", false, false, true" } else { "" };
    format!("SELECT lsn::text FROM pg_catalog.pg_create_logical_replication_slot({name}, 'pgoutput'{more})")
}

/// The tables and views that the sections read, streamed or compared, each once, in the order written. What a query reads is
/// for whoever wrote it to grant.
pub(crate) fn readable(config: &Config) -> Vec<TableName> {
    let mut tables = Vec::new();
    for section in config.sections.iter().filter(|section| section.is_on() && !section.table.name.is_empty()) {
        if !tables.contains(&section.table) {
            tables.push(section.table.clone());
        }
    }
    tables
}

/// How long one try to create the slot or alter the publication may wait for a lock before it says by whom it is held
/// up and tries again.
/// A synchronous standby that is away must not hold the set-up up: what it makes need not be there first.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '5s'; SET synchronous_commit = local";

/// How often it is tried: with [`LOCK_TIMEOUT`], ten minutes.
const TRIES: u32 = 120;

/// Makes the publication carry every table, and says what was done. One of `known`, which it carried before, is not added
/// in silence: rows were skipped meanwhile.
///
/// # Errors
/// What is missing, where `manage` is off or a right is lacking; the remedy is the SQL.
pub(crate) async fn ensure_publication(
    session: &Session,
    config: &Config,
    known: &[TableName],
    waiting: Waiting<'_>,
) -> Result<Vec<String>, Fault> {
    ensure(session, config, &PublicationKind::inserts(config), known, waiting).await
}

/// The same for the publication of updates; nothing is done where no section wants them.
pub(crate) async fn ensure_update_publication(
    session: &Session,
    config: &Config,
    known: &[TableName],
    waiting: Waiting<'_>,
) -> Result<Vec<String>, Fault> {
    if !config.sends_updates() {
        return Ok(Vec::new());
    }
    ensure(session, config, &PublicationKind::updates(config), known, waiting).await
}

async fn ensure(
    session: &Session,
    config: &Config,
    kind: &PublicationKind,
    known: &[TableName],
    waiting: Waiting<'_>,
) -> Result<Vec<String>, Fault> {
    loop {
        // `None`: another process, `setup` beside `run` say, made at the same moment what was missing.
        if let Some(done) = publish(session, config, kind, known, waiting).await? {
            return Ok(done);
        }
    }
}

async fn publish(
    session: &Session,
    config: &Config,
    kind: &PublicationKind,
    known: &[TableName],
    waiting: Waiting<'_>,
) -> Result<Option<Vec<String>>, Fault> {
    let name = &kind.name;
    let wanted = kind.tables(config);
    let facts = tokio::try_join!(publication::publication(session, name), server::server(session));
    let (there, server) = facts.map_err(|error| session.fault(&error))?;
    // Asked for side by side: one round trip, however many tables there are.
    let infos = try_join_all(wanted.iter().map(|table_name| table::by_name(session, table_name))).await;
    let mut from = Vec::new();
    for (table_name, info) in wanted.iter().zip(infos.map_err(|error| session.fault(&error))?) {
        match info {
            Some(_) if there.is_some() && known.contains(table_name) => {}
            Some(info) if is_beside_root(session, config, &info).await? => {}
            // Published, it would make the application's UPDATE fail: its sections say so.
            Some(info) if kind.updates && lacks_identity(session, config, &info).await? => {}
            Some(info) => from.push((info.oid, info.as_from_clause())),
            // Renamed or dropped since it was attached: its own section says so, the others need not wait for it.
            None if there.is_some() => {}
            None => {
                let near = table::nearest(session, table_name).await.map_err(|error| session.fault(&error))?;
                let fault = no_table(table_name);
                let meant = |near: TableName| format!("did you mean {}?", quote::qualified(&near));
                return Err(Fault::new(fault.exit, fault.what, near.map_or(fault.remedy, meant)));
            }
        }
    }
    let sql = match &there {
        None => {
            let clauses: Vec<String> = from.iter().map(|(_, clause)| clause.clone()).collect();
            if clauses.is_empty() && kind.updates {
                return Ok(Some(Vec::new()));
            }
            create_publication(
                kind,
                &clauses,
                generated(session, config, server.version).await.map_err(|error| session.fault(&error))?,
            )
        }
        Some(publication) => {
            fits(kind, publication)?;
            let missing: Vec<String> = from
                .iter()
                .filter(|(oid, _)| !publication.tables.iter().any(|table| table.oid == *oid))
                .map(|(_, clause)| clause.clone())
                .collect();
            if missing.is_empty() {
                return Ok(Some(Vec::new()));
            }
            add_tables(name, &missing)
        }
    };
    if !config.source.manage {
        let what = match there {
            None => format!("there is no publication {name}, and `source.manage` is false"),
            Some(_) => format!("the publication {name} does not carry all tables, and `source.manage` is false"),
        };
        return Err(Fault::needs_person(what, format!("let the tables' owner run: {sql};")));
    }
    let ran = patiently(session, &sql, waiting).await.map_err(|fault| {
        // What waiting mends has its own remedy.
        if fault.exit == crate::model::Exit::Unavailable {
            return fault;
        }
        let remedy =
            format!("let a DBA run the script of `pg2planhat setup --print-sql`, or the tables' owner: {sql};");
        Fault::new(fault.exit, fault.what, remedy)
    })?;
    Ok(matches!(ran, Ran::Done(_)).then(|| vec![sql]))
}

async fn lacks_identity(session: &Session, config: &Config, info: &TableInfo) -> Result<bool, Fault> {
    let missing = replica_identity::missing(session, config, info).await;
    missing.map(|missing| missing.is_some()).map_err(|error| session.fault(&error))
}

/// What takes back a statement that [`ensure_publication`] or [`ensure_update_publication`] ran.
pub(crate) fn undo_publication(config: &Config, sql: &str) -> String {
    let all = PublicationKind::wanted(config);
    let added = all.iter().find_map(|kind| Some((&kind.name, sql.strip_prefix(&add_tables(&kind.name, &[]))?)));
    if let Some((name, tables)) = added {
        return format!("ALTER PUBLICATION {} DROP TABLE {tables}", quote::ident(name));
    }
    let made = all.iter().find(|kind| sql.starts_with(&format!("CREATE PUBLICATION {} ", quote::ident(&kind.name))));
    format!("DROP PUBLICATION {}", quote::ident(made.map_or(&config.source.publication, |kind| &kind.name)))
}

/// Whether the table is a partition of another table that is mapped: its section is refused, so it must not be published.
async fn is_beside_root(session: &Session, config: &Config, info: &TableInfo) -> Result<bool, Fault> {
    let Some(section) = config.sections.iter().find(|section| section.is_on() && section.table == info.name) else {
        return Ok(false);
    };
    let found = partition_roots::root_is_mapped(session, config, section, info.oid).await;
    Ok(found.map_err(|error| session.fault(&error))?.is_some())
}

/// The remedy of a table that is not there.
pub(crate) fn no_table(name: &TableName) -> Fault {
    Fault::usage(
        format!("there is no table {}", quote::qualified(name)),
        "mend the section's `table` (`pg2planhat discover` lists them)",
    )
}

/// Whether a publication that is there can be used.
pub(crate) fn fits(kind: &PublicationKind, publication: &Publication) -> Result<(), Fault> {
    let narrowed = publication.tables.iter().flat_map(|table| defects::narrowed(publication, table));
    match kind.defect(publication).into_iter().chain(narrowed).next() {
        Some(defect) => Err(Fault::needs_person(defect.to_string(), defect.sql().unwrap_or_default())),
        None => Ok(()),
    }
}

/// Makes the slot where there is none. Returns its consistent point if it was made now.
pub(crate) async fn ensure_slot(
    session: &Session,
    config: &Config,
    waiting: Waiting<'_>,
) -> Result<Option<Lsn>, Fault> {
    let name = &config.source.slot;
    let server = async { server::server(session).await.map_err(|error| session.fault(&error)) };
    let (server, there) = tokio::try_join!(server, settled_slot(session, name))?;
    if let Some(slot) = &there {
        slot.ours(name, &server.database.1)?;
    }
    match there {
        Some(slot) if slot.two_phase == Some(true) => return Err(two_phase(name)),
        Some(slot) if slot.confirmed_flush_lsn.is_some() => return Ok(None),
        // Half-made: a client vanished while it waited for open transactions. It goes by itself, or is being made.
        Some(_) => {
            return Err(Fault::unavailable(
                format!("the slot {name} is being made, or was left half-made"),
                "wait a moment: the server removes a half-made slot when its maker is gone",
            ));
        }
        None => {}
    }
    let sql = create_slot(name, config.source.failover_slot && server.version >= 170_000);
    if !config.source.manage {
        let what = format!("there is no slot {name}, and `source.manage` is false");
        return Err(Fault::needs_person(what, format!("run: {sql};")));
    }
    // Another process made it at the same moment: it is there.
    let Ran::Done(lsn) = patiently(session, &sql, waiting).await? else { return Ok(None) };
    lsn.as_deref().and_then(|lsn| lsn.parse().ok()).map(Some).ok_or_else(|| Fault::bug("a slot without a position"))
}

/// How long a slot that another session makes just now is waited for.
const SLOT_MADE_WITHIN: Duration = Duration::from_secs(10);

/// The slot; where another session makes it just now, `setup` beside `run` say, as it is when that is done.
async fn settled_slot(session: &Session, name: &str) -> Result<Option<slot::Slot>, Fault> {
    let mut waited = Duration::ZERO;
    loop {
        let there = slot::slot(session, name).await.map_err(|error| session.fault(&error))?;
        let half_made = there.as_ref().is_some_and(|slot| slot.active && slot.confirmed_flush_lsn.is_none());
        if !half_made || waited >= SLOT_MADE_WITHIN {
            return Ok(there);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
        waited += Duration::from_millis(250);
    }
}

/// A slot that decodes at PREPARE brings messages that this program never asks for.
pub(crate) fn two_phase(name: &str) -> Fault {
    Fault::needs_person(
        format!("the slot {name} was made with two_phase: it brings prepared transactions before they are committed"),
        format!(
            "SELECT pg_drop_replication_slot({}); then `pg2planhat run` (the first time) or `pg2planhat repair` makes it as it must be",
            quote::literal(name)
        ),
    )
}

/// Runs a statement that need not succeed now: in one short try.
pub(crate) async fn once(session: &Session, sql: &str) -> Result<(), Error> {
    session.batch_execute(LOCK_TIMEOUT).await?;
    session.batch_execute(sql).await
}

/// What became of a statement that makes something.
pub(crate) enum Ran {
    /// The first column of its first row.
    Done(Option<String>),
    /// What it makes was made by another session at the same moment.
    ThereAlready,
}

/// Runs a statement that may have to wait for other sessions: in short tries, naming who is in the way.
pub(crate) async fn patiently(session: &Session, sql: &str, waiting: Waiting<'_>) -> Result<Ran, Fault> {
    session.batch_execute(LOCK_TIMEOUT).await.map_err(|error| session.fault(&error))?;
    let mut blockers: Vec<Blocker> = Vec::new();
    for _ in 0..TRIES {
        match session.simple_query(sql).await {
            Ok(messages) => {
                let first = first_value(&messages);
                waiting(None);
                return Ok(Ran::Done(first));
            }
            // The second is of two who look at the same moment: neither sees the other's yet.
            Err(error) if matches!(error.code(), Some(&SqlState::DUPLICATE_OBJECT | &SqlState::UNIQUE_VIOLATION)) => {
                return Ok(Ran::ThereAlready);
            }
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                blockers = xmin_barrier::blockers(session).await.map_err(|error| session.fault(&error))?;
                tracing::warn!(
                    waiting_for = %names(&blockers),
                    "set-up waits for open transactions to end; end them, or wait"
                );
                waiting(Some(&held_up(SETUP_WAITS, &blockers, session)));
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) => return Err(session.fault(&error)),
        }
    }
    let fault = held_up(SETUP_WAITS, &blockers, session);
    Err(Fault::unavailable(format!("{}: for ten minutes", fault.what), fault.remedy))
}

/// Is told what a set-up waits for, and `None` when it goes on.
pub(crate) type Waiting<'a> = &'a (dyn Fn(Option<&Fault>) + Send + Sync);

const SETUP_WAITS: &str = "set-up waits for open transactions to end";

/// That something waits, and for whom.
pub(crate) fn held_up(what: &str, blockers: &[Blocker], session: &Session) -> Fault {
    let mut remedy =
        "wait, or end them: SELECT pg_terminate_backend(PID); for a prepared one ROLLBACK PREPARED".to_owned();
    if blockers.iter().any(|blocker| blocker.hidden) {
        let user = quote::ident(session.user());
        remedy += &format!("; to see what they do: GRANT pg_read_all_stats TO {user};");
    }
    Fault::unavailable(format!("{what}: {}", names(blockers)), remedy)
}

/// Whether a lock was not to be had within its time.
pub(crate) fn is_locked(error: &Error) -> bool {
    error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

/// That the lock of a table was not to be had, and who has it; `None` where the error is another one, or that cannot be asked.
pub(crate) async fn locked(session: &Session, error: &Error, table: u32, what: &str) -> Option<Fault> {
    if !is_locked(error) {
        return None;
    }
    let holders = locks::holders(session, table).await.ok()?;
    Some(held_up(what, &holders, session))
}

/// Blockers in one line.
pub(crate) fn names(blockers: &[Blocker]) -> String {
    if blockers.is_empty() {
        return "(already gone, or not shown to this role)".into();
    }
    blockers.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
