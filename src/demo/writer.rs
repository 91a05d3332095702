//! The application: several connections that insert at once, as applications do.
//!
//! * In: a source, a seed.
//! * Out: rows, and when each was committed.
//! * Never: an even stream. Some transactions stay open while others commit past them, so that low keys commit late; some
//!   are rolled back, wholly or to a savepoint, so that keys are missing for ever.

use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::config::Source;
use crate::demo::tables::DemoTable;
use crate::model::Fault;
use crate::postgres::connection::session::{Session, connect_sql};

/// How many connections write.
pub(crate) const WRITERS: usize = 4;
/// Rows a second of one connection, while it does not wait.
const PACE: f64 = 250.0;

/// What a transaction did.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    pub table: DemoTable,
    /// Just before COMMIT was asked for: what is delivered earlier than this was not committed.
    pub at: Timestamp,
    /// The keys of its rows.
    pub keys: Vec<i64>,
    /// How long it stayed open on purpose.
    pub held: Duration,
    /// Rows that it inserted and took back.
    pub rolled_back: u64,
}

/// How a transaction goes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Course {
    /// Insert and commit.
    Plain,
    /// As many again are inserted after a savepoint, and rolled back to it.
    Savepoint,
    /// All of it is rolled back.
    RolledBack,
    /// Others commit past it before it commits.
    Held(Duration),
}

/// A transaction to be made.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Draft {
    table: DemoTable,
    rows: i64,
    course: Course,
}

impl Draft {
    fn draw(random: &mut Rng) -> Draft {
        let table = if random.u8(..4) == 0 { DemoTable::Usage } else { DemoTable::Events };
        let rows = if random.u8(..50) == 0 { random.i64(200..600) } else { random.i64(1..25) };
        let course = match random.u8(..100) {
            0..72 => Course::Plain,
            72..84 => Course::Savepoint,
            84..94 => Course::RolledBack,
            _ => Course::Held(Duration::from_millis(random.u64(300..3000))),
        };
        Draft { table, rows, course }
    }

    /// The rest that keeps the pace.
    fn pause(self) -> Duration {
        Duration::from_secs_f64(self.rows as f64 / PACE)
    }
}

/// Running writers; they end when dropped.
#[derive(Debug)]
pub(crate) struct Writers {
    stop: watch::Sender<bool>,
    tasks: JoinSet<Result<(), Fault>>,
    commits: mpsc::UnboundedReceiver<Commit>,
}

impl Writers {
    /// Connects them and sets them going.
    pub(crate) async fn start(source: &Source) -> Result<Writers, Fault> {
        let (stop, stopped) = watch::channel(false);
        let (tell, commits) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        for number in 0..WRITERS {
            let random = Rng::with_seed(number as u64 + 1);
            let session = connect_sql(source, "demo writer").await?;
            tasks.spawn(write(session, random, tell.clone(), stopped.clone()));
        }
        Ok(Writers { stop, tasks, commits })
    }

    /// What was committed (or rolled back) since it was last asked for.
    pub(crate) fn commits(&mut self) -> Vec<Commit> {
        std::iter::from_fn(|| self.commits.try_recv().ok()).collect()
    }

    /// Asks them to end; transactions that are open are committed at once.
    pub(crate) async fn stop(&mut self) -> Result<(), Fault> {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(|error| Fault::bug(format!("a writer of the demo: {error}")))??;
        }
        Ok(())
    }

    /// Ends with the first writer that fails; never where none does.
    pub(crate) async fn failed(&mut self) -> Fault {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Err(fault))) => return fault,
                Some(Err(error)) => return Fault::bug(format!("a writer of the demo: {error}")),
                Some(Ok(Ok(()))) => {}
                None => std::future::pending().await,
            }
        }
    }
}

async fn write(
    session: Session,
    mut random: Rng,
    tell: mpsc::UnboundedSender<Commit>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Fault> {
    while !*stop.borrow() {
        let draft = Draft::draw(&mut random);
        let commit = transact(&session, draft, &mut stop).await.map_err(|error| session.fault(&error))?;
        if tell.send(commit).is_err() {
            break;
        }
        rest(draft.pause(), &mut stop).await;
    }
    Ok(())
}

async fn transact(
    session: &Session,
    draft: Draft,
    stop: &mut watch::Receiver<bool>,
) -> Result<Commit, tokio_postgres::Error> {
    session.batch_execute("BEGIN").await?;
    let mut commit = Commit {
        table: draft.table,
        at: Timestamp::UNIX_EPOCH,
        keys: Vec::new(),
        held: Duration::ZERO,
        rolled_back: 0,
    };
    commit.keys = insert(session, draft).await?;
    match draft.course {
        Course::Plain => {}
        Course::Savepoint => {
            session.batch_execute("SAVEPOINT doubt").await?;
            commit.rolled_back = insert(session, draft).await?.len() as u64;
            session.batch_execute("ROLLBACK TO doubt").await?;
        }
        Course::RolledBack => {
            session.batch_execute("ROLLBACK").await?;
            commit.rolled_back = std::mem::take(&mut commit.keys).len() as u64;
            return Ok(commit);
        }
        Course::Held(time) => {
            rest(time, stop).await;
            commit.held = time;
        }
    }
    commit.at = Timestamp::now();
    session.batch_execute("COMMIT").await?;
    Ok(commit)
}

async fn insert(session: &Session, draft: Draft) -> Result<Vec<i64>, tokio_postgres::Error> {
    let rows = session.query(draft.table.insert(), &[&draft.rows, &false]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Waits, but not when it is time to stop.
async fn rest(time: Duration, stop: &mut watch::Receiver<bool>) {
    tokio::select! {
        biased;
        // 1. The end comes before the rest. A sender that is gone means the end, too.
        _ = stop.wait_for(|stop| *stop) => {}
        // 2. The rest.
        () = tokio::time::sleep(time) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_course_is_taken_and_the_same_seed_takes_the_same() {
        let drafts = |seed| {
            let mut random = Rng::with_seed(seed);
            (0..500).map(|_| Draft::draw(&mut random)).collect::<Vec<_>>()
        };
        let drawn = drafts(1);
        assert_eq!(drawn, drafts(1));
        assert!(drawn.iter().any(|draft| draft.course == Course::Plain));
        assert!(drawn.iter().any(|draft| draft.course == Course::Savepoint));
        assert!(drawn.iter().any(|draft| draft.course == Course::RolledBack));
        assert!(drawn.iter().any(|draft| matches!(draft.course, Course::Held(_))));
        assert!(DemoTable::ALL.iter().all(|table| drawn.iter().any(|draft| draft.table == *table)));
        assert!(drawn.iter().all(|draft| draft.rows > 0));
    }
}
