//! What was settled of compared results: read in the order of the keys' digests, and merged where it is in many pieces.
//! (It is written by `apply`; here only what is there already is put together.)
//!
//! * In: a section.
//! * Out: the heads of its blocks, the blocks themselves, its last comparison, and which of its rows may be forgotten.
//! * Never: a block replaced that somebody changed meanwhile.

use tokio_postgres::Row;

use crate::model::{Fault, Forgotten, KeyDigest, SectionName, SeenRow};
use crate::state::model::{DiffRun, unsigned};
use crate::state::state_error::StateError;
use crate::state::store::{Store, rfc3339};

/// Where a block stands, and how many rows it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeenHead {
    /// The run that settled its rows.
    pub run: i64,
    /// Its first row.
    pub first: KeyDigest,
    /// A digest of the names of the columns whose values were compared.
    pub columns: i64,
    /// Its rows.
    pub rows: u32,
}

/// A block of settled rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeenBlock {
    /// The run that settled its rows.
    pub run: i64,
    /// A digest of the names of the columns whose values were compared.
    pub columns: i64,
    /// Its rows, encoded, in the order of their keys' digests.
    pub entries: Vec<u8>,
}

impl Store {
    /// The blocks of a section, in the order of their first rows.
    pub(crate) async fn seen_heads(&self, section: &SectionName) -> Result<Vec<SeenHead>, StateError> {
        let asked = "SELECT run, first, columns, rows FROM {schema}.seen WHERE section = $1 ORDER BY first, run";
        let rows = self.query("reading what was settled", asked, &[&section.as_str()]).await?;
        Ok(rows.iter().filter_map(head_of).collect())
    }

    /// The run that settled this row last, where it is settled.
    pub(crate) async fn seen_of(&self, section: &SectionName, key: KeyDigest) -> Result<Option<i64>, StateError> {
        // Of each run the last block that begins at or before the row is the only one that can have it.
        let asked = "SELECT DISTINCT ON (run) run, entries FROM {schema}.seen WHERE section = $1 AND first <= $2
             ORDER BY run DESC, first DESC";
        let key_bytes: &[u8] = &key.0;
        let rows = self.query("looking a settled row up", asked, &[&section.as_str(), &key_bytes]).await?;
        let has = |row: &&Row| {
            let entries: &[u8] = row.get(1);
            entries.chunks_exact(SeenRow::LEN).any(|entry| entry.starts_with(&key.0))
        };
        Ok(rows.iter().find(has).map(|row| row.get(0)))
    }

    /// These blocks, in any order.
    pub(crate) async fn seen_blocks(
        &self,
        section: &SectionName,
        heads: &[SeenHead],
    ) -> Result<Vec<SeenBlock>, StateError> {
        let (runs, firsts) = split(heads);
        let asked = "SELECT s.run, s.columns, s.entries FROM {schema}.seen s
             JOIN unnest($2::bigint[], $3::bytea[]) AS w (run, first) ON s.run = w.run AND s.first = w.first
             WHERE s.section = $1";
        let rows = self.query("reading what was settled", asked, &[&section.as_str(), &runs, &firsts]).await?;
        Ok(rows.iter().map(|row| SeenBlock { run: row.get(0), columns: row.get(1), entries: row.get(2) }).collect())
    }

    /// Puts `new` blocks in the place of `old` ones, where all of these are there still. `forgotten`: rows that are not in them
    /// any more.
    pub(crate) async fn replace_seen(
        &mut self,
        section: &SectionName,
        old: &[SeenHead],
        new: &[SeenBlock],
        forgotten: Option<&Forgotten>,
    ) -> Result<(), StateError> {
        let doing = "putting together what was settled";
        let name = section.as_str();
        let (runs, firsts) = split(old);
        let new: Vec<&SeenBlock> = new.iter().filter(|block| block.entries.len() >= SeenRow::LEN).collect();
        self.transaction(doing, "BEGIN", async |store| {
            let gone = "DELETE FROM {schema}.seen s USING unnest($2::bigint[], $3::bytea[]) AS w (run, first)
                 WHERE s.section = $1 AND s.run = w.run AND s.first = w.first";
            let changed = store.execute(doing, gone, &[&name, &runs, &firsts]).await?;
            if changed != old.len() as u64 {
                let what = "what was settled changed while it was put together";
                return Err(StateError::Unavailable(Fault::unavailable(what, "it is tried again by itself")));
            }
            if let Some(Forgotten { column, before }) = forgotten
                && store.execute(doing, FORGOTTEN, &[&name, &column.as_str(), &before.as_str()]).await? != 1
            {
                return Err(StateError::Unwritable(Fault::bug(
                    "rows are forgotten of a result that was never compared",
                )));
            }
            for block in new {
                let rows = i32::try_from(block.entries.len() / SeenRow::LEN).unwrap_or(i32::MAX);
                let (first, entries) = (&block.entries[..16], block.entries.as_slice());
                let write = "INSERT INTO {schema}.seen (section, run, first, columns, rows, entries)
                     VALUES ($1, $2, $3, $4, $5, $6)";
                store.execute(doing, write, &[&name, &block.run, &first, &block.columns, &rows, &entries]).await?;
            }
            Ok(())
        })
        .await
    }

    /// Which rows of a section's result may be forgotten, by each column that was its date then.
    pub(crate) async fn forgotten(&self, section: &SectionName) -> Result<Vec<Forgotten>, StateError> {
        let asked = "SELECT f.key, f.value FROM {schema}.diff d, jsonb_each_text(d.forgotten) f WHERE d.section = $1
             ORDER BY f.key";
        let rows = self.query("reading what was forgotten", asked, &[&section.as_str()]).await?;
        Ok(rows.iter().map(|row| Forgotten { column: row.get(0), before: row.get(1) }).collect())
    }

    /// The last comparison of each section that had one.
    pub(crate) async fn diff_runs(&self) -> Result<Vec<(SectionName, DiffRun)>, StateError> {
        let asked = format!(
            "SELECT section, run, {} AS started_at, {} AS ended_at, rows, new, changed, gone, key, columns, read_at
             FROM {{schema}}.diff ORDER BY section",
            rfc3339("started_at"),
            rfc3339("ended_at")
        );
        let rows = self.query("reading the last comparisons", &asked, &[]).await?;
        Ok(rows.iter().map(|row| (SectionName::from(row.get::<_, &str>("section")), run_of(row))).collect())
    }
}

/// Of two times of one column the later one counts; both are written in the same way.
const FORGOTTEN: &str = "UPDATE {schema}.diff SET forgotten = coalesce(forgotten, '{}')
    || jsonb_build_object($2::text, greatest(forgotten->>$2::text, $3::text)) WHERE section = $1";

fn split(heads: &[SeenHead]) -> (Vec<i64>, Vec<&[u8]>) {
    heads.iter().map(|head| (head.run, &head.first.0[..])).unzip()
}

fn head_of(row: &Row) -> Option<SeenHead> {
    let rows = u32::try_from(row.get::<_, i32>("rows")).unwrap_or(0);
    Some(SeenHead {
        run: row.get("run"),
        first: KeyDigest::from_bytes(row.get("first"))?,
        columns: row.get("columns"),
        rows,
    })
}

fn run_of(row: &Row) -> DiffRun {
    let count = |column: &str| unsigned(row.get(column));
    DiffRun {
        run: row.get("run"),
        started_at: row.get("started_at"),
        ended_at: row.get("ended_at"),
        rows: count("rows"),
        new: count("new"),
        changed: count("changed"),
        gone: count("gone"),
        key: row.get("key"),
        columns: row.get("columns"),
        read_at: row.get("read_at"),
    }
}
