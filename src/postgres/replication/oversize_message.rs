//! Reads a CopyData message that is too long to hold, piece by piece, and makes a short one of it. Pure.
//!
//! * In: the message's body as it arrives, in pieces of any size.
//! * Out: a whole CopyData message that the decoder takes: an insert or an update whose large columns are marked
//!   [`pgoutput::OVERSIZE`], so that its row can be refused by name with its key known; of anything else only its kind.
//! * Never: more bytes held than the limit (and [`SMALL`] a column); a result that depends on how the bytes were cut.

use crate::postgres::replication::pgoutput;

/// Columns up to this size are kept whatever the limit: a key is among them. A table has at most 1,600 columns.
const SMALL: usize = 4 << 10;
/// `w`, start and end of WAL, clock.
const WAL_HEADER: usize = 25;
/// And the tag, OID, kind and number of columns of an insert's or an update's first tuple.
const INSERT_HEADER: usize = WAL_HEADER + 8;
/// The CopyData header.
const FRAME_HEADER: usize = 5;

/// The part of the message that is read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReaderState {
    /// The headers, gathered in the output.
    Head,
    /// A column's kind; so many columns are left.
    Kind(u16),
    /// A column's length, so far; so many columns are left with it.
    Length(u16, [u8; 4], usize),
    /// So many bytes of a column, which is kept or thrown away.
    Value(u16, usize, bool),
    /// The kind and number of columns of the new tuple, which follows the old one; so many bytes are known.
    NewTuple(usize),
    /// The rest is thrown away.
    Rest,
}

/// The reader of one message that is too long.
#[derive(Debug)]
pub(crate) struct OversizeReader {
    /// Bytes of the body that are still to come.
    left: usize,
    limit: usize,
    out: Vec<u8>,
    state: ReaderState,
    /// The tuple that is read is the row before an update: the new one follows.
    is_old: bool,
}

impl OversizeReader {
    /// For a body of `len` bytes, of which at most about `limit` may be held.
    pub(crate) fn new(len: usize, limit: usize) -> OversizeReader {
        OversizeReader { left: len, limit, out: vec![b'd', 0, 0, 0, 0], state: ReaderState::Head, is_old: false }
    }

    /// Takes what belongs to the message off the front of `bytes`; returns how much that was.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> usize {
        let own = bytes.len().min(self.left);
        let mut rest = &bytes[..own];
        while !rest.is_empty() {
            let taken = self.step(rest);
            rest = &rest[taken..];
        }
        self.left -= own;
        own
    }

    /// Whether the message has come to its end.
    pub(crate) fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Returns the short message that replaces the long one.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        // The length counts itself. What is held is far below 4 GiB: the limit is a `memory` of this machine.
        let len = u32::try_from(self.out.len() - 1).unwrap_or(u32::MAX);
        self.out[1..FRAME_HEADER].copy_from_slice(&len.to_be_bytes());
        self.out
    }

    fn step(&mut self, bytes: &[u8]) -> usize {
        match self.state {
            ReaderState::Head => {
                self.out.push(bytes[0]);
                self.state = self.head();
                1
            }
            ReaderState::Kind(columns) => {
                self.state = match bytes[0] {
                    b't' => ReaderState::Length(columns, [0; 4], 0),
                    kind => {
                        self.out.push(kind);
                        // A message of another kind is left to the decoder.
                        if matches!(kind, b'n' | b'u') { self.after(columns) } else { ReaderState::Rest }
                    }
                };
                1
            }
            ReaderState::Length(columns, mut so_far, known) => {
                so_far[known] = bytes[0];
                self.state = match known {
                    3 => self.value(columns, so_far),
                    _ => ReaderState::Length(columns, so_far, known + 1),
                };
                1
            }
            ReaderState::Value(columns, len, kept) => {
                let taken = len.min(bytes.len());
                if kept {
                    self.out.extend_from_slice(&bytes[..taken]);
                }
                self.state =
                    if taken == len { self.after(columns) } else { ReaderState::Value(columns, len - taken, kept) };
                taken
            }
            ReaderState::NewTuple(known) => {
                self.out.push(bytes[0]);
                self.state = match (known, self.out.last_chunk::<2>()) {
                    (0, _) if bytes[0] != b'N' => ReaderState::Rest,
                    (2, Some(columns)) => first(u16::from_be_bytes(*columns)),
                    (known, _) => ReaderState::NewTuple(known + 1),
                };
                1
            }
            ReaderState::Rest => bytes.len(),
        }
    }

    /// After a byte of the headers.
    fn head(&mut self) -> ReaderState {
        let body = &self.out[FRAME_HEADER..];
        let is_data = body.first() == Some(&b'w');
        let is_row = body.get(WAL_HEADER).is_none_or(|tag| matches!(tag, b'I' | b'U'));
        let is_update = body.get(WAL_HEADER) == Some(&b'U');
        let kind = body.get(WAL_HEADER + 5);
        let is_tuple = kind.is_none_or(|kind| *kind == b'N' || (is_update && matches!(kind, b'K' | b'O')));
        match body {
            _ if !is_data || !is_row || !is_tuple => ReaderState::Rest,
            [.., high, low] if body.len() == INSERT_HEADER => {
                self.is_old = kind != Some(&b'N');
                match u16::from_be_bytes([*high, *low]) {
                    0 if self.is_old => self.after(1),
                    columns => first(columns),
                }
            }
            _ => ReaderState::Head,
        }
    }

    /// What follows a column, of which so many were left with it.
    fn after(&mut self, columns: u16) -> ReaderState {
        match columns - 1 {
            0 if std::mem::take(&mut self.is_old) => ReaderState::NewTuple(0),
            columns => first(columns),
        }
    }

    /// A column's length is known: is it kept?
    fn value(&mut self, columns: u16, length: [u8; 4]) -> ReaderState {
        let len = u32::from_be_bytes(length) as usize;
        let kept = len <= SMALL || (len <= pgoutput::VALUE_MAX && self.out.len() + len <= self.limit);
        if kept {
            self.out.push(b't');
            self.out.extend_from_slice(&length);
        } else {
            self.out.push(pgoutput::OVERSIZE);
        }
        if len == 0 { self.after(columns) } else { ReaderState::Value(columns, len, kept) }
    }
}

/// What follows the header of a tuple of so many columns.
fn first(columns: u16) -> ReaderState {
    if columns == 0 { ReaderState::Rest } else { ReaderState::Kind(columns) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Cell, Row, Value};
    use crate::postgres::replication::pgoutput::{Message, Payload};
    use proptest::prelude::*;

    fn insert(columns: &[Option<Vec<u8>>]) -> Vec<u8> {
        let mut body = vec![b'w'];
        body.extend([0; 24]);
        body.extend(b"I\0\0\x40\x01N");
        body.extend(u16::try_from(columns.len()).unwrap().to_be_bytes());
        for column in columns {
            match column {
                None => body.push(b'n'),
                Some(text) => {
                    body.push(b't');
                    body.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                    body.extend(text);
                }
            }
        }
        body
    }

    /// Skims `body`, cut into pieces of these sizes, followed by bytes that are another message's.
    fn skim(body: &[u8], limit: usize, cuts: &[usize]) -> Vec<u8> {
        let mut skimmer = OversizeReader::new(body.len(), limit);
        let mut bytes = [body, b"dNEXT"].concat();
        for cut in cuts.iter().cycle() {
            if skimmer.is_done() {
                break;
            }
            let cut = (*cut).min(bytes.len());
            let taken = skimmer.feed(&bytes[..cut]);
            bytes.drain(..taken);
        }
        assert_eq!(bytes, b"dNEXT", "nothing of the next message was taken");
        skimmer.finish()
    }

    /// The tuple's values, as the decoder reads them from a frame.
    fn read(frame: &[u8]) -> Vec<Option<Vec<u8>>> {
        let len = u32::from_be_bytes(frame[1..5].try_into().unwrap()) as usize;
        assert_eq!((frame[0], len + 1), (b'd', frame.len()));
        let Payload::Data { message: data, .. } = pgoutput::payload(&frame[5..]).unwrap() else { panic!() };
        let Message::Insert { oid: 0x4001, tuple } = pgoutput::message(data).unwrap() else { panic!() };
        let mut cells: Vec<Cell> = Vec::new();
        pgoutput::tuple(tuple, &mut cells).unwrap();
        let row = Row { data: tuple, cells: &cells };
        let value = |index| match row.get(index) {
            Value::Null => None,
            Value::Text(text) => Some(text.to_vec()),
            Value::Oversize => Some(b"OVERSIZE".to_vec()),
            Value::Unknown => Some(b"UNKNOWN".to_vec()),
        };
        (0..cells.len()).map(value).collect()
    }

    #[test]
    fn a_long_column_is_marked_and_the_others_stay() {
        let body =
            insert(&[Some(b"17".to_vec()), Some(vec![b'x'; pgoutput::VALUE_MAX + 1]), None, Some(b"end".to_vec())]);
        let values = read(&skim(&body, 8 << 20, &[65_536]));
        assert_eq!(values, [Some(b"17".to_vec()), Some(b"OVERSIZE".to_vec()), None, Some(b"end".to_vec())]);
    }

    #[test]
    fn of_an_update_both_rows_are_kept_but_for_what_is_long() {
        let [small, long] = [Some(b"17".to_vec()), Some(vec![b'x'; pgoutput::VALUE_MAX + 1])];
        for (kind, old) in [(b'K', [small.clone(), None]), (b'O', [small.clone(), long.clone()])] {
            let (old, new) = (insert(&old), insert(&[small.clone(), long.clone(), None]));
            let mut body = [&old[..WAL_HEADER + 5], &[kind], &old[WAL_HEADER + 6..], &new[WAL_HEADER + 5..]].concat();
            body[WAL_HEADER] = b'U';
            *body.last_mut().unwrap() = b'u';
            let short = skim(&body, 8 << 20, &[65_536]);
            assert_eq!(skim(&body, 8 << 20, &[300_007, 3]), short);
            let Payload::Data { message: data, .. } = pgoutput::payload(&short[5..]).unwrap() else { panic!() };
            let Message::Update { oid: 0x4001, old, tuple } = pgoutput::message(data).unwrap() else { panic!() };
            let mut cells: Vec<Cell> = Vec::new();
            pgoutput::tuple(tuple, &mut cells).unwrap();
            let row = Row { data: tuple, cells: &cells };
            assert_eq!([0, 1, 2].map(|at| row.get(at)), [Value::Text(b"17"), Value::Oversize, Value::Unknown]);
            assert_eq!(old.map(|old| old.is_whole), Some(kind == b'O'));
            if let Some(old) = old.filter(|old| old.is_whole) {
                pgoutput::tuple(old.tuple, &mut cells).unwrap();
                assert_eq!(Row { data: old.tuple, cells: &cells }.get(1), Value::Oversize);
            }
        }
    }

    #[test]
    fn of_anything_else_only_the_kind_is_left() {
        for tag in *b"DTMOz" {
            let mut body = vec![b'w'];
            body.extend([0; 24]);
            body.push(tag);
            body.extend(vec![7; 100_000]);
            let frame = skim(&body, 1 << 20, &[1000]);
            assert_eq!(frame.len(), FRAME_HEADER + WAL_HEADER + 1);
            let Payload::Data { message: data, .. } = pgoutput::payload(&frame[5..]).unwrap() else { panic!() };
            assert!(matches!(pgoutput::message(data).unwrap(), Message::Ignored(_)));
        }
        let frame = skim(&[b'z'; 1000], 10, &[7]);
        assert_eq!(pgoutput::payload(&frame[5..]).unwrap(), Payload::Unknown(b'z'));
    }

    #[test]
    fn a_column_that_cannot_be_is_left_for_the_decoder_to_refuse() {
        let mut body = insert(&[Some(b"17".to_vec()), None]);
        *body.last_mut().unwrap() = b'b';
        body.extend([0; 5000]);
        let frame = skim(&body, 10, &[3]);
        let Payload::Data { message: data, .. } = pgoutput::payload(&frame[5..]).unwrap() else { panic!() };
        let Message::Insert { tuple, .. } = pgoutput::message(data).unwrap() else { panic!() };
        assert!(pgoutput::tuple(tuple, &mut Vec::new()).is_err());
    }

    fn column() -> impl Strategy<Value = Option<Vec<u8>>> {
        let sizes = prop_oneof![5 => 0usize..40, 1 => SMALL - 2..SMALL + 3, 1 => 10_000usize..30_000];
        prop::option::of((any::<u8>(), sizes).prop_map(|(byte, size)| vec![byte; size]))
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_result_is_the_same_and_bounded(
            columns in prop::collection::vec(column(), 0..12),
            limit in 0usize..40_000,
            cuts in prop::collection::vec(1usize..9000, 1..8),
        ) {
            let body = insert(&columns);
            let whole = skim(&body, limit, &[usize::MAX >> 1]);
            prop_assert_eq!(&skim(&body, limit, &cuts), &whole);
            prop_assert_eq!(&skim(&body, limit, &[1]), &whole);
            prop_assert!(whole.len() <= limit + 64 + columns.len() * (SMALL + 5));
            let values = read(&whole);
            prop_assert_eq!(values.len(), columns.len());
            for (value, column) in values.iter().zip(&columns) {
                let marked = column.as_ref().is_some_and(|text| text.len() > SMALL) && *value == Some(b"OVERSIZE".to_vec());
                prop_assert!(marked || value == column);
            }
        }

        #[test]
        fn any_bytes_are_taken_without_a_panic(bytes: Vec<u8>, head in 0usize..34, cuts in prop::collection::vec(1usize..40, 1..5)) {
            let body = [&insert(&[])[..head.min(33)], &bytes].concat();
            skim(&body, 100, &cuts);
        }
    }
}
