//! Who acts on the source: the application with its open transactions, and its DBA. What was deleted is remembered.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::{Client, SimpleQueryMessage};

use super::schedule::{Change, SESSIONS, Table};
use crate::harness::Cluster;

pub struct Application<'a> {
    cluster: &'a Cluster,
    database: String,
    one: Client,
    sessions: Vec<Option<Client>>,
    prepared: BTreeSet<usize>,
    /// Low keys handed out, by table.
    low: BTreeMap<Table, u32>,
    pub gone: BTreeMap<Table, BTreeSet<i64>>,
    /// How often each table's columns were changed: their names and types follow from it.
    changes: BTreeMap<(Table, &'static str), u32>,
}

/// What `rows` are, from the sequence: every third number, so that there are keys between them.
fn insert(table: Table, rows: u32) -> String {
    format!("INSERT INTO {} (v) SELECT g FROM generate_series(1, {rows}) g", table.name())
}

impl Application<'_> {
    /// Makes the tables, with these rows in them.
    pub async fn new<'a>(cluster: &'a Cluster, database: &str, rows: &[(Table, u32)]) -> Application<'a> {
        let one = cluster.client_of(database).await;
        for table in Table::ALL {
            let name = table.name();
            let key = if table == Table::A { "int" } else { "bigint" };
            let partition = if table == Table::P { "PARTITION BY HASH (id)" } else { "" };
            let made = format!(
                "CREATE SEQUENCE {name}_id INCREMENT 3 START 300000;
                 CREATE TABLE {name} (id {key} PRIMARY KEY DEFAULT nextval('{name}_id'), v float8, spare int) {partition};"
            );
            one.batch_execute(&made).await.unwrap();
        }
        one.batch_execute(
            "CREATE TABLE p0 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE p1 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
        )
        .await
        .unwrap();
        for (table, rows) in rows {
            one.batch_execute(&insert(*table, *rows)).await.unwrap();
        }
        Application {
            cluster,
            database: database.to_owned(),
            one,
            sessions: (0..SESSIONS).map(|_| None).collect(),
            prepared: BTreeSet::new(),
            low: BTreeMap::new(),
            gone: BTreeMap::new(),
            changes: BTreeMap::new(),
        }
    }

    /// After an outage: all that was open is rolled back; what is prepared stays.
    pub async fn reconnect(&mut self) {
        self.one = self.cluster.client_of(&self.database).await;
        self.sessions.iter_mut().for_each(|session| *session = None);
    }

    pub async fn insert(&self, table: Table, rows: u32) {
        self.one.batch_execute(&insert(table, rows)).await.unwrap();
    }

    fn low(&mut self, table: Table, rows: u32) -> String {
        let given = self.low.entry(table).or_default();
        let (from, to) = (*given, *given + rows - 1);
        *given += rows;
        // Around the first keys of the sequence, from below on, none of which the sequence gives.
        format!("INSERT INTO {} (id, v) SELECT 299701 + 3 * g, g FROM generate_series({from}, {to}) g", table.name())
    }

    pub async fn insert_low(&mut self, table: Table, rows: u32) {
        let sql = self.low(table, rows);
        self.one.batch_execute(&sql).await.unwrap();
    }

    pub async fn copy(&self, table: Table, rows: u32) {
        self.one.batch_execute(&format!("COPY {} (v) FROM PROGRAM 'seq 1 {rows}'", table.name())).await.unwrap();
    }

    pub async fn update(&self, table: Table) {
        self.one
            .batch_execute(&format!("SET lock_timeout = '300ms'; UPDATE {} SET v = v + 1", table.name()))
            .await
            .ok();
    }

    async fn numbers(&self, sql: &str) -> Vec<i64> {
        numbers(&self.one, sql).await.unwrap()
    }

    pub async fn delete(&mut self, table: Table, rows: u32) {
        let name = table.name();
        let some = format!(
            "DELETE FROM {name} WHERE id IN (SELECT id FROM {name} ORDER BY id DESC LIMIT {rows}) RETURNING id"
        );
        let gone = self.numbers(&some).await;
        self.gone.entry(table).or_default().extend(gone);
    }

    /// Says whether it could take the lock.
    pub async fn truncate(&mut self, table: Table) -> bool {
        let name = table.name();
        let locked = self.one.batch_execute(&format!("SET lock_timeout = '300ms'; BEGIN; LOCK {name}")).await.is_ok();
        if !locked {
            self.one.batch_execute("ROLLBACK").await.unwrap();
            return false;
        }
        let gone = self.numbers(&format!("SELECT id FROM {name}")).await;
        self.one.batch_execute(&format!("TRUNCATE {name}; COMMIT")).await.unwrap();
        self.gone.entry(table).or_default().extend(gone);
        true
    }

    pub async fn begin(&mut self, session: usize) {
        let client = self.cluster.client_of(&self.database).await;
        client.batch_execute("BEGIN").await.unwrap();
        self.sessions[session] = Some(client);
    }

    /// Nothing, where the transaction was lost with its server.
    async fn within(&self, session: usize, sql: &str) {
        if let Some(client) = &self.sessions[session] {
            client.batch_execute(sql).await.unwrap();
        }
    }

    pub async fn write(&self, session: usize, table: Table, rows: u32) {
        self.within(session, &insert(table, rows)).await;
    }

    pub async fn write_low(&mut self, session: usize, table: Table, rows: u32) {
        let sql = self.low(table, rows);
        self.within(session, &sql).await;
    }

    pub async fn savepoint(&self, session: usize, table: Table, rows: u32, keep: bool) {
        let end = if keep { "RELEASE s" } else { "ROLLBACK TO s" };
        self.within(session, &format!("SAVEPOINT s; {}; {end}", insert(table, rows))).await;
    }

    pub async fn end(&mut self, session: usize, how: &str) {
        self.within(session, how).await;
        self.sessions[session] = None;
    }

    pub async fn prepare(&mut self, session: usize) {
        if self.sessions[session].is_some() {
            self.end(session, &format!("PREPARE TRANSACTION '{}_{session}'", self.database)).await;
            self.prepared.insert(session);
        }
    }

    pub async fn end_prepared(&mut self, session: usize, commit: bool) {
        if self.prepared.remove(&session) {
            let word = if commit { "COMMIT" } else { "ROLLBACK" };
            self.one.batch_execute(&format!("{word} PREPARED '{}_{session}'", self.database)).await.unwrap();
        }
    }

    /// Commits whatever is open.
    pub async fn end_all(&mut self) {
        for session in 0..SESSIONS {
            self.end(session, "COMMIT").await;
            self.end_prepared(session, true).await;
        }
    }

    /// Says whether it could take its locks.
    pub async fn ddl(&mut self, table: Table, change: Change, hold: u64) -> bool {
        let name = table.name();
        let index = format!("{name}_pkey");
        let column = match change {
            Change::AddColumn | Change::DropColumn => "more",
            Change::RenameColumn | Change::RetypeOther => "spare",
            Change::RetypeKey => "id",
            Change::VacuumFull | Change::Cluster | Change::Analyze | Change::Reindex => "",
        };
        let count = self.changes.entry((table, column)).or_default();
        let odd = *count % 2 == 1;
        let spare =
            if self.changes.get(&(table, "renamed")).is_some_and(|times| times % 2 == 1) { "spare2" } else { "spare" };
        let sql = match change {
            Change::AddColumn => format!("ALTER TABLE {name} ADD COLUMN IF NOT EXISTS more int DEFAULT 7"),
            Change::DropColumn => format!("ALTER TABLE {name} DROP COLUMN IF EXISTS more"),
            Change::RenameColumn if spare == "spare" => format!("ALTER TABLE {name} RENAME spare TO spare2"),
            Change::RenameColumn => format!("ALTER TABLE {name} RENAME spare2 TO spare"),
            Change::RetypeOther => {
                format!("ALTER TABLE {name} ALTER {spare} TYPE {}", if odd { "int" } else { "bigint" })
            }
            // A partitioned table's key is in its partition key, and cannot be changed.
            Change::RetypeKey if table == Table::P => format!("VACUUM FULL {name}"),
            Change::RetypeKey => {
                let to_big = (table == Table::A) != odd;
                format!("ALTER TABLE {name} ALTER id TYPE {}", if to_big { "bigint" } else { "int" })
            }
            Change::VacuumFull => format!("VACUUM FULL {name}"),
            Change::Cluster if table == Table::P => format!("ANALYZE {name}"),
            Change::Cluster => format!("CLUSTER {name} USING {index}"),
            Change::Analyze => format!("ANALYZE {name}"),
            Change::Reindex => format!("REINDEX TABLE {name}"),
        };
        let alone = sql.starts_with("VACUUM") || sql.starts_with("REINDEX") || sql.starts_with("CLUSTER");
        self.one.batch_execute("SET lock_timeout = '400ms'").await.unwrap();
        let done = match alone {
            true => self.one.batch_execute(&sql).await,
            false => {
                let hold = format!("BEGIN; {sql}; SELECT pg_sleep({}); COMMIT", hold as f64 / 1_000.0);
                self.one.batch_execute(&hold).await
            }
        };
        match done {
            Ok(()) => {
                *self.changes.entry((table, column)).or_default() += u32::from(!column.is_empty() && column != "more");
                if change == Change::RenameColumn {
                    *self.changes.entry((table, "renamed")).or_default() += 1;
                    // The name and the type are counted apart.
                    *self.changes.entry((table, column)).or_default() -= 1;
                }
                true
            }
            Err(error) => {
                let locked = error.code() == Some(&tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE);
                assert!(locked, "{sql}: {error:?}");
                self.one.batch_execute("ROLLBACK").await.unwrap();
                false
            }
        }
    }

    /// Says whether there is a publication, and it was not so already.
    pub async fn publish(&self, publication: &str, add: bool) -> bool {
        let word = if add { "ADD" } else { "DROP" };
        self.one.batch_execute(&format!("ALTER PUBLICATION {publication} {word} TABLE u")).await.is_ok()
    }

    pub async fn terminate(&self) {
        let sql = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = '{}' AND application_name <> 'harness' AND pid <> pg_backend_pid()",
            self.database
        );
        self.one.batch_execute(&sql).await.unwrap();
    }

    pub async fn sql(&self, sql: &str) {
        self.one.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// The first columns of a query's rows, as text; nothing where it fails.
    pub async fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        rows(&self.one, sql).await.unwrap_or_default()
    }

    pub async fn keys(&self, table: Table) -> BTreeSet<i64> {
        self.numbers(&format!("SELECT id FROM {}", table.name())).await.into_iter().collect()
    }
}

async fn rows(client: &Client, sql: &str) -> Result<Vec<Vec<String>>, tokio_postgres::Error> {
    let messages = client.simple_query(sql).await?;
    let row = |message| {
        let SimpleQueryMessage::Row(row) = message else { return None };
        Some((0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect())
    };
    Ok(messages.into_iter().filter_map(row).collect())
}

async fn numbers(client: &Client, sql: &str) -> Result<Vec<i64>, tokio_postgres::Error> {
    Ok(rows(client, sql).await?.iter().map(|row| row[0].parse().unwrap()).collect())
}
