//! Decodes runs of the stream into rows and transaction boundaries. No type of the wire protocol leaves this room.

use std::sync::Arc;

use bytes::Bytes;

use crate::model::{Cell, Lsn, Row, Value};
use crate::postgres::connection::charset::Charset;
use crate::postgres::replication::pgoutput;
use crate::postgres::replication::pgoutput::{DecodeError, Message, OldTuple, Payload};

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
    /// A row of a table as an update left it; and as it was before, where the server says so.
    Update(u32, Lsn, Row<'a>, Option<Row<'a>>),
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
    /// The characters of the database, where the stream brings its text unconverted.
    charset: Option<Arc<Charset>>,
    /// The row's text, where it was decoded here; and where each value lies in it.
    decoded: (Vec<u8>, Vec<Cell>),
    /// The row before an update.
    old: Vec<Cell>,
    /// Its text, where it was decoded here.
    old_decoded: (Vec<u8>, Vec<Cell>),
}

impl Decoder {
    /// A decoder of text in `charset`; of UTF-8 where there is none.
    pub(crate) fn new(charset: Option<Arc<Charset>>) -> Decoder {
        Decoder { charset, ..Decoder::default() }
    }

    /// Gives it the next run; the one before must have been read to its end.
    pub fn feed(&mut self, run: Bytes) {
        self.run = run;
        self.at = 0;
    }

    /// Whether the run has items that were not asked for.
    pub(crate) fn has_unread(&self) -> bool {
        !self.run.is_empty()
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
                let row = Row { data: tuple, cells: &self.cells };
                match &self.charset {
                    Some(charset) if !tuple.is_ascii() => {
                        DecodedItem::Insert(oid, lsn, decoded(row, charset, &mut self.decoded))
                    }
                    Some(_) | None => DecodedItem::Insert(oid, lsn, row),
                }
            }
            Message::Update { oid, old, tuple } => {
                pgoutput::tuple(tuple, &mut self.cells)?;
                // One buffer for both: what the new row does not say, the old one does. Of an identity that is a key it
                // says the key; a column beside it stands there as NULL, which nothing out of line is.
                if let Some(OldTuple { tuple: old, .. }) = old {
                    pgoutput::tuple(old, &mut self.old)?;
                    let ahead = u32::try_from(old.len() - tuple.len())
                        .map_err(|_| DecodeError::Malformed("a row over 4 GiB"))?;
                    self.cells.iter_mut().for_each(|cell| *cell = cell.shifted(ahead));
                    let is_told = |(new, old): &(&mut Cell, &Cell)| **new == Cell::UNKNOWN && **old != Cell::NULL;
                    self.cells.iter_mut().zip(&self.old).filter(is_told).for_each(|(new, old)| *new = *old);
                }
                let data = old.map_or(tuple, |old| old.tuple);
                let row = Row { data, cells: &self.cells };
                let before = old.filter(|old| old.is_whole).map(|old| Row { data: old.tuple, cells: &self.old });
                match &self.charset {
                    Some(charset) if !data.is_ascii() => DecodedItem::Update(
                        oid,
                        lsn,
                        decoded(row, charset, &mut self.decoded),
                        before.map(|before| decoded(before, charset, &mut self.old_decoded)),
                    ),
                    Some(_) | None => DecodedItem::Update(oid, lsn, row, before),
                }
            }
            Message::Begin { final_lsn, commit_micros, xid } => DecodedItem::Begin(final_lsn, commit_micros, xid),
            Message::Commit { end_lsn } => DecodedItem::Commit(end_lsn),
            Message::Relation(relation) => DecodedItem::Table(DecodedTable {
                oid: relation.oid,
                schema: self.name(relation.schema)?,
                name: self.name(relation.name)?,
                columns: relation
                    .columns
                    .iter()
                    .map(|(name, oid)| Ok((self.name(name)?, *oid)))
                    .collect::<Result<_, DecodeError>>()?,
            }),
            Message::Ignored(kind) => DecodedItem::Ignored(kind),
        }))
    }

    /// A name of the catalog.
    fn name(&self, bytes: &[u8]) -> Result<String, DecodeError> {
        let mut name = Vec::with_capacity(bytes.len());
        match &self.charset {
            Some(charset) => charset.decode(bytes, &mut name),
            None => name.extend_from_slice(bytes),
        }
        String::from_utf8(name).map_err(|_| DecodeError::Malformed("a name that is not UTF-8"))
    }
}

/// The row in UTF-8, in `into`.
fn decoded<'a>(row: Row<'_>, charset: &Charset, into: &'a mut (Vec<u8>, Vec<Cell>)) -> Row<'a> {
    let (data, cells) = into;
    data.clear();
    cells.clear();
    for (index, cell) in row.cells.iter().enumerate() {
        let Value::Text(text) = row.get(index) else {
            cells.push(*cell);
            continue;
        };
        let start = data.len();
        charset.decode(text, data);
        cells.push(match (u32::try_from(start), u32::try_from(data.len() - start)) {
            (Ok(start), Ok(length)) => Cell::text(start, length),
            (Ok(_) | Err(_), Ok(_) | Err(_)) => Cell::OVERSIZE,
        });
    }
    Row { data, cells }
}
