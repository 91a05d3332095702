//! The open gaps of sections that the file does not have any more.
//!
//! * In: the file; the gaps of the state; a person's word that the rows are given up.
//! * Out: whose gaps are open, and how many; closed, where a person says so. An instance may run beside it.
//! * Never: the gap of a section closed that the file has: that is a repair.

use std::sync::Arc;

use crate::config::Config;
use crate::model::Fault;
use crate::state::{Gap, Store, of_removed};
use crate::terminal::plural;

/// What is open of sections that are gone.
pub(crate) struct RemovedGaps {
    store: Store,
    open: Vec<Gap>,
}

impl RemovedGaps {
    /// Looks; `None` where nothing is open, or nothing has run yet.
    pub(crate) async fn look(config: &Arc<Config>) -> Result<Option<RemovedGaps>, Fault> {
        let store = crate::operations::store(config).await?;
        let mut open = store.gaps(true).await.map_err(crate::operations::fate)?;
        let is_named = |name: &str| config.sections.iter().any(|section| section.name.as_str() == name);
        open.retain(|gap| gap.section.as_deref().is_some_and(|name| !is_named(name)));
        Ok((!open.is_empty()).then_some(RemovedGaps { store, open }))
    }

    /// Whose they are, for people.
    pub(crate) fn said(&self) -> String {
        let removed = of_removed(self.open.iter().map(|gap| gap.section.as_deref()), |_| false);
        let one = |(name, open): &(String, u64)| format!("{name} ({})", plural(*open, "gap", "gaps"));
        let names: Vec<String> = removed.iter().map(one).collect();
        names.join(", ")
    }

    /// Closes them: their rows are given up.
    pub(crate) async fn give_up(&self) -> Result<(), Fault> {
        let by = format!("repair --accept-loss by {}", crate::operations::actor());
        let names: Vec<_> = self.open.iter().filter_map(|gap| gap.section.clone()).collect();
        for gap in &self.open {
            self.store.close_gap(gap.id, &by).await.map_err(crate::operations::fate)?;
        }
        let event = crate::operations::event("repair", None, serde_json::json!({ "removed": names }));
        self.store.record_event(&event, "done").await.map_err(crate::operations::fate)?;
        Ok(())
    }
}
