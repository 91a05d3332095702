//! What a repair is about: the decision, the plan, and the judgements that it rests on.

use tokio_postgres::error::SqlState;

use crate::config::{Config, Section};
use crate::model::Fault;
use crate::postgres::catalog::publication::Publication;
use crate::postgres::catalog::slot::Slot;
use crate::postgres::catalog::{quote, slot};
use crate::postgres::connection::session::Session;
use crate::runtime::identity::{Found, recorded_history};
use crate::runtime::start_error::NeedsPerson;
use crate::sql;
use crate::state::{Gap, Instance};
use crate::telemetry::status_document::Reason;

/// What a person decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mend {
    /// Rows that came after the last checkpoint's xmin floor are read again.
    Gap,
    /// Every row is delivered again.
    Backfill,
    /// Rows in between are not delivered.
    AcceptLoss,
}

impl Mend {
    /// The option's name, as records have it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Mend::Gap => "gap",
            Mend::Backfill => "backfill",
            Mend::AcceptLoss => "accept-loss",
        }
    }
}

/// What a repair would do.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct RepairPlan {
    pub how: &'static str,
    pub reason: String,
    /// What happened.
    pub what: String,
    /// Whether the slot is made anew (otherwise it is kept).
    pub new_slot: bool,
    /// Settled up to here; what was committed from here on is the gap.
    pub from_lsn: String,
    /// WAL between that and the server's end; none where the two cannot be compared.
    pub wal_bytes: Option<u64>,
    /// Rows whose transaction is not below this are read again.
    pub xmin_floor: Option<u64>,
    /// The recorded positions are of a log that was put back: rows of the sections that were delivered since the slot's position
    /// are delivered again, where this server has them.
    pub other_history: bool,
    /// What is read again of each section.
    pub sections: Vec<SectionPlan>,
}

impl RepairPlan {
    /// Whether the slot brings again what was delivered of a log that was put back: nothing is given up.
    pub(crate) fn brings_again(&self) -> bool {
        self.other_history && !self.new_slot && self.how == Mend::AcceptLoss.as_str()
    }
}

/// What a repair would read again of one section.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct SectionPlan {
    pub section: String,
    /// How many rows are read again; none where they could not be counted in time, 0 where none are.
    pub rows: Option<u64>,
    /// The first and the last key of these.
    pub keys: Option<(String, String)>,
    /// Only rows of this transaction and later ones; none where every row is.
    pub xmin_floor: Option<u64>,
}

pub(crate) fn of<'a>(gaps: &'a [Gap], section: &'a Section) -> impl Iterator<Item = &'a Gap> {
    gaps.iter().filter(|gap| gap.section.as_deref() == Some(section.name.as_str()))
}

/// Why a repair does not begin just now.
/// Nothing is done where the slot is another's, or an instance holds it; nor, where the file names another slot than the state,
/// while that one is there: an instance may live by it, and it keeps WAL that nobody would read any more.
pub(crate) async fn no_other_slot(
    config: &Config,
    control: &Session,
    found: &Found,
    instance: &Instance,
) -> Result<(), Fault> {
    found.slot.as_ref().map_or(Ok(()), |slot| slot.ours(&config.source.slot, &found.server.database.1))?;
    if let Some(pid) = crate::operations::held_by(found.slot.as_ref()) {
        return Err(in_use(&config.source.slot, pid));
    }
    let recorded = &instance.identity.slot;
    if recorded.is_empty() || *recorded == config.source.slot {
        return Ok(());
    }
    let there = slot::slot(control, recorded).await.map_err(|error| control.fault(&error))?;
    let Some(there) = there.filter(|slot| slot.ours(recorded, &found.server.database.1).is_ok()) else { return Ok(()) };
    if let Some(pid) = crate::operations::held_by(Some(&there)) {
        return Err(in_use(recorded, pid));
    }
    let sql = format!("SELECT pg_drop_replication_slot({});", quote::literal(recorded));
    Err(Fault::needs_person(
        format!("this state belongs to the slot {recorded}, which is there still and keeps WAL: nothing was done"),
        format!(
            "write `slot: {recorded}` in source; or, to go on with the slot that the file names: {sql} then repair again"
        ),
    ))
}

pub(crate) const UNDER_WAY: &str = "an instance is starting, or another repair is under way";

/// Keeps an instance from starting, and another repair from beginning, while this session lives.
pub(crate) async fn lock(control: &Session, config: &Config) -> Result<(), Fault> {
    let sql = "SELECT pg_catalog.pg_try_advisory_lock(hashtext($1))";
    let name = format!("pg2planhat {}", config.source.slot);
    let row = sql::query_one(control, sql, &[&name]).await.map_err(|error| control.fault(&error))?;
    if row.get(0) {
        return Ok(());
    }
    Err(Fault::unavailable(UNDER_WAY, "try again in a moment"))
}

/// A section's rows cannot be looked at: then they could not be read again either, and nothing is done.
pub(crate) fn unreadable(session: &Session, section: &Section, error: &tokio_postgres::Error) -> Fault {
    let fault = session.fault(error);
    if error.code() != Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
        return fault;
    }
    let (table, role) = (quote::qualified(&section.table), quote::ident(session.user()));
    let what = format!("section {}: nothing was done: {}", section.name, fault.what);
    Fault::needs_person(what, format!("GRANT SELECT (xmin) ON {table} TO {role}; then repair again"))
}

/// A trouble that only shows when the stream is read.
pub(crate) fn shown_by_stream(instance: &Instance) -> Option<NeedsPerson> {
    wedged(instance).or_else(|| recorded_history(instance))
}

fn wedged(instance: &Instance) -> Option<NeedsPerson> {
    let wedged = instance.reason.as_deref() == Some(Reason::Wedged.as_str());
    let what = "the server cannot decode what comes next for this slot";
    wedged.then(|| NeedsPerson { reason: Reason::Wedged, fault: Fault::needs_person(what, "pg2planhat repair") })
}

/// Whether the recorded checkpoint is a place in this server's log.
pub(crate) fn comparable(reason: Reason) -> bool {
    !matches!(reason, Reason::OtherServer | Reason::RestoredBackup | Reason::TimelineChanged)
}

/// Whether what the slot still has can be streamed: then less is given up by going on with it.
pub(crate) fn keeps_slot(needs: &NeedsPerson, found: &Found, instance: &Instance) -> bool {
    let usable = |slot: &Slot| {
        let ours = slot.ours("", &found.server.database.1).is_ok();
        ours && slot.confirmed().is_some() && !slot.is_lost()
    };
    match needs.reason {
        Reason::SlotMoved | Reason::SlotRecreated | Reason::OtherServer | Reason::TimelineChanged => {
            found.slot.as_ref().is_some_and(usable) && found.publication.is_some()
        }
        // What was written while the publication was gone cannot be decoded; while it was only altered, it can.
        Reason::PublicationChanged => {
            let recorded = instance.identity.publication_oid;
            let same = |publication: &Publication| publication.insert && publication.oid == recorded;
            found.slot.as_ref().is_some_and(usable) && found.publication.as_ref().is_some_and(same)
        }
        Reason::RestoredBackup => {
            let there = found.slot.as_ref().is_some_and(usable) && found.publication.is_some();
            needs.is_other_history() && there
        }
        Reason::SlotMissing | Reason::SlotLost | Reason::Wedged | Reason::StateUnwritable => false,
    }
}

/// An instance holds the slot: nothing is done.
pub(crate) fn in_use(slot: &str, pid: i32) -> Fault {
    Fault::unavailable(
        format!("an instance holds the slot {slot} (walsender {pid}): nothing was done"),
        format!("stop that instance first (or, where it is lost, SELECT pg_terminate_backend({pid});)"),
    )
}
