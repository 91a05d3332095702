//! Changes of the publication and the tables that the monitor sees: PostgreSQL then skips rows without a word.
//!
//! * In: what the monitor saw.
//! * Out: stopped sections, and gaps recorded for `repair`.
//! * Never: a section that goes on though rows of it may have been skipped.

use crate::delivery::section::Trouble;
use crate::model::SectionId;
use crate::postgres::catalog::defects::{Defect, WatchedTable, defects};
use crate::postgres::catalog::partition_entries::PartitionEntry;
use crate::postgres::catalog::publication::Publication;
use crate::postgres::catalog::quote;
use crate::runtime::event_loop::EventLoop;
use crate::runtime::event_loop::section_runtime::AttachedTable;
use crate::runtime::monitor_event::{Partition, SourceStatus};
use crate::runtime::update_stream;
use crate::state::{NewGap, Op};
use crate::telemetry::status_document::Reason;

/// The reason's word of the gap of a partition that came with rows.
pub(crate) const PARTITION_ATTACHED: &str = "partition_attached";

impl EventLoop {
    /// Compares each section's table with what was attached, and stops the section where it is not that any more.
    pub(crate) fn check_publication(&mut self, seen: &SourceStatus) {
        let Some(publication) = &seen.published.publication else { return };
        // Only now: where the publication is not what it was, rows above the old floor may have been skipped, and the gap that
        // `repair --gap` reads again must begin there.
        self.engine.set_floor(seen.floor_at, seen.xmin);
        if self.monitor.restart_is_due(self.engine.confirmed()) {
            self.rewind();
        }
        for id in self.engine.section_ids() {
            let is_older = |table: &AttachedTable| seen.floor_at < table.attached_at;
            if !self.engine.section(id).takes_rows() || self.sections[id].table.as_ref().is_some_and(is_older) {
                continue;
            }
            self.check_partitions(id, seen);
            self.check_identity(id, seen);
            if self.is_without_wal(id, seen) {
                continue;
            }
            let section = &mut self.sections[id];
            let Some(table) = &mut section.table else { continue };
            let name = &section.config.table;
            let configured = name.to_string();
            let now = seen.published.names.iter().find(|(known, _)| *known == configured).and_then(|(_, oid)| *oid);
            let (inserts, updates) = update_stream::entries(table.entry.as_deref());
            let watched = WatchedTable { name, oid: table.oid, now, entry: inserts };
            let mut found = defects(publication, &watched);
            let beside = seen.published.updates.as_ref().filter(|_| section.config.sends_updates());
            if let Some(beside) = beside {
                found.extend(defects(beside, &WatchedTable { entry: updates, ..watched }));
            }
            match found.first() {
                Some(defect) => self.stop_for_drift(id, defect),
                None => {
                    let of = |publication: &Publication| {
                        let published = publication.tables.iter().find(|published| published.oid == table.oid);
                        published.and_then(|published| published.entry.clone())
                    };
                    // What it carried for a section that sends none any more stays known: that is to be taken out.
                    let carries = seen.published.updates.as_ref().filter(|_| beside.is_some() || updates.is_some());
                    let entry = match (of(publication), carries.and_then(of)) {
                        (Some(inserts), Some(updates)) => Some(update_stream::both_entries(&inserts, &updates)),
                        (inserts, _) => inserts,
                    };
                    table.verified = Some((seen.floor_at, seen.xmin));
                    if entry.is_some() && table.entry != entry {
                        table.entry.clone_from(&entry);
                        let section = section.config.name.clone();
                        self.engine.record(entry.map(|entry| Op::Published { section, entry }).into_iter().collect());
                    }
                }
            }
        }
    }

    /// Rows may have been skipped since the publication was last seen in order: the section stops, and the gap is recorded. The
    /// slot does not wait for it: what the server skipped it will skip again.
    fn stop_for_drift(&mut self, id: SectionId, defect: &Defect) {
        self.stop_with_gap(id, Reason::PublicationChanged.as_str(), defect.to_string(), defect.remedy());
    }

    fn stop_with_gap(&mut self, id: SectionId, reason: &str, what: String, remedy: String) {
        let section = self.engine.section(id).name().clone();
        tracing::error!(%section, what, remedy, "halted: rows may have been skipped since");
        let gap = self.gap(id, reason, what.clone());
        self.engine.record(vec![gap, Op::Halted { section, why: Some((what.clone(), remedy.clone())) }]);
        self.engine.section_mut(id).stop(Trouble::new(what, remedy));
    }

    /// Stops a section one of whose partitions writes no WAL any more: `SET UNLOGGED` on a partition is not refused, as it is on
    /// a published table. The gap is recorded.
    fn is_without_wal(&mut self, id: SectionId, seen: &SourceStatus) -> bool {
        let Some(oid) = self.sections[id].table.as_ref().map(|table| table.oid) else { return false };
        let mut partitions = seen.published.partitions.iter().filter(|partition| partition.entry.root == oid);
        let Some(leaf) = partitions.find_map(|partition| partition.entry.without_wal.as_ref()) else { return false };
        let root = self.sections[id].config.table.clone();
        let (reason, what, remedy) = leaf.without_wal(&root);
        let what = format!("{}: {what}", quote::qualified(&root));
        let remedy = format!("{remedy} then pg2planhat repair --gap");
        self.stop_with_gap(id, reason, what, remedy);
        true
    }

    /// A table that lost its replica identity while its updates are published: no row of it is skipped, for PostgreSQL refuses
    /// each UPDATE and DELETE. That is the application's harm, so it is told at once, and what undoes it.
    fn check_identity(&mut self, id: SectionId, seen: &SourceStatus) {
        let Some(oid) = self.sections[id].table.as_ref().map(|table| table.oid) else { return };
        let found = seen.published.without_identity.iter().find(|(table, ..)| *table == oid);
        let is_sent = self.sections[id].config.sends_updates();
        let mut others = self.sections.entries().filter(|(other, _)| *other != id).map(|(_, other)| other);
        let is_theirs = others
            .any(|other| other.config.sends_updates() && other.table.as_ref().is_some_and(|table| table.oid == oid));
        let trouble = found.filter(|_| is_sent || !is_theirs).map(|(_, what, remedy)| {
            let table = quote::qualified(&self.sections[id].config.table);
            let publication = quote::ident(&self.context.config.source.update_publication());
            let repair = if is_sent { " then pg2planhat repair --gap" } else { " (no section sends updates of it)" };
            let at_once = format!("at once: ALTER PUBLICATION {publication} DROP TABLE {table};{repair}");
            Trouble::new(format!("{table}: {what}"), format!("{remedy}; {at_once}"))
        });
        let delivery = self.engine.section_mut(id);
        if delivery.set_harmful(trouble.clone()) {
            let section = delivery.name();
            match trouble {
                Some(Trouble { what, remedy }) => {
                    tracing::error!(%section, what, remedy, "the application is harmed");
                }
                None => tracing::info!(%section, "its table has a replica identity again"),
            }
        }
    }

    /// Rows that a partition held before it was attached never come by the stream. One that was made as a partition had
    /// none. The section goes on: what comes from here on is whole.
    fn check_partitions(&mut self, id: SectionId, seen: &SourceStatus) {
        let Some(table) = &mut self.sections[id].table else { return };
        let of_it = |partition: &&Partition| partition.entry.root == table.oid && partition.came_with_rows();
        let came: Vec<&PartitionEntry> =
            seen.published.partitions.iter().filter(of_it).map(|partition| &partition.entry).collect();
        let identity = |entry: &&PartitionEntry| (entry.oid, entry.joined_by);
        let known = table.partitions.replace(came.iter().map(identity).collect());
        // At the first look nobody knows them: what was attached since the checkpoint was attached while nobody looked.
        let floor = table.verified.map(|(_, floor)| floor);
        let is_new = |entry: &&&PartitionEntry| match (&known, floor) {
            (Some(known), _) => !known.contains(&identity(entry)),
            (None, Some(floor)) => !precedes(entry.joined_by, floor),
            (None, None) => false,
        };
        let mut gaps = Vec::new();
        for partition in came.iter().filter(is_new) {
            let what =
                format!("the partition {} was attached: rows that it held before are not streamed", partition.name);
            let mut remedy =
                "if it held rows: pg2planhat resync SECTION --from-key, with the key before its first (or --all)"
                    .to_owned();
            if self.monitor.partition_attached(seen.floor_at) {
                remedy += "; PostgreSQL 14 may also skip rows inserted into it until the stream is opened again, in some seconds: \
                           pg2planhat repair --gap";
            }
            let section = self.engine.section(id).name();
            tracing::warn!(%section, what, remedy, at = %seen.floor_at, "rows may be missing");
            self.status.metrics().ignored("attached_partition");
            gaps.push(self.gap(id, PARTITION_ATTACHED, what));
        }
        self.engine.record(gaps);
    }

    /// A stretch that was not read, since the publication was last seen in order. It is written in order with all else: an end
    /// of the process in between cannot lose it.
    fn gap(&self, id: SectionId, reason: &str, detail: String) -> Op {
        let verified = self.sections[id].table.as_ref().and_then(|table| table.verified);
        let (from, floor) = verified.unwrap_or((self.engine.written(), 0));
        Op::OpenGap(NewGap {
            section: Some(self.engine.section(id).name().clone()),
            reason: reason.to_owned(),
            detail,
            from_lsn: Some(from),
            to_lsn: None,
            xmin_floor: (floor > 0).then_some(floor),
        })
    }
}

/// Whether a transaction, of whose id the catalog keeps the low half, began before the 64-bit `floor`. One that is further
/// away than half a circle is old: its row was frozen long ago.
fn precedes(xid: u32, floor: u64) -> bool {
    let floor = u32::try_from(floor & u64::from(u32::MAX)).unwrap_or_default();
    xid.wrapping_sub(floor).cast_signed() < 0
}
