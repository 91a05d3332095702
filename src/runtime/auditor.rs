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

use crate::audit;
use crate::audit::{AuditKey, Compared, Comparison, Share, Whereabouts};
use crate::config::{Config, Section, Start};
use crate::mapping::row_filter::RowFilter;
use crate::model::{Fault, SectionId};
use crate::postgres::backfill::key_reader::{KEY_SESSION, KeyReader, RowSeen};
use crate::postgres::catalog::table;
use crate::postgres::catalog::xmin_barrier::is_below;
use crate::postgres::connection::session::{Session, connect_sql};
use crate::runtime::audit_source::{attached_table, block_of, from_key, least_key, rules};
use crate::runtime::diff_reader::{DiffLook, DiffTask};
use crate::runtime::state_connector::StateConnector;
use crate::state::{ProofBounds, SectionPhase, SectionRow, StateError, Store};

/// Keys that a report names.
pub(crate) const NAMED: usize = 100;

/// How long rows that are on their way are waited for.
const SETTLING: Duration = Duration::from_secs(10);

const PASSED: &str = "rows of the table are updated: a row that a rule left out when it came, and would take as it is now, \
                      cannot be told from a missing one";
const OLDER: &str = "rows of the table were updated, or the table was rewritten: a row from before the section attached \
                     cannot be told from a missing one then";

const DOUBTFUL: &str = "batches are in doubt whose keys nobody knows (`pg2planhat logs --outcome in_doubt`): a row of theirs \
                        cannot be told from a missing one";

/// What an audit found: `audit --json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct AuditReport {
    pub section: String,
    /// Keys greater than this were looked at; none: every key.
    pub from: Option<String>,
    /// The last key that was looked at.
    pub to: Option<String>,
    /// Every row was looked at that the section delivers.
    pub whole: bool,
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

impl AuditReport {
    fn add_caveat(&mut self, caveat: &str) {
        if !self.caveat.is_empty() {
            self.caveat.push_str("; ");
        }
        self.caveat.push_str(caveat);
    }
}

/// The options of an audit.
pub(crate) struct AuditRequest<'a> {
    /// Only keys greater than this, as a person writes it.
    pub from_key: Option<String>,
    /// The last key of the last whole audit: where new rows come behind it, they alone are looked at.
    pub since_key: Option<String>,
    /// Called with how many rows were read so far, and of about how many.
    pub progress: &'a mut (dyn FnMut(u64, f64) + Send),
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
    let open = store.first_open(&section.name).await.map_err(fate)?;
    let section = &table.with_key(section);
    let asked = request.from_key.or(request.since_key.filter(|_| least_key(&table, section).is_some()));
    let from = from_key(&session, &table, section, asked.as_deref()).await?;
    let rules = rules(&session, section, &table).await?;
    let shares: Vec<Share> = Share::of_digests(store.key_bytes(&section.name).await.map_err(fate)?).collect();
    let (mut compared, mut to, mut read) = (Compared::default(), None, 0);
    for share in &shares {
        let evidence = store.evidence(&section.name, *share).await.map_err(fate)?;
        let mut comparison = Comparison::new(evidence);
        let begin = block_of(&table, section, from.as_ref(), &mut comparison);
        let reader = KeyReader::new(&table, &section.key, begin).beside(&RowFilter::columns(section));
        let mut progress = |rows| {
            read += rows;
            (request.progress)(read, table.rows.max(0.0) * shares.len() as f64);
        };
        to = read_keys(&session, reader, &rules, &mut comparison, request.gently, &mut progress).await?;
        compared.add(comparison.end());
    }
    let whole = asked.is_none();
    let from = from.map(|key| key.to_string());
    let mut report = AuditReport { section: section.name.to_string(), from, to, whole, ..AuditReport::default() };
    let is_partial = report.from.is_some();
    let nowhere = compared.nowhere.clone();
    take_over(&mut report, &compared, is_partial);
    if section.key.iter().filter_map(|name| table.column(name)).any(|column| !column.not_null) {
        report.add_caveat("rows whose key is NULL are not looked at");
    }
    if compared.unknown > 0 {
        report.add_caveat(&format!(
            "of batches that the ledger has pruned only counts are kept, by blocks of keys, and the blocks of {} rows have \
             changed since: rows of them were deleted, delivered again, or lost",
            compared.unknown
        ));
    }
    let reader = KeyReader::new(&table, &section.key, None);
    let keyless = store.keyless_doubts(&section.name).await.map_err(fate)?;
    let keyless = keyless.iter().flatten().any(|end| audit::integer(end.as_bytes()).is_none());
    let audited = Audited { store, session: &session, section, row: &row, reader: &reader, bounds, open, keyless };
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
    report.add_caveat("a row is proven by its key: that some version of it was delivered, not that its newest was");
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
        whole: true,
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

async fn read_keys(
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
        progress(count as u64);
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
    /// The first batch that may have ended since the ledger was read.
    open: i64,
    /// There are batches in doubt of which neither the keys nor a range of them is known.
    keyless: bool,
}

impl Audited<'_> {
    /// Sorts the keys that no set names: deleted meanwhile, on their way, from before the attachment, or missing.
    async fn judge(&self, nowhere: Vec<String>, more: u64, report: &mut AuditReport) -> Result<(), Fault> {
        if nowhere.is_empty() {
            return Ok(());
        }
        if !matches!(self.row.phase, SectionPhase::Streaming) {
            report.waiting = nowhere.len() as u64 + more;
            report
                .add_caveat(&format!("the section is {}: rows that it has not reached wait", self.row.phase.as_str()));
            return Ok(());
        }
        let mut bounds = self.bounds;
        let mut rows = self.rows(&nowhere).await?;
        let deadline = Instant::now() + SETTLING;
        while rows.iter().any(|row| !is_below(row.xmin, bounds.xmin_floor)) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(250)).await;
            // First the floor, then the ledger: as at the beginning.
            bounds = self.store.proof_bounds(&self.section.name).await.map_err(fate)?;
            let evidence = self.store.evidence_since(&self.section.name, self.open).await.map_err(fate)?;
            let newer = Comparison::new(evidence);
            rows.retain(|row| match newer.find(AuditKey::of(row.key.as_bytes())) {
                Whereabouts::Delivered => count(&mut report.delivered),
                Whereabouts::Quarantined => count(&mut report.quarantined),
                Whereabouts::InDoubt => count(&mut report.in_doubt),
                Whereabouts::Nowhere | Whereabouts::Filtered | Whereabouts::Elsewhere => true,
            });
            rows = self.rows(&rows.iter().map(|row| row.key.clone()).collect::<Vec<_>>()).await?;
        }
        report.rows_settled = report.delivered + report.quarantined + report.filtered;
        let (mut missing, mut unproven, mut passed, mut older, mut doubtful) = (Vec::new(), 0, 0, 0, 0);
        let may_have_passed_since = self.may_have_passed_since().await?;
        let may_be_older = self.may_be_older().await?;
        for row in rows {
            if !is_below(row.xmin, bounds.xmin_floor) {
                report.waiting += 1;
            } else if self.is_before_attach(&row) {
                report.before_attach += 1;
            } else if bounds.provable_from.is_some() || self.is_unproven_start() {
                unproven += 1;
            } else if may_have_passed_since {
                passed += 1;
            } else if may_be_older {
                older += 1;
            } else if self.keyless {
                doubtful += 1;
            } else {
                missing.push(row.key);
            }
        }
        report.unknown += unproven + passed + older + doubtful;
        if more > 0 {
            report.unknown += more;
            let first = nowhere.len();
            report.add_caveat(&format!("{more} more rows are nowhere; the first {first} were looked at one by one"));
        }
        let unprovable = [
            (unproven, "rows of batches that were delivered before keys were kept cannot be told from missing ones"),
            (passed, PASSED),
            (older, OLDER),
            (doubtful, DOUBTFUL),
        ];
        for (_, why) in unprovable.iter().filter(|(rows, _)| *rows > 0) {
            report.add_caveat(why);
        }
        report.missing = missing.len() as u64;
        report.missing_keys = missing.iter().take(NAMED).cloned().collect();
        report.missing_all = missing;
        // What was deleted before it was looked at one by one is neither settled nor missing.
        let told = report.rows_settled + report.in_doubt + report.waiting + report.before_attach;
        report.rows_source = told + report.unknown + report.missing;
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

    /// Whether a row of before the attachment may have been written again since: nothing tells it from a new one then.
    async fn may_be_older(&self) -> Result<bool, Fault> {
        if self.section.start != Start::Now {
            return Ok(false);
        }
        let written = table::written_again(self.session, self.row.attachment.table_oid).await;
        written.map_err(|error| self.session.fault(&error))
    }

    async fn rows(&self, keys: &[String]) -> Result<Vec<RowSeen>, Fault> {
        self.reader.rows(self.session, keys).await.map_err(|error| self.session.fault(&error))
    }

    /// Whether the row was committed before the section attached, and the section does not deliver such rows.
    fn is_before_attach(&self, row: &RowSeen) -> bool {
        self.section.start == Start::Now && self.bounds.attach_xmin.is_some_and(|floor| is_below(row.xmin, Some(floor)))
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

/// Counts a row that was found; it is not kept.
fn count(found: &mut u64) -> bool {
    *found += 1;
    false
}
