//! The runtime: from a configuration to a running event loop, and from its end to the next one or to an exit.
//!
//! * In: a configuration, and the request to stop.
//! * Out: rows delivered, a status that is true, an exit.
//! * Never: a lock held across a wait; a task that outlives the event loop; anything streamed in a state that needs a person.

pub(crate) mod attach;
pub(crate) mod attach_diff;
pub(crate) mod attacher;
pub(crate) mod audit_report;
pub(crate) mod audit_reprinted;
pub(crate) mod audit_schedule;
pub(crate) mod audit_source;
pub(crate) mod audit_verdict;
pub(crate) mod auditor;
pub(crate) mod backfill_event;
pub(crate) mod backfill_reader;
pub(crate) mod diff_compare;
pub(crate) mod diff_event;
pub(crate) mod diff_reader;
pub(crate) mod diff_schedule;
pub(crate) mod event_loop;
pub(crate) mod first_slot;
pub(crate) mod identity;
pub(crate) mod in_doubt;
pub(crate) mod monitor;
pub(crate) mod monitor_event;
pub(crate) mod partition_watch;

pub(crate) mod promotion;
pub(crate) mod quarantine_reader;
pub(crate) mod record_names;
pub(crate) mod refitter;
pub(crate) mod replica_watch;
pub(crate) mod retained_growth;
pub(crate) mod rows_before;
pub(crate) mod same_server;
pub(crate) mod section_changes;
pub(crate) mod section_report;
pub(crate) mod seen_merge;
pub(crate) mod server_address;
pub(crate) mod sink_address;
pub(crate) mod solo_lock;
pub(crate) mod standby;
pub(crate) mod start_error;
pub(crate) mod startup;
pub(crate) mod startup_diff;
pub(crate) mod state_connector;
pub(crate) mod state_writer;
pub(crate) mod status_board;
pub(crate) mod table_fit;
pub(crate) mod update_leftovers;
pub(crate) mod update_stream;

pub(crate) use crate::runtime::start_error::NeedsPerson;
pub(crate) use crate::runtime::state_connector::StateConnector;
pub(crate) use crate::runtime::status_board::Board;

use std::sync::Arc;
use std::time::Duration;

use crate::admin;
use crate::admin::{AdminState, Hosts};
use crate::config::Config;
use crate::model::{Exit, Fault};
use crate::postgres::connection::faults;
use crate::postgres::replication::event::StreamStart;
use crate::postgres::replication::event::{EndReason, StreamEnd, StreamEvent};
use crate::postgres::replication::stream::Stream;
use crate::runtime::event_loop::build::RowSource;
use crate::runtime::event_loop::{EventLoop, LoopExit};
use crate::runtime::start_error::StartError;
use crate::runtime::startup::Prepared;
use crate::shutdown::Stop;
use crate::state::NewGap;
use crate::telemetry::status_document::InstanceState;

/// The longest time between two status updates to the server, in milliseconds.
const STATUS_EVERY: u64 = 5_000;
/// How long the server may be silent at first: two status updates that asked for a reply, and a little.
const PATIENCE: Duration = Duration::from_millis(2 * STATUS_EVERY + 1_000);

/// How long a standby waits before it polls the slot again.
const STANDBY_POLL: Duration = Duration::from_secs(2);

/// How often in a row a start may fail for one reason before that is logged again: about five minutes.
const SAY_AGAIN: u32 = 20;

/// How long a process that stays waits before it checks again a state that needs a person.
const CHECK_AGAIN: Duration = Duration::from_secs(10);

/// Runs until told to stop. Where a person must decide it ends, or stays: shows that on the admin port, lets the slot go, and
/// goes on once it is mended. It compares everything again, as a process that is started again would.
///
/// # Errors
/// The reason of the end: a state that needs a person, a configuration that cannot work, or a bug. Servers that are
/// away are waited for without end.
pub(crate) async fn run(config: Arc<Config>, board: Board, stop: Stop, stays: bool) -> Result<Exit, Fault> {
    let listener = admin::bind(&config.admin.listen).await?;
    let admin = shown(&config, &board);
    // Told to end when this function is left, however it is.
    let (_ends, ended) = tokio::sync::oneshot::channel::<()>();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let stopped = async {
            if ended.await.is_err() { /* the runtime has returned: that is the end */ }
        };
        if let Err(error) = admin::serve(listener, admin, stopped).await {
            tracing::error!(%error, "the admin port has failed");
        }
    });
    let (mut failures, mut said) = (0_u32, String::new());
    loop {
        // The one that counts: SIGHUP may have brought another.
        let current = board.config();
        let started = tokio::select! {
            biased;
            () = stop.asked() => return Ok(Exit::Done),
            started = start_in_sight(&current, &board) => started,
        };
        // From here on the event loop itself hears the request to stop: it drains.
        let ended = match started {
            Ok(Some(event_loop)) => event_loop.run(&stop).await,
            Ok(None) => Ok(LoopExit::Again),
            Err(error) => Err(error),
        };
        let fault = match ended {
            Ok(LoopExit::Drained) => return Ok(Exit::Done),
            Ok(LoopExit::NeedsPerson(needs)) | Err(StartError::NeedsPerson(needs)) => {
                let fault = person(&config, &board, needs).await;
                if !stays || !board.is_needs_person() {
                    return Err(fault);
                }
                tokio::select! {
                    () = stop.asked() => return Err(fault),
                    () = tokio::time::sleep(CHECK_AGAIN) => continue,
                }
            }
            Ok(LoopExit::Fenced(fault)) => return Err(Fault::new(Exit::NeedsPerson, fault.what, fault.remedy)),
            Ok(LoopExit::Failed(fault)) => return Err(fault),
            Ok(LoopExit::Again) => {
                failures = 0;
                said.clear();
                continue;
            }
            // What worked before is wrong on the other side: a password is being changed, a right was taken away for a while.
            Err(StartError::Wrong(fault)) if !board.has_connected() => return Err(fault),
            Err(StartError::Wrong(fault) | StartError::Later(fault)) => fault,
        };
        failures += 1;
        board.set_stalled(&fault);
        // Said again where it is another reason, and now and then.
        if said != fault.what || failures.is_multiple_of(SAY_AGAIN) {
            tracing::warn!(what = fault.what, remedy = fault.remedy, failures, "cannot begin yet; it is tried again");
            said.clone_from(&fault.what);
        }
        let delay = crate::model::backoff::delay(failures.min(7), None, fastrand::f64()).min(Duration::from_secs(15));
        tokio::select! {
            () = stop.asked() => return Ok(Exit::Done),
            () = tokio::time::sleep(delay) => {}
        }
    }
}

/// What the admin port and the console show of the board.
pub(crate) fn shown(config: &Config, board: &Board) -> AdminState {
    AdminState {
        status: board.subscribe(),
        metrics: Arc::clone(&board.metrics),
        heartbeat: Arc::clone(&board.heartbeat),
        hosts: Hosts::new(&config.admin.listen, &config.admin.hosts),
        refresh: board.refresh.clone(),
    }
}

/// Records and shows a state that needs a person; gives the fault to end with.
async fn person(config: &Arc<Config>, board: &Board, mut needs: NeedsPerson) -> Fault {
    needs.fault.exit = Exit::NeedsPerson;
    if let Some(fault) = superseded(config, board).await {
        tracing::error!(seen = needs.fault.what, what = fault.what, "fenced: stopping at once");
        return Fault::new(Exit::NeedsPerson, fault.what, fault.remedy);
    }
    if board.set_needs_person(&needs) {
        tracing::error!(
            reason = needs.reason.as_str(),
            what = needs.fault.what,
            remedy = needs.fault.remedy,
            "stopped: a person must decide"
        );
    }
    let recorded = async {
        let store = StateConnector::new(Arc::clone(config)).store().await?;
        let Some(instance) = store.instance().await.map_err(|error| error.fault())? else { return Ok(()) };
        let remedy = format!("{}; {}", needs.fault.what, needs.fault.remedy);
        if needs.reason.leaves_a_gap() {
            let gap = NewGap {
                section: None,
                reason: needs.reason.as_str().to_owned(),
                detail: needs.fault.what.clone(),
                from_lsn: Some(instance.checkpoint),
                to_lsn: None,
                xmin_floor: instance.xmin_floor,
            };
            store.open_gap(&gap).await.map_err(|error| error.fault())?;
        }
        store.note_hindrance(instance.epoch, needs.reason.as_str(), &remedy).await.map_err(|error| error.fault())
    };
    // Bounded: the server may be the one that is in the way.
    let late = |_| Err(Fault::unavailable("the state did not answer in time", "nothing: it stands in this log"));
    let recorded: Result<(), Fault> = tokio::time::timeout(Duration::from_secs(8), recorded).await.unwrap_or_else(late);
    if let Err(fault) = recorded {
        tracing::warn!(what = fault.what, "the state could not be told");
    }
    needs.fault
}

/// The fault of an epoch that is over, where another process leads by now. Then what this process sees, a slot that moved on
/// for example, is the other's doing and needs no person. A frozen process that wakes is in this case.
async fn superseded(config: &Arc<Config>, board: &Board) -> Option<Fault> {
    let ours = board.leader_epoch()?;
    let latest = async {
        let store = StateConnector::new(Arc::clone(config)).store().await.ok()?;
        store.instance().await.ok()?
    };
    let instance = tokio::time::timeout(Duration::from_secs(5), latest).await.ok()??;
    (instance.epoch > ours).then(|| crate::state::StateError::Fenced.fault())
}

/// How long a start may take before that is shown.
const LONG_START: Duration = Duration::from_secs(10);

/// As [`start`]; a start that waits for an answer, and has nothing else to say, says that.
async fn start_in_sight(config: &Arc<Config>, board: &Board) -> Result<Option<EventLoop>, StartError> {
    let mut starting = std::pin::pin!(start(config, board));
    loop {
        tokio::select! {
            started = &mut starting => return started,
            () = tokio::time::sleep(LONG_START) => board.note_long_start(LONG_START),
        }
    }
}

/// Connects, compares and takes the slot; `None` after a wait as standby, when it may be free.
async fn start(config: &Arc<Config>, board: &Board) -> Result<Option<EventLoop>, StartError> {
    // What needs a person is shown until it is known to be mended.
    if !board.is_needs_person() {
        board.set_state(InstanceState::Starting);
    }
    if startup_diff::is_solo(config).await? {
        return start_solo(config, board).await;
    }
    let prepared = startup::prepare(config, &board.wait_reporter()).await?;
    board.note_connected();
    let begin = stream_start(config, &prepared);
    let mut stream =
        Stream::open(config.source.clone(), begin.clone()).map_err(|error| faults::no_thread("the stream", &error))?;
    let begins = match stream.events.recv().await {
        Some(StreamEvent::Started(begins)) => {
            board.set_state(InstanceState::Starting);
            begins
        }
        Some(StreamEvent::Ended(ended)) if ended.fate == EndReason::SlotActive => {
            drop(stream);
            if board.set_state(InstanceState::Standby) {
                tracing::info!(slot = config.source.slot, "another process holds the slot: waiting as standby");
            }
            standby::standby(config, &prepared, STANDBY_POLL).await?;
            return Ok(None);
        }
        Some(StreamEvent::Ended(ended)) => return Err(start_error(&ended)),
        Some(StreamEvent::Run(_)) | None => {
            return Err(StartError::Later(Fault::bug("the stream ended before it began")));
        }
    };
    let source = RowSource::Stream(stream, begin, begins);
    EventLoop::build(Arc::clone(config), board.clone(), prepared, source).await.map(Some)
}

/// As [`start`], where nothing is streamed: a lock in the state's database says who runs.
async fn start_solo(config: &Arc<Config>, board: &Board) -> Result<Option<EventLoop>, StartError> {
    let Some(lock) = solo_lock::take(config).await? else {
        board.note_connected();
        if board.set_state(InstanceState::Standby) {
            tracing::info!(schema = config.state.schema, "another process runs by this state: waiting as standby");
        }
        solo_lock::wait(config, STANDBY_POLL).await?;
        return Ok(None);
    };
    let prepared = startup_diff::prepare(config).await?;
    board.note_connected();
    let begin = stream_start(config, &prepared);
    EventLoop::build(Arc::clone(config), board.clone(), prepared, RowSource::Results(Box::new(lock), begin))
        .await
        .map(Some)
}

fn stream_start(config: &Config, prepared: &Prepared) -> StreamStart {
    // At most 10 s apart is the rule; every 5 s, so that a silent server is seen, and shown, within 15 s.
    let third = u64::try_from(prepared.server.wal_sender_timeout).unwrap_or(0) / 3;
    let interval = if third == 0 { STATUS_EVERY } else { third.clamp(200, STATUS_EVERY) };
    StreamStart {
        slot: config.source.slot.clone(),
        publication: config.source.publication.clone(),
        updates: prepared.updates.clone(),
        server: Some((
            prepared.identity.system_identifier.clone(),
            u32::try_from(prepared.identity.timeline).unwrap_or_default(),
        )),
        from: prepared.checkpoint,
        again_from: prepared.again_from,
        // A message is held here, as a row and as an item, and its buffer may have room to spare.
        max_message: usize::try_from(config.memory / 4).unwrap_or(usize::MAX).min(32 << 20),
        status_interval: Duration::from_millis(interval),
        patience: PATIENCE,
    }
}

/// Turns a stream's end into a start error.
fn start_error(ended: &StreamEnd) -> StartError {
    use crate::telemetry::status_document::Reason;
    let needs = |reason| StartError::NeedsPerson(NeedsPerson::repair(reason, ended.fault.what.clone()));
    match ended.fate {
        // What is not where it was is compared at the next try, and named there.
        EndReason::Stopped
        | EndReason::Transient
        | EndReason::Silent
        | EndReason::Moved
        | EndReason::SlotActive
        | EndReason::Shutdown => StartError::Later(ended.fault.clone()),
        EndReason::SlotMissing => needs(Reason::SlotMissing),
        EndReason::SlotLost => needs(Reason::SlotLost),
        EndReason::PublicationMissing => needs(Reason::PublicationChanged),
        EndReason::Wedged => {
            StartError::NeedsPerson(NeedsPerson { reason: Reason::Wedged, fault: ended.fault.clone() })
        }
        EndReason::Refused => StartError::Wrong(ended.fault.clone()),
    }
}
