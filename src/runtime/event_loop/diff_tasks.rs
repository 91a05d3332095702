//! The comparisons under way: what they tell, and how many may read at once.
//!
//! * In: tasks to run.
//! * Out: [`DiffEvent`]s, in order for each section.
//! * Never: more comparisons at once than the memory allows.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

use crate::config::Config;
use crate::runtime::diff_event::DiffEvent;
use crate::runtime::diff_reader::DiffTask;
use crate::runtime::state_connector::StateConnector;

/// What one comparison may hold, about.
const DIFF_SHARE: u64 = 8 << 20;

/// The comparisons under way.
pub(crate) struct Diffs {
    events: mpsc::Receiver<DiffEvent>,
    sender: mpsc::Sender<DiffEvent>,
    /// How many may read at once.
    turns: Arc<Semaphore>,
    /// Bytes that one may hold back.
    held: usize,
}

impl Diffs {
    pub(crate) fn new(config: &Config) -> Diffs {
        let (sender, events) = mpsc::channel(8);
        let most = usize::try_from(config.memory / 4 / DIFF_SHARE).unwrap_or(1).clamp(1, 4);
        let held = usize::try_from(config.memory / 16).unwrap_or(usize::MAX).min(4 << 20);
        Diffs { events, sender, turns: Arc::new(Semaphore::new(most)), held }
    }

    pub(crate) async fn event(&mut self) -> Option<DiffEvent> {
        self.events.recv().await
    }

    /// Bytes that one may hold back.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// One comparison, to be spawned; `ahead` bounds its pieces that are read and not used.
    pub(crate) fn run(
        &self,
        task: DiffTask,
        config: Arc<Config>,
        ahead: Arc<Semaphore>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (source, turns, told) = (config.source.clone(), Arc::clone(&self.turns), self.sender.clone());
        task.run(source, StateConnector::new(config), turns, ahead, told)
    }
}
