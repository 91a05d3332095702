//! What the state can prove: the keys of batches, the tallies of sections, and what audits found.
//!
//! * In: a section; the result of an audit.
//! * Out: [`Evidence`], and how far back it reaches; the batches that carried a key.
//! * Never: the ledger read whole into memory as rows: pages of it, turned into evidence as they come.

use tokio_postgres::Row;

use crate::audit::{AuditKey, BatchKeys, Evidence, Share, Tally, TallyEntry};
use crate::model::{Fault, Position, SectionName};
use crate::state::model::{Outcome, unsigned};
use crate::state::section_rows::position;
use crate::state::state_error::StateError;
use crate::state::store::{Store, rfc3339};

/// The word that begins the reason of a quarantined row which an audit found missing.
pub(crate) const MISSING: &str = "missing";
/// Batches read at once.
const PAGE: i64 = 500;

/// How far back the state can prove a section's rows, and up to where they are settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProofBounds {
    /// The last delivery before keys were kept; `None`: all of them are there.
    pub provable_from: Option<i64>,
    /// Every transaction below had ended when the section attached.
    pub attach_xmin: Option<u64>,
    /// Every transaction below is settled.
    pub xmin_floor: Option<u64>,
}

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
    /// What was done to the section since it began: `backfill` or `repair`.
    pub done_since: Option<String>,
}

/// A batch that carried a key, as `trace` shows it.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct TracedDelivery {
    pub id: i64,
    /// How its rows were read.
    pub phase: String,
    /// The batch's outcome.
    pub outcome: String,
    /// The answer's status.
    pub http_status: Option<i32>,
    /// Where its first row stood in the stream; none for a backfill.
    pub position: Option<String>,
    /// When it ended: RFC 3339, UTC.
    pub finished_at: Option<String>,
    /// Whether its keys are known to hold the row; otherwise the row lies between its first and its last key.
    pub certain: bool,
}

impl Store {
    /// The state's knowledge of a section's rows, of a share of the keys.
    pub(crate) async fn evidence(&self, section: &SectionName, share: Share) -> Result<Evidence, StateError> {
        let sql = "SELECT block, rows, digest FROM {schema}.tally WHERE section = $1";
        let rows = self.query("reading the tally", sql, &[&section.as_str()]).await?;
        let entry = |row: &Row| (row.get(0), TallyEntry { rows: row.get(1), digest: row.get(2) });
        let mut evidence = Evidence::of_share(share, Tally(rows.iter().map(entry).collect()));
        self.add_batches(section, i64::MIN, &mut evidence).await?;
        Ok(evidence)
    }

    /// The same, of this batch and later ones, without the tally.
    pub(crate) async fn evidence_since(&self, section: &SectionName, first: i64) -> Result<Evidence, StateError> {
        let mut evidence = Evidence::default();
        self.add_batches(section, first, &mut evidence).await?;
        Ok(evidence)
    }

    /// The first and the last key of each batch in doubt for good whose keys were never kept: the process ended while it was
    /// under way, and a repair gave its rows up.
    pub(crate) async fn keyless_doubts(&self, section: &SectionName) -> Result<Vec<[String; 2]>, StateError> {
        let sql = "SELECT first_key, last_key FROM {schema}.delivery d
             WHERE section = $1 AND outcome = 'in_doubt' AND unresolved
                AND NOT EXISTS (SELECT FROM {schema}.delivery_keys k WHERE k.delivery = d.id)";
        let rows = self.query("looking for batches in doubt", sql, &[&section.as_str()]).await?;
        Ok(rows.iter().map(|row| [row.get(0), row.get(1)]).collect())
    }

    /// Bytes of the sets of keys that the ledger has of a section.
    pub(crate) async fn key_bytes(&self, section: &SectionName) -> Result<u64, StateError> {
        let sql = "SELECT coalesce(sum(length(keys)), 0)::bigint FROM {schema}.delivery_keys WHERE section = $1";
        let row = self.one("measuring the sets of keys", sql, &[&section.as_str()]).await?;
        Ok(unsigned(row.get(0)))
    }

    /// The first batch of a section that may still end; where there is none, the one that would come next.
    pub(crate) async fn first_open(&self, section: &SectionName) -> Result<i64, StateError> {
        let sql = "SELECT coalesce(
                (SELECT min(id) FROM {schema}.delivery
                 WHERE section = $1 AND outcome IN ('sending', 'in_doubt') AND NOT unresolved),
                (SELECT max(id) + 1 FROM {schema}.delivery), 0)";
        Ok(self.one("looking for open batches", sql, &[&section.as_str()]).await?.get(0))
    }

    async fn add_batches(&self, section: &SectionName, first: i64, evidence: &mut Evidence) -> Result<(), StateError> {
        let (doing, name) = ("reading what was delivered", section.as_str());
        let sql = "SELECT d.id, d.phase, d.outcome, k.keys, d.unresolved FROM {schema}.delivery_keys k
             JOIN {schema}.delivery d ON d.id = k.delivery
             WHERE k.section = $1 AND k.delivery >= $2 ORDER BY k.delivery LIMIT $3";
        let mut from = first;
        loop {
            let page = self.query(doing, sql, &[&name, &from, &PAGE]).await?;
            for row in &page {
                let id: i64 = row.get(0);
                from = id + 1;
                let keys = BatchKeys::decode(row.get(3)).ok_or_else(|| unreadable(id))?;
                match Outcome::parse(row.get(2)) {
                    Some(Outcome::Delivered | Outcome::Partial) => {
                        evidence.delivered(&keys, !matches!(row.get(1), "backfill" | "stream"));
                    }
                    Some(Outcome::InDoubt) => evidence.in_doubt(keys, row.get(4)),
                    // Its rows were delivered by another batch, wait in quarantine, or are under way.
                    Some(Outcome::Resent | Outcome::Held | Outcome::Quarantined | Outcome::Sending) | None => {}
                }
            }
            if page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
                break;
            }
        }
        for ends in self.keyless_doubts(section).await? {
            evidence.in_doubt_between(&ends);
        }
        for table in ["quarantine", "dropped"] {
            let sql = format!("SELECT DISTINCT key FROM {{schema}}.{table} WHERE section = $1");
            for row in self.query(doing, &sql, &[&name]).await? {
                evidence.quarantined(AuditKey::of(row.get::<_, &str>(0).as_bytes()));
            }
        }
        Ok(())
    }

    /// Reads how far back the state can prove a section's rows.
    pub(crate) async fn proof_bounds(&self, section: &SectionName) -> Result<ProofBounds, StateError> {
        let sql = "SELECT s.provable_from, s.attach_xmin, i.xmin_floor FROM {schema}.section s, {schema}.instance i
             WHERE s.name = $1";
        let rows = self.query("reading how far back keys are kept", sql, &[&section.as_str()]).await?;
        let bounds = rows.first().map(|row| ProofBounds {
            provable_from: row.get(0),
            attach_xmin: row.get::<_, Option<i64>>(1).map(unsigned),
            xmin_floor: row.get::<_, Option<i64>>(2).map(unsigned),
        });
        Ok(bounds.unwrap_or_default())
    }

    /// The batches of the ledger that carried a key, newest last; and, where a batch has no keys, those between whose
    /// first and last key it may have been.
    pub(crate) async fn deliveries_of(
        &self,
        section: &SectionName,
        key: &str,
    ) -> Result<Vec<TracedDelivery>, StateError> {
        let doing = "looking for a row's batches";
        let sql = format!(
            "SELECT d.id, d.phase, d.outcome, d.http_status, d.first_lsn, d.first_change_lsn, d.first_ordinal, {} AS finished_at,
                d.first_key, d.last_key, k.keys
             FROM {{schema}}.delivery d LEFT JOIN {{schema}}.delivery_keys k ON k.delivery = d.id
             WHERE d.section = $1 AND d.id > $2 ORDER BY d.id LIMIT $3",
            rfc3339("d.finished_at")
        );
        let wanted = AuditKey::of(key.as_bytes());
        let mut found = Vec::new();
        let mut after = i64::MIN;
        loop {
            let page = self.query(doing, &sql, &[&section.as_str(), &after, &PAGE]).await?;
            for row in &page {
                after = row.get("id");
                let certain = match row.get::<_, Option<&[u8]>>("keys") {
                    Some(keys) => {
                        BatchKeys::decode(keys).ok_or_else(|| unreadable(after))?.contains(wanted).then_some(true)
                    }
                    None => may_hold(row, key, wanted).then_some(false),
                };
                found.extend(certain.map(|certain| traced(row, certain)));
            }
            if page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
                return Ok(found);
            }
        }
    }

    /// Rows of the quarantine whose key was delivered after they went there: by a re-sync, or because another row has the key
    /// now.
    pub(crate) async fn delivered_since(&self, section: &SectionName, ids: &[i64]) -> Result<Vec<i64>, StateError> {
        let doing = "looking for what was delivered since";
        let sql = "SELECT id, key, extract(epoch FROM created_at)::float8 FROM {schema}.quarantine
             WHERE section = $1 AND id = ANY ($2) AND key <> ''";
        let held = self.query(doing, sql, &[&section.as_str(), &ids]).await?;
        let held: Vec<(i64, AuditKey, f64)> =
            held.iter().map(|row| (row.get(0), AuditKey::of(row.get::<_, &str>(1).as_bytes()), row.get(2))).collect();
        let sql = "SELECT d.id, k.keys, extract(epoch FROM d.started_at)::float8 FROM {schema}.delivery d
             JOIN {schema}.delivery_keys k ON k.delivery = d.id
             WHERE d.section = $1 AND d.outcome IN ('delivered', 'partial') AND d.id > $2
                AND d.started_at > (SELECT min(created_at) FROM {schema}.quarantine WHERE section = $1 AND id = ANY ($4))
             ORDER BY d.id LIMIT $3";
        let (mut found, mut after) = (Vec::new(), i64::MIN);
        loop {
            let page = self.query(doing, sql, &[&section.as_str(), &after, &PAGE, &ids]).await?;
            for row in &page {
                after = row.get(0);
                let keys = BatchKeys::decode(row.get(1)).ok_or_else(|| unreadable(after))?;
                let began: f64 = row.get(2);
                let since = held.iter().filter(|(_, key, at)| began > *at && keys.contains(*key));
                found.extend(since.map(|(id, ..)| *id));
            }
            if page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
                found.sort_unstable();
                found.dedup();
                return Ok(found);
            }
        }
    }

    /// Why a row is in quarantine, or was dropped from it: the id there and the reason.
    pub(crate) async fn quarantine_of(&self, section: &SectionName, key: &str) -> Result<Option<String>, StateError> {
        let sql = format!(
            "SELECT 'quarantine ' || id || ': ' || reason FROM {{schema}}.quarantine WHERE section = $1 AND key = $2
             UNION ALL
             SELECT 'a person dropped it from quarantine at ' || {} FROM {{schema}}.dropped
             WHERE section = $1 AND key = $2 LIMIT 1",
            rfc3339("at")
        );
        let rows = self.query("looking for a row in quarantine", &sql, &[&section.as_str(), &self.text(key)]).await?;
        Ok(rows.first().map(|row| row.get(0)))
    }

    /// Puts rows that an audit found missing into quarantine, from where they are sent; their ids there.
    pub(crate) async fn quarantine_missing(
        &self,
        section: &SectionName,
        keys: &[String],
    ) -> Result<Vec<i64>, StateError> {
        let write = "INSERT INTO {schema}.quarantine (section, key, reason, item)
             SELECT $1, key, $3 || ': an audit found that it was neither delivered nor held', '{}'
             FROM unnest($2::text[]) AS missing (key)
             WHERE NOT EXISTS (
                SELECT FROM {schema}.quarantine q WHERE q.section = $1 AND q.key = missing.key)
             RETURNING id";
        let rows =
            self.query("putting missing rows into quarantine", write, &[&section.as_str(), &keys, &MISSING]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
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
            done_since: row.get(4),
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

fn unreadable(delivery: i64) -> StateError {
    StateError::Unwritable(Fault::bug(format!("the keys of delivery {delivery} cannot be read")))
}

/// Whether a batch of which only the ends are known may hold a key: for integers only, which have an order here.
fn may_hold(row: &Row, key: &str, wanted: AuditKey) -> bool {
    let end = |column: &str| AuditKey::of(row.get::<_, &str>(column).as_bytes());
    match (end("first_key"), wanted, end("last_key")) {
        (AuditKey::Integer(first), AuditKey::Integer(wanted), AuditKey::Integer(last)) => {
            (first.min(last)..=first.max(last)).contains(&wanted)
        }
        (_, _, _) => [row.get::<_, &str>("first_key"), row.get("last_key")].contains(&key),
    }
}

fn traced(row: &Row, certain: bool) -> TracedDelivery {
    let at: Option<Position> = position(row, "first");
    TracedDelivery {
        id: row.get("id"),
        phase: row.get("phase"),
        outcome: row.get("outcome"),
        http_status: row.get("http_status"),
        position: at.map(|at| at.to_string()),
        finished_at: row.get("finished_at"),
        certain,
    }
}
