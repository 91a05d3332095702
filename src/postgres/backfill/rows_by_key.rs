//! Rows read by their keys, with the types that their columns have in the same transaction.
//!
//! * In: a selection, and keys.
//! * Out: the rows that are there; the columns as they are then, where `ALTER TABLE … TYPE` changed them.
//! * Never: a row of one type and its columns of another.

use tokio_postgres::Error;

use crate::model::{Column, Rows};
use crate::postgres::backfill::selection::Selection;
use crate::postgres::backfill::table_lock::TableLock;
use crate::postgres::catalog::types::Types;
use crate::postgres::connection::session::Session;

impl Selection {
    /// Reads rows by their keys.
    ///
    /// # Errors
    /// Where a statement fails. The session is of no use then: its transaction is open.
    pub(crate) async fn read_keys_as_they_are(
        &self,
        client: &Session,
        keys: &[String],
    ) -> Result<(Rows, Option<Vec<Column>>), Error> {
        let mut types = Types::default();
        let oids = self.lock(client, TableLock::ByReading).await?.oids;
        if !oids.iter().all(|oid| types.knows(*oid)) {
            types.learn(client, &oids).await?;
        }
        let rows = self.read_keys(client, keys).await?;
        client.batch_execute("COMMIT").await?;
        Ok((rows, self.changed(&types, &oids)))
    }
}
