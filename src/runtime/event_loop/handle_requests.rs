//! Operators' requests, obeyed: a section delivered again, tried now or let go on, quarantined rows sent again.
//!
//! * In: events that nobody has handled.
//! * Out: a re-sync begun, quarantined rows on their way again; the event's result, in one transaction with what was done.
//! * Never: a row of the quarantine sent while it is under way already.

use std::rc::Rc;
use std::sync::Arc;

use crate::delivery::section::Trouble;
use crate::mapping::Mapping;
use crate::model::{Column, Exit, Fault, Forgotten, Key, SectionId};
use crate::postgres::backfill::selection::Selection;
use crate::runtime::event_loop::EventLoop;
use crate::runtime::event_loop::operator_requests::{PROBE, RESUME, RESYNC, RETRY};
use crate::runtime::event_loop::read_stream::misfit;
use crate::runtime::quarantine_reader::{ReadAgain, RetryRead, RowsRead, RowsToRead, Versions};
use crate::runtime::state_connector::StateConnector;
use crate::state::{Event, Op};

impl EventLoop {
    /// Obeys an event, unless it was taken up already or must wait.
    pub(crate) fn on_operator_request(&mut self, event: &Event) {
        if self.operators.is_taken(event.id) {
            return;
        }
        match event.action.as_str() {
            RESYNC => self.resync(event),
            RETRY => self.retry(event),
            PROBE => self.probe(event),
            RESUME => self.resume(event),
            _ => self.record_result(event.id, "nothing to do for a running instance", Vec::new()),
        }
    }

    /// Records an event's result, after `ops` in the same transaction.
    fn record_result(&mut self, event: i64, result: &str, mut ops: Vec<Op>) {
        self.operators.take(event);
        tracing::info!(event, result, "handled an operator's request");
        ops.push(Op::Handled { event, result: result.to_owned() });
        self.engine.record(ops);
    }

    /// The attached section that an event names, and how its table is read; `None` for the latter where it does not fit.
    fn section_of(&self, event: &Event) -> Option<(SectionId, Option<Selection>)> {
        let name = event.section.as_deref()?;
        let (id, section) = self.sections.entries().find(|(_, section)| section.config.name.as_str() == name)?;
        if section.diff.is_some() {
            return Some((id, section.result.clone()));
        }
        let table = section.table.as_ref()?;
        Some((id, table.reading.clone()))
    }

    /// A section whose result is compared forgets what was settled, once no comparison is under way.
    fn forget(&mut self, event: &Event, id: SectionId) {
        if event.args.get("from").is_some_and(|from| !from.is_null()) {
            let refused = "refused: a section with `read: diff` is delivered again whole; narrow its result by `within` or by \
                           its query first";
            return self.record_result(event.id, refused, Vec::new());
        }
        let Some(schedule) = self.sections[id].diff.as_mut() else { return };
        if schedule.is_under_way() {
            return;
        }
        let now = jiff::Timestamp::now();
        let forgotten = schedule.forget(now);
        // What `within` leaves out is not sent again now, nor with a longer one later.
        let config = &self.sections[id].config;
        let within = config.diff().and_then(|diff| diff.within).and_then(|within| now.checked_sub(within).ok());
        let older = within.zip(config.date_column()).map(|(from, column)| Forgotten::before(column, from));
        let ops = self.engine.section_mut(id).forget_diff(older);
        let result = format!("begun: {forgotten} settled rows are forgotten, and the whole result is sent again");
        self.record_result(event.id, &result, ops);
    }

    fn resync(&mut self, event: &Event) {
        let named = event.section.as_deref().and_then(|name| self.engine.section_named(&name.into()));
        if let Some(id) = named.filter(|id| self.sections[*id].diff.is_some()) {
            return self.forget(event, id);
        }
        let Some((id, reading)) = self.section_of(event) else {
            return self.record_result(event.id, "refused: the section is off, or was never attached", Vec::new());
        };
        let section = self.engine.section_mut(id);
        let from = event.args.get("from").and_then(serde_json::Value::as_str);
        let refused = if !section.takes_rows() || reading.is_none() {
            Some("the section is halted; mend it first".to_owned())
        } else if section.backfill().is_some() {
            Some("a backfill is under way".to_owned())
        } else {
            None
        };
        if let Some(refused) = refused {
            return self.record_result(event.id, &format!("refused: {refused}"), Vec::new());
        }
        let mut ops = section.start_resync(from.map(Key::new));
        let gaps = event.args.get("closes_gaps").and_then(serde_json::Value::as_array);
        let gaps: Vec<i64> = gaps.into_iter().flatten().filter_map(serde_json::Value::as_i64).collect();
        let (section, by) = (section.name().clone(), format!("resync by {}", event.actor));
        ops.push(Op::CoverGaps { section, gaps, by });
        self.record_result(event.id, "begun", ops);
        self.start_reader(id);
    }

    /// What waits for its next try is tried now.
    fn probe(&mut self, event: &Event) {
        let Some((id, _)) = self.section_of(event) else {
            return self.record_result(event.id, "refused: the section is off, or was never attached", Vec::new());
        };
        let now = self.context.now();
        let section = self.engine.section_mut(id);
        let result = if section.is_paused() {
            "refused: the section is paused; resume it"
        } else if section.halted().is_some() || section.waits_to_probe() || section.has_failed() {
            section.hurry(now);
            "it is tried now"
        } else {
            "nothing waits to be tried"
        };
        self.record_result(event.id, result, Vec::new());
    }

    /// Rows that the brake of the mapping keeps back are let go on. A pause ends by the section's row of the state.
    fn resume(&mut self, event: &Event) {
        let Some((id, _)) = self.section_of(event) else { return self.record_result(event.id, "done", Vec::new()) };
        let is_stopped = self.engine.section(id).is_stopped_by_mapping();
        // Where it must wait, the monitor will tell again; at the end, the next instance's.
        if self.engine.is_draining() || !self.engine.let_go_on(id) {
            return;
        }
        let mut ops = Vec::new();
        if is_stopped {
            let section = self.sections[id].config.name.clone();
            ops.push(Op::Halted { section, why: None });
            self.start_reader(id);
        }
        let result = "done: what the mapping makes no item of goes into quarantine, until a row is one";
        self.record_result(event.id, result, ops);
    }

    fn retry(&mut self, event: &Event) {
        let Some((id, Some(reading))) = self.section_of(event) else {
            return self.record_result(event.id, "refused: the section is off or halted", Vec::new());
        };
        let section = self.engine.section_mut(id);
        // One after the other, which bounds what they hold; and none while nothing is sent. The monitor will tell again.
        if section.is_retrying() || section.is_paused() || !section.takes_rows() {
            return;
        }
        let ids = event.args.get("ids").and_then(serde_json::Value::as_array);
        let ids: Vec<i64> = ids.into_iter().flatten().filter_map(serde_json::Value::as_i64).collect();
        let (ids, sent) = self.operators.take_left(event.id).unwrap_or((ids, 0));
        let ids: Vec<i64> = ids.into_iter().filter(|id| section.begin_retry(*id)).collect();
        let (is_table, name) = (section.diff().is_none(), section.name().clone());
        let versions = Versions::of(&self.sections[id].config);
        let rows = RowsToRead { section: id, name, event: event.id, ids, sent, reading, is_table, versions };
        self.operators.take(event.id);
        let config = &self.context.config;
        let from = (self.context.server.clone(), config.source.clone());
        let connector = StateConnector::new(Arc::clone(config));
        self.operators.read_again(rows, from, connector, &mut self.context.tasks);
    }

    /// How rows that were read with such columns become items.
    fn mapping_of(&self, id: SectionId, changed: Option<&[Column]>) -> Result<Option<Rc<Mapping>>, Trouble> {
        let Some(columns) = changed else { return Ok(self.engine.section(id).table_mapping()) };
        let names = self.context.config.planhat.bulk_activity_names;
        let compiled = Mapping::compile(&self.sections[id].config, names, columns);
        compiled.map(|mapping| Some(Rc::new(mapping))).map_err(|faults| misfit(&faults))
    }

    /// Quarantined rows were read again: once it is known what was delivered since, they go on their way.
    pub(crate) fn on_read_again(&mut self, read_again: ReadAgain) {
        if matches!(read_again.read, Ok(RetryRead::Unproven(_))) {
            self.operators.hold(read_again);
            return self.prove_retries();
        }
        let ReadAgain { section: id, event, ids, sent, read } = read_again;
        let read = read.and_then(|read| match read {
            RetryRead::Proven(read) => Ok(read),
            RetryRead::Unproven(_) => Err(Fault::bug("a retry without its proof")),
        });
        let now = self.context.now();
        let mapping = self.mapping_of(id, read.as_ref().ok().and_then(|read| read.changed.as_deref()));
        let section = self.engine.section_mut(id);
        let (read, mapping) = match (read, mapping) {
            (Ok(read), Ok(Some(mapping))) => (read, mapping),
            (Ok(_), Err(Trouble { what, remedy })) => {
                ids.iter().for_each(|id| section.give_up_retry(*id));
                return self.record_result(event, &format!("failed: {what}; {remedy}"), Vec::new());
            }
            (read, _) => {
                ids.iter().for_each(|id| section.give_up_retry(*id));
                let fault = read.err().unwrap_or_else(|| Fault::bug("a section without a mapping"));
                if fault.exit == Exit::Unavailable {
                    return self.operators.leave(event, ids, sent);
                }
                return self.record_result(event, &format!("failed: {}; {}", fault.what, fault.remedy), Vec::new());
            }
        };
        let mut began = sent;
        // An earlier version goes before the one that the table has.
        for item in &read.items {
            section.admit_item(&item.row.key, item.item.get().as_bytes(), item.row.id, now);
            began += 1;
        }
        for row in read.rows.iter() {
            let key = String::from_utf8_lossy(&mapping.key_text(&row)).into_owned();
            let Some((quarantined, date)) = read.by_key.get(&key) else { continue };
            section.admit_out(read.phase, &mapping, &row, (*quarantined, *date), now);
            began += 1;
        }
        read.twice
            .iter()
            .chain(&read.gone)
            .chain(&read.delivered)
            .chain(&read.left)
            .for_each(|id| section.give_up_retry(*id));
        let result = said_of_retry(began, &read);
        let mut ops = Vec::new();
        if !read.twice.is_empty() {
            ops.push(Op::Unquarantine(read.twice));
        }
        if !read.left.is_empty() {
            self.engine.record(ops);
            return self.operators.leave(event, read.left, began);
        }
        self.record_result(event, &result, ops);
    }
}

impl EventLoop {
    /// Rows that were read again show what was committed before: another version of one of them may be on its way still.
    pub(crate) fn prove_retries(&mut self) {
        for waits in self.operators.take_unproven() {
            let Ok(RetryRead::Unproven(unproven)) = &waits.read else { continue };
            if self.engine.is_settled_past(waits.section, unproven.read_at) {
                let connector = StateConnector::new(Arc::clone(&self.context.config));
                self.operators.prove(waits, connector, &mut self.context.tasks);
            } else {
                self.stream.ping();
                self.operators.hold(waits);
            }
        }
    }
}

/// What a person is told of a retry, of which so many rows are on their way.
fn said_of_retry(began: usize, read: &RowsRead) -> String {
    let mut result = format!("{began} rows are sent again");
    if !read.gone.is_empty() {
        result.push_str(&format!(
            "; {} are no longer in the table as they were, and were never items: drop them ({})",
            read.gone.len(),
            shortened(&read.gone)
        ));
    }
    if !read.delivered.is_empty() {
        result.push_str(&format!(
            "; {} are not sent: their keys were delivered since, so another row has the key now, or a newer version was sent, or \
             a re-sync brought it; compare `quarantine show`, then drop them ({})",
            read.delivered.len(),
            shortened(&read.delivered)
        ));
    }
    if read.left_before > 0 {
        result.push_str(&format!("; {} had left the quarantine before", read.left_before));
    }
    if !read.twice.is_empty() {
        result.push_str(&format!("; {} were in quarantine twice: a re-sync brought them again", read.twice.len()));
    }
    result
}

fn shortened(ids: &[i64]) -> String {
    let shown: Vec<String> = ids.iter().take(20).map(ToString::to_string).collect();
    let more = if ids.len() > 20 { " …" } else { "" };
    format!("{}{more}", shown.join(" "))
}
