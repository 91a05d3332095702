//! What it holds: the budget, the drain, what is settled, and memory given back by lanes that cannot send. Pure.

use crate::delivery::*;

impl Engine {
    /// Bytes held by all lanes and by writes that are not durable, chunks that wait for the stream not counted: those have a
    /// share of their own, or a full budget would stop the stream that they wait for.
    pub fn buffered(&self) -> usize {
        self.lanes.iter().map(SectionDelivery::weight).sum::<usize>() + self.pending_weight
    }

    /// Whether more of the stream may be read: lanes hold less than the budget.
    pub fn wants_rows(&self) -> bool {
        !self.draining && self.buffered() < self.settings.budget
    }

    /// Nothing more is taken in; everything that waits goes now.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Whether a drain has done what can be done: no request under way, nothing unwritten, nothing left to send but
    /// what waits for a sink that does not take it.
    pub fn is_drained(&self) -> bool {
        let quiet = |lane: &SectionDelivery| match lane.stage() {
            DeliveryStage::Idle => lane.is_empty() || lane.paused,
            DeliveryStage::Waiting { .. } => true,
            DeliveryStage::Announcing(_) | DeliveryStage::Requesting(_) => false,
        };
        self.pending.is_empty() && self.actions.is_empty() && self.lanes.iter().all(quiet)
    }

    /// Everything before this is settled.
    pub fn settled_lsn(&self) -> Lsn {
        self.progress.mark()
    }

    /// What was last confirmed to the slot.
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

    /// Nothing waits, and no transaction is open.
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
        self.lanes.iter().filter_map(SectionDelivery::oldest).min()
    }

    /// Lets lanes that cannot send give back their memory, where others could go on: their streamed rows will be read
    /// again. Returns whether anything was shed.
    pub fn shed(&mut self) -> bool {
        if self.draining || self.lanes.iter().all(SectionDelivery::is_stuck) {
            return false;
        }
        let mut any = false;
        for index in 0..self.lanes.len() {
            let lane = &mut self.lanes[index];
            if !lane.is_stuck() || lane.shut.is_some() {
                continue;
            }
            if let Some(first) = lane.shed() {
                self.progress.retract_after(index, first.before());
                self.progress.pin(index, first);
                any = true;
            }
        }
        any
    }

    /// Lanes that had shed and can send again take rows again; the stream must be read from the checkpoint.
    pub fn unshed(&mut self) {
        let mut any = false;
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if matches!(lane.shut, Some(StopReason::Shed))
                && !lane.paused
                && matches!(lane.stage(), DeliveryStage::Idle)
            {
                lane.shut = None;
                self.progress.unpin(index);
                any = true;
            }
        }
        if any {
            // From this moment on, not from the new connection's: in between the mark must not pass what was left out, and no
            // chunk may rely on keys that nobody noted.
            self.stale = true;
            self.transaction = None;
            self.progress.restart();
            self.actions.push_back(Action::Rewind);
        }
    }
}
