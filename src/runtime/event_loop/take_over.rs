//! Takes over a configuration that was read again, section by section.
//!
//! * In: the configuration that counts now, of the same servers; it was judged before that it harms nobody.
//! * Out: new sections that wait to be attached; sections that go on as they are written now.
//! * Never: a pause of another section.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Section;
use crate::config::definition::{Definition, differs};
use crate::delivery::section::{SectionDelivery, Trouble};
use crate::model::{Position, SectionId};
use crate::planhat::Endpoint;
use crate::runtime::event_loop::EventLoop;
use crate::runtime::event_loop::section_runtime::{ChunkPermits, RefitTries, SectionRuntime, WaitingSection};
use crate::runtime::event_loop::sections::defined;
use crate::runtime::event_loop::type_catalog::ColumnTypes;
use crate::runtime::section_report::SectionReport;
use crate::state::{Attachment, Op, SectionPhase, SectionRow};

impl EventLoop {
    /// Another configuration counts.
    pub(crate) fn on_config(&mut self) {
        let next = Arc::clone(&self.context.configs.borrow_and_update());
        if Arc::ptr_eq(&next, &self.context.config) || self.engine.is_draining() {
            return;
        }
        let before = std::mem::replace(&mut self.context.config, Arc::clone(&next));
        for section in next.sections.iter().filter(|section| section.is_on() && section.is_streamed()) {
            let was = before.sections.iter().find(|was| was.name == section.name);
            match (self.engine.section_named(&section.name), was) {
                (None, _) => self.add_section(section),
                (Some(id), _) if self.engine.section(id).is_off() => {
                    self.sections[id].config = section.clone();
                    self.engine.section_mut(id).switch_on();
                    self.begin_to_wait(id);
                }
                (Some(id), Some(was)) if differs(was, section) => self.write_anew(id, was, section),
                (Some(_), _) => {}
            }
        }
    }

    fn add_section(&mut self, section: &Section) {
        let endpoint = match Endpoint::new(&self.context.config.planhat, section.kind) {
            Ok(endpoint) => endpoint,
            Err(fault) => {
                let (what, remedy) = (fault.what, fault.remedy);
                return tracing::error!(section = %section.name, what, remedy, "reload: the section cannot begin");
            }
        };
        let (name, board) = (section.name.as_str(), self.status.board());
        let (metrics, counts) = (board.add_section(name), board.counts(name));
        let mut delivery = SectionDelivery::new(section, Position::default());
        let report = SectionReport::new(None, &counts);
        delivery.resume_counts(counts);
        let id = self.engine.add_section(delivery);
        self.sections.push(SectionRuntime {
            config: section.clone(),
            endpoint,
            waits: None,
            table: None,
            permits: ChunkPermits::new(),
            report,
            metrics,
            diff: None,
            result: None,
            waits_for_updates: false,
            refits: RefitTries::default(),
            new_rules: None,
        });
        self.begin_to_wait(id);
    }

    /// The section is recorded as waiting, and its attacher begins.
    fn begin_to_wait(&mut self, id: SectionId) {
        let section = self.sections[id].config.clone();
        let of_table = |(other, runtime): (SectionId, &SectionRuntime)| {
            other != id && runtime.table.is_some() && runtime.config.table == section.table
        };
        let carried_before = self.sections.entries().any(of_table);
        let row = SectionRow::waiting(&section.name, Attachment::none_yet(&section.table, section.kind));
        tracing::info!(section = %section.name, "reload: the section is attached beside the running stream");
        self.engine.record(vec![Op::Attach {
            section: section.name,
            to: row.attachment.clone(),
            phase: SectionPhase::Waiting,
        }]);
        self.engine
            .section_mut(id)
            .set_waiting(Some(Trouble::new("it is being attached", "nothing: it goes on by itself")));
        self.sections[id].report.set_row(row.clone());
        self.sections[id].waits = Some(WaitingSection { row, carried_before, left: Vec::new() });
        self.start_attacher(id);
    }

    /// A section that is there is written otherwise: when its batches go is taken over at once, how its rows become items when
    /// its table was looked at.
    fn write_anew(&mut self, id: SectionId, was: &Section, section: &Section) {
        self.engine.reconfigure(id, section);
        if self.sections[id].waits.is_some() {
            self.sections[id].config = section.clone();
            return;
        }
        let (before, now) = (Definition::of(was), Definition::of(section));
        if (before.fields, before.rest) == (now.fields, now.rest) {
            let key = std::mem::take(&mut self.sections[id].config.key);
            self.sections[id].config = Section { key, ..section.clone() };
            return self.taken_over(id);
        }
        self.start_refitter(id, section.clone(), (Duration::ZERO, true));
    }

    pub(crate) fn taken_over(&mut self, id: SectionId) {
        let section = &self.sections[id].config;
        tracing::info!(section = %section.name, "reload: the section goes on as it is written now");
        let op = defined(section);
        self.engine.record(vec![op]);
    }

    /// Rows of the table become items as its sections are written now. The stream describes a table once: where it has, no
    /// description follows.
    pub(crate) async fn route(&mut self, oid: u32) {
        let Some(table) = self.stream.described(oid) else { return };
        match self.stream.columns(&table).await {
            ColumnTypes::Known(columns) => self.engine.set_routes(oid, self.routes(oid, &columns)),
            ColumnTypes::Later(wait, fault) => {
                self.stream.rewind_after(wait, fault, self.engine.confirmed(), &mut self.context.tasks);
            }
        }
    }
}
