//! A gauge of the seconds since something last happened.
//!
//! * In: a touch at each event.
//! * Out: the age, computed when it is scraped.
//! * Never: an age that stands still between events.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use prometheus::Gauge;

/// A gauge of "how long ago", which grows by itself until it is set again. Cheap to clone.
#[derive(Clone)]
pub struct Age {
    gauge: Gauge,
    nothing: f64,
    made: Instant,
    /// Microseconds from `made` to the beginning; before it where negative; [`Age::NOTHING`] where there is none.
    began: Arc<AtomicI64>,
}

impl Age {
    const NOTHING: i64 = i64::MIN;

    pub(crate) fn new(gauge: Gauge, nothing: f64) -> Age {
        gauge.set(nothing);
        Age { gauge, nothing, made: Instant::now(), began: Arc::new(AtomicI64::new(Age::NOTHING)) }
    }

    pub fn touch(&self) {
        self.ago(Duration::ZERO);
    }

    /// Sets the age.
    pub fn ago(&self, ago: Duration) {
        let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        self.began.store(micros(self.made.elapsed()).saturating_sub(micros(ago)), Ordering::Relaxed);
    }

    /// Clears the age: there is nothing to measure.
    pub fn nothing(&self) {
        self.began.store(Age::NOTHING, Ordering::Relaxed);
    }

    pub(crate) fn show(&self, now: Instant) {
        let began = self.began.load(Ordering::Relaxed);
        if began == Age::NOTHING {
            self.gauge.set(self.nothing);
            return;
        }
        let since_made = now.saturating_duration_since(self.made).as_secs_f64();
        self.gauge.set((since_made - began as f64 / 1e6).max(0.0));
    }
}
