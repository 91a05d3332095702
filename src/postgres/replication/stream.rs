//! The replication stream: one connection, on a thread of its own, read in bursts.
//!
//! * In: where to start, and how far the slot may move.
//! * Out: [`StreamEvent`]s through a bounded channel: whole messages in the order in which the server sent them.
//! * Never: a flush position past what [`Control::confirm`] was given; silence towards the server while this side lives,
//!   whoever is slow.
//!
//! Hard-won facts. The walsender sends one message per `send` call; a client that wakes for each makes every one of them
//! dearer. Letting the socket fill while data keeps coming ([`crate::postgres::replication::read_coalescing`]) makes the *server* up to twice as fast, at a
//! tenth of the client's CPU. The pause is a blocking sleep, which is why the connection has a thread of its own; it
//! comes after what was read has been handed on, and only when reads follow each other closely, so that a quiet stream is
//! never delayed. A client that stops reading dies at `wal_sender_timeout` even if it answers every keepalive that it has
//! read; one that sends status by a timer lives: so the timer runs on whatever the channel does.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::config::Source;
use crate::postgres::connection::faults;
use crate::postgres::replication::control::Control;
use crate::postgres::replication::copy_loop::CopyLoop;
use crate::postgres::replication::event::{EndReason, StreamEnd, StreamEvent, StreamStart, stopped};
use crate::postgres::replication::start_replication;

/// Runs that may wait for the event loop: with [`RUN_MAX`] each, the channel's share of memory.
const RUNS: usize = 16;

#[derive(Debug)]
pub struct Stream {
    /// The stream's events.
    pub events: mpsc::Receiver<StreamEvent>,
    /// The stream's control handle.
    pub control: Arc<Control>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Stream {
    /// Starts the thread, which connects and begins the copy.
    pub fn open(source: Source, start: StreamStart) -> std::io::Result<Stream> {
        let (sender, events) = mpsc::channel(RUNS);
        let control = Arc::new(Control::new());
        let shared = Arc::clone(&control);
        let thread = std::thread::Builder::new().name("stream".into()).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let ended =
                        StreamEnd { fate: EndReason::Transient, fault: faults::no_thread("the stream", &error) };
                    // The receiver is gone: there is nobody left to report to.
                    let _gone = sender.blocking_send(StreamEvent::Ended(ended));
                    return;
                }
            };
            runtime.block_on(async {
                let ended = follow(&source, &start, &shared, &sender).await;
                let _gone = sender.send(StreamEvent::Ended(ended)).await;
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

async fn follow(
    source: &Source,
    start: &StreamStart,
    control: &Control,
    events: &mpsc::Sender<StreamEvent>,
) -> StreamEnd {
    let (wire, begun) = match start_replication::begin(source, start).await {
        Ok(begun) => begun,
        Err(ended) => return ended,
    };
    // What the slot has already; more is confirmed by who reads.
    control.confirm(begun.slot);
    if events.send(StreamEvent::Started(begun.at)).await.is_err() {
        wire.close().await;
        return stopped();
    }
    control.beat();
    let (reader, writer) = wire.split();
    let mut copying = CopyLoop::new(reader, writer, control, start);
    let ended = copying.copy(events).await;
    copying.writer.close().await;
    ended
}
