//! Why a section's fields do not fit a table's columns: what `check` finds, and what halts a section.

use std::fmt;

use crate::config::TableName;
use crate::model::{Column, SectionName, Type};

/// One reason why a section cannot be mapped. Its `Display` form says what is wrong, [`MappingFault::remedy`] what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingFault {
    pub section: SectionName,
    pub table: TableName,
    /// The field as configured (`value`, `info.plan`), or `key`.
    pub field: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field or the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The table, as this program is shown it, has no such column.
    UnknownColumn {
        /// What was configured.
        column: String,
        /// The column that was probably meant.
        nearest: Option<String>,
    },
    /// No value of the column's type could ever fit.
    ColumnType {
        column: String,
        /// Its type, in words.
        ty: &'static str,
        /// What would fit.
        wanted: &'static str,
    },
    /// The constant (or default) does not fit.
    Constant {
        /// The constant as written.
        constant: String,
        /// What would fit.
        wanted: &'static str,
    },
    /// A nested map stands where a single value is wanted.
    Nested {
        /// What would fit.
        wanted: &'static str,
    },
    /// Two members of one object would have this name.
    Twice {
        /// The name in the item.
        name: String,
    },
    /// The kind of item demands this field.
    Missing,
    /// No key is configured, and the table has no primary key.
    NoKey,
}

impl MappingFault {
    /// Whether a column is missing.
    pub(crate) fn is_unknown_column(&self) -> bool {
        matches!(self.problem, Problem::UnknownColumn { .. })
    }

    /// A word for `check`'s findings.
    pub fn code(&self) -> &'static str {
        match self.problem {
            Problem::UnknownColumn { .. } => "column_unknown",
            Problem::ColumnType { .. } => "column_type",
            Problem::Constant { .. } => "constant_type",
            Problem::Nested { .. } => "field_nested",
            Problem::Twice { .. } => "field_twice",
            Problem::Missing => "field_missing",
            Problem::NoKey => "key_missing",
        }
    }

    pub fn remedy(&self) -> String {
        let MappingFault { section, table, field, problem } = self;
        match problem {
            Problem::UnknownColumn { column, nearest: Some(nearest) } => {
                let case = if nearest.eq_ignore_ascii_case(column) { " (upper and lower case differ)" } else { "" };
                format!("in section {section}, write `{nearest}` instead of `{column}`{case}")
            }
            Problem::UnknownColumn { nearest: None, .. } => format!(
                "in section {section}, set {field} to a column that `pg2planhat discover {}.{}` lists; generated columns \
                 come by the stream from PostgreSQL 18 on only",
                table.schema, table.name
            ),
            Problem::ColumnType { wanted, .. } | Problem::Nested { wanted } | Problem::Constant { wanted, .. } => {
                format!("in section {section}, set {field} to {wanted}")
            }
            Problem::Twice { name } => format!("in section {section}, map `{name}` once"),
            Problem::Missing => format!("in section {section}, under fields, map {field}"),
            Problem::NoKey => format!(
                "in section {section}, set key to the columns of a unique index; or, without `key:`, give the table a primary key"
            ),
        }
    }
}

impl fmt::Display for MappingFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MappingFault { section, table, field, problem } = self;
        write!(f, "section {section}, {field}: ")?;
        match problem {
            Problem::UnknownColumn { column, .. } => {
                write!(f, "table {}.{} has no column `{column}`", table.schema, table.name)
            }
            Problem::ColumnType { column, ty, .. } => write!(f, "column `{column}` is of type {ty}, which never fits"),
            Problem::Constant { constant, .. } => write!(f, "the constant `{constant}` does not fit"),
            Problem::Nested { .. } => f.write_str("a nested map does not fit here"),
            Problem::Twice { name } => write!(f, "the item would have `{name}` twice"),
            Problem::Missing => f.write_str("mandatory, and not mapped"),
            Problem::NoKey => {
                write!(f, "table {}.{} has no primary key, and no other key is set", table.schema, table.name)
            }
        }
    }
}

impl std::error::Error for MappingFault {}

/// A type, for people.
pub(crate) fn words(ty: Type) -> &'static str {
    match ty {
        Type::Bool => "boolean",
        Type::Int => "integer",
        Type::Float => "float",
        Type::Numeric => "numeric",
        Type::Timestamp => "timestamp",
        Type::TimestampTz => "timestamptz",
        Type::Date => "date",
        Type::Json => "json",
        Type::Char => "char(n)",
        Type::Text => "text (or another that is sent as text)",
    }
}

/// The column that was probably meant.
pub(crate) fn nearest<'c>(name: &str, columns: &'c [Column]) -> Option<&'c str> {
    crate::model::nearest::nearest(name, columns.iter().map(|column| column.name.as_str()))
}
