//! The logs as documents: what of the ledger a person may see, and whole logs as CSV.
//!
//! * In: rows of the ledger, events, lines.
//! * Out: JSON; files of CSV, which are read from the state part by part as the client takes them.
//! * Never: a file that ends before its log does: one that breaks off is an answer that broke off. A file that is held in
//!   memory whole.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use crate::state::{DeliveryFilter, DeliveryRow, StateError, Store};

/// A file is read from the state by parts of this many rows.
const PART: u32 = 2000;

/// Returns whether a key lies between a batch's first and last key. Numbers are compared as numbers.
pub(crate) fn holds(row: &DeliveryRow, key: &str) -> bool {
    let plain = |text: &str| text.replace(',', "").parse::<i128>();
    match (plain(&row.first_key), plain(&row.last_key), plain(key)) {
        (Ok(first), Ok(last), Ok(key)) => (first.min(last)..=first.max(last)).contains(&key),
        _ => row.first_key.as_str() <= key && key <= row.last_key.as_str(),
    }
}

/// Returns rows of the ledger as a document; without Planhat's answers for people who do not see rows.
pub(crate) fn withheld(sees: bool, rows: &[DeliveryRow]) -> serde_json::Value {
    let mut document = serde_json::json!(rows);
    if !sees {
        for row in document.as_array_mut().into_iter().flatten() {
            if row["error"] != "" {
                row["error"] = serde_json::json!("");
                row["withheld"] = serde_json::json!(true);
            }
        }
    }
    document
}

/// The log that a file holds.
pub(crate) enum LogFile {
    /// The batches that a filter selects, and that may hold this key, where one is given.
    Batches {
        filter: DeliveryFilter,
        key: String,
        sees: bool,
    },
    Events,
}

const EVENT_FIELDS: [&str; 8] = ["id", "at", "actor", "action", "section", "args", "handled_at", "result"];

impl LogFile {
    fn name(&self) -> &'static str {
        match self {
            LogFile::Batches { .. } => "batches.csv",
            LogFile::Events => "events.csv",
        }
    }

    fn fields(&self) -> &'static [&'static str] {
        match self {
            LogFile::Batches { .. } => &DeliveryRow::FIELDS,
            LogFile::Events => &EVENT_FIELDS,
        }
    }

    /// Returns the lines of the newest rows below an id, and the id below which to go on; `None` at the end.
    async fn part(&self, store: &Store, below: i64) -> Result<(String, Option<i64>), StateError> {
        let goes_on = |rows: usize, last: Option<i64>| last.filter(|_| rows >= PART as usize);
        match self {
            LogFile::Batches { filter, key, sees } => {
                let filter = DeliveryFilter { before_id: Some(below), ..filter.clone() };
                let mut rows = store.deliveries(&filter, PART).await?;
                let next = goes_on(rows.len(), rows.last().map(|row| row.id));
                rows.retain(|row| key.is_empty() || holds(row, key));
                Ok((lines(self.fields(), &withheld(*sees, &rows)), next))
            }
            LogFile::Events => {
                let rows = store.events_before(below, PART).await?;
                let next = goes_on(rows.len(), rows.last().map(|row| row.id));
                Ok((lines(self.fields(), &serde_json::json!(rows)), next))
            }
        }
    }

    /// Answers with the file, the newest row first.
    ///
    /// # Errors
    /// The state cannot be read. A failure behind the first part ends the answer in the middle, which a client sees.
    pub(crate) async fn download(self, store: Arc<Store>) -> Result<Response, StateError> {
        let (first, next) = self.part(&store, i64::MAX).await?;
        let (name, first) = (self.name(), csv(self.fields()) + &first);
        let parts = stream::try_unfold((self, store, Some(first), next), |(file, store, first, next)| async move {
            if let Some(text) = first {
                return Ok(Some((text, (file, store, None, next))));
            }
            let Some(below) = next else { return Ok(None) };
            let (text, next) = file.part(&store, below).await?;
            Ok::<_, StateError>(Some((text, (file, store, None, next))))
        });
        Ok(answer(name, Body::from_stream(parts)))
    }
}

/// Answers with a file of lines of the program's log.
pub(crate) fn program_file(lines: &[String]) -> Response {
    let text = csv(&["line"]) + &lines.iter().map(|line| csv(&[line])).collect::<String>();
    answer("program.csv", Body::from(text))
}

/// Returns the rows of a JSON list as lines of CSV. Null becomes an empty field.
fn lines(fields: &[&str], rows: &serde_json::Value) -> String {
    let cell = |value: &serde_json::Value| match value.as_str() {
        Some(text) => text.to_owned(),
        None if value.is_null() => String::new(),
        None => value.to_string(),
    };
    let mut text = String::new();
    for row in rows.as_array().into_iter().flatten() {
        let cells: Vec<String> = fields.iter().map(|field| cell(&row[*field])).collect();
        text += &csv(&cells.iter().map(String::as_str).collect::<Vec<_>>());
    }
    text
}

/// Returns one line of CSV by RFC 4180. A quote goes before what a spreadsheet would take for a formula.
fn csv(fields: &[&str]) -> String {
    let field = |text: &&str| {
        let formula = text.starts_with(['=', '+', '-', '@', '\t']) && text.parse::<f64>().is_err();
        let text = if formula { format!("'{text}") } else { (*text).to_owned() };
        if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
    };
    fields.iter().map(field).collect::<Vec<_>>().join(",") + "\r\n"
}

/// Answers with a file to save.
fn answer(name: &str, body: Body) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    ([(CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()), (CONTENT_DISPOSITION, disposition)], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_csv_is_no_formula() {
        assert_eq!(csv(&["-5", "=1+1", "a,\"b\""]), "-5,'=1+1,\"a,\"\"b\"\"\"\r\n");
    }
}
