//! Batches that a repair finds open in the ledger: their rows come another way than they would have, or not at all.
//!
//! * In: an open batch, and what the repair does with its section.
//! * Out: the batch in doubt by name, by its keys or for good; or gone, where it is known that nobody has it.
//! * Never: a batch that may have been received and that nobody hears of.

use crate::state::ledger::OpenDelivery;
use crate::state::model::Outcome;
use crate::state::state_error::StateError;
use crate::state::store::Store;

/// What becomes of the rows of an open batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// They are read again from the table, between these keys.
    ReadAgain(String, String),
    /// They never come again.
    Never,
}

impl Store {
    /// Resolves an open batch. Called again with the same batch, it changes nothing.
    pub(crate) async fn resolve_open(&self, open: &OpenDelivery, how: &Resolved) -> Result<(), StateError> {
        let doing = "resolving an open batch";
        let id = open.delivery.id;
        if open.outcome == Outcome::Sending && !open.under_way {
            self.execute(doing, "DELETE FROM {schema}.delivery WHERE id = $1 AND NOT under_way", &[&id]).await?;
            return Ok(());
        }
        let (first, last) = match how {
            Resolved::ReadAgain(first, last) => (Some(self.text(first)), Some(self.text(last))),
            Resolved::Never => (None, None),
        };
        let write = "WITH resolved AS (
                UPDATE {schema}.delivery d SET outcome = 'in_doubt', under_way = false, finished_at = now(),
                    unresolved = $2::text IS NULL,
                    error = CASE WHEN d.error = '' THEN 'the process ended while the request was under way' ELSE d.error END,
                    phase = CASE WHEN $2 IS NULL THEN d.phase ELSE 'resync' END,
                    first_key = coalesce($2, d.first_key), last_key = coalesce($3::text, d.last_key),
                    first_lsn = NULL, first_change_lsn = NULL, first_ordinal = NULL,
                    last_lsn = NULL, last_change_lsn = NULL, last_ordinal = NULL,
                    changed = (SELECT applied_seq FROM {schema}.instance WHERE id = 1)
                FROM {schema}.delivery old WHERE d.id = $1 AND old.id = d.id AND d.outcome IN ('sending', 'in_doubt')
                RETURNING d.section, CASE WHEN old.outcome = 'sending' THEN d.rows ELSE 0 END AS rows)
             UPDATE {schema}.section s SET rows_in_doubt = s.rows_in_doubt + resolved.rows
             FROM resolved WHERE s.name = resolved.section";
        self.execute(doing, write, &[&id, &first, &last]).await?;
        Ok(())
    }
}
