//! What the source committed and what the stand-in received, row by row.
//!
//! * In: commits as the writers tell them, items as the stand-in kept them.
//! * Out: how late rows came; whether each key came exactly once.
//! * Never: figures of the streamer itself. Pure: times come with the events.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::demo::tables::DemoTable;
use crate::demo::writer::Commit;

type SourceRow = (DemoTable, i64);

/// The accounts of one run.
#[derive(Debug, Default)]
pub(crate) struct RowAccounts {
    arrivals: HashMap<SourceRow, u32>,
    unnamed: u64,
    /// Committed rows that have not arrived, and arrivals that no writer has told of yet: by their time.
    awaited: HashMap<SourceRow, Timestamp>,
    early: HashMap<SourceRow, Timestamp>,
    /// When each table was attached: older commits may come by the backfill.
    attached: HashMap<DemoTable, Timestamp>,
    last_old: HashMap<DemoTable, i64>,
    late: Vec<Late>,
    /// Old rows that arrived.
    pub backfilled: u64,
    /// Rows that writers committed.
    pub written: u64,
    /// Rows that they took back.
    pub rolled_back: u64,
    /// Transactions that they held open.
    pub held: u64,
    /// Items that arrived.
    pub delivered: u64,
}

#[derive(Clone, Copy, Debug)]
struct Late {
    arrived: Timestamp,
    seconds: f64,
}

/// How late rows came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Lateness {
    /// Rows that this is about.
    pub rows: u64,
    /// Half of them came sooner.
    pub p50: Option<f64>,
    /// 99 of 100 came sooner.
    pub p99: Option<f64>,
    /// The last one.
    pub max: Option<f64>,
}

impl RowAccounts {
    /// For tables whose old rows have keys up to these.
    pub(crate) fn new(last_old: impl IntoIterator<Item = (DemoTable, i64)>) -> RowAccounts {
        RowAccounts { last_old: last_old.into_iter().collect(), ..RowAccounts::default() }
    }

    /// From now on the table's commits come by the stream. Said again, the first time counts.
    pub(crate) fn attached(&mut self, table: DemoTable, now: Timestamp) {
        self.attached.entry(table).or_insert(now);
    }

    /// Whether all tables are attached.
    pub(crate) fn all_attached(&self) -> bool {
        DemoTable::ALL.iter().all(|table| self.attached.contains_key(table))
    }

    /// Records the end of a writer's transaction.
    pub(crate) fn committed(&mut self, commit: &Commit) {
        self.written += commit.keys.len() as u64;
        self.rolled_back += commit.rolled_back;
        self.held += u64::from(!commit.held.is_zero());
        for key in &commit.keys {
            let name = (commit.table, *key);
            match self.early.remove(&name) {
                Some(arrived) => self.came(commit.table, commit.at, arrived),
                None => drop(self.awaited.insert(name, commit.at)),
            }
        }
    }

    /// Records an item; `key` where the item carries one of the demonstration's keys.
    pub(crate) fn arrived(&mut self, table: DemoTable, key: Option<i64>, at: Timestamp) {
        self.delivered += 1;
        let Some(key) = key else {
            self.unnamed += 1;
            return;
        };
        let name = (table, key);
        let times = self.arrivals.entry(name).or_default();
        *times += 1;
        if *times > 1 {
            return;
        }
        if key <= self.last_old.get(&table).copied().unwrap_or(0) {
            self.backfilled += 1;
            return;
        }
        match self.awaited.remove(&name) {
            Some(committed) => self.came(table, committed, at),
            None => drop(self.early.insert(name, at)),
        }
    }

    fn came(&mut self, table: DemoTable, committed: Timestamp, arrived: Timestamp) {
        if self.attached.get(&table).is_some_and(|attached| committed >= *attached) {
            let seconds = arrived.duration_since(committed).as_secs_f64().max(0.0);
            self.late.push(Late { arrived, seconds });
        }
    }

    /// How many different rows arrived.
    pub(crate) fn distinct(&self) -> u64 {
        self.arrivals.len() as u64
    }

    /// How late rows came that arrived at `since` or later.
    pub(crate) fn lateness(&self, since: Timestamp) -> Lateness {
        let recent = self.late.iter().filter(|late| late.arrived >= since);
        let mut seconds: Vec<f64> = recent.map(|late| late.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        let rank = |percent: usize| seconds.get((seconds.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Lateness { rows: seconds.len() as u64, p50: rank(50), p99: rank(99), max: seconds.last().copied() }
    }

    /// Holds the keys of a table against what arrived.
    pub(crate) fn compare(&self, table: DemoTable, source: &[i64]) -> Reconciliation {
        let times = |key: i64| self.arrivals.get(&(table, key)).copied().unwrap_or(0);
        let of = |wanted: &dyn Fn(u32) -> bool| source.iter().copied().filter(|key| wanted(times(*key))).collect();
        let known: std::collections::HashSet<i64> = source.iter().copied().collect();
        let mine = self.arrivals.iter().filter(|((of, _), _)| *of == table);
        let mut uncommitted: Vec<i64> =
            mine.clone().map(|((_, key), _)| *key).filter(|key| !known.contains(key)).collect();
        uncommitted.sort_unstable();
        Reconciliation {
            table: table.name(),
            source: source.len() as u64,
            delivered: mine.map(|(_, times)| u64::from(*times)).sum(),
            missing: of(&|times| times == 0),
            doubled: of(&|times| times > 1),
            uncommitted,
        }
    }

    /// Items that no row of ours can have given.
    pub(crate) fn unnamed(&self) -> u64 {
        self.unnamed
    }
}

/// The comparison of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reconciliation {
    pub table: &'static str,
    /// Rows there.
    pub source: u64,
    /// Items that arrived.
    pub delivered: u64,
    /// Keys that did not arrive.
    pub missing: Vec<i64>,
    /// Keys that arrived more than once.
    pub doubled: Vec<i64>,
    /// Keys that arrived and are not there.
    pub uncommitted: Vec<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).unwrap()
    }

    fn commit(at: Timestamp, keys: &[i64]) -> Commit {
        Commit { table: DemoTable::Events, at, keys: keys.to_vec(), held: Duration::ZERO, rolled_back: 0 }
    }

    #[test]
    fn lost_doubled_and_uncommitted_rows_are_named() {
        let mut accounts = RowAccounts::new([(DemoTable::Events, 3)]);
        for key in [1, 2, 2, 5, 9] {
            accounts.arrived(DemoTable::Events, Some(key), at(0));
        }
        accounts.arrived(DemoTable::Usage, Some(4), at(0));
        accounts.arrived(DemoTable::Usage, None, at(0));
        let verdict = accounts.compare(DemoTable::Events, &[1, 2, 3, 5]);
        assert_eq!((verdict.source, verdict.delivered), (4, 5));
        assert_eq!((verdict.missing, verdict.doubled, verdict.uncommitted), (vec![3], vec![2], vec![9]));
        assert_eq!((accounts.backfilled, accounts.distinct(), accounts.unnamed()), (2, 5, 1));
    }

    #[test]
    fn lateness_is_measured_in_whatever_order_one_hears_of_it() {
        let mut accounts = RowAccounts::new([(DemoTable::Events, 0)]);
        accounts.attached(DemoTable::Events, at(1000));
        accounts.attached(DemoTable::Events, at(9000));
        accounts.committed(&commit(at(1000), &[1]));
        accounts.arrived(DemoTable::Events, Some(1), at(1250));
        accounts.arrived(DemoTable::Events, Some(2), at(2000));
        accounts.committed(&commit(at(1500), &[2]));
        // Before the attach: the backfill may bring it.
        accounts.committed(&commit(at(999), &[3]));
        accounts.arrived(DemoTable::Events, Some(3), at(5000));
        assert_eq!(accounts.lateness(at(0)), Lateness { rows: 2, p50: Some(0.25), p99: Some(0.5), max: Some(0.5) });
        assert_eq!(accounts.lateness(at(1900)).p50, Some(0.5));
        assert_eq!(accounts.lateness(at(3000)), Lateness::default());
    }

    #[test]
    fn a_second_arrival_is_not_late_but_doubled() {
        let mut accounts = RowAccounts::new([]);
        accounts.attached(DemoTable::Events, at(0));
        accounts.committed(&commit(at(0), &[1]));
        accounts.arrived(DemoTable::Events, Some(1), at(10));
        accounts.arrived(DemoTable::Events, Some(1), at(20));
        assert_eq!((accounts.lateness(at(0)).rows, accounts.delivered, accounts.distinct()), (1, 2, 1));
    }
}
