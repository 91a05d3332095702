//! Memory given back by a section that cannot send: when that happens, and what it costs.

use std::rc::Rc;
use std::time::Duration;

use pg2planhat::testing::config::{
    ActivityNames, BatchLimits, Constant, Field, Flush, InDoubt, Kind, Model, OnNull, Section as Configured, Start,
    Sync, TableName,
};
use pg2planhat::testing::delivery::{Action, Chunk, Engine, Route, SectionDelivery, Settings};
use pg2planhat::testing::mapping::Mapping;
use pg2planhat::testing::model::{Column, CommitMark, Lsn, Position, SectionId, Type};
use pg2planhat::testing::planhat::{Answer, Verdict};

use super::process::{chunk_of, with_row};
use super::server::{Published, TableRow};

fn section(name: &str) -> Configured {
    let column = |name: &str| Field::Column { column: name.into(), default: None, as_text: false };
    Configured {
        name: name.into(),
        kind: Kind::CustomMetric(Model::Company),
        sync: Sync::Receive,
        table: TableName { schema: "public".into(), name: name.into() },
        key: vec!["id".into()],
        start: Start::Now,
        read: pg2planhat::testing::config::ReadMode::default(),
        batch: BatchLimits { rows: 10, bytes: 1 << 20, in_flight: 1 },
        flush: Flush::Every(Duration::from_millis(100)),
        in_doubt: InDoubt::Resend,
        conditions: Vec::new(),
        on: None,
        on_null: OnNull::Quarantine,
        fields: vec![
            ("dimensionId".to_owned(), Field::Constant(Constant::Text("d".into()))),
            ("value".to_owned(), column("v")),
            ("externalId".to_owned(), column("id")),
        ],
        date_receipt: true,
        timezone: None,
    }
}

/// Two sections over one budget, a stream of one row a transaction, and a sink that answers as it is told.
struct Scene {
    engine: Engine,
    now: Duration,
    /// The section of each transaction's row.
    rows: Vec<usize>,
    next: usize,
    rewinds: usize,
    requests: usize,
    delivered: [u64; 2],
    /// The distance of neighbouring keys.
    apart: i64,
}

impl Scene {
    fn new(rows: Vec<usize>) -> Scene {
        let columns = [("id", Type::Int), ("v", Type::Float)].map(|(name, ty)| Column { name: name.into(), ty });
        let settings = Settings { budget: 10_000, halt_probe: Duration::from_secs(60) };
        let sections = [section("a"), section("b")];
        let deliveries = sections.iter().map(|section| SectionDelivery::new(section, Position::default()));
        let mut engine = Engine::new(deliveries.collect(), Lsn(1), 1, settings);
        for (index, section) in sections.iter().enumerate() {
            let mapping = Mapping::compile(section, ActivityNames::Current, &columns).unwrap();
            engine.set_routes(index as u32, vec![Route { section: SectionId(index), mapping: Ok(Rc::new(mapping)) }]);
        }
        Scene { engine, now: Duration::ZERO, rows, next: 0, rewinds: 0, requests: 0, delivered: [0, 0], apart: 1 }
    }

    /// A tenth of a second: what comes, what is due, what is asked for.
    fn turn(&mut self, mut sink: impl FnMut(usize, usize) -> Verdict) {
        self.now += Duration::from_millis(100);
        if !self.engine.wants_rows() {
            self.engine.shed(self.now);
        }
        self.engine.resume_shed(self.now);
        while self.engine.wants_rows() && self.next < self.rows.len() {
            let (lsn, table) = (100 + 10 * self.next as u64, self.rows[self.next]);
            let row = TableRow {
                table,
                key: self.apart * self.next as i64,
                good: true,
                lsn: Lsn(lsn),
                published: Published::Always,
            };
            self.engine.begin(Lsn(lsn), CommitMark::default());
            with_row(&row, |text| self.engine.insert(table as u32, row.lsn, text, self.now));
            self.engine.commit(Lsn(lsn + 5));
            self.next += 1;
        }
        self.engine.pump(self.now);
        while let Some(action) = self.engine.next_action() {
            match action {
                Action::Write(number, _) => self.engine.durable(number),
                Action::Send { section, id, .. } => {
                    self.requests += 1;
                    let verdict = sink(section.0, self.requests);
                    let answer = Answer { verdict, status: None, message: String::new() };
                    self.engine.verdict(section, id, &answer, self.now, 0.5);
                }
                Action::Settled(section, settled) => self.delivered[section.0] += settled.delivered,
                Action::Rewind => {
                    self.rewinds += 1;
                    self.engine.stream_restarts();
                    let confirmed = self.engine.confirmed();
                    self.engine.stream_began(confirmed);
                    self.next = (0..self.rows.len()).find(|at| Lsn(105 + 10 * *at as u64) > confirmed).unwrap();
                }
                Action::Confirm(_) | Action::Retry(..) | Action::Stopped(_) => {}
                Action::OtherHistory(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn case_96_short_pauses_of_a_busy_section_make_nothing_be_read_again() {
    let mut scene = Scene::new(vec![0; 4_000]);
    for _ in 0..4_000 {
        scene.turn(|_, request| match request % 5 {
            0 => Verdict::Later { retry_after: Some(Duration::from_secs(1)) },
            _ => Verdict::Received,
        });
    }
    assert_eq!((scene.delivered, scene.rewinds), ([4_000, 0], 0), "the other section is idle");
}

#[test]
fn case_96_a_section_that_is_down_costs_the_other_seconds_and_one_catch_up() {
    let mut scene = Scene::new((0..2_000).map(|row| row % 2).collect());
    for _ in 0..600 {
        scene.turn(|section, _| if section == 0 { Verdict::NotSent } else { Verdict::Received });
    }
    assert_eq!(scene.delivered, [0, 1_000], "the other goes on beyond the memory");
    for _ in 0..3_000 {
        scene.turn(|_, _| Verdict::Received);
    }
    assert_eq!((scene.delivered, scene.rewinds), ([1_000, 1_000], 1));
}

#[test]
fn case_82_chunks_stay_within_the_budget_while_the_state_is_away() {
    let budget = 100_000;
    let columns = [("id", Type::Int), ("v", Type::Float)].map(|(name, ty)| Column { name: name.into(), ty });
    let section = section("a");
    let mut delivery = SectionDelivery::new(&section, Position::default());
    let mapping = Mapping::compile(&section, ActivityNames::Current, &columns).unwrap();
    delivery.set_table_mapping(Rc::new(mapping));
    delivery.start_resync(None);
    let settings = Settings { budget, halt_probe: Duration::from_secs(60) };
    let mut engine = Engine::new([delivery].into_iter().collect(), Lsn(1), 1, settings);
    // The mapping refuses most rows, so that no sink holds them up: they go to the state, which does not answer. All of them
    // would halt the section.
    let row = |key| TableRow { table: 0, key, good: key % 10 == 0, lsn: Lsn(1), published: Published::Never };
    let (mut pushed, mut weighed) = (0, 0);
    for turn in 0..200 {
        if engine.section(SectionId(0)).backfill().unwrap().chunks() < 2 {
            let rows: Vec<TableRow> = (turn * 50..turn * 50 + 50).map(row).collect();
            engine.chunk(
                SectionId(0),
                Chunk {
                    rows: chunk_of(&rows),
                    mapping: None,
                    former: std::collections::HashMap::new(),
                    wait_for: Lsn(0),
                    last: false,
                    range_rows: None,
                },
            );
            pushed += 1;
        }
        engine.pump(Duration::from_millis(100 * u64::try_from(turn).unwrap()));
        while engine.next_action().is_some() {}
        weighed = weighed.max(engine.buffered());
    }
    assert!(pushed > 3, "only {pushed} chunks were taken");
    assert!(weighed < budget + 50_000, "{weighed} bytes are held of {budget}");
}

#[test]
fn case_81_streamed_keys_count_in_the_memory_and_have_a_bound_with_a_name() {
    let mut scene = Scene::new((0..4_000).map(|_| 0).collect());
    scene.engine.section_mut(SectionId(0)).start_resync(None);
    // Every third key: none coalesces with another.
    scene.apart = 3;
    let mut weighed = 0;
    for _ in 0..600 {
        scene.turn(|_, _| Verdict::Received);
        weighed = weighed.max(scene.engine.section(SectionId(0)).backfill().unwrap().streamed_weight());
    }
    assert!(scene.engine.section(SectionId(0)).is_stopped(), "{weighed} bytes of keys, and it goes on");
    assert!(weighed < 2 * (64 << 10), "{weighed} bytes of keys, where 64 KiB are allowed in any case");
    assert!(scene.engine.wants_rows(), "the other section goes on");
}
