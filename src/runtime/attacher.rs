//! Attaches one section beside the running stream: a task for each section that waits, so that none holds another.
//!
//! * In: a section that is recorded as `waiting`.
//! * Out: [`AttachEvent`]s: what it waits for, what is in its way, and that the stream can carry it from now on.
//! * Never: a section attached while a transaction is open that had written to its table before the publication carried it.
//!
//! Whether a walsender sends the rows that such a transaction wrote before depends on what the walsender has decoded. So
//! those transactions must end first. A backfill then reads their rows. A section of `start: now` reads them too, from the
//! oldest such transaction on, where that takes longer than [`GRACE`]: they commit after the section was asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use crate::config::{Config, Section, Start};
use crate::model::{Exit, Fault, Key, Lsn, SectionId};
use crate::postgres::backfill::rows_since::rewritten_since;
use crate::postgres::backfill::selection::Selection;
use crate::postgres::catalog::types::Types;
use crate::postgres::catalog::writers::{self, Writer};
use crate::postgres::catalog::xmin_barrier;
use crate::postgres::connection::session::Session;
use crate::postgres::setup;
use crate::postgres::setup::PublicationKind;
use crate::runtime::rows_before::OlderRows;
use crate::runtime::same_server::SameServer;
use crate::runtime::table_fit::{Fit, describe, first_phase, refusal};
use crate::runtime::update_stream;
use crate::state::{BackfillProgress, SectionPhase, UpdatePublication};
use crate::telemetry::log_output::{Passage, Throttle};

/// What a section's attacher tells the event loop.
#[derive(Debug)]
pub(crate) enum AttachEvent {
    /// It waits; and for whom. With the oldest transaction that wrote to its table, where its rows must be read.
    Waits(SectionId, Fault, Option<u64>),
    /// It cannot be attached until somebody changes something; it is tried again.
    Failed(SectionId, Fault),
    /// The publication of updates carries a section's table by now: the stream must name it.
    Updates(UpdatePublication),
    /// The stream carries its rows from now on. It comes back where the loop cannot take it up yet; gone, it is tried anew.
    Ready(Box<Ready>, oneshot::Sender<Option<Box<Ready>>>),
    /// Every transaction from this one on began after it was attached.
    Began(SectionId, u64),
    /// A section that is attached fits its table as the configuration has it now.
    Refitted(SectionId, Box<Refit>),
    /// It does not, and goes on as it was.
    Unfitting(SectionId, Fault),
}

/// A section that can be attached.
#[derive(Debug)]
pub(crate) struct Ready {
    pub id: SectionId,
    /// The configuration by which it can be.
    pub config: Arc<Config>,
    pub fit: Fit,
    /// How it gets its rows from then on.
    pub phase: SectionPhase,
    /// Rows that this phase would read, and that were there before.
    pub older: Vec<Key>,
    /// The stream carries every row of its table that is committed behind this.
    pub carried_at: Lsn,
}

/// A section that is attached, as the configuration has it now.
#[derive(Debug)]
pub(crate) struct Refit {
    pub config: Arc<Config>,
    pub fit: Fit,
    /// Where the WAL ended before its table was looked at.
    pub fitted_at: Lsn,
    /// Somebody waits for it: the section was written anew.
    pub asked: bool,
}

/// A section that is to be attached.
#[derive(Debug)]
pub(crate) struct Attacher {
    pub id: SectionId,
    /// Where the stream comes from.
    pub server: SameServer,
    pub section: Section,
    /// The configuration that counts: the section may have been written anew while it waits.
    pub configs: watch::Receiver<Arc<Config>>,
    /// The oldest transaction whose rows must be read, as an earlier process recorded it.
    pub writers_from: Option<u64>,
    /// The publication carried its table before.
    pub carried_before: bool,
}

/// How long a writer may stay open before its rows are read for a section of `start: now`: that costs a scan of the table,
/// and what such a short transaction wrote may as well count as older than the attachment.
const GRACE: Duration = Duration::from_millis(500);
/// How long it waits before it tries again what a person must change.
const RETRY: Duration = Duration::from_secs(15);
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// How long it waits for the stream to bring updates before it asks again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

impl Attacher {
    /// Ends when the section is attached, or when nobody listens any more.
    pub(crate) async fn run(mut self, events: mpsc::Sender<AttachEvent>) {
        let mut said = Throttle::new(1, SAY_AGAIN);
        while let Err(fault) = self.attempt(&events).await {
            let wait = if fault.exit == Exit::Unavailable { Duration::from_secs(1) } else { RETRY };
            if let Passage::Log { suppressed } = said.event(fault.exit.code(), Instant::now()) {
                let (what, remedy) = (&fault.what, &fault.remedy);
                tracing::warn!(section = %self.section.name, suppressed, what, remedy, "the section cannot be attached yet");
            }
            if events.send(AttachEvent::Failed(self.id, fault)).await.is_err() {
                return;
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt(&mut self, events: &mpsc::Sender<AttachEvent>) -> Result<(), Fault> {
        let config = Arc::clone(&self.configs.borrow());
        if let Some(section) = config.sections.iter().find(|section| section.name == self.section.name) {
            self.section.clone_from(section);
        }
        let session = self.server.connect(&config.source, "attach").await?;
        let at = |error: tokio_postgres::Error| session.fault(&error);
        let types = Types::load(&session).await.map_err(at)?;
        let fit = describe(&config, &session, &types, &self.section, None).await.map_err(at)??;
        if let Some(fault) = refusal(&config, &session, &fit, None).await.map_err(at)? {
            return Err(fault);
        }
        // A key that a person typed is read before anything is stored.
        let mut phase = first_phase(&session, &fit.section, &fit.table).await?;
        let id = self.id;
        // Where the loop does not take it in time, the next one says it again.
        let told = |fault: Option<&Fault>| {
            fault.map(|fault| events.try_send(AttachEvent::Waits(id, fault.clone(), None)).ok());
        };
        let (inserts, table) = (PublicationKind::inserts(&config), &fit.table);
        let altered = setup::carry::carry(&session, &config, (&inserts, table), self.carried_before, &told).await?;
        if let Some(sql) = altered {
            tracing::info!(section = %self.section.name, sql, "added the table to the publication");
        }
        if fit.section.sends_updates() {
            let updates = update_stream::carry(&config, &session, table, &told).await?;
            events.send(AttachEvent::Updates(updates)).await.ok();
        }
        let kept = self.outlast_writers(&session, &config, fit.table.oid, events).await?;
        let mut older = Vec::new();
        if let Some(floor) = self.writers_from.filter(|_| self.section.start == Start::Now)
            && let Some(found) = self.older_rows(&session, &fit, kept, floor).await?
        {
            let progress = BackfillProgress { xmin_floor: Some(floor), ..BackfillProgress::default() };
            (phase, older) = (SectionPhase::Backfilling(progress), found);
        }
        let carried_at = xmin_barrier::insert_lsn(&session).await.map_err(at)?;
        let mut ready = Box::new(Ready { id, config, fit, phase, older, carried_at });
        loop {
            let (taken, answer) = oneshot::channel();
            if events.send(AttachEvent::Ready(ready, taken)).await.is_err() {
                return Ok(());
            }
            // Where it was not attached after all, the loop has ended, or says so: it is tried again.
            let back =
                answer.await.map_err(|_| Fault::unavailable("the stream could not take the table up", "nothing"))?;
            let Some(back) = back else { break };
            ready = back;
            tokio::time::sleep(ASK_AGAIN).await;
            ready.carried_at = xmin_barrier::insert_lsn(&session).await.map_err(at)?;
        }
        let began = xmin_barrier::xmax(&session).await.map_err(at)?;
        events.send(AttachEvent::Began(id, began)).await.ok();
        Ok(())
    }

    /// The rows that were there before among those that came since the transaction `floor`; `None` where nobody can tell them, and
    /// none is read: the table was rewritten meanwhile.
    async fn older_rows(
        &self,
        session: &Session,
        fit: &Fit,
        kept: Option<OlderRows>,
        floor: u64,
    ) -> Result<Option<Vec<Key>>, Fault> {
        let since = Selection::new(&fit.section, &fit.table, &fit.columns).since(floor);
        let is_known = kept.is_some();
        let older = match kept {
            Some(kept) => kept.among(session, &since).await?,
            None => Vec::new(),
        };
        // Looked at behind the rows: what they showed was not rewritten yet.
        let at = |error: tokio_postgres::Error| session.fault(&error);
        if rewritten_since(session, fit.table.oid, floor).await.map_err(at)? {
            tracing::warn!(section = %self.section.name, "its table was rewritten while the section waited: it begins behind \
            the transactions that it waited for, whose rows cannot be told from older ones and are not delivered");
            return Ok(None);
        }
        if !is_known {
            // A process that ended has seen these transactions open: how the table was then, nobody knows now.
            tracing::warn!(section = %self.section.name, "older rows that were updated since it was asked for \
            are delivered, too: they cannot be told from new ones");
        }
        Ok(Some(older))
    }

    /// Waits until the transactions have ended that are open now and have written to the table. Keeps how that was before any of
    /// them ended, where their rows must be read.
    async fn outlast_writers(
        &mut self,
        session: &Session,
        config: &Config,
        table: u32,
        events: &mpsc::Sender<AttachEvent>,
    ) -> Result<Option<OlderRows>, Fault> {
        let writers = async || writers::writers(session, table).await.map_err(|error| session.fault(&error));
        let mut left = writers().await?;
        let mut kept = None;
        if self.section.start == Start::Now && self.writers_from.is_none() && !left.is_empty() {
            kept = Some(OlderRows::keep(&self.server, &config.source).await?);
            // Whoever has ended by now may be in the picture: that was a short transaction.
            let open = writers().await?;
            left.retain(|writer| open.iter().any(|open| open.transaction == writer.transaction));
        }
        let (began, mut pause, mut told) = (Instant::now(), Duration::from_millis(10), None::<Instant>);
        let mut said = false;
        while let Some(oldest) = left.first() {
            if began.elapsed() > GRACE && told.is_none_or(|told| told.elapsed() > Duration::from_secs(1)) {
                told = Some(Instant::now());
                if self.section.start == Start::Now {
                    self.writers_from = Some(self.writers_from.map_or(oldest.xid, |from| from.min(oldest.xid)));
                }
                let what = "it is attached when transactions have ended that wrote to its table before the publication carried it";
                let blockers: Vec<_> = left.iter().map(|writer| writer.blocker.clone()).take(5).collect();
                let fault = setup::held_up(what, &blockers, session);
                if !std::mem::replace(&mut said, true) {
                    let (what, remedy) = (&fault.what, &fault.remedy);
                    tracing::warn!(section = %self.section.name, what, remedy, "the section waits");
                }
                if events.send(AttachEvent::Waits(self.id, fault, self.writers_from)).await.is_err() {
                    return Ok(None);
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
            let open: Vec<Writer> = writers().await?;
            left.retain(|writer| open.iter().any(|open| open.transaction == writer.transaction));
        }
        Ok(kept)
    }
}
