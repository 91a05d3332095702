//! What the engine asks for, done; and what comes back of it.

use std::time::{Duration, Instant};

use tokio::task::JoinError;

use crate::delivery::Action;
use crate::delivery::section::{SectionDelivery, Settled, StopReason};
use crate::planhat::Verdict;
use crate::runtime::event_loop::{EventLoop, LoopExit, Requested};
use crate::runtime::start_error::NeedsPerson;
use crate::runtime::state_writer::Written;
use crate::state::{Op, Outcome};
use crate::telemetry::log_output::Passage;
use crate::telemetry::status_document::Reason;

impl EventLoop {
    /// Does everything that the engine has asked for.
    pub(crate) fn act(&mut self) {
        while let Some(action) = self.engine.next_action() {
            match action {
                Action::Write(number, ops) => {
                    if self.lists.send((number, ops)).is_err() && self.ending.is_none() {
                        let fault = crate::model::Fault::bug("the writer of the state has gone");
                        self.ending = Some(LoopExit::Fenced(fault));
                    }
                }
                Action::Send { lane, id, body } => self.send(lane, id, body),
                Action::Confirm(lsn) => {
                    if let Some(stream) = &self.stream {
                        stream.control.confirm(lsn);
                    }
                }
                Action::Settled(lane, settled) => self.on_settled(lane, &settled),
                Action::Retry(lane, verdict) => self.metrics(lane).retry(&verdict),
                Action::InDoubt(lane, rows) => {
                    self.metrics(lane).in_doubt(rows);
                    let run = self.lanes[lane].section;
                    self.sections[run].book.since.in_doubt += rows;
                }
                Action::Rewind => self.rewind(),
                Action::Halted(lane) => self.on_halted(lane),
            }
        }
        self.give_permits();
    }

    fn on_halted(&mut self, lane: usize) {
        let lane = &self.engine.lanes[lane];
        let Some(StopReason::Mapping(what, remedy)) = lane.shut.clone() else { return };
        let section = lane.name.clone();
        tracing::error!(%section, what, remedy, "halted: the table no longer fits the mapping; the slot waits for it");
        self.engine.record(vec![Op::Halted { section, why: Some((what, remedy)) }]);
    }

    /// Chunks that were used may be followed by others.
    fn give_permits(&mut self) {
        for (lane, run) in self.lanes.iter_mut().enumerate() {
            let held =
                self.engine.lanes[lane].range.as_ref().map_or(0, crate::delivery::section::BackfillQueue::chunks);
            if held < run.chunks {
                run.ahead.add_permits(run.chunks - held);
                run.chunks = held;
            }
        }
    }

    fn metrics(&self, lane: usize) -> &crate::telemetry::SectionMetrics {
        &self.sections[self.lanes[lane].section].metrics
    }

    fn send(&mut self, lane: usize, id: i64, body: bytes::Bytes) {
        let (client, endpoint) = (self.client.clone(), self.lanes[lane].endpoint.clone());
        self.requests.spawn(async move {
            let began = Instant::now();
            let answer = client.send(&endpoint, body).await;
            Requested { lane, id, answer, took: began.elapsed() }
        });
    }

    pub(crate) fn on_requested(&mut self, requested: Result<Requested, JoinError>) {
        let Requested { lane, id, answer, took } = match requested {
            Ok(requested) => requested,
            Err(error) if error.is_cancelled() => return,
            Err(error) => {
                // Whether the request was sent nobody knows: the next start finds it in the ledger.
                let fault = crate::model::Fault::bug(format!("a request's task failed: {error}"));
                self.ending = Some(LoopExit::Fenced(fault));
                return;
            }
        };
        self.metrics(lane).request(&answer.verdict, took);
        self.say(lane, id, &answer);
        let before = self.engine.lanes[lane].halted.clone();
        self.engine.verdict(lane, id, &answer, self.clock.elapsed(), fastrand::f64());
        let SectionDelivery { name, halted, .. } = &self.engine.lanes[lane];
        match (before, halted) {
            (None, Some((what, remedy))) => {
                tracing::error!(section = %name, what, remedy, "halted: it probes, and goes on by itself")
            }
            (Some(_), None) => tracing::info!(section = %name, "no longer halted"),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    /// Logs what an answer means, the first few times a minute, and notes what the status is to say of the sink.
    fn say(&mut self, lane: usize, id: i64, answer: &crate::planhat::Answer) {
        let run = self.lanes[lane].section;
        let (word, trouble) = match &answer.verdict {
            Verdict::Received | Verdict::Environment { .. } => ("", None),
            Verdict::Partial(_) => ("partial", None),
            Verdict::BadItem | Verdict::TooLarge => ("halving", None),
            Verdict::Later { .. } => ("later", Some("nothing: the batch is sent again by itself, with growing pauses")),
            Verdict::NotSent => {
                ("not_sent", Some("see that planhat.url can be reached from here; it goes on by itself"))
            }
            Verdict::Unknown => {
                ("unknown", Some("nothing: see `in_doubt` of the section; `pg2planhat logs` names the batch"))
            }
        };
        self.sections[run].book.sink = trouble.map(|remedy| (answer.message.clone(), remedy.to_owned()));
        if word.is_empty() {
            return;
        }
        let Passage::Log { suppressed } = self.brake.event((lane, word), Instant::now()) else { return };
        let name = &self.engine.lanes[lane].name;
        match &answer.verdict {
            Verdict::Received | Verdict::Environment { .. } => {}
            Verdict::Partial(refused) => {
                tracing::warn!(section = %name, suppressed, refused = refused.len(), "Planhat refused items: they go into quarantine");
            }
            Verdict::BadItem | Verdict::TooLarge => {
                tracing::debug!(section = %name, status = answer.status, answer.message, "refused: halving");
            }
            Verdict::Later { .. } | Verdict::NotSent => {
                tracing::warn!(section = %name, suppressed, status = answer.status, what = answer.message, "not received; it is tried again");
            }
            Verdict::Unknown => {
                tracing::warn!(section = %name, suppressed, delivery = id, what = answer.message, "in doubt: the answer never came");
            }
        }
    }

    /// Tells how much of a storm was held back, once it is over.
    pub(crate) fn say_held_back(&mut self) {
        for ((lane, word), suppressed) in self.brake.owed(Instant::now()) {
            let name = &self.engine.lanes[lane].name;
            tracing::info!(section = %name, answer = word, suppressed, "more of the same was left out of the log");
        }
    }

    pub(crate) fn on_written(&mut self, written: Written) {
        match written {
            Written::Durable(number) => self.engine.durable(number),
            Written::Waiting(fault) => {
                if self.unwritten.is_none() {
                    tracing::warn!(what = fault.what, remedy = fault.remedy, "the state cannot be written just now");
                }
                self.unwritten = Some(fault);
            }
            Written::Recovered => {
                tracing::info!("the state can be written again");
                self.unwritten = None;
            }
            Written::Fenced => {
                let fault = crate::state::StateError::Fenced.fault();
                tracing::error!(what = fault.what, "fenced: stopping at once");
                self.ending = Some(LoopExit::Fenced(fault));
            }
            Written::Unwritable(fault) => {
                self.ending = Some(LoopExit::NeedsPerson(NeedsPerson { reason: Reason::StateUnwritable, fault }));
            }
        }
    }

    fn on_settled(&mut self, lane: usize, settled: &Settled) {
        let now = jiff::Timestamp::now();
        let run = &mut self.sections[self.lanes[lane].section];
        if let Some(outcome) = settled.outcome {
            let rows = settled.delivered + settled.quarantined.iter().map(|(_, rows)| rows).sum::<u64>();
            run.metrics.batch(outcome, rows, settled.bytes);
        }
        for (reason, rows) in &settled.quarantined {
            run.book.quarantined.push((reason.clone(), *rows));
            run.book.since.quarantined += rows;
        }
        run.metrics.resent(settled.resent);
        run.book.since.resent += settled.resent;
        run.book.since.delivered += settled.delivered;
        if settled.delivered > 0 {
            run.book.last_delivered = Some(format!("{now:.3}"));
        }
        if matches!(settled.outcome, Some(Outcome::Delivered | Outcome::Partial)) {
            let micros = now.as_microsecond() - POSTGRES_EPOCH;
            for (committed, rows) in &settled.commits {
                let late = Duration::from_micros(u64::try_from(micros - committed).unwrap_or(0));
                for _ in 0..*rows {
                    run.metrics.commit_to_delivered(late);
                }
            }
        }
    }
}

/// 2000-01-01 00:00 UTC in microseconds since 1970.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;
