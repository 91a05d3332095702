//! Retries and drops of quarantined rows, on a person's behalf.

use crate::model::{Fault, Phase, SectionName};
use crate::runtime::event_loop::RETRY;
use crate::state::{QuarantineFilter, QuarantineRow, Store};

/// Rows of one event: what a running instance holds at once.
const AT_ONCE: usize = 200;
/// Rows read at once.
const PAGE: u32 = 5000;

/// A retry, asked of the running instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RetryAsked {
    pub event: i64,
    pub section: String,
    pub rows: usize,
}

/// The rows of these ids (all that the filter lets through, where there are none), and ids that are not there.
pub(crate) async fn chosen(
    store: &Store,
    ids: &[i64],
    filter: &QuarantineFilter,
) -> Result<(Vec<QuarantineRow>, Vec<i64>), Fault> {
    if !ids.is_empty() {
        let there = store.quarantine_rows(ids).await.map_err(crate::operations::fate)?;
        let absent = ids.iter().filter(|id| !there.iter().any(|row| row.id == **id)).copied().collect();
        let fits = |row: &QuarantineRow| {
            filter.section.as_ref().is_none_or(|name| name.as_str() == row.section)
                && filter.reason.as_ref().is_none_or(|word| row.reason.starts_with(word))
        };
        return Ok((there.into_iter().filter(fits).collect(), absent));
    }
    let mut rows: Vec<QuarantineRow> = Vec::new();
    loop {
        let filter = QuarantineFilter { after_id: rows.last().map(|row| row.id), ..filter.clone() };
        let page = store.quarantine_list(&filter, PAGE).await.map_err(crate::operations::fate)?;
        let last = page.len() < PAGE as usize;
        rows.extend(page);
        if last {
            return Ok((rows, Vec::new()));
        }
    }
}

/// Asks the running instance to send these rows again.
pub(crate) async fn retry(store: &Store, rows: &[QuarantineRow]) -> Result<Vec<RetryAsked>, Fault> {
    ask(store, rows, Phase::Retry).await
}

/// The same; the phase is told for the record, and for the audit that follows a repair.
pub(crate) async fn ask(store: &Store, rows: &[QuarantineRow], phase: Phase) -> Result<Vec<RetryAsked>, Fault> {
    let mut names: Vec<&str> = rows.iter().map(|row| row.section.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut asked = Vec::new();
    for name in names {
        let ids: Vec<i64> = rows.iter().filter(|row| row.section == name).map(|row| row.id).collect();
        for ids in ids.chunks(AT_ONCE) {
            let mut args = serde_json::json!({ "ids": ids });
            if phase != Phase::Retry {
                args["phase"] = phase.as_str().into();
            }
            let request = crate::operations::event(RETRY, Some(&SectionName::from(name)), args);
            let event = store.append_event(&request).await.map_err(crate::operations::fate)?;
            asked.push(RetryAsked { event, section: name.to_owned(), rows: ids.len() });
        }
    }
    Ok(asked)
}

/// Drops these rows, and records it; how many were there.
pub(crate) async fn drop_rows(store: &Store, rows: &[QuarantineRow]) -> Result<u64, Fault> {
    let mut dropped = 0;
    for rows in rows.chunks(PAGE as usize) {
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        let keys: Vec<&str> = rows.iter().map(|row| row.key.as_str()).collect();
        let gone = store.quarantine_drop(&ids).await.map_err(crate::operations::fate)?;
        let args = serde_json::json!({ "ids": ids, "keys": keys });
        let done = crate::operations::event("quarantine_drop", None, args);
        store.record_event(&done, &format!("{gone} rows dropped")).await.map_err(crate::operations::fate)?;
        dropped += gone;
    }
    Ok(dropped)
}
