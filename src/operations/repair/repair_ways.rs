//! The ways to mend, side by side, for a person who has to choose one.
//!
//! * In: the configuration.
//! * Out: for each way its plan, or why it cannot keep its promise.
//! * Never: a change; the lock of a repair kept while the person thinks.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::model::{Exit, Fault};
use crate::operations::repair::Repair;
use crate::operations::repair::plan::{Mend, RepairPlan, UNDER_WAY};

/// One way, and what it would do.
#[derive(Clone, Debug)]
pub(crate) struct RepairWay {
    pub how: Mend,
    /// The plan; or why this way is not open.
    pub plan: Result<RepairPlan, Fault>,
}

impl RepairWay {
    /// Rows that it reads and delivers (again); none where they could not be counted.
    pub(crate) fn rows(&self) -> Option<u64> {
        let plan = self.plan.as_ref().ok()?;
        plan.sections.iter().map(|section| section.rows).sum()
    }
}

/// Looks at all three. None where nothing is to be mended.
///
/// # Errors
/// Where an instance holds the slot; as every connection.
pub(crate) async fn repair_ways(config: &Arc<Config>) -> Result<Vec<RepairWay>, Fault> {
    let mut ways = Vec::new();
    for how in [Mend::Gap, Mend::Backfill, Mend::AcceptLoss] {
        let plan = match look(config, how).await {
            Ok(Some(repair)) => Ok(repair.let_go().await),
            Ok(None) => return Ok(Vec::new()),
            Err(fault) if fault.exit == Exit::Unavailable => return Err(fault),
            Err(fault) => Err(fault),
        };
        ways.push(RepairWay { how, plan });
    }
    Ok(ways)
}

/// As [`Repair::look`]. An instance that stays looks every 10 s whether it is mended, and holds the lock while it does.
pub(crate) async fn look(config: &Arc<Config>, how: Mend) -> Result<Option<Repair>, Fault> {
    for _ in 0..20 {
        match Repair::look(config, how).await {
            Err(fault) if fault.what == UNDER_WAY => tokio::time::sleep(Duration::from_millis(250)).await,
            looked => return looked,
        }
    }
    Repair::look(config, how).await
}

impl Repair {
    /// Lets the lock go without doing anything; the plan.
    async fn let_go(self) -> RepairPlan {
        // Where this fails, the lock ends with the session.
        self.control.batch_execute("SELECT pg_catalog.pg_advisory_unlock_all()").await.ok();
        self.plan
    }
}
