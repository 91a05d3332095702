//! The pure delivery engine: rows and answers in, writes, requests and confirmations out. No I/O, no clock, no randomness.
//!
//! * In: what the stream and the backfills bring, answers of the sink, durability of writes, the clock's reading.
//! * Out: [`Action`]s, in the order in which they must be begun.
//! * Never: a request before its ledger row is durable; a confirmation before the checkpoint is durable.

pub(crate) mod answers;
pub(crate) mod batch;
pub(crate) mod budget;
pub(crate) mod checkpoint;
pub(crate) mod history_check;
pub(crate) mod input;
pub(crate) mod key_set;
pub(crate) mod op_weight;
pub(crate) mod reconfigure;
pub(crate) mod section;
pub(crate) mod seen_cursor;
pub(crate) mod verification;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use crate::delivery::batch::{Batch, SettledUpTo};
use crate::delivery::checkpoint::Progress;
use crate::delivery::history_check::{OtherHistory, Verification};
use crate::delivery::section::{Chunk, DeliveryStep, SectionDelivery, Settled, Trouble};
use crate::mapping::Mapping;
use crate::model::{BySection, CommitMark, Lsn, NewestRead, Position, Row, SectionId, SectionName, Value};
use crate::planhat::Verdict;
use crate::state::Op;

/// An order to the event loop.
#[derive(Debug)]
pub enum Action {
    /// Write these in one transaction; say [`Engine::durable`] when it is done. Writes keep their order.
    Write(u64, Vec<Op>),
    /// Make this request; say [`Engine::verdict`] when it has ended.
    Send {
        /// The section of the batch.
        section: SectionId,
        /// The ledger id, to be given back.
        id: i64,
        body: Bytes,
    },
    /// The slot may move here.
    Confirm(Lsn),
    /// A batch is settled, durably.
    Settled(SectionId, Settled),
    /// A request must be repeated, or an item was halved: for metrics (`retries_total`).
    Retry(SectionId, Verdict),
    /// The stream must be read again from the checkpoint: rows were shed.
    Rewind,
    /// A row came that the mapping does not fit: the section is stopped.
    Stopped(SectionId),
    /// The stream is of another log than the one that was delivered from: nothing more of it is taken in.
    OtherHistory(OtherHistory),
}

/// The follow-up of a write, once it is durable.
#[derive(Debug)]
enum Effect {
    Request(SectionId, i64),
    Confirm(Lsn),
    Settled(SectionId, Settled),
}

/// A write that is not known to be durable.
#[derive(Debug)]
struct Pending {
    id: u64,
    weight: usize,
    effects: Vec<Effect>,
}

/// The transaction that is being received: where its last row was, and its commit.
#[derive(Clone, Copy, Debug)]
struct ReceivedTransaction {
    at: Position,
    commit: CommitMark,
}

/// Settings of the engine.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes that all sections together may hold.
    pub budget: usize,
    /// How often a halted section probes.
    pub halt_probe: Duration,
}

/// A section's mapping for one table, as that table is now.
#[derive(Clone, Debug)]
pub struct Route {
    pub section: SectionId,
    /// How its rows become items; or why they cannot: the first such row that is not settled stops the section. Not the
    /// table's description: after a restart it may come for rows that were settled long ago.
    pub mapping: Result<Rc<Mapping>, Trouble>,
}

/// The delivery engine over all sections.
#[derive(Debug)]
pub struct Engine {
    sections: BySection<SectionDelivery>,
    progress: Progress,
    /// Few, and asked for each row: ordered, not hashed.
    routes: BTreeMap<u32, Vec<Route>>,
    settings: Settings,
    next_delivery: i64,
    next_write: u64,
    pending: VecDeque<Pending>,
    pending_weight: usize,
    actions: VecDeque<Action>,
    transaction: Option<ReceivedTransaction>,
    verification: Verification,
    /// The newest transaction that brought a row to any section, and the one that the state has.
    newest: Option<NewestRead>,
    newest_written: Option<NewestRead>,
    /// The stream that is being read is given up: nothing of it counts any more.
    stale: bool,
    written: Lsn,
    confirmed: Lsn,
    /// The last checkpoint written may lie before rows that are settled since.
    settled_since_checkpoint: bool,
    last_checkpoint: Duration,
    draining: bool,
    floors: VecDeque<(Lsn, u64)>,
    /// Streamed rows up to here are settled, and the last floor written is older: an audit takes them for rows on their way.
    above_floor: Option<Lsn>,
    /// Since when a section that had shed can take rows again.
    can_resume: Option<Duration>,
}

/// A move of the checkpoint smaller than this is not worth a write of its own: it is the size of our own last write,
/// and writing for it would go on for ever.
const WORTH_A_WRITE: u64 = 1024;

/// The least time between two checkpoints that only follow the WAL of others.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(3);

impl Engine {
    /// An engine that resumes at the durable `checkpoint`; ledger ids begin at `next_delivery`.
    pub fn new(
        sections: BySection<SectionDelivery>,
        checkpoint: Lsn,
        next_delivery: i64,
        settings: Settings,
    ) -> Engine {
        Engine {
            progress: Progress::new(sections.count(), checkpoint),
            sections,
            routes: BTreeMap::new(),
            settings,
            next_delivery,
            next_write: 1,
            pending: VecDeque::new(),
            pending_weight: 0,
            actions: VecDeque::new(),
            transaction: None,
            verification: Verification::default(),
            newest: None,
            newest_written: None,
            stale: false,
            written: checkpoint,
            confirmed: checkpoint,
            settled_since_checkpoint: false,
            last_checkpoint: Duration::ZERO,
            draining: false,
            floors: VecDeque::new(),
            above_floor: Some(checkpoint),
            can_resume: None,
        }
    }

    // ---- the sections ----

    pub fn section(&self, id: SectionId) -> &SectionDelivery {
        &self.sections[id]
    }

    /// One section, to be switched or given rows out of quarantine.
    pub fn section_mut(&mut self, id: SectionId) -> &mut SectionDelivery {
        &mut self.sections[id]
    }

    /// All sections with their ids, in the order of the configuration.
    pub fn sections(&self) -> impl Iterator<Item = (SectionId, &SectionDelivery)> {
        self.sections.entries()
    }

    pub fn section_ids(&self) -> impl Iterator<Item = SectionId> + use<> {
        self.sections.ids()
    }

    pub fn section_named(&self, name: &SectionName) -> Option<SectionId> {
        self.sections.entries().find(|(_, section)| section.name() == name).map(|(id, _)| id)
    }

    // ---- the state ----

    /// Records that a write, and all before it, is durable.
    pub fn durable(&mut self, write: u64) {
        while let Some(written) = self.pending.pop_front_if(|pending| pending.id <= write) {
            self.pending_weight -= written.weight;
            for effect in written.effects {
                self.effect(effect);
            }
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Request(section, id) => {
                if let Some(body) = self.sections[section].request(id) {
                    self.actions.push_back(Action::Send { section, id, body });
                }
            }
            Effect::Confirm(lsn) => {
                if lsn > self.confirmed {
                    self.confirmed = lsn;
                    if self.may_confirm() {
                        self.actions.push_back(Action::Confirm(lsn));
                    }
                }
            }
            Effect::Settled(section, settled) => {
                self.sections[section].count(&settled);
                self.actions.push_back(Action::Settled(section, settled));
            }
        }
    }

    // ---- the clock ----

    /// Does everything that is due: chunks whose wait is over, batches to announce, waits that end, the checkpoint.
    pub fn pump(&mut self, now: Duration) {
        let received = self.progress.received();
        for id in self.sections.ids() {
            if let Some(trouble) = self.sections[id].outgrown(self.settings.budget) {
                self.sections[id].stop(trouble);
                self.actions.push_back(Action::Stopped(id));
            }
            if !self.draining {
                let was_stopped = self.sections[id].is_stopped();
                // Within the budget: rows that the mapping refuses leave their section at once, for the state.
                while self.buffered() < self.settings.budget && self.sections[id].take_chunk(received, now) {}
                if !was_stopped && self.sections[id].is_stopped() {
                    self.actions.push_back(Action::Stopped(id));
                }
                let section = &mut self.sections[id];
                section.take_diff_chunks(now);
                if let Some((op, delivery)) = section.wake(now, &mut self.next_delivery) {
                    self.write(vec![op], vec![Effect::Request(id, delivery)]);
                }
            }
            self.start_batches(id, now);
        }
        self.write_checkpoint(now);
    }

    /// Starts the section's next batch, and settles at once those without items.
    fn start_batches(&mut self, section: SectionId, now: Duration) {
        let force = self.draining || self.buffered() >= self.settings.budget;
        while let Some(batch) = self.sections[section].next_batch(now, force) {
            if batch.is_empty() {
                let step = self.sections[section].settle_unsent(batch);
                self.follow(section, step, now);
            } else {
                let (op, id) = self.announce(section, batch);
                self.write(vec![op], vec![Effect::Request(section, id)]);
            }
        }
        while let Some(batch) = self.sections[section].next_beside(now, force) {
            let id = self.next_delivery;
            self.next_delivery += 1;
            let op = self.sections[section].announce_beside(batch, id);
            self.write(vec![op], vec![Effect::Request(section, id)]);
        }
    }

    fn announce(&mut self, section: SectionId, batch: Batch) -> (Op, i64) {
        let id = self.next_delivery;
        self.next_delivery += 1;
        (self.sections[section].announce(batch, id, 1), id)
    }

    /// Writes the operations of a step, with the checkpoint and the section's next announcement.
    fn follow(&mut self, section: SectionId, mut step: DeliveryStep, now: Duration) {
        loop {
            let DeliveryStep { mut ops, settled, again, again_id, stopped, .. } = step;
            let mut effects = Vec::new();
            if stopped {
                self.actions.push_back(Action::Stopped(section));
            }
            if let Some(settled) = settled {
                if let SettledUpTo::Stream(position) = settled.through {
                    self.progress.settle(section, position);
                    self.settled_since_checkpoint = true;
                    self.above_floor = self.above_floor.max(Some(position.final_lsn));
                }
                effects.push(Effect::Settled(section, settled));
            }
            let mut unsent = None;
            if let (Some(batch), Some(id)) = (again, again_id) {
                ops.push(self.sections[section].announce(batch, id, 1));
                effects.push(Effect::Request(section, id));
            } else {
                let force = self.draining || self.buffered() >= self.settings.budget;
                match self.sections[section].next_batch(now, force) {
                    Some(batch) if batch.is_empty() => unsent = Some(batch),
                    Some(batch) => {
                        let (op, id) = self.announce(section, batch);
                        ops.push(op);
                        effects.push(Effect::Request(section, id));
                    }
                    None => {}
                }
            }
            self.add_checkpoint(&mut ops, &mut effects, now);
            self.write(ops, effects);
            let Some(batch) = unsent else { return };
            step = self.sections[section].settle_unsent(batch);
        }
    }

    /// Adds the checkpoint to a write that is made anyway.
    fn add_checkpoint(&mut self, ops: &mut Vec<Op>, effects: &mut Vec<Effect>, now: Duration) {
        let checkpoint = self.progress.advance();
        let newest = self.newest.filter(|newest| self.newest_written != Some(*newest));
        if checkpoint > self.written {
            self.written = checkpoint;
            self.last_checkpoint = now;
            self.settled_since_checkpoint = !self.progress.is_idle();
            let mut floor = None;
            while let Some((at, xmin)) = self.floors.pop_front_if(|(at, _)| *at <= checkpoint) {
                floor = Some(xmin);
                self.above_floor.take_if(|settled| at > *settled);
            }
            ops.push(Op::Checkpoint { checkpoint, xmin_floor: floor, newest });
            effects.push(Effect::Confirm(checkpoint));
        } else if newest.is_some() && !ops.is_empty() {
            // Sections settle past a checkpoint that another one holds back.
            ops.push(Op::Checkpoint { checkpoint: self.written, xmin_floor: None, newest });
        } else {
            return;
        }
        self.newest_written = self.newest;
    }

    /// Writes the checkpoint for its own sake: rows are settled that it does not show, or others' WAL has gone by.
    fn write_checkpoint(&mut self, now: Duration) {
        let checkpoint = self.progress.advance();
        let ahead = checkpoint.bytes_since(self.written);
        let others = ahead >= WORTH_A_WRITE && now >= self.last_checkpoint + CHECKPOINT_EVERY;
        let ours = self.settled_since_checkpoint && self.progress.is_idle();
        // One more where nobody writes any more: else the last rows would count as on their way until somebody does.
        let due = |settled: Lsn| self.floors.iter().any(|(at, _)| *at > settled && *at <= checkpoint);
        let floor = self.above_floor.is_some_and(due) && now >= self.last_checkpoint + CHECKPOINT_EVERY;
        if ahead > 0 && (others || ours || floor || self.draining) {
            let (mut ops, mut effects) = (Vec::new(), Vec::new());
            self.add_checkpoint(&mut ops, &mut effects, now);
            self.write(ops, effects);
        }
    }

    /// Has the checkpoint written once nothing is under way, however small its move.
    pub(crate) fn checkpoint_soon(&mut self) {
        self.settled_since_checkpoint = true;
    }

    /// Writes operations of the event loop's own, in order with all others.
    pub fn record(&mut self, ops: Vec<Op>) {
        self.write(ops, Vec::new());
    }

    fn write(&mut self, ops: Vec<Op>, effects: Vec<Effect>) {
        if ops.is_empty() && effects.is_empty() {
            return;
        }
        let id = self.next_write;
        self.next_write += 1;
        let weight = ops.iter().map(op_weight::weight).sum();
        self.pending_weight += weight;
        self.pending.push_back(Pending { id, weight, effects });
        self.actions.push_back(Action::Write(id, ops));
    }

    /// Returns the next action.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Engine::pump`] should be called next, at the latest.
    pub fn next_wake(&self) -> Option<Duration> {
        self.sections.iter().filter_map(SectionDelivery::next_due).min()
    }
}
