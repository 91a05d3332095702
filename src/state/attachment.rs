//! What a section is attached to, as the state keeps it. Pure.

use serde::{Deserialize, Serialize};

use crate::config::{Kind, TableName};
use crate::model::Lsn;

/// A mapped column as it was when the section attached: what drift is measured against.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MappedColumn {
    /// Its name, as the catalog has it.
    pub name: String,
    /// Its type, as `format_type` shows it.
    #[serde(rename = "type")]
    pub ty: String,
}

/// What a section is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attachment {
    /// The table's OID: it follows the table through renames.
    pub table_oid: u32,
    /// The table's name, as people write it.
    pub table_name: String,
    /// `user_activity` or `custom_metric`.
    pub kind: String,
    /// The moment from which the stream carries the section's inserts; `None` while it waits.
    pub attach_lsn: Option<Lsn>,
    pub columns: Vec<MappedColumn>,
}

impl Attachment {
    /// That of a section which waits to be attached.
    pub(crate) fn none_yet(table: &TableName, kind: Kind) -> Attachment {
        Attachment {
            table_oid: 0,
            table_name: table.to_string(),
            kind: kind.as_str().to_owned(),
            attach_lsn: None,
            columns: Vec::new(),
        }
    }
}

/// The mapped columns as the state keeps them.
pub(crate) fn columns_json(columns: &[MappedColumn]) -> String {
    serde_json::json!(columns).to_string()
}
