//! Building the event loop: the epoch, the sections, the tasks.
//!
//! * In: what start-up prepared, and the stream that has begun.
//! * Out: an [`EventLoop`] that is ready to run.
//! * Never: a section attached under an epoch that is not ours.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::delivery::Engine;
use crate::model::{Lsn, Position, SectionName};
use crate::planhat::Client;
use crate::postgres::catalog::types::Types;
use crate::postgres::replication::event::StreamStart;
use crate::postgres::replication::stream::Stream;
use crate::runtime::attach::SectionStart;
use crate::runtime::audit_schedule;
use crate::runtime::event_loop::EventLoop;
use crate::runtime::event_loop::attachments::Attachments;
use crate::runtime::event_loop::backfills::Backfills;
use crate::runtime::event_loop::diff_tasks::Diffs;
use crate::runtime::event_loop::loop_context::LoopContext;
use crate::runtime::event_loop::operator_requests::OperatorRequests;
use crate::runtime::event_loop::sections::{self, Built};
use crate::runtime::event_loop::sink_requests::SinkRequests;
use crate::runtime::event_loop::source_monitor::SourceMonitor;
use crate::runtime::event_loop::state_link::StateLink;
use crate::runtime::event_loop::status_reporter::StatusReporter;
use crate::runtime::event_loop::stream_supervisor::StreamSupervisor;
use crate::runtime::event_loop::type_catalog::TypeCatalog;
use crate::runtime::event_loop::value_reader::ValueReader;
use crate::runtime::monitor_event::{AuditCause, MonitorEvent};
use crate::runtime::promotion::{Promotion, catch_up};
use crate::runtime::same_server::SameServer;
use crate::runtime::section_changes::ConfiguredTables;
use crate::runtime::solo_lock::SoloLock;
use crate::runtime::start_error::StartError;
use crate::runtime::startup::Prepared;
use crate::runtime::state_connector::StateConnector;
use crate::runtime::status_board::Board;
use crate::runtime::{
    attach, attach_diff, in_doubt, monitor, record_names, replica_watch, server_address, sink_address, state_writer,
    update_leftovers, update_stream,
};
use crate::state::{Gap, NewGap, Opened, SectionPhase, SectionRow, Store};
use crate::telemetry::status_document::InstanceState;

impl EventLoop {
    /// Takes the epoch, attaches and resumes the sections, and starts the tasks.
    pub(crate) async fn build(
        config: Arc<Config>,
        board: Board,
        prepared: Prepared,
        source: RowSource,
    ) -> Result<EventLoop, StartError> {
        let Prepared { control, mut store, checkpoint, identity, server, promoted, .. } = prepared;
        let mut promotion = None;
        if let Some((before, left)) = promoted {
            let drained = store.instance().await?.is_some_and(|instance| instance.is_drained());
            promotion = Some(Promotion { before, left, drained });
            tracing::warn!(timeline = identity.timeline, "the server was promoted, and the slot came along: going on");
            store.adopt(&identity, checkpoint, None, Some(left)).await?;
        }
        let term = store.take_epoch(&leader_name()).await?;
        let epoch = term.epoch();
        // What an earlier process could not do without a person is decided: this one leads.
        let decided = async { Ok(store.set_instance_state(&term, InstanceState::Running.as_str(), None).await?) };
        // Not before this process leads: who led until now may send updates of them.
        let taken_out = update_leftovers::take_out(&config, &control, &store);
        let noted = async { Ok(server_address::note(&store, server.address.as_deref()).await?) };
        let sink = async { Ok(sink_address::note(&store, &config.planhat).await?) };
        tokio::try_join!(decided, taken_out, noted, sink)?;
        let tables = record_names::settle(&config, &control, &mut store, &term).await?;
        let (opened, types) = tokio::join!(store.open(), Types::load(&control));
        let (mut opened, types) = (opened?, types.map_err(|error| control.fault(&error))?);
        let is_on = |name: &SectionName| config.sections.iter().any(|section| section.name == *name && section.is_on());
        let mut caught_up = catch_up(&mut opened, &board.known_progress(), promotion, is_on);
        caught_up.extend(in_doubt::left_behind(&opened.open_deliveries, is_on));
        let starts = attach::start_sections(&config, &control, &store, &term, &opened, (&types, &tables)).await?;
        let compared = attach_diff::attach(&config, &store, &term, (&opened, &tables)).await?;
        note_switched_off(&config, (&tables, &starts), &store, &opened).await?;
        tracing::info!(epoch, leader = leader_name(), %checkpoint, "leading");

        let Built { deliveries, runtimes, first_ops } =
            sections::build(&config, &board, starts, compared, &opened, caught_up)?;
        let updates = opened.instance.as_ref().and_then(|instance| instance.updates.clone());
        let mut engine = sections::engine(&config, deliveries, first_ops, checkpoint, opened.next_delivery);
        engine.expect_history(opened.instance.as_ref().and_then(|instance| instance.newest));
        pass_over_gaps(&mut engine, &store.gaps(false).await?, checkpoint);
        if let RowSource::Stream(_, _, begins) = &source {
            engine.stream_began(*begins);
        }

        let ((writes, lists), (told, acks)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let (events_in, events) = mpsc::channel(32);
        let server_of_stream = SameServer::of(&identity);
        let (stream, start, mut tasks) = begin(source, &config, (&board, &server_of_stream), &events_in);
        let connector = StateConnector::new(Arc::clone(&config));
        tasks.spawn(state_writer::run(connector, store, term, lists, told));
        let (metrics, wire) = (Arc::clone(&board.metrics), board.wire.clone());
        let types = TypeCatalog::new(control, types, server_of_stream.clone());
        let configs = board.configs();
        let mut event_loop = EventLoop {
            engine,
            sections: runtimes,
            stream: StreamSupervisor::new(config.source.clone(), (stream, start), types, checkpoint, metrics, wire),
            monitor: SourceMonitor::new((events_in.clone(), events), (identity, updates), &server, checkpoint),
            state: StateLink::new(writes, acks),
            attachments: Attachments::new(),
            backfills: Backfills::new(&config),
            diffs: Diffs::new(&config),
            requests: SinkRequests::new(Client::new(&config.planhat)?),
            operators: OperatorRequests::new(events_in),
            status: StatusReporter::new(board, epoch),
            context: LoopContext::new(config, configs, server_of_stream, tasks),
            values: ValueReader::default(),
        };
        let now = jiff::Timestamp::now();
        event_loop.engine.section_ids().for_each(|id| {
            event_loop.start_reader(id);
            event_loop.start_attacher(id);
            event_loop.watch_diff(id, now);
        });
        Ok(event_loop)
    }
}

/// Where an instance's rows come from, and what says that it may run.
pub(crate) enum RowSource {
    /// The stream of the slot, which begins there, and compared results beside it.
    Stream(Stream, StreamStart, Lsn),
    /// Compared results alone.
    Results(Box<SoloLock>, StreamStart),
}

/// Starts to watch what says that the instance may run, the operators' requests, and what is to be audited.
fn begin(
    source: RowSource,
    config: &Arc<Config>,
    (board, server): (&Board, &SameServer),
    events: &mpsc::Sender<MonitorEvent>,
) -> (Option<Stream>, StreamStart, JoinSet<()>) {
    let mut tasks = JoinSet::new();
    let (stream, start) = match source {
        RowSource::Stream(stream, start, _) => {
            tasks.spawn(monitor::server(board.configs(), server.clone(), events.clone()));
            if let Some(updates) = start.updates.clone().filter(|updates| updates.from.is_none()) {
                tasks.spawn(update_stream::find_start(Arc::clone(config), server.clone(), updates, events.clone()));
            }
            (Some(stream), start)
        }
        RowSource::Results(lock, start) => {
            tasks.spawn(lock.hold(events.clone()));
            tasks.spawn(replica_watch::watch(board.configs(), events.clone()));
            (None, start)
        }
    };
    let connector = StateConnector::new(Arc::clone(config));
    let (causes, audited) = watch::channel(AuditCause::default());
    tasks.spawn(monitor::operators(connector, config.state.clone(), events.clone(), causes));
    tasks.spawn(audit_schedule::run(board.clone(), audited));
    (stream, start, tasks)
}

/// A section that was off for a while, or not published, has rows before the checkpoint that were never read: they prove nothing
/// of the log, and are the gap's.
fn pass_over_gaps(engine: &mut Engine, gaps: &[Gap], checkpoint: Lsn) {
    for id in engine.section_ids() {
        let section = engine.section(id);
        let (name, admitted) = (section.name().as_str(), section.admitted());
        let is_behind = |gap: &Gap| {
            let from = gap.from_lsn.as_ref().and_then(|lsn| lsn.parse::<Lsn>().ok());
            gap.section.as_deref() == Some(name) && from.is_none_or(|from| admitted.final_lsn <= from)
        };
        if gaps.iter().any(is_behind) {
            let before = Position::before_transaction(checkpoint);
            engine.section_mut(id).resume_behind(admitted.max(before));
        }
    }
}

/// The reason's word of the gap of a section that was switched off.
const SWITCHED_OFF: &str = "switched_off";

/// A section that was attached and is off now (or no longer configured) does not hold the slot: rows committed from here
/// on are not delivered. That is wished, and recorded, so that switching it on again does not pass over it in silence.
async fn note_switched_off(
    config: &Config,
    (tables, starts): (&ConfiguredTables, &[SectionStart]),
    store: &Store,
    opened: &Opened,
) -> Result<(), StartError> {
    let at = opened.instance.as_ref();
    let at = (at.map(|instance| instance.checkpoint), at.and_then(|instance| instance.xmin_floor));
    let told = record_names::note_replaced(config, tables, store, (&opened.sections, at)).await?;
    // Until a person decides, nothing is confirmed past what such a one has settled.
    let is_held = |row: &SectionRow| starts.iter().any(|start| start.holds().is_some_and(|held| held.name == row.name));
    let is_on = |row: &SectionRow| config.sections.iter().any(|section| section.name == row.name && section.is_on());
    // A result that is compared again later shows what was not delivered meanwhile.
    let is_streamed = |row: &&SectionRow| row.phase != SectionPhase::Waiting && row.attachment.attach_lsn.is_some();
    for row in opened.sections.iter().filter(is_streamed).filter(|row| !is_on(row)) {
        if is_held(row) || told.contains(&row.name) {
            continue;
        }
        tracing::info!(section = %row.name, "switched off: its rows are not delivered from here on; a gap is recorded");
        let gap = NewGap {
            section: Some(row.name.clone()),
            reason: SWITCHED_OFF.to_owned(),
            detail: "the section was switched off, or taken out of the configuration".to_owned(),
            from_lsn: at.0,
            to_lsn: None,
            xmin_floor: at.1,
        };
        store.open_gap(&gap).await?;
    }
    let open = store.gaps(true).await?;
    for row in opened.sections.iter().filter(|row| is_on(row)) {
        // A re-sync under way closes those that it covers.
        let uncovered = open.iter().filter(|gap| gap.closed_by.is_none());
        for gap in uncovered.filter(|gap| gap.section.as_deref() == Some(row.name.as_str())) {
            tracing::warn!(section = %row.name, gap = gap.id, reason = gap.reason, detail = gap.detail,
                "rows of this section were not delivered while the gap lasted: `pg2planhat repair --gap`, or `resync`, not both");
        }
    }
    Ok(())
}

/// Who leads: `host:pid`.
fn leader_name() -> String {
    let name = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    let name = name.or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    let host = name.map_or_else(|| "unknown".to_owned(), |name| name.trim().to_owned());
    format!("{host}:{}", std::process::id())
}
