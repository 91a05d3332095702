//! How long to wait before the same batch is sent again. Pure: the randomness is passed in.
//!
//! * In: how often it failed, what `Retry-After` asked for, a random number.
//! * Out: a delay between [`FLOOR`] and [`CEILING`], and at least what was asked for, up to [`RETRY_AFTER_CAP`].
//! * Never: a give-up. A batch is retried for ever; only the delay is bounded.

use std::time::Duration;

/// The first ceiling; it doubles with every failure.
pub(crate) const BASE: Duration = Duration::from_millis(500);
/// The last ceiling.
pub(crate) const CEILING: Duration = Duration::from_secs(300);
/// Full jitter may draw nearly nothing: this keeps a dead server from being hammered in a loop.
pub(crate) const FLOOR: Duration = Duration::from_millis(50);
/// The most that a server's `Retry-After` is obeyed.
pub(crate) const RETRY_AFTER_CAP: Duration = Duration::from_secs(15 * 60);

/// The delay after failure number `attempt` (the first is 1), with full jitter: `random`, within [0, 1), picks a point
/// between the floor and the ceiling of that attempt, so that many senders do not come back together.
pub(crate) fn delay(attempt: u32, retry_after: Option<Duration>, random: f64) -> Duration {
    let ceiling = ceiling(attempt);
    let random = if random.is_finite() { random.clamp(0.0, 1.0) } else { 1.0 };
    let jittered = FLOOR + (ceiling - FLOOR).mul_f64(random);
    jittered.max(retry_after.unwrap_or_default().min(RETRY_AFTER_CAP))
}

pub(crate) fn ceiling(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(31);
    BASE.saturating_mul(1 << doublings).min(CEILING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ceilings_double_up_to_five_minutes() {
        let ceilings: Vec<u128> = (1..=12).map(|attempt| delay(attempt, None, 1.0).as_millis()).collect();
        assert_eq!(ceilings, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000, 300_000]);
        assert_eq!(delay(0, None, 0.5), delay(1, None, 0.5));
        assert_eq!(delay(u32::MAX, None, 1.0), CEILING);
    }

    proptest! {
        #[test]
        fn stays_within_its_bounds(attempt: u32, random in 0.0..1.0f64) {
            let delay = delay(attempt, None, random);
            prop_assert!(delay >= FLOOR && delay <= CEILING);
        }

        #[test]
        fn never_falls_as_failures_add_up(attempt in 0..40u32, random in 0.0..1.0f64) {
            prop_assert!(delay(attempt, None, random) <= delay(attempt + 1, None, random));
        }

        #[test]
        fn obeys_retry_after_up_to_its_cap(attempt: u32, seconds in 0..1_000_000u64, random in 0.0..1.0f64) {
            let asked = Duration::from_secs(seconds);
            let delay = delay(attempt, Some(asked), random);
            prop_assert!(delay >= asked.min(RETRY_AFTER_CAP) && delay <= RETRY_AFTER_CAP.max(CEILING));
        }

        #[test]
        fn survives_nonsense(random: f64) {
            prop_assert!(delay(3, None, random) <= CEILING);
        }
    }
}
