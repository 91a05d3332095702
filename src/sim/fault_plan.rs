//! Decides which request meets which fault. Pure, but for its lock.
//!
//! * In: queued faults, a rate with its seed, requests one by one.
//! * Out: at most one fault a request; the queue before the rate, first in, first out.
//! * Never: a fault used up by a request that it does not fit.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::sim::sim_fault::{QueuedFault, Rate, SimFault, SinkRoute};

/// The queued faults, and the rate with its generator.
#[derive(Debug, Default)]
pub(crate) struct Plan(Mutex<PlanState>);

#[derive(Debug, Default)]
struct PlanState {
    queue: VecDeque<QueuedFault>,
    rate: Option<(fastrand::Rng, Rate)>,
}

impl Plan {
    fn state(&self) -> MutexGuard<'_, PlanState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn queue(&self, fault: QueuedFault) {
        self.state().queue.push_back(fault);
    }

    pub(crate) fn set_rate(&self, rate: Rate) {
        self.state().rate = Some((fastrand::Rng::with_seed(rate.seed), rate));
    }

    pub(crate) fn clear(&self) {
        *self.state() = PlanState::default();
    }

    /// At the head of a request of so many bytes: the fault that wants no body, if it is its turn, or what the dice say for
    /// later.
    pub(crate) fn at_head(&self, route: SinkRoute, length: u64) -> Option<SimFault> {
        let mut state = self.state();
        let drawn = state.draw();
        let refused = state.queue.iter().position(|queued| queued.is_for(route) && queued.fault.refuses_head(length));
        if let Some(at) = refused {
            return state.use_up(at);
        }
        // Faults that wait for a fitting body let others pass: whether they fit is not known yet.
        let next = state.queue.iter().position(|queued| queued.is_for(route) && !queued.fault.wants_body());
        match next {
            Some(at) if state.queue[at].fault == SimFault::ResetBeforeReading => state.use_up(at),
            Some(_) => None,
            None => drawn,
        }
    }

    /// At the end of a request: the first fault of the queue that fits it, else the one drawn.
    pub(crate) fn at_end(
        &self,
        route: SinkRoute,
        drawn: Option<SimFault>,
        fits: impl Fn(&SimFault) -> bool,
    ) -> Option<SimFault> {
        let mut state = self.state();
        let fitting = |queued: &QueuedFault| queued.is_for(route) && fits(&queued.fault);
        match state.queue.iter().position(fitting) {
            Some(at) => state.use_up(at),
            None => drawn.filter(|fault| fits(fault)),
        }
    }
}

impl PlanState {
    fn draw(&mut self) -> Option<SimFault> {
        let (dice, rate) = self.rate.as_mut()?;
        let hit = dice.f64() < rate.probability;
        // Drawn in any case, so that a changed probability leaves the sequence of faults alone.
        let fault = dice.choice(&rate.faults)?;
        hit.then(|| fault.clone())
    }

    fn use_up(&mut self, at: usize) -> Option<SimFault> {
        let queued = self.queue.get_mut(at)?;
        match queued.times {
            0 => Some(queued.fault.clone()),
            1 => self.queue.remove(at).map(|queued| queued.fault),
            _ => {
                queued.times -= 1;
                Some(queued.fault.clone())
            }
        }
    }
}

impl QueuedFault {
    fn is_for(&self, route: SinkRoute) -> bool {
        self.route.is_none_or(|only| only == route)
    }
}

impl SimFault {
    /// Whether it waits for a request with a certain body.
    fn wants_body(&self) -> bool {
        matches!(
            self,
            SimFault::Refuse { .. }
                | SimFault::Reject { .. }
                | SimFault::TooLarge { .. }
                | SimFault::TooLargeReset { .. }
        )
    }

    /// Whether it needs no more than the head of a request of so many bytes.
    pub(crate) fn refuses_head(&self, length: u64) -> bool {
        matches!(self, SimFault::TooLargeReset { over } if length > *over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(plan: &Plan, route: SinkRoute) -> Option<SimFault> {
        match plan.at_head(route, 0) {
            Some(SimFault::ResetBeforeReading) => Some(SimFault::ResetBeforeReading),
            drawn => plan.at_end(route, drawn, |fault| !fault.wants_body()),
        }
    }

    #[test]
    fn first_in_first_out_by_route() {
        let plan = Plan::default();
        plan.queue(SimFault::TooLarge { over: 1 }.times(0));
        plan.queue(SimFault::Endless.on(SinkRoute::Bulk));
        plan.queue(SimFault::ResetBeforeReading.times(2));
        plan.queue(SimFault::GzipBomb.into());
        assert_eq!(run(&plan, SinkRoute::Metrics), Some(SimFault::ResetBeforeReading));
        assert_eq!(run(&plan, SinkRoute::Bulk), Some(SimFault::Endless));
        assert_eq!(run(&plan, SinkRoute::Bulk), Some(SimFault::ResetBeforeReading));
        assert_eq!(run(&plan, SinkRoute::Single), Some(SimFault::GzipBomb));
        assert_eq!(run(&plan, SinkRoute::Single), None);
        assert_eq!(plan.at_end(SinkRoute::Single, None, |_| true), Some(SimFault::TooLarge { over: 1 }));
        assert_eq!(plan.at_end(SinkRoute::Single, None, |_| true), Some(SimFault::TooLarge { over: 1 }));
    }

    #[test]
    fn the_seed_replays() {
        let draw = |probability| {
            let plan = Plan::default();
            let faults = vec![SimFault::ResetBeforeReading, SimFault::Endless, SimFault::ResetAfterStoring];
            plan.set_rate(Rate { seed: 7, probability, faults });
            (0..200).map(|_| run(&plan, SinkRoute::Metrics)).collect::<Vec<_>>()
        };
        assert_eq!(draw(0.3), draw(0.3));
        let hits = draw(0.3).into_iter().flatten().count();
        assert!((30..90).contains(&hits), "{hits}");
        assert_eq!(draw(0.0).into_iter().flatten().count(), 0);
        assert_eq!(draw(1.0).into_iter().flatten().count(), 200);
    }
}
