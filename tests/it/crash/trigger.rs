//! When the program is killed: points as the sink and the wire see them.

use std::sync::Mutex;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;

use crate::harness::App;

/// A moment of a request, at the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Its head is there; its body is not read.
    Arrives,
    /// It is read, and nothing is stored.
    Read,
    /// It is stored, and nothing is answered.
    Stored,
    /// Half the answer is sent.
    HalfAnswered,
    /// The answer is sent.
    Answered,
}

/// Words by which a step is known on its way to PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The state schema is made.
    Schema,
    /// The publication is made.
    Publication,
    /// The slot is made.
    Slot,
    /// The epoch is taken.
    Epoch,
    /// A section is attached.
    Attach,
    /// The stream begins.
    Stream,
    /// An xmin barrier is set.
    Barrier,
    /// A chunk is read.
    Chunk,
    /// A write of the state is committed.
    Commit,
    /// A status update: the slot is confirmed.
    Status,
}

impl Word {
    pub const ALL: [Word; 10] = [
        Word::Schema,
        Word::Publication,
        Word::Slot,
        Word::Epoch,
        Word::Attach,
        Word::Stream,
        Word::Barrier,
        Word::Chunk,
        Word::Commit,
        Word::Status,
    ];

    /// What it looks like on the wire.
    pub fn bytes(self) -> &'static [u8] {
        match self {
            Word::Schema => b"CREATE SCHEMA",
            Word::Publication => b"CREATE PUBLICATION",
            Word::Slot => b"pg_create_logical_replication_slot",
            Word::Epoch => b"SET epoch = epoch + 1",
            Word::Attach => b"attach_lsn, attached_at, columns, phase",
            Word::Stream => b"START_REPLICATION",
            Word::Barrier => b"pg_current_xact_id()",
            Word::Chunk => b"COPY (SELECT",
            Word::Commit => b"COMMIT\0",
            Word::Status => b"d\0\0\0\x26r",
        }
    }
}

/// On which side of a word on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It does not reach the server.
    Before,
    /// It is on its way to the server.
    After,
    /// The server has answered, and the answer does not reach the program.
    Answered,
}

/// Where a plan kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    Sink(Moment),
    Wire(Word, Side),
    /// After so many bytes to PostgreSQL.
    Bytes,
    /// After so many milliseconds.
    Instant,
}

/// A point, and at which time that it comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kill {
    pub point: Point,
    pub nth: u32,
}

#[derive(Debug)]
struct Armed {
    point: Point,
    left: u64,
    process: Pid,
}

/// Kills once, at the armed point.
#[derive(Debug)]
pub struct Trigger {
    armed: Mutex<Option<Armed>>,
    fired: watch::Sender<bool>,
}

impl Default for Trigger {
    fn default() -> Trigger {
        Trigger { armed: Mutex::new(None), fired: watch::Sender::new(false) }
    }
}

impl Trigger {
    pub fn arm(&self, kill: Kill, process: i32) {
        self.fired.send_replace(false);
        let process = Pid::from_raw(process).unwrap();
        *self.armed.lock().unwrap() = Some(Armed { point: kill.point, left: u64::from(kill.nth), process });
    }

    /// A point has come up, for so many units; kills where it is the armed one and its turn. Returns whether it did.
    pub fn hit(&self, point: Point, units: u64) -> bool {
        let mut armed = self.armed.lock().unwrap();
        let Some(one) = armed.as_mut().filter(|one| one.point == point) else { return false };
        one.left = one.left.saturating_sub(units);
        if one.left > 0 {
            return false;
        }
        let process = one.process;
        *armed = None;
        kill_process(process, Signal::KILL).unwrap();
        self.fired.send_replace(true);
        true
    }

    /// Waits until it has killed; kills by itself at an instant, and where the point does not come up.
    pub async fn wait(&self, app: &App, kill: Kill, patience: Duration) {
        let limit = match kill.point {
            Point::Instant => Duration::from_millis(u64::from(kill.nth)),
            Point::Sink(_) | Point::Wire(..) | Point::Bytes => patience,
        };
        let mut fired = self.fired.subscribe();
        if tokio::time::timeout(limit, fired.wait_for(|fired| *fired)).await.is_ok() {
            return;
        }
        // Disarmed under the lock: it may fire just now, and then it has.
        let armed = self.armed.lock().unwrap().take();
        if let Some(armed) = armed {
            assert!(app.is_running(), "the program ended by itself before {kill:?}:\n{}", app.log());
            kill_process(armed.process, Signal::KILL).unwrap();
        }
    }
}
