//! The events of a stream: started, rows, ended with a reason.
//!
//! * In: nothing.
//! * Out: [`StreamEvent`], [`StreamEnd`], [`EndReason`] and the parameters of a start.
//! * Never: I/O.

use std::time::Duration;

use bytes::Bytes;

use crate::model::{Fault, Lsn};

/// A message from the stream to the event loop.
#[derive(Debug)]
pub enum StreamEvent {
    /// The slot is ours: the copy has begun, with what commits from here on.
    Started(Lsn),
    /// Whole messages of the server, one after the other, as they came.
    Run(Bytes),
    /// The connection has ended; nothing follows.
    Ended(StreamEnd),
}

/// Why a stream ended.
#[derive(Clone, Debug)]
pub struct StreamEnd {
    /// What follows from it.
    pub fate: EndReason,
    /// For a person.
    pub fault: Fault,
}

/// The reason of a stream's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The event loop asked the stream to end.
    Stopped,
    /// A new connection may go on.
    Transient,
    /// The server was silent for too long: it may be away, or busy decoding.
    Silent,
    /// The server, its timeline or the slot is not where it was: everything must be compared anew.
    Moved,
    /// The slot is held by another process (55006).
    SlotActive,
    /// There is no such slot (42704).
    SlotMissing,
    /// The slot is of no more use: its WAL is gone (55000).
    SlotLost,
    /// Decoding found no publication of this name (42704), and will not find it next time either.
    PublicationMissing,
    /// The server goes down (57P01, 57P03): it waits for us to let go.
    Shutdown,
    /// The server cannot decode: the same error will come again.
    Wedged,
    /// The configuration, a right or a password is wrong.
    Refused,
}

/// The parameters of a stream.
#[derive(Clone, Debug)]
pub struct StreamStart {
    pub slot: String,
    pub publication: String,
    /// The publication of updates, where one is wanted.
    pub updates: Option<UpdateStream>,
    /// The expected server: its system identifier and timeline.
    pub server: Option<(String, u32)>,
    /// The durable checkpoint.
    pub from: Lsn,
    /// From where what was read before is to come once more, to be recognized; `None`: nothing is.
    pub again_from: Option<Lsn>,
    /// The longest message that is held in memory, in bytes.
    pub max_message: usize,
    /// How often a status update is sent at the least.
    pub status_interval: Duration,
    /// How long the server may be silent, though each status update asks for a reply.
    pub patience: Duration,
}

/// The publication of updates, and from where it may be named: the server cannot decode with one what was written before it
/// was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateStream {
    pub publication: String,
    pub oid: u32,
    /// `None` where it is not known yet.
    pub from: Option<Lsn>,
}

impl StreamStart {
    /// The publication of updates, where it can be named to the server.
    pub(crate) fn named_updates(&self) -> Option<&UpdateStream> {
        self.updates.as_ref().filter(|updates| updates.from.is_some_and(|from| self.from >= from))
    }

    /// From where the server is asked to send.
    pub(crate) fn asked_from(&self) -> Lsn {
        let named = self.named_updates().and_then(|updates| updates.from).unwrap_or_default();
        self.again_from.map_or(self.from, |again| again.min(self.from).max(named))
    }
}

pub(crate) fn stopped() -> StreamEnd {
    StreamEnd {
        fate: EndReason::Stopped,
        fault: Fault::unavailable("the stream was ended", "nothing: it was asked for"),
    }
}
