//! The status board: the status document and the metrics, from one source.
//!
//! * In: what the event loop knows, twice a second; what a start meets.
//! * Out: the [`Status`] that `/status`, `/readyz` and `/metrics` are made of.
//! * Never: "ready" where nothing flows.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::admin::{Heartbeat, RefreshRequests};
use crate::config::Config;
use crate::model::{Fault, RowCounts};
use crate::runtime::promotion::KnownProgress;
use crate::runtime::section_report::unknown;
use crate::runtime::start_error::NeedsPerson;
use crate::telemetry::status_document::{InstanceState, Status};
use crate::telemetry::{Age, Metrics, SectionMetrics};

/// The process's state, as it is shown. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Board {
    status: Arc<watch::Sender<Status>>,
    pub metrics: Arc<Metrics>,
    /// The pulse of the tasks.
    pub heartbeat: Arc<Heartbeat>,
    /// Requests of the admin port to refresh it.
    pub refresh: RefreshRequests,
    /// The time since the server's last message.
    pub wire: Age,
    sections: Arc<Mutex<HashMap<String, SectionMetrics>>>,
    /// The configuration that counts: SIGHUP may bring another one.
    config: Arc<watch::Sender<Arc<Config>>>,
    /// In what the file differs from it.
    file_note: Arc<Mutex<Option<Fault>>>,
    /// A start has come through to the server once.
    has_connected: Arc<AtomicBool>,
    /// The progress that ended event loops of this process knew beyond the state.
    known: Arc<Mutex<HashMap<String, KnownProgress>>>,
}

impl Board {
    /// A board that says "starting".
    pub(crate) fn new(config: &Arc<Config>) -> Result<Board, Fault> {
        let metrics = Arc::new(Metrics::new()?);
        let sections = config.sections.iter().map(|section| {
            let name = section.name.as_str();
            (name.to_owned(), metrics.section(name))
        });
        let sections = Arc::new(Mutex::new(sections.collect()));
        let mut status = Status::starting(&*config.source.slot, &*config.source.publication);
        status.sections = config.sections.iter().map(unknown).collect();
        let (status, _) = watch::channel(status);
        let wire = metrics.last_wire_message();
        Ok(Board {
            status: Arc::new(status),
            metrics,
            heartbeat: Arc::new(Heartbeat::new()),
            refresh: RefreshRequests::default(),
            wire,
            sections,
            config: Arc::new(watch::channel(Arc::clone(config)).0),
            file_note: Arc::default(),
            has_connected: Arc::default(),
            known: Arc::default(),
        })
    }

    /// A reader of it.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Shows what the last audit of a section found, and when it ended (Unix time, seconds).
    pub(crate) fn set_audit(&self, name: &str, missing: u64, at: i64) {
        if let Some(section) = self.section(name) {
            section.set_audit(missing, at);
        }
    }

    /// The handles of one section.
    pub(crate) fn section(&self, name: &str) -> Option<SectionMetrics> {
        self.sections.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The handles of a section that may be new.
    pub(crate) fn add_section(&self, name: &str) -> SectionMetrics {
        let mut sections = self.sections.lock().unwrap_or_else(PoisonError::into_inner);
        sections.entry(name.to_owned()).or_insert_with(|| self.metrics.section(name)).clone()
    }

    /// The configuration that counts now.
    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// Those that follow it.
    pub(crate) fn configs(&self) -> watch::Receiver<Arc<Config>> {
        self.config.subscribe()
    }

    /// Lets another configuration count, of the same servers: whatever runs takes its sections over.
    pub(crate) fn set_config(&self, config: Arc<Config>) {
        self.config.send_replace(config);
    }

    /// Notes in what the file differs from the configuration that counts.
    pub(crate) fn set_file_note(&self, note: Option<Fault>) {
        *self.file_note.lock().unwrap_or_else(PoisonError::into_inner) = note;
    }

    /// In what the file differs from the configuration that counts.
    pub(crate) fn file_note(&self) -> Option<Fault> {
        self.file_note.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows a state without trouble; returns whether it is new.
    pub(crate) fn set_state(&self, state: InstanceState) -> bool {
        let mut new = false;
        self.status.send_modify(|status| {
            new = status.state != state;
            status.state = state;
            status.ready = false;
            status.forget_source();
            status.instance.leader = false;
            (status.reason, status.message, status.remedy) = (None, None, None);
        });
        new
    }

    /// Shows what start-up is waiting for; `None` clears it.
    pub(crate) fn wait_reporter(&self) -> impl Fn(Option<&Fault>) + Send + Sync {
        |fault| {
            self.status.send_modify(|status| {
                status.message = fault.map(|fault| fault.what.clone());
                status.remedy = fault.map(|fault| fault.remedy.clone());
            });
        }
    }

    /// Notes that servers, rights and names were in order.
    pub(crate) fn note_connected(&self) {
        self.has_connected.store(true, Ordering::Relaxed);
    }

    /// Whether they ever were.
    pub(crate) fn has_connected(&self) -> bool {
        self.has_connected.load(Ordering::Relaxed)
    }

    /// Shows that a start waits for an answer, where nothing else is said of it.
    pub(crate) fn note_long_start(&self, since: Duration) {
        self.status.send_if_modified(|status| {
            let is_news = status.state == InstanceState::Starting && status.message.is_none();
            if is_news {
                let seconds = since.as_secs();
                status.message = Some(format!(
                    "the start takes longer than {seconds} s: a server has not answered the last question"
                ));
                status.remedy =
                    Some("look at the load of the source and of the state's database; it is tried again".to_owned());
            }
            is_news
        });
    }

    /// Shows that a server is away.
    pub(crate) fn set_stalled(&self, fault: &Fault) {
        self.status.send_modify(|status| {
            status.state = InstanceState::Stalled;
            status.ready = false;
            status.forget_source();
            status.instance.leader = false;
            status.reason = None;
            status.message = Some(fault.what.clone());
            status.remedy = Some(fault.remedy.clone());
        });
    }

    /// Shows that a person must decide; returns whether that, or its reason, is new.
    pub(crate) fn set_needs_person(&self, needs: &NeedsPerson) -> bool {
        let mut new = false;
        self.status.send_modify(|status| {
            new = status.reason != Some(needs.reason);
            status.state = InstanceState::NeedsPerson;
            status.ready = false;
            status.forget_source();
            status.instance.leader = false;
            status.reason = Some(needs.reason);
            status.message = Some(needs.fault.what.clone());
            status.remedy = Some(needs.fault.remedy.clone());
        });
        new
    }

    /// Whether the status says that a person must decide.
    pub(crate) fn is_needs_person(&self) -> bool {
        self.status.borrow().state == InstanceState::NeedsPerson
    }

    /// The epoch by which this process leads, if it does.
    pub(crate) fn leader_epoch(&self) -> Option<i64> {
        let status = self.status.borrow();
        status.instance.epoch.filter(|_| status.instance.leader)
    }

    /// The count of a section's rows as it was last shown: the next event loop of this process goes on from it.
    pub(crate) fn counts(&self, name: &str) -> RowCounts {
        let status = self.status.borrow();
        let section = status.sections.iter().find(|section| section.name == name);
        section.map(|section| section.counts.clone()).unwrap_or_default()
    }

    /// Hands what is known of a section beyond the state to the next event loop.
    pub(crate) fn set_known_progress(&self, name: &str, known: KnownProgress) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), known);
    }

    /// What the last event loop knew beyond the state.
    pub(crate) fn known_progress(&self) -> HashMap<String, KnownProgress> {
        std::mem::take(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the document.
    pub(crate) fn modify(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::telemetry::status_document::SlotStatus;

    #[test]
    fn case_267_what_was_known_of_a_source_that_nobody_looks_at_is_forgotten() {
        let text = "source: {host: h, database: d, user: u}\nplanhat: {tenant: t}\nsections:\n  - {name: m, kind: \
            custom_metric, table: t, key: id, fields: {dimensionId: n, value: v, externalId: e, date: d}}\n";
        let board = Board::new(&Arc::new(config::parse(text, "test").unwrap())).unwrap();
        let fault = Fault::unavailable("the server is away", "it is tried again");
        let standby = || assert!(board.set_state(InstanceState::Standby));
        let ways: [&dyn Fn(); 2] = [&|| board.set_stalled(&fault), &standby];
        for way in ways {
            board.modify(|status| {
                status.slot = SlotStatus { retained_bytes: Some(1), safe_wal_bytes: Some(1), ..SlotStatus::default() };
                (status.sections[0].flows, status.sections[0].lag_seconds) = (true, Some(0.0));
            });
            way();
            let status = board.subscribe().borrow().clone();
            assert_eq!(status.slot, SlotStatus::default());
            assert_eq!((status.sections[0].flows, status.sections[0].lag_seconds), (false, None));
        }
    }
}
