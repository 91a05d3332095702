//! Between the program and PostgreSQL: everything passes, and the trigger hears of the words that it waits for.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::trigger::{Point, Side, Trigger, Word};

/// Listens on the loopback interface until dropped.
pub struct Tap {
    port: u16,
    task: JoinHandle<()>,
}

impl Tap {
    pub async fn start(server: u16, trigger: Arc<Trigger>) -> Tap {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(target) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
                let (client, target) = (client.into_split(), target.into_split());
                let waits = Awaited::default();
                tokio::spawn(there(client.0, target.1, Arc::clone(&trigger), Arc::clone(&waits)));
                tokio::spawn(back(target.0, client.1, Arc::clone(&trigger), waits));
            }
        });
        Tap { port, task }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The word that has gone to the server, and whose answer is awaited.
type Awaited = Arc<Mutex<Option<Word>>>;

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    memchr::memmem::find(bytes, word).is_some()
}

/// To the server.
async fn there(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, trigger: Arc<Trigger>, waits: Awaited) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            drop(to.shutdown().await);
            return;
        }
        let bytes = &buffer[..read];
        let words: Vec<Word> = Word::ALL.into_iter().filter(|word| contains(bytes, word.bytes())).collect();
        if words.iter().any(|word| trigger.hit(Point::Wire(*word, Side::Before), 1)) {
            return;
        }
        if let Some(word) = words.first() {
            *waits.lock().unwrap() = Some(*word);
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
        for word in &words {
            trigger.hit(Point::Wire(*word, Side::After), 1);
        }
        trigger.hit(Point::Bytes, read as u64);
    }
}

/// To the program.
async fn back(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, trigger: Arc<Trigger>, waits: Awaited) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            drop(to.shutdown().await);
            return;
        }
        let word = waits.lock().unwrap().take();
        if word.is_some_and(|word| trigger.hit(Point::Wire(word, Side::Answered), 1)) {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
