//! Results that are compared: begun when it is time, their pieces given to the delivery core, their ends taken in.
//!
//! * In: the clock; what the readers tell; what of it is settled.
//! * Out: comparisons begun; pieces for the core; when the next one is.
//! * Never: a comparison begun before the one before is settled.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::delivery::batch::SettledUpTo;
use crate::delivery::section::Settled;
use crate::model::{Phase, SectionId};
use crate::runtime::diff_event::{DescribedResult, DiffEvent};
use crate::runtime::diff_reader::DiffTask;
use crate::runtime::event_loop::EventLoop;

impl EventLoop {
    /// Begins the comparisons that are due.
    pub(crate) fn begin_diffs(&mut self) {
        let now = jiff::Timestamp::now();
        for id in self.engine.section_ids() {
            let delivery = self.engine.section(id);
            // What a paused section finds could not be sent; it begins when it goes on.
            if delivery.is_paused() || !delivery.takes_rows() || self.context.is_ending() {
                continue;
            }
            let section = &mut self.sections[id];
            let Some(schedule) = section.diff.as_mut() else { continue };
            if !schedule.is_due(now) {
                continue;
            }
            schedule.begin(now);
            let ahead = section.permits.renew();
            let config = Arc::clone(&self.context.config);
            let names = config.planhat.bulk_activity_names;
            let task = DiffTask { id, section: section.config.clone(), names, held: self.diffs.held() };
            let reading = self.diffs.run(task, config, ahead);
            self.backfills.spawn(reading, &mut self.context.tasks);
        }
    }

    pub(crate) fn on_diff_event(&mut self, event: DiffEvent) {
        match event {
            DiffEvent::Described(id, described) => {
                let DescribedResult { run, mapping, by_key, estimated, not_before } = *described;
                self.sections[id].result = Some(by_key);
                let section = self.engine.section_mut(id);
                section.describe_diff(run, Rc::new(mapping), estimated);
                if section.diff().is_some_and(|diff| diff.phase() != Phase::Diff) {
                    let rows = crate::terminal::count(estimated);
                    tracing::info!(section = %section.name(), "the whole result is sent: about {rows} rows");
                    self.sections[id].report.backfill_begins(0);
                }
                if self.sections[id].report.not_before != not_before
                    && let Some(before) = &not_before
                {
                    tracing::warn!(section = %section.name(), before, "rows of an earlier date are not read: some of them were \
                        sent, and which is forgotten (`within`); `resync --all` sends everything again");
                }
                self.sections[id].report.not_before = not_before;
            }
            DiffEvent::Chunk(id, chunk) => {
                if chunk.end.is_none() {
                    self.sections[id].permits.chunk_read();
                }
                self.engine.section_mut(id).push_diff_chunk(*chunk);
            }
        }
    }

    /// Something of a section is settled, durably: where it is the end of a comparison, the next one can begin.
    pub(crate) fn on_diff_settled(&mut self, id: SectionId, settled: &Settled) {
        let SettledUpTo::RunEnd(end) = &settled.through else { return };
        let now = jiff::Timestamp::now();
        let Some(schedule) = self.sections[id].diff.as_mut() else { return };
        schedule.end(&end.run, end.failed.as_ref(), now);
        let (name, run) = (self.engine.section(id).name(), &end.run);
        match &end.failed {
            None => {
                tracing::info!(section = %name, rows = run.rows, new = run.new, changed = run.changed, gone = run.gone,
                next = %schedule.next(), "compared")
            }
            Some(fault) => {
                tracing::warn!(section = %name, what = fault.what, remedy = fault.remedy, "could not be compared")
            }
        }
        self.watch_diff(id, now);
    }

    /// Says from when on the section is late.
    pub(crate) fn watch_diff(&mut self, id: SectionId, now: jiff::Timestamp) {
        let Some(schedule) = &self.sections[id].diff else { return };
        let late_in: Option<Duration> = schedule.late_in(now);
        let late_from = late_in.map(|late_in| self.context.now() + late_in);
        self.engine.section_mut(id).set_diff_late_from(late_from);
    }
}
