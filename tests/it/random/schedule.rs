//! What happens, drawn from a seed. Pure: the same seed is the same schedule, and a schedule can be printed.
//!
//! A schedule is made of short stories, such as "a transaction writes a table that nobody publishes, the table is published,
//! the transaction goes on". Each keeps its own order; how they lie among each other is drawn.

use std::collections::VecDeque;

use fastrand::Rng;

/// The tables. All are alike, but for what is said here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// `int` key, mapped from the start.
    A,
    /// `bigint` key, mapped from the start.
    B,
    /// Partitioned, mapped from the start.
    P,
    /// Mapped later, with what is in it.
    N,
    /// Mapped later, `start: now`.
    M,
    /// Never mapped.
    U,
}

impl Table {
    pub const ALL: [Table; 6] = [Table::A, Table::B, Table::P, Table::N, Table::M, Table::U];
    const FIRST: [Table; 3] = [Table::A, Table::B, Table::P];

    /// Its name, and its section's.
    pub fn name(self) -> &'static str {
        match self {
            Table::A => "a",
            Table::B => "b",
            Table::P => "p",
            Table::N => "n",
            Table::M => "m",
            Table::U => "u",
        }
    }
}

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Kill,
    Term,
    Int,
    Quit,
}

/// How a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    Fast,
    Immediate,
    Crash,
}

/// What an application or its DBA does to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    AddColumn,
    DropColumn,
    RenameColumn,
    /// The type of a column that is not mapped: a rewrite.
    RetypeOther,
    /// The key's, from int to bigint and back: a rewrite.
    RetypeKey,
    VacuumFull,
    Cluster,
    Analyze,
    Reindex,
}

/// What the sink does to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkTrouble {
    /// A status, and whether the items are stored all the same.
    Status(u16, bool),
    /// `Retry-After: 0` with it.
    Later(u16),
    ResetUnread,
    ResetStored,
    HalfAnswer,
    /// Stored, and answered late; later than the time-out, perhaps.
    Slow(u64),
    /// Never answered; whether it is stored.
    Hang(bool),
    RefuseFirst(usize),
    Html,
    Redirect,
    /// Stored, with a body that says nothing.
    Text,
}

/// One step. `session` is an open transaction's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Wait(u64),
    Insert {
        table: Table,
        rows: u32,
    },
    /// Keys that are below those that the sequence gave.
    InsertLow {
        table: Table,
        rows: u32,
    },
    Copy {
        table: Table,
        rows: u32,
    },
    Update {
        table: Table,
    },
    Delete {
        table: Table,
        rows: u32,
    },
    Truncate {
        table: Table,
    },
    Begin {
        session: usize,
    },
    Write {
        session: usize,
        table: Table,
        rows: u32,
    },
    WriteLow {
        session: usize,
        table: Table,
        rows: u32,
    },
    Savepoint {
        session: usize,
        table: Table,
        rows: u32,
        keep: bool,
    },
    Commit {
        session: usize,
    },
    Rollback {
        session: usize,
    },
    Prepare {
        session: usize,
    },
    EndPrepared {
        session: usize,
        commit: bool,
    },
    /// Keeps its lock for so many milliseconds.
    Ddl {
        table: Table,
        change: Change,
        hold: u64,
    },
    /// The unmapped table, into the publication or out of it.
    Publish {
        add: bool,
    },
    /// The server's own connections of the program are ended.
    Terminate,
    Cut,
    CutAfter {
        to_server: bool,
        bytes: u64,
    },
    Stall(u64),
    Outage(Outage, u64),
    Checkpoint,
    Sink {
        trouble: SinkTrouble,
        times: u64,
    },
    Restart {
        ending: Ending,
        after: u64,
    },
    /// The configuration has one more section from now on; `setup` runs beside the old process, or not at all.
    Extend {
        table: Table,
        setup: bool,
        ending: Ending,
    },
    Pause {
        table: Table,
    },
    Resume {
        table: Table,
    },
    Resync {
        table: Table,
        all: bool,
    },
}

/// What does not change during a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// Rows that are there before the program first starts.
    pub rows: Vec<(Table, u32)>,
    pub batch: u32,
    pub hold: bool,
    pub memory: &'static str,
    /// Of each answer of the sink, in milliseconds.
    pub latency: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub seed: u64,
    pub world: World,
    pub steps: Vec<Step>,
}

/// Sessions that may be open side by side.
pub const SESSIONS: usize = 16;

impl Schedule {
    pub fn draw(seed: u64) -> Schedule {
        let mut dice = Rng::with_seed(seed);
        let mut size = |most: u32| if dice.u8(0..4) == 0 { dice.u32(0..20) } else { dice.u32(0..most) };
        let rows = vec![(Table::A, size(2_500)), (Table::B, size(600)), (Table::P, size(400)), (Table::N, size(1_500))];
        let world = World {
            rows,
            batch: *dice.choice(&[7, 20, 50, 100, 1_000]).unwrap(),
            hold: dice.u8(0..5) == 0,
            memory: dice.choice(&["4MiB", "4MiB", "64MiB"]).unwrap(),
            latency: *dice.choice(&[0, 0, 3, 8, 15]).unwrap(),
        };
        let mut stories = Stories { dice, sessions: 0 };
        let mut drawn = stories.draw();
        let mut steps = Vec::new();
        while !drawn.is_empty() {
            let at = stories.dice.usize(0..drawn.len());
            // Some steps in a row, so that a story is not always torn.
            for _ in 0..stories.dice.usize(1..=3) {
                steps.extend(drawn[at].pop_front());
            }
            drawn.retain(|story| !story.is_empty());
        }
        Schedule { seed, world, steps }
    }
}

struct Stories {
    dice: Rng,
    sessions: usize,
}

type Story = VecDeque<Step>;

impl Stories {
    fn draw(&mut self) -> Vec<Story> {
        let mut stories: Vec<Story> = vec![self.inserts(), self.inserts()];
        for _ in 0..self.dice.usize(4..=8) {
            let story = match self.dice.u8(0..30) {
                0..=1 => self.inserts(),
                2..=4 => self.late(),
                5 => self.savepoints(),
                6 => self.two_phase(),
                7..=8 => self.large(),
                9..=11 => self.restart(),
                12..=14 => self.network(),
                15..=18 => self.sink(),
                19..=22 => self.ddl(),
                23..=24 => self.straddle(),
                25 => self.outage(),
                26 => self.operator(),
                27 => self.resync(),
                28 => self.gone(),
                _ => self.low(),
            };
            stories.push(story);
        }
        if self.dice.u8(0..3) == 0 {
            stories.push(self.extend(Table::N));
        }
        if self.dice.u8(0..3) == 0 {
            stories.push(self.extend(Table::M));
        }
        stories
    }

    fn session(&mut self) -> usize {
        self.sessions += 1;
        (self.sessions - 1) % SESSIONS
    }

    fn table(&mut self) -> Table {
        *self.dice.choice(&[Table::A, Table::A, Table::B, Table::P, Table::N, Table::M]).unwrap()
    }

    fn mapped(&mut self) -> Table {
        *self.dice.choice(&Table::FIRST).unwrap()
    }

    fn wait(&mut self, most: u64) -> Step {
        Step::Wait(self.dice.u64(0..most))
    }

    fn ending(&mut self) -> Ending {
        *self.dice.choice(&[Ending::Kill, Ending::Kill, Ending::Term, Ending::Int, Ending::Quit]).unwrap()
    }

    fn inserts(&mut self) -> Story {
        let mut story = Story::new();
        for _ in 0..self.dice.usize(2..=5) {
            let (table, rows) = (self.table(), self.dice.u32(1..40));
            story.push_back(Step::Insert { table, rows });
            story.push_back(self.wait(40));
        }
        story
    }

    /// A transaction that commits late, with keys below those committed before it.
    fn late(&mut self) -> Story {
        let session = self.session();
        let mut story = Story::from([Step::Begin { session }]);
        for _ in 0..self.dice.usize(1..=3) {
            let (table, rows) = (self.table(), self.dice.u32(1..30));
            story.push_back(Step::Write { session, table, rows });
            let (table, rows) = (self.table(), self.dice.u32(1..30));
            story.push_back(Step::Insert { table, rows });
            story.push_back(self.wait(30));
        }
        let undo = self.dice.u8(0..5) == 0;
        story.push_back(if undo { Step::Rollback { session } } else { Step::Commit { session } });
        story
    }

    fn savepoints(&mut self) -> Story {
        let session = self.session();
        let mut story = Story::from([Step::Begin { session }]);
        for _ in 0..self.dice.usize(2..=5) {
            let (table, rows, keep) = (self.table(), self.dice.u32(1..20), self.dice.bool());
            story.push_back(Step::Savepoint { session, table, rows, keep });
        }
        story.push_back(Step::Commit { session });
        story
    }

    fn two_phase(&mut self) -> Story {
        let (session, table, rows, commit) =
            (self.session(), self.table(), self.dice.u32(1..60), self.dice.u8(0..4) > 0);
        Story::from([
            Step::Begin { session },
            Step::Write { session, table, rows },
            Step::Prepare { session },
            self.wait(60),
            Step::Insert { table, rows: 3 },
            Step::EndPrepared { session, commit },
        ])
    }

    fn large(&mut self) -> Story {
        let (table, rows) = (self.table(), self.dice.u32(150..900));
        let step = if self.dice.bool() { Step::Copy { table, rows } } else { Step::Insert { table, rows } };
        Story::from([step, self.wait(30)])
    }

    fn low(&mut self) -> Story {
        let (table, session) = (self.mapped(), self.session());
        Story::from([
            Step::InsertLow { table, rows: self.dice.u32(1..60) },
            Step::Begin { session },
            Step::WriteLow { session, table, rows: self.dice.u32(1..60) },
            self.wait(60),
            Step::Commit { session },
        ])
    }

    fn restart(&mut self) -> Story {
        let (before, ending) = (self.wait(120), self.ending());
        Story::from([before, Step::Restart { ending, after: self.dice.u64(0..60) }])
    }

    fn network(&mut self) -> Story {
        let step = match self.dice.u8(0..4) {
            0 => Step::Cut,
            1 => Step::CutAfter { to_server: self.dice.bool(), bytes: self.dice.u64(0..30_000) },
            2 => Step::Stall(self.dice.u64(20..250)),
            _ => Step::Terminate,
        };
        Story::from([self.wait(80), step, self.wait(80)])
    }

    fn sink(&mut self) -> Story {
        let mut story = Story::new();
        for _ in 0..self.dice.usize(1..=3) {
            let trouble = match self.dice.u8(0..15) {
                0..=2 => SinkTrouble::Status(*self.dice.choice(&[500, 502, 504]).unwrap(), self.dice.bool()),
                3 => SinkTrouble::Status(*self.dice.choice(&[401, 403, 404, 400, 422, 413]).unwrap(), false),
                4..=5 => SinkTrouble::Later(*self.dice.choice(&[429, 503, 408, 425]).unwrap()),
                6 => SinkTrouble::ResetUnread,
                7..=8 => SinkTrouble::ResetStored,
                9 => SinkTrouble::HalfAnswer,
                10 => SinkTrouble::Slow(*self.dice.choice(&[40, 200, 1_300]).unwrap()),
                11 => SinkTrouble::Hang(self.dice.bool()),
                12 => SinkTrouble::RefuseFirst(self.dice.usize(1..4)),
                13 => *self.dice.choice(&[SinkTrouble::Html, SinkTrouble::Redirect]).unwrap(),
                _ => SinkTrouble::Text,
            };
            let times = if self.dice.u8(0..4) == 0 { 2 } else { 1 };
            story.push_back(Step::Sink { trouble, times });
            let (table, rows) = (self.mapped(), self.dice.u32(1..60));
            story.push_back(Step::Insert { table, rows });
            story.push_back(self.wait(60));
        }
        story
    }

    fn ddl(&mut self) -> Story {
        let table = self.table();
        let mut story = Story::new();
        for _ in 0..self.dice.usize(1..=3) {
            let changes = [
                Change::AddColumn,
                Change::DropColumn,
                Change::RenameColumn,
                Change::RetypeOther,
                Change::RetypeKey,
                Change::RetypeKey,
                Change::VacuumFull,
                Change::Cluster,
                Change::Analyze,
                Change::Reindex,
            ];
            let change = *self.dice.choice(&changes).unwrap();
            story.push_back(Step::Ddl { table, change, hold: self.dice.u64(0..120) });
            story.push_back(Step::Insert { table, rows: self.dice.u32(1..20) });
            story.push_back(self.wait(40));
        }
        story
    }

    /// What is published changes within a transaction, and the stream begins again inside of it.
    fn straddle(&mut self) -> Story {
        let (session, table, add) = (self.session(), self.mapped(), self.dice.u8(0..3) > 0);
        let mut story = Story::new();
        if !add {
            story.push_back(Step::Publish { add: true });
        }
        story.extend([
            Step::Begin { session },
            Step::Write { session, table: Table::U, rows: self.dice.u32(1..50) },
            Step::Publish { add },
            Step::Insert { table: Table::U, rows: 1 },
            Step::Write { session, table, rows: self.dice.u32(30..300) },
            Step::Commit { session },
            self.wait(60),
        ]);
        story.push_back(match self.dice.u8(0..3) {
            0 => Step::Cut,
            1 => Step::Restart { ending: Ending::Kill, after: 0 },
            _ => Step::Restart { ending: Ending::Term, after: 0 },
        });
        if add {
            story.push_back(Step::Publish { add: false });
        }
        story
    }

    fn outage(&mut self) -> Story {
        let outage = *self.dice.choice(&[Outage::Fast, Outage::Immediate, Outage::Crash]).unwrap();
        let checkpoint = if self.dice.bool() { Step::Checkpoint } else { self.wait(30) };
        Story::from([checkpoint, self.wait(100), Step::Outage(outage, self.dice.u64(0..200)), self.wait(50)])
    }

    fn operator(&mut self) -> Story {
        let (table, rows) = (self.mapped(), self.dice.u32(1..30));
        Story::from([
            Step::Pause { table },
            Step::Insert { table, rows },
            self.wait(100),
            Step::Resume { table },
            Step::Insert { table, rows: 2 },
        ])
    }

    fn resync(&mut self) -> Story {
        let (table, all) = (self.mapped(), self.dice.bool());
        Story::from([self.wait(150), Step::Resync { table, all }, Step::Insert { table, rows: self.dice.u32(1..30) }])
    }

    fn gone(&mut self) -> Story {
        let table = self.mapped();
        let last = match self.dice.u8(0..4) {
            0 => Step::Truncate { table },
            _ => Step::Delete { table, rows: self.dice.u32(1..30) },
        };
        Story::from([Step::Update { table }, self.wait(60), last, Step::Insert { table, rows: 10 }])
    }

    /// A section more, with a transaction open on its table, perhaps since before anybody published it.
    fn extend(&mut self, table: Table) -> Story {
        let (session, setup, ending) = (self.session(), self.dice.bool(), self.ending());
        let (first, more) = (self.dice.u32(1..30), self.dice.u32(1..30));
        let mut story = Story::from([self.wait(150), Step::Insert { table, rows: 20 }]);
        if self.dice.u8(0..3) > 0 {
            story.extend([Step::Begin { session }, Step::Write { session, table, rows: first }]);
        }
        story.push_back(Step::Extend { table, setup, ending });
        story.extend([self.wait(200), Step::Insert { table, rows: 5 }, Step::Write { session, table, rows: more }]);
        story.push_back(Step::Commit { session });
        story.extend([Step::Insert { table, rows: 5 }, self.wait(50)]);
        story
    }
}

#[test]
fn a_seed_is_a_schedule() {
    let schedules: Vec<Schedule> = (0..200).map(Schedule::draw).collect();
    for schedule in &schedules {
        assert_eq!(Schedule::draw(schedule.seed), *schedule);
        let extends = |table| {
            schedule.steps.iter().filter(|step| matches!(step, Step::Extend { table: of, .. } if *of == table)).count()
        };
        assert!(extends(Table::N) <= 1 && extends(Table::M) <= 1, "a section twice: {schedule:?}");
    }
    // Every kind of step comes up.
    let all: std::collections::BTreeSet<String> = schedules
        .iter()
        .flat_map(|schedule| &schedule.steps)
        .map(|step| format!("{step:?}").chars().take_while(|letter| letter.is_alphanumeric()).collect())
        .collect();
    assert_eq!(all.len(), 29, "{all:?}");
}
