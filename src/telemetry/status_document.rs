//! The status document: what `status` prints, `/status` serves and `/readyz` judges by.
//!
//! * In: what the event loop knows.
//! * Out: one JSON document; fields may be added, never renamed.
//! * Never: an unknown number shown as 0 (it is null); a secret or row data.

use serde::{Deserialize, Serialize};

use crate::model::RowCounts;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// What the instance is doing.
    pub state: InstanceState,
    /// Whether rows flow: leader, streaming or backfilling, with recent progress.
    pub ready: bool,
    /// Why a person is needed.
    pub reason: Option<Reason>,
    /// What is wrong, in a sentence, whatever the state.
    pub message: Option<String>,
    pub remedy: Option<String>,
    /// This program's version.
    pub version: String,
    /// Who this is, and at which server.
    pub instance: InstanceStatus,
    /// The replication slot.
    pub slot: SlotStatus,
    /// The sections, in the order configured.
    pub sections: Vec<SectionStatus>,
    /// Sections that the file does not have any more, and whose gaps are open.
    #[serde(default)]
    pub removed: Vec<RemovedStatus>,
}

/// A section that the file does not have any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemovedStatus {
    /// Its name.
    pub section: String,
    /// Gaps of it that are open: rows committed since it was left are delivered by nobody.
    pub open_gaps: u64,
}

impl Status {
    /// What is true before anything is known.
    pub fn starting(slot: impl Into<String>, publication: impl Into<String>) -> Status {
        Status {
            state: InstanceState::Starting,
            ready: false,
            reason: None,
            message: None,
            remedy: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: InstanceStatus {
                slot: slot.into(),
                publication: publication.into(),
                ..InstanceStatus::default()
            },
            slot: SlotStatus::default(),
            sections: Vec::new(),
            removed: Vec::new(),
        }
    }

    /// Nobody looks at the source any more: what was known of it is not.
    pub fn forget_source(&mut self) {
        self.slot = SlotStatus { confirmed_flush_lsn: self.slot.confirmed_flush_lsn.take(), ..SlotStatus::default() };
        self.sections.iter_mut().for_each(SectionStatus::stop_flowing);
    }
}

/// An enum of words: one spelling for JSON, metrics and tables.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $( $(#[$doc:meta])+ $variant:ident = $word:literal, )+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $( $(#[$doc])+ #[serde(rename = $word)] $variant, )+
        }

        impl $name {
            /// All of them, in order.
            pub const ALL: &[$name] = &[$($name::$variant),+];

            /// The word in JSON, in metrics and in tables.
            pub fn as_str(self) -> &'static str {
                match self {
                    $( $name::$variant => $word, )+
                }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// What the instance is doing.
    pub enum InstanceState {
        /// Connecting, and comparing what it finds with what was recorded.
        Starting = "starting",
        /// Another process holds the slot.
        Standby = "standby",
        /// Rows flow.
        Running = "running",
        /// It should run, and nothing moves: a server is away or silent.
        Stalled = "stalled",
        /// It was told to end and finishes what is under way.
        Draining = "draining",
        /// Something is not what it was; nothing is streamed until a person decides.
        NeedsPerson = "needs_person",
    }
}

words! {
    /// Why a person is needed.
    pub enum Reason {
        /// The slot of the recorded instance is gone.
        SlotMissing = "slot_missing",
        /// A slot of this name is there, and it is another.
        SlotRecreated = "slot_recreated",
        /// Someone else moved the slot past the checkpoint.
        SlotMoved = "slot_moved",
        /// The server removed WAL that the slot needed.
        SlotLost = "slot_lost",
        /// The server cannot decode past a change.
        Wedged = "wedged",
        /// The publication, or what it carries, was changed.
        PublicationChanged = "publication_changed",
        /// This is another server than the recorded one.
        OtherServer = "other_server",
        /// The server is behind the checkpoint: it was restored from a backup.
        RestoredBackup = "restored_backup",
        /// The server went on along another timeline.
        TimelineChanged = "timeline_changed",
        /// Checkpoints cannot be written.
        StateUnwritable = "state_unwritable",
    }
}

impl Reason {
    /// Whether rows written since the checkpoint may never come by the stream.
    pub fn leaves_a_gap(self) -> bool {
        match self {
            Reason::SlotMissing
            | Reason::SlotRecreated
            | Reason::SlotMoved
            | Reason::SlotLost
            | Reason::Wedged
            | Reason::PublicationChanged
            | Reason::RestoredBackup
            | Reason::TimelineChanged => true,
            Reason::OtherServer | Reason::StateUnwritable => false,
        }
    }
}

words! {
    /// What a section is doing.
    pub enum SectionState {
        /// Switched off in the configuration.
        Off = "off",
        /// Not attached yet.
        Waiting = "waiting",
        /// Older rows are read beside the stream.
        Backfilling = "backfilling",
        /// Rows come by the stream only.
        Streaming = "streaming",
        /// Its result is compared from time to time.
        Comparing = "comparing",
        /// An operator paused it.
        Paused = "paused",
        /// Its surroundings must be mended; it probes and goes on by itself.
        Halted = "halted",
    }
}

/// Who this is, and at which server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// `pg_control_system()`'s identifier: text, for it does not fit a JSON number everywhere.
    pub system_identifier: Option<String>,
    /// The server's timeline.
    pub timeline: Option<u32>,
    /// The replication slot's name.
    pub slot: String,
    /// The publication's name.
    pub publication: String,
    /// The epoch that this process writes under.
    pub epoch: Option<i64>,
    /// Whether this process holds the slot.
    pub leader: bool,
    /// The database that rows come from; null while not known.
    #[serde(default)]
    pub database: Option<String>,
}

/// The replication slot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// What the server may forget up to.
    pub confirmed_flush_lsn: Option<String>,
    /// WAL between that and the server's current end.
    pub confirmed_lag_bytes: Option<u64>,
    /// WAL that the slot keeps on the server's disk.
    pub retained_bytes: Option<u64>,
    /// How much more WAL may be written before the slot is lost; null where nothing bounds it.
    pub safe_wal_bytes: Option<i64>,
    /// The same in time, at the present rate; null where nothing bounds it.
    pub seconds_until_lost: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SectionStatus {
    pub name: String,
    /// `user_activity` or `custom_metric`.
    pub kind: String,
    /// Its table, with schema.
    pub table: String,
    pub state: SectionState,
    /// Why it is not doing more.
    pub reason: Option<String>,
    pub remedy: Option<String>,
    /// Rows received by Planhat, ever.
    pub rows_delivered: u64,
    /// Rows put into quarantine, ever.
    pub rows_quarantined: u64,
    /// Rows of batches that were in doubt, ever.
    pub rows_in_doubt: u64,
    /// Rows sent again after doubt, ever.
    pub rows_resent: u64,
    /// Age of the oldest row that is not settled; 0 where all are.
    pub lag_seconds: Option<f64>,
    /// When rows were last received (RFC 3339).
    pub last_delivered_at: Option<String>,
    /// The backfill or re-sync, while there is one or if there was.
    pub backfill: Option<Backfill>,
    /// Whether its rows flow: nothing keeps them, and none waits a minute longer than it should.
    #[serde(default)]
    pub flows: bool,
    /// Rows in quarantine now; null while not known.
    #[serde(default)]
    pub quarantined_now: Option<u64>,
    /// Rows in doubt now: their batch's answer never came, and they are not settled since.
    #[serde(default)]
    pub in_doubt_now: u64,
    /// Gaps that are open: stretches whose rows may be missing; null while not known.
    #[serde(default)]
    pub open_gaps: Option<u64>,
    /// The comparisons of its result, where it is read so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<DiffStatus>,
    /// The count of its rows since the process began. Metrics show it; the document has the totals.
    #[serde(skip)]
    pub counts: RowCounts,
    /// Since when it is late, in Unix time; 0 where it is not, `None` where nobody knows. Metrics show it.
    #[serde(skip)]
    pub late_since: Option<f64>,
    /// Whether the totals go on from the state's: before it was read they are this process's alone.
    #[serde(skip)]
    pub totals_known: bool,
}

impl SectionStatus {
    /// Nothing of it flows, and that it is not late is no longer known.
    pub fn stop_flowing(&mut self) {
        self.flows = false;
        self.lag_seconds = self.lag_seconds.filter(|lag| *lag > 0.0);
        self.late_since = self.late_since.filter(|since| *since > 0.0);
    }

    /// A section before anything is known of it.
    pub fn new(
        name: impl Into<String>,
        kind: impl Into<String>,
        table: impl Into<String>,
        state: SectionState,
    ) -> SectionStatus {
        SectionStatus {
            name: name.into(),
            kind: kind.into(),
            table: table.into(),
            state,
            reason: None,
            remedy: None,
            rows_delivered: 0,
            rows_quarantined: 0,
            rows_in_doubt: 0,
            rows_resent: 0,
            lag_seconds: None,
            last_delivered_at: None,
            backfill: None,
            flows: false,
            quarantined_now: None,
            in_doubt_now: 0,
            open_gaps: None,
            diff: None,
            counts: RowCounts::default(),
            late_since: None,
            totals_known: false,
        }
    }
}

/// The comparisons of a section's result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DiffStatus {
    /// When the next one begins (RFC 3339); null while one is under way.
    pub next_at: Option<String>,
    /// When the last one began; null before the first has ended.
    pub started_at: Option<String>,
    /// When it was settled.
    pub ended_at: Option<String>,
    /// Rows that it read.
    pub rows: u64,
    /// Rows whose key was new.
    pub new: u64,
    /// Rows whose mapped values had changed.
    pub changed: u64,
    /// Rows that were settled before, and were not in the result.
    pub gone: u64,
}

/// How far a backfill is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Backfill {
    /// Rows settled by it.
    pub rows: u64,
    /// Rows to read, estimated when it began.
    pub estimated: Option<u64>,
    /// Time to its end at the present rate; 0 when done.
    pub eta_seconds: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    fn sample() -> Status {
        let mut status = Status::starting("pg2planhat", "pg2planhat");
        let section = SectionStatus::new("logins", "user_activity", "public.app_event", SectionState::Backfilling);
        status.sections.push(SectionStatus { backfill: Some(Backfill::default()), flows: true, ..section });
        status
    }

    #[test]
    fn the_document_has_the_fields_that_were_promised() {
        let document = serde_json::to_value(sample()).unwrap();
        for field in ["state", "ready", "reason", "version", "instance", "slot", "sections", "removed"] {
            assert!(keys(&document).contains(&field), "{field}");
        }
        assert_eq!(
            keys(&document["instance"]),
            ["system_identifier", "timeline", "slot", "publication", "epoch", "leader", "database"]
        );
        assert_eq!(
            keys(&document["slot"]),
            ["confirmed_flush_lsn", "confirmed_lag_bytes", "retained_bytes", "safe_wal_bytes", "seconds_until_lost"]
        );
        assert_eq!(
            keys(&document["sections"][0]),
            [
                "name",
                "kind",
                "table",
                "state",
                "reason",
                "remedy",
                "rows_delivered",
                "rows_quarantined",
                "rows_in_doubt",
                "rows_resent",
                "lag_seconds",
                "last_delivered_at",
                "backfill",
                "flows",
                "quarantined_now",
                "in_doubt_now",
                "open_gaps"
            ]
        );
        assert_eq!(keys(&document["sections"][0]["backfill"]), ["rows", "estimated", "eta_seconds"]);
    }

    #[test]
    fn what_is_unknown_is_null() {
        let document = serde_json::to_value(sample()).unwrap();
        assert_eq!(document["slot"]["retained_bytes"], Value::Null);
        assert_eq!(document["instance"]["timeline"], Value::Null);
        assert_eq!(document["sections"][0]["lag_seconds"], Value::Null);
    }

    #[test]
    fn it_reads_back_and_tolerates_fields_of_a_later_version() {
        let mut document = serde_json::to_value(sample()).unwrap();
        document["later"] = json!({"a": 1});
        assert_eq!(serde_json::from_value::<Status>(document).unwrap(), sample());
    }

    #[test]
    fn words_are_spelt_alike_in_json_and_in_text() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        assert_eq!(Reason::ALL.len(), 10);
        assert_eq!(serde_json::to_value(InstanceState::NeedsPerson).unwrap(), "needs_person");
        assert_eq!(SectionState::Backfilling.to_string(), "backfilling");
    }
}
