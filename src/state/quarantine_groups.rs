//! The quarantine as a person looks through it: by what went wrong, and the newest rows first.
//!
//! * In: filters.
//! * Out: groups with their counts; pages of rows.
//! * Never: an item: those are read one at a time.

use crate::model::SectionName;
use crate::state::model::unsigned;
use crate::state::quarantine_rows::{QuarantineFilter, QuarantineRow};
use crate::state::state_error::StateError;
use crate::state::store::{Params, Store, rfc3339};

/// Rows of one section that went into quarantine for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QuarantineGroup {
    pub section: String,
    /// The reason without the excerpt of the row's value.
    pub reason: String,
    pub rows: u64,
}

/// Groups at most: a sink that words each refusal anew must not fill the page.
const GROUPS: i64 = 60;

impl Store {
    /// What went wrong, the most frequent first.
    pub(crate) async fn quarantine_groups(&self) -> Result<Vec<QuarantineGroup>, StateError> {
        let sql = "SELECT section, split_part(reason, ': \"', 1) AS head, count(*) FROM {schema}.quarantine
             GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT $1";
        let rows = self.query("reading the quarantine", sql, &[&GROUPS]).await?;
        let group = |row: &tokio_postgres::Row| QuarantineGroup {
            section: row.get(0),
            reason: row.get(1),
            rows: unsigned(row.get(2)),
        };
        Ok(rows.iter().map(group).collect())
    }

    /// Rows without their items, the newest first, with ids below `before`.
    pub(crate) async fn quarantine_newest(
        &self,
        filter: &QuarantineFilter,
        before: i64,
        limit: u32,
    ) -> Result<Vec<QuarantineRow>, StateError> {
        let sql = format!(
            "SELECT id, section, key, reason, {} AS created_at FROM {{schema}}.quarantine
             WHERE ($1::text IS NULL OR section = $1) AND ($2::text IS NULL OR starts_with(reason, $2))
                AND id < $3 ORDER BY id DESC LIMIT $4",
            rfc3339("created_at")
        );
        let section = filter.section.as_ref().map(SectionName::as_str);
        let params: Params<'_> = &[&section, &filter.reason, &before, &i64::from(limit)];
        let rows = self.query("reading the quarantine", &sql, params).await?;
        Ok(rows.iter().map(crate::state::quarantine_rows::row_of).collect())
    }

    /// What a batch was answered, and what became of it; none where the ledger has it no more.
    pub(crate) async fn delivery_of(&self, id: i64) -> Result<Option<(Option<i32>, String)>, StateError> {
        let sql = "SELECT http_status::int, outcome FROM {schema}.delivery WHERE id = $1";
        let rows = self.query("reading a batch", sql, &[&id]).await?;
        Ok(rows.first().map(|row| (row.get(0), row.get(1))))
    }
}
