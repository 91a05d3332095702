//! Holds a section that is attached against its table, as the configuration has it now: beside the loop, by the judgement of a
//! start.
//!
//! * In: a section that was written anew, or whose table did not fit.
//! * Out: one [`AttachEvent`]: what is read of its table and how that becomes items; or why it does not fit.
//! * Never: another table than the one attached.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::config::{Config, Section};
use crate::model::{Exit, Fault, SectionId};
use crate::postgres::backfill::selection::{SESSION, Selection};
use crate::postgres::catalog::types::Types;
use crate::postgres::catalog::xmin_barrier;
use crate::runtime::attach;
use crate::runtime::attacher::{AttachEvent, Refit};
use crate::runtime::event_loop::value_reader;
use crate::runtime::same_server::SameServer;
use crate::runtime::section_changes::key_changed;
use crate::runtime::table_fit::{describe, refusal};
use crate::runtime::update_stream;
use crate::state::SectionRow;

/// A section that is looked at again.
#[derive(Debug)]
pub(crate) struct Refitter {
    pub id: SectionId,
    /// Where the stream comes from.
    pub server: SameServer,
    pub section: Section,
    pub config: Arc<Config>,
    /// What it is attached to.
    pub row: SectionRow,
    /// How long it waits first.
    pub after: Duration,
    /// Somebody waits for the answer: it is said, too, where it does not fit.
    pub asked: bool,
    /// The key of a row that could not be read, and must be.
    pub unread: Option<String>,
}

impl Refitter {
    /// Ends when that is known.
    pub(crate) async fn run(self, events: mpsc::Sender<AttachEvent>) {
        tokio::time::sleep(self.after).await;
        let known = loop {
            match self.attempt(&events).await {
                Ok(refit) => break AttachEvent::Refitted(self.id, Box::new(refit)),
                Err(fault) if fault.exit == Exit::Unavailable => tokio::time::sleep(Duration::from_secs(1)).await,
                Err(fault) if self.asked => break AttachEvent::Unfitting(self.id, fault),
                Err(_) => return,
            }
        };
        // Where the loop has ended, the next one compares the section itself.
        events.send(known).await.ok();
    }

    async fn attempt(&self, events: &mpsc::Sender<AttachEvent>) -> Result<Refit, Fault> {
        let session = self.server.connect(&self.config.source, "reload").await?;
        let at = |error: tokio_postgres::Error| session.fault(&error);
        let types = Types::load(&session).await.map_err(at)?;
        let fitted_at = xmin_barrier::insert_lsn(&session).await.map_err(at)?;
        let fit = describe(&self.config, &session, &types, &self.section, Some(&self.row)).await.map_err(at)??;
        if let Some(fault) = key_changed(&fit.section, &self.row) {
            return Err(fault);
        }
        if fit.table.oid != self.row.attachment.table_oid {
            let what = format!("section {}: {} is another table", self.section.name, self.section.table);
            return Err(Fault::needs_person(what, "restart: the section is attached anew to it"));
        }
        if let Some(fault) = refusal(&self.config, &session, &fit, Some(&self.row)).await.map_err(at)? {
            return Err(fault);
        }
        if fit.section.sends_updates() {
            let updates = update_stream::carry(&self.config, &session, &fit.table, &|_| {}).await?;
            events.send(AttachEvent::Updates(updates)).await.ok();
        }
        if let Some(key) = &self.unread {
            session.batch_execute(SESSION).await.map_err(at)?;
            let selection = attach::as_attached(Selection::new(&fit.section, &fit.table, &fit.columns), &self.row);
            value_reader::row_of(&session, (&selection, fit.table.oid), key).await?;
        }
        Ok(Refit { config: Arc::clone(&self.config), fit, fitted_at, asked: self.asked })
    }
}
