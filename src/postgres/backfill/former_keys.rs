//! Keys as the stream brought them before the type of a key's column was changed beside a backfill.
//!
//! * In: the types that the columns had when the section was attached, and those that they have now.
//! * Out: for each row of a chunk whose key is printed otherwise now, its key as it was printed then.
//! * Never: a row that the stream brought taken for another, because `2024-01-01 00:00:00` is `2024-01-01 00:00:00+00` now.

use std::collections::HashMap;

use tokio_postgres::{Client, Error};

use crate::model::Key;
use crate::postgres::catalog::key_columns::KeyColumns;
use crate::sql;

/// Key → the key as it was printed before.
pub(crate) type FormerKeys = HashMap<String, String>;

/// The former keys of the rows that `from` and `range` (SQL over `t`) lead to, where they differ.
pub(crate) async fn read(
    client: &Client,
    key: &KeyColumns,
    before: &[String],
    (from, range): (&str, &str),
) -> Result<FormerKeys, Error> {
    let sql = format!("SELECT {}, {} FROM {from} WHERE {range}", key.printed(), key.printed_as(before));
    let rows = sql::query(client, &sql, &[]).await?;
    let text = |row: &tokio_postgres::Row, index| Key::of_parts(&row.get::<_, Vec<String>>(index)).to_string();
    let keys = rows.iter().map(|row| (text(row, 0), text(row, 1)));
    Ok(keys.filter(|(now, then)| now != then).collect())
}
