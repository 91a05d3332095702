//! A section as the state remembers it, so that a later file can be held against it. Pure.
//!
//! * In: a section.
//! * Out: its keys as texts: two are equal where nothing differs that `plan` tells of.
//! * Never: a secret; anything of the connection.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{BatchLimits, Flush, InDoubt, Kind, OnNull, Section, Start, Sync, TableName};

/// What of a section can change without its table and key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Definition {
    pub fields: String,
    pub batch: String,
    pub flush: String,
    pub in_doubt: String,
    /// Everything else; absent where it was recorded by a version before it.
    #[serde(default)]
    pub rest: String,
    /// The rules that leave rows out; absent where it was recorded by a version before it, `none` where there are none.
    #[serde(default)]
    pub rules: String,
}

/// The rules of a section that leaves no row out.
pub(crate) const NO_RULES: &str = "none";

impl Definition {
    pub fn of(section: &Section) -> Definition {
        let zone = section.timezone.as_ref().and_then(jiff::tz::TimeZone::iana_name).unwrap_or("UTC");
        let Section { kind, fields, date_receipt, batch, flush, in_doubt, .. } = section;
        Definition {
            fields: format!("{kind:?} {fields:?} date_receipt={date_receipt} {zone}"),
            batch: format!("{batch:?}"),
            flush: format!("{flush:?}"),
            in_doubt: format!("{in_doubt:?}"),
            rest: format!("{:?}", rest(section)),
            rules: rules(section),
        }
    }
}

/// Which rows are left out. Under `on_null: skip` that is a matter of the fields, too.
fn rules(section: &Section) -> String {
    let Section { conditions, on_null, fields, .. } = section;
    match (conditions.is_empty(), on_null) {
        (true, OnNull::Quarantine) => NO_RULES.to_owned(),
        (false, OnNull::Quarantine) => format!("{conditions:?}"),
        (_, OnNull::Skip) => format!("{conditions:?} {fields:?}"),
    }
}

/// The section without what has a place of its own.
fn rest(section: &Section) -> Section {
    Section {
        name: "".into(),
        kind: Kind::UserActivity,
        sync: Sync::Receive,
        table: TableName { schema: String::new(), name: String::new() },
        key: Vec::new(),
        start: Start::Backfill,
        batch: BatchLimits { rows: 0, bytes: 0, in_flight: 0 },
        flush: Flush::Every(Duration::ZERO),
        in_doubt: InDoubt::default(),
        fields: Vec::new(),
        date_receipt: false,
        timezone: None,
        ..section.clone()
    }
}

/// Whether two sections of one name are written differently.
pub(crate) fn differs(one: &Section, other: &Section) -> bool {
    format!("{one:?}") != format!("{other:?}")
}
