//! Which versions of a row a section sends: what `on` means for it, and whether its table's updates may be published.
//!
//! * In: a section whose key is known, and its table.
//! * Out: findings; `run` refuses a section for the errors among them.
//! * Never: a judgement where `on` is written out and its table can be published.

use tokio_postgres::Error;

use crate::config::{Config, Kind, Section};
use crate::model::Finding;
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::catalog::{quote, replica_identity, table};
use crate::postgres::connection::session::Session;
use crate::postgres::preflight::key_findings::subject;

/// What `on` leaves out, or makes of a row.
pub(crate) async fn examine(
    session: &Session,
    section: &Section,
    info: &TableInfo,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    if section.sends_updates() {
        findings.extend(counted_again(section));
        return Ok(());
    }
    let updates = table::updates(session, info.oid).await?;
    if section.on.is_none() && updates > 0 {
        let table = quote::qualified(&info.name);
        let message = format!(
            "rows of {table} are updated ({updates} times since its statistics began), and a row is sent as it was inserted only"
        );
        let remedy = "write `on: insert_and_update` to send each version, or `on: insert` if that is meant";
        findings.push(Finding::warning("updates_not_sent", subject(section), message, remedy));
    }
    Ok(())
}

/// Whether the table's updates may be published.
pub(crate) async fn identity(
    session: &Session,
    config: &Config,
    (section, info): (&Section, &TableInfo),
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    if !section.sends_updates() || !matches!(info.kind, 'r' | 'p') {
        return Ok(());
    }
    if let Some((what, remedy)) = replica_identity::missing(session, config, info).await? {
        findings.push(Finding::error("replica_identity", subject(section), what, remedy));
    } else if let Some((columns, remedy)) = replica_identity::left_out(session, info, &section.key).await? {
        let message = format!(
            "the replica identity of {} does not have the key's {columns}: an update of a row where that is stored out of line \
             (above some 2,000 bytes) does not bring it, and such a version goes into quarantine",
            quote::qualified(&info.name)
        );
        findings.push(Finding::info("key_not_in_identity", subject(section), message, remedy));
    }
    Ok(())
}

/// What each version of a row means in Planhat.
fn counted_again(section: &Section) -> Option<Finding> {
    match section.kind {
        Kind::UserActivity => Some(Finding::warning(
            "updates_are_activities",
            subject(section),
            "each update of a row becomes one more activity, which Planhat counts beside the first",
            "send only what is new by `on: insert`; or leave the updates out that are no event, by `where`",
        )),
        Kind::CustomMetric(_) => Some(Finding::info(
            "updates_are_values",
            subject(section),
            "each version of a row becomes one more value of the metric: right for a metric that shows the last value",
            "a metric that sums its values (SUM) counts every version: send `on: insert` there",
        )),
    }
}
