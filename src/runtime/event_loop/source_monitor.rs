//! What the ranges and the watch tell.

use std::time::Instant;

use crate::model::Fault;
use crate::runtime::backfill_reader::BackfillEvent;
use crate::runtime::event_loop::{EventLoop, LoopExit};
use crate::runtime::monitor_event::{MonitorEvent, SourceStatus};
use crate::runtime::start_error::NeedsPerson;
use crate::state::SectionPhase;
use crate::telemetry::status_document::Reason;

impl EventLoop {
    pub(crate) fn on_range(&mut self, news: BackfillEvent) {
        match news {
            BackfillEvent::Fenced(lane, Some((ceiling, estimated))) => {
                let lane = &mut self.engine.lanes[lane];
                tracing::info!(section = %lane.name, %ceiling, estimated, "the fence has passed: reading older rows");
                if let Some(range) = &mut lane.range {
                    range.fenced(ceiling, estimated);
                }
                let op = lane.phase_op();
                self.engine.record(vec![op]);
            }
            BackfillEvent::Fenced(lane, None) => {
                tracing::info!(section = %self.engine.lanes[lane].name, "there are no older rows");
                self.engine.lanes[lane].range = None;
                let op = self.engine.lanes[lane].phase_op();
                debug_assert_eq!(self.engine.lanes[lane].phase(), SectionPhase::Streaming);
                self.engine.record(vec![op]);
            }
            BackfillEvent::Chunk(lane, chunk) => {
                self.lanes[lane].chunks += 1;
                self.engine.chunk(lane, chunk);
                if self.engine.waits_for().is_some() {
                    self.ping();
                }
            }
            BackfillEvent::Failed(lane, fault) => {
                let run = self.lanes[lane].section;
                self.sections[run].book.trouble = Some((fault.what, fault.remedy));
            }
            BackfillEvent::Recovered(lane) => {
                let run = self.lanes[lane].section;
                self.sections[run].book.trouble = None;
            }
        }
    }

    pub(crate) async fn on_seen(&mut self, seen: MonitorEvent) {
        match seen {
            MonitorEvent::SourceStatus(look) => {
                self.blind = None;
                self.on_look(&look);
            }
            MonitorEvent::Shutdown(fault) => {
                tracing::warn!("the server goes down: letting go of the slot");
                self.let_stream_go();
                self.blind.get_or_insert((Instant::now(), fault));
            }
            MonitorEvent::Blind(fault) => {
                self.blind.get_or_insert((Instant::now(), fault));
            }
            MonitorEvent::Paused(paused) => {
                for (name, paused) in paused {
                    let Some(lane) = self.engine.lanes.iter_mut().find(|lane| lane.name == name) else { continue };
                    if lane.paused != paused {
                        lane.paused = paused;
                        lane.hurry(self.clock.elapsed());
                        tracing::info!(section = %name, paused, "an operator's wish");
                    }
                }
            }
            MonitorEvent::Quarantine(counts) => {
                for run in &self.sections {
                    let rows = counts.iter().find(|(name, _)| *name == run.section.name).map_or(0, |(_, rows)| *rows);
                    run.metrics.quarantine_rows(rows);
                }
            }
            MonitorEvent::Asked(event) => self.on_asked(&event),
            MonitorEvent::ReadAgain(reread) => self.on_reread(*reread),
        }
    }

    /// The walsender is let go at once: a server's fast shutdown waits for it.
    fn let_stream_go(&mut self) {
        if let Some(stream) = self.stream.take() {
            stream.control.stop();
            self.tasks.spawn(stream.close(std::time::Duration::from_secs(2)));
            self.reconnect.failures = self.reconnect.failures.max(2);
            self.reconnect.at = Instant::now() + std::time::Duration::from_millis(500);
            let fault = Fault::unavailable("the server is shutting down", "it is connected to again by itself");
            self.down.get_or_insert((Instant::now(), fault));
        }
    }

    fn on_look(&mut self, look: &SourceStatus) {
        self.flushed = look.flushed;
        let rate = self.wal.look(look.flushed, Instant::now());
        self.board.metrics.wal_bytes_per_second.set(rate.unwrap_or(0.0));
        match &look.slot {
            None => {
                let what = format!("the slot {} is gone", self.config.source.slot);
                self.needs(Reason::SlotMissing, what);
            }
            Some(slot) if slot.is_lost() => {
                let what = format!("the slot {} is lost, for {}", self.config.source.slot, slot.why_lost());
                self.needs(Reason::SlotLost, what);
            }
            Some(slot) => {
                let moved = slot.confirmed().filter(|confirmed| *confirmed > self.engine.written());
                if let Some(confirmed) = moved {
                    let what = format!(
                        "someone else moved the slot {} to {confirmed}, past the checkpoint {}",
                        self.config.source.slot,
                        self.engine.written()
                    );
                    self.needs(Reason::SlotMoved, what);
                }
                let restart = slot.restart_lsn.as_ref().and_then(|lsn| lsn.parse().ok());
                let retained = restart.map(|restart| look.flushed.bytes_since(restart));
                let safe = slot.safe_wal_size;
                self.board.modify(|status| {
                    status.slot.confirmed_flush_lsn = slot.confirmed_flush_lsn.clone();
                    status.slot.retained_bytes = retained;
                    status.slot.safe_wal_bytes = safe;
                    status.slot.seconds_until_lost =
                        safe.zip(rate.filter(|rate| *rate > 1.0)).map(|(safe, rate)| safe.max(0) as f64 / rate);
                });
            }
        }
        self.on_published(look);
    }

    pub(crate) fn needs(&mut self, reason: Reason, what: String) {
        self.ending = Some(LoopExit::NeedsPerson(NeedsPerson::repair(reason, what)));
    }
}
