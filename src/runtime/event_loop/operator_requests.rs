//! Operators' requests to the running instance, and the reading of quarantined rows for a retry.
//!
//! * In: events of the state that nobody has handled, told again by the monitor until their handling is durable.
//! * Out: which of them were taken up; rows of the quarantine, read again from the table.
//! * Never: an event obeyed twice by one process.

use std::collections::{HashMap, HashSet};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::Source;
use crate::model::{Fault, Phase, Rows, SectionId, SectionName};
use crate::postgres::backfill::selection;
use crate::postgres::backfill::selection::Selection;
use crate::postgres::catalog::result;
use crate::runtime::monitor_event::{MonitorEvent, ReadAgain, RowsRead};
use crate::runtime::same_server::SameServer;
use crate::runtime::state_connector::StateConnector;
use crate::state::{MISSING, QuarantineItem};

/// Deliver a section again: `{"from": KEY | null}`.
pub(crate) const RESYNC: &str = "resync";
/// Send rows of the quarantine again: `{"ids": […]}`, of one section.
pub(crate) const RETRY: &str = "quarantine_retry";
/// Try a section now that would be tried later: `{}`.
pub(crate) const PROBE: &str = "probe";
/// Let rows that the mapping refuses go into quarantine, where they are kept back: `{}`.
pub(crate) const RESUME: &str = "resume";

/// Operators' requests that were taken up.
#[derive(Debug)]
pub(crate) struct OperatorRequests {
    /// Never pruned: operators' requests are rare, and forgetting one would run it twice.
    taken: HashSet<i64>,
    /// Rows of a retry that wait for those before them, and how many those are.
    left: HashMap<i64, (Vec<i64>, usize)>,
    /// Where the rows that were read for a request come back.
    events: mpsc::Sender<MonitorEvent>,
}

/// Quarantined rows to read again.
pub(crate) struct RowsToRead {
    pub(crate) section: SectionId,
    pub(crate) name: SectionName,
    pub(crate) event: i64,
    pub(crate) ids: Vec<i64>,
    /// Rows of the same retry that were sent before these.
    pub(crate) sent: usize,
    pub(crate) reading: Selection,
    /// It is a table, whose columns may have other types by now.
    pub(crate) is_table: bool,
}

impl OperatorRequests {
    pub(crate) fn new(events: mpsc::Sender<MonitorEvent>) -> OperatorRequests {
        OperatorRequests { taken: HashSet::new(), left: HashMap::new(), events }
    }

    pub(crate) fn is_taken(&self, event: i64) -> bool {
        self.taken.contains(&event)
    }

    pub(crate) fn take(&mut self, event: i64) {
        self.taken.insert(event);
    }

    /// The rows of a retry that were left for another round, and how many were sent before.
    pub(crate) fn take_left(&mut self, event: i64) -> Option<(Vec<i64>, usize)> {
        self.left.remove(&event)
    }

    /// These rows of a retry wait until the `sent` ones before them are settled: the monitor will tell of it again.
    pub(crate) fn leave(&mut self, event: i64, ids: Vec<i64>, sent: usize) {
        self.left.insert(event, (ids, sent));
        self.give_back(event);
    }

    /// The monitor will tell of it again.
    pub(crate) fn give_back(&mut self, event: i64) {
        self.taken.remove(&event);
    }

    /// Reads quarantined rows again beside the loop; they come back as [`MonitorEvent::ReadAgain`].
    pub(crate) fn read_again(
        &self,
        rows: RowsToRead,
        (server, source): (SameServer, Source),
        connector: StateConnector,
        tasks: &mut JoinSet<()>,
    ) {
        let events = self.events.clone();
        tasks.spawn(async move {
            let read = read_again((&server, &source), &connector, &rows).await;
            let RowsToRead { section, event, ids, sent, .. } = rows;
            // Where nobody listens any more, the event waits for the next instance.
            events.send(MonitorEvent::ReadAgain(Box::new(ReadAgain { section, event, ids, sent, read }))).await.ok();
        });
    }
}

/// Reads quarantined rows again: from the table; where they are gone, the item as it was made.
async fn read_again(
    (server, source): (&SameServer, &Source),
    connector: &StateConnector,
    RowsToRead { name: section, ids, reading, is_table, .. }: &RowsToRead,
) -> Result<RowsRead, Fault> {
    let store = connector.store().await?;
    let mut held = store.quarantine_items_within(ids, ROUND).await.map_err(|error| error.fault())?;
    held.truncate(first_round(&held));
    let last = held.last().map_or(i64::MAX, |item| item.row.id);
    let (ids, left): (Vec<i64>, Vec<i64>) = ids.iter().partition(|id| **id <= last);
    let (mut by_key, mut twice, mut keyless) = (HashMap::new(), Vec::new(), Vec::new());
    for item in held.iter().filter(|item| item.row.section == section.as_str()) {
        let row = &item.row;
        if row.key.is_empty() {
            keyless.push(row.id);
        } else if by_key.contains_key(&row.key) {
            twice.push(row.id);
        } else {
            by_key.insert(row.key.clone(), (row.id, date_of(item)));
        }
    }
    let mut keys: Vec<String> = by_key.keys().cloned().collect();
    keys.sort();
    let (mut rows, mut changed) = (Rows::new(1), None);
    if !keys.is_empty() {
        let session = server.connect(source, "retry").await?;
        session.batch_execute(selection::SESSION).await.map_err(|error| session.fault(&error))?;
        // A query names its tables as the file does.
        session.query_one(result::SEARCH_PATH, &[&source.schema]).await.map_err(|error| session.fault(&error))?;
        let read = match is_table {
            true => reading.read_keys_as_they_are(&session, &keys).await,
            false => reading.read_keys(&session, &keys).await.map(|rows| (rows, None)),
        };
        (rows, changed) = read.map_err(|error| session.fault(&error))?;
    }
    let there: HashSet<String> =
        rows.iter().map(|row| String::from_utf8_lossy(&reading.key_text(&row)).into_owned()).collect();
    let absent: HashSet<i64> = by_key.iter().filter(|(key, _)| !there.contains(*key)).map(|(_, (id, _))| *id).collect();
    // Whoever has the key now was delivered already: sent again, it would count twice.
    let known: Vec<i64> = by_key.iter().filter(|(key, _)| there.contains(*key)).map(|(_, (id, _))| *id).collect();
    let delivered = store.delivered_since(section, &known).await.map_err(|error| error.fault())?;
    by_key.retain(|_, (id, _)| !delivered.contains(id));
    let unread = ids.iter().filter(|id| !held.iter().any(|item| item.row.id == **id)).copied();
    let gone = unread.chain(keyless).collect();
    let phase = held.first().map_or(Phase::Retry, phase_of);
    let mut read = RowsRead { phase, rows, changed, by_key, twice, items: Vec::new(), gone, delivered, left };
    for item in held.into_iter().filter(|item| absent.contains(&item.row.id)) {
        if is_item(&item) { read.items.push(item) } else { read.gone.push(item.row.id) }
    }
    Ok(read)
}

/// Bytes of items that are sent again at once; their rows are about as large.
const ROUND: usize = 2 << 20;
/// A picture of a row may be cut, value by value: from this size on nobody knows how large the row is.
const CUT: usize = 16 * 1024;

/// How many of these rows make one round: those whose size is known, or the first alone; all of one phase.
fn first_round(held: &[QuarantineItem]) -> usize {
    let unknown = |item: &QuarantineItem| !is_item(item) && item.item.get().len() >= CUT;
    let first = held.first().map(phase_of);
    let ends = |item: &QuarantineItem| unknown(item) || Some(phase_of(item)) != first;
    held.iter().position(ends).unwrap_or(held.len()).max(1)
}

/// A row that an audit found missing was never sent: its delivery is a repair, whoever asks for it.
fn phase_of(item: &QuarantineItem) -> Phase {
    if item.row.reason.starts_with(MISSING) { Phase::Repair } else { Phase::Retry }
}

/// The date that was sent with an item: a replay must not move it in time.
fn date_of(held: &QuarantineItem) -> Option<i64> {
    #[derive(serde::Deserialize)]
    struct Dated<'a> {
        #[serde(borrow)]
        date: std::borrow::Cow<'a, str>,
    }
    let dated: Option<Dated<'_>> = is_item(held).then(|| serde_json::from_str(held.item.get()).ok()).flatten();
    let date: jiff::Timestamp = dated?.date.parse().ok()?;
    Some(date.as_microsecond() - 946_684_800_000_000)
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
        // Of these the date stays what it was.
        let dated = r#"{"value":1,"date":"2024-02-29T23:59:59.123Z"}"#;
        assert_eq!(date_of(&held("refused: no", dated, Some(1))), Some(762_566_399_123_000));
        assert_eq!(date_of(&held("mapping: no", dated, Some(1))), None);
        assert_eq!(date_of(&held("refused: no", "{}", Some(1))), None);
        // A row whose size nobody knows goes alone.
        let cut = format!("\"{}\"", "x".repeat(CUT));
        let (small, large) = (held("refused: no", "{}", Some(1)), held("mapping: no", &cut, None));
        assert_eq!(first_round(&[small.clone(), small.clone(), large.clone(), small.clone()]), 2);
        assert_eq!(first_round(&[large, small.clone()]), 1);
        // What an audit found missing goes by itself, as a repair.
        let missing = held("missing: an audit found it", "{}", None);
        assert_eq!(first_round(&[missing.clone(), missing.clone(), small.clone()]), 2);
        assert_eq!(first_round(&[small, missing]), 1);
    }
}
