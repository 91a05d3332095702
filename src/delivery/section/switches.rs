//! The switches of a section, and the questions that the event loop asks of it. Pure.
//!
//! * In: what operators, the source and the sink ask for.
//! * Out: the reasons why its rows do not flow; its backfill, begun or ended.
//! * Never: a row taken or dropped here.

use std::rc::Rc;
use std::time::Duration;

use crate::config::{Flush, Section};
use crate::delivery::section::backfill::BackfillQueue;
use crate::delivery::section::flow::{Blocked, Trouble};
use crate::delivery::section::{
    CalendarLook, Daily, DeliveryStage, InDoubtBatch, MappingBrake, OpenedAt, SectionDelivery, Span,
};
use crate::mapping::Mapping;
use crate::model::{Key, Phase, Position, RowCounts, SectionName};
use crate::state::{Op, Totals};

/// How much later than its schedule allows a row may be before its section does not flow.
const LATE: Duration = Duration::from_secs(60);

/// Keys beside a backfill that hold no more than this never stop a section, however small the budget.
const FEW_KEYS: usize = 64 << 10;

impl SectionDelivery {
    pub fn name(&self) -> &SectionName {
        &self.name
    }

    // ---- as it begins ----

    /// Sets how rows of its table become items, where they do not come by the stream.
    pub fn set_table_mapping(&mut self, mapping: Rc<Mapping>) {
        self.table_mapping = Some(mapping);
        self.mapping_brake = MappingBrake::default();
    }

    /// How rows of its table become items, where they do not come by the stream.
    pub fn table_mapping(&self) -> Option<Rc<Mapping>> {
        self.table_mapping.clone()
    }

    /// Takes over when its batches are full, when they go, and what becomes of those in doubt.
    pub fn reconfigure(&mut self, section: &Section) {
        self.limits = section.batch;
        self.flush = section.flush.clone();
        self.daily = Daily::default();
        self.in_doubt = section.in_doubt;
    }

    /// Bounds the bytes of its batches.
    pub fn limit_batches(&mut self, bytes: u64) {
        self.limits.bytes = self.limits.bytes.min(bytes);
    }

    /// Goes on with the counts of an earlier event loop of this process.
    pub fn resume_counts(&mut self, counts: RowCounts) {
        self.counts = counts.resumed();
    }

    /// Batches in doubt from before: their rows come again. So many rows are newly in doubt.
    pub fn expect_doubts(&mut self, doubts: Vec<InDoubtBatch>, rows: u64) {
        self.doubts = doubts;
        self.counts.in_doubt += rows;
    }

    /// The backfill's batches that are in doubt: ledger id, first and last key.
    pub fn doubted_keys(&self) -> Vec<(i64, Key, Key)> {
        let keys = |doubt: &InDoubtBatch| match &doubt.span {
            Span::Keys(first, last, _) => Some((doubt.id, first.clone(), last.clone())),
            Span::Stream(..) | Span::Digests(..) => None,
        };
        self.doubts.iter().filter_map(keys).collect()
    }

    /// The table has rows with these keys, in its order, between the ends of a batch in doubt. Where it has none the doubt
    /// ends with the backfill.
    pub fn set_doubted_rows(&mut self, id: i64, keys: &[Key]) {
        let Some(doubt) = self.doubts.iter_mut().find(|doubt| doubt.id == id) else { return };
        if let (Span::Keys(_, last, rows), Some(newest)) = (&mut doubt.span, keys.last()) {
            *last = newest.clone();
            keys.iter().for_each(|key| rows.insert(key.as_str().as_bytes()));
        }
    }

    /// Rows of its batch are in doubt.
    pub fn count_in_doubt(&mut self, rows: u64) {
        self.counts.in_doubt += rows;
    }

    // ---- why it does not flow ----

    /// Why its rows do not flow, the heaviest reason first; empty where they do.
    pub(crate) fn blocked(&self) -> &[Blocked] {
        self.flow.blocks()
    }

    /// Marks it as switched off: nothing is ever given to it.
    pub fn switch_off(&mut self) {
        self.flow.block(Blocked::Off);
    }

    /// The configuration switches it on: from here on it can be attached.
    pub fn switch_on(&mut self) {
        self.flow.unblock(|blocked| matches!(blocked, Blocked::Off));
    }

    /// Whether the configuration switches it off.
    pub fn is_off(&self) -> bool {
        self.flow.is_off()
    }

    /// Pauses it, or lets it go on; a batch that waits is sent at once then. Returns whether that is new.
    pub fn pause(&mut self, paused: bool, now: Duration) -> bool {
        let is = |blocked: &Blocked| matches!(blocked, Blocked::Paused);
        let changed = if paused { self.flow.block(Blocked::Paused) } else { self.flow.unblock(is) };
        if changed {
            self.hurry(now);
            self.note_stuck(!paused, now);
        }
        changed
    }

    /// Notes since when it cannot send; `settled`: some of its rows were settled just now, or it may go on.
    pub(crate) fn note_stuck(&mut self, settled: bool, now: Duration) {
        if settled && !self.flow.is_paused() {
            self.stuck = None;
        } else if self.is_stuck() {
            self.stuck.get_or_insert(now);
        }
    }

    /// How long it has not been able to send, where it cannot send now.
    pub(crate) fn stuck_for(&self, now: Duration) -> Option<Duration> {
        self.stuck.filter(|_| self.is_stuck()).map(|since| now.saturating_sub(since))
    }

    /// Whether it has given back its memory.
    pub fn is_shed(&self) -> bool {
        self.flow.is_shed()
    }

    /// Whether it could send, had it rows.
    pub(crate) fn can_resume(&self) -> bool {
        !self.flow.is_paused() && self.probe_at.is_none() && matches!(self.stage, DeliveryStage::Idle)
    }

    /// Drops streamed batches that are not under way, to be read again later; returns the first position dropped.
    pub fn shed(&mut self) -> Option<Position> {
        let first = self.stream.first_position()?;
        let rows = self.stream.clear();
        self.counts.given_back(Phase::Stream, rows);
        self.admitted = first.before();
        self.flow.block(Blocked::Shed);
        Some(first)
    }

    /// Takes rows again, where it had given back its memory and can send now. Returns whether that is so: then the stream must
    /// bring again what it did not take.
    pub(crate) fn resume_shed(&mut self) -> bool {
        self.can_resume() && self.flow.unblock(|blocked| matches!(blocked, Blocked::Shed))
    }

    /// By how much its oldest row is later than the section's own schedule allows.
    pub(crate) fn late_by(&self, now: Duration) -> Option<Duration> {
        let oldest = self.oldest()?;
        let due = match &self.flush {
            Flush::Every(age) => oldest + *age,
            Flush::DailyAt(..) => self.daily.due_at(OpenedAt { taken: oldest, committed: None })?,
        };
        now.checked_sub(due)
    }

    /// By how much it is late: its oldest row, where that waits much longer than it should, or its comparison.
    pub(crate) fn late(&self, now: Duration) -> Option<Duration> {
        let rows = self.late_by(now).filter(|late| *late > LATE);
        rows.max(self.diff_late_by(now))
    }

    /// Whether its rows flow: nothing keeps them, and it is not late.
    pub(crate) fn flows(&self, now: Duration) -> bool {
        let kept = |blocked: &Blocked| !matches!(blocked, Blocked::Misfit(_) | Blocked::Retrying(_));
        !self.flow.blocks().iter().any(kept) && self.late(now).is_none()
    }

    /// Rows that are in doubt now: their batch's answer never came, and they are not settled since.
    pub(crate) fn in_doubt_now(&self) -> u64 {
        let under_way = self.stage.sending().map(|sending| sending.batch.doubts.as_slice()).unwrap_or_default();
        let rows = self.doubts.iter().map(|doubt| doubt.rows).chain(under_way.iter().map(|(_, rows)| *rows));
        rows.map(u64::from).sum()
    }

    /// Whether an operator has paused it.
    pub fn is_paused(&self) -> bool {
        self.flow.is_paused()
    }

    /// Stops it: it takes no row from here on, and the slot waits for the first one that it does not take.
    /// Returns whether that, or its reason, is new.
    pub fn stop(&mut self, trouble: Trouble) -> bool {
        (self.is_unfit, self.is_stopped_by_mapping) = (false, false);
        self.flow.unblock(|blocked| matches!(blocked, Blocked::Shed));
        self.flow.block(Blocked::Stopped(trouble))
    }

    /// Stops it because its table, as it is or as it was when a row was written, does not fit its mapping.
    pub fn stop_unfit(&mut self, trouble: Trouble) -> bool {
        let is_new = self.stop(trouble);
        self.is_unfit = true;
        is_new
    }

    /// Whether its table did not fit when that was last looked at: stopped for it, or not yet.
    pub fn is_unfit(&self) -> bool {
        self.is_stopped() && self.is_unfit || self.flow.blocks().iter().any(|one| matches!(one, Blocked::Misfit(_)))
    }

    /// Takes rows again after [`SectionDelivery::stop`]. Returns whether it was stopped.
    pub fn go_on(&mut self) -> bool {
        self.is_stopped_by_mapping = false;
        self.flow.unblock(|blocked| matches!(blocked, Blocked::Stopped(_)))
    }

    /// Its table fits its mapping again. Returns whether it was stopped.
    pub fn fits_again(&mut self) -> bool {
        self.flow.unblock(|blocked| matches!(blocked, Blocked::Misfit(_)));
        self.go_on()
    }

    /// Whether it is stopped.
    pub fn is_stopped(&self) -> bool {
        self.flow.is_stopped()
    }

    /// Whether it takes streamed rows.
    #[inline]
    pub fn takes_rows(&self) -> bool {
        self.flow.takes_rows()
    }

    /// The reason why the sink takes nothing of this section just now.
    pub fn halted(&self) -> Option<&Trouble> {
        self.flow.halted()
    }

    /// Whether it is halted with no batch under way, until it probes.
    pub fn waits_to_probe(&self) -> bool {
        self.probe_at.is_some()
    }

    /// Notes that its table does not fit now, though rows written before still flow.
    pub fn note_misfit(&mut self, trouble: Trouble) {
        self.flow.block(Blocked::Misfit(trouble));
    }

    /// Notes why its older rows, or its result, cannot be read; `None`: they can be. Returns whether that is new.
    pub fn set_backfill_trouble(&mut self, trouble: Option<Trouble>) -> bool {
        match trouble {
            Some(trouble) => self.flow.block(Blocked::BackfillFails(trouble)),
            None => self.flow.unblock(|blocked| matches!(blocked, Blocked::BackfillFails(_))),
        }
    }

    /// Notes what it waits for outside; `None`: for nothing. Returns whether it waited before.
    pub fn set_waiting(&mut self, trouble: Option<Trouble>) -> bool {
        let waited = self.flow.unblock(|blocked| matches!(blocked, Blocked::Waiting(_)));
        if let Some(trouble) = trouble {
            self.flow.block(Blocked::Waiting(trouble));
        }
        waited
    }

    /// Notes that the application is harmed because of it; `None`: it is not. Returns whether that is new.
    pub(crate) fn set_harmful(&mut self, trouble: Option<Trouble>) -> bool {
        match trouble {
            Some(trouble) => self.flow.block(Blocked::Harmful(trouble)),
            None => self.flow.unblock(|blocked| matches!(blocked, Blocked::Harmful(_))),
        }
    }

    /// Notes why the sink did not take its last batch; `None`: it did, or the batch is not sent again as it is.
    pub fn set_retrying(&mut self, trouble: Option<Trouble>) {
        match trouble {
            Some(trouble) => self.flow.block(Blocked::Retrying(trouble)),
            None => self.flow.unblock(|blocked| matches!(blocked, Blocked::Retrying(_))),
        };
    }

    // ---- its backfill ----

    /// The backfill or re-sync under way.
    pub fn backfill(&self) -> Option<&BackfillQueue> {
        self.backfill.as_ref()
    }

    /// The chunks that were read and not used are forgotten: they are read again behind what is settled.
    pub(crate) fn forget_chunks(&mut self) {
        if let Some(backfill) = &mut self.backfill {
            backfill.forget_chunks();
        }
    }

    /// Goes on with a backfill that an earlier process began.
    pub fn resume_backfill(&mut self, backfill: BackfillQueue) {
        self.backfill = Some(backfill);
    }

    /// Begins to deliver the table again behind `cursor`. From here on the keys that the stream brings are remembered, and
    /// left out of what is read: as at an attachment. Returns the write that records it.
    pub fn start_resync(&mut self, cursor: Option<Key>) -> Vec<Op> {
        self.backfill = Some(BackfillQueue::new(Phase::Resync, cursor));
        self.phase_ops()
    }

    /// The xmin barrier has passed: the backfill ends at this key, after so many rows by estimate; `None`: there is nothing to
    /// read, and it is over. Returns the write that records it.
    pub fn set_backfill_end(&mut self, end: Option<(Key, u64)>) -> Vec<Op> {
        let mut ended = None;
        match (end, &mut self.backfill) {
            (Some((ceiling, estimated)), Some(backfill)) => backfill.set_end(ceiling, estimated),
            (None, _) => ended = self.backfill.take(),
            (Some(_), None) => {}
        }
        let mut ops = self.phase_ops();
        if ended.is_some_and(|backfill| backfill.phase == Phase::Resync) {
            ops.push(Op::CloseGaps { section: self.name.clone() });
        }
        ops
    }

    /// Why it cannot take more streamed rows: the keys that it notes for its backfill hold more than `most` bytes.
    pub(crate) fn outgrown(&self, most: usize) -> Option<Trouble> {
        let backfill = self.backfill.as_ref().filter(|_| !self.is_stopped())?;
        let held = backfill.streamed_weight();
        (held > most.max(FEW_KEYS)).then(|| {
            let what = format!(
                "the keys that the stream brought beside the backfill hold {} MiB, and `memory` has no room for more",
                held >> 20
            );
            let remedy = "end the transactions that the backfill waits for, if it waits; raise `memory`, and restart. The \
                          backfill goes on where it is";
            Trouble::new(what, remedy)
        })
    }

    /// The checkpoint of the section without any batch: its phase alone.
    pub fn phase_ops(&mut self) -> Vec<Op> {
        if let Some(backfill) = &mut self.backfill {
            backfill.written();
        }
        let phase = Some(self.phase());
        let section = self.name.clone();
        let checkpoint = Op::SectionCheckpoint { section, position: None, phase, add: Totals::default() };
        std::iter::once(checkpoint).chain(self.streamed_op()).collect()
    }

    /// The write that records the keys that the stream brought beside the backfill; they are forgotten once it has ended.
    pub(crate) fn streamed_op(&mut self) -> Option<Op> {
        match &mut self.backfill {
            Some(backfill) => backfill.streamed_op(&self.name),
            None => Some(Op::Streamed { section: self.name.clone(), all: true, keys: Vec::new() }),
        }
    }

    // ---- its day ----

    /// The time of day at which it sends, where the calendar has to be looked at now.
    pub fn wants_daily(&self, now: Duration) -> Option<(jiff::civil::Time, &jiff::tz::TimeZone)> {
        match &self.flush {
            Flush::DailyAt(time, zone) if self.daily.wants_look(now) => Some((*time, zone)),
            Flush::DailyAt(..) | Flush::Every(_) => None,
        }
    }

    /// The calendar was looked at.
    pub(crate) fn see_calendar(&mut self, look: CalendarLook) {
        self.daily.see(look, self.oldest());
    }
}
