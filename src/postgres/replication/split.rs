//! The two directions of a copy: raw reading with control over when, and sending at any time.
//!
//! * In: a stream on which a copy was begun.
//! * Out: bytes in [`WireReader::buffer_mut`], to be cut by [`crate::postgres::replication::frames::next_frame`]; CopyData the other way.
//! * Never: a byte lost, or a message torn, when a `select!` drops a read or a flush half-way.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::postgres::connection::dial::Socket;
use crate::postgres::connection::locality::Locality;

const READ_SIZE: usize = 256 << 10;
const READ_MIN: usize = 128 << 10;
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The receiving side of a connection.
pub struct WireReader<S = ReadHalf<Socket>> {
    pub(crate) stream: S,
    pub(crate) inbound: BytesMut,
    pub(crate) nearness: Locality,
}

/// The sending side of a connection.
pub struct WireWriter {
    pub(crate) stream: WriteHalf<Socket>,
    pub(crate) outbound: BytesMut,
}

impl<S: AsyncRead + Unpin> WireReader<S> {
    /// Reads once, up to 256 KiB, and appends; 0 is the end of the stream. A dropped call loses nothing.
    pub async fn read_more(&mut self) -> io::Result<usize> {
        if self.inbound.capacity() - self.inbound.len() < READ_MIN {
            self.inbound.reserve(READ_SIZE);
        }
        self.stream.read_buf(&mut self.inbound).await
    }

    /// Where the server is.
    pub fn nearness(&self) -> Locality {
        self.nearness
    }

    /// What was read and not yet taken: cut it by [`next_frame`].
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.inbound
    }
}

impl WireWriter {
    /// Queues one CopyData message.
    pub fn queue_copy_data(&mut self, data: &[u8]) {
        match frontend::CopyData::new(data) {
            Ok(message) => message.write(&mut self.outbound),
            // Over 2 GiB: what is sent here is a status update of 34 bytes.
            Err(error) => tracing::error!(%error, "a CopyData message was too long and was not sent"),
        }
    }

    /// Queues one CopyData message and sends all that is queued.
    pub async fn send_copy_data(&mut self, data: &[u8]) -> io::Result<()> {
        self.queue_copy_data(data);
        self.flush().await
    }

    /// Ends the sending direction (CopyDone), and sends all that is queued.
    pub async fn send_copy_done(&mut self) -> io::Result<()> {
        frontend::copy_done(&mut self.outbound);
        self.flush().await
    }

    /// Sends all that is queued. A dropped call leaves the rest queued; the next one goes on with it.
    pub async fn flush(&mut self) -> io::Result<()> {
        flush(&mut self.stream, &mut self.outbound).await
    }

    /// Says goodbye to the server, within a second: it may be busy, or have stopped reading.
    pub async fn close(mut self) {
        frontend::terminate(&mut self.outbound);
        let leave = async {
            flush(&mut self.stream, &mut self.outbound).await?;
            self.stream.shutdown().await
        };
        match tokio::time::timeout(CLOSE_TIMEOUT, leave).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "closing a connection"),
            Err(_) => tracing::debug!("the server did not take the farewell in time"),
        }
    }
}

pub(crate) async fn flush(stream: &mut (impl AsyncWrite + Unpin), outbound: &mut BytesMut) -> io::Result<()> {
    while outbound.has_remaining() {
        if stream.write_buf(outbound).await? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    stream.flush().await
}
