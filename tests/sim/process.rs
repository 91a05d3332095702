//! One life of the program: the engine, and around it what the event loop is: the stream, the backfills' readers, the
//! requests, the writer. It begins from the state as `runtime/event_loop/build.rs` does, and a crash leaves nothing of it.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use pg2planhat::testing::config::Section as Configured;
use pg2planhat::testing::delivery::{BackfillQueue, Chunk, SectionDelivery, Trouble};
use pg2planhat::testing::delivery::{Engine, Route, Settings};
use pg2planhat::testing::mapping::Mapping;
use pg2planhat::testing::model::{Cell, Key, Lsn, Phase, Position, Row, Rows, SectionId};
use pg2planhat::testing::runtime::{in_doubt, position};
use pg2planhat::testing::state::{Attachment, Op, RangeStart, Rules, SectionPhase, SectionRow};

use super::server::{Server, TABLES, TableRow, Walsender};
use super::state::State;

/// A request under way.
#[derive(Debug)]
pub struct Request {
    pub section: SectionId,
    pub id: i64,
    pub body: Bytes,
}

/// What reads one section's backfill.
#[derive(Debug)]
pub struct Reader {
    pub barrier: Option<BTreeSet<u64>>,
    pub cursor: Option<i64>,
    pub ceiling: Option<i64>,
    /// A chunk as a snapshot showed it; its WAL position is taken later.
    pub read: Option<(Vec<TableRow>, bool)>,
    pub done: bool,
}

/// A section as configured, with its mapping and its table.
#[derive(Debug)]
pub struct Setting {
    pub section: Configured,
    pub mapping: Rc<Mapping>,
    pub table: usize,
}

pub struct Process {
    pub engine: Engine,
    /// Which of the settings each section of the engine has.
    pub sections: Vec<usize>,
    pub stream: Option<Walsender>,
    pub requests: Vec<Request>,
    pub lists: VecDeque<(u64, Vec<Op>)>,
    /// Lists that are durable, of which the engine has not heard.
    pub acks: VecDeque<u64>,
    /// Confirmations on the wire.
    pub confirms: VecDeque<Lsn>,
    pub readers: Vec<Option<Reader>>,
    pub retrying: HashSet<i64>,
    /// Attaches without waiting for anybody: what the schedules must notice.
    pub hasty: bool,
    /// Sections that are not attached, and the writers of their table whose end they wait for, once those were looked for.
    pub waiting: HashMap<usize, Option<BTreeSet<u64>>>,
    /// Behind which the stream carries the rows of those that can be attached.
    pub carried_at: HashMap<usize, Lsn>,
    /// Sections whose mapping does not fit their table.
    pub misfits: HashSet<usize>,
    pub draining: bool,
    /// Rows of each section whose fate stays unknown.
    pub unresolved: Vec<u64>,
}

fn section_row(state: &State, name: &str) -> Option<SectionRow> {
    let row = state.sections.get(name)?;
    let mut phase = row.phase.clone();
    if let SectionPhase::Backfilling(progress) | SectionPhase::Resyncing(progress) = &mut phase {
        progress.streamed_sets.clone_from(&row.streamed);
    }
    Some(SectionRow {
        name: name.into(),
        attachment: Attachment {
            table_oid: 0,
            table_name: String::new(),
            kind: String::new(),
            attach_lsn: Some(row.attach),
            columns: Vec::new(),
        },
        attached_at: None,
        phase,
        key: None,
        definition: None,
        rules: Rules::default(),
        writers_from: None,
        position: row.position,
        backfill_rows: 0,
        backfill_estimated: 0,
        backfill_started_at: None,
        totals: row.totals,
        publication_entry: None,
        paused: false,
        halted: None,
        uncounted: false,
        last_delivered_at: None,
        last_audit: None,
    })
}

fn integer(key: Option<&Key>) -> Option<i64> {
    key.map(|key| key.as_str().parse().unwrap())
}

impl Process {
    /// Begins from what the state holds. An unfit section's table is not as its mapping wants it.
    pub fn begin(
        settings: &[Setting],
        state: &State,
        paused: &[bool],
        unfit: Option<usize>,
        budget: usize,
        server: &Server,
    ) -> Process {
        let (mut deliveries, mut sections, mut ops) = (Vec::new(), Vec::new(), Vec::new());
        let mut waiting = HashMap::new();
        for (index, setting) in settings.iter().enumerate() {
            let Some(row) = section_row(state, setting.section.name.as_str()) else {
                let mut delivery = SectionDelivery::new(&setting.section, Position::default());
                delivery.set_table_mapping(Rc::clone(&setting.mapping));
                delivery.set_waiting(Some(Trouble::new("", "")));
                delivery.pause(paused[index], Duration::ZERO);
                waiting.insert(deliveries.len(), None);
                deliveries.push(delivery);
                sections.push(index);
                continue;
            };
            let mut delivery = SectionDelivery::new(&setting.section, position(&row));
            delivery.set_table_mapping(Rc::clone(&setting.mapping));
            delivery.pause(paused[index], Duration::ZERO);
            if unfit == Some(index) {
                delivery.stop(Trouble::new("", ""));
                deliveries.push(delivery);
                sections.push(index);
                continue;
            }
            match &row.phase {
                SectionPhase::Backfilling(progress) => {
                    delivery.resume_backfill(BackfillQueue::resume(Phase::Backfill, progress).unwrap());
                }
                SectionPhase::Resyncing(progress) => {
                    delivery.resume_backfill(BackfillQueue::resume(Phase::Resync, progress).unwrap());
                }
                SectionPhase::Streaming | SectionPhase::Comparing | SectionPhase::Waiting => {}
            }
            let (policy, open) = (setting.section.in_doubt, state.open_deliveries());
            let left = in_doubt::left(&setting.section.name, policy, &open);
            delivery.expect_doubts(left.doubts, left.rows);
            for (id, first, last) in delivery.doubted_keys() {
                let key = |key: &Key| integer(Some(key)).unwrap();
                let rows = server.select(setting.table, Some(key(&first) - 1), key(&last), usize::MAX);
                let keys: Vec<Key> = rows.iter().map(|row| Key::new(row.key.to_string())).collect();
                delivery.set_doubted_rows(id, &keys);
            }
            ops.extend(left.ops);
            deliveries.push(delivery);
            sections.push(index);
        }
        let count = deliveries.len();
        let limits = Settings { budget, halt_probe: Duration::from_secs(60) };
        let mut engine =
            Engine::new(deliveries.into_iter().collect(), state.checkpoint, state.last_delivery + 1, limits);
        engine.record(ops);
        engine.expect_history(state.newest);
        let stream = Walsender::start(server, engine.verifies_from().unwrap_or(state.checkpoint));
        engine.stream_began(stream.begins());
        let mut process = Process {
            engine,
            sections,
            stream: Some(stream),
            requests: Vec::new(),
            lists: VecDeque::new(),
            acks: VecDeque::new(),
            confirms: VecDeque::new(),
            readers: (0..count).map(|_| None).collect(),
            retrying: HashSet::new(),
            hasty: false,
            waiting,
            carried_at: HashMap::new(),
            misfits: HashSet::new(),
            draining: false,
            unresolved: vec![0; count],
        };
        process.set_routes(settings);
        let unfit = process.sections.iter().position(|section| Some(*section) == unfit);
        if let Some(index) = unfit {
            process.misfit(index, settings);
        }
        for index in 0..count {
            process.start_reader(index);
        }
        process
    }

    /// The table no longer fits the section's mapping: the next row of it stops the section.
    pub fn misfit(&mut self, index: usize, settings: &[Setting]) {
        self.misfits.insert(index);
        self.set_routes(settings);
    }

    fn set_routes(&mut self, settings: &[Setting]) {
        for table in 0..TABLES {
            let attached = |(index, section): &(usize, &usize)| {
                settings[**section].table == table && !self.waiting.contains_key(index)
            };
            let routed = self.sections.iter().enumerate().filter(attached);
            let mapping = |index: usize, section: usize| match self.misfits.contains(&index) {
                true => Err(Trouble::new("", "")),
                false => Ok(Rc::clone(&settings[section].mapping)),
            };
            let routes: Vec<Route> = routed
                .map(|(index, section)| Route { section: SectionId(index), mapping: mapping(index, *section) })
                .collect();
            if !routes.is_empty() {
                self.engine.set_routes(table as u32, routes);
            }
        }
    }

    pub fn start_reader(&mut self, index: usize) {
        let Some(backfill) = self.engine.section(SectionId(index)).backfill() else { return };
        let (cursor, ceiling) = (integer(backfill.cursor.as_ref()), integer(backfill.ceiling.as_ref()));
        self.readers[index] = Some(Reader { barrier: None, cursor, ceiling, read: None, done: false });
    }

    /// One step of a section that is not attached, as `runtime/attacher.rs` takes it; what it did, or nothing where it must wait.
    pub fn attach(&mut self, index: usize, settings: &[Setting], server: &Server) -> Option<String> {
        let setting = &settings[self.sections[index]];
        if self.draining {
            return None;
        }
        let writers = self.waiting.get_mut(&index).filter(|_| server.published[setting.table])?;
        let Some(writers) = writers else {
            *writers = Some(server.writers(setting.table));
            return Some(format!("section {index}: waits for the writers {writers:?}"));
        };
        let still = server.writers(setting.table);
        writers.retain(|xid| still.contains(xid));
        if !writers.is_empty() && !self.hasty {
            return None;
        }
        // The stream goes on between the attacher's look at the server and the loop's taking it up.
        let Some(carried_at) = self.carried_at.remove(&index) else {
            self.carried_at.insert(index, Lsn(server.end));
            return Some(format!("section {index}: carried behind {}", server.end));
        };
        self.waiting.remove(&index);
        self.set_routes(settings);
        let at = self.engine.attach(SectionId(index), carried_at);
        let section = self.engine.section_mut(SectionId(index));
        section.set_waiting(None);
        section.resume_backfill(BackfillQueue::new(Phase::Backfill, None));
        let to = Attachment {
            table_oid: 0,
            table_name: String::new(),
            kind: String::new(),
            attach_lsn: Some(at),
            columns: Vec::new(),
        };
        let (section, phase) = (setting.section.name.clone(), section.phase());
        self.engine.record(vec![Op::Attach { section, to, phase }]);
        self.start_reader(index);
        Some(format!("section {index}: attached at {at}"))
    }

    pub fn reconnect(&mut self, server: &Server) {
        self.confirms.clear();
        let from = self.engine.verifies_from().unwrap_or(self.engine.confirmed());
        let stream = Walsender::start(server, from);
        self.engine.stream_restarts();
        self.engine.stream_began(stream.begins());
        self.stream = Some(stream);
    }

    pub fn disconnect(&mut self) {
        self.stream = None;
        self.confirms.clear();
    }

    /// One step of a section's backfill reader; what it did, or nothing where it must wait.
    pub fn read(&mut self, index: usize, table: usize, server: &Server, limit: usize) -> Option<String> {
        let reader = self.readers[index].as_mut().filter(|reader| !reader.done)?;
        let Some(ceiling) = reader.ceiling else {
            let Some(barrier) = &mut reader.barrier else {
                reader.barrier = Some(server.unseen());
                return Some(format!("section {index}: the barrier is set: {:?}", reader.barrier));
            };
            let unseen = server.unseen();
            barrier.retain(|xid| unseen.contains(xid));
            if !barrier.is_empty() {
                return None;
            }
            let greatest = server.select(table, reader.cursor, i64::MAX, usize::MAX).last().map(|row| row.key);
            reader.ceiling = greatest;
            reader.done = greatest.is_none();
            let end = greatest.map(|greatest| (Key::new(greatest.to_string()), 1));
            let ops = self.engine.section_mut(SectionId(index)).set_backfill_end(end);
            self.engine.record(ops);
            return Some(format!("section {index}: the barrier has passed, ceiling {greatest:?}"));
        };
        if let Some((rows, last)) = reader.read.take() {
            reader.cursor = rows.last().map(|row| row.key).or(reader.cursor);
            reader.done = last;
            let keys: Vec<i64> = rows.iter().map(|row| row.key).collect();
            let from = match &self.engine.section(SectionId(index)).backfill().unwrap().from {
                RangeStart::Behind(key) => Some(key.parse().unwrap()),
                RangeStart::First | RangeStart::Unknown => None,
            };
            let range_rows = last.then(|| server.select(table, from, ceiling, usize::MAX).len() as u64);
            let chunk = Chunk {
                rows: chunk_of(&rows),
                mapping: None,
                former: HashMap::new(),
                wait_for: Lsn(server.end),
                last,
                range_rows,
            };
            let told =
                format!("section {index}: chunk {keys:?} waits for {}{}", server.end, if last { ", last" } else { "" });
            self.engine.chunk(SectionId(index), chunk);
            return Some(told);
        }
        if self.engine.section(SectionId(index)).backfill().map_or(0, BackfillQueue::chunks) >= 2 {
            return None;
        }
        let rows = server.select(table, reader.cursor, ceiling, limit);
        let last = rows.len() < limit || rows.last().is_none_or(|row| row.key >= ceiling);
        let told = format!("section {index}: a snapshot of {} rows behind {:?}", rows.len(), reader.cursor);
        reader.read = Some((rows, last));
        Some(told)
    }

    /// Whether nothing at all is under way or waits.
    pub fn is_quiet(&self, server: &Server) -> bool {
        let rests =
            |section: &SectionDelivery| section.is_empty() && section.backfill().is_none() && section.takes_rows();
        self.stream.as_ref().is_some_and(|stream| !stream.has_more(server))
            && self.requests.is_empty()
            && self.lists.is_empty()
            && self.acks.is_empty()
            && self.waiting.is_empty()
            && self.engine.sections().all(|(_, section)| rests(section))
    }
}

/// A row as the wire brings it: its key, and its value or NULL.
pub fn with_row<T>(row: &TableRow, then: impl FnOnce(&Row<'_>) -> T) -> T {
    let data = format!("{}1", row.key);
    let key = u32::try_from(data.len() - 1).unwrap();
    let value = if row.good { Cell::text(key, 1) } else { Cell::NULL };
    then(&Row { data: data.as_bytes(), cells: &[Cell::text(0, key), value] })
}

pub fn chunk_of(rows: &[TableRow]) -> Rows {
    let mut chunk = Rows::new(2);
    for row in rows {
        chunk.push_with(|data, cells| {
            let start = u32::try_from(data.len()).unwrap();
            data.extend_from_slice(row.key.to_string().as_bytes());
            let end = u32::try_from(data.len()).unwrap();
            cells.push(Cell::text(start, end - start));
            data.push(b'1');
            cells.push(if row.good { Cell::text(end, 1) } else { Cell::NULL });
        });
    }
    chunk
}
