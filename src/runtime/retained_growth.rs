//! The growth of the WAL that the slot retains, and the time until the slot is lost. Pure.
//!
//! * In: observations of the retained WAL, some seconds apart.
//! * Out: bytes per second, where it grows.
//! * Never: an alarm because the server writes much: a slot that follows is not in danger.

use std::collections::VecDeque;
use std::time::Duration;

/// How far back observations count. A slot that follows lets WAL go in steps, so that what is retained goes up and down.
const WINDOW: Duration = Duration::from_secs(120);
/// The fewest observations that give a rate.
const FEWEST: usize = 4;
/// Growth below this, in bytes per second, counts as none.
const SLOWEST: f64 = 1024.0;

/// The newest observations of the retained WAL.
#[derive(Debug, Default)]
pub(crate) struct RetainedGrowth(VecDeque<(Duration, u64)>);

impl RetainedGrowth {
    /// Takes an observation at `now` on the monotonic clock.
    pub(crate) fn observe(&mut self, now: Duration, retained: u64) {
        self.0.push_back((now, retained));
        while self.0.front().is_some_and(|(at, _)| *at + WINDOW < now) {
            self.0.pop_front();
        }
    }

    /// Bytes per second by which the least that was retained grows from the older half of the window to the newer one; `None`
    /// while it does not grow.
    pub(crate) fn rate(&self) -> Option<f64> {
        if self.0.len() < FEWEST {
            return None;
        }
        let (first, last) = (self.0.front()?.0, self.0.back()?.0);
        let middle = first + (last - first) / 2;
        let least =
            |newer: bool| self.0.iter().filter(|(at, _)| (*at >= middle) == newer).min_by_key(|(_, bytes)| *bytes);
        let ((older_at, older), (newer_at, newer)) = (least(false)?, least(true)?);
        let rate = newer.checked_sub(*older)? as f64 / (*newer_at - *older_at).as_secs_f64().max(0.001);
        (rate >= SLOWEST).then_some(rate)
    }

    /// Seconds until `safe` more bytes are retained.
    pub(crate) fn seconds_until(&self, safe: i64) -> Option<f64> {
        self.rate().map(|rate| safe.max(0) as f64 / rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn observed(seconds: u64, retained: impl Fn(u64) -> u64) -> RetainedGrowth {
        let mut growth = RetainedGrowth::default();
        (0..=seconds / 3).for_each(|step| growth.observe(Duration::from_secs(3 * step), retained(3 * step)));
        growth
    }

    #[test]
    fn case_95_a_slot_that_follows_a_busy_server_is_not_about_to_be_lost() {
        // 10 MiB of WAL a second; the slot lets it go every 15 s.
        let follows = observed(600, |second| 1300 + (second % 15) * 10 * MIB);
        assert_eq!(follows.seconds_until(1 << 30), None);
        let empty = observed(600, |_| 1300);
        assert_eq!(empty.seconds_until(1 << 30), None);
    }

    #[test]
    fn case_95_a_slot_that_stands_is_lost_when_its_growth_has_used_up_the_rest() {
        let stands = observed(600, |second| second * MIB);
        let seconds = stands.seconds_until(i64::try_from(1000 * MIB).unwrap()).unwrap();
        assert!((900.0..1100.0).contains(&seconds), "{seconds}");
        assert_eq!(stands.seconds_until(-5), Some(0.0), "what is over the bound already");
        // Within a quarter of a minute of the beginning.
        assert!(observed(12, |second| second * MIB).rate().is_some());
        assert!(observed(6, |second| second * MIB).rate().is_none());
    }
}
