//! The verdict on keys that no evidence names: deleted meanwhile, on their way, from before the attachment, missing, or not to
//! be told.
//!
//! * In: the keys; up to where everything is settled; the rows as they are now.
//! * Out: the counts and names of an [`AuditReport`].
//! * Never: a row called missing that may still be on its way, or that the section need not deliver.
//!
//! Two things tell that a row is not on its way any more. Its transaction lies below the floor: that is known at once, but the
//! floor stands as long as any transaction of the server is open, of another database, too. Or it was seen before the WAL
//! reached a place up to which everything is settled by now: whoever sees a row sees it behind its commit.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::audit::{AuditKey, Whereabouts};
use crate::config::definition::Definition;
use crate::config::{Section, Start};
use crate::mapping::row_filter::RowFilter;
use crate::model::{Fault, Lsn};
use crate::postgres::backfill::key_reader::{KeyReader, RowSeen};
use crate::postgres::catalog::write_counts::write_counts;
use crate::postgres::catalog::xmin_barrier;
use crate::postgres::catalog::xmin_barrier::is_below;
use crate::postgres::connection::session::Session;
use crate::runtime::audit_report::AuditReport;
use crate::runtime::audit_reprinted::Reprinted;
use crate::state::{ProofBounds, SectionPhase, SectionRow, StateError, Store};

/// Keys that a report names.
const NAMED: usize = 100;

/// How long rows that are on their way are waited for at least.
const LEAST: Duration = Duration::from_secs(1);

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

const RULED: &str = "the rules that leave rows out (`where`, `on_null`) are other ones than when these rows came, or it is not recorded which \
                     they were then: a row that an earlier rule left out cannot be told from a missing one";

const REPRINTED: &str = "keys are printed in another way than when the section attached, for the type of a column of the key was \
                         altered, or a value of it renamed: a row that was delivered before cannot be told from a missing one";

/// Rows as they were seen, and where the WAL ended behind that.
#[derive(Debug, Default)]
struct Sighting {
    rows: HashMap<String, u32>,
    at: Lsn,
}

impl Sighting {
    /// Whether a row that is nowhere is not on its way any more, by what was settled before the ledger was read.
    fn is_settled(&self, row: &RowSeen, bounds: &ProofBounds) -> bool {
        let seen = bounds.checkpoint >= self.at && self.rows.get(&row.key) == Some(&row.xmin);
        is_below(row.xmin, bounds.xmin_floor) || seen
    }
}

/// Rows that nothing proves, by the reason.
#[derive(Debug, Default)]
struct Unproven {
    keyless: u64,
    started: u64,
    reprinted: u64,
    ruled: u64,
    passed: u64,
    older: u64,
    doubtful: u64,
}

impl Unproven {
    fn tell(&self, report: &mut AuditReport) {
        let reasons = [
            (
                self.keyless,
                "rows of batches that were delivered before keys were kept cannot be told from missing ones",
            ),
            (self.started, STARTED),
            (self.reprinted, REPRINTED),
            (self.ruled, RULED),
            (self.passed, PASSED),
            (self.older, OLDER),
            (self.doubtful, DOUBTFUL),
        ];
        for (rows, why) in reasons.into_iter().filter(|(rows, _)| *rows > 0) {
            report.unknown += rows;
            report.add_caveat(why);
        }
    }
}

/// What of the rows may have been written again since something that tells them apart.
#[derive(Clone, Copy, Debug, Default)]
struct WrittenAgain {
    /// A rule may have left a row out that it would take as the row is now.
    passed: bool,
    /// A row of before the attachment, or of a pruned batch, may look like a new one.
    older: bool,
    /// Any row may look newer than it is.
    updated: bool,
}

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
    /// How long rows that are on their way are waited for.
    pub patience: Duration,
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
        let (rows, bounds, sighting) = self.settling(&nowhere, report).await?;
        report.rows_settled = report.settled();
        let (mut missing, mut unproven) = (Vec::new(), Unproven::default());
        let is_unproven = bounds.provable_from.is_some() || self.is_unproven_start();
        let is_told = |row: &RowSeen| self.is_before_attach(row) || self.is_older_than_rules(row);
        let is_settled = |row: &RowSeen| sighting.is_settled(row, &bounds) && !is_told(row);
        let (mut again, mut reprinted) = (WrittenAgain::default(), None);
        if !is_unproven && rows.iter().any(is_settled) {
            reprinted = Reprinted::find(self.session, self.section, self.row, self.bounds.attach_xmin).await?;
            again = self.written_again(report.rows_source, reprinted.is_some()).await?;
        }
        for row in rows {
            if !sighting.is_settled(&row, &bounds) {
                report.waiting += 1;
            } else if self.is_before_attach(&row) {
                report.before_attach += 1;
            } else if bounds.provable_from.is_some() {
                unproven.keyless += 1;
            } else if self.is_unproven_start() {
                unproven.started += 1;
            } else if self.is_older_than_rules(&row) {
                unproven.ruled += 1;
            } else if reprinted.as_ref().is_some_and(|reprinted| reprinted.concerns(&row, again.updated)) {
                unproven.reprinted += 1;
            } else if again.passed {
                unproven.passed += 1;
            } else if again.older {
                unproven.older += 1;
            } else if self.keyless {
                unproven.doubtful += 1;
            } else {
                missing.push(row.key);
            }
        }
        if more > 0 {
            report.unknown += more;
            let first = nowhere.len();
            report.add_caveat(&format!("{more} more rows are nowhere; the first {first} were looked at one by one"));
        }
        unproven.tell(report);
        report.missing = missing.len() as u64;
        report.missing_keys = missing.iter().take(NAMED).cloned().collect();
        report.missing_all = missing;
        // What was deleted before it was looked at one by one is neither settled nor missing.
        let told = report.rows_settled + report.in_doubt + report.waiting + report.before_attach;
        report.rows_source = told + report.unknown + report.missing;
        Ok(())
    }

    /// Waits for rows that are on their way, and counts those that arrive. Returns the others, how far everything is settled, and
    /// how they were seen first.
    async fn settling(
        &self,
        nowhere: &[String],
        report: &mut AuditReport,
    ) -> Result<(Vec<RowSeen>, ProofBounds, Sighting), Fault> {
        let mut bounds = self.bounds;
        let mut rows = self.rows(nowhere).await?;
        let at = xmin_barrier::insert_lsn(self.session).await.map_err(|error| self.session.fault(&error))?;
        let young = rows.iter().filter(|row| !is_below(row.xmin, bounds.xmin_floor));
        let sighting = Sighting { rows: young.map(|row| (row.key.clone(), row.xmin)).collect(), at };
        let deadline = Instant::now() + self.patience.max(LEAST);
        while rows.iter().any(|row| !sighting.is_settled(row, &bounds)) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(250)).await;
            // First how far everything is settled, then the ledger: as at the beginning.
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
        Ok((rows, bounds, sighting))
    }

    /// What of the rows may have been written again; `reprinted`: their age tells how their keys were printed.
    async fn written_again(&self, rows: u64, reprinted: bool) -> Result<WrittenAgain, Fault> {
        let rules = &self.row.rules;
        let has_rules = !RowFilter::columns(self.section).is_empty() || rules.since.is_some();
        let is_new_only = self.section.start == Start::Now;
        if !has_rules && !is_new_only && !self.is_pruned && !reprinted {
            return Ok(WrittenAgain::default());
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
        let updated = counted.updated > 0 || counted.is_reset || counted.inserted < rows;
        let older = (is_new_only || self.is_pruned) && (updated || counted.is_rewritten);
        Ok(WrittenAgain { passed: has_rules && updated, older, updated })
    }

    async fn rows(&self, keys: &[String]) -> Result<Vec<RowSeen>, Fault> {
        self.reader.rows(self.session, keys).await.map_err(|error| self.session.fault(&error))
    }

    /// Whether the row was committed before the section attached, and the section does not deliver such rows.
    fn is_before_attach(&self, row: &RowSeen) -> bool {
        self.section.start == Start::Now && self.bounds.attach_xmin.is_some_and(|floor| is_below(row.xmin, Some(floor)))
    }

    /// Whether the row may have been judged by other rules than those of now, which may have left it out.
    fn is_older_than_rules(&self, row: &RowSeen) -> bool {
        let rules = &self.row.rules;
        let is_open = rules.is_open_with(&Definition::of(self.section).rules);
        is_open || rules.since.is_some_and(|since| is_below(row.xmin, Some(since)))
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
