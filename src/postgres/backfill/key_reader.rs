//! The keys of a table, in key order, in chunks: what an audit holds against what was settled.
//!
//! * In: a table and its key columns.
//! * Out: the text of each key, as the server prints it; the rows that have certain keys, with their transactions.
//! * Never: a snapshot held longer than one chunk; a lock waited for longer than the session's bound; a sort of the table.

use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::{Client, Error};

use crate::postgres::backfill::copy_text;
use crate::postgres::catalog::quote;
use crate::postgres::catalog::table::TableInfo;

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
    columns: Vec<String>,
    types: Vec<String>,
    /// The last key that was read; empty at the start.
    after: Vec<String>,
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
    /// Of this table's key columns, from behind `after` (one text for each column), or from the start.
    pub(crate) fn new(table: &TableInfo, key: &[String], after: Vec<String>) -> KeyReader {
        let types = key.iter().map(|name| table.column(name).map_or("text", |column| &column.type_name).to_owned());
        KeyReader {
            from: table.as_from_clause(),
            columns: key.iter().map(|name| format!("t.{}", quote::ident(name))).collect(),
            types: types.collect(),
            after,
            done: false,
        }
    }

    /// The next keys, each handed to `each`; how many there were. None are left after an answer of 0.
    ///
    /// # Errors
    /// Where the statement fails, or waits for a lock longer than the session's bound.
    pub(crate) async fn chunk(&mut self, client: &Client, mut each: impl FnMut(&[u8])) -> Result<usize, Error> {
        if self.done {
            return Ok(0);
        }
        let sql = self.sql();
        let mut lines = pin!(client.copy_out(&sql).await?);
        let (mut count, mut data, mut cells) = (0, Vec::new(), Vec::new());
        while let Some(line) = lines.try_next().await? {
            data.clear();
            cells.clear();
            copy_text::line(line.strip_suffix(b"\n").unwrap_or(&line), &mut data, &mut cells);
            let row = crate::model::Row { data: &data, cells: &cells };
            let texts = (0..cells.len()).map(|index| match row.get(index) {
                crate::model::Value::Text(text) => text,
                crate::model::Value::Null | crate::model::Value::Oversize => &[],
            });
            count += 1;
            match &texts.collect::<Vec<&[u8]>>()[..] {
                [only] => {
                    each(only);
                    if count == CHUNK {
                        self.after = vec![String::from_utf8_lossy(only).into_owned()];
                    }
                }
                several => {
                    let several: Vec<_> = several.iter().map(|text| String::from_utf8_lossy(text)).collect();
                    each(serde_json::json!(several).to_string().as_bytes());
                    if count == CHUNK {
                        self.after = several.into_iter().map(std::borrow::Cow::into_owned).collect();
                    }
                }
            }
        }
        self.done = count < CHUNK;
        Ok(count)
    }

    fn sql(&self) -> String {
        let texts: Vec<String> = self.columns.iter().map(|column| format!("{column}::text")).collect();
        let row = self.columns.join(", ");
        let not_null =
            self.columns.iter().map(|column| format!("{column} IS NOT NULL")).collect::<Vec<_>>().join(" AND ");
        let after = if self.after.is_empty() {
            String::new()
        } else {
            let texts = self.after.iter().zip(&self.types);
            let after: Vec<String> = texts.map(|(text, ty)| format!("{}::{ty}", quote::literal(text))).collect();
            format!(" AND ({row}) > ({})", after.join(", "))
        };
        format!(
            "COPY (SELECT {} FROM {} t WHERE {not_null}{after} ORDER BY {row} LIMIT {CHUNK}) TO STDOUT",
            texts.join(", "),
            self.from
        )
    }

    /// Which of these keys are there now (each one text, for a key of one column), with their transactions.
    ///
    /// # Errors
    /// As [`KeyReader::chunk`].
    pub(crate) async fn rows(&self, client: &Client, keys: &[String]) -> Result<Vec<RowSeen>, Error> {
        let mut seen = Vec::new();
        for keys in keys.chunks(LOOKED_UP) {
            let wanted: Vec<String> = keys.iter().filter_map(|key| self.literal(key)).collect();
            if wanted.is_empty() {
                continue;
            }
            let row = self.columns.join(", ");
            let texts: Vec<String> = self.columns.iter().map(|column| format!("{column}::text")).collect();
            let sql = format!(
                "SELECT ARRAY[{}], t.xmin::text::bigint FROM {} t WHERE ({row}) IN ({})",
                texts.join(", "),
                self.from,
                wanted.join(", ")
            );
            for row in client.query(&sql, &[]).await? {
                let texts: Vec<String> = row.get(0);
                let key = match &texts[..] {
                    [only] => only.clone(),
                    several => serde_json::json!(several).to_string(),
                };
                seen.push(RowSeen { key, xmin: u32::try_from(row.get::<_, i64>(1)).unwrap_or_default() });
            }
        }
        Ok(seen)
    }

    /// A key's text as a row of typed literals; `None` where a list of several columns cannot be read.
    fn literal(&self, key: &str) -> Option<String> {
        let texts = self.texts(key)?;
        let typed = texts.iter().zip(&self.types).map(|(text, ty)| format!("{}::{ty}", quote::literal(text)));
        Some(format!("({})", typed.collect::<Vec<_>>().join(", ")))
    }

    /// A key's text by column: itself, or a JSON array of texts; `a,b` is taken for an array of two.
    fn texts(&self, key: &str) -> Option<Vec<String>> {
        let width = self.columns.len();
        if width == 1 {
            return Some(vec![key.to_owned()]);
        }
        let listed =
            serde_json::from_str(key).unwrap_or_else(|_| key.split(',').map(str::to_owned).collect::<Vec<_>>());
        (listed.len() == width).then_some(listed)
    }

    /// The key as the server prints it in its type.
    ///
    /// # Errors
    /// Where it is no value of the type.
    pub(crate) async fn canonical(&self, client: &Client, key: &str) -> Result<String, Error> {
        let Some(texts) = self.texts(key) else { return Ok(key.to_owned()) };
        let printed = texts.iter().zip(&self.types).map(|(text, ty)| format!("{}::{ty}::text", quote::literal(text)));
        let sql = format!("SELECT {}", printed.collect::<Vec<_>>().join(", "));
        match client.query_one(&sql, &[]).await {
            Ok(row) if row.len() == 1 => Ok(row.get(0)),
            Ok(row) => Ok(serde_json::json!((0..row.len()).map(|at| row.get(at)).collect::<Vec<String>>()).to_string()),
            Err(error) => Err(error),
        }
    }
}
