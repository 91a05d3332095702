//! The context that every part of the event loop shares.
//!
//! * In: nothing.
//! * Out: the configuration, the clock, the background tasks, the way to end.
//! * Never: anything that belongs to one part.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::runtime::event_loop::loop_exit::LoopExit;
use crate::runtime::same_server::SameServer;

/// The configuration, the clock, the background tasks, and how the loop is to end.
pub(crate) struct LoopContext {
    pub(crate) config: Arc<Config>,
    /// Where the stream comes from.
    pub(crate) server: SameServer,
    began: Instant,
    /// When the clock's arm last ran.
    ticked: Instant,
    /// Everything that runs beside the loop; it ends with it.
    pub(crate) tasks: JoinSet<()>,
    exit: Option<LoopExit>,
    /// The configurations that follow the one that runs.
    pub(crate) configs: watch::Receiver<Arc<Config>>,
}

impl LoopContext {
    pub(crate) fn new(
        config: Arc<Config>,
        mut configs: watch::Receiver<Arc<Config>>,
        server: SameServer,
        tasks: JoinSet<()>,
    ) -> LoopContext {
        let now = Instant::now();
        // One that came while this loop was built is looked at first.
        configs.mark_changed();
        LoopContext { config, server, began: now, ticked: now, tasks, exit: None, configs }
    }

    /// The reading of the monotonic clock that the delivery core is given.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn ticked(&mut self) {
        self.ticked = Instant::now();
    }

    pub(crate) fn since_tick(&self) -> Duration {
        self.ticked.elapsed()
    }

    /// Ends the loop in this way, unless it ends already.
    pub(crate) fn end(&mut self, exit: LoopExit) {
        self.exit.get_or_insert(exit);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.exit.is_some()
    }

    pub(crate) fn take_exit(&mut self) -> Option<LoopExit> {
        self.exit.take()
    }
}
