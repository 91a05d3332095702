//! What is read of a section's table: its columns and which rows, in the order of its key.
//!
//! * In: a section's table and columns; keys.
//! * Out: the SQL that reads them; rows, keys and counts.
//! * Never: a row hidden by row-level security without an error; a value that is too large to hold.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;

use futures_util::TryStreamExt;
use tokio_postgres::{Client, Error};

use crate::config::Section;
use crate::model::{Column, Key, Row, Rows, key_text};
use crate::postgres::backfill::former_keys::FormerKeys;
use crate::postgres::backfill::table_lock::{LockedTable, TableLock};
use crate::postgres::backfill::{copy_text, former_keys, oversize_columns, table_lock};
use crate::postgres::catalog::key_columns::KeyColumns;
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::catalog::types::Types;
use crate::postgres::connection::charset::Charset;
use crate::postgres::connection::session::{Session, first_value};
use crate::sql;

/// What is read for a section.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// The `SELECT` list, quoted.
    list: String,
    /// The columns in it, in its order, as they were when the section's mapping was compiled.
    columns: Vec<Column>,
    /// What follows `FROM`, quoted: the table as `t`.
    pub(super) from: String,
    /// The table's name, quoted; its OID.
    pub(super) table: (String, u32),
    key: KeyColumns,
    /// The types of the key's columns when the section was attached.
    key_types: Vec<String>,
    /// Where the key's columns are among the columns.
    key_places: Vec<usize>,
    /// `… AND `, or nothing: which rows count at all.
    pub(super) only: String,
    /// The list has one column more, which marks values that were left out.
    marked: bool,
}

/// Settings of a session that reads ranges. `row_security = off` makes a policy that would hide rows an error. The plan is
/// the key's index whatever the statistics say: on a table that was never analysed the planner would sort all that is left
/// for each chunk. A lock is waited for so long and no longer: then it is said who holds it.
pub(crate) const SESSION: &str =
    "SET row_security = off; SET default_transaction_read_only = on; SET statement_timeout = 0;
    SET lock_timeout = '2s'; SET enable_sort = off; SET enable_bitmapscan = off; SET enable_seqscan = off;
    SET max_parallel_workers_per_gather = 0; SET jit = off";

impl Selection {
    /// Selects `columns` (the key's among them) of a table, for a section whose key is known.
    pub(crate) fn new(section: &Section, table: &TableInfo, columns: &[Column]) -> Selection {
        let typed = |name: &String| table.column(name).map_or(0, |column| column.type_oid);
        let guarded = columns.iter().map(|Column { name, .. }| {
            let guard = !section.key.contains(name);
            (name.as_str(), guard.then(|| typed(name)))
        });
        let (list, marked) = oversize_columns::list(guarded);
        let place = |name: &String| columns.iter().position(|column| column.name == *name);
        Selection {
            list,
            columns: columns.to_vec(),
            from: table.as_t(),
            table: (table.as_from_clause(), table.oid),
            key: KeyColumns::new(table, &section.key),
            key_types: section.key.iter().filter_map(|name| Some(table.column(name)?.type_name.clone())).collect(),
            key_places: section.key.iter().filter_map(place).collect(),
            only: String::new(),
            marked,
        }
    }

    /// Only rows for which `condition` holds (SQL over `t`).
    pub(crate) fn only(mut self, condition: &str) -> Selection {
        self.only = format!("{condition} AND ");
        self
    }

    /// The types that the key's columns had when the section was attached; those that nobody recorded are as they are now.
    pub(crate) fn attached_as<'a>(mut self, recorded: impl Fn(&str) -> Option<&'a str>) -> Selection {
        for (ty, place) in self.key_types.iter_mut().zip(&self.key_places) {
            *ty = recorded(&self.columns[*place].name).unwrap_or(ty).to_owned();
        }
        self
    }

    /// The same table, which may have been renamed.
    pub(crate) fn follow(&mut self, table: &TableInfo) {
        self.from = table.as_t();
        self.table.0 = table.as_from_clause();
    }

    /// An empty list of rows.
    pub(crate) fn no_rows(&self) -> Rows {
        Rows::new(self.columns.len())
    }

    /// The text of the key of a row as read.
    pub(crate) fn key_text<'a>(&self, row: &Row<'a>) -> Cow<'a, [u8]> {
        key_text(row, &self.key_places)
    }

    /// Which rows count at all, behind `after`.
    fn behind(&self, after: Option<&Key>) -> String {
        let after = after.map_or(String::new(), |key| format!("{} AND ", self.key.compared(">", key)));
        format!("{after}{}", self.only)
    }

    /// The rows in (`after`, `through`].
    pub(super) fn range(&self, after: Option<&Key>, through: &Key) -> String {
        format!("{}{}", self.behind(after), self.key.compared("<=", through))
    }

    pub(crate) fn sql(&self, after: Option<&Key>, through: &Key, limit: usize) -> String {
        let (list, from, range) = (&self.list, &self.from, self.range(after, through));
        format!("SELECT {list} FROM {from} WHERE {range} ORDER BY {} LIMIT {limit}", self.key.ordered("ASC"))
    }

    /// Counts the rows behind `after`.
    pub(crate) async fn count(&self, client: &Client, after: Option<&Key>) -> Result<u64, Error> {
        let sql = format!("SELECT count(*) FROM {} WHERE {}{}", self.from, self.behind(after), self.key.not_null());
        counted(client, &sql).await
    }

    /// Counts the rows, and gives the first and the last key as texts.
    pub(crate) async fn extent(&self, client: &Client) -> Result<(u64, Option<(String, String)>), Error> {
        let rows = self.count(client, None).await?;
        let condition = format!("{}{}", self.only, self.key.not_null());
        let mut ends = Vec::new();
        for word in ["ASC", "DESC"] {
            ends.extend(self.key_of_first(client, &condition, word).await?.map(|key| key.to_string()));
        }
        Ok((rows, ends.pop().and_then(|last| Some((ends.pop()?, last)))))
    }

    /// The smallest key of a row that `condition` (SQL over `t`) holds for, and the key before it.
    pub(crate) async fn first_where(
        &self,
        client: &Client,
        condition: &str,
    ) -> Result<Option<(Key, Option<Key>)>, Error> {
        let condition = format!("({condition}) AND {}", self.key.not_null());
        let Some(first) = self.key_of_first(client, &condition, "ASC").await? else { return Ok(None) };
        let before = self.key_of_first(client, &self.key.compared("<", &first), "DESC").await?;
        Ok(Some((first, before)))
    }

    /// The key of the row that is the first of those for which `condition` holds.
    async fn key_of_first(&self, client: &Client, condition: &str, word: &str) -> Result<Option<Key>, Error> {
        let sql = self.key.printed_of_first(&self.from, condition, word);
        Ok(sql::query_opt(client, &sql, &[]).await?.map(|row| Key::of_parts(&row.get::<_, Vec<String>>(0))))
    }

    /// The columns with these types, where that changes them.
    pub(crate) fn changed(&self, types: &Types, oids: &[u32]) -> Option<Vec<Column>> {
        let typed = |(column, oid): (&Column, &u32)| Column { ty: types.of(*oid), ..column.clone() };
        let columns: Vec<Column> = self.columns.iter().zip(oids).map(typed).collect();
        (columns != self.columns).then_some(columns)
    }

    /// Begins a transaction that holds the locks of the table and of its partitions.
    pub(crate) async fn lock(&self, client: &Client, how: TableLock) -> Result<LockedTable, Error> {
        table_lock::lock(client, how, &self.key, (&self.from, &self.table), &self.columns).await
    }

    /// Whether columns of the key have other types than when the section was attached: then rows have former keys.
    pub(crate) fn has_former_keys(&self, now: &LockedTable) -> bool {
        now.differ(&self.key_places, &self.key_types)
    }

    /// The former keys of the rows in (`after`, `through`].
    pub(crate) async fn former_keys(
        &self,
        client: &Client,
        after: Option<&Key>,
        through: &Key,
    ) -> Result<FormerKeys, Error> {
        former_keys::read(client, &self.key, &self.key_types, (&self.from, &self.range(after, through))).await
    }

    /// Whether the range has no rows.
    pub(crate) async fn is_empty(&self, client: &Client, after: Option<&Key>, through: &Key) -> Result<bool, Error> {
        let sql = format!("SELECT 1 FROM {} WHERE {} LIMIT 1", self.from, self.range(after, through));
        Ok(sql::query_opt(client, &sql, &[]).await?.is_none())
    }

    /// The key of the last of these rows; `None` too where it is no text.
    pub(crate) fn last_key(&self, rows: &Rows) -> Option<Key> {
        let row = rows.iter().last()?;
        let text = self.key_text(&row).into_owned();
        String::from_utf8(text).ok().filter(|text| !text.is_empty()).map(Key::new)
    }

    /// The keys of rows between two keys, both included, in order; `all`, or the last alone.
    pub(crate) async fn keys_between(
        &self,
        client: &Client,
        first: &Key,
        last: &Key,
        all: bool,
    ) -> Result<Vec<Key>, Error> {
        let condition = format!("{} AND {}", self.key.compared(">=", first), self.key.compared("<=", last));
        if !all {
            return Ok(self.key_of_first(client, &condition, "DESC").await?.into_iter().collect());
        }
        self.keys_where(client, &condition, i64::MAX).await
    }

    /// The keys of the first rows behind `after`, in order.
    pub(crate) async fn keys_behind(
        &self,
        client: &Client,
        after: Option<&Key>,
        limit: i64,
    ) -> Result<Vec<Key>, Error> {
        self.keys_where(client, &format!("{}{}", self.behind(after), self.key.not_null()), limit).await
    }

    /// Those of the keys that the table has a row of.
    pub(crate) async fn keys_among(&self, client: &Client, keys: &[Key]) -> Result<Vec<Key>, Error> {
        self.keys_where(client, &self.key.one_of(keys.iter().map(Key::as_str)), i64::MAX).await
    }

    async fn keys_where(&self, client: &Client, condition: &str, limit: i64) -> Result<Vec<Key>, Error> {
        let (printed, order) = (self.key.printed(), self.key.ordered("ASC"));
        let sql = format!("SELECT {printed} FROM {} WHERE {condition} ORDER BY {order} LIMIT {limit}", self.from);
        Ok(sql::query(client, &sql, &[])
            .await?
            .iter()
            .map(|row| Key::of_parts(&row.get::<_, Vec<String>>(0)))
            .collect())
    }

    /// Reads rows by their keys (for quarantine's retry).
    pub(crate) async fn read_keys(&self, client: &Session, keys: &[String]) -> Result<Rows, Error> {
        let wanted = self.key.one_of(keys.iter().map(String::as_str));
        let (list, from, option) = (&self.list, &self.from, client.copy_option());
        let sql = format!("COPY (SELECT {list} FROM {from} WHERE {wanted}) TO STDOUT{option}");
        self.copy(client, &sql).await
    }

    /// Reads the rows at one end of the table: the newest, or the oldest.
    pub(crate) async fn read_end(&self, client: &Session, newest: bool, limit: u32) -> Result<Rows, Error> {
        let sql = format!(
            "COPY (SELECT {} FROM {} WHERE {}{} ORDER BY {} LIMIT {limit}) TO STDOUT{}",
            self.list,
            self.from,
            self.only,
            self.key.not_null(),
            self.key.ordered(if newest { "DESC" } else { "ASC" }),
            client.copy_option()
        );
        self.copy(client, &sql).await
    }

    async fn copy(&self, client: &Session, copy: &str) -> Result<Rows, Error> {
        let mut rows = self.no_rows();
        let mut lines = pin!(client.copy_out(copy).await?);
        while let Some(line) = lines.try_next().await? {
            self.push_line(&mut rows, &line, client.charset().map(Arc::as_ref));
        }
        Ok(rows)
    }

    /// Appends the row of a line as COPY sends it.
    pub(crate) fn push_line(&self, rows: &mut Rows, line: &[u8], charset: Option<&Charset>) {
        rows.push_with(|data, cells| {
            let first = cells.len();
            copy_text::sent_line(line, charset, data, cells);
            if self.marked {
                oversize_columns::mark(data, cells, first);
            }
        });
    }

    /// The greatest key behind `after`.
    pub(crate) async fn ceiling(&self, client: &Client, after: Option<&Key>) -> Result<Option<Key>, Error> {
        let condition = format!("{}{}", self.behind(after), self.key.not_null());
        self.key_of_first(client, &condition, "DESC").await
    }

    /// The greatest key behind `after`, and how many rows the planner expects up to it; read behind the table's lock, so that
    /// no rewrite of the table hides its rows.
    ///
    /// # Errors
    /// Where a statement fails. The session is of no use then: its transaction is open.
    pub(crate) async fn end(&self, client: &Client, after: Option<&Key>) -> Result<Option<(Key, u64)>, Error> {
        self.lock(client, TableLock::ByReading).await?;
        let end = match self.ceiling(client, after).await? {
            Some(ceiling) => {
                let rows = self.estimate(client, after, &ceiling).await?;
                Some((ceiling, rows))
            }
            None => None,
        };
        client.batch_execute("COMMIT").await?;
        Ok(end)
    }

    /// How many rows the planner expects in the range.
    pub(crate) async fn estimate(&self, client: &Client, after: Option<&Key>, through: &Key) -> Result<u64, Error> {
        let sql = format!("EXPLAIN (FORMAT JSON) SELECT 1 FROM {} WHERE {}", self.from, self.range(after, through));
        let text = first_value(&client.simple_query(&sql).await?);
        let plan: serde_json::Value = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Ok(plan.pointer("/0/Plan/Plan Rows").and_then(serde_json::Value::as_u64).unwrap_or_default())
    }
}

/// The one count that a statement gives.
pub(super) async fn counted(client: &Client, sql: &str) -> Result<u64, Error> {
    let rows: i64 = sql::query_one(client, sql, &[]).await?.get(0);
    Ok(u64::try_from(rows).unwrap_or_default())
}
