//! The program that the console shows: the instance in this process, or one elsewhere.
//!
//! * In: the board and the metrics of this process; or the configuration, by which the admin port or the state is asked.
//! * Out: the status and the counters now.
//! * Never: figures of a program that does not answer shown as if they were new.

use std::sync::{Arc, Mutex};

use crate::admin::AdminState;
use crate::config::Config;
use crate::console::counters::Counters;
use crate::console::lock::held;
use crate::model::Fault;
use crate::operations;
use crate::telemetry::status_document::Status;

/// The program that the console shows. It is cheap to clone, and the instance in it can change while the console stays.
#[derive(Clone, Default)]
pub(crate) struct Program(Arc<Mutex<Here>>);

/// The instance of this process.
#[derive(Clone, Default)]
enum Here {
    /// None runs, and nothing went wrong.
    #[default]
    Nobody,
    Runs(AdminState),
    /// The last one has ended by itself, and why.
    Ended(Fault),
}

impl Program {
    /// Makes a program that runs in another process, or nowhere.
    pub(crate) fn elsewhere() -> Program {
        Program::default()
    }

    /// Records that an instance now runs in this process.
    pub(crate) fn runs_here(&self, admin: AdminState) {
        *held(&self.0) = Here::Runs(admin);
    }

    /// Records that no instance runs in this process any more, and why it has ended; `None` where nothing went wrong.
    pub(crate) fn is_gone(&self, why: Option<Fault>) {
        *held(&self.0) = why.map_or(Here::Nobody, Here::Ended);
    }

    /// Returns why the last instance of this process has ended; `None` where one runs, or nothing went wrong.
    pub(crate) fn ended(&self) -> Option<Fault> {
        match &*held(&self.0) {
            Here::Ended(why) => Some(why.clone()),
            Here::Nobody | Here::Runs(_) => None,
        }
    }

    /// Returns whether an instance runs in this process.
    pub(crate) fn is_here(&self) -> bool {
        self.here().is_some()
    }

    fn here(&self) -> Option<AdminState> {
        match &*held(&self.0) {
            Here::Runs(admin) => Some(admin.clone()),
            Here::Nobody | Here::Ended(_) => None,
        }
    }

    /// Returns the status now.
    pub(crate) async fn status(&self, config: &Arc<Config>) -> Result<Status, Fault> {
        match self.here() {
            Some(admin) => Ok(admin.judged().await),
            None => operations::status(config).await,
        }
    }

    /// Returns the counters now; `None` where the program runs elsewhere.
    pub(crate) async fn counters(&self) -> Option<Counters> {
        let admin = self.here()?;
        admin.metrics.reflect(&admin.judged().await);
        Some(Counters::parse(&admin.metrics.render()))
    }
}
