//! Cuts the server's bytes into whole messages, without copying them. Pure.
//!
//! * In: what was read so far.
//! * Out: the next [`Frame`], once it is whole; the values of a row.
//! * Never: memory reserved because a length header says so; a panic, whatever the bytes are.

use bytes::{Buf, Bytes, BytesMut};

const HEADER: usize = 5;

/// One message of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub tag: u8,
    /// The bytes behind the length.
    pub body: Bytes,
}

/// A header that cannot be followed: the connection cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The message is longer than the reader will hold.
    #[error("the server announced a message of {len} bytes (type {tag:?}), and at most {max} are taken", tag = char::from(*tag))]
    TooLong {
        tag: u8,
        /// The length of its body.
        len: usize,
        /// The reader's limit.
        max: usize,
    },
    /// The length does not even cover itself: this is not PostgreSQL's protocol.
    #[error("the server sent a message with the length {len} (type {tag:?}): not PostgreSQL's protocol", tag = char::from(*tag))]
    Nonsense {
        tag: u8,
        /// The length as sent.
        len: u32,
    },
}

/// Splits the first message off `buffer`; `None` until it is whole. A body of more than `max_len` bytes is refused
/// as soon as its header is there.
///
/// # Errors
/// Where the header cannot be followed; the buffer is then left as it is.
pub(crate) fn next_frame(buffer: &mut BytesMut, max_len: usize) -> Result<Option<Frame>, FrameError> {
    let Some(missing) = missing_bytes(buffer, max_len)? else { return Ok(None) };
    if missing > 0 {
        return Ok(None);
    }
    let tag = buffer[0];
    let body = body_len(buffer);
    buffer.advance(HEADER);
    Ok(Some(Frame { tag, body: buffer.split_to(body).freeze() }))
}

/// How many bytes the first message still lacks; `None` until its header is there.
pub(crate) fn missing_bytes(buffer: &[u8], max_len: usize) -> Result<Option<usize>, FrameError> {
    let Some(&[tag, a, b, c, d]) = buffer.first_chunk::<HEADER>() else { return Ok(None) };
    let len = u32::from_be_bytes([a, b, c, d]);
    // PostgreSQL's lengths are signed: one with the top bit is as impossible as one below 4.
    if len < 4 || i32::try_from(len).is_err() {
        return Err(FrameError::Nonsense { tag, len });
    }
    let body = body_len(buffer);
    if body > max_len {
        return Err(FrameError::TooLong { tag, len: body, max: max_len });
    }
    Ok(Some((HEADER + body).saturating_sub(buffer.len())))
}

fn body_len(header: &[u8]) -> usize {
    let len = header.get(1..HEADER).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).map_or(4, u32::from_be_bytes);
    (len as usize).saturating_sub(4)
}

/// The values of a DataRow as text; `None` where it cannot be read.
pub(crate) fn text_row(mut body: &[u8]) -> Option<Vec<Option<String>>> {
    let mut take = |len: usize| {
        let (part, rest) = body.split_at_checked(len)?;
        body = rest;
        Some(part)
    };
    let columns = u16::from_be_bytes(take(2)?.try_into().ok()?);
    let mut row = Vec::new();
    for _ in 0..columns {
        let len = i32::from_be_bytes(take(4)?.try_into().ok()?);
        row.push(match usize::try_from(len) {
            Ok(len) => Some(String::from_utf8_lossy(take(len)?).into_owned()),
            Err(_) => None,
        });
    }
    Some(row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(tag: u8, body: &[u8], out: &mut Vec<u8>) {
        out.push(tag);
        out.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        out.extend(body);
    }

    #[test]
    fn a_long_message_is_refused_by_its_header_alone() {
        let mut buffer = BytesMut::from(&b"d\x7f\xff\xff\xff"[..]);
        let refused = FrameError::TooLong { tag: b'd', len: 0x7fff_fffb, max: 1024 };
        assert_eq!(next_frame(&mut buffer, 1024), Err(refused));
        assert!(buffer.capacity() < 1024, "nothing was reserved for it");
    }

    #[test]
    fn a_length_that_does_not_cover_itself_is_nonsense() {
        for bytes in [&b"H\0\0\0\x03"[..], &b"H\xff\xff\xff\xff"[..]] {
            assert!(matches!(next_frame(&mut BytesMut::from(bytes), 1024), Err(FrameError::Nonsense { .. })));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_a_panic(bytes: Vec<u8>, max in 0usize..64) {
            let mut buffer = BytesMut::from(&bytes[..]);
            let mut taken = 0;
            while let Ok(Some(frame)) = next_frame(&mut buffer, max) {
                prop_assert!(frame.body.len() <= max);
                taken += HEADER + frame.body.len();
            }
            prop_assert_eq!(taken + buffer.len(), bytes.len());
        }

        #[test]
        fn messages_come_out_as_they_went_in_however_they_arrive(
            messages in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..20),
            cuts in prop::collection::vec(1usize..50, 1..20),
        ) {
            let mut bytes = Vec::new();
            messages.iter().for_each(|(tag, body)| encode(*tag, body, &mut bytes));
            let mut buffer = BytesMut::new();
            let mut seen = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                while let Some(frame) = next_frame(&mut buffer, 64).unwrap() {
                    seen.push((frame.tag, frame.body.to_vec()));
                }
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                buffer.extend_from_slice(now);
                rest = later;
            }
            prop_assert_eq!(seen, messages);
            prop_assert!(buffer.is_empty());
        }
    }
}
