//! A listener for short connections: few at a time, each with a deadline.
//!
//! * In: a TCP listener.
//! * Out: streams that fail when their deadline has passed.
//! * Never: more than [`CONNECTIONS`] at once. One more ends the oldest, so that silent connections do not block a probe.

use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::Sleep;

/// Open connections at once.
pub(crate) const CONNECTIONS: usize = 32;
/// What one connection may take, from accept to the last byte. One request is answered on it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

pub(crate) struct Brief {
    inner: TcpListener,
    /// The open ones, the oldest first: a message ends one.
    open: VecDeque<oneshot::Sender<()>>,
    deadline: Duration,
}

impl Brief {
    pub(crate) fn new(inner: TcpListener, deadline: Duration) -> Brief {
        Brief { inner, open: VecDeque::new(), deadline }
    }
}

impl Listener for Brief {
    type Io = Timed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Timed, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.inner).await;
        self.open.retain(|open| !open.is_closed());
        while self.open.len() >= CONNECTIONS
            && let Some(oldest) = self.open.pop_front()
        {
            // A connection that has ended meanwhile has no receiver any more.
            oldest.send(()).ok();
        }
        let (end, ended) = oneshot::channel();
        self.open.push_back(end);
        (Timed { stream, over: Box::pin(tokio::time::sleep(self.deadline)), ended }, peer)
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        self.inner.local_addr()
    }
}

pub(crate) struct Timed {
    stream: TcpStream,
    over: Pin<Box<Sleep>>,
    ended: oneshot::Receiver<()>,
}

impl Timed {
    fn in_time(&mut self, cx: &mut Context<'_>) -> Result<()> {
        if Pin::new(&mut self.ended).poll(cx).is_ready() {
            return Err(Error::from(ErrorKind::ConnectionAborted));
        }
        match self.over.as_mut().poll(cx) {
            Poll::Ready(()) => Err(Error::from(ErrorKind::TimedOut)),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Timed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Timed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
