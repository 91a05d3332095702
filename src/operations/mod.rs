//! The operator's hands, as functions: what commands (and a console to come) ask and do, beside a running instance or
//! without one.
//!
//! * In: the configuration.
//! * Out: the present state, plans, results; and events for the running instance.
//! * Never: a destructive step that its plan did not name; a slot taken from an instance that holds it.

pub(crate) mod audit;
pub(crate) mod check;
pub(crate) mod consistency;
pub(crate) mod draft_preview;
pub(crate) mod plan;
pub(crate) mod preview;
pub(crate) mod quarantine;
pub(crate) mod removed_gaps;
pub(crate) mod repair;
pub(crate) mod resync;
pub(crate) mod set_up;
pub(crate) mod status;
pub(crate) mod teardown;
pub(crate) mod times;
pub(crate) mod trace;

pub(crate) use crate::operations::audit::{AuditFrom, audit, deliver_missing};
pub(crate) use crate::operations::check::check;
pub(crate) use crate::operations::preview::{Becomes, Previewed, preview};
pub(crate) use crate::operations::quarantine::{RetryAsked, chosen, drop_rows, retry};
pub(crate) use crate::operations::removed_gaps::RemovedGaps;
pub(crate) use crate::operations::repair::Repair;
pub(crate) use crate::operations::repair::plan::{Mend, RepairPlan, SectionPlan};
pub(crate) use crate::operations::repair::repair_ways::{RepairWay, repair_ways};
pub(crate) use crate::operations::resync::{ResyncFrom, ResyncPlan, ask_resync, plan_resync};
pub(crate) use crate::operations::status::status;
pub(crate) use crate::operations::teardown::{Teardown, TeardownPlan};
pub(crate) use crate::operations::trace::trace;

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::model::{Fault, SectionName};
use crate::postgres::catalog::slot::Slot;
use crate::postgres::catalog::{server, slot};
use crate::postgres::connection::session::{Session, connect_sql};
use crate::runtime::event_loop::{PROBE, RESUME};
use crate::runtime::solo_lock;
use crate::runtime::state_connector::StateConnector;
use crate::state::{NewEvent, SectionRow, StateError, Store};

/// The state, which must be there.
pub(crate) async fn store(config: &Arc<Config>) -> Result<Store, Fault> {
    let store = StateConnector::new(Arc::clone(config)).store().await?;
    if store.is_there().await.map_err(fate)? {
        return Ok(store);
    }
    let what = match store.schema_version().await.map_err(fate)? {
        None => format!("there is no state schema {}: nothing has run here yet", config.state.schema),
        Some(held) => format!("the state schema {} is of the older version {held}", config.state.schema),
    };
    Err(Fault::usage(what, "start `pg2planhat run`, which makes or renews it"))
}

fn fate(error: StateError) -> Fault {
    error.fault()
}

tokio::task_local! {
    /// In whose name this task gives orders, where that is not who started the process.
    static IN_THE_NAME_OF: String;
}

/// Does something in somebody's name, by which it is recorded.
pub(crate) async fn in_the_name_of<T>(actor: String, doing: impl Future<Output = T>) -> T {
    IN_THE_NAME_OF.scope(actor, doing).await
}

/// The name of the person who gives the order, as far as it is known.
fn actor() -> String {
    if let Ok(name) = IN_THE_NAME_OF.try_with(Clone::clone) {
        return name;
    }
    let name =
        ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    name.unwrap_or_else(|| "unknown".to_owned())
}

fn event(action: &str, section: Option<&SectionName>, args: serde_json::Value) -> NewEvent {
    NewEvent { actor: actor(), action: action.to_owned(), section: section.cloned(), args }
}

/// Pauses or resumes a section; `false` where there is none of this name. A running instance obeys within 5 s.
pub(crate) async fn pause(store: &Store, section: &SectionName, paused: bool) -> Result<bool, Fault> {
    let known = store.set_paused(section, paused).await.map_err(fate)?;
    let is_halted = |row: &SectionRow| row.name == *section && row.halted.is_some();
    // A halted one may keep rows back that the mapping refuses: the instance that halted it knows.
    if known && !paused && store.sections().await.map_err(fate)?.iter().any(is_halted) {
        store.append_event(&event(RESUME, Some(section), serde_json::json!({}))).await.map_err(fate)?;
    } else if known {
        let word = if paused { "pause" } else { RESUME };
        let done = event(word, Some(section), serde_json::json!({}));
        store.record_event(&done, "done").await.map_err(fate)?;
    }
    Ok(known)
}

/// Records something that was done beside the running instance.
pub(crate) async fn record(
    store: &Store,
    action: &str,
    section: &str,
    args: serde_json::Value,
    result: &str,
) -> Result<(), Fault> {
    let section = Some(SectionName::from(section)).filter(|name| !name.as_str().is_empty());
    let done = event(action, section.as_ref(), args);
    store.record_event(&done, result).await.map_err(fate).map(drop)
}

/// Asks the running instance to try a section now that it would try later; the event's id.
pub(crate) async fn probe(store: &Store, section: &SectionName) -> Result<i64, Fault> {
    store.append_event(&event(PROBE, Some(section), serde_json::json!({}))).await.map_err(fate)
}

/// The walsender that holds the slot, or the backend that holds the lock where nothing is streamed: whether an instance runs,
/// anywhere. `None` too where the server cannot be asked.
pub(crate) async fn holder(config: &Config) -> Option<i32> {
    if !config.streams() {
        return lock_holder(config).await;
    }
    let session = connect_sql(&config.source, "look").await.ok()?;
    let database = server::server(&session).await.ok()?.database.1;
    let slot = slot::slot(&session, &config.source.slot).await.ok()?;
    // Another database's instance is not this one.
    held_by(slot.filter(|slot| slot.ours(&config.source.slot, &database).is_ok()).as_ref())
}

/// The backend that holds the lock of an instance that streams nothing.
async fn lock_holder(config: &Config) -> Option<i32> {
    let session = StateConnector::new(Arc::new(config.clone())).session().await.ok()?;
    Some(solo_lock::holder(&session, &config.state.schema).await.ok()??.0)
}

fn held_by(slot: Option<&Slot>) -> Option<i32> {
    slot.filter(|slot| slot.active).map(|slot| slot.active_pid.unwrap_or_default())
}

/// The result of an event, once an instance has handled it; `None` where none did in this time.
pub(crate) async fn result_of(store: &Store, event: i64, limit: Duration) -> Result<Option<String>, Fault> {
    let looked = async {
        loop {
            let found = store.event(event).await.map_err(fate)?;
            if let Some(result) = found.and_then(|event| event.result) {
                return Ok(result);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(limit, looked).await.ok().transpose()
}

/// A session that reads for a person: within bounds, and changes nothing.
async fn reading(config: &Config, purpose: &str) -> Result<Session, Fault> {
    let session = connect_sql(&config.source, purpose).await?;
    let bounds = "SET row_security = off; SET default_transaction_read_only = on; SET statement_timeout = '30s'; \
                  SET lock_timeout = '5s'";
    session.batch_execute(bounds).await.map_err(|error| session.fault(&error))?;
    Ok(session)
}
