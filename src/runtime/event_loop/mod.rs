//! The event loop: one place where everything that happens is taken in, in a fixed order of urgency.
//!
//! * In: the stream, the backfills, answers of the sink, durable writes, the monitor, time.
//! * Out: the delivery core's actions, carried out.
//! * Never: a wait inside the loop but the loop's own; a row read while the budget is full.

pub(crate) mod actions;
pub(crate) mod attach_sections;
pub(crate) mod attachments;
pub(crate) mod backfills;
pub(crate) mod build;
pub(crate) mod diff_tasks;
pub(crate) mod diffs;
pub(crate) mod fitted_columns;
pub(crate) mod handle_requests;
pub(crate) mod loop_context;
pub(crate) mod loop_exit;
pub(crate) mod narrator;
pub(crate) mod operator_requests;
pub(crate) mod publication_drift;
pub(crate) mod read_backfills;
pub(crate) mod read_stream;
pub(crate) mod refits;
pub(crate) mod section_runtime;
pub(crate) mod sections;
pub(crate) mod show_status;
pub(crate) mod sink_requests;
pub(crate) mod source_monitor;
pub(crate) mod state_link;
pub(crate) mod status_reporter;
pub(crate) mod stream_supervisor;
pub(crate) mod take_over;
pub(crate) mod type_catalog;
pub(crate) mod updates;
pub(crate) mod value_reader;
pub(crate) mod watch_source;

pub(crate) use crate::runtime::event_loop::loop_exit::LoopExit;
pub(crate) use crate::runtime::event_loop::operator_requests::{PROBE, RESUME, RESYNC, RETRY};

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinError;

use crate::delivery::Engine;
use crate::model::{BySection, Fault};
use crate::runtime::event_loop::attachments::Attachments;
use crate::runtime::event_loop::backfills::Backfills;
use crate::runtime::event_loop::diff_tasks::Diffs;
use crate::runtime::event_loop::loop_context::LoopContext;
use crate::runtime::event_loop::operator_requests::OperatorRequests;
use crate::runtime::event_loop::section_runtime::SectionRuntime;
use crate::runtime::event_loop::sink_requests::SinkRequests;
use crate::runtime::event_loop::source_monitor::SourceMonitor;
use crate::runtime::event_loop::state_link::StateLink;
use crate::runtime::event_loop::status_reporter::StatusReporter;
use crate::runtime::event_loop::stream_supervisor::{PING, StreamSupervisor};
use crate::runtime::event_loop::value_reader::ValueReader;
use crate::runtime::start_error::StartError;
use crate::runtime::state_connector::StateConnector;
use crate::shutdown::Stop;

/// The running event loop: the delivery core, and the parts that each own one of its ends.
pub(crate) struct EventLoop {
    engine: Engine,
    sections: BySection<SectionRuntime>,
    stream: StreamSupervisor,
    monitor: SourceMonitor,
    state: StateLink,
    attachments: Attachments,
    backfills: Backfills,
    diffs: Diffs,
    requests: SinkRequests,
    operators: OperatorRequests,
    status: StatusReporter,
    context: LoopContext,
    /// The session that reads what updates did not bring.
    values: ValueReader,
}

/// The longest that the loop sleeps.
const TICK: Duration = Duration::from_millis(200);
/// The bound on closing the stream and the state at the end.
const LET_GO: Duration = Duration::from_secs(2);

impl EventLoop {
    /// Carries rows until told to stop, or until something ends it.
    pub(crate) async fn run(mut self, stop: &Stop) -> Result<LoopExit, StartError> {
        let heartbeat = self.status.heartbeat();
        let mut deadline: Option<Instant> = None;
        loop {
            heartbeat.beat();
            self.stream.beat();
            self.act();
            self.show();
            if let Some(exit) = self.context.take_exit() {
                heartbeat.finish();
                self.hand_over();
                self.let_go().await;
                return Ok(exit);
            }
            if let Some(deadline) = deadline
                && (self.engine.is_drained() || Instant::now() >= deadline)
            {
                heartbeat.finish();
                return Ok(self.drained().await);
            }
            let wake = self.wake(deadline);
            let reading = deadline.is_none() && self.engine.wants_rows() && self.stream.is_open();
            tokio::select! {
                biased;
                // 1. The end: nothing may delay a drain.
                () = stop.asked(), if deadline.is_none() => {
                    deadline = Some(Instant::now() + self.context.config.shutdown_grace);
                    self.begin_drain();
                }
                // 2. Durable writes: requests and confirmations wait for them.
                written = self.state.answer() => self.on_written(written),
                // 3. Answers of the sink: a section waits for each.
                Some(requested) = self.requests.answer() => self.on_requested(requested),
                // 4. The monitor: the server may be going down, a person may want something.
                Some(event) = self.monitor.event() => self.on_monitor_event(event),
                // 5. A task that has ended: one that panicked ends the loop, by name.
                Some(ended) = self.context.tasks.join_next() => self.on_task_end(ended),
                // 6. A request for the status: it is shown as it is now, on the way round.
                () = self.status.asked() => self.status.show_soon(),
                // 7. Time: batches that are due, waits that are over, connections to make again.
                () = tokio::time::sleep(wake) => self.on_time(),
                // 8. Sections that can be attached: seldom, and each waits for it.
                Some(event) = self.attachments.event() => self.on_attach_event(event).await,
                Ok(()) = self.context.configs.changed() => self.on_config(),
                // 9. Backfills: they yield to nothing below but the stream itself, and are bounded by their permits.
                Some(event) = self.backfills.event() => self.on_backfill_event(event),
                Some(event) = self.diffs.event() => self.on_diff_event(event),
                // 10. The stream, while there is room: first what is left of the run before.
                () = std::future::ready(()), if reading && self.stream.has_unread() => self.read_run().await,
                event = self.stream.event(), if reading => self.on_stream_event(event).await,
            }
            // A stream that never pauses would starve the clock's arm, so the clock runs here.
            if self.context.since_tick() >= TICK {
                self.on_time();
            }
            self.engine.pump(self.context.now());
        }
    }

    /// How long the loop may sleep.
    fn wake(&self, deadline: Option<Instant>) -> Duration {
        let now = self.context.now();
        let due = self.engine.next_wake().map_or(TICK, |due| due.saturating_sub(now));
        let end = deadline.map_or(TICK, |deadline| deadline.saturating_duration_since(Instant::now()));
        let ping = if self.engine.waits_for().is_some() { PING } else { TICK };
        due.min(end).min(ping).min(TICK).max(Duration::from_millis(1))
    }

    fn on_time(&mut self) {
        self.context.ticked();
        self.look_at_calendar();
        self.begin_diffs();
        self.prove_retries();
        self.log_suppressed();
        if self.engine.waits_for().is_some() {
            self.stream.ping();
        }
        if !self.engine.wants_rows() && self.engine.shed(self.context.now()) {
            tracing::warn!(
                "sections that cannot send gave their memory to the others; their rows are read again later"
            );
        }
        self.engine.resume_shed(self.context.now());
        self.turn_to_updates();
        if !self.context.is_ending() && self.stream.reopen(self.engine.confirmed(), self.engine.verifies_from()) {
            self.engine.stream_restarts();
            self.start_update_readers();
        }
    }

    /// A task beside the loop has ended. Most end when their work is done; a panic must not become a silent wait.
    fn on_task_end(&mut self, ended: Result<(), JoinError>) {
        if let Err(error) = ended
            && error.is_panic()
        {
            let fault = Fault::bug(format!("a task beside the event loop failed: {error}"));
            tracing::error!(what = fault.what, remedy = fault.remedy, "stopped: a task has failed");
            self.context.end(LoopExit::Failed(fault));
        }
    }

    fn begin_drain(&mut self) {
        tracing::info!(grace_seconds = self.context.config.shutdown_grace.as_secs(), "draining");
        self.status.draining();
        self.engine.drain();
    }

    /// The end of a drain: the last checkpoint is durable, the slot is told, everything is let go.
    async fn drained(mut self) -> LoopExit {
        let under_way = self.requests.under_way();
        if under_way > 0 {
            tracing::warn!(requests = under_way, "the grace is over with requests under way: they will be in doubt");
        } else if self.engine.is_drained() {
            self.note_drained().await;
        }
        self.let_go().await;
        tracing::info!(confirmed = %self.engine.confirmed(), "drained");
        LoopExit::Drained
    }

    /// Records that nothing is under way. A server that is promoted later, and has this, misses nothing of the ledger.
    async fn note_drained(&self) {
        let (connector, epoch) = (StateConnector::new(Arc::clone(&self.context.config)), self.status.epoch());
        let noted = async { connector.store().await?.note_drained(epoch).await.map_err(|error| error.fault()) };
        let noted: Result<Result<(), Fault>, _> = tokio::time::timeout(LET_GO, noted).await;
        if !matches!(noted, Ok(Ok(()))) {
            tracing::debug!("the end could not be noted in the state");
        }
    }

    async fn let_go(&mut self) {
        self.requests.abort();
        self.stream.close(LET_GO).await;
        self.context.tasks.abort_all();
    }

    /// The stream is read again from the checkpoint.
    fn rewind(&mut self) {
        self.stream.rewind(self.engine.confirmed(), &mut self.context.tasks);
    }
}
