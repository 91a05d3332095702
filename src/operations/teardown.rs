//! Teardown: removes the slot, the publication and the state schema.

use std::sync::Arc;

use crate::config::Config;
use crate::model::Fault;
use crate::postgres::catalog::publication::{Publication, PublishedTable};
use crate::postgres::catalog::{publication, quote, server, slot};
use crate::postgres::connection::session::{Session, connect_sql};
use crate::runtime::state_connector::StateConnector;
use crate::sql;
use crate::state::{Schema, Store, drop_script};

/// The objects to drop.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct TeardownPlan {
    /// The slot, if it is there.
    pub slot: Option<String>,
    /// The slot that the state belongs to, if it is there and the file names another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded_slot: Option<String>,
    /// The publication, if it is there.
    pub publication: Option<String>,
    /// The publication of updates, if it is there.
    pub update_publication: Option<String>,
    /// The state schema, if it is there.
    pub state_schema: Option<String>,
    /// Rows in quarantine, which go with it.
    pub quarantined: u64,
    /// Publications that stay, for others use them; each with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<String>,
}

impl TeardownPlan {
    /// Whether nothing is left to drop.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots().next().is_none() && self.publications().next().is_none() && self.state_schema.is_none()
    }

    /// The slots that are there.
    pub(crate) fn slots(&self) -> impl Iterator<Item = &String> {
        self.slot.iter().chain(&self.recorded_slot)
    }

    /// The publications that are there.
    pub(crate) fn publications(&self) -> impl Iterator<Item = &String> {
        self.publication.iter().chain(&self.update_publication)
    }
}

/// A teardown whose plan is made.
pub(crate) struct Teardown {
    control: Session,
    store: Store,
    /// The state is in another database.
    apart: bool,
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
        let server = server::server(&control).await.map_err(fault)?;
        if let Some(slot) = &slot {
            slot.ours(&config.source.slot, &server.database.1)?;
        }
        if let Some(pid) = crate::operations::held_by(slot.as_ref()) {
            return Err(crate::operations::repair::plan::in_use(&config.source.slot, pid));
        }
        if let Some(pid) = crate::operations::holder(config).await {
            let what = format!("an instance runs by this state (backend {pid})");
            return Err(Fault::unavailable(what, "stop it first"));
        }
        let store = StateConnector::new(Arc::clone(config)).store().await?;
        let there = store.schema_version().await.map_err(crate::operations::fate)?.is_some();
        let (mut quarantined, mut tables, mut recorded_slot) = (0, Vec::new(), None);
        if there && store.is_there().await.map_err(crate::operations::fate)? {
            recorded_slot = other_slot(config, &control, &store, &server.database.1).await?;
            quarantined =
                store.quarantine_counts().await.map_err(crate::operations::fate)?.iter().map(|(_, rows)| rows).sum();
            let sections = store.sections().await.map_err(crate::operations::fate)?;
            tables = sections.iter().map(|row| row.attachment.table_oid).collect();
        }
        let mut kept = Vec::new();
        let mut publications = Vec::new();
        for name in [config.source.publication.clone(), config.source.update_publication()] {
            let found = publication::publication(&control, &name).await.map_err(fault)?;
            let users = match &found {
                Some(found) => users(&control, config, found, &tables).await.map_err(fault)?,
                None => Vec::new(),
            };
            if !users.is_empty() {
                kept.push(format!("{name}: {}", users.join(", and ")));
            }
            publications.push(found.filter(|_| users.is_empty()).map(|_| name));
        }
        let update_publication = publications.pop().flatten();
        let publication = publications.pop().flatten();
        let plan = TeardownPlan {
            slot: slot.map(|_| config.source.slot.clone()),
            recorded_slot,
            publication,
            update_publication,
            state_schema: there.then(|| config.state.schema.clone()),
            quarantined,
            kept,
        };
        Ok(Teardown { control, store, apart: config.state.url.is_some(), plan })
    }

    /// Drops it all: the slot last, for without it nothing goes on, and only where nothing else is left.
    pub(crate) async fn run(mut self) -> Result<TeardownPlan, Fault> {
        if let Some(why) = self.not_ours().await? {
            let what = format!("nothing was dropped: the role {} {why}", self.control.user());
            return Err(Fault::needs_person(what, format!("let a DBA run this script:\n{}", self.script()?)));
        }
        let control = &self.control;
        for name in self.plan.publications() {
            let sql = format!("DROP PUBLICATION IF EXISTS {}", quote::ident(name));
            control.batch_execute(&sql).await.map_err(|error| control.fault(&error))?;
        }
        if self.plan.state_schema.is_some() {
            self.store.drop_schema().await.map_err(crate::operations::fate)?;
        }
        for name in self.plan.slots() {
            drop_slot(control, name).await?;
        }
        Ok(self.plan)
    }

    /// What this role may not drop, said of it; `None` where it may drop everything.
    async fn not_ours(&self) -> Result<Option<&'static str>, Fault> {
        let sql = "SELECT coalesce((SELECT bool_and(pg_has_role(pubowner, 'USAGE')) FROM pg_catalog.pg_publication
            WHERE pubname = ANY($1)), true)";
        let names: Vec<&String> = self.plan.publications().collect();
        let publication =
            sql::query_one(&self.control, sql, &[&names]).await.map_err(|error| self.control.fault(&error))?;
        if !publication.get::<_, bool>(0) {
            return Ok(Some("does not own the publication"));
        }
        let schema =
            self.plan.state_schema.is_none() || self.store.may_drop_schema().await.map_err(crate::operations::fate)?;
        Ok((!schema).then_some("does not own the state schema"))
    }

    /// Everything that is to be dropped, as SQL.
    fn script(&self) -> Result<String, Fault> {
        let mut script = String::from("BEGIN;\n");
        for name in self.plan.publications() {
            script.push_str(&format!("DROP PUBLICATION IF EXISTS {};\n", quote::ident(name)));
        }
        if let Some(name) = &self.plan.state_schema {
            if self.apart {
                script.push_str("-- in the database of state.url:\n");
            }
            script.push_str(&drop_script(&Schema::new(name)?));
        }
        script.push_str("COMMIT;\n");
        for name in self.plan.slots() {
            script.push_str(&format!("SELECT pg_drop_replication_slot({});\n", quote::literal(name)));
        }
        Ok(script)
    }
}

/// The slot that the state belongs to, where the file names another one and it is there.
async fn other_slot(
    config: &Config,
    control: &Session,
    store: &Store,
    database: &str,
) -> Result<Option<String>, Fault> {
    let recorded = store.instance().await.map_err(crate::operations::fate)?.map(|instance| instance.identity.slot);
    let Some(name) = recorded.filter(|name| !name.is_empty() && *name != config.source.slot) else { return Ok(None) };
    let there = slot::slot(control, &name).await.map_err(|error| control.fault(&error))?;
    let Some(there) = there.filter(|slot| slot.ours(&name, database).is_ok()) else { return Ok(None) };
    match crate::operations::held_by(Some(&there)) {
        Some(pid) => Err(crate::operations::repair::plan::in_use(&name, pid)),
        None => Ok(Some(name)),
    }
}

/// Who else uses a publication: tables that are no section's, for an instance with a state of its own may have put them there;
/// and streams that name it.
async fn users(
    control: &Session,
    config: &Config,
    publication: &Publication,
    recorded: &[u32],
) -> Result<Vec<String>, tokio_postgres::Error> {
    let configured = crate::postgres::setup::tables(config);
    let is_ours = |table: &&PublishedTable| recorded.contains(&table.oid) || configured.contains(&table.name);
    let foreign: Vec<String> =
        publication.tables.iter().filter(|table| !is_ours(table)).map(|table| table.name.to_string()).collect();
    let mut users = Vec::new();
    if !foreign.is_empty() {
        users.push(format!("it publishes {}, which no section of this file reads", foreign.join(", ")));
    }
    // What is not shown of other streams the tables tell.
    for slot in publication::streamed_by(control, &publication.name, &config.source.slot).await? {
        users.push(format!("the slot {slot} streams from it"));
    }
    Ok(users)
}

/// Drops a slot that nobody holds.
pub(crate) async fn drop_slot(control: &Session, name: &str) -> Result<(), Fault> {
    let sql = "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots
        WHERE slot_name = $1";
    sql::execute(control, sql, &[&name]).await.map_err(|error| control.fault(&error))?;
    Ok(())
}
