//! A read-only look at the source, for support people.
//!
//! * In: one statement of SQL, and bounds.
//! * Out: columns and rows as text.
//! * Never: a second statement; a result without bounds; the rights of the program's own role.
//!
//! The boundary is what the login of `source.reader` may do on the server, and `check` proves it
//! (`preflight/reader_findings.rs`). Nothing here reads SQL: a second lexer and a list of forbidden words were tried as a
//! boundary, and were not one. What is added: (1) the extended protocol, which takes exactly one statement, and only one
//! that gives rows; (2) a READ ONLY transaction, one savepoint deep, where PostgreSQL lets nobody take that back, and which
//! is never committed; (3) bounds on time, rows and bytes, and on each message of the server.

use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Error, SimpleQueryMessage};

use crate::config::Source;
use crate::model::{Fault, washed};
use crate::postgres::catalog::quote;
use crate::postgres::connection::session::{Session, connect_to};
use crate::postgres::connection::target::Target;
use crate::sql;

/// How far a question may go.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// How long the statement may take.
    pub timeout: Duration,
    /// Rows, at most.
    pub rows: usize,
    /// Bytes of text, at most.
    pub bytes: usize,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueryAnswer {
    pub columns: Vec<String>,
    /// The values as text; `None` is NULL.
    pub rows: Vec<Vec<Option<String>>>,
    /// There were more rows than the bounds allow.
    pub truncated: bool,
}

/// Characters of one value, at most, where there are so many columns: a row stays within the bounds.
pub(crate) fn longest(bounds: &Bounds, columns: usize) -> usize {
    (bounds.bytes / columns.max(1)).clamp(1, VALUE)
}

/// The longest time that a statement may be given.
pub(crate) const LONGEST: Duration = Duration::from_secs(3600);
/// Characters of one value, at most.
const VALUE: usize = 1 << 20;
/// What a value costs beside its characters: a million NULLs are memory, too.
const PER_VALUE: usize = 24;
/// Rows fetched at once: what a person has seen enough of is not read on.
const PAGE: usize = 100;
/// The largest message that the server may send. The values of a page are cut by the server; what EXPLAIN writes is not.
const MESSAGE: usize = 32 << 20;

/// Asks as the reader of `source`. The connection ends with it, and with it whatever a statement may have left behind.
///
/// # Errors
/// Where `source.reader` is not set, where the server refuses the statement, and where the answer takes too long or is
/// too large.
pub(crate) async fn ask(source: &Source, sql: &str, bounds: &Bounds) -> Result<QueryAnswer, Fault> {
    if bounds.timeout > LONGEST {
        return Err(Fault::usage("a statement may take 1 h at most", "give a shorter --timeout, and ask for less"));
    }
    let target = Target { largest_message: Some(MESSAGE), ..Target::resolve_reader(source)? };
    let session = connect_to(&target, "query").await?;
    let limit = bounds.timeout + Duration::from_secs(5);
    let answer = tokio::time::timeout(limit, within(&session, &source.schema, sql, bounds)).await;
    // In order where it ends soon; a server that is still sending what nobody reads is hung up on.
    tokio::time::timeout(Duration::from_secs(1), session.batch_execute("ROLLBACK")).await.ok();
    answer.map_err(|_| too_long(bounds))?
}

async fn within(session: &Session, schema: &str, sql: &str, bounds: &Bounds) -> Result<QueryAnswer, Fault> {
    begin(session, schema, bounds).await?;
    let refused = |error: Error| explain(session, &error, bounds);
    let statement = session.prepare(sql).await.map_err(refused)?;
    if !statement.params().is_empty() {
        return Err(Fault::usage("the statement has parameters ($1)", "write their values into it"));
    }
    let columns: Vec<String> = statement.columns().iter().map(|column| column.name().to_owned()).collect();
    if columns.is_empty() {
        return Err(Fault::usage(
            "only statements that give rows are run here",
            "ask by SELECT, VALUES, TABLE, SHOW or EXPLAIN",
        ));
    }
    let mut reading = Reading {
        bytes: 0,
        longest: longest(bounds, columns.len()),
        cut: false,
        answer: QueryAnswer { columns, ..QueryAnswer::default() },
    };
    match sql::execute(session, &cursor(sql, statement.columns().len(), reading.longest), &[]).await {
        Ok(_) => reading.pages(session, bounds).await?,
        // SHOW, EXPLAIN and what ends in a comment cannot stand in a cursor. That this is one statement was seen above: by
        // the same parser, and nothing has run since that could change how it reads.
        Err(error) if error.code() == Some(&SqlState::SYNTAX_ERROR) => {
            session.batch_execute("ROLLBACK TO SAVEPOINT question").await.map_err(refused)?;
            reading.read(session, sql, bounds).await?;
        }
        Err(error) => return Err(refused(error)),
    }
    reading.answer.truncated |= reading.cut;
    Ok(reading.answer)
}

/// A cursor over the statement, each value as the text that its type's output function gives, and cut one character behind
/// what is shown.
fn cursor(sql: &str, columns: usize, longest: usize) -> String {
    let names: Vec<String> = (1..=columns).map(|number| format!("c{number}")).collect();
    let value = |name: &String| {
        format!(
            "CASE WHEN pg_catalog.num_nulls({name}) = 1 THEN NULL ELSE pg_catalog.left(pg_catalog.format('%s', {name}), {}) END",
            longest + 1
        )
    };
    let values: Vec<String> = names.iter().map(value).collect();
    // A comment at the statement's end ends with the line.
    format!(
        "DECLARE pg2planhat_console NO SCROLL CURSOR FOR SELECT {} FROM (\n{}\n) AS asked ({})",
        values.join(", "),
        sql.trim_end().trim_end_matches(';'),
        names.join(", ")
    )
}

async fn begin(session: &Session, schema: &str, bounds: &Bounds) -> Result<(), Fault> {
    // A server that can notices that nobody listens any more; where it cannot, the statement's limit must do.
    session.batch_execute("SET client_connection_check_interval = '2s'").await.ok();
    let sql = format!(
        "BEGIN READ ONLY; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = '2s'; \
         SET LOCAL idle_in_transaction_session_timeout = '30s'; SET LOCAL search_path = {}; \
         SET LOCAL standard_conforming_strings = on; SELECT 1; SAVEPOINT question",
        bounds.timeout.as_millis().max(1),
        quote::ident(schema)
    );
    session.batch_execute(&sql).await.map_err(|error| session.fault(&error))
}

/// How much was read so far.
struct Reading {
    bytes: usize,
    longest: usize,
    /// A value was shown in part.
    cut: bool,
    answer: QueryAnswer,
}

impl Reading {
    /// Reads the cursor, page by page, up to the bounds.
    async fn pages(&mut self, session: &Session, bounds: &Bounds) -> Result<(), Fault> {
        // One row more than is shown tells whether there are more.
        while !self.answer.truncated && self.answer.rows.len() <= bounds.rows {
            let page = PAGE.min(bounds.rows.saturating_add(1) - self.answer.rows.len());
            if self.read(session, &format!("FETCH {page} FROM pg2planhat_console"), bounds).await? < page {
                break;
            }
        }
        Ok(())
    }

    /// Reads what one statement gives as text, up to the bounds; how many rows came.
    async fn read(&mut self, session: &Session, sql: &str, bounds: &Bounds) -> Result<usize, Fault> {
        let failed = |error: Error| explain(session, &error, bounds);
        let mut messages = pin!(session.simple_query_raw(sql).await.map_err(failed)?);
        let mut came = 0;
        while let Some(message) = messages.try_next().await.map_err(failed)? {
            let SimpleQueryMessage::Row(row) = message else { continue };
            came += 1;
            // A SQL_ASCII database may hold any bytes.
            let text = |index| row.try_get(index).unwrap_or(Some("(not UTF-8)"));
            let values = (0..row.len()).map(|index| text(index).map(|text| self.shortened(text))).collect();
            if !self.take(values, bounds) {
                break;
            }
        }
        Ok(came)
    }

    /// Takes a row, and says whether another one may come.
    fn take(&mut self, values: Vec<Option<String>>, bounds: &Bounds) -> bool {
        let (rows, answer) = (bounds.rows, &mut self.answer);
        self.bytes += values.iter().map(|value| PER_VALUE + value.as_ref().map_or(0, String::len)).sum::<usize>();
        if answer.rows.len() >= rows || self.bytes > bounds.bytes && !answer.rows.is_empty() {
            answer.truncated = true;
            return false;
        }
        answer.rows.push(values);
        answer.truncated |= self.bytes > bounds.bytes;
        !answer.truncated
    }

    fn shortened(&mut self, text: &str) -> String {
        match text.char_indices().nth(self.longest) {
            None => text.to_owned(),
            Some((end, _)) => {
                self.cut = true;
                format!("{}…", &text[..end])
            }
        }
    }
}

fn explain(session: &Session, error: &Error, bounds: &Bounds) -> Fault {
    let Some(db) = error.as_db_error() else {
        // The request hears only that the connection has ended; why, its driver knows.
        return session.ended().filter(|_| error.is_closed()).unwrap_or_else(|| session.fault(error));
    };
    let what = match db.detail() {
        Some(detail) => format!("PostgreSQL says: {} ({detail})", db.message()),
        None => format!("PostgreSQL says: {}", db.message()),
    };
    let remedy = match db.code() {
        code if *code == SqlState::QUERY_CANCELED => return too_long(bounds),
        code if *code == SqlState::READ_ONLY_SQL_TRANSACTION => "nothing can be written here: ask by SELECT".to_owned(),
        code if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
            format!("GRANT SELECT ON … TO {};", quote::ident(session.user()))
        }
        code if *code == SqlState::SYNTAX_ERROR && db.message().contains("multiple commands") => {
            "give one statement".to_owned()
        }
        _ => washed(db.hint().unwrap_or("fix the statement: one SELECT, VALUES, TABLE, SHOW or EXPLAIN")).into_owned(),
    };
    Fault::usage(what, remedy)
}

fn too_long(bounds: &Bounds) -> Fault {
    Fault::unavailable(
        format!("the statement took longer than {:?}", bounds.timeout),
        "ask for less, by an indexed column; or allow more time with --timeout",
    )
}
