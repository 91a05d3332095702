//! Rows out of quarantine, on their way again. Pure.

use std::time::Duration;

use crate::delivery::batch::{Origin, SettledUpTo};
use crate::delivery::section::{IncomingRow, SectionDelivery};
use crate::mapping::Mapping;
use crate::model::{CommitTime, Phase, Row};

impl SectionDelivery {
    /// A retry of this quarantined row begins; `false` where one is under way, until it is durably settled.
    pub fn begin_retry(&mut self, id: i64) -> bool {
        self.retrying.insert(id)
    }

    /// The retry of this quarantined row comes to nothing: it stays where it is.
    pub fn give_up_retry(&mut self, id: i64) {
        self.retrying.remove(&id);
    }

    /// Whether quarantined rows are being retried.
    pub fn is_retrying(&self) -> bool {
        !self.retrying.is_empty()
    }

    /// Takes a row out of quarantine, to be sent again.
    pub fn admit_retry(&mut self, mapping: &Mapping, row: &Row<'_>, id: i64, now: Duration) {
        self.admit_out(Phase::Retry, mapping, row, (id, None), now);
    }

    /// The same in this phase: a retry, or the repair of a row that an audit found missing; with the quarantined row's id, and
    /// the commit time that was sent with it (µs since 2000-01-01 UTC).
    pub(crate) fn admit_out(
        &mut self,
        phase: Phase,
        mapping: &Mapping,
        row: &Row<'_>,
        (id, committed): (i64, Option<i64>),
        now: Duration,
    ) {
        self.counts.read(phase);
        let time = committed.map_or(CommitTime::Unknown, CommitTime::Micros);
        let left_out = mapping.left_out(row);
        if let Ok(Some(rule)) = left_out {
            self.retry.leave_out(phase, now, rule, Origin::Quarantine(id));
            return self.retry.reach(SettledUpTo::Apart);
        }
        let encode = |out: &mut Vec<u8>| left_out.and_then(|_| mapping.encode(row, time, out));
        let key = mapping.key_text(row);
        let incoming = self.retried(phase, &key, id, now);
        // Refused again, it says nothing of the rows that come.
        let _: bool = self.retry.push(incoming, encode, || mapping.describe(row));
        self.retry.reach(SettledUpTo::Apart);
    }

    /// Takes an item out of quarantine as it was made then: its row is no longer there.
    pub fn admit_item(&mut self, key: &str, item: &[u8], id: i64, now: Duration) {
        self.counts.read(Phase::Retry);
        let encode = |out: &mut Vec<u8>| -> Result<(), &'static str> {
            out.extend_from_slice(item);
            Ok(())
        };
        let incoming = self.retried(Phase::Retry, key.as_bytes(), id, now);
        let _: bool = self.retry.push(incoming, encode, String::new);
        self.retry.reach(SettledUpTo::Apart);
    }

    fn retried<'a>(&self, phase: Phase, key: &'a [u8], id: i64, now: Duration) -> IncomingRow<'a> {
        IncomingRow { limits: self.limits, phase, now, key, origin: Origin::Quarantine(id) }
    }
}
