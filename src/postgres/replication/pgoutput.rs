//! The decoder of pgoutput, protocol version 1, text. Pure, and borrowed: a message is a view of its frame.
//!
//! Source of the layouts: PostgreSQL's documentation, "Logical Replication Message Formats". A message that this
//! program has no use for (deletes, truncates, origins, types, logical messages, and tags that do not exist yet) is named
//! and skipped: a foreign publication may send any of them.

use crate::model::{Cell, Lsn};

/// An error in a frame's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message ends before its content does.
    #[error("a replication message ends too early")]
    Truncated,
    /// A name is not UTF-8, or a tuple has a kind of column that protocol 1 does not know.
    #[error("a replication message has {0}")]
    Malformed(&'static str),
}

/// A CopyData payload of the walsender.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Payload<'a> {
    /// `w`: a piece of the WAL's decoded stream.
    Data {
        /// Where it comes from in the WAL: for a row, its own record. 0 for what is not a change.
        lsn: Lsn,
        /// The message of the output plugin.
        message: &'a [u8],
    },
    /// `k`: the primary's keepalive.
    Keepalive {
        /// How far the server has read (and sent, in order, all that was to be sent before).
        wal_end: Lsn,
        /// The server wants a status update at once.
        reply: bool,
    },
    /// A tag that this protocol version does not have.
    Unknown(u8),
}

/// A pgoutput message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// A committed transaction begins.
    Begin {
        /// LSN of its commit record.
        final_lsn: Lsn,
        /// Microseconds since 2000-01-01 UTC.
        commit_micros: i64,
        /// Its transaction id (32 bits).
        xid: u32,
    },
    /// The transaction's end.
    Commit {
        /// Where the commit record ends: what may be confirmed.
        end_lsn: Lsn,
    },
    /// A table's columns, before its first row and after each change of it.
    Relation(Relation<'a>),
    /// An inserted row.
    Insert {
        oid: u32,
        /// The new tuple, to be read by [`tuple`].
        tuple: &'a [u8],
    },
    /// An updated row.
    Update {
        oid: u32,
        /// What the server says of the row before.
        old: Option<OldTuple<'a>>,
        /// The new tuple.
        tuple: &'a [u8],
    },
    /// A message that this program does not use.
    Ignored(&'static str),
}

/// The row before an update, to be read by [`tuple`]: whole, where the table has REPLICA IDENTITY FULL. Of any other identity
/// its columns alone, the others as NULL, and only where one has changed or is stored out of line: the new tuple does not
/// bring what is out of line and unchanged, not even of the key (`ExtractReplicaIdentity` in heapam.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OldTuple<'a> {
    pub tuple: &'a [u8],
    pub is_whole: bool,
}

/// A Relation message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Relation<'a> {
    pub oid: u32,
    /// Its schema; empty for `pg_catalog`.
    pub schema: &'a [u8],
    pub name: &'a [u8],
    /// Column names and type OIDs, in the order of tuples.
    pub columns: Vec<(&'a [u8], u32)>,
}

/// A cursor over a frame; every read is checked.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    fn lsn(&mut self) -> Result<Lsn, DecodeError> {
        self.array().map(|bytes| Lsn(u64::from_be_bytes(bytes)))
    }

    fn text(&mut self) -> Result<&'a [u8], DecodeError> {
        let end = memchr::memchr(0, self.0).ok_or(DecodeError::Truncated)?;
        let text = self.take(end)?;
        self.0 = &self.0[1..];
        Ok(text)
    }
}

/// Reads one CopyData payload.
///
/// # Errors
/// [`DecodeError`] where the bytes end too early.
pub(crate) fn payload(bytes: &[u8]) -> Result<Payload<'_>, DecodeError> {
    let mut reader = Reader(bytes);
    match reader.u8()? {
        b'w' => {
            let lsn = reader.lsn()?;
            // The end of WAL on the server, and its clock.
            reader.take(16)?;
            Ok(Payload::Data { lsn, message: reader.0 })
        }
        b'k' => {
            let wal_end = reader.lsn()?;
            let _clock = reader.i64()?;
            Ok(Payload::Keepalive { wal_end, reply: reader.u8()? == 1 })
        }
        tag => Ok(Payload::Unknown(tag)),
    }
}

/// Reads one pgoutput message.
///
/// # Errors
/// [`DecodeError`] where the bytes end too early.
pub(crate) fn message(bytes: &[u8]) -> Result<Message<'_>, DecodeError> {
    let mut reader = Reader(bytes);
    Ok(match reader.u8()? {
        b'I' => {
            let oid = reader.u32()?;
            match reader.u8()? {
                b'N' => Message::Insert { oid, tuple: reader.0 },
                _ => return Err(DecodeError::Malformed("an insert without a new tuple")),
            }
        }
        b'B' => Message::Begin { final_lsn: reader.lsn()?, commit_micros: reader.i64()?, xid: reader.u32()? },
        b'C' => {
            let _flags = reader.u8()?;
            let _commit_lsn = reader.lsn()?;
            Message::Commit { end_lsn: reader.lsn()? }
        }
        b'R' => Message::Relation(relation(&mut reader)?),
        b'U' => update(&mut reader)?,
        b'D' => Message::Ignored("delete"),
        b'T' => Message::Ignored("truncate"),
        b'O' => Message::Ignored("origin"),
        b'Y' => Message::Ignored("type"),
        b'M' => Message::Ignored("message"),
        _ => Message::Ignored("unknown"),
    })
}

fn relation<'a>(reader: &mut Reader<'a>) -> Result<Relation<'a>, DecodeError> {
    let (oid, schema, name) = (reader.u32()?, reader.text()?, reader.text()?);
    let _replica_identity = reader.u8()?;
    let count = usize::from(reader.u16()?);
    // Each column takes at least 10 bytes: a lying count must not reserve memory.
    let mut columns = Vec::with_capacity(count.min(reader.0.len() / 10 + 1));
    for _ in 0..count {
        let _flags = reader.u8()?;
        let name = reader.text()?;
        columns.push((name, reader.u32()?));
        let _modifier = reader.u32()?;
    }
    Ok(Relation { oid, schema, name, columns })
}

fn update<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let oid = reader.u32()?;
    let (mut kind, mut old) = (reader.u8()?, None);
    if matches!(kind, b'K' | b'O') {
        let before = reader.0;
        tuple(before, &mut Vec::new()).and_then(|len| reader.take(len))?;
        old = Some(OldTuple { tuple: before, is_whole: kind == b'O' });
        kind = reader.u8()?;
    }
    match kind {
        b'N' => Ok(Message::Update { oid, old, tuple: reader.0 }),
        _ => Err(DecodeError::Malformed("an update without a new tuple")),
    }
}

/// Reads a tuple's columns into `cells` (cleared first), as places within `tuple`. Returns the tuple's length.
///
/// # Errors
/// [`DecodeError`] where the bytes end too early or a column is of a kind that protocol 1 in text does not have.
pub(crate) fn tuple(tuple: &[u8], cells: &mut Vec<Cell>) -> Result<usize, DecodeError> {
    cells.clear();
    let mut reader = Reader(tuple);
    let count = reader.u16()?;
    for _ in 0..count {
        let cell = match reader.u8()? {
            b't' => {
                let len = reader.u32()?;
                let start = tuple.len() - reader.0.len();
                if reader.take(len as usize)?.len() > VALUE_MAX {
                    cells.push(Cell::OVERSIZE);
                    continue;
                }
                Cell::text(u32::try_from(start).map_err(|_| DecodeError::Malformed("a tuple over 4 GiB"))?, len)
            }
            b'n' => Cell::NULL,
            // Stored out of line, and not changed by the update: the WAL does not have it.
            b'u' => Cell::UNKNOWN,
            OVERSIZE => Cell::OVERSIZE,
            _ => return Err(DecodeError::Malformed("an unknown kind of column")),
        };
        cells.push(cell);
    }
    Ok(tuple.len() - reader.0.len())
}

/// A value over this, in text, is too large for an item: by the stream and by a SELECT alike.
pub(crate) const VALUE_MAX: usize = 8 << 20;

/// Our own mark, written by the reader in place of a value that was too large to hold. No PostgreSQL sends it.
pub(crate) const OVERSIZE: u8 = 0xFF;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_an_insert_recorded_from_15_18() {
        // INSERT INTO t VALUES (1, 'é', NULL)
        let bytes = b"I\0\0\x40\x01N\0\x03t\0\0\0\x011t\0\0\0\x02\xc3\xa9n";
        let Message::Insert { oid: 0x4001, tuple: bytes } = message(bytes).unwrap() else { panic!() };
        let mut cells = Vec::new();
        tuple(bytes, &mut cells).unwrap();
        let row = crate::model::Row { data: bytes, cells: &cells };
        assert_eq!(row.get(0), crate::model::Value::Text(b"1"));
        assert_eq!(row.get(1), crate::model::Value::Text("é".as_bytes()));
        assert_eq!(row.get(2), crate::model::Value::Null);
        assert_eq!(row.get(3), crate::model::Value::Null);
    }

    #[test]
    fn reads_updates_with_and_without_the_row_before() {
        // UPDATE t SET id = 2, of a table whose third column is stored out of line.
        let new = b"N\0\x03t\0\0\0\x012nu";
        let olds: [(&[u8], Option<bool>); 3] =
            [(b"", None), (b"K\0\x03t\0\0\0\x011nn", Some(false)), (b"O\0\x03t\0\0\0\x011nt\0\0\0\x01x", Some(true))];
        for (old, is_whole) in olds {
            let bytes = [b"U\0\0\x40\x01", old, new].concat();
            let Message::Update { oid: 0x4001, old, tuple: bytes } = message(&bytes).unwrap() else { panic!() };
            let mut cells = Vec::new();
            assert_eq!(tuple(bytes, &mut cells).unwrap(), bytes.len());
            let row = crate::model::Row { data: bytes, cells: &cells };
            assert_eq!(row.get(0), crate::model::Value::Text(b"2"));
            assert_eq!((row.get(1), row.get(2)), (crate::model::Value::Null, crate::model::Value::Unknown));
            assert_eq!(old.map(|old| old.is_whole), is_whole);
            if let Some(OldTuple { tuple: old, is_whole: true }) = old {
                let mut cells = Vec::new();
                tuple(old, &mut cells).unwrap();
                assert_eq!(crate::model::Row { data: old, cells: &cells }.get(2), crate::model::Value::Text(b"x"));
            }
        }
        for broken in [&b"U\0\0\x40\x01K\0\x01nX"[..], b"U\0\0\x40\x01O\0\x09n", b"U\0\0\x40\x01"] {
            assert!(message(broken).is_err());
        }
    }

    #[test]
    fn a_keepalive_says_how_far_the_server_is() {
        let bytes = b"k\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\0\x01";
        assert_eq!(payload(bytes).unwrap(), Payload::Keepalive { wal_end: Lsn(0x1_0000_0002), reply: true });
    }

    #[test]
    fn what_a_foreign_publication_sends_is_named_and_skipped() {
        for (tag, name) in [(b'D', "delete"), (b'T', "truncate"), (b'M', "message"), (b'z', "unknown")] {
            assert_eq!(message(&[tag]).unwrap(), Message::Ignored(name));
        }
    }

    proptest! {
        #[test]
        fn never_panics_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), tag in proptest::sample::select(b"BCRIUDTOYMwk".to_vec())) {
            let mut cells = Vec::new();
            let tagged: Vec<u8> = std::iter::once(tag).chain(bytes.iter().copied()).collect();
            for bytes in [&bytes, &tagged] {
                payload(bytes).ok();
                if let Ok(Message::Insert { tuple: t, .. } | Message::Update { tuple: t, .. }) = message(bytes) {
                    tuple(t, &mut cells).ok();
                }
                if tuple(bytes, &mut cells).is_ok() {
                    let row = crate::model::Row { data: bytes, cells: &cells };
                    for i in 0..cells.len() { let _ = row.get(i); }
                }
            }
        }
    }
}
