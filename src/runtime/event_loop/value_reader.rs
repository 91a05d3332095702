//! Reads rows by their keys while the loop waits: what an update did not bring.
//!
//! * In: how a section reads its table; a key.
//! * Out: the row as it is now, or none.
//! * Never: a longer wait than the bound; a session with a statement under way used again.

use std::time::Duration;

use crate::config::Source;
use crate::model::{Fault, Rows};
use crate::postgres::backfill::selection::{SESSION, Selection};
use crate::postgres::connection::session::Session;
use crate::postgres::setup;
use crate::runtime::same_server::SameServer;

/// The longest that the loop waits for a row.
const LOOK_UP: Duration = Duration::from_secs(5);

/// The session that reads rows by their keys.
#[derive(Default)]
pub(crate) struct ValueReader {
    session: Option<Session>,
}

/// Why a row was not read.
pub(crate) enum UnreadRow {
    /// The server cannot be reached: no row can be read.
    Source(Fault),
    /// It refuses this table's row, or does not answer for it: other tables may be read.
    Table(Fault),
}

impl ValueReader {
    /// The row with this key of the table with this OID; none where it is gone.
    pub(crate) async fn read(
        &mut self,
        (server, source): (&SameServer, &Source),
        (selection, table): (&Selection, u32),
        key: &str,
    ) -> Result<Rows, UnreadRow> {
        let late = |_| Fault::unavailable("the table does not answer", "look for locks on it; it is tried again");
        if self.session.as_ref().is_none_or(|session| session.is_closed()) {
            let opened = async {
                let session = server.connect(source, "updates").await?;
                session.batch_execute(SESSION).await.map_err(|error| session.fault(&error))?;
                Ok::<_, Fault>(session)
            };
            let opened = tokio::time::timeout(LOOK_UP, opened).await.map_err(late).flatten();
            self.session = Some(opened.map_err(UnreadRow::Source)?);
        }
        let Some(session) = &self.session else {
            return Err(UnreadRow::Source(Fault::bug("a session was opened and is not there")));
        };
        let read = tokio::time::timeout(LOOK_UP, row_of(session, (selection, table), key)).await;
        match read.map_err(late) {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(fault)) if session.is_closed() => Err(UnreadRow::Source(fault)),
            Ok(Err(fault)) => Err(UnreadRow::Table(fault)),
            Err(fault) => {
                // What was asked is still under way there.
                self.session = None;
                Err(UnreadRow::Table(fault))
            }
        }
    }
}

/// The row with this key; why not, and who is in the way.
pub(crate) async fn row_of(session: &Session, (selection, table): (&Selection, u32), key: &str) -> Result<Rows, Fault> {
    let error = match selection.read_keys(session, &[key.to_owned()]).await {
        Ok(rows) => return Ok(rows),
        Err(error) => error,
    };
    let locked = setup::locked(session, &error, table, "its table is locked").await;
    Err(locked.unwrap_or_else(|| session.fault(&error)))
}
