//! The pause between two reading bursts, in which the socket fills. Pure.
//!
//! * In: how much each burst brought, and when; where the server is.
//! * Out: the pause before the next one; none on a quiet stream.
//! * Never: a pause beyond [`longest_pause`]; a pause before a row that nothing closely precedes.
//!
//! The walsender sends each message by a `send` of its own. While the receiver's window is open, each becomes a TCP segment,
//! and segments are what the server's time goes into (and ours: each is queued, acknowledged and freed). While the window is
//! closed, messages are only appended to the last segment that waits, which costs a tenth. So the reader goes just slower
//! than the server could: it waits a little longer whenever a burst brought less than the full window, and a little shorter
//! whenever it brought that. Tried on loopback, 1,000,000 messages: 3,600 segments instead of 100,000 to 900,000, the
//! server's CPU halved, 2.5 s instead of 2.7 to 18 s on a machine that others kept busy. Large messages fill segments by
//! themselves: for them a closed window is only a wait (rows of 10 KB: 0.9 s without pauses, 1.9 s with 300 µs).

use std::time::{Duration, Instant};

use crate::postgres::connection::locality::Locality;

/// The first pause of a flow.
const FIRST: Duration = Duration::from_micros(300);
/// Bursts closer together than this are a flow, not single commits.
const FLOW: Duration = Duration::from_millis(1);
/// A smaller burst is not worth a pause.
const SMALL: usize = 8 << 10;
/// Messages of at least this average size gain nothing from more than the first pause.
const MEDIUM: usize = 512;
/// Messages of at least this average size gain nothing from any pause.
const LARGE: usize = 2 << 10;
/// Assumed size of a full burst until one has been observed.
const LEAST_FULL: f64 = 32.0 * 1024.0;
/// The receive buffer for a server on this host: small, so that the window closes within a pause. A network needs its own.
pub(crate) const NEAR_BUFFER: usize = 64 << 10;

/// The rhythm of the bursts.
#[derive(Debug)]
pub(crate) struct ReadCoalescing {
    most: Duration,
    pause: Duration,
    /// What this burst has brought so far: bytes, and messages that became whole.
    burst: usize,
    messages: usize,
    /// Size of the last full bursts.
    full: f64,
    flowing: bool,
    last: Option<Instant>,
}

/// The longest pause before a read from a server there.
fn longest_pause(nearness: Locality) -> Duration {
    match nearness {
        Locality::SameHost => Duration::from_millis(5),
        Locality::Socket => FIRST,
        Locality::Network => Duration::from_millis(1),
    }
}

impl ReadCoalescing {
    /// The rhythm for a server there.
    pub(crate) fn new(nearness: Locality) -> ReadCoalescing {
        ReadCoalescing {
            most: longest_pause(nearness),
            pause: FIRST,
            burst: 0,
            messages: 0,
            full: LEAST_FULL,
            flowing: false,
            last: None,
        }
    }

    /// Records a read of so many bytes.
    pub(crate) fn read(&mut self, bytes: usize, now: Instant) {
        if self.burst == 0 {
            self.flowing = self.last.is_some_and(|last| now.saturating_duration_since(last) < FLOW);
        }
        self.burst += bytes;
        self.last = Some(now);
    }

    /// Records that so many messages are complete.
    pub(crate) fn messages(&mut self, count: usize) {
        self.messages += count;
    }

    /// Ends the burst: the socket is empty. Returns how long to let it fill, if data keeps coming.
    pub(crate) fn pause(&mut self) -> Option<Duration> {
        let (burst, messages) = (std::mem::take(&mut self.burst), std::mem::take(&mut self.messages));
        let size = burst / messages.max(1);
        if burst == 0 || size >= LARGE {
            return None;
        }
        let brought = burst as f64;
        self.full = (self.full * 0.98).max(brought).max(LEAST_FULL);
        let factor = if brought >= 0.94 * self.full {
            0.97
        } else if burst > SMALL {
            1.3
        } else {
            0.8
        };
        let most = if size >= MEDIUM { FIRST } else { self.most };
        self.pause = self.pause.mul_f64(factor).clamp(FIRST, most);
        self.flowing.then_some(self.pause)
    }

    /// The pause has ended. It does not end a flow by itself.
    pub(crate) fn paused(&mut self, now: Instant) {
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bursts as a sender makes them that fills the window at a steady rate; returns the last pause.
    fn flow_of(
        message: usize,
        coalescing: &mut ReadCoalescing,
        window: usize,
        bytes_per_ms: usize,
        bursts: usize,
    ) -> Duration {
        let mut now = Instant::now();
        let mut pause = Duration::ZERO;
        for _ in 0..bursts {
            let micros = usize::try_from((pause + Duration::from_micros(50)).as_micros()).unwrap();
            let bytes = (micros * bytes_per_ms / 1000).clamp(1, window);
            coalescing.read(bytes, now);
            coalescing.messages(bytes / message);
            pause = coalescing.pause().unwrap_or_default();
            now += pause;
            coalescing.paused(now);
            now += Duration::from_micros(50);
        }
        pause
    }

    fn flow(coalescing: &mut ReadCoalescing, window: usize, bytes_per_ms: usize, bursts: usize) -> Duration {
        flow_of(150, coalescing, window, bytes_per_ms, bursts)
    }

    #[test]
    fn single_commits_are_never_delayed() {
        let mut coalescing = ReadCoalescing::new(Locality::SameHost);
        let mut now = Instant::now();
        for _ in 0..100 {
            now += Duration::from_millis(5);
            coalescing.read(400, now);
            assert_eq!(coalescing.pause(), None);
        }
    }

    #[test]
    fn a_flow_is_read_just_slower_than_it_comes() {
        let (window, rate) = (96 << 10, 60_000);
        let pause = flow(&mut ReadCoalescing::new(Locality::SameHost), window, rate, 1_000);
        let closes = Duration::from_secs_f64(window as f64 / rate as f64 / 1e3);
        assert!(pause > closes.mul_f64(0.75) && pause < closes.mul_f64(1.35), "{pause:?} about {closes:?}");
    }

    #[test]
    fn a_slow_flow_is_hardly_held_up() {
        let mut coalescing = ReadCoalescing::new(Locality::SameHost);
        flow(&mut coalescing, 96 << 10, 60_000, 1_000);
        assert_eq!(flow(&mut coalescing, 96 << 10, 500, 30), FIRST, "the long pauses of a fast flow fade at once");
    }

    #[test]
    fn large_messages_are_not_waited_for() {
        let pause = |message| flow_of(message, &mut ReadCoalescing::new(Locality::SameHost), 96 << 10, 60_000, 100);
        assert_eq!((pause(1 << 10), pause(10 << 10)), (FIRST, Duration::ZERO));
    }

    #[test]
    fn a_network_and_a_socket_have_shorter_pauses() {
        let pause = flow(&mut ReadCoalescing::new(Locality::Network), 4 << 20, 60_000, 1_000);
        assert!(pause > Duration::from_micros(700) && pause <= Duration::from_millis(1), "{pause:?}");
        assert_eq!(flow(&mut ReadCoalescing::new(Locality::Socket), 50 << 10, 60_000, 100), FIRST);
    }

    proptest! {
        #[test]
        fn a_pause_is_bounded_whatever_comes(reads in prop::collection::vec((0usize..1 << 21, 0u64..3_000), 0..200)) {
            let mut coalescing = ReadCoalescing::new(Locality::SameHost);
            let mut now = Instant::now();
            for (bytes, micros) in reads {
                now += Duration::from_micros(micros);
                coalescing.read(bytes, now);
                coalescing.messages(bytes / 100);
                if let Some(pause) = coalescing.pause() {
                    prop_assert!((FIRST..=longest_pause(Locality::SameHost)).contains(&pause));
                    prop_assert!(bytes > 0);
                }
            }
        }
    }
}
