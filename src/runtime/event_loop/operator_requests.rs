//! What operators ask of the running instance, and how quarantined rows are read again for it.
//!
//! * In: events of the state that nobody has handled, told again by the monitor until their handling is durable.
//! * Out: which of them were taken up; rows of the quarantine, read again from the table.
//! * Never: an event obeyed twice by one process.

use std::collections::{HashMap, HashSet};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::Source;
use crate::model::{Fault, Row, Rows, SectionId, SectionName, Value};
use crate::postgres::backfill::chunk_reader;
use crate::postgres::connection::session::connect_sql;
use crate::runtime::event_loop::section_runtime::TableReading;
use crate::runtime::monitor_event::{MonitorEvent, ReadAgain, RowsRead};
use crate::runtime::state_connector::StateConnector;
use crate::state::QuarantineItem;

/// Deliver a section again: `{"from": KEY | null}`.
pub(crate) const RESYNC: &str = "resync";
/// Send rows of the quarantine again: `{"ids": […]}`, of one section.
pub(crate) const RETRY: &str = "quarantine_retry";

/// Operators' requests that were taken up.
#[derive(Debug)]
pub(crate) struct OperatorRequests {
    /// Never pruned: operators' requests are rare, and forgetting one would run it twice.
    taken: HashSet<i64>,
    /// Where the rows that were read for a request come back.
    events: mpsc::Sender<MonitorEvent>,
}

/// Quarantined rows to read again.
pub(crate) struct RowsToRead {
    pub(crate) section: SectionId,
    pub(crate) name: SectionName,
    pub(crate) event: i64,
    pub(crate) ids: Vec<i64>,
    pub(crate) reading: TableReading,
}

impl OperatorRequests {
    pub(crate) fn new(events: mpsc::Sender<MonitorEvent>) -> OperatorRequests {
        OperatorRequests { taken: HashSet::new(), events }
    }

    pub(crate) fn is_taken(&self, event: i64) -> bool {
        self.taken.contains(&event)
    }

    pub(crate) fn take(&mut self, event: i64) {
        self.taken.insert(event);
    }

    /// The monitor will tell of it again.
    pub(crate) fn give_back(&mut self, event: i64) {
        self.taken.remove(&event);
    }

    /// Reads quarantined rows again beside the loop; they come back as [`MonitorEvent::ReadAgain`].
    pub(crate) fn read_again(
        &self,
        rows: RowsToRead,
        source: Source,
        connector: StateConnector,
        tasks: &mut JoinSet<()>,
    ) {
        let events = self.events.clone();
        tasks.spawn(async move {
            let RowsToRead { section, name, event, ids, reading } = rows;
            let read = read_again(&source, &connector, &name, &reading, &ids).await;
            // Where nobody listens any more, the event waits for the next instance.
            events.send(MonitorEvent::ReadAgain(Box::new(ReadAgain { section, event, ids, read }))).await.ok();
        });
    }
}

pub(crate) fn key_of(row: &Row<'_>, key_column: usize) -> Option<String> {
    match row.get(key_column) {
        Value::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        Value::Null | Value::Oversize => None,
    }
}

/// Reads quarantined rows again: from the table; where they are gone, the item as it was made.
async fn read_again(
    source: &Source,
    connector: &StateConnector,
    section: &SectionName,
    reading: &TableReading,
    ids: &[i64],
) -> Result<RowsRead, Fault> {
    let store = connector.store().await?;
    let held = store.quarantine_rows(ids).await.map_err(|error| error.fault())?;
    let (mut by_key, mut twice, mut keyless) = (HashMap::new(), Vec::new(), Vec::new());
    for row in held.iter().filter(|row| row.section == section.as_str()) {
        if row.key.is_empty() {
            keyless.push(row.id);
        } else if by_key.contains_key(&row.key) {
            twice.push(row.id);
        } else {
            by_key.insert(row.key.clone(), row.id);
        }
    }
    let mut keys: Vec<String> = by_key.keys().cloned().collect();
    keys.sort();
    let mut rows = Rows::new(1);
    if !keys.is_empty() {
        let session = connect_sql(source, "retry").await?;
        session.batch_execute(chunk_reader::SESSION).await.map_err(|error| session.fault(&error))?;
        rows = reading.selection.read_keys(&session, &keys).await.map_err(|error| session.fault(&error))?;
    }
    let there: HashSet<String> = rows.iter().filter_map(|row| key_of(&row, reading.key_column)).collect();
    let absent: Vec<i64> = by_key.iter().filter(|(key, _)| !there.contains(*key)).map(|(_, id)| *id).collect();
    let unread = ids.iter().filter(|id| !held.iter().any(|row| row.id == **id)).copied();
    let mut read = RowsRead { rows, by_key, twice, items: Vec::new(), gone: unread.chain(keyless).collect() };
    for item in store.quarantine_items(&absent).await.map_err(|error| error.fault())? {
        if is_item(&item) { read.items.push(item) } else { read.gone.push(item.row.id) }
    }
    Ok(read)
}

/// Whether what the quarantine holds is an item as it was, or would have been, sent; not a picture of a row that never
/// became one.
fn is_item(held: &QuarantineItem) -> bool {
    let (reason, sent) = (held.row.reason.as_str(), held.delivery.is_some());
    let refused = reason.starts_with("refused:") && sent;
    let too_large = reason.starts_with("too_large:") && sent && !reason.contains("the item is over");
    (refused || too_large || reason.starts_with("in_doubt:")) && held.item.get().starts_with('{')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::QuarantineRow;

    #[test]
    fn only_what_was_an_item_is_sent_from_the_quarantine_itself() {
        let held = |reason: &str, item: &str, delivery| QuarantineItem {
            row: QuarantineRow {
                id: 1,
                section: "s".into(),
                key: "1".into(),
                reason: reason.into(),
                created_at: String::new(),
            },
            item: serde_json::value::RawValue::from_string(item.into()).unwrap(),
            delivery,
        };
        assert!(is_item(&held("refused: no such company", "{}", Some(1))));
        assert!(is_item(&held("too_large: 413", "{}", Some(1))));
        assert!(is_item(&held("in_doubt: no answer", "{}", None)));
        assert!(!is_item(&held("in_doubt: no answer", "null", None)));
        assert!(!is_item(&held("mapping: value is NULL", "{}", Some(1))));
        assert!(!is_item(&held("too_large: the item is over 30,000,000 bytes", "{}", Some(1))));
        assert!(!is_item(&held("refused_unmatched: x", "{}", Some(1))));
    }
}
