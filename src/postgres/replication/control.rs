//! The handle that the event loop has on a running stream, shared with the stream's thread.
//!
//! * In: the LSN that may be confirmed; the request to stop; a heartbeat.
//! * Out: what the stream has received.
//! * Never: a confirmed LSN that moves back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::model::Lsn;

/// Control handle of a running stream, shared with the event loop.
#[derive(Debug)]
pub struct Control {
    pub(crate) flush: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) stop: AtomicBool,
    /// Milliseconds since `epoch` of the last sign of life of the delivering side.
    pub(crate) beat: AtomicU64,
    pub(crate) last_message: AtomicU64,
    epoch: Instant,
    pub(crate) wake: Notify,
    pub(crate) ping: AtomicBool,
}

impl Control {
    pub(crate) fn new() -> Control {
        Control {
            flush: AtomicU64::new(0),
            received: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            beat: AtomicU64::new(0),
            last_message: AtomicU64::new(0),
            epoch: Instant::now(),
            wake: Notify::new(),
            ping: AtomicBool::new(false),
        }
    }

    /// Everything before `lsn` is settled, durably: the slot may move there.
    pub fn confirm(&self, lsn: Lsn) {
        self.flush.fetch_max(lsn.0, Ordering::Relaxed);
    }

    /// Asks the server how far it has read.
    pub fn ping(&self) {
        self.ping.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Records that the delivering side lives. Without it for [`ZOMBIE`], status updates stop and the slot is released.
    pub fn beat(&self) {
        self.beat.store(self.millis(), Ordering::Relaxed);
    }

    /// Time since the server's last message.
    pub fn silence(&self) -> Duration {
        Duration::from_millis(self.millis().saturating_sub(self.last_message.load(Ordering::Relaxed)))
    }

    /// Ends the stream: the last confirmed position is reported first.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    pub(crate) fn millis(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// How long the delivering side may be silent before it counts as dead.
pub(crate) const ZOMBIE: Duration = Duration::from_secs(60);
