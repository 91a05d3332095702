//! A connection that is closed when its client stops reading.
//!
//! * In: a connection.
//! * Out: the same.
//! * Never: an answer that waits forever for a client that does not read it, and takes a place from others.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A connection that fails once a write has stood still for too long.
pub(crate) struct PatientStream<S> {
    inner: S,
    /// A write waits at most this long for the client to read.
    patience: Duration,
    /// The timer that runs while a write waits.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> PatientStream<S> {
    pub(crate) fn new(inner: S, patience: Duration) -> PatientStream<S> {
        PatientStream { inner, patience, until: None }
    }

    /// Returns the result of a write; an error where the write has waited for too long.
    fn weighed<T>(&mut self, came: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if came.is_ready() {
            self.until = None;
            return came;
        }
        let patience = self.patience;
        let until = self.until.get_or_insert_with(|| Box::pin(sleep(patience)));
        until.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PatientStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PatientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let came = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.weighed(came, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let came = Pin::new(&mut self.inner).poll_write_vectored(cx, parts);
        self.weighed(came, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let came = Pin::new(&mut self.inner).poll_flush(cx);
        self.weighed(came, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let came = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.weighed(came, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn who_reads_slowly_is_waited_for_and_who_does_not_read_is_cut() {
        let patience = Duration::from_millis(200);
        let (mut reader, writer) = tokio::io::duplex(10);
        let mut stream = PatientStream::new(writer, patience);
        let (written, ()) = tokio::join!(stream.write_all(&[1; 60]), async {
            for _ in 0..6 {
                sleep(patience / 4).await;
                reader.read_exact(&mut [0; 10]).await.unwrap();
            }
        });
        written.unwrap();
        let began = std::time::Instant::now();
        let cut = stream.write_all(&[1; 60]).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= patience);
    }
}
