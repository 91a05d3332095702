//! Whether the process's own tasks still move.
//!
//! * In: a beat of each task, whatever it does or waits for.
//! * Out: the tasks that did not beat within their limit.
//! * Never: a judgement about PostgreSQL or Planhat: a task that waits for them still beats.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// All tasks of the process.
#[derive(Debug)]
pub struct Heartbeat {
    began: Instant,
    tasks: Mutex<Vec<Arc<Task>>>,
}

#[derive(Debug)]
struct Task {
    name: &'static str,
    limit: Duration,
    began: Instant,
    /// Milliseconds from `began` to the last beat.
    last: AtomicU64,
    finished: AtomicBool,
}

/// One task's pulse. A task that ends without [`Beat::finish`] counts as stuck, so that the probe reports it.
#[derive(Clone, Debug)]
pub struct Beat(Arc<Task>);

/// A task that does not move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    pub task: &'static str,
    /// How long ago it last moved.
    pub since: Duration,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Heartbeat { began: Instant::now(), tasks: Mutex::default() }
    }
}

impl Heartbeat {
    pub fn new() -> Heartbeat {
        Heartbeat::default()
    }

    /// A task begins, and will beat at least once per `limit`. Its first beat is now.
    pub fn task(&self, name: &'static str, limit: Duration) -> Beat {
        let task = Task { name, limit, began: self.began, last: AtomicU64::new(0), finished: AtomicBool::new(false) };
        let beat = Beat(Arc::new(task));
        beat.beat();
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| !task.finished.load(Ordering::Relaxed));
        tasks.push(Arc::clone(&beat.0));
        beat
    }

    /// The tasks that are late at `now`, in the order begun.
    pub fn stuck(&self, now: Instant) -> Vec<Stuck> {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let late = tasks.iter().filter_map(|task| {
            let last = Duration::from_millis(task.last.load(Ordering::Relaxed));
            let since = now.saturating_duration_since(task.began).saturating_sub(last);
            let alive = task.finished.load(Ordering::Relaxed) || since <= task.limit;
            (!alive).then_some(Stuck { task: task.name, since })
        });
        late.collect()
    }
}

impl Beat {
    /// Records that the task moves.
    pub fn beat(&self) {
        let millis = u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last.store(millis, Ordering::Relaxed);
    }

    /// Records that the task has ended normally.
    pub fn finish(self) {
        self.0.finished.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_stops_beating_is_named_and_one_that_finishes_is_not() {
        let heartbeat = Heartbeat::new();
        let reader = heartbeat.task("reader", Duration::from_secs(10));
        let section = heartbeat.task("section", Duration::from_secs(60));
        let later = Instant::now() + Duration::from_secs(20);
        let names = |now| heartbeat.stuck(now).into_iter().map(|stuck| stuck.task).collect::<Vec<_>>();
        assert!(names(Instant::now()).is_empty());
        assert_eq!(names(later), ["reader"]);
        assert!(heartbeat.stuck(later)[0].since > Duration::from_secs(19));
        drop(section);
        assert_eq!(names(later + Duration::from_secs(60)), ["reader", "section"], "a lost task is a stuck one");
        reader.finish();
        assert_eq!(names(later), Vec::<&str>::new());
    }
}
