//! Audits by schedule: at the end of each backfill and each repair, and every `audit.every`.
//!
//! * In: what was done to the sections, and the last audits, as the state has them. It is asked when something was done to a
//!   section or an audit is due: nothing is asked and no connection is made otherwise.
//! * Out: audits, one at a time, kept in the state and shown on the board. Of a key that is one integer mostly of what is new.
//! * Never: two audits side by side; an audit in the way of rows: it rests as long as it reads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::{AuditEvery, Config, Section};
use crate::model::Fault;
use crate::runtime::audit_report::AuditReport;
use crate::runtime::auditor::{AuditRequest, SETTLING, audit, keep};
use crate::runtime::monitor_event::AuditCause;
use crate::runtime::state_connector::StateConnector;
use crate::runtime::status_board::Board;
use crate::state::{LastAudit, SectionPhase, Store, WholeAudit};

/// The least time between two looks at the state.
const LOOK: Duration = Duration::from_secs(5);
/// How many seconds an audit that could not be made waits for its next try.
const AGAIN: i64 = 600;
/// How many seconds a state that could not be asked is left alone.
const UNREACHABLE: i64 = 30;
/// The longest sleep between two looks at the clock, which may be set.
const CLOCK: Duration = Duration::from_secs(60);
/// A whole audit is made each time where it takes at most this part of the time between two.
const CHEAP: u64 = 100;
/// How old the last whole audit of a section may be while only what is new is looked at.
const WHOLE: Duration = Duration::from_secs(7 * 86_400);

/// Audits what is due, until it is dropped.
pub(crate) async fn run(board: Board, mut causes: watch::Receiver<AuditCause>) {
    let connector = StateConnector::new(board.config());
    let mut configs = board.configs();
    let mut schedule = Schedule { config: board.config(), board, failed: HashMap::new() };
    loop {
        tokio::time::sleep(LOOK).await;
        causes.mark_unchanged();
        configs.mark_unchanged();
        let looked = async { schedule.look(&connector.store().await?).await };
        let next = looked.await.unwrap_or_else(|fault: Fault| {
            tracing::debug!(%fault, "the state cannot be asked for the last audits");
            Some(now() + UNREACHABLE)
        });
        tokio::select! {
            Ok(()) = causes.changed() => {}
            Ok(()) = configs.changed() => {}
            () = reached(next) => {}
        }
    }
}

/// Waits for a time of the wall clock, in Unix seconds; without one, for ever.
async fn reached(time: Option<i64>) {
    let Some(time) = time else { return std::future::pending().await };
    while let Ok(left @ 1..) = u64::try_from(time.saturating_sub(now())) {
        tokio::time::sleep(Duration::from_secs(left).min(CLOCK)).await;
    }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

struct Schedule {
    config: Arc<Config>,
    board: Board,
    /// When the audit of a section that could not be made is tried again, in Unix time.
    failed: HashMap<String, i64>,
}

impl Schedule {
    /// Makes the audits that are due. Returns when to look again, in Unix time, if nothing happens before; `None`: never.
    async fn look(&mut self, store: &Store) -> Result<Option<i64>, Fault> {
        let fate = |error: crate::state::StateError| error.fault();
        let rows = store.sections().await.map_err(fate)?;
        let audits = store.last_audits().await.map_err(fate)?;
        let wholes = store.whole_audits().await.map_err(fate)?;
        for last in &audits {
            self.board.set_audit(&last.section, last.missing, last.at_seconds);
        }
        self.config = self.board.config();
        let config = Arc::clone(&self.config);
        let mut next: Option<i64> = None;
        for section in config.sections.iter().filter(|section| section.is_on()) {
            let name = section.name.as_str();
            let streams = rows.iter().find(|row| row.name == section.name).is_some_and(|row| {
                // A comparison under way is no end: it is audited by what it finds.
                matches!(row.phase, SectionPhase::Streaming | SectionPhase::Comparing)
            });
            if !streams {
                continue;
            }
            let mut again = |at: i64| next = Some(next.map_or(at, |next: i64| next.min(at)));
            if let Some(at) = self.failed.get(name).copied().filter(|at| *at > now()) {
                again(at);
                continue;
            }
            let last = audits.iter().find(|last| last.section == name);
            let whole = wholes.iter().find(|whole| whole.section == name).cloned().unwrap_or_default();
            let due = due(&config.audit.every, last);
            let (cause, since_key) = match (&whole.done_since, due) {
                (Some(done), _) => (done.as_str(), None),
                (None, Some(due)) if due <= now() => ("schedule", new_since(&whole, &config.audit.every)),
                (None, due) => {
                    due.into_iter().for_each(again);
                    continue;
                }
            };
            // What is due after it, the next look sees.
            again(now());
            match self.audit(store, section, cause, since_key).await {
                Ok(()) => drop(self.failed.remove(name)),
                Err(fault) => {
                    tracing::warn!(section = name, what = fault.what, remedy = fault.remedy, "no audit could be made");
                    self.failed.insert(name.to_owned(), now() + AGAIN);
                }
            }
        }
        Ok(next)
    }

    async fn audit(
        &self,
        store: &Store,
        section: &Section,
        cause: &str,
        since_key: Option<String>,
    ) -> Result<(), Fault> {
        let (progress, patience) = (&mut |_, _| {}, &mut { SETTLING });
        let request = AuditRequest { from_key: None, since_key, progress, gently: true, patience };
        let report = audit(&self.config, store, section, request).await?;
        keep(store, &report, cause).await?;
        self.board.set_audit(&report.section, report.missing, now());
        tell(&report, cause);
        Ok(())
    }
}

/// The key behind which a scheduled audit looks: the last one of a whole audit that left nothing open, is not old, and took
/// too long to be made each time. Rows that came since under lower keys are met by whole audits alone.
fn new_since(whole: &WholeAudit, every: &AuditEvery) -> Option<String> {
    let age = now().saturating_sub(whole.began?);
    let young = u64::try_from(age).unwrap_or_default() < WHOLE.as_secs();
    let between = match every {
        AuditEvery::Every(duration) => *duration,
        AuditEvery::Off | AuditEvery::DailyAt(_, _) => Duration::from_secs(86_400),
    };
    let dear = u128::from(whole.took_ms.saturating_mul(CHEAP)) > between.as_millis();
    whole.to.clone().filter(|_| whole.is_clean && whole.done_since.is_none() && young && dear)
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

/// When a section is to be audited next, in Unix time; `None`: never by itself.
fn due(every: &AuditEvery, last: Option<&LastAudit>) -> Option<i64> {
    let last = match (every, last) {
        (AuditEvery::Off, _) => return None,
        (AuditEvery::Every(_) | AuditEvery::DailyAt(_, _), None) => return Some(now()),
        (AuditEvery::Every(_) | AuditEvery::DailyAt(_, _), Some(last)) => last.at_seconds,
    };
    match every {
        AuditEvery::Off => None,
        AuditEvery::Every(duration) => Some(last.saturating_add(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX))),
        AuditEvery::DailyAt(time, zone) => {
            // The first of these times after the last audit.
            let last = jiff::Timestamp::from_second(last).ok()?.to_zoned(zone.clone());
            let of = |day: jiff::civil::Date| Some(day.to_datetime(*time).to_zoned(zone.clone()).ok()?.timestamp());
            let today = of(last.date()).filter(|due| *due > last.timestamp());
            today.or_else(|| of(last.date().tomorrow().ok()?)).map(jiff::Timestamp::as_second)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(at: i64) -> LastAudit {
        LastAudit { section: "s".into(), at_seconds: at, missing: 0 }
    }

    const HOURLY: AuditEvery = AuditEvery::Every(Duration::from_secs(3600));

    #[test]
    fn only_what_is_new_is_looked_at_where_the_last_whole_audit_left_nothing_open_and_took_long() {
        let ago = |seconds: i64| Some(now() - seconds);
        let whole = WholeAudit {
            section: "s".into(),
            began: ago(60),
            to: Some("9".into()),
            is_clean: true,
            took_ms: 36_001,
            done_since: None,
        };
        let since = |whole: WholeAudit| new_since(&whole, &HOURLY);
        assert_eq!(since(whole.clone()).as_deref(), Some("9"));
        assert_eq!(since(WholeAudit { took_ms: 36_000, ..whole.clone() }), None, "the whole is no work");
        assert_eq!(since(WholeAudit { began: ago(8 * 86_400), ..whole.clone() }), None, "it is old");
        assert_eq!(since(WholeAudit { is_clean: false, ..whole.clone() }), None, "rows are missing, or wait");
        assert_eq!(since(WholeAudit { done_since: Some("repair".into()), ..whole }), None, "a backfill ended since");
        assert_eq!(since(WholeAudit::default()), None, "there was none");
    }

    #[test]
    fn an_audit_is_due_by_its_age_and_never_where_it_is_off() {
        assert_eq!(due(&HOURLY, Some(&last(1_000))), Some(4_600));
        assert!(due(&HOURLY, None).is_some_and(|due| due <= now()));
        assert_eq!((due(&AuditEvery::Off, None), due(&AuditEvery::Off, Some(&last(1)))), (None, None));
        let nine = AuditEvery::DailyAt(jiff::civil::time(9, 0, 0, 0), jiff::tz::TimeZone::UTC);
        let day = 86_400;
        assert_eq!(due(&nine, Some(&last(day + 8 * 3600))), Some(day + 9 * 3600), "made by a person before it");
        assert_eq!(due(&nine, Some(&last(day + 9 * 3600))), Some(2 * day + 9 * 3600));
        assert_eq!(due(&nine, Some(&last(day + 23 * 3600))), Some(2 * day + 9 * 3600));
    }
}
