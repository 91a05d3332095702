//! Whether a result is the same when it is read twice: `now()`, `random()` or an order that is not said make another one each
//! time, though nothing was written.
//!
//! * In: a section whose result is compared.
//! * Out: the columns whose values differ between two reads of one snapshot.
//! * Never: a row that somebody changed taken for one: both reads see the same snapshot.

use std::time::Duration;

use crate::config::{Kind, Section, Source};
use crate::model::{Column, Fault, Rows, Value};
use crate::postgres::backfill::result_reader;
use crate::postgres::backfill::selection::Selection;
use crate::postgres::catalog::result;
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::connection::session::{Session, connect_sql};
use crate::sql;

/// Rows that are read twice.
const SAMPLE: u32 = 100;

/// What lies between the two reads: a time that is cut to seconds differs, too.
const APART: Duration = Duration::from_millis(1_100);

/// The columns (the key's, or mapped ones) that are others in more than half of the rows when they are read again. What cannot be
/// found out counts as the same: the comparison itself says what fails.
pub(crate) async fn unsteady(
    source: &Source,
    section: &Section,
    session: &Session,
    table: &TableInfo,
    columns: &[Column],
) -> Vec<String> {
    // What is stored is the same however often it is read; what is on another server has no snapshot of ours.
    if matches!(table.kind, 'r' | 'p' | 'm' | 'f') {
        return Vec::new();
    }
    let selection = Selection::new(section, table, columns);
    match read_twice(source, section, session, &selection).await {
        Ok(Some((first, again))) => differing(section, &selection, columns, (&first, &again)),
        Ok(None) => Vec::new(),
        Err(error) => {
            tracing::debug!(section = %section.name, %error, "the result was not read twice");
            Vec::new()
        }
    }
}

/// What such columns mean for a section, and whether that is an error: where rows are counted by Planhat, or nothing tells them
/// apart. A metric may show how things stand at each comparison, on purpose. `None`: nothing is sent again for it.
pub(crate) fn judged(section: &Section, columns: &[String]) -> Option<(Fault, bool)> {
    let is_key = columns.iter().any(|column| section.key.contains(column));
    let sends_changed = section.diff().is_some_and(|diff| diff.send_changed);
    if columns.is_empty() || !is_key && !sends_changed {
        return None;
    }
    let (name, named) = (&section.name, columns.join(", "));
    let fault = Fault::usage(
        format!(
            "section {name}: its result is never the same twice: {named} of most rows is another when it is read again, though \
             nothing was written; each comparison sends them again"
        ),
        format!(
            "take what changes by itself out of {named}: now(), random(), an aggregate without ORDER BY, row_number() without \
             one, digits beyond those that a sum of doubles has; or map other columns, or `send: new`"
        ),
    );
    Some((fault, is_key || counts(section)))
}

/// Whether each item of a section counts by itself.
pub(crate) fn counts(section: &Section) -> bool {
    section.kind == Kind::UserActivity
}

async fn read_twice(
    source: &Source,
    section: &Section,
    session: &Session,
    selection: &Selection,
) -> Result<Option<(Rows, Rows)>, tokio_postgres::Error> {
    session.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let read = async {
        let snapshot: String = sql::query_one(session, "SELECT pg_catalog.pg_export_snapshot()", &[]).await?.get(0);
        let first = selection.read_end(session, true, SAMPLE).await?;
        let keys = first.iter().map(|row| String::from_utf8_lossy(&selection.key_text(&row)).into_owned());
        let keys: Vec<String> = keys.collect();
        let Ok(other) = connect_sql(source, "diff").await else { return Ok(None) };
        if keys.is_empty() {
            return Ok(None);
        }
        result_reader::settle(&other).await?;
        result::describe(&other, section, &source.schema).await?;
        tokio::time::sleep(APART).await;
        let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{snapshot}'");
        other.batch_execute(&begin).await?;
        Ok(Some((first, selection.read_keys(&other, &keys).await?)))
    };
    let read = read.await;
    session.batch_execute("ROLLBACK").await?;
    read
}

fn differing(
    section: &Section,
    selection: &Selection,
    columns: &[Column],
    (first, again): (&Rows, &Rows),
) -> Vec<String> {
    let (mut lost, mut others, mut count) = (0, vec![0; columns.len()], 0);
    for row in first.iter() {
        count += 1;
        let key = selection.key_text(&row);
        let Some(same) = again.iter().find(|other| selection.key_text(other) == key) else {
            lost += 1;
            continue;
        };
        for (at, others) in others.iter_mut().enumerate() {
            *others += usize::from(!alike(row.get(at), same.get(at)));
        }
    }
    let most = |others: usize| others * 2 > count;
    if most(lost) {
        return section.key_columns();
    }
    let named = columns.iter().zip(&others).filter(|(_, others)| most(**others));
    named.map(|(column, _)| column.name.clone()).collect()
}

fn alike(one: Value<'_>, other: Value<'_>) -> bool {
    match (one, other) {
        (Value::Text(one), Value::Text(other)) => one == other,
        (Value::Null, Value::Null) | (Value::Oversize | Value::Unknown, _) | (_, Value::Oversize | Value::Unknown) => {
            true
        }
        (Value::Text(_), Value::Null) | (Value::Null, Value::Text(_)) => false,
    }
}
