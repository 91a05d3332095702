//! Reading a key range in chunks: `COPY (SELECT …) TO STDOUT`, each a transaction of its own.
//!
//! * In: a section's table and columns, and the range.
//! * Out: [`Piece`]s in key order, with the WAL position that the stream must have passed before they may be used.
//! * Never: a snapshot that outlives one chunk; a row hidden by row-level security without an error; a value that is too
//!   large to hold, or a chunk much larger than [`PIECE_MAX`].

use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::{Client, Error};

use super::table::TableInfo;
use super::{copy, fence, guard, quote};
use crate::config::Section;
use crate::row::{Key, Lsn, Rows};

/// What is read for a section.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The `SELECT` list, quoted.
    list: String,
    /// What follows `FROM`, quoted.
    from: String,
    key: String,
    width: usize,
    /// The list has one column more, which marks values that were left out.
    marked: bool,
}

/// A chunk as read.
#[derive(Debug)]
pub struct Piece {
    /// Rows in key order.
    pub rows: Rows,
    /// Taken after the rows: what they show was committed before.
    pub wait_for: Lsn,
    /// The rows were large: reading stopped before the limit, and there may be more.
    pub cut: bool,
}

/// Text bytes that a chunk aims at.
const CHUNK_BYTES: usize = 2 << 20;
/// Rows of the first chunk, before a row's size is known.
const FIRST_CHUNK: usize = 500;
const MAX_CHUNK: usize = 20_000;
/// A chunk whose rows are much larger than expected is cut at this size.
const PIECE_MAX: usize = 8 << 20;

/// Settings of a session that reads ranges. `row_security = off` makes a policy that would hide rows an error.
pub const SESSION: &str = "SET row_security = off; SET default_transaction_read_only = on; SET statement_timeout = 0";

impl Selection {
    /// Selects `columns` (of which one is the key) of a table.
    pub fn new(section: &Section, table: &TableInfo, columns: &[String]) -> Selection {
        let typed = |name: &String| table.column(name).map_or(0, |column| column.type_oid);
        let guarded = columns.iter().map(|name| (name.as_str(), (*name != section.key).then(|| typed(name))));
        let (list, marked) = guard::list(guarded);
        Selection {
            list,
            from: table.from_clause(),
            key: quote::ident(&section.key),
            width: columns.len(),
            marked,
        }
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

    /// `key > … AND `, or nothing.
    fn after(&self, key: Option<&Key>) -> String {
        key.map_or(String::new(), |key| format!("{} > {} AND ", self.key, quote::literal(&key.to_string())))
    }

    /// Reads the next chunk.
    ///
    /// # Errors
    /// Where a statement fails.
    pub async fn read(
        &self,
        client: &Client,
        after: Option<&Key>,
        through: &Key,
        limit: usize,
    ) -> Result<Piece, Error> {
        let (rows, cut) = self.copy(client, &self.sql(after, through, limit), PIECE_MAX).await?;
        Ok(Piece { rows, wait_for: fence::insert_lsn(client).await?, cut })
    }

    /// Reads rows by their keys (for quarantine's retry).
    ///
    /// # Errors
    /// Where the statement fails.
    pub async fn read_keys(&self, client: &Client, keys: &[String]) -> Result<Rows, Error> {
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

    /// Reads until the rows weigh `most`; the server's rest is read and forgotten by the connection itself. Returns
    /// whether that was so.
    async fn copy(&self, client: &Client, sql: &str, most: usize) -> Result<(Rows, bool), Error> {
        let mut rows = Rows::new(self.width);
        let mut lines = pin!(client.copy_out(sql).await?);
        while let Some(line) = lines.try_next().await? {
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            rows.push_with(|data, cells| {
                let first = cells.len();
                copy::line(line, data, cells);
                if self.marked {
                    guard::mark(data, cells, first);
                }
            });
            if rows.weight() >= most {
                return Ok((rows, true));
            }
        }
        Ok((rows, false))
    }

    /// The greatest key behind `after`, as text.
    ///
    /// # Errors
    /// Where the statement fails.
    pub async fn ceiling(&self, client: &Client, after: Option<&Key>) -> Result<Option<String>, Error> {
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
    pub async fn estimate(&self, client: &Client, after: Option<&Key>, through: &Key) -> Result<u64, Error> {
        let (key, from, after) = (&self.key, &self.from, self.after(after));
        let through = quote::literal(&through.to_string());
        let sql = format!("EXPLAIN (FORMAT JSON) SELECT 1 FROM {from} WHERE {after}{key} <= {through}");
        let mut rows = client.simple_query(&sql).await?.into_iter();
        let text = rows.find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(ToOwned::to_owned),
            _ => None,
        });
        let plan: serde_json::Value = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Ok(plan.pointer("/0/Plan/Plan Rows").and_then(serde_json::Value::as_u64).unwrap_or_default())
    }
}

/// Rows for the next chunk, from what the last one weighed.
pub fn next_limit(last: Option<&Rows>) -> usize {
    let Some(rows) = last.filter(|rows| !rows.is_empty()) else { return FIRST_CHUNK };
    let row = (rows.weight() / rows.len()).max(1);
    (CHUNK_BYTES / row).clamp(1, MAX_CHUNK)
}
