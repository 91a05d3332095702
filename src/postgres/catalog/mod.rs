//! What the source's catalog says, read in plain SQL.
//!
//! * In: a session.
//! * Out: tables, types, slots, publications and their defects, the server, and names quoted for SQL.
//! * Never: a change on the server.

pub(crate) mod defects;
pub(crate) mod key_columns;
pub(crate) mod listing;
pub(crate) mod locks;
pub(crate) mod partition_entries;
pub(crate) mod partition_roots;
pub(crate) mod provider;
pub(crate) mod publication;
pub(crate) mod quote;
pub(crate) mod replica_identity;
pub(crate) mod result;
pub(crate) mod server;
pub(crate) mod slot;
pub(crate) mod table;
pub(crate) mod types;
pub(crate) mod unique_indexes;
pub(crate) mod write_counts;
pub(crate) mod writers;
pub(crate) mod xmin_barrier;
