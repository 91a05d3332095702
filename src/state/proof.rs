//! What the state can prove: the keys of batches, the tallies of sections, and what audits found.
//!
//! * In: a section; the result of an audit.
//! * Out: [`Evidence`], and how far back it reaches; the batches that carried a key.
//! * Never: the ledger read whole into memory as rows: pages of it, turned into evidence as they come.

use tokio_postgres::Row;

use crate::audit::{AuditKey, BatchKeys, DeliveredBy, Evidence, Share, Tally, TallyEntry};
use crate::model::{Fault, Lsn, Position, SectionName};
use crate::state::model::{Outcome, unsigned};
use crate::state::section_rows::{lsn, position};
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
    /// Every transaction below is settled. It stands while any transaction of the server is open.
    pub xmin_floor: Option<u64>,
    /// Everything that was committed before is settled.
    pub checkpoint: Lsn,
}

/// Since when the state can prove a section's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProofReach {
    /// When the oldest batch began whose keys are kept.
    pub by_key_since: Option<String>,
    /// Its first key.
    pub by_key_from: Option<String>,
    /// Since when everything that is delivered is counted.
    pub by_count_since: Option<String>,
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
        // In one statement with the batches that it does not count: they end while the others are read.
        let sql = "SELECT t.blocks, t.rows, t.digests,
                coalesce((SELECT max(k.delivery) FROM {schema}.delivery_keys k WHERE k.section = $1), -1),
                ARRAY(SELECT d.id FROM {schema}.delivery d
                    WHERE d.section = $1 AND d.outcome IN ('sending', 'in_doubt') AND NOT d.unresolved)
             FROM (SELECT coalesce(array_agg(block ORDER BY block), '{}') AS blocks,
                    coalesce(array_agg(rows ORDER BY block), '{}') AS rows,
                    coalesce(array_agg(digest ORDER BY block), '{}') AS digests
                FROM {schema}.tally WHERE section = $1) t";
        let row = self.one("reading the tally", sql, &[&section.as_str()]).await?;
        let [blocks, rows, digests]: [Vec<i64>; 3] = [row.get(0), row.get(1), row.get(2)];
        let entries = rows.into_iter().zip(digests).map(|(rows, digest)| TallyEntry { rows, digest });
        let counted = Counted { last: row.get(3), open: row.get(4) };
        let mut evidence = Evidence::of_share(share, Tally(blocks.into_iter().zip(entries).collect()));
        self.add_batches(section, i64::MIN, &counted, &mut evidence).await?;
        Ok(evidence)
    }

    /// The same, of this batch and later ones, without the tally.
    pub(crate) async fn evidence_since(&self, section: &SectionName, first: i64) -> Result<Evidence, StateError> {
        let mut evidence = Evidence::default();
        self.add_batches(section, first, &Counted::default(), &mut evidence).await?;
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

    async fn add_batches(
        &self,
        section: &SectionName,
        first: i64,
        counted: &Counted,
        evidence: &mut Evidence,
    ) -> Result<(), StateError> {
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
                        evidence.delivered(&keys, delivered_by(row.get(1)), counted.holds(id));
                    }
                    Some(Outcome::InDoubt) if row.get(4) && counted.holds(id) => {
                        evidence.in_doubt_for_good(keys, delivered_by(row.get(1)));
                    }
                    Some(Outcome::InDoubt) => evidence.in_doubt(keys),
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

    /// The last batch of a section that has ended, by when it began: in that order they are pruned.
    pub(crate) async fn last_ended(&self, section: &SectionName) -> Result<Option<i64>, StateError> {
        let sql = "SELECT id FROM {schema}.delivery
             WHERE section = $1 AND (outcome NOT IN ('sending', 'in_doubt') OR unresolved)
             ORDER BY started_at DESC, id DESC LIMIT 1";
        Ok(self.query("looking for the last batch", sql, &[&section.as_str()]).await?.first().map(|row| row.get(0)))
    }

    /// Since when a section's rows are proven by their keys, and since when by counts.
    pub(crate) async fn proof_reach(&self, section: &SectionName) -> Result<ProofReach, StateError> {
        let sql = format!(
            "SELECT {}, d.first_key, CASE WHEN s.provable_from IS NULL THEN {} END
             FROM {{schema}}.section s LEFT JOIN LATERAL (
                SELECT d.started_at, d.first_key FROM {{schema}}.delivery_keys k JOIN {{schema}}.delivery d ON d.id = k.delivery
                WHERE k.section = s.name ORDER BY k.delivery LIMIT 1) d ON true
             WHERE s.name = $1",
            rfc3339("d.started_at"),
            rfc3339("s.attached_at")
        );
        let rows = self.query("reading how far back keys are kept", &sql, &[&section.as_str()]).await?;
        let reach = rows.first().map(|row| ProofReach {
            by_key_since: row.get(0),
            by_key_from: row.get(1),
            by_count_since: row.get(2),
        });
        Ok(reach.unwrap_or_default())
    }

    /// Reads how far back the state can prove a section's rows.
    pub(crate) async fn proof_bounds(&self, section: &SectionName) -> Result<ProofBounds, StateError> {
        let sql = "SELECT s.provable_from, s.attach_xmin, i.xmin_floor, i.checkpoint FROM {schema}.section s, {schema}.instance i
             WHERE s.name = $1";
        let rows = self.query("reading how far back keys are kept", sql, &[&section.as_str()]).await?;
        let bounds = rows.first().map(|row| ProofBounds {
            provable_from: row.get(0),
            attach_xmin: row.get::<_, Option<i64>>(1).map(unsigned),
            xmin_floor: row.get::<_, Option<i64>>(2).map(unsigned),
            checkpoint: lsn(row, 3).unwrap_or_default(),
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

    /// Rows of the quarantine whose key was delivered after they went there: by a re-sync, or because another row, or another
    /// version, has the key now; or `again` alone: by what sends a version that was sent before. A retry delivers what leaves the
    /// quarantine by it, and nothing else.
    pub(crate) async fn delivered_since(
        &self,
        section: &SectionName,
        ids: &[i64],
        again: bool,
    ) -> Result<Vec<i64>, StateError> {
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
                AND d.phase <> 'retry' AND (NOT $5 OR d.phase IN ('backfill', 'resync', 'repair'))
             ORDER BY d.id LIMIT $3";
        let (mut found, mut after) = (Vec::new(), i64::MIN);
        loop {
            let page = self.query(doing, sql, &[&section.as_str(), &after, &PAGE, &ids, &again]).await?;
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
}

/// The batches that a tally counts.
#[derive(Default)]
struct Counted {
    /// None after this one.
    last: i64,
    /// None of these.
    open: Vec<i64>,
}

impl Counted {
    fn holds(&self, id: i64) -> bool {
        id <= self.last && !self.open.contains(&id)
    }
}

fn delivered_by(phase: &str) -> DeliveredBy {
    match phase {
        "backfill" | "stream" => DeliveredBy::Course,
        "resync" => DeliveredBy::Resync,
        _ => DeliveredBy::Request,
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
