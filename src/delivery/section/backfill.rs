//! A key range that is read beside the stream: a backfill or a re-sync. Pure.
//!
//! One rule: the stream delivers every insert that it sees, and the range yields to it. So the range remembers which keys
//! the stream has brought since the section attached: all of them, for which lie within the range only the server knows.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::delivery::key_set::KeySet;
use crate::mapping::Mapping;
use crate::model::{Key, Lsn, Phase, Rows};
use crate::state::{BackfillProgress, SectionPhase};

/// A piece of the range, as read; its rows may be used when the stream has been read past `wait_for`.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Its rows, in key order.
    pub rows: Rows,
    /// How they become items, where the table's types are not those of the section's mapping any more.
    pub mapping: Option<Rc<Mapping>>,
    /// `pg_current_wal_insert_lsn()`, taken after the rows were read: what they show was committed before.
    pub wait_for: Lsn,
    /// The range ends here.
    pub last: bool,
}

/// A range under way.
#[derive(Debug)]
pub struct BackfillQueue {
    /// `Backfill` or `Resync`.
    pub phase: Phase,
    /// Everything up to here is settled.
    pub cursor: Option<Key>,
    /// The last key; unknown until the fence has passed.
    pub ceiling: Option<Key>,
    /// Rows settled.
    pub rows: u64,
    /// Rows expected, by the planner's estimate.
    pub estimated: u64,
    /// Only rows of this transaction (64-bit xid) and later ones.
    pub xmin_floor: Option<u64>,
    streamed: KeySet,
    chunks: VecDeque<Chunk>,
    dirty: bool,
}

impl BackfillQueue {
    /// A range that begins behind `cursor`; its ceiling comes with the fence.
    pub fn new(phase: Phase, cursor: Option<Key>) -> BackfillQueue {
        BackfillQueue {
            phase,
            cursor,
            ceiling: None,
            rows: 0,
            estimated: 0,
            xmin_floor: None,
            streamed: KeySet::default(),
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
        Ok(BackfillQueue {
            phase,
            cursor: key(&progress.cursor),
            ceiling: key(&progress.ceiling),
            rows: progress.rows,
            estimated: progress.estimated,
            xmin_floor: progress.xmin_floor,
            streamed: KeySet::from_text(&progress.streamed)?,
            chunks: VecDeque::new(),
            dirty: false,
        })
    }

    /// The fence has passed: the range ends at `ceiling`.
    pub fn fenced(&mut self, ceiling: Key, estimated: u64) {
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

    /// Bytes that the chunks hold.
    pub fn weight(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.rows.weight()).sum()
    }

    /// Whether it has changed since it was last written; it is taken as written now.
    pub fn written(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// As the state keeps it.
    pub fn to_phase(&self) -> SectionPhase {
        let progress = BackfillProgress {
            cursor: self.cursor.as_ref().map(ToString::to_string),
            ceiling: self.ceiling.as_ref().map(ToString::to_string),
            streamed: self.streamed.to_text(),
            rows: self.rows,
            estimated: self.estimated,
            xmin_floor: self.xmin_floor,
        };
        if self.phase == Phase::Resync {
            SectionPhase::Resyncing(progress)
        } else {
            SectionPhase::Backfilling(progress)
        }
    }
}
