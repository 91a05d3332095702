//! The monitor's look at the partitions of watched tables.
//!
//! * In: a session; the watched tables.
//! * Out: [`Partition`]s, and whether each may have come with rows.
//! * Never: a wait for a lock that keeps the monitor from its other looks.

use std::collections::HashMap;

use tokio_postgres::Error;

use crate::config::TableName;
use crate::postgres::catalog::partition_entries;
use crate::postgres::catalog::partition_entries::PartitionEntry;
use crate::postgres::connection::session::Session;
use crate::runtime::monitor_event::Partition;

/// A policy that hides rows, and a lock that somebody waits for, are errors: then it is looked again.
const BEGIN: &str = "BEGIN READ ONLY; SET LOCAL row_security = off; SET LOCAL lock_timeout = '500ms'";

/// What is known of partitions that were made by the transaction that attached them.
#[derive(Debug, Default)]
pub(crate) struct PartitionWatch {
    /// OID and entry → whether they were filled before.
    filled: HashMap<(u32, u32), bool>,
}

impl PartitionWatch {
    pub(crate) async fn look(
        &mut self,
        session: &Session,
        roots: &HashMap<u32, TableName>,
    ) -> Result<Vec<Partition>, Error> {
        let oids: Vec<u32> = roots.keys().copied().collect();
        let entries = partition_entries::entries(session, &oids).await?;
        if self.filled.len() > 2 * entries.len() {
            self.filled.clear();
        }
        for (root, table) in roots {
            // Of a foreign partition another server would be asked; its section is halted anyway.
            if !entries.iter().any(|entry| entry.root == *root && entry.without_wal.is_some()) {
                self.look_into(session, *root, table, &entries).await;
            }
        }
        let filled = |entry: &PartitionEntry| self.filled.get(&(entry.oid, entry.joined_by)) == Some(&true);
        Ok(entries.into_iter().map(|entry| Partition { filled: filled(&entry), entry }).collect())
    }

    /// Asks once of each. Where that is not allowed, or a lock is in the way, nobody knows, and it is asked again.
    async fn look_into(&mut self, session: &Session, root: u32, table: &TableName, entries: &[PartitionEntry]) {
        let is_open = |entry: &&PartitionEntry| {
            let known = self.filled.contains_key(&(entry.oid, entry.joined_by));
            entry.root == root && !entry.attached && entry.command.is_some() && !known
        };
        let open: Vec<&PartitionEntry> = entries.iter().filter(is_open).collect();
        if open.is_empty() {
            return;
        }
        let looked = async {
            session.batch_execute(BEGIN).await?;
            partition_entries::filled_before(session, table, &open).await
        };
        let looked = looked.await;
        let ended = session.batch_execute("ROLLBACK").await;
        match (looked, ended) {
            (Ok(filled), Ok(())) => {
                self.filled
                    .extend(open.iter().map(|entry| ((entry.oid, entry.joined_by), filled.contains(&entry.oid))));
            }
            (Err(error), _) | (Ok(_), Err(error)) => {
                tracing::debug!(%error, %table, "whether its new partitions came with rows cannot be seen");
            }
        }
    }
}
