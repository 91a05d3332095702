//! Keys that are printed in another way than when their rows were delivered: the type of a key's column was altered
//! (`numeric` to `numeric(12, 2)`: `1` is `1.00` now), or a value of an enum was renamed.
//!
//! * In: the section's attachment, its table as it is now.
//! * Out: which rows that concerns.
//! * Never: a row that came behind the change, as far as its transaction tells.

use crate::config::Section;
use crate::model::{Fault, Key};
use crate::postgres::backfill::key_reader::RowSeen;
use crate::postgres::catalog::xmin_barrier::is_below;
use crate::postgres::connection::session::Session;
use crate::sql;
use crate::state::SectionRow;

/// What was changed since the section attached.
#[derive(Debug)]
pub(crate) struct Reprinted {
    /// The last transaction that altered a column of the key, where its type is another now.
    altered: Option<u32>,
    /// Values of the key's enums that were renamed or added, each with its transaction.
    values: Vec<(String, u32)>,
    /// Columns of the key.
    width: usize,
}

const COLUMNS: &str = "SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.xmin::text
    FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1 AND a.attname = ANY ($2) ORDER BY pg_catalog.age(a.xmin)";

const VALUES: &str = "SELECT DISTINCT e.enumlabel::text, e.xmin::text
    FROM pg_catalog.pg_attribute a
        JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
        JOIN pg_catalog.pg_enum e ON e.enumtypid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END
    WHERE a.attrelid = $1 AND a.attname = ANY ($2)";

impl Reprinted {
    /// Looks for such changes. `attached`: transactions from this one on (64 bits) began behind the attachment; where nobody knows
    /// that, renamed values cannot be told.
    pub(crate) async fn find(
        session: &Session,
        section: &Section,
        row: &SectionRow,
        attached: Option<u64>,
    ) -> Result<Option<Reprinted>, Fault> {
        let fault = |error: tokio_postgres::Error| session.fault(&error);
        let (table, key) = (row.attachment.table_oid, &section.key);
        let columns = sql::query(session, COLUMNS, &[&table, key]).await.map_err(fault)?;
        let xmin = |text: &str| text.parse().unwrap_or(u32::MAX);
        let is_altered = |column: &&tokio_postgres::Row| {
            let (name, now): (&str, &str) = (column.get(0), column.get(1));
            let before = row.attachment.columns.iter().find(|before| before.name == name);
            before.is_some_and(|before| !prints_alike(&before.ty, now))
        };
        let altered = columns.iter().find(is_altered).map(|column| xmin(column.get(2)));
        let values = match attached {
            Some(_) => sql::query(session, VALUES, &[&table, key]).await.map_err(fault)?,
            None => Vec::new(),
        };
        let values = values.iter().map(|value| (value.get(0), xmin(value.get(1))));
        let values: Vec<(String, u32)> = values.filter(|(_, xmin)| !is_below(*xmin, attached)).collect();
        let found = altered.is_some() || !values.is_empty();
        Ok(found.then_some(Reprinted { altered, values, width: key.len() }))
    }

    /// Whether a row may be from before the change. `updated`: rows were written again, so that their transactions do not tell.
    pub(crate) fn concerns(&self, row: &RowSeen, updated: bool) -> bool {
        let is_before = |change: u32| updated || !is_below(change, Some(u64::from(row.xmin)));
        if self.altered.is_some_and(is_before) {
            return true;
        }
        let parts = Key::new(row.key.as_str()).parts(self.width).unwrap_or_default();
        self.values.iter().any(|(value, change)| parts.contains(value) && is_before(*change))
    }
}

/// Whether each value of one type is printed as it would be in the other.
fn prints_alike(before: &str, now: &str) -> bool {
    let is_integer = |ty: &str| matches!(ty, "smallint" | "integer" | "bigint");
    let is_text = |ty: &str| ty == "text" || ty.starts_with("character varying");
    before == now || before.is_empty() || is_integer(before) && is_integer(now) || is_text(before) && is_text(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_behind_a_change_is_not_concerned() {
        let row = |key: &str, xmin| RowSeen { key: key.into(), xmin };
        let altered = Reprinted { altered: Some(100), values: Vec::new(), width: 1 };
        assert!(altered.concerns(&row("1.00", 99), false) && altered.concerns(&row("1.00", 100), false));
        assert!(!altered.concerns(&row("1.00", 101), false) && altered.concerns(&row("1.00", 101), true));
        let renamed = Reprinted { altered: None, values: vec![("lower".into(), 100)], width: 2 };
        assert!(renamed.concerns(&row("lower,1", 99), false) && !renamed.concerns(&row("lower,1", 101), false));
        assert!(!renamed.concerns(&row("high,1", 99), false));
    }

    #[test]
    fn types_that_print_the_same_are_one() {
        assert!(prints_alike("integer", "bigint") && prints_alike("character varying(10)", "text"));
        assert!(!prints_alike("numeric", "numeric(12,2)") && !prints_alike("character(6)", "character(9)"));
    }
}
