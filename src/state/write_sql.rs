//! The statements of the leader, as SQL. Pure.
//!
//! * In: which write it is.
//! * Out: its SQL, `{schema}` still in it.
//! * Never: a position, a checkpoint or a ledger row moved back: the statements themselves refuse it.

use std::borrow::Cow;

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

const FORGET: &str = "WITH older AS (UPDATE {schema}.diff SET forgotten =
                    CASE WHEN $2::text IS NOT NULL THEN jsonb_build_object($2::text, $3::text) END WHERE section = $1)
                 DELETE FROM {schema}.seen WHERE section = $1";

const COMPARED: &str =
    "INSERT INTO {schema}.diff AS d (section, run, started_at, ended_at, rows, new, changed, gone, key,
                    columns, read_at)
                 VALUES ($1, $2, $3::text::timestamptz, now(), $4, $5, $6, $7, $8, $9, $10)
                 ON CONFLICT (section) DO UPDATE SET run = excluded.run, started_at = excluded.started_at,
                    ended_at = excluded.ended_at, rows = excluded.rows, new = excluded.new, changed = excluded.changed,
                    gone = excluded.gone, key = excluded.key, columns = excluded.columns,
                    read_at = excluded.read_at";

// What an earlier attachment kept of its stream is forgotten with it.
const ATTACH: &str = "WITH forgotten AS (DELETE FROM {schema}.streamed WHERE section = $1)
                 INSERT INTO {schema}.section (name, table_oid, table_name, kind, attach_lsn, attached_at, columns, phase,
                    cursor, gap_floor, range_known, range_from, backfill_started_at)
                 VALUES ($1, $2::oid, $3::text, $4::text, $5::pg_lsn, CASE WHEN $5 IS NOT NULL THEN now() END,
                    $6::text::jsonb, $7::text, $8::text, $9::bigint, $10::boolean, $11::text,
                    CASE WHEN $7 = 'backfilling' THEN now() END)
                 ON CONFLICT (name) DO UPDATE SET table_oid = excluded.table_oid, table_name = excluded.table_name,
                    kind = excluded.kind, attach_lsn = excluded.attach_lsn, attached_at = excluded.attached_at,
                    columns = excluded.columns, phase = excluded.phase, cursor = excluded.cursor, ceiling = NULL,
                    streamed = '', backfill_rows = 0, backfill_estimated = 0, gap_floor = excluded.gap_floor,
                    range_known = excluded.range_known, range_from = excluded.range_from,
                    backfill_started_at = excluded.backfill_started_at, publication_entry = NULL, attach_xmin = NULL,
                    rules = '', rules_since = NULL,
                    position_lsn = NULL, position_change_lsn = NULL, position_ordinal = NULL,
                    halted_reason = NULL, halted_remedy = NULL";

// Where no rule left a row out, the new one alone ever did.
const DEFINED: &str = "UPDATE {schema}.section SET key_columns = $2, definition = $3::text::jsonb, rules = $4,
                    rules_since = CASE WHEN rules IN ('', 'none', $4) THEN rules_since ELSE 9223372036854775807 END
                 WHERE name = $1";

const RULES_SINCE: &str =
    "UPDATE {schema}.section SET rules_since = $2 WHERE name = $1 AND rules_since = 9223372036854775807";

const ATTACH_XIDS: &str = "UPDATE {schema}.section SET
                    gap_floor = CASE WHEN phase = 'waiting' THEN least(gap_floor, $2::bigint) ELSE gap_floor END,
                    attach_xmin = coalesce($3::bigint, attach_xmin)
                 WHERE name = $1";

/// A gap, unless one of the same section and reason is open: that one's end then, where it is known now. A re-sync that was to
/// close it does not have what it lacks now.
pub(crate) const OPEN_GAP: &str = "WITH open AS (
                SELECT id FROM {schema}.gap
                WHERE closed_at IS NULL AND reason = $2::text AND section IS NOT DISTINCT FROM $1::text
                ORDER BY id LIMIT 1),
             ended AS (
                UPDATE {schema}.gap SET to_lsn = coalesce($5::pg_lsn, to_lsn), closed_by = NULL
                FROM open WHERE gap.id = open.id),
             added AS (
                INSERT INTO {schema}.gap (section, reason, detail, from_lsn, to_lsn, xmin_floor)
                SELECT $1, $2, $3::text, $4::pg_lsn, $5::pg_lsn, $6::bigint WHERE NOT EXISTS (SELECT FROM open)
                RETURNING id)
             SELECT id FROM open UNION ALL SELECT id FROM added";

const COVER_GAPS: &str = "UPDATE {schema}.gap SET closed_by = $3
                 WHERE section = $1 AND id = ANY ($2::bigint[]) AND closed_at IS NULL";

const CLOSE_GAPS: &str = "UPDATE {schema}.gap SET closed_at = now()
                 WHERE section = $1 AND closed_at IS NULL AND closed_by IS NOT NULL";

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
    Attach,
    AttachXids,
    Defined,
    RulesSince,
    OpenGap,
    CoverGaps,
    CloseGaps,
    Handled,
    Seen,
    Forget,
    Compared,
}

impl Write {
    /// Whether the list is nothing without a row that this one changes.
    pub(crate) fn must_change(self) -> bool {
        match self {
            Write::Fence | Write::Sending | Write::Checkpoint | Write::Halted | Write::AttachXids | Write::Defined => {
                true
            }
            Write::Retrying | Write::Ended | Write::Keys | Write::Tally | Write::Unresolved | Write::Withdrawn => false,
            Write::Streamed
            | Write::Quarantine
            | Write::Unquarantine
            | Write::Published
            | Write::Attach
            | Write::RulesSince => false,
            Write::OpenGap
            | Write::CoverGaps
            | Write::CloseGaps
            | Write::Handled
            | Write::Seen
            | Write::Forget
            | Write::Compared => false,
        }
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
                    last_delivery = greatest(last_delivery, $6::bigint),
                    read_lsn = coalesce($7::pg_lsn, read_lsn),
                    read_xid = CASE WHEN $7 IS NULL THEN read_xid ELSE $8::bigint END,
                    read_commit = CASE WHEN $7 IS NULL THEN read_commit ELSE $9::bigint END
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
            Write::Forget => FORGET,
            Write::Compared => COMPARED,
            Write::Unquarantine => "DELETE FROM {schema}.quarantine WHERE id = ANY ($1::bigint[])",
            Write::Published => "UPDATE {schema}.section SET publication_entry = $2 WHERE name = $1",
            Write::Halted => "UPDATE {schema}.section SET halted_reason = $2, halted_remedy = $3 WHERE name = $1",
            Write::Attach => ATTACH,
            Write::Defined => DEFINED,
            Write::RulesSince => RULES_SINCE,
            Write::AttachXids => ATTACH_XIDS,
            Write::OpenGap => OPEN_GAP,
            Write::CoverGaps => COVER_GAPS,
            Write::CloseGaps => CLOSE_GAPS,
            Write::Handled => {
                "UPDATE {schema}.event SET handled_at = now(), result = $2 WHERE id = $1 AND handled_at IS NULL"
            }
        }
    }
}
