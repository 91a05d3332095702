//! Gives the chunks of the backfills to the delivery core.
//!
//! * In: the readers' events.
//! * Out: chunks for the core; readers started.
//! * Never: a reader for a section whose table does not fit.

use crate::delivery::section::{BackfillQueue, Trouble};
use crate::model::SectionId;
use crate::runtime::backfill_reader::{BackfillEvent, BackfillTask};
use crate::runtime::event_loop::EventLoop;

impl EventLoop {
    pub(crate) fn on_backfill_event(&mut self, event: BackfillEvent) {
        match event {
            BackfillEvent::Fenced(id, end) => {
                let section = self.engine.section_mut(id);
                match &end {
                    Some((ceiling, estimated)) => {
                        let rows = crate::terminal::count(*estimated);
                        tracing::info!(section = %section.name(), last_key = %ceiling, "backfill started: about {rows} rows");
                    }
                    None => tracing::info!(section = %section.name(), "nothing to backfill: there are no older rows"),
                }
                let op = section.set_backfill_end(end);
                self.engine.record(vec![op]);
            }
            BackfillEvent::Chunk(id, chunk) => {
                self.sections[id].permits.chunk_read();
                self.engine.chunk(id, chunk);
                if self.engine.waits_for().is_some() {
                    self.stream.ping();
                }
            }
            BackfillEvent::Failed(id, fault) => {
                let trouble = Trouble::new(fault.what, fault.remedy);
                self.engine.section_mut(id).set_backfill_trouble(Some(trouble));
            }
            BackfillEvent::Recovered(id) => self.engine.section_mut(id).set_backfill_trouble(None),
        }
    }

    /// Chunks that were used may be followed by others.
    pub(crate) fn give_permits(&mut self) {
        for (id, delivery) in self.engine.sections() {
            self.sections[id].permits.chunks_held(delivery.backfill().map_or(0, BackfillQueue::chunks));
        }
    }

    /// Starts the reader of a section's backfill, where it has one.
    pub(crate) fn start_reader(&mut self, id: SectionId) {
        let (section, delivery) = (&mut self.sections[id], self.engine.section(id));
        let Some(backfill) = delivery.backfill() else { return };
        let Some(table) = &section.table else { return };
        let Some(reading) = table.reading.clone() else { return };
        let selection = match backfill.xmin_floor {
            Some(floor) => reading.selection.since(floor),
            None => reading.selection,
        };
        section.report.backfill_begins(backfill.rows);
        let task = BackfillTask {
            id,
            section: section.config.clone(),
            selection,
            oid: table.oid,
            key_type: delivery.key_type(),
            key_column: reading.key_column,
            cursor: backfill.cursor.clone(),
            ceiling: backfill.ceiling.clone(),
        };
        let (source, ahead) = (self.context.config.source.clone(), section.permits.renew());
        self.backfills.start(task, source, ahead, &mut self.context.tasks);
    }
}
