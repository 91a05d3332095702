//! Reading a key range: `COPY (SELECT …) TO STDOUT`, given away in chunks while it is read.
//!
//! * In: a section's [`Selection`], and the range.
//! * Out: [`TableChunk`]s in key order, with the WAL position that the stream must have passed before they may be used.
//! * Never: a snapshot that waits for whoever uses the chunks; a chunk much larger than was asked; a row unseen because the table
//!   was rewritten behind the snapshot.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use futures_util::future::join;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, CopyOutStream, Error};

use crate::model::{Column, Key, Lsn, Rows};
use crate::postgres::backfill::former_keys::FormerKeys;
use crate::postgres::backfill::selection::{SESSION, Selection, counted};
use crate::postgres::backfill::table_lock::TableLock;
use crate::postgres::catalog::types::Types;
use crate::postgres::connection::session::{Session, first_value};

/// A chunk as read.
#[derive(Debug)]
pub(crate) struct TableChunk {
    /// Rows in key order.
    pub rows: Rows,
    /// The columns, where they are not of the types any more that the section's mapping was compiled for.
    pub changed: Option<Vec<Column>>,
    /// Keys as they were printed when the section was attached.
    pub former: FormerKeys,
    /// Taken behind the snapshot that shows the rows: they were committed before.
    pub wait_for: Lsn,
    /// The range ends with them: the last one has the range's last key, or nothing was behind it.
    pub last: bool,
    /// Where the range ends: how many rows the table has in the whole of it; `None` where that would take too long.
    pub range_rows: Option<u64>,
}

/// Where a range began: behind a key, or at the first one.
#[derive(Clone, Debug)]
pub(crate) struct WholeRange {
    pub after: Option<Key>,
}

/// Text bytes that a chunk aims at, where memory allows.
pub(crate) const CHUNK_BYTES: usize = 512 << 10;
/// Text bytes and time that one COPY aims at: its beginning and its end cost a few round trips, and its snapshot keeps VACUUM
/// from the rows that are deleted meanwhile.
const COPY_BYTES: usize = 32 << 20;
const COPY_TIME: Duration = Duration::from_secs(1);
/// Rows of the first COPY, before a row's size is known.
const FIRST_ROWS: usize = 16;
/// How many times the rows of the last one a COPY may ask for: rows may grow along a table.
const GROWTH: usize = 32;

/// Reads one range, COPY by COPY, each in a transaction of its own.
pub(crate) struct RangeReader<'s> {
    client: &'s Session,
    selection: &'s Selection,
    through: &'s Key,
    whole: Option<&'s WholeRange>,
    types: Types,
    lock: TableLock,
    /// How many rows the next COPY asks for, and how many the last one gave.
    limit: usize,
    given: usize,
    copy: Option<OpenCopy>,
}

/// A COPY under way.
struct OpenCopy {
    lines: Pin<Box<CopyOutStream>>,
    after: Option<Key>,
    changed: Option<Vec<Column>>,
    /// Known before the rows where the transaction has one snapshot.
    wait_for: Option<Lsn>,
    has_former_keys: bool,
    began: Instant,
    limit: usize,
    /// Rows and bytes that were given away.
    rows: usize,
    bytes: usize,
    last_key: Option<Key>,
    /// What is left of it is thrown away.
    is_cut: bool,
}

/// What became of a table that was to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RangeOpened {
    Reading,
    /// Another table has its name now.
    OtherTable,
}

impl<'s> RangeReader<'s> {
    /// Makes the session one that reads ranges. The range ends with `through`; `whole` is where it began, so that its rows are
    /// counted at its end. Unless the chunks of a COPY may be given away before its end, each COPY is one chunk. `first` is how
    /// many rows the first one asks for, where rows of the range were read before.
    pub(crate) async fn begin(
        client: &'s Session,
        selection: &'s Selection,
        (through, whole): (&'s Key, Option<&'s WholeRange>),
        early: bool,
        first: Option<usize>,
    ) -> Result<RangeReader<'s>, Error> {
        let may_lock = format!("SELECT pg_catalog.has_table_privilege({}::oid, 'SELECT')", selection.table.1);
        let answer = client.simple_query(&format!("{SESSION}; {may_lock}")).await?;
        // SELECT on some columns is enough to read them, and not for LOCK TABLE.
        let by_name = early && first_value(&answer).as_deref() == Some("t");
        let lock = if by_name { TableLock::ByName } else { TableLock::ByReading };
        let types = Types::load(client).await?;
        let limit = first.unwrap_or(FIRST_ROWS);
        Ok(RangeReader { client, selection, through, whole, types, lock, limit, given: limit, copy: None })
    }

    /// How many rows the next COPY asks for.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether a COPY is under way, and chunks of it may be read.
    pub(crate) fn is_open(&self) -> bool {
        self.copy.is_some()
    }

    /// Begins a COPY of the rows behind `after`.
    ///
    /// # Errors
    /// Where a statement fails. The session is of no use then: its transaction is open.
    pub(crate) async fn open(&mut self, after: Option<&Key>) -> Result<RangeOpened, Error> {
        let (client, selection, limit) = (self.client, self.selection, self.limit);
        let sql = format!("COPY ({}) TO STDOUT{}", selection.sql(after, self.through, limit), client.copy_option());
        // One round trip for the lock and for the COPY's preparation: the server does them in this order.
        let (locked, statement) = join(selection.lock(client, self.lock), client.prepare(&sql)).await;
        let locked = locked?;
        if !locked.is_same {
            return Ok(RangeOpened::OtherTable);
        }
        if !locked.oids.iter().all(|oid| self.types.knows(*oid)) {
            self.types.learn(client, &locked.oids).await?;
        }
        let has_former_keys = selection.has_former_keys(&locked);
        let lines = Box::pin(client.copy_out(&statement?).await?);
        self.copy = Some(OpenCopy {
            lines,
            after: after.cloned(),
            changed: selection.changed(&self.types, &locked.oids),
            // Former keys are asked for behind the rows, chunk by chunk.
            wait_for: locked.snapshot_at.filter(|_| !has_former_keys),
            has_former_keys,
            began: Instant::now(),
            limit,
            rows: 0,
            bytes: 0,
            last_key: None,
            is_cut: false,
        });
        Ok(RangeOpened::Reading)
    }

    /// The next chunk of the COPY that is under way, of about `aim` bytes; it may have no rows, where the COPY ends.
    ///
    /// # Errors
    /// Where a statement fails. The session is of no use then: its transaction is open.
    pub(crate) async fn next(&mut self, aim: usize) -> Result<Option<TableChunk>, Error> {
        let Some(copy) = &mut self.copy else { return Ok(None) };
        let (mut rows, charset) = (self.selection.no_rows(), self.client.charset().map(Arc::as_ref));
        while let Some(line) = copy.lines.try_next().await? {
            if copy.is_cut {
                continue;
            }
            self.selection.push_line(&mut rows, &line, charset);
            if rows.weight() < aim {
                continue;
            }
            if let Some(wait_for) = copy.wait_for {
                copy.count(&rows, self.selection);
                let (changed, former) = (copy.changed.clone(), FormerKeys::new());
                return Ok(Some(TableChunk { rows, changed, former, wait_for, last: false, range_rows: None }));
            }
            // What is left of it is still sent, and thrown away unread: memory stays bounded.
            copy.is_cut = rows.weight() >= 2 * aim;
        }
        let Some(mut copy) = self.copy.take() else { return Ok(None) };
        copy.count(&rows, self.selection);
        self.pace(&copy, if copy.wait_for.is_some() { COPY_BYTES } else { aim });
        self.end(copy, rows).await.map(Some)
    }

    /// Asks for no more rows than the last COPY gave: whoever uses the chunks takes their time.
    pub(crate) fn slow_down(&mut self) {
        self.limit = self.limit.min(self.given.max(1));
    }

    /// Gives the rest of the COPY up, so that its snapshot goes: whoever uses the chunks rests.
    pub(crate) async fn give_up(&mut self) -> Result<(), Error> {
        let Some(mut copy) = self.copy.take() else { return Ok(()) };
        self.given = copy.rows;
        self.slow_down();
        while copy.lines.try_next().await?.is_some() {}
        self.client.batch_execute("COMMIT").await
    }

    /// How many rows the next COPY asks for, by what this one was like.
    fn pace(&mut self, copy: &OpenCopy, most: usize) {
        if copy.rows == 0 {
            return;
        }
        self.given = copy.rows;
        let by_bytes = most / (copy.bytes / copy.rows).max(1);
        let took = copy.began.elapsed().max(Duration::from_millis(1));
        let by_time = copy.rows.saturating_mul(millis(COPY_TIME)) / millis(took);
        self.limit = by_bytes.min(by_time).clamp(1, copy.rows.saturating_mul(GROWTH));
    }

    /// The last chunk of a COPY: whether the range ends with it.
    async fn end(&self, copy: OpenCopy, rows: Rows) -> Result<TableChunk, Error> {
        let (client, selection) = (self.client, self.selection);
        let OpenCopy { after, changed, wait_for, last_key, .. } = copy;
        let former = match &last_key {
            Some(last) if copy.has_former_keys => selection.former_keys(client, after.as_ref(), last).await?,
            Some(_) | None => FormerKeys::new(),
        };
        let counts = self.whole.filter(|_| selection.only.is_empty());
        let last = match last_key {
            // Where the range is counted, that is done behind its last row, which need not wait for it: by one more COPY.
            Some(key) if key == *self.through => counts.is_none(),
            Some(_) if copy.is_cut || copy.rows >= copy.limit => false,
            key => selection.is_empty(client, key.as_ref().or(after.as_ref()), self.through).await?,
        };
        let range_rows = match counts.filter(|_| last) {
            Some(whole) => count_range(client, selection, whole.after.as_ref(), self.through).await?,
            None => None,
        };
        let end = client.simple_query("SELECT pg_catalog.pg_current_wal_insert_lsn(); COMMIT").await?;
        // A position that could not be read is one that no stream reaches.
        let behind = || first_value(&end).and_then(|lsn| lsn.parse().ok()).unwrap_or(Lsn(u64::MAX));
        Ok(TableChunk { rows, changed, former, wait_for: wait_for.unwrap_or_else(behind), last, range_rows })
    }
}

impl OpenCopy {
    /// These rows are given away.
    fn count(&mut self, rows: &Rows, selection: &Selection) {
        self.rows += rows.len();
        self.bytes += rows.weight();
        if !rows.is_empty() {
            self.last_key = selection.last_key(rows);
        }
    }
}

/// Counts the rows in (`after`, `through`], within the transaction that is open; `None` where that takes over a minute: the
/// audit at the backfill's end looks at every key, in chunks.
async fn count_range(
    client: &Client,
    selection: &Selection,
    after: Option<&Key>,
    through: &Key,
) -> Result<Option<u64>, Error> {
    client
        .batch_execute("SAVEPOINT counted; SET LOCAL statement_timeout = '60s'; SET LOCAL enable_seqscan = on")
        .await?;
    let sql = format!("SELECT count(*) FROM {} WHERE {}", selection.from, selection.range(after, through));
    let rows = match counted(client, &sql).await {
        Ok(rows) => Some(rows),
        Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => None,
        Err(error) => return Err(error),
    };
    client.batch_execute("ROLLBACK TO SAVEPOINT counted").await?;
    Ok(rows)
}

fn millis(duration: Duration) -> usize {
    usize::try_from(duration.as_millis()).unwrap_or(usize::MAX)
}
