//! The world of one schedule: the dice, everything that may happen next, and what must be true after each step.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use pg2planhat::testing::config::{
    ActivityNames, BatchLimits, Constant, Field, Flush, InDoubt, Kind, Model, OnNull, Section as Configured, Start,
    Sync, TableName,
};
use pg2planhat::testing::delivery::{Action, SectionDelivery};
use pg2planhat::testing::mapping::Mapping;
use pg2planhat::testing::model::{ByPhase, Column, Key, Lsn, NewestRead, Phase, Position, SectionId, Type};
use pg2planhat::testing::planhat::{Answer, Echo, Reply, SinkRejection, Verdict, read};
use pg2planhat::testing::state::{BackfillProgress, Outcome, RangeStart, SectionPhase, Totals};

use super::process::{Process, Request, Setting, with_row};
use super::server::{Message, Server};
use super::state::{Section, State};

/// What schedules have done, summed up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub steps: u64,
    pub rows: u64,
    pub requests: u64,
    pub crashes: u64,
    pub rewinds: u64,
    pub named: u64,
    pub doubled: u64,
    pub resyncs: u64,
    pub let_go: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.steps += other.steps;
        self.rows += other.rows;
        self.requests += other.requests;
        self.crashes += other.crashes;
        self.rewinds += other.rewinds;
        self.named += other.named;
        self.doubled += other.doubled;
        self.resyncs += other.resyncs;
        self.let_go += other.let_go;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { steps, rows, requests, crashes, rewinds, named, doubled, resyncs, let_go } = self;
        write!(
            f,
            "{steps} steps, {rows} rows to settle, {requests} requests, {crashes} crashes, {rewinds} rewinds, \
             {resyncs} re-syncs, {let_go} brakes let go; missing 0, doubled {doubled}, all within {named} batches named in doubt"
        )
    }
}

/// A section's row: what everything is counted by.
type Name = (usize, i64);

/// How this schedule's sink behaves.
#[derive(Clone, Copy, Debug)]
struct Moods {
    /// Of 100 requests, so many are answered well.
    well: u64,
    /// It refuses items with such keys (0: none).
    poison: i64,
    /// Of eight rows, so many are no items.
    refused: u8,
    crashes: bool,
    sheds: bool,
}

pub struct World {
    dice: Rng,
    trace: bool,
    now: Duration,
    server: Server,
    state: State,
    settings: Vec<Setting>,
    paused: Vec<bool>,
    process: Process,
    moods: Moods,
    budget: usize,
    /// What the sink has: how often.
    received: HashMap<Name, u32>,
    /// Rows whose retry was asked for by a person.
    retried: HashSet<Name>,
    /// The section and keys of the newest request under each ledger id.
    bodies: HashMap<i64, (usize, Vec<i64>)>,
    /// How often a row was delivered again at a person's wish.
    resynced: HashMap<Name, u32>,
    /// Nothing goes wrong any more.
    mended: bool,
    hasty: bool,
    checked: Lsn,
    positions: HashMap<String, Position>,
    tally: Tally,
}

/// Who may answer no more than that all is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Any,
    Well,
}

fn setting(name: &str, table: usize, dice: &mut Rng) -> Setting {
    let column = |name: &str| Field::Column { column: name.into(), default: None, as_text: false };
    let fields = vec![
        ("dimensionId".to_owned(), Field::Constant(Constant::Text("d".into()))),
        ("value".to_owned(), column("v")),
        ("externalId".to_owned(), column("id")),
    ];
    let section = Configured {
        name: name.into(),
        kind: Kind::CustomMetric(Model::Company),
        sync: Sync::Receive,
        table: TableName { schema: "public".into(), name: format!("t{table}") },
        key: vec!["id".into()],
        start: Start::Backfill,
        read: pg2planhat::testing::config::ReadMode::default(),
        batch: BatchLimits {
            rows: dice.u32(1..=6),
            bytes: if dice.bool() { 1 << 20 } else { dice.u64(100..500) },
            in_flight: 1,
        },
        flush: Flush::Every(Duration::from_millis(*dice.choice(&[0, 10, 1000]).unwrap())),
        in_doubt: if dice.u8(0..3) == 0 { InDoubt::Hold } else { InDoubt::Resend },
        conditions: Vec::new(),
        on: None,
        on_null: OnNull::Quarantine,
        fields,
        date_receipt: true,
        timezone: None,
    };
    let columns = [("id", Type::Int), ("v", Type::Float)].map(|(name, ty)| Column { name: name.into(), ty });
    let mapping = Rc::new(Mapping::compile(&section, ActivityNames::Current, &columns).unwrap());
    Setting { section, mapping, table }
}

/// Seeds from here on have several requests of a section under way at once.
pub const SEVERAL_IN_FLIGHT: u64 = 1 << 32;

impl World {
    pub fn new(seed: u64, trace: bool) -> World {
        let mut dice = Rng::with_seed(seed);
        let mut settings = vec![setting("a", 0, &mut dice), setting("b", 0, &mut dice), setting("c", 1, &mut dice)];
        if seed >= SEVERAL_IN_FLIGHT {
            settings.iter_mut().for_each(|one| one.section.batch.in_flight = *dice.choice(&[2, 3, 8]).unwrap());
        }
        let moods = Moods {
            well: *dice.choice(&[95, 70, 40]).unwrap(),
            poison: *dice.choice(&[0, 0, 3, 7]).unwrap(),
            crashes: dice.u8(0..4) > 0,
            sheds: dice.bool(),
            refused: if seed % 4 == 3 { 7 } else { 1 },
        };
        let budget = if moods.sheds { dice.usize(150..900) } else { 1 << 20 };
        let (mut server, mut state) = (Server::new(), State::default());
        // What is there before the first start: transactions committed, open, and committed but seen by nobody.
        for _ in 0..dice.usize(0..6) {
            let open = server.begin();
            for _ in 0..dice.usize(0..5) {
                let table = dice.usize(0..3);
                let (good, skipped) = (dice.u8(0..8) >= moods.refused, i64::from(dice.u8(0..5) == 0));
                server.insert(open, table, good, skipped, false);
            }
            if dice.bool() {
                let visible = dice.u8(0..3) > 0;
                server.commit(open, visible);
            }
        }
        server.confirmed = Lsn(server.end);
        server.remembered = server.confirmed;
        state.checkpoint = server.confirmed;
        state.newest = Some(NewestRead { at: server.confirmed, commit: None });
        let paused = vec![false; settings.len()];
        for name in ["a", "b"] {
            attach(&mut state, name, server.confirmed);
        }
        let process = Process::begin(&settings, &state, &paused, None, budget, &server);
        World {
            dice,
            trace,
            now: Duration::ZERO,
            server,
            checked: state.checkpoint,
            state,
            settings,
            paused,
            process,
            moods,
            budget,
            received: HashMap::new(),
            retried: HashSet::new(),
            bodies: HashMap::new(),
            resynced: HashMap::new(),
            mended: false,
            hasty: false,
            positions: HashMap::new(),
            tally: Tally::default(),
        }
    }

    /// A world whose process attaches sections without waiting for the writers of their table.
    pub fn hasty(seed: u64) -> World {
        let mut world = World::new(seed, false);
        world.hasty = true;
        world.process.hasty = true;
        world
    }

    fn tell(&self, text: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>5} {:>9.3} {}", self.tally.steps, self.now.as_secs_f64(), text());
        }
    }

    /// The whole schedule.
    pub fn run(mut self) -> Tally {
        self.tell(|| format!("{:?}, budget {}", self.moods, self.budget));
        for setting in &self.settings {
            self.tell(|| {
                format!("section {}: {:?} {:?}", setting.section.name, setting.section.batch, setting.section.in_doubt)
            });
        }
        for _ in 0..self.dice.usize(50..400) {
            self.step();
            self.after_step();
        }
        self.finish();
        self.tally.named = self.state.named.len() as u64;
        self.tally
    }

    fn after_step(&mut self) {
        self.tally.steps += 1;
        self.process.engine.pump(self.now);
        self.act();
        let process = &self.process;
        assert!(process.engine.confirmed() <= self.state.checkpoint, "I2: confirmed past the durable checkpoint");
        assert!(self.server.confirmed <= self.state.checkpoint, "I2: the slot is past the durable checkpoint");
        assert!(
            process.engine.written() <= process.engine.settled_lsn(),
            "I2: the checkpoint is past the settled frontier"
        );
        for (SectionId(index), delivery) in process.engine.sections() {
            let held = held(delivery);
            assert!(
                held.values().all(|rows| *rows < 1 << 40),
                "section {}: accounts do not add up: {held:?}",
                delivery.name()
            );
            if delivery.is_empty() && process.lists.is_empty() && process.acks.is_empty() {
                assert_eq!(
                    held.values().sum::<u64>(),
                    process.unresolved[index],
                    "section {} is empty, and its accounts say otherwise",
                    delivery.name()
                );
            }
        }
    }

    // ---- what may happen ----

    fn step(&mut self) {
        if self.moods.sheds && self.dice.u8(0..40) == 0 {
            return if self.dice.bool() { self.pause() } else { self.pass_time() };
        }
        match self.dice.u32(0..100) {
            0..18 => self.write_rows(),
            18..44 => self.stream(),
            44..56 => self.range(),
            56..72 => self.answer(Mood::Any),
            72..82 => self.write_state(),
            82..88 => self.acknowledge(),
            88..92 => self.pass_time(),
            92 => self.confirm(),
            93 => {
                self.tell(|| "the connection breaks".into());
                self.process.disconnect();
            }
            94 => self.pause(),
            95 => self.resync(),
            96 => self.retry(),
            97 if self.moods.crashes => self.crash(),
            98 if self.moods.crashes => self.server_crash(),
            98 => self.misfit(),
            99 => self.drain(),
            _ => self.stream(),
        }
    }

    fn write_rows(&mut self) {
        let Self { dice, server, moods, .. } = self;
        if dice.u8(0..30) == 0 && !server.published[1] {
            server.publish(1);
            return self.tell(|| "t1 is published".into());
        }
        match dice.u8(0..10) {
            0..3 => {
                let open = server.begin();
                let xid = server.open[open].xid;
                self.tell(|| format!("transaction {xid} begins"));
            }
            3..6 => {
                let open = if server.open.is_empty() { server.begin() } else { dice.usize(0..server.open.len()) };
                let copy = dice.bool();
                for _ in 0..dice.usize(1..4) {
                    let table = dice.usize(0..3);
                    let (good, skipped) = (dice.u8(0..8) >= moods.refused, i64::from(dice.u8(0..5) == 0));
                    let row = server.insert(open, table, good, skipped, copy);
                    let xid = server.open[open].xid;
                    if self.trace {
                        eprintln!("      transaction {xid} writes {row:?}");
                    }
                }
            }
            6..9 if !server.open.is_empty() => {
                let (open, visible) = (dice.usize(0..server.open.len()), dice.u8(0..4) > 0);
                let told = format!("{:?}", server.commit(open, visible));
                self.tell(|| told);
            }
            _ => {
                let hidden: Vec<usize> = (0..server.log.len()).filter(|index| !server.log[*index].visible).collect();
                if let Some(index) = dice.choice(&hidden) {
                    server.log[*index].visible = true;
                } else if !server.open.is_empty() && dice.u8(0..4) == 0 {
                    let aborted = dice.usize(0..server.open.len());
                    server.open.swap_remove(aborted);
                } else {
                    server.end += dice.u64(1..3000);
                }
            }
        }
    }

    fn stream(&mut self) {
        if self.process.draining || !self.process.engine.wants_rows() {
            return;
        }
        if self.process.stream.is_none() {
            self.process.reconnect(&self.server);
            return self.tell(|| format!("connected again, from {}", self.process.engine.confirmed()));
        }
        for _ in 0..self.dice.usize(1..8) {
            let Some(walsender) = &mut self.process.stream else { return };
            let message = if self.dice.u8(0..5) == 0 {
                Some(walsender.keepalive(&self.server, self.dice.u64(0..=4)))
            } else {
                walsender.message(&self.server)
            };
            let message = message.unwrap_or_else(|| walsender.keepalive(&self.server, 4));
            self.take(message);
            if !self.process.engine.wants_rows() {
                return;
            }
        }
    }

    fn take(&mut self, message: Message) {
        self.tell(|| format!("the stream brings {message:?}"));
        let engine = &mut self.process.engine;
        match message {
            Message::Begin(final_lsn, commit) => engine.begin(final_lsn, commit),
            Message::Insert(row) => with_row(&row, |text| engine.insert(row.table as u32, row.lsn, text, self.now)),
            Message::Commit(end_lsn) => engine.commit(end_lsn),
            Message::Keepalive(wal_end) => engine.keepalive(wal_end),
        }
    }

    fn range(&mut self) {
        if self.process.readers.is_empty() {
            return;
        }
        let index = self.dice.usize(0..self.process.readers.len());
        if let Some(told) = self.process.attach(index, &self.settings, &self.server) {
            return self.tell(|| told);
        }
        let table = self.settings[self.process.sections[index]].table;
        let limit = self.dice.usize(1..5);
        if let Some(told) = self.process.read(index, table, &self.server, limit) {
            self.tell(|| told);
        }
    }

    fn write_state(&mut self) {
        for _ in 0..self.dice.usize(1..4) {
            let Some((number, ops)) = self.process.lists.pop_front() else { return };
            self.tell(|| format!("durable: list {number} {ops:?}"));
            self.state.apply(&ops);
            self.process.acks.push_back(number);
            self.check_durable();
        }
    }

    fn acknowledge(&mut self) {
        let Some(newest) = self.process.acks.back().copied() else { return };
        self.process.acks.clear();
        self.tell(|| format!("the engine hears that {newest} is durable"));
        self.process.engine.durable(newest);
    }

    fn confirm(&mut self) {
        let Some(lsn) = self.process.confirms.pop_front() else { return };
        self.server.confirmed = self.server.confirmed.max(lsn);
        if self.dice.u8(0..3) == 0 {
            self.server.remembered = self.server.confirmed;
        }
    }

    fn pass_time(&mut self) {
        let by = *self.dice.choice(&[1, 20, 500, 2_000, 10_000, 70_000]).unwrap();
        self.now += Duration::from_millis(by);
        self.on_time();
    }

    /// what the event loop does on its tick.
    fn on_time(&mut self) {
        if !self.process.engine.wants_rows() && self.process.engine.shed(self.now) {
            self.tell(|| "shed".into());
        }
        self.process.engine.resume_shed(self.now);
        for index in 0..self.process.sections.len() {
            if self.process.engine.section(SectionId(index)).is_stopped_by_mapping()
                && (self.mended || self.dice.bool())
            {
                self.let_go_on(index);
            }
        }
    }

    /// A person lets the rows of a section go on that its mapping refuses.
    fn let_go_on(&mut self, index: usize) {
        if self.process.engine.let_go_on(SectionId(index)) {
            self.tell(|| format!("section {index}: what its mapping refuses is let go"));
            self.process.start_reader(index);
            self.tally.let_go += 1;
        }
    }

    fn pause(&mut self) {
        let section = self.dice.usize(0..self.settings.len());
        self.paused[section] = !self.paused[section];
        let Some(index) = self.process.sections.iter().position(|of| *of == section) else { return };
        self.tell(|| format!("section {index}: paused {}", self.paused[section]));
        self.process.engine.section_mut(SectionId(index)).pause(self.paused[section], self.now);
    }

    /// An ALTER TABLE: from here on the stream's rows no longer fit a section's mapping, until the next start.
    fn misfit(&mut self) {
        if self.dice.u8(0..4) == 0 {
            let index = self.dice.usize(0..self.process.sections.len());
            self.tell(|| format!("section {index}: the table no longer fits"));
            self.process.misfit(index, &self.settings);
        }
    }

    fn resync(&mut self) {
        let index = self.dice.usize(0..self.process.sections.len());
        let section = self.process.sections[index];
        let table = self.settings[section].table;
        let from = if self.dice.bool() { None } else { Some(self.dice.i64(0..self.server.next_key[table] + 1)) };
        let waits = self.process.waiting.contains_key(&index);
        let own = self.process.engine.section_mut(SectionId(index));
        if waits || own.backfill().is_some() || !own.takes_rows() || self.process.draining {
            return;
        }
        let ops = own.start_resync(from.map(|from| Key::new(from.to_string())));
        self.process.engine.record(ops);
        self.process.start_reader(index);
        self.tally.resyncs += 1;
        self.tell(|| format!("section {index}: a re-sync from {from:?}"));
        // Everything that is committed now may be counted twice; also where a crash forgets the wish, for then it is
        // not fulfilled at all.
        for committed in &self.server.log {
            for row in committed.rows.iter().filter(|row| row.table == table && from.is_none_or(|from| row.key > from))
            {
                *self.resynced.entry((section, row.key)).or_default() += 1;
            }
        }
    }

    fn retry(&mut self) {
        if self.state.quarantine.is_empty() || self.process.draining {
            return;
        }
        let at = self.dice.usize(0..self.state.quarantine.len());
        let (id, held) = self.state.quarantine.iter().nth(at).map(|(id, held)| (*id, held.clone())).unwrap();
        let name = held.section.as_str();
        let Some(section) = self.settings.iter().position(|setting| setting.section.name.as_str() == name) else {
            return;
        };
        let Some(index) = self.process.sections.iter().position(|of| *of == section) else { return };
        if !self.process.retrying.insert(id) {
            return;
        }
        let key: i64 = held.key.parse().unwrap();
        self.tell(|| format!("section {index}: {id} (key {key}) is sent again out of quarantine"));
        self.retried.insert((section, key));
        let row = self.server.log.iter().flat_map(|committed| &committed.rows);
        let row = row.copied().find(|row| row.table == self.settings[section].table && row.key == key).unwrap();
        if !self.process.engine.section(SectionId(index)).takes_rows() {
            return;
        }
        let mapping = Rc::clone(&self.settings[section].mapping);
        let delivery = self.process.engine.section_mut(SectionId(index));
        if held.reason.starts_with("mapping") || self.dice.bool() {
            with_row(&row, |text| delivery.admit_retry(&mapping, text, id, self.now));
        } else {
            delivery.admit_item(&held.key, held.item.as_bytes(), id, self.now);
        }
    }

    /// SIGKILL: what was on the wire to the sink may have arrived; what was on its way to the state may be durable.
    fn crash(&mut self) {
        self.tally.crashes += 1;
        self.tell(|| "the process is killed".into());
        for request in std::mem::take(&mut self.process.requests) {
            if self.dice.bool() {
                self.store(&request, &[]);
            }
        }
        if self.dice.bool()
            && let Some((_, ops)) = self.process.lists.pop_front()
        {
            self.tell(|| format!("durable all the same: {ops:?}"));
            self.state.apply(&ops);
            self.check_durable();
        }
        self.begin();
    }

    fn begin(&mut self) {
        let unfit = (!self.mended && self.dice.u8(0..12) == 0).then(|| self.dice.usize(0..self.settings.len()));
        self.process = Process::begin(&self.settings, &self.state, &self.paused, unfit, self.budget, &self.server);
        self.process.hasty = self.hasty;
        self.tell(|| format!("a process begins at {}, unfit: {unfit:?}", self.state.checkpoint));
        for (name, section) in &self.state.sections {
            self.tell(|| format!("      {name}: {section:?}"));
        }
    }

    fn server_crash(&mut self) {
        self.tell(|| format!("the server crashes; its slot is back at {}", self.server.remembered));
        self.server.crash();
        self.process.disconnect();
    }

    fn drain(&mut self) {
        if self.process.draining {
            if self.process.engine.is_drained() || self.dice.u8(0..8) == 0 {
                self.tell(|| format!("the process ends; drained: {}", self.process.engine.is_drained()));
                if self.process.engine.is_drained() {
                    assert!(self.process.requests.is_empty(), "drained with a request under way");
                }
                for request in std::mem::take(&mut self.process.requests) {
                    if self.dice.bool() {
                        self.store(&request, &[]);
                    }
                }
                self.begin();
            }
        } else if self.dice.u8(0..4) == 0 {
            self.tell(|| "a drain begins".into());
            self.process.draining = true;
            self.process.engine.drain();
        }
    }

    // ---- what the engine asks for ----

    fn act(&mut self) {
        while let Some(action) = self.process.engine.next_action() {
            match action {
                Action::Write(number, ops) => {
                    let newest = self.process.lists.back().map_or(0, |(number, _)| *number);
                    assert!(number > newest, "lists of writes out of order");
                    self.process.lists.push_back((number, ops));
                }
                Action::Send { section: SectionId(index), id, body } => {
                    let keys = keys_of(&body);
                    self.tell(|| format!("section {index}: request {id} {keys:?}"));
                    self.check_request(index, id, &keys);
                    self.tally.requests += 1;
                    self.bodies.insert(id, (self.process.sections[index], keys));
                    self.process.requests.push(Request { section: SectionId(index), id, body });
                }
                Action::Confirm(lsn) => {
                    self.tell(|| format!("confirm {lsn}"));
                    assert!(
                        lsn <= self.state.checkpoint,
                        "I2: {lsn} is confirmed, the checkpoint is {}",
                        self.state.checkpoint
                    );
                    if self.process.stream.is_some() {
                        self.process.confirms.push_back(lsn);
                    }
                }
                Action::Settled(SectionId(index), settled) if settled.outcome == Some(Outcome::InDoubt) => {
                    self.process.unresolved[index] += settled.in_doubt;
                }
                Action::Settled(..) | Action::Retry(..) | Action::Stopped(_) => {}
                Action::OtherHistory(other) => panic!("our own log is taken for another: {other}"),
                Action::Rewind => {
                    self.tally.rewinds += 1;
                    self.tell(|| "rewind".into());
                    self.process.disconnect();
                }
            }
        }
    }

    fn check_request(&self, index: usize, id: i64, keys: &[i64]) {
        let others = self.process.requests.iter().filter(|other| other.section == SectionId(index)).count();
        let most = usize::from(self.settings[index].section.batch.in_flight);
        assert!(others < most, "section {index} makes {} requests at once, {most} are allowed", others + 1);
        let row = self.state.ledger.get(&id).unwrap_or_else(|| panic!("request {id} is made, and not in the ledger"));
        assert!(row.outcome == Outcome::Sending && row.under_way, "request {id} is made, and the ledger has {row:?}");
        assert_eq!(row.delivery.rows as usize, keys.len(), "the ledger has another batch as {id}");
        assert_eq!(row.delivery.first_key, keys[0].to_string(), "the ledger has another batch as {id}");
        assert_eq!(row.delivery.last_key, keys[keys.len() - 1].to_string(), "the ledger has another batch as {id}");
        let section = self.process.sections[index];
        let limit = self.settings[section].section.batch.rows as usize;
        assert!(keys.len() <= limit, "a batch of {} rows, where {limit} are the most", keys.len());
        let table = self.settings[section].table;
        for key in keys {
            let committed = |row: &super::server::TableRow| row.table == table && row.key == *key;
            let committed = self.server.log.iter().any(|log| log.rows.iter().any(committed));
            assert!(committed, "I4: key {key} is sent, and not committed");
        }
    }

    // ---- the sink ----

    fn store(&mut self, request: &Request, but: &[usize]) {
        let section = self.process.sections[request.section.0];
        let keys = keys_of(&request.body);
        for (index, key) in keys.iter().enumerate() {
            if !but.contains(&index) {
                *self.received.entry((section, *key)).or_default() += 1;
            }
        }
        self.tell(|| format!("the sink stores {keys:?} of {}, but {but:?}", request.id));
    }

    fn answer(&mut self, mood: Mood) {
        if self.process.requests.is_empty() {
            return;
        }
        let at = self.dice.usize(0..self.process.requests.len());
        let request = self.process.requests.swap_remove(at);
        let items: Vec<serde_json::Value> = serde_json::from_slice(&request.body).unwrap();
        let keys = keys_of(&request.body);
        let poison = self.moods.poison;
        let poisoned: Vec<usize> = (0..keys.len()).filter(|at| poison > 0 && keys[*at] % poison == 0).collect();
        let verdict = if mood == Mood::Well {
            Verdict::Received
        } else if !poisoned.is_empty() {
            if self.dice.bool() { Verdict::BadItem } else { refuse(&items, &poisoned) }
        } else if self.dice.u64(0..100) < self.moods.well {
            Verdict::Received
        } else {
            match self.dice.u8(0..12) {
                0 => {
                    let some: Vec<usize> = (0..keys.len()).filter(|_| self.dice.bool()).collect();
                    if some.is_empty() { Verdict::Received } else { refuse(&items, &some) }
                }
                1 => Verdict::BadItem,
                2 => Verdict::TooLarge,
                3 => Verdict::Environment { remedy: "mend it".into() },
                4 => Verdict::Later { retry_after: self.dice.bool().then_some(Duration::from_secs(30)) },
                5 => Verdict::NotSent,
                6 => Verdict::Interrupted,
                7 => Verdict::Unreadable,
                8 => Verdict::Partial(vec![SinkRejection { item: None, error: "something is wrong".into() }]),
                // A gateway: whatever it says, the batch may be stored.
                9 | 10 => {
                    let status = *self.dice.choice(&[500, 501, 502, 504, 507, 520, 524, 598, 599]).unwrap();
                    let verdict =
                        read(&Reply { status, whole: true, ..Reply::default() }, SystemTime::UNIX_EPOCH).verdict;
                    assert_eq!(verdict, Verdict::Unknown, "{status}");
                    verdict
                }
                _ => Verdict::Unknown,
            }
        };
        match &verdict {
            Verdict::Received => self.store(&request, &[]),
            // The one that it does not name.
            Verdict::Partial(refused) if refused.iter().all(|one| one.item.is_none()) => {
                let refused = self.dice.usize(0..items.len());
                self.store(&request, &[refused]);
            }
            Verdict::Partial(refused) => {
                let echo = |at: usize| Echo::of(items[at].to_string().as_bytes());
                let named: Vec<usize> =
                    (0..items.len()).filter(|at| refused.iter().any(|one| one.item == echo(*at))).collect();
                self.store(&request, &named);
            }
            Verdict::Unknown | Verdict::Unreadable if self.dice.bool() => self.store(&request, &[]),
            Verdict::Unknown
            | Verdict::Unreadable
            | Verdict::Interrupted
            | Verdict::BadItem
            | Verdict::TooLarge
            | Verdict::Environment { .. }
            | Verdict::Later { .. }
            | Verdict::NotSent => {}
        }
        self.tell(|| format!("the sink answers {} with {verdict:?}", request.id));
        let answer = Answer { verdict, status: None, message: String::new() };
        let random = self.dice.f64();
        self.process.engine.verdict(request.section, request.id, &answer, self.now, random);
    }

    // ---- what must be true ----

    fn held(&self, section: usize, key: i64) -> u32 {
        let (name, key) = (self.settings[section].section.name.as_str(), key.to_string());
        let of = |row: &&pg2planhat::testing::state::Quarantined| row.section.as_str() == name && row.key == key;
        u32::try_from(self.state.quarantine.values().filter(of).count()).unwrap()
    }

    fn settled(&self, section: usize, key: i64) -> u32 {
        let received = self.received.get(&(section, key)).copied().unwrap_or(0);
        received + self.held(section, key) + self.unresolved(section, key)
    }

    /// In how many batches that are in doubt for good the row is: a person is told of each. What was stored of them is
    /// counted as received.
    fn unresolved(&self, section: usize, key: i64) -> u32 {
        let received = self.received.contains_key(&(section, key));
        let has = |id: &&i64| self.bodies.get(id).is_some_and(|(of, keys)| *of == section && keys.contains(&key));
        if received { 0 } else { u32::try_from(self.state.unresolved.iter().filter(has).count()).unwrap() }
    }

    /// What has become durable is true: no place is passed that is not settled.
    fn check_durable(&mut self) {
        let (from, to) = (self.checked, self.state.checkpoint);
        for (index, setting) in self.settings.iter().enumerate() {
            let name = setting.section.name.as_str();
            let Some(section) = self.state.sections.get(name) else { continue };
            let was = self.positions.get(name).copied().unwrap_or_default();
            let is = section.position.unwrap_or_default();
            for committed in &self.server.log {
                let passed = committed.final_lsn >= from && committed.final_lsn < to;
                let reached = committed.final_lsn >= was.final_lsn && committed.final_lsn <= is.final_lsn;
                if committed.final_lsn < section.attach || !(passed || reached) {
                    continue;
                }
                for (position, row) in committed.streamed().filter(|(_, row)| row.table == setting.table) {
                    if passed || position <= is {
                        let settled = self.settled(index, row.key) > 0;
                        assert!(
                            settled,
                            "I2: {name} {row:?} at {position}: the state is past it, and it is not settled"
                        );
                    }
                }
            }
            self.positions.insert(name.to_owned(), is);
        }
        self.checked = to;
    }

    /// Everything is mended and comes to rest; then every row must be accounted for.
    fn finish(&mut self) {
        self.tell(|| "everything is mended".into());
        while !self.server.open.is_empty() {
            self.server.commit(0, true);
        }
        self.server.log.iter_mut().for_each(|committed| committed.visible = true);
        self.server.published[1] = true;
        self.paused.fill(false);
        self.mended = true;
        if !self.process.misfits.is_empty() || self.process.draining {
            for request in std::mem::take(&mut self.process.requests) {
                self.store(&request, &[]);
            }
            self.begin();
        }
        for id in self.process.engine.section_ids() {
            self.process.engine.section_mut(id).pause(false, self.now);
        }
        let mut turns = 0;
        while !self.process.is_quiet(&self.server) || turns < 3 {
            turns += 1;
            assert!(turns < 3_000, "it does not come to rest: {:#?}", self.process.engine);
            self.calm_turn();
        }
        self.server.end += 5_000;
        for _ in 0..5 {
            self.calm_turn();
        }
        assert_eq!(self.state.checkpoint, Lsn(self.server.end), "the mark does not reach the end");
        assert_eq!(self.server.confirmed, Lsn(self.server.end), "the slot does not reach the end");
        self.check_rows();
    }

    fn calm_turn(&mut self) {
        self.now += Duration::from_secs(10);
        self.on_time();
        self.after_step();
        if self.process.stream.is_none() {
            self.process.reconnect(&self.server);
        }
        for _ in 0..20 {
            let Some(walsender) = &mut self.process.stream else { break };
            if !self.process.engine.wants_rows() {
                break;
            }
            let message = walsender.message(&self.server).unwrap_or_else(|| walsender.keepalive(&self.server, 4));
            let last = matches!(message, Message::Keepalive(_));
            self.take(message);
            if last {
                break;
            }
        }
        for index in 0..self.process.readers.len() {
            self.process.attach(index, &self.settings, &self.server);
            let table = self.settings[self.process.sections[index]].table;
            self.process.read(index, table, &self.server, 4);
        }
        self.after_step();
        self.write_state();
        self.acknowledge();
        self.after_step();
        while !self.process.requests.is_empty() {
            self.answer(Mood::Well);
        }
        self.after_step();
        self.write_state();
        self.acknowledge();
        self.after_step();
        while !self.process.confirms.is_empty() {
            self.confirm();
        }
    }

    fn check_rows(&mut self) {
        let mut doubts: HashMap<Name, u32> = HashMap::new();
        for id in &self.state.named {
            // Announced, and killed before the request was made: named, and no row of it is anywhere.
            let Some((section, keys)) = self.bodies.get(id) else { continue };
            keys.iter().for_each(|key| *doubts.entry((*section, *key)).or_default() += 1);
        }
        let mut open = self.state.ledger.iter().filter(|(_, row)| match row.outcome {
            Outcome::Sending => true,
            Outcome::InDoubt => row.delivery.phase != Phase::Retry && !row.unresolved,
            Outcome::Delivered | Outcome::Partial | Outcome::Resent | Outcome::Held | Outcome::Quarantined => false,
        });
        if let Some(open) = open.next() {
            panic!("the ledger has a row that has not ended: {open:?}");
        }
        for (index, setting) in self.settings.iter().enumerate() {
            let hold = setting.section.in_doubt == InDoubt::Hold;
            for row in self.server.log.iter().flat_map(|committed| &committed.rows) {
                if row.table != setting.table {
                    continue;
                }
                self.tally.rows += 1;
                let name = (index, row.key);
                let at = || format!("section {} {row:?}", setting.section.name);
                let settled = self.settled(index, row.key);
                let again = self.resynced.get(&name).copied().unwrap_or(0);
                let doubted = doubts.get(&name).copied().unwrap_or(0);
                assert!(settled > 0, "I1: {} is missing", at());
                assert!(
                    settled <= 1 + again + doubted,
                    "I3: {} is settled {settled} times; {doubted} doubts, {again} re-syncs",
                    at()
                );
                let stored = self.received.get(&name).copied().unwrap_or(0);
                if hold && again == 0 && !self.retried.contains(&name) {
                    assert!(stored <= 1, "in_doubt: hold: {} was sent again without a person's word", at());
                }
                self.tally.doubled += u64::from(settled.saturating_sub(1 + again));
            }
        }
        for (SectionId(index), delivery) in self.process.engine.sections() {
            let unresolved = self.process.unresolved[index];
            assert_eq!(held(delivery).values().sum::<u64>(), unresolved, "section {}: accounts", delivery.name());
        }
    }
}

/// Rows that a section holds, by its own count.
fn held(section: &SectionDelivery) -> ByPhase<u64> {
    ByPhase::from_fn(|phase| section.counts().of(phase).held())
}

fn attach(state: &mut State, name: &str, at: Lsn) {
    let section = Section {
        attach: at,
        position: None,
        phase: SectionPhase::Backfilling(BackfillProgress { from: RangeStart::First, ..BackfillProgress::default() }),
        streamed: Vec::new(),
        totals: Totals::default(),
    };
    state.sections.insert(name.to_owned(), section);
}

fn refuse(items: &[serde_json::Value], which: &[usize]) -> Verdict {
    let refused = |at: &usize| SinkRejection { item: Echo::of(items[*at].to_string().as_bytes()), error: "no".into() };
    Verdict::Partial(which.iter().map(refused).collect())
}

/// The keys of a request's items, in order.
fn keys_of(body: &[u8]) -> Vec<i64> {
    let items: Vec<serde_json::Value> = serde_json::from_slice(body).unwrap();
    let key = |item: &serde_json::Value| item["externalId"].as_str().unwrap().parse().unwrap();
    items.iter().map(key).collect()
}
