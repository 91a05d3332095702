//! Building the corridor: the epoch, the sections, the lanes, the tasks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::planhat::Client;
use crate::postgres::catalog::types::Types;
use crate::postgres::replication::event::StreamStart;
use crate::postgres::replication::row_decoder::Decoder;
use crate::postgres::replication::stream::Stream;
use crate::runtime::backfill_reader::{BackfillReader, RangeTask};
use crate::runtime::event_loop::pending::StreamRestart;
use crate::runtime::event_loop::sections::{AHEAD, Parts, engine, parts};
use crate::runtime::event_loop::{EventLoop, Reconnect};
use crate::runtime::promotion::catch_up;
use crate::runtime::section_report::WalRate;
use crate::runtime::start_error::StartError;
use crate::runtime::startup::Prepared;
use crate::runtime::state_connector::StateConnector;
use crate::runtime::status_board::Board;
use crate::runtime::{attach, monitor, state_writer};
use crate::state::{NewGap, Opened, SectionPhase, SectionRow, Store};
use crate::telemetry::log_output::Throttle;
use crate::telemetry::status_document::InstanceState;

/// What one range may hold in chunks, about.
const RANGE_SHARE: u64 = 12 << 20;

impl EventLoop {
    /// Takes the epoch, attaches and resumes the sections, and starts the tasks.
    ///
    /// # Errors
    /// What is in the way.
    pub(crate) async fn build(
        config: Arc<Config>,
        board: Board,
        prepared: Prepared,
        stream: Stream,
        begin: StreamStart,
    ) -> Result<EventLoop, StartError> {
        let Prepared { control, mut store, checkpoint, identity, server, promoted } = prepared;
        if promoted.is_some() {
            tracing::warn!(timeline = identity.timeline, "the server was promoted, and the slot came along: going on");
            store.adopt(&identity, checkpoint, None).await?;
        }
        let term = store.take_epoch(&leader_name()).await?;
        let epoch = term.epoch();
        // What an earlier process could not do without a person is decided: this one leads.
        store.set_instance_state(&term, InstanceState::Running.as_str(), None).await?;
        let mut opened = store.open().await?;
        let caught_up = catch_up(&mut opened, &board.known_progress(), promoted);
        let types = Types::load(&control).await.map_err(|error| control.fault(&error))?;
        let attached =
            attach::attach(&config, &control, &store, &term, &opened, &types, &board.wait_reporter()).await?;
        note_switched_off(&config, &store, &opened).await?;
        tracing::info!(epoch, leader = leader_name(), %checkpoint, "leading");

        let (parts, lanes) = parts(&config, &board, attached, &opened, caught_up)?;
        let Parts { sections, runs, mappings, tables, first_ops } = parts;
        let engine = engine(&config, lanes, mappings, first_ops, checkpoint, opened.next_delivery);

        let ((lists, lists_out), (told, written)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let ((ranges_in, ranges), (seen_in, seen)) = (mpsc::channel(8), mpsc::channel(32));
        let mut tasks = watches(&config, &seen_in);
        let connector = StateConnector::new(Arc::clone(&config));
        tasks.spawn(state_writer::run(connector, store, term, lists_out, told));
        let now = Instant::now();
        let mut corridor = EventLoop {
            attendant: board.looks.attend(),
            board,
            engine,
            decoder: Decoder::default(),
            stream: Some(stream),
            begin,
            reconnect: Reconnect::new(now, checkpoint),
            down: None,
            blind: None,
            unwritten: None,
            control,
            identity,
            anew: StreamRestart::of(&server),
            epoch,
            types,
            unseen: HashMap::new(),
            sections,
            lanes: runs,
            tables,
            client: Client::new(&config.planhat)?,
            clock: now,
            lists,
            written,
            ranges,
            ranges_in,
            readers: None,
            turns: Arc::new(Semaphore::new(turns(&config))),
            seen,
            requests: JoinSet::new(),
            tasks,
            wal: WalRate::default(),
            flushed: checkpoint,
            shown: None,
            ending: None,
            pinged: now,
            wishes: crate::runtime::event_loop::pending::OperatorRequests::new(seen_in),
            timed: now,
            brake: Throttle::new(3, Duration::from_secs(60)),
            config,
        };
        (0..corridor.lanes.len()).for_each(|lane| corridor.start_range(lane));
        Ok(corridor)
    }

    /// Starts the reader of a lane's range, where it has one.
    pub(crate) fn start_range(&mut self, lane: usize) {
        let run = &mut self.lanes[lane];
        let Some(range) = &self.engine.lanes[lane].range else { return };
        let Some(selection) = run.selection.clone() else { return };
        let selection = match range.xmin_floor {
            Some(floor) => selection.since(floor),
            None => selection,
        };
        self.sections[run.section].book.range_began = Some((Instant::now(), range.rows));
        run.ahead = Arc::new(Semaphore::new(AHEAD));
        run.chunks = 0;
        let task = RangeTask {
            lane,
            section: self.sections[run.section].section.clone(),
            selection,
            oid: run.oid,
            key_type: self.engine.lanes[lane].key_type,
            key_column: run.key_column,
            cursor: range.cursor.clone(),
            ceiling: range.ceiling.clone(),
        };
        let (turns, ahead) = (Arc::clone(&self.turns), Arc::clone(&run.ahead));
        let reading = task.run(self.config.source.clone(), turns, ahead, self.ranges_in.clone());
        if self.readers.is_none() {
            self.readers =
                BackfillReader::start().inspect_err(|error| tracing::warn!(%error, "no thread for ranges")).ok();
        }
        match &self.readers {
            Some(readers) => self.tasks.spawn_on(reading, readers.handle()),
            None => self.tasks.spawn(reading),
        };
    }
}

/// Sets the watch over server and operators going.
fn watches(config: &Arc<Config>, seen: &mpsc::Sender<crate::runtime::monitor_event::MonitorEvent>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(monitor::server(Arc::clone(config), seen.clone()));
    let connector = StateConnector::new(Arc::clone(config));
    tasks.spawn(monitor::operators(connector, config.state.keep_deliveries, seen.clone()));
    tasks
}

/// How many ranges are read at once, so that their chunks stay within a quarter of the memory.
fn turns(config: &Config) -> usize {
    usize::try_from(config.memory / 4 / RANGE_SHARE).unwrap_or(1).clamp(1, 8)
}

/// The reason's word of the gap of a section that was switched off.
const SWITCHED_OFF: &str = "switched_off";

/// A section that was attached and is off now (or no longer configured) does not hold the slot: rows committed from here
/// on are not delivered. That is wished, and recorded, so that switching it on again does not pass over it in silence.
async fn note_switched_off(config: &Config, store: &Store, opened: &Opened) -> Result<(), StartError> {
    let is_on = |row: &SectionRow| config.sections.iter().any(|section| section.name == row.name && section.is_on());
    for row in opened.sections.iter().filter(|row| row.phase != SectionPhase::Waiting && !is_on(row)) {
        tracing::info!(section = %row.name, "switched off: its rows are not delivered from here on; a gap is recorded");
        let gap = NewGap {
            section: Some(row.name.clone()),
            reason: SWITCHED_OFF.to_owned(),
            detail: "the section was switched off, or taken out of the configuration".to_owned(),
            from_lsn: opened.instance.as_ref().map(|instance| instance.checkpoint),
            to_lsn: None,
            xmin_floor: opened.instance.as_ref().and_then(|instance| instance.xmin_floor),
        };
        store.open_gap(&gap).await?;
    }
    let open = store.gaps(true).await?;
    for row in opened.sections.iter().filter(|row| is_on(row)) {
        for gap in open.iter().filter(|gap| gap.section.as_deref() == Some(row.name.as_str())) {
            tracing::warn!(section = %row.name, gap = gap.id, reason = gap.reason, detail = gap.detail,
                "rows of this section were not delivered while the gap lasted: `pg2planhat repair --gap`, or `resync`");
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
