//! Reads rows by their keys while the loop waits: what an update did not bring.
//!
//! * In: how a section reads its table; a key.
//! * Out: the row as it is now, or none.
//! * Never: a longer wait than the bound; a session with a statement under way used again.

use std::time::Duration;

use crate::config::Source;
use crate::model::{Fault, Rows};
use crate::postgres::backfill::chunk_reader::{SESSION, Selection};
use crate::postgres::connection::session::Session;
use crate::runtime::same_server::SameServer;

/// The longest that the loop waits for a row.
const LOOK_UP: Duration = Duration::from_secs(5);

/// The session that reads rows by their keys.
#[derive(Default)]
pub(crate) struct ValueReader {
    session: Option<Session>,
}

impl ValueReader {
    /// The row with this key; none where it is gone.
    pub(crate) async fn read(
        &mut self,
        (server, source): (&SameServer, &Source),
        selection: &Selection,
        key: &str,
    ) -> Result<Rows, Fault> {
        let late = |_| Fault::unavailable("the table does not answer", "look for locks on it; it is tried again");
        if self.session.as_ref().is_none_or(|session| session.is_closed()) {
            let opened = async {
                let session = server.connect(source, "updates").await?;
                session.batch_execute(SESSION).await.map_err(|error| session.fault(&error))?;
                Ok::<_, Fault>(session)
            };
            self.session = Some(tokio::time::timeout(LOOK_UP, opened).await.map_err(late)??);
        }
        let Some(session) = &self.session else { return Err(Fault::bug("a session was opened and is not there")) };
        let read = tokio::time::timeout(LOOK_UP, selection.read_keys(session, &[key.to_owned()])).await;
        match read.map_err(late) {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => Err(session.fault(&error)),
            Err(fault) => {
                // What was asked is still under way there.
                self.session = None;
                Err(fault)
            }
        }
    }
}
