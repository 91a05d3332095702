//! How a section's rows are read: from the log, or by comparing a result.
//!
//! * In: a decoded section.
//! * Out: [`ReadMode`], and what follows from it for sections and for the whole instance.
//! * Never: a key of one way read beside the other; the decoder refuses that.

use std::time::Duration;

use crate::config::{Config, Field, Flush, Section};

/// How a section's rows are read.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ReadMode {
    /// From the log, with a backfill of what was there before.
    #[default]
    Stream,
    /// By comparing a result with what was settled.
    Diff(DiffMode),
}

/// A result that is read again and again, and compared with what was settled.
#[derive(Clone, Debug, PartialEq)]
pub struct DiffMode {
    /// The SELECT; `None` where a table or view is read.
    pub query: Option<String>,
    /// When it is read.
    pub every: Flush,
    /// Whether a row whose mapped values changed is sent again.
    pub send_changed: bool,
    /// Only rows whose date is not older than this.
    pub within: Option<Duration>,
}

impl Config {
    /// Whether a section is streamed, switched on or not: such an instance has a publication and a slot.
    pub fn streams(&self) -> bool {
        self.sections.is_empty() || self.sections.iter().any(Section::is_streamed)
    }
}

impl Section {
    /// The columns that tell its rows apart.
    pub fn key_columns(&self) -> Vec<String> {
        self.key.clone()
    }

    /// Whether its rows come from the log: the publication and the slot are for these.
    pub fn is_streamed(&self) -> bool {
        self.read == ReadMode::Stream
    }

    /// How its result is compared, where it is read so.
    pub fn diff(&self) -> Option<&DiffMode> {
        match &self.read {
            ReadMode::Diff(diff) => Some(diff),
            ReadMode::Stream => None,
        }
    }

    /// The column of the field `date`, where one is mapped.
    pub fn date_column(&self) -> Option<&str> {
        self.fields.iter().find_map(|(name, field)| match field {
            Field::Column { column, .. } if name == "date" => Some(column.as_str()),
            Field::Column { .. } | Field::Constant(_) | Field::Object(_) => None,
        })
    }
}
