//! Whether the slot, the server and the state still belong together.
//!
//! * In: what was recorded, and what the server says now.
//! * Out: the checkpoint to go on from; or a named state with its remedy.
//! * Never: anything made anew in silence.

use crate::config::Config;
use crate::model::Lsn;
use crate::postgres::catalog::publication::Publication;
use crate::postgres::catalog::server::Server;
use crate::postgres::catalog::slot::Slot;
use crate::postgres::replication::connection::SystemIdentity;
use crate::runtime::start_error::{NeedsPerson, REPAIR, needs};
use crate::state::{Identity, Instance};
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
        }
    }

    /// Compares what is recorded with what is there.
    pub(crate) fn compare(&self, config: &Config, instance: &Instance) -> Result<(), NeedsPerson> {
        self.same_server(instance)?;
        let (slot, publication) = (&config.source.slot, &config.source.publication);
        let checkpoint = instance.checkpoint;
        if checkpoint > self.system.xlogpos {
            let what = format!(
                "everything before {checkpoint} is settled, but this server's WAL ends at {}: it was restored from a backup, \
                 or lost its newest WAL",
                self.system.xlogpos
            );
            return Err(needs(
                Reason::RestoredBackup,
                what,
                "pg2planhat repair --accept-loss (go on from here: what was delivered stays delivered), or --backfill",
            ));
        }
        let Some(there) = &self.slot else {
            let what = format!("the slot {slot} is gone: rows committed after {checkpoint} are not kept for us");
            return Err(needs(Reason::SlotMissing, what, REPAIR));
        };
        if there.is_lost() {
            let why = there.why_lost();
            let what =
                format!("the slot {slot} is lost, for {why}: rows committed after {checkpoint} cannot be streamed");
            return Err(needs(Reason::SlotLost, what, REPAIR));
        }
        if there.two_phase == Some(true) {
            let what = format!(
                "the slot {slot} has two_phase, which ours never has: it brings prepared transactions before they are committed"
            );
            return Err(needs(Reason::SlotRecreated, what, REPAIR));
        }
        let lsn = |text: &Option<String>| text.as_ref().and_then(|lsn| lsn.parse::<Lsn>().ok());
        let (restart, confirmed) = (lsn(&there.restart_lsn), there.confirmed());
        if restart.is_some_and(|restart| restart > checkpoint) {
            let what = format!(
                "the slot {slot} was recreated: it begins at {}, after the checkpoint {checkpoint}",
                restart.unwrap_or_default()
            );
            return Err(needs(Reason::SlotRecreated, what, REPAIR));
        }
        if confirmed.is_some_and(|confirmed| confirmed > checkpoint) {
            let what = format!(
                "someone else moved the slot {slot} to {}, past the checkpoint {checkpoint}: what lies between was skipped",
                confirmed.unwrap_or_default()
            );
            return Err(needs(Reason::SlotMoved, what, REPAIR));
        }
        let Some(there) = &self.publication else {
            let what =
                format!("the publication {publication} is gone: the server cannot decode what was written since");
            return Err(needs(Reason::PublicationChanged, what, REPAIR));
        };
        let recorded = instance.identity.publication_oid;
        if recorded != 0 && recorded != there.oid {
            let what = format!(
                "the publication {publication} was dropped and made anew: rows written in between may have been skipped"
            );
            return Err(needs(Reason::PublicationChanged, what, REPAIR));
        }
        if !there.insert {
            let what =
                format!("the publication {publication} does not publish inserts any more: rows are skipped silently");
            let remedy = format!("ALTER PUBLICATION {publication} SET (publish = 'insert'); then {REPAIR}");
            return Err(needs(Reason::PublicationChanged, what, &remedy));
        }
        Ok(())
    }

    fn same_server(&self, instance: &Instance) -> Result<(), NeedsPerson> {
        let recorded = &instance.identity;
        if recorded.system_identifier != self.system.system_identifier {
            let what = format!(
                "this is another server: system identifier {}, recorded was {}",
                self.system.system_identifier, recorded.system_identifier
            );
            let remedy = "point `source` at the recorded server; or, where this one replaces it for good, `pg2planhat \
                 repair --backfill` or `--accept-loss`";
            return Err(needs(Reason::OtherServer, what, remedy));
        }
        if recorded.database_oid != self.server.database.0 {
            let what =
                format!("this is another database ({}), recorded was {}", self.server.database.1, recorded.database);
            return Err(needs(
                Reason::OtherServer,
                what,
                "mend `source.database`, or give this instance a state schema of its own",
            ));
        }
        let timeline = i64::from(self.system.timeline);
        if timeline == i64::from(recorded.timeline) {
            return Ok(());
        }
        let changed = |what: String| Err(needs(Reason::TimelineChanged, what, REPAIR));
        if self.slot.as_ref().is_none_or(|slot| slot.failover != Some(true)) {
            return changed(format!(
                "the server is on timeline {timeline}, recorded was {}: a standby was promoted, and it does not have the slot's \
                 past",
                recorded.timeline
            ));
        }
        // What was settled behind the point of departure is of a log that this server never had: it writes other rows there,
        // and they would be taken for settled.
        let left = self.history.iter().find(|(ended, _)| i64::from(*ended) == i64::from(recorded.timeline));
        match left {
            Some((_, at)) if instance.checkpoint <= *at => Ok(()),
            Some((_, at)) => changed(format!(
                "a standby was promoted at {at}, before the checkpoint {}: rows written there since would be skipped",
                instance.checkpoint
            )),
            None => changed(format!(
                "the server's timeline {timeline} does not come from the recorded {}",
                recorded.timeline
            )),
        }
    }
}
