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

/// An Authentication message up to its code.
const HEAD: usize = 9;

/// A stream that lets nobody ask for a readable password, unless it is private.
pub(crate) struct Guarded {
    stream: Socket,
    /// The first bytes of the server; full at once where nothing is to be watched.
    head: Vec<u8>,
}

/// "TLS was begun already."
pub(crate) struct Established {
    pub end_point: Option<Vec<u8>>,
}

/// A stream with its channel's hash.
pub(crate) struct Bound {
    stream: Guarded,
    end_point: Option<Vec<u8>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the server wants the password by {0}")]
struct ReadablePassword(&'static str);

/// How the server wanted the password, where that is why the stream failed.
pub(crate) fn refused_password(error: &io::Error) -> Option<&'static str> {
    error.get_ref()?.downcast_ref::<ReadablePassword>().map(|refused| refused.0)
}

impl Guarded {
    pub(crate) fn new(stream: Socket, private: bool) -> Guarded {
        Guarded { stream, head: if private { vec![0; HEAD] } else { Vec::new() } }
    }

    fn watch(&mut self, bytes: &[u8]) -> io::Result<()> {
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
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl TlsConnect<Guarded> for Established {
    type Stream = Bound;
    type Error = io::Error;
    type Future = Ready<io::Result<Bound>>;

    fn connect(self, stream: Guarded) -> Self::Future {
        ready(Ok(Bound { stream, end_point: self.end_point }))
    }
}

impl TlsStream for Bound {
    fn channel_binding(&self) -> ChannelBinding {
        self.end_point.clone().map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl AsyncRead for Bound {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Bound {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
