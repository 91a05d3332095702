//! Gives the chunks of the backfills to the delivery core.
//!
//! * In: the readers' events.
//! * Out: chunks for the core; readers started.
//! * Never: a reader for a section whose table does not fit.

use std::rc::Rc;

use crate::delivery::section::{BackfillQueue, Chunk, DiffQueue, Trouble};
use crate::mapping::Mapping;
use crate::model::{Exit, Key, SectionId};
use crate::postgres::backfill::range_reader::{TableChunk, WholeRange};
use crate::runtime::backfill_event::BackfillEvent;
use crate::runtime::backfill_reader::BackfillTask;
use crate::runtime::event_loop::EventLoop;
use crate::runtime::event_loop::read_stream::misfit;
use crate::state::{Op, RangeStart};

impl EventLoop {
    pub(crate) fn on_backfill_event(&mut self, event: BackfillEvent) {
        match event {
            BackfillEvent::EndFound(id, end) => {
                let section = self.engine.section_mut(id);
                section.set_waiting(None);
                match &end {
                    Some((ceiling, estimated)) => {
                        let rows = crate::terminal::count(*estimated);
                        tracing::info!(section = %section.name(), last_key = %ceiling, "backfill started: about {rows} rows");
                    }
                    None => tracing::info!(section = %section.name(), "nothing to backfill: there are no older rows"),
                }
                let ops = section.set_backfill_end(end);
                self.engine.record(ops);
            }
            BackfillEvent::Chunk(id, chunk) => self.on_chunk(id, chunk),
            BackfillEvent::Doubted(id, delivery, keys) => {
                self.engine.section_mut(id).set_doubted_rows(delivery, &keys);
            }
            BackfillEvent::Failed(id, fault) if fault.exit == Exit::Unavailable => {
                self.engine.section_mut(id).set_waiting(Some(Trouble::new(fault.what, fault.remedy)));
            }
            BackfillEvent::Failed(id, fault) => {
                let trouble = Trouble::new(fault.what, fault.remedy);
                self.engine.section_mut(id).set_backfill_trouble(Some(trouble));
            }
            BackfillEvent::Waits(id, fault) => {
                let section = self.engine.section_mut(id);
                section.set_backfill_trouble(None);
                if !section.set_waiting(Some(Trouble::new(fault.what.clone(), fault.remedy.clone()))) {
                    tracing::warn!(section = %section.name(), what = fault.what, remedy = fault.remedy, "the backfill waits");
                }
            }
            BackfillEvent::Recovered(id) => {
                let section = self.engine.section_mut(id);
                section.set_backfill_trouble(None);
                section.set_waiting(None);
                tracing::info!(section = %section.name(), "the backfill goes on");
            }
        }
    }

    /// A chunk is encoded by the types of the transaction that read it: `ALTER TABLE … TYPE` may have changed them since the
    /// section's mapping was compiled.
    fn on_chunk(&mut self, id: SectionId, chunk: TableChunk) {
        let TableChunk { rows, changed, former, wait_for, last, range_rows } = chunk;
        let names = self.context.config.planhat.bulk_activity_names;
        let mapping = match changed.map(|columns| Mapping::compile(&self.sections[id].config, names, &columns)) {
            None => None,
            Some(Ok(mapping)) => Some(Rc::new(mapping)),
            Some(Err(faults)) => {
                let trouble = misfit(&faults);
                tracing::error!(section = %self.sections[id].config.name, what = trouble.what, remedy = trouble.remedy, "halted");
                let why = Some((trouble.what.clone(), trouble.remedy.clone()));
                let section = self.sections[id].config.name.clone();
                self.engine.section_mut(id).stop_unfit(trouble);
                return self.engine.record(vec![Op::Halted { section, why }]);
            }
        };
        self.sections[id].permits.chunk_read();
        self.engine.chunk(id, Chunk { rows, mapping, former, wait_for, last, range_rows });
        if self.engine.waits_for().is_some() {
            self.stream.ping();
        }
    }

    /// Chunks that were used may be followed by others.
    pub(crate) fn give_permits(&mut self) {
        for (id, delivery) in self.engine.sections() {
            let chunks = delivery.backfill().map_or(0, BackfillQueue::chunks);
            let pieces = delivery.diff().map_or(0, DiffQueue::chunks);
            self.sections[id].permits.chunks_held(chunks + pieces);
        }
    }

    /// Starts the reader of a section's backfill, where it has one.
    pub(crate) fn start_reader(&mut self, id: SectionId) {
        if self.engine.section(id).backfill().is_some() && self.waits_for_updates(id) {
            return;
        }
        let (section, delivery) = (&mut self.sections[id], self.engine.section(id));
        let Some(backfill) = delivery.backfill() else { return };
        let Some(table) = &section.table else { return };
        let Some(reading) = table.reading.clone() else { return };
        let selection = match backfill.xmin_floor {
            Some(floor) => reading.since(floor),
            None => reading,
        };
        let whole = match &backfill.from {
            RangeStart::Unknown => None,
            RangeStart::First => Some(WholeRange { after: None }),
            RangeStart::Behind(key) => Some(WholeRange { after: Some(Key::new(key.as_str())) }),
        };
        section.report.backfill_begins(backfill.rows);
        let task = BackfillTask {
            id,
            server: self.context.server.clone(),
            section: section.config.clone(),
            selection,
            oid: table.oid,
            unrewritten_since: table.asked_since.filter(|floor| backfill.xmin_floor == Some(*floor)),
            doubts: delivery.doubted_keys(),
            whole,
            cursor: backfill.cursor.clone(),
            ceiling: backfill.ceiling.clone(),
        };
        let (source, ahead) = (self.context.config.source.clone(), section.permits.renew());
        self.backfills.start(task, source, ahead, &mut self.context.tasks);
    }
}
