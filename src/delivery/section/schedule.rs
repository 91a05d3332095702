//! The sending times of a section that sends once a day, by the wall clock as it is now. Pure.
//!
//! * In: what the calendar says, looked at each minute; when a row was taken, and when it was committed.
//! * Out: when what was taken is due, on the monotonic clock.
//! * Never: a day's wait because the hour passed while the section was busy, paused, killed or waiting for Planhat, or because
//!   the clock was corrected: what was committed before the hour is due.

use std::time::Duration;

/// How often the calendar is looked at: a clock that was corrected is seen within this.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long rows are gathered that came after their hour: not each of them is a request of its own.
const GATHER: Duration = Duration::from_secs(5);

/// When a batch was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenedAt {
    /// When its first row was taken, on the monotonic clock.
    pub(crate) taken: Duration,
    /// When that was committed (µs since 2000-01-01 UTC), where it is known.
    pub(crate) committed: Option<i64>,
}

/// What the calendar says at some moment. Times of the wall clock are µs since 2000-01-01 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CalendarLook {
    /// The moment on the monotonic clock.
    pub(crate) at: Duration,
    /// The same on the wall clock.
    pub(crate) wall: i64,
    /// The sending time that came last.
    pub(crate) last: Option<i64>,
    /// The one that comes next.
    pub(crate) next: Option<i64>,
}

impl CalendarLook {
    /// When it is so late by the wall clock, as far as that can be told.
    fn monotonic(&self, wall: i64) -> Duration {
        let ahead = Duration::from_micros(wall.abs_diff(self.wall));
        if wall < self.wall { self.at.saturating_sub(ahead) } else { self.at.saturating_add(ahead) }
    }

    /// How late it is by the wall clock then.
    fn wall(&self, monotonic: Duration) -> i64 {
        let micros = |ahead: Duration| i64::try_from(ahead.as_micros()).unwrap_or(i64::MAX);
        let (ahead, behind) = (monotonic.saturating_sub(self.at), self.at.saturating_sub(monotonic));
        self.wall.saturating_add(micros(ahead)).saturating_sub(micros(behind))
    }
}

/// The sending times of one section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Daily {
    seen: Option<CalendarLook>,
    /// A sending time that has passed and is not the last: rows have waited since then.
    missed: Option<i64>,
}

impl Daily {
    /// Whether the calendar is to be looked at again.
    pub(crate) fn wants_look(&self, now: Duration) -> bool {
        let has_come = |seen: CalendarLook| seen.next.is_some_and(|next| now > seen.monotonic(next));
        self.seen.is_none_or(|seen| now >= seen.at + LOOK_EVERY || has_come(seen))
    }

    /// The calendar was looked at; `oldest`: when the oldest row that waits was taken. Since when that waits is kept: it is not
    /// on time again because the next day's hour has come.
    pub(crate) fn see(&mut self, look: CalendarLook, oldest: Option<Duration>) {
        if let Some(seen) = self.seen.filter(|seen| seen.last != look.last) {
            let waits = |hour: &i64| oldest.is_some_and(|oldest| seen.wall(oldest) <= *hour);
            self.missed = self.missed.filter(waits).or(seen.last.filter(waits));
        }
        self.seen = Some(look);
    }

    /// When a batch goes that was opened so.
    pub(crate) fn due_at(&self, opened: OpenedAt) -> Option<Duration> {
        let seen = self.seen?;
        let committed = opened.committed.unwrap_or_else(|| seen.wall(opened.taken));
        let hours = [self.missed, seen.last, seen.next].into_iter().flatten();
        let hour = hours.filter(|hour| committed <= *hour).min()?;
        let due = seen.monotonic(hour);
        Some(if due < opened.taken { opened.taken + GATHER } else { due })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const MICROS: i64 = 3_600_000_000;

    /// It is `wall` o'clock, after `at` hours; rows go at 2 o'clock each day.
    fn look(at: u32, wall: i64) -> CalendarLook {
        let last = (wall - 2).div_euclid(24) * 24 + 2;
        let (last, next) = (Some(last * MICROS), Some((last + 24) * MICROS));
        CalendarLook { at: HOUR * at, wall: wall * MICROS, last, next }
    }

    fn taken(at: u32) -> OpenedAt {
        OpenedAt { taken: HOUR * at, committed: None }
    }

    fn committed(at: u32, wall: i64) -> OpenedAt {
        OpenedAt { committed: Some(wall * MICROS), ..taken(at) }
    }

    #[test]
    fn what_was_due_stays_due_when_the_hour_has_passed() {
        let mut daily = Daily::default();
        assert!(daily.wants_look(Duration::ZERO) && daily.due_at(taken(0)).is_none());
        daily.see(look(0, 0), None);
        assert_eq!(daily.due_at(taken(1)), Some(2 * HOUR));
        // The section was waiting for Planhat over the hour.
        daily.see(look(3, 3), None);
        assert_eq!(daily.due_at(taken(1)), Some(2 * HOUR));
        // What came after the hour waits for the next.
        assert_eq!(daily.due_at(taken(3)), Some(26 * HOUR));
    }

    #[test]
    fn case_98_a_clock_that_is_corrected_is_followed_within_a_minute() {
        let mut daily = Daily::default();
        // By a clock that is three hours slow.
        daily.see(look(1, 22), None);
        assert_eq!(daily.due_at(taken(1)), Some(5 * HOUR));
        assert!(!daily.wants_look(HOUR + LOOK_EVERY / 2) && daily.wants_look(HOUR + LOOK_EVERY));
        // Put forward over the hour: what was committed before it is due now.
        daily.see(look(2, 26), None);
        assert!(daily.due_at(committed(1, 25)).is_some_and(|due| due <= 2 * HOUR));
        assert_eq!(daily.due_at(committed(2, 27)), Some(26 * HOUR));
        // Put back before the hour: it comes again.
        daily.see(look(3, 25), None);
        assert_eq!(daily.due_at(taken(3)), Some(4 * HOUR));
        assert!(daily.wants_look(4 * HOUR + Duration::from_secs(1)), "at the hour, too");
    }

    #[test]
    fn case_98_what_was_committed_before_the_hour_and_comes_after_it_does_not_wait_a_day() {
        let mut daily = Daily::default();
        // A process that begins at 3 o'clock: the one before was killed at 1.
        daily.see(look(1, 3), None);
        assert_eq!(daily.due_at(committed(1, 1)), Some(HOUR + GATHER));
        assert_eq!(daily.due_at(committed(1, -30)), Some(HOUR + GATHER));
        assert_eq!(daily.due_at(committed(1, 3)), Some(24 * HOUR));
        // A server whose clock is ahead: its row waits until its hour is seen.
        assert_eq!(daily.due_at(committed(1, 27)), None);
    }

    #[test]
    fn case_244_rows_that_missed_their_hour_are_late_since_then_also_when_the_next_one_has_passed() {
        let mut daily = Daily::default();
        daily.see(look(0, 0), None);
        let waits = taken(1);
        let oldest = Some(waits.taken);
        for hour in [3, 25, 27, 51, 75] {
            daily.see(look(hour, i64::from(hour)), oldest);
            assert_eq!(daily.due_at(waits), Some(2 * HOUR), "at hour {hour}");
        }
        // It went, and what came behind it missed an hour of its own.
        let behind = taken(30);
        daily.see(look(76, 76), Some(behind.taken));
        daily.see(look(99, 99), Some(behind.taken));
        assert_eq!(daily.due_at(behind), Some(74 * HOUR));
    }
}
