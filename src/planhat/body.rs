//! The body of one request, which knows whether its last byte was ever handed to the connection.
//!
//! * In: the bytes of a batch.
//! * Out: an HTTP body, and a [`HandOver`] that answers: can the server have the whole of it?
//! * Never: "surely not received" of a body whose last piece has left; a copy of the bytes.
//!
//! Why: a batch is one JSON array under a fixed Content-Length. While its last piece is held back, whatever reached the
//! server ends before the closing bracket and cannot have been taken. So a request that failed before that moment is not
//! in doubt. [`HandOver::give_up`] and the hand-over of the last piece exclude each other, so that the answer stays true
//! although the connection is driven by another task.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Small enough that a connection that breaks early is seen before the last piece; large enough to cost nothing.
const PIECE: usize = 64 * 1024;

const HELD: u8 = 0;
const HANDED: u8 = 1;
const GIVEN_UP: u8 = 2;

/// Shared by the body and whoever waits for its answer.
#[derive(Clone, Debug)]
pub(crate) struct HandOver(Arc<HandOverState>);

#[derive(Debug)]
struct HandOverState {
    last: AtomicU8,
    begun: AtomicBool,
}

impl HandOver {
    /// Ends the sending. True: the last piece was not handed over and never will be, so the server cannot have the batch.
    pub(crate) fn give_up(&self) -> bool {
        match self.0.last.compare_exchange(HELD, GIVEN_UP, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => true,
            Err(state) => state == GIVEN_UP,
        }
    }

    /// Whether the last piece was handed to the connection.
    pub(crate) fn handed(&self) -> bool {
        self.0.last.load(Ordering::SeqCst) == HANDED
    }

    /// Whether the connection has asked for any of it: it was made then, TLS and all.
    pub(crate) fn begun(&self) -> bool {
        self.0.begun.load(Ordering::SeqCst)
    }
}

/// The body, piece by piece.
#[derive(Debug)]
pub(crate) struct Pieces {
    rest: Bytes,
    state: HandOver,
}

/// Splits `body` into pieces.
pub(crate) fn pieces(body: Bytes) -> (Pieces, HandOver) {
    // An empty body has no last piece to hold back: the head alone is the request.
    let first = if body.is_empty() { HANDED } else { HELD };
    let state = HandOver(Arc::new(HandOverState { last: AtomicU8::new(first), begun: AtomicBool::new(false) }));
    (Pieces { rest: body, state: state.clone() }, state)
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.state.0.begun.store(true, Ordering::SeqCst);
        if self.rest.len() > PIECE {
            let piece = self.rest.split_to(PIECE);
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        match self.state.0.last.compare_exchange(HELD, HANDED, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.rest))))),
            // Given up: less than Content-Length promised, so the connection ends without a whole request.
            Err(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn poll(body: &mut Pieces) -> Option<Bytes> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        match Pin::new(body).poll_frame(&mut context) {
            Poll::Ready(frame) => frame.map(|frame| frame.unwrap().into_data().unwrap()),
            Poll::Pending => panic!("a body in memory is always ready"),
        }
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_body(len in 1..300_000usize) {
            let bytes: Bytes = (0..=250u8).cycle().take(len).collect();
            let (mut body, state) = pieces(bytes.clone());
            prop_assert!(!state.begun());
            let mut sent = Vec::new();
            while let Some(piece) = poll(&mut body) {
                prop_assert_eq!(body.size_hint().exact(), Some((len - sent.len() - piece.len()) as u64));
                sent.extend_from_slice(&piece);
                prop_assert_eq!(state.handed(), sent.len() == len);
            }
            prop_assert_eq!(sent, bytes);
            prop_assert!(state.begun());
            prop_assert!(!state.give_up());
        }

        #[test]
        fn what_was_given_up_is_never_whole(len in 1..300_000usize, polls in 0..6usize) {
            let (mut body, state) = pieces(Bytes::from(vec![b'x'; len]));
            let mut sent: usize = (0..polls).filter_map(|_| poll(&mut body)).map(|piece| piece.len()).sum();
            let surely_not = state.give_up();
            while let Some(piece) = poll(&mut body) {
                sent += piece.len();
            }
            prop_assert_eq!(surely_not, sent < len);
        }
    }
}
