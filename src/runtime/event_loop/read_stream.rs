//! Gives the stream's rows to the delivery core.
//!
//! * In: the stream's events.
//! * Out: rows and boundaries for the core; each table's mapping, compiled as the table is from then on.
//! * Never: a row given to a mapping of columns that it does not have.

use std::rc::Rc;

use crate::delivery::Route;
use crate::delivery::section::Trouble;
use crate::mapping::{Mapping, MappingFault};
use crate::model::{Column, CommitMark, Fault};
use crate::postgres::replication::event::{EndReason, StreamEnd, StreamEvent};
use crate::postgres::replication::row_decoder::{DecodedItem, DecodedTable};
use crate::runtime::event_loop::type_catalog::ColumnTypes;
use crate::runtime::event_loop::updates::PartialRow;
use crate::runtime::event_loop::{EventLoop, LoopExit};

/// A reason to interrupt the reading of a run.
enum Interrupt {
    Table(DecodedTable),
    /// An updated row of which not every value came.
    Update(PartialRow),
    End,
}

impl EventLoop {
    pub(crate) async fn on_stream_event(&mut self, event: Option<StreamEvent>) {
        match event {
            Some(StreamEvent::Started(begins)) => {
                self.stream.started();
                self.engine.stream_began(begins);
            }
            Some(StreamEvent::Run(run)) => {
                self.stream.feed(run);
                self.read_run().await;
            }
            Some(StreamEvent::Ended(ended)) => self.on_stream_end(ended),
            None => {
                let fault = Fault::bug("the stream's thread ended without a word");
                self.on_stream_end(StreamEnd { fate: EndReason::Transient, fault });
            }
        }
    }

    fn on_stream_end(&mut self, ended: StreamEnd) {
        if let Some(exit) = self.stream.on_ended(ended, self.engine.confirmed()) {
            self.context.end(exit);
        }
        // It may be there again before the status is shown next: what the log says of its end has an answer all the same.
        if let Some(fault) = self.stream.fault() {
            self.status.note_stall(fault);
        }
    }

    /// Reads a run to its end, or until there is no room: a few bytes of an update may stand for megabytes that are read from
    /// its table. A table's description may need the catalog; nothing else waits.
    pub(crate) async fn read_run(&mut self) {
        loop {
            match self.read_until_table() {
                Ok(Interrupt::Table(table)) => {
                    self.on_table(table).await;
                    if !self.stream.is_open() {
                        return;
                    }
                }
                Ok(Interrupt::Update(partial)) => {
                    self.on_partial_row(partial).await;
                    if !self.stream.is_open() || !self.engine.wants_rows() {
                        return;
                    }
                }
                Ok(Interrupt::End) => return,
                Err(exit) => return self.context.end(exit),
            }
        }
    }

    fn read_until_table(&mut self) -> Result<Interrupt, LoopExit> {
        let now = self.context.now();
        loop {
            match self.stream.next_item()? {
                None => return Ok(Interrupt::End),
                Some(DecodedItem::Insert(oid, lsn, row)) => self.engine.insert(oid, lsn, &row, now),
                Some(DecodedItem::Update(oid, ..)) if !self.engine.takes_updates(oid) => {
                    self.status.metrics().ignored("update");
                }
                Some(DecodedItem::Update(oid, lsn, row, old)) => {
                    if !self.engine.not_brought(oid, lsn, &row).is_empty() {
                        return Ok(Interrupt::Update(PartialRow::new(oid, lsn, &row)));
                    }
                    self.engine.update(oid, lsn, (&row, old.as_ref()), now);
                }
                Some(DecodedItem::Begin(final_lsn, micros, xid)) => {
                    self.engine.begin(final_lsn, CommitMark { xid, micros });
                }
                Some(DecodedItem::Commit(end_lsn)) => self.engine.commit(end_lsn),
                Some(DecodedItem::Keepalive(wal_end)) => self.engine.keepalive(wal_end),
                Some(DecodedItem::Ignored(kind)) => self.status.metrics().ignored(kind),
                Some(DecodedItem::Table(table)) => return Ok(Interrupt::Table(table)),
            }
        }
    }

    /// A table's columns, from here on: its sections' mappings are compiled for them.
    async fn on_table(&mut self, table: DecodedTable) {
        self.stream.remember(&table);
        if !self.sections.iter().any(|section| section.table.as_ref().is_some_and(|own| own.oid == table.oid)) {
            return;
        }
        match self.stream.columns(&table).await {
            ColumnTypes::Known(columns) => {
                self.engine.set_routes(table.oid, self.routes(table.oid, &columns));
                self.stream.name_columns(table.oid, columns);
            }
            ColumnTypes::Later(wait, fault) => {
                self.stream.rewind_after(wait, fault, self.engine.confirmed(), &mut self.context.tasks);
            }
        }
    }

    pub(crate) fn routes(&self, oid: u32, columns: &[Column]) -> Vec<Route> {
        let within = self.engine.open_transaction();
        let names = self.context.config.planhat.bulk_activity_names;
        let of_table = self.sections.entries().filter(|(_, section)| {
            let table = section.table.as_ref();
            table.is_some_and(|table| table.oid == oid)
        });
        let route = |(section, runtime): (_, &crate::runtime::event_loop::section_runtime::SectionRuntime)| {
            let older = runtime.table.as_ref().filter(|table| within.is_some_and(|at| at < table.fitted_at));
            let mapping = match older.map(|table| table.fitted.renamed(columns)) {
                Some(Some(names)) => Err(renamed(names)),
                Some(None) => {
                    Mapping::compile_for_older_rows(&runtime.config, names, columns).map_err(|faults| too_old(&faults))
                }
                None => Mapping::compile(&runtime.config, names, columns).map_err(|faults| misfit(&faults)),
            };
            Route { section, mapping: mapping.map(Rc::new) }
        };
        of_table.map(route).collect()
    }
}

/// A column seems to have been renamed since the rows were written: without its value they would be wrong.
fn renamed((before, now): (&str, &str)) -> Trouble {
    Trouble::new(
        format!(
            "the column {now} was probably renamed: rows are still to be delivered that were written when the table had {before} \
             and not {now}"
        ),
        format!(
            "write {before} again in place of {now}, and restart: these rows are delivered, and the section halts at the first that \
             has {now}; then write {now}, and SIGHUP. Where {before} was another column, and dropped: leave what reads {now} out of \
             the section until these rows are delivered"
        ),
    )
}

/// What of the rows is missing that were written before their table was as the mapping wants it, and what brings them.
fn too_old(faults: &[MappingFault]) -> Trouble {
    let Trouble { what, remedy } = misfit(faults);
    if !faults.iter().any(MappingFault::is_unknown_column) {
        return Trouble::new(what, remedy);
    }
    Trouble::new(
        format!("{what}; rows are still to be delivered that were written when the table was not yet as it is now"),
        "until they are delivered, give the field a default (`{ column: …, default: … }`), or the name that the column had then; then SIGHUP, or restart",
    )
}

/// What does not fit, and the first thing to do about it.
pub(crate) fn misfit(faults: &[MappingFault]) -> Trouble {
    let what = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Trouble::new(what, faults.first().map(MappingFault::remedy).unwrap_or_default())
}
