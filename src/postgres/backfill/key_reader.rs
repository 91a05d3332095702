//! The keys of a table, in key order, in chunks: what an audit holds against what was settled.
//!
//! * In: a table and its key columns.
//! * Out: the text of each key, as the server prints it; the rows that have certain keys, with their transactions.
//! * Never: a snapshot held longer than one chunk; a lock waited for longer than the session's bound; a sort of the table.

use std::pin::pin;
use std::sync::Arc;

use futures_util::TryStreamExt;
use tokio_postgres::{Client, Error};

use crate::model::{Cell, Key, Row, key_text};
use crate::postgres::backfill::copy_text;
use crate::postgres::backfill::one_row::one_row;
use crate::postgres::catalog::key_columns::KeyColumns;
use crate::postgres::catalog::quote;
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::connection::session::Session;

/// Settings of a session that reads keys: an index scan whatever the statistics say, short waits, nothing hidden by policies.
pub(crate) const KEY_SESSION: &str = "SET row_security = off; SET default_transaction_read_only = on;
    SET lock_timeout = '5s'; SET statement_timeout = '60s'; SET enable_sort = off";

/// Keys that one statement reads.
const CHUNK: usize = 50_000;
/// Keys that one statement looks up.
const LOOKED_UP: usize = 1_000;

/// Reads a table's keys.
#[derive(Debug)]
pub(crate) struct KeyReader {
    from: String,
    key: KeyColumns,
    /// Where the key's columns are in a row as read.
    places: Vec<usize>,
    /// Columns that are read beside the key, quoted.
    beside: Vec<String>,
    /// The last key that was read; `None` at the start.
    after: Option<Key>,
    done: bool,
}

/// A row that is there, and the transaction that wrote it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowSeen {
    /// Its key.
    pub key: String,
    /// The lower 32 bits of its xmin.
    pub xmin: u32,
}

impl KeyReader {
    /// Of this table's key columns, from behind `after`, or from the start.
    pub(crate) fn new(table: &TableInfo, key: &[String], after: Option<Key>) -> KeyReader {
        KeyReader {
            from: table.as_t(),
            key: KeyColumns::new(table, key),
            places: (0..key.len()).collect(),
            beside: Vec::new(),
            after,
            done: false,
        }
    }

    /// Reads these columns beside the key.
    pub(crate) fn beside(mut self, columns: &[String]) -> KeyReader {
        self.beside = columns.iter().map(|name| format!("t.{}", quote::ident(name))).collect();
        self
    }

    /// The next keys, each handed to `each` with the columns beside it; how many there were. None are left after an answer of 0.
    ///
    /// # Errors
    /// Where the statement fails, or waits for a lock longer than the session's bound.
    pub(crate) async fn chunk(
        &mut self,
        client: &Session,
        mut each: impl FnMut(&[u8], &Row<'_>),
    ) -> Result<usize, Error> {
        if self.done {
            return Ok(0);
        }
        let sql = format!("{}{}", self.sql(), client.copy_option());
        let mut lines = pin!(client.copy_out(&sql).await?);
        let (mut count, mut data, mut cells, mut last) = (0, Vec::new(), Vec::new(), Vec::new());
        while let Some(line) = lines.try_next().await? {
            data.clear();
            cells.clear();
            copy_text::sent_line(&line, client.charset().map(Arc::as_ref), &mut data, &mut cells);
            let text = key_text(&Row { data: &data, cells: &cells }, &self.places);
            let beside = Row { data: &data, cells: cells.get(self.places.len()..).unwrap_or_default() };
            count += 1;
            each(&text, &beside);
            if count == CHUNK {
                last = text.into_owned();
            }
        }
        self.done = count < CHUNK;
        self.after = Some(Key::new(String::from_utf8_lossy(&last)));
        Ok(count)
    }

    fn sql(&self) -> String {
        let after = self.after.as_ref().map_or(String::new(), |key| format!(" AND {}", self.key.compared(">", key)));
        let beside: String = self.beside.iter().map(|column| format!(", {column}")).collect();
        format!(
            "COPY (SELECT {}{beside} FROM {} WHERE {}{after} ORDER BY {} LIMIT {CHUNK}) TO STDOUT",
            self.key.list(),
            self.from,
            self.key.not_null(),
            self.key.ordered("ASC")
        )
    }

    /// Which of these keys are there now, as the table has them, with their transactions.
    pub(crate) async fn rows(&self, client: &Client, keys: &[String]) -> Result<Vec<RowSeen>, Error> {
        let mut seen = Vec::new();
        for keys in keys.chunks(LOOKED_UP) {
            let sql = format!(
                "SELECT {}, t.xmin::text::bigint FROM {} WHERE {}",
                self.key.printed(),
                self.from,
                self.key.one_of(keys.iter().map(String::as_str))
            );
            for row in client.query(&sql, &[]).await? {
                let key = Key::of_parts(&row.get::<_, Vec<String>>(0)).to_string();
                seen.push(RowSeen { key, xmin: u32::try_from(row.get::<_, i64>(1)).unwrap_or_default() });
            }
        }
        Ok(seen)
    }

    /// The columns beside one key, where its row is there.
    ///
    /// # Errors
    /// As [`KeyReader::chunk`].
    pub(crate) async fn columns_of(&self, client: &Session, key: &str) -> Result<Option<(Vec<u8>, Vec<Cell>)>, Error> {
        let (list, wanted) = (self.beside.join(", "), self.key.one_of(std::iter::once(key)));
        one_row(client, &format!("SELECT {list} FROM {} WHERE {wanted}", self.from)).await
    }
}
