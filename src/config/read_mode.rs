//! How a section's rows are read: from the log, or by comparing a result.
//!
//! * In: a decoded section.
//! * Out: [`ReadMode`], and what follows from it for sections and for the whole instance.
//! * Never: a key of one way read beside the other; the decoder refuses that.

use std::time::Duration;

use crate::config::{Config, Field, Flush, Section, Source};

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

/// Which versions of a row are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowVersions {
    /// The one that was inserted.
    Inserted,
    /// Each one that was committed.
    Committed,
}

impl Source {
    /// The publication of the tables whose updates are sent.
    pub fn update_publication(&self) -> String {
        let derived = || {
            let end = "_updates";
            let most = NAME_MAX - end.len();
            let cut = (0..=most).rev().find(|at| self.publication.is_char_boundary(*at)).unwrap_or_default();
            let stem = self.publication.get(..cut).unwrap_or(&self.publication);
            format!("{stem}{end}")
        };
        self.update_publication.clone().unwrap_or_else(derived)
    }
}

/// Bytes of a name in PostgreSQL, at most.
const NAME_MAX: usize = 63;

impl Config {
    /// Whether the updates of a table are sent.
    pub fn sends_updates(&self) -> bool {
        self.sections.iter().any(|section| section.is_on() && section.sends_updates())
    }

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

    /// Whether updated rows are sent too.
    pub fn sends_updates(&self) -> bool {
        self.on == Some(RowVersions::Committed)
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
