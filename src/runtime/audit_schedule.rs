//! Audits by schedule: at the end of each backfill and each repair, and every `audit.every`.
//!
//! * In: what was done to the sections, and the last audits, as the state has them.
//! * Out: audits, one at a time, kept in the state and shown on the board. Of a key that is one integer mostly of what is new.
//! * Never: two audits side by side; an audit in the way of rows: it rests as long as it reads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{AuditEvery, Config, Section};
use crate::model::Fault;
use crate::runtime::auditor::{AuditReport, AuditRequest, audit, keep};
use crate::runtime::state_connector::StateConnector;
use crate::runtime::status_board::Board;
use crate::state::{LastAudit, SectionPhase, Store, WholeAudit};

/// How often the schedule is checked.
const LOOK: Duration = Duration::from_secs(5);
/// How long an audit that could not be made waits for its next try.
const AGAIN: Duration = Duration::from_secs(600);
/// How old the last whole audit of a section may be while only what is new is looked at.
const WHOLE: Duration = Duration::from_secs(7 * 86_400);

/// Audits what is due, until it is dropped.
pub(crate) async fn run(board: Board) {
    let connector = StateConnector::new(board.config());
    let mut schedule = Schedule { config: board.config(), board, failed: HashMap::new() };
    loop {
        tokio::time::sleep(LOOK).await;
        match connector.store().await {
            Ok(store) => {
                if let Err(fault) = schedule.look(&store).await {
                    tracing::debug!(%fault, "the state cannot be asked for the last audits");
                }
            }
            Err(fault) => tracing::debug!(%fault, "the state cannot be asked for the last audits"),
        }
    }
}

struct Schedule {
    config: Arc<Config>,
    board: Board,
    /// When the audit of a section could not be made.
    failed: HashMap<String, Instant>,
}

impl Schedule {
    async fn look(&mut self, store: &Store) -> Result<(), Fault> {
        let fate = |error: crate::state::StateError| error.fault();
        let rows = store.sections().await.map_err(fate)?;
        let audits = store.last_audits().await.map_err(fate)?;
        let wholes = store.whole_audits().await.map_err(fate)?;
        for last in &audits {
            self.board.set_audit(&last.section, last.missing, last.at_seconds);
        }
        self.config = self.board.config();
        let config = Arc::clone(&self.config);
        for section in config.sections.iter().filter(|section| section.is_on()) {
            let name = section.name.as_str();
            let streams = rows.iter().find(|row| row.name == section.name).is_some_and(|row| {
                // A comparison under way is no end: it is audited by what it finds.
                matches!(row.phase, SectionPhase::Streaming | SectionPhase::Comparing)
            });
            if !streams || self.failed.get(name).is_some_and(|failed| failed.elapsed() < AGAIN) {
                continue;
            }
            let last = audits.iter().find(|last| last.section == name);
            let whole = wholes.iter().find(|whole| whole.section == name).cloned().unwrap_or_default();
            let (cause, since_key) = match (&whole.done_since, is_due(&config.audit.every, last)) {
                (Some(done), _) => (done.as_str(), None),
                (None, true) => ("schedule", new_since(&whole)),
                (None, false) => continue,
            };
            match self.audit(store, section, cause, since_key).await {
                Ok(()) => drop(self.failed.remove(name)),
                Err(fault) => {
                    tracing::warn!(section = name, what = fault.what, remedy = fault.remedy, "no audit could be made");
                    self.failed.insert(name.to_owned(), Instant::now());
                }
            }
        }
        Ok(())
    }

    async fn audit(
        &self,
        store: &Store,
        section: &Section,
        cause: &str,
        since_key: Option<String>,
    ) -> Result<(), Fault> {
        let request = AuditRequest { from_key: None, since_key, progress: &mut |_, _| {}, gently: true };
        let report = audit(&self.config, store, section, request).await?;
        keep(store, &report, cause).await?;
        self.board.set_audit(&report.section, report.missing, jiff::Timestamp::now().as_second());
        tell(&report, cause);
        Ok(())
    }
}

/// The key behind which a scheduled audit looks: the last one of a whole audit that left nothing open and is not old.
fn new_since(whole: &WholeAudit) -> Option<String> {
    let age = jiff::Timestamp::now().as_second().saturating_sub(whole.began?);
    let young = u64::try_from(age).unwrap_or_default() < WHOLE.as_secs();
    whole.to.clone().filter(|_| whole.is_clean && whole.done_since.is_none() && young)
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
    fn only_what_is_new_is_looked_at_where_the_last_whole_audit_left_nothing_open() {
        let ago = |seconds: i64| Some(jiff::Timestamp::now().as_second() - seconds);
        let whole =
            WholeAudit { section: "s".into(), began: ago(60), to: Some("9".into()), is_clean: true, done_since: None };
        assert_eq!(new_since(&whole).as_deref(), Some("9"));
        assert_eq!(new_since(&WholeAudit { began: ago(8 * 86_400), ..whole.clone() }), None, "it is old");
        assert_eq!(new_since(&WholeAudit { is_clean: false, ..whole.clone() }), None, "rows are missing, or wait");
        assert_eq!(
            new_since(&WholeAudit { done_since: Some("repair".into()), ..whole }),
            None,
            "a backfill ended since"
        );
        assert_eq!(new_since(&WholeAudit::default()), None, "there was none");
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
