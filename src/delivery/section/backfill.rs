//! A key range that is read beside the stream: a backfill or a re-sync. Pure.
//!
//! One rule: the stream delivers every insert that it sees, and the range yields to it. So the range remembers which keys
//! the stream has brought since the section attached: all of them, for which lie within the range only the server knows.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use crate::delivery::key_set::KeySet;
use crate::delivery::section::SectionDelivery;
use crate::mapping::Mapping;
use crate::model::{Key, Lsn, Phase, Rows, SectionName};
use crate::state::{BackfillProgress, Op, RangeStart, SectionPhase};

/// A piece of the range, as read; its rows may be used when the stream has been read past `wait_for`.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Its rows, in key order.
    pub rows: Rows,
    /// How they become items, where the table's types are not those of the section's mapping any more.
    pub mapping: Option<Rc<Mapping>>,
    /// The keys of rows as they were printed when the section was attached, where that was otherwise: so the stream brought them.
    pub former: HashMap<String, String>,
    /// `pg_current_wal_insert_lsn()`, taken after the rows were read: what they show was committed before.
    pub wait_for: Lsn,
    /// The range ends here.
    pub last: bool,
    /// Where it ends: how many rows the table had in the whole range, where that was counted.
    pub range_rows: Option<u64>,
}

impl Chunk {
    /// The key as it was printed before.
    pub(crate) fn former_key(&self, key: &[u8]) -> Option<&[u8]> {
        let key = std::str::from_utf8(key).ok()?;
        self.former.get(key).map(String::as_bytes)
    }
}

/// A range under way.
#[derive(Debug)]
pub struct BackfillQueue {
    /// `Backfill` or `Resync`.
    pub phase: Phase,
    /// Everything up to here is settled.
    pub cursor: Option<Key>,
    /// The last key; unknown until the xmin barrier has passed.
    pub ceiling: Option<Key>,
    /// Rows settled.
    pub rows: u64,
    /// Rows expected, by the planner's estimate.
    pub estimated: u64,
    /// Only rows of this transaction (64-bit xid) and later ones.
    pub xmin_floor: Option<u64>,
    /// Where the range begins.
    pub from: RangeStart,
    streamed: KeySet,
    /// The whole set of streamed keys is to be written, in the place of what the state has.
    rewrite: bool,
    /// How many rows the table had in the range, once its last chunk was read.
    range_rows: Option<u64>,
    chunks: VecDeque<Chunk>,
    dirty: bool,
}

impl BackfillQueue {
    /// A range that begins behind `cursor`; its ceiling is found behind the xmin barrier.
    pub fn new(phase: Phase, cursor: Option<Key>) -> BackfillQueue {
        BackfillQueue {
            phase,
            from: RangeStart::behind(cursor.as_ref().map(ToString::to_string)),
            cursor,
            ceiling: None,
            rows: 0,
            estimated: 0,
            xmin_floor: None,
            streamed: KeySet::default(),
            rewrite: true,
            range_rows: None,
            chunks: VecDeque::new(),
            dirty: true,
        }
    }

    /// A range that resumes from its checkpoint.
    ///
    /// # Errors
    /// What in the checkpoint cannot be read.
    pub fn resume(phase: Phase, progress: &BackfillProgress) -> Result<BackfillQueue, String> {
        let key = |text: &Option<String>| text.as_deref().map(Key::new);
        let mut streamed = KeySet::from_text(&progress.streamed)?;
        for set in &progress.streamed_sets {
            streamed.read(set)?;
        }
        // The sets become one, and the text that an earlier version wrote goes.
        let rewrite = !streamed.is_empty();
        Ok(BackfillQueue {
            phase,
            cursor: key(&progress.cursor),
            ceiling: key(&progress.ceiling),
            rows: progress.rows,
            estimated: progress.estimated,
            xmin_floor: progress.xmin_floor,
            from: progress.from.clone(),
            streamed,
            rewrite,
            range_rows: None,
            chunks: VecDeque::new(),
            dirty: rewrite,
        })
    }

    /// The xmin barrier has passed: the range ends at `ceiling`.
    pub fn set_end(&mut self, ceiling: Key, estimated: u64) {
        self.ceiling = Some(ceiling);
        self.estimated = estimated;
        self.dirty = true;
    }

    /// The stream has brought a row of this section.
    #[inline]
    pub fn streamed(&mut self, key: &[u8]) {
        if !key.is_empty() {
            self.streamed.insert(key);
            self.dirty = true;
        }
    }

    /// Whether the stream has brought this key, so that the range must leave it out.
    pub fn brought_by_stream(&self, key: &[u8]) -> bool {
        self.streamed.contains(key)
    }

    /// Rows up to and including `cursor` are settled.
    pub fn settle(&mut self, cursor: Key, rows: u64) {
        self.cursor = Some(cursor);
        self.rows += rows;
        self.dirty = true;
    }

    /// The write that records the keys that the stream brought since the last such write.
    pub fn streamed_op(&mut self, section: &SectionName) -> Option<Op> {
        let written = if std::mem::take(&mut self.rewrite) {
            Some(self.streamed.whole())
        } else {
            self.streamed.take_unwritten()
        };
        written.map(|written| Op::Streamed { section: section.clone(), all: written.all, keys: written.keys })
    }

    /// Bytes that the streamed keys hold.
    pub fn streamed_weight(&self) -> usize {
        self.streamed.weight()
    }

    /// The table had so many rows in the range when its last chunk was read.
    pub(crate) fn count_range(&mut self, rows: Option<u64>) {
        self.range_rows = rows;
    }

    /// Rows of the range that are neither settled by this backfill nor brought by the stream, as far as counts can tell; its
    /// last batch settles so many.
    pub(crate) fn rows_at_end(&self, last: u64) -> u64 {
        let accounted = (self.rows + last).saturating_add(self.streamed.len());
        self.range_rows.map_or(0, |rows| rows.saturating_sub(accounted))
    }

    /// A chunk was read.
    pub fn push_chunk(&mut self, chunk: Chunk) {
        self.chunks.push_back(chunk);
    }

    /// The next chunk, once the stream has been read past it.
    pub fn pop_chunk(&mut self, received: Lsn) -> Option<Chunk> {
        if self.chunks.front()?.wait_for > received {
            return None;
        }
        self.chunks.pop_front()
    }

    /// What the oldest chunk waits for.
    pub fn waits_for(&self) -> Option<Lsn> {
        self.chunks.front().map(|chunk| chunk.wait_for)
    }

    /// Chunks that wait.
    pub fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// The chunks are read again.
    pub(crate) fn forget_chunks(&mut self) {
        self.chunks.clear();
        self.range_rows = None;
    }

    /// Bytes that the chunks hold.
    pub fn weight(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.rows.weight()).sum()
    }

    /// Whether it has changed since it was last written; it is taken as written now.
    pub fn written(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// How far it is, as the state keeps it.
    pub fn progress(&self) -> BackfillProgress {
        BackfillProgress {
            cursor: self.cursor.as_ref().map(ToString::to_string),
            ceiling: self.ceiling.as_ref().map(ToString::to_string),
            from: self.from.clone(),
            resumes: true,
            streamed: String::new(),
            streamed_sets: Vec::new(),
            rows: self.rows,
            estimated: self.estimated,
            xmin_floor: self.xmin_floor,
        }
    }

    /// As the state keeps it.
    pub fn to_phase(&self) -> SectionPhase {
        let progress = self.progress();
        if self.phase == Phase::Resync {
            SectionPhase::Resyncing(progress)
        } else {
            SectionPhase::Backfilling(progress)
        }
    }
}

impl SectionDelivery {
    /// Whether chunks of its backfill may become batches: not too far ahead of the sink, and not while it takes no streamed
    /// rows, for then it does not see which keys the stream brings.
    pub fn takes_chunks(&self) -> bool {
        let ahead = usize::try_from(self.limits.bytes).unwrap_or(usize::MAX);
        !self.flow.is_paused() && self.flow.takes_rows() && !self.stream_waits && self.backfilled.weight() < ahead
    }

    /// Takes the rows of the next chunk of its backfill, once the stream has been read past it. Returns whether it did.
    pub fn take_chunk(&mut self, received: Lsn, now: Duration) -> bool {
        let Some(mapping) = self.table_mapping.clone().filter(|_| self.takes_chunks()) else { return false };
        let Some(chunk) = self.backfill.as_mut().and_then(|backfill| backfill.pop_chunk(received)) else {
            return false;
        };
        let mapping = chunk.mapping.clone().unwrap_or(mapping);
        self.admit_chunk(&mapping, &chunk, now);
        true
    }

    /// A chunk of its backfill was read.
    pub fn push_chunk(&mut self, chunk: Chunk) {
        if let Some(backfill) = &mut self.backfill {
            backfill.push_chunk(chunk);
        }
    }
}
