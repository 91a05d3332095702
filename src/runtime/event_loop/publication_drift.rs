//! What the watch sees of the publication and the tables: PostgreSQL skips rows in silence when they are not as they were.
//!
//! * In: a look.
//! * Out: halted sections, and gaps recorded for `repair`.
//! * Never: a section that goes on though rows of it may have been skipped.

use std::sync::Arc;

use crate::delivery::section::StopReason;
use crate::model::Fault;
use crate::runtime::event_loop::EventLoop;
use crate::runtime::monitor_event::{PublicationStatus, SourceStatus};
use crate::runtime::state_connector::StateConnector;
use crate::state::{NewGap, Op};
use crate::telemetry::status_document::Reason;

impl EventLoop {
    /// Compares with what was attached. What concerns one section halts it; what concerns all ends this corridor.
    pub(crate) fn on_published(&mut self, look: &SourceStatus) {
        let seen = &look.published;
        let name = self.config.source.publication.clone();
        let Some(publication) = &seen.publication else {
            let what = format!("the publication {name} is gone");
            return self.needs(Reason::PublicationChanged, what);
        };
        let recorded = self.identity.publication_oid;
        if recorded != 0 && recorded != publication.oid {
            let what = format!(
                "the publication {name} was dropped and made anew: rows written in between may have been skipped"
            );
            return self.needs(Reason::PublicationChanged, what);
        }
        if !publication.insert {
            let what = format!("the publication {name} does not publish inserts any more: rows are skipped in silence");
            return self.needs(Reason::PublicationChanged, what);
        }
        // Only now: where the publication is not what it was, rows above the old floor may have been skipped, and the gap that
        // `repair --gap` reads again must begin there.
        self.engine.set_floor(look.floor_at, look.xmin);
        if self.anew.is_due(self.engine.confirmed()) {
            self.rewind();
        }
        for lane in 0..self.lanes.len() {
            if self.engine.lanes[lane].shut.is_some() {
                continue;
            }
            self.partitions(lane, look, seen);
            let run = &self.lanes[lane];
            let table = publication.tables.iter().find(|table| table.oid == run.oid);
            let configured = self.sections[run.section].section.table.to_string();
            let now = seen.names.iter().find(|(known, _)| *known == configured).and_then(|(_, oid)| *oid);
            let drift = match table {
                _ if now.is_some_and(|oid| oid != run.oid) => {
                    Some(format!("{configured} is another table than the one attached (swapped or remade)"))
                }
                None => Some(format!("{configured} is no longer in the publication {name}")),
                Some(table) if table.filter => Some(format!("the publication {name} has a row filter on {configured}")),
                Some(table) if table.column_list => {
                    Some(format!("the publication {name} has a column list on {configured}"))
                }
                Some(table) if run.entry.is_some_and(|entry| table.entry.is_some_and(|now| now != entry)) => {
                    Some(format!("{configured} was taken out of the publication {name} and put back"))
                }
                Some(_) => None,
            };
            match drift {
                Some(what) => self.halt_for_drift(lane, what),
                None => {
                    let entry = table.and_then(|table| table.entry);
                    let run = &mut self.lanes[lane];
                    run.sound = Some((look.floor_at, look.xmin));
                    run.entry = run.entry.or(entry);
                }
            }
        }
    }

    /// Rows may have been skipped since the last look that found everything in order: the section stops, and the gap is
    /// recorded. The slot does not wait for it: what the server skipped it will skip again.
    fn halt_for_drift(&mut self, lane: usize, what: String) {
        let remedy = "put it back as it was, then `pg2planhat repair --gap` re-reads what was skipped".to_owned();
        let name = self.engine.lanes[lane].name.clone();
        tracing::error!(section = %name, what, remedy, "halted: rows may have been skipped since");
        self.open_gap(lane, Reason::PublicationChanged.as_str(), what.clone());
        self.engine.record(vec![Op::Halted { section: name, why: Some((what.clone(), remedy.clone())) }]);
        self.engine.lanes[lane].shut = Some(StopReason::Mapping(what, remedy));
    }

    /// Rows that a partition held before it was attached never come by the stream. One that was made as a partition had
    /// none. The section goes on: what comes from here on is whole.
    fn partitions(&mut self, lane: usize, look: &SourceStatus, seen: &PublicationStatus) {
        let oid = self.lanes[lane].oid;
        let now: Vec<_> = seen.partitions.iter().filter(|partition| partition.root == oid).collect();
        let known = self.lanes[lane].partitions.replace(now.iter().map(|partition| partition.oid).collect());
        let Some(known) = known else { return };
        for partition in now.iter().filter(|partition| partition.attached && !known.contains(&partition.oid)) {
            let what =
                format!("the partition {} was attached: rows that it held before are not streamed", partition.name);
            let mut remedy = "if it held rows: pg2planhat resync SECTION with the keys that it holds".to_owned();
            if self.anew.wanted(look.floor_at) {
                remedy += "; PostgreSQL 14 may also skip rows inserted into it until the stream is read anew, in some seconds: \
                           pg2planhat repair --gap";
            }
            tracing::warn!(section = %self.engine.lanes[lane].name, what, remedy, at = %look.floor_at, "rows may be missing");
            self.board.metrics.ignored("attached_partition");
            self.open_gap(lane, "partition_attached", what);
        }
    }

    /// Records a stretch that was not read, since the last look that found everything in order.
    fn open_gap(&mut self, lane: usize, reason: &str, detail: String) {
        let (from, floor) = self.lanes[lane].sound.unwrap_or((self.engine.written(), 0));
        let gap = NewGap {
            section: Some(self.engine.lanes[lane].name.clone()),
            reason: reason.to_owned(),
            detail,
            from_lsn: Some(from),
            to_lsn: None,
            xmin_floor: (floor > 0).then_some(floor),
        };
        let connector = StateConnector::new(Arc::clone(&self.config));
        self.tasks.spawn(async move {
            let opened = async { connector.store().await?.open_gap(&gap).await.map_err(|error| error.fault()) };
            let opened: Result<i64, Fault> = opened.await;
            if let Err(fault) = opened {
                tracing::error!(what = fault.what, "the gap could not be recorded; it stands in this log");
            }
        });
    }
}
