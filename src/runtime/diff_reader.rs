//! Comparing a result with what was settled of it: one task for each comparison, beside the stream.
//!
//! * In: a section; what the state remembers of its settled rows.
//! * Out: [`DiffEvent`], in order: what the result looks like, what is new or changed, how it ended.
//! * Never: a row sent while it is open whether two have its key; more pieces ahead than were allowed; a snapshot held for
//!   a sink that takes nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};

use crate::config::{ActivityNames, Section, Source};
use crate::delivery::seen_cursor::SeenCursor;
use crate::mapping::Mapping;
use crate::model::{Column, Fault, Forgotten, KeyDigest, SectionId};
use crate::postgres::backfill::result_position::ResultPosition;
use crate::postgres::backfill::result_reader;
use crate::postgres::backfill::selection::Selection;
use crate::postgres::backfill::steadiness;
use crate::postgres::catalog::result;
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::catalog::types::Types;
use crate::postgres::connection::session::{Session, connect_sql};
use crate::postgres::setup;
use crate::runtime::diff_compare::{Before, Comparing, Pass, PassEnd};
use crate::runtime::diff_event::{DescribedResult, DiffEvent, DiffProgress};
use crate::runtime::seen_merge::Ageing;
use crate::runtime::state_connector::StateConnector;
use crate::runtime::{diff_compare, seen_merge};
use crate::state::{DiffRun, SeenHead, Store};

/// One comparison.
#[derive(Debug)]
pub(crate) struct DiffTask {
    /// Whose it is.
    pub id: SectionId,
    /// The section.
    pub section: Section,
    /// What activities' fields are called.
    pub names: ActivityNames,
    /// Bytes that may be held back until it is known that each key is there once.
    pub held: usize,
}

/// What a look at a result finds.
pub(crate) struct DiffLook {
    /// As a comparison would find it.
    pub found: DiffRun,
    /// Settled rows that a rule leaves out, as they are now.
    pub left_out: u64,
    /// The last comparison that was settled.
    pub last: Option<DiffRun>,
    /// From when on rows are read at all, where that is later than the section asks for.
    pub not_before: Option<String>,
}

/// Where a pass begins, and what is known by then.
struct PassStart {
    heads: Vec<SeenHead>,
    last: Option<DiffRun>,
    /// Rows of which it is not known any more whether they were sent.
    forgotten: Vec<Forgotten>,
    after: Option<KeyDigest>,
    /// It is to be asked first whether each key is there once: more will be found than may be held back.
    ask_first: bool,
    /// It is to be asked first whether the result is the same when it is read twice.
    reads_twice: bool,
}

impl PassStart {
    fn before(&self) -> Before<'_> {
        Before { last: self.last.as_ref(), forgotten: &self.forgotten }
    }
}

impl DiffTask {
    /// Compares the whole result once. `turn` bounds how many are read at once, `ahead` how many pieces this one may be
    /// ahead of their use.
    pub(crate) async fn run(
        self,
        source: Source,
        connector: StateConnector,
        turn: Arc<Semaphore>,
        ahead: Arc<Semaphore>,
        news: mpsc::Sender<DiffEvent>,
    ) {
        let mut under_way = DiffProgress::new(self.id, ahead, news);
        let failed = self.compare(&source, &connector, &turn, &mut under_way).await.err();
        under_way.end(failed).await;
    }

    async fn compare(
        &self,
        source: &Source,
        connector: &StateConnector,
        turn: &Semaphore,
        under_way: &mut DiffProgress,
    ) -> Result<(), Fault> {
        let mut store = connector.store().await?;
        let state = |error: crate::state::StateError| error.fault();
        let last = store.diff_runs().await.map_err(state)?.into_iter().find(|(name, _)| *name == self.section.name);
        let last = last.map(|(_, run)| run);
        let within = self.section.diff().and_then(|diff| diff.within.filter(|_| diff.send_changed));
        let dated = within.zip(self.section.date_column()).zip(last.as_ref());
        let ageing = dated.map(|((within, column), last)| Ageing {
            column,
            columns: diff_compare::digest_of(&diff_compare::compared(&self.section)),
            within,
            began: &last.started_at,
        });
        seen_merge::merge(&mut store, &self.section.name, ageing.as_ref()).await.map_err(state)?;
        let forgotten = store.forgotten(&self.section.name).await.map_err(state)?;
        let heads = store.seen_heads(&self.section.name).await.map_err(state)?;
        let numbers = heads.iter().map(|head| head.run).chain(last.iter().map(|run| run.run));
        under_way.run.run = numbers.max().unwrap_or(0) + 1;
        let last = last.filter(|_| !heads.is_empty());
        let reads_twice = self.is_doubtful(last.as_ref());
        let mut start = PassStart { ask_first: heads.is_empty(), heads, last, forgotten, after: None, reads_twice };
        loop {
            let counted = under_way.run.clone();
            // No transaction waits for the sink, or for its turn.
            if !under_way.has_room().await {
                return Ok(());
            }
            let Ok(_turn) = turn.acquire().await else { return Ok(()) };
            match self.pass(source, &store, &start, under_way).await? {
                PassEnd::Whole | PassEnd::Unheard => return Ok(()),
                PassEnd::Unproven => under_way.run = counted,
                PassEnd::Slow => {
                    tracing::debug!(section = %self.section.name, "the sink is slow: the rest is read in another transaction");
                    start.after = under_way.go_back(counted).or(start.after);
                }
            }
            (start.ask_first, start.reads_twice) = (true, false);
        }
    }

    /// Whether the result may never be the same twice: nothing is known of it yet, or the last comparison found nearly all of it
    /// changed, or new.
    fn is_doubtful(&self, last: Option<&DiffRun>) -> bool {
        let Some(last) = last else { return steadiness::counts(&self.section) };
        let known = last.rows.saturating_sub(last.new);
        let all_changed = last.changed > 0 && last.changed * 10 >= known * 9;
        let all_new = last.gone > 0 && last.new * 10 >= last.rows * 9;
        steadiness::counts(&self.section) && all_changed || all_new
    }

    /// Compares the result and tells nobody.
    pub(crate) async fn look(&self, source: &Source, connector: &StateConnector) -> Result<DiffLook, Fault> {
        let store = connector.store().await?;
        let state = |error: crate::state::StateError| error.fault();
        let last = store.diff_runs().await.map_err(state)?.into_iter().find(|(name, _)| *name == self.section.name);
        let (heads, last) = (store.seen_heads(&self.section.name).await.map_err(state)?, last.map(|(_, run)| run));
        let forgotten = store.forgotten(&self.section.name).await.map_err(state)?;
        let mut under_way = DiffProgress::look(self.id);
        let start = PassStart { heads, last, forgotten, after: None, ask_first: true, reads_twice: false };
        self.pass(source, &store, &start, &mut under_way).await?;
        let not_before = diff_compare::not_before(&self.section, &start.forgotten, jiff::Timestamp::now());
        Ok(DiffLook { found: under_way.run, left_out: under_way.left_out, last: start.last, not_before })
    }

    /// Reads the result once, in one transaction.
    async fn pass(
        &self,
        source: &Source,
        store: &Store,
        start: &PassStart,
        under_way: &mut DiffProgress,
    ) -> Result<PassEnd, Fault> {
        let section = &self.section;
        let session = connect_sql(source, "diff").await?;
        let began = Instant::now();
        let at = |error: tokio_postgres::Error| result_reader::fault(&session, section, &error, began.elapsed());
        result_reader::settle(&session).await.map_err(at)?;
        let (table, columns, mapping) = self.describe(source, &session).await?;
        if start.reads_twice {
            let unsteady = steadiness::unsteady(source, section, &session, &table, &columns).await;
            if let Some((fault, true)) = steadiness::judged(section, &unsteady) {
                return Err(fault);
            }
        }
        let comparing = Comparing::prepare(&session, section, &table, start.before(), &mut under_way.run).await?;
        let rules = mapping.clone();
        if under_way.is_undescribed() {
            let estimated = comparing.selection.estimate(&session).await.map_err(at)?;
            let described = DescribedResult {
                run: (under_way.run.run, comparing.columns),
                mapping,
                by_key: Selection::new(section, &table, &columns),
                estimated,
                not_before: diff_compare::not_before(section, &start.forgotten, jiff::Timestamp::now()),
            };
            let described = DiffEvent::Described(self.id, Box::new(described));
            if !under_way.tell(described).await {
                return Ok(PassEnd::Unheard);
            }
        }
        let before = ResultPosition::now(&session).await.map_err(at)?;
        self.not_behind(before.as_ref(), start.last.as_ref().into_iter().chain([&under_way.run]))?;
        comparing.selection.begin(&session).await.map_err(at)?;
        if before.is_some() {
            // Behind the snapshot: the next one must have seen as much.
            under_way.run.read_at = ResultPosition::now(&session).await.map_err(at)?.map(|at| at.to_string());
        }
        if start.ask_first
            && !comparing.unique
            && let Some(key) = comparing.selection.twin(&session).await.map_err(at)?
        {
            return Err(diff_compare::twins(section, &key));
        }
        let held = (!start.ask_first && !comparing.unique).then_some(self.held);
        let mut rows = comparing.selection.read(&session, start.after).await.map_err(at)?;
        let mut seen = SeenCursor::new(start.heads.clone());
        under_way.begin_pass();
        let (comparing, after) = (&comparing, start.after);
        let rules = &rules;
        let pass = Pass { section, session: &session, store, comparing, began, after, rules, held };
        let end = pass.read(&mut rows, &mut seen, under_way).await?;
        drop(rows);
        if matches!(end, PassEnd::Whole) {
            comparing.selection.end(&session).await.map_err(at)?;
        }
        Ok(end)
    }

    /// A server that has seen less than one that was read before would bring old values back.
    fn not_behind<'a>(
        &self,
        now: Option<&ResultPosition>,
        read: impl Iterator<Item = &'a DiffRun>,
    ) -> Result<(), Fault> {
        let mut read = read.filter_map(|run| ResultPosition::parse(run.read_at.as_deref()?));
        let Some((now, ahead)) = now.and_then(|now| Some((now, read.find(|read| now.is_behind(read))?))) else {
            return Ok(());
        };
        let what = format!(
            "section {}: the server that answers has come to {}, and the one that was compared before to {}: it would bring old \
             values back",
            self.section.name, now.lsn, ahead.lsn
        );
        Err(Fault::unavailable(
            what,
            "it is compared when the server has come as far; where servers take turns, name one of them",
        ))
    }

    /// Looks at the result, and compiles the mapping against its columns.
    async fn describe(&self, source: &Source, session: &Session) -> Result<(TableInfo, Vec<Column>, Mapping), Fault> {
        let at = |error: tokio_postgres::Error| result_reader::fault(session, &self.section, &error, Duration::ZERO);
        let types = Types::load(session).await.map_err(at)?;
        let found = result::describe(session, &self.section, &source.schema).await.map_err(at)?;
        let table = found.ok_or_else(|| setup::no_table(&self.section.table))?;
        let all = table.row_columns(&types);
        let columns = self.section.columns();
        let chosen: Vec<_> =
            columns.iter().filter_map(|name| all.iter().find(|column| column.name == *name).cloned()).collect();
        let compiled = Mapping::compile(&self.section, self.names, &all)
            .and_then(|_| Mapping::compile(&self.section, self.names, &chosen));
        let mapping = compiled.map_err(|faults| {
            let what: Vec<String> = faults.iter().map(ToString::to_string).collect();
            Fault::usage(what.join("; "), faults.first().map(crate::mapping::MappingFault::remedy).unwrap_or_default())
        })?;
        Ok((table, chosen, mapping))
    }
}
