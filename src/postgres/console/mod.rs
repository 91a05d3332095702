//! A read-only look at the source, for support people.
//!
//! * In: one statement of SQL, and bounds.
//! * Out: columns and rows as text.
//! * Never: a write; a second statement; a result without bounds.
//!
//! The fences, from the outside in. (1) [`guard`]: no function that reads files, reaches the network, runs SQL out of a
//! string, changes a setting, or touches slots and other sessions; in the text, and again in the plan, where views are
//! opened. EXPLAIN may not run what it explains. (2) PREPARE by the extended protocol: exactly one statement, and one that
//! gives rows, so no SET, RESET, COMMIT, COPY or DO. (3) A READ ONLY transaction, one savepoint deep: inside a
//! subtransaction PostgreSQL does not let even `set_config` take that back. (4) A cursor over the statement as a subquery:
//! SELECT, VALUES and TABLE alone, and no WITH that writes; around it each value is cut by the server, so that a value of a
//! gigabyte is never sent. (5) The rights of `source.query_role`. A function that somebody made in this database could RESET
//! ROLE, and read what the connection's own role may: so only built-in functions and those of compiled extensions are
//! called by name. (Operators and casts made of such functions are not seen; they cannot write either.)

pub(crate) mod denylist;

use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Error, SimpleQueryMessage};

use crate::model::Fault;
use crate::postgres::catalog::quote;
use crate::postgres::connection::session::Session;

/// How far a question may go.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// The role whose rights count; `None`: the connection's own.
    pub role: Option<String>,
    /// Where unqualified names are.
    pub schema: String,
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
    /// The columns' names.
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

/// Characters of one value, at most.
const VALUE: usize = 1 << 20;
/// Rows fetched at once: what a person has seen enough of is not read on.
const PAGE: usize = 100;

/// Asks. The session ends with it: whatever a statement may have left behind ends, too, and so does one that still sends.
///
/// # Errors
/// What is not allowed, what the server refuses, and what takes too long.
pub(crate) async fn ask(session: Session, sql: &str, bounds: &Bounds) -> Result<QueryAnswer, Fault> {
    denylist::text(sql)?;
    let limit = bounds.timeout + Duration::from_secs(5);
    let answer = tokio::time::timeout(limit, within(&session, sql, bounds)).await;
    // In order where it ends soon; a server that is still sending what nobody reads is hung up on.
    tokio::time::timeout(Duration::from_secs(1), session.batch_execute("ROLLBACK")).await.ok();
    answer.map_err(|_| too_long(bounds))?
}

async fn within(session: &Session, sql: &str, bounds: &Bounds) -> Result<QueryAnswer, Fault> {
    begin(session, bounds).await?;
    let refused = |error: Error| explain(session, &error, bounds);
    let statement = session.prepare(sql).await.map_err(refused)?;
    let columns: Vec<String> = statement.columns().iter().map(|column| column.name().to_owned()).collect();
    if columns.is_empty() {
        return Err(Fault::usage(
            "only statements that give rows are run here",
            "ask by SELECT, VALUES, TABLE, SHOW or EXPLAIN",
        ));
    }
    let mut answer = QueryAnswer { columns, ..QueryAnswer::default() };
    let mut reading = Reading { bytes: 0, longest: longest(bounds, answer.columns.len()), cut: false };
    let word = denylist::first_word(sql);
    if matches!(&*word, "show" | "explain") {
        // One statement, as was just seen; its rows are few and short.
        denylist::explain(sql)?;
        reading.read(session, sql, &mut answer, bounds).await?;
        answer.truncated |= reading.cut;
        return Ok(answer);
    }
    let mut called = denylist::called(sql);
    called.extend(plan(session, sql, bounds).await?);
    if bounds.role.is_some() {
        built_in(session, &called).await.map_err(|error| explain(session, &error, bounds))??;
    }
    session.execute(&cursor(sql, answer.columns.len(), reading.longest), &[]).await.map_err(refused)?;
    // One row more than is shown tells whether there are more.
    while !answer.truncated && answer.rows.len() <= bounds.rows {
        let page = PAGE.min(bounds.rows.saturating_add(1) - answer.rows.len());
        let fetch = format!("FETCH {page} FROM pg2planhat_console");
        if reading.read(session, &fetch, &mut answer, bounds).await? < page {
            break;
        }
    }
    answer.truncated |= reading.cut;
    Ok(answer)
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
    // The statement was prepared by itself, so its parentheses are whole; a comment at its end ends with the line.
    format!(
        "DECLARE pg2planhat_console NO SCROLL CURSOR FOR SELECT {} FROM (\n{}\n) AS asked ({})",
        values.join(", "),
        denylist::without_semicolon(sql),
        names.join(", ")
    )
}

async fn begin(session: &Session, bounds: &Bounds) -> Result<(), Fault> {
    let mut sql = format!(
        "BEGIN READ ONLY; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = '2s'; \
         SET LOCAL idle_in_transaction_session_timeout = '30s'; SET LOCAL search_path = {}; ",
        bounds.timeout.as_millis(),
        quote::ident(&bounds.schema)
    );
    if let Some(role) = &bounds.role {
        sql.push_str(&format!("SET LOCAL ROLE {}; ", quote::ident(role)));
    }
    // A snapshot, then a savepoint: from here on the transaction cannot be made READ WRITE.
    sql.push_str("SELECT 1; SAVEPOINT fence");
    session.batch_execute(&sql).await.map_err(|error| {
        let fault = session.fault(&error);
        match &bounds.role {
            Some(role) => Fault::new(
                fault.exit,
                format!("the role {role} (source.query_role) cannot be taken: {}", fault.what),
                format!(
                    "CREATE ROLE {0} NOLOGIN; GRANT {0} TO {1}; and grant SELECT to {0}",
                    quote::ident(role),
                    quote::ident(session.user())
                ),
            ),
            None => fault,
        }
    })
}

/// The plan shows the functions that views hide; gives their names.
async fn plan(session: &Session, sql: &str, bounds: &Bounds) -> Result<Vec<String>, Fault> {
    let explain_sql = format!("EXPLAIN (VERBOSE, COSTS off) {sql}");
    let lines = session.simple_query(&explain_sql).await.map_err(|error| explain(session, &error, bounds))?;
    let mut called = Vec::new();
    for line in &lines {
        if let SimpleQueryMessage::Row(row) = line {
            let line = row.get(0).unwrap_or_default();
            denylist::plan(line)?;
            called.extend(denylist::called(line));
        }
    }
    Ok(called)
}

/// Refuses functions that were made in this database, by their names.
async fn built_in(session: &Session, called: &[String]) -> Result<Result<(), Fault>, Error> {
    let sql =
        "SELECT p.oid::regprocedure::text FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
        JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE p.proname = ANY($1) AND l.lanname NOT IN ('internal', 'c')
          AND n.nspname NOT IN ('pg_catalog', 'information_schema') LIMIT 1";
    let found = session.query_opt(sql, &[&called]).await?;
    Ok(found.map_or(Ok(()), |row| {
        let what =
            format!("the function {} was made in this database: it could take other rights", row.get::<_, String>(0));
        Err(Fault::usage(what, "ask without it; or by psql, with a role of one's own"))
    }))
}

/// How much was read so far.
struct Reading {
    bytes: usize,
    longest: usize,
    /// A value was shown in part.
    cut: bool,
}

impl Reading {
    /// Reads rows as text, up to the bounds; how many came.
    async fn read(
        &mut self,
        session: &Session,
        sql: &str,
        answer: &mut QueryAnswer,
        bounds: &Bounds,
    ) -> Result<usize, Fault> {
        let failed = |error: Error| explain(session, &error, bounds);
        let mut messages = pin!(session.simple_query_raw(sql).await.map_err(failed)?);
        let mut came = 0;
        while let Some(message) = messages.try_next().await.map_err(failed)? {
            let SimpleQueryMessage::Row(row) = message else { continue };
            came += 1;
            // A SQL_ASCII database may hold any bytes.
            let text = |index| row.try_get(index).unwrap_or(Some("(not UTF-8)"));
            let values: Vec<Option<String>> =
                (0..row.len()).map(|index| text(index).map(|text| self.shortened(text))).collect();
            self.bytes += values.iter().flatten().map(String::len).sum::<usize>();
            if answer.rows.len() >= bounds.rows || self.bytes > bounds.bytes && !answer.rows.is_empty() {
                answer.truncated = true;
                break;
            }
            answer.rows.push(values);
            if self.bytes > bounds.bytes {
                answer.truncated = true;
                break;
            }
        }
        Ok(came)
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
    let Some(db) = error.as_db_error() else { return session.fault(error) };
    let what = match db.detail() {
        Some(detail) => format!("PostgreSQL says: {} ({detail})", db.message()),
        None => format!("PostgreSQL says: {}", db.message()),
    };
    let remedy = match db.code() {
        code if *code == SqlState::QUERY_CANCELED => return too_long(bounds),
        code if *code == SqlState::READ_ONLY_SQL_TRANSACTION => "nothing can be written here: ask by SELECT".to_owned(),
        code if *code == SqlState::INSUFFICIENT_PRIVILEGE => match &bounds.role {
            Some(role) => format!("GRANT SELECT ON … TO {};", quote::ident(role)),
            None => "the program's own role may read the mapped columns only; set source.query_role".to_owned(),
        },
        code if *code == SqlState::SYNTAX_ERROR && db.message().contains("multiple commands") => {
            "give one statement".to_owned()
        }
        _ => db.hint().unwrap_or("mend the statement: one SELECT, VALUES, TABLE, SHOW or EXPLAIN").to_owned(),
    };
    Fault::usage(what, remedy)
}

fn too_long(bounds: &Bounds) -> Fault {
    Fault::unavailable(
        format!("the statement took longer than {:?}", bounds.timeout),
        "ask for less, by an indexed column; or allow more time with --timeout",
    )
}
