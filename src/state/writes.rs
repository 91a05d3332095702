//! The writes of the leader, as statements with their parameters. Pure.
//!
//! * In: a list of [`Op`]s.
//! * Out: a list of [`BoundParam`] statements in the same order; rows that go into quarantine one after the other are few.
//! * Never: an [`Op`] without its statement.

use std::borrow::Cow;

use tokio_postgres::types::{PgLsn, ToSql};

use crate::audit::TallyEntry;
use crate::config::definition::Definition;
use crate::model::{Lsn, Position, SectionName, SeenRow};
use crate::state::attachment::{Attachment, columns_json};
use crate::state::model::{Delivery, DiffRun, NewGap, Op, Quarantined, RangeStart, SectionPhase, Totals, signed};
use crate::state::write_sql::Write;

/// A parameter, owned or borrowed from the list of writes.
pub(crate) type Param<'a> = Box<dyn ToSql + Sync + Send + 'a>;

/// A statement with its parameters.
pub(crate) struct BoundParam<'a> {
    pub(crate) write: Write,
    pub(crate) params: Vec<Param<'a>>,
}

macro_rules! bound {
    ($write:expr, $($param:expr),* $(,)?) => {
        BoundParam { write: $write, params: vec![$(Box::new($param) as Param<'_>),*] }
    };
}

/// What every statement of one list shares.
#[derive(Clone, Copy)]
pub(crate) struct Under {
    pub(crate) epoch: i64,
    pub(crate) seq: i64,
    pub(crate) digest: i64,
}

/// Text that one statement carries, from which on the next rows are another's: a message is copied whole, on its way.
const STATEMENT_BYTES: usize = 256 << 10;

/// The statements of one list; the first is the fence, which carries the list's marks.
pub(crate) fn statements<'a>(
    under: Under,
    ops: &'a [Op],
    text: impl Fn(&'a str) -> Cow<'a, str> + Copy,
) -> Vec<BoundParam<'a>> {
    let mut all = vec![fence(under, ops)];
    let mut rest = ops;
    while let Some((op, after)) = rest.split_first() {
        rest = after;
        match op {
            Op::Sending { delivery, attempt } => all.push(sending(under, delivery, *attempt, text)),
            Op::Retrying { id, http_status, error } => {
                all.push(bound!(Write::Retrying, *id, http_status.map(i32::from), text(error), under.epoch, under.seq));
            }
            Op::Ended { id, outcome, http_status, error } => {
                let (word, status) = (outcome.as_str(), http_status.map(i32::from));
                all.push(bound!(Write::Ended, *id, word, status, text(error), under.epoch, under.seq));
            }
            Op::Keys { delivery, section, keys, tally } => {
                all.push(bound!(Write::Keys, *delivery, section.as_str(), keys.as_slice()));
                if !tally.is_empty() {
                    all.push(tally_of(section, tally));
                }
            }
            Op::Unresolved { id, http_status, error } => {
                let status = http_status.map(i32::from);
                all.push(bound!(Write::Unresolved, *id, status, text(error), under.epoch, under.seq));
            }
            Op::Withdrawn { id } => all.push(bound!(Write::Withdrawn, *id)),
            Op::SectionCheckpoint { section, position, phase, add } => {
                all.push(checkpoint(section, *position, phase.as_ref(), *add));
            }
            Op::Streamed { section, all: whole, keys } => {
                all.push(bound!(Write::Streamed, section.as_str(), *whole, keys.as_slice()));
            }
            Op::Quarantine(first) => {
                let rows = together(first, after);
                rest = &after[rows.len() - 1..];
                all.push(quarantine(&rows, text));
            }
            Op::Unquarantine(ids) => all.push(bound!(Write::Unquarantine, ids.as_slice())),
            Op::Published { section, entry } => all.push(bound!(Write::Published, section.as_str(), entry.as_str())),
            Op::Halted { section, why } => {
                let (reason, remedy) = why.as_ref().map(|(reason, remedy)| (text(reason), text(remedy))).unzip();
                all.push(bound!(Write::Halted, section.as_str(), reason, remedy));
            }
            Op::Seen { section, run, columns, rows } => {
                let count = i32::try_from(rows.len() / SeenRow::LEN).unwrap_or(i32::MAX);
                let first = rows.get(..16).unwrap_or_default();
                all.push(bound!(Write::Seen, section.as_str(), *run, first, *columns, count, rows.as_slice()));
            }
            Op::Forget { section, older } => {
                let older = older.as_ref().map(|older| (older.column.as_str(), older.before.as_str())).unzip();
                all.push(bound!(Write::Forget, section.as_str(), older.0, older.1));
            }
            Op::Compared { section, run } => all.push(compared(section, run)),
            Op::Attach { section, to, phase } => all.push(attach(section, to, phase, text)),
            Op::Defined { section, key, definition } => all.push(defined(section, key, definition)),
            Op::RulesSince { section, xid } => all.push(bound!(Write::RulesSince, section.as_str(), signed(*xid))),
            Op::AttachXids { section, writers_from, attach_xmin } => {
                let (from, xmin) = (writers_from.map(signed), attach_xmin.map(signed));
                all.push(bound!(Write::AttachXids, section.as_str(), from, xmin));
            }
            Op::OpenGap(gap) => all.push(opened_gap(gap, text)),
            Op::CoverGaps { section, gaps, by } => all.push(covered_gaps(section, gaps, text(by))),
            Op::CloseGaps { section } => all.push(bound!(Write::CloseGaps, section.as_str())),
            Op::Handled { event, result } => all.push(bound!(Write::Handled, *event, text(result))),
            // In the fence.
            Op::Checkpoint { .. } => {}
        }
    }
    all
}

fn defined<'a>(section: &'a SectionName, key: &'a [String], definition: &'a Definition) -> BoundParam<'a> {
    let json = serde_json::json!(definition).to_string();
    bound!(Write::Defined, section.as_str(), key, json, definition.rules.as_str())
}

fn fence(under: Under, ops: &[Op]) -> BoundParam<'static> {
    let (mut checkpoint, mut floor, mut last, mut newest) = (None, None, None, None);
    for op in ops {
        match op {
            Op::Checkpoint { checkpoint: at, xmin_floor, newest: read } => {
                checkpoint = checkpoint.max(Some(*at));
                floor = floor.max(*xmin_floor);
                newest = read.or(newest);
            }
            Op::Sending { delivery, .. } => last = last.max(Some(delivery.id)),
            Op::Retrying { .. }
            | Op::Ended { .. }
            | Op::Keys { .. }
            | Op::Unresolved { .. }
            | Op::Withdrawn { .. }
            | Op::SectionCheckpoint { .. }
            | Op::Streamed { .. }
            | Op::Quarantine(_) => {}
            Op::Unquarantine(_) | Op::Published { .. } | Op::Halted { .. } | Op::Handled { .. } | Op::OpenGap(_) => {}
            Op::Seen { .. } | Op::Forget { .. } | Op::Compared { .. } => {}
            Op::CoverGaps { .. } | Op::CloseGaps { .. } => {}
            Op::Attach { .. } | Op::AttachXids { .. } | Op::Defined { .. } | Op::RulesSince { .. } => {}
        }
    }
    let (checkpoint, floor) = (checkpoint.map(|lsn| PgLsn::from(lsn.0)), floor.map(signed));
    let commit = newest.and_then(|newest| newest.commit);
    let (xid, micros) = commit.map(|commit| (i64::from(commit.xid), commit.micros)).unzip();
    let read = newest.map(|newest| PgLsn::from(newest.at.0));
    bound!(Write::Fence, under.epoch, under.seq, under.digest, checkpoint, floor, last, read, xid, micros)
}

fn sending<'a>(
    under: Under,
    delivery: &'a Delivery,
    attempt: u32,
    text: impl Fn(&'a str) -> Cow<'a, str>,
) -> BoundParam<'a> {
    let int = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let (first, last) = delivery.span.unzip();
    let (first, last) = (columns(first), columns(last));
    bound!(
        Write::Sending,
        delivery.id,
        delivery.section.as_str(),
        delivery.phase.as_str(),
        int(delivery.rows),
        signed(delivery.bytes),
        text(&delivery.first_key),
        text(&delivery.last_key),
        first.0,
        first.1,
        first.2,
        last.0,
        last.1,
        last.2,
        int(attempt),
        under.epoch,
        under.seq,
        delivery.digests.map(|(first, _)| first.0.to_vec()),
        delivery.digests.map(|(_, last)| last.0.to_vec()),
    )
}

fn compared<'a>(section: &'a SectionName, run: &'a DiffRun) -> BoundParam<'a> {
    bound!(
        Write::Compared,
        section.as_str(),
        run.run,
        run.started_at.as_str(),
        signed(run.rows),
        signed(run.new),
        signed(run.changed),
        signed(run.gone),
        run.key.as_slice(),
        run.columns.as_slice(),
        run.read_at.as_deref(),
    )
}

fn checkpoint<'a>(
    section: &'a SectionName,
    position: Option<Position>,
    phase: Option<&'a SectionPhase>,
    add: Totals,
) -> BoundParam<'a> {
    let (lsn, change_lsn, ordinal) = columns(position);
    let progress = phase.and_then(SectionPhase::progress);
    bound!(
        Write::Checkpoint,
        section.as_str(),
        lsn,
        ordinal,
        phase.map(SectionPhase::as_str),
        progress.and_then(|p| p.cursor.as_deref()),
        progress.and_then(|p| p.ceiling.as_deref()),
        progress.map(|p| p.streamed.as_str()),
        progress.map(|p| signed(p.rows)),
        progress.map(|p| signed(p.estimated)),
        signed(add.delivered),
        signed(add.quarantined),
        signed(add.in_doubt),
        signed(add.resent),
        progress.and_then(|p| p.xmin_floor).map(signed),
        change_lsn,
        progress.is_some_and(|p| p.from != RangeStart::Unknown),
        progress.and_then(|p| p.from.key()),
    )
}

fn attach<'a>(
    section: &'a SectionName,
    to: &'a Attachment,
    phase: &'a SectionPhase,
    text: impl Fn(&'a str) -> Cow<'a, str>,
) -> BoundParam<'a> {
    let progress = phase.progress();
    bound!(
        Write::Attach,
        section.as_str(),
        to.table_oid,
        text(&to.table_name),
        to.kind.as_str(),
        to.attach_lsn.map(|lsn| PgLsn::from(lsn.0)),
        columns_json(&to.columns),
        phase.as_str(),
        progress.and_then(|p| p.cursor.as_deref()),
        progress.and_then(|p| p.xmin_floor).map(signed),
        progress.is_some_and(|p| p.from != RangeStart::Unknown),
        progress.and_then(|p| p.from.key()),
    )
}

fn covered_gaps<'a>(section: &'a SectionName, gaps: &'a [i64], by: Cow<'a, str>) -> BoundParam<'a> {
    bound!(Write::CoverGaps, section.as_str(), gaps, by)
}

fn opened_gap<'a>(gap: &'a NewGap, text: impl Fn(&'a str) -> Cow<'a, str>) -> BoundParam<'a> {
    let at = |lsn: Option<Lsn>| lsn.map(|lsn| PgLsn::from(lsn.0));
    bound!(
        Write::OpenGap,
        gap.section.as_ref().map(SectionName::as_str),
        gap.reason.as_str(),
        text(&gap.detail),
        at(gap.from_lsn),
        at(gap.to_lsn),
        gap.xmin_floor.map(signed),
    )
}

/// The rows that one statement takes: this one, and those right behind it that fit.
fn together<'a>(first: &'a Quarantined, after: &'a [Op]) -> Vec<&'a Quarantined> {
    let mut room = STATEMENT_BYTES;
    let fits = |row: &&Quarantined| {
        room = room.saturating_sub(row.key.len() + row.reason.len() + row.item.len());
        room > 0
    };
    let others = after.iter().map_while(|op| if let Op::Quarantine(row) = op { Some(row) } else { None });
    std::iter::once(first).chain(others.take_while(fits)).collect()
}

fn quarantine<'a>(rows: &[&'a Quarantined], text: impl Fn(&'a str) -> Cow<'a, str>) -> BoundParam<'a> {
    fn each<'a, T>(rows: &[&'a Quarantined], of: impl Fn(&'a Quarantined) -> T) -> Vec<T> {
        rows.iter().map(|row| of(row)).collect()
    }
    bound!(
        Write::Quarantine,
        each(rows, |row| row.section.as_str()),
        each(rows, |row| text(&row.key)),
        each(rows, |row| text(&row.reason)),
        each(rows, |row| text(&row.item)),
        each(rows, |row| columns(row.position).0),
        each(rows, |row| columns(row.position).1),
        each(rows, |row| columns(row.position).2),
        each(rows, |row| row.delivery),
    )
}

fn tally_of<'a>(section: &'a SectionName, tally: &'a [(i64, TallyEntry)]) -> BoundParam<'a> {
    let blocks: Vec<i64> = tally.iter().map(|(block, _)| *block).collect();
    let rows: Vec<i64> = tally.iter().map(|(_, entry)| entry.rows).collect();
    let digests: Vec<i64> = tally.iter().map(|(_, entry)| entry.digest).collect();
    bound!(Write::Tally, section.as_str(), blocks, rows, digests)
}

/// A position as its three columns.
pub(crate) fn columns(position: Option<Position>) -> (Option<PgLsn>, Option<PgLsn>, Option<i64>) {
    let lsn = |lsn: Lsn| PgLsn::from(lsn.0);
    position.map_or((None, None, None), |at| {
        (Some(lsn(at.final_lsn)), Some(lsn(at.change_lsn)), Some(i64::from(at.ordinal)))
    })
}
