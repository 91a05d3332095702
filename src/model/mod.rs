//! The nouns that every room shares: WAL positions, keys, rows, errors. Pure.
//!
//! * In: nothing. This is the bottom of the module graph.
//! * Out: small value types with total orders and text forms; the back-off that every retry uses.
//! * Never: a Postgres wire type, an HTTP type, a clock, a lock.

pub(crate) mod backoff;
pub(crate) mod fault;
pub(crate) mod indexed;
pub(crate) mod key;
pub(crate) mod lsn;
pub(crate) mod nearest;
pub(crate) mod newest_read;
pub(crate) mod row;
pub(crate) mod row_counts;
pub(crate) mod seen;
pub(crate) mod wash;

pub use crate::model::fault::*;
pub use crate::model::indexed::*;
pub use crate::model::key::*;
pub use crate::model::lsn::*;
pub use crate::model::newest_read::*;
pub use crate::model::row::*;
pub use crate::model::row_counts::*;
pub(crate) use crate::model::seen::{Forgotten, day_of, left_out, values_digest};
pub use crate::model::seen::{KeyDigest, SeenRow};
pub(crate) use crate::model::wash::{washed, washed_output};
