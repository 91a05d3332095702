//! Updated rows in the event loop: the stream that brings them, and the values that an update leaves out.
//!
//! * In: updated rows as the stream brings them.
//! * Out: the same rows, completed from the table where that still has them.
//! * Never: a backfill begun while updates are not streamed: a row updated behind it would stay as it was.
//!
//! PostgreSQL leaves a value out of an update that is stored out of line and was not changed. It is read by the row's key as
//! the table has it now, which may be newer: then the update that made it so follows.

use std::sync::Arc;
use std::time::Duration;

use crate::delivery::section::Trouble;
use crate::model::{Cell, Lsn, Row, Rows, SectionId, Value};
use crate::postgres::replication::event::UpdateStream;
use crate::runtime::event_loop::EventLoop;
use crate::runtime::event_loop::value_reader::UnreadRow;
use crate::runtime::update_stream;
use crate::state::UpdatePublication;

/// How long the stream is let go where a row cannot be read.
const AGAIN: Duration = Duration::from_secs(1);

/// An updated row of which not every value came.
pub(crate) struct PartialRow {
    oid: u32,
    lsn: Lsn,
    data: Vec<u8>,
    cells: Vec<Cell>,
}

impl PartialRow {
    pub(crate) fn new(oid: u32, lsn: Lsn, row: &Row<'_>) -> PartialRow {
        PartialRow { oid, lsn, data: row.data.to_vec(), cells: row.cells.to_vec() }
    }

    fn row(&self) -> Row<'_> {
        Row { data: &self.data, cells: &self.cells }
    }

    /// Fills in a column's value. What no offset can name is as good as too large.
    fn fill(&mut self, column: usize, value: Value<'_>) {
        let cell = match value {
            Value::Null => Cell::NULL,
            Value::Oversize => Cell::OVERSIZE,
            Value::Unknown => Cell::UNKNOWN,
            Value::Text(text) => match (u32::try_from(self.data.len()), u32::try_from(text.len())) {
                (Ok(start), Ok(len)) => {
                    self.data.extend_from_slice(text);
                    Cell::text(start, len)
                }
                _ => Cell::OVERSIZE,
            },
        };
        if let Some(place) = self.cells.get_mut(column) {
            *place = cell;
        }
    }
}

impl EventLoop {
    /// Takes an updated row whose values are read from the table first. Where the server cannot be asked, the stream is read
    /// again; where it does not let this row be read, its section alone stops before it.
    pub(crate) async fn on_partial_row(&mut self, mut partial: PartialRow) {
        for (id, key, columns) in self.engine.not_brought(partial.oid, partial.lsn, &partial.row()) {
            match self.read_row(id, &key).await {
                Ok(found) => self.complete(&mut partial, id, &columns, &found),
                Err(UnreadRow::Table(fault)) => {
                    self.sections[id].refits.set_unread(key);
                    let what = format!("an updated row's values cannot be read: {}", fault.what);
                    self.engine.stop_unreadable(id, Trouble::new(what, fault.remedy));
                }
                Err(UnreadRow::Source(fault)) => {
                    tracing::warn!(what = fault.what, "an updated row cannot be completed: the stream begins again");
                    let confirmed = self.engine.confirmed();
                    return self.stream.rewind_after(AGAIN, Some(fault), confirmed, &mut self.context.tasks);
                }
            }
        }
        let now = self.context.now();
        self.engine.update(partial.oid, partial.lsn, (&partial.row(), None), now);
    }

    async fn read_row(&mut self, id: SectionId, key: &str) -> Result<Rows, UnreadRow> {
        let table = self.sections[id].table.as_ref();
        let reading = table.and_then(|table| Some((table.reading.clone()?, table.oid)));
        match reading {
            Some((reading, oid)) if !key.is_empty() => {
                let from = (&self.context.server, &self.context.config.source);
                self.values.read(from, (&reading, oid), key).await
            }
            Some(_) | None => Ok(Rows::default()),
        }
    }

    /// Fills in the columns (by their place in the stream's rows) from the row as the section reads it.
    fn complete(&self, partial: &mut PartialRow, id: SectionId, columns: &[usize], found: &Rows) {
        let Some(row) = found.iter().next() else { return };
        let read = self.sections[id].config.columns();
        for column in columns {
            let name = self.stream.column_name(partial.oid, *column);
            let place = name.and_then(|name| read.iter().position(|one| one == name));
            if let Some(place) = place {
                partial.fill(*column, row.get(place));
            }
        }
    }

    /// The publication of updates is there by now: from where it may be named is found out, as at a start.
    pub(crate) fn take_update_publication(&mut self, made: UpdatePublication) {
        if !self.monitor.expect_updates(&made) {
            return;
        }
        let publication = self.context.config.source.update_publication();
        let updates = UpdateStream { publication, oid: made.oid, from: made.from };
        self.stream.set_updates(updates.clone());
        if made.from.is_none() {
            let (config, server) = (Arc::clone(&self.context.config), self.context.server.clone());
            let found = update_stream::find_start(config, server, updates, self.monitor.sender());
            self.context.tasks.spawn(found);
        }
    }

    /// Opens the stream again with the publication of updates, once the checkpoint is past its beginning.
    pub(crate) fn turn_to_updates(&mut self) {
        let Some(from) = self.stream.wants_updates_from() else { return };
        if self.engine.confirmed() >= from {
            tracing::info!(%from, "the stream brings updates from here on");
            return self.rewind();
        }
        // An idle server says nothing by itself.
        self.engine.checkpoint_soon();
        self.stream.ping();
    }

    /// Whether a section's older rows must wait for the stream to bring updates; the section says so.
    pub(crate) fn waits_for_updates(&mut self, id: SectionId) -> bool {
        let waits = self.sections[id].config.sends_updates() && !self.stream.carries_updates();
        let had_waited = std::mem::replace(&mut self.sections[id].waits_for_updates, waits);
        if waits {
            let name = self.context.config.source.update_publication();
            let what = format!(
                "its older rows are read once updates are streamed: transactions older than {name} must end first"
            );
            let trouble = Trouble::new(what, "wait; where it lasts, the log names the transactions");
            self.engine.section_mut(id).set_backfill_trouble(Some(trouble));
        } else if had_waited {
            self.engine.section_mut(id).set_backfill_trouble(None);
        }
        waits
    }

    /// Starts the readers that waited for updates.
    pub(crate) fn start_update_readers(&mut self) {
        if !self.stream.carries_updates() {
            return;
        }
        let waiting: Vec<SectionId> =
            self.sections.entries().filter(|(_, section)| section.waits_for_updates).map(|(id, _)| id).collect();
        waiting.into_iter().for_each(|id| self.start_reader(id));
    }
}
