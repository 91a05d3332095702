//! The loop of one streaming connection: it reads in bursts, hands on whole messages, and reports to the server by a timer.
//!
//! * In: a connection on which the copy has begun, and the [`Control`] over it.
//! * Out: [`StreamEvent::Run`]s; status updates; in the end, why it ended.
//! * Never: a read while what was read waits to go on; a message held that is longer than the limit; a timer that waits for
//!   a reader.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use tokio::sync::mpsc;

use crate::model::Fault;
use crate::postgres::connection::server_error::ServerError;
use crate::postgres::replication::connection::{WireReader, WireWriter};
use crate::postgres::replication::control::{Control, ZOMBIE};
use crate::postgres::replication::event::{EndReason, StreamEnd, StreamEvent, StreamStart, stopped};
use crate::postgres::replication::frames::{FrameError, missing_bytes};
use crate::postgres::replication::oversize_message::OversizeReader;
use crate::postgres::replication::pgoutput::{Payload, payload};
use crate::postgres::replication::read_coalescing::ReadCoalescing;
use crate::postgres::replication::start_replication;

/// A message's tag and length.
const HEADER: usize = 5;
/// A run is cut at this size.
const RUN_MAX: usize = 256 << 10;
/// Status updates for a moved position, or for keepalives that ask for one, are at least this far apart.
const STATUS_GAP: Duration = Duration::from_millis(100);
/// How long a farewell may take, and what it may hold of a message that it throws away.
const FAREWELL: Duration = Duration::from_secs(1);
const FAREWELL_BUFFER: usize = 4 << 20;
/// The timer's period.
const TICK: Duration = Duration::from_millis(50);

/// When status updates were sent, and whether one is owed.
struct StatusClock {
    last: Instant,
    flushed: u64,
    asked: bool,
}

impl StatusClock {
    fn new() -> StatusClock {
        StatusClock { last: Instant::now() - Duration::from_secs(3600), flushed: 0, asked: false }
    }
}

/// The loop's state.
pub(crate) struct CopyLoop<'a> {
    reader: WireReader,
    pub writer: WireWriter,
    control: &'a Control,
    start: &'a StreamStart,
    /// Bytes at the buffer's head that are whole messages, ready to go.
    run: usize,
    /// The reader of a message that is too long, while its bytes arrive.
    skim: Option<OversizeReader>,
    /// The short message that replaces it, ready to be handed on.
    short: Option<Bytes>,
    status: StatusClock,
    /// When the server was last heard, or reading began again.
    heard: Instant,
    pace: ReadCoalescing,
}

impl<'a> CopyLoop<'a> {
    pub(crate) fn new(
        reader: WireReader,
        writer: WireWriter,
        control: &'a Control,
        start: &'a StreamStart,
    ) -> CopyLoop<'a> {
        let (status, heard) = (StatusClock::new(), Instant::now());
        let pace = ReadCoalescing::new(reader.nearness());
        CopyLoop { reader, writer, control, start, run: 0, skim: None, short: None, status, heard, pace }
    }
}

impl CopyLoop<'_> {
    /// Copies until the stream ends; returns the reason.
    pub(crate) async fn copy(&mut self, events: &mpsc::Sender<StreamEvent>) -> StreamEnd {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // What came with the answer that began the copy has been read already: an error among it is the last that comes.
        if let Err(ended) = self.scan() {
            return ended;
        }
        loop {
            if self.control.stop.load(Ordering::Relaxed) {
                return self.farewell().await;
            }
            if let Err(ended) = self.go_on_or_pause() {
                return ended;
            }
            tokio::select! {
                biased;
                // 1. Time: the server must hear from us whatever else goes on.
                _ = tick.tick() => {
                    if let Err(ended) = self.on_tick().await {
                        return ended;
                    }
                }
                // 2. The event loop wants to know, or wants an end.
                () = self.control.wake.notified() => {
                    if self.control.ping.swap(false, Ordering::Relaxed)
                        && let Err(ended) = self.send_status().await {
                        return ended;
                    }
                }
                // 3. What was read goes on before anything more is read.
                permit = events.reserve(), if self.is_ready() => {
                    let Ok(permit) = permit else { return stopped() };
                    permit.send(StreamEvent::Run(self.take_run()));
                    self.heard = Instant::now();
                    // What follows a message that was too long has been read already.
                    if let Err(ended) = self.scan() {
                        return ended;
                    }
                }
                // 4. Read.
                read = self.reader.read_more(), if !self.is_ready() => {
                    if let Err(ended) = self.on_read(read) {
                        return ended;
                    }
                }
            }
        }
    }

    /// Where nothing waits to be handed on: reads what has arrived, or lets the socket fill, if data keeps coming.
    fn go_on_or_pause(&mut self) -> Result<(), StreamEnd> {
        if self.is_ready() {
            return Ok(());
        }
        if let Some(read) = self.reader.read_more().now_or_never() {
            return self.on_read(read);
        }
        if let Some(pause) = self.pace.pause() {
            std::thread::sleep(pause);
            self.pace.paused(Instant::now());
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.run > 0 || self.short.is_some()
    }

    fn take_run(&mut self) -> Bytes {
        self.short.take().unwrap_or_else(|| {
            let run = std::mem::take(&mut self.run);
            self.reader.buffer_mut().split_to(run).freeze()
        })
    }

    /// Feeds bytes to the reader of a message that is too long.
    fn skim_on(&mut self) {
        let Some(mut skimmer) = self.skim.take() else { return };
        let buffer = self.reader.buffer_mut();
        let taken = skimmer.feed(buffer);
        buffer.advance(taken);
        if skimmer.is_done() {
            self.short = Some(skimmer.finish().into());
        } else {
            self.skim = Some(skimmer);
        }
    }

    fn on_read(&mut self, read: std::io::Result<usize>) -> Result<(), StreamEnd> {
        let transient = |what: String| StreamEnd {
            fate: EndReason::Transient,
            fault: Fault::unavailable(what, "look into the server's log; it is connected to again by itself"),
        };
        match read {
            Ok(0) => return Err(transient("the server closed the replication connection".into())),
            Ok(bytes) => self.pace.read(bytes, Instant::now()),
            Err(error) => return Err(transient(format!("the replication connection broke: {error}"))),
        }
        self.heard = Instant::now();
        self.control.last_message.store(self.control.millis(), Ordering::Relaxed);
        self.scan()
    }

    /// Counts the whole messages at the buffer's head, and looks at what concerns the connection itself.
    fn scan(&mut self) -> Result<(), StreamEnd> {
        if self.is_ready() {
            return Ok(());
        }
        if self.skim.is_some() {
            self.skim_on();
            return Ok(());
        }
        let buffer = self.reader.buffer_mut();
        let (mut at, mut messages) = (0, 0);
        let mut wal_end = 0;
        while at < RUN_MAX {
            let rest = &buffer[at..];
            match missing_bytes(rest, self.start.max_message) {
                Ok(Some(0)) => {}
                // What is before it goes first.
                Err(FrameError::TooLong { .. }) if at > 0 => break,
                Err(FrameError::TooLong { tag: b'd', len, max }) => {
                    tracing::warn!(
                        bytes = len,
                        limit = max,
                        "a message too long to hold: its large values are left out"
                    );
                    buffer.advance(HEADER);
                    self.skim = Some(OversizeReader::new(len, max));
                    self.skim_on();
                    return Ok(());
                }
                Ok(_) => break,
                Err(error @ (FrameError::Nonsense { .. } | FrameError::TooLong { .. })) => {
                    let remedy = "check that source.host and source.port are PostgreSQL's own";
                    return Err(StreamEnd {
                        fate: EndReason::Wedged,
                        fault: Fault::needs_person(error.to_string(), remedy),
                    });
                }
            }
            let len = u32::from_be_bytes([rest[1], rest[2], rest[3], rest[4]]) as usize + 1;
            let body = &rest[HEADER..len];
            match rest[0] {
                b'd' => {
                    if let Ok(Payload::Keepalive { wal_end: end, reply }) = payload(body) {
                        self.status.asked |= reply;
                        wal_end = wal_end.max(end.0);
                    }
                }
                // What is before the end goes first: it may be the last that ever comes.
                b'E' | b'c' if at > 0 => break,
                b'E' => return Err(start_replication::broken(&ServerError::parse(body))),
                b'c' => {
                    let remedy = "look into the server's log; it is connected to again by itself";
                    let fault = Fault::unavailable("the server ended the replication stream", remedy);
                    return Err(StreamEnd { fate: EndReason::Transient, fault });
                }
                _ => {}
            }
            at += len;
            messages += 1;
        }
        self.pace.messages(messages);
        self.run = at;
        self.control.received.fetch_max(wal_end, Ordering::Relaxed);
        Ok(())
    }

    async fn on_tick(&mut self) -> Result<(), StreamEnd> {
        let since = self.status.last.elapsed();
        let moved = self.control.flush.load(Ordering::Relaxed) > self.status.flushed;
        let alive = self.control.millis().saturating_sub(self.control.beat.load(Ordering::Relaxed));
        if Duration::from_millis(alive) > ZOMBIE {
            let fault = Fault::bug("the delivering side has stopped: the slot is let go so that another can take it");
            return Err(StreamEnd { fate: EndReason::Transient, fault });
        }
        if since >= self.start.status_interval || (since >= STATUS_GAP && (self.status.asked || moved)) {
            self.send_status().await?;
        }
        // Silence, though each status asks for a word: the connection is dead, whatever TCP says.
        if !self.is_ready() && self.heard.elapsed() > self.start.patience {
            let fault = Fault::unavailable(
                format!("the server has been silent for {} s", self.heard.elapsed().as_secs()),
                "check the network and the server; it is connected to again by itself",
            );
            return Err(StreamEnd { fate: EndReason::Silent, fault });
        }
        Ok(())
    }

    /// Standby status update (documentation, "Streaming Replication Protocol"), always asking for a reply: it proves the
    /// connection and tells how far the server has read, in under a millisecond.
    async fn send_status(&mut self) -> Result<(), StreamEnd> {
        let flush = self.control.flush.load(Ordering::Relaxed);
        let written = self.control.received.load(Ordering::Relaxed).max(flush);
        let mut message = [0u8; 34];
        message[0] = b'r';
        message[1..9].copy_from_slice(&written.to_be_bytes());
        message[9..17].copy_from_slice(&flush.to_be_bytes());
        message[17..25].copy_from_slice(&flush.to_be_bytes());
        message[33] = 1;
        self.status = StatusClock { last: Instant::now(), flushed: flush, asked: false };
        // A server that does not read must not stop the timer: bytes that cannot be sent stay queued.
        let sent = tokio::time::timeout(Duration::from_secs(2), self.writer.send_copy_data(&message)).await;
        match sent {
            Ok(Ok(())) | Err(_) => Ok(()),
            Ok(Err(error)) => Err(StreamEnd {
                fate: EndReason::Transient,
                fault: Fault::unavailable(
                    format!("the replication connection broke: {error}"),
                    "look into the server's log; it is connected to again by itself",
                ),
            }),
        }
    }

    /// The last status, and the wait (bounded) for its answer: then the server has taken it.
    async fn farewell(&mut self) -> StreamEnd {
        if self.send_status().await.is_ok()
            && let Ok(Err(error)) = tokio::time::timeout(FAREWELL, self.take_leave()).await
        {
            tracing::debug!(%error, "the last status got no answer");
        }
        stopped()
    }

    /// CopyDone, and everything that still comes up to the server's own CopyDone, unread: the server takes messages in
    /// order, so it has taken the last status by then. (Any keepalive would not prove that: one may be under way.)
    async fn take_leave(&mut self) -> std::io::Result<()> {
        if self.skim.is_some() {
            // In the middle of a message: there is no waiting for its end.
            return Ok(());
        }
        self.writer.send_copy_done().await?;
        loop {
            let buffer = self.reader.buffer_mut();
            while let Ok(Some(0)) = missing_bytes(buffer, self.start.max_message) {
                if buffer[0] != b'd' {
                    return Ok(());
                }
                let len = u32::from_be_bytes([buffer[1], buffer[2], buffer[3], buffer[4]]) as usize + 1;
                buffer.advance(len);
            }
            if buffer.len() > FAREWELL_BUFFER || self.reader.read_more().await? == 0 {
                return Ok(());
            }
        }
    }
}
