//! Sections that are attached while the stream runs.
//!
//! * In: what the attachers tell.
//! * Out: sections that wait, with their reason, or that are on.
//! * Never: a pause of another section; a row of the section delivered before its attachment is on its way to the state.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::delivery::section::{BackfillQueue, Trouble};
use crate::model::{Exit, Fault, Phase, SectionId};
use crate::postgres::backfill::selection::Selection;
use crate::runtime::attacher::{AttachEvent, Attacher, Ready};
use crate::runtime::event_loop::EventLoop;
use crate::runtime::event_loop::fitted_columns::FittedColumns;
use crate::runtime::event_loop::section_runtime::AttachedTable;
use crate::runtime::event_loop::sections::defined;
use crate::runtime::in_doubt;
use crate::state::{Op, SectionPhase};

impl EventLoop {
    /// Starts the attacher of a section that waits.
    pub(crate) fn start_attacher(&mut self, id: SectionId) {
        let section = &self.sections[id];
        let Some(waits) = &section.waits else { return };
        let attacher = Attacher {
            id,
            server: self.context.server.clone(),
            section: section.config.clone(),
            configs: self.context.configs.clone(),
            writers_from: waits.row.writers_from,
            carried_before: waits.carried_before,
        };
        self.context.tasks.spawn(attacher.run(self.attachments.sender()));
    }

    pub(crate) async fn on_attach_event(&mut self, event: AttachEvent) {
        match event {
            AttachEvent::Waits(id, fault, writers_from) => self.wait_to_attach(id, fault, writers_from),
            AttachEvent::Failed(id, fault) if fault.exit == Exit::Unavailable => self.wait_to_attach(id, fault, None),
            AttachEvent::Failed(id, fault) => {
                let section = self.engine.section_mut(id);
                section.set_waiting(None);
                if section.stop(Trouble::new(fault.what.clone(), fault.remedy.clone())) {
                    let section = section.name().clone();
                    self.engine.record(vec![Op::Halted { section, why: Some((fault.what, fault.remedy)) }]);
                }
            }
            AttachEvent::Updates(updates) => self.take_update_publication(updates),
            AttachEvent::Ready(ready, taken) if self.is_before_updates(&ready) => {
                let what = "it is attached once updates are streamed: transactions older than their publication must end first";
                self.wait_to_attach(
                    ready.id,
                    Fault::unavailable(what, "wait; where it lasts, the log names them"),
                    None,
                );
                taken.send(Some(ready)).ok();
            }
            AttachEvent::Ready(ready, taken) => self.attach(*ready, taken).await,
            AttachEvent::Refitted(id, refit) => self.on_refitted(id, *refit).await,
            AttachEvent::Unfitting(id, fault) => self.on_unfitting(id, &fault),
            AttachEvent::Began(id, xmin) => {
                let section = self.engine.section(id).name().clone();
                self.engine.record(vec![Op::AttachXids { section, writers_from: None, attach_xmin: Some(xmin) }]);
            }
        }
    }

    /// The section waits for others, and goes on by itself.
    fn wait_to_attach(&mut self, id: SectionId, fault: Fault, writers_from: Option<u64>) {
        let section = self.engine.section_mut(id);
        let name = section.name().clone();
        let mut ops = Vec::new();
        if section.go_on() {
            ops.push(Op::Halted { section: name.clone(), why: None });
        }
        section.set_waiting(Some(Trouble::new(fault.what, fault.remedy)));
        if let Some(waits) = &mut self.sections[id].waits
            && writers_from.is_some_and(|from| waits.row.writers_from.is_none_or(|known| from < known))
        {
            waits.row.writers_from = writers_from;
            ops.push(Op::AttachXids { section: name, writers_from, attach_xmin: None });
        }
        if !ops.is_empty() {
            self.engine.record(ops);
        }
    }

    /// Whether updates of its rows would go by unseen, and nothing would read them afterwards.
    fn is_before_updates(&self, ready: &Ready) -> bool {
        ready.fit.section.sends_updates() && ready.phase == SectionPhase::Streaming && !self.stream.carries_updates()
    }

    /// Attaches a section: from here on its rows of the stream are taken in.
    async fn attach(&mut self, ready: Ready, taken: oneshot::Sender<Option<Box<Ready>>>) {
        let Ready { id, config, fit, phase, older, carried_at } = ready;
        // Written anew meanwhile: its attacher tries again.
        if !Arc::ptr_eq(&config, &self.context.config) {
            return;
        }
        let Some(waits) = self.sections[id].waits.take() else { return };
        if self.engine.is_draining() {
            self.sections[id].waits = Some(waits);
            return;
        }
        let oid = fit.table.oid;
        let config = fit.section.clone();
        self.sections[id].config = config.clone();
        let reading = Some(Selection::new(&config, &fit.table, &fit.columns));
        let asked_since = match &phase {
            SectionPhase::Backfilling(progress) => progress.xmin_floor,
            SectionPhase::Waiting | SectionPhase::Resyncing(_) | SectionPhase::Streaming | SectionPhase::Comparing => {
                None
            }
        };
        self.sections[id].table = Some(AttachedTable {
            oid,
            attached_at: carried_at,
            fitted_at: carried_at,
            fitted: FittedColumns::new(&fit.table, &fit.columns),
            reading,
            asked_since,
            verified: None,
            entry: None,
            partitions: None,
        });
        self.route(oid).await;
        let at = self.engine.attach(id, carried_at);
        let attachment = fit.attachment(Some(at));
        let left = in_doubt::left(&config.name, config.in_doubt, &waits.left);
        let section = self.engine.section_mut(id);
        section.go_on();
        section.set_waiting(None);
        section.set_table_mapping(Rc::new(fit.mapping));
        section.expect_doubts(left.doubts, left.rows);
        if let SectionPhase::Backfilling(progress) = &phase {
            match BackfillQueue::resume(Phase::Backfill, progress) {
                Ok(mut backfill) => {
                    older.iter().for_each(|key| backfill.streamed(key.as_str().as_bytes()));
                    section.resume_backfill(backfill);
                }
                // Its beginning was read as a key before.
                Err(error) => tracing::error!(section = %config.name, error, "the backfill cannot begin"),
            }
        }
        let known = section.streamed_op().filter(|_| !older.is_empty());
        let (table, word) = (&attachment.table_name, phase.as_str());
        tracing::info!(section = %config.name, table, attach_lsn = %at, phase = word, "attached");
        let mut row = waits.row;
        (row.attachment, row.phase, row.position) = (attachment.clone(), phase.clone(), None);
        self.sections[id].report.set_row(row);
        let mut ops = vec![Op::Attach { section: config.name.clone(), to: attachment, phase }];
        ops.extend(known);
        ops.push(defined(&config));
        ops.extend(left.ops);
        self.engine.record(ops);
        self.start_reader(id);
        // Where it has ended, nobody needs to know.
        taken.send(None).ok();
    }
}
