//! The columns of a table when it was last seen to fit its section's mapping, held against those that an older row has. Pure.

use crate::model::Column;
use crate::postgres::catalog::table::TableInfo;

/// The columns of a table that fits a mapping.
#[derive(Default)]
pub(crate) struct FittedColumns {
    /// The names of all.
    present: Vec<String>,
    /// Those that the mapping reads.
    mapped: Vec<Column>,
}

impl FittedColumns {
    pub(crate) fn new(table: &TableInfo, mapped: &[Column]) -> FittedColumns {
        let present = table.columns.iter().map(|column| column.name.clone()).collect();
        FittedColumns { present, mapped: mapped.to_vec() }
    }

    /// The name that a mapped column may have had when a row with these columns was written, and its name now: the row lacks the
    /// one and has the other, of the same type, which the table has no more. A row that is merely older than a column has none
    /// that is gone.
    pub(crate) fn renamed<'a>(&'a self, older: &'a [Column]) -> Option<(&'a str, &'a str)> {
        let gone = |column: &&Column| !self.present.contains(&column.name);
        let lacks = |mapped: &&Column| older.iter().all(|column| column.name != mapped.name);
        self.mapped.iter().filter(lacks).find_map(|mapped| {
            let before = older.iter().filter(gone).find(|before| before.ty == mapped.ty)?;
            Some((before.name.as_str(), mapped.name.as_str()))
        })
    }
}
