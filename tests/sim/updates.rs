//! Updated rows (`on: insert_and_update`): a table whose rows are inserted and updated, two sections over it, one of metrics and
//! one of activities, a backfill beside the stream, a sink that fails, crashes.
//!
//! * Each committed version reaches the sink or the quarantine; of a metric's versions in one batch the last stands for all.
//! * A version comes again only where a request that had it is in doubt, and never behind a newer one otherwise.
//! * In the end the last that the sink has of a row is what the table has.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use pg2planhat::testing::config::{ActivityNames, Section as Configured, parse};
use pg2planhat::testing::delivery::{Action, BackfillQueue, Chunk, Engine, Route, SectionDelivery, Settings};
use pg2planhat::testing::mapping::Mapping;
use pg2planhat::testing::model::{
    Cell, Column, CommitMark, Key, Lsn, Phase, Position, Row, Rows, SectionId, Type, Value,
};
use pg2planhat::testing::planhat::{Answer, Echo, SinkRejection, Verdict};
use pg2planhat::testing::runtime::in_doubt;
use pg2planhat::testing::state::{BackfillProgress, Op, Outcome, RangeStart, SectionPhase, Totals};

use super::state::{Section, State};

/// A version of a row: its key, and a number that grows with each commit.
type Version = (i64, u32);

#[derive(Clone, Debug)]
struct Transaction {
    final_lsn: Lsn,
    end_lsn: Lsn,
    /// Each with its LSN, and whether it is an update.
    changes: Vec<(Lsn, Version, bool)>,
}

#[derive(Debug, Default)]
struct Reader {
    cursor: Option<i64>,
    ceiling: Option<i64>,
    read: Option<(Vec<Version>, bool)>,
    done: bool,
}

struct Life {
    engine: Engine,
    /// The next transaction, and what of it was sent.
    stream: Option<(usize, usize)>,
    requests: Vec<(usize, i64, Bytes)>,
    lists: VecDeque<(u64, Vec<Op>)>,
    acks: VecDeque<u64>,
    readers: Vec<Option<Reader>>,
}

pub struct World {
    dice: Rng,
    trace: bool,
    now: Duration,
    end: u64,
    log: Vec<Transaction>,
    table: BTreeMap<i64, u32>,
    /// What was in the table before the sections were attached, and what of it is still as it was.
    versions: u32,
    state: State,
    sections: Vec<(Configured, Rc<Mapping>)>,
    budget: usize,
    well: u64,
    life: Life,
    /// What the sink has of each section, in order.
    received: Vec<Vec<Version>>,
    /// The last body of each ledger row.
    bodies: HashMap<i64, (usize, Bytes)>,
    /// How many requests with this version of a section's row are in doubt.
    doubted: HashMap<(usize, Version), u32>,
    /// An older version may follow a newer one: such as have been in doubt under a re-send.
    pub versions_sent: u64,
    pub superseded: u64,
}

const NAMES: [&str; 2] = ["m", "a"];

fn sections(dice: &mut Rng) -> Vec<(Configured, Rc<Mapping>)> {
    let mut sections = String::new();
    for name in NAMES {
        let (rows, flush) = (dice.u32(1..=6), dice.choice(&["10ms", "1s"]).unwrap());
        let doubt = if dice.u8(0..3) == 0 { "hold" } else { "resend" };
        let fields = match name {
            "m" => {
                "kind: custom_metric, model: Company, fields: { dimensionId: { value: d }, value: v, externalId: id }"
            }
            _ => "kind: user_activity, fields: { externalId: id, action: { value: d }, weight: v }",
        };
        sections += &format!(
            "  - {{ name: {name}, table: t, key: id, on: insert_and_update, date: receipt, flush: {flush}, in_doubt: {doubt}, \
             batch: {{ rows: {rows}, bytes: 1MiB }}, {fields} }}\n"
        );
    }
    let text = format!("source: {{ host: h, database: d, user: u }}\nplanhat: {{ tenant: t }}\nsections:\n{sections}");
    let columns = [("id", Type::Int), ("v", Type::Int)].map(|(name, ty)| Column { name: name.into(), ty });
    let compiled = |section: Configured| {
        let mapping = Mapping::compile(&section, ActivityNames::Current, &columns).unwrap();
        (section, Rc::new(mapping))
    };
    parse(&text, "simulation").unwrap().sections.into_iter().map(compiled).collect()
}

/// The versions of a request's items, in order.
fn versions_of(body: &[u8]) -> Vec<Version> {
    let items: Vec<serde_json::Value> = serde_json::from_slice(body).unwrap();
    items.iter().map(version_of).collect()
}

fn version_of(item: &serde_json::Value) -> Version {
    let number = item.get("value").or_else(|| item.get("weight")).unwrap_or_else(|| panic!("{item}"));
    (item["externalId"].as_str().unwrap().parse().unwrap(), number.as_u64().unwrap() as u32)
}

fn with_version<T>((key, version): Version, then: impl FnOnce(&Row<'_>) -> T) -> T {
    let (key, version) = (key.to_string(), version.to_string());
    let (first, second) = (key.len() as u32, version.len() as u32);
    let data = key + &version;
    then(&Row { data: data.as_bytes(), cells: &[Cell::text(0, first), Cell::text(first, second)] })
}

impl World {
    pub fn new(seed: u64, trace: bool) -> World {
        let mut dice = Rng::with_seed(seed);
        let (mut table, mut versions) = (BTreeMap::new(), 0);
        for key in 1..=dice.i64(0..15) {
            versions += 1;
            table.insert(key, versions);
        }
        let sections = sections(&mut dice);
        let mut state = State { checkpoint: Lsn(1_000), ..State::default() };
        for name in NAMES {
            let phase = match dice.bool() {
                true => SectionPhase::Backfilling(BackfillProgress {
                    from: RangeStart::First,
                    ..BackfillProgress::default()
                }),
                false => SectionPhase::Streaming,
            };
            let row =
                Section { attach: Lsn(1_000), position: None, phase, streamed: Vec::new(), totals: Totals::default() };
            state.sections.insert(name.to_owned(), row);
        }
        let budget = if dice.bool() { dice.usize(200..1_500) } else { 1 << 20 };
        let well = *dice.choice(&[95, 70, 40]).unwrap();
        let life = begin(&sections, &state, budget, &table, &[]);
        World {
            dice,
            trace,
            now: Duration::ZERO,
            end: 1_000,
            log: Vec::new(),
            table,
            versions,
            state,
            sections,
            budget,
            well,
            life,
            received: vec![Vec::new(); NAMES.len()],
            bodies: HashMap::new(),
            doubted: HashMap::new(),
            versions_sent: 0,
            superseded: 0,
        }
    }

    fn tell(&self, text: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>9.3} {}", self.now.as_secs_f64(), text());
        }
    }

    /// To the end; how many versions were sent, and for how many a newer one stood.
    pub fn run(mut self) -> (u64, u64) {
        // Which of the rows that were there must come: those of a section that backfills them.
        let backfilled: Vec<bool> =
            NAMES.iter().map(|name| self.state.sections[*name].phase != SectionPhase::Streaming).collect();
        let before: Vec<Version> = self.table.iter().map(|(key, version)| (*key, *version)).collect();
        for _ in 0..self.dice.usize(30..300) {
            self.step(true);
        }
        let mut calm = 0;
        while !self.is_quiet() {
            calm += 1;
            assert!(calm < 20_000, "nothing comes to rest: {:?}", self.life.engine.sections().collect::<Vec<_>>());
            self.step(false);
        }
        for (section, backfills) in backfilled.iter().enumerate() {
            let streamed = self.log.iter().flat_map(|one| one.changes.iter().map(|(_, version, _)| *version));
            for version in streamed.collect::<Vec<_>>() {
                self.is_settled(section, version, None);
            }
            for (key, version) in before.iter().filter(|_| *backfills) {
                self.is_settled(section, (*key, *version), None);
            }
            let touched = |key: &i64| {
                *backfills || self.log.iter().any(|one| one.changes.iter().any(|(_, version, _)| version.0 == *key))
            };
            for (key, version) in self.table.iter().filter(|(key, _)| touched(key)) {
                let last = self.received[section].iter().rev().find(|one| one.0 == *key);
                let is_last = last == Some(&(*key, *version)) || self.is_held(section, (*key, *version));
                assert!(is_last, "section {section}: row {key} is {version} in the table, the sink's last is {last:?}");
            }
        }
        (self.versions_sent, self.superseded)
    }

    fn is_held(&self, section: usize, version: Version) -> bool {
        let of_it = self.state.quarantine.values().filter(|row| row.section.as_str() == NAMES[section]);
        of_it.map(|row| version_of(&serde_json::from_str(&row.item).unwrap())).any(|held| held == version)
    }

    /// A version has come, or is in quarantine; or a newer one of its row, of a metric. Where the slot is confirmed up to an LSN,
    /// the newer one may be behind it: that one comes, then.
    fn is_settled(&mut self, section: usize, (key, version): Version, confirmed: Option<Lsn>) {
        let came = |one: &Version| one.0 == key && one.1 == version;
        if self.received[section].iter().any(came) || self.is_held(section, (key, version)) {
            return;
        }
        let newer: Vec<Version> = (version + 1..=self.versions).map(|newer| (key, newer)).collect();
        let stands = newer.iter().any(|one| self.received[section].contains(one) || self.is_held(section, *one));
        let comes = |one: &Transaction| {
            confirmed.is_some_and(|at| one.end_lsn > at) && one.changes.iter().any(|(_, one, _)| newer.contains(one))
        };
        let stands = stands || self.log.iter().any(comes);
        // A backfill reads a row as it is; and a metric's older version goes with the newer one of its batch.
        let is_old = version <= 15;
        assert!(
            stands && (section == 0 || is_old),
            "section {section}: version {version} of row {key} is missing (confirmed: {confirmed:?})"
        );
        self.superseded += 1;
    }

    fn step(&mut self, wild: bool) {
        self.now += Duration::from_millis(self.dice.u64(0..40));
        match self.dice.u8(0..100) {
            0..=14 if wild => self.write(),
            15..=39 => self.stream(),
            40..=49 => self.read(),
            50..=64 => self.make_durable(),
            65..=74 => self.acknowledge(),
            75..=89 => self.answer(wild),
            90..=91 if wild => self.crash(),
            92..=93 if wild => self.life.stream = None,
            94..=95 => self.now += Duration::from_secs(self.dice.u64(0..120)),
            _ => self.reconnect(),
        }
        self.life.engine.pump(self.now);
        self.act();
    }

    /// A transaction commits.
    fn write(&mut self) {
        let mut changes = Vec::new();
        for _ in 0..self.dice.usize(1..=5) {
            self.end += self.dice.u64(1..50);
            self.versions += 1;
            let keys: Vec<i64> = self.table.keys().copied().collect();
            let update = !keys.is_empty() && self.dice.u8(0..4) > 0;
            let key = if update { *self.dice.choice(&keys).unwrap() } else { keys.last().map_or(1, |key| key + 1) };
            self.table.insert(key, self.versions);
            changes.push((Lsn(self.end), (key, self.versions), update));
        }
        let final_lsn = Lsn(self.end + 1);
        self.end += 10;
        self.tell(|| format!("commit at {final_lsn}: {changes:?}"));
        self.log.push(Transaction { final_lsn, end_lsn: Lsn(self.end), changes });
    }

    fn stream(&mut self) {
        let Some((at, sent)) = self.life.stream else { return };
        if !self.life.engine.wants_rows() {
            return;
        }
        let Some(one) = self.log.get(at) else { return self.life.engine.keepalive(Lsn(self.end)) };
        self.life.stream = Some((at, sent + 1));
        match sent.checked_sub(1).map(|index| one.changes.get(index)) {
            None => self.life.engine.begin(one.final_lsn, one.mark()),
            Some(Some((lsn, version, update))) => with_version(*version, |row| match update {
                true => self.life.engine.update(0, *lsn, (row, None), self.now),
                false => self.life.engine.insert(0, *lsn, row, self.now),
            }),
            Some(None) => {
                self.life.engine.commit(one.end_lsn);
                self.life.stream = Some((at + 1, 0));
            }
        }
    }

    /// One step of a backfill's reader.
    fn read(&mut self) {
        let index = self.dice.usize(0..NAMES.len());
        let (id, limit) = (SectionId(index), self.dice.usize(1..5));
        let Some(reader) = self.life.readers[index].as_mut().filter(|reader| !reader.done) else { return };
        let Some(ceiling) = reader.ceiling else {
            let last = self.table.keys().next_back().copied();
            (reader.ceiling, reader.done) = (last, last.is_none());
            let end = last.map(|last| (Key::new(last.to_string()), 1));
            let ops = self.life.engine.section_mut(id).set_backfill_end(end);
            return self.life.engine.record(ops);
        };
        if let Some((rows, last)) = reader.read.take() {
            reader.cursor = rows.last().map(|row| row.0).or(reader.cursor);
            reader.done = last;
            let range_rows = last.then(|| self.table.range(..=ceiling).count() as u64);
            let mut chunk = Rows::new(2);
            for row in &rows {
                with_version(*row, |row| {
                    chunk.push_with(|data, cells| {
                        let start = data.len() as u32;
                        data.extend_from_slice(row.data);
                        let lengths = [row.get(0), row.get(1)].map(|value| match value {
                            Value::Text(text) => text.len() as u32,
                            Value::Null | Value::Oversize | Value::Unknown => 0,
                        });
                        cells.push(Cell::text(start, lengths[0]));
                        cells.push(Cell::text(start + lengths[0], lengths[1]));
                    });
                });
            }
            let chunk =
                Chunk { rows: chunk, mapping: None, former: HashMap::new(), wait_for: Lsn(self.end), last, range_rows };
            self.life.engine.chunk(id, chunk);
            return self.tell(|| format!("section {index}: chunk {rows:?}"));
        }
        if self.life.engine.section(id).backfill().map_or(0, BackfillQueue::chunks) >= 2 {
            return;
        }
        let behind = reader.cursor.map_or(i64::MIN, |cursor| cursor + 1);
        let range = self.table.range(behind..=ceiling).take(limit);
        let rows: Vec<Version> = range.map(|(key, version)| (*key, *version)).collect();
        let last = rows.len() < limit || rows.last().is_none_or(|row| row.0 >= ceiling);
        reader.read = Some((rows, last));
    }

    fn make_durable(&mut self) {
        if let Some((number, ops)) = self.life.lists.pop_front() {
            self.state.apply(&ops);
            self.life.acks.push_back(number);
        }
    }

    fn acknowledge(&mut self) {
        if let Some(number) = self.life.acks.pop_front() {
            self.life.engine.durable(number);
        }
    }

    fn reconnect(&mut self) {
        if self.life.stream.is_none() {
            self.life.engine.stream_restarts();
            self.life.stream = Some((begin_stream(&mut self.life.engine, &self.log), 0));
        }
    }

    fn crash(&mut self) {
        for (section, id, body) in std::mem::take(&mut self.life.requests) {
            // It is in the ledger: in doubt at the next start.
            self.doubt(section, &body);
            self.bodies.remove(&id);
            if self.dice.bool() {
                self.tell(|| format!("stored as the process ends: {id}"));
                self.store(section, &body, &[]);
            }
        }
        // The server may have written what the process has not heard of.
        while self.dice.bool() && !self.life.lists.is_empty() {
            self.make_durable();
        }
        // What was answered, and its answer is not written: in doubt just so.
        let open = self.state.ledger.iter().filter(|(_, row)| row.outcome == Outcome::Sending && row.under_way);
        let open: Vec<i64> = open.map(|(id, _)| *id).collect();
        for (section, body) in open.iter().filter_map(|id| self.bodies.remove(id)).collect::<Vec<_>>() {
            self.doubt(section, &body);
        }
        self.tell(|| "crash".into());
        self.life = begin(&self.sections, &self.state, self.budget, &self.table, &self.log);
    }

    fn doubt(&mut self, section: usize, body: &[u8]) {
        for version in versions_of(body) {
            *self.doubted.entry((section, version)).or_default() += 1;
        }
    }

    fn store(&mut self, section: usize, body: &[u8], but: &[usize]) {
        for (_, version) in versions_of(body).into_iter().enumerate().filter(|(at, _)| !but.contains(at)) {
            let doubts = self.doubted.get(&(section, version)).copied().unwrap_or(0);
            let before = self.received[section].iter().filter(|one| **one == version).count();
            let known = self.received[section].iter().rev().find(|one| one.0 == version.0).copied();
            self.received[section].push(version);
            self.versions_sent += 1;
            // A request that is in doubt now may be the one that stores it. Where the newer version is in doubt, it comes again
            // behind this one, which it had stood for.
            assert!(
                before as u32 <= doubts,
                "section {section}: {version:?} came {} times, {doubts} in doubt",
                before + 1
            );
            let known_doubt = known.and_then(|known| self.doubted.get(&(section, known)));
            let is_newer = known.is_none_or(|known| known.1 <= version.1) || known_doubt.is_some();
            assert!(is_newer || doubts > 0, "section {section}: {version:?} came behind {known:?}");
        }
    }

    fn answer(&mut self, wild: bool) {
        if self.life.requests.is_empty() {
            return;
        }
        let at = self.dice.usize(0..self.life.requests.len());
        let (section, id, body) = self.life.requests.swap_remove(at);
        let items: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
        let mut refused = Vec::new();
        let verdict = match self.dice.u8(0..8) {
            _ if !wild || self.dice.u64(0..100) < self.well => Verdict::Received,
            0 | 1 => Verdict::Later { retry_after: None },
            2 => Verdict::NotSent,
            3 => Verdict::TooLarge,
            4 => Verdict::Environment { remedy: String::new() },
            5 => {
                refused = (0..items.len()).filter(|_| self.dice.u8(0..4) == 0).collect();
                let one = |at: &usize| SinkRejection {
                    item: Echo::of(items[*at].to_string().as_bytes()),
                    error: "no".into(),
                };
                if refused.is_empty() { Verdict::Received } else { Verdict::Partial(refused.iter().map(one).collect()) }
            }
            _ => Verdict::Unknown,
        };
        self.tell(|| format!("section {section}: {:?} is answered {verdict:?}", versions_of(&body)));
        match &verdict {
            Verdict::Received | Verdict::Partial(_) => self.store(section, &body, &refused),
            Verdict::Unknown => {
                self.doubt(section, &body);
                if self.dice.bool() {
                    self.store(section, &body, &[]);
                }
            }
            Verdict::BadItem
            | Verdict::TooLarge
            | Verdict::Environment { .. }
            | Verdict::Later { .. }
            | Verdict::NotSent
            | Verdict::Interrupted
            | Verdict::Unreadable => {}
        }
        let answer = Answer { verdict, status: None, message: String::new() };
        self.life.engine.verdict(SectionId(section), id, &answer, self.now, self.dice.f64());
    }

    fn act(&mut self) {
        while let Some(action) = self.life.engine.next_action() {
            match action {
                Action::Write(number, ops) => self.life.lists.push_back((number, ops)),
                Action::Send { section, id, body } => {
                    self.bodies.insert(id, (section.0, body.clone()));
                    self.life.requests.push((section.0, id, body));
                }
                Action::Confirm(lsn) => {
                    assert!(lsn <= self.state.checkpoint, "I2: {lsn} is past {}", self.state.checkpoint);
                    let settled: Vec<Version> = self
                        .log
                        .iter()
                        .filter(|one| one.end_lsn <= lsn)
                        .flat_map(|one| one.changes.iter().map(|(_, version, _)| *version))
                        .collect();
                    let counted = self.superseded;
                    for version in settled {
                        (0..NAMES.len()).for_each(|section| self.is_settled(section, version, Some(lsn)));
                    }
                    self.superseded = counted;
                }
                Action::Rewind => self.life.stream = None,
                Action::Stopped(section) => {
                    panic!("section {section:?} stops: {:?}", self.life.engine.section(section))
                }
                Action::Settled(..) | Action::Retry(..) => {}
                Action::OtherHistory(other) => panic!("our own log is taken for another: {other}"),
            }
        }
    }

    fn is_quiet(&self) -> bool {
        let rests = |section: &SectionDelivery| section.is_empty() && section.backfill().is_none();
        self.life.stream.is_some_and(|(at, _)| at >= self.log.len())
            && self.life.requests.is_empty()
            && self.life.lists.is_empty()
            && self.life.acks.is_empty()
            && self.life.engine.sections().all(|(_, section)| rests(section))
    }
}

/// The stream begins: with this transaction of the log.
fn begin_stream(engine: &mut Engine, log: &[Transaction]) -> usize {
    let from = engine.verifies_from().unwrap_or(engine.confirmed());
    engine.stream_began(from);
    log.iter().position(|one| one.final_lsn >= from).unwrap_or(log.len())
}

impl Transaction {
    /// What its commit has.
    fn mark(&self) -> CommitMark {
        CommitMark { xid: self.final_lsn.0 as u32, micros: 0 }
    }
}

/// A process, as the state lets it begin.
fn begin(
    sections: &[(Configured, Rc<Mapping>)],
    state: &State,
    budget: usize,
    table: &BTreeMap<i64, u32>,
    log: &[Transaction],
) -> Life {
    let (mut deliveries, mut readers, mut ops) = (Vec::new(), Vec::new(), Vec::new());
    for (section, mapping) in sections {
        let row = &state.sections[section.name.as_str()];
        let position = row.position.unwrap_or(Position::before_transaction(row.attach));
        let mut delivery = SectionDelivery::new(section, position);
        delivery.set_table_mapping(Rc::clone(mapping));
        let mut reader = None;
        if let SectionPhase::Backfilling(progress) = &row.phase {
            let progress = BackfillProgress { streamed_sets: row.streamed.clone(), ..progress.clone() };
            let backfill = BackfillQueue::resume(Phase::Backfill, &progress).unwrap();
            let number = |key: &Option<Key>| key.as_ref().map(|key| key.as_str().parse().unwrap());
            let (cursor, ceiling) = (number(&backfill.cursor), number(&backfill.ceiling));
            reader = Some(Reader { cursor, ceiling, ..Reader::default() });
            delivery.resume_backfill(backfill);
        }
        let left = in_doubt::left(&section.name, section.in_doubt, &state.open_deliveries());
        delivery.expect_doubts(left.doubts, left.rows);
        for (id, first, last) in delivery.doubted_keys() {
            let number = |key: &Key| key.as_str().parse::<i64>().unwrap();
            let keys: Vec<Key> =
                table.range(number(&first)..=number(&last)).map(|(key, _)| Key::new(key.to_string())).collect();
            delivery.set_doubted_rows(id, &keys);
        }
        ops.extend(left.ops);
        deliveries.push(delivery);
        readers.push(reader);
    }
    let settings = Settings { budget, halt_probe: Duration::from_secs(60) };
    let mut engine = Engine::new(deliveries.into_iter().collect(), state.checkpoint, state.last_delivery + 1, settings);
    engine.record(ops);
    let route = |(index, (_, mapping)): (usize, &(Configured, Rc<Mapping>))| Route {
        section: SectionId(index),
        mapping: Ok(Rc::clone(mapping)),
    };
    engine.set_routes(0, sections.iter().enumerate().map(route).collect());
    engine.expect_history(state.newest);
    let stream = Some((begin_stream(&mut engine, log), 0));
    Life { engine, stream, requests: Vec::new(), lists: VecDeque::new(), acks: VecDeque::new(), readers }
}
