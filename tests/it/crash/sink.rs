//! A sink that keeps everything, errs by chance, and tells the trigger where each request is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::trigger::{Moment, Point, Trigger};

/// What is known of the requests of one section.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Key → how often it is stored.
    pub stored: HashMap<i64, u32>,
    /// The keys of every request that was stored, in order.
    pub requests: Vec<Vec<i64>>,
}

struct Shared {
    trigger: Arc<Trigger>,
    dice: Mutex<Rng>,
    seen: Mutex<HashMap<&'static str, Seen>>,
    sound: AtomicBool,
}

/// Listens on the loopback interface until dropped.
pub struct Sink {
    shared: Arc<Shared>,
    port: u16,
    task: JoinHandle<()>,
}

impl Sink {
    pub async fn start(trigger: Arc<Trigger>, dice: Rng) -> Sink {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Mutex::new(HashMap::from([("seats", Seen::default()), ("logins", Seen::default())]));
        let shared = Arc::new(Shared { trigger, dice: Mutex::new(dice), seen, sound: AtomicBool::new(false) });
        let theirs = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, Arc::clone(&theirs)));
            }
        });
        Sink { shared, port, task }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on every answer is a good one.
    pub fn mend(&self) {
        self.shared.sound.store(true, Ordering::SeqCst);
    }

    pub fn seen(&self, section: &str) -> Seen {
        self.shared.seen.lock().unwrap()[section].clone()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn chance(&self, percent: u8) -> bool {
        self.dice.lock().unwrap().u8(0..100) < percent
    }

    fn store(&self, section: &'static str, keys: &[i64], but: usize) {
        let mut seen = self.seen.lock().unwrap();
        let seen = seen.get_mut(section).unwrap();
        seen.requests.push(keys.to_vec());
        for key in &keys[but..] {
            *seen.stored.entry(*key).or_default() += 1;
        }
    }
}

/// One connection, request by request.
async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    let mut read = Vec::new();
    while let Some(()) = request(&mut client, &mut read, &shared).await {}
}

async fn request(client: &mut TcpStream, read: &mut Vec<u8>, shared: &Shared) -> Option<()> {
    let head = loop {
        if let Some(end) = memchr::memmem::find(read, b"\r\n\r\n") {
            break end + 4;
        }
        more(client, read).await?;
    };
    let text = String::from_utf8(read[..head].to_vec()).unwrap().to_ascii_lowercase();
    let section = if text.contains("/dimensiondata/") { "seats" } else { "logins" };
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap();
    let length: usize = length.trim().parse().unwrap();
    let kills = |moment| shared.trigger.hit(Point::Sink(moment), 1);
    if kills(Moment::Arrives) {
        return None;
    }
    while read.len() < head + length {
        more(client, read).await?;
    }
    let items: Vec<serde_json::Value> = serde_json::from_slice(&read[head..head + length]).unwrap();
    read.drain(..head + length);
    let key = |item: &serde_json::Value| item["externalId"].as_str().unwrap().parse().unwrap();
    let keys: Vec<i64> = items.iter().map(key).collect();
    if kills(Moment::Read) {
        return None;
    }
    let errs = !shared.sound.load(Ordering::SeqCst);
    if errs && shared.chance(4) {
        let none = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n";
        return client.write_all(none.as_bytes()).await.ok();
    }
    let refused = usize::from(errs && shared.chance(4));
    shared.store(section, &keys, refused);
    if kills(Moment::Stored) || (errs && shared.chance(3)) {
        return None;
    }
    let errors = if refused == 1 { format!("{{\"item\":{},\"error\":\"no\"}}", items[0]) } else { String::new() };
    let body = format!("{{\"processed\":{},\"errors\":[{errors}]}}", keys.len() - refused);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    client.write_all(head.as_bytes()).await.ok()?;
    if kills(Moment::HalfAnswered) {
        return None;
    }
    client.write_all(body.as_bytes()).await.ok()?;
    if kills(Moment::Answered) { None } else { Some(()) }
}

async fn more(client: &mut TcpStream, read: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 16 << 10];
    let count = client.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
    read.extend_from_slice(&buffer[..count]);
    Some(())
}
