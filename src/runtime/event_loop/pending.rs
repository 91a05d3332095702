//! What the event loop remembers of requests and of drift until it has acted on them.
//!
//! * In: events of operators, looks at the publication.
//! * Out: plain data for the files that act.
//! * Never: I/O.

use crate::model::lsn::Lsn;
use crate::postgres::catalog::server::Server;
use crate::runtime::monitor_event::MonitorEvent;
use std::collections::HashSet;
use tokio::sync::mpsc;
/// What is known of events.
#[derive(Debug)]
pub(crate) struct OperatorRequests {
    /// Events taken up: the watch tells of each until its handling is durable. People ask seldom: they are never so many
    /// that forgetting would be worth its danger.
    pub(crate) taken: HashSet<i64>,
    /// Where what was read for an event comes back.
    pub(crate) news: mpsc::Sender<MonitorEvent>,
}

impl OperatorRequests {
    pub(crate) fn new(news: mpsc::Sender<MonitorEvent>) -> OperatorRequests {
        OperatorRequests { taken: HashSet::new(), news }
    }
}

/// When the stream is to be opened anew for an attached partition. pgoutput of PostgreSQL 14 remembers that it does not
/// publish a table for as long as the walsender lives, and a new walsender learns it again from what was written before the
/// table was attached: so not before all of that is confirmed. What is skipped meanwhile is in the gap.
pub(crate) struct StreamRestart {
    pub(crate) forgets: bool,
    pub(crate) behind: Option<Lsn>,
}

impl StreamRestart {
    /// For this server.
    pub(crate) fn of(server: &Server) -> StreamRestart {
        StreamRestart { forgets: server.version >= 150_000, behind: None }
    }

    /// A partition was attached by then. Whether the stream must be opened anew.
    pub(crate) fn wanted(&mut self, by: Lsn) -> bool {
        if !self.forgets {
            self.behind = Some(by);
        }
        !self.forgets
    }

    /// Whether its time has come; once.
    pub(crate) fn is_due(&mut self, confirmed: Lsn) -> bool {
        self.behind.take_if(|behind| confirmed >= *behind).is_some()
    }
}
