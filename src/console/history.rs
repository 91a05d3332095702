//! The recent past, for the plots: two rings of samples in memory.
//!
//! * In: the metrics' text every five seconds, with the sampler's own clock.
//! * Out: rates and levels over 15 minutes, an hour and a day.
//! * Never: a rate that the page computes (a late message would draw a dip that never was); a clock of its own.

use std::collections::{BTreeMap, VecDeque};

use crate::console::counters::{Counters, SectionCounters};

/// The sampler takes a sample every so many seconds.
pub(crate) const EVERY: u64 = 5;
/// This many samples make one point of the coarse ring.
const COARSE: u32 = 12;
/// The fine ring keeps this many points: 15 minutes.
const FINE_POINTS: usize = 180;
/// The coarse ring keeps this many points: 24 hours.
const COARSE_POINTS: usize = 1440;

/// The span of time that a plot shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TimeSpan {
    #[default]
    Quarter,
    Hour,
    Day,
}

impl TimeSpan {
    pub(crate) const ALL: [TimeSpan; 3] = [TimeSpan::Quarter, TimeSpan::Hour, TimeSpan::Day];

    /// Returns the word that stands for the span in an address.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            TimeSpan::Quarter => "15m",
            TimeSpan::Hour => "1h",
            TimeSpan::Day => "24h",
        }
    }

    /// Returns the words that name the span on a page.
    pub(crate) fn label(self) -> &'static str {
        match self {
            TimeSpan::Quarter => "15 min",
            TimeSpan::Hour => "1 h",
            TimeSpan::Day => "24 h",
        }
    }

    /// Returns the span of a word in an address; a quarter of an hour for any other word.
    pub(crate) fn parse(word: &str) -> TimeSpan {
        TimeSpan::ALL.into_iter().find(|span| span.as_str() == word).unwrap_or_default()
    }

    /// Returns the number of points that fill a plot of this span.
    pub(crate) fn points(self) -> usize {
        match self {
            TimeSpan::Quarter => FINE_POINTS,
            TimeSpan::Hour => 60,
            TimeSpan::Day => COARSE_POINTS,
        }
    }

    /// Returns the number of seconds from one point to the next.
    pub(crate) fn every(self) -> f64 {
        match self {
            TimeSpan::Quarter => EVERY as f64,
            TimeSpan::Hour | TimeSpan::Day => (EVERY * u64::from(COARSE)) as f64,
        }
    }
}

/// One figure over time, in both rings.
#[derive(Clone, Debug, Default)]
struct Track {
    fine: VecDeque<f32>,
    coarse: VecDeque<f32>,
    sum: f64,
    samples: u32,
}

impl Track {
    fn push(&mut self, value: f64, point_ends: bool) {
        push(&mut self.fine, value, FINE_POINTS);
        if value.is_finite() {
            self.sum += value;
            self.samples += 1;
        }
        if point_ends {
            let mean = if self.samples > 0 { self.sum / f64::from(self.samples) } else { f64::NAN };
            push(&mut self.coarse, mean, COARSE_POINTS);
            (self.sum, self.samples) = (0.0, 0);
        }
    }

    /// Returns the last points of the span, the oldest first.
    fn points(&self, span: TimeSpan) -> Vec<f32> {
        let ring = if span == TimeSpan::Quarter { &self.fine } else { &self.coarse };
        ring.iter().skip(ring.len().saturating_sub(span.points())).copied().collect()
    }

    fn now(&self) -> Option<f64> {
        self.fine.back().copied().map(f64::from).filter(|value| value.is_finite())
    }
}

#[allow(clippy::cast_possible_truncation, reason = "a plot has no more digits than this")]
fn push(ring: &mut VecDeque<f32>, value: f64, most: usize) {
    if ring.len() == most {
        ring.pop_front();
    }
    ring.push_back(value as f32);
}

/// The figures of one section over time.
#[derive(Clone, Debug, Default)]
struct SectionTracks {
    stream: Track,
    backfill: Track,
    late: Track,
}

/// A figure of the whole program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    /// Rows delivered per second.
    Rows,
    /// Batches settled per second.
    Batches,
    /// The seconds from commit to delivery that half of the streamed rows stayed below.
    LateHalf,
    /// The seconds from commit to delivery that 99 % of the streamed rows stayed below.
    Late99,
    /// The seconds that half of Planhat's answers stayed below.
    Answer,
    /// The seconds that 99 % of Planhat's answers stayed below.
    Answer99,
    /// The bytes of WAL that the slot keeps.
    Kept,
    /// The bytes of WAL that the server writes per second.
    Wal,
}

/// The figures of the program and of its sections over time.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    sections: BTreeMap<String, SectionTracks>,
    figures: BTreeMap<Figure, Track>,
    last: Option<(f64, Counters)>,
    samples: u32,
    /// The time of the first sample, in Unix seconds.
    pub began: Option<f64>,
    /// The instance's state, and the time at which it was first seen in that state.
    state: Option<(&'static str, f64)>,
}

impl History {
    /// Adds a sample that was taken at `now`, in Unix seconds.
    pub(crate) fn sample(&mut self, now: f64, counters: Counters) {
        self.began.get_or_insert(now);
        self.samples += 1;
        let ends = self.samples.is_multiple_of(COARSE);
        if let Some((at, before)) = self.last.take()
            && now > at
        {
            self.rates(now - at, &before, &counters, ends);
        }
        self.last = Some((now, counters));
    }

    fn rates(&mut self, seconds: f64, before: &Counters, now: &Counters, ends: bool) {
        let (mut rows, mut batches) = (0.0, 0.0);
        let (mut late, mut answers) = (Vec::new(), Vec::new());
        let nothing = SectionCounters::default();
        for (name, section) in &now.sections {
            let was = before.sections.get(name).unwrap_or(&nothing);
            // A counter that fell started anew with its process, and gives no rate.
            let rate = |now: f64, was: f64| if now >= was { (now - was) / seconds } else { f64::NAN };
            let stream = rate(section.delivered_stream, was.delivered_stream);
            let backfill = rate(section.delivered_otherwise, was.delivered_otherwise);
            let own_late = section.late.since(&was.late);
            let tracks = self.sections.entry(name.clone()).or_default();
            tracks.stream.push(stream, ends);
            tracks.backfill.push(backfill, ends);
            tracks.late.push(own_late.quantile(0.99).unwrap_or(f64::NAN), ends);
            rows += stream + backfill;
            batches += rate(section.batches, was.batches);
            late.push(own_late);
            answers.push(section.requests.since(&was.requests));
        }
        let late = crate::console::counters::Histogram::sum(&late);
        let answers = crate::console::counters::Histogram::sum(&answers);
        let quantile = |of: &crate::console::counters::Histogram, part: f64| of.quantile(part).unwrap_or(f64::NAN);
        let figures = [
            (Figure::Rows, rows),
            (Figure::Batches, batches),
            (Figure::LateHalf, quantile(&late, 0.5)),
            (Figure::Late99, quantile(&late, 0.99)),
            (Figure::Answer, quantile(&answers, 0.5)),
            (Figure::Answer99, quantile(&answers, 0.99)),
            (Figure::Kept, now.slot_retained_bytes),
            (Figure::Wal, now.wal_bytes_per_second),
        ];
        for (figure, value) in figures {
            self.figures.entry(figure).or_default().push(value, ends);
        }
    }

    /// Returns for how many seconds the instance has been seen in this state.
    pub(crate) fn state_since(&mut self, state: &'static str, now: f64) -> f64 {
        match self.state {
            Some((known, since)) if known == state => (now - since).max(0.0),
            _ => {
                self.state = Some((state, now));
                0.0
            }
        }
    }

    /// Returns a figure over a span, the oldest point first. NaN stands for an unknown point.
    pub(crate) fn points(&self, figure: Figure, span: TimeSpan) -> Vec<f32> {
        self.figures.get(&figure).map(|track| track.points(span)).unwrap_or_default()
    }

    /// Returns a figure's last value; `None` where that is unknown.
    pub(crate) fn now(&self, figure: Figure) -> Option<f64> {
        self.figures.get(&figure).and_then(Track::now)
    }

    /// Returns a figure's last known value within 15 minutes.
    pub(crate) fn last_known(&self, figure: Figure) -> Option<f64> {
        let track = self.figures.get(&figure)?;
        track.fine.iter().rev().copied().map(f64::from).find(|value| value.is_finite())
    }

    /// Returns a section's rows per second: those of the stream, and those of backfills and re-syncs.
    pub(crate) fn section(&self, name: &str, span: TimeSpan) -> (Vec<f32>, Vec<f32>) {
        let tracks = self.sections.get(name);
        tracks.map(|tracks| (tracks.stream.points(span), tracks.backfill.points(span))).unwrap_or_default()
    }

    /// Returns a section's rows per second now, by whichever way they came.
    pub(crate) fn section_now(&self, name: &str) -> Option<f64> {
        let tracks = self.sections.get(name)?;
        Some(tracks.stream.now()? + tracks.backfill.now()?)
    }

    /// Returns the rows per second that a section's backfill delivers now.
    pub(crate) fn backfill_now(&self, name: &str) -> Option<f64> {
        self.sections.get(name)?.backfill.now()
    }

    /// Returns the largest lateness of a section's rows within 15 minutes, of the 99 % of each sample.
    pub(crate) fn section_late(&self, name: &str) -> Option<f64> {
        let points = self.sections.get(name)?.late.points(TimeSpan::Quarter);
        points.into_iter().filter(|value| value.is_finite()).map(f64::from).reduce(f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(stream: f64, backfill: f64) -> Counters {
        let section =
            SectionCounters { delivered_stream: stream, delivered_otherwise: backfill, ..SectionCounters::default() };
        Counters { sections: [("s".to_owned(), section)].into(), slot_retained_bytes: 7.0, ..Counters::default() }
    }

    #[test]
    fn rates_are_by_the_samplers_own_clock() {
        let mut history = History::default();
        history.sample(100.0, counters(0.0, 0.0));
        assert_eq!(history.now(Figure::Rows), None, "one sample is no rate");
        history.sample(105.0, counters(50.0, 100.0));
        history.sample(115.0, counters(50.0, 100.0));
        assert_eq!(history.section("s", TimeSpan::Quarter), (vec![10.0, 0.0], vec![20.0, 0.0]));
        assert_eq!(history.points(Figure::Rows, TimeSpan::Quarter), [30.0, 0.0]);
        assert_eq!(history.now(Figure::Kept), Some(7.0));
        assert_eq!(history.now(Figure::Late99), None, "no streamed row, no lateness");
    }

    #[test]
    fn a_process_that_began_anew_draws_no_dip() {
        let mut history = History::default();
        history.sample(0.0, counters(1000.0, 0.0));
        history.sample(5.0, counters(3.0, 0.0));
        assert!(history.section("s", TimeSpan::Quarter).0[0].is_nan());
        assert_eq!(history.section_now("s"), None);
    }

    #[test]
    fn the_rings_are_bounded_and_a_minute_is_a_mean() {
        let mut history = History::default();
        for sample in 0..20_000_u32 {
            let at = f64::from(sample) * 5.0;
            history.sample(at, counters(at * 3.0, 0.0));
        }
        assert_eq!(history.points(Figure::Rows, TimeSpan::Quarter).len(), 180);
        assert_eq!(history.points(Figure::Rows, TimeSpan::Hour).len(), 60);
        let day = history.points(Figure::Rows, TimeSpan::Day);
        assert_eq!(day.len(), 1440);
        assert!(day.iter().all(|rate| (rate - 3.0).abs() < 1e-3));
        assert_eq!(history.began, Some(0.0));
    }

    #[test]
    fn spans_read_back() {
        for span in TimeSpan::ALL {
            assert_eq!(TimeSpan::parse(span.as_str()), span);
        }
        assert_eq!(TimeSpan::parse("nonsense"), TimeSpan::Quarter);
    }
}
