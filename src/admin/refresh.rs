//! Makes `/status` and `/metrics` current: a request asks for a refresh, and waits up to 250 ms for it.
//!
//! * In: requests of the admin port; the event loop, which shows the status.
//! * Out: a request that waits until the status has been shown again.
//! * Never: a wait where no event loop runs, or beyond [`PATIENCE`]: the last values are served then, and the heartbeat says
//!   whether they may be believed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// How long a request waits for fresh figures. Short of any probe's timeout.
const PATIENCE: Duration = Duration::from_millis(250);

/// Requests to refresh one status board. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct RefreshRequests(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    asked: Notify,
    shown: watch::Sender<u64>,
    handles: AtomicUsize,
}

impl RefreshRequests {
    /// Waits until the status is fresh, where an event loop shows it.
    pub async fn fresh(&self) {
        if self.0.handles.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut shown = self.0.shown.subscribe();
        self.0.asked.notify_one();
        // On timeout, the last values are served.
        tokio::time::timeout(PATIENCE, shown.changed()).await.ok();
    }

    /// Announces that the status is shown on request from now on, until the handle is dropped.
    pub fn attend(&self) -> RefreshHandle {
        self.0.handles.fetch_add(1, Ordering::Relaxed);
        RefreshHandle(self.clone())
    }
}

/// The event loop's side: it hears requests, and says when the status has been shown.
#[derive(Debug)]
pub struct RefreshHandle(RefreshRequests);

impl RefreshHandle {
    /// Resolves when a refresh is requested.
    pub async fn asked(&self) {
        self.0.0.asked.notified().await;
    }

    /// Says that the status has been shown.
    pub fn shown(&self) {
        self.0.0.shown.send_modify(|count| *count += 1);
    }
}

impl Drop for RefreshHandle {
    fn drop(&mut self) {
        self.0.0.handles.fetch_sub(1, Ordering::Relaxed);
    }
}
