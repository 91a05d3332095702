//! The sections' lanes, as the configuration wants them and the state left them.
//!
//! * In: what was attached, what did not fit, and the state.
//! * Out: lanes for the engine, their ways out and their ranges, and what is to be recorded first.
//! * Never: a section without a lane that was attached once: nothing may be confirmed past a row of it.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::config::{Config, Section};
use crate::delivery::section::{BackfillQueue, SectionDelivery, StopReason};
use crate::delivery::{Engine, Settings};
use crate::model::{Fault, Phase};
use crate::planhat::Endpoint;
use crate::postgres::backfill::chunk_reader::Selection;
use crate::runtime::attach::{Attached, Unfit};
use crate::runtime::event_loop::{ConfiguredSection, SectionRuntime};
use crate::runtime::section_report::SectionReport;
use crate::runtime::start_error::StartError;
use crate::runtime::status_board::Board;
use crate::runtime::{attach, in_doubt};
use crate::state::{Op, Opened, SectionPhase, SectionRow};

/// Chunks that a range may be ahead of their use.
pub(crate) const AHEAD: usize = 2;

/// What becomes of one section that is on.
struct Laned {
    lane: SectionDelivery,
    run: SectionRuntime,
    mapping: crate::mapping::Mapping,
    row: SectionRow,
    ops: Vec<Op>,
    doubted: u64,
}

/// All sections, and the lanes of those that have one.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) sections: Vec<ConfiguredSection>,
    pub(crate) runs: Vec<SectionRuntime>,
    pub(crate) mappings: Vec<Option<crate::mapping::Mapping>>,
    pub(crate) tables: HashMap<u32, Vec<usize>>,
    pub(crate) first_ops: Vec<Op>,
}

impl Parts {
    fn add(&mut self, run: &mut ConfiguredSection, laned: SectionRuntime, mapping: Option<crate::mapping::Mapping>) {
        self.tables.entry(laned.oid).or_default().push(self.runs.len());
        run.lane = Some(self.runs.len());
        self.runs.push(laned);
        self.mappings.push(mapping);
    }
}

/// Gives every section that is on its lane; what each wants recorded first follows `first_ops`.
pub(crate) fn parts(
    config: &Config,
    board: &Board,
    attached: Vec<Result<Attached, Unfit>>,
    opened: &Opened,
    first_ops: Vec<Op>,
) -> Result<(Parts, Vec<SectionDelivery>), StartError> {
    let (mut parts, mut lanes) = (Parts { first_ops, ..Parts::default() }, Vec::new());
    let mut attached: HashMap<_, _> = attached.into_iter().map(|one| (name_of(&one).clone(), one)).collect();
    for section in &config.sections {
        let Some(metrics) = board.section(section.name.as_str()) else { continue };
        let known = opened.sections.iter().find(|row| row.name == section.name).cloned();
        let left = board.unsettled(section.name.as_str());
        let book = SectionReport::new(known, left);
        let mut run = ConfiguredSection { section: section.clone(), lane: None, book, metrics };
        match attached.remove(&section.name) {
            Some(Ok(one)) => {
                let laned = laned(config, one, parts.sections.len(), opened)?;
                run.book = SectionReport::new(Some(laned.row), left);
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
                    let left = in_doubt::left(&section.name, section.in_doubt, key_type, &opened.open_deliveries);
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
pub(crate) fn engine(
    config: &Config,
    mut lanes: Vec<SectionDelivery>,
    mappings: Vec<Option<crate::mapping::Mapping>>,
    first_ops: Vec<Op>,
    checkpoint: crate::model::Lsn,
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
fn limit(lanes: &mut [SectionDelivery], budget: usize) {
    // An item weighs some more than its bytes.
    let share = budget / (2 * lanes.len() + 1) / 4 * 3;
    for lane in lanes {
        lane.limits.bytes = lane.limits.bytes.min(share as u64);
    }
}

fn name_of(one: &Result<Attached, Unfit>) -> &crate::model::SectionName {
    match one {
        Ok(attached) => &attached.section.name,
        Err(unfit) => &unfit.section.name,
    }
}

fn halted(run: &ConfiguredSection) -> Op {
    Op::Halted { section: run.section.name.clone(), why: run.book.trouble.clone() }
}

/// A section's lane, as the state left it.
fn laned(config: &Config, one: Attached, section_index: usize, opened: &Opened) -> Result<Laned, StartError> {
    let Attached { section, table, columns, mapping, key_type, row } = one;
    let mut lane = SectionDelivery::new(&section, attach::position(&row));
    lane.key_type = key_type;
    lane.paused = row.paused;
    lane.range = range(&section, &row, key_type)?;
    let left = in_doubt::left(&section.name, section.in_doubt, key_type, &opened.open_deliveries);
    lane.expect_doubts(left.doubts);
    let mut ops = left.ops;
    if row.halted.is_some() {
        ops.push(Op::Halted { section: section.name.clone(), why: None });
    }
    // Until the watch has looked: what was skipped while nobody watched lies behind the checkpoint.
    let sound = opened.instance.as_ref().and_then(|instance| Some((instance.checkpoint, instance.xmin_floor?)));
    let run = SectionRuntime {
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
    run: &ConfiguredSection,
    section_index: usize,
) -> Result<(SectionDelivery, SectionRuntime), StartError> {
    let mut lane = SectionDelivery::new(section, attach::position(row));
    let (what, remedy) = run.book.trouble.clone().unwrap_or_default();
    lane.shut = Some(StopReason::Mapping(what, remedy));
    lane.paused = row.paused;
    let run = SectionRuntime {
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

fn range(
    section: &Section,
    row: &SectionRow,
    key_type: crate::model::KeyType,
) -> Result<Option<BackfillQueue>, StartError> {
    let (phase, progress) = match &row.phase {
        SectionPhase::Backfilling(progress) => (Phase::Backfill, progress),
        SectionPhase::Resyncing(progress) => (Phase::Resync, progress),
        SectionPhase::Streaming | SectionPhase::Waiting => return Ok(None),
    };
    let range = BackfillQueue::resume(phase, progress, key_type).map_err(|error| {
        StartError::Wrong(Fault::usage(
            format!("section {}: where its backfill is cannot be read: {error}", section.name),
            "mend `start: { after_key: … }`; or, where the key's type was changed, `pg2planhat resync`",
        ))
    })?;
    Ok(Some(range))
}
