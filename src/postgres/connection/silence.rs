//! How long a server has owed an answer.
//!
//! * In: what goes over a connection, both ways.
//! * Out: word when an answer is owed for longer than the connection's patience.
//! * Never: an end for a connection on which nothing was asked, however long it rests.
//!
//! The network tells of a server that is gone. It says nothing of a proxy that acknowledges everything and has forgotten the
//! connection, or of a server whose processes are frozen: those would be waited for without end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The end of every answer: ReadyForQuery, but for its last byte.
const READY: [u8; 5] = [b'Z', 0, 0, 0, 5];

/// The longest time between two looks, in milliseconds.
const SELDOM: u64 = 5_000;

/// One connection's silence. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Silence(Arc<Clock>);

#[derive(Debug)]
struct Clock {
    began: Instant,
    /// Since when an answer is owed, in milliseconds from `began`, plus one; 0 where none is.
    owed: AtomicU64,
    /// Milliseconds; 0 is without end.
    patience: AtomicU64,
}

/// The last bytes that came.
#[derive(Debug, Default)]
pub(crate) struct Tail([u8; 6]);

impl Silence {
    /// Without an end, until a patience is set.
    pub(crate) fn new() -> Silence {
        Silence(Arc::new(Clock { began: Instant::now(), owed: AtomicU64::new(0), patience: AtomicU64::new(0) }))
    }

    /// The longest time that an answer may be owed.
    pub(crate) fn set_patience(&self, patience: Duration) {
        self.0.patience.store(millis(patience), Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        millis(self.0.began.elapsed()) + 1
    }

    /// Something was asked.
    pub(crate) fn asked(&self) {
        // Where an answer is owed already, that one is the older.
        self.0.owed.compare_exchange(0, self.now(), Ordering::Relaxed, Ordering::Relaxed).ok();
    }

    /// Something came. The answer is whole where its last bytes say so; else the rest of it is owed from now on.
    pub(crate) fn came(&self, bytes: &[u8], tail: &mut Tail) {
        let is_whole = tail.take(bytes);
        if self.0.owed.load(Ordering::Relaxed) > 0 {
            self.0.owed.store(if is_whole { 0 } else { self.now() }, Ordering::Relaxed);
        }
    }

    /// Resolves when an answer has been owed for longer than the patience; says for how long.
    pub(crate) async fn too_long(&self) -> Duration {
        loop {
            let patience = self.0.patience.load(Ordering::Relaxed);
            let owed = self.0.owed.load(Ordering::Relaxed);
            let since = if owed == 0 { 0 } else { self.now().saturating_sub(owed) };
            if patience > 0 && since >= patience {
                return Duration::from_millis(since);
            }
            // A patience that is set meanwhile counts from the next look on.
            let often = if patience == 0 { SELDOM } else { (patience / 12).min(SELDOM) };
            let left = if owed == 0 { often } else { patience.saturating_sub(since) };
            tokio::time::sleep(Duration::from_millis(often.min(left).max(10))).await;
        }
    }
}

impl Tail {
    /// Whether the bytes so far end an answer.
    fn take(&mut self, bytes: &[u8]) -> bool {
        let last = &bytes[bytes.len().saturating_sub(6)..];
        self.0.rotate_left(last.len());
        let from = self.0.len() - last.len();
        self.0[from..].copy_from_slice(last);
        self.0.starts_with(&READY)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_with_ready_wherever_the_network_cuts_it() {
        let answer = [&b"T\0\0\0\x08xxxx"[..], &READY, b"I"].concat();
        for cut in 0..=answer.len() {
            let (silence, mut tail) = (Silence::new(), Tail::default());
            silence.asked();
            let owed = |silence: &Silence| silence.0.owed.load(Ordering::Relaxed) > 0;
            silence.came(&answer[..cut], &mut tail);
            assert_eq!(owed(&silence), cut < answer.len(), "{cut}");
            if cut < answer.len() {
                silence.came(&answer[cut..], &mut tail);
                assert!(!owed(&silence), "{cut}");
            }
        }
    }

    #[tokio::test]
    async fn only_what_was_asked_is_owed() {
        let (silence, mut tail) = (Silence::new(), Tail::default());
        silence.set_patience(Duration::from_millis(60));
        let ends = |within| tokio::time::timeout(Duration::from_millis(within), silence.too_long());
        // A server says something by itself now and then, and owes nothing by it.
        silence.came(b"S\0\0\0\x08a\0b\0", &mut tail);
        assert!(ends(300).await.is_err(), "nothing was asked");
        silence.asked();
        assert!(ends(2000).await.is_ok_and(|owed| owed >= Duration::from_millis(60)));
        silence.came(&[&READY[..], b"I"].concat(), &mut tail);
        assert!(ends(300).await.is_err(), "it was answered");
    }
}
