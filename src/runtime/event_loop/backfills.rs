//! The backfills under way: their reading thread, their events, and how many may read at once.
//!
//! * In: tasks to start.
//! * Out: [`BackfillEvent`]s, in order for each section.
//! * Never: more backfills at once than the memory allows.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::config::{Config, Source};
use crate::runtime::backfill_reader::{BackfillEvent, BackfillReader, BackfillTask, Room};

/// The backfills under way.
pub(crate) struct Backfills {
    events: mpsc::Receiver<BackfillEvent>,
    sender: mpsc::Sender<BackfillEvent>,
    /// The thread that reads them, once there was one to read.
    reader: Option<BackfillReader>,
    room: Room,
}

impl Backfills {
    pub(crate) fn new(config: &Config) -> Backfills {
        let (sender, events) = mpsc::channel(8);
        // Their chunks stay within a quarter of the memory.
        let room = Room::new(usize::try_from(config.memory / 4).unwrap_or(usize::MAX));
        Backfills { events, sender, reader: None, room }
    }

    pub(crate) async fn event(&mut self) -> Option<BackfillEvent> {
        self.events.recv().await
    }

    /// Starts to read a backfill; `ahead` bounds its chunks that are read and not used.
    pub(crate) fn start(&mut self, task: BackfillTask, source: Source, ahead: Arc<Semaphore>, tasks: &mut JoinSet<()>) {
        self.spawn(task.run(source, self.room.clone(), ahead, self.sender.clone()), tasks);
    }

    /// Runs what reads rows by SQL on the thread that does.
    pub(crate) fn spawn(&mut self, reading: impl Future<Output = ()> + Send + 'static, tasks: &mut JoinSet<()>) {
        if self.reader.is_none() {
            let failed = |error: &std::io::Error| tracing::warn!(%error, "no thread for backfills");
            self.reader = BackfillReader::start().inspect_err(failed).ok();
        }
        match &self.reader {
            Some(reader) => tasks.spawn_on(reading, reader.handle()),
            None => tasks.spawn(reading),
        };
    }
}
