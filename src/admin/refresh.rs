//! Whoever looks sees now, not half a second ago.
//!
//! * In: a request of the admin port; the one who writes the board.
//! * Out: the request waits until the board has been written anew.
//! * Never: a wait for one who is not there, or beyond [`PATIENCE`]: what was shown last is shown then, and the heartbeat says
//!   whether it may be believed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// How long a look waits for fresh figures. Short of any probe's timeout.
const PATIENCE: Duration = Duration::from_millis(250);

/// The looks at one board. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct RefreshRequests(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    asked: Notify,
    shown: watch::Sender<u64>,
    attendants: AtomicUsize,
}

impl RefreshRequests {
    /// Waits until the board is fresh, where somebody writes it.
    pub async fn fresh(&self) {
        if self.0.attendants.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut shown = self.0.shown.subscribe();
        self.0.asked.notify_one();
        // Late is an answer, too: the last figures.
        tokio::time::timeout(PATIENCE, shown.changed()).await.ok();
    }

    /// Takes up the writing of the board, until what this gives is dropped.
    pub fn attend(&self) -> RefreshHandle {
        self.0.attendants.fetch_add(1, Ordering::Relaxed);
        RefreshHandle(self.clone())
    }
}

/// The one who writes the board.
#[derive(Debug)]
pub struct RefreshHandle(RefreshRequests);

impl RefreshHandle {
    /// Resolves when someone looks.
    pub async fn asked(&self) {
        self.0.0.asked.notified().await;
    }

    /// Says that the board has been written.
    pub fn shown(&self) {
        self.0.0.shown.send_modify(|count| *count += 1);
    }
}

impl Drop for RefreshHandle {
    fn drop(&mut self) {
        self.0.0.attendants.fetch_sub(1, Ordering::Relaxed);
    }
}
