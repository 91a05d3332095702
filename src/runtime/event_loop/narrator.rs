//! Logs the sections' progress at a person's pace: begun, how far, done.
//!
//! * In: the sections as the status shows them, at each look.
//! * Out: log lines.
//! * Never: a line for each batch; more than one line about a section's progress in 30 s, or about its quarantine in 60 s.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::telemetry::status_document::{SectionState, SectionStatus};
use crate::terminal::count;

/// How often a backfill's progress is logged.
const EVERY: Duration = Duration::from_secs(30);
/// How often a growing quarantine is logged.
const QUARANTINE_EVERY: Duration = Duration::from_secs(60);

/// The last logged state of each section.
#[derive(Default)]
pub(crate) struct Narrator {
    told: HashMap<String, Told>,
}

struct Told {
    state: SectionState,
    delivered: bool,
    /// Since when it is in this state.
    since: Instant,
    progress: Instant,
    /// Rows that were ever quarantined, as of the last line about it, and when that was.
    quarantined: (u64, Option<Instant>),
}

impl Narrator {
    /// Logs what is new.
    pub(crate) fn tell(&mut self, sections: &[SectionStatus], now: Instant) {
        for section in sections {
            for line in self.lines(section, now) {
                tracing::info!(section = section.name, "{line}");
            }
            if let Some(rows) = self.quarantined(section, now) {
                let remedy = format!("pg2planhat quarantine list --section {}", section.name);
                tracing::warn!(
                    section = section.name,
                    rows,
                    total = section.rows_quarantined,
                    remedy,
                    "rows are quarantined (not delivered)"
                );
            }
        }
    }

    /// How many rows have gone into quarantine since that was last told, where it is to be told. Pure.
    fn quarantined(&mut self, section: &SectionStatus, now: Instant) -> Option<u64> {
        let (before, at) = &mut self.told.get_mut(&section.name)?.quarantined;
        let rows = section.rows_quarantined.checked_sub(*before).filter(|rows| *rows > 0)?;
        if at.is_some_and(|at| now.saturating_duration_since(at) < QUARANTINE_EVERY) {
            return None;
        }
        (*before, *at) = (section.rows_quarantined, Some(now));
        Some(rows)
    }

    /// What is new of a section. Pure.
    fn lines(&mut self, section: &SectionStatus, now: Instant) -> Vec<String> {
        let delivered = section.last_delivered_at.is_some();
        let Some(told) = self.told.get_mut(&section.name) else {
            // What was so when this process came is no news, but for what it is about to do.
            let quarantined = (section.rows_quarantined, None);
            let told = Told { state: section.state, delivered, since: now, progress: now, quarantined };
            self.told.insert(section.name.clone(), told);
            return matches!(section.state, SectionState::Streaming)
                .then(|| "streaming".to_owned())
                .into_iter()
                .collect();
        };
        let mut lines = Vec::new();
        if delivered && !told.delivered {
            lines.push("the first rows are delivered".to_owned());
            told.delivered = true;
        }
        if told.state != section.state {
            let took = now.saturating_duration_since(told.since);
            lines.extend(changed(told.state, section, took));
            (told.state, told.since, told.progress) = (section.state, now, now);
        } else if section.state == SectionState::Backfilling && now.saturating_duration_since(told.progress) >= EVERY {
            told.progress = now;
            lines.extend(progress(section));
        }
        lines
    }
}

fn changed(before: SectionState, section: &SectionStatus, took: Duration) -> Option<String> {
    let rows = section.backfill.as_ref().map_or(0, |backfill| backfill.rows);
    match (before, section.state) {
        (SectionState::Backfilling, SectionState::Streaming) => {
            Some(format!("backfill done: {} rows in {} s; streaming", count(rows), took.as_secs()))
        }
        (SectionState::Backfilling, SectionState::Comparing) => {
            Some(format!("the whole result is sent: {} rows in {} s", count(rows), took.as_secs()))
        }
        (_, SectionState::Streaming) => Some("streaming".to_owned()),
        (_, SectionState::Paused) => Some("paused".to_owned()),
        (SectionState::Paused, _) => Some("resumed".to_owned()),
        // Logged where it happens, with its reason and its remedy.
        (
            _,
            SectionState::Halted
            | SectionState::Backfilling
            | SectionState::Comparing
            | SectionState::Waiting
            | SectionState::Off,
        ) => None,
    }
}

fn progress(section: &SectionStatus) -> Option<String> {
    let backfill = section.backfill.as_ref()?;
    let of = match backfill.estimated {
        Some(estimated) if estimated > 0 => {
            format!(" of about {} ({} %)", count(estimated), backfill.rows.min(estimated) * 100 / estimated)
        }
        Some(_) | None => String::new(),
    };
    let left = backfill.eta_seconds.map(|eta| format!(", about {eta:.0} s left")).unwrap_or_default();
    let why = section.reason.as_ref().map(|reason| format!("; it waits: {reason}")).unwrap_or_default();
    Some(format!("backfill: {} rows{of}{left}{why}", count(backfill.rows)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::status_document::Backfill;

    fn section(state: SectionState, rows: u64, last: Option<&str>) -> SectionStatus {
        let text = serde_json::json!({
            "name": "s", "kind": "custom_metric", "table": "public.t", "state": state, "reason": null, "remedy": null,
            "rows_delivered": rows, "rows_quarantined": 0, "rows_in_doubt": 0, "rows_resent": 0, "lag_seconds": 0.0,
            "last_delivered_at": last, "backfill": Backfill { rows, estimated: Some(1000), eta_seconds: Some(9.4) },
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn a_growing_quarantine_is_told_at_once_and_then_once_a_minute() {
        let (mut narrator, start) = (Narrator::default(), Instant::now());
        let mut told = |rows_quarantined, second| {
            let section = SectionStatus { rows_quarantined, ..section(SectionState::Streaming, 1, None) };
            narrator.lines(&section, start);
            narrator.quarantined(&section, start + Duration::from_secs(second))
        };
        assert_eq!(told(5, 0), None, "what was so before is no news");
        assert_eq!(told(7, 1), Some(2));
        assert_eq!(told(900, 30), None);
        assert_eq!(told(1000, 61), Some(993));
        assert_eq!(told(1000, 500), None);
    }

    #[test]
    fn what_begins_goes_on_and_ends_is_told_and_nothing_twice() {
        let (mut narrator, start) = (Narrator::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut lines = |state, rows, last, now| narrator.lines(&section(state, rows, last), now);
        assert!(lines(SectionState::Backfilling, 0, None, at(0)).is_empty());
        assert_eq!(lines(SectionState::Backfilling, 10, Some("t"), at(1)), ["the first rows are delivered"]);
        assert!(lines(SectionState::Backfilling, 20, Some("t"), at(29)).is_empty());
        let told = lines(SectionState::Backfilling, 500, Some("t"), at(30));
        assert_eq!(told, ["backfill: 500 rows of about 1,000 (50 %), about 9 s left"]);
        assert!(lines(SectionState::Backfilling, 600, Some("t"), at(59)).is_empty());
        let done = lines(SectionState::Streaming, 1200, Some("t"), at(60));
        assert_eq!(done, ["backfill done: 1,200 rows in 60 s; streaming"]);
        assert_eq!(lines(SectionState::Paused, 1200, Some("t"), at(61)), ["paused"]);
        assert_eq!(lines(SectionState::Streaming, 1200, Some("t"), at(62)), ["streaming"]);
        assert!(lines(SectionState::Streaming, 1200, Some("t"), at(500)).is_empty());
    }
}
