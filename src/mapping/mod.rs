//! Row → item bytes, or a refusal. Pure.
//!
//! * In: a section's fields and the columns of a Relation, then rows as text by column.
//! * Out: one JSON object per row, appended to the caller's buffer; or why the row is no item.
//! * Never: half an item left in the buffer; a digit changed; invalid JSON.
//!
//! What a value becomes depends on its column's type and on what Planhat wants of the field:
//!
//! | column | `email` … `dimensionId` (strings) | `value`, `weight` | `date` | inside `info` |
//! |---|---|---|---|---|
//! | boolean | `"true"`, `"false"` | – | – | `true`, `false` |
//! | integers, float, numeric | digits in quotes | digits | – | digits |
//! | timestamps | RFC 3339 UTC | – | RFC 3339 UTC, milliseconds | RFC 3339 UTC |
//! | date | `YYYY-MM-DDT00:00:00.000Z` | – | same | same |
//! | json, jsonb | a string scalar as it is, else its text (not `dimensionId`) | a number scalar | – | verbatim |
//! | anything else | text | text of a number | text of an ISO date or time | text |
//!
//! `–` fails when the mapping is compiled; a value that does not fit its column's rule is refused row by row.
//! A JSON `null` counts as NULL where the field has a type of its own, and where `info` is one whole column; there so does
//! everything that is no object. Fields that tell whose the item is lose the blanks that fill a `char(n)`.

pub(crate) mod compile;
pub(crate) mod decimal;
pub(crate) mod encode;
pub(crate) mod guess;
pub(crate) mod guessed_section;
pub(crate) mod json;
pub(crate) mod mapping_fault;
pub(crate) mod moment;
pub(crate) mod refusal;
pub(crate) mod row_filter;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod time;
pub(crate) mod usual_names;
pub(crate) mod value;

pub(crate) use crate::mapping::guess::guess;
pub(crate) use crate::mapping::guessed_section::Guess;
pub(crate) use crate::mapping::mapping_fault::MappingFault;
pub(crate) use crate::mapping::refusal::{EncodeError, Reason, Refuses};

use std::borrow::Cow;
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::mapping::row_filter::RowFilter;
use crate::mapping::value::Encoder;
use crate::model::{FilterRule, Row, Value, key_text};

/// One section's fields, compiled against the columns of one Relation.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// What to write, in order.
    steps: Vec<FieldStep>,
    /// The indexes of the key's columns, in the key's order.
    key: Vec<usize>,
    /// Which rows are left out.
    filter: RowFilter,
    /// Every column that is read (the key's too), ascending, with its name.
    columns: Vec<(usize, String)>,
    /// At least one [`Presence::Identity`] column must be written.
    needs_identity: bool,
    /// How naive timestamps are read; `None` is UTC.
    zone: Option<TimeZone>,
}

impl Mapping {
    /// The indexes of the key's columns, in the key's order.
    pub fn key_columns(&self) -> &[usize] {
        &self.key
    }

    /// The text of a row's key; empty where a column of it is NULL.
    #[inline]
    pub fn key_text<'a>(&self, row: &Row<'a>) -> Cow<'a, [u8]> {
        key_text(row, &self.key)
    }

    /// Whether an updated row has its key.
    ///
    /// # Errors
    /// The first of the key's columns that the update did not bring.
    pub(crate) fn brought_key(&self, row: &Row<'_>) -> Result<(), EncodeError> {
        let left_out = self.key.iter().find(|column| row.get(**column) == Value::Unknown);
        let name = |column: &usize| self.columns.iter().find(|(index, _)| index == column).map_or("", |(_, name)| name);
        left_out.map_or(Ok(()), |column| Err(EncodeError::new(&name(column).into(), Reason::KeyUnknown, b"")))
    }

    /// The rule that leaves this row out, or none. Whoever has a row asks this before [`Mapping::encode`].
    ///
    /// # Errors
    /// Why the row can be neither left out nor sent.
    #[inline]
    pub fn left_out(&self, row: &Row<'_>) -> Result<Option<FilterRule>, EncodeError> {
        self.filter.judge(row)
    }

    /// Whether two versions of a row have the same values in every column that is read.
    pub(crate) fn reads_the_same(&self, row: &Row<'_>, old: &Row<'_>) -> bool {
        // Of values that are not here nobody knows whether they changed.
        let is_here = |value: Value<'_>| matches!(value, Value::Null | Value::Text(_));
        self.columns_used().all(|column| is_here(row.get(column)) && row.get(column) == old.get(column))
    }

    /// The indexes of all columns that are read, the key's too: ascending, each once.
    pub fn columns_used(&self) -> impl Iterator<Item = usize> {
        self.columns.iter().map(|(index, _)| *index)
    }
}

/// One part of an item. Every member begins with a comma; the first one's becomes the opening brace.
#[derive(Clone, Debug)]
enum FieldStep {
    /// Whole members that are the same in every item: `,"model":"Company"`.
    Literal(Vec<u8>),
    /// One member out of one column.
    Column(ColumnStep),
    /// A nested object; left out where all its members are.
    Object {
        /// `,"info":`
        lead: Vec<u8>,
        /// Its members.
        steps: Vec<FieldStep>,
    },
    /// The commit time, where it is known.
    CommitTime {
        /// `,"date":`
        lead: Vec<u8>,
    },
}

/// How one column becomes one member.
#[derive(Clone, Debug)]
struct ColumnStep {
    /// `,"value":`
    lead: Vec<u8>,
    column: usize,
    /// How its text is written.
    encoder: Encoder,
    /// What its absence means.
    presence: Presence,
    /// JSON text that stands in for NULL.
    default: Option<Vec<u8>>,
    /// The field's name as configured, for refusals: `value`, `info.plan`.
    field: Arc<str>,
}

/// What it means that a column is NULL and has no default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// The member is left out. An empty string is a value like others.
    Optional,
    /// The row is refused; also for an empty string.
    Mandatory,
    /// One of several of which one suffices: left out, also for an empty string.
    Identity,
}
