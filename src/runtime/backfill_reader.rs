//! Reading the key ranges: one task a section, beside the stream.
//!
//! * In: where a section's range begins (and ends, where its fence has passed already).
//! * Out: [`BackfillEvent`], in order.
//! * Never: more chunks ahead than were allowed; a chunk given up because a connection broke; a turn taken from the corridor:
//!   they have a thread of their own, so that the server sends while batches are made and sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_postgres::error::SqlState;

use crate::config::{Section, Source};
use crate::delivery::section::Chunk;
use crate::model::{Exit, Fault, Key, KeyType, SectionId};
use crate::postgres::backfill::chunk_reader;
use crate::postgres::backfill::chunk_reader::Selection;
use crate::postgres::catalog::{table, xmin_barrier};
use crate::postgres::connection::session::{Session, connect_sql, is_transient};
use crate::postgres::setup;
use crate::telemetry::log_output::{Passage, Throttle};

/// What a backfill's reader tells the event loop.
#[derive(Debug)]
pub(crate) enum BackfillEvent {
    /// The fence has passed: the range ends at this key, after so many rows, by estimate. `None`: there are no rows.
    Fenced(SectionId, Option<(Key, u64)>),
    /// A chunk was read.
    Chunk(SectionId, Chunk),
    /// It cannot be read until somebody mends something; it is tried again.
    Failed(SectionId, Fault),
    /// It can be read again.
    Recovered(SectionId),
}

/// One section's range.
#[derive(Debug)]
pub(crate) struct BackfillTask {
    /// Whose it is.
    pub id: SectionId,
    /// The section.
    pub section: Section,
    /// What is read.
    pub selection: Selection,
    /// The table's OID: it is the same one under whatever name.
    pub oid: u32,
    /// How its keys are read.
    pub key_type: KeyType,
    /// The key's column among those read.
    pub key_column: usize,
    /// Everything up to here is settled.
    pub cursor: Option<Key>,
    /// The last key, where the fence has passed already.
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

/// How long it waits before it tries again what a person must mend.
const RETRY: Duration = Duration::from_secs(15);
/// How often a hindrance of one kind is logged.
const SAY_AGAIN: Duration = Duration::from_secs(60);

impl BackfillTask {
    /// Reads to the end of the range. `turn` bounds how many ranges are read at once, `ahead` how many chunks this one may
    /// be ahead of their use.
    pub(crate) async fn run(
        mut self,
        source: Source,
        turn: Arc<Semaphore>,
        ahead: Arc<Semaphore>,
        news: mpsc::Sender<BackfillEvent>,
    ) {
        let Ok(_turn) = turn.acquire_owned().await else { return };
        let (mut failed, mut said) = (false, Throttle::new(1, SAY_AGAIN));
        let mut limit = chunk_reader::next_limit(None);
        loop {
            match self.attempt(&source, &ahead, &news, &mut failed, &mut limit).await {
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
        ahead: &Semaphore,
        news: &mpsc::Sender<BackfillEvent>,
        failed: &mut bool,
        limit: &mut usize,
    ) -> Result<(), Fault> {
        let session = connect_sql(source, "backfill").await?;
        let at = |error: tokio_postgres::Error| self_fault(&session, &error);
        if let Some(table) = table::by_oid(&session, self.oid).await.map_err(at)? {
            self.selection.follow(&table);
        }
        let ceiling = match &self.ceiling {
            Some(ceiling) => ceiling.clone(),
            None => match self.fence(&session).await? {
                Some((ceiling, estimated)) => {
                    self.ceiling = Some(ceiling.clone());
                    let fenced = BackfillEvent::Fenced(self.id, Some((ceiling.clone(), estimated)));
                    if news.send(fenced).await.is_err() {
                        return Ok(());
                    }
                    ceiling
                }
                None => {
                    let _gone = news.send(BackfillEvent::Fenced(self.id, None)).await;
                    return Ok(());
                }
            },
        };
        session.batch_execute(chunk_reader::SESSION).await.map_err(at)?;
        loop {
            let Ok(permit) = ahead.acquire().await else { return Ok(()) };
            permit.forget();
            let piece = match self.selection.read(&session, self.cursor.as_ref(), &ceiling, *limit).await {
                Ok(piece) => piece,
                Err(error) => {
                    ahead.add_permits(1);
                    return Err(self_fault(&session, &error));
                }
            };
            if std::mem::take(failed) && news.send(BackfillEvent::Recovered(self.id)).await.is_err() {
                return Ok(());
            }
            let last_key = piece.rows.iter().last().map(|row| row.get(self.key_column));
            let last_key = match last_key {
                Some(crate::model::Value::Text(text)) => Key::parse(text, self.key_type).ok(),
                Some(crate::model::Value::Null | crate::model::Value::Oversize) | None => None,
            };
            // Whatever followed it would be left out in silence.
            if last_key.is_none() && !piece.rows.is_empty() {
                return Err(self.unusable_key());
            }
            let short = piece.rows.len() < *limit && !piece.cut;
            let last = short || last_key.as_ref().is_none_or(|key| *key >= ceiling);
            *limit = chunk_reader::next_limit(Some(&piece.rows));
            self.cursor = last_key.or(self.cursor.take());
            let chunk = Chunk { rows: piece.rows, wait_for: piece.wait_for, last };
            if news.send(BackfillEvent::Chunk(self.id, chunk)).await.is_err() || last {
                return Ok(());
            }
        }
    }

    /// A key that cannot be read stands at a chunk's end.
    fn unusable_key(&self) -> Fault {
        let behind = self.cursor.as_ref().map_or("at the beginning".to_owned(), |key| format!("behind {key}"));
        Fault::usage(
            format!(
                "section {}: {behind} there is a key that is NULL, not finite, or over 32 characters",
                self.section.name
            ),
            "mend the key of that row, or choose another key column; the backfill goes on by itself",
        )
    }

    /// Waits for the fence, then finds the range's end.
    async fn fence(&self, session: &Session) -> Result<Option<(Key, u64)>, Fault> {
        let at = |error: tokio_postgres::Error| self_fault(session, &error);
        let name = &self.section.name;
        let waiting = |blockers: &[xmin_barrier::Blocker]| {
            tracing::warn!(section = %name, waiting_for = %setup::names(blockers),
                "the backfill begins when transactions that are open now have ended; end them, or wait");
        };
        xmin_barrier::pass(session, waiting).await.map_err(at)?;
        session.batch_execute("SET row_security = off").await.map_err(at)?;
        let Some(text) = self.selection.ceiling(session, self.cursor.as_ref()).await.map_err(at)? else {
            return Ok(None);
        };
        let ceiling = Key::parse(text.as_bytes(), self.key_type).map_err(|error| {
            Fault::usage(
                format!("section {name}: the greatest key cannot be used: {error}"),
                "choose a key of an integer, numeric, date or timestamp type, with finite values of at most 32 characters",
            )
        })?;
        let estimated = self.selection.estimate(session, self.cursor.as_ref(), &ceiling).await.map_err(at)?;
        Ok(Some((ceiling, estimated)))
    }
}

/// The fault of a statement of the backfill.
fn self_fault(session: &Session, error: &tokio_postgres::Error) -> Fault {
    let fault = session.fault(error);
    // A table that is not there under its name may have been renamed: the next attempt finds it by its OID.
    let renamed = error.code() == Some(&SqlState::UNDEFINED_TABLE);
    if renamed || is_transient(error) { Fault::unavailable(fault.what, fault.remedy) } else { fault }
}
