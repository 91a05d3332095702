//! Audits, as a person asks for them: one section or all, and the delivery of what is missing.
//!
//! * In: the sections, and the key to begin behind.
//! * Out: [`AuditReport`]s, kept in the state; on request the missing rows, by way of the quarantine.
//! * Never: a missing row sent without a person's word.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Config, Section};
use crate::model::{Fault, Phase};
use crate::operations::RetryAsked;
use crate::operations::resync::{ResyncFrom, plan_resync};
use crate::runtime::audit_report::AuditReport;
use crate::runtime::auditor::{self, AuditRequest};
use crate::state::Store;

/// Where an audit begins.
#[derive(Clone, Debug, Default)]
pub(crate) struct AuditFrom {
    /// Keys greater than this.
    pub key: Option<String>,
    /// Rows of this time and later, by the section's `date` or a key that is a time.
    pub time: Option<jiff::Timestamp>,
}

/// How long an audit of one section or of all waits in vain for rows that are on their way, at most.
pub(crate) const PATIENCE: Duration = auditor::SETTLING;

/// Audits a section, and keeps what was found. The patience is what is left of it for the sections that follow.
pub(crate) async fn audit(
    config: &Arc<Config>,
    store: &Store,
    section: &Section,
    from: &AuditFrom,
    (progress, patience): (&mut (dyn FnMut(u64, f64) + Send), &mut Duration),
) -> Result<AuditReport, Fault> {
    let from_key = match (from.key.clone(), from.time) {
        (None, Some(time)) => plan_resync(config, section, &ResyncFrom::Time(time)).await?.and_then(|plan| plan.from),
        (key, _) => key,
    };
    let request = AuditRequest { from_key, since_key: None, progress, gently: false, patience };
    let report = auditor::audit(config, store, section, request).await?;
    auditor::keep(store, &report, "asked").await?;
    Ok(report)
}

/// Puts the missing rows into quarantine and asks the running instance to send them from there, as a repair.
pub(crate) async fn deliver_missing(
    store: &Store,
    section: &Section,
    report: &AuditReport,
) -> Result<Vec<RetryAsked>, Fault> {
    let ids = store.quarantine_missing(&section.name, &report.missing_all).await.map_err(crate::operations::fate)?;
    let rows = store.quarantine_rows(&ids).await.map_err(crate::operations::fate)?;
    crate::operations::quarantine::ask(store, &rows, Phase::Repair).await
}
