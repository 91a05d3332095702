//! Carries out the delivery core's actions, and hands their results back.
//!
//! * In: the core's actions; answers of the sink and of the writer of the state.
//! * Out: requests, writes, confirmations; counts for metrics and status.
//! * Never: an order of its own: actions are begun as the core gave them.

use std::time::Duration;

use tokio::task::JoinError;

use crate::delivery::Action;
use crate::delivery::history_check::OtherHistory;
use crate::delivery::section::{Blocked, Settled};
use crate::model::{Fault, SectionId};
use crate::runtime::event_loop::sink_requests::{Requested, retrying};
use crate::runtime::event_loop::state_link::StateEffect;
use crate::runtime::event_loop::{EventLoop, LoopExit};
use crate::runtime::identity::other_history;
use crate::runtime::state_writer::Written;
use crate::state::{Op, Outcome};

impl EventLoop {
    /// Carries out every action of the core.
    pub(crate) fn act(&mut self) {
        while let Some(action) = self.engine.next_action() {
            match action {
                Action::Write(number, ops) => {
                    if let Err(exit) = self.state.write(number, ops) {
                        self.context.end(exit);
                    }
                }
                Action::Send { section, id, body } => {
                    let endpoint = self.sections[section].endpoint.clone();
                    self.requests.send(section, endpoint, id, body);
                }
                Action::Confirm(lsn) => self.stream.confirm(lsn),
                Action::Settled(section, settled) => self.on_settled(section, &settled),
                Action::Retry(section, verdict) => self.sections[section].metrics.retry(&verdict),
                Action::Rewind => self.rewind(),
                Action::Stopped(section) => self.on_stopped(section),
                Action::OtherHistory(other) => self.on_other_history(&other),
            }
        }
        self.give_permits();
    }

    /// The stream is of another log. Where this loop has streamed before, the state may say otherwise: it may have been put back
    /// with the log, and it knows of no row that was only read.
    fn on_other_history(&mut self, other: &OtherHistory) {
        let needs = other_history(other);
        if self.stream.is_first() {
            return self.context.end(LoopExit::NeedsPerson(needs));
        }
        tracing::warn!(what = needs.fault.what, "beginning again, by what the state has");
        self.context.end(LoopExit::Again);
    }

    fn on_stopped(&mut self, id: SectionId) {
        let delivery = self.engine.section(id);
        let Some(Blocked::Stopped(trouble)) = delivery.blocked().first() else { return };
        let (section, what, remedy) = (delivery.name().clone(), trouble.what.clone(), trouble.remedy.clone());
        tracing::error!(%section, what, remedy, "halted: the slot waits for it");
        self.engine.record(vec![Op::Halted { section, why: Some((what, remedy)) }]);
    }

    pub(crate) fn on_requested(&mut self, requested: Result<Requested, JoinError>) {
        let requested = match requested {
            Ok(requested) => requested,
            Err(error) if error.is_cancelled() => return,
            Err(error) => {
                // Whether the request was sent nobody knows: the next start finds it in the ledger.
                let fault = Fault::bug(format!("a request's task failed: {error}"));
                return self.context.end(LoopExit::Failed(fault));
            }
        };
        let (id, now) = (requested.section, self.context.now());
        self.sections[id].metrics.request(&requested.answer.verdict, requested.took);
        let section = self.engine.section_mut(id);
        self.requests.log(section.name(), &requested);
        section.set_retrying(retrying(&requested.answer));
        let before = section.halted().is_some();
        self.engine.verdict(id, requested.id, &requested.answer, now, fastrand::f64());
        let section = self.engine.section(id);
        match (before, section.halted()) {
            (false, Some(trouble)) => {
                let (what, remedy) = (&trouble.what, &trouble.remedy);
                tracing::error!(section = %section.name(), what, remedy, "halted: it probes, and goes on by itself");
            }
            (true, None) => tracing::info!(section = %section.name(), "no longer halted"),
            (false, None) | (true, Some(_)) => {}
        }
    }

    /// Logs how much of a storm was left out of the log, once it is over.
    pub(crate) fn log_suppressed(&mut self) {
        for ((id, word), suppressed) in self.requests.suppressed() {
            let name = self.engine.section(id).name();
            tracing::info!(section = %name, answer = word, suppressed, "more of the same was left out of the log");
        }
    }

    /// An answer of the writer of the state; `None` where its task has gone.
    pub(crate) fn on_written(&mut self, written: Option<Written>) {
        let Some(written) = written else {
            return self.context.end(LoopExit::Failed(Fault::bug("the writer of the state has gone")));
        };
        match self.state.on_written(written) {
            StateEffect::Durable(number) => self.engine.durable(number),
            StateEffect::Noted => {}
            StateEffect::Exit(exit) => self.context.end(exit),
        }
    }

    fn on_settled(&mut self, id: SectionId, settled: &Settled) {
        self.on_diff_settled(id, settled);
        let now = jiff::Timestamp::now();
        let section = &mut self.sections[id];
        if let Some(outcome) = settled.outcome {
            let rows = settled.delivered + settled.quarantined.iter().map(|(_, rows)| rows).sum::<u64>();
            section.metrics.batch(outcome, rows, settled.bytes);
        }
        if settled.delivered > 0 {
            section.report.delivered(now);
        }
        if matches!(settled.outcome, Some(Outcome::Delivered | Outcome::Partial)) {
            let micros = now.as_microsecond() - POSTGRES_EPOCH;
            for (committed, rows) in &settled.commits {
                let late = Duration::from_micros(u64::try_from(micros - committed).unwrap_or(0));
                for _ in 0..*rows {
                    section.metrics.commit_to_delivered(late);
                }
            }
        }
    }
}

/// 2000-01-01 00:00 UTC in microseconds since 1970.
pub(crate) const POSTGRES_EPOCH: i64 = 946_684_800_000_000;
