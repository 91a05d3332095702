//! Connections that cannot stay: few at a time, each with a deadline.
//!
//! * In: a TCP listener.
//! * Out: streams that fail once their time is over, whoever is slow.
//! * Never: more than [`CONNECTIONS`] at once: whoever holds them all holds the port for [`DEADLINE`], not for ever.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// Open connections at once.
pub(crate) const CONNECTIONS: usize = 32;
/// What one connection may take, from accept to the last byte. One request is answered on it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// The listener.
pub(crate) struct Brief {
    inner: TcpListener,
    places: Arc<Semaphore>,
    deadline: Duration,
}

impl Brief {
    pub(crate) fn new(inner: TcpListener, deadline: Duration) -> Brief {
        Brief { inner, places: Arc::new(Semaphore::new(CONNECTIONS)), deadline }
    }
}

impl Listener for Brief {
    type Io = Timed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Timed, SocketAddr) {
        // The semaphore is never closed; without a permit the connection would only not be counted.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, peer) = Listener::accept(&mut self.inner).await;
        (Timed { stream, over: Box::pin(tokio::time::sleep(self.deadline)), _place: place }, peer)
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// One connection.
pub(crate) struct Timed {
    stream: TcpStream,
    over: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Timed {
    fn in_time(&mut self, cx: &mut Context<'_>) -> Result<()> {
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
