//! The log's last lines, kept in memory for the console.
//!
//! * In: what is written to stderr.
//! * Out: the last lines, oldest first.
//! * Never: more than [`LINES`] lines or [`BYTES`] bytes.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that are kept at most.
const LINES: usize = 2000;
/// Bytes that are kept at most.
const BYTES: usize = 512 << 10;

static RING: Mutex<Ring> = Mutex::new(Ring { lines: VecDeque::new(), bytes: 0 });

struct Ring {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Ring {
    fn push(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > LINES || self.bytes > BYTES {
            let Some(oldest) = self.lines.pop_front() else { return };
            self.bytes -= oldest.len();
        }
    }
}

/// The lines, oldest first.
pub(crate) fn lines() -> Vec<String> {
    RING.lock().unwrap_or_else(PoisonError::into_inner).lines.iter().cloned().collect()
}

/// Makes writers that keep what is written through them.
#[derive(Clone, Debug)]
pub(crate) struct KeepLines<M>(pub(crate) M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for KeepLines<M> {
    type Writer = KeptLines<M::Writer>;

    fn make_writer(&'a self) -> KeptLines<M::Writer> {
        KeptLines(self.0.make_writer())
    }
}

/// A writer that passes lines on and keeps a copy of each.
#[derive(Debug)]
pub(crate) struct KeptLines<W>(W);

impl<W: Write> Write for KeptLines<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut ring = RING.lock().unwrap_or_else(PoisonError::into_inner);
        for line in plain(&String::from_utf8_lossy(bytes)).lines() {
            ring.push(line.to_owned());
        }
        drop(ring);
        self.0.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// Text without a terminal's colours.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\u{1b}[") {
        plain.push_str(&rest[..at]);
        let end = rest[at..].find('m').map_or(rest.len(), |end| at + end + 1);
        rest = &rest[end..];
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_bounded_by_lines_and_by_bytes() {
        let mut kept = Ring { lines: VecDeque::new(), bytes: 0 };
        (0..3000).for_each(|number| kept.push(number.to_string()));
        assert_eq!((kept.lines.len(), kept.lines[0].as_str()), (LINES, "1000"));
        (0..20).for_each(|_| kept.push("x".repeat(100_000)));
        assert!(kept.bytes <= BYTES && kept.lines.len() == 5);
    }

    #[test]
    fn colours_are_left_out() {
        assert_eq!(plain("\u{1b}[2mINFO\u{1b}[0m it runs"), "INFO it runs");
        assert_eq!(plain("open \u{1b}[31"), "open ");
    }
}
