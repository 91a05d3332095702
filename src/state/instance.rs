//! The one row of `instance`: whose state this is, who leads, how far everything is settled.
//!
//! * In: what the source says of itself; the process's name.
//! * Out: the [`Epoch`] under which a leader writes, and all that it needs to go on.
//! * Never: an identity replaced without fencing a process that runs by the old one.

use tokio_postgres::Row;
use tokio_postgres::types::PgLsn;

use crate::model::{CommitMark, Lsn, NewestRead, Position};
use crate::state::ledger::OpenDelivery;
use crate::state::model::unsigned;
use crate::state::section_rows::{SectionRow, lsn};
use crate::state::state_error::StateError;
use crate::state::store::{Epoch, Store, rfc3339};
use crate::state::writes::columns;

/// Which server, database, slot and publication the state belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// `system_identifier` of `pg_control_system()` or IDENTIFY_SYSTEM.
    pub system_identifier: String,
    pub timeline: i32,
    /// The source database's OID.
    pub database_oid: u32,
    /// The source database's name.
    pub database: String,
    /// The replication slot.
    pub slot: String,
    pub publication: String,
    /// The publication's OID: one that was dropped and made again has another. 0 where it is not known.
    pub publication_oid: u32,
    /// The `xmin` of the publication's row. `None` where an earlier version did not record it.
    pub publication_version: Option<String>,
}

/// The state of an instance whose last leader ended with nothing under way.
const DRAINED: &str = "drained";

/// The row of `instance`, once an identity was adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    /// Whose state it is.
    pub identity: Identity,
    /// The epoch of the last leader.
    pub epoch: i64,
    /// Everything before this is settled.
    pub checkpoint: Lsn,
    /// Every transaction below this 64-bit xid is settled.
    pub xmin_floor: Option<u64>,
    /// The last leader (`host:pid`).
    pub leader: Option<String>,
    /// When it began to lead: RFC 3339, UTC.
    pub started_at: Option<String>,
    /// Its program's version.
    pub version: Option<String>,
    /// The state that the leader last wrote.
    pub state: Option<String>,
    /// The reason, where the instance needs a person.
    pub reason: Option<String>,
    pub remedy: Option<String>,
    /// The publication of updates, where one is wanted.
    pub updates: Option<UpdatePublication>,
    /// What was read of the log last; `None` where an earlier version did not record it.
    pub newest: Option<NewestRead>,
}

/// The publication of updates, as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UpdatePublication {
    pub oid: u32,
    /// The `xmin` of its row.
    pub version: String,
    /// What is decoded from here on may be decoded with it; `None` where that is not known yet.
    pub from: Option<Lsn>,
}

/// Everything that an instance reads from the state when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    /// `None` before the first [`Store::adopt`].
    pub instance: Option<Instance>,
    /// Every section ever attached, by name, also those that are no longer in the configuration.
    pub sections: Vec<SectionRow>,
    /// The ledger's rows that are `sending` or `in_doubt`, by id.
    pub open_deliveries: Vec<OpenDelivery>,
    /// The id of the next batch: larger than any that was ever given.
    pub next_delivery: i64,
}

impl Instance {
    /// Whether the last leader recorded everything before it ended.
    pub(crate) fn is_drained(&self) -> bool {
        self.state.as_deref() == Some(DRAINED)
    }
}

impl Store {
    /// The row of `instance`; `None` before the first [`Store::adopt`].
    ///
    /// # Errors
    /// [`StateError::Unwritable`] where the schema is not of this version.
    pub(crate) async fn instance(&self) -> Result<Option<Instance>, StateError> {
        let sql = format!(
            "SELECT system_identifier, timeline, database_oid, database, slot, publication, epoch, checkpoint, xmin_floor,
                leader, {}, version, state, reason, remedy, schema_version, publication_oid,
                publication_version, updates_oid, updates_version, updates_from, read_lsn, read_xid, read_commit
             FROM {{schema}}.instance WHERE id = 1",
            rfc3339("started_at")
        );
        let rows = self.query("reading the identity", &sql, &[]).await?;
        let row = rows.first().ok_or_else(|| self.place.no_instance())?;
        match row.get::<_, i32>(15).cmp(&crate::state::version()) {
            std::cmp::Ordering::Less => Err(self.place.not_migrated()),
            std::cmp::Ordering::Greater => Err(self.place.newer_schema(row.get(15), crate::state::version())),
            std::cmp::Ordering::Equal => Ok(instance_of(row)),
        }
    }

    /// Reads everything that a leader starts from, in one snapshot. After [`Store::take_epoch`] no other process changes it.
    pub(crate) async fn open(&mut self) -> Result<Opened, StateError> {
        self.transaction("opening", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", async |store| {
            let next = "SELECT greatest(last_delivery, (SELECT max(id) FROM {schema}.delivery)) + 1
                        FROM {schema}.instance WHERE id = 1";
            // All four are asked at once.
            let (instance, mut sections, open_deliveries, next) = tokio::try_join!(
                store.instance(),
                store.sections(),
                store.open_deliveries(),
                store.one("opening", next, &[])
            )?;
            store.read_streamed(&mut sections).await?;
            Ok(Opened { instance, sections, open_deliveries, next_delivery: next.get(0) })
        })
        .await
    }

    /// Writes the identity: at first use, or when `repair` begins anew with another slot or server. Everything before
    /// `checkpoint` counts as settled. The epoch moves on, so that whoever runs by the old identity stops. Where `left` is
    /// given, sections' positions from there on are of a log that this server never wrote: new transactions may come at such
    /// positions again, so the sections go on from `left`.
    pub(crate) async fn adopt(
        &mut self,
        identity: &Identity,
        checkpoint: Lsn,
        xmin_floor: Option<u64>,
        left: Option<Lsn>,
    ) -> Result<(), StateError> {
        let doing = "adopting the identity";
        let (checkpoint, floor) = (PgLsn::from(checkpoint.0), xmin_floor.map(crate::state::model::signed));
        self.transaction(doing, "BEGIN", async |store| {
            let write = "UPDATE {schema}.instance SET system_identifier = $1, timeline = $2, database_oid = $3,
                    database = $4, slot = $5, publication = $6, publication_oid = $7, checkpoint = $8, xmin_floor = $9,
                    publication_version = $10,
                    -- Of another server's WAL, or of what was before a restored backup, it says nothing.
                    updates_from = CASE WHEN system_identifier = $1 AND updates_from <= $8 THEN updates_from END,
                    -- A transaction that is of this server's log counts on; else none has brought a row yet.
                    (read_lsn, read_xid, read_commit) = (SELECT CASE WHEN known THEN read_lsn ELSE $8 END,
                            CASE WHEN known THEN read_xid END, CASE WHEN known THEN read_commit END
                        FROM (SELECT system_identifier = $1 AND read_xid IS NOT NULL
                            AND ($11::pg_lsn IS NULL OR read_lsn < $11) AS known) AS read),
                    epoch = epoch + 1,
                    state = NULL, reason = NULL, remedy = NULL
                 WHERE id = 1";
            let Identity {
                system_identifier,
                timeline,
                database_oid,
                database,
                slot,
                publication,
                publication_oid,
                publication_version,
            } = identity;
            let changed = store
                .execute(
                    doing,
                    write,
                    &[
                        system_identifier,
                        timeline,
                        database_oid,
                        &store.text(database),
                        slot,
                        &store.text(publication),
                        publication_oid,
                        &checkpoint,
                        &floor,
                        publication_version,
                        &left.map(|left| PgLsn::from(left.0)),
                    ],
                )
                .await?;
            if changed == 0 {
                return Err(store.place.no_instance());
            }
            let Some(left) = left else { return Ok(()) };
            let cut = "UPDATE {schema}.section
                 SET position_lsn = $2, position_change_lsn = $3, position_ordinal = $4 WHERE position_lsn >= $1";
            let (lsn, change_lsn, ordinal) = columns(Some(Position::before_transaction(left)));
            store.execute(doing, cut, &[&PgLsn::from(left.0), &lsn, &change_lsn, &ordinal]).await?;
            Ok(())
        })
        .await
    }

    /// Records, before the slot is made, the first transaction that had not ended by then: nothing is adopted yet.
    pub(crate) async fn record_floor_before_slot(&self, xmin: u64) -> Result<(), StateError> {
        let write = "UPDATE {schema}.instance SET xmin_floor = $1 WHERE id = 1 AND coalesce(slot, '') = ''";
        self.execute("recording what is older than the slot", write, &[&crate::state::model::signed(xmin)]).await?;
        Ok(())
    }

    /// What [`Store::record_floor_before_slot`] recorded; `None` where somebody else made the slot.
    pub(crate) async fn floor_before_slot(&self) -> Result<Option<u64>, StateError> {
        let sql = "SELECT xmin_floor FROM {schema}.instance WHERE id = 1 AND coalesce(slot, '') = ''";
        let rows = self.query("reading what is older than the slot", sql, &[]).await?;
        Ok(rows.first().and_then(|row| row.get::<_, Option<i64>>(0)).map(unsigned))
    }

    /// Notes that the leader of this epoch has ended with nothing under way and everything recorded.
    pub(crate) async fn note_drained(&self, epoch: i64) -> Result<(), StateError> {
        let write = "UPDATE {schema}.instance SET state = $2 WHERE id = 1 AND epoch = $1";
        self.execute("writing the state", write, &[&epoch, &DRAINED]).await?;
        Ok(())
    }

    /// Records the version of the publication where an earlier version of the program recorded none.
    pub(crate) async fn record_publication_version(&self, version: &str) -> Result<(), StateError> {
        let write =
            "UPDATE {schema}.instance SET publication_version = $1 WHERE id = 1 AND publication_version IS NULL";
        self.execute("recording the publication's version", write, &[&version]).await?;
        Ok(())
    }

    /// Records the publication of updates (its OID, and the `xmin` of its row), or that none is wanted. From where it may be
    /// named is known no more, where it is another than before.
    pub(crate) async fn record_update_publication(&self, publication: Option<(u32, &str)>) -> Result<(), StateError> {
        let (oid, version) = publication.unzip();
        let write = "UPDATE {schema}.instance SET updates_oid = $1, updates_version = $2,
                updates_from = CASE WHEN updates_oid = $1 THEN updates_from END,
                -- Without it, a transaction that brought updates alone does not come again.
                read_xid = CASE WHEN updates_oid IS NULL OR updates_oid = $1 THEN read_xid END,
                read_lsn = CASE WHEN updates_oid IS NULL OR updates_oid = $1 OR read_lsn IS NULL THEN read_lsn
                    ELSE greatest(read_lsn, checkpoint) END
             WHERE id = 1";
        self.execute("recording the publication of updates", write, &[&oid, &version]).await?;
        Ok(())
    }

    /// Records from where the publication of updates with this OID may be named.
    pub(crate) async fn record_updates_from(&self, oid: u32, from: Lsn) -> Result<(), StateError> {
        let write = "UPDATE {schema}.instance SET updates_from = $2
             WHERE id = 1 AND updates_oid = $1 AND updates_from IS NULL";
        self.execute("recording where updates begin", write, &[&oid, &PgLsn::from(from.0)]).await?;
        Ok(())
    }

    /// Becomes the leader: every older term is past from here on. `leader` is `host:pid`.
    /// A frozen leader can hold this up for 5 s.
    pub(crate) async fn take_epoch(&mut self, leader: &str) -> Result<Epoch, StateError> {
        let take = "UPDATE {schema}.instance SET epoch = epoch + 1, leader = $1, started_at = now(), version = $2
             WHERE id = 1 RETURNING epoch, applied_seq";
        let version = env!("CARGO_PKG_VERSION");
        let rows = self.query("taking the epoch", take, &[&self.text(leader), &version]).await?;
        let row = rows.first().ok_or_else(|| self.place.no_instance())?;
        Ok(Epoch { epoch: row.get(0), seq: row.get(1), sent: row.get(1) })
    }

    /// Whether the term's epoch is still the last one.
    ///
    /// # Errors
    /// [`StateError::Fenced`] where it is not.
    pub(crate) async fn still_leads(&self, term: &Epoch) -> Result<(), StateError> {
        let asked = "SELECT epoch FROM {schema}.instance WHERE id = 1";
        let rows = self.query("looking at the epoch", asked, &[]).await?;
        let row = rows.first().ok_or_else(|| self.place.no_instance())?;
        match row.get::<_, i64>(0).cmp(&term.epoch) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(StateError::Fenced),
            std::cmp::Ordering::Less => Err(self.place.older_copy(row.get(0), term.epoch)),
        }
    }

    /// Writes the leader's state for `status` of other processes, with reason and remedy where it needs a
    /// person.
    pub(crate) async fn set_instance_state(
        &self,
        term: &Epoch,
        state: &str,
        why: Option<(&str, &str)>,
    ) -> Result<(), StateError> {
        let (reason, remedy) = why.unzip();
        let (reason, remedy) = (reason.map(|text| self.text(text)), remedy.map(|text| self.text(text)));
        let write = "UPDATE {schema}.instance SET state = $2, reason = $3, remedy = $4 WHERE id = 1 AND epoch = $1";
        let changed = self.execute("writing the state", write, &[&term.epoch, &state, &reason, &remedy]).await?;
        if changed == 0 { self.still_leads(term).await } else { Ok(()) }
    }
}

impl Store {
    /// What stands in the way, noted by a process that does not lead, for `status` of other processes; not where a leader
    /// of a later epoch than `epoch` (the one seen) has begun meanwhile.
    pub(crate) async fn note_hindrance(&self, epoch: i64, reason: &str, remedy: &str) -> Result<(), StateError> {
        let (reason, remedy) = (self.text(reason), self.text(remedy));
        let write = "UPDATE {schema}.instance SET state = 'needs_person', reason = $2, remedy = $3
             WHERE id = 1 AND epoch = $1";
        self.execute("writing the state", write, &[&epoch, &reason, &remedy]).await?;
        Ok(())
    }
}

/// The commit at `read_lsn`, where a transaction is recorded there.
fn commit_of(row: &Row) -> Option<CommitMark> {
    let (xid, micros) = (row.get::<_, Option<i64>>(22)?, row.get::<_, Option<i64>>(23)?);
    Some(CommitMark { xid: u32::try_from(xid).ok()?, micros })
}

fn instance_of(row: &Row) -> Option<Instance> {
    Some(Instance {
        identity: Identity {
            system_identifier: row.get::<_, Option<String>>(0)?,
            timeline: row.get::<_, Option<i32>>(1)?,
            database_oid: row.get::<_, Option<u32>>(2)?,
            database: row.get::<_, Option<String>>(3)?,
            slot: row.get::<_, Option<String>>(4)?,
            publication: row.get::<_, Option<String>>(5)?,
            publication_oid: row.get::<_, Option<u32>>(16).unwrap_or_default(),
            publication_version: row.get(17),
        },
        epoch: row.get(6),
        checkpoint: lsn(row, 7).unwrap_or(Lsn::ZERO),
        xmin_floor: row.get::<_, Option<i64>>(8).map(unsigned),
        leader: row.get(9),
        started_at: row.get(10),
        version: row.get(11),
        state: row.get(12),
        reason: row.get(13),
        remedy: row.get(14),
        updates: row.get::<_, Option<u32>>(18).map(|oid| UpdatePublication {
            oid,
            version: row.get::<_, Option<String>>(19).unwrap_or_default(),
            from: lsn(row, 20),
        }),
        newest: lsn(row, 21).map(|at| NewestRead { at, commit: commit_of(row) }),
    })
}
