//! Reading the key ranges: one task a section, beside the stream.
//!
//! * In: where a section's range begins (and ends, where its xmin barrier has passed already).
//! * Out: [`BackfillEvent`], in order.
//! * Never: more chunks ahead than were allowed; a chunk given up because a connection broke; a snapshot held while nobody uses
//!   the chunks; a turn taken from the event loop: they have a thread of their own, so that the server sends while batches are
//!   made and sent.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio_postgres::error::SqlState;

use crate::config::{InDoubt, Section, Source};
use crate::model::{Exit, Fault, Key, SectionId};
use crate::postgres::backfill::range_reader::{CHUNK_BYTES, RangeOpened, RangeReader, TableChunk, WholeRange};
use crate::postgres::backfill::rows_since::rewritten_since;
use crate::postgres::backfill::selection::{SESSION, Selection};
use crate::postgres::catalog::{table, xmin_barrier};
use crate::postgres::connection::session::{Session, is_transient};
use crate::postgres::setup;
use crate::runtime::backfill_event::{BackfillEvent, BackfillNews};
use crate::runtime::same_server::SameServer;
use crate::telemetry::log_output::{Passage, Throttle};

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
/// What one backfill may hold, in chunks as aimed at: three that wait, one that is read, each up to twice as large.
const CHUNKS_HELD: usize = 8;
/// How long a COPY under way waits for whoever uses its chunks.
const REST: Duration = Duration::from_millis(100);

impl Room {
    pub(crate) fn new(bytes: usize) -> Room {
        Room { turns: Arc::new(Semaphore::new(TURNS)), readers: Arc::new(()), bytes }
    }

    /// The bytes that a chunk aims at, with as many backfills as there are now.
    fn chunk(&self) -> usize {
        let readers = Arc::strong_count(&self.readers).saturating_sub(1).max(1);
        (self.bytes / CHUNKS_HELD / readers).clamp(SMALLEST_CHUNK, CHUNK_BYTES)
    }
}

/// What the tries of a task leave to the next one.
struct Tries {
    /// The last one failed.
    failed: bool,
    /// How many rows a COPY asks for.
    limit: Option<usize>,
    /// How long a silence is borne, in times of what a prompt answer may take.
    patience: u32,
}

/// What is to be read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Copy,
    Nothing,
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
        let mut said = Throttle::new(1, SAY_AGAIN);
        // Of a large table that was never read the first rows may take minutes: each silence is borne twice as long.
        let mut tries = Tries { failed: false, limit: None, patience: FIRST_PATIENCE };
        loop {
            match self.attempt(&source, (&room, &ahead), &news, &mut tries).await {
                Ok(()) => return,
                Err(fault) => {
                    let wait = if fault.exit == Exit::Unavailable { Duration::from_secs(1) } else { RETRY };
                    if let Passage::Log { suppressed } = said.event(fault.exit.code(), Instant::now()) {
                        let (what, remedy) = (&fault.what, &fault.remedy);
                        tracing::warn!(section = %self.section.name, suppressed, what, remedy, "the backfill waits");
                    }
                    tries.failed = true;
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
        (room, ahead): (&Room, &Semaphore),
        news: &BackfillNews,
        tries: &mut Tries,
    ) -> Result<(), Fault> {
        let session = self.server.connect(source, "backfill").await?;
        session.set_patience(session.patience() * tries.patience);
        tries.patience = (tries.patience * 2).min(MOST_PATIENCE);
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
        let (selection, whole) = (self.selection.clone(), self.whole.clone());
        let range = (&ceiling, whole.as_ref());
        let mut reader = RangeReader::begin(&session, &selection, range, self.unrewritten_since.is_none(), tries.limit)
            .await
            .map_err(at)?;
        if !self.tell_doubts(&session, news).await? {
            return Ok(());
        }
        loop {
            let asked = Instant::now();
            let Ok(permit) = ahead.acquire().await else { return Ok(()) };
            if asked.elapsed() > REST {
                reader.slow_down();
            }
            // Only for the reading itself: one that cannot go on must not keep it from the others.
            let Ok(_reading) = room.turns.acquire().await else { return Ok(()) };
            let read = self.read_copy(&session, &mut reader, (room, ahead), permit, (news, tries)).await;
            tries.limit = Some(reader.limit());
            if read? == Next::Nothing {
                return Ok(());
            }
        }
    }

    /// Reads a COPY to its end, or until nobody uses its chunks; the permit is for its first one.
    async fn read_copy(
        &mut self,
        session: &Session,
        reader: &mut RangeReader<'_>,
        (room, ahead): (&Room, &Semaphore),
        mut permit: SemaphorePermit<'_>,
        (news, tries): (&BackfillNews, &mut Tries),
    ) -> Result<Next, Fault> {
        match reader.open(self.cursor.as_ref()).await {
            Ok(RangeOpened::Reading) => {}
            Ok(RangeOpened::OtherTable) => return Err(self.other_table()),
            Err(error) => return Err(self.fault_of_read(session, &error).await),
        }
        loop {
            let chunk = match reader.next(room.chunk()).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(Next::Copy),
                Err(error) => return Err(self.fault_of_read(session, &error).await),
            };
            tries.patience = FIRST_PATIENCE;
            if std::mem::take(&mut tries.failed) && news.send(BackfillEvent::Recovered(self.id)).await.is_err() {
                return Ok(Next::Nothing);
            }
            self.verify_age(session).await?;
            if !chunk.rows.is_empty() || chunk.last {
                let (last, last_key) = (chunk.last, self.selection.last_key(&chunk.rows));
                // Whatever followed it would be left out in silence.
                if last_key.is_none() && !chunk.rows.is_empty() {
                    return Err(self.unusable_key());
                }
                if !self.give(session, reader, chunk, news).await? {
                    return Ok(Next::Nothing);
                }
                permit.forget();
                self.cursor = last_key.or(self.cursor.take());
                if last {
                    return Ok(Next::Nothing);
                }
            }
            if !reader.is_open() {
                return Ok(Next::Copy);
            }
            permit = match tokio::time::timeout(REST, ahead.acquire()).await {
                Ok(Ok(permit)) => permit,
                Ok(Err(_)) => return Ok(Next::Nothing),
                Err(_) => {
                    reader.give_up().await.map_err(|error| self_fault(session, &error))?;
                    return Ok(Next::Copy);
                }
            };
        }
    }

    /// Gives a chunk away. A COPY does not wait for that: its snapshot would. Returns whether anybody listens.
    async fn give(
        &self,
        session: &Session,
        reader: &mut RangeReader<'_>,
        chunk: TableChunk,
        news: &BackfillNews,
    ) -> Result<bool, Fault> {
        let mut given = pin!(news.send(BackfillEvent::Chunk(self.id, chunk)));
        if let Ok(given) = tokio::time::timeout(REST, &mut given).await {
            return Ok(given.is_ok());
        }
        reader.give_up().await.map_err(|error| self_fault(session, &error))?;
        Ok(given.await.is_ok())
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
        let what = "the backfill waits for a lock on its table";
        if setup::is_locked(error)
            && session.batch_execute("ROLLBACK").await.is_ok()
            && let Some(fault) = setup::locked(session, error, self.oid, what).await
        {
            return fault;
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

    /// The name that it had is another table's.
    fn other_table(&self) -> Fault {
        let what = format!("section {}: the name of its table is another table's now", self.section.name);
        Fault::unavailable(what, "it is looked for by its OID; the backfill goes on by itself")
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
        session.batch_execute(SESSION).await.map_err(at)?;
        self.selection.end(session, self.cursor.as_ref()).await.map_err(at)
    }
}

/// The fault of a statement of the backfill.
fn self_fault(session: &Session, error: &tokio_postgres::Error) -> Fault {
    let fault = session.fault(error);
    // A table that is not there under its name may have been renamed: the next attempt finds it by its OID.
    let renamed = error.code() == Some(&SqlState::UNDEFINED_TABLE);
    if renamed || setup::is_locked(error) || is_transient(error) {
        Fault::unavailable(fault.what, fault.remedy)
    } else {
        fault
    }
}
