//! Repair: from a state that needs a person back to one that runs, leaving a record of what was given up or sent again.
//!
//! * In: what was recorded, what is there, and a person's decision.
//! * Out: a plan for the person; then a slot, sections attached anew, an identity adopted, gaps closed.
//! * Never: anything done while an instance holds the slot; an identity adopted before all that it stands for is written
//!   (a repair that was interrupted is found as broken as before, and done again).

pub(crate) mod open_batches;
pub(crate) mod plan;
pub(crate) mod repair_ways;

use std::sync::Arc;

use tokio_postgres::error::SqlState;

use crate::config::{Config, Section};
use crate::model::{Fault, Lsn, SectionName};
use crate::operations::consistency::drifted;
use crate::operations::repair::plan::{
    Mend, RepairPlan, SectionPlan, comparable, keeps_slot, lock, no_other_slot, of, shown_by_stream, unreadable,
};
use crate::operations::teardown::drop_slot;
use crate::postgres::backfill::selection::Selection;
use crate::postgres::catalog::defects::Defect;
use crate::postgres::catalog::slot::Slot;
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::catalog::types::Types;
use crate::postgres::catalog::{quote, server, xmin_barrier};
use crate::postgres::connection::session::{Session, connect_sql};
use crate::postgres::replication::timeline;
use crate::postgres::setup;
use crate::runtime::identity::{Found, compare};
use crate::runtime::start_error::NeedsPerson;
use crate::runtime::startup::find;
use crate::runtime::table_fit;
use crate::runtime::update_stream;
use crate::sql;
use crate::state::{
    Attachment, BackfillProgress, Gap, Instance, MappedColumn, NewGap, SectionPhase, SectionRow, Store,
};
use crate::telemetry::status_document::Reason;

/// One section's way back.
struct Way {
    section: Section,
    table: TableInfo,
    phase: SectionPhase,
    /// It goes on where it was: only its halt is over.
    as_it_was: bool,
}

/// A repair that was looked into. It keeps others from starting meanwhile.
pub(crate) struct Repair {
    config: Arc<Config>,
    control: Session,
    store: Store,
    how: Mend,
    instance: Instance,
    found: Found,
    /// The slot and the identity are concerned, not single sections alone.
    whole: bool,
    gaps: Vec<Gap>,
    /// Sections whose rows are skipped, and of which no gap may be recorded yet.
    drift: Vec<(SectionName, Defect)>,
    ways: Vec<Way>,
    /// What it will do.
    pub plan: RepairPlan,
}

impl Repair {
    /// Looks what is broken, and what mending it means. `None`: nothing is.
    ///
    /// # Errors
    /// Where an instance holds the slot; where this way of mending would lose rows that it promises.
    pub(crate) async fn look(config: &Arc<Config>, how: Mend) -> Result<Option<Repair>, Fault> {
        let store = crate::operations::store(config).await?;
        let control = connect_sql(&config.source, "repair").await?;
        let fault = |error: tokio_postgres::Error| control.fault(&error);
        lock(&control, config).await?;
        let server = server::server(&control).await.map_err(fault)?;
        if server.in_recovery {
            let what = format!("{} is a standby: it cannot hold the slot", control.place());
            return Err(Fault::unavailable(what, "point `source` at the primary"));
        }
        let Some(instance) = store.instance().await.map_err(crate::operations::fate)? else {
            return Err(Fault::usage("nothing has run here yet: there is nothing to repair", "pg2planhat run"));
        };
        let found = find(config, &control, server).await?;
        no_other_slot(config, &control, &found, &instance).await?;
        let needs = compare(&instance.recorded(), &found.observed(config)).err().or_else(|| shown_by_stream(&instance));
        let mut gaps = store.gaps(true).await.map_err(crate::operations::fate)?;
        // A re-sync that was begun brings the rows of those that it covers, and closes them.
        gaps.retain(|gap| needs.is_some() || how == Mend::AcceptLoss || gap.closed_by.is_none());
        let rows = store.sections().await.map_err(crate::operations::fate)?;
        // Of what went while nothing ran, no gap is recorded yet.
        let drift = drifted(config, &control, &found, &rows).await.map_err(fault)?;
        let drifted = |section: &Section| drift.iter().any(|(name, _)| *name == section.name);
        let is_concerned = |s: &&Section| needs.is_some() || of(&gaps, s).next().is_some() || drifted(s);
        let streamed = config.sections.iter().filter(|section| section.is_on() && section.is_streamed());
        let concerned: Vec<&Section> = streamed.filter(is_concerned).collect();
        if needs.is_none() && concerned.is_empty() {
            return Ok(None);
        }
        let keeps = needs.as_ref().is_none_or(|needs| keeps_slot(needs, &found, &instance));
        let plan = RepairPlan {
            how: how.as_str(),
            reason: needs.as_ref().map_or(Reason::PublicationChanged, |needs| needs.reason).to_string(),
            what: match &needs {
                Some(needs) => needs.fault.what.clone(),
                None => {
                    let mut what: Vec<String> = gaps.iter().map(|gap| gap.detail.clone()).collect();
                    what.extend(drift.iter().map(|(_, defect)| defect.to_string()));
                    what.dedup();
                    what.join("; ")
                }
            },
            new_slot: !keeps,
            from_lsn: instance.checkpoint.to_string(),
            wal_bytes: (needs.as_ref().is_none_or(|needs| comparable(needs.reason)))
                .then(|| found.system.xlogpos.bytes_since(instance.checkpoint)),
            xmin_floor: None,
            other_history: needs.as_ref().is_some_and(NeedsPerson::is_other_history),
            sections: Vec::new(),
        };
        let mut repair = Repair {
            config: Arc::clone(config),
            control,
            store,
            how,
            instance,
            found,
            whole: needs.is_some(),
            gaps,
            drift,
            ways: Vec::new(),
            plan,
        };
        if how == Mend::Gap {
            repair.plan.xmin_floor = Some(repair.floor(needs.as_ref()).await?);
        }
        repair.sections(concerned).await?;
        Ok(Some(repair))
    }

    /// From which transaction on rows are read again; or why that cannot be said.
    async fn floor(&self, needs: Option<&NeedsPerson>) -> Result<u64, Fault> {
        let cannot = |why: &str| {
            let what = format!("which rows came after the checkpoint cannot be told: {why}");
            Err(Fault::needs_person(what, "pg2planhat repair --backfill, or --accept-loss"))
        };
        if let Some(reason @ (Reason::OtherServer | Reason::RestoredBackup)) = needs.map(|needs| needs.reason) {
            return cannot(&format!("transactions are numbered anew here ({reason})"));
        }
        let (now, before) = (i64::from(self.found.system.timeline), i64::from(self.instance.identity.timeline));
        if now != before {
            let left = timeline::left(&self.config.source, now, before).await?;
            if left.is_none_or(|left| left < self.instance.checkpoint) {
                return cannot("the server's history left the recorded one before the checkpoint");
            }
        }
        let Some(floor) = self.instance.xmin_floor else { return cannot("no xmin floor was recorded yet") };
        let floors = self.gaps.iter().filter_map(|gap| gap.xmin_floor.and_then(|floor| u64::try_from(floor).ok()));
        let floor = floors.fold(floor, u64::min);
        let sql = "SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text";
        let row = sql::query_one(&self.control, sql, &[]).await.map_err(|error| self.control.fault(&error))?;
        let end: u64 = row.get::<_, String>(0).parse().unwrap_or_default();
        if end < floor || end - floor >= 1 << 31 {
            return cannot("the recorded xmin floor is not of the last 2^31 transactions of this server");
        }
        Ok(floor)
    }

    /// How each section goes on, and what it will read again.
    async fn sections(&mut self, concerned: Vec<&Section>) -> Result<(), Fault> {
        let session = crate::operations::reading(&self.config, "repair").await?;
        let fault = |error: tokio_postgres::Error| session.fault(&error);
        let types = Types::load(&session).await.map_err(fault)?;
        let rows = self.store.sections().await.map_err(crate::operations::fate)?;
        let same_server = self.instance.identity.system_identifier == self.found.system.system_identifier;
        for section in concerned {
            let row = rows.iter().find(|row| row.name == section.name && row.phase != SectionPhase::Waiting);
            let Some(row) = row else { continue };
            let (config, table) = (&self.config, section);
            let described = match table_fit::describe(config, &session, &types, table, None).await.map_err(fault)? {
                // Renamed: followed by its OID.
                Err(_) if same_server => {
                    table_fit::describe(config, &session, &types, table, Some(row)).await.map_err(fault)?
                }
                described => described,
            };
            let table_fit::Fit { section, table, columns, .. } = described?;
            let phase = self.phase_of(row, &table);
            let same = row.attachment.table_oid == table.oid;
            let as_it_was = same && self.how == Mend::AcceptLoss && (!self.whole || self.keeps_positions());
            let mut plan =
                SectionPlan { section: section.name.to_string(), rows: Some(0), keys: None, xmin_floor: None };
            if let (Mend::Gap | Mend::Backfill, Some(progress)) = (self.how, phase.progress()) {
                plan.xmin_floor = progress.xmin_floor;
                let selection = Selection::new(&section, &table, &columns);
                let selection = match progress.xmin_floor {
                    Some(floor) => selection.since(floor),
                    None => selection,
                };
                let extent = match selection.extent(&session).await {
                    Ok(extent) => Some(extent),
                    // It takes longer than a person waits.
                    Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => None,
                    Err(error) => return Err(unreadable(&session, &section, &error)),
                };
                plan.rows = extent.as_ref().map(|(rows, _)| *rows);
                plan.keys = extent.and_then(|(_, keys)| keys);
            }
            if self.plan.brings_again() {
                let from = self.found.slot.as_ref().and_then(Slot::confirmed).unwrap_or_default();
                let settled = self.store.streamed_since(&section.name, from).await;
                plan.rows = Some(settled.map_err(crate::operations::fate)?);
            }
            self.plan.sections.push(plan);
            self.ways.push(Way { section, table, phase, as_it_was });
        }
        Ok(())
    }

    fn phase_of(&self, row: &SectionRow, table: &TableInfo) -> SectionPhase {
        let (other, before) = (row.attachment.table_oid != table.oid, row.phase.progress());
        match self.how {
            Mend::Backfill => SectionPhase::Resyncing(BackfillProgress::default()),
            // A range under way has rows left that are older than the floor; the two together are no range: the whole is.
            Mend::Gap if before.is_some_and(|progress| progress.xmin_floor.is_none()) => {
                SectionPhase::Resyncing(BackfillProgress::default())
            }
            // Every row of a table that took another's place is new.
            Mend::Gap if other && self.whole_identity_is_ours() => SectionPhase::Resyncing(BackfillProgress::default()),
            Mend::Gap => {
                let floors = [self.plan.xmin_floor, before.and_then(|progress| progress.xmin_floor)];
                let xmin_floor = floors.into_iter().flatten().min();
                SectionPhase::Resyncing(BackfillProgress { xmin_floor, ..BackfillProgress::default() })
            }
            // A backfill under way goes on from its cursor, behind a new xmin barrier.
            Mend::AcceptLoss => match row.phase.clone() {
                SectionPhase::Backfilling(progress) => {
                    SectionPhase::Backfilling(BackfillProgress { ceiling: None, ..progress })
                }
                SectionPhase::Resyncing(progress) => {
                    SectionPhase::Resyncing(BackfillProgress { ceiling: None, ..progress })
                }
                phase @ (SectionPhase::Waiting | SectionPhase::Streaming | SectionPhase::Comparing) => phase,
            },
        }
    }

    /// Whether the recorded positions are of this server's log.
    fn is_same_log(&self) -> bool {
        let timeline = i64::from(self.found.system.timeline) == i64::from(self.instance.identity.timeline);
        timeline && self.whole_identity_is_ours() && !self.plan.other_history
    }

    /// Whether the slot goes on from where everything was settled: then each section does, too.
    fn keeps_positions(&self) -> bool {
        let confirmed = self.found.slot.as_ref().and_then(Slot::confirmed);
        !self.plan.new_slot && self.is_same_log() && confirmed.is_some_and(|at| at <= self.instance.checkpoint)
    }

    /// Table OIDs recorded are of this server.
    fn whole_identity_is_ours(&self) -> bool {
        self.instance.identity.system_identifier == self.found.system.system_identifier
    }

    /// Does it.
    ///
    /// # Errors
    /// What could not be done; nothing is adopted then, and the repair can be done again.
    pub(crate) async fn run(mut self) -> Result<RepairPlan, Fault> {
        let config = Arc::clone(&self.config);
        setup::ensure_publication(&self.control, &config, &[], &|_| ()).await?;
        setup::ensure_update_publication(&self.control, &config, &[], &|_| ()).await?;
        // Taken before the slot begins: whatever had ended by then is before it.
        let xmin = self.xmin().await?;
        let attach = if self.whole { self.slot().await? } else { self.now().await? };
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "unknown".to_owned());
        let term = self
            .store
            .take_epoch(&format!("repair by {} at {host}", crate::operations::actor()))
            .await
            .map_err(crate::operations::fate)?;
        let open = self.store.open_deliveries().await.map_err(crate::operations::fate)?;
        // Batches of another log are not those that come from there.
        let mend = (self.how, self.plan.new_slot || self.plan.other_history);
        for way in &self.ways {
            if way.as_it_was {
                self.store.release_section(&way.section.name).await.map_err(crate::operations::fate)?;
                continue;
            }
            open_batches::resolve((&self.store, &self.control), &open, (&way.section, &way.table), mend).await?;
            let columns = way.section.columns();
            let column = |name: &String| {
                let ty = way.table.column(name).map(|column| column.type_name.clone()).unwrap_or_default();
                MappedColumn { name: name.clone(), ty }
            };
            let attachment = Attachment {
                table_oid: way.table.oid,
                table_name: way.section.table.to_string(),
                kind: way.section.kind.as_str().to_owned(),
                attach_lsn: Some(attach),
                columns: columns.iter().map(column).collect(),
            };
            let attached = self.store.attach_section(&term, &way.section.name, &attachment, &way.phase).await;
            attached.map_err(crate::operations::fate)?;
        }
        if self.whole {
            // What the ranges have still to read keeps a floor of its own, in the section's row.
            let identity = self.found.identity(&config);
            let left = (!self.keeps_positions()).then_some(attach);
            // A slot that is kept still has rows of older transactions.
            let kept = self.instance.xmin_floor.filter(|_| self.is_same_log());
            let floor = if self.plan.new_slot { Some(xmin) } else { kept };
            self.store.adopt(&identity, attach, floor, left).await.map_err(crate::operations::fate)?;
            update_stream::record(&config, &self.control, &self.store).await?;
        }
        self.record(attach).await?;
        Ok(self.plan)
    }

    async fn xmin(&self) -> Result<u64, Fault> {
        let sql = "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text";
        let row = sql::query_one(&self.control, sql, &[]).await.map_err(|error| self.control.fault(&error))?;
        row.get::<_, String>(0).parse().map_err(|_| Fault::bug("a snapshot without an xmin"))
    }

    async fn now(&self) -> Result<Lsn, Fault> {
        xmin_barrier::insert_lsn(&self.control).await.map_err(|error| self.control.fault(&error))
    }

    /// The slot to go on with, and where it begins.
    async fn slot(&self) -> Result<Lsn, Fault> {
        let name = &self.config.source.slot;
        let kept = self.found.slot.as_ref().filter(|_| !self.plan.new_slot).and_then(Slot::confirmed);
        if let Some(confirmed) = kept {
            return Ok(if self.is_same_log() { confirmed.max(self.instance.checkpoint) } else { confirmed });
        }
        if let Some(there) = &self.found.slot {
            there.ours(name, &self.found.server.database.1)?;
            if !self.config.source.manage {
                let sql = format!("SELECT pg_drop_replication_slot({});", quote::literal(name));
                let what = format!("the slot {name} must go, and `source.manage` is false");
                return Err(Fault::needs_person(what, format!("let a DBA run: {sql} then repair again")));
            }
            drop_slot(&self.control, name).await?;
        }
        let made = setup::ensure_slot(&self.control, &self.config, &|_| ()).await?;
        made.ok_or_else(|| Fault::unavailable(format!("somebody else made the slot {name} just now"), "repair again"))
    }

    /// The record: the gap with its end, the other gaps closed, the deed.
    async fn record(&self, to: Lsn) -> Result<(), Fault> {
        let store = &self.store;
        let by = format!("repair --{} by {}", self.how.as_str(), crate::operations::actor());
        if self.whole {
            let gap = NewGap {
                section: None,
                reason: self.plan.reason.clone(),
                detail: self.plan.what.clone(),
                from_lsn: Some(self.instance.checkpoint),
                to_lsn: Some(to),
                xmin_floor: self.instance.xmin_floor,
            };
            let id = store.open_gap(&gap).await.map_err(crate::operations::fate)?;
            store.close_gap(id, &by).await.map_err(crate::operations::fate)?;
        }
        let unrecorded =
            |name: &SectionName| !self.gaps.iter().any(|gap| gap.section.as_deref() == Some(name.as_str()));
        for (name, defect) in self.drift.iter().filter(|(name, _)| !self.whole && unrecorded(name)) {
            let gap = NewGap {
                section: Some(name.clone()),
                reason: self.plan.reason.clone(),
                detail: defect.to_string(),
                from_lsn: Some(self.instance.checkpoint),
                to_lsn: Some(to),
                xmin_floor: self.instance.xmin_floor,
            };
            let id = store.open_gap(&gap).await.map_err(crate::operations::fate)?;
            store.close_gap(id, &by).await.map_err(crate::operations::fate)?;
        }
        let mended =
            |gap: &&Gap| self.whole || self.ways.iter().any(|way| of(&[(*gap).clone()], &way.section).count() > 0);
        for gap in self.gaps.iter().filter(mended) {
            store.close_gap(gap.id, &by).await.map_err(crate::operations::fate)?;
        }
        let args = serde_json::json!({ "plan": self.plan, "to_lsn": to.to_string() });
        store
            .record_event(&crate::operations::event("repair", None, args), "done")
            .await
            .map_err(crate::operations::fate)?;
        Ok(())
    }
}
