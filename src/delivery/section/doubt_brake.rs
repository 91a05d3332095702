//! The brake of doubt: what was in doubt again and again is sent in ever smaller pieces, then one item at a time. Pure.
//!
//! * In: requests whose fate is unknown, requests that were answered.
//! * Out: what to do next, and how many items a request may have.
//! * Never: a batch repeated without end. A sink that keeps what it gets and never says so would keep it that often.
//!
//! A fate that repeats is no chance: after two doubts in a row requests are halved (a time-out may be the size's fault), after
//! the third the section halts and probes with one item. When a sink answers again, requests grow back to half of what was
//! in doubt, and beyond that only after many answers.

use std::time::Duration;

/// Doubts in a row after which requests are halved.
const HALVE_AT: u32 = 2;
/// Answers in a row after which requests may be twice as large as the size that was known to be safe.
const TRUSTED_AFTER: u32 = 64;
/// How many times longer than the first the wait between two probes becomes.
const SLOWEST_PROBE: u32 = 16;

/// What follows from a doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DoubtCourse {
    /// Once is chance.
    GoOn,
    /// Requests are smaller from here on.
    Halve,
    /// The section halts, and probes with one item.
    Halt,
}

/// How many items a request may have, after doubts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DoubtBrake {
    in_a_row: u32,
    /// Items of a request, at most.
    most: Option<usize>,
    /// What `most` grows back to.
    safe: Option<usize>,
    answered: u32,
}

impl DoubtBrake {
    /// A request of so many items is in doubt.
    pub(crate) fn doubt(&mut self, items: usize) -> DoubtCourse {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.answered = 0;
        if self.in_a_row < HALVE_AT {
            return DoubtCourse::GoOn;
        }
        let half = (items / 2).max(1);
        self.safe = Some(self.safe.map_or(half, |safe| safe.min(half)));
        if self.in_a_row == HALVE_AT {
            self.most = Some(half);
            return DoubtCourse::Halve;
        }
        self.most = Some(1);
        DoubtCourse::Halt
    }

    /// Whatever comes next is a probe.
    pub(crate) fn halt(&mut self) {
        self.in_a_row = self.in_a_row.max(HALVE_AT).saturating_add(1);
        self.most = Some(1);
    }

    /// A request was answered.
    pub(crate) fn answered(&mut self) {
        self.in_a_row = 0;
        let Some(most) = self.most else { return };
        self.answered = self.answered.saturating_add(1);
        if self.answered >= TRUSTED_AFTER {
            self.answered = 0;
            self.safe = self.safe.map(|safe| safe.saturating_mul(2));
        }
        let grown = most.saturating_mul(2).min(self.safe.unwrap_or(usize::MAX));
        // More items than any body can have: the brake is off.
        self.most = (grown < 1_000_000).then_some(grown);
    }

    /// Items of a request, at most.
    pub(crate) fn most(&self) -> usize {
        self.most.unwrap_or(usize::MAX).max(1)
    }

    /// Whether requests may have any size.
    pub(crate) fn is_off(&self) -> bool {
        self.most.is_none() && self.in_a_row == 0
    }

    /// How long to wait before the next probe: each one can be kept once more by a sink that never answers.
    pub(crate) fn probe_after(&self, first: Duration) -> Duration {
        let doublings = self.in_a_row.saturating_sub(HALVE_AT + 1).min(16);
        first.saturating_mul((1u32 << doublings).min(SLOWEST_PROBE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn case_66_two_doubts_halve_and_the_third_halts_with_one_item_to_probe() {
        let mut brake = DoubtBrake::default();
        assert_eq!((brake.doubt(100), brake.most()), (DoubtCourse::GoOn, usize::MAX));
        assert_eq!((brake.doubt(100), brake.most()), (DoubtCourse::Halve, 50));
        assert_eq!((brake.doubt(50), brake.most()), (DoubtCourse::Halt, 1));
        let minute = Duration::from_secs(60);
        let waits: Vec<u64> = (0..7)
            .map(|_| {
                let wait = brake.probe_after(minute).as_secs() / 60;
                assert_eq!(brake.doubt(1), DoubtCourse::Halt);
                wait
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 16, 16]);
    }

    #[test]
    fn one_doubt_between_answers_is_chance() {
        let mut brake = DoubtBrake::default();
        for _ in 0..10 {
            assert_eq!(brake.doubt(100), DoubtCourse::GoOn);
            brake.answered();
        }
        assert_eq!(brake, DoubtBrake::default());
    }

    /// A sink that is in time only for 25 items is not asked for more again and again.
    #[test]
    fn what_was_in_doubt_is_not_tried_again_soon() {
        let mut brake = DoubtBrake::default();
        let (mut doubts, mut sent) = (0, 0);
        for _ in 0..200 {
            let items = brake.most().min(100);
            sent += items;
            if items > 25 {
                brake.doubt(items);
                doubts += 1;
            } else {
                brake.answered();
            }
        }
        assert!(doubts <= 12 && sent > 2_000, "{doubts} doubts, {sent} items");
    }

    proptest! {
        #[test]
        fn at_least_one_item_always_goes(steps in proptest::collection::vec((any::<bool>(), 1..5000usize), 0..200)) {
            let mut brake = DoubtBrake::default();
            for (doubt, items) in steps {
                if doubt { brake.doubt(items.min(brake.most())); } else { brake.answered(); }
                prop_assert!(brake.most() >= 1);
            }
        }
    }
}
