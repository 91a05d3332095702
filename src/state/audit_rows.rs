//! The rows of `audit`: what audits found, and what a later one may build on.
//!
//! * In: the result of an audit.
//! * Out: the newest audits, the whole ones, and the transactions below which one found everything settled.
//! * Never: more than the newest hundred of a section.

use tokio_postgres::Row;

use crate::model::SectionName;
use crate::state::model::unsigned;
use crate::state::state_error::StateError;
use crate::state::store::Store;

/// The newest audit of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LastAudit {
    pub section: String,
    /// When it ended, in Unix time.
    pub at_seconds: i64,
    /// Rows that it found to be missing.
    pub missing: u64,
}

/// The last whole audit of a section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WholeAudit {
    pub section: String,
    /// When it began, in Unix time; `None`: there was none.
    pub began: Option<i64>,
    /// The last key that it looked at.
    pub to: Option<String>,
    /// Nothing was missing, and nothing on its way: what it has seen needs no second look.
    pub is_clean: bool,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What was done to the section since it began: `backfill` or `repair`.
    pub done_since: Option<String>,
}

impl Store {
    /// Every transaction below this 64-bit xid was settled, by what an audit found: a whole one that left nothing missing nor
    /// unknown, with nothing done to the section since. Only where the ledger still has every batch that began after the first
    /// transaction from there on: none of it is pruned then.
    pub(crate) async fn settled_before(&self, section: &SectionName) -> Result<Option<u64>, StateError> {
        let sql = "WITH made AS (
                SELECT a.id, a.at - make_interval(secs => (a.result->>'took_ms')::float8 / 1000) AS began, a.result,
                    (a.result->'horizon'->>'settled')::bigint AS settled
                FROM {schema}.audit a WHERE a.section = $1)
             SELECT a.settled FROM made a, {schema}.section s, {schema}.instance i
             WHERE s.name = $1 AND (a.result->>'whole')::boolean AND (a.result->>'missing')::bigint = 0
                AND (a.result->>'unknown')::bigint = 0 AND a.settled <= i.xmin_floor
                AND a.began > coalesce(greatest(s.attached_at, s.backfill_started_at), '-infinity')
                AND NOT EXISTS (SELECT FROM {schema}.event e WHERE e.action = 'repair' AND e.handled_at > a.began)
                AND EXISTS (SELECT FROM made b JOIN {schema}.delivery d
                        ON d.id = (b.result->'horizon'->>'delivery')::bigint AND d.section = $1
                    WHERE (b.result->'horizon'->>'next')::bigint <= a.settled)
             ORDER BY a.id DESC LIMIT 1";
        let rows = self.query("looking for what earlier audits found", sql, &[&section.as_str()]).await?;
        Ok(rows.first().map(|row| unsigned(row.get(0))))
    }

    /// The newest audit of each section, with the most rows that any found missing from the last whole one on: an audit of a
    /// part takes nothing back.
    pub(crate) async fn last_audits(&self) -> Result<Vec<LastAudit>, StateError> {
        let sql = "WITH whole AS (
                SELECT section, max(id) AS id FROM {schema}.audit
                WHERE coalesce((result->>'whole')::boolean, result->>'from' IS NULL) GROUP BY section)
             SELECT a.section, extract(epoch FROM max(a.at))::bigint,
                coalesce(max((a.result->>'missing')::bigint), 0)
             FROM {schema}.audit a LEFT JOIN whole w ON w.section = a.section
             WHERE a.id >= coalesce(w.id, 0) GROUP BY a.section ORDER BY a.section";
        let of = |row: &Row| LastAudit { section: row.get(0), at_seconds: row.get(1), missing: unsigned(row.get(2)) };
        Ok(self.query("reading the last audits", sql, &[]).await?.iter().map(of).collect())
    }

    /// The last whole audit of each section, and whether something was done to the section since: a backfill, a re-sync, an
    /// attachment, a repair.
    pub(crate) async fn whole_audits(&self) -> Result<Vec<WholeAudit>, StateError> {
        let sql = "SELECT s.name, extract(epoch FROM w.began)::bigint, w.result->>'to',
                coalesce((w.result->>'missing')::bigint + (w.result->>'waiting')::bigint = 0, false),
                coalesce((w.result->>'took_ms')::bigint, 0),
                CASE WHEN done.at > coalesce(w.began, '-infinity') THEN 'repair'
                    WHEN greatest(s.attached_at, s.backfill_started_at) > coalesce(w.began, '-infinity') THEN 'backfill'
                END
             FROM {schema}.section s
             LEFT JOIN LATERAL (
                SELECT a.at - make_interval(secs => (a.result->>'took_ms')::float8 / 1000) AS began, a.result
                FROM {schema}.audit a
                WHERE a.section = s.name AND coalesce((a.result->>'whole')::boolean, a.result->>'from' IS NULL)
                ORDER BY a.id DESC LIMIT 1) w ON true
             LEFT JOIN LATERAL (
                SELECT max(e.handled_at) AS at FROM {schema}.event e
                WHERE (e.section IS NULL OR e.section = s.name)
                    AND (e.action IN ('repair', 'resync') OR e.args->>'phase' = 'repair')) done ON true";
        let of = |row: &Row| WholeAudit {
            section: row.get(0),
            began: row.get(1),
            to: row.get(2),
            is_clean: row.get(3),
            took_ms: unsigned(row.get(4)),
            done_since: row.get(5),
        };
        Ok(self.query("reading the whole audits", sql, &[]).await?.iter().map(of).collect())
    }

    /// Stores an audit's result. Only the newest of each section are kept.
    pub(crate) async fn record_audit(
        &self,
        section: &SectionName,
        cause: &str,
        result: &serde_json::Value,
    ) -> Result<(), StateError> {
        let write = "WITH added AS (
                INSERT INTO {schema}.audit (section, cause, result) VALUES ($1, $2, $3::text::jsonb) RETURNING id)
             DELETE FROM {schema}.audit WHERE section = $1 AND id NOT IN (
                SELECT id FROM {schema}.audit WHERE section = $1 ORDER BY id DESC LIMIT 100)";
        let text = result.to_string();
        self.execute("keeping an audit's result", write, &[&section.as_str(), &cause, &self.text(&text)]).await?;
        Ok(())
    }
}
