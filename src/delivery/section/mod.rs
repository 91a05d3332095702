//! One section's way from rows to settled batches. Pure.
//!
//! * In: rows with their mapping, chunks of the backfill, answers to requests, the clock's reading.
//! * Out: batches to send, and the [`Op`]s that record what became of them.
//! * Never: more requests at once than `batch.in_flight` allows, a row left out of both delivery and quarantine, a request that the ledger does not name.

pub(crate) mod attempt;
pub(crate) mod backfill;
pub(crate) mod diff_queue;
pub(crate) mod doubt_brake;
pub(crate) mod flow;
pub(crate) mod followers;
pub(crate) mod intake;
pub(crate) mod mapping_brake;
pub(crate) mod quarantine_retry;
pub(crate) mod queue;
pub(crate) mod refusals;
pub(crate) mod schedule;
pub(crate) mod settlement;
pub(crate) mod step;
pub(crate) mod switches;
pub(crate) mod unknown_fate;

pub use crate::delivery::section::backfill::{BackfillQueue, Chunk};
pub(crate) use crate::delivery::section::diff_queue::{DiffChunk, DiffQueue};
pub(crate) use crate::delivery::section::doubt_brake::DoubtBrake;
pub use crate::delivery::section::flow::Trouble;
pub(crate) use crate::delivery::section::flow::{Blocked, Flow};
pub(crate) use crate::delivery::section::followers::Followers;
pub(crate) use crate::delivery::section::mapping_brake::MappingBrake;
pub(crate) use crate::delivery::section::queue::{IncomingRow, Queue};
pub(crate) use crate::delivery::section::schedule::{CalendarLook, Daily, OpenedAt};
pub(crate) use crate::delivery::section::step::{DeliveryStage, DeliveryStep, Settled};

use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use crate::config::{BatchLimits, Flush, InDoubt, Kind, Section};
use crate::delivery::batch::{Batch, SettledUpTo};
use crate::delivery::key_set::KeySet;
use crate::mapping::Mapping;
use crate::model::{Key, KeyDigest, Position, RowCounts, SectionName};
use crate::state::SectionPhase;

/// How many single items or rows may be refused one after the other before that counts as the mapping's fault.
pub(crate) const BAD_IN_A_ROW: u32 = 10;

/// The age at which a batch of a backfill goes, where streamed ones go once a day.
const BACKFILL_AGE: Duration = Duration::from_secs(5);

/// The span of a batch in doubt: its rows come again, and this says when they have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// Streamed rows.
    Stream(Position, Position),
    /// Rows of a backfill: its first and last key, and the keys between them that the table has.
    Keys(Key, Key, KeySet),
    /// Rows of a compared result.
    Digests(KeyDigest, KeyDigest),
}

impl Span {
    /// Whether nothing of it is left once everything up to `through` is settled.
    fn ends_by(&self, through: &SettledUpTo) -> bool {
        match (self, through) {
            (Span::Stream(_, last), SettledUpTo::Stream(reached)) => last <= reached,
            (Span::Keys(_, last, _), SettledUpTo::Key(reached)) => last == reached,
            (Span::Keys(..), SettledUpTo::BackfillEnd) => true,
            (Span::Digests(_, last), SettledUpTo::Digest(reached)) => last <= reached,
            (Span::Digests(..), SettledUpTo::RunEnd(end)) => end.failed.is_none(),
            (Span::Stream(..) | Span::Keys(..) | Span::Digests(..), _) => false,
        }
    }
}

impl Span {
    /// The rows of a backfill between these keys, both included.
    pub fn between(first: Key, last: Key) -> Span {
        Span::Keys(first, last, KeySet::default())
    }

    /// Whether the row with this key is the last of it.
    fn ends_with(&self, key: &[u8]) -> bool {
        matches!(self, Span::Keys(_, last, _) if last.as_str().as_bytes() == key)
    }
}

/// A batch in doubt whose rows are not settled yet: from before this process, or from a request of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InDoubtBatch {
    /// Its ledger id.
    pub id: i64,
    /// Its items.
    pub rows: u32,
    /// Where its rows were.
    pub span: Span,
    /// Nobody knows which rows it had: those that come again within its span are counted.
    pub open: bool,
}

/// One section: its rows on their way to the sink.
#[derive(Debug)]
pub struct SectionDelivery {
    name: SectionName,
    limits: BatchLimits,
    /// Updated rows are sent too.
    sends_updates: bool,
    /// Streamed rows are due, and go behind what was backfilled before: no chunk is taken meanwhile.
    stream_waits: bool,
    flush: Flush,
    daily: Daily,
    in_doubt: InDoubt,
    flow: Flow,
    /// It is stopped because its table does not fit: when that does again, it goes on by itself.
    is_unfit: bool,
    /// It is stopped because its mapping refused one row after the other.
    is_stopped_by_mapping: bool,
    mapping_brake: MappingBrake,
    /// Since when the section cannot send.
    stuck: Option<Duration>,
    /// The backfill or re-sync that is read beside the stream.
    backfill: Option<BackfillQueue>,
    /// The comparisons of its result, where its rows do not come by the stream.
    diff: Option<DiffQueue>,
    /// How its rows become items, where they do not come by the stream.
    table_mapping: Option<Rc<Mapping>>,
    counts: RowCounts,
    stream: Queue,
    backfilled: Queue,
    retry: Queue,
    retrying: HashSet<i64>,
    backfill_turn: bool,
    stage: DeliveryStage,
    /// Batches taken after the one whose turn it is.
    followers: Followers,
    admitted: Position,
    answered: Position,
    quarantined: Position,
    doubts: Vec<InDoubtBatch>,
    bad_in_a_row: u32,
    failures: u32,
    /// How often in a row the connection broke while its batch was sent.
    interrupted: u32,
    /// The pause that it waits out was asked for by the sink.
    asked_to_wait: bool,
    brake: DoubtBrake,
    /// It is halted with no batch under way: when the next one may be tried.
    probe_at: Option<Duration>,
}

impl SectionDelivery {
    /// A section that resumes behind `position`.
    pub fn new(section: &Section, position: Position) -> SectionDelivery {
        SectionDelivery {
            name: section.name.clone(),
            limits: section.batch,
            sends_updates: section.sends_updates(),
            stream_waits: false,
            flush: section.flush.clone(),
            daily: Daily::default(),
            in_doubt: section.in_doubt,
            flow: Flow::default(),
            is_unfit: false,
            is_stopped_by_mapping: false,
            mapping_brake: MappingBrake::default(),
            stuck: None,
            backfill: None,
            diff: None,
            table_mapping: None,
            counts: RowCounts::default(),
            stream: Queue::of_newest(section.sends_updates() && section.kind != Kind::UserActivity),
            backfilled: Queue::default(),
            retry: Queue::default(),
            retrying: HashSet::new(),
            backfill_turn: false,
            stage: DeliveryStage::Idle,
            followers: Followers::default(),
            admitted: position,
            answered: position,
            quarantined: Position::default(),
            doubts: Vec::new(),
            bad_in_a_row: 0,
            failures: 0,
            interrupted: 0,
            asked_to_wait: false,
            brake: DoubtBrake::default(),
            probe_at: None,
        }
    }

    /// Begins behind `position`: streamed rows up to there are settled.
    pub fn resume_behind(&mut self, position: Position) {
        (self.admitted, self.answered) = (position, position);
    }

    /// The newest streamed row taken in (or left out because an earlier process settled it).
    pub fn admitted(&self) -> Position {
        self.admitted
    }

    /// How far streamed rows are settled by the sink's answers, durable or not; and the last of them that was quarantined.
    pub fn answered(&self) -> (Position, Position) {
        (self.answered, self.quarantined)
    }

    /// The stage of the section's batch.
    pub fn stage(&self) -> &DeliveryStage {
        &self.stage
    }

    /// The next batch to send, if one is due (or `force`: everything goes, for a drain or a full budget).
    pub fn next_batch(&mut self, now: Duration, force: bool) -> Option<Batch> {
        // Its time has come: what is next is the probe, be it a row that must be read again first.
        self.probe_at.take_if(|at| *at <= now);
        if self.probe_at.is_some() || self.flow.is_paused() || !matches!(self.stage, DeliveryStage::Idle) {
            return None;
        }
        let batch = match self.followers.take_rest() {
            Some(rest) => rest,
            None if self.followers.wait() => return None,
            None => self.next_due_batch(now, force)?,
        };
        Some(self.first_of(batch, self.brake.most()))
    }

    fn next_due_batch(&mut self, now: Duration, force: bool) -> Option<Batch> {
        if let Some(batch) = self.retry.take(|_| true) {
            return Some(batch);
        }
        if self.sends_updates {
            return self.next_in_order(now, force);
        }
        let age = match &self.flush {
            Flush::Every(age) => *age,
            Flush::DailyAt(..) => BACKFILL_AGE,
        };
        let backfilled = |queue: &mut Queue| queue.take(|opened| force || now >= opened.taken + age);
        // The one that is open: a sealed one goes in any case.
        let is_due = force || self.stream.open_since().is_some_and(|opened| self.is_due(opened, now));
        let stream = |queue: &mut Queue| queue.take(|_| is_due);
        self.backfill_turn = !self.backfill_turn;
        if self.backfill_turn {
            backfilled(&mut self.backfilled).or_else(|| stream(&mut self.stream))
        } else {
            stream(&mut self.stream).or_else(|| backfilled(&mut self.backfilled))
        }
    }

    /// Whether a batch of streamed rows goes that was opened so.
    fn is_due(&self, opened: OpenedAt, now: Duration) -> bool {
        match &self.flush {
            Flush::Every(age) => now >= opened.taken + *age,
            Flush::DailyAt(..) => self.daily.due_at(opened).is_some_and(|due| now >= due),
        }
    }

    /// When the open batches are due, at the earliest.
    pub fn next_due(&self) -> Option<Duration> {
        match &self.stage {
            DeliveryStage::Waiting { until, .. } if !self.flow.is_paused() => Some(*until),
            DeliveryStage::Idle | DeliveryStage::Announcing(_) | DeliveryStage::Requesting(_)
                if !self.flow.is_paused() && (matches!(self.stage, DeliveryStage::Idle) || self.has_room_beside()) =>
            {
                let due = match &self.flush {
                    Flush::Every(age) => {
                        [&self.stream, &self.backfilled].iter().filter_map(|q| q.opened()).map(|o| o + *age).min()
                    }
                    Flush::DailyAt(..) if self.stream.has_sealed() => Some(Duration::ZERO),
                    Flush::DailyAt(..) => self.stream.open_since().and_then(|opened| self.daily.due_at(opened)),
                };
                due.map(|due| due.max(self.probe_at.unwrap_or_default()))
            }
            DeliveryStage::Idle
            | DeliveryStage::Waiting { .. }
            | DeliveryStage::Announcing(_)
            | DeliveryStage::Requesting(_) => None,
        }
    }

    /// Bytes held, the batch under way included.
    pub fn weight(&self) -> usize {
        let under_way = self.stage.sending().map_or(0, |sending| sending.batch.weight());
        self.stream.weight() + self.backfilled.weight() + self.retry.weight() + self.followers.weight() + under_way
    }

    pub fn counts(&self) -> &RowCounts {
        &self.counts
    }

    /// When the oldest waiting row was taken in.
    pub fn oldest(&self) -> Option<Duration> {
        let under_way = self.stage.sending().map(|sending| sending.batch.opened());
        let queued = [self.stream.oldest(), self.backfilled.oldest(), self.retry.oldest()];
        queued.into_iter().chain([self.followers.oldest(), under_way]).flatten().min()
    }

    /// Whether any row or place waits to be settled.
    pub fn is_empty(&self) -> bool {
        self.stage.sending().is_none()
            && self.followers.is_empty()
            && self.stream.is_empty()
            && self.backfilled.is_empty()
            && self.retry.is_empty()
    }

    /// The section's phase as the state keeps it.
    pub fn phase(&self) -> SectionPhase {
        match (&self.diff, &self.backfill) {
            (Some(diff), _) => diff.to_phase(),
            (None, Some(backfill)) => backfill.to_phase(),
            (None, None) => SectionPhase::Streaming,
        }
    }

    /// Whether it holds rows that it cannot send just now.
    pub fn is_stuck(&self) -> bool {
        self.flow.is_paused() || self.probe_at.is_some() || matches!(self.stage, DeliveryStage::Waiting { .. })
    }
}
