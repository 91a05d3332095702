//! Reading a key range in chunks: `COPY (SELECT …) TO STDOUT`, each a transaction of its own.
//!
//! * In: a section's table and columns, and the range.
//! * Out: [`TableChunk`]s in key order, with the WAL position that the stream must have passed before they may be used.
//! * Never: a snapshot that outlives one chunk; a row hidden by row-level security without an error; a value that is too
//!   large to hold, or a chunk much larger than [`PIECE_MAX`].

use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::{Client, Error};

use crate::config::Section;
use crate::model::{Key, Lsn, Rows};
use crate::postgres::backfill::{copy_text, oversize_columns};
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::catalog::{quote, xmin_barrier};
use crate::postgres::connection::session::first_value;

/// What is read for a section.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// The `SELECT` list, quoted.
    list: String,
    /// What follows `FROM`, quoted.
    from: String,
    key: String,
    width: usize,
    /// `… AND `, or nothing: which rows count at all.
    only: String,
    /// The list has one column more, which marks values that were left out.
    marked: bool,
}

/// A chunk as read.
#[derive(Debug)]
pub(crate) struct TableChunk {
    /// Rows in key order.
    pub rows: Rows,
    /// Taken after the rows: what they show was committed before.
    pub wait_for: Lsn,
    /// There was more within the limit: the rows were larger than expected.
    pub cut: bool,
}

/// Text bytes that a chunk aims at.
const CHUNK_BYTES: usize = 2 << 20;
/// Rows of the first chunk, before a row's size is known.
const FIRST_CHUNK: usize = 16;
/// How much larger than the last a chunk may be: rows may grow along a table.
const GROWTH: usize = 8;
const MAX_CHUNK: usize = 20_000;

/// Settings of a session that reads ranges. `row_security = off` makes a policy that would hide rows an error.
pub(crate) const SESSION: &str =
    "SET row_security = off; SET default_transaction_read_only = on; SET statement_timeout = 0";

impl Selection {
    /// Selects `columns` (of which one is the key) of a table.
    pub(crate) fn new(section: &Section, table: &TableInfo, columns: &[String]) -> Selection {
        let typed = |name: &String| table.column(name).map_or(0, |column| column.type_oid);
        let guarded = columns.iter().map(|name| (name.as_str(), (*name != section.key).then(|| typed(name))));
        let (list, marked) = oversize_columns::list(guarded);
        Selection {
            list,
            from: table.as_from_clause(),
            key: quote::ident(&section.key),
            width: columns.len(),
            only: String::new(),
            marked,
        }
    }

    /// Only rows written by the transaction `floor` (a 64-bit xid) or a later one.
    ///
    /// A row shows the lower 32 bits of its xid, frozen or not. So it counts where it lies between the floor and the
    /// snapshot's end, less than 2^32 apart, modulo 2^32: a row that was frozen whole ages ago may be taken for a new
    /// one, a new one never for an old one. Xids below 3 are no transactions.
    pub(crate) fn since(mut self, floor: u64) -> Selection {
        self.only = format!(
            "xmin::text::bigint >= 3 AND ((xmin::text::bigint - {floor}) & 4294967295) <= (SELECT \
             pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint - {floor}) AND "
        );
        self
    }

    /// The same table, which may have been renamed.
    pub(crate) fn follow(&mut self, table: &TableInfo) {
        self.from = table.as_from_clause();
    }

    fn sql(&self, after: Option<&Key>, through: &Key, limit: usize) -> String {
        let after = self.after(after);
        format!(
            "COPY (SELECT {} FROM {} WHERE {after}{} <= {} ORDER BY {} LIMIT {limit}) TO STDOUT",
            self.list,
            self.from,
            self.key,
            quote::literal(&through.to_string()),
            self.key
        )
    }

    /// `key > … AND `, or nothing; and which rows count at all.
    fn after(&self, key: Option<&Key>) -> String {
        let after =
            key.map_or(String::new(), |key| format!("{} > {} AND ", self.key, quote::literal(&key.to_string())));
        format!("{after}{}", self.only)
    }

    /// Counts the rows behind `after`.
    ///
    /// # Errors
    /// Where the statement fails, or takes longer than the session allows.
    pub(crate) async fn count(&self, client: &Client, after: Option<&Key>) -> Result<u64, Error> {
        let (key, from, after) = (&self.key, &self.from, self.after(after));
        let sql = format!("SELECT count(*) FROM {from} WHERE {after}{key} IS NOT NULL");
        let rows: i64 = client.query_one(&sql, &[]).await?.get(0);
        Ok(u64::try_from(rows).unwrap_or_default())
    }

    /// Counts the rows, and gives the first and the last key as texts.
    ///
    /// # Errors
    /// As [`Selection::count`].
    pub(crate) async fn extent(&self, client: &Client) -> Result<(u64, Option<(String, String)>), Error> {
        let (key, from, only) = (&self.key, &self.from, &self.only);
        let sql =
            format!("SELECT count(*), min({key})::text, max({key})::text FROM {from} WHERE {only}{key} IS NOT NULL");
        let row = client.query_one(&sql, &[]).await?;
        let keys = row.get::<_, Option<String>>(1).zip(row.get::<_, Option<String>>(2));
        Ok((u64::try_from(row.get::<_, i64>(0)).unwrap_or_default(), keys))
    }

    /// The smallest key of a row that `condition` (SQL) holds for, and the key before it, as texts.
    ///
    /// # Errors
    /// Where the statement fails, or takes longer than the session allows.
    pub(crate) async fn first_where(
        &self,
        client: &Client,
        condition: &str,
    ) -> Result<Option<(String, Option<String>)>, Error> {
        let (key, from) = (&self.key, &self.from);
        let sql = format!(
            "SELECT first::text, (SELECT {key}::text FROM {from} WHERE {key} < first ORDER BY {key} DESC LIMIT 1)
             FROM (SELECT min({key}) AS first FROM {from} WHERE {condition}) AS found WHERE first IS NOT NULL"
        );
        Ok(client.query_opt(&sql, &[]).await?.map(|row| (row.get(0), row.get(1))))
    }

    /// Reads the next chunk.
    ///
    /// # Errors
    /// Where a statement fails.
    pub(crate) async fn read(
        &self,
        client: &Client,
        after: Option<&Key>,
        through: &Key,
        limit: usize,
    ) -> Result<TableChunk, Error> {
        // What is left out of a chunk that is cut is still sent, and thrown away unread: memory stays bounded.
        let (rows, cut) = self.copy(client, &self.sql(after, through, limit), 2 * CHUNK_BYTES).await?;
        Ok(TableChunk { rows, wait_for: xmin_barrier::insert_lsn(client).await?, cut })
    }

    /// Reads rows by their keys (for quarantine's retry).
    ///
    /// # Errors
    /// Where the statement fails.
    pub(crate) async fn read_keys(&self, client: &Client, keys: &[String]) -> Result<Rows, Error> {
        let list: Vec<String> = keys.iter().map(|key| quote::literal(key)).collect();
        let sql = format!(
            "COPY (SELECT {} FROM {} WHERE {} IN ({})) TO STDOUT",
            self.list,
            self.from,
            self.key,
            list.join(", ")
        );
        Ok(self.copy(client, &sql, usize::MAX).await?.0)
    }

    /// Reads the rows at one end of the table: the newest, or the oldest.
    ///
    /// # Errors
    /// Where the statement fails.
    pub(crate) async fn read_end(&self, client: &Client, newest: bool, limit: u32) -> Result<Rows, Error> {
        let (list, from, key, order) = (&self.list, &self.from, &self.key, if newest { "DESC" } else { "ASC" });
        let sql = format!(
            "COPY (SELECT {list} FROM {from} WHERE {key} IS NOT NULL ORDER BY {key} {order} LIMIT {limit}) TO STDOUT"
        );
        Ok(self.copy(client, &sql, usize::MAX).await?.0)
    }

    /// The rows, up to about `most` bytes of them; whether there were more.
    async fn copy(&self, client: &Client, sql: &str, most: usize) -> Result<(Rows, bool), Error> {
        let mut rows = Rows::new(self.width);
        let mut lines = pin!(client.copy_out(sql).await?);
        while let Some(line) = lines.try_next().await? {
            if rows.weight() >= most {
                return Ok((rows, true));
            }
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            rows.push_with(|data, cells| {
                let first = cells.len();
                copy_text::line(line, data, cells);
                if self.marked {
                    oversize_columns::mark(data, cells, first);
                }
            });
        }
        Ok((rows, false))
    }

    /// The greatest key behind `after`, as text.
    ///
    /// # Errors
    /// Where the statement fails.
    pub(crate) async fn ceiling(&self, client: &Client, after: Option<&Key>) -> Result<Option<String>, Error> {
        let (key, from, after) = (&self.key, &self.from, self.after(after));
        // Ordered in a query of its own: beside `key::text`, ORDER BY would take the output column, and order as text.
        let sql = format!(
            "SELECT greatest.key::text FROM (
                SELECT {key} AS key FROM {from} WHERE {after}{key} IS NOT NULL ORDER BY {key} DESC LIMIT 1) greatest"
        );
        Ok(client.query_opt(&sql, &[]).await?.map(|row| row.get(0)))
    }

    /// How many rows the planner expects in the range.
    ///
    /// # Errors
    /// Where the statement fails.
    pub(crate) async fn estimate(&self, client: &Client, after: Option<&Key>, through: &Key) -> Result<u64, Error> {
        let (key, from, after) = (&self.key, &self.from, self.after(after));
        let through = quote::literal(&through.to_string());
        let sql = format!("EXPLAIN (FORMAT JSON) SELECT 1 FROM {from} WHERE {after}{key} <= {through}");
        let text = first_value(&client.simple_query(&sql).await?);
        let plan: serde_json::Value = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Ok(plan.pointer("/0/Plan/Plan Rows").and_then(serde_json::Value::as_u64).unwrap_or_default())
    }
}

/// Rows for the next chunk, from what the last one weighed.
pub(crate) fn next_limit(last: Option<&Rows>) -> usize {
    let Some(rows) = last.filter(|rows| !rows.is_empty()) else { return FIRST_CHUNK };
    let row = (rows.weight() / rows.len()).max(1);
    (CHUNK_BYTES / row).clamp(1, MAX_CHUNK.min(rows.len() * GROWTH))
}
