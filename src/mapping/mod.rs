//! Row → item bytes, or a refusal. Pure.
//!
//! * In: a section's fields and the columns of a Relation, then rows as text by column.
//! * Out: one JSON object per row, appended to the caller's buffer; or why the row is no item.
//! * Never: half an item left in the buffer; a digit changed; invalid JSON.
