//! Whether the slot, the server and the state still belong together.
//!
//! * In: what was recorded, and what the server says now.
//! * Out: the checkpoint to go on from; or a named state with its remedy.
//! * Never: anything made anew in silence.

use crate::config::{Config, Source};
use crate::delivery::history_check::OtherHistory;
use crate::model::Lsn;
use crate::postgres::catalog::defects;
use crate::postgres::catalog::publication::Publication;
use crate::postgres::catalog::quote;
use crate::postgres::catalog::server::Server;
use crate::postgres::catalog::slot::Slot;
use crate::postgres::replication::connection::SystemIdentity;
use crate::runtime::start_error::{NeedsPerson, REPAIR, needs};
use crate::state::{Identity, Instance, UpdatePublication};
use crate::telemetry::status_document::Reason;

/// The server's identity, and this instance's slot and publication there.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// IDENTIFY_SYSTEM.
    pub system: SystemIdentity,
    /// Settings and facts.
    pub server: Server,
    pub slot: Option<Slot>,
    pub publication: Option<Publication>,
    /// The publication of updates; `None` where it is gone, or none is wanted.
    pub updates: Option<Publication>,
    /// Where each timeline of the server's past ended.
    pub history: Vec<(u32, Lsn)>,
}

impl Found {
    /// The identity as the state records it.
    pub(crate) fn identity(&self, config: &Config) -> Identity {
        Identity {
            system_identifier: self.system.system_identifier.clone(),
            timeline: i32::try_from(self.system.timeline).unwrap_or(i32::MAX),
            database_oid: self.server.database.0,
            database: self.server.database.1.clone(),
            slot: config.source.slot.clone(),
            publication: config.source.publication.clone(),
            publication_oid: self.publication.as_ref().map_or(0, |publication| publication.oid),
            publication_version: self.publication.as_ref().map(|publication| publication.version.clone()),
        }
    }

    /// What a comparison looks at.
    pub(crate) fn observed<'a>(&'a self, config: &'a Config) -> Observed<'a> {
        Observed {
            source: &config.source,
            server: Some(self),
            slot: self.slot.as_ref(),
            publication: self.publication.as_ref(),
            updates: config.sends_updates().then_some(self.updates.as_ref()),
        }
    }
}

/// What the state has on record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recorded<'a> {
    /// The server, the slot and the publication.
    pub identity: &'a Identity,
    /// Everything before this is settled.
    pub checkpoint: Lsn,
    /// The publication of updates.
    pub updates: Option<&'a UpdatePublication>,
}

impl Instance {
    /// What a comparison holds against the server.
    pub(crate) fn recorded(&self) -> Recorded<'_> {
        Recorded { identity: &self.identity, checkpoint: self.checkpoint, updates: self.updates.as_ref() }
    }
}

/// What one look at the server shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed<'a> {
    /// The names of the slot and of the publication.
    pub source: &'a Source,
    /// The server itself; `None` from the monitor, whose connection and stream are of the server that was compared at the
    /// start.
    pub server: Option<&'a Found>,
    pub slot: Option<&'a Slot>,
    pub publication: Option<&'a Publication>,
    /// The publication of updates, where one is wanted.
    pub updates: Option<Option<&'a Publication>>,
}

/// What the text begins with that tells of another log: only the stream shows it.
const OTHER_LOG: &str = "this server's log is not the one that was delivered from";

/// What mends that.
const GO_ON: &str = "pg2planhat repair --accept-loss (go on from where the slot stands: every row that this server has from there on is \
     delivered, what both logs have a second time), or --backfill";

/// The state of a server whose log was put back, and written anew past the checkpoint.
pub(crate) fn other_history(other: &OtherHistory) -> NeedsPerson {
    let what =
        format!("{OTHER_LOG}: {other}; it was restored from a backup, or its volume was put back to an older state");
    needs(Reason::RestoredBackup, what, GO_ON)
}

impl NeedsPerson {
    /// Whether the recorded positions are of a log that was put back and written anew.
    pub(crate) fn is_other_history(&self) -> bool {
        self.reason == Reason::RestoredBackup && self.fault.what.starts_with(OTHER_LOG)
    }
}

/// [`other_history`], where the last stream showed it.
pub(crate) fn recorded_history(instance: &Instance) -> Option<NeedsPerson> {
    let said = instance.remedy.as_deref().filter(|said| said.starts_with(OTHER_LOG))?;
    let what = said.strip_suffix(GO_ON).unwrap_or(said).trim_end_matches("; ").to_owned();
    let recorded = instance.reason.as_deref() == Some(Reason::RestoredBackup.as_str());
    recorded.then(|| needs(Reason::RestoredBackup, what, GO_ON))
}

/// Compares what is recorded with what is there: at the start, from the monitor, for `status` and for `repair`.
pub(crate) fn compare(recorded: &Recorded<'_>, observed: &Observed<'_>) -> Result<(), NeedsPerson> {
    if let Some(server) = observed.server {
        same_server(recorded, server)?;
    }
    compare_slot(recorded, observed)?;
    compare_publication(recorded, observed)?;
    compare_updates(recorded, observed)
}

/// The file names another slot than the one that the state belongs to: that one is there still, as far as is known, and keeps WAL.
fn same_slot(recorded: &Recorded<'_>, observed: &Observed<'_>) -> Result<(), NeedsPerson> {
    let (ours, named) = (&recorded.identity.slot, &observed.source.slot);
    if ours.is_empty() || ours == named {
        return Ok(());
    }
    let what = format!(
        "the file names the slot {named}, and this state belongs to the slot {ours}, which keeps WAL for as long as it is there"
    );
    let remedy = format!(
        "write `slot: {ours}` in source; for another instance beside that one give it a state of its own (`state.schema`); to go on \
         with {named} instead: SELECT pg_drop_replication_slot({}); then {REPAIR}",
        quote::literal(ours)
    );
    Err(needs(Reason::SlotMissing, what, &remedy))
}

fn compare_slot(recorded: &Recorded<'_>, observed: &Observed<'_>) -> Result<(), NeedsPerson> {
    same_slot(recorded, observed)?;
    let (name, checkpoint) = (&observed.source.slot, recorded.checkpoint);
    let Some(slot) = observed.slot else {
        let what = format!("the slot {name} is gone: rows committed after {checkpoint} are not kept for us");
        return Err(needs(Reason::SlotMissing, what, REPAIR));
    };
    // Of the monitor's look the start has known whose it is.
    let database = observed.server.map(|found| &found.server.database.1);
    if let Some(Err(fault)) = database.map(|database| slot.ours(name, database)) {
        let remedy = format!("{}; then {REPAIR}", fault.remedy);
        return Err(needs(Reason::SlotRecreated, fault.what, &remedy));
    }
    if slot.is_lost() {
        let why = slot.why_lost();
        let what = format!("the slot {name} is lost, for {why}: rows committed after {checkpoint} cannot be streamed");
        return Err(needs(Reason::SlotLost, what, REPAIR));
    }
    if slot.two_phase == Some(true) {
        let what = format!(
            "the slot {name} has two_phase, which ours never has: it brings prepared transactions before they are committed"
        );
        return Err(needs(Reason::SlotRecreated, what, REPAIR));
    }
    let restart = slot.restart_lsn.as_ref().and_then(|lsn| lsn.parse::<Lsn>().ok());
    if let Some(restart) = restart.filter(|restart| *restart > checkpoint) {
        let what = format!("the slot {name} was recreated: it begins at {restart}, after the checkpoint {checkpoint}");
        return Err(needs(Reason::SlotRecreated, what, REPAIR));
    }
    if let Some(confirmed) = slot.confirmed().filter(|confirmed| *confirmed > checkpoint) {
        let what = format!(
            "someone else moved the slot {name} to {confirmed}, past the checkpoint {checkpoint}: what lies between was skipped"
        );
        return Err(needs(Reason::SlotMoved, what, REPAIR));
    }
    Ok(())
}

fn compare_publication(recorded: &Recorded<'_>, observed: &Observed<'_>) -> Result<(), NeedsPerson> {
    let name = &observed.source.publication;
    let changed = |what: String, remedy: &str| Err(needs(Reason::PublicationChanged, what, remedy));
    let Some(publication) = observed.publication else {
        let what = format!("the publication {name} is gone: the server cannot decode what was written since");
        return changed(what, REPAIR);
    };
    let oid = recorded.identity.publication_oid;
    if oid != 0 && oid != publication.oid {
        let what =
            format!("the publication {name} was dropped and made anew: rows written in between may have been skipped");
        return changed(what, REPAIR);
    }
    if let Some(defect) = defects::of_publication(publication) {
        let sql = defect.sql().unwrap_or_default();
        return changed(defect.to_string(), &format!("{sql} then {REPAIR}"));
    }
    if let Some(version) = recorded.identity.publication_version.as_ref().filter(|is| **is != publication.version) {
        let what = format!(
            "the publication {name} was altered (its row had the version {version}, and has {} now): while it did not publish \
             inserts, rows were skipped",
            publication.version
        );
        return changed(what, REPAIR);
    }
    Ok(())
}

/// The publication of updates, once it was named to the server: what was written while it was not as it was cannot be
/// decoded, or was skipped.
fn compare_updates(recorded: &Recorded<'_>, observed: &Observed<'_>) -> Result<(), NeedsPerson> {
    let (Some(updates), Some(there)) = (recorded.updates, observed.updates) else { return Ok(()) };
    let name = observed.source.update_publication();
    let changed = |what: String, remedy: &str| Err(needs(Reason::PublicationChanged, what, remedy));
    let Some(publication) = there else {
        return changed(
            format!("the publication of updates {name} is gone: updates written since are not streamed"),
            REPAIR,
        );
    };
    if updates.oid != publication.oid {
        let what = format!(
            "the publication of updates {name} was dropped and made anew: updates written in between may have been skipped"
        );
        return changed(what, REPAIR);
    }
    if let Some(defect) = defects::of_update_publication(publication) {
        let sql = defect.sql().unwrap_or_default();
        return changed(defect.to_string(), &format!("{sql} then {REPAIR}"));
    }
    if updates.version != publication.version {
        let what = format!(
            "the publication of updates {name} was altered (its row had the version {}, and has {} now): while it did not \
             publish updates, they were skipped",
            updates.version, publication.version
        );
        return changed(what, REPAIR);
    }
    Ok(())
}

fn same_server(state: &Recorded<'_>, server: &Found) -> Result<(), NeedsPerson> {
    let (recorded, checkpoint) = (state.identity, state.checkpoint);
    if recorded.system_identifier != server.system.system_identifier {
        let what = format!(
            "this is another server: system identifier {}, recorded was {}",
            server.system.system_identifier, recorded.system_identifier
        );
        let remedy = "point `source` at the recorded server; or, where this one replaces it for good, `pg2planhat \
             repair --backfill` or `--accept-loss`";
        return Err(needs(Reason::OtherServer, what, remedy));
    }
    if recorded.database_oid != server.server.database.0 {
        let what =
            format!("this is another database ({}), recorded was {}", server.server.database.1, recorded.database);
        let remedy = "mend `source.database`; where this database is a copy: give this instance a slot of its own (`slot: NAME` in \
             source) and a tenant of its own, and run `pg2planhat teardown` before anything else";
        return Err(needs(Reason::OtherServer, what, remedy));
    }
    same_history(state, server)?;
    if checkpoint > server.system.xlogpos {
        let what = format!(
            "everything before {checkpoint} is settled, but this server's WAL ends at {}: it was restored from a backup, \
             or lost its newest WAL",
            server.system.xlogpos
        );
        return Err(needs(
            Reason::RestoredBackup,
            what,
            "pg2planhat repair --accept-loss (go on from here: what was delivered stays delivered), or --backfill",
        ));
    }
    Ok(())
}

/// That the server is on the recorded timeline, or on one that left it behind the checkpoint and brought the slot along.
fn same_history(state: &Recorded<'_>, server: &Found) -> Result<(), NeedsPerson> {
    let (recorded, checkpoint) = (state.identity, state.checkpoint);
    let timeline = i64::from(server.system.timeline);
    if timeline == i64::from(recorded.timeline) {
        return Ok(());
    }
    let changed = |what: String| Err(needs(Reason::TimelineChanged, what, REPAIR));
    if server.slot.as_ref().is_none_or(|slot| slot.failover != Some(true)) {
        return changed(format!(
            "the server is on timeline {timeline}, recorded was {}: a standby was promoted, and it does not have the slot's \
             past",
            recorded.timeline
        ));
    }
    // What was settled behind the point of departure is of a log that this server never had: it writes other rows there,
    // and they would be taken for settled.
    let left = server.history.iter().find(|(ended, _)| i64::from(*ended) == i64::from(recorded.timeline));
    match left {
        Some((_, at)) if checkpoint <= *at => Ok(()),
        Some((_, at)) => changed(format!(
            "a standby was promoted at {at}, before the checkpoint {}: rows written there since would be skipped",
            checkpoint
        )),
        None => {
            changed(format!("the server's timeline {timeline} does not come from the recorded {}", recorded.timeline))
        }
    }
}
