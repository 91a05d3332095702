//! Files of a configuration, read within bounds.
//!
//! * In: a path and how much is taken.
//! * Out: its bytes.
//! * Never: a read without an end (`/dev/zero`, a log that grows), or a wait for somebody to write into a pipe.

use std::fs::OpenOptions;
use std::io::{Error, ErrorKind, Read as _, Result};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Reads a file of at most `largest` bytes. A pipe is read as far as somebody has written into it; a device is not read.
pub(crate) fn read(path: &Path, largest: usize) -> Result<Vec<u8>> {
    // Opening a pipe that nobody writes into would wait for ever otherwise.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    let kind = file.metadata()?.file_type();
    let odd = |what: &str| Err(Error::new(ErrorKind::InvalidInput, what.to_owned()));
    if kind.is_dir() {
        return odd("it is a directory");
    }
    // `--config /dev/stdin` and `<(…)` are pipes; a terminal or /dev/zero is none.
    use std::os::unix::fs::FileTypeExt as _;
    if !kind.is_file() && !kind.is_fifo() {
        return odd("it is no file");
    }
    let mut bytes = Vec::new();
    let mut limited = file.take(largest as u64 + 1);
    if kind.is_fifo() {
        read_pipe(&mut limited, &mut bytes)?;
    } else {
        limited.read_to_end(&mut bytes)?;
    }
    if bytes.len() > largest {
        return odd(&format!("it is larger than {largest} bytes"));
    }
    Ok(bytes)
}

pub(crate) fn read_text(path: &Path, largest: usize) -> Result<String> {
    String::from_utf8(read(path, largest)?).map_err(|_| Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

/// How long whoever writes into a pipe may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

fn read_pipe(from: &mut impl std::io::Read, bytes: &mut Vec<u8>) -> Result<()> {
    let begun = std::time::Instant::now();
    let mut buffer = [0; 8192];
    loop {
        match from.read(&mut buffer) {
            // Nobody has opened it for writing, or all is read.
            Ok(0) if bytes.is_empty() && begun.elapsed() < PATIENCE => {}
            Ok(0) => return Ok(()),
            Ok(read) => {
                bytes.extend_from_slice(&buffer[..read]);
                continue;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && begun.elapsed() < PATIENCE => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(Error::new(ErrorKind::TimedOut, "nobody writes into this pipe"));
            }
            Err(error) => return Err(error),
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn case_102_what_has_no_end_is_not_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all(&[b'x'; 100]).unwrap();
        assert_eq!(read(file.path(), 100).unwrap().len(), 100);
        assert!(read(file.path(), 99).unwrap_err().to_string().contains("larger than 99"));
        assert!(read(Path::new("/dev/zero"), 99).unwrap_err().to_string().contains("no file"));
        assert!(read(Path::new("/proc"), 99).unwrap_err().to_string().contains("directory"));
        assert_eq!(read(Path::new("/dev/none"), 99).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn case_102_a_pipe_is_read_while_somebody_writes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        let other = path.clone();
        let writer = std::thread::spawn(move || std::fs::write(other, "secret\n").unwrap());
        assert_eq!(read_text(&path, 100).unwrap(), "secret\n");
        writer.join().unwrap();
    }
}
