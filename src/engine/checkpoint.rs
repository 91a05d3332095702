//! When the checkpoint is written: with what is written anyway, or for its own sake. Pure.

use std::time::Duration;

use super::{Effect, Engine};
use crate::state::Op;

/// A move of the checkpoint smaller than this is not worth a write of its own: it is the size of our own last write,
/// and writing for it would go on for ever.
const WORTH_A_WRITE: u64 = 1024;

/// The least time between two checkpoints that only follow the WAL of others.
const MARK_EVERY: Duration = Duration::from_secs(3);

impl Engine {
    /// Adds the checkpoint to a write that is made anyway.
    pub(super) fn mark(&mut self, ops: &mut Vec<Op>, effects: &mut Vec<Effect>, now: Duration) {
        let mark = self.progress.advance();
        if mark > self.written {
            self.written = mark;
            self.last_mark = now;
            self.settled_since_mark = !self.progress.is_idle();
            let mut floor = None;
            while let Some((_, xmin)) = self.floors.pop_front_if(|(at, _)| *at <= mark) {
                floor = Some(xmin);
            }
            ops.push(Op::Mark { checkpoint: mark, xmin_floor: floor });
            effects.push(Effect::Confirm(mark));
        }
    }

    /// Writes the checkpoint for its own sake: rows are settled that it does not show, or others' WAL has gone by.
    pub(super) fn checkpoint(&mut self, now: Duration) {
        let mark = self.progress.advance();
        let ahead = mark.bytes_since(self.written);
        let others = ahead >= WORTH_A_WRITE && now >= self.last_mark + MARK_EVERY;
        let ours = self.settled_since_mark && self.progress.is_idle();
        if ahead > 0 && (others || ours || self.draining) {
            let (mut ops, mut effects) = (Vec::new(), Vec::new());
            self.mark(&mut ops, &mut effects, now);
            self.write(ops, effects);
        }
    }
}
