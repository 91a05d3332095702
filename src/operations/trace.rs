//! Traces one row: the batch that delivered it and the answer, or the reason why it was not delivered.
//!
//! * In: a section, and a key as a person writes it.
//! * Out: [`Traced`].
//! * Never: "delivered" without a batch that names the key; what nothing proves is "unknown".

use std::sync::Arc;

use crate::config::{Config, Flush, Section, Start};
use crate::mapping::row_filter::RowFilter;
use crate::model::{Cell, Fault, FilterRule, Key, KeyDigest, Row};
use crate::postgres::backfill::key_reader::{KEY_SESSION, KeyReader};
use crate::postgres::backfill::result_reader;
use crate::postgres::catalog::xmin_barrier::is_below;
use crate::postgres::catalog::{result, table};
use crate::postgres::connection::session::connect_sql;
use crate::runtime::{audit_source, table_fit};
use crate::state::{SectionPhase, Store, TracedDelivery};

/// The trace of one row: `trace --json`.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Traced {
    pub section: String,
    /// The key, as the server prints it.
    pub key: String,
    /// `present`, `absent` or `unreadable`.
    pub source: &'static str,
    /// `delivered`, `quarantined`, `in_doubt`, `filtered`, `waiting` or `unknown`.
    pub outcome: &'static str,
    /// The reason, for people.
    pub why: String,
    /// The batches that carried it, oldest first.
    pub deliveries: Vec<TracedDelivery>,
}

/// Traces a row.
///
/// # Errors
/// Where the key is no value of the key's type.
pub(crate) async fn trace(config: &Arc<Config>, store: &Store, section: &Section, key: &str) -> Result<Traced, Fault> {
    let found = match section.is_streamed() {
        true => in_source(config, store, section, key).await,
        false => in_result(config, section, key).await,
    };
    let (TracedRow { key, xmin, left_out }, source, cannot) = match found {
        Ok(row) => {
            let source = if row.xmin.is_some() { "present" } else { "absent" };
            (row, source, String::new())
        }
        Err(fault) if fault.exit == crate::model::Exit::Usage => return Err(fault),
        Err(fault) => (TracedRow { key: key.to_owned(), xmin: None, left_out: None }, "unreadable", fault.what),
    };
    let fate = crate::operations::fate;
    let bounds = store.proof_bounds(&section.name).await.map_err(fate)?;
    let deliveries = store.deliveries_of(&section.name, &key).await.map_err(fate)?;
    let held = store.quarantine_of(&section.name, &key).await.map_err(fate)?;
    let rows = store.sections().await.map_err(fate)?;
    let row = rows.iter().find(|row| row.name == section.name);
    let mut traced =
        Traced { section: section.name.to_string(), key, source, outcome: "unknown", why: String::new(), deliveries };
    let newest = |words: &[&str]| {
        traced.deliveries.iter().rev().find(|one| one.certain && words.contains(&one.outcome.as_str()))
    };
    let versions = traced.deliveries.iter().filter(|one| one.certain && is_received(&one.outcome)).count();
    let is_newer = |xmin: &u32| section.sends_updates() && !is_below(*xmin, bounds.xmin_floor);
    let (outcome, why) = if let (Some(xmin), true) = (xmin.filter(is_newer), versions > 0) {
        (
            "waiting",
            format!("transaction {xmin} wrote a newer version, which is not settled yet; {versions} were delivered"),
        )
    } else if let (Some(one), true) = (newest(&["delivered", "partial"]), section.sends_updates()) {
        let when = one.finished_at.as_deref().unwrap_or("a time that is not known");
        ("delivered", format!("batch {} delivered the newest of {versions} versions that were sent, at {when}", one.id))
    } else if let Some(one) = newest(&["delivered", "partial"]) {
        let status = one.http_status.map_or_else(String::new, |status| format!(", answered {status}"));
        let when = one.finished_at.as_deref().unwrap_or("a time that is not known");
        ("delivered", format!("batch {} delivered it at {when}{status}", one.id))
    } else if let Some(held) = held {
        ("quarantined", held)
    } else if let Some(one) = newest(&["in_doubt", "sending"]) {
        ("in_doubt", format!("batch {} was sent with it, and nobody knows whether Planhat received it", one.id))
    } else if let Some(one) = traced.deliveries.iter().rev().find(|one| one.outcome == "sending") {
        ("in_doubt", format!("batch {} may carry it, and is under way", one.id))
    } else if source == "unreadable" {
        ("unknown", format!("the source cannot be read: {cannot}"))
    } else if row.is_none_or(|row| row.phase == SectionPhase::Waiting) {
        ("waiting", "the section has not attached yet".to_owned())
    } else if !section.is_streamed() {
        in_seen(config, store, section, (&traced.key, source), left_out).await?
    } else if row.is_some_and(|row| row.phase != SectionPhase::Streaming) {
        ("waiting", "older rows of the section are still being read".to_owned())
    } else if let Some(xmin) = xmin.filter(|xmin| !is_below(*xmin, bounds.xmin_floor)) {
        ("waiting", format!("transaction {xmin} wrote it, which is not settled yet"))
    } else if let Some(rule) = left_out {
        ("filtered", format!("it is left out, as the row is now: {}", rule.said()))
    } else if section.start == Start::Now && xmin.is_some_and(|xmin| may_be_older(xmin, bounds.attach_xmin)) {
        ("unknown", "no batch has it; rows that were there before the section attached are not delivered".to_owned())
    } else if xmin.is_none() {
        ("unknown", "no batch has it, and the table does not have it".to_owned())
    } else {
        let since = store.proof_reach(&section.name).await.map_err(fate)?.by_key_since;
        let reaches = since.map_or_else(|| "has no keys".to_owned(), |since| format!("goes back to {since}"));
        let why = "`pg2planhat audit` tells whether batches that were pruned account for it";
        ("unknown", format!("no batch of the ledger, which {reaches}, names it; {why}"))
    };
    (traced.outcome, traced.why) = (outcome, why);
    Ok(traced)
}

/// Whether a row of this transaction may have been there before the section attached.
fn may_be_older(xmin: u32, attached: Option<u64>) -> bool {
    attached.is_none() || is_below(xmin, attached)
}

/// Whether the sink has received a batch that ended so.
fn is_received(outcome: &str) -> bool {
    ["delivered", "partial"].contains(&outcome)
}

/// The key as the server prints it, and whether the result has it (the transaction of its row nobody knows).
async fn in_result(config: &Arc<Config>, section: &Section, key: &str) -> Result<TracedRow, Fault> {
    let session = crate::operations::reading(config, "trace").await?;
    let unreadable =
        |error: tokio_postgres::Error| Fault::unavailable(session.fault(&error).what, session.fault(&error).remedy);
    let table = result::described(&session, section, &config.source.schema).await?;
    let decisive = RowFilter::columns(section);
    let typed = table_fit::typed_key(&session, section, &table, key).await?;
    // The row's own text: of a numeric, 1.0 and 1.00 are one key.
    let own = result_reader::key_of(&session, &table, &section.key_columns(), &typed).await.map_err(unreadable)?;
    let key = own.unwrap_or(typed).to_string();
    let parts = key_parts(section, &key)?;
    let found = result_reader::row_of(&session, &table, &parts, &decisive).await.map_err(unreadable)?;
    let xmin = found.is_some().then_some(0);
    let rules = audit_source::rules(&session, section, &table).await?;
    let judge = |(data, cells): (Vec<u8>, Vec<Cell>)| rules.judge(&Row { data: &data, cells: &cells }).ok().flatten();
    Ok(TracedRow { key, xmin, left_out: found.and_then(judge) })
}

/// The columns of the section's key, each with its text.
fn key_parts(section: &Section, key: &str) -> Result<Vec<(String, String)>, Fault> {
    let columns = section.key_columns();
    let texts = Key::new(key).parts(columns.len()).ok_or_else(|| {
        let what = format!("section {}: {key:?} is no key: it is of the columns {}", section.name, columns.join(", "));
        Fault::usage(what, "write a,b or a JSON array")
    })?;
    Ok(columns.into_iter().zip(texts).collect())
}

/// What is known of a row of a compared result that no batch of the ledger names.
async fn in_seen(
    config: &Arc<Config>,
    store: &Store,
    section: &Section,
    (key, source): (&str, &str),
    left_out: Option<FilterRule>,
) -> Result<(&'static str, String), Fault> {
    let texts: Vec<String> = key_parts(section, key)?.into_iter().map(|(_, text)| text).collect();
    let digest = KeyDigest::of_texts(&texts);
    let seen = store.seen_of(&section.name, digest).await.map_err(crate::operations::fate)?;
    let every = match section.diff().map(|diff| &diff.every) {
        Some(Flush::Every(every)) => format!("every {} s", every.as_secs_f64()),
        Some(Flush::DailyAt(time, zone)) => format!("daily at {time} {}", zone.iana_name().unwrap_or("UTC")),
        None => String::new(),
    };
    Ok(match (seen, source) {
        (Some(run), _) if left_out.is_some() => {
            let rule = left_out.map_or("", FilterRule::said);
            ("filtered", format!("comparison {run} settled it, and it is left out, as the row is now: {rule}"))
        }
        (Some(run), _) => {
            let days = config.state.keep_deliveries.as_secs() / 86_400;
            let why = format!(
                "comparison {run} settled it, and no batch of the last {days} days names it: it was delivered before, or \
                left out by a rule"
            );
            ("unknown", why)
        }
        (None, "present") => {
            ("waiting", format!("the result has it, and no comparison has met it yet; they are made {every}"))
        }
        (None, _) => ("unknown", "no batch has it, and the result does not have it".to_owned()),
    })
}

/// A row as the source has it.
struct TracedRow {
    /// Its key, as the server prints it.
    key: String,
    /// The transaction that wrote it; `None` where there is no such row.
    xmin: Option<u32>,
    /// The rule that leaves it out.
    left_out: Option<FilterRule>,
}

/// Looks the row up, where it is there.
async fn in_source(config: &Arc<Config>, store: &Store, section: &Section, key: &str) -> Result<TracedRow, Fault> {
    let rows = store.sections().await.map_err(crate::operations::fate)?;
    let attached = rows.iter().find(|row| row.name == section.name).map(|row| row.attachment.table_oid);
    let session = connect_sql(&config.source, "trace").await?;
    let fault = |error: tokio_postgres::Error| session.fault(&error);
    session.batch_execute(KEY_SESSION).await.map_err(fault)?;
    let table = match attached {
        Some(oid) => table::by_oid(&session, oid).await.map_err(fault)?,
        None => table::by_name(&session, &section.table).await.map_err(fault)?,
    };
    let Some(table) = table else {
        return Err(Fault::unavailable(format!("the table {} is gone", section.table), "see `pg2planhat check`"));
    };
    let section = &table.with_key(section);
    let printed = table_fit::typed_key(&session, section, &table, key).await?;
    let reader = KeyReader::new(&table, &section.key, None);
    let rows = reader.rows(&session, &[printed.to_string()]).await.map_err(fault)?;
    // The row's own text: of a numeric, 1.0 and 1.00 are one key.
    let Some(row) = rows.into_iter().next() else {
        return Ok(TracedRow { key: printed.to_string(), xmin: None, left_out: None });
    };
    let (key, xmin) = (row.key, Some(row.xmin));
    let decisive = RowFilter::columns(section);
    if decisive.is_empty() {
        return Ok(TracedRow { key, xmin, left_out: None });
    }
    let rules = audit_source::rules(&session, section, &table).await?;
    let columns = reader.beside(&decisive).columns_of(&session, &key).await.map_err(fault)?;
    let judge = |(data, cells): (Vec<u8>, Vec<Cell>)| rules.judge(&Row { data: &data, cells: &cells }).ok().flatten();
    Ok(TracedRow { key, xmin, left_out: columns.and_then(judge) })
}
