//! The keys of a table, in key order, in chunks: what an audit holds against what was settled.
//!
//! * In: a table and its key columns.
//! * Out: the text of each key, as the server prints it; the rows that have certain keys, with their transactions.
//! * Never: a snapshot held longer than one chunk; a lock waited for longer than the session's bound; a sort of the table.

use std::pin::pin;
use std::sync::Arc;

use futures_util::TryStreamExt;
use tokio_postgres::{Client, Error};

use crate::model::{Cell, Key, Row, Value, key_text};
use crate::postgres::backfill::copy_text;
use crate::postgres::backfill::one_row::one_row;
use crate::postgres::catalog::key_columns::KeyColumns;
use crate::postgres::catalog::quote;
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::connection::session::Session;
use crate::sql;

/// Settings of a session that reads keys: an index scan whatever the statistics say, short waits, nothing hidden by policies.
pub(crate) const KEY_SESSION: &str = "SET row_security = off; SET default_transaction_read_only = on;
    SET lock_timeout = '5s'; SET statement_timeout = '60s'; SET enable_sort = off";

/// Keys that one statement reads.
const CHUNK: usize = 50_000;
/// A row's transaction; 2, which is no transaction, where the counter has not reached it: it wrote the row before a wrap.
const XMIN: &str = "CASE WHEN pg_catalog.age(t.xmin) < 0 THEN 2 ELSE t.xmin::text::bigint END";
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
    /// Whether the row's transaction is read, too.
    with_xmin: bool,
    /// The last key that was read; `None` at the start.
    after: Option<Key>,
    /// How many rows of it were read: where no index holds the key unique, there may be more.
    of_last: usize,
    done: bool,
}

/// A row that is there, and the transaction that wrote it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowSeen {
    /// Its key.
    pub key: String,
    /// The lower 32 bits of its xmin; 2 where it lies so far back that the counter has wrapped since.
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
            with_xmin: false,
            after,
            of_last: 0,
            done: false,
        }
    }

    /// Reads these columns beside the key.
    pub(crate) fn beside(mut self, columns: &[String]) -> KeyReader {
        self.beside = columns.iter().map(|name| format!("t.{}", quote::ident(name))).collect();
        self
    }

    /// Reads each row's transaction, too, which takes a look at the row itself.
    pub(crate) fn with_xmin(mut self, with_xmin: bool) -> KeyReader {
        self.with_xmin = with_xmin;
        self
    }

    /// The next keys, each handed to `each` with the columns beside it and its transaction, where it is read; how many there
    /// were. None are left after an answer of 0.
    ///
    /// # Errors
    /// Where the statement fails, or waits for a lock longer than the session's bound.
    pub(crate) async fn chunk(
        &mut self,
        client: &Session,
        mut each: impl FnMut(&[u8], &Row<'_>, Option<u32>),
    ) -> Result<usize, Error> {
        if self.done {
            return Ok(0);
        }
        let sql = format!("{}{}", self.sql(), client.copy_option());
        let mut lines = pin!(client.copy_out(&sql).await?);
        let (mut count, mut data, mut cells, mut last) = (0, Vec::new(), Vec::new(), Vec::new());
        let before = self.after.as_ref().map(|key| key.as_str().as_bytes().to_vec());
        let mut left = self.of_last;
        let (mut read, mut of_last) = (0, 0);
        while let Some(line) = lines.try_next().await? {
            data.clear();
            cells.clear();
            copy_text::sent_line(&line, client.charset().map(Arc::as_ref), &mut data, &mut cells);
            let xmin = if self.with_xmin { Some(xmin_of(&data, cells.pop())) } else { None };
            let text = key_text(&Row { data: &data, cells: &cells }, &self.places);
            let beside = Row { data: &data, cells: cells.get(self.places.len()..).unwrap_or_default() };
            read += 1;
            // The last chunk ended with this row.
            if left > 0 && before.as_deref() == Some(&*text) {
                left -= 1;
                continue;
            }
            count += 1;
            each(&text, &beside, xmin);
            if last == *text {
                of_last += 1;
            } else {
                last.clear();
                last.extend_from_slice(&text);
                of_last = 1;
            }
        }
        self.done = read < CHUNK + self.of_last;
        if before.as_deref() == Some(&*last) {
            of_last += self.of_last;
        }
        (self.after, self.of_last) = (Some(Key::new(String::from_utf8_lossy(&last))), of_last);
        Ok(count)
    }

    fn sql(&self) -> String {
        let operator = if self.of_last > 0 { ">=" } else { ">" };
        let after =
            self.after.as_ref().map_or(String::new(), |key| format!(" AND {}", self.key.compared(operator, key)));
        let beside: String = self.beside.iter().map(|column| format!(", {column}")).collect();
        let xmin = if self.with_xmin { format!(", {XMIN}") } else { String::new() };
        format!(
            "COPY (SELECT {}{beside}{xmin} FROM {} WHERE {}{after} ORDER BY {} LIMIT {}) TO STDOUT",
            self.key.list(),
            self.from,
            self.key.not_null(),
            self.key.ordered("ASC"),
            CHUNK + self.of_last
        )
    }

    /// How many rows have no key: NULL in a column of it.
    ///
    /// # Errors
    /// As [`KeyReader::chunk`].
    pub(crate) async fn without_key(&self, client: &Client) -> Result<u64, Error> {
        let sql = format!("SELECT count(*) FROM {} WHERE NOT ({})", self.from, self.key.not_null());
        Ok(u64::try_from(sql::query_one(client, &sql, &[]).await?.get::<_, i64>(0)).unwrap_or_default())
    }

    /// Which of these keys are there now, as the table has them, with their transactions.
    pub(crate) async fn rows(&self, client: &Client, keys: &[String]) -> Result<Vec<RowSeen>, Error> {
        let mut seen = Vec::new();
        for keys in keys.chunks(LOOKED_UP) {
            let sql = format!(
                "SELECT {}, {XMIN} FROM {} WHERE {}",
                self.key.printed(),
                self.from,
                self.key.one_of(keys.iter().map(String::as_str))
            );
            for row in sql::query(client, &sql, &[]).await? {
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

fn xmin_of(data: &[u8], cell: Option<Cell>) -> u32 {
    let Some(cell) = cell else { return 0 };
    match (Row { data, cells: &[cell] }).get(0) {
        Value::Text(text) => std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or_default(),
        Value::Null | Value::Oversize | Value::Unknown => 0,
    }
}
