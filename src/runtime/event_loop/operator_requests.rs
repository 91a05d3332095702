//! What operators ask of the running instance: events of the state, each obeyed once.
//!
//! * In: events that nobody has handled, told again by the watch until their handling is durable.
//! * Out: a re-sync begun, quarantined rows on their way again; the event's result, in one transaction with what was done.
//! * Never: an event obeyed twice by one process; a row of the quarantine sent while it is under way already.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::config::Source;
use crate::delivery::section::BackfillQueue;
use crate::model::{Exit, Fault, Key, Phase, Rows, SectionName, Value};
use crate::postgres::backfill::chunk_reader;
use crate::postgres::backfill::chunk_reader::Selection;
use crate::postgres::connection::session::connect_sql;
use crate::runtime::event_loop::EventLoop;
use crate::runtime::monitor_event::{MonitorEvent, ReadAgain, RowsRead};
use crate::runtime::state_connector::StateConnector;
use crate::state::{Event, Op, QuarantineItem};

/// Deliver a section again: `{"from": KEY | null}`.
pub(crate) const RESYNC: &str = "resync";
/// Send rows of the quarantine again: `{"ids": […]}`, of one section.
pub(crate) const RETRY: &str = "quarantine_retry";

impl EventLoop {
    /// Obeys an event, unless it was taken up already or must wait.
    pub(crate) fn on_asked(&mut self, event: &Event) {
        if self.wishes.taken.contains(&event.id) {
            return;
        }
        match event.action.as_str() {
            RESYNC => self.resync(event),
            RETRY => self.retry(event),
            _ => self.handled(event.id, "nothing to do for a running instance", Vec::new()),
        }
    }

    /// Records an event's result, after `ops` in the same transaction.
    fn handled(&mut self, event: i64, result: &str, mut ops: Vec<Op>) {
        self.wishes.taken.insert(event);
        tracing::info!(event, result, "an operator's wish");
        ops.push(Op::Handled { event, result: result.to_owned() });
        self.engine.record(ops);
    }

    fn lane_of(&self, event: &Event) -> Option<usize> {
        let name = event.section.as_deref()?;
        self.engine.lanes.iter().position(|lane| lane.name.as_str() == name)
    }

    fn resync(&mut self, event: &Event) {
        let Some(lane) = self.lane_of(event) else {
            return self.handled(event.id, "refused: the section is off, or was never attached", Vec::new());
        };
        let refuse = |why: &str| format!("refused: {why}");
        let own = &mut self.engine.lanes[lane];
        let from = event.args.get("from").and_then(serde_json::Value::as_str);
        let cursor = from.map(|key| Key::parse(key.as_bytes(), own.key_type)).transpose();
        let refused = if own.shut.is_some() || self.lanes[lane].selection.is_none() {
            Some(refuse("the section is halted; mend it first"))
        } else if own.range.is_some() {
            Some(refuse("a backfill is under way"))
        } else {
            cursor.as_ref().err().map(|error| refuse(&error.to_string()))
        };
        if let Some(refused) = refused {
            return self.handled(event.id, &refused, Vec::new());
        }
        // From here on what the stream brings is remembered, and left out of the range: as at an attachment.
        own.range = Some(BackfillQueue::new(Phase::Resync, cursor.ok().flatten(), own.key_type));
        let op = own.phase_op();
        self.handled(event.id, "begun", vec![op]);
        self.start_range(lane);
    }

    fn retry(&mut self, event: &Event) {
        let lane = self.lane_of(event).filter(|lane| self.lanes[*lane].selection.is_some());
        let Some(lane) = lane else {
            return self.handled(event.id, "refused: the section is off or halted", Vec::new());
        };
        let own = &mut self.engine.lanes[lane];
        // One after the other, which bounds what they hold; and none while nothing is sent. The watch will tell again.
        if own.is_retrying() || own.paused || own.shut.is_some() {
            return;
        }
        let ids = event.args.get("ids").and_then(serde_json::Value::as_array);
        let ids: Vec<i64> = ids.into_iter().flatten().filter_map(serde_json::Value::as_i64).collect();
        let ids: Vec<i64> = ids.into_iter().filter(|id| own.begin_retry(*id)).collect();
        let (name, key_column) = (own.name.clone(), self.lanes[lane].key_column);
        let Some(selection) = self.lanes[lane].selection.clone() else { return };
        self.wishes.taken.insert(event.id);
        let (source, connector) = (self.config.source.clone(), StateConnector::new(Arc::clone(&self.config)));
        let (event, news) = (event.id, self.wishes.news.clone());
        self.tasks.spawn(async move {
            let read = read_again(&source, &connector, &name, &selection, key_column, &ids).await;
            // Where nobody listens any more, the event waits for the next instance.
            let _gone = news.send(MonitorEvent::ReadAgain(Box::new(ReadAgain { lane, event, ids, read }))).await;
        });
    }

    /// Quarantined rows were read again: they go on their way.
    pub(crate) fn on_reread(&mut self, reread: ReadAgain) {
        let ReadAgain { lane, event, ids, read } = reread;
        let now = self.clock.elapsed();
        let mapping = self.engine.range_mapping(lane);
        let own = &mut self.engine.lanes[lane];
        let (read, mapping) = match (read, mapping) {
            (Ok(read), Some(mapping)) => (read, mapping),
            (read, _) => {
                ids.iter().for_each(|id| own.give_up_retry(*id));
                let fault = read.err().unwrap_or_else(|| Fault::bug("a lane without a mapping"));
                if fault.exit == Exit::Unavailable {
                    // Told again by the watch, until it can be read.
                    self.wishes.taken.remove(&event);
                    return;
                }
                return self.handled(event, &format!("failed: {}; {}", fault.what, fault.remedy), Vec::new());
            }
        };
        let mut began = 0;
        let key_column = self.lanes[lane].key_column;
        for row in read.rows.iter() {
            let Some(id) = key_of(&row, key_column).and_then(|key| read.by_key.get(&key)) else { continue };
            own.admit_retry(&mapping, &row, *id, now);
            began += 1;
        }
        for item in &read.items {
            own.admit_item(&item.row.key, item.item.get().as_bytes(), item.row.id, now);
            began += 1;
        }
        read.twice.iter().chain(&read.gone).for_each(|id| own.give_up_retry(*id));
        let mut result = format!("{began} rows are sent again");
        if !read.gone.is_empty() {
            result.push_str(&format!(
                "; {} are no longer in the table, and were never items: drop them ({})",
                read.gone.len(),
                shortened(&read.gone)
            ));
        }
        let mut ops = Vec::new();
        if !read.twice.is_empty() {
            result.push_str(&format!("; {} were in quarantine twice", read.twice.len()));
            ops.push(Op::Unquarantine(read.twice));
        }
        self.handled(event, &result, ops);
    }
}

fn shortened(ids: &[i64]) -> String {
    let shown: Vec<String> = ids.iter().take(20).map(ToString::to_string).collect();
    let more = if ids.len() > 20 { " …" } else { "" };
    format!("{}{more}", shown.join(" "))
}

fn key_of(row: &crate::model::Row<'_>, key_column: usize) -> Option<String> {
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
    selection: &Selection,
    key_column: usize,
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
        rows = selection.read_keys(&session, &keys).await.map_err(|error| session.fault(&error))?;
    }
    let there: HashSet<String> = rows.iter().filter_map(|row| key_of(&row, key_column)).collect();
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
