//! The types of the source database, learnt as the stream meets them.
//!
//! * In: descriptions of tables, as the stream brings them.
//! * Out: columns with their types; or how long to wait until the catalog can tell.
//! * Never: a domain taken for text because its type was not asked for; a type of another server that `source` names, too.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Source;
use crate::model::{Column, Fault};
use crate::postgres::catalog::types::Types;
use crate::postgres::connection::charset::Charset;
use crate::postgres::connection::session::Session;
use crate::postgres::replication::row_decoder::DecodedTable;
use crate::runtime::same_server::SameServer;

/// The longest that the loop waits for the catalog.
const LOOK_UP: Duration = Duration::from_secs(5);

/// How long a type that no snapshot sees is waited for, before it is held to be dropped.
const UNSEEN: Duration = Duration::from_secs(30);

/// The types that are known, and a session to ask for others.
pub(crate) struct TypeCatalog {
    control: Session,
    server: SameServer,
    types: Types,
    /// Types that no snapshot has seen, and since when they were asked for.
    unseen: HashMap<u32, Instant>,
}

/// What is known of a table's columns.
pub(crate) enum ColumnTypes {
    Known(Vec<Column>),
    /// The stream must begin again after this time; where the database could not be asked, why.
    Later(Duration, Option<Fault>),
}

impl TypeCatalog {
    pub(crate) fn new(control: Session, types: Types, server: SameServer) -> TypeCatalog {
        TypeCatalog { control, server, types, unseen: HashMap::new() }
    }

    /// The characters in which the stream of this source brings text; `None` where the server converts it to UTF-8. (A
    /// publication whose name is not ASCII is asked for in UTF-8, and so are its rows.)
    pub(crate) fn charset(&self, source: &Source) -> Option<Arc<Charset>> {
        self.control.charset().filter(|_| source.publication.is_ascii()).cloned()
    }

    /// The columns of a table with their types. Where a type is not known, the stream begins again until it is: a domain taken
    /// for text could refuse its rows, or send a number as text.
    pub(crate) async fn columns(&mut self, source: &Source, table: &DecodedTable) -> ColumnTypes {
        let asked = self.unknown(table);
        if !asked.is_empty() {
            if let Err(fault) = self.learn(source, &asked).await {
                tracing::warn!(what = fault.what, "the database's types cannot be read: the stream begins again");
                return ColumnTypes::Later(Duration::from_secs(1), Some(fault));
            }
            let unseen = self.unknown(table);
            if let Some(first) = unseen.first() {
                let since = *self.unseen.entry(*first).or_insert_with(Instant::now);
                let table = format!("{}.{}", table.schema, table.name);
                if since.elapsed() <= UNSEEN {
                    tracing::info!(table, oids = ?unseen, "a type of a column cannot be seen yet: the stream begins again");
                    return ColumnTypes::Later(UNSEEN / 60, None);
                }
                tracing::warn!(table, oids = ?unseen, "types of columns are gone: their values are taken as text");
                unseen.iter().for_each(|oid| self.types.give_up(*oid));
            }
        }
        ColumnTypes::Known(self.types.columns(&table.columns))
    }

    fn unknown(&self, table: &DecodedTable) -> Vec<u32> {
        table.columns.iter().map(|(_, oid)| *oid).filter(|oid| !self.types.knows(*oid)).collect()
    }

    /// Reads the database's types, on a new connection where the old one has died.
    async fn learn(&mut self, source: &Source, oids: &[u32]) -> Result<(), Fault> {
        let late = |_| Fault::unavailable("the server does not answer", "check the server and the network");
        if self.control.is_closed() {
            let connecting = self.server.connect(source, "control");
            self.control = tokio::time::timeout(LOOK_UP, connecting).await.map_err(late)??;
        }
        let learnt = tokio::time::timeout(LOOK_UP, self.types.learn(&self.control, oids)).await.map_err(late)?;
        learnt.map_err(|error| self.control.fault(&error))
    }
}
