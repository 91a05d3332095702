//! The backfills under way: their reading thread, their events, and how many may read at once.
//!
//! * In: tasks to start.
//! * Out: [`BackfillEvent`]s, in order for each section.
//! * Never: more backfills at once than the memory allows; a word of a reader in whose place another was started.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};

use crate::config::{Config, Source};
use crate::model::SectionId;
use crate::runtime::backfill_event::{BackfillEvent, BackfillNews};
use crate::runtime::backfill_reader::{BackfillReader, BackfillTask, Room};

/// The backfills under way.
pub(crate) struct Backfills {
    events: mpsc::Receiver<(u64, BackfillEvent)>,
    sender: mpsc::Sender<(u64, BackfillEvent)>,
    /// The last reader of each section, by its number.
    readers: HashMap<SectionId, (u64, AbortHandle)>,
    started: u64,
    /// The thread that reads them, once there was one to read.
    reader: Option<BackfillReader>,
    room: Room,
}

impl Backfills {
    pub(crate) fn new(config: &Config) -> Backfills {
        let (sender, events) = mpsc::channel(8);
        // Their chunks stay within a quarter of the memory.
        let room = Room::new(usize::try_from(config.memory / 4).unwrap_or(usize::MAX));
        Backfills { events, sender, readers: HashMap::new(), started: 0, reader: None, room }
    }

    pub(crate) async fn event(&mut self) -> Option<BackfillEvent> {
        loop {
            let (number, event) = self.events.recv().await?;
            if self.readers.get(&event.section()).is_some_and(|(current, _)| *current == number) {
                return Some(event);
            }
        }
    }

    /// Starts to read a backfill, in the place of whoever read it; `ahead` bounds its chunks that are read and not used.
    pub(crate) fn start(&mut self, task: BackfillTask, source: Source, ahead: Arc<Semaphore>, tasks: &mut JoinSet<()>) {
        self.started += 1;
        let (id, number) = (task.id, self.started);
        let news = BackfillNews { number, events: self.sender.clone() };
        let reading = self.spawn(task.run(source, self.room.clone(), ahead, news), tasks);
        if let Some((_, before)) = self.readers.insert(id, (number, reading)) {
            before.abort();
        }
    }

    /// Runs what reads rows by SQL on the thread that does.
    pub(crate) fn spawn(
        &mut self,
        reading: impl Future<Output = ()> + Send + 'static,
        tasks: &mut JoinSet<()>,
    ) -> AbortHandle {
        if self.reader.is_none() {
            let failed = |error: &std::io::Error| tracing::warn!(%error, "no thread for backfills");
            self.reader = BackfillReader::start().inspect_err(failed).ok();
        }
        match &self.reader {
            Some(reader) => tasks.spawn_on(reading, reader.handle()),
            None => tasks.spawn(reading),
        }
    }
}
