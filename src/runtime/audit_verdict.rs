//! The verdict on keys that no evidence names: deleted meanwhile, on their way, from before the attachment, missing, or not to
//! be told.
//!
//! * In: the keys; the floor below which every transaction is settled; the rows as they are now.
//! * Out: the counts and names of an [`AuditReport`].
//! * Never: a row called missing that may still be on its way, or that the section need not deliver.

use std::time::{Duration, Instant};

use crate::audit::{AuditKey, Whereabouts};
use crate::config::{Section, Start};
use crate::mapping::row_filter::RowFilter;
use crate::model::Fault;
use crate::postgres::backfill::key_reader::{KeyReader, RowSeen};
use crate::postgres::catalog::write_counts::write_counts;
use crate::postgres::catalog::xmin_barrier::is_below;
use crate::postgres::connection::session::Session;
use crate::runtime::audit_report::AuditReport;
use crate::state::{ProofBounds, SectionPhase, SectionRow, StateError, Store};

/// Keys that a report names.
const NAMED: usize = 100;

/// How long rows that are on their way are waited for.
const SETTLING: Duration = Duration::from_secs(10);

/// How long a server session that is idle may keep what it has counted to itself.
const COUNTING: Duration = Duration::from_secs(11);

const PASSED: &str = "rows of the table are updated, or the server's statistics do not tell whether they were: a row that a rule left out when it came, and would take as it is now, \
                      cannot be told from a missing one";
const OLDER: &str = "rows of the table were updated, or it was rewritten, or the server's statistics do not tell whether they were: a row from before the section attached, or of a batch \
                     that was pruned, cannot be told from a missing one then";

const STARTED: &str = "the section began with new rows, and it is not recorded with which transaction: a row from before it \
                       attached cannot be told from a missing one";
const DOUBTFUL: &str = "batches are in doubt whose keys nobody knows (`pg2planhat logs --outcome in_doubt`): a row of theirs \
                        cannot be told from a missing one";

/// The facts by which keys without evidence are judged.
pub(crate) struct Audited<'a> {
    pub store: &'a Store,
    pub session: &'a Session,
    pub section: &'a Section,
    pub row: &'a SectionRow,
    pub reader: &'a KeyReader,
    pub bounds: ProofBounds,
    /// The first batch that may have ended since the ledger was read.
    pub open: i64,
    /// There are batches in doubt of which neither the keys nor a range of them is known.
    pub keyless: bool,
    /// Batches of rows that were updated since may be pruned.
    pub is_pruned: bool,
}

impl Audited<'_> {
    /// Sorts the keys that no set names: deleted meanwhile, on their way, from before the attachment, or missing.
    pub(crate) async fn judge(&self, nowhere: Vec<String>, more: u64, report: &mut AuditReport) -> Result<(), Fault> {
        if nowhere.is_empty() {
            return Ok(());
        }
        if !matches!(self.row.phase, SectionPhase::Streaming) {
            report.waiting = nowhere.len() as u64 + more;
            report
                .add_caveat(&format!("the section is {}: rows that it has not reached wait", self.row.phase.as_str()));
            return Ok(());
        }
        let (rows, bounds) = self.settling(&nowhere, report).await?;
        report.rows_settled = report.settled();
        let (mut missing, mut keyless, mut started, mut passed) = (Vec::new(), 0, 0, 0);
        let (mut older, mut doubtful) = (0, 0);
        let is_unproven = bounds.provable_from.is_some() || self.is_unproven_start();
        let is_settled = |row: &RowSeen| is_below(row.xmin, bounds.xmin_floor) && !self.is_before_attach(row);
        let (may_have_passed_since, may_be_older) = match !is_unproven && rows.iter().any(is_settled) {
            true => self.written_again(report.rows_source).await?,
            false => (false, false),
        };
        for row in rows {
            if !is_below(row.xmin, bounds.xmin_floor) {
                report.waiting += 1;
            } else if self.is_before_attach(&row) {
                report.before_attach += 1;
            } else if bounds.provable_from.is_some() {
                keyless += 1;
            } else if self.is_unproven_start() {
                started += 1;
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
        report.unknown += keyless + started + passed + older + doubtful;
        if more > 0 {
            report.unknown += more;
            let first = nowhere.len();
            report.add_caveat(&format!("{more} more rows are nowhere; the first {first} were looked at one by one"));
        }
        let unprovable = [
            (keyless, "rows of batches that were delivered before keys were kept cannot be told from missing ones"),
            (started, STARTED),
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

    /// Waits for rows that are on their way, and counts those that arrive. Returns the others, and the floor that they are held
    /// against.
    async fn settling(
        &self,
        nowhere: &[String],
        report: &mut AuditReport,
    ) -> Result<(Vec<RowSeen>, ProofBounds), Fault> {
        let mut bounds = self.bounds;
        let mut rows = self.rows(nowhere).await?;
        let deadline = Instant::now() + SETTLING;
        while rows.iter().any(|row| !is_below(row.xmin, bounds.xmin_floor)) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(250)).await;
            // First the floor, then the ledger: as at the beginning.
            bounds = self.store.proof_bounds(&self.section.name).await.map_err(fate)?;
            let evidence = self.store.evidence_since(&self.section.name, self.open).await.map_err(fate)?;
            let newer = evidence.sorted();
            rows.retain(|row| match newer.find(AuditKey::of(row.key.as_bytes())) {
                Whereabouts::Delivered | Whereabouts::DeliveredAgain => count(&mut report.delivered),
                Whereabouts::Quarantined => count(&mut report.quarantined),
                Whereabouts::InDoubt => count(&mut report.in_doubt),
                Whereabouts::Nowhere | Whereabouts::Filtered | Whereabouts::Elsewhere => true,
            });
            rows = self.rows(&rows.iter().map(|row| row.key.clone()).collect::<Vec<_>>()).await?;
        }
        Ok((rows, bounds))
    }

    /// Whether a rule may have left a row out that it would take as the row is now; and whether a row of before the attachment
    /// may have been written again since, so that nothing tells it from a new one.
    async fn written_again(&self, rows: u64) -> Result<(bool, bool), Fault> {
        let has_rules = !RowFilter::columns(self.section).is_empty();
        let is_new_only = self.section.start == Start::Now;
        if !has_rules && !is_new_only && !self.is_pruned {
            return Ok((false, false));
        }
        let (oid, since) = (self.row.attachment.table_oid, self.row.attached_at.as_deref());
        let counts =
            || async { write_counts(self.session, oid, since).await.map_err(|error| self.session.fault(&error)) };
        let mut counted = counts().await?;
        if counted.updated == 0 && !counted.is_reset {
            tokio::time::sleep(COUNTING).await;
            counted = counts().await?;
        }
        // Fewer rows inserted than there are: it was not counted from the beginning.
        let is_updated = counted.updated > 0 || counted.is_reset || counted.inserted < rows;
        let is_older = (is_new_only || self.is_pruned) && (is_updated || counted.is_rewritten);
        Ok((has_rules && is_updated, is_older))
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

fn fate(error: StateError) -> Fault {
    error.fault()
}

/// Counts a row that was found; it is not kept.
fn count(found: &mut u64) -> bool {
    *found += 1;
    false
}
