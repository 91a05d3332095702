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
use crate::audit::{Compared, Comparison, Earlier, Share};
use crate::config::{Config, Section, Start};
use crate::mapping::row_filter::RowFilter;
use crate::model::{Fault, Key, SectionId, SectionName};
use crate::postgres::backfill::key_reader::{KEY_SESSION, KeyReader};
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::catalog::write_counts::attached_since;
use crate::postgres::catalog::xmin_barrier::is_below;
use crate::postgres::connection::session::{Session, connect_sql};
use crate::runtime::audit_report::{AuditReport, Horizon};
use crate::runtime::audit_source::{attached_table, block_of, from_key, least_key, rules};
use crate::runtime::audit_verdict::Audited;
use crate::runtime::diff_reader::{DiffLook, DiffTask};
use crate::runtime::replica_watch;
use crate::runtime::state_connector::StateConnector;
use crate::sql;
use crate::state::{SectionPhase, SectionRow, StateError, Store};

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
    /// How long rows that are on their way may still be waited for. What was waited in vain is taken from it: of many sections
    /// whose sink is away, the first has shown it for all.
    pub patience: &'a mut Duration,
}

/// How long an audit waits for rows that are on their way.
pub(crate) const SETTLING: Duration = Duration::from_secs(10);

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
    let horizon = horizon(store, &session, &row, bounds.xmin_floor).await?;
    let reach = store.proof_reach(&section.name).await.map_err(fate)?;
    let open = store.first_open(&section.name).await.map_err(fate)?;
    let section = &table.with_key(section);
    let gently = request.gently;
    let asked = request.from_key.or(request.since_key.filter(|_| least_key(&table, section).is_some()));
    let from = from_key(&session, &table, section, asked.as_deref()).await?;
    let rules = rules(&session, section, &table).await?;
    let shares: Vec<Share> = Share::of_digests(store.key_bytes(&section.name).await.map_err(fate)?).collect();
    let looks = Looks { store, session: &session, section, table: &table, rules, shares, from: from.as_ref(), gently };
    let (mut compared, to) = looks.over(&Ages::default(), request.progress).await?;
    let ages = looks.ages(&compared, bounds.attach_xmin).await?;
    if ages != Ages::default() {
        (compared, _) = looks.over(&ages, request.progress).await?;
    }
    let whole = asked.is_none();
    let from = from.as_ref().map(ToString::to_string);
    let mut report =
        AuditReport { section: section.name.to_string(), from, to, whole, horizon, ..AuditReport::default() };
    let nowhere = std::mem::take(&mut compared.nowhere);
    take_over(&mut report, &compared);
    add_caveats(&mut report);
    tell_alike(&mut report, compared.alike);
    (report.by_key_since, report.by_key_from, report.by_count_since) =
        (reach.by_key_since, reach.by_key_from, reach.by_count_since);
    let reader = KeyReader::new(&table, &section.key, None);
    if asked.is_none() && section.key.iter().filter_map(|name| table.column(name)).any(|column| !column.not_null) {
        tell_keyless(&mut report, reader.without_key(&session).await.ok());
    }
    let keyless = store.keyless_doubts(&section.name).await.map_err(fate)?;
    let keyless = keyless.iter().flatten().any(|end| audit::integer(end.as_bytes()).is_none());
    let is_pruned = ages.settled.is_some();
    let (row, reader, patience) = (&row, &reader, *request.patience);
    let audited =
        Audited { store, session: &session, section, row, reader, bounds, open, keyless, is_pruned, patience };
    let judged = Instant::now();
    audited.judge(nowhere, compared.more_nowhere, &mut report).await?;
    if report.waiting > 0 {
        *request.patience = request.patience.saturating_sub(judged.elapsed());
    }
    if section.sends_updates() {
        of_versions(&mut report);
    }
    report.took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

/// What the age of a row tells, where the row's transaction is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ages {
    /// Rows of transactions below this one are from before the attachment, and not delivered.
    attached: Option<u64>,
    /// Earlier audits found every transaction below this one settled.
    settled: Option<u64>,
}

impl Ages {
    fn of(&self, xmin: Option<u32>) -> Option<Earlier> {
        let is_below = |floor: Option<u64>| xmin.is_some_and(|xmin| is_below(xmin, floor));
        let settled = is_below(self.settled).then_some(Earlier::Settled);
        if is_below(self.attached) { Some(Earlier::BeforeAttach) } else { settled }
    }
}

/// One audit's looks at the source.
struct Looks<'a> {
    store: &'a Store,
    session: &'a Session,
    section: &'a Section,
    table: &'a TableInfo,
    rules: RowFilter,
    shares: Vec<Share>,
    from: Option<&'a Key>,
    gently: bool,
}

impl Looks<'_> {
    /// By what ages to look again. What the tally does not prove, an earlier audit may have: a pruned block is never whole again
    /// once a row of it is gone. And rows of before the attachment can be more than are kept by name.
    async fn ages(&self, compared: &Compared, attached: Option<u64>) -> Result<Ages, Fault> {
        let attached = attached.filter(|_| self.section.start == Start::Now);
        if compared.unknown == 0 && (compared.more_nowhere == 0 || attached.is_none()) {
            return Ok(Ages::default());
        }
        let settled = self.store.settled_before(&self.section.name).await.map_err(|error| error.fault())?;
        // A partition that came since brought rows that no audit has seen.
        let settled = match settled {
            Some(floor) => {
                let attached = attached_since(self.session, self.table.oid, floor).await;
                let attached = attached.map_err(|error| self.session.fault(&error))?;
                (!attached).then_some(floor)
            }
            None => None,
        };
        Ok(Ages { attached, settled })
    }

    /// Looks at every key that is audited, once for each share. What no set names is proven by the tally; or by what earlier
    /// audits found, where that is known.
    async fn over(
        &self,
        ages: &Ages,
        progress: &mut (dyn FnMut(u64, f64) + Send),
    ) -> Result<(Compared, Option<String>), Fault> {
        let (mut compared, mut to, mut read) = (Compared::default(), None, 0);
        for share in &self.shares {
            let evidence = self.store.evidence(&self.section.name, *share).await.map_err(|error| error.fault())?;
            let mut comparison = Comparison::new(evidence.by_earlier_audits(ages.settled.is_some()));
            let begin = block_of(self.table, self.section, self.from, &mut comparison);
            let reader = KeyReader::new(self.table, &self.section.key, begin)
                .beside(&RowFilter::columns(self.section))
                .with_xmin(*ages != Ages::default());
            let mut progress = |rows| {
                read += rows;
                progress(read, self.table.rows.max(0.0) * self.shares.len() as f64);
            };
            to = self.read_keys(reader, ages, &mut comparison, &mut progress).await?;
            compared.add(comparison.end());
        }
        Ok((compared, to))
    }

    async fn read_keys(
        &self,
        mut reader: KeyReader,
        ages: &Ages,
        comparison: &mut Comparison,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Option<String>, Fault> {
        let mut last: Vec<u8> = Vec::new();
        loop {
            let begun = Instant::now();
            let chunk = reader.chunk(self.session, |key, beside, xmin| {
                comparison.row(key, || matches!(self.rules.judge(beside), Ok(Some(_))), || ages.of(xmin));
                last.clear();
                last.extend_from_slice(key);
            });
            let count = chunk.await.map_err(|error| self.session.fault(&error))?;
            if count == 0 {
                return Ok((!last.is_empty()).then(|| String::from_utf8_lossy(&last).into_owned()));
            }
            progress(count as u64);
            if self.gently {
                tokio::time::sleep(begun.elapsed()).await;
            }
        }
    }
}

/// Where the source and the ledger are now; first the ledger, so that what commits from here on begins a batch after its last.
async fn horizon(store: &Store, session: &Session, row: &SectionRow, settled: Option<u64>) -> Result<Horizon, Fault> {
    let delivery = store.last_ended(&row.name).await.map_err(|error| error.fault())?;
    let sql = "SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text";
    let next = sql::query_one(session, sql, &[]).await.map_err(|error| session.fault(&error))?;
    let settled = settled.filter(|_| matches!(row.phase, SectionPhase::Streaming));
    Ok(Horizon { delivery, settled, next: next.get::<_, &str>(0).parse().ok() })
}

/// Rows that have their key in common: one of them was settled, and which nobody knows.
fn tell_alike(report: &mut AuditReport, rows: u64) {
    if rows > 0 {
        report.unknown += rows;
        report.add_caveat(&format!(
            "the key is not unique: of {rows} rows the key is another row's, too, and which of these was delivered nothing tells \
             (`pg2planhat check`)"
        ));
    }
}

/// Rows without a key; `None`: they could not be counted.
fn tell_keyless(report: &mut AuditReport, rows: Option<u64>) {
    match rows {
        Some(0) => report.add_caveat("rows whose key is NULL are not looked at; there are none now"),
        Some(rows) => {
            report.unknown += rows;
            report.rows_source += rows;
            report.add_caveat(&format!("of {rows} rows the key is NULL: whether they were delivered nothing tells"));
        }
        None => report.add_caveat("rows whose key is NULL are not looked at, and could not be counted"),
    }
}

/// What an audit could not look at, and what is pruned.
fn add_caveats(report: &mut AuditReport) {
    if let (Some(from), false) = (report.from.clone(), report.whole) {
        report.add_caveat(&format!(
            "only keys greater than {from} were looked at: a row that came since under a lower key is met by an audit of the \
             whole"
        ));
    }
    if report.unknown > 0 {
        report.add_caveat(&format!(
            "of batches that the ledger has pruned only counts are kept, by blocks of keys, and the blocks of {} rows have \
             changed since: rows of them were deleted, delivered again, or lost",
            report.unknown
        ));
    }
}

/// Where updated rows are sent, a key is delivered once for each version.
fn of_versions(report: &mut AuditReport) {
    report.doubled = 0;
    report.of_versions = true;
    report.add_caveat("a row is proven by its key: that some version of it was delivered, not that its newest was");
}

/// The audit of a section whose result is compared: the result held against what was settled of it, as a comparison does.
async fn audit_result(config: &Arc<Config>, section: &Section) -> Result<AuditReport, Fault> {
    let begun = Instant::now();
    let names = config.planhat.bulk_activity_names;
    let task = DiffTask { id: SectionId(0), section: section.clone(), names, held: usize::MAX };
    let DiffLook { found: run, left_out, last, not_before } =
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
        report.add_caveat(&format!(
            "since the last comparison ({since}) rows are new ({}) or changed ({})",
            run.new, run.changed
        ));
    }
    if section.diff().is_some_and(|diff| diff.within.is_some()) {
        report.add_caveat("rows whose date is older than `within` are not looked at, as no comparison does");
    }
    let session = connect_sql(&config.source, "audit").await?;
    let replica = replica_watch::look(&session).await.map_err(|error| session.fault(&error))?;
    if let Some(caveat) = replica.and_then(|look| look.caveat()) {
        report.add_caveat(&caveat);
    }
    if let Some(before) = not_before {
        report.add_caveat(&format!(
            "rows of a date before {before} are not looked at: some of them were sent, and which is forgotten"
        ));
    }
    report.took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

fn take_over(report: &mut AuditReport, compared: &Compared) {
    report.rows_source = compared.rows;
    report.delivered = compared.delivered;
    report.quarantined = compared.quarantined;
    report.in_doubt = compared.in_doubt;
    report.unknown = compared.unknown;
    report.filtered = compared.filtered;
    report.doubled = compared.doubled;
    // Delivered keys outside of the range that was read are not gone.
    report.gone = if report.from.is_some() { 0 } else { compared.gone };
    report.settled_before = compared.settled_before;
    report.before_attach = compared.before_attach;
    report.rows_settled = report.settled();
}

/// Stores an audit's result. One that finds every row of a section settled closes its gaps from before; returns how many.
pub(crate) async fn keep(store: &Store, report: &AuditReport, cause: &str) -> Result<u64, Fault> {
    let value = serde_json::to_value(report).map_err(|error| Fault::bug(error.to_string()))?;
    let section = SectionName::from(report.section.as_str());
    store.record_audit(&section, cause, &value).await.map_err(fate)?;
    if !report.proves_all() {
        return Ok(0);
    }
    let closed = store.close_proven_gaps(&section, report.took_ms).await.map_err(fate)?;
    if closed > 0 {
        tracing::info!(%section, closed, "an audit found every row settled: gaps from before it are closed");
    }
    Ok(closed)
}

fn fate(error: StateError) -> Fault {
    error.fault()
}
