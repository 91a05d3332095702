//! Building the corridor: the epoch, the sections, the lanes, the tasks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

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
use crate::state::{Op, Opened, SectionPhase, SectionRow};

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
        let Prepared { control, mut store, checkpoint, identity, server: _, timeline_moved } = prepared;
        let leader = format!("{}:{}", hostname(), std::process::id());
        if timeline_moved {
            tracing::warn!(timeline = identity.timeline, "the server was promoted, and the slot came along: going on");
            store.adopt(&identity, checkpoint, None).await?;
        }
        let term = store.take_epoch(&leader).await?;
        let epoch = term.epoch();
        let opened = store.open().await?;
        let types = Types::load(&control).await.map_err(|error| control.fault(&error))?;
        let attached = start::attach(&config, &control, &store, &term, &opened, &types).await?;
        tracing::info!(epoch, leader, %checkpoint, "leading");

        let client = Client::new(&config.planhat)?;
        let (mut sections, mut lanes, mut runs, mut mappings) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut tables, mut first_ops): (HashMap<u32, Vec<usize>>, Vec<Op>) = (HashMap::new(), Vec::new());
        let mut attached: HashMap<_, _> = attached.into_iter().map(|one| (name_of(&one).clone(), one)).collect();
        for section in &config.sections {
            let Some(metrics) = board.section(section.name.as_str()) else { continue };
            let known = opened.sections.iter().find(|row| row.name == section.name).cloned();
            let mut run = SectionRun { section: section.clone(), lane: None, book: SectionBook::new(known), metrics };
            match attached.remove(&section.name) {
                Some(Ok(one)) => {
                    let laned = laned(&config, one, sections.len(), &opened)?;
                    let index = lanes.len();
                    tables.entry(laned.run.oid).or_default().push(index);
                    run.lane = Some(index);
                    run.book = SectionBook::new(Some(laned.row));
                    run.book.since.in_doubt += laned.doubted;
                    run.metrics.in_doubt(laned.doubted);
                    first_ops.extend(laned.ops);
                    lanes.push(laned.lane);
                    runs.push(laned.run);
                    mappings.push(Some(laned.mapping));
                }
                Some(Err(unfit)) => {
                    tracing::error!(section = %section.name, what = unfit.fault.what, remedy = unfit.fault.remedy, "halted");
                    run.book.trouble = Some((unfit.fault.what, unfit.fault.remedy));
                    if let Some(row) = unfit.row {
                        first_ops.push(halted(&run));
                        // It was attached: nothing may be confirmed past a row of it, though none can be mapped.
                        let (lane, laned) = shut(&config, section, &row, &run, sections.len())?;
                        tables.entry(laned.oid).or_default().push(lanes.len());
                        run.lane = Some(lanes.len());
                        lanes.push(lane);
                        runs.push(laned);
                        mappings.push(None);
                    }
                }
                None => {}
            }
            sections.push(run);
        }
        let budget = usize::try_from(config.memory).unwrap_or(usize::MAX) / 2;
        let settings = Settings { budget, halt_probe: config.planhat.halt_probe };
        let mut engine = Engine::new(lanes, checkpoint, opened.next_delivery, settings);
        for (index, mapping) in mappings.into_iter().enumerate() {
            let Some(mapping) = mapping else { continue };
            engine.set_range_mapping(index, std::rc::Rc::new(mapping));
        }
        engine.record(first_ops);

        let (lists, lists_out) = mpsc::unbounded_channel();
        let (told, written) = mpsc::unbounded_channel();
        let (ranges_in, ranges) = mpsc::channel(8);
        let (seen_in, seen) = mpsc::channel(32);
        let connector = StateConnector::new(Arc::clone(&config));
        let mut tasks = JoinSet::new();
        tasks.spawn(writer::run(connector.clone(), store, term, lists_out, told));
        tasks.spawn(watch::server(Arc::clone(&config), seen_in.clone()));
        tasks.spawn(watch::operators(connector, config.state.keep_deliveries, seen_in));
        let turns = usize::try_from(config.memory / 4 / RANGE_SHARE).unwrap_or(1).clamp(1, 8);
        let now = Instant::now();
        let mut corridor = Corridor {
            board,
            engine,
            decoder: Decoder::default(),
            stream: Some(stream),
            begin,
            reconnect: Reconnect { at: now, failures: 0, wedged: (checkpoint, 0) },
            down: None,
            blind: None,
            unwritten: None,
            control,
            identity,
            epoch,
            types,
            sections,
            lanes: runs,
            tables,
            client,
            clock: now,
            lists,
            written,
            ranges,
            ranges_in,
            turns: Arc::new(Semaphore::new(turns)),
            seen,
            requests: JoinSet::new(),
            tasks,
            wal: WalRate::default(),
            flushed: checkpoint,
            slot_confirmed: None,
            shown: None,
            ending: None,
            pinged: now,
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
        self.sections[run.section].book.range_began = Some((Instant::now(), range.rows));
        run.ahead = Arc::new(Semaphore::new(AHEAD));
        run.chunks = 0;
        let task = RangeTask {
            lane,
            section: self.sections[run.section].section.clone(),
            selection,
            key_type: self.engine.lanes[lane].key_type,
            key_column: run.key_column,
            cursor: range.cursor.clone(),
            ceiling: range.ceiling.clone(),
        };
        let (turns, ahead) = (Arc::clone(&self.turns), Arc::clone(&run.ahead));
        self.tasks.spawn(task.run(self.config.source.clone(), turns, ahead, self.ranges_in.clone()));
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

fn hostname() -> String {
    let name = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    let name = name.or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    name.map_or_else(|| "unknown".to_owned(), |name| name.trim().to_owned())
}
