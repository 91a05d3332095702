//! Putting together what was settled of a result: each request that was settled left a block of its own.
//!
//! * In: the state, between two comparisons of a section.
//! * Out: fewer and larger blocks with the same rows; rows whose date no comparison asks for any more are left away, and from
//!   which date on that cannot have been is recorded with that.
//! * Never: more than a few blocks in memory; the whole rewritten for a few new rows.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::delivery::seen_cursor::{NextSeen, SeenCursor};
use crate::model::{Forgotten, KeyDigest, SectionName, SeenRow};
use crate::state::{SeenBlock, SeenHead, StateError, Store};

/// Rows of a block that was put together.
const BLOCK: usize = 4096;
/// Blocks beyond those needed that are left as they are.
const MOST_LOOSE: usize = 64;
/// Rows that are put together in one transaction, about.
const SLICE: u32 = 64 * 1024;

/// What is left away: rows of another date than these.
pub(crate) struct Ageing<'a> {
    /// The column of the date.
    pub(crate) column: &'a str,
    /// Which columns were compared: of a row that was settled by other ones it is not known what its date was.
    pub(crate) columns: i64,
    /// Rows of this age count, as they did when the last comparison began.
    pub(crate) within: Duration,
    pub(crate) began: &'a str,
}

/// Puts together the blocks of a section where there are many.
pub(crate) async fn merge(
    store: &mut Store,
    section: &SectionName,
    ageing: Option<&Ageing<'_>>,
) -> Result<(), StateError> {
    let heads = store.seen_heads(section).await?;
    let Some((run, group)) = loose(&heads) else { return Ok(()) };
    // Kept in order: what is left of a block beyond a slice is the first of the next.
    let mut rest: VecDeque<SeenHead> = group.into();
    while !rest.is_empty() {
        let count = slice(&rest);
        let now: Vec<SeenHead> = rest.drain(..count).collect();
        let bound = rest.front().map(|head| head.first);
        let left = merge_slice(store, section, &now, run, bound, ageing).await?;
        left.into_iter().rev().for_each(|head| rest.push_front(head));
        rest.make_contiguous().sort_by_key(|head| (head.first, head.run));
    }
    Ok(())
}

/// The day before which nothing is compared any more; a row may be asked for by another clock.
fn oldest_day(within: Duration, began: &str) -> u16 {
    let now = jiff::Timestamp::now();
    let began = began.parse().unwrap_or(now);
    let now = now.min(began).as_second() / 86_400;
    let days = i64::try_from(within.as_secs() / 86_400).unwrap_or(i64::MAX);
    u16::try_from(now.saturating_sub(days).saturating_sub(3)).unwrap_or(0)
}

/// The end of that day in UTC: a day of another zone has begun by then.
fn behind(day: u16) -> jiff::Timestamp {
    jiff::Timestamp::from_second((i64::from(day) + 1) * 86_400).unwrap_or(jiff::Timestamp::MIN)
}

/// The blocks that are to be put together, and the run that the result counts as: those that a few comparisons left behind
/// the bulk; all of them, where those are many.
fn loose(heads: &[SeenHead]) -> Option<(i64, Vec<SeenHead>)> {
    let rows = |heads: &[SeenHead]| heads.iter().map(|head| head.rows as usize).sum::<usize>();
    if heads.len() <= rows(heads) / BLOCK + MOST_LOOSE {
        return None;
    }
    let bulk = heads.iter().map(|head| head.run).min()?;
    let young: Vec<SeenHead> = heads.iter().filter(|head| head.run != bulk).copied().collect();
    let latest = young.iter().map(|head| head.run).max().unwrap_or(bulk);
    let few = rows(&young) < rows(heads) / 8 && young.len() > MOST_LOOSE / 2;
    Some(if few { (latest, young) } else { (0, heads.to_vec()) })
}

/// How many of these blocks make one slice.
fn slice(heads: &VecDeque<SeenHead>) -> usize {
    let mut rows = 0;
    let fits = |head: &&SeenHead| {
        let before = rows;
        rows += head.rows;
        before < SLICE
    };
    heads.iter().take_while(fits).count().max(1)
}

/// The rows of these blocks below `bound`, where the next block begins, become as few blocks as they can be: every row of
/// them is here, so that the latest run of each is known. What is left of the blocks stays by itself, and is returned.
async fn merge_slice(
    store: &mut Store,
    section: &SectionName,
    heads: &[SeenHead],
    run: i64,
    bound: Option<KeyDigest>,
    ageing: Option<&Ageing<'_>>,
) -> Result<Vec<SeenHead>, StateError> {
    let (mut below, mut new, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for mut block in store.seen_blocks(section, heads).await? {
        let tail = block.entries.split_off(below_bound(&block.entries, bound));
        if let Some(first) = SeenRow::decode(&tail, 0) {
            let rows = u32::try_from(tail.len() / SeenRow::LEN).unwrap_or(u32::MAX);
            left.push(SeenHead { run: block.run, first: first.key, columns: block.columns, rows });
            new.push(SeenBlock { entries: tail, ..block });
        }
        below.push(block);
    }
    let mut cursor = SeenCursor::new(Vec::new());
    cursor.give(below);
    let mut open: BTreeMap<i64, Vec<u8>> = BTreeMap::new();
    let oldest = ageing.map(|ageing| oldest_day(ageing.within, ageing.began)).unwrap_or_default();
    let mut forgets = false;
    while let NextSeen::Row(row, columns) = cursor.peek() {
        cursor.advance();
        if row.day != 0 && row.day < oldest && ageing.is_some_and(|ageing| ageing.columns == columns) {
            forgets = true;
            continue;
        }
        let entries = open.entry(columns).or_default();
        row.encode(entries);
        if entries.len() >= BLOCK * SeenRow::LEN {
            new.push(SeenBlock { run, columns, entries: std::mem::take(entries) });
        }
    }
    new.extend(open.into_iter().map(|(columns, entries)| SeenBlock { run, columns, entries }));
    let forgotten = ageing.filter(|_| forgets).map(|ageing| Forgotten::before(ageing.column, behind(oldest)));
    store.replace_seen(section, heads, &new, forgotten.as_ref()).await?;
    left.sort_by_key(|head| (head.first, head.run));
    Ok(left)
}

/// Where the first row that is not below `bound` begins.
fn below_bound(entries: &[u8], bound: Option<KeyDigest>) -> usize {
    let Some(bound) = bound else { return entries.len() };
    let (mut low, mut high) = (0, entries.len() / SeenRow::LEN);
    while low < high {
        let middle = low.midpoint(high);
        match SeenRow::decode(entries, middle * SeenRow::LEN) {
            Some(row) if row.key < bound => low = middle + 1,
            Some(_) | None => high = middle,
        }
    }
    low * SeenRow::LEN
}
