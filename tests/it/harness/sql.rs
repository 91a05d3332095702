//! Talking SQL to a [`Cluster`], as its superuser and by its socket: whatever the test does to the TCP side.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::{Cluster, eventually};

impl Cluster {
    /// A superuser's connection to the database `postgres`, by the socket.
    pub async fn client(&self) -> Client {
        self.client_of("postgres").await
    }

    /// A superuser's connection to `database`, by the socket.
    pub async fn client_of(&self, database: &str) -> Client {
        self.try_client(database).await.unwrap_or_else(|error| panic!("connecting: {error:?}\n{}", self.log()))
    }

    /// The same, where nobody may answer.
    pub async fn try_client(&self, database: &str) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.socket_directory()).port(self.port()).user("postgres").dbname(database);
        let (client, connection) = config.application_name("harness").connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Runs statements; panics with the server's words if one fails. A walsender holds its slot for a moment after its client
    /// has gone: that is waited for.
    pub async fn sql(&self, statements: &str) {
        let begun = std::time::Instant::now();
        while let Err(error) = self.try_sql(statements).await {
            let in_use = error.code() == Some(&SqlState::OBJECT_IN_USE) && begun.elapsed() < Duration::from_secs(10);
            assert!(in_use, "{statements}\n{error:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs statements.
    pub async fn try_sql(&self, statements: &str) -> Result<(), tokio_postgres::Error> {
        self.try_client("postgres").await?.batch_execute(statements).await
    }

    /// The rows of one query, as text.
    pub async fn rows(&self, query: &str) -> Vec<Vec<Option<String>>> {
        let client = self.client().await;
        let messages = client.simple_query(query).await.unwrap_or_else(|error| panic!("{query}\n{error:?}"));
        let rows = messages.into_iter().filter_map(|message| {
            let SimpleQueryMessage::Row(row) = message else { return None };
            Some(row)
        });
        rows.map(|row| (0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()).collect()
    }

    /// The one value of a query, as text. Panics at NULL, and at no row.
    pub async fn text(&self, query: &str) -> String {
        let rows = self.rows(query).await;
        let value = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
        value.unwrap_or_else(|| panic!("no value: {query}"))
    }

    /// The one number of a query.
    pub async fn number(&self, query: &str) -> i64 {
        let text = self.text(query).await;
        text.parse().unwrap_or_else(|_| panic!("not a number: {text:?} from {query}"))
    }

    /// Changes a setting that a reload can change, and waits until new sessions have it.
    pub async fn set(&self, name: &str, value: &str) {
        let before = self.text("SELECT pg_conf_load_time()").await;
        let client = self.client().await;
        let value = value.replace('\'', "''");
        client.batch_execute(&format!("ALTER SYSTEM SET {name} = '{value}'")).await.unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        let reloaded = || async { (self.text("SELECT pg_conf_load_time()").await != before).then_some(()) };
        eventually(Duration::from_secs(10), "the configuration to be reloaded", reloaded).await;
    }
}
