//! When a section's result is compared next. Pure.
//!
//! * In: the schedule of the configuration, the comparisons that ended, the wall clock.
//! * Out: whether one is due, when the next is, from when on one is late.
//! * Never: a comparison beside another of the same section; a day's wait because the hour passed while it was not running.

use std::time::Duration;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};

use crate::config::Flush;
use crate::model::{Exit, Fault};
use crate::state::DiffRun;

/// How long it waits at least before it tries again what a person must mend, and what mends itself.
const RETRY: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(1));
/// How much later than planned a comparison may end, beside the time that the last one took, twice.
const ALLOWED: SignedDuration = SignedDuration::from_secs(60);

/// The comparisons of one section.
#[derive(Debug)]
pub(crate) struct DiffSchedule {
    every: Flush,
    next: Timestamp,
    began: Timestamp,
    under_way: bool,
    /// The last one that was settled.
    pub(crate) last: Option<DiffRun>,
    /// How long it took.
    took: SignedDuration,
    /// How long it waits after a failure; zero where the last one did not fail.
    retry: SignedDuration,
}

impl DiffSchedule {
    /// Goes on behind the `last` comparison; without one, it begins at once.
    pub(crate) fn new(every: Flush, last: Option<DiffRun>, now: Timestamp) -> DiffSchedule {
        let time = |text: &str| text.parse::<Timestamp>().ok();
        let began = last.as_ref().and_then(|run| time(&run.started_at));
        let ended = last.as_ref().and_then(|run| time(run.ended_at.as_deref()?));
        let took = began.zip(ended).map_or(SignedDuration::ZERO, |(began, ended)| ended.duration_since(began));
        let next = began.map_or(now, |began| after(&every, began));
        DiffSchedule {
            every,
            next,
            began: began.unwrap_or(now),
            under_way: false,
            last,
            took,
            retry: SignedDuration::ZERO,
        }
    }

    /// Whether a comparison is to begin now.
    pub(crate) fn is_due(&mut self, now: Timestamp) -> bool {
        // A clock that was set back must not make it wait for the time that it lost.
        if let Flush::Every(every) = &self.every
            && self.next.duration_since(now)
                > SignedDuration::try_from(*every).unwrap_or(SignedDuration::MAX).max(self.retry)
        {
            self.next = now;
        }
        !self.under_way && now >= self.next
    }

    /// One begins now.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        (self.began, self.under_way) = (now, true);
    }

    /// It has ended.
    pub(crate) fn end(&mut self, run: &DiffRun, failed: Option<&Fault>, now: Timestamp) {
        self.under_way = false;
        let took = now.duration_since(self.began);
        match failed {
            None => {
                (self.took, self.retry) = (took, SignedDuration::ZERO);
                self.last = Some(DiffRun { ended_at: Some(format!("{now:.3}")), ..run.clone() });
                self.next = after(&self.every, self.began).max(now);
            }
            Some(fault) => {
                let least = if fault.exit == Exit::Unavailable { RETRY.1 } else { RETRY.0 };
                // What takes long until it fails is not tried all the time.
                let wait = SignedDuration::try_from(least).unwrap_or(ALLOWED).max(took);
                self.retry = wait;
                self.next = now.checked_add(wait).unwrap_or(now);
            }
        }
    }

    /// The next comparison is to begin at once, as if there had been none. Returns how many rows were settled.
    pub(crate) fn forget(&mut self, now: Timestamp) -> u64 {
        self.next = now;
        self.last.take().map_or(0, |last| last.rows + last.gone)
    }

    /// Whether one is under way.
    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way
    }

    /// When the next one begins.
    pub(crate) fn next(&self) -> Timestamp {
        self.next
    }

    /// How long from now on until a comparison should have ended; `None` before the first has.
    pub(crate) fn late_in(&self, now: Timestamp) -> Option<Duration> {
        self.last.as_ref()?;
        let interval = match &self.every {
            Flush::Every(every) => SignedDuration::try_from(*every).unwrap_or(ALLOWED),
            Flush::DailyAt(..) => SignedDuration::ZERO,
        };
        let allowed = ALLOWED.saturating_add(interval).saturating_add(self.took).saturating_add(self.took);
        let until = self.next.duration_since(now).saturating_add(allowed);
        Some(Duration::try_from(until).unwrap_or_default())
    }
}

/// When the comparison after one that began then begins.
fn after(every: &Flush, began: Timestamp) -> Timestamp {
    let next = match every {
        Flush::Every(every) => SignedDuration::try_from(*every).ok().and_then(|every| began.checked_add(every).ok()),
        Flush::DailyAt(time, zone) => next_time_of_day(began, *time, zone),
    };
    next.unwrap_or(began)
}

/// When it was `time` in `zone` last.
pub(crate) fn last_time_of_day(
    now: Timestamp,
    time: jiff::civil::Time,
    zone: &jiff::tz::TimeZone,
) -> Option<Timestamp> {
    first_time_of_day(now, time, zone, Date::yesterday, |at| at <= now)
}

/// When it is `time` in `zone` next.
pub(crate) fn next_time_of_day(
    now: Timestamp,
    time: jiff::civil::Time,
    zone: &jiff::tz::TimeZone,
) -> Option<Timestamp> {
    first_time_of_day(now, time, zone, Date::tomorrow, |at| at > now)
}

/// The first `time` in `zone` that fits, from the day of `now` on, by days as `step` goes.
fn first_time_of_day(
    now: Timestamp,
    time: jiff::civil::Time,
    zone: &jiff::tz::TimeZone,
    step: fn(Date) -> Result<Date, jiff::Error>,
    fits: impl Fn(Timestamp) -> bool,
) -> Option<Timestamp> {
    let mut day = now.to_zoned(zone.clone()).date();
    for _ in 0..3 {
        let at = day.to_datetime(time).to_zoned(zone.clone()).ok()?.timestamp();
        if fits(at) {
            return Some(at);
        }
        day = step(day).ok()?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn run(started: &str, ended: &str) -> DiffRun {
        DiffRun { started_at: started.into(), ended_at: Some(ended.into()), ..DiffRun::default() }
    }

    #[test]
    fn an_interval_counts_from_beginning_to_beginning_and_never_overlaps() {
        let mut schedule = DiffSchedule::new(Flush::Every(Duration::from_secs(600)), None, at("2026-01-01T00:00:00Z"));
        assert!(schedule.is_due(at("2026-01-01T00:00:00Z")), "the first begins at once");
        assert_eq!(schedule.late_in(at("2026-01-01T00:00:00Z")), None);
        schedule.begin(at("2026-01-01T00:00:00Z"));
        assert!(!schedule.is_due(at("2026-01-01T09:00:00Z")));
        schedule.end(&DiffRun::default(), None, at("2026-01-01T00:01:00Z"));
        assert!(!schedule.is_due(at("2026-01-01T00:09:59Z")) && schedule.is_due(at("2026-01-01T00:10:00Z")));
        // Ten minutes of interval, one that it may be late, and two for the comparison itself.
        assert_eq!(schedule.late_in(at("2026-01-01T00:10:00Z")), Some(Duration::from_secs(780)));
        // One that takes longer than the interval is followed at once.
        schedule.begin(at("2026-01-01T00:10:00Z"));
        schedule.end(&DiffRun::default(), None, at("2026-01-01T00:30:00Z"));
        assert!(schedule.is_due(at("2026-01-01T00:30:00Z")));
        // The clock is set back by a day.
        assert!(schedule.is_due(at("2025-12-31T00:30:00Z")));
    }

    #[test]
    fn a_restart_goes_on_where_the_schedule_was_and_makes_up_for_a_missed_hour() {
        let daily = Flush::DailyAt(jiff::civil::time(2, 0, 0, 0), jiff::tz::TimeZone::get("Europe/Stockholm").unwrap());
        let last = run("2026-01-01T01:00:00Z", "2026-01-01T01:05:00Z");
        let mut schedule = DiffSchedule::new(daily.clone(), Some(last.clone()), at("2026-01-01T20:00:00Z"));
        assert!(!schedule.is_due(at("2026-01-02T00:59:00Z")) && schedule.is_due(at("2026-01-02T01:00:00Z")));
        let mut missed = DiffSchedule::new(daily, Some(last), at("2026-01-03T12:00:00Z"));
        assert!(missed.is_due(at("2026-01-03T12:00:00Z")));
        assert_eq!(missed.late_in(at("2026-01-03T12:00:00Z")), Some(Duration::ZERO));
    }

    #[test]
    fn what_failed_is_tried_again_soon_but_not_all_the_time() {
        let now = at("2026-01-01T00:00:00Z");
        let mut schedule = DiffSchedule::new(Flush::Every(Duration::from_secs(3600)), None, now);
        schedule.begin(now);
        schedule.end(&DiffRun::default(), Some(&Fault::unavailable("", "")), at("2026-01-01T00:00:00.1Z"));
        assert!(schedule.is_due(at("2026-01-01T00:00:01.1Z")));
        schedule.begin(now);
        schedule.end(&DiffRun::default(), Some(&Fault::usage("", "")), at("2026-01-01T00:00:01Z"));
        assert!(!schedule.is_due(at("2026-01-01T00:00:15Z")) && schedule.is_due(at("2026-01-01T00:00:16Z")));
        schedule.begin(now);
        schedule.end(&DiffRun::default(), Some(&Fault::usage("", "")), at("2026-01-01T00:10:00Z"));
        assert!(!schedule.is_due(at("2026-01-01T00:19:59Z")) && schedule.is_due(at("2026-01-01T00:20:00Z")));
        // An interval shorter than the wait does not shorten it.
        let mut schedule = DiffSchedule::new(Flush::Every(Duration::from_secs(1)), None, now);
        schedule.begin(now);
        schedule.end(&DiffRun::default(), Some(&Fault::usage("", "")), at("2026-01-01T00:00:01Z"));
        assert!(!schedule.is_due(at("2026-01-01T00:00:15Z")) && schedule.is_due(at("2026-01-01T00:00:16Z")));
    }

    #[test]
    fn the_next_time_of_day_is_within_25_hours() {
        for zone in ["UTC", "Europe/Stockholm", "America/New_York"] {
            let zone = jiff::tz::TimeZone::get(zone).unwrap();
            for hour in [0, 2, 23] {
                let now = Timestamp::now();
                let next = next_time_of_day(now, jiff::civil::time(hour, 0, 0, 0), &zone).unwrap();
                assert!(next > now && next.duration_since(now) <= SignedDuration::from_hours(25), "{next}");
                let last = last_time_of_day(now, jiff::civil::time(hour, 0, 0, 0), &zone).unwrap();
                assert!(last <= now && now.duration_since(last) <= SignedDuration::from_hours(25), "{last}");
            }
        }
    }
}
