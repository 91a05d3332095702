//! Operators' requests to the running instance.
//!
//! * In: events of the state that nobody has handled, told again by the monitor until their handling is durable.
//! * Out: which of them were taken up; rows of the quarantine, read again from the table.
//! * Never: an event obeyed twice by one process.

use std::collections::{HashMap, HashSet};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::Source;
use crate::runtime::monitor_event::MonitorEvent;
use crate::runtime::quarantine_reader::{ReadAgain, RetryRead, RowsToRead, prove, read_again};
use crate::runtime::same_server::SameServer;
use crate::runtime::state_connector::StateConnector;

/// Deliver a section again: `{"from": KEY | null}`.
pub(crate) const RESYNC: &str = "resync";
/// Send rows of the quarantine again: `{"ids": […]}`, of one section.
pub(crate) const RETRY: &str = "quarantine_retry";
/// Try a section now that would be tried later: `{}`.
pub(crate) const PROBE: &str = "probe";
/// Let rows that the mapping refuses go into quarantine, where they are kept back: `{}`.
pub(crate) const RESUME: &str = "resume";

/// Operators' requests that were taken up.
#[derive(Debug)]
pub(crate) struct OperatorRequests {
    /// Never pruned: operators' requests are rare, and forgetting one would run it twice.
    taken: HashSet<i64>,
    /// Rows of a retry that wait for those before them, and how many those are.
    left: HashMap<i64, (Vec<i64>, usize)>,
    /// Rows that were read and wait until all is settled that was committed before.
    unproven: Vec<ReadAgain>,
    /// Where the rows that were read for a request come back.
    events: mpsc::Sender<MonitorEvent>,
}

impl OperatorRequests {
    pub(crate) fn new(events: mpsc::Sender<MonitorEvent>) -> OperatorRequests {
        OperatorRequests { taken: HashSet::new(), left: HashMap::new(), unproven: Vec::new(), events }
    }

    pub(crate) fn is_taken(&self, event: i64) -> bool {
        self.taken.contains(&event)
    }

    pub(crate) fn take(&mut self, event: i64) {
        self.taken.insert(event);
    }

    /// The rows of a retry that were left for another round, and how many were sent before.
    pub(crate) fn take_left(&mut self, event: i64) -> Option<(Vec<i64>, usize)> {
        self.left.remove(&event)
    }

    /// These rows of a retry wait until the `sent` ones before them are settled: the monitor will tell of it again.
    pub(crate) fn leave(&mut self, event: i64, ids: Vec<i64>, sent: usize) {
        self.left.insert(event, (ids, sent));
        self.give_back(event);
    }

    /// The monitor will tell of it again.
    pub(crate) fn give_back(&mut self, event: i64) {
        self.taken.remove(&event);
    }

    /// Reads quarantined rows again beside the loop; they come back as [`MonitorEvent::ReadAgain`].
    pub(crate) fn read_again(
        &self,
        rows: RowsToRead,
        (server, source): (SameServer, Source),
        connector: StateConnector,
        tasks: &mut JoinSet<()>,
    ) {
        let events = self.events.clone();
        tasks.spawn(async move {
            let read = read_again((&server, &source), &connector, &rows).await.map(RetryRead::Unproven);
            let RowsToRead { section, event, ids, sent, .. } = rows;
            // Where nobody listens any more, the event waits for the next instance.
            events.send(MonitorEvent::ReadAgain(Box::new(ReadAgain { section, event, ids, sent, read }))).await.ok();
        });
    }

    /// These rows wait until all is settled that was committed before they were read.
    pub(crate) fn hold(&mut self, unproven: ReadAgain) {
        self.unproven.push(unproven);
    }

    /// The rows that wait so.
    pub(crate) fn take_unproven(&mut self) -> Vec<ReadAgain> {
        std::mem::take(&mut self.unproven)
    }

    /// Asks the ledger beside the loop what was delivered since; they come back as [`MonitorEvent::ReadAgain`].
    pub(crate) fn prove(&self, mut waited: ReadAgain, connector: StateConnector, tasks: &mut JoinSet<()>) {
        let events = self.events.clone();
        tasks.spawn(async move {
            if let Ok(RetryRead::Unproven(unproven)) = waited.read {
                waited.read = prove(&connector, unproven).await.map(RetryRead::Proven);
            }
            events.send(MonitorEvent::ReadAgain(Box::new(waited))).await.ok();
        });
    }
}
