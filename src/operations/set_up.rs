//! The set-up of the source: state schema, publication and slot, in this order; or one script for a DBA.
//!
//! * In: a configuration.
//! * Out: the steps, each with what was run; the script.
//! * Never: anything made where the state knows of a slot or a publication that is not what it was: that would hide a gap,
//!   which `repair` closes.

use std::sync::Arc;

use serde::Serialize;

use crate::config::Config;
use crate::model::Fault;
use crate::operations::consistency::standing;
use crate::postgres::catalog::{partition_roots, table};
use crate::postgres::connection::session::{Session, connect_sql};
use crate::postgres::setup;
use crate::postgres::setup::dba_script;
use crate::runtime::{StateConnector, first_slot};
use crate::sql;
use crate::state;
use crate::state::{Schema, Store};

/// One step.
#[derive(Debug, Serialize)]
pub(crate) struct SetupStep {
    /// `publication`, `slot`, `state`.
    pub what: &'static str,
    pub name: String,
    /// Whether it was made or changed now; otherwise it was there.
    pub made: bool,
    /// `from 0/16B3748 on`, `version 2`.
    pub detail: String,
    /// What was run for it.
    pub sql: Vec<String>,
}

/// One script that a DBA can read and run.
///
/// # Errors
/// Where the state schema's name is none.
pub(crate) async fn set_up_script(config: &Config) -> Result<String, Fault> {
    let schema = Schema::new(&config.state.schema)?;
    let state = dba_script::StateScript { apart: config.state.url.is_some(), ddl: &|role| state::ddl(&schema, role) };
    Ok(dba_script::dba(config, &state).await)
}

/// Makes what is missing: what can fail first, and the slot last, for from there on the server keeps WAL. Where a step
/// fails, what this run made is undone.
pub(crate) async fn set_up(config: &Arc<Config>) -> Result<Vec<SetupStep>, Fault> {
    if let Some(fault) = standing(config).await?.hindrance() {
        return Err(fault);
    }
    let session = connect_sql(&config.source, "setup").await?;
    for section in config.sections.iter().filter(|section| section.is_on() && section.is_streamed()) {
        let at = |error: tokio_postgres::Error| session.fault(&error);
        let Some(info) = table::by_name(&session, &section.table).await.map_err(at)? else { continue };
        let beside = partition_roots::root_is_mapped(&session, config, section, info.oid).await.map_err(at)?;
        if let Some((what, remedy)) = beside {
            return Err(Fault::usage(format!("section {}: {what}", section.name), remedy));
        }
    }
    let mut store = StateConnector::new(Arc::clone(config)).store().await?;
    let at = |error: state::StateError| error.fault();
    let before = store.schema_version().await.map_err(at)?;
    let there = store.is_there().await.map_err(at)?;
    if !there && !config.source.manage {
        // It makes nothing, and says what else is missing.
        if config.streams() {
            make_publications(&session, config, &mut Vec::new()).await?;
            setup::ensure_slot(&session, config, &TOLD).await?;
        }
        return Err(Fault::needs_person(
            format!("there is no state schema {}, and `source.manage` is false", config.state.schema),
            "let a DBA run the script of `pg2planhat setup --print-sql`",
        ));
    }
    if !there {
        store.migrate().await.map_err(at)?;
    }
    let mut steps = vec![SetupStep {
        what: "state schema",
        name: config.state.schema.clone(),
        made: !there,
        detail: format!("version {}", state::version()),
        sql: Vec::new(),
    }];
    if !config.streams() {
        return Ok(steps);
    }
    let Err(fault) = make_on_the_source(&session, config, &store, &mut steps).await else { return Ok(steps) };
    let mut left = Vec::new();
    for sql in steps.iter().flat_map(|step| &step.sql).map(|sql| setup::undo_publication(config, sql)) {
        if session.batch_execute(&sql).await.is_err() {
            left.push(format!("{sql};"));
        }
    }
    // Whoever has made the slot meanwhile (`run`, started at the same time) uses the schema, too.
    let slot = "SELECT 1 FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
    let slot = sql::query_opt(&session, slot, &[&config.source.slot]).await;
    let is_ours = before.is_none() && slot.is_ok_and(|slot| slot.is_none());
    if is_ours && store.drop_schema().await.is_err() {
        left.push(state::drop_script(&Schema::new(&config.state.schema)?));
    }
    if before.is_some() && steps.iter().all(|step| step.sql.is_empty()) {
        return Err(fault);
    }
    if left.is_empty() {
        return Err(Fault::new(fault.exit, format!("{}; what this run made is undone", fault.what), fault.remedy));
    }
    let remedy = format!("{}; and undo what this run made: {}", fault.remedy, left.join(" "));
    Err(Fault::new(fault.exit, fault.what, remedy))
}

/// For whom it waits, the log says, on stderr.
const TOLD: fn(Option<&Fault>) = |_| ();

async fn make_publications(session: &Session, config: &Config, steps: &mut Vec<SetupStep>) -> Result<(), Fault> {
    let altered = setup::ensure_publication(session, config, &[], &TOLD).await?;
    steps.push(SetupStep {
        what: "publication",
        name: config.source.publication.clone(),
        made: !altered.is_empty(),
        detail: String::new(),
        sql: altered,
    });
    if config.sends_updates() {
        let altered = setup::ensure_update_publication(session, config, &[], &TOLD).await?;
        steps.push(SetupStep {
            what: "publication of updates",
            name: config.source.update_publication(),
            made: !altered.is_empty(),
            detail: String::new(),
            sql: altered,
        });
    }
    Ok(())
}

async fn make_on_the_source(
    session: &Session,
    config: &Config,
    store: &Store,
    steps: &mut Vec<SetupStep>,
) -> Result<(), Fault> {
    make_publications(session, config, steps).await?;
    let lsn = first_slot::make(session, config, store, &TOLD).await?;
    steps.push(SetupStep {
        what: "slot",
        name: config.source.slot.clone(),
        made: lsn.is_some(),
        detail: lsn.map(|lsn| format!("from {lsn} on")).unwrap_or_default(),
        sql: Vec::new(),
    });
    Ok(())
}
