//! Reading the ledger, for people and after a restart, and pruning it. (It is written by `apply` alone.)
//!
//! * In: filters.
//! * Out: [`DeliveryRow`]s for `logs`; [`OpenDelivery`]s for the leader.
//! * Never: a row pruned whose batch has not ended.

use std::time::Duration;

use serde::Serialize;
use tokio_postgres::Row;
use tokio_postgres::types::PgLsn;

use crate::model::{Fault, KeyDigest, Lsn, SectionName};
use crate::state::model::{Delivery, Outcome, Phase, unsigned};
use crate::state::section_rows::position;
use crate::state::state_error::StateError;
use crate::state::store::{Store, rfc3339};

/// A ledger row that has not ended, as a leader finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenDelivery {
    pub delivery: Delivery,
    /// `sending` or `in_doubt`.
    pub outcome: Outcome,
    /// Whether its request may have been sent and its answer is not known: after a crash, that is a doubt.
    pub under_way: bool,
    /// Requests made.
    pub attempts: u32,
    /// The epoch of the leader that wrote it.
    pub epoch: i64,
}

/// A ledger row as `logs` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DeliveryRow {
    pub id: i64,
    pub section: String,
    /// `backfill`, `stream`, `resync`, `retry`, `diff`.
    pub phase: String,
    /// Items in the request.
    pub rows: i32,
    /// Bytes of the request's body.
    pub bytes: i64,
    /// Key of the first row.
    pub first_key: String,
    /// Key of the last row.
    pub last_key: String,
    /// The batch's outcome.
    pub outcome: String,
    /// The last answer's status.
    pub http_status: Option<i32>,
    /// Requests made.
    pub attempts: i32,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// RFC 3339, UTC; none while it has not ended.
    pub finished_at: Option<String>,
    /// The last answer, for people; empty where all went well.
    pub error: String,
    /// Ascends with every write to the ledger: where `--follow` goes on.
    #[serde(skip)]
    pub changed: i64,
}

impl DeliveryRow {
    /// The fields of its JSON, in order.
    pub(crate) const FIELDS: [&str; 13] = [
        "id",
        "section",
        "phase",
        "rows",
        "bytes",
        "first_key",
        "last_key",
        "outcome",
        "http_status",
        "attempts",
        "started_at",
        "finished_at",
        "error",
    ];
}

/// A choice of ledger rows and their order: newest first; oldest first where one of the `after`s is given.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeliveryFilter {
    pub section: Option<SectionName>,
    /// With one of these outcomes; with any, where there are none.
    pub outcomes: Vec<Outcome>,
    /// Begun at this time or later.
    pub since: Option<jiff::Timestamp>,
    /// Begun before this time.
    pub until: Option<jiff::Timestamp>,
    /// With a larger id than this; in the order of ids.
    pub after_id: Option<i64>,
    /// With a smaller id than this.
    pub before_id: Option<i64>,
    /// Written after the row whose `changed` is this; in the order of writing. A row that changes comes again.
    pub changed_after: Option<i64>,
}

impl Store {
    /// Ledger rows, at most `limit`.
    pub(crate) async fn deliveries(&self, filter: &DeliveryFilter, limit: u32) -> Result<Vec<DeliveryRow>, StateError> {
        let order = match (filter.changed_after, filter.after_id) {
            (Some(_), _) => "changed, id",
            (None, Some(_)) => "id",
            (None, None) => "id DESC",
        };
        let sql = format!(
            "SELECT id, section, phase, rows, bytes, first_key, last_key, outcome, http_status, attempts,
                {} AS started_at, {} AS finished_at, error, changed
             FROM {{schema}}.delivery
             WHERE ($1::text IS NULL OR section = $1) AND ($2::text[] = '{{}}' OR outcome = ANY ($2))
                AND ($3::text IS NULL OR started_at >= $3::text::timestamptz) AND ($4::bigint IS NULL OR id > $4)
                AND ($5::bigint IS NULL OR changed > $5)
                AND ($7::text IS NULL OR started_at < $7::text::timestamptz) AND ($8::bigint IS NULL OR id < $8)
             ORDER BY {order} LIMIT $6",
            rfc3339("started_at"),
            rfc3339("finished_at")
        );
        let section = filter.section.as_ref().map(SectionName::as_str);
        let outcomes: Vec<&str> = filter.outcomes.iter().map(|outcome| outcome.as_str()).collect();
        let (since, until) = (filter.since.map(|at| at.to_string()), filter.until.map(|at| at.to_string()));
        let limit = i64::from(limit);
        let params: crate::state::store::Params<'_> =
            &[&section, &outcomes, &since, &filter.after_id, &filter.changed_after, &limit, &until, &filter.before_id];
        Ok(self.query("reading the ledger", &sql, params).await?.iter().map(row_of).collect())
    }

    /// How many streamed rows of a section were received that committed at `from` or later, as far as the ledger goes back.
    pub(crate) async fn streamed_since(&self, section: &SectionName, from: Lsn) -> Result<u64, StateError> {
        let sql = "SELECT coalesce(sum(rows), 0)::bigint FROM {schema}.delivery
             WHERE section = $1 AND phase = 'stream' AND last_lsn >= $2 AND outcome IN ('delivered', 'partial')";
        let row = self.one("counting what was delivered", sql, &[&section.as_str(), &PgLsn::from(from.0)]).await?;
        Ok(unsigned(row.get(0)))
    }

    /// The number of the ledger's last write: where a `--follow` begins that shows only what is new.
    pub(crate) async fn last_change(&self) -> Result<i64, StateError> {
        let asked = "SELECT coalesce(max(changed), 0) FROM {schema}.delivery";
        Ok(self.one("reading the ledger", asked, &[]).await?.get(0))
    }

    /// How many ended batches of the ledger, and rows in quarantine, are older than they are kept, by more than an hour: what a
    /// running instance removes by itself is none of them.
    pub(crate) async fn overdue(&self, deliveries: Duration, quarantine: Duration) -> Result<(u64, u64), StateError> {
        let asked = "SELECT (SELECT count(*) FROM {schema}.delivery
                WHERE (outcome NOT IN ('sending', 'in_doubt') OR unresolved)
                    AND started_at < now() - make_interval(secs => $1) - interval '1 hour'),
            (SELECT count(*) FROM {schema}.quarantine
                WHERE created_at < now() - make_interval(secs => $2) - interval '1 hour')";
        let (deliveries, quarantine) = (deliveries.as_secs_f64(), quarantine.as_secs_f64());
        let row = self.one("looking for what is older than it is kept", asked, &[&deliveries, &quarantine]).await?;
        let number = |at| u64::try_from(row.get::<_, i64>(at)).unwrap_or(0);
        Ok((number(0), number(1)))
    }

    /// The rows that are `sending`, or `in_doubt` and to be sent again, by id.
    pub(crate) async fn open_deliveries(&self) -> Result<Vec<OpenDelivery>, StateError> {
        let sql =
            "SELECT id, section, phase, rows, bytes, first_key, last_key, first_lsn, first_change_lsn, first_ordinal,
                last_lsn, last_change_lsn, last_ordinal, first_digest, last_digest, outcome, under_way, attempts, epoch
             FROM {schema}.delivery WHERE outcome IN ('sending', 'in_doubt') AND NOT unresolved ORDER BY id";
        self.query("reading the open batches", sql, &[]).await?.iter().map(open_of).collect()
    }

    /// Waits until the batches of a section that are under way now have ended.
    pub(crate) async fn ended_batches(&self, section: &SectionName) -> Result<(), StateError> {
        let doing = "waiting for the batches under way";
        let sql = "SELECT max(id) FROM {schema}.delivery WHERE section = $1";
        let last: Option<i64> = self.one(doing, sql, &[&section.as_str()]).await?.get(0);
        let sql = "SELECT FROM {schema}.delivery WHERE section = $1 AND id <= $2 AND outcome = 'sending' LIMIT 1";
        while !self.query(doing, sql, &[&section.as_str(), &last]).await?.is_empty() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Removes up to `limit` rows that have ended and are older than `keep`; how many it removed. Called again while it
    /// removes `limit`, it does the whole work in small bites. What a section delivered since its oldest row in quarantine went
    /// there stays: a retry must know whether that row's key was delivered since.
    pub(crate) async fn prune(&self, keep: Duration, limit: u32) -> Result<u64, StateError> {
        let write = "WITH oldest AS MATERIALIZED (
                SELECT s.name AS section, q.created_at FROM {schema}.section s CROSS JOIN LATERAL (
                    SELECT created_at FROM {schema}.quarantine WHERE section = s.name ORDER BY id LIMIT 1) q),
             gone AS (
                DELETE FROM {schema}.delivery WHERE id IN (
                    SELECT id FROM {schema}.delivery d LEFT JOIN oldest o USING (section)
                    WHERE (outcome NOT IN ('sending', 'in_doubt') OR unresolved)
                        AND d.started_at < now() - make_interval(secs => $1)
                        AND (o.created_at IS NULL OR d.started_at < o.created_at)
                    ORDER BY d.started_at LIMIT $2)
                RETURNING id),
             keys AS (DELETE FROM {schema}.delivery_keys k USING gone WHERE k.delivery = gone.id)
             SELECT count(*) FROM gone";
        let row = self.one("pruning the ledger", write, &[&keep.as_secs_f64(), &i64::from(limit)]).await?;
        Ok(unsigned(row.get(0)))
    }
}

fn row_of(row: &Row) -> DeliveryRow {
    DeliveryRow {
        id: row.get("id"),
        section: row.get("section"),
        phase: row.get("phase"),
        rows: row.get("rows"),
        bytes: row.get("bytes"),
        first_key: row.get("first_key"),
        last_key: row.get("last_key"),
        outcome: row.get("outcome"),
        http_status: row.get("http_status"),
        attempts: row.get("attempts"),
        started_at: row.get("started_at"),
        finished_at: row.get("finished_at"),
        error: row.get("error"),
        changed: row.get("changed"),
    }
}

fn digest(row: &Row, column: &str) -> Option<KeyDigest> {
    row.get::<_, Option<&[u8]>>(column).and_then(KeyDigest::from_bytes)
}

fn open_of(row: &Row) -> Result<OpenDelivery, StateError> {
    // The table's CHECKs let no other words in.
    let unknown = || StateError::Unwritable(Fault::bug("a word in the ledger that this program does not know"));
    let count = |column: &str| u32::try_from(row.get::<_, i32>(column)).unwrap_or(0);
    Ok(OpenDelivery {
        delivery: Delivery {
            id: row.get("id"),
            section: SectionName::from(row.get::<_, &str>("section")),
            phase: Phase::parse(row.get("phase")).ok_or_else(unknown)?,
            rows: count("rows"),
            bytes: unsigned(row.get("bytes")),
            first_key: row.get("first_key"),
            last_key: row.get("last_key"),
            span: position(row, "first").zip(position(row, "last")),
            digests: digest(row, "first_digest").zip(digest(row, "last_digest")),
        },
        outcome: Outcome::parse(row.get("outcome")).ok_or_else(unknown)?,
        under_way: row.get("under_way"),
        attempts: count("attempts"),
        epoch: row.get("epoch"),
    })
}
