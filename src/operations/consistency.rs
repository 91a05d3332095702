//! Whether what the state recorded still stands: the slot, the server, the publication, and each section's table in it.
//!
//! * In: the configuration.
//! * Out: what keeps an instance, or one of its sections, from going on, for `check`, `setup` and `repair`.
//! * Never: a change. Looked at while an instance runs, it is a moment's picture.

use std::sync::Arc;

use crate::config::Config;
use crate::model::{Fault, Finding, SectionName};
use crate::postgres::catalog::defects::{Defect, WatchedTable, defects};
use crate::postgres::catalog::{server, slot, table};
use crate::postgres::connection::session::{Session, connect_sql};
use crate::runtime::identity::{Found, compare, recorded_history};
use crate::runtime::server_address::moved;
use crate::runtime::start_error::NeedsPerson;
use crate::runtime::startup::{find, without_state};
use crate::runtime::startup_diff::other_database;
use crate::runtime::state_connector::StateConnector;
use crate::runtime::update_leftovers;
use crate::runtime::update_stream;
use crate::state::{SERVER_ADDRESS, SectionPhase, SectionRow};

/// Everything that differs from what was recorded.
#[derive(Debug, Default)]
pub(crate) struct Consistency {
    /// A state that needs a person.
    pub needs: Option<NeedsPerson>,
    /// Sections whose rows the server skips in silence, and why.
    pub drift: Vec<(SectionName, Defect)>,
    /// The sections' rows of the state.
    rows: Vec<SectionRow>,
    /// Rows in quarantine.
    quarantined: Vec<(SectionName, u64)>,
    /// The server is elsewhere than when an instance last ran.
    moved: Option<Fault>,
    /// What was settled of compared results was read from another database.
    other_database: Option<Fault>,
    /// The publication of updates carries tables for nobody.
    leftovers: Option<Fault>,
}

/// Compares; finds nothing where no instance has run yet.
pub(crate) async fn standing(config: &Arc<Config>) -> Result<Consistency, Fault> {
    let store = StateConnector::new(Arc::clone(config)).store().await?;
    if !store.is_there().await.map_err(crate::operations::fate)? {
        return Ok(Consistency::default());
    }
    if !config.streams() {
        let rows = store.sections().await.map_err(crate::operations::fate)?;
        let quarantined = store.quarantine_counts().await.map_err(crate::operations::fate)?;
        let recorded = store.instance().await.map_err(crate::operations::fate)?;
        let session = connect_sql(&config.source, "look").await?;
        let server = server::server(&session).await.map_err(|error| session.fault(&error))?;
        let other_database = recorded.and_then(|instance| other_database(&instance.identity, &server));
        return Ok(Consistency { rows, quarantined, other_database, ..Consistency::default() });
    }
    let control = connect_sql(&config.source, "look").await?;
    let fault = |error: tokio_postgres::Error| control.fault(&error);
    let server = server::server(&control).await.map_err(fault)?;
    let before = store.noted_address(SERVER_ADDRESS).await.map_err(crate::operations::fate)?;
    let moved = moved(before.as_deref(), server.address.as_deref());
    let found = if server.in_recovery { None } else { find(config, &control, server).await.ok() };
    let (Some(instance), Some(found)) = (store.instance().await.map_err(crate::operations::fate)?, found) else {
        return Ok(Consistency::default());
    };
    let rows = store.sections().await.map_err(crate::operations::fate)?;
    // A running instance moves what would be compared, and watches it itself. One of another database does not.
    let slot = found.slot.as_ref().filter(|slot| slot.ours(&config.source.slot, &found.server.database.1).is_ok());
    let held = crate::operations::held_by(slot).is_some();
    let compared = || compare(&instance.recorded(), &found.observed(config)).err();
    let needs = if held { None } else { compared().or_else(|| recorded_history(&instance)) };
    let mut drift = Vec::new();
    if needs.is_none() {
        drift = drifted(config, &control, &found, &rows).await.map_err(fault)?;
    }
    let quarantined = store.quarantine_counts().await.map_err(crate::operations::fate)?;
    // Where no section sends any, `check` says so of the publication as a whole.
    let leftovers = match config.sends_updates() {
        true => update_leftovers::said(config, &control, &rows).await.map_err(fault)?,
        false => None,
    };
    Ok(Consistency { needs, drift, rows, quarantined, moved, other_database: None, leftovers })
}

/// The fault that keeps an instance from starting: the slot is there, and the state is not.
pub(crate) async fn slot_without_state(config: &Arc<Config>) -> Result<Option<Fault>, Fault> {
    if !config.streams() {
        return Ok(None);
    }
    let store = StateConnector::new(Arc::clone(config)).store().await?;
    if store.schema_version().await.map_err(crate::operations::fate)?.is_some() {
        return Ok(None);
    }
    let session = connect_sql(&config.source, "look").await?;
    let server = server::server(&session).await.map_err(|error| session.fault(&error))?;
    let slot = slot::slot(&session, &config.source.slot).await.map_err(|error| session.fault(&error))?;
    // One that decodes another database is told of by itself.
    Ok(slot.filter(|slot| slot.database.as_ref() == Some(&server.database.1)).map(|_| without_state(config)))
}

/// Sections that were attached, and whose table the publication does not carry whole any more.
pub(crate) async fn drifted(
    config: &Config,
    control: &Session,
    found: &Found,
    rows: &[SectionRow],
) -> Result<Vec<(SectionName, Defect)>, tokio_postgres::Error> {
    let Some(publication) = &found.publication else { return Ok(Vec::new()) };
    let mut drift = Vec::new();
    for section in config.sections.iter().filter(|section| section.is_on() && section.is_streamed()) {
        let attached = |row: &&SectionRow| row.name == section.name && row.phase != SectionPhase::Waiting;
        let configured = section.table.to_string();
        let Some(row) = rows.iter().find(attached).filter(|row| row.attachment.table_name == configured) else {
            continue;
        };
        let oid = row.attachment.table_oid;
        let now = table::by_name(control, &section.table).await?.map(|table| table.oid);
        // Of a table that was dropped, its own section speaks.
        if now.is_none() && table::by_oid(control, oid).await?.is_none() {
            continue;
        }
        let (inserts, updates) = update_stream::entries(row.publication_entry.as_deref());
        let watched = WatchedTable { name: &section.table, oid, now, entry: inserts };
        let mut found_here = defects(publication, &watched);
        // A section that sends no updates yet has no entry there.
        if let Some(beside) = found.updates.as_ref().filter(|_| section.sends_updates() && updates.is_some()) {
            found_here.extend(defects(beside, &WatchedTable { entry: updates, ..watched }));
        }
        drift.extend(found_here.into_iter().map(|defect| (section.name.clone(), defect)));
    }
    Ok(drift)
}

impl Consistency {
    /// Why nothing may be made: it would hide a gap.
    pub(crate) fn hindrance(&self) -> Option<Fault> {
        if let Some(needs) = &self.needs {
            return Some(needs.fault.clone());
        }
        let (section, defect) = self.drift.first()?;
        let what = format!("section {section}: {defect}; rows written since are skipped in silence");
        Some(Fault::needs_person(what, defect.remedy()))
    }

    /// What `check` says of it.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Some(needs) = &self.needs {
            findings.push(Finding::of(needs.fault.clone(), needs.reason.as_str(), "instance"));
        }
        if let Some(Fault { what, remedy, .. }) = &self.moved {
            findings.push(Finding::warning("server_address", "server", what, remedy));
        }
        if let Some(Fault { what, remedy, .. }) = &self.other_database {
            findings.push(Finding::warning("other_database", "instance", what, remedy));
        }
        if let Some(Fault { what, remedy, .. }) = &self.leftovers {
            findings.push(Finding::warning("publication_unused", "publications", what, remedy));
        }
        let subject = |name: &SectionName| format!("section {name}");
        for (name, defect) in &self.drift {
            let message = format!("{defect}; rows written since are skipped in silence");
            findings.push(Finding::error("publication_drift", subject(name), message, defect.remedy()));
        }
        for row in &self.rows {
            if let Some((reason, remedy)) = &row.halted
                && !self.drift.iter().any(|(name, _)| *name == row.name)
            {
                let message = format!("it is halted: {reason}");
                findings.push(Finding::error("section_halted", subject(&row.name), message, remedy));
            }
            if row.paused {
                let remedy = format!("pg2planhat resume {}", row.name);
                let message = "it is paused: nothing of it is sent, and the slot keeps WAL for it";
                findings.push(Finding::warning("section_paused", subject(&row.name), message, remedy));
            }
        }
        for (name, rows) in self.quarantined.iter().filter(|(_, rows)| *rows > 0) {
            findings.push(Finding::warning(
                "quarantine",
                subject(name),
                match rows {
                    1 => "1 row is quarantined (not delivered)".to_owned(),
                    rows => format!("{rows} rows are quarantined (not delivered)"),
                },
                format!("pg2planhat quarantine list --section {name}"),
            ));
        }
        findings
    }
}
