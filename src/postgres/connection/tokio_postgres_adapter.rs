//! Hands a stream that is open, and TLS already, over to tokio-postgres.
//!
//! * In: a [`Socket`], and its channel's hash.
//! * Out: what [`tokio_postgres::Config::connect_raw`] takes.
//! * Never: a password in a form that others on the way could use: the server's wish for it is an error here, before
//!   tokio-postgres sees it.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use crate::postgres::connection::dial::Socket;
use crate::postgres::connection::silence::{Silence, Tail};

/// An Authentication message up to its code.
const HEAD: usize = 9;

/// Bytes that a server may send before it is ready. Nobody has proven who it is until then, and tokio-postgres would keep
/// all of it.
const START: usize = 1 << 20;

/// A stream that lets nobody ask for a readable password, unless it is private, nor fill this process's memory.
pub(crate) struct Guarded {
    stream: Socket,
    /// The first bytes of the server; full at once where nothing is to be watched.
    head: Vec<u8>,
    sizes: SizeWatch,
    silence: Silence,
    tail: Tail,
    /// The hash of the stream's channel, to which the authentication is bound.
    end_point: Option<Vec<u8>>,
}

/// Follows the messages of the server by their lengths.
struct SizeWatch {
    header: [u8; 5],
    /// Bytes of the header that are there.
    held: usize,
    /// Bytes of the message's body that are still to come.
    left: usize,
    /// Bytes that may come before the server is ready; `None` once it is.
    start: Option<usize>,
    /// The largest message afterwards.
    largest: Option<usize>,
}

impl SizeWatch {
    fn watch(&mut self, mut bytes: &[u8]) -> Result<(), Oversize> {
        while !bytes.is_empty() && (self.start.is_some() || self.largest.is_some()) {
            if self.left > 0 {
                let came = self.left.min(bytes.len());
                self.left -= came;
                bytes = &bytes[came..];
                continue;
            }
            self.header[self.held] = bytes[0];
            self.held += 1;
            bytes = &bytes[1..];
            if self.held == self.header.len() {
                self.held = 0;
                self.message()?;
            }
        }
        Ok(())
    }

    fn message(&mut self) -> Result<(), Oversize> {
        let [tag, length @ ..] = self.header;
        let length = u32::from_be_bytes(length) as usize;
        self.left = length.saturating_sub(4);
        match (self.start, self.largest) {
            (Some(room), _) => {
                let room = room.checked_sub(length + 1).ok_or(Oversize::Start)?;
                self.start = (tag != b'Z').then_some(room);
                Ok(())
            }
            (None, Some(largest)) if length > largest => Err(Oversize::Message(length)),
            (None, _) => Ok(()),
        }
    }
}

/// The error of a server that sends more than is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Oversize {
    /// Before it was ready.
    #[error("the server sends more than {START} bytes before it lets anybody in")]
    Start,
    /// In one message.
    #[error("the server's answer has a value or a line of {0} bytes")]
    Message(usize),
}

/// Whether the stream failed because the server sends too much.
pub(crate) fn oversize(error: &io::Error) -> Option<Oversize> {
    error.get_ref()?.downcast_ref::<Oversize>().copied()
}

/// The `TlsConnect` of a stream on which TLS has begun already.
pub(crate) struct Established {
    pub end_point: Option<Vec<u8>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the server wants the password by {0}")]
struct ReadablePassword(&'static str);

/// How the server wanted the password, where that is why the stream failed.
pub(crate) fn refused_password(error: &io::Error) -> Option<&'static str> {
    error.get_ref()?.downcast_ref::<ReadablePassword>().map(|refused| refused.0)
}

impl Guarded {
    /// `largest`: the largest message once the server is ready. `silence` is told what is asked and what comes.
    pub(crate) fn new(stream: Socket, private: bool, largest: Option<usize>, silence: Silence) -> Guarded {
        let sizes = SizeWatch { header: [0; 5], held: 0, left: 0, start: Some(START), largest };
        let head = if private { vec![0; HEAD] } else { Vec::new() };
        Guarded { stream, head, sizes, silence, tail: Tail::default(), end_point: None }
    }

    fn watch(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.silence.came(bytes, &mut self.tail);
        self.sizes.watch(bytes).map_err(|oversize| io::Error::new(io::ErrorKind::InvalidData, oversize))?;
        if self.head.len() >= HEAD {
            return Ok(());
        }
        let room = HEAD - self.head.len();
        self.head.extend_from_slice(&bytes[..room.min(bytes.len())]);
        let how = match self.head.as_slice() {
            [b'R', _, _, _, _, 0, 0, 0, 3] => "cleartext",
            [b'R', _, _, _, _, 0, 0, 0, 5] => "MD5",
            _ => return Ok(()),
        };
        Err(io::Error::new(io::ErrorKind::PermissionDenied, ReadablePassword(how)))
    }
}

impl AsyncRead for Guarded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        Poll::Ready(this.watch(&buf.filled()[before..]))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = std::task::ready!(Pin::new(&mut this.stream).poll_write(cx, buf))?;
        this.silence.asked();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl TlsConnect<Guarded> for Established {
    type Stream = Guarded;
    type Error = io::Error;
    type Future = Ready<io::Result<Guarded>>;

    fn connect(self, stream: Guarded) -> Self::Future {
        ready(Ok(Guarded { end_point: self.end_point, ..stream }))
    }
}

impl TlsStream for Guarded {
    fn channel_binding(&self) -> ChannelBinding {
        self.end_point.clone().map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, length: u32) -> Vec<u8> {
        [&[tag][..], &length.to_be_bytes()].concat()
    }

    /// Byte by byte and in one piece.
    fn both(largest: Option<usize>, bytes: &[u8]) -> Result<(), Oversize> {
        let new = || SizeWatch { header: [0; 5], held: 0, left: 0, start: Some(START), largest };
        let mut slow = new();
        let slowly = bytes.iter().try_for_each(|byte| slow.watch(&[*byte]));
        assert_eq!(new().watch(bytes), slowly);
        slowly
    }

    #[test]
    fn case_102_what_comes_before_the_server_is_ready_is_bounded() {
        assert_eq!(both(None, &message(b'R', 2 << 30)), Err(Oversize::Start));
        let status = [message(b'S', 104), vec![b'x'; 100]].concat();
        assert_eq!(both(None, &status.repeat(20_000)), Err(Oversize::Start));
        let ready = [message(b'Z', 5), b"I".to_vec()].concat();
        let after = [status.repeat(100), ready, message(b'D', 2 << 30)].concat();
        assert_eq!(both(None, &after), Ok(()));
        assert_eq!(both(Some(1 << 20), &after), Err(Oversize::Message(2 << 30)));
    }
}
