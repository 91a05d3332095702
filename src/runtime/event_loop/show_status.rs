//! Showing: the status and the metrics, twice a second and whenever someone looks.

use std::time::{Duration, Instant};

use crate::config::Flush;
use crate::delivery::section::DeliveryStage;
use crate::model::{Fault, Lsn};
use crate::runtime::event_loop::EventLoop;
use crate::runtime::promotion::KnownProgress;
use crate::telemetry::status_document::InstanceState;

/// How often it is shown.
const EVERY: Duration = Duration::from_millis(500);
/// Wire silence, or an absent server, beyond this is no longer "running".
const SILENT: Duration = Duration::from_secs(10);
/// WAL below this is our own last write: the size of one checkpoint's record.
const OWN_WRITE: u64 = 1024;

impl EventLoop {
    pub(crate) fn show(&mut self) {
        if self.shown.is_some_and(|shown| shown.elapsed() < EVERY) && self.ending.is_none() {
            return;
        }
        self.shown = Some(Instant::now());
        let now = self.clock.elapsed();
        let engine = &self.engine;
        for run in &mut self.sections {
            if let Some(lane) = run.lane {
                let metrics = run.metrics.clone();
                self.board.metrics.in_one_step(|| run.book.show(&engine.lanes[lane], &metrics, now));
            }
        }
        let chunks: usize = engine
            .lanes
            .iter()
            .filter_map(|lane| lane.range.as_ref().map(crate::delivery::section::BackfillQueue::weight))
            .sum();
        self.board.metrics.buffered_bytes.set(i64::try_from(engine.buffered() + chunks).unwrap_or(i64::MAX));
        let sections = self
            .sections
            .iter()
            .map(|run| run.book.status(&run.section, run.lane.map(|lane| &engine.lanes[lane]), now))
            .collect();
        let trouble = self.trouble();
        let draining = self.board.subscribe().borrow().state == InstanceState::Draining;
        let lag = self.lag();
        let (identity, epoch) = (&self.identity, self.epoch);
        self.board.modify(|status| {
            status.sections = sections;
            status.instance.system_identifier = Some(identity.system_identifier.clone());
            status.instance.timeline = u32::try_from(identity.timeline).ok();
            status.instance.epoch = Some(epoch);
            status.instance.leader = true;
            status.slot.confirmed_lag_bytes = Some(lag);
            if !draining {
                status.state = if trouble.is_some() { InstanceState::Stalled } else { InstanceState::Running };
                status.ready = trouble.is_none();
            }
            status.message = trouble.as_ref().map(|fault| fault.what.clone());
            status.remedy = trouble.map(|fault| fault.remedy);
        });
        self.attendant.shown();
    }

    /// Leaves the books as they are shown to the next corridor of this process.
    pub(crate) fn leave(&self) {
        for run in &self.sections {
            let Some(lane) = run.lane.map(|lane| &self.engine.lanes[lane]) else { continue };
            self.board.set_unsettled(run.section.name.as_str(), run.book.left());
            let under_way = match lane.stage() {
                DeliveryStage::Requesting(sending) => Some(lane.delivery(&sending.batch, sending.id)),
                DeliveryStage::Idle | DeliveryStage::Announcing(_) | DeliveryStage::Waiting { .. } => None,
            };
            let (answered, quarantined) = lane.answered();
            let carried =
                KnownProgress { timeline: i64::from(self.identity.timeline), answered, quarantined, under_way };
            self.board.set_known_progress(run.section.name.as_str(), carried);
        }
    }

    /// What keeps rows from flowing, if anything does.
    fn trouble(&self) -> Option<Fault> {
        if let Some(fault) = &self.unwritten {
            return Some(fault.clone());
        }
        if let Some((_, fault)) = &self.down {
            return Some(fault.clone());
        }
        if let Some((since, fault)) = &self.blind
            && since.elapsed() > SILENT
        {
            return Some(fault.clone());
        }
        let silence = self.stream.as_ref().map_or(Duration::ZERO, |stream| stream.control.silence());
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
        let end: Lsn = self.flushed.max(self.engine.received());
        let lag = end.bytes_since(self.engine.confirmed());
        if lag < OWN_WRITE && self.engine.is_idle() { 0 } else { lag }
    }

    /// Sets when the daily lanes go next, on the monotonic clock.
    pub(crate) fn set_daily(&mut self) {
        let now = self.clock.elapsed();
        for lane in &mut self.engine.lanes {
            let Flush::DailyAt(time, zone) = &lane.flush else { continue };
            if lane.daily.wants_next(now) {
                lane.daily.set_next(next_daily(*time, zone).map(|wait| now + wait));
            }
        }
    }
}

/// Time until it is `time` in `zone` next.
fn next_daily(time: jiff::civil::Time, zone: &jiff::tz::TimeZone) -> Option<Duration> {
    let now = jiff::Timestamp::now().to_zoned(zone.clone());
    let mut day = now.date();
    for _ in 0..3 {
        let at = day.to_datetime(time).to_zoned(zone.clone()).ok()?;
        if at > now {
            return Duration::try_from(at.timestamp().duration_since(now.timestamp())).ok();
        }
        day = day.tomorrow().ok()?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_daily_time_is_within_25_hours() {
        for zone in ["UTC", "Europe/Stockholm", "America/New_York"] {
            let zone = jiff::tz::TimeZone::get(zone).unwrap();
            for hour in [0, 2, 23] {
                let wait = next_daily(jiff::civil::time(hour, 0, 0, 0), &zone).unwrap();
                assert!(wait > Duration::ZERO && wait <= Duration::from_secs(25 * 3600), "{wait:?}");
            }
        }
    }
}
