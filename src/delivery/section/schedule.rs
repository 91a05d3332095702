//! The sending times of a section that sends once a day. Pure.
//!
//! * In: the next such time, on the monotonic clock, as someone with a calendar has worked it out.
//! * Out: whether what was taken in at some time is due.
//! * Never: a day's wait because the hour passed while the section was busy, paused or waiting for Planhat: what was due stays due.

use std::time::Duration;

/// How long a time stays the next one after it has come. By the calendar it may not quite have come yet, and would be found again.
const MARGIN: Duration = Duration::from_secs(60);

/// The sending times of one section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Daily {
    next: Option<Duration>,
    past: Option<Duration>,
}

impl Daily {
    /// Whether the caller must set the next time.
    pub(crate) fn wants_next(&self, now: Duration) -> bool {
        self.next.is_none_or(|next| now > next + MARGIN)
    }

    /// Sets the next time; the one before has passed.
    pub(crate) fn set_next(&mut self, next: Option<Duration>) {
        self.past = self.next.or(self.past);
        self.next = next;
    }

    /// Whether a batch that was opened then goes now: a sending time has passed since.
    pub(crate) fn is_due(&self, opened: Duration, now: Duration) -> bool {
        self.due_at(opened).is_some_and(|due| now >= due)
    }

    /// The time at which a batch goes that was opened then.
    pub(crate) fn due_at(&self, opened: Duration) -> Option<Duration> {
        [self.past, self.next].into_iter().flatten().find(|due| opened <= *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn what_was_due_stays_due_when_the_hour_has_passed() {
        let mut daily = Daily::default();
        assert!(daily.wants_next(Duration::ZERO) && !daily.is_due(Duration::ZERO, 100 * HOUR));
        daily.set_next(Some(2 * HOUR));
        assert!(!daily.is_due(HOUR, HOUR) && daily.is_due(HOUR, 2 * HOUR));
        assert!(!daily.wants_next(2 * HOUR) && daily.wants_next(3 * HOUR));
        // The section was waiting for Planhat over the hour; the next day's is set meanwhile.
        daily.set_next(Some(26 * HOUR));
        assert!(daily.is_due(HOUR, 3 * HOUR));
        // What came after the hour waits for the next.
        assert!(!daily.is_due(3 * HOUR, 4 * HOUR) && daily.is_due(3 * HOUR, 26 * HOUR));
        assert_eq!((daily.due_at(HOUR), daily.due_at(3 * HOUR)), (Some(2 * HOUR), Some(26 * HOUR)));
        // A calendar that knows no next time forgets nothing.
        daily.set_next(None);
        assert!(daily.is_due(25 * HOUR, 26 * HOUR) && daily.due_at(27 * HOUR).is_none());
    }
}
