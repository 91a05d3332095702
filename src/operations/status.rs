//! The status from outside: of the instance that runs here, by its admin port; else of what the state and the server say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::admin_request;
use crate::config::Config;
use crate::model::{Fault, Lsn};
use crate::postgres::catalog::server::Server;
use crate::postgres::catalog::slot::Slot;
use crate::postgres::catalog::{server, slot};
use crate::postgres::connection::session::{Session, connect_sql};
use crate::runtime::diff_schedule::DiffSchedule;
use crate::runtime::identity::{compare, recorded_history};
use crate::runtime::section_report;
use crate::runtime::section_report::{comparisons, removed};
use crate::runtime::startup::find;
use crate::runtime::state_connector::StateConnector;
use crate::sql;
use crate::state::{Gap, Instance, SectionPhase, SectionRow};
use crate::telemetry::status_document::{Backfill, InstanceState, Reason, SectionState, SectionStatus, Status};

/// How long the admin port may take.
const ADMIN: Duration = Duration::from_secs(1);

/// How long the server may take to say which one it is.
const IDENTIFY: Duration = Duration::from_secs(2);

/// The status: the running instance's own where its admin port answers, otherwise as the state and the server have it.
pub(crate) async fn status(config: &Arc<Config>) -> Result<Status, Fault> {
    let asked = tokio::time::timeout(ADMIN, ask(config)).await.ok().flatten();
    match asked {
        Some(status) if is_own(config, &status).await => Ok(status),
        Some(_) | None => look(config).await,
    }
}

/// A standby knows nothing of what the leader does; another instance may listen where this one would, and most have the names
/// that come of themselves.
async fn is_own(config: &Config, status: &Status) -> bool {
    status.instance.slot == config.source.slot
        && status.instance.publication == config.source.publication
        && status.state != InstanceState::Standby
        && same_database(config, status).await
}

/// Whether the instance that answers runs at the database that the configuration names: a copy beside it has the same names.
/// Where the server does not say it, the names must do.
async fn same_database(config: &Config, status: &Status) -> bool {
    let Some(theirs) = &status.instance.system_identifier else { return true };
    let ours = async {
        let session = connect_sql(&config.source, "status").await.ok()?;
        let asked =
            "SELECT system_identifier::text, pg_catalog.current_database()::text FROM pg_catalog.pg_control_system()";
        let row = sql::query_one(&session, asked, &[]).await.ok()?;
        Some((row.try_get::<_, String>(0).ok()?, row.try_get::<_, String>(1).ok()?))
    };
    let Some((server, database)) = tokio::time::timeout(IDENTIFY, ours).await.ok().flatten() else { return true };
    // An instance of an older version does not name its database.
    server == *theirs && status.instance.database.as_ref().is_none_or(|theirs| *theirs == database)
}

async fn ask(config: &Config) -> Option<Status> {
    let mut addresses = tokio::net::lookup_host(&config.admin.listen).await.ok()?;
    let address = reachable(addresses.next()?);
    let body = admin_request::get(address, "/status").await?;
    serde_json::from_slice(&body).ok()
}

/// Where a listener on all addresses answers.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let loopback = match listening {
        SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    if listening.ip().is_unspecified() { SocketAddr::new(loopback, listening.port()) } else { listening }
}

/// From the state and the server.
async fn look(config: &Arc<Config>) -> Result<Status, Fault> {
    let mut status = Status::starting(&*config.source.slot, &*config.source.publication);
    status.sections = config.sections.iter().map(section_report::unknown).collect();
    let control = connect_sql(&config.source, "status").await?;
    let fault = |error: tokio_postgres::Error| control.fault(&error);
    let server = server::server(&control).await.map_err(fault)?;
    // One that decodes another database has another one's figures, and another one's instance.
    let slot = slot::slot(&control, &config.source.slot).await.map_err(fault)?;
    let slot = slot.filter(|slot| slot.ours(&config.source.slot, &server.database.1).is_ok());
    if !server.in_recovery {
        show_slot(&control, slot.as_ref(), &mut status).await.map_err(fault)?;
    }
    let store = StateConnector::new(Arc::clone(config)).store().await?;
    let instance = match store.is_there().await.map_err(crate::operations::fate)? {
        true => store.instance().await.map_err(crate::operations::fate)?,
        false => None,
    };
    let Some(instance) = instance else {
        let fault = Fault::usage("nothing has run here yet", "pg2planhat check, then pg2planhat run");
        stalled(&mut status, &fault);
        return Ok(status);
    };
    let rows = store.sections().await.map_err(crate::operations::fate)?;
    let runs = store.diff_runs().await.map_err(crate::operations::fate)?;
    let gaps = store.gaps(true).await.map_err(crate::operations::fate)?;
    let is_named = |name: &str| config.sections.iter().any(|section| section.name.as_str() == name);
    status.removed = removed(gaps.iter().map(|gap| gap.section.as_deref()), is_named);
    let quarantined = store.quarantine_counts().await.map_err(crate::operations::fate)?;
    for (section, shown) in config.sections.iter().zip(&mut status.sections) {
        if let Some(row) = rows.iter().find(|row| row.name == section.name) {
            show_section(row, shown);
            let of_all = |gap: &&Gap| gap.section.as_deref().is_none_or(|name| name == section.name.as_str());
            shown.open_gaps = Some(gaps.iter().filter(of_all).count() as u64);
            let kept = quarantined.iter().find(|(name, _)| *name == section.name);
            shown.quarantined_now = Some(kept.map_or(0, |(_, rows)| *rows));
            let last = runs.iter().find(|(name, _)| *name == section.name).map(|(_, run)| run.clone());
            shown.diff = section
                .diff()
                .map(|diff| comparisons(&DiffSchedule::new(diff.every.clone(), last, jiff::Timestamp::now())));
        }
    }
    status.instance.system_identifier = Some(instance.identity.system_identifier.clone());
    status.instance.timeline = u32::try_from(instance.identity.timeline).ok();
    status.instance.database = Some(instance.identity.database.clone());
    status.instance.epoch = Some(instance.epoch);
    judge(config, &control, server, slot.as_ref(), &instance, &mut status).await;
    Ok(status)
}

/// What the instance does, or why there is none.
async fn judge(
    config: &Config,
    control: &Session,
    server: Server,
    slot: Option<&Slot>,
    instance: &Instance,
    status: &mut Status,
) {
    if !config.streams() && instance.identity.slot.is_empty() {
        return judge_solo(config, instance, status).await;
    }
    if let Some(pid) = crate::operations::held_by(slot) {
        let leader = instance.leader.as_deref().unwrap_or("unknown");
        status.state = InstanceState::Running;
        status.ready = true;
        believe(status);
        status.message = Some(format!(
            "an instance ({leader}) holds the slot (walsender {pid}), and does not answer at {}: this is what the state \
             and the server say",
            config.admin.listen
        ));
        return;
    }
    if server.in_recovery {
        let what = "this server is a standby: an instance cannot run here";
        return stalled(status, &Fault::unavailable(what, "point `source` at the primary"));
    }
    // Without a free walsender nothing can be compared; what was recorded must do.
    let compared = match find(config, control, server).await {
        Ok(found) => {
            let needs = compare(&instance.recorded(), &found.observed(config)).err();
            needs.or_else(|| recorded_history(instance))
        }
        Err(_) => None,
    };
    let recorded =
        instance.reason.as_deref().and_then(|word| Reason::ALL.iter().find(|reason| reason.as_str() == word));
    if let Some(needs) = compared {
        stalled(status, &needs.fault);
        (status.state, status.reason) = (InstanceState::NeedsPerson, Some(needs.reason));
    } else if let Some(reason @ (Reason::Wedged | Reason::StateUnwritable)) = recorded {
        // What the server does not show when it is only looked at.
        let remedy = instance.remedy.clone().unwrap_or_default();
        stalled(status, &Fault::needs_person(format!("the last instance stopped: {reason}"), remedy));
        (status.state, status.reason) = (InstanceState::NeedsPerson, Some(*reason));
    } else {
        let what = "no instance runs: nothing is delivered, and the slot keeps WAL";
        stalled(status, &Fault::unavailable(what, "pg2planhat run"));
    }
}

/// The same, where nothing is streamed.
async fn judge_solo(config: &Config, instance: &Instance, status: &mut Status) {
    let Some(pid) = crate::operations::holder(config).await else {
        let what = "no instance runs: nothing is compared or delivered";
        return stalled(status, &Fault::unavailable(what, "pg2planhat run"));
    };
    let leader = instance.leader.as_deref().unwrap_or("unknown");
    (status.state, status.ready) = (InstanceState::Running, true);
    believe(status);
    status.message = Some(format!(
        "an instance ({leader}) runs (backend {pid}), and does not answer at {}: this is what the state says",
        config.admin.listen
    ));
}

/// An instance runs, and does not answer here: its sections count as flowing where the state does not say otherwise.
fn believe(status: &mut Status) {
    for section in &mut status.sections {
        section.flows =
            matches!(section.state, SectionState::Streaming | SectionState::Backfilling | SectionState::Comparing);
    }
}

fn stalled(status: &mut Status, fault: &Fault) {
    status.state = InstanceState::Stalled;
    status.message = Some(fault.what.clone());
    status.remedy = Some(fault.remedy.clone());
}

async fn show_slot(control: &Session, slot: Option<&Slot>, status: &mut Status) -> Result<(), tokio_postgres::Error> {
    let row = sql::query_one(control, "SELECT pg_catalog.pg_current_wal_flush_lsn()::text", &[]).await?;
    let end: Lsn = row.get::<_, String>(0).parse().unwrap_or_default();
    let Some(slot) = slot else { return Ok(()) };
    let behind = |lsn: Option<Lsn>| lsn.map(|lsn| end.bytes_since(lsn));
    status.slot.confirmed_flush_lsn = slot.confirmed_flush_lsn.clone();
    status.slot.confirmed_lag_bytes = behind(slot.confirmed());
    status.slot.retained_bytes = behind(slot.restart_lsn.as_ref().and_then(|lsn| lsn.parse().ok()));
    status.slot.safe_wal_bytes = slot.safe_wal_size;
    Ok(())
}

fn show_section(row: &SectionRow, shown: &mut SectionStatus) {
    shown.rows_delivered = row.totals.delivered;
    shown.rows_quarantined = row.totals.quarantined;
    shown.rows_in_doubt = row.totals.in_doubt;
    shown.rows_resent = row.totals.resent;
    shown.last_delivered_at.clone_from(&row.last_delivered_at);
    if shown.state == SectionState::Off {
        return;
    }
    shown.state = match &row.phase {
        SectionPhase::Waiting => SectionState::Waiting,
        SectionPhase::Backfilling(_) | SectionPhase::Resyncing(_) => SectionState::Backfilling,
        SectionPhase::Streaming => SectionState::Streaming,
        SectionPhase::Comparing => SectionState::Comparing,
    };
    if row.backfill_started_at.is_some() {
        let ended = row.phase.progress().is_none();
        let estimated = row.phase.progress().is_none_or(|progress| progress.ceiling.is_some());
        shown.backfill = Some(Backfill {
            rows: row.backfill_rows,
            estimated: estimated.then_some(row.backfill_estimated),
            eta_seconds: ended.then_some(0.0),
        });
    }
    if let Some((reason, remedy)) = &row.halted {
        shown.state = SectionState::Halted;
        (shown.reason, shown.remedy) = (Some(reason.clone()), Some(remedy.clone()));
    }
    if row.paused {
        shown.state = SectionState::Paused;
        shown.reason.get_or_insert_with(|| "paused by an operator; the slot keeps WAL for it".to_owned());
        shown.remedy.get_or_insert_with(|| format!("pg2planhat resume {}", row.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_asked_at_loopback() {
        for (listening, asked) in
            [("0.0.0.0:9187", "127.0.0.1:9187"), ("[::]:1", "[::1]:1"), ("10.0.0.1:2", "10.0.0.1:2")]
        {
            assert_eq!(reachable(listening.parse().unwrap()).to_string(), asked);
        }
    }
}
