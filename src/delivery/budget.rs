//! The engine's budget of memory, its drain, its settled positions, and the shedding of sections that cannot send. Pure.

use crate::delivery::section::DeliveryStage;
use crate::delivery::*;

/// How long a section must have been unable to send before it gives back its memory.
const SHED_AFTER: Duration = Duration::from_secs(5);
/// How long a section that can go on waits for others that can, too.
const RESUME_WITHIN: Duration = Duration::from_secs(5);

impl Engine {
    /// Bytes held by all sections and by writes that are not durable, and by the keys that backfills note, up to half of the
    /// budget: what they wait for is the stream itself. Chunks that wait for the stream not counted: those have a
    /// share of their own, or a full budget would stop the stream that they wait for.
    pub fn buffered(&self) -> usize {
        let noted =
            self.sections.iter().filter_map(|section| Some(section.backfill()?.streamed_weight())).sum::<usize>();
        let rows = self.sections.iter().map(SectionDelivery::weight).sum::<usize>();
        rows + self.pending_weight + noted.min(self.settings.budget / 2)
    }

    /// Whether more of the stream may be read: sections hold less than the budget.
    pub fn wants_rows(&self) -> bool {
        !self.draining && self.buffered() < self.settings.budget
    }

    /// Begins the drain: the engine takes no more rows, and sends everything that waits.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Whether a drain has begun.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Whether a drain has done what can be done: no request under way, nothing unwritten, nothing left to send but
    /// what waits for a sink that does not take it.
    pub fn is_drained(&self) -> bool {
        let quiet = |section: &SectionDelivery| match section.stage() {
            DeliveryStage::Idle => section.is_empty() || section.is_paused() || section.waits_to_probe(),
            DeliveryStage::Waiting { .. } => !section.requests_beside(),
            DeliveryStage::Announcing(_) | DeliveryStage::Requesting(_) => false,
        };
        self.pending.is_empty() && self.actions.is_empty() && self.sections.iter().all(quiet)
    }

    /// The LSN before which everything is settled.
    pub fn settled_lsn(&self) -> Lsn {
        self.progress.checkpoint()
    }

    /// The LSN last confirmed to the slot.
    pub fn confirmed(&self) -> Lsn {
        self.confirmed
    }

    /// The checkpoint last handed to the state (its durability is waited for elsewhere).
    pub fn written(&self) -> Lsn {
        self.written
    }

    /// The stream has been read past every commit before this.
    pub fn received(&self) -> Lsn {
        self.progress.received()
    }

    /// Whether every row of a section that was committed before `lsn` is settled; of a section that is not streamed, every row
    /// that was read.
    pub fn is_settled_past(&self, section: SectionId, lsn: Option<Lsn>) -> bool {
        match lsn {
            Some(lsn) => self.progress.is_settled_past(section, lsn),
            None => self.sections[section].is_empty(),
        }
    }

    /// Whether nothing waits and no transaction is open.
    pub fn is_idle(&self) -> bool {
        self.progress.is_idle()
    }

    /// Every transaction below `xmin` had ended when the WAL ended at `at`: once that is settled, it is the floor.
    pub fn set_floor(&mut self, at: Lsn, xmin: u64) {
        if self.floors.len() < 64 {
            self.floors.push_back((at, xmin));
        }
    }

    /// When the oldest row that waits was taken in.
    pub fn oldest(&self) -> Option<Duration> {
        self.sections.iter().filter_map(SectionDelivery::oldest).min()
    }

    /// Lets sections that have not been able to send for [`SHED_AFTER`] give back their memory, where others could go on: their
    /// streamed rows will be read again. Returns whether anything was shed. A short pause, for a 429 say, is no reason: reading
    /// everything again costs more than waiting.
    pub fn shed(&mut self, now: Duration) -> bool {
        if self.draining || self.sections.iter().all(|section| !section.takes_rows() || section.is_stuck()) {
            return false;
        }
        let mut any = false;
        for id in self.sections.ids() {
            let section = &mut self.sections[id];
            if !section.takes_rows() || section.stuck_for(now).is_none_or(|stuck| stuck < SHED_AFTER) {
                continue;
            }
            if let Some(first) = section.shed() {
                self.progress.retract_after(id, first.before());
                self.progress.hold_back(id, first);
                any = true;
            }
        }
        any
    }

    /// Sections that had shed and can send again take rows again; the stream must be read from the checkpoint. Sections that
    /// recover within [`RESUME_WITHIN`] of each other share one catch-up.
    pub fn resume_shed(&mut self, now: Duration) {
        let shed = || self.sections.iter().filter(|section| section.is_shed());
        if !shed().any(SectionDelivery::can_resume) {
            self.can_resume = None;
            return;
        }
        let since = *self.can_resume.get_or_insert(now);
        if !shed().all(SectionDelivery::can_resume) && now < since + RESUME_WITHIN {
            return;
        }
        self.can_resume = None;
        for id in self.sections.ids() {
            if self.sections[id].resume_shed() {
                self.progress.release(id);
            }
        }
        self.read_again();
    }

    /// A section that was stopped fits its table again, and takes rows again; the stream must be read from the checkpoint.
    /// Returns whether it was stopped.
    pub fn go_on(&mut self, id: SectionId) -> bool {
        let was_stopped = self.sections[id].fits_again();
        if was_stopped {
            self.progress.release(id);
            self.read_again();
        }
        was_stopped
    }

    /// A person lets the rows of a section go on that its mapping refuses. Returns `false` where that must wait: its backfill is
    /// read again behind what is settled, so all that it took must be.
    pub fn let_go_on(&mut self, id: SectionId) -> bool {
        let section = &mut self.sections[id];
        let is_stopped = section.is_stopped_by_mapping();
        if is_stopped && section.backfill().is_some() && !section.is_empty() {
            return false;
        }
        section.release_mapping_brake();
        if is_stopped {
            section.forget_chunks();
            self.go_on(id);
        }
        true
    }

    /// What was left out comes again. From this moment on, not from the new connection's: in between the checkpoint must not
    /// pass what was left out, and no chunk may rely on keys that nobody noted.
    fn read_again(&mut self) {
        self.stale = true;
        self.transaction = None;
        self.progress.restart();
        self.actions.push_back(Action::Rewind);
    }
}
