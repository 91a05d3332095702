//! What keeps a publication from bringing every row of a table, and what puts it right.
//!
//! * In: a publication as the catalog has it, and a table as it was attached.
//! * Out: [`Defect`]s, each one sentence with its remedy: the same for `check`, `setup`, the monitor and `repair`.
//! * Never: a defect of a table that was never attached and is not published yet: that one is only to be added.

use std::fmt;

use crate::config::TableName;
use crate::postgres::catalog::publication::{Publication, PublishedTable};
use crate::postgres::catalog::quote;

/// A table as it was attached, and what its name leads to now.
pub(crate) struct WatchedTable<'a> {
    /// Its name as configured.
    pub name: &'a TableName,
    /// The OID that was attached.
    pub oid: u32,
    /// The OID that the name has now.
    pub now: Option<u32>,
    /// Its entry in the publication when it was first seen there, where that is known.
    pub entry: Option<&'a str>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Defect {
    kind: DefectKind,
    publication: String,
    /// Quoted for SQL; empty where the whole publication is concerned.
    table: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DefectKind {
    NoInserts,
    NoUpdates,
    Replaced,
    Removed,
    RowFilter,
    ColumnList,
    PutBack,
}

/// What is wrong with a publication as a whole.
pub(crate) fn of_publication(publication: &Publication) -> Option<Defect> {
    let none = (!publication.insert).then_some(DefectKind::NoInserts)?;
    Some(Defect { kind: none, publication: publication.name.clone(), table: String::new() })
}

/// What is wrong with the publication of updates as a whole.
pub(crate) fn of_update_publication(publication: &Publication) -> Option<Defect> {
    let none = (!publication.insert || !publication.update).then_some(DefectKind::NoUpdates)?;
    Some(Defect { kind: none, publication: publication.name.clone(), table: String::new() })
}

/// What is wrong with a publication for one table that was attached.
pub(crate) fn defects(publication: &Publication, table: &WatchedTable<'_>) -> Vec<Defect> {
    let named = |kind| Defect { kind, publication: publication.name.clone(), table: quote::qualified(table.name) };
    if table.now.is_some_and(|now| now != table.oid) {
        return vec![named(DefectKind::Replaced)];
    }
    let Some(published) = publication.tables.iter().find(|published| published.oid == table.oid) else {
        return vec![named(DefectKind::Removed)];
    };
    let mut found = narrowed(publication, published);
    if table.entry.is_some_and(|entry| published.entry.as_deref().is_some_and(|now| now != entry)) {
        found.push(named(DefectKind::PutBack));
    }
    found
}

/// What a publication leaves out of a table that it carries.
pub(crate) fn narrowed(publication: &Publication, table: &PublishedTable) -> Vec<Defect> {
    let kinds = [(table.filter, DefectKind::RowFilter), (table.column_list, DefectKind::ColumnList)];
    let there = kinds.into_iter().filter(|(is_there, _)| *is_there);
    let table = quote::qualified(&table.name);
    there.map(|(_, kind)| Defect { kind, publication: publication.name.clone(), table: table.clone() }).collect()
}

impl Defect {
    /// The word of `check`.
    pub(crate) fn code(&self) -> &'static str {
        match self.kind {
            DefectKind::NoInserts => "publication_insert",
            DefectKind::NoUpdates => "publication_update",
            DefectKind::RowFilter => "publication_filter",
            DefectKind::ColumnList => "publication_columns",
            DefectKind::Replaced | DefectKind::Removed | DefectKind::PutBack => "publication_drift",
        }
    }

    /// The SQL that puts the publication right, where it takes SQL.
    pub(crate) fn sql(&self) -> Option<String> {
        let (publication, table) = (quote::ident(&self.publication), &self.table);
        match self.kind {
            DefectKind::NoInserts => Some(format!("ALTER PUBLICATION {publication} SET (publish = 'insert');")),
            DefectKind::NoUpdates => Some(format!("ALTER PUBLICATION {publication} SET (publish = 'insert, update');")),
            DefectKind::RowFilter | DefectKind::ColumnList => Some(format!(
                "ALTER PUBLICATION {publication} DROP TABLE {table}; ALTER PUBLICATION {publication} ADD TABLE {table};"
            )),
            DefectKind::Replaced | DefectKind::Removed | DefectKind::PutBack => None,
        }
    }

    /// What to do where the table was attached already: rows were skipped since, so putting it right is not enough.
    pub(crate) fn remedy(&self) -> String {
        let repair =
            "pg2planhat repair --gap (puts the table back, and reads again what was skipped), or --accept-loss";
        match self.sql() {
            Some(sql) => format!("{sql} then {repair}"),
            None => repair.to_owned(),
        }
    }
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Defect { kind, publication, table } = self;
        match kind {
            DefectKind::NoInserts => {
                write!(f, "the publication {publication} does not publish inserts, so no row comes")
            }
            DefectKind::NoUpdates => {
                write!(
                    f,
                    "the publication {publication} does not publish inserts and updates, so versions of rows are left out"
                )
            }
            DefectKind::Replaced => write!(f, "{table} was dropped and re-created, or replaced by a rename"),
            DefectKind::Removed => write!(f, "{table} is no longer in the publication {publication}"),
            DefectKind::RowFilter => {
                write!(f, "the publication {publication} has a row filter on {table}, so rows are left out")
            }
            DefectKind::ColumnList => {
                write!(f, "the publication {publication} has a column list on {table}, so columns are left out")
            }
            DefectKind::PutBack => write!(f, "{table} was taken out of the publication {publication} and put back"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(change: impl FnOnce(&mut PublishedTable)) -> Publication {
        let mut table = PublishedTable {
            name: name(),
            oid: 7,
            filter: false,
            column_list: false,
            entry: Some("table 70/700".to_owned()),
        };
        change(&mut table);
        Publication {
            name: "p".to_owned(),
            oid: 1,
            version: "700".to_owned(),
            insert: true,
            update: false,
            removals: false,
            via_root: true,
            generated: false,
            tables: vec![table],
        }
    }

    fn name() -> TableName {
        TableName { schema: "public".to_owned(), name: "t".to_owned() }
    }

    fn said(publication: &Publication, now: Option<u32>, entry: Option<&str>) -> Vec<String> {
        let found = defects(publication, &WatchedTable { name: &name(), oid: 7, now, entry });
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_defect_of_a_table_is_one_sentence() {
        let fine = publication(|_| ());
        assert_eq!(said(&fine, Some(7), Some("table 70/700")), [""; 0]);
        assert_eq!(said(&fine, None, None), [""; 0], "renamed, and published all the same");
        assert!(said(&fine, Some(8), None)[0].contains("replaced by a rename"));
        assert!(said(&fine, Some(7), Some("table 70/699"))[0].contains("put back"));
        assert!(said(&publication(|table| table.oid = 9), Some(7), None)[0].contains("no longer in the publication p"));
        let both = publication(|table| (table.filter, table.column_list) = (true, true));
        let both = said(&both, Some(7), None);
        assert!(both[0].contains("row filter on \"public\".\"t\"") && both[1].contains("column list"), "{both:?}");
        assert_eq!(of_publication(&fine), None);
        let none = Publication { insert: false, ..fine };
        assert!(
            of_publication(&none).unwrap().remedy().starts_with("ALTER PUBLICATION \"p\" SET (publish = 'insert');")
        );
    }
}
