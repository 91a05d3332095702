//! Reading older rows, chunk by chunk, in key order.
//!
//! * In: a section's key range.
//! * Out: chunks of rows as text by column, and the LSN that the stream must have passed before a chunk is delivered.
//! * Never: a snapshot held longer than one chunk.

pub(crate) mod copy_text;
pub(crate) mod former_keys;
pub(crate) mod key_reader;
pub(crate) mod one_row;
pub(crate) mod oversize_columns;
#[cfg(test)]
pub(crate) mod plan_tests;
pub(crate) mod range_reader;
#[cfg(test)]
pub(crate) mod range_tests;
pub(crate) mod result_position;
pub(crate) mod result_reader;
pub(crate) mod rows_by_key;
pub(crate) mod rows_since;
pub(crate) mod selection;
pub(crate) mod steadiness;
pub(crate) mod table_lock;
