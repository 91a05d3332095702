//! Logical replication: the walsender's protocol, from the socket to decoded rows.
//!
//! * In: a slot, a publication, a position.
//! * Out: rows and the boundaries between them, in commit order.
//! * Never: a position confirmed that was not received.
//!
//! The protocol is spoken by this room's own code on top of `postgres-protocol`: the way in which the socket is read decides
//! the server's speed (`read_coalescing`), and a message larger than the memory budget must reach the quarantine instead of
//! wedging the slot (`oversize_message`). No published client offers both.

pub(crate) mod connection;
pub(crate) mod control;
pub(crate) mod copy_loop;
pub(crate) mod event;
pub(crate) mod frames;
pub(crate) mod oversize_message;
pub(crate) mod pgoutput;
pub(crate) mod read_coalescing;
pub(crate) mod row_decoder;
pub(crate) mod split;
pub(crate) mod start_replication;
pub(crate) mod stream;
pub(crate) mod timeline;
pub(crate) mod timeline_history;
