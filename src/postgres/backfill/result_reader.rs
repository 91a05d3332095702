//! Reading a result that is compared: `COPY (SELECT …) TO STDOUT`, in the order of the digests of its keys.
//!
//! * In: a result's description, the columns to read, the key.
//! * Out: its rows one after the other; whether its keys are unique; how many rows the planner expects.
//! * Never: the whole result in memory; a statement that writes; one without a bound of time.
//!
//! The order is the digests', and not the key's own, so that the program can tell which of two rows comes first: of two
//! keys only the server knows that, and another server (a replica, a later version) may know it otherwise.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, CopyOutStream, Error};

use crate::config::Section;
use crate::model::{Cell, Fault, Forgotten, Key, KeyDigest};
use crate::postgres::backfill::one_row::one_row;
use crate::postgres::backfill::{copy_text, oversize_columns};
use crate::postgres::catalog::key_columns::KeyColumns;
use crate::postgres::catalog::quote;
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::connection::charset::Charset;
use crate::postgres::connection::session::{Session, first_value};
use crate::sql;

/// How long a statement may take, where the role has no limit of its own.
const STATEMENT_LIMIT: &str = "10min";

/// One snapshot for everything that a transaction reads; also on a standby.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// What is read for a section.
#[derive(Clone, Debug)]
pub(crate) struct ResultSelection {
    list: String,
    from: String,
    key: Vec<String>,
    /// The SQL of a key's digest.
    digest: String,
    /// Conditions on the date, or `true`.
    recent: String,
    marked: bool,
}

/// Prepares a session that reads results.
pub(crate) async fn settle(session: &Session) -> Result<(), Error> {
    session.batch_execute("SET row_security = off; SET default_transaction_read_only = on").await?;
    let limit = first_value(&session.simple_query("SHOW statement_timeout").await?);
    if limit.is_none_or(|limit| limit == "0") {
        session.batch_execute(&format!("SET statement_timeout = '{STATEMENT_LIMIT}'")).await?;
    }
    Ok(())
}

impl ResultSelection {
    /// Reads `columns` of a result whose rows `key` tells apart.
    /// `since`: when the last comparison began that was settled. `forgotten`: rows that may have been sent are not read.
    pub(crate) fn new(
        section: &Section,
        table: &TableInfo,
        columns: &[String],
        session: &Session,
        since: Option<&str>,
        forgotten: &[Forgotten],
    ) -> ResultSelection {
        let (typed, key) = (|name: &String| table.column(name).map_or(0, |column| column.type_oid), &section.key);
        let guarded = columns.iter().map(|name| (name.as_str(), (!key.contains(name)).then(|| typed(name))));
        let (list, marked) = oversize_columns::list(guarded);
        let within = section.diff().and_then(|diff| diff.within).zip(section.date_column());
        let zone = section.timezone.as_ref();
        // Without a date nobody knows that it is older.
        let not_older = |column: &str, from: &str| {
            let (from, column) = (in_type(from, typed(&column.to_owned()), zone), quote::ident(column));
            format!("(t.{column} >= {from} OR t.{column} IS NULL)")
        };
        let recent = within.map(|(age, column)| not_older(column, &oldest(age, since)));
        let known = forgotten
            .iter()
            .map(|Forgotten { column, before }| not_older(column, &format!("{}::timestamptz", quote::literal(before))));
        let recent: Vec<String> = recent.into_iter().chain(known).collect();
        ResultSelection {
            list,
            from: table.as_t(),
            key: key.iter().map(|name| format!("t.{}", quote::ident(name))).collect(),
            digest: digest(key, session.is_sql_ascii()),
            recent: if recent.is_empty() { "true".to_owned() } else { recent.join(" AND ") },
            marked,
        }
    }

    /// The SQL of which rows are read at all.
    pub(crate) fn condition(&self) -> &str {
        &self.recent
    }

    /// How many rows the planner expects.
    pub(crate) async fn estimate(&self, client: &Client) -> Result<u64, Error> {
        let sql = format!("EXPLAIN (FORMAT JSON) SELECT 1 FROM {} WHERE {}", self.from, self.recent);
        let text = first_value(&client.simple_query(&sql).await?);
        let plan: serde_json::Value = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Ok(plan.pointer("/0/Plan/Plan Rows").and_then(serde_json::Value::as_u64).unwrap_or_default())
    }

    /// A key that the result has twice, where there is one.
    pub(crate) async fn twin(&self, client: &Client) -> Result<Option<String>, Error> {
        let key = self.key.join(", ");
        let sql = format!(
            "SELECT pg_catalog.concat_ws(',', {key}) FROM {} WHERE {} GROUP BY {key} HAVING pg_catalog.count(*) > 1 LIMIT 1",
            self.from, self.recent
        );
        Ok(sql::query_opt(client, &sql, &[]).await?.map(|row| row.get(0)))
    }

    /// Reads no row, as a comparison would read all: whether the role may, and whether the key can be digested.
    pub(crate) async fn try_out(&self, client: &Client) -> Result<(), Error> {
        let sql =
            format!("SELECT {} FROM {} WHERE {} AND false ORDER BY {}", self.list, self.from, self.recent, self.digest);
        client.batch_execute(&sql).await
    }

    /// Opens a transaction: everything until its end is read from one snapshot.
    pub(crate) async fn begin(&self, client: &Client) -> Result<(), Error> {
        client.batch_execute(BEGIN).await
    }

    /// Ends the transaction.
    pub(crate) async fn end(&self, client: &Client) -> Result<(), Error> {
        client.batch_execute("COMMIT").await
    }

    /// Begins to read the rows behind `after`.
    pub(crate) async fn read(&self, client: &Session, after: Option<KeyDigest>) -> Result<ResultRows, Error> {
        let after = after.map_or(String::new(), |after| {
            let hex: String = after.0.iter().map(|byte| format!("{byte:02x}")).collect();
            format!(" AND pg_catalog.substr({}, 1, 16) > '\\x{hex}'::bytea", self.digest)
        });
        // What has no key comes first, so that nothing was sent when it is found.
        let sql = format!(
            "COPY (SELECT {} FROM {} WHERE {}{after} ORDER BY {} NULLS FIRST) TO STDOUT{}",
            self.list,
            self.from,
            self.recent,
            self.digest,
            client.copy_option()
        );
        Ok(ResultRows {
            lines: Box::pin(client.copy_out(&sql).await?),
            marked: self.marked,
            charset: client.charset().cloned(),
        })
    }
}

/// The SQL of the oldest date that is read. What the last comparison could not see yet is as recent as it would have been then,
/// however long ago that was: nothing ran, or the result could not be read.
fn oldest(age: Duration, since: Option<&str>) -> String {
    let last = since.map_or("NULL".to_owned(), quote::literal);
    format!("(least(pg_catalog.now(), {last}::timestamptz) - pg_catalog.make_interval(secs => {}))", age.as_secs_f64())
}

/// The SQL of that time in the date column's type. A time without zone is of the section's, and of a day that has begun the whole
/// counts.
fn in_type(from: &str, ty: u32, zone: Option<&jiff::tz::TimeZone>) -> String {
    let zone = quote::literal(zone.and_then(jiff::tz::TimeZone::iana_name).unwrap_or("UTC"));
    match ty {
        TIMESTAMP => format!("({from} AT TIME ZONE {zone})"),
        DATE => format!("({from} AT TIME ZONE {zone})::date"),
        _ => from.to_owned(),
    }
}

/// OIDs of `pg_type.dat`.
const TIMESTAMP: u32 = 1114;
const DATE: u32 = 1082;

/// The rows of a result, as they come.
pub(crate) struct ResultRows {
    lines: Pin<Box<CopyOutStream>>,
    marked: bool,
    charset: Option<Arc<Charset>>,
}

impl ResultRows {
    /// The next row, as COPY has it; `None` behind the last.
    pub(crate) async fn next(&mut self) -> Result<Option<bytes::Bytes>, Error> {
        self.lines.try_next().await
    }

    /// Reads a row: appends its text and its cells.
    pub(crate) fn fill(&self, line: &[u8], data: &mut Vec<u8>, cells: &mut Vec<Cell>) {
        let first = cells.len();
        copy_text::sent_line(line, self.charset.as_deref(), data, cells);
        if self.marked {
            oversize_columns::mark(data, cells, first);
        }
    }
}

/// The key of the result's row that is equal to this one in the columns' types, as the row has it.
pub(crate) async fn key_of(
    client: &Client,
    table: &TableInfo,
    columns: &[String],
    key: &Key,
) -> Result<Option<Key>, Error> {
    let columns = KeyColumns::new(table, columns);
    let wanted = columns.one_of(std::iter::once(key.as_str()));
    let sql = format!("SELECT {} FROM {} WHERE {wanted} LIMIT 1", columns.printed(), table.as_t());
    Ok(sql::query_opt(client, &sql, &[]).await?.map(|row| Key::of_parts(&row.get::<_, Vec<String>>(0))))
}

/// These columns of the result's row that has this key (its columns, each with its text); `None` where there is no such row.
pub(crate) async fn row_of(
    client: &Session,
    table: &TableInfo,
    key: &[(String, String)],
    columns: &[String],
) -> Result<Option<(Vec<u8>, Vec<Cell>)>, Error> {
    let one = |(name, text): &(String, String)| {
        format!("pg_catalog.concat(t.{}) = {}", quote::ident(name), quote::literal(text))
    };
    let conditions: Vec<String> = key.iter().map(one).collect();
    let list: Vec<String> = columns.iter().map(|name| format!("t.{}", quote::ident(name))).collect();
    let (list, wanted) = (list.join(", "), conditions.join(" AND "));
    one_row(client, &format!("SELECT {list} FROM {} WHERE {wanted}", table.as_t())).await
}

/// The SQL of a key's digest: SHA-256 of its text as COPY shows it (`concat` prints as COPY does, a cast may not).
fn digest(key: &[String], is_sql_ascii: bool) -> String {
    let encoding = if is_sql_ascii { "SQL_ASCII" } else { "UTF8" };
    let one = |name: &String| {
        let text = format!("pg_catalog.concat(t.{})", quote::ident(name));
        format!("pg_catalog.sha256(pg_catalog.convert_to({text}, '{encoding}'))")
    };
    let digest = match key {
        [only] => one(only),
        several => {
            let all: Vec<String> = several.iter().map(one).collect();
            format!("pg_catalog.sha256({})", all.join(" OPERATOR(pg_catalog.||) "))
        }
    };
    let absent: Vec<String> = key.iter().map(|name| format!("t.{} IS NULL", quote::ident(name))).collect();
    format!("CASE WHEN {} THEN NULL ELSE {digest} END", absent.join(" OR "))
}

/// The fault of a statement that reads a result.
pub(crate) fn fault(session: &Session, section: &Section, error: &Error, took: Duration) -> Fault {
    let fault = session.fault(error);
    if error.code() == Some(&SqlState::QUERY_CANCELED) {
        return Fault::usage(
            format!("section {}: its result was not read within the time limit ({} s)", section.name, took.as_secs()),
            "make it faster (an index, a materialized view, `within`), or give the role more time: ALTER ROLE … SET \
             statement_timeout = '30min'",
        );
    }
    if crate::postgres::connection::session::is_transient(error) {
        return Fault::unavailable(fault.what, fault.remedy);
    }
    let remedy = "make the table, view or query as the section names it again; it is read again by itself";
    match error.code() {
        Some(&SqlState::UNDEFINED_TABLE | &SqlState::UNDEFINED_COLUMN | &SqlState::UNDEFINED_FUNCTION) => {
            Fault::usage(format!("section {}: {}", section.name, fault.what), remedy)
        }
        Some(_) | None => Fault { what: format!("section {}: {}", section.name, fault.what), ..fault },
    }
}
