//! A relay that delivers each byte a fixed time after it came: distance, where the kernel cannot make it.
//!
//! It is a process of its own, with two threads for each direction of each connection, so that what it waits for is the delay
//! alone. It holds at most 4 MiB a direction, which is what the kernel's own send buffer would hold (`tcp_wmem`).

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// The argument by which this program becomes the relay; behind it come port and delay each way, in microseconds.
pub const ARGUMENT: &str = "--be-the-relay";

const PIECE: usize = 64 << 10;
const HELD: usize = 4 << 20;
/// How long it lets a short read's socket fill.
const LOOK: Duration = Duration::from_micros(100);

/// A running relay to a port of its own namespace; ends when dropped.
pub struct Relay {
    port: u16,
    child: Child,
}

impl Relay {
    /// Starts it in the namespace of this thread. `delay` is there and back.
    pub fn start(target: u16, delay: Duration) -> Relay {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([ARGUMENT, &target.to_string(), &(delay / 2).as_micros().to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Relay { port: line.trim().parse().expect("the relay's port"), child }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.child.kill().ok();
        drop(self.child.wait());
    }
}

/// Serves until killed, or until the bench has gone; prints its port first.
pub fn serve(mut arguments: impl Iterator<Item = String>) {
    let mut number = || arguments.next().and_then(|text| text.parse::<u64>().ok()).expect("port and delay");
    let (target, delay) = (u16::try_from(number()).unwrap(), Duration::from_micros(number()));
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    std::thread::spawn(|| {
        // The bench holds the other end of this pipe for as long as it lives.
        std::io::stdin().read_to_end(&mut Vec::new()).ok();
        std::process::exit(0);
    });
    for near in listener.incoming().flatten() {
        std::thread::spawn(move || {
            let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { return };
            near.set_nodelay(true).ok();
            far.set_nodelay(true).ok();
            let (near_too, far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            std::thread::spawn(move || carry(near, far, delay));
            carry(far_too, near_too, delay);
        });
    }
}

/// What is under way in one direction.
#[derive(Default)]
struct Pipe {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    pieces: VecDeque<(Instant, Vec<u8>)>,
    held: usize,
    ended: bool,
}

/// One direction, to its end.
fn carry(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let pipe = Arc::new(Pipe::default());
    let theirs = Arc::clone(&pipe);
    let writer = std::thread::spawn(move || {
        while let Some(bytes) = theirs.take() {
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        to.shutdown(Shutdown::Both).ok();
        theirs.end();
    });
    let mut buffer = vec![0; PIECE];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if !pipe.put(Instant::now() + delay, &buffer[..read]) {
            break;
        }
        if read < PIECE && !delay.is_zero() {
            // A relay that wakes for each message would take the cores from what is measured.
            std::thread::sleep(LOOK);
        }
    }
    pipe.end();
    drop(writer.join());
}

impl Pipe {
    /// Waits for room, then takes the bytes; false where nobody writes them any more.
    fn put(&self, due: Instant, bytes: &[u8]) -> bool {
        let mut state = self.state.lock().unwrap();
        while state.held > HELD && !state.ended {
            state = self.changed.wait(state).unwrap();
        }
        state.held += bytes.len();
        state.pieces.push_back((due, bytes.to_vec()));
        self.changed.notify_all();
        !state.ended
    }

    /// Waits for what is due, and brings all of it; nothing at the end.
    fn take(&self) -> Option<Vec<u8>> {
        let mut state = self.state.lock().unwrap();
        loop {
            let now = Instant::now();
            match state.pieces.front() {
                Some((due, _)) if *due > now => {
                    let wait = due.saturating_duration_since(now);
                    drop(state);
                    std::thread::sleep(wait);
                    state = self.state.lock().unwrap();
                }
                Some(_) => break,
                None if state.ended => return None,
                None => state = self.changed.wait(state).unwrap(),
            }
        }
        let now = Instant::now();
        let mut bytes = Vec::new();
        while let Some((_, piece)) = state.pieces.pop_front_if(|(due, _)| *due <= now) {
            bytes.extend_from_slice(&piece);
        }
        state.held -= bytes.len();
        self.changed.notify_all();
        Some(bytes)
    }

    fn end(&self) {
        self.state.lock().unwrap().ended = true;
        self.changed.notify_all();
    }
}
