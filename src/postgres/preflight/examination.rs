//! What an examination of the source brings to light.
//!
//! * In: findings and columns, as each check finds them.
//! * Out: [`Examination`].
//! * Never: a judgement of its own.

use crate::config::table_name::TableName;
use crate::model::fault::Finding;
use crate::model::row::{Column, SectionName};
use std::collections::BTreeMap;
#[derive(Debug, Default)]
pub(crate) struct Examination {
    /// Findings, in the order of looking.
    pub findings: Vec<Finding>,
    /// The columns of each table that is there, as rows bring them.
    pub columns: BTreeMap<TableName, Vec<Column>>,
    /// The primary key of each table that is there: a section's key where none is written.
    pub primary_keys: BTreeMap<TableName, Vec<String>>,
    /// The columns of the result of each section that is compared.
    pub results: BTreeMap<SectionName, Vec<Column>>,
    /// The role that is connected, where it could.
    pub role: Option<String>,
}
