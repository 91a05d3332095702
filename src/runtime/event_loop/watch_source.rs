//! Acts on the monitor's messages about the source and about operators' requests.
//!
//! * In: [`MonitorEvent`]s.
//! * Out: the status's figures of the slot; sections paused; the loop's end where a person must decide.
//! * Never: a wait.

use crate::runtime::event_loop::EventLoop;
use crate::runtime::event_loop::loop_exit::LoopExit;
use crate::runtime::monitor_event::{MonitorEvent, SourceStatus};
use crate::runtime::section_report;
use crate::state::Op;

impl EventLoop {
    pub(crate) fn on_monitor_event(&mut self, event: MonitorEvent) {
        match event {
            MonitorEvent::SourceStatus(seen) => self.on_source_status(&seen),
            MonitorEvent::Shutdown(fault) => {
                tracing::warn!("the server goes down: letting go of the slot");
                self.stream.let_go(&mut self.context.tasks);
                self.monitor.set_unreachable(fault);
            }
            MonitorEvent::UpdatesFrom(from) => self.stream.set_updates_from(from),
            MonitorEvent::LockLost(fault) => {
                tracing::warn!(what = fault.what, "the lock that says who runs is lost: beginning again");
                self.context.end(LoopExit::Again);
            }
            MonitorEvent::Unreachable(fault) => self.monitor.set_unreachable(fault),
            MonitorEvent::ReplicaStands(stands) => self.monitor.set_replica_stands(stands),
            MonitorEvent::Locked(fault) => self.monitor.set_locked(fault),
            MonitorEvent::Paused(paused) => {
                let now = self.context.now();
                for (name, paused) in paused {
                    let Some(id) = self.engine.section_named(&name) else { continue };
                    if self.engine.section_mut(id).pause(paused, now) {
                        tracing::info!(section = %name, paused, "an operator pauses or resumes the section");
                    }
                }
            }
            MonitorEvent::Quarantine(counts) => {
                for section in self.sections.iter_mut() {
                    let own = counts.iter().find(|(name, _)| *name == section.config.name);
                    let rows = own.map_or(0, |(_, rows)| *rows);
                    section.metrics.quarantine_rows(rows);
                    section.report.quarantined_now = Some(rows);
                }
            }
            MonitorEvent::OpenGaps(gaps) => {
                let config = &self.context.config;
                let is_named = |name: &str| config.sections.iter().any(|section| section.name.as_str() == name);
                let removed = section_report::removed(gaps.iter().map(Option::as_deref), is_named);
                self.status.board().modify(|status| status.removed = removed);
                for section in self.sections.iter_mut() {
                    let own =
                        |gap: &&Option<String>| gap.as_deref().is_none_or(|name| name == section.config.name.as_str());
                    section.report.open_gaps = Some(gaps.iter().filter(own).count() as u64);
                }
            }
            MonitorEvent::Requested(event) => self.on_operator_request(&event),
            MonitorEvent::ReadAgain(read) => self.on_read_again(*read),
        }
    }

    /// Rows that came before new rules were taken over are told from later ones by their transactions.
    fn date_rules(&mut self, seen: &SourceStatus) {
        let mut ops = Vec::new();
        for section in self.sections.iter_mut() {
            let Some(look) = section.new_rules else { continue };
            section.new_rules = look.looked(seen.floor_at);
            if section.new_rules.is_none() {
                ops.push(Op::RulesSince { section: section.config.name.clone(), xid: seen.next_xid });
            }
        }
        if !ops.is_empty() {
            self.engine.record(ops);
        }
    }

    fn on_source_status(&mut self, seen: &SourceStatus) {
        let rate = self.monitor.on_source_status(seen);
        let source = &self.context.config.source;
        let compared = self.monitor.compare(source, seen, self.engine.written());
        self.status.show_slot(seen, rate);
        match compared {
            Ok(()) => {
                self.check_publication(seen);
                self.look_after_unfit();
                self.date_rules(seen);
            }
            Err(needs) => self.context.end(LoopExit::NeedsPerson(needs)),
        }
    }
}
