//! The name of a table, as the configuration gives it.
//!
//! * In: a schema and a name, unquoted.
//! * Out: [`TableName`].
//! * Never: a quoted identifier; quoting is the business of generated SQL.

use std::fmt;

/// A table's name, exactly as the catalog has it; empty where a section reads a query.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// Its schema (the source's default where the file gave none).
    pub schema: String,
    pub name: String,
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            return f.write_str("(query)");
        }
        write!(f, "{}.{}", self.schema, self.name)
    }
}
