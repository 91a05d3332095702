//! What the process says of itself: the status document and the metrics, from one source.
//!
//! * In: what the corridor knows, once a second; what a start meets.
//! * Out: the [`Status`] that `/status`, `/readyz` and `/metrics` are made of.
//! * Never: "ready" where nothing flows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::carried::Carried;
use super::identity::Needs;
use crate::admin::{Heartbeat, Looks};
use crate::config::{Config, Section};
use crate::fault::Fault;
use crate::lane::{Counts, Lane, PHASES, Shut};
use crate::row::Lsn;
use crate::state::{SectionRow, Totals};
use crate::telemetry::status::{Backfill, InstanceState, SectionState, SectionStatus, Status};
use crate::telemetry::{Age, Filtered, Metrics, SectionMetrics};

/// The board on which the process's state is written. Cheap to clone.
#[derive(Clone)]
pub struct Board {
    status: Arc<watch::Sender<Status>>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The pulse of the tasks.
    pub heartbeat: Arc<Heartbeat>,
    /// Those who want to see it.
    pub looks: Looks,
    /// The time since the server's last message.
    pub wire: Age,
    sections: Arc<HashMap<String, SectionMetrics>>,
    /// Rows that were read and not settled when a corridor ended, by section and phase: the next one reads them again.
    left: Arc<Mutex<HashMap<String, [u64; 4]>>>,
    /// What it knew beyond the state.
    carried: Arc<Mutex<HashMap<String, Carried>>>,
}

impl Board {
    /// A board that says "starting".
    ///
    /// # Errors
    /// A bug in the metrics' declaration.
    pub fn new(config: &Config) -> Result<Board, Fault> {
        let metrics = Arc::new(Metrics::new()?);
        let sections = config.sections.iter().map(|section| {
            let name = section.name.as_str();
            (name.to_owned(), metrics.section(name))
        });
        let sections = Arc::new(sections.collect());
        let mut status = Status::starting(&*config.source.slot, &*config.source.publication);
        status.sections = config.sections.iter().map(unknown).collect();
        let (status, _) = watch::channel(status);
        let wire = metrics.last_wire_message();
        Ok(Board {
            status: Arc::new(status),
            metrics,
            heartbeat: Arc::new(Heartbeat::new()),
            looks: Looks::default(),
            wire,
            sections,
            left: Arc::default(),
            carried: Arc::default(),
        })
    }

    /// A reader of it.
    pub fn subscribe(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// The handles of one section.
    pub fn section(&self, name: &str) -> Option<SectionMetrics> {
        self.sections.get(name).cloned()
    }

    /// Writes a state without trouble; returns whether it is new.
    pub fn is(&self, state: InstanceState) -> bool {
        let mut new = false;
        self.status.send_modify(|status| {
            new = status.state != state;
            status.state = state;
            status.ready = false;
            status.instance.leader = false;
            (status.reason, status.message, status.remedy) = (None, None, None);
        });
        new
    }

    /// Writes what it is told that a start waits for, and with nothing that it waits no more.
    pub fn waits(&self) -> impl Fn(Option<&Fault>) + Send + Sync {
        |fault| {
            self.status.send_modify(|status| {
                status.message = fault.map(|fault| fault.what.clone());
                status.remedy = fault.map(|fault| fault.remedy.clone());
            });
        }
    }

    /// Writes that something is away.
    pub fn stalled(&self, fault: &Fault) {
        self.status.send_modify(|status| {
            status.state = InstanceState::Stalled;
            status.ready = false;
            status.instance.leader = false;
            status.reason = None;
            status.message = Some(fault.what.clone());
            status.remedy = Some(fault.remedy.clone());
        });
    }

    /// Writes that a person must decide; returns whether that, or its reason, is new.
    pub fn needs_person(&self, needs: &Needs) -> bool {
        let mut new = false;
        self.status.send_modify(|status| {
            new = status.reason != Some(needs.reason);
            status.state = InstanceState::NeedsPerson;
            status.ready = false;
            status.instance.leader = false;
            status.reason = Some(needs.reason);
            status.message = Some(needs.fault.what.clone());
            status.remedy = Some(needs.fault.remedy.clone());
        });
        new
    }

    /// Whether that is what stands written.
    pub fn needs_a_person(&self) -> bool {
        self.status.borrow().state == InstanceState::NeedsPerson
    }

    /// The epoch by which this process leads, if it does.
    pub fn term(&self) -> Option<i64> {
        let status = self.status.borrow();
        status.instance.epoch.filter(|_| status.instance.leader)
    }

    /// Whether this process leads.
    pub fn is_leading(&self) -> bool {
        self.status.borrow().instance.leader
    }

    /// Leaves what a section's counters show as unsettled to the next corridor.
    pub fn leave(&self, name: &str, left: [u64; 4]) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), left);
    }

    /// What the last corridor left of a section.
    pub fn left(&self, name: &str) -> [u64; 4] {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied().unwrap_or_default()
    }

    /// Leaves what is known of a section beyond the state to the next corridor.
    pub fn carry(&self, name: &str, carried: Carried) {
        self.carried.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), carried);
    }

    /// What the last corridor knew beyond the state.
    pub fn carried(&self) -> HashMap<String, Carried> {
        std::mem::take(&mut self.carried.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the document.
    pub fn modify(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }
}

/// A section before anything is known of it.
pub(super) fn unknown(section: &Section) -> SectionStatus {
    SectionStatus {
        name: section.name.to_string(),
        kind: section.kind.as_str().to_owned(),
        table: super::start::written(&section.table),
        state: if section.is_on() { SectionState::Waiting } else { SectionState::Off },
        reason: None,
        remedy: None,
        rows_delivered: 0,
        rows_quarantined: 0,
        rows_in_doubt: 0,
        rows_resent: 0,
        lag_seconds: None,
        last_delivered_at: None,
        backfill: None,
    }
}

/// What the corridor knows of one section beyond its lane.
#[derive(Debug)]
pub struct SectionBook {
    /// As the state had it at the start.
    pub row: Option<SectionRow>,
    /// Totals since.
    pub since: Totals,
    /// When rows were last received (RFC 3339).
    pub last_delivered: Option<String>,
    /// Why it cannot be attached or its range not be read.
    pub trouble: Option<(String, String)>,
    /// Why the sink did not take its last batch, where it is tried again: the section goes on, and says so.
    pub sink: Option<(String, String)>,
    /// Rows put into quarantine that the counters do not show yet, by reason.
    pub quarantined: Vec<(String, u64)>,
    /// What did not fit when the process began, though rows still flow.
    pub warning: Option<(String, String)>,
    /// When its range began here, and how many rows were settled then.
    pub range_began: Option<(Instant, u64)>,
    /// What the counters showed last.
    shown: [Counts; 4],
}

impl SectionBook {
    /// A book that goes on from the state's row, and from what the corridor before left.
    pub fn new(row: Option<SectionRow>, left: [u64; 4]) -> SectionBook {
        let last_delivered = row.as_ref().and_then(|row| row.last_delivered_at.clone());
        let shown = left.map(|read| Counts { read, ..Counts::default() });
        SectionBook {
            row,
            since: Totals::default(),
            last_delivered,
            trouble: None,
            sink: None,
            quarantined: Vec::new(),
            warning: None,
            range_began: None,
            shown,
        }
    }

    fn totals(&self) -> Totals {
        let before = self.row.as_ref().map(|row| row.totals).unwrap_or_default();
        Totals {
            delivered: before.delivered + self.since.delivered,
            quarantined: before.quarantined + self.since.quarantined,
            in_doubt: before.in_doubt + self.since.in_doubt,
            resent: before.resent + self.since.resent,
        }
    }

    /// Moves the counters to what the lane has counted: what is within one call is seen whole by a scrape.
    pub fn show(&mut self, lane: &Lane, metrics: &SectionMetrics, now: Duration) {
        for (index, phase) in PHASES.into_iter().enumerate() {
            let (is, was) = (lane.counts[index], self.shown[index]);
            // Rows that were shed are taken in again: the count of rows read goes back and waits.
            metrics.read(phase, is.read.saturating_sub(was.read));
            metrics.filtered(phase, Filtered::Streamed, is.filtered - was.filtered);
            metrics.delivered(phase, is.delivered - was.delivered);
            self.shown[index] = Counts { read: is.read.max(was.read), ..is };
        }
        for (reason, rows) in self.quarantined.drain(..) {
            metrics.quarantined(&reason, rows);
        }
        // Rows that were shed were read once, and are not settled.
        let shed: u64 = self.shown.iter().zip(&lane.counts).map(|(shown, is)| shown.read - is.read).sum();
        metrics.unsettled(lane.unsettled().iter().sum::<u64>() + shed);
        metrics.oldest_unsettled(lane.oldest().map(|oldest| now.saturating_sub(oldest)));
    }

    /// Rows that the counters show as read and not as settled, by phase.
    pub fn left(&self) -> [u64; 4] {
        self.shown.map(|shown| shown.read - shown.filtered - shown.delivered - shown.quarantined)
    }

    /// The section's part of the status.
    pub fn status(&self, section: &Section, lane: Option<&Lane>, now: Duration) -> SectionStatus {
        let totals = self.totals();
        let mut status = SectionStatus {
            rows_delivered: totals.delivered,
            rows_quarantined: totals.quarantined,
            rows_in_doubt: totals.in_doubt,
            rows_resent: totals.resent,
            last_delivered_at: self.last_delivered.clone(),
            ..unknown(section)
        };
        let mut trouble = self.trouble.clone();
        if let Some(lane) = lane {
            status.lag_seconds = Some(lane.oldest().map_or(0.0, |oldest| now.saturating_sub(oldest).as_secs_f64()));
            status.state = if lane.range.is_some() { SectionState::Backfilling } else { SectionState::Streaming };
            status.backfill = self.backfill(lane);
            if lane.paused {
                status.state = SectionState::Paused;
                trouble.get_or_insert_with(|| {
                    (
                        "paused by an operator; the slot keeps WAL for it".into(),
                        format!("pg2planhat resume {}", lane.name),
                    )
                });
            }
            if let Some(why) = &lane.halted {
                trouble = Some(why.clone());
            }
            if let Some(Shut::Mapping(what, remedy)) = &lane.shut {
                trouble = Some((what.clone(), remedy.clone()));
            }
        }
        if trouble.is_none()
            && let Some((reason, remedy)) = &self.sink
        {
            (status.reason, status.remedy) = (Some(reason.clone()), Some(remedy.clone()));
        }
        if let Some((reason, remedy)) = trouble {
            if status.state != SectionState::Paused {
                status.state = SectionState::Halted;
            }
            (status.reason, status.remedy) = (Some(reason), Some(remedy));
        } else if let Some((reason, remedy)) = &self.warning {
            (status.reason, status.remedy) = (Some(reason.clone()), Some(remedy.clone()));
        }
        status
    }

    fn backfill(&self, lane: &Lane) -> Option<Backfill> {
        let Some(range) = &lane.range else {
            let row = self.row.as_ref()?;
            let rows = row.backfill_rows.max(self.range_rows());
            return (rows > 0 || self.range_began.is_some()).then(|| Backfill {
                rows,
                estimated: Some(row.backfill_estimated.max(rows)),
                eta_seconds: Some(0.0),
            });
        };
        let eta = self.range_began.and_then(|(began, rows)| {
            let done = range.rows.saturating_sub(rows);
            let rate = done as f64 / began.elapsed().as_secs_f64().max(0.001);
            (done > 0).then(|| range.estimated.saturating_sub(range.rows) as f64 / rate)
        });
        Some(Backfill {
            rows: range.rows,
            estimated: range.ceiling.as_ref().map(|_| range.estimated),
            eta_seconds: eta,
        })
    }

    fn range_rows(&self) -> u64 {
        self.shown[0].delivered + self.shown[0].quarantined + self.shown[2].delivered + self.shown[2].quarantined
    }
}

/// How fast the server writes WAL, from looks some seconds apart.
#[derive(Debug, Default)]
pub struct WalRate {
    last: Option<(Instant, Lsn)>,
    rate: Option<f64>,
}

impl WalRate {
    /// Another look. Gives bytes per second, smoothed over some looks.
    pub fn look(&mut self, end: Lsn, now: Instant) -> Option<f64> {
        if let Some((at, before)) = self.last {
            let seconds = now.duration_since(at).as_secs_f64();
            if seconds > 0.1 {
                let fresh = end.bytes_since(before) as f64 / seconds;
                self.rate = Some(self.rate.map_or(fresh, |rate| rate * 0.7 + fresh * 0.3));
                self.last = Some((now, end));
            }
        } else {
            self.last = Some((now, end));
        }
        self.rate
    }
}
