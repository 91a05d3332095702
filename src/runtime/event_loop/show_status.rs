//! Shows the status and the metrics, twice a second and on request.
//!
//! * In: the delivery core and every part of the event loop.
//! * Out: the status document; at the loop's end, what the next loop must know.
//! * Never: "running" where nothing moves.

use std::time::Duration;

use crate::config::Flush;
use crate::delivery::section::{BackfillQueue, CalendarLook, DiffQueue, SectionDelivery};
use crate::model::{Fault, Lsn};
use crate::runtime::diff_schedule::{last_time_of_day, next_time_of_day};
use crate::runtime::event_loop::EventLoop;
use crate::runtime::event_loop::actions::POSTGRES_EPOCH;
use crate::runtime::promotion::KnownProgress;
use crate::telemetry::status_document::SectionStatus;

/// Silence of the server, or an absent one, beyond this is no longer "running".
const SILENT: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(86_400);
/// WAL below this is our own last write: the size of one checkpoint's record.
const OWN_WRITE: u64 = 1024;

impl EventLoop {
    pub(crate) fn show(&mut self) {
        if !self.status.is_due() && !self.context.is_ending() {
            return;
        }
        let now = self.context.now();
        for (id, delivery) in self.engine.sections() {
            let age = delivery.oldest().map(|oldest| now.saturating_sub(oldest));
            let section = &self.sections[id];
            section.metrics.oldest_unsettled(age);
            section.metrics.flush(longest_wait(&section.config.flush));
        }
        let chunks: usize = self.engine.sections().map(|(_, section)| weight_of_chunks(section)).sum();
        let buffered = i64::try_from(self.engine.buffered() + chunks).unwrap_or(i64::MAX);
        self.status.metrics().buffered_bytes.set(buffered);
        let sections = self.engine.sections().map(|(id, delivery)| {
            let section = &self.sections[id];
            section.report.status(&section.config, delivery, section.diff.as_ref(), now)
        });
        let mut sections: Vec<SectionStatus> = sections.collect();
        let trouble = self.trouble();
        if trouble.is_some() {
            // Nothing comes by the stream: what waits at the source nobody sees.
            let streamed = self.sections.entries().filter(|(_, section)| section.diff.is_none());
            let names: Vec<&str> = streamed.map(|(_, section)| section.config.name.as_str()).collect();
            sections
                .iter_mut()
                .filter(|section| names.contains(&section.name.as_str()))
                .for_each(SectionStatus::stop_flowing);
        }
        if let Some((still, _)) = self.monitor.replica_stands() {
            // What was committed since is not in any result.
            for section in &mut sections {
                section.flows = false;
                section.lag_seconds = section.lag_seconds.map(|lag| lag.max(still.as_secs_f64()));
            }
        }
        // What the slot keeps grows unseen where the server cannot be looked at.
        let lag = self.monitor.unreachable(SILENT).is_none().then(|| self.lag());
        self.status.show(sections, self.monitor.identity(), lag, trouble);
    }

    /// Hands what is known beyond the state to the next event loop of this process. The counts of rows go on from the status.
    pub(crate) fn hand_over(&self) {
        let board = self.status.board();
        for (_, delivery) in self.engine.sections().filter(|(_, delivery)| !delivery.is_off()) {
            let name = delivery.name().as_str();
            let under_way = delivery.under_way();
            let (answered, quarantined) = delivery.answered();
            let timeline = i64::from(self.monitor.identity().timeline);
            board.set_known_progress(name, KnownProgress { timeline, answered, quarantined, under_way });
        }
    }

    /// The fault that keeps rows from flowing, if there is one.
    fn trouble(&self) -> Option<Fault> {
        let known = self.monitor.locked().or_else(|| self.state.fault()).or_else(|| self.stream.fault());
        let known = known.or_else(|| self.monitor.unreachable(SILENT));
        if let Some(fault) = known {
            return Some(fault.clone());
        }
        if let Some(fault) = self.monitor.held_by_standby(SILENT) {
            return Some(fault);
        }
        if let Some((_, fault)) = self.monitor.replica_stands() {
            return Some(fault.clone());
        }
        let silence = self.stream.silence();
        if silence > SILENT && self.engine.wants_rows() {
            let what = format!("the server has said nothing on the stream for {} s", silence.as_secs());
            return Some(Fault::unavailable(
                what,
                "check the server and the network; it is connected to again by itself",
            ));
        }
        None
    }

    /// WAL between what is confirmed and the server's end. What is less than a write of our own counts as none: following
    /// it would write more.
    fn lag(&self) -> u64 {
        let end: Lsn = self.monitor.flushed().max(self.engine.received());
        let lag = end.bytes_since(self.engine.confirmed());
        if lag < OWN_WRITE && self.engine.is_idle() { 0 } else { lag }
    }

    /// Looks at the calendar for the sections that send once a day: at first, at the hour, and each minute.
    pub(crate) fn look_at_calendar(&mut self) {
        let now = self.context.now();
        for id in self.engine.section_ids() {
            let section = self.engine.section_mut(id);
            let Some((time, zone)) = section.wants_daily(now) else { continue };
            let clock = jiff::Timestamp::now();
            let micros = |time: jiff::Timestamp| time.as_microsecond() - POSTGRES_EPOCH;
            let last = last_time_of_day(clock, time, zone).map(micros);
            let next = next_time_of_day(clock, time, zone).map(micros);
            section.see_calendar(CalendarLook { at: now, wall: micros(clock), last, next });
        }
    }
}

/// How long a row waits at most for its batch to be due.
fn longest_wait(flush: &Flush) -> Duration {
    match flush {
        Flush::Every(every) => *every,
        Flush::DailyAt(..) => DAY,
    }
}

/// Bytes of what was read by SQL and is not in a batch yet.
fn weight_of_chunks(section: &SectionDelivery) -> usize {
    section.backfill().map_or(0, BackfillQueue::weight) + section.diff().map_or(0, DiffQueue::weight)
}
