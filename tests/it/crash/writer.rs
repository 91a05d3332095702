//! The application: transactions of all sizes, some held open while others commit, some rolled back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::harness::Cluster;

pub struct Writer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Writer {
    pub async fn start(cluster: &Cluster, database: &str, dice: Rng) -> Writer {
        let client = || cluster.client_of(database);
        let clients = [client().await, client().await, client().await];
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(write(clients, dice, Arc::clone(&stop)));
        Writer { stop, task }
    }

    /// Ends the open transactions, and waits until all are ended.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap();
    }
}

async fn write(clients: [Client; 3], mut dice: Rng, stop: Arc<AtomicBool>) {
    let mut open = [false; 3];
    let mut sizes = 0;
    while !stop.load(Ordering::SeqCst) {
        let one = dice.usize(0..clients.len());
        let (table, column, value) = if dice.bool() { ("seats", "value", "1") } else { ("logins", "who", "'x'") };
        // One large transaction now and then, as long as the run stays short.
        let rows = if dice.u8(0..40) == 0 && sizes < 3 { 600 } else { dice.u32(1..12) };
        sizes += u32::from(rows == 600);
        let insert = format!("INSERT INTO {table} ({column}) SELECT {value} FROM generate_series(1, {rows})");
        let sql = match (open[one], dice.u8(0..10)) {
            (false, 0..5) => insert,
            (false, _) => format!("BEGIN; {insert}"),
            (true, 0..4) => insert,
            (true, 4..6) => format!("SAVEPOINT s; {insert}; ROLLBACK TO s"),
            (true, 6..9) => "COMMIT".to_owned(),
            (true, _) => "ROLLBACK".to_owned(),
        };
        open[one] = if sql.starts_with("BEGIN") { true } else { open[one] && sql != "COMMIT" && sql != "ROLLBACK" };
        clients[one].batch_execute(&sql).await.unwrap();
        // Paced, so that the kills fall among the rows; nothing depends on it.
        tokio::time::sleep(Duration::from_millis(dice.u64(2..25))).await;
    }
    for client in clients {
        client.batch_execute("COMMIT").await.unwrap();
    }
}
