//! A table locked before its rows are read.
//!
//! * In: a table, the columns that are read, how it is locked.
//! * Out: an open transaction, and the columns' types in it.
//! * Never: a snapshot that is older than the lock, where rows are read behind it.

use tokio_postgres::{Client, Error, SimpleQueryMessage};

use crate::model::{Column, Lsn};
use crate::postgres::catalog::key_columns::KeyColumns;
use crate::postgres::catalog::quote;

/// How the locks of a table are taken before its rows are read. A statement that reads takes its snapshot before it waits for
/// a lock: behind a rewrite of the table (`ALTER TABLE … ALTER COLUMN … TYPE`) it would see nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableLock {
    /// `LOCK TABLE`, which takes no snapshot: that of the first statement behind it is the whole transaction's. It wants SELECT
    /// on the table.
    ByName,
    /// A statement that reads no row of it; each one behind it has a snapshot of its own. SELECT on the key will do.
    ByReading,
}

/// A table in the transaction that holds its locks.
#[derive(Debug, Default)]
pub(crate) struct LockedTable {
    /// The types of the columns that are read, in their order.
    pub oids: Vec<u32>,
    names: Vec<String>,
    /// Behind all that the transaction's snapshot shows, where it has only one.
    pub snapshot_at: Option<Lsn>,
    /// As far as was asked, the table of this name is the one that it should be.
    pub is_same: bool,
}

/// Separates names of types: they have commas.
const BETWEEN: char = '\u{1f}';

impl LockedTable {
    fn of(answer: &[SimpleQueryMessage]) -> LockedTable {
        let row =
            answer.iter().find_map(|message| if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None });
        let Some(row) = row else { return LockedTable::default() };
        let column = |index| row.try_get(index).ok().flatten().unwrap_or_default();
        LockedTable {
            oids: column(0).split(',').map(|oid| oid.parse().unwrap_or_default()).collect(),
            names: column(1).split(BETWEEN).map(ToOwned::to_owned).collect(),
            snapshot_at: column(2).parse().ok(),
            is_same: column(3) != "f",
        }
    }

    /// Whether one of the columns at these places had another type, or another length of it.
    pub(crate) fn differ(&self, places: &[usize], before: &[String]) -> bool {
        let now = places.iter().map(|place| self.names.get(*place));
        now.zip(before).any(|(now, before)| !before.is_empty() && now.is_none_or(|now| now != before))
    }
}

/// Begins a transaction that holds the locks of the table and of its partitions. `from` is the table as `t`, `table` what it is
/// without that name, and its OID.
pub(crate) async fn lock(
    client: &Client,
    how: TableLock,
    key: &KeyColumns,
    (from, (table, oid)): (&str, &(String, u32)),
    columns: &[Column],
) -> Result<LockedTable, Error> {
    let names: Vec<String> = columns.iter().map(|column| quote::literal(&column.name)).collect();
    let (lock, more) = match how {
        TableLock::ByName => (
            format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE {table} IN ACCESS SHARE MODE"),
            format!(
                ", pg_catalog.pg_current_wal_insert_lsn(), pg_catalog.to_regclass({}) = {oid}::oid",
                quote::literal(table.trim_start_matches("ONLY "))
            ),
        ),
        TableLock::ByReading => (
            format!("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SELECT {} FROM {from} LIMIT 0", key.list()),
            String::new(),
        ),
    };
    let sql = format!(
        "{lock};
         SELECT pg_catalog.string_agg(coalesce(a.atttypid, 0)::text, ',' ORDER BY n.place),
             pg_catalog.string_agg(coalesce(pg_catalog.format_type(a.atttypid, a.atttypmod), ''), chr(31) ORDER BY n.place)
             {more}
         FROM unnest(ARRAY[{}]::text[]) WITH ORDINALITY AS n (name, place)
         LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = {oid} AND a.attname = n.name",
        names.join(", "),
    );
    Ok(LockedTable::of(&client.simple_query(&sql).await?))
}
