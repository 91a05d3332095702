//! A section as the state remembers it, so that a later file can be held against it. Pure.
//!
//! * In: a section.
//! * Out: its keys as texts: two are equal where nothing differs that `plan` tells of.
//! * Never: a secret; anything of the connection.

use serde::{Deserialize, Serialize};

use crate::config::Section;

/// What of a section can change without its table and key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Definition {
    pub fields: String,
    pub batch: String,
    pub flush: String,
    pub in_doubt: String,
}

impl Definition {
    pub fn of(section: &Section) -> Definition {
        let zone = section.timezone.as_ref().and_then(jiff::tz::TimeZone::iana_name).unwrap_or("UTC");
        let Section { kind, fields, date_receipt, .. } = section;
        Definition {
            fields: format!("{kind:?} {fields:?} date_receipt={date_receipt} {zone}"),
            batch: format!("{:?}", section.batch),
            flush: format!("{:?}", section.flush),
            in_doubt: format!("{:?}", section.in_doubt),
        }
    }
}
