//! The writes of the leader, as statements: which SQL an [`Op`] is, and with which parameters. Pure.
//!
//! * In: a list of [`Op`]s.
//! * Out: a list of [`BoundParam`] statements in the same order; rows that go into quarantine one after the other are one.
//! * Never: a position, a checkpoint or a ledger row moved back: the statements themselves refuse it.

use std::borrow::Cow;

use tokio_postgres::types::{PgLsn, ToSql};

use crate::audit::TallyEntry;
use crate::model::{Lsn, Position, SectionName, SeenRow};
use crate::state::model::{Delivery, DiffRun, Op, Quarantined, RangeStart, SectionPhase, Totals, signed};

/// The batch is in doubt for good.
const UNRESOLVED: &str = "UPDATE {schema}.delivery SET outcome = 'in_doubt', unresolved = true, under_way = false,
        http_status = $2, error = $3, finished_at = now(), epoch = $4, changed = $5
     WHERE id = $1 AND outcome = 'sending'";

// The counts of a backfill that has ended stay, to be shown: its last batch is counted as it ends.
const CHECKPOINT: &str = "UPDATE {schema}.section SET
                    (position_lsn, position_change_lsn, position_ordinal) = (
                        SELECT p.lsn, p.change_lsn, p.ordinal
                        FROM (VALUES (position_lsn, position_change_lsn, position_ordinal),
                            ($2::pg_lsn, $15::pg_lsn, $3::bigint)) AS p (lsn, change_lsn, ordinal)
                        ORDER BY p.lsn DESC NULLS LAST, p.change_lsn DESC, p.ordinal DESC LIMIT 1),
                    phase = coalesce($4::text, phase),
                    cursor = CASE WHEN $4 IS NULL THEN cursor ELSE $5::text END,
                    ceiling = CASE WHEN $4 IS NULL THEN ceiling ELSE $6::text END,
                    streamed = CASE WHEN $4 IS NULL THEN streamed ELSE coalesce($7::text, '') END,
                    backfill_rows = CASE WHEN $8::bigint IS NOT NULL THEN $8
                        WHEN $4 = 'streaming' AND phase IN ('backfilling', 'resyncing') THEN backfill_rows + $10 + $11
                        ELSE backfill_rows END,
                    backfill_estimated = coalesce($9::bigint, backfill_estimated),
                    gap_floor = CASE WHEN $4 IS NULL THEN gap_floor ELSE $14::bigint END,
                    range_known = CASE WHEN $4 IS NULL THEN range_known ELSE $16::boolean END,
                    range_from = CASE WHEN $4 IS NULL THEN range_from ELSE $17::text END,
                    backfill_started_at = CASE WHEN $4 IN ('backfilling', 'resyncing') AND phase <> $4 THEN now()
                        ELSE backfill_started_at END,
                    rows_delivered = rows_delivered + $10, rows_quarantined = rows_quarantined + $11,
                    rows_in_doubt = rows_in_doubt + $12, rows_resent = rows_resent + $13,
                    last_delivered_at = CASE WHEN $10 > 0 THEN now() ELSE last_delivered_at END
                 WHERE name = $1";

const KEYS: &str = "INSERT INTO {schema}.delivery_keys (delivery, section, keys) VALUES ($1, $2, $3)
                 ON CONFLICT (delivery) DO UPDATE SET keys = excluded.keys";

const TALLY: &str = "INSERT INTO {schema}.tally AS t (section, block, rows, digest)
                 SELECT $1, n.block, n.rows, n.digest
                 FROM unnest($2::bigint[], $3::bigint[], $4::bigint[]) AS n (block, rows, digest)
                 ON CONFLICT (section, block) DO UPDATE
                    SET rows = t.rows + excluded.rows, digest = t.digest # excluded.digest";

const SEEN: &str = "INSERT INTO {schema}.seen (section, run, first, columns, rows, entries)
                 VALUES ($1, $2, $3, $4, $5, $6)";

const COMPARED: &str =
    "INSERT INTO {schema}.diff AS d (section, run, started_at, ended_at, rows, new, changed, gone, key,
                    columns)
                 VALUES ($1, $2, $3::text::timestamptz, now(), $4, $5, $6, $7, $8, $9)
                 ON CONFLICT (section) DO UPDATE SET run = excluded.run, started_at = excluded.started_at,
                    ended_at = excluded.ended_at, rows = excluded.rows, new = excluded.new, changed = excluded.changed,
                    gone = excluded.gone, key = excluded.key, columns = excluded.columns";

/// A prepared statement of the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Write {
    /// Takes the row of `instance` for this transaction, if the epoch and the number are the next ones.
    Fence,
    Sending,
    Retrying,
    Ended,
    Keys,
    Tally,
    Unresolved,
    Withdrawn,
    Checkpoint,
    Streamed,
    Quarantine,
    Unquarantine,
    Published,
    Halted,
    Handled,
    Seen,
    Forget,
    Compared,
}

impl Write {
    /// Whether the list is nothing without a row that this one changes.
    pub(crate) fn must_change(self) -> bool {
        matches!(self, Write::Fence | Write::Sending | Write::Checkpoint | Write::Halted)
    }

    /// The statement as it is prepared: one that must change a row divides by how many it changed. The COMMIT is under way before
    /// anybody here could count.
    pub(crate) fn checked_sql(self) -> Cow<'static, str> {
        if !self.must_change() {
            return Cow::Borrowed(self.sql());
        }
        Cow::Owned(format!("WITH changed AS ({} RETURNING 1) SELECT 1 / count(*) FROM changed", self.sql()))
    }

    pub(crate) fn sql(self) -> &'static str {
        match self {
            Write::Fence => {
                "UPDATE {schema}.instance SET applied_seq = $2, applied_digest = $3,
                    checkpoint = greatest(checkpoint, $4::pg_lsn), xmin_floor = greatest(xmin_floor, $5::bigint),
                    last_delivery = greatest(last_delivery, $6::bigint)
                 WHERE id = 1 AND epoch = $1 AND applied_seq = $2::bigint - 1"
            }
            // What an earlier attempt brought back stays to be seen while the next one is under way. A row that has
            // ended never becomes `sending` again.
            Write::Sending => {
                "INSERT INTO {schema}.delivery AS d (id, section, phase, rows, bytes, first_key, last_key, first_lsn,
                    first_change_lsn, first_ordinal, last_lsn, last_change_lsn, last_ordinal, outcome, under_way,
                    attempts, epoch, changed, first_digest, last_digest)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 'sending', true, $14, $15, $16, $17, $18)
                 ON CONFLICT (id) DO UPDATE SET section = excluded.section, phase = excluded.phase,
                    rows = excluded.rows, bytes = excluded.bytes, first_key = excluded.first_key,
                    last_key = excluded.last_key, first_lsn = excluded.first_lsn,
                    first_change_lsn = excluded.first_change_lsn, first_ordinal = excluded.first_ordinal,
                    last_lsn = excluded.last_lsn, last_change_lsn = excluded.last_change_lsn,
                    last_ordinal = excluded.last_ordinal, first_digest = excluded.first_digest,
                    last_digest = excluded.last_digest, outcome = 'sending', under_way = true,
                    attempts = excluded.attempts, finished_at = NULL, epoch = excluded.epoch,
                    changed = excluded.changed
                 WHERE d.outcome IN ('sending', 'in_doubt')"
            }
            Write::Retrying => {
                "UPDATE {schema}.delivery SET under_way = false, http_status = $2, error = $3, epoch = $4, changed = $5
                 WHERE id = $1 AND outcome = 'sending'"
            }
            Write::Ended => {
                // What came back stays to be seen when rows that were in doubt are sent again.
                "UPDATE {schema}.delivery SET outcome = $2, under_way = false,
                    http_status = coalesce($3::integer, http_status),
                    error = CASE WHEN outcome = 'in_doubt' AND $4::text = '' THEN error ELSE $4 END,
                    finished_at = now(), epoch = $5, changed = $6
                 WHERE id = $1 AND outcome IN ('sending', 'in_doubt')"
            }
            Write::Keys => KEYS,
            Write::Tally => TALLY,
            Write::Unresolved => UNRESOLVED,
            Write::Withdrawn => "DELETE FROM {schema}.delivery WHERE id = $1 AND outcome = 'sending' AND NOT under_way",
            Write::Checkpoint => CHECKPOINT,
            // What it takes away, it sees as it was before.
            Write::Streamed => {
                "WITH forgotten AS (DELETE FROM {schema}.streamed WHERE section = $1 AND $2)
                 INSERT INTO {schema}.streamed (section, keys) SELECT $1, $3::bytea WHERE length($3) > 0"
            }
            Write::Quarantine => {
                "INSERT INTO {schema}.quarantine (section, key, reason, item, lsn, change_lsn, ordinal, delivery)
                 SELECT section, key, reason, item, lsn, change_lsn, ordinal, delivery
                 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::pg_lsn[], $6::pg_lsn[], $7::bigint[],
                    $8::bigint[]) WITH ORDINALITY AS q (section, key, reason, item, lsn, change_lsn, ordinal, delivery, n)
                 ORDER BY n"
            }
            Write::Seen => SEEN,
            Write::Forget => "DELETE FROM {schema}.seen WHERE section = $1",
            Write::Compared => COMPARED,
            Write::Unquarantine => "DELETE FROM {schema}.quarantine WHERE id = ANY ($1::bigint[])",
            Write::Published => "UPDATE {schema}.section SET publication_entry = $2 WHERE name = $1",
            Write::Halted => "UPDATE {schema}.section SET halted_reason = $2, halted_remedy = $3 WHERE name = $1",
            Write::Handled => {
                "UPDATE {schema}.event SET handled_at = now(), result = $2 WHERE id = $1 AND handled_at IS NULL"
            }
        }
    }
}

/// A parameter, owned or borrowed from the list of writes.
pub(crate) type Param<'a> = Box<dyn ToSql + Sync + Send + 'a>;

/// A statement with its parameters.
pub(crate) struct BoundParam<'a> {
    pub(crate) write: Write,
    pub(crate) params: Vec<Param<'a>>,
}

macro_rules! bound {
    ($write:expr, $($param:expr),* $(,)?) => {
        BoundParam { write: $write, params: vec![$(Box::new($param) as Param<'_>),*] }
    };
}

/// What every statement of one list shares.
#[derive(Clone, Copy)]
pub(crate) struct Under {
    pub(crate) epoch: i64,
    pub(crate) seq: i64,
    pub(crate) digest: i64,
}

/// The statements of one list; the first is the fence, which carries the list's marks.
pub(crate) fn statements<'a>(
    under: Under,
    ops: &'a [Op],
    text: impl Fn(&'a str) -> Cow<'a, str> + Copy,
) -> Vec<BoundParam<'a>> {
    let mut all = vec![fence(under, ops)];
    let mut rest = ops;
    while let Some((op, after)) = rest.split_first() {
        rest = after;
        match op {
            Op::Sending { delivery, attempt } => all.push(sending(under, delivery, *attempt, text)),
            Op::Retrying { id, http_status, error } => {
                let status = http_status.map(i32::from);
                all.push(bound!(Write::Retrying, *id, status, text(error), under.epoch, under.seq));
            }
            Op::Ended { id, outcome, http_status, error } => {
                let (word, status) = (outcome.as_str(), http_status.map(i32::from));
                all.push(bound!(Write::Ended, *id, word, status, text(error), under.epoch, under.seq));
            }
            Op::Keys { delivery, section, keys, tally } => {
                all.push(bound!(Write::Keys, *delivery, section.as_str(), keys.as_slice()));
                if !tally.is_empty() {
                    all.push(tally_of(section, tally));
                }
            }
            Op::Unresolved { id, http_status, error } => {
                let status = http_status.map(i32::from);
                all.push(bound!(Write::Unresolved, *id, status, text(error), under.epoch, under.seq));
            }
            Op::Withdrawn { id } => all.push(bound!(Write::Withdrawn, *id)),
            Op::SectionCheckpoint { section, position, phase, add } => {
                all.push(checkpoint(section, *position, phase.as_ref(), *add));
            }
            Op::Streamed { section, all: whole, keys } => {
                all.push(bound!(Write::Streamed, section.as_str(), *whole, keys.as_slice()));
            }
            Op::Quarantine(first) => {
                let others = after.iter().map_while(|op| if let Op::Quarantine(row) = op { Some(row) } else { None });
                let rows: Vec<&Quarantined> = std::iter::once(first).chain(others).collect();
                rest = &after[rows.len() - 1..];
                all.push(quarantine(&rows, text));
            }
            Op::Unquarantine(ids) => all.push(bound!(Write::Unquarantine, ids.as_slice())),
            Op::Published { section, entry } => all.push(bound!(Write::Published, section.as_str(), entry.as_str())),
            Op::Halted { section, why } => {
                let (reason, remedy) = why.as_ref().map(|(reason, remedy)| (text(reason), text(remedy))).unzip();
                all.push(bound!(Write::Halted, section.as_str(), reason, remedy));
            }
            Op::Seen { section, run, columns, rows } => {
                let count = i32::try_from(rows.len() / SeenRow::LEN).unwrap_or(i32::MAX);
                let first = rows.get(..16).unwrap_or_default();
                all.push(bound!(Write::Seen, section.as_str(), *run, first, *columns, count, rows.as_slice()));
            }
            Op::Forget { section } => all.push(bound!(Write::Forget, section.as_str())),
            Op::Compared { section, run } => all.push(compared(section, run)),
            Op::Handled { event, result } => all.push(bound!(Write::Handled, *event, text(result))),
            // In the fence.
            Op::Checkpoint { .. } => {}
        }
    }
    all
}

fn fence(under: Under, ops: &[Op]) -> BoundParam<'static> {
    let (mut checkpoint, mut floor, mut last) = (None, None, None);
    for op in ops {
        match op {
            Op::Checkpoint { checkpoint: at, xmin_floor } => {
                checkpoint = checkpoint.max(Some(*at));
                floor = floor.max(*xmin_floor);
            }
            Op::Sending { delivery, .. } => last = last.max(Some(delivery.id)),
            Op::Retrying { .. }
            | Op::Ended { .. }
            | Op::Keys { .. }
            | Op::Unresolved { .. }
            | Op::Withdrawn { .. }
            | Op::SectionCheckpoint { .. }
            | Op::Streamed { .. }
            | Op::Quarantine(_) => {}
            Op::Unquarantine(_) | Op::Published { .. } | Op::Halted { .. } | Op::Handled { .. } => {}
            Op::Seen { .. } | Op::Forget { .. } | Op::Compared { .. } => {}
        }
    }
    let (checkpoint, floor) = (checkpoint.map(|lsn| PgLsn::from(lsn.0)), floor.map(signed));
    bound!(Write::Fence, under.epoch, under.seq, under.digest, checkpoint, floor, last)
}

fn sending<'a>(
    under: Under,
    delivery: &'a Delivery,
    attempt: u32,
    text: impl Fn(&'a str) -> Cow<'a, str>,
) -> BoundParam<'a> {
    let int = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let (first, last) = delivery.span.unzip();
    let (first, last) = (columns(first), columns(last));
    bound!(
        Write::Sending,
        delivery.id,
        delivery.section.as_str(),
        delivery.phase.as_str(),
        int(delivery.rows),
        signed(delivery.bytes),
        text(&delivery.first_key),
        text(&delivery.last_key),
        first.0,
        first.1,
        first.2,
        last.0,
        last.1,
        last.2,
        int(attempt),
        under.epoch,
        under.seq,
        delivery.digests.map(|(first, _)| first.0.to_vec()),
        delivery.digests.map(|(_, last)| last.0.to_vec()),
    )
}

fn compared<'a>(section: &'a SectionName, run: &'a DiffRun) -> BoundParam<'a> {
    bound!(
        Write::Compared,
        section.as_str(),
        run.run,
        run.started_at.as_str(),
        signed(run.rows),
        signed(run.new),
        signed(run.changed),
        signed(run.gone),
        run.key.as_slice(),
        run.columns.as_slice(),
    )
}

fn checkpoint<'a>(
    section: &'a SectionName,
    position: Option<Position>,
    phase: Option<&'a SectionPhase>,
    add: Totals,
) -> BoundParam<'a> {
    let (lsn, change_lsn, ordinal) = columns(position);
    let progress = phase.and_then(SectionPhase::progress);
    bound!(
        Write::Checkpoint,
        section.as_str(),
        lsn,
        ordinal,
        phase.map(SectionPhase::as_str),
        progress.and_then(|p| p.cursor.as_deref()),
        progress.and_then(|p| p.ceiling.as_deref()),
        progress.map(|p| p.streamed.as_str()),
        progress.map(|p| signed(p.rows)),
        progress.map(|p| signed(p.estimated)),
        signed(add.delivered),
        signed(add.quarantined),
        signed(add.in_doubt),
        signed(add.resent),
        progress.and_then(|p| p.xmin_floor).map(signed),
        change_lsn,
        progress.is_some_and(|p| p.from != RangeStart::Unknown),
        progress.and_then(|p| p.from.key()),
    )
}

fn quarantine<'a>(rows: &[&'a Quarantined], text: impl Fn(&'a str) -> Cow<'a, str>) -> BoundParam<'a> {
    fn each<'a, T>(rows: &[&'a Quarantined], of: impl Fn(&'a Quarantined) -> T) -> Vec<T> {
        rows.iter().map(|row| of(row)).collect()
    }
    bound!(
        Write::Quarantine,
        each(rows, |row| row.section.as_str()),
        each(rows, |row| text(&row.key)),
        each(rows, |row| text(&row.reason)),
        each(rows, |row| text(&row.item)),
        each(rows, |row| columns(row.position).0),
        each(rows, |row| columns(row.position).1),
        each(rows, |row| columns(row.position).2),
        each(rows, |row| row.delivery),
    )
}

fn tally_of<'a>(section: &'a SectionName, tally: &'a [(i64, TallyEntry)]) -> BoundParam<'a> {
    let blocks: Vec<i64> = tally.iter().map(|(block, _)| *block).collect();
    let rows: Vec<i64> = tally.iter().map(|(_, entry)| entry.rows).collect();
    let digests: Vec<i64> = tally.iter().map(|(_, entry)| entry.digest).collect();
    bound!(Write::Tally, section.as_str(), blocks, rows, digests)
}

/// A position as its three columns.
pub(crate) fn columns(position: Option<Position>) -> (Option<PgLsn>, Option<PgLsn>, Option<i64>) {
    let lsn = |lsn: Lsn| PgLsn::from(lsn.0);
    position.map_or((None, None, None), |at| {
        (Some(lsn(at.final_lsn)), Some(lsn(at.change_lsn)), Some(i64::from(at.ordinal)))
    })
}
