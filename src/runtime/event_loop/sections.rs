//! The sections, as the configuration wants them and the state left them.
//!
//! * In: what was attached, what did not fit, and the state.
//! * Out: each section's delivery and what stands beside it; what is to be recorded first.
//! * Never: a section without a delivery that was attached once: nothing may be confirmed past a row of it.

use std::collections::HashMap;
use std::rc::Rc;

use crate::config::definition::Definition;
use crate::config::{Config, Section};
use crate::delivery::section::{BackfillQueue, DiffQueue, SectionDelivery, Trouble};
use crate::delivery::{Engine, Settings};
use crate::model::{BySection, Fault, Lsn, Phase};
use crate::planhat::Endpoint;
use crate::postgres::backfill::selection::Selection;
use crate::runtime::attach::{Attached, Renamed, SectionStart, Unfit, Waits};
use crate::runtime::attach_diff::AttachedDiff;
use crate::runtime::diff_schedule::DiffSchedule;
use crate::runtime::event_loop::fitted_columns::FittedColumns;
use crate::runtime::event_loop::section_runtime::{
    AttachedTable, ChunkPermits, LookBehind, RefitTries, SectionRuntime, WaitingSection,
};
use crate::runtime::section_report::SectionReport;
use crate::runtime::start_error::StartError;
use crate::runtime::status_board::Board;
use crate::runtime::{attach, in_doubt};
use crate::state::{Op, OpenDelivery, Opened, SectionPhase, SectionRow};

/// All sections.
pub(crate) struct Built {
    pub(crate) deliveries: BySection<SectionDelivery>,
    pub(crate) runtimes: BySection<SectionRuntime>,
    /// To be recorded before anything else.
    pub(crate) first_ops: Vec<Op>,
}

/// One section while it is built.
struct Building<'a> {
    opened: &'a Opened,
    delivery: SectionDelivery,
    runtime: SectionRuntime,
    ops: Vec<Op>,
}

/// Gives every configured section its delivery; what each wants recorded first follows `first_ops`.
pub(crate) fn build(
    config: &Config,
    board: &Board,
    starts: Vec<SectionStart>,
    mut compared: Vec<AttachedDiff>,
    opened: &Opened,
    mut first_ops: Vec<Op>,
) -> Result<Built, StartError> {
    let mut starts: HashMap<_, _> = starts.into_iter().map(|one| (one.name().clone(), one)).collect();
    let (mut deliveries, mut runtimes) = (Vec::new(), Vec::new());
    for section in &config.sections {
        let Some(mut building) = Building::begin(config, section, opened, board)? else { continue };
        if let Some(at) = compared.iter().position(|one| one.name == section.name) {
            building.resume_diff(compared.swap_remove(at), section);
            deliveries.push(building.delivery);
            runtimes.push(building.runtime);
            first_ops.extend(building.ops);
            continue;
        }
        match starts.remove(&section.name) {
            Some(SectionStart::On(one)) => building.resume(*one)?,
            Some(SectionStart::Unfit(unfit)) => building.stop_or_warn(*unfit),
            Some(SectionStart::Waits(waits)) => building.wait(*waits),
            None => building.delivery.switch_off(),
        }
        deliveries.push(building.delivery);
        runtimes.push(building.runtime);
        first_ops.extend(building.ops);
    }
    Ok(Built { deliveries: deliveries.into_iter().collect(), runtimes: runtimes.into_iter().collect(), first_ops })
}

/// The core over these sections, its first writes given to it.
pub(crate) fn engine(
    config: &Config,
    deliveries: BySection<SectionDelivery>,
    first_ops: Vec<Op>,
    checkpoint: Lsn,
    next_delivery: i64,
) -> Engine {
    let budget = usize::try_from(config.memory).unwrap_or(usize::MAX) / 2;
    let settings = Settings { budget, halt_probe: config.planhat.halt_probe };
    let mut engine = Engine::new(deliveries, checkpoint, next_delivery, settings);
    engine.limit_batches();
    engine.record(first_ops);
    engine
}

impl<'a> Building<'a> {
    /// The section before it is known whether its table fits.
    fn begin(
        config: &Config,
        section: &Section,
        opened: &'a Opened,
        board: &Board,
    ) -> Result<Option<Building<'a>>, StartError> {
        let Some(metrics) = board.section(section.name.as_str()) else { return Ok(None) };
        let row = opened.sections.iter().find(|row| row.name == section.name).cloned();
        let position = row.as_ref().map(attach::position).unwrap_or_default();
        let counts = board.counts(section.name.as_str());
        let runtime = SectionRuntime {
            config: section.clone(),
            endpoint: Endpoint::new(&config.planhat, section.kind)?,
            table: None,
            waits: None,
            permits: ChunkPermits::new(),
            waits_for_updates: false,
            refits: RefitTries::default(),
            new_rules: None,
            report: SectionReport::new(row, &counts),
            metrics,
            diff: None,
            result: None,
        };
        let mut delivery = SectionDelivery::new(section, position);
        delivery.resume_counts(counts);
        Ok(Some(Building { opened, delivery, runtime, ops: Vec::new() }))
    }

    /// The section is attached, and goes on where the state left it.
    fn resume(&mut self, one: Attached) -> Result<(), StartError> {
        let Attached { section, table, columns, mapping, fitted_at, row } = one;
        self.runtime.config = section.clone();
        self.delivery.resume_behind(attach::position(&row));
        self.delivery.pause(row.paused, std::time::Duration::ZERO);
        if let Some(backfill) = backfill(&section, &row)? {
            self.delivery.resume_backfill(backfill);
        }
        let selection = attach::as_attached(Selection::new(&section, &table, &columns), &row);
        let fitted = FittedColumns::new(&table, &columns);
        self.attach(&row, table.oid, Some(selection), self.verified());
        if let Some(table) = &mut self.runtime.table {
            (table.fitted_at, table.fitted) = (fitted_at, fitted);
        }
        self.delivery.set_table_mapping(Rc::new(mapping));
        self.runtime.report.set_row(row.clone());
        self.expect_doubts();
        if row.rules.is_open_with(&Definition::of(&section).rules) {
            self.runtime.new_rules = Some(LookBehind::new(Lsn::ZERO));
        }
        self.ops.push(defined(&section));
        if row.halted.is_some() {
            self.ops.push(Op::Halted { section: section.name, why: None });
        }
        Ok(())
    }

    /// The section's result is compared: it goes on where the state left it.
    fn resume_diff(&mut self, one: AttachedDiff, section: &Section) {
        let row = match one.row {
            Ok(row) => row,
            Err((fault, row)) => {
                let unfit = Unfit { section: section.clone(), fault, row, streams: false };
                return self.stop_or_warn(unfit);
            }
        };
        let phase = match &row.phase {
            SectionPhase::Resyncing(_) => Phase::Resync,
            SectionPhase::Comparing => Phase::Diff,
            SectionPhase::Backfilling(_) | SectionPhase::Streaming | SectionPhase::Waiting => Phase::Backfill,
        };
        self.delivery.set_diff(DiffQueue::new(phase));
        self.delivery.pause(row.paused, std::time::Duration::ZERO);
        let last = one.last.filter(|_| phase == Phase::Diff);
        let every = section.diff().map(|diff| diff.every.clone());
        self.runtime.diff = every.map(|every| DiffSchedule::new(every, last, jiff::Timestamp::now()));
        self.runtime.report.set_row(row.clone());
        self.expect_doubts();
        if row.halted.is_some() {
            self.ops.push(Op::Halted { section: section.name.clone(), why: None });
        }
    }

    /// The section's table does not fit: it is stopped; or, where it only streams, rows written before still flow.
    fn stop_or_warn(&mut self, unfit: Unfit) {
        let (section, trouble) = (&unfit.section.name, Trouble::new(unfit.fault.what, unfit.fault.remedy));
        let (what, remedy) = (trouble.what.clone(), trouble.remedy.clone());
        self.attach(&unfit.row, unfit.row.attachment.table_oid, None, self.verified());
        self.delivery.pause(unfit.row.paused, std::time::Duration::ZERO);
        self.runtime.config = unfit.section.clone();
        if unfit.streams {
            tracing::warn!(%section, what, remedy, "the table does not fit now; rows written before are delivered, and the \
                first that does not fit halts it");
            self.delivery.note_misfit(trouble);
            return self.expect_doubts();
        }
        tracing::error!(%section, what, remedy, "halted");
        // Where it was attached, nothing may be confirmed past a row of it, though none can be mapped.
        self.delivery.stop_unfit(trouble);
        self.ops.push(Op::Halted { section: section.clone(), why: Some((what, remedy)) });
        self.expect_doubts();
    }

    /// Until the monitor has looked: what was skipped while nobody watched lies behind the checkpoint.
    fn verified(&self) -> Option<(Lsn, u64)> {
        let instance = self.opened.instance.as_ref();
        instance.and_then(|instance| Some((instance.checkpoint, instance.xmin_floor?)))
    }

    /// The section is not attached yet. What an earlier attachment left in the ledger is taken over when it is.
    fn wait(&mut self, waits: Waits) {
        self.delivery.set_waiting(Some(Trouble::new("it is being attached", "nothing: it goes on by itself")));
        self.delivery.pause(waits.row.paused, std::time::Duration::ZERO);
        self.runtime.report.set_row(waits.row.clone());
        let of_this = |open: &&OpenDelivery| open.delivery.section == waits.row.name;
        let left = self.opened.open_deliveries.iter().filter(of_this).cloned().collect();
        let Waits { row, carried_before, renamed } = waits;
        if let Some(Renamed { fault, holds }) = renamed {
            // Its rows are the other one's: until a person decides, nothing may be confirmed past them.
            if let Some(held) = holds {
                self.attach(&held, held.attachment.table_oid, None, None);
                self.delivery.resume_behind(attach::position(&held));
            }
            tracing::error!(section = %row.name, what = fault.what, remedy = fault.remedy, "halted");
            self.ops.push(Op::Halted { section: row.name, why: Some((fault.what.clone(), fault.remedy.clone())) });
            self.delivery.set_waiting(None);
            self.delivery.stop(Trouble::new(fault.what, fault.remedy));
            return;
        }
        self.runtime.waits = Some(WaitingSection { row, carried_before, left });
    }

    fn attach(&mut self, row: &SectionRow, oid: u32, reading: Option<Selection>, verified: Option<(Lsn, u64)>) {
        let entry = row.publication_entry.clone();
        self.runtime.table = Some(AttachedTable {
            oid,
            attached_at: row.attachment.attach_lsn.unwrap_or_default(),
            fitted_at: Lsn::ZERO,
            fitted: FittedColumns::default(),
            reading,
            asked_since: None,
            verified,
            entry,
            partitions: None,
        });
    }

    /// Takes over what an earlier process left in the ledger.
    fn expect_doubts(&mut self) {
        let section = &self.runtime.config;
        let left = in_doubt::left(&section.name, section.in_doubt, &self.opened.open_deliveries);
        self.delivery.expect_doubts(left.doubts, left.rows);
        self.ops.extend(left.ops);
    }
}

/// What is recorded of a section that is taken over as the file has it.
pub(crate) fn defined(section: &Section) -> Op {
    let (key, definition) = (section.key.clone(), Definition::of(section));
    Op::Defined { section: section.name.clone(), key, definition }
}

/// The backfill that the state has of a section.
pub(crate) fn backfill(section: &Section, row: &SectionRow) -> Result<Option<BackfillQueue>, StartError> {
    let (phase, progress) = match &row.phase {
        SectionPhase::Backfilling(progress) => (Phase::Backfill, progress),
        SectionPhase::Resyncing(progress) => (Phase::Resync, progress),
        SectionPhase::Streaming | SectionPhase::Comparing | SectionPhase::Waiting => return Ok(None),
    };
    let backfill = BackfillQueue::resume(phase, progress).map_err(|error| {
        StartError::Wrong(Fault::usage(
            format!("section {}: where its backfill is cannot be read: {error}", section.name),
            "put the state's row of this section back, or `pg2planhat resync`",
        ))
    })?;
    Ok(Some(backfill))
}
