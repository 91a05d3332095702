//! An audit of one section: every key of the source held against what the state says was settled.
//!
//! * In: a section, and the key to begin behind.
//! * Out: an [`AuditReport`]: what is delivered, quarantined, waiting, missing, doubled, gone, and what cannot be proven.
//! * Never: a change of the source or of what is delivered; a row called missing that may still be on its way.
//!
//! The order of looking makes it exact beside a running instance. First the xmin floor below which every transaction is
//! settled, then the ledger, then the source: a row that is nowhere, and whose transaction lies below the floor, was
//! settled before the ledger was read, if it ever was.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::audit::{AuditKey, Compared, Comparison, Whereabouts};
use crate::config::{Config, Section, Start};
use crate::mapping::row_filter::RowFilter;
use crate::model::{Column, Fault, Key, SectionId};
use crate::postgres::backfill::key_reader::{KEY_SESSION, KeyReader, RowSeen};
use crate::postgres::catalog::table::{self, TableInfo};
use crate::postgres::catalog::types::Types;
use crate::postgres::connection::session::{Session, connect_sql};
use crate::runtime::diff_reader::{DiffLook, DiffTask};
use crate::runtime::state_connector::StateConnector;
use crate::runtime::table_fit;
use crate::state::{ProofBounds, SectionPhase, SectionRow, StateError, Store};

/// Keys that a report names.
pub(crate) const NAMED: usize = 100;

/// How long rows that are on their way are waited for.
const SETTLING: Duration = Duration::from_secs(10);

/// What an audit found: `audit --json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct AuditReport {
    pub section: String,
    /// Keys greater than this were looked at; none: every key.
    pub from: Option<String>,
    /// The last key that was looked at.
    pub to: Option<String>,
    pub rows_source: u64,
    /// Rows of the source that are settled: delivered, quarantined or filtered.
    pub rows_settled: u64,
    /// Rows delivered.
    pub delivered: u64,
    /// Rows in quarantine, or dropped from it by a person.
    pub quarantined: u64,
    /// Rows left out by a rule of the configuration.
    pub filtered: u64,
    /// Rows whose batch is in doubt.
    pub in_doubt: u64,
    /// Rows that are on their way: not settled yet, and not late.
    pub waiting: u64,
    /// Rows from before the section attached, which it does not deliver.
    pub before_attach: u64,
    /// Rows that nothing proves, in either direction.
    pub unknown: u64,
    /// Rows that should be settled, and that no evidence names.
    pub missing: u64,
    /// Keys that were delivered more than once, without a re-sync, a retry or a doubt that explains it.
    pub doubled: u64,
    /// Keys that were delivered and are not in the source any more.
    pub gone: u64,
    /// At most 100 keys of missing rows.
    pub missing_keys: Vec<String>,
    /// What the audit could not look at, or cannot prove, and why; empty where it proves everything.
    pub caveat: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Every missing key that is known by name: what is delivered on request.
    #[serde(skip)]
    pub missing_all: Vec<String>,
}

/// The options of an audit.
pub(crate) struct AuditRequest<'a> {
    /// Only keys greater than this, as a person writes it.
    pub from_key: Option<String>,
    /// Called with the count of rows read so far.
    pub progress: &'a mut (dyn FnMut(u64) + Send),
    /// Between two chunks the audit rests for as long as the chunk took: for audits that nobody waits for.
    pub gently: bool,
}

/// Audits a section.
pub(crate) async fn audit(
    config: &Arc<Config>,
    store: &Store,
    section: &Section,
    request: AuditRequest<'_>,
) -> Result<AuditReport, Fault> {
    if !section.is_streamed() {
        return audit_result(config, section).await;
    }
    let begun = Instant::now();
    let fate = |error: StateError| error.fault();
    let rows = store.sections().await.map_err(fate)?;
    let Some(row) = rows.into_iter().find(|row| row.name == section.name) else {
        let what = format!("section {} was never attached: there is nothing to audit", section.name);
        return Err(Fault::usage(what, "start `pg2planhat run`, which attaches it"));
    };
    let session = connect_sql(&config.source, "audit").await?;
    session.batch_execute(KEY_SESSION).await.map_err(|error| session.fault(&error))?;
    let table = attached_table(&session, section, &row).await?;
    let bounds = store.proof_bounds(&section.name).await.map_err(fate)?;
    let evidence = store.evidence(&section.name).await.map_err(fate)?;
    let mut comparison = Comparison::new(evidence);
    let section = &table.with_key(section);
    let from = from_key(&session, &table, section, request.from_key.as_deref()).await?;
    let rules = rules(&session, section, &table).await?;
    let reader = KeyReader::new(&table, &section.key, from.clone()).beside(&RowFilter::columns(section));
    let to = read(&session, reader, &rules, &mut comparison, request.gently, request.progress).await?;
    let from = from.map(|key| key.to_string());
    let mut report = AuditReport { section: section.name.to_string(), from, to, ..AuditReport::default() };
    let is_partial = report.from.is_some();
    let compared = comparison.end();
    let nowhere = compared.nowhere.clone();
    take_over(&mut report, &compared, is_partial);
    let reader = KeyReader::new(&table, &section.key, None);
    let audited = Audited { store, session: &session, section, row: &row, reader: &reader, bounds };
    audited.judge(nowhere, compared.more_nowhere, &mut report).await?;
    if section.sends_updates() {
        of_versions(&mut report);
    }
    report.took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

/// Where updated rows are sent, a key is delivered once for each version.
fn of_versions(report: &mut AuditReport) {
    report.doubled = 0;
    if report.caveat.is_empty() {
        report.caveat =
            "a row is proven by its key: that some version of it was delivered, not that its newest was".into();
    }
}

/// The audit of a section whose result is compared: the result held against what was settled of it, as a comparison does.
async fn audit_result(config: &Arc<Config>, section: &Section) -> Result<AuditReport, Fault> {
    let begun = Instant::now();
    let names = config.planhat.bulk_activity_names;
    let task = DiffTask { id: SectionId(0), section: section.clone(), names, held: usize::MAX };
    let DiffLook { found: run, left_out, last } =
        task.look(&config.source, &StateConnector::new(Arc::clone(config))).await?;
    let waiting = run.new + run.changed;
    let mut report = AuditReport {
        section: section.name.to_string(),
        rows_source: run.rows,
        rows_settled: run.rows - waiting,
        delivered: run.rows - waiting - left_out,
        filtered: left_out,
        waiting,
        gone: run.gone,
        ..AuditReport::default()
    };
    if waiting > 0 {
        let since = last.and_then(|last| last.ended_at).unwrap_or_else(|| "none has ended yet".to_owned());
        report.caveat =
            format!("since the last comparison ({since}) rows are new ({}) or changed ({})", run.new, run.changed);
    }
    report.took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

/// The section's rules, for the columns that decide.
pub(crate) async fn rules(session: &Session, section: &Section, table: &TableInfo) -> Result<RowFilter, Fault> {
    let names = RowFilter::columns(section);
    if names.is_empty() {
        return Ok(RowFilter::default());
    }
    let types = Types::load(session).await.map_err(|error| session.fault(&error))?;
    let all = table.row_columns(&types);
    let columns: Vec<Column> =
        names.iter().filter_map(|name| all.iter().find(|column| column.name == *name).cloned()).collect();
    RowFilter::compile(section, &columns).map_err(|faults| {
        let what: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Fault::usage(what.join("; "), "see `pg2planhat check`")
    })
}

fn take_over(report: &mut AuditReport, compared: &Compared, is_partial: bool) {
    report.rows_source = compared.rows;
    report.delivered = compared.delivered;
    report.quarantined = compared.quarantined;
    report.in_doubt = compared.in_doubt;
    report.unknown = compared.unknown;
    report.filtered = compared.filtered;
    report.doubled = compared.doubled;
    // Delivered keys outside of the range that was read are not gone.
    report.gone = if is_partial { 0 } else { compared.gone };
    report.rows_settled = compared.delivered + compared.quarantined + report.filtered;
}

/// The table that the section is attached to, under whatever name it has now.
async fn attached_table(session: &Session, section: &Section, row: &SectionRow) -> Result<TableInfo, Fault> {
    let found = table::by_oid(session, row.attachment.table_oid).await.map_err(|error| session.fault(&error))?;
    found.ok_or_else(|| {
        let what = format!("section {}: the table {} that it is attached to is gone", section.name, section.table);
        Fault::usage(what, "see `pg2planhat check`")
    })
}

/// Where the audit begins: what a person asks for, or where the section itself begins.
async fn from_key(
    session: &Session,
    table: &TableInfo,
    section: &Section,
    asked: Option<&str>,
) -> Result<Option<Key>, Fault> {
    let configured = match &section.start {
        Start::AfterKey(key) => Some(key.as_str()),
        Start::Backfill | Start::Now => None,
    };
    let Some(key) = asked.or(configured) else { return Ok(None) };
    table_fit::typed_key(session, section, table, key).await.map(Some)
}

async fn read(
    session: &Session,
    mut reader: KeyReader,
    rules: &RowFilter,
    comparison: &mut Comparison,
    gently: bool,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Option<String>, Fault> {
    let mut last: Vec<u8> = Vec::new();
    loop {
        let begun = Instant::now();
        let chunk = reader.chunk(session, |key, beside| {
            comparison.row(key, || matches!(rules.judge(beside), Ok(Some(_))));
            last.clear();
            last.extend_from_slice(key);
        });
        let count = chunk.await.map_err(|error| session.fault(&error))?;
        if count == 0 {
            return Ok((!last.is_empty()).then(|| String::from_utf8_lossy(&last).into_owned()));
        }
        progress(comparison.rows);
        if gently {
            tokio::time::sleep(begun.elapsed()).await;
        }
    }
}

/// The facts by which keys without evidence are judged.
struct Audited<'a> {
    store: &'a Store,
    session: &'a Session,
    section: &'a Section,
    row: &'a SectionRow,
    reader: &'a KeyReader,
    bounds: ProofBounds,
}

impl Audited<'_> {
    /// Sorts the keys that no set names: deleted meanwhile, on their way, from before the attachment, or missing.
    async fn judge(&self, nowhere: Vec<String>, more: u64, report: &mut AuditReport) -> Result<(), Fault> {
        if nowhere.is_empty() {
            return Ok(());
        }
        if !matches!(self.row.phase, SectionPhase::Streaming) {
            report.waiting = nowhere.len() as u64 + more;
            report.caveat = format!("the section is {}: rows that it has not reached wait", self.row.phase.as_str());
            return Ok(());
        }
        let mut bounds = self.bounds;
        let mut rows = self.rows(&nowhere).await?;
        if rows.iter().any(|row| !is_below(row.xmin, bounds.xmin_floor)) {
            bounds = self.settle(&rows).await?;
            let comparison = Comparison::new(self.store.evidence(&self.section.name).await.map_err(fate)?);
            let there = rows.len();
            rows.retain(|row| comparison.find(AuditKey::of(row.key.as_bytes())) == Whereabouts::Nowhere);
            report.delivered += (there - rows.len()) as u64;
            report.rows_settled += (there - rows.len()) as u64;
            // What was deleted before it was looked at is neither settled nor missing.
            let there = self.rows(&rows.iter().map(|row| row.key.clone()).collect::<Vec<_>>()).await?;
            rows = there;
        }
        let mut missing = Vec::new();
        let may_have_passed_since = self.may_have_passed_since().await?;
        for row in rows {
            if !is_below(row.xmin, bounds.xmin_floor) {
                report.waiting += 1;
            } else if self.is_before_attach(&row) {
                report.before_attach += 1;
            } else if bounds.provable_from.is_some() || self.is_unproven_start() {
                report.unknown += 1;
            } else if self.is_unproven_update() {
                report.unknown += 1;
                report.caveat =
                    "rows that were there before the section attached, and were updated since without a change \
                                 of what is mapped, cannot be told from missing ones"
                        .to_owned();
            } else if may_have_passed_since {
                report.unknown += 1;
                report.caveat =
                    "rows of the table are updated: a row that a rule left out when it came, and would take as it \
                     is now, cannot be told from a missing one"
                        .to_owned();
            } else {
                missing.push(row.key);
            }
        }
        if more > 0 {
            report.unknown += more;
            report.caveat =
                format!("{more} more rows are nowhere; only the first {} were looked at one by one", nowhere.len());
        } else if report.unknown > 0 && report.caveat.is_empty() {
            report.caveat =
                "rows of batches that were delivered before keys were kept cannot be told from missing ones".to_owned();
        }
        report.missing = missing.len() as u64;
        report.missing_keys = missing.iter().take(NAMED).cloned().collect();
        report.missing_all = missing;
        Ok(())
    }

    /// Whether a rule may have left a row out that it would take as the row is now.
    async fn may_have_passed_since(&self) -> Result<bool, Fault> {
        if RowFilter::columns(self.section).is_empty() {
            return Ok(false);
        }
        let updates = table::updates(self.session, self.row.attachment.table_oid).await;
        updates.map(|updates| updates > 0).map_err(|error| self.session.fault(&error))
    }

    async fn rows(&self, keys: &[String]) -> Result<Vec<RowSeen>, Fault> {
        self.reader.rows(self.session, keys).await.map_err(|error| self.session.fault(&error))
    }

    /// Waits until the newest of these rows is settled, or for as long as that may take.
    async fn settle(&self, rows: &[RowSeen]) -> Result<ProofBounds, Fault> {
        let deadline = Instant::now() + SETTLING;
        loop {
            let bounds = self.store.proof_bounds(&self.section.name).await.map_err(fate)?;
            if rows.iter().all(|row| is_below(row.xmin, bounds.xmin_floor)) || Instant::now() >= deadline {
                return Ok(bounds);
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Whether the row was committed before the section attached, and the section does not deliver such rows.
    fn is_before_attach(&self, row: &RowSeen) -> bool {
        self.section.start == Start::Now && self.bounds.attach_xmin.is_some_and(|floor| is_below(row.xmin, Some(floor)))
    }

    /// A section of new versions only: an older row that was updated since has a young transaction, too.
    fn is_unproven_update(&self) -> bool {
        self.section.sends_updates() && self.section.start == Start::Now
    }

    /// A section that began with new rows only, in a version that did not record when.
    fn is_unproven_start(&self) -> bool {
        self.section.start == Start::Now && self.bounds.attach_xmin.is_none()
    }
}

/// Stores an audit's result.
pub(crate) async fn keep(store: &Store, report: &AuditReport, cause: &str) -> Result<(), Fault> {
    let value = serde_json::to_value(report).map_err(|error| Fault::bug(error.to_string()))?;
    store.record_audit(&crate::model::SectionName::from(report.section.as_str()), cause, &value).await.map_err(fate)
}

fn fate(error: StateError) -> Fault {
    error.fault()
}

/// Whether a row's transaction lies below the floor, a 64-bit xid: the two are less than 2^31 apart. Xids below 3 are no
/// transactions of their own: a row that is frozen in that way is old.
pub(crate) fn is_below(xmin: u32, floor: Option<u64>) -> bool {
    let Some(floor) = floor else { return false };
    let floor = u32::try_from(floor & u64::from(u32::MAX)).unwrap_or_default();
    xmin < 3 || xmin.wrapping_sub(floor).cast_signed() < 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_are_compared_across_the_wrap() {
        assert!(is_below(100, Some(101)) && !is_below(101, Some(101)) && !is_below(100, None));
        let after_wrap = (5_u64 << 32) + 10;
        assert!(
            is_below(u32::MAX - 5, Some(after_wrap))
                && is_below(9, Some(after_wrap))
                && !is_below(10, Some(after_wrap))
        );
        assert!(is_below(2, Some(1)), "frozen");
    }
}
