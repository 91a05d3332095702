//! Building the corridor: the epoch, the sections, the lanes, the tasks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::drift::Anew;
use super::{Corridor, LaneRun, Reconnect, SectionRun};
use crate::config::{Config, Section};
use crate::engine::{Engine, Settings};
use crate::fault::Fault;
use crate::lane::{Lane, Range, Shut};
use crate::pipeline::connect::StateConnector;
use crate::pipeline::doubts;
use crate::pipeline::ranges::RangeTask;
use crate::pipeline::report::{Board, SectionBook, WalRate};
use crate::pipeline::start::{self, Attached, Hindrance, Prepared, Unfit};
use crate::pipeline::{watch, writer};
use crate::planhat::{Client, Endpoint};
use crate::postgres::decode::Decoder;
use crate::postgres::range::Selection;
use crate::postgres::stream::{Start, Stream};
use crate::postgres::types::Types;
use crate::row::Phase;
use crate::state::{NewGap, Op, Opened, SectionPhase, SectionRow, Store};
use crate::telemetry::logs::Throttle;
use crate::telemetry::status::InstanceState;

/// Chunks that a range may be ahead of their use.
const AHEAD: usize = 2;
/// What one range may hold in chunks, about.
const RANGE_SHARE: u64 = 12 << 20;

/// What becomes of one section that is on.
struct Laned {
    lane: Lane,
    run: LaneRun,
    mapping: crate::mapping::Mapping,
    row: SectionRow,
    ops: Vec<Op>,
    doubted: u64,
}

impl Corridor {
    /// Takes the epoch, attaches and resumes the sections, and starts the tasks.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn build(
        config: Arc<Config>,
        board: Board,
        prepared: Prepared,
        stream: Stream,
        begin: Start,
    ) -> Result<Corridor, Hindrance> {
        let Prepared { control, mut store, checkpoint, identity, server, timeline_moved } = prepared;
        if timeline_moved {
            tracing::warn!(timeline = identity.timeline, "the server was promoted, and the slot came along: going on");
            store.adopt(&identity, checkpoint, None).await?;
        }
        let term = store.take_epoch(&leader_name()).await?;
        let epoch = term.epoch();
        // What an earlier process could not do without a person is decided: this one leads.
        store.set_instance_state(&term, InstanceState::Running.as_str(), None).await?;
        let opened = store.open().await?;
        let types = Types::load(&control).await.map_err(|error| control.fault(&error))?;
        let attached = start::attach(&config, &control, &store, &term, &opened, &types, &board.waits()).await?;
        note_switched_off(&config, &store, &opened).await?;
        tracing::info!(epoch, leader = leader_name(), %checkpoint, "leading");

        let (parts, lanes) = parts(&config, &board, attached, &opened)?;
        let Parts { sections, runs, mappings, tables, first_ops } = parts;
        let engine = engine(&config, lanes, mappings, first_ops, checkpoint, opened.next_delivery);

        let (lists, lists_out) = mpsc::unbounded_channel();
        let (told, written) = mpsc::unbounded_channel();
        let ((ranges_in, ranges), (seen_in, seen)) = (mpsc::channel(8), mpsc::channel(32));
        let mut tasks = watches(&config, &seen_in);
        let connector = StateConnector::new(Arc::clone(&config));
        tasks.spawn(writer::run(connector, store, term, lists_out, told));
        let now = Instant::now();
        let mut corridor = Corridor {
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
            anew: Anew::of(&server),
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
            turns: Arc::new(Semaphore::new(turns(&config))),
            seen,
            requests: JoinSet::new(),
            tasks,
            wal: WalRate::default(),
            flushed: checkpoint,
            shown: None,
            ending: None,
            pinged: now,
            wishes: super::wishes::Wishes::new(seen_in),
            timed: now,
            brake: Throttle::new(3, Duration::from_secs(60)),
            config,
        };
        for lane in 0..corridor.lanes.len() {
            corridor.start_range(lane);
        }
        Ok(corridor)
    }

    /// Starts the reader of a lane's range, where it has one.
    pub(super) fn start_range(&mut self, lane: usize) {
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
        self.tasks.spawn(task.run(self.config.source.clone(), turns, ahead, self.ranges_in.clone()));
    }
}

/// Sets the watch over server and operators going.
fn watches(config: &Arc<Config>, seen: &mpsc::Sender<super::Seen>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(watch::server(Arc::clone(config), seen.clone()));
    let connector = StateConnector::new(Arc::clone(config));
    tasks.spawn(watch::operators(connector, config.state.keep_deliveries, seen.clone()));
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
async fn note_switched_off(config: &Config, store: &Store, opened: &Opened) -> Result<(), Hindrance> {
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

/// All sections, and the lanes of those that have one.
#[derive(Default)]
struct Parts {
    sections: Vec<SectionRun>,
    runs: Vec<LaneRun>,
    mappings: Vec<Option<crate::mapping::Mapping>>,
    tables: HashMap<u32, Vec<usize>>,
    first_ops: Vec<Op>,
}

impl Parts {
    fn add(&mut self, run: &mut SectionRun, laned: LaneRun, mapping: Option<crate::mapping::Mapping>) {
        self.tables.entry(laned.oid).or_default().push(self.runs.len());
        run.lane = Some(self.runs.len());
        self.runs.push(laned);
        self.mappings.push(mapping);
    }
}

fn parts(
    config: &Config,
    board: &Board,
    attached: Vec<Result<Attached, Unfit>>,
    opened: &Opened,
) -> Result<(Parts, Vec<Lane>), Hindrance> {
    let (mut parts, mut lanes) = (Parts::default(), Vec::new());
    let mut attached: HashMap<_, _> = attached.into_iter().map(|one| (name_of(&one).clone(), one)).collect();
    for section in &config.sections {
        let Some(metrics) = board.section(section.name.as_str()) else { continue };
        let known = opened.sections.iter().find(|row| row.name == section.name).cloned();
        let left = board.left(section.name.as_str());
        let book = SectionBook::new(known, left);
        let mut run = SectionRun { section: section.clone(), lane: None, book, metrics };
        match attached.remove(&section.name) {
            Some(Ok(one)) => {
                let laned = laned(config, one, parts.sections.len(), opened)?;
                run.book = SectionBook::new(Some(laned.row), left);
                run.book.since.in_doubt += laned.doubted;
                run.metrics.in_doubt(laned.doubted);
                parts.first_ops.extend(laned.ops);
                lanes.push(laned.lane);
                parts.add(&mut run, laned.run, Some(laned.mapping));
            }
            Some(Err(unfit)) => {
                let trouble = (unfit.fault.what, unfit.fault.remedy);
                if let (Some(row), Some(key_type)) = (&unfit.row, unfit.streams) {
                    tracing::warn!(section = %section.name, what = trouble.0, remedy = trouble.1, "the table does not fit now; \
                        rows written before are delivered, and the first that does not fit halts it");
                    let (mut lane, laned) = shut(config, section, row, &run, parts.sections.len())?;
                    (lane.shut, lane.key_type) = (None, key_type);
                    let left = doubts::left(&section.name, section.in_doubt, key_type, &opened.open_deliveries);
                    lane.expect_doubts(left.doubts);
                    run.book.since.in_doubt += left.rows;
                    run.book.warning = Some(trouble);
                    run.metrics.in_doubt(left.rows);
                    parts.first_ops.extend(left.ops);
                    lanes.push(lane);
                    parts.add(&mut run, laned, None);
                    parts.sections.push(run);
                    continue;
                }
                tracing::error!(section = %section.name, what = trouble.0, remedy = trouble.1, "halted");
                run.book.trouble = Some(trouble);
                if let Some(row) = unfit.row {
                    parts.first_ops.push(halted(&run));
                    // It was attached: nothing may be confirmed past a row of it, though none can be mapped.
                    let (lane, laned) = shut(config, section, &row, &run, parts.sections.len())?;
                    lanes.push(lane);
                    parts.add(&mut run, laned, None);
                }
            }
            None => {}
        }
        parts.sections.push(run);
    }
    Ok((parts, lanes))
}

/// The engine over these lanes, its first writes given to it.
fn engine(
    config: &Config,
    mut lanes: Vec<Lane>,
    mappings: Vec<Option<crate::mapping::Mapping>>,
    first_ops: Vec<Op>,
    checkpoint: crate::row::Lsn,
    next_delivery: i64,
) -> Engine {
    let budget = usize::try_from(config.memory).unwrap_or(usize::MAX) / 2;
    limit(&mut lanes, budget);
    let settings = Settings { budget, halt_probe: config.planhat.halt_probe };
    let mut engine = Engine::new(lanes, checkpoint, next_delivery, settings);
    for (index, mapping) in mappings.into_iter().enumerate() {
        let Some(mapping) = mapping else { continue };
        engine.set_range_mapping(index, std::rc::Rc::new(mapping));
    }
    engine.record(first_ops);
    engine
}

/// Bounds the batches, so that lanes that cannot send leave room to one that can: what is under way can't be shed, and of a
/// key range as much again waits behind it.
fn limit(lanes: &mut [Lane], budget: usize) {
    // An item weighs some more than its bytes.
    let share = budget / (2 * lanes.len() + 1) / 4 * 3;
    for lane in lanes {
        lane.limits.bytes = lane.limits.bytes.min(share as u64);
    }
}

fn name_of(one: &Result<Attached, Unfit>) -> &crate::row::SectionName {
    match one {
        Ok(attached) => &attached.section.name,
        Err(unfit) => &unfit.section.name,
    }
}

fn halted(run: &SectionRun) -> Op {
    Op::Halted { section: run.section.name.clone(), why: run.book.trouble.clone() }
}

/// A section's lane, as the state left it.
fn laned(config: &Config, one: Attached, section_index: usize, opened: &Opened) -> Result<Laned, Hindrance> {
    let Attached { section, table, columns, mapping, key_type, row } = one;
    let mut lane = Lane::new(&section, start::position(&row));
    lane.key_type = key_type;
    lane.paused = row.paused;
    lane.range = range(&section, &row, key_type)?;
    let left = doubts::left(&section.name, section.in_doubt, key_type, &opened.open_deliveries);
    lane.expect_doubts(left.doubts);
    let mut ops = left.ops;
    if row.halted.is_some() {
        ops.push(Op::Halted { section: section.name.clone(), why: None });
    }
    // Until the watch has looked: what was skipped while nobody watched lies behind the checkpoint.
    let sound = opened.instance.as_ref().and_then(|instance| Some((instance.checkpoint, instance.xmin_floor?)));
    let run = LaneRun {
        section: section_index,
        endpoint: Endpoint::new(&config.planhat, section.kind)?,
        oid: table.oid,
        selection: Some(Selection::new(&section, &table, &columns)),
        key_column: mapping.key_column(),
        ahead: Arc::new(Semaphore::new(AHEAD)),
        chunks: 0,
        sound,
        entry: None,
        partitions: None,
    };
    Ok(Laned { lane, run, mapping, row, ops, doubted: left.rows })
}

/// The lane of a section whose table no longer fits: it takes no row, and the slot waits for it.
fn shut(
    config: &Config,
    section: &Section,
    row: &SectionRow,
    run: &SectionRun,
    section_index: usize,
) -> Result<(Lane, LaneRun), Hindrance> {
    let mut lane = Lane::new(section, start::position(row));
    let (what, remedy) = run.book.trouble.clone().unwrap_or_default();
    lane.shut = Some(Shut::Mapping(what, remedy));
    lane.paused = row.paused;
    let run = LaneRun {
        section: section_index,
        endpoint: Endpoint::new(&config.planhat, section.kind)?,
        oid: row.attachment.table_oid,
        selection: None,
        key_column: 0,
        ahead: Arc::new(Semaphore::new(AHEAD)),
        chunks: 0,
        sound: None,
        entry: None,
        partitions: None,
    };
    Ok((lane, run))
}

fn range(section: &Section, row: &SectionRow, key_type: crate::row::KeyType) -> Result<Option<Range>, Hindrance> {
    let (phase, progress) = match &row.phase {
        SectionPhase::Backfilling(progress) => (Phase::Backfill, progress),
        SectionPhase::Resyncing(progress) => (Phase::Resync, progress),
        SectionPhase::Streaming | SectionPhase::Waiting => return Ok(None),
    };
    let range = Range::resume(phase, progress, key_type).map_err(|error| {
        Hindrance::Wrong(Fault::usage(
            format!("section {}: where its backfill is cannot be read: {error}", section.name),
            "mend `start: { after_key: … }`; or, where the key's type was changed, `pg2planhat resync`",
        ))
    })?;
    Ok(Some(range))
}

/// Who leads: `host:pid`.
fn leader_name() -> String {
    let name = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    let name = name.or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    let host = name.map_or_else(|| "unknown".to_owned(), |name| name.trim().to_owned());
    format!("{host}:{}", std::process::id())
}
