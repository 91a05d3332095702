//! Audits by schedule: at the end of each backfill, and every `audit.every`.
//!
//! * In: the sections' phases and the last audits, as the state has them.
//! * Out: audits, one at a time, kept in the state and shown on the board.
//! * Never: two audits side by side; an audit in the way of rows: it rests as long as it reads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{AuditEvery, Config, Section};
use crate::model::Fault;
use crate::runtime::auditor::{AuditReport, AuditRequest, audit, keep};
use crate::runtime::state_connector::StateConnector;
use crate::runtime::status_board::Board;
use crate::state::{LastAudit, SectionPhase, Store};

/// How often the schedule is checked.
const LOOK: Duration = Duration::from_secs(5);

/// Audits what is due, until it is dropped.
pub(crate) async fn run(config: Arc<Config>, board: Board) {
    let connector = StateConnector::new(Arc::clone(&config));
    let mut schedule = Schedule { config, board, backfilling: HashMap::new() };
    loop {
        tokio::time::sleep(LOOK).await;
        match connector.store().await {
            Ok(store) => {
                if let Err(fault) = schedule.look(&store).await {
                    tracing::debug!(%fault, "no audit could be made");
                }
            }
            Err(fault) => tracing::debug!(%fault, "the state cannot be asked for the last audits"),
        }
    }
}

struct Schedule {
    config: Arc<Config>,
    board: Board,
    /// Whether each section was seen at a backfill.
    backfilling: HashMap<String, bool>,
}

impl Schedule {
    async fn look(&mut self, store: &Store) -> Result<(), Fault> {
        let fate = |error: crate::state::StateError| error.fault();
        let rows = store.sections().await.map_err(fate)?;
        let audits = store.last_audits().await.map_err(fate)?;
        for last in &audits {
            self.board.set_audit(&last.section, last.missing, last.at_seconds);
        }
        let config = Arc::clone(&self.config);
        for section in config.sections.iter().filter(|section| section.is_on()) {
            let Some(row) = rows.iter().find(|row| row.name == section.name) else { continue };
            let streams = matches!(row.phase, SectionPhase::Streaming | SectionPhase::Comparing);
            let backfilled = self.backfilling.insert(section.name.to_string(), !streams) == Some(true) && streams;
            let last = audits.iter().find(|last| last.section == section.name.as_str());
            let cause = match (backfilled, is_due(&config.audit.every, last)) {
                (true, _) => "backfill",
                (false, true) if streams => "schedule",
                (false, _) => continue,
            };
            self.audit(store, section, cause).await?;
        }
        Ok(())
    }

    async fn audit(&self, store: &Store, section: &Section, cause: &str) -> Result<(), Fault> {
        let request = AuditRequest { from_key: None, progress: &mut |_| {}, gently: true };
        let report = audit(&self.config, store, section, request).await?;
        keep(store, &report, cause).await?;
        self.board.set_audit(&report.section, report.missing, jiff::Timestamp::now().as_second());
        tell(&report, cause);
        Ok(())
    }
}

fn tell(report: &AuditReport, cause: &str) {
    let (section, rows, missing, unknown) = (&report.section, report.rows_source, report.missing, report.unknown);
    if missing > 0 {
        tracing::warn!(
            section,
            cause,
            rows,
            missing,
            keys = report.missing_keys.join(","),
            "an audit found rows that were never delivered: see `pg2planhat audit {section}`, which can deliver them"
        );
    } else {
        tracing::info!(section, cause, rows, unknown, "an audit found nothing missing");
    }
}

/// Whether a section is to be audited now, by the wall clock.
fn is_due(every: &AuditEvery, last: Option<&LastAudit>) -> bool {
    let now = jiff::Timestamp::now();
    let Some(last) = last else { return *every != AuditEvery::Off };
    match every {
        AuditEvery::Off => false,
        AuditEvery::Every(duration) => {
            let age = now.as_second().saturating_sub(last.at_seconds);
            u64::try_from(age).unwrap_or_default() >= duration.as_secs()
        }
        AuditEvery::DailyAt(time, zone) => {
            let today = now.to_zoned(zone.clone()).date();
            let due = today.to_datetime(*time).to_zoned(zone.clone()).map(|due| due.timestamp().as_second());
            due.is_ok_and(|due| now.as_second() >= due && last.at_seconds < due)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(seconds_ago: i64) -> LastAudit {
        LastAudit { section: "s".into(), at_seconds: jiff::Timestamp::now().as_second() - seconds_ago, missing: 0 }
    }

    #[test]
    fn an_audit_is_due_by_its_age_and_never_where_it_is_off() {
        let hour = AuditEvery::Every(Duration::from_secs(3600));
        assert!(is_due(&hour, None) && is_due(&hour, Some(&last(3601))) && !is_due(&hour, Some(&last(60))));
        assert!(!is_due(&AuditEvery::Off, None) && !is_due(&AuditEvery::Off, Some(&last(1 << 30))));
        let midnight = AuditEvery::DailyAt(jiff::civil::time(0, 0, 0, 0), jiff::tz::TimeZone::UTC);
        assert!(is_due(&midnight, Some(&last(86_400))) && !is_due(&midnight, Some(&last(0))));
    }
}
