//! One pass over a result, held against what was settled of it row by row.
//!
//! * In: the rows of the result and the settled rows, both in the order of the keys' digests.
//! * Out: pieces of what is new or changed; counts; why the pass stopped.
//! * Never: a row given twice; a row given out of order: that would be a twin, or a row taken for new.

use std::time::{Duration, Instant};

use crate::config::Section;
use crate::delivery::section::DiffChunk;
use crate::delivery::seen_cursor::{NextSeen, SeenCursor};
use crate::mapping::Mapping;
use crate::model::{Cell, Fault, Forgotten, KeyDigest, Row, Rows, SeenRow, Value, day_of, left_out, values_digest};
use crate::postgres::backfill::result_reader;
use crate::postgres::backfill::result_reader::{ResultRows, ResultSelection};
use crate::postgres::catalog::result;
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::connection::session::Session;
use crate::runtime::diff_event::{DiffProgress, PieceFate};
use crate::state::{DiffRun, Store};

/// Text bytes that a piece aims at.
const CHUNK_BYTES: usize = 1 << 20;
/// Rows without an item that a piece has, at most.
const CHUNK_LEFT_OUT: usize = 20_000;

/// Why a pass stopped.
pub(crate) enum PassEnd {
    /// Everything was read.
    Whole,
    /// More is new than may be held back: whether each key is there once must be asked first.
    Unproven,
    /// The sink is slow: the transaction is let go.
    Slow,
    /// Nobody listens any more.
    Unheard,
}

/// What is compared, and how.
pub(crate) struct Comparing {
    pub(crate) selection: ResultSelection,
    /// The digest of the names of the compared columns.
    pub(crate) columns: i64,
    /// The catalog says that each key is there once.
    pub(crate) unique: bool,
    key: Vec<usize>,
    values: Vec<usize>,
    date: Option<usize>,
    /// The digest of the names of the columns that were compared before, and these, where they are others.
    before: Option<(i64, Vec<usize>)>,
    width: usize,
    send_changed: bool,
}

impl Comparing {
    /// What is compared now, beside what was compared `last`; `run` is told of it.
    pub(crate) async fn prepare(
        session: &Session,
        section: &Section,
        table: &TableInfo,
        Before { last, forgotten }: Before<'_>,
        run: &mut DiffRun,
    ) -> Result<Comparing, Fault> {
        let name = &section.name;
        dated(section, table, forgotten)?;
        let key = section.key_columns();
        if let Some(last) = last.filter(|last| last.key != key) {
            return Err(Fault::usage(
                format!("section {name}: its key was ({}), and is ({}) now", last.key.join(", "), key.join(", ")),
                format!(
                    "write the key as it was; or send everything again: `pg2planhat resync {name}`; or give the section \
                     another name"
                ),
            ));
        }
        let mut columns = section.columns();
        let compared = compared(section);
        // By the columns of before it is told what changed; what is settled now is settled by those of now.
        let before = last.map(|last| &last.columns).filter(|before| **before != compared);
        let before = before.filter(|before| before.iter().all(|column| table.column(column).is_some()));
        for column in before.into_iter().flatten().filter(|column| !section.columns().contains(column)) {
            columns.push(column.clone());
        }
        let place = |wanted: &String| columns.iter().position(|column| column == wanted);
        let unique = result::is_unique(session, table, &key).await;
        let unique = unique.map_err(|error| result_reader::fault(session, section, &error, Duration::ZERO))?;
        let diff = section.diff();
        let date = diff.and_then(|diff| diff.within).and(section.date_column()).map(str::to_owned);
        let comparing = Comparing {
            selection: ResultSelection::new(
                section,
                table,
                &columns,
                session,
                last.map(|last| last.started_at.as_str()),
                forgotten,
            ),
            columns: digest_of(&compared),
            unique,
            key: key.iter().filter_map(place).collect(),
            values: compared.iter().filter_map(place).collect(),
            date: date.as_ref().and_then(place),
            before: before.map(|before| (digest_of(before), before.iter().filter_map(place).collect())),
            width: columns.len(),
            send_changed: diff.is_some_and(|diff| diff.send_changed),
        };
        (run.key, run.columns) = (key, compared);
        Ok(comparing)
    }
}

/// What is known of earlier comparisons.
pub(crate) struct Before<'a> {
    pub(crate) last: Option<&'a DiffRun>,
    /// Rows of which it is not known any more whether they were sent.
    pub(crate) forgotten: &'a [Forgotten],
}

/// From when on rows are read at all, where that is later than the section asks for.
pub(crate) fn not_before(section: &Section, forgotten: &[Forgotten], now: jiff::Timestamp) -> Option<String> {
    let within = section.diff().and_then(|diff| diff.within).and_then(|within| now.checked_sub(within).ok());
    let asked = within.zip(section.date_column()).map(|(from, column)| Forgotten::before(column, from));
    let cuts = |rows: &&Forgotten| {
        asked.as_ref().is_none_or(|asked| asked.column != rows.column || asked.before < rows.before)
    };
    forgotten.iter().filter(cuts).map(|rows| rows.before.clone()).max()
}

/// That rows that may have been sent can be told from others by the dates that they had then.
fn dated(section: &Section, table: &TableInfo, forgotten: &[Forgotten]) -> Result<(), Fault> {
    let Some(gone) = forgotten.iter().find(|rows| table.column(&rows.column).is_none()) else { return Ok(()) };
    let (name, Forgotten { column, before }) = (&section.name, gone);
    Err(Fault::usage(
        format!(
            "section {name}: its result has no column {column} any more, and by that it is told which rows of before {before} may \
             have been sent: what is remembered of them was forgotten (`within`)"
        ),
        format!(
            "let the result have the column {column} again, it need not be mapped; or send everything again: \
             `pg2planhat resync {name} --all`"
        ),
    ))
}

/// The columns whose values are compared.
pub(crate) fn compared(section: &Section) -> Vec<String> {
    let key = section.key_columns();
    let mut compared: Vec<String> = section.columns().into_iter().filter(|column| !key.contains(column)).collect();
    compared.sort();
    compared
}

pub(crate) fn digest_of(columns: &[String]) -> i64 {
    xxhash_rust::xxh3::xxh3_64(columns.join("\0").as_bytes()).cast_signed()
}

/// One pass.
pub(crate) struct Pass<'a> {
    pub(crate) section: &'a Section,
    pub(crate) session: &'a Session,
    pub(crate) store: &'a Store,
    pub(crate) comparing: &'a Comparing,
    pub(crate) began: Instant,
    /// Everything up to here was given by passes before.
    pub(crate) after: Option<KeyDigest>,
    /// The section's rules, as they are now.
    pub(crate) rules: &'a Mapping,
    /// Bytes that are held back, where it is not known yet that each key is there once.
    pub(crate) held: Option<usize>,
}

/// What a pass has found and not given yet.
struct PassFinds {
    open: DiffChunk,
    held: Vec<(DiffChunk, DiffRun)>,
    weight: usize,
    /// The last row that was read.
    last: Option<KeyDigest>,
}

impl Pass<'_> {
    /// Reads to the end of the result, or until there is a reason to stop.
    pub(crate) async fn read(
        &self,
        rows: &mut ResultRows,
        seen: &mut SeenCursor,
        under_way: &mut DiffProgress,
    ) -> Result<PassEnd, Fault> {
        let (mut data, mut cells, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
        let mut found = PassFinds { open: self.empty(), held: Vec::new(), weight: 0, last: self.after };
        while let Some(line) = rows.next().await.map_err(|error| self.fault(&error))? {
            data.clear();
            cells.clear();
            rows.fill(&line, &mut data, &mut cells);
            let row = Row { data: &data, cells: &cells };
            let key = self.key_of(&row, found.last)?;
            found.last = Some(key);
            under_way.run.rows += 1;
            let known = self.find(key, seen, under_way).await?;
            let day = self
                .comparing
                .date
                .map_or(0, |date| if let Value::Text(text) = row.get(date) { day_of(text) } else { 0 });
            let now = SeenRow { key, values: values_digest(&row, &self.comparing.values, &mut buffer), day };
            let judged = self.judge(&row, known, now.values, &mut buffer);
            if judged.is_none() && under_way.is_look() {
                under_way.left_out += u64::from(self.leaves_out(&row));
            }
            if let Some(is_changed) = judged {
                if known.is_some() {
                    under_way.run.changed += u64::from(is_changed)
                } else {
                    under_way.run.new += 1
                }
                if is_changed {
                    let copy = |to: &mut Vec<u8>, places: &mut Vec<Cell>| rows.fill(&line, to, places);
                    found.open.rows.push_with(copy);
                    found.open.seen.push(now);
                } else {
                    let stays_out = known.is_some_and(|known| self.was_left_out(&row, known, now.values, &mut buffer));
                    found.open.left_out.push(if stays_out { now.left_out() } else { now });
                }
                let full = found.open.rows.weight() >= CHUNK_BYTES || found.open.left_out.len() >= CHUNK_LEFT_OUT;
                if full && let Some(end) = self.give(&mut found, under_way).await {
                    return Ok(end);
                }
            }
        }
        self.count_gone(seen, under_way).await?;
        Ok(self.give_rest(found, under_way).await)
    }

    /// Whether the row is settled as it is now (`None`); or is to be sent (`true`), or only to be remembered (`false`).
    fn judge(&self, row: &Row<'_>, known: Option<(SeenRow, i64)>, values: u64, buffer: &mut Vec<u8>) -> Option<bool> {
        let Some((known, columns)) = known else { return Some(true) };
        let comparing = self.comparing;
        let was_left_out = self.was_left_out(row, (known, columns), values, buffer);
        let is_taken_now = was_left_out && !self.leaves_out(row);
        if columns == comparing.columns {
            let is_changed = comparing.send_changed && known.values != values && !was_left_out;
            return (is_changed || is_taken_now).then_some(true);
        }
        // Other columns were mapped then. Where they are not there to be compared, the row counts as it is now.
        let by = comparing.before.as_ref().filter(|(before, _)| *before == columns);
        let changed = by.is_some_and(|(_, before)| values_digest(row, before, buffer) != known.values);
        Some(is_taken_now || changed && !was_left_out && comparing.send_changed)
    }

    /// Whether a rule left the row out when it was settled, with the values that it has now.
    fn was_left_out(&self, row: &Row<'_>, known: (SeenRow, i64), values: u64, buffer: &mut Vec<u8>) -> bool {
        let (known, columns) = known;
        if columns == self.comparing.columns {
            return known.values == left_out(values);
        }
        let by = self.comparing.before.as_ref().filter(|(before, _)| *before == columns);
        by.is_some_and(|(_, before)| left_out(values_digest(row, before, buffer)) == known.values)
    }

    fn leaves_out(&self, row: &Row<'_>) -> bool {
        matches!(self.rules.left_out(row), Ok(Some(_)))
    }

    /// The digest of a row's key, which stands behind the one before.
    fn key_of(&self, row: &Row<'_>, last: Option<KeyDigest>) -> Result<KeyDigest, Fault> {
        let (name, columns) = (&self.section.name, self.section.key_columns().join(", "));
        let Some(key) = KeyDigest::of_row(row, &self.comparing.key) else {
            return Err(Fault::usage(
                format!("section {name}: a row of the result has no key: one of ({columns}) is NULL"),
                "leave such rows out of the result, or choose another key; nothing of this comparison was sent",
            ));
        };
        match last {
            Some(last) if last == key => {
                let text = self.comparing.key.iter().map(|column| match row.get(*column) {
                    Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
                    Value::Null | Value::Oversize | Value::Unknown => String::new(),
                });
                Err(twins(self.section, &text.collect::<Vec<_>>().join(",")))
            }
            Some(last) if last >= key => Err(Fault::bug(format!("section {name}: its result is out of order"))),
            Some(_) | None => Ok(key),
        }
    }

    /// The settled row of this key. Those before it are in the result no more.
    async fn find(
        &self,
        key: KeyDigest,
        seen: &mut SeenCursor,
        under_way: &mut DiffProgress,
    ) -> Result<Option<(SeenRow, i64)>, Fault> {
        loop {
            match seen.peek() {
                NextSeen::Row(row, columns) if row.key == key => {
                    seen.advance();
                    return Ok(Some((row, columns)));
                }
                NextSeen::Row(row, _) if row.key < key => self.skip(row, seen, under_way),
                NextSeen::Row(..) | NextSeen::End => return Ok(None),
                NextSeen::Unread => self.load(seen).await?,
            }
        }
    }

    async fn count_gone(&self, seen: &mut SeenCursor, under_way: &mut DiffProgress) -> Result<(), Fault> {
        loop {
            match seen.peek() {
                NextSeen::Row(row, _) => self.skip(row, seen, under_way),
                NextSeen::End => return Ok(()),
                NextSeen::Unread => self.load(seen).await?,
            }
        }
    }

    /// Passes over a settled row that the result does not have; one that a pass before went by is counted there.
    fn skip(&self, row: SeenRow, seen: &mut SeenCursor, under_way: &mut DiffProgress) {
        seen.advance();
        if self.after.is_none_or(|after| row.key > after) {
            under_way.run.gone += 1;
        }
    }

    async fn load(&self, seen: &mut SeenCursor) -> Result<(), Fault> {
        let heads = seen.unread();
        let blocks = self.store.seen_blocks(&self.section.name, &heads).await.map_err(|error| error.fault())?;
        if blocks.len() != heads.len() {
            let what = format!("section {}: what was settled of it changed while it was compared", self.section.name);
            return Err(Fault::unavailable(what, "it is compared again by itself"));
        }
        seen.give(blocks);
        Ok(())
    }

    /// Gives the open piece, or holds it back where it is not known yet that each key is there once.
    async fn give(&self, found: &mut PassFinds, under_way: &mut DiffProgress) -> Option<PassEnd> {
        let chunk = std::mem::replace(&mut found.open, self.empty());
        let counted = under_way.run.clone();
        if let Some(most) = self.held {
            found.weight += chunk.weight();
            found.held.push((chunk, counted));
            return (found.weight > most).then_some(PassEnd::Unproven);
        }
        give(chunk, counted, under_way).await
    }

    /// Gives what is left at the end: now it is known that each key was there once.
    async fn give_rest(&self, found: PassFinds, under_way: &mut DiffProgress) -> PassEnd {
        let last = (found.open, under_way.run.clone());
        for (chunk, counted) in found.held.into_iter().chain([last]) {
            if let Some(end) = give(chunk, counted, under_way).await {
                return end;
            }
        }
        PassEnd::Whole
    }

    fn empty(&self) -> DiffChunk {
        DiffChunk { rows: Rows::new(self.comparing.width), ..DiffChunk::default() }
    }

    fn fault(&self, error: &tokio_postgres::Error) -> Fault {
        result_reader::fault(self.session, self.section, error, self.began.elapsed())
    }
}

/// Gives a piece; why the pass stops with it, where it does.
async fn give(chunk: DiffChunk, found: DiffRun, under_way: &mut DiffProgress) -> Option<PassEnd> {
    let through = chunk.through()?;
    match under_way.give(chunk, through, found).await {
        PieceFate::Taken => None,
        PieceFate::Slow => Some(PassEnd::Slow),
        PieceFate::Unheard => Some(PassEnd::Unheard),
    }
}

/// The fault of a key that two rows have.
pub(crate) fn twins(section: &Section, key: &str) -> Fault {
    let (name, columns) = (&section.name, section.key_columns().join(", "));
    Fault::usage(
        format!("section {name}: two rows of the result have the key ({columns}) = ({key})"),
        "make the key unique in the result (GROUP BY, DISTINCT ON), or add columns to `key`; nothing of this comparison \
         was sent",
    )
}
