//! Tells the rows that a table had when a section of `start: now` was asked for from those that came since.
//!
//! * In: a table, and the transactions from which on its rows are read: some are open, and had written to it before.
//! * Out: the keys of older rows among those that would be read: an UPDATE gives an old row the xid of a new one.
//! * Never: a snapshot that outlives the reading; it is held while those transactions are open, who hold as old a one, and are
//!   in the way of a change of the table just so.

use crate::config::Source;
use crate::model::{Fault, Key};
use crate::postgres::backfill::selection::{SESSION, Selection};
use crate::postgres::connection::session::Session;
use crate::runtime::same_server::SameServer;

/// Keys that are looked up at once.
const CHUNK: i64 = 10_000;
/// More than these are not kept in memory.
const MOST: usize = 1_000_000;

/// A look at the table as it was.
pub(crate) struct OlderRows {
    session: Session,
}

impl OlderRows {
    /// Keeps the rows of every table as they are now to be looked at.
    pub(crate) async fn keep(server: &SameServer, source: &Source) -> Result<OlderRows, Fault> {
        let session = server.connect(source, "attach").await?;
        let begin = "SET idle_in_transaction_session_timeout = 0; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
            SELECT pg_catalog.pg_current_snapshot()";
        let begun = async {
            session.batch_execute(SESSION).await?;
            session.batch_execute(begin).await
        };
        begun.await.map_err(|error| session.fault(&error))?;
        Ok(OlderRows { session })
    }

    /// The keys of those of the selected rows that were there before.
    pub(crate) async fn among(self, now: &Session, selection: &Selection) -> Result<Vec<Key>, Fault> {
        let (mut older, mut after) = (Vec::new(), None::<Key>);
        loop {
            let keys = selection.keys_behind(now, after.as_ref(), CHUNK).await.map_err(|error| now.fault(&error))?;
            let Some(last) = keys.last().cloned() else { return Ok(older) };
            let there = selection.keys_among(&self.session, &keys).await;
            older.extend(there.map_err(|error| self.session.fault(&error))?);
            if older.len() > MOST {
                let what = format!("more than {MOST} older rows were updated while the section waited to be attached");
                return Err(Fault::needs_person(what, "begin it behind a key: `start: { after_key: … }`"));
            }
            after = Some(last);
        }
    }
}
