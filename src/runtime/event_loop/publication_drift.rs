//! Changes of the publication and the tables that the monitor sees: PostgreSQL then skips rows without a word.
//!
//! * In: what the monitor saw.
//! * Out: stopped sections, and gaps recorded for `repair`.
//! * Never: a section that goes on though rows of it may have been skipped.

use std::sync::Arc;

use crate::delivery::section::Trouble;
use crate::model::{Fault, SectionId};
use crate::postgres::catalog::publication::Publication;
use crate::runtime::event_loop::EventLoop;
use crate::runtime::event_loop::section_runtime::AttachedTable;
use crate::runtime::monitor_event::{PublicationStatus, SourceStatus};
use crate::runtime::state_connector::StateConnector;
use crate::state::{NewGap, Op};
use crate::telemetry::status_document::Reason;

impl EventLoop {
    /// Compares with what was attached. What concerns one section stops it; what concerns all ends the loop.
    pub(crate) fn check_publication(&mut self, seen: &SourceStatus) {
        let config = Arc::clone(&self.context.config);
        let publication = match self.monitor.judge_publication(&config.source, &seen.published) {
            Ok(publication) => publication,
            Err(exit) => return self.context.end(exit),
        };
        // Only now: where the publication is not what it was, rows above the old floor may have been skipped, and the gap that
        // `repair --gap` reads again must begin there.
        self.engine.set_floor(seen.floor_at, seen.xmin);
        if self.monitor.restart_is_due(self.engine.confirmed()) {
            self.rewind();
        }
        for id in self.engine.section_ids() {
            if !self.engine.section(id).takes_rows() {
                continue;
            }
            self.check_partitions(id, seen);
            let section = &mut self.sections[id];
            let Some(table) = &mut section.table else { continue };
            let configured = section.config.table.to_string();
            match drift(&configured, &config.source.publication, publication, &seen.published, table) {
                Some(what) => self.stop_for_drift(id, what),
                None => {
                    let published = publication.tables.iter().find(|published| published.oid == table.oid);
                    table.verified = Some((seen.floor_at, seen.xmin));
                    table.entry = table.entry.or(published.and_then(|published| published.entry));
                }
            }
        }
    }

    /// Rows may have been skipped since the publication was last seen in order: the section stops, and the gap is recorded. The
    /// slot does not wait for it: what the server skipped it will skip again.
    fn stop_for_drift(&mut self, id: SectionId, what: String) {
        let remedy = "put it back as it was, then `pg2planhat repair --gap` re-reads what was skipped".to_owned();
        let section = self.engine.section(id).name().clone();
        tracing::error!(%section, what, remedy, "halted: rows may have been skipped since");
        self.open_gap(id, Reason::PublicationChanged.as_str(), what.clone());
        self.engine.record(vec![Op::Halted { section, why: Some((what.clone(), remedy.clone())) }]);
        self.engine.section_mut(id).stop(Trouble::new(what, remedy));
    }

    /// Rows that a partition held before it was attached never come by the stream. One that was made as a partition had
    /// none. The section goes on: what comes from here on is whole.
    fn check_partitions(&mut self, id: SectionId, seen: &SourceStatus) {
        let Some(table) = &mut self.sections[id].table else { return };
        let now: Vec<_> = seen.published.partitions.iter().filter(|partition| partition.root == table.oid).collect();
        let known = table.partitions.replace(now.iter().map(|partition| partition.oid).collect());
        let Some(known) = known else { return };
        for partition in now.iter().filter(|partition| partition.attached && !known.contains(&partition.oid)) {
            let what =
                format!("the partition {} was attached: rows that it held before are not streamed", partition.name);
            let mut remedy = "if it held rows: pg2planhat resync SECTION with the keys that it holds".to_owned();
            if self.monitor.partition_attached(seen.floor_at) {
                remedy += "; PostgreSQL 14 may also skip rows inserted into it until the stream is opened again, in some seconds: \
                           pg2planhat repair --gap";
            }
            let section = self.engine.section(id).name();
            tracing::warn!(%section, what, remedy, at = %seen.floor_at, "rows may be missing");
            self.status.metrics().ignored("attached_partition");
            self.open_gap(id, "partition_attached", what);
        }
    }

    /// Records a stretch that was not read, since the publication was last seen in order.
    fn open_gap(&mut self, id: SectionId, reason: &str, detail: String) {
        let verified = self.sections[id].table.as_ref().and_then(|table| table.verified);
        let (from, floor) = verified.unwrap_or((self.engine.written(), 0));
        let gap = NewGap {
            section: Some(self.engine.section(id).name().clone()),
            reason: reason.to_owned(),
            detail,
            from_lsn: Some(from),
            to_lsn: None,
            xmin_floor: (floor > 0).then_some(floor),
        };
        let connector = StateConnector::new(Arc::clone(&self.context.config));
        self.context.tasks.spawn(async move {
            let opened = async { connector.store().await?.open_gap(&gap).await.map_err(|error| error.fault()) };
            let opened: Result<i64, Fault> = opened.await;
            if let Err(fault) = opened {
                tracing::error!(what = fault.what, "the gap could not be recorded; it stands in this log");
            }
        });
    }
}

/// What is not as it was with one section's table, if anything is not.
fn drift(
    configured: &str,
    name: &str,
    publication: &Publication,
    seen: &PublicationStatus,
    attached: &AttachedTable,
) -> Option<String> {
    let published = publication.tables.iter().find(|table| table.oid == attached.oid);
    let now = seen.names.iter().find(|(known, _)| known == configured).and_then(|(_, oid)| *oid);
    match published {
        _ if now.is_some_and(|oid| oid != attached.oid) => {
            Some(format!("{configured} was dropped and re-created, or replaced by a rename"))
        }
        None => Some(format!("{configured} is no longer in the publication {name}")),
        Some(table) if table.filter => Some(format!("the publication {name} has a row filter on {configured}")),
        Some(table) if table.column_list => Some(format!("the publication {name} has a column list on {configured}")),
        Some(table) if attached.entry.is_some_and(|entry| table.entry.is_some_and(|now| now != entry)) => {
            Some(format!("{configured} was taken out of the publication {name} and put back"))
        }
        Some(_) => None,
    }
}
