//! stderr, behind a buffer and a thread of its own.
//!
//! * In: lines, from anywhere.
//! * Out: the same lines in the same order, at the reader's speed.
//! * Never: a wait for the reader of stderr. A pipe that nobody reads, or that is closed, costs lines, which are counted; it
//!   does not stop a delivery.

use std::io;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Bytes that wait for a reader, at most; the writing thread may hold as many again.
const HELD: usize = 256 << 10;

/// Lines dropped since the process began.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Returns how many lines were dropped.
pub(crate) fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

#[derive(Clone)]
pub(crate) struct LogWriter(Arc<LogBuffer>);

#[derive(Default)]
struct LogBuffer {
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    /// Lines dropped since the last report of dropped lines.
    lost: u64,
    writing: bool,
}

impl LogBuffer {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer of this process; `None` where the system gives no thread.
pub(crate) fn stderr() -> Option<&'static LogWriter> {
    static WRITER: OnceLock<Option<LogWriter>> = OnceLock::new();
    WRITER.get_or_init(|| LogWriter::to(io::stderr()).ok()).as_ref()
}

/// Writes a line to stderr, behind what was logged before.
pub fn say(line: &str) {
    let line = format!("{line}\n");
    match stderr() {
        Some(writer) => writer.put(line.as_bytes()),
        None => drop(io::stderr().write_all(line.as_bytes())),
    }
}

/// Waits until everything is written, for a second at most: before the process ends.
pub fn flush() {
    if let Some(writer) = stderr() {
        writer.flush(Duration::from_secs(1));
    }
}

impl LogWriter {
    /// Begins the thread that writes to `target`.
    fn to(mut target: impl Write + Send + 'static) -> io::Result<LogWriter> {
        let writer = LogWriter(Arc::default());
        let shared = Arc::clone(&writer.0);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            loop {
                write_next(&shared, &mut target);
            }
        })?;
        Ok(writer)
    }

    /// Takes a line, or counts it as lost.
    fn put(&self, line: &[u8]) {
        let mut held = self.0.held();
        if held.bytes.len() + line.len() > HELD {
            held.lost += 1;
            LOST.fetch_add(1, Ordering::Relaxed);
            return;
        }
        held.bytes.extend_from_slice(line);
        drop(held);
        self.0.changed.notify_all();
    }

    fn flush(&self, limit: Duration) {
        let busy = |held: &mut Held| held.writing || !held.bytes.is_empty();
        drop(self.0.changed.wait_timeout_while(self.0.held(), limit, busy));
    }
}

/// Waits for lines, and writes them.
fn write_next(shared: &LogBuffer, target: &mut impl Write) {
    let mut held = shared.held();
    while held.bytes.is_empty() {
        held = shared.changed.wait(held).unwrap_or_else(PoisonError::into_inner);
    }
    let bytes = std::mem::take(&mut held.bytes);
    held.writing = true;
    drop(held);
    let written = target.write_all(&bytes).and_then(|()| target.flush());
    if written.is_err() {
        // stderr is closed: the error cannot be reported anywhere.
        LOST.fetch_add(memchr::memchr_iter(b'\n', &bytes).count() as u64, Ordering::Relaxed);
    }
    let mut held = shared.held();
    held.writing = false;
    let lost = std::mem::take(&mut held.lost);
    drop(held);
    shared.changed.notify_all();
    if written.is_ok() && lost > 0 {
        tracing::warn!(lines = lost, "log lines were lost: nobody read stderr in time");
    }
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LogWriter;

    fn make_writer(&'a self) -> LogWriter {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Writes only what it is let.
    struct Gate(mpsc::Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            self.1.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn case_88_whoever_does_not_read_costs_lines_and_no_time() {
        let (let_go, gate) = mpsc::channel();
        let read = Arc::new(Mutex::new(Vec::new()));
        let writer = LogWriter::to(Gate(gate, Arc::clone(&read))).unwrap();
        let line = format!("{}\n", "x".repeat(1023));
        let before = lost();
        let begun = std::time::Instant::now();
        for _ in 0..2000 {
            writer.put(line.as_bytes());
        }
        writer.flush(Duration::from_millis(50));
        assert!(begun.elapsed() < Duration::from_secs(5));
        // What is held, and what the thread has in its hand.
        let gone = lost() - before;
        assert!((2000 - 512..2000).contains(&gone), "{gone}");
        for _ in 0..10 {
            let_go.send(()).unwrap();
        }
        writer.flush(Duration::from_secs(5));
        assert_eq!(read.lock().unwrap().len() as u64 / 1024, 2000 - gone);
        // A pipe that is closed is no end of anything.
        drop(let_go);
        // Some of what was let go is still to be used up.
        for _ in 0..12 {
            writer.put(b"nobody\n");
            writer.flush(Duration::from_secs(5));
        }
        assert!(lost() - before > gone);
    }
}
