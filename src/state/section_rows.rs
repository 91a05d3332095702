//! The rows of `section`: what each section is attached to, how far it is, and what people asked of it.
//!
//! * In: attachments and re-syncs, under the leader's epoch; pauses, by anybody.
//! * Out: [`SectionRow`]s.
//! * Never: totals set back; an attachment written by a process whose epoch is past.

use std::collections::HashMap;

use tokio_postgres::Row;
use tokio_postgres::types::PgLsn;

use crate::config::definition::{Definition, NO_RULES};
use crate::model::{Lsn, Position, SectionName};
use crate::state::attachment::{Attachment, columns_json};
use crate::state::model::{BackfillProgress, RangeStart, SectionPhase, Totals, signed, unsigned};
use crate::state::state_error::StateError;
use crate::state::store::{Epoch, Store, rfc3339};

/// The rules that leave rows out of a section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// As they were taken over last; empty: not yet; `None`: by a version that did not record them.
    pub recorded: Option<String>,
    /// Transactions from this 64-bit xid on are judged by them alone; `None`: all are.
    pub since: Option<u64>,
}

impl Rules {
    /// That is not known yet.
    pub(crate) const OPEN: u64 = i64::MAX.unsigned_abs();

    /// Whether, taken over with these rules now, since when they hold is to be found out.
    pub(crate) fn is_open_with(&self, now: &str) -> bool {
        let is_known = |before: &str| before.is_empty() || before == NO_RULES || before == now;
        self.since == Some(Rules::OPEN) || !self.recorded.as_deref().is_some_and(is_known)
    }
}

/// How the reason begins for which a section halts whose range has ended with rows that it does not account for.
pub(crate) const RANGE_SHORT: &str = "the backfill has ended, and";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectionRow {
    pub name: SectionName,
    /// The table and columns that the section is attached to.
    pub attachment: Attachment,
    /// When it was attached: RFC 3339, UTC.
    pub attached_at: Option<String>,
    /// How the section gets its rows.
    pub phase: SectionPhase,
    /// The columns of its key when it was last taken over; `None` where no version recorded that.
    pub key: Option<Vec<String>>,
    /// The rest of it then.
    pub definition: Option<Definition>,
    /// Since when the rules that leave rows out are the recorded ones.
    pub rules: Rules,
    /// While it waits: the oldest transaction (64-bit xid) that had written to its table when the publication carried it.
    pub writers_from: Option<u64>,
    /// Streamed rows up to here are settled.
    pub position: Option<Position>,
    /// Rows settled by the last backfill or re-sync; also after it has ended.
    pub backfill_rows: u64,
    /// Rows that the backfill has to read, estimated when it began.
    pub backfill_estimated: u64,
    /// When it began.
    pub backfill_started_at: Option<String>,
    /// Totals since the section was first attached.
    pub totals: Totals,
    /// The entries that published its table when it was first seen in order; `None`: not recorded yet.
    pub publication_entry: Option<String>,
    /// Whether a person paused it.
    pub paused: bool,
    /// Reason and remedy, where the section is halted.
    pub halted: Option<(String, String)>,
    /// It halted because its range ended short, and no audit has looked at the whole of it since.
    pub uncounted: bool,
    /// When rows of it were last received.
    pub last_delivered_at: Option<String>,
    /// The newest of its audits, whoever made it.
    pub last_audit: Option<i64>,
}

impl SectionRow {
    /// A section that waits to be attached, for the first time.
    pub(crate) fn waiting(name: &SectionName, attachment: Attachment) -> SectionRow {
        SectionRow {
            name: name.clone(),
            attachment,
            attached_at: None,
            phase: SectionPhase::Waiting,
            key: None,
            definition: None,
            rules: Rules::default(),
            writers_from: None,
            position: None,
            backfill_rows: 0,
            backfill_estimated: 0,
            backfill_started_at: None,
            totals: Totals::default(),
            publication_entry: None,
            paused: false,
            halted: None,
            uncounted: false,
            last_delivered_at: None,
            last_audit: None,
        }
    }
}

/// Of a section `s`. Batches and audits are dated by the same clock.
const UNCOUNTED: &str = "coalesce(s.halted_reason LIKE 'the backfill has ended, and%', false) AND NOT EXISTS (
    SELECT FROM {schema}.audit a WHERE a.section = s.name AND a.result->>'whole' = 'true'
        AND a.result->'horizon'->>'settled' IS NOT NULL
        AND a.at > (SELECT max(d.finished_at) FROM {schema}.delivery d
            WHERE d.section = s.name AND d.phase IN ('backfill', 'resync')))";

impl Store {
    /// Records that the publication of updates carries these tables no more: what a section knew of its entry there is
    /// forgotten. `parting` is what stands between the two entries.
    pub(crate) async fn forget_update_entries(&self, tables: &[u32], parting: &str) -> Result<(), StateError> {
        let write = "UPDATE {schema}.section SET publication_entry = split_part(publication_entry, $2, 1)
             WHERE table_oid = ANY($1)";
        self.execute("recording what the publication of updates carries", write, &[&tables, &parting]).await?;
        Ok(())
    }

    /// All sections, by name.
    pub(crate) async fn sections(&self) -> Result<Vec<SectionRow>, StateError> {
        let sql = format!(
            "SELECT name, table_oid, table_name, kind, attach_lsn, columns::text, key_columns, definition::text AS definition,
                {} AS attached_at, phase, cursor, ceiling, streamed, range_known, range_from, gap_floor, backfill_rows,
                backfill_estimated, {} AS backfill_started_at, position_lsn,
                position_change_lsn, position_ordinal, rows_delivered, rows_quarantined, rows_in_doubt, rows_resent, paused, halted_reason,
                halted_remedy, publication_entry, {} AS last_delivered_at, {UNCOUNTED} AS uncounted, rules, rules_since,
                (SELECT max(id) FROM {{schema}}.audit a WHERE a.section = s.name) AS last_audit
             FROM {{schema}}.section s ORDER BY name",
            rfc3339("attached_at"),
            rfc3339("backfill_started_at"),
            rfc3339("last_delivered_at")
        );
        Ok(self.query("reading the sections", &sql, &[]).await?.iter().map(section_of).collect())
    }

    /// Records of a section that was attached just now: every transaction from this one on (64 bits) began after that.
    pub(crate) async fn record_attach_xmin(
        &self,
        term: &Epoch,
        name: &SectionName,
        xmin: u64,
    ) -> Result<(), StateError> {
        let write = "UPDATE {schema}.section SET attach_xmin = $3
             WHERE name = $2 AND EXISTS (SELECT FROM {schema}.instance WHERE id = 1 AND epoch = $1)";
        let doing = "recording when a section attached";
        self.execute(doing, write, &[&term.epoch, &name.as_str(), &signed(xmin)]).await?;
        Ok(())
    }

    /// Attaches a section, for the first time or anew: phase and attachment are replaced, its position is forgotten (it
    /// was of another attachment), and it is not halted. Totals and a pause stay.
    pub(crate) async fn attach_section(
        &self,
        term: &Epoch,
        name: &SectionName,
        to: &Attachment,
        phase: &SectionPhase,
    ) -> Result<(), StateError> {
        let write = "WITH held AS (SELECT 1 FROM {schema}.instance WHERE id = 1 AND epoch = $1 FOR SHARE),
             forgotten AS (DELETE FROM {schema}.streamed WHERE section = $2 AND NOT $17 AND EXISTS (SELECT FROM held))
             INSERT INTO {schema}.section (name, table_oid, table_name, kind, attach_lsn, attached_at, columns, phase,
                cursor, ceiling, streamed, backfill_rows, backfill_estimated, gap_floor, range_known, range_from,
                backfill_started_at)
             SELECT $2, $3::oid, $4::text, $5::text, $6::pg_lsn, CASE WHEN $6 IS NOT NULL THEN now() END,
                $7::text::jsonb, $8::text, $9::text, $10::text, $11::text, $12::bigint, $13::bigint, $14::bigint,
                $15::boolean, $16::text,
                CASE WHEN $8 IN ('backfilling', 'resyncing') THEN now() END
             FROM held
             ON CONFLICT (name) DO UPDATE SET table_oid = excluded.table_oid, table_name = excluded.table_name,
                kind = excluded.kind, attach_lsn = excluded.attach_lsn, attached_at = excluded.attached_at,
                columns = excluded.columns, phase = excluded.phase, cursor = excluded.cursor,
                ceiling = excluded.ceiling, streamed = excluded.streamed, backfill_rows = excluded.backfill_rows,
                backfill_estimated = excluded.backfill_estimated, gap_floor = excluded.gap_floor,
                range_known = excluded.range_known, range_from = excluded.range_from,
                backfill_started_at = excluded.backfill_started_at,
                publication_entry = NULL, attach_xmin = NULL, rules = '', rules_since = NULL,
                position_lsn = NULL, position_change_lsn = NULL, position_ordinal = NULL,
                halted_reason = NULL, halted_remedy = NULL";
        let nothing = BackfillProgress::default();
        let progress = phase.progress().unwrap_or(&nothing);
        let changed = self
            .execute(
                "attaching a section",
                write,
                &[
                    &term.epoch,
                    &name.as_str(),
                    &to.table_oid,
                    &self.text(&to.table_name),
                    &to.kind,
                    &to.attach_lsn.map(|lsn| PgLsn::from(lsn.0)),
                    &self.text(&columns_json(&to.columns)),
                    &phase.as_str(),
                    &progress.cursor,
                    &progress.ceiling,
                    &progress.streamed,
                    &signed(progress.rows),
                    &signed(progress.estimated),
                    &progress.xmin_floor.map(signed),
                    &(progress.from != RangeStart::Unknown),
                    &progress.from.key(),
                    &progress.resumes,
                ],
            )
            .await?;
        if changed == 0 { Err(self.past(term).await) } else { Ok(()) }
    }

    /// Lets a section go on as it is: its halt is over, and what publishes its table is recorded anew.
    pub(crate) async fn release_section(&self, name: &SectionName) -> Result<(), StateError> {
        let write = "UPDATE {schema}.section
             SET publication_entry = NULL, halted_reason = NULL, halted_remedy = NULL WHERE name = $1";
        self.execute("releasing a section", write, &[&name.as_str()]).await?;
        Ok(())
    }

    /// Reads, for each section whose range is under way, the keys that the stream brought beside it.
    pub(crate) async fn read_streamed(&self, sections: &mut [SectionRow]) -> Result<(), StateError> {
        let mut reading: HashMap<&str, &mut BackfillProgress> = HashMap::new();
        for row in sections {
            if let SectionPhase::Backfilling(progress) | SectionPhase::Resyncing(progress) = &mut row.phase {
                progress.streamed_sets.clear();
                reading.insert(row.name.as_str(), progress);
            }
        }
        if reading.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = reading.keys().copied().collect();
        let sql = "SELECT section, keys FROM {schema}.streamed WHERE section = ANY($1) ORDER BY id";
        for row in self.query("reading the streamed keys of backfills", sql, &[&names]).await? {
            if let Some(progress) = reading.get_mut(row.get::<_, &str>(0)) {
                progress.streamed_sets.push(row.get(1));
            }
        }
        Ok(())
    }

    /// Pauses or resumes a section, on a person's behalf. `false` where no section of this name was ever attached.
    pub(crate) async fn set_paused(&self, name: &SectionName, paused: bool) -> Result<bool, StateError> {
        let write = "UPDATE {schema}.section SET paused = $2 WHERE name = $1";
        Ok(self.execute("pausing a section", write, &[&name.as_str(), &paused]).await? > 0)
    }

    /// Why a write under this term changed nothing.
    async fn past(&self, term: &Epoch) -> StateError {
        match self.still_leads(term).await {
            Ok(()) => self.place.no_section("writing a section"),
            Err(error) => error,
        }
    }
}

fn section_of(row: &Row) -> SectionRow {
    let (rows, estimated) = (unsigned(row.get("backfill_rows")), unsigned(row.get("backfill_estimated")));
    let progress = || BackfillProgress {
        cursor: row.get("cursor"),
        ceiling: row.get("ceiling"),
        from: match row.get("range_known") {
            true => RangeStart::behind(row.get("range_from")),
            false => RangeStart::Unknown,
        },
        resumes: true,
        streamed: row.get("streamed"),
        streamed_sets: Vec::new(),
        rows,
        estimated,
        xmin_floor: row.get::<_, Option<i64>>("gap_floor").map(unsigned),
    };
    SectionRow {
        name: SectionName::from(row.get::<_, &str>("name")),
        attachment: Attachment {
            table_oid: row.get::<_, Option<u32>>("table_oid").unwrap_or(0),
            table_name: row.get::<_, Option<String>>("table_name").unwrap_or_default(),
            kind: row.get::<_, Option<String>>("kind").unwrap_or_default(),
            attach_lsn: lsn(row, "attach_lsn"),
            // Written by `columns_json`; what somebody else wrote there is no known column, that is: drift.
            columns: serde_json::from_str(row.get("columns")).unwrap_or_default(),
        },
        attached_at: row.get("attached_at"),
        key: row.get("key_columns"),
        // What somebody else wrote there is no known definition.
        definition: row.get::<_, Option<String>>("definition").and_then(|text| serde_json::from_str(&text).ok()),
        writers_from: row.get::<_, Option<i64>>("gap_floor").map(unsigned),
        phase: match row.get::<_, &str>("phase") {
            "backfilling" => SectionPhase::Backfilling(progress()),
            "resyncing" => SectionPhase::Resyncing(progress()),
            "streaming" => SectionPhase::Streaming,
            "comparing" => SectionPhase::Comparing,
            // The table's CHECK lets nothing else in.
            _ => SectionPhase::Waiting,
        },
        position: position(row, "position"),
        backfill_rows: rows,
        backfill_estimated: estimated,
        backfill_started_at: row.get("backfill_started_at"),
        totals: Totals {
            delivered: unsigned(row.get("rows_delivered")),
            quarantined: unsigned(row.get("rows_quarantined")),
            in_doubt: unsigned(row.get("rows_in_doubt")),
            resent: unsigned(row.get("rows_resent")),
        },
        publication_entry: row.get("publication_entry"),
        paused: row.get("paused"),
        halted: row.get::<_, Option<String>>("halted_reason").zip(row.get("halted_remedy")),
        rules: Rules { recorded: row.get("rules"), since: row.get::<_, Option<i64>>("rules_since").map(unsigned) },
        uncounted: row.get("uncounted"),
        last_delivered_at: row.get("last_delivered_at"),
        last_audit: row.get("last_audit"),
    }
}

/// A column that holds an LSN.
pub(crate) fn lsn(row: &Row, column: impl tokio_postgres::row::RowIndex + std::fmt::Display) -> Option<Lsn> {
    row.get::<_, Option<PgLsn>>(column).map(|lsn| Lsn(lsn.into()))
}

/// The three columns that hold a position, whose names begin so.
pub(crate) fn position(row: &Row, name: &str) -> Option<Position> {
    let part = |part: &str| lsn(row, format!("{name}_{part}").as_str());
    let ordinal: Option<i64> = row.get(format!("{name}_ordinal").as_str());
    Some(Position {
        final_lsn: part("lsn")?,
        change_lsn: part("change_lsn")?,
        ordinal: u32::try_from(ordinal?).unwrap_or(u32::MAX),
    })
}
