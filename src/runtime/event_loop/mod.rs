//! The loop: one place where everything that happens is taken in, in a fixed order of urgency.
//!
//! * In: the stream, the ranges, answers of the sink, durable writes, the watch, time.
//! * Out: what the engine asks for, done.
//! * Never: a wait inside the loop but the loop's own; a row read while the budget is full.

pub(crate) mod actions;
pub(crate) mod build;
pub(crate) mod operator_requests;
pub(crate) mod pending;
pub(crate) mod publication_drift;
pub(crate) mod sections;
pub(crate) mod show_status;
pub(crate) mod source_monitor;
pub(crate) mod stream_supervisor;

pub(crate) use crate::runtime::event_loop::operator_requests::{RESYNC, RETRY};

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::admin::RefreshHandle;
use crate::config::{Config, Section};
use crate::delivery::Engine;
use crate::model::{Fault, Lsn};
use crate::planhat::{Answer, Client, Endpoint};
use crate::postgres::backfill::chunk_reader::Selection;
use crate::postgres::catalog::types::Types;
use crate::postgres::connection::session::Session;
use crate::postgres::replication::event::StreamStart;
use crate::postgres::replication::row_decoder::Decoder;
use crate::postgres::replication::stream::Stream;
use crate::runtime::backfill_reader::{BackfillEvent, BackfillReader};
use crate::runtime::monitor_event::MonitorEvent;
use crate::runtime::section_report::{SectionReport, WalRate};
use crate::runtime::start_error::{NeedsPerson, StartError};
use crate::runtime::state_writer::Written;
use crate::runtime::status_board::Board;
use crate::shutdown::Stop;
use crate::state::{Identity, Op};
use crate::telemetry::SectionMetrics;
use crate::telemetry::log_output::Throttle;

/// How a corridor ends.
#[derive(Debug)]
pub(crate) enum LoopExit {
    /// Told to end, and drained.
    Drained,
    /// A named state.
    NeedsPerson(NeedsPerson),
    /// Another process leads.
    Fenced(Fault),
    /// Begin again from the start: the slot went to another process.
    Again,
}

/// One section, on or off.
pub(crate) struct ConfiguredSection {
    section: Section,
    lane: Option<usize>,
    book: SectionReport,
    metrics: SectionMetrics,
}

/// One lane's way out and its range's reader.
pub(crate) struct SectionRuntime {
    section: usize,
    endpoint: Endpoint,
    oid: u32,
    /// What its ranges read; `None` where its table does not fit.
    selection: Option<Selection>,
    key_column: usize,
    /// Chunks that may be read ahead.
    ahead: Arc<Semaphore>,
    /// Chunks read and not yet used.
    chunks: usize,
    /// The WAL's end and the xmin when the publication was last seen to carry its table as it should.
    sound: Option<(Lsn, u64)>,
    /// Its table's entry in the publication when it was first seen there: a new one was taken out in between.
    entry: Option<u32>,
    /// The table's partitions at the last look.
    partitions: Option<Vec<u32>>,
}

/// A request that has ended.
pub(crate) struct Requested {
    lane: usize,
    id: i64,
    answer: Answer,
    took: Duration,
}

/// When the stream is opened again.
#[derive(Debug)]
struct Reconnect {
    at: Instant,
    failures: u32,
    /// How often in a row the server could not decode, and what was confirmed then.
    wedged: (Lsn, u32),
}

impl Reconnect {
    fn new(now: Instant, confirmed: Lsn) -> Reconnect {
        Reconnect { at: now, failures: 0, wedged: (confirmed, 0) }
    }
}

/// The running corridor.
pub(crate) struct EventLoop {
    config: Arc<Config>,
    board: Board,
    engine: Engine,
    decoder: Decoder,
    stream: Option<Stream>,
    begin: StreamStart,
    reconnect: Reconnect,
    /// Since when the stream is down, or nothing is heard.
    down: Option<(Instant, Fault)>,
    blind: Option<(Instant, Fault)>,
    unwritten: Option<Fault>,
    control: Session,
    identity: Identity,
    anew: pending::StreamRestart,
    epoch: i64,
    types: Types,
    /// Types that no snapshot has seen, and since when they were asked for.
    unseen: HashMap<u32, Instant>,
    sections: Vec<ConfiguredSection>,
    lanes: Vec<SectionRuntime>,
    tables: HashMap<u32, Vec<usize>>,
    client: Client,
    clock: Instant,
    lists: mpsc::UnboundedSender<(u64, Vec<Op>)>,
    written: mpsc::UnboundedReceiver<Written>,
    ranges: mpsc::Receiver<BackfillEvent>,
    ranges_in: mpsc::Sender<BackfillEvent>,
    /// The thread that reads them, once there was one to read.
    readers: Option<BackfillReader>,
    turns: Arc<Semaphore>,
    seen: mpsc::Receiver<MonitorEvent>,
    requests: JoinSet<Requested>,
    tasks: JoinSet<()>,
    wal: WalRate,
    flushed: Lsn,
    shown: Option<Instant>,
    attendant: RefreshHandle,
    ending: Option<LoopExit>,
    pinged: Instant,
    wishes: pending::OperatorRequests,
    /// When time was last given its turn.
    timed: Instant,
    /// Keeps a sink's outage out of the log, but for its beginning.
    brake: Throttle<(usize, &'static str)>,
}

/// The longest that the loop sleeps.
const TICK: Duration = Duration::from_millis(200);

impl EventLoop {
    /// Carries rows until told to stop, or until something ends it.
    ///
    /// # Errors
    /// What is in the way.
    pub(crate) async fn run(mut self, stop: &Stop) -> Result<LoopExit, StartError> {
        let beat = self.board.heartbeat.task("corridor", Duration::from_secs(30));
        let mut deadline: Option<Instant> = None;
        loop {
            beat.beat();
            if let Some(stream) = &self.stream {
                stream.control.beat();
            }
            self.act();
            self.show();
            if let Some(ending) = self.ending.take() {
                beat.finish();
                self.leave();
                self.let_go(Duration::from_secs(2)).await;
                return Ok(ending);
            }
            if let Some(deadline) = deadline
                && (self.engine.is_drained() || Instant::now() >= deadline)
            {
                beat.finish();
                return Ok(self.drained().await);
            }
            let wake = self.wake(deadline);
            let reading = deadline.is_none() && self.engine.wants_rows() && self.stream.is_some();
            tokio::select! {
                biased;
                // 1. The end: nothing may delay a drain.
                () = stop.asked(), if deadline.is_none() => {
                    deadline = Some(Instant::now() + self.config.shutdown_grace);
                    self.begin_drain();
                }
                // 2. Durable writes: requests and confirmations wait for them.
                Some(written) = self.written.recv() => self.on_written(written),
                // 3. Answers: a lane waits for each.
                Some(requested) = self.requests.join_next() => self.on_requested(requested),
                // 4. The watch: the server may be going down, a person may want something.
                Some(seen) = self.seen.recv() => self.on_seen(seen).await,
                // 5. A look at the board: it is shown as it is now, on the way round.
                () = self.attendant.asked() => self.shown = None,
                // 6. Time: batches that are due, waits that are over, connections to make again.
                () = tokio::time::sleep(wake) => self.on_time(),
                // 7. Ranges: they yield to nothing below but the stream itself, and are bounded by their permits.
                Some(news) = self.ranges.recv() => self.on_range(news),
                // 8. The stream, while there is room.
                event = next_event(&mut self.stream), if reading => self.on_event(event).await,
            }
            // A stream that never pauses leaves no turn to the clock: it takes one.
            if self.timed.elapsed() >= TICK {
                self.on_time();
            }
            self.engine.pump(self.clock.elapsed());
        }
    }

    /// How long the loop may sleep.
    fn wake(&self, deadline: Option<Instant>) -> Duration {
        let now = self.clock.elapsed();
        let due = self.engine.next_wake().map_or(TICK, |due| due.saturating_sub(now));
        let end = deadline.map_or(TICK, |deadline| deadline.saturating_duration_since(Instant::now()));
        let ping = if self.engine.waits_for().is_some() { PING } else { TICK };
        due.min(end).min(ping).min(TICK).max(Duration::from_millis(1))
    }

    fn on_time(&mut self) {
        self.timed = Instant::now();
        self.set_daily();
        self.say_held_back();
        if self.engine.waits_for().is_some() {
            self.ping();
        }
        if !self.engine.wants_rows() && self.engine.shed() {
            tracing::warn!(
                "sections that cannot send gave their memory to the others; their rows are read again later"
            );
        }
        self.engine.unshed();
        self.reopen();
    }

    /// Asks the server how far it has read, at most once per [`PING`].
    fn ping(&mut self) {
        if self.pinged.elapsed() >= PING
            && let Some(stream) = &self.stream
        {
            self.pinged = Instant::now();
            stream.control.ping();
        }
    }

    fn begin_drain(&mut self) {
        tracing::info!(grace_seconds = self.config.shutdown_grace.as_secs(), "draining");
        self.board.modify(|status| {
            status.state = crate::telemetry::status_document::InstanceState::Draining;
            status.ready = false;
        });
        self.engine.drain();
    }

    /// The end of a drain: the last checkpoint is durable, the slot is told, everything is let go.
    async fn drained(mut self) -> LoopExit {
        let under_way = self.requests.len();
        if under_way > 0 {
            tracing::warn!(requests = under_way, "the grace is over with requests under way: they will be in doubt");
        }
        self.let_go(Duration::from_secs(2)).await;
        tracing::info!(confirmed = %self.engine.confirmed(), "drained");
        LoopExit::Drained
    }

    async fn let_go(&mut self, bound: Duration) {
        self.requests.abort_all();
        if let Some(stream) = self.stream.take() {
            stream.close(bound).await;
        }
        self.tasks.abort_all();
    }
}

/// How often the server is asked how far it has read, while a chunk waits for it.
const PING: Duration = Duration::from_millis(5);

async fn next_event(stream: &mut Option<Stream>) -> Option<crate::postgres::replication::event::StreamEvent> {
    match stream {
        Some(stream) => stream.events.recv().await,
        None => std::future::pending().await,
    }
}
