//! Keys as the stream brought them before the type of a key's column was changed beside a backfill.
//!
//! * In: the types that the columns had when the section was attached, and those that they have now.
//! * Out: for each row of a chunk whose key is printed otherwise now, its key as it was printed then.
//! * Never: a row that the stream brought taken for another, because `2024-01-01 00:00:00` is `2024-01-01 00:00:00+00` now.

use std::collections::HashMap;

use tokio_postgres::{Client, Error, SimpleQueryMessage};

use crate::model::{Column, Key};
use crate::postgres::catalog::key_columns::KeyColumns;
use crate::postgres::catalog::quote;

/// Key → the key as it was printed before.
pub(crate) type FormerKeys = HashMap<String, String>;

/// The types of the columns that a chunk reads, in their order, in the transaction that reads it.
#[derive(Debug, Default)]
pub(crate) struct TypesNow {
    pub oids: Vec<u32>,
    names: Vec<String>,
}

/// Separates names of types: they have commas.
const BETWEEN: char = '\u{1f}';

impl TypesNow {
    /// Reads the answer.
    fn of(answer: &[SimpleQueryMessage]) -> TypesNow {
        let row =
            answer.iter().find_map(|message| if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None });
        let Some(row) = row else { return TypesNow::default() };
        let column = |index| row.get(index).unwrap_or_default();
        TypesNow {
            oids: column(0).split(',').map(|oid| oid.parse().unwrap_or_default()).collect(),
            names: column(1).split(BETWEEN).map(ToOwned::to_owned).collect(),
        }
    }

    /// Whether one of the columns at these places had another type, or another length of it.
    pub(crate) fn differ(&self, places: &[usize], before: &[String]) -> bool {
        let now = places.iter().map(|place| self.names.get(*place));
        now.zip(before).any(|(now, before)| !before.is_empty() && now.is_none_or(|now| now != before))
    }
}

/// Begins a transaction that holds the locks of the table and of its partitions; the types of the columns from here on.
pub(crate) async fn lock(
    client: &Client,
    key: &KeyColumns,
    (from, oid): (&str, u32),
    columns: &[Column],
) -> Result<TypesNow, Error> {
    let names: Vec<String> = columns.iter().map(|column| quote::literal(&column.name)).collect();
    let sql = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SELECT {} FROM {from} LIMIT 0;
         SELECT pg_catalog.string_agg(coalesce(a.atttypid, 0)::text, ',' ORDER BY n.place),
             pg_catalog.string_agg(coalesce(pg_catalog.format_type(a.atttypid, a.atttypmod), ''), chr(31) ORDER BY n.place)
         FROM unnest(ARRAY[{}]::text[]) WITH ORDINALITY AS n (name, place)
         LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = {oid} AND a.attname = n.name",
        key.list(),
        names.join(", "),
    );
    Ok(TypesNow::of(&client.simple_query(&sql).await?))
}

/// The former keys of the rows that `from` and `range` (SQL over `t`) lead to, where they differ.
pub(crate) async fn read(
    client: &Client,
    key: &KeyColumns,
    before: &[String],
    (from, range): (&str, &str),
) -> Result<FormerKeys, Error> {
    let sql = format!("SELECT {}, {} FROM {from} WHERE {range}", key.printed(), key.printed_as(before));
    let rows = client.query(&sql, &[]).await?;
    let text = |row: &tokio_postgres::Row, index| Key::of_parts(&row.get::<_, Vec<String>>(index)).to_string();
    let keys = rows.iter().map(|row| (text(row, 0), text(row, 1)));
    Ok(keys.filter(|(now, then)| now != then).collect())
}
