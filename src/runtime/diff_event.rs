//! What a comparison tells the event loop, and how far it is.
//!
//! * In: pieces of what is new or changed.
//! * Out: [`DiffEvent`]s, no more pieces ahead of their use than were allowed.
//! * Never: a transaction of the source held while the sink takes nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};

use crate::delivery::batch::RunEnd;
use crate::delivery::section::DiffChunk;
use crate::mapping::Mapping;
use crate::model::{Fault, KeyDigest, SectionId};
use crate::postgres::backfill::selection::Selection;
use crate::state::DiffRun;

/// How long a transaction is held for a sink that is slower than the source: at least, and at most.
const HOLD: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// What a comparison tells the event loop.
#[derive(Debug)]
pub(crate) enum DiffEvent {
    /// The result was looked at.
    Described(SectionId, Box<DescribedResult>),
    /// A piece of what is new or changed; the last one says how the comparison ended.
    Chunk(SectionId, Box<DiffChunk>),
}

/// What a comparison knows of the result before it reads it.
#[derive(Debug)]
pub(crate) struct DescribedResult {
    /// The comparison's number, and the digest of the names of the columns that it compares.
    pub run: (i64, i64),
    /// How rows become items.
    pub mapping: Mapping,
    /// How rows are read by their keys.
    pub by_key: Selection,
    /// Rows, by the planner's estimate.
    pub estimated: u64,
    /// From when on rows are read at all, where that is later than the section asks for.
    pub not_before: Option<String>,
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PieceFate {
    /// The event loop has it.
    Taken,
    /// There was no room for too long.
    Slow,
    /// Nobody listens any more.
    Unheard,
}

/// A comparison while it goes on.
pub(crate) struct DiffProgress {
    id: SectionId,
    ahead: Arc<Semaphore>,
    /// `None` where nobody is to be told: the result is only looked at.
    news: Option<mpsc::Sender<DiffEvent>>,
    /// What it found so far.
    pub(crate) run: DiffRun,
    /// When this pass began, and how long it has waited for the sink.
    pass: (Instant, Duration),
    /// The last row that was given in this pass, and what was found by then.
    given: Option<(KeyDigest, DiffRun)>,
    is_described: bool,
    /// Settled rows that a rule leaves out, as they are now: counted where the result is only looked at.
    pub(crate) left_out: u64,
}

impl DiffProgress {
    /// A comparison that begins now; `ahead` has a permit for each piece that may be ahead of its use.
    pub(crate) fn new(id: SectionId, ahead: Arc<Semaphore>, news: mpsc::Sender<DiffEvent>) -> DiffProgress {
        let run = DiffRun { started_at: jiff::Timestamp::now().to_string(), ..DiffRun::default() };
        DiffProgress {
            id,
            ahead,
            news: Some(news),
            run,
            pass: (Instant::now(), Duration::ZERO),
            given: None,
            is_described: false,
            left_out: 0,
        }
    }

    /// A look at the result, of which nobody is told.
    pub(crate) fn look(id: SectionId) -> DiffProgress {
        let (pass, ahead) = ((Instant::now(), Duration::ZERO), Arc::new(Semaphore::new(1)));
        let run = DiffRun::default();
        DiffProgress { id, ahead, news: None, run, pass, given: None, is_described: false, left_out: 0 }
    }

    /// Whether the result is only looked at.
    pub(crate) fn is_look(&self) -> bool {
        self.news.is_none()
    }

    /// A transaction was opened.
    pub(crate) fn begin_pass(&mut self) {
        self.pass = (Instant::now(), Duration::ZERO);
        self.given = None;
    }

    /// Whether the result was not described yet; it is taken as described now.
    pub(crate) fn is_undescribed(&mut self) -> bool {
        !std::mem::replace(&mut self.is_described, true)
    }

    /// Tells the event loop; `false` where nobody listens any more.
    pub(crate) async fn tell(&self, event: DiffEvent) -> bool {
        match &self.news {
            Some(news) => news.send(event).await.is_ok(),
            None => true,
        }
    }

    /// Waits until there is room for a piece; `false` where nobody listens any more.
    pub(crate) async fn has_room(&self) -> bool {
        self.ahead.acquire().await.is_ok() && self.news.as_ref().is_none_or(|news| !news.is_closed())
    }

    /// Gives a piece whose last row is `through`, when so much was found.
    pub(crate) async fn give(&mut self, chunk: DiffChunk, through: KeyDigest, found: DiffRun) -> PieceFate {
        if self.news.is_none() {
            return PieceFate::Taken;
        }
        let (began, waited) = self.pass;
        let hold = began.elapsed().saturating_sub(waited).clamp(HOLD.0, HOLD.1).saturating_sub(waited);
        let waits = Instant::now();
        let permit = match tokio::time::timeout(hold, self.ahead.acquire()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return PieceFate::Unheard,
            Err(_) => return PieceFate::Slow,
        };
        permit.forget();
        self.pass.1 += waits.elapsed();
        self.given = Some((through, found));
        if self.tell(DiffEvent::Chunk(self.id, Box::new(chunk))).await { PieceFate::Taken } else { PieceFate::Unheard }
    }

    /// Goes back to the last row that was given in this pass, or to where the pass began.
    pub(crate) fn go_back(&mut self, began: DiffRun) -> Option<KeyDigest> {
        let (through, run) = self.given.take().unzip();
        self.run = run.unwrap_or(began);
        through
    }

    /// Tells how it ended. Where nobody listens any more, the next instance compares again.
    pub(crate) async fn end(self, failed: Option<Fault>) {
        let end = Some(RunEnd { run: self.run.clone(), failed });
        self.tell(DiffEvent::Chunk(self.id, Box::new(DiffChunk { end, ..DiffChunk::default() }))).await;
    }
}
