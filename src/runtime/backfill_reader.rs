//! Reading the key ranges: one task a section, beside the stream.
//!
//! * In: where a section's range begins (and ends, where its xmin barrier has passed already).
//! * Out: [`BackfillEvent`], in order.
//! * Never: more chunks ahead than were allowed; a chunk given up because a connection broke; a turn taken from the event loop:
//!   they have a thread of their own, so that the server sends while batches are made and sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_postgres::error::SqlState;

use crate::config::{InDoubt, Section, Source};
use crate::model::{Exit, Fault, Key, SectionId};
use crate::postgres::backfill::chunk_reader;
use crate::postgres::backfill::chunk_reader::{Selection, TableChunk, WholeRange};
use crate::postgres::backfill::rows_since::rewritten_since;
use crate::postgres::catalog::types::Types;
use crate::postgres::catalog::{locks, table, xmin_barrier};
use crate::postgres::connection::session::{Session, is_transient};
use crate::postgres::setup;
use crate::runtime::same_server::SameServer;
use crate::telemetry::log_output::{Passage, Throttle};

/// What a backfill's reader tells the event loop.
#[derive(Debug)]
pub(crate) enum BackfillEvent {
    /// The xmin barrier has passed: the range ends at this key, after so many rows, by estimate. `None`: there are no rows.
    EndFound(SectionId, Option<(Key, u64)>),
    /// A chunk was read.
    Chunk(SectionId, TableChunk),
    /// The table has rows with these keys between the ends of a batch in doubt (its ledger id).
    Doubted(SectionId, i64, Vec<Key>),
    /// It cannot be read until somebody mends something; it is tried again.
    Failed(SectionId, Fault),
    /// It waits for open transactions to end; and whose.
    Waits(SectionId, Fault),
    /// It can be read again.
    Recovered(SectionId),
}

impl BackfillEvent {
    pub(crate) fn section(&self) -> SectionId {
        match self {
            BackfillEvent::EndFound(id, _)
            | BackfillEvent::Chunk(id, _)
            | BackfillEvent::Doubted(id, ..)
            | BackfillEvent::Failed(id, _)
            | BackfillEvent::Waits(id, _)
            | BackfillEvent::Recovered(id) => *id,
        }
    }
}

/// Where a reader tells, under its number.
#[derive(Clone, Debug)]
pub(crate) struct BackfillNews {
    pub(crate) number: u64,
    pub(crate) events: mpsc::Sender<(u64, BackfillEvent)>,
}

impl BackfillNews {
    /// Returns whether somebody listens.
    async fn send(&self, event: BackfillEvent) -> Result<(), ()> {
        self.events.send((self.number, event)).await.map_err(|_| ())
    }

    /// As far as there is room.
    fn try_send(&self, event: BackfillEvent) -> Result<(), ()> {
        self.events.try_send((self.number, event)).map_err(|_| ())
    }
}

/// One section's range.
#[derive(Debug)]
pub(crate) struct BackfillTask {
    /// Whose it is.
    pub id: SectionId,
    /// Where the stream comes from.
    pub server: SameServer,
    /// The section.
    pub section: Section,
    /// What is read.
    pub selection: Selection,
    /// The table's OID: it is the same one under whatever name.
    pub oid: u32,
    /// The transaction since which it must not have been rewritten: its rows are told by their transactions.
    pub unrewritten_since: Option<u64>,
    /// Batches of it that are in doubt: ledger id, first and last key.
    pub doubts: Vec<(i64, Key, Key)>,
    /// Where the range begins, where that is known: its rows are counted at its end.
    pub whole: Option<WholeRange>,
    /// Everything up to here is settled.
    pub cursor: Option<Key>,
    /// The last key, where the xmin barrier has passed already.
    pub ceiling: Option<Key>,
}

/// The thread on which ranges are read. Its tasks end with it.
#[derive(Debug)]
pub(crate) struct BackfillReader {
    handle: tokio::runtime::Handle,
    /// Dropped with this: the thread's own word to end.
    _ends: oneshot::Sender<()>,
}

impl BackfillReader {
    /// Starts it.
    ///
    /// # Errors
    /// Where the operating system gives no thread.
    pub(crate) fn start() -> std::io::Result<BackfillReader> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (ends, ended) = oneshot::channel::<()>();
        std::thread::Builder::new().name("ranges".into()).spawn(move || {
            runtime.block_on(async {
                if ended.await.is_err() { /* the event loop has ended: that is the end */ }
            });
        })?;
        Ok(BackfillReader { handle, _ends: ends })
    }

    /// Where its tasks are spawned.
    pub(crate) fn handle(&self) -> &tokio::runtime::Handle {
        &self.handle
    }
}

/// What the backfills under way share: turns to read, and memory.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    turns: Arc<Semaphore>,
    /// Counts the backfills under way: each holds one.
    readers: Arc<()>,
    /// Bytes for the chunks of all of them.
    bytes: usize,
}

/// How many backfills may read at the same moment.
const TURNS: usize = 4;
/// A smaller chunk costs more than it saves.
const SMALLEST_CHUNK: usize = 64 << 10;
/// What one backfill may hold, in chunks as aimed at: two that wait, one that is read, each up to twice as large.
const CHUNKS_HELD: usize = 6;

impl Room {
    pub(crate) fn new(bytes: usize) -> Room {
        Room { turns: Arc::new(Semaphore::new(TURNS)), readers: Arc::new(()), bytes }
    }

    /// The bytes that a chunk aims at, with as many backfills as there are now.
    fn chunk(&self) -> usize {
        let readers = Arc::strong_count(&self.readers).saturating_sub(1).max(1);
        (self.bytes / CHUNKS_HELD / readers).clamp(SMALLEST_CHUNK, chunk_reader::CHUNK_BYTES)
    }
}

/// How long a silence is borne, in times of what a prompt answer may take: two minutes at first, an hour at most.
const FIRST_PATIENCE: u32 = 2;
const MOST_PATIENCE: u32 = 60;
/// How long it waits before it tries again what a person must mend.
const RETRY: Duration = Duration::from_secs(15);
/// How often a hindrance of one kind is logged.
const SAY_AGAIN: Duration = Duration::from_secs(60);

impl BackfillTask {
    /// Reads to the end of the range. `room` bounds how many ranges are read at once and how large a chunk is, `ahead` how
    /// many chunks this one may be ahead of their use.
    pub(crate) async fn run(mut self, source: Source, room: Room, ahead: Arc<Semaphore>, news: BackfillNews) {
        let (mut failed, mut said) = (false, Throttle::new(1, SAY_AGAIN));
        let mut limit = chunk_reader::next_limit(None, room.chunk());
        // Of a large table that was never read the first rows may take minutes: each silence is borne twice as long.
        let mut patience = FIRST_PATIENCE;
        loop {
            match self.attempt(&source, &room, &ahead, &news, (&mut failed, &mut limit, &mut patience)).await {
                Ok(()) => return,
                Err(fault) => {
                    let wait = if fault.exit == Exit::Unavailable { Duration::from_secs(1) } else { RETRY };
                    if let Passage::Log { suppressed } = said.event(fault.exit.code(), Instant::now()) {
                        let (what, remedy) = (&fault.what, &fault.remedy);
                        tracing::warn!(section = %self.section.name, suppressed, what, remedy, "the backfill waits");
                    }
                    failed = true;
                    if news.send(BackfillEvent::Failed(self.id, fault)).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    async fn attempt(
        &mut self,
        source: &Source,
        room: &Room,
        ahead: &Semaphore,
        news: &BackfillNews,
        (failed, limit, patience): (&mut bool, &mut usize, &mut u32),
    ) -> Result<(), Fault> {
        let session = self.server.connect(source, "backfill").await?;
        session.set_patience(session.patience() * *patience);
        *patience = (*patience * 2).min(MOST_PATIENCE);
        let at = |error: tokio_postgres::Error| self_fault(&session, &error);
        if let Some(table) = table::by_oid(&session, self.oid).await.map_err(at)? {
            self.selection.follow(&table);
        }
        let ceiling = match &self.ceiling {
            Some(ceiling) => ceiling.clone(),
            None => {
                let end = self.end_of_range(&session, news).await?;
                self.ceiling = end.as_ref().map(|(ceiling, _)| ceiling.clone());
                if news.send(BackfillEvent::EndFound(self.id, end)).await.is_err() {
                    return Ok(());
                }
                let Some(ceiling) = self.ceiling.clone() else { return Ok(()) };
                ceiling
            }
        };
        session.batch_execute(chunk_reader::SESSION).await.map_err(at)?;
        let mut types = Types::load(&session).await.map_err(at)?;
        if !self.tell_doubts(&session, news).await? {
            return Ok(());
        }
        loop {
            let Ok(permit) = ahead.acquire().await else { return Ok(()) };
            permit.forget();
            // Only for the reading itself: one that cannot go on must not keep it from the others.
            let Ok(reading) = room.turns.acquire().await else { return Ok(()) };
            let (range, whole) = ((self.cursor.as_ref(), &ceiling), self.whole.as_ref());
            let read = self.selection.read(&session, &mut types, range, whole, *limit, room.chunk()).await;
            let chunk = match read {
                Ok(chunk) => chunk,
                Err(error) => {
                    ahead.add_permits(1);
                    drop(reading);
                    return Err(self.fault_of_read(&session, &error).await);
                }
            };
            drop(reading);
            *patience = FIRST_PATIENCE;
            if std::mem::take(failed) && news.send(BackfillEvent::Recovered(self.id)).await.is_err() {
                return Ok(());
            }
            if let Err(fault) = self.verify_age(&session).await {
                ahead.add_permits(1);
                return Err(fault);
            }
            let last_key = self.selection.last_key(&chunk.rows);
            // Whatever followed it would be left out in silence.
            if last_key.is_none() && !chunk.rows.is_empty() {
                ahead.add_permits(1);
                return Err(self.unusable_key());
            }
            *limit = chunk_reader::next_limit(Some(&chunk.rows), room.chunk());
            self.cursor = last_key.or(self.cursor.take());
            let last = chunk.last;
            if news.send(BackfillEvent::Chunk(self.id, chunk)).await.is_err() || last {
                return Ok(());
            }
        }
    }

    /// Reads the keys of the batches in doubt. Returns whether anybody listens.
    async fn tell_doubts(&mut self, session: &Session, news: &BackfillNews) -> Result<bool, Fault> {
        while let Some((id, first, last)) = self.doubts.last() {
            let all = self.section.in_doubt == InDoubt::Hold;
            let keys = self.selection.keys_between(session, first, last, all).await;
            let keys = keys.map_err(|error| self_fault(session, &error))?;
            if news.send(BackfillEvent::Doubted(self.id, *id, keys)).await.is_err() {
                return Ok(false);
            }
            self.doubts.pop();
        }
        Ok(true)
    }

    /// Why a chunk was not read; where the table is locked, by whom.
    async fn fault_of_read(&self, session: &Session, error: &tokio_postgres::Error) -> Fault {
        if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
            && session.batch_execute("ROLLBACK").await.is_ok()
            && let Ok(holders) = locks::holders(session, self.oid).await
        {
            return setup::held_up("the backfill waits for a lock on its table", &holders, session);
        }
        self_fault(session, error)
    }

    /// Whether the rows that were read are told from older ones. Looked at behind them: what they showed was not rewritten yet.
    async fn verify_age(&self, session: &Session) -> Result<(), Fault> {
        let Some(floor) = self.unrewritten_since else { return Ok(()) };
        let rewritten = rewritten_since(session, self.oid, floor).await;
        if !rewritten.map_err(|error| self_fault(session, &error))? {
            return Ok(());
        }
        let name = &self.section.name;
        Err(Fault::needs_person(
            format!(
                "section {name}: its table was rewritten before the rows were read that came since it was asked for: \
                 they cannot be told from older ones"
            ),
            "give the section another name, with `start: now`, or `start: { after_key: … }` with the last key of before",
        ))
    }

    /// A key that is no text stands at a chunk's end.
    fn unusable_key(&self) -> Fault {
        let behind = self.cursor.as_ref().map_or("at the beginning".to_owned(), |key| format!("behind {key}"));
        Fault::usage(
            format!("section {}: {behind} there is a key that is not valid UTF-8, or NULL", self.section.name),
            "mend the key of that row, or choose another key column; the backfill goes on by itself",
        )
    }

    /// Waits for the xmin barrier, then finds the range's end.
    async fn end_of_range(&self, session: &Session, news: &BackfillNews) -> Result<Option<(Key, u64)>, Fault> {
        let at = |error: tokio_postgres::Error| self_fault(session, &error);
        let waiting = |blockers: &[xmin_barrier::Blocker]| {
            let what = "the backfill begins when transactions that were open when it was attached have ended";
            // Where the loop does not take it in time, the next one says it again.
            news.try_send(BackfillEvent::Waits(self.id, setup::held_up(what, blockers, session))).ok();
        };
        xmin_barrier::pass(session, waiting).await.map_err(at)?;
        session.batch_execute(chunk_reader::SESSION).await.map_err(at)?;
        self.selection.end(session, self.cursor.as_ref()).await.map_err(at)
    }
}

/// The fault of a statement of the backfill.
fn self_fault(session: &Session, error: &tokio_postgres::Error) -> Fault {
    let fault = session.fault(error);
    // A table that is not there under its name may have been renamed: the next attempt finds it by its OID.
    let renamed = error.code() == Some(&SqlState::UNDEFINED_TABLE);
    let locked = error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE);
    if renamed || locked || is_transient(error) { Fault::unavailable(fault.what, fault.remedy) } else { fault }
}
