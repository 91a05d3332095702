//! Sections whose table is held against their mapping again: because they were written anew, or because it did not fit.
//!
//! * In: a configuration that was taken over; the monitor's look at the source.
//! * Out: sections that go on by the table as it is now.
//! * Never: a chunk that was read for one mapping encoded by another; the same row tried for ever with the same table.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Section;
use crate::model::{Fault, SectionId};
use crate::planhat::Endpoint;
use crate::postgres::backfill::selection::Selection;
use crate::runtime::attach;
use crate::runtime::attacher::Refit;
use crate::runtime::event_loop::EventLoop;
use crate::runtime::event_loop::fitted_columns::FittedColumns;
use crate::runtime::event_loop::section_runtime::{LookBehind, RefitState};
use crate::runtime::event_loop::sections::{backfill, defined};
use crate::runtime::refitter::Refitter;
use crate::runtime::start_error::StartError;
use crate::state::{Op, SectionPhase};

/// How long a section is let go on before it is looked at again whether it can be mapped anew.
const LATER: Duration = Duration::from_secs(1);

impl EventLoop {
    /// Looks after sections whose table does not fit: somebody may have mended it.
    pub(crate) fn look_after_unfit(&mut self) {
        let now = Instant::now();
        for id in self.engine.section_ids() {
            if !self.engine.section(id).is_unfit() || self.sections[id].diff.is_some() {
                continue;
            }
            let name = self.engine.section(id).name();
            let section = self.context.config.sections.iter().find(|section| section.name == *name).cloned();
            if let Some(section) = section.filter(|section| section.is_streamed())
                && self.sections[id].refits.is_due(now)
            {
                self.start_refitter(id, section, (Duration::ZERO, false));
            }
        }
    }

    /// Starts to look at a section's table after a while; `asked`: somebody waits for the answer.
    pub(crate) fn start_refitter(&mut self, id: SectionId, section: Section, (after, asked): (Duration, bool)) {
        let Some(mut row) = self.sections[id].report.row().cloned() else { return };
        // What was not taken up at the start is still as the state had it.
        if !self.was_never_read(id) {
            row.phase = self.engine.section(id).phase();
        }
        let (server, config) = (self.context.server.clone(), Arc::clone(&self.context.config));
        let unread = self.sections[id].refits.to_be_read();
        let refitter = Refitter { id, server, section, config, row, after, asked, unread };
        self.context.tasks.spawn(refitter.run(self.attachments.sender()));
    }

    /// It did not fit when the process began: nothing of it was read by SQL.
    fn was_never_read(&self, id: SectionId) -> bool {
        self.sections[id].table.as_ref().is_some_and(|table| table.reading.is_none())
    }

    /// Where a section stands, and what its table is now: tried once with these, it is not tried again.
    fn refit_state(&self, id: SectionId, refit: &Refit) -> RefitState {
        let delivery = self.engine.section(id);
        let cursor = delivery.backfill().and_then(|backfill| backfill.cursor.clone());
        (refit.fit.columns.clone(), delivery.admitted(), cursor)
    }

    /// A section fits its table as it is written now.
    pub(crate) async fn on_refitted(&mut self, id: SectionId, refit: Refit) {
        let delivery = self.engine.section(id);
        // Written anew once more: that one comes. Or it goes on already.
        let is_late = !Arc::ptr_eq(&refit.config, &self.context.config) || self.engine.is_draining();
        if is_late || !refit.asked && !delivery.is_unfit() {
            return;
        }
        let state = self.refit_state(id, &refit);
        if !refit.asked && self.sections[id].refits.was_tried(&state) {
            return;
        }
        // What is read by SQL was read for the mapping before. Where it is stopped, and all that it took is settled, it is
        // read again.
        let is_stopped = delivery.is_stopped();
        if delivery.is_retrying() || delivery.backfill().is_some() && !(is_stopped && delivery.is_empty()) {
            if refit.asked {
                self.start_refitter(id, refit.fit.section, (LATER, true));
            }
            return;
        }
        let endpoint = match Endpoint::new(&refit.config.planhat, refit.fit.section.kind) {
            Ok(endpoint) => endpoint,
            Err(fault) => return self.on_unfitting(id, &fault),
        };
        if is_stopped && let Err(StartError::Wrong(fault)) = self.take_up_backfill(id, &refit.fit.section) {
            return self.on_unfitting(id, &fault);
        }
        let Refit { fit, fitted_at, asked, .. } = refit;
        let selection = Selection::new(&fit.section, &fit.table, &fit.columns);
        let fitted = FittedColumns::new(&fit.table, &fit.columns);
        let runtime = &mut self.sections[id];
        let selection = match runtime.report.row() {
            Some(row) => attach::as_attached(selection, row),
            None => selection,
        };
        runtime.new_rules = Some(LookBehind::new(self.engine.received()));
        runtime.endpoint = endpoint;
        runtime.config = fit.section;
        runtime.refits.tried(state);
        if let Some(table) = &mut runtime.table {
            (table.reading, table.fitted_at, table.fitted) = (Some(selection), fitted_at, fitted);
        }
        self.engine.section_mut(id).set_table_mapping(Rc::new(fit.mapping));
        self.route(fit.table.oid).await;
        if asked {
            self.taken_over(id);
        } else {
            let section = &self.sections[id].config;
            tracing::info!(section = %section.name, "its table fits its mapping again: the section goes on");
            self.engine.record(vec![defined(section)]);
        }
        if self.engine.go_on(id) {
            let section = self.sections[id].config.name.clone();
            self.engine.record(vec![Op::Halted { section, why: None }]);
            self.start_reader(id);
        }
    }

    /// The backfill of a section that was stopped begins behind what is settled: as the state left it, where the start could
    /// not take it up.
    fn take_up_backfill(&mut self, id: SectionId, section: &Section) -> Result<(), StartError> {
        let row = self.sections[id].report.row().filter(|_| self.was_never_read(id));
        match row.filter(|row| row.phase != SectionPhase::Streaming) {
            Some(row) => {
                if let Some(backfill) = backfill(section, row)? {
                    self.engine.section_mut(id).resume_backfill(backfill);
                }
            }
            None => self.engine.section_mut(id).forget_chunks(),
        }
        Ok(())
    }

    /// It does not fit, and goes on as it was.
    pub(crate) fn on_unfitting(&self, id: SectionId, fault: &Fault) {
        let (section, what, remedy) = (&self.sections[id].config.name, &fault.what, &fault.remedy);
        tracing::error!(%section, what, remedy, "reload: the section does not fit its table as it is written now; it stays as it was");
    }
}
