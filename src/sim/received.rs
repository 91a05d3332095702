//! What the stand-in received: items in order of acceptance, and counters that can be waited for.
//!
//! * In: requests begun and ended, items accepted.
//! * Out: items, [`Stats`], and their changes as events.
//! * Never: an item changed, merged or dropped, but by `clear`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkKind {
    #[serde(alias = "user_activity")]
    Activity,
    /// A metric's value.
    #[serde(alias = "custom_metric")]
    Metric,
}

/// An item that was accepted.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its number in order of acceptance, over all kinds, from 1.
    pub seq: u64,
    pub kind: SinkKind,
    /// The number of its request, over all kinds, from 1.
    pub request: u64,
    /// When its request was accepted.
    pub at: Timestamp,
    /// Its JSON text, as it came.
    pub raw: Bytes,
}

impl Received {
    /// The item parsed; `null` where a number in it is beyond 64-bit floats.
    pub fn item(&self) -> Value {
        serde_json::from_slice(&self.raw).unwrap_or_default()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    pub activities: KindStats,
    pub metrics: KindStats,
    /// Connections accepted.
    pub connections: u64,
    /// Requests that met a fault.
    pub faults: u64,
}

/// The counters of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KindStats {
    /// Requests begun.
    pub requests: u64,
    /// Requests begun and neither answered nor broken.
    pub under_way: u64,
    /// Requests whose items were accepted.
    pub accepted: u64,
    /// Items accepted.
    pub items: u64,
    /// Items refused one by one.
    pub refused: u64,
    /// Bytes of the bodies accepted.
    pub bytes: u64,
}

impl Stats {
    /// The counters of one kind.
    pub fn of(&self, kind: SinkKind) -> &KindStats {
        match kind {
            SinkKind::Activity => &self.activities,
            SinkKind::Metric => &self.metrics,
        }
    }

    fn of_mut(&mut self, kind: SinkKind) -> &mut KindStats {
        match kind {
            SinkKind::Activity => &mut self.activities,
            SinkKind::Metric => &mut self.metrics,
        }
    }
}

/// The contents of one accepted request.
#[derive(Debug, Default)]
pub(crate) struct Brought {
    /// Items to keep.
    pub(crate) kept: Vec<Bytes>,
    /// Items accepted (more than are kept, where they are only counted).
    pub(crate) items: u64,
    /// Items refused.
    pub(crate) refused: u64,
    /// Bytes of the body.
    pub(crate) bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct ReceivedStore {
    stats: Arc<watch::Sender<Stats>>,
    kept: Mutex<KeptItems>,
}

#[derive(Debug, Default)]
struct KeptItems {
    items: Vec<Received>,
    requests: u64,
}

/// A request under way; dropped when it is answered or broken.
#[derive(Debug)]
pub(crate) struct UnderWay {
    stats: Arc<watch::Sender<Stats>>,
    kind: SinkKind,
    pub(crate) number: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.stats.send_modify(|stats| {
            let under_way = &mut stats.of_mut(self.kind).under_way;
            // Cleared counters may be behind.
            *under_way = under_way.saturating_sub(1);
        });
    }
}

impl ReceivedStore {
    fn kept(&self) -> MutexGuard<'_, KeptItems> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn connected(&self) {
        self.stats.send_modify(|stats| stats.connections += 1);
    }

    pub(crate) fn faulted(&self) {
        self.stats.send_modify(|stats| stats.faults += 1);
    }

    /// Counts a request; it is under way as long as what is returned lives.
    pub(crate) fn begin(&self, kind: SinkKind) -> UnderWay {
        let number = {
            let mut kept = self.kept();
            kept.requests += 1;
            kept.requests
        };
        self.stats.send_modify(|stats| {
            let stats = stats.of_mut(kind);
            stats.requests += 1;
            stats.under_way += 1;
        });
        UnderWay { stats: self.stats.clone(), kind, number }
    }

    pub(crate) fn accept(&self, kind: SinkKind, request: u64, brought: Brought) {
        let at = Timestamp::now();
        let mut kept = self.kept();
        for raw in brought.kept {
            let seq = kept.items.len() as u64 + 1;
            kept.items.push(Received { seq, kind, request, at, raw });
        }
        // Under the lock, so that a reader of the counters finds the items.
        self.stats.send_modify(|stats| {
            let stats = stats.of_mut(kind);
            stats.accepted += 1;
            stats.items += brought.items;
            stats.refused += brought.refused;
            stats.bytes += brought.bytes;
        });
    }

    pub(crate) fn items(&self, kind: Option<SinkKind>) -> Vec<Received> {
        let wanted = |item: &&Received| kind.is_none_or(|kind| item.kind == kind);
        self.kept().items.iter().filter(wanted).cloned().collect()
    }

    pub(crate) fn items_after(&self, seq: u64, limit: usize) -> Vec<Received> {
        let kept = self.kept();
        let begin = usize::try_from(seq).unwrap_or(usize::MAX).min(kept.items.len());
        kept.items[begin..].iter().take(limit).cloned().collect()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.stats.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Stats> {
        self.stats.subscribe()
    }

    pub(crate) fn clear(&self) {
        let mut kept = self.kept();
        *kept = KeptItems::default();
        self.stats.send_replace(Stats::default());
    }
}
