//! Reading the quarantine, and dropping from it. (Rows go in by `apply` alone, and out by it when a retry delivered them.)
//!
//! * In: filters and ids.
//! * Out: rows for `quarantine list` and `show`, items for `quarantine retry`.
//! * Never: a row removed that a person did not name and that is not older than `state.keep_quarantine`.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio_postgres::Row;

use crate::model::SectionName;
use crate::state::model::unsigned;
use crate::state::state_error::StateError;
use crate::state::store::{Params, Store, rfc3339};

/// A row of `quarantine list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct QuarantineRow {
    pub id: i64,
    pub section: String,
    /// The row's key; empty where it could not be read.
    pub key: String,
    /// A word, a colon, and the reason for people.
    pub reason: String,
    /// RFC 3339, UTC.
    pub created_at: String,
}

/// A row of the quarantine with its item: `quarantine show`, and what a retry sends.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct QuarantineItem {
    /// What the list shows.
    #[serde(flatten)]
    pub row: QuarantineRow,
    /// The item as JSON, byte for byte as it was sent or refused.
    pub item: Box<RawValue>,
    /// The ledger row of the batch it was in.
    pub delivery: Option<i64>,
}

/// One of several entries of the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldVersion {
    pub id: i64,
    pub key: String,
    /// It came by the stream, so it is a version, or a row, of its own.
    pub is_streamed: bool,
}

/// Which rows of the quarantine; in the order of ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct QuarantineFilter {
    pub section: Option<SectionName>,
    /// Only rows whose reason begins with this word.
    pub reason: Option<String>,
    /// With a larger id than this.
    pub after_id: Option<i64>,
}

const COLUMNS: &str = "id, section, key, reason, item, lsn, change_lsn, ordinal, delivery";

impl Store {
    /// Rows of the quarantine without their items, at most `limit`.
    pub(crate) async fn quarantine_list(
        &self,
        filter: &QuarantineFilter,
        limit: u32,
    ) -> Result<Vec<QuarantineRow>, StateError> {
        let sql = format!(
            "SELECT id, section, key, reason, {} AS created_at FROM {{schema}}.quarantine
             WHERE ($1::text IS NULL OR section = $1) AND ($2::text IS NULL OR starts_with(reason, $2))
                AND id > $3 ORDER BY id LIMIT $4",
            rfc3339("created_at")
        );
        let section = filter.section.as_ref().map(SectionName::as_str);
        let params: Params<'_> = &[&section, &filter.reason, &filter.after_id.unwrap_or(i64::MIN), &i64::from(limit)];
        Ok(self.query("reading the quarantine", &sql, params).await?.iter().map(row_of).collect())
    }

    /// These rows without their items, by id; ids that are not there are left out.
    pub(crate) async fn quarantine_rows(&self, ids: &[i64]) -> Result<Vec<QuarantineRow>, StateError> {
        let sql = format!(
            "SELECT id, section, key, reason, {} AS created_at FROM {{schema}}.quarantine
             WHERE id = ANY ($1) ORDER BY id",
            rfc3339("created_at")
        );
        Ok(self.query("reading the quarantine", &sql, &[&ids]).await?.iter().map(row_of).collect())
    }

    /// One row with its item.
    pub(crate) async fn quarantine_show(&self, id: i64) -> Result<Option<QuarantineItem>, StateError> {
        Ok(self.quarantine_items(&[id]).await?.pop())
    }

    /// These rows with their items, by id; ids that are not there are left out. The caller bounds the list: the items
    /// are all in memory.
    pub(crate) async fn quarantine_items(&self, ids: &[i64]) -> Result<Vec<QuarantineItem>, StateError> {
        let sql = format!(
            "SELECT {COLUMNS}, {} AS created_at FROM {{schema}}.quarantine WHERE id = ANY ($1) ORDER BY id",
            rfc3339("created_at")
        );
        Ok(self.query("reading the quarantine", &sql, &[&ids]).await?.iter().map(item_of).collect())
    }

    /// The first of these rows, with their items, by id: as many as hold `bytes` together, and at least one.
    pub(crate) async fn quarantine_items_within(
        &self,
        ids: &[i64],
        bytes: usize,
    ) -> Result<Vec<QuarantineItem>, StateError> {
        let sql = format!(
            "SELECT {COLUMNS}, {} AS created_at FROM (
                SELECT *, sum(octet_length(item)) OVER (ORDER BY id) - octet_length(item) AS before
                FROM {{schema}}.quarantine WHERE id = ANY ($1)) AS held
             WHERE before < $2 ORDER BY id",
            rfc3339("created_at")
        );
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        Ok(self.query("reading the quarantine", &sql, &[&ids, &bytes]).await?.iter().map(item_of).collect())
    }

    /// All entries of these keys, by id.
    pub(crate) async fn quarantine_versions(
        &self,
        section: &SectionName,
        keys: &[&str],
    ) -> Result<Vec<HeldVersion>, StateError> {
        let sql = "SELECT id, key, lsn IS NOT NULL FROM {schema}.quarantine WHERE section = $1 AND key = ANY ($2) ORDER BY id";
        let rows = self.query("reading the quarantine", sql, &[&section.as_str(), &keys]).await?;
        Ok(rows.iter().map(|row| HeldVersion { id: row.get(0), key: row.get(1), is_streamed: row.get(2) }).collect())
    }

    /// Drops these rows, on a person's behalf; how many were there.
    pub(crate) async fn quarantine_drop(&self, ids: &[i64]) -> Result<u64, StateError> {
        let write = "WITH gone AS (DELETE FROM {schema}.quarantine WHERE id = ANY ($1) RETURNING section, key)
             INSERT INTO {schema}.dropped (section, key) SELECT section, key FROM gone";
        self.execute("dropping from quarantine", write, &[&ids]).await
    }

    /// Drops up to `limit` rows that are older than `keep`; how many there were.
    pub(crate) async fn quarantine_prune(&self, keep: Duration, limit: u32) -> Result<u64, StateError> {
        let write = "WITH old AS (SELECT id FROM {schema}.quarantine
                WHERE created_at < now() - make_interval(secs => $1) ORDER BY id LIMIT $2),
             gone AS (DELETE FROM {schema}.quarantine WHERE id IN (SELECT id FROM old) RETURNING section, key)
             INSERT INTO {schema}.dropped (section, key) SELECT section, key FROM gone";
        self.execute("pruning the quarantine", write, &[&keep.as_secs_f64(), &i64::from(limit)]).await
    }

    /// How many rows each section has in quarantine; sections without any are left out.
    pub(crate) async fn quarantine_counts(&self) -> Result<Vec<(SectionName, u64)>, StateError> {
        let sql = "SELECT section, count(*) FROM {schema}.quarantine GROUP BY section ORDER BY section";
        let rows = self.query("counting the quarantine", sql, &[]).await?;
        Ok(rows.iter().map(|row| (SectionName::from(row.get::<_, &str>(0)), unsigned(row.get(1)))).collect())
    }
}

pub(crate) fn row_of(row: &Row) -> QuarantineRow {
    QuarantineRow {
        id: row.get("id"),
        section: row.get("section"),
        key: row.get("key"),
        reason: row.get("reason"),
        created_at: row.get("created_at"),
    }
}

fn item_of(row: &Row) -> QuarantineItem {
    let item: String = row.get("item");
    QuarantineItem {
        row: row_of(row),
        // Text that is not JSON is shown as a string: it is still the evidence.
        item: RawValue::from_string(item.clone())
            .or_else(|_| RawValue::from_string(serde_json::Value::from(item).to_string()))
            .unwrap_or_else(|_| RawValue::NULL.to_owned()),
        delivery: row.get("delivery"),
    }
}
