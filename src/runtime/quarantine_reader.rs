//! Reading quarantined rows for a retry.
//!
//! * In: ids of the quarantine, and how their section reads its rows.
//! * Out: the rows as they are in the table now, and the items of those that are not.
//! * Never: a version of a row, or an earlier row of its key, left out because the quarantine holds another one, too; an older
//!   value sent behind a newer one; a row whose key was delivered since.

use std::collections::{HashMap, HashSet};

use crate::config::{Kind, Section, Source};
use crate::model::{Column, Fault, Lsn, Phase, Rows, SectionId, SectionName};
use crate::postgres::backfill::selection;
use crate::postgres::backfill::selection::Selection;
use crate::postgres::catalog::result;
use crate::postgres::connection::session::first_value;
use crate::runtime::same_server::SameServer;
use crate::runtime::state_connector::StateConnector;
use crate::sql;
use crate::state::{HeldVersion, MISSING, QuarantineItem, Store};

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
    pub(crate) versions: Versions,
}

/// What an entry of the quarantine is of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Versions {
    /// Each row is sent once: another entry of its key is another row, or the same one that a re-sync brought again.
    One,
    /// Each version is sent, and the last one counts.
    LastCounts,
    /// Each version is sent, and counts.
    EachCounts,
}

impl Versions {
    pub(crate) fn of(section: &Section) -> Versions {
        match section.kind {
            _ if section.is_streamed() && !section.sends_updates() => Versions::One,
            Kind::UserActivity => Versions::EachCounts,
            Kind::CustomMetric(_) => Versions::LastCounts,
        }
    }
}

/// Where an entry stands among those of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryPlace {
    /// It is the last one: the row that the table has, where it has one.
    Last,
    /// It is an earlier version, or an earlier row of the key: nothing but its item tells of it.
    Earlier,
    /// The next one is the same row: a re-sync brought it again.
    Again,
}

/// Where these entries (all that the quarantine has of their keys, by id) stand.
fn places(entries: &[HeldVersion], versions: Versions) -> HashMap<i64, EntryPlace> {
    let mut next_of: HashMap<&str, bool> = HashMap::new();
    let mut places = HashMap::new();
    for entry in entries.iter().rev() {
        let place = match next_of.insert(&entry.key, entry.is_streamed) {
            None => EntryPlace::Last,
            Some(false) if versions == Versions::One => EntryPlace::Again,
            Some(_) => EntryPlace::Earlier,
        };
        places.insert(entry.id, place);
    }
    places
}

/// Quarantined rows, read again.
#[derive(Debug)]
pub(crate) struct ReadAgain {
    pub(crate) section: SectionId,
    pub(crate) event: i64,
    pub(crate) ids: Vec<i64>,
    /// Rows of the same retry that were sent before these.
    pub(crate) sent: usize,
    pub(crate) read: Result<RetryRead, Fault>,
}

/// How far the rows of a retry are.
#[derive(Debug)]
pub(crate) enum RetryRead {
    /// What else was committed of their keys before may be under way.
    Unproven(UnprovenRows),
    Proven(RowsRead),
}

#[derive(Debug)]
pub(crate) struct RowsRead {
    /// `Retry`, or `Repair` of rows that an audit found missing.
    pub(crate) phase: Phase,
    /// Rows that are still in the table.
    pub(crate) rows: Rows,
    /// The columns that they were read with, where those are not the ones of the section's mapping.
    pub(crate) changed: Option<Vec<Column>>,
    /// Key → id, and the date that was sent with it (µs since 2000-01-01 UTC), for those.
    pub(crate) by_key: HashMap<String, (i64, Option<i64>)>,
    /// Ids of rows that another id of the same key stands for: a re-sync brought them again.
    pub(crate) twice: Vec<i64>,
    /// Items of rows that the table does not have, or not in this version; by id.
    pub(crate) items: Vec<QuarantineItem>,
    /// Rows that it does not have so, and of which there is no item.
    pub(crate) gone: Vec<i64>,
    /// Ids of rows whose key was delivered since they went into quarantine: there is another row or a newer version, or a re-sync
    /// brought it.
    pub(crate) delivered: Vec<i64>,
    /// How many had left the quarantine before they were read.
    pub(crate) left_before: usize,
    /// Rows that were not read yet: together with these they would hold too much.
    pub(crate) left: Vec<i64>,
}

/// Quarantined rows as read again. What else was committed of their keys before they were read may be under way: only once that
/// is settled the ledger tells what was delivered since.
#[derive(Debug)]
pub(crate) struct UnprovenRows {
    name: SectionName,
    versions: Versions,
    /// Behind all that the read rows show, where the section is streamed.
    pub(crate) read_at: Option<Lsn>,
    held: Vec<QuarantineItem>,
    rows: Rows,
    changed: Option<Vec<Column>>,
    /// Key → id, and the date that was sent with it, of the rows that were read.
    by_key: HashMap<String, (i64, Option<i64>)>,
    left: Vec<i64>,
    left_before: usize,
}

/// Reads quarantined rows again from the table.
pub(crate) async fn read_again(
    (server, source): (&SameServer, &Source),
    connector: &StateConnector,
    RowsToRead { name: section, ids, reading, is_table, versions, .. }: &RowsToRead,
) -> Result<UnprovenRows, Fault> {
    let store = connector.store().await?;
    let mut held = store.quarantine_items_within(ids, ROUND).await.map_err(|error| error.fault())?;
    held.truncate(first_round(&held));
    let last = held.last().map_or(i64::MAX, |item| item.row.id);
    let (ids, left): (Vec<i64>, Vec<i64>) = ids.iter().partition(|id| **id <= last);
    let left_before = ids.iter().filter(|id| !held.iter().any(|item| item.row.id == **id)).count();
    held.retain(|item| item.row.section == section.as_str());
    let places = places_of(&store, section, &held, *versions).await?;
    // Each version counts, and the table may have a later one by now.
    let reads = |item: &QuarantineItem| {
        let is_this = *versions != Versions::EachCounts || !is_item(item);
        !item.row.key.is_empty() && places.get(&item.row.id) == Some(&EntryPlace::Last) && is_this
    };
    let mut by_key: HashMap<String, (i64, Option<i64>)> = held
        .iter()
        .filter(|item| reads(item))
        .map(|item| (item.row.key.clone(), (item.row.id, date_of(item))))
        .collect();
    let mut wanted: Vec<String> = by_key.keys().cloned().collect();
    wanted.sort();
    let session = server.connect(source, "retry").await?;
    let at = |error: tokio_postgres::Error| session.fault(&error);
    let (mut rows, mut changed) = (Rows::new(1), None);
    if !wanted.is_empty() {
        session.batch_execute(selection::SESSION).await.map_err(at)?;
        // A query names its tables as the file does.
        sql::query_one(&session, result::SEARCH_PATH, &[&source.schema]).await.map_err(at)?;
        let read = match is_table {
            true => reading.read_keys_as_they_are(&session, &wanted).await,
            false => reading.read_keys(&session, &wanted).await.map(|rows| (rows, None)),
        };
        (rows, changed) = read.map_err(at)?;
    }
    let there: HashSet<String> =
        rows.iter().map(|row| String::from_utf8_lossy(&reading.key_text(&row)).into_owned()).collect();
    by_key.retain(|key, _| there.contains(key));
    let mut read_at = None;
    if *is_table {
        let position = session.simple_query("SELECT pg_catalog.pg_current_wal_insert_lsn()").await.map_err(at)?;
        // A position that could not be read is one that no stream reaches.
        read_at = Some(first_value(&position).and_then(|lsn| lsn.parse().ok()).unwrap_or(Lsn(u64::MAX)));
    }
    let (name, versions) = (section.clone(), *versions);
    Ok(UnprovenRows { name, versions, read_at, held, rows, changed, by_key, left, left_before })
}

/// What goes on its way of rows that were read again, once all is settled that was committed of their keys before.
pub(crate) async fn prove(connector: &StateConnector, unproven: UnprovenRows) -> Result<RowsRead, Fault> {
    let UnprovenRows { name, versions, held, rows, changed, mut by_key, left, left_before, .. } = unproven;
    let store = connector.store().await?;
    store.ended_batches(&name).await.map_err(|error| error.fault())?;
    // Another version of a row that was read may have gone there meanwhile.
    let places = places_of(&store, &name, &held, versions).await?;
    let place = |id: &i64| places.get(id).copied().unwrap_or(EntryPlace::Last);
    by_key.retain(|_, (id, _)| place(id) == EntryPlace::Last);
    let read: HashSet<i64> = by_key.values().map(|(id, _)| *id).collect();
    // Whatever was delivered since of a row that was read, it may be what was read.
    let known: Vec<i64> = read.iter().copied().collect();
    let mut delivered = store.delivered_since(&name, &known, false).await.map_err(|error| error.fault())?;
    // Of one that is gone nothing else can have been but rows that had its key before, which stand for themselves.
    let asked = |id: &i64| !read.contains(id) && (place(id) == EntryPlace::Earlier || versions != Versions::One);
    let known: Vec<i64> = held.iter().map(|item| item.row.id).filter(asked).collect();
    let since = store.delivered_since(&name, &known, versions == Versions::EachCounts);
    delivered.extend(since.await.map_err(|error| error.fault())?);
    by_key.retain(|_, (id, _)| !delivered.contains(id));
    let phase = held.first().map_or(Phase::Retry, phase_of);
    // Also those that nobody asked for: by themselves they would be sent again.
    let twice = places.iter().filter(|(_, place)| **place == EntryPlace::Again).map(|(id, _)| *id).collect();
    let (gone, items) = (Vec::new(), Vec::new());
    let mut proven = RowsRead { phase, rows, changed, by_key, twice, items, gone, delivered, left, left_before };
    for item in held {
        let id = item.row.id;
        match place(&id) {
            EntryPlace::Again => {}
            EntryPlace::Last | EntryPlace::Earlier if read.contains(&id) || proven.delivered.contains(&id) => {}
            EntryPlace::Last | EntryPlace::Earlier if is_item(&item) && !item.row.key.is_empty() => {
                proven.items.push(item)
            }
            EntryPlace::Last | EntryPlace::Earlier => proven.gone.push(id),
        }
    }
    Ok(proven)
}

/// Where these rows stand among all that the quarantine has of their keys.
async fn places_of(
    store: &Store,
    section: &SectionName,
    held: &[QuarantineItem],
    versions: Versions,
) -> Result<HashMap<i64, EntryPlace>, Fault> {
    let keys: Vec<&str> = held.iter().map(|item| &*item.row.key).filter(|key| !key.is_empty()).collect();
    let entries = store.quarantine_versions(section, &keys).await.map_err(|error| error.fault())?;
    Ok(places(&entries, versions))
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
    fn an_entry_of_a_key_stands_for_itself_unless_a_resync_brought_its_row_again() {
        let entry = |id, key: &str, is_streamed| HeldVersion { id, key: key.into(), is_streamed };
        let entries =
            [entry(1, "a", true), entry(2, "b", false), entry(3, "a", true), entry(4, "a", false), entry(5, "b", true)];
        let place = |versions, id| places(&entries, versions)[&id];
        let of = |versions| [1, 2, 3, 4, 5].map(|id| place(versions, id));
        use EntryPlace::{Again, Earlier, Last};
        assert_eq!(of(Versions::One), [Earlier, Earlier, Again, Last, Last]);
        assert_eq!(of(Versions::EachCounts), [Earlier, Earlier, Earlier, Last, Last]);
        assert_eq!(of(Versions::LastCounts), of(Versions::EachCounts));
    }

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
