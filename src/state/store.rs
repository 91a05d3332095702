//! One session with the state schema: its settings, its bounds, its transactions, its migrations.
//!
//! * In: a connected client, whose connection the caller drives.
//! * Out: a [`Store`], on which the other files of this room put their statements.
//! * Never: a wait without bound, for a lock, a statement, an answer, or a client that froze inside a transaction.

use std::borrow::Cow;
use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use tokio_postgres::{Client, Error, Row, Statement};

use crate::sql::SqlParams;
use crate::state::migrations;
use crate::state::migrations::{MIGRATIONS, Schema};
use crate::state::state_error::{StateError, StatePlace};
use crate::state::write_sql::Write;

/// How long an answer may take, whatever the server does.
const ANSWER: Duration = Duration::from_secs(30);

/// Settings of the session. A process that freezes inside a transaction holds the row of `instance` locked: the server
/// ends its session before the standby's wait for that lock is over (5 s < 10 s), so that a takeover is never stuck.
const SETTINGS: &str = "SET synchronous_commit = local; SET statement_timeout = '15s'; SET lock_timeout = '10s'; \
     SET idle_in_transaction_session_timeout = '5s'; SET default_transaction_isolation = 'read committed'; \
     SET search_path = pg_catalog; SET standard_conforming_strings = on; SET client_min_messages = warning; SET jit = off";

/// Parameters of a statement.
pub(crate) type Params<'a> = SqlParams<'a>;

/// The right to write, and the last list written by it. The leader keeps it across reconnects, so that the same list,
/// applied again after a lost answer, is applied once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Epoch {
    pub(crate) epoch: i64,
    /// The number of the last list known to be applied; ascends over all epochs.
    pub(crate) seq: i64,
    /// The last number that was sent: up to it, lists may have been applied.
    pub(crate) sent: i64,
}

impl Epoch {
    pub(crate) fn epoch(&self) -> i64 {
        self.epoch
    }
}

/// One session with the state schema.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) client: Client,
    pub(crate) place: StatePlace,
    pub(crate) prepared: HashMap<Write, Statement>,
    /// The last number that was sent in the leader's term; later than a list's own where others were sent behind it.
    pub(crate) sent: AtomicI64,
    /// Whether only ASCII can be stored for sure, because the database's encoding is not UTF-8.
    ascii_only: bool,
    /// Whether a transaction is open whose future was dropped: the next statement rolls it back first.
    abandoned: AtomicBool,
}

impl Store {
    /// Sets the session up. The schema need not exist.
    pub(crate) async fn new(client: Client, schema: Schema) -> Result<Store, StateError> {
        let place = StatePlace { schema, user: String::new(), database: String::new() };
        let mut store = Store {
            client,
            place,
            prepared: HashMap::new(),
            sent: AtomicI64::new(0),
            ascii_only: false,
            abandoned: AtomicBool::new(false),
        };
        let doing = "setting the session up";
        let settings = format!("{SETTINGS}; SET application_name = '{}'", crate::state::APPLICATION_NAME);
        let asked = "SELECT current_user::text, current_database()::text, current_setting('server_encoding')";
        let set = store.bounded(doing, store.client.batch_execute(&settings));
        let ((), row) = tokio::try_join!(set, store.one(doing, asked, &[]))?;
        (store.place.user, store.place.database) = (row.get(0), row.get(1));
        store.ascii_only = !matches!(row.get::<_, &str>(2), "UTF8" | "SQL_ASCII");
        Ok(store)
    }

    /// Whether the connection is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// The schema's version; `None` where its tables are not there.
    pub(crate) async fn schema_version(&self) -> Result<Option<i32>, StateError> {
        let doing = "looking for the tables";
        let there = "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                     WHERE n.nspname::text = $1 AND c.relname = 'instance' AND c.relkind IN ('r', 'p')";
        if self.query(doing, there, &[&self.place.schema.name()]).await?.is_empty() {
            return Ok(None);
        }
        let rows = self.query(doing, "SELECT schema_version FROM {schema}.instance WHERE id = 1", &[]).await?;
        rows.first().map(|row| Some(row.get(0))).ok_or_else(|| self.place.no_instance())
    }

    /// Whether the schema is there, in the version that this program reads and writes.
    ///
    /// # Errors
    /// [`StateError::Unwritable`] where the schema is of a later version.
    pub(crate) async fn is_there(&self) -> Result<bool, StateError> {
        match self.schema_version().await? {
            Some(held) if held > migrations::version() => Err(self.place.newer_schema(held, migrations::version())),
            held => Ok(held == Some(migrations::version())),
        }
    }

    /// Makes the schema, or brings it to this program's version: one transaction, one process at a time.
    ///
    /// # Errors
    /// [`StateError::Unwritable`] where rights are missing or the schema is of a later version.
    pub(crate) async fn migrate(&mut self) -> Result<(), StateError> {
        if self.is_there().await? {
            return Ok(());
        }
        self.transaction("migrating", "BEGIN", async |store| {
            let doing = "migrating";
            let name = store.place.schema.name();
            let lock = "SELECT pg_advisory_xact_lock(hashtextextended('pg2planhat state ' || $1, 0))";
            store.query(doing, lock, &[&name]).await?;
            // Not IF NOT EXISTS: that asks for the right to create even where the schema exists.
            let exists = "SELECT 1 FROM pg_namespace WHERE nspname::text = $1";
            if store.query(doing, exists, &[&name]).await?.is_empty() {
                store.script(doing, "CREATE SCHEMA {schema}").await?;
            }
            let held = match store.schema_version().await? {
                Some(held) if held > migrations::version() => {
                    return Err(store.place.newer_schema(held, migrations::version()));
                }
                held => usize::try_from(held.unwrap_or(0)).unwrap_or(0),
            };
            for migration in MIGRATIONS.iter().skip(held) {
                store.script(doing, migration).await?;
            }
            store.script(doing, &migrations::record_version()).await
        })
        .await
    }

    /// Whether this role may drop the schema and everything in it.
    pub(crate) async fn may_drop_schema(&self) -> Result<bool, StateError> {
        let sql = "SELECT coalesce(bool_and(pg_has_role(n.nspowner, 'USAGE')
                AND NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND NOT pg_has_role(c.relowner, 'USAGE'))),
            true) FROM pg_namespace n WHERE n.nspname::text = $1";
        Ok(self.one("looking at the schema's owner", sql, &[&self.place.schema.name()]).await?.get(0))
    }

    /// Drops the tables and the schema. Whatever else somebody put into the schema stays, and is an error.
    ///
    /// # Errors
    /// [`StateError::Unwritable`] where rights are missing or the schema holds other objects.
    pub(crate) async fn drop_schema(&mut self) -> Result<(), StateError> {
        self.prepared.clear();
        self.transaction("dropping the schema", "BEGIN", async |store| {
            store.script("dropping the schema", &migrations::drop_template()).await
        })
        .await
    }
}

/// What the other files of this room stand on. `{schema}` in SQL is replaced.
impl Store {
    /// Waits for an answer, within bounds, and says what an error means.
    pub(crate) async fn bounded<T>(
        &self,
        doing: &str,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, StateError> {
        match tokio::time::timeout(ANSWER, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.place.classify(doing, &error)),
            Err(_) => Err(self.place.unreachable(doing, "no answer within 30 s")),
        }
    }

    /// The rows of one statement.
    pub(crate) async fn query(&self, doing: &str, sql: &str, params: Params<'_>) -> Result<Vec<Row>, StateError> {
        self.settle().await?;
        self.bounded(doing, crate::sql::query(&self.client, &self.place.schema.sql(sql), params)).await
    }

    /// The one row of a statement that always has one.
    pub(crate) async fn one(&self, doing: &str, sql: &str, params: Params<'_>) -> Result<Row, StateError> {
        self.settle().await?;
        self.bounded(doing, crate::sql::query_one(&self.client, &self.place.schema.sql(sql), params)).await
    }

    /// One statement; how many rows it changed.
    pub(crate) async fn execute(&self, doing: &str, sql: &str, params: Params<'_>) -> Result<u64, StateError> {
        self.settle().await?;
        self.bounded(doing, crate::sql::execute(&self.client, &self.place.schema.sql(sql), params)).await
    }

    async fn script(&self, doing: &str, sql: &str) -> Result<(), StateError> {
        self.bounded(doing, self.client.batch_execute(&self.place.schema.sql(sql))).await
    }

    /// Does `work` between `begin` and COMMIT, or ROLLBACK where it fails. `&mut`: nothing else can slip into it.
    pub(crate) async fn transaction<T>(
        &mut self,
        doing: &str,
        begin: &str,
        work: impl AsyncFnOnce(&Store) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        self.settle().await?;
        let store: &Store = self;
        let open = OpenTransaction::new(&store.abandoned);
        // The first statement is sent behind it, not after its answer: a round trip less.
        let begun = store.bounded(doing, store.client.batch_execute(begin));
        let (begun, worked) = tokio::join!(biased; begun, work(store));
        match begun.and(worked) {
            Ok(value) => {
                store.bounded(doing, store.client.batch_execute("COMMIT")).await?;
                open.ended();
                Ok(value)
            }
            Err(error) => {
                store.rollback(open).await;
                Err(error)
            }
        }
    }

    /// Ends a transaction that failed. Where this fails too, the next statement does it, or finds the connection gone.
    pub(crate) async fn rollback(&self, open: OpenTransaction<'_>) {
        if self.bounded("rolling back", self.client.batch_execute("ROLLBACK")).await.is_ok() {
            open.ended();
        }
    }

    /// Rolls back what a dropped future left open.
    pub(crate) async fn settle(&self) -> Result<(), StateError> {
        if !self.abandoned.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let open = OpenTransaction::new(&self.abandoned);
        self.bounded("rolling back", self.client.batch_execute("ROLLBACK")).await?;
        open.ended();
        Ok(())
    }

    /// Text that the database can hold: no NUL; where its encoding is not UTF-8, other characters than ASCII as JSON
    /// escapes, which leaves an item the same JSON.
    pub(crate) fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        storable(text, self.ascii_only)
    }
}

/// A transaction that is open. Dropped before its end, it leaves word that it is to be rolled back.
pub(crate) struct OpenTransaction<'a> {
    abandoned: &'a AtomicBool,
    ended: bool,
}

impl<'a> OpenTransaction<'a> {
    fn new(abandoned: &'a AtomicBool) -> Self {
        OpenTransaction { abandoned, ended: false }
    }

    /// Its end was seen.
    pub(crate) fn ended(mut self) {
        self.ended = true;
    }
}

impl Drop for OpenTransaction<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.abandoned.store(true, Ordering::Relaxed);
        }
    }
}

fn storable(text: &str, ascii_only: bool) -> Cow<'_, str> {
    let kept = |c: char| c != '\0' && (c.is_ascii() || !ascii_only);
    if text.chars().all(kept) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if kept(c) {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    }
    Cow::Owned(out)
}

/// SQL that shows a timestamp as RFC 3339 in UTC.
pub(crate) fn rfc3339(column: &str) -> String {
    format!(r#"to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"#)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn text_is_made_storable_and_stays_the_same_json() {
        assert!(matches!(storable("naïve 🙂", false), Cow::Borrowed(_)));
        assert_eq!(storable("a\0b", false), "a\\u0000b");
        let item = r#"{"a":"naïve 🙂"}"#;
        let stored = storable(item, true);
        assert!(stored.is_ascii());
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(parse(&stored), parse(item));
    }
}
