//! Decodes runs of the stream into rows and transaction boundaries. No type of the wire protocol leaves this room.

use bytes::Bytes;

use crate::model::{Cell, Lsn, Row};
use crate::postgres::replication::pgoutput;
use crate::postgres::replication::pgoutput::{DecodeError, Message, Payload};

/// A table as the stream describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedTable {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    /// Column names and type OIDs, in the order of rows.
    pub columns: Vec<(String, u32)>,
}

/// The next thing in the stream.
#[derive(Debug)]
pub enum DecodedItem<'a> {
    /// A committed transaction begins: its commit's LSN and time (µs since 2000-01-01 UTC), its 32-bit xid.
    Begin(Lsn, i64, u32),
    /// A row of a table (by OID), and the LSN of the row's own WAL record.
    Insert(u32, Lsn, Row<'a>),
    /// The transaction ends at this LSN.
    Commit(Lsn),
    /// The server has read up to here.
    Keepalive(Lsn),
    /// A table's columns for the rows that follow.
    Table(DecodedTable),
    /// A message that this program does not use, by name.
    Ignored(&'static str),
}

/// The decoder of runs.
#[derive(Debug, Default)]
pub struct Decoder {
    run: Bytes,
    at: usize,
    cells: Vec<Cell>,
}

impl Decoder {
    /// Gives it the next run; the one before must have been read to its end.
    pub fn feed(&mut self, run: Bytes) {
        self.run = run;
        self.at = 0;
    }

    /// The next item of the run; `None` at its end.
    ///
    /// # Errors
    /// Where the bytes are not protocol 1 of pgoutput.
    #[inline]
    pub fn next_item(&mut self) -> Result<Option<DecodedItem<'_>>, DecodeError> {
        let frame = loop {
            let rest = &self.run[self.at..];
            let Some(&[tag, a, b, c, d]) = rest.first_chunk::<5>() else {
                self.run = Bytes::new();
                self.at = 0;
                return Ok(None);
            };
            let end = 1 + u32::from_be_bytes([a, b, c, d]) as usize;
            let start = self.at;
            if end < 5 || rest.len() < end {
                return Err(DecodeError::Truncated);
            }
            self.at += end;
            if tag == b'd' {
                break &self.run[start + 5..start + end];
            }
        };
        let (lsn, data) = match pgoutput::payload(frame)? {
            Payload::Data { lsn, message } => (lsn, message),
            Payload::Keepalive { wal_end, .. } => return Ok(Some(DecodedItem::Keepalive(wal_end))),
            Payload::Unknown(_) => return Ok(Some(DecodedItem::Ignored("unknown"))),
        };
        Ok(Some(match pgoutput::message(data)? {
            Message::Insert { oid, tuple } => {
                pgoutput::tuple(tuple, &mut self.cells)?;
                DecodedItem::Insert(oid, lsn, Row { data: tuple, cells: &self.cells })
            }
            Message::Begin { final_lsn, commit_micros, xid } => DecodedItem::Begin(final_lsn, commit_micros, xid),
            Message::Commit { end_lsn } => DecodedItem::Commit(end_lsn),
            Message::Relation(relation) => DecodedItem::Table(DecodedTable {
                oid: relation.oid,
                schema: relation.schema.to_owned(),
                name: relation.name.to_owned(),
                columns: relation.columns.iter().map(|(name, oid)| ((*name).to_owned(), *oid)).collect(),
            }),
            Message::Ignored(kind) => DecodedItem::Ignored(kind),
        }))
    }
}
