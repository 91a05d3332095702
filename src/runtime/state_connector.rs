//! The connections to the state store, each named by its purpose.

use std::sync::Arc;

use crate::config::Config;
use crate::model::Fault;
use crate::postgres::connection::session::{Session, connect_sql, connect_url};
use crate::state::{Schema, Store};

/// Connects to the state, in the source database or in its own.
#[derive(Clone, Debug)]
pub(crate) struct StateConnector {
    config: Arc<Config>,
}

impl StateConnector {
    pub(crate) fn new(config: Arc<Config>) -> StateConnector {
        StateConnector { config }
    }

    /// A session with the state's database.
    pub(crate) async fn session(&self) -> Result<Session, Fault> {
        match &self.config.state.url {
            Some(url) => connect_url(url, "state").await,
            None => connect_sql(&self.config.source, "state").await,
        }
    }

    /// A new store on a new connection.
    pub(crate) async fn store(&self) -> Result<Store, Fault> {
        let schema = Schema::new(&self.config.state.schema)?;
        let client = self.session().await?.into_client();
        Store::new(client, schema).await.map_err(|error| error.fault())
    }
}
