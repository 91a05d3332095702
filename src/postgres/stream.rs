//! The replication stream: one connection, on a thread of its own, read in gulps.
//!
//! * In: where to start, and how far the slot may move.
//! * Out: [`Event`]s through a bounded channel: whole messages in the order in which the server sent them.
//! * Never: a flush position past what [`Control::confirm`] was given; silence towards the server while this side lives,
//!   whoever is slow.
//!
//! Hard-won facts. The walsender sends one message per `send` call; a client that wakes for each makes every one of them
//! dearer. Letting the socket fill while data keeps coming ([`super::pace`]) makes the *server* up to twice as fast, at a
//! tenth of the client's CPU. The pause is a blocking sleep, which is why the connection has a thread of its own; it
//! comes after what was read has been handed on, and only when reads follow each other closely, so that a quiet stream is
//! never delayed. A client that stops reading dies at `wal_sender_timeout` even if it answers every keepalive that it has
//! read; one that sends status by a timer lives: so the timer runs on whatever the channel does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use super::copying::Copying;
use super::resume;
use crate::config::Source;
use crate::fault::Fault;
use crate::row::Lsn;

/// What the stream tells the corridor.
#[derive(Debug)]
pub enum Event {
    /// The slot is ours: the copy has begun.
    Started,
    /// Whole messages of the server, one after the other, as they came.
    Run(Bytes),
    /// The connection has ended; nothing follows.
    Ended(Ended),
}

/// Why a stream ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// What it means for what comes next.
    pub fate: Fate,
    /// For a person.
    pub fault: Fault,
}

/// What the end of a stream means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was asked to end.
    Stopped,
    /// It may go on by itself on a new connection.
    Transient,
    /// The server was silent for too long: it may be away, or busy decoding.
    Silent,
    /// The server, its timeline or the slot is not where it was: everything must be compared anew.
    Moved,
    /// The slot is held by another process (55006).
    SlotActive,
    /// There is no such slot (42704).
    SlotMissing,
    /// The slot is of no more use: its WAL is gone (55000).
    SlotLost,
    /// Decoding found no publication of this name (42704), and will not find it next time either.
    PublicationMissing,
    /// The server goes down (57P01, 57P03): it waits for us to let go.
    Shutdown,
    /// The server cannot decode: the same error will come again.
    Wedged,
    /// The configuration, a right or a password is wrong.
    Refused,
}

/// How a stream is begun.
#[derive(Clone, Debug)]
pub struct Start {
    /// The slot.
    pub slot: String,
    /// The publication.
    pub publication: String,
    /// The server that it must be: its system identifier and timeline.
    pub server: Option<(String, u32)>,
    /// The durable checkpoint.
    pub from: Lsn,
    /// The longest message that is held in memory, in bytes.
    pub max_message: usize,
    /// How often a status update is sent at the least.
    pub status_interval: Duration,
    /// How long the server may be silent, though each status update asks for a reply.
    pub patience: Duration,
}

/// The hand that the corridor has on a running stream.
#[derive(Debug)]
pub struct Control {
    pub(super) flush: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) stop: AtomicBool,
    /// Milliseconds since `epoch` of the last sign of life of the delivering side.
    pub(super) beat: AtomicU64,
    pub(super) last_message: AtomicU64,
    epoch: Instant,
    pub(super) wake: Notify,
    pub(super) ping: AtomicBool,
}

impl Control {
    fn new(from: Lsn) -> Control {
        Control {
            flush: AtomicU64::new(from.0),
            received: AtomicU64::new(from.0),
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

    /// The delivering side lives. Without this for [`ZOMBIE`], status updates stop and the slot is let go.
    pub fn beat(&self) {
        self.beat.store(self.millis(), Ordering::Relaxed);
    }

    /// How long ago the server last said anything.
    pub fn silence(&self) -> Duration {
        Duration::from_millis(self.millis().saturating_sub(self.last_message.load(Ordering::Relaxed)))
    }

    /// Ends the stream: the last confirmed position is reported first.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    pub(super) fn millis(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// How long the delivering side may be silent before it is held to be dead.
pub const ZOMBIE: Duration = Duration::from_secs(60);

/// Runs that may wait for the corridor: with [`RUN_MAX`] each, the channel's share of memory.
const RUNS: usize = 16;

/// A running stream.
#[derive(Debug)]
pub struct Stream {
    /// What it tells.
    pub events: mpsc::Receiver<Event>,
    /// The hand on it.
    pub control: Arc<Control>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Stream {
    /// Starts the thread, which connects and begins the copy.
    ///
    /// # Errors
    /// Where the operating system gives no thread.
    pub fn open(source: Source, start: Start) -> std::io::Result<Stream> {
        let (sender, events) = mpsc::channel(RUNS);
        let control = Arc::new(Control::new(start.from));
        let shared = Arc::clone(&control);
        let thread = std::thread::Builder::new().name("stream".into()).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let ended = Ended { fate: Fate::Transient, fault: Fault::bug(format!("no runtime: {error}")) };
                    // Nobody listens any more: then there is nobody to tell.
                    let _gone = sender.blocking_send(Event::Ended(ended));
                    return;
                }
            };
            runtime.block_on(async {
                let ended = follow(&source, &start, &shared, &sender).await;
                let _gone = sender.send(Event::Ended(ended)).await;
            });
        })?;
        Ok(Stream { events, control, thread: Some(thread) })
    }

    /// Ends the stream and waits for its thread, within `bound`.
    pub async fn close(mut self, bound: Duration) {
        self.control.stop();
        self.events.close();
        let drained = async { while self.events.recv().await.is_some() {} };
        if tokio::time::timeout(bound, drained).await.is_ok()
            && let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the stream's thread panicked");
        }
    }
}

async fn follow(source: &Source, start: &Start, control: &Control, events: &mpsc::Sender<Event>) -> Ended {
    let wire = match resume::begin(source, start).await {
        Ok(wire) => wire,
        Err(ended) => return ended,
    };
    if events.send(Event::Started).await.is_err() {
        wire.close().await;
        return stopped();
    }
    control.beat();
    let (reader, writer) = wire.split();
    let mut copying = Copying::new(reader, writer, control, start);
    let ended = copying.copy(events).await;
    copying.writer.close().await;
    ended
}

pub(super) fn stopped() -> Ended {
    Ended { fate: Fate::Stopped, fault: Fault::unavailable("the stream was ended", "nothing: it was asked for") }
}
