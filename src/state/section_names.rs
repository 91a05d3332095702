//! What is recorded of a section, under another name.
//!
//! * In: the name that it is recorded under, and the next one.
//! * Out: every row of the state that goes by the first name, by the second.
//! * Never: two sections' records made one; a record moved by a process whose epoch is past.

use crate::model::SectionName;
use crate::state::NewEvent;
use crate::state::state_error::StateError;
use crate::state::store::{Epoch, Store};

/// The tables that go by a section's name.
const BY_NAME: [&str; 11] = [
    "delivery",
    "delivery_keys",
    "tally",
    "dropped",
    "audit",
    "streamed",
    "seen",
    "diff",
    "quarantine",
    "gap",
    "event",
];

/// The action of the event that says it.
const NAMED_ANEW: &str = "named_anew";

impl Store {
    /// Moves the record of a section to another name. What is recorded of that name so far is a section that waits, or nothing.
    pub(crate) async fn name_section_anew(
        &mut self,
        term: &Epoch,
        from: &SectionName,
        to: &SectionName,
        why: &str,
    ) -> Result<(), StateError> {
        let doing = "naming a section's record anew";
        self.transaction(doing, "BEGIN", async |store| {
            let held = "SELECT 1 FROM {schema}.instance WHERE id = 1 AND epoch = $1 FOR SHARE";
            if store.query(doing, held, &[&term.epoch()]).await?.is_empty() {
                store.still_leads(term).await?;
            }
            let waits = "DELETE FROM {schema}.section WHERE name = $1 AND phase = 'waiting'";
            store.execute(doing, waits, &[&to.as_str()]).await?;
            let row =
                "UPDATE {schema}.section SET name = $2, halted_reason = NULL, halted_remedy = NULL WHERE name = $1";
            store.execute(doing, row, &[&from.as_str(), &to.as_str()]).await?;
            for table in BY_NAME {
                let sql = format!("UPDATE {{schema}}.{table} SET section = $2 WHERE section = $1");
                store.execute(doing, &sql, &[&from.as_str(), &to.as_str()]).await?;
            }
            Ok(())
        })
        .await?;
        let event = NewEvent {
            actor: "pg2planhat".to_owned(),
            action: NAMED_ANEW.to_owned(),
            section: Some(to.clone()),
            args: serde_json::json!({ "from": from.as_str() }),
        };
        self.record_event(&event, why).await.map(drop)
    }

    /// The key by which a section was read is another one: what is recorded by keys stays where it is, and what is not, goes over
    /// to the next name: how far the stream was read, the batches in doubt, and the gaps.
    pub(crate) async fn hand_position_over(
        &mut self,
        term: &Epoch,
        from: &SectionName,
        to: &SectionName,
        began: u64,
    ) -> Result<(), StateError> {
        let doing = "handing a section's position over";
        self.transaction(doing, "BEGIN", async |store| {
            let held = "SELECT 1 FROM {schema}.instance WHERE id = 1 AND epoch = $1 FOR SHARE";
            if store.query(doing, held, &[&term.epoch()]).await?.is_empty() {
                store.still_leads(term).await?;
            }
            let waits = "DELETE FROM {schema}.section WHERE name = $1 AND phase = 'waiting'";
            store.execute(doing, waits, &[&to.as_str()]).await?;
            let row = "UPDATE {schema}.section SET name = $2, halted_reason = NULL, halted_remedy = NULL, key_columns = NULL,
                    definition = NULL, rules = '', rules_since = NULL, attach_xmin = $3, attached_at = now(), rows_delivered = 0,
                    rows_quarantined = 0, rows_in_doubt = 0, rows_resent = 0, last_delivered_at = NULL
                 WHERE name = $1";
            let began = i64::try_from(began).unwrap_or(i64::MAX);
            store.execute(doing, row, &[&from.as_str(), &to.as_str(), &began]).await?;
            let open = "UPDATE {schema}.delivery SET section = $2
                 WHERE section = $1 AND outcome IN ('sending', 'in_doubt') AND NOT unresolved AND phase = 'stream'";
            store.execute(doing, open, &[&from.as_str(), &to.as_str()]).await?;
            let gaps = "UPDATE {schema}.gap SET section = $2 WHERE section = $1 AND closed_at IS NULL";
            store.execute(doing, gaps, &[&from.as_str(), &to.as_str()]).await?;
            Ok(())
        })
        .await?;
        let event = NewEvent {
            actor: "pg2planhat".to_owned(),
            action: NAMED_ANEW.to_owned(),
            section: Some(to.clone()),
            args: serde_json::json!({ "from": from.as_str(), "key": "another" }),
        };
        self.record_event(&event, "the position alone: its key is another").await.map(drop)
    }

    /// The name by which people know the table of a section that is attached.
    pub(crate) async fn name_table(&self, name: &SectionName, table: &str) -> Result<(), StateError> {
        let write = "UPDATE {schema}.section SET table_name = $2 WHERE name = $1";
        self.execute("naming a section's table", write, &[&name.as_str(), &self.text(table)]).await.map(drop)
    }
}

/// The sections of open gaps that the file does not name, each with how many of them are its. Pure.
pub(crate) fn of_removed<'a>(
    gaps: impl Iterator<Item = Option<&'a str>>,
    is_named: impl Fn(&str) -> bool,
) -> Vec<(String, u64)> {
    let mut removed = std::collections::BTreeMap::<String, u64>::new();
    for name in gaps.flatten().filter(|name| !is_named(name)) {
        *removed.entry(name.to_owned()).or_default() += 1;
    }
    removed.into_iter().collect()
}
