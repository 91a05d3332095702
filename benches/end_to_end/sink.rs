//! The sink of the measurements: a process of its own that takes bodies, counts them, and says what it has counted.
//!
//! It costs as little as a sink can, so that what is measured is the way to it: no item is parsed, but for the instant that a
//! latency run writes into each.

use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::{get, post};
use futures_util::StreamExt;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// The argument by which this program becomes the sink.
pub const ARGUMENT: &str = "--be-the-sink";

#[derive(Default)]
struct Counted {
    bytes: AtomicU64,
    objects: AtomicU64,
    requests: AtomicU64,
    /// Microseconds from an item's own instant to the end of the request that brought it.
    late: Mutex<Vec<u64>>,
}

/// Serves until killed; prints its port first.
pub async fn serve() {
    let counted: &'static Counted = Box::leak(Box::default());
    let router =
        Router::new().route("/counted", get(count)).route("/late", get(late)).fallback(post(take)).with_state(counted);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    axum::serve(listener, router).await.unwrap();
}

/// Takes a body. Each opening brace begins an object: items have no text with braces here.
async fn take(State(counted): State<&'static Counted>, body: Body) -> &'static str {
    let (mut bytes, mut objects) = (0, 0);
    let (mut pieces, mut instants) = (body.into_data_stream(), Vec::new());
    let mut whole = Vec::new();
    while let Some(piece) = pieces.next().await {
        let Ok(piece) = piece else { return "" };
        bytes += piece.len() as u64;
        objects += memchr::memchr_iter(b'{', &piece).count() as u64;
        if whole.len() < 1 << 20 {
            whole.extend_from_slice(&piece);
        }
    }
    if bytes < 1 << 20 {
        let now = micros();
        let values = memchr::memmem::find_iter(&whole, b"\"value\":").map(|at| number(&whole[at + 8..]));
        instants.extend(values.filter(|instant| *instant > 1 << 50).map(|instant| now.saturating_sub(instant)));
    }
    counted.late.lock().unwrap().extend(instants);
    counted.bytes.fetch_add(bytes, Ordering::Relaxed);
    counted.objects.fetch_add(objects, Ordering::Relaxed);
    counted.requests.fetch_add(1, Ordering::Relaxed);
    "{}"
}

fn number(text: &[u8]) -> u64 {
    text.iter().take_while(|byte| byte.is_ascii_digit()).fold(0, |sum, byte| sum * 10 + u64::from(byte - b'0'))
}

fn micros() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

async fn count(State(counted): State<&'static Counted>) -> String {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    format!("{} {} {}", read(&counted.objects), read(&counted.bytes), read(&counted.requests))
}

async fn late(State(counted): State<&'static Counted>) -> String {
    let late = counted.late.lock().unwrap();
    late.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
}

/// A running sink; ends when dropped.
pub struct Sink {
    port: u16,
    _child: Child,
}

/// What it has taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    /// JSON objects begun: one for each item, and one for each `info`.
    pub objects: u64,
    /// Bytes of bodies.
    pub bytes: u64,
    /// Requests.
    pub requests: u64,
}

impl Sink {
    /// Starts it.
    pub async fn start() -> Sink {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.arg(ARGUMENT).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next_line().await.unwrap().expect("the sink's port").parse().unwrap();
        Sink { port, _child: child }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it has taken so far.
    pub async fn taken(&self) -> Taken {
        let text = self.page("/counted").await;
        let mut numbers = text.split(' ').map(|number| number.parse().unwrap());
        let mut next = || numbers.next().unwrap();
        Taken { objects: next(), bytes: next(), requests: next() }
    }

    /// Waits for so many objects.
    pub async fn wait(&self, objects: u64) -> Taken {
        loop {
            let taken = self.taken().await;
            if taken.objects >= objects {
                return taken;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How late each item of a latency run was, ascending.
    pub async fn late(&self) -> Vec<Duration> {
        let text = self.page("/late").await;
        let numbers = text.split_ascii_whitespace().map(|number| Duration::from_micros(number.parse().unwrap()));
        let mut late: Vec<_> = numbers.collect();
        late.sort_unstable();
        late
    }

    async fn page(&self, path: &str) -> String {
        crate::harness::http::get(self.port, path).await.unwrap().body
    }
}
