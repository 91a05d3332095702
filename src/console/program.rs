//! The program that the console tells of: the one in this process, or one elsewhere.
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

/// Where the program runs. Cheap to clone; what runs here may be replaced while the console goes on.
#[derive(Clone, Default)]
pub(crate) struct Program(Arc<Mutex<Option<AdminState>>>);

impl Program {
    /// Somewhere else, or nowhere.
    pub(crate) fn elsewhere() -> Program {
        Program::default()
    }

    /// In this process, from now on.
    pub(crate) fn runs_here(&self, admin: AdminState) {
        *held(&self.0) = Some(admin);
    }

    /// No longer in this process.
    pub(crate) fn is_gone(&self) {
        *held(&self.0) = None;
    }

    /// Whether it runs in this process.
    pub(crate) fn is_here(&self) -> bool {
        held(&self.0).is_some()
    }

    /// The status now.
    pub(crate) async fn status(&self, config: &Arc<Config>) -> Result<Status, Fault> {
        let here = held(&self.0).clone();
        match here {
            Some(admin) => Ok(admin.judged().await),
            None => operations::status(config).await,
        }
    }

    /// The counters now; none where the program runs elsewhere.
    pub(crate) async fn counters(&self) -> Option<Counters> {
        let admin = held(&self.0).clone()?;
        admin.metrics.reflect(&admin.judged().await);
        Some(Counters::parse(&admin.metrics.render()))
    }
}
