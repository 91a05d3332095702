//! Teardown: removes the slot, the publication and the state schema.

use std::sync::Arc;

use crate::config::Config;
use crate::model::Fault;
use crate::postgres::catalog::{publication, quote, server, slot};
use crate::postgres::connection::session::{Session, connect_sql};
use crate::runtime::state_connector::StateConnector;
use crate::state::Store;

/// The objects to drop.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct TeardownPlan {
    /// The slot, if it is there.
    pub slot: Option<String>,
    /// The publication, if it is there.
    pub publication: Option<String>,
    /// The state schema, if it is there.
    pub state_schema: Option<String>,
    /// Rows in quarantine, which go with it.
    pub quarantined: u64,
}

impl TeardownPlan {
    /// Whether nothing is left to drop.
    pub(crate) fn is_empty(&self) -> bool {
        self.slot.is_none() && self.publication.is_none() && self.state_schema.is_none()
    }
}

/// A teardown whose plan is made.
pub(crate) struct Teardown {
    control: Session,
    store: Store,
    /// The objects to drop.
    pub plan: TeardownPlan,
}

impl Teardown {
    /// Finds out what there is to drop.
    ///
    /// # Errors
    /// Where an instance holds the slot, or the slot is another's.
    pub(crate) async fn look(config: &Arc<Config>) -> Result<Teardown, Fault> {
        let control = connect_sql(&config.source, "teardown").await?;
        let fault = |error: tokio_postgres::Error| control.fault(&error);
        let slot = slot::slot(&control, &config.source.slot).await.map_err(fault)?;
        if let Some(pid) = crate::operations::held_by(slot.as_ref()) {
            return Err(crate::operations::repair::plan::in_use(&config.source.slot, pid));
        }
        let server = server::server(&control).await.map_err(fault)?;
        if let Some(slot) = &slot {
            crate::operations::repair::plan::ours(&config.source.slot, slot, &server)?;
        }
        let publication = publication::publication(&control, &config.source.publication).await.map_err(fault)?;
        let store = StateConnector::new(Arc::clone(config)).store().await?;
        let there = store.schema_version().await.map_err(crate::operations::fate)?.is_some();
        let mut quarantined = 0;
        if there && store.is_there().await.map_err(crate::operations::fate)? {
            quarantined =
                store.quarantine_counts().await.map_err(crate::operations::fate)?.iter().map(|(_, rows)| rows).sum();
        }
        let plan = TeardownPlan {
            slot: slot.map(|_| config.source.slot.clone()),
            publication: publication.map(|_| config.source.publication.clone()),
            state_schema: there.then(|| config.state.schema.clone()),
            quarantined,
        };
        Ok(Teardown { control, store, plan })
    }

    /// Drops it all: the slot first, which holds WAL; the state last, which knows of the others.
    ///
    /// # Errors
    /// What could not be dropped; what came before it is gone, and the next try goes on from there.
    pub(crate) async fn run(mut self) -> Result<TeardownPlan, Fault> {
        let control = &self.control;
        if let Some(name) = &self.plan.slot {
            drop_slot(control, name).await?;
        }
        if let Some(name) = &self.plan.publication {
            let sql = format!("DROP PUBLICATION IF EXISTS {}", quote::ident(name));
            control.batch_execute(&sql).await.map_err(|error| {
                let fault = control.fault(&error);
                Fault::new(fault.exit, fault.what, format!("let the publication's owner run: {sql};"))
            })?;
        }
        if self.plan.state_schema.is_some() {
            self.store.drop_schema().await.map_err(crate::operations::fate)?;
        }
        Ok(self.plan)
    }
}

/// Drops a slot that nobody holds.
pub(crate) async fn drop_slot(control: &Session, name: &str) -> Result<(), Fault> {
    let sql = "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots
        WHERE slot_name = $1";
    control.execute(sql, &[&name]).await.map_err(|error| control.fault(&error))?;
    Ok(())
}
