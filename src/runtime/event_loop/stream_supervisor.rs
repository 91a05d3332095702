//! What comes by the stream, and what the end of a stream means.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::delivery::Route;
use crate::mapping::{Mapping, MappingFault};
use crate::model::Fault;
use crate::postgres::catalog::types::Types;
use crate::postgres::connection::session::connect_sql;
use crate::postgres::replication::event::{EndReason, StreamEnd, StreamEvent};
use crate::postgres::replication::row_decoder::{DecodedItem, DecodedTable};
use crate::postgres::replication::stream::Stream;
use crate::runtime::event_loop::{EventLoop, LoopExit};
use crate::runtime::start_error::NeedsPerson;
use crate::telemetry::status_document::Reason;

/// The same end so often, and nothing confirmed in between, is no accident.
const WEDGED: u32 = 3;
/// How long a server may be silent at the most before it is connected to again.
const MOST_PATIENCE: Duration = Duration::from_secs(300);

/// The longest that the loop waits for the catalog.
const LOOK_UP: Duration = Duration::from_secs(5);

/// How long a type that no snapshot sees is waited for, before it is held to be dropped.
const UNSEEN: Duration = Duration::from_secs(30);

/// What interrupts the reading of a run.
enum Halt {
    Table(DecodedTable),
    End,
}

impl EventLoop {
    pub(crate) async fn on_event(&mut self, event: Option<StreamEvent>) {
        match event {
            Some(StreamEvent::Started) => {
                self.reconnect.failures = 0;
                self.down = None;
            }
            Some(StreamEvent::Run(run)) => {
                self.board.wire.touch();
                self.reconnect.failures = 0;
                self.down = None;
                self.decoder.feed(run);
                self.read_run().await;
            }
            Some(StreamEvent::Ended(ended)) => self.on_ended(ended),
            None => {
                let fault = Fault::bug("the stream's thread ended without a word");
                self.on_ended(StreamEnd { fate: EndReason::Transient, fault });
            }
        }
    }

    /// Reads a run to its end. A table's description may need the catalog; nothing else waits.
    async fn read_run(&mut self) {
        loop {
            match self.read_until_table() {
                Ok(Halt::Table(table)) => {
                    self.on_table(table).await;
                    if self.stream.is_none() {
                        return;
                    }
                }
                Ok(Halt::End) => return,
                Err(fault) => {
                    self.ending = Some(LoopExit::NeedsPerson(NeedsPerson { reason: Reason::Wedged, fault }));
                    return;
                }
            }
        }
    }

    fn read_until_table(&mut self) -> Result<Halt, Fault> {
        let now = self.clock.elapsed();
        loop {
            let item = self.decoder.next_item().map_err(|error| {
                Fault::needs_person(
                    format!("the replication stream cannot be read: {error}"),
                    "report it with the server's version",
                )
            })?;
            match item {
                None => return Ok(Halt::End),
                Some(DecodedItem::Insert(oid, row)) => self.engine.insert(oid, &row, now),
                Some(DecodedItem::Begin(final_lsn, micros, _xid)) => self.engine.begin(final_lsn, micros),
                Some(DecodedItem::Commit(end_lsn)) => self.engine.commit(end_lsn),
                Some(DecodedItem::Keepalive(wal_end)) => self.engine.keepalive(wal_end),
                Some(DecodedItem::Ignored(kind)) => self.board.metrics.ignored(kind),
                Some(DecodedItem::Table(table)) => return Ok(Halt::Table(table)),
            }
        }
    }

    /// A table's columns, from here on: its sections' mappings are compiled anew.
    async fn on_table(&mut self, table: DecodedTable) {
        let Some(lanes) = self.tables.get(&table.oid).cloned() else { return };
        if !self.knows_types_of(&table).await {
            return;
        }
        let columns = self.types.columns(&table.columns);
        let names = self.config.planhat.bulk_activity_names;
        let mut routes = Vec::new();
        for lane in lanes {
            let run = &self.lanes[lane];
            let section = &self.sections[run.section].section;
            let mapping = Mapping::compile(section, names, &columns).map(Rc::new).map_err(|faults| misfit(&faults));
            routes.push(Route { lane, mapping });
        }
        self.engine.set_routes(table.oid, routes);
    }

    /// Whether the types of a table's columns are known. If not, the stream begins again until they are: a domain taken for
    /// text could refuse its rows, or send a number as text.
    async fn knows_types_of(&mut self, table: &DecodedTable) -> bool {
        let unknown = |types: &Types| -> Vec<u32> {
            table.columns.iter().map(|(_, oid)| *oid).filter(|oid| !types.knows(*oid)).collect()
        };
        let asked = unknown(&self.types);
        if asked.is_empty() {
            return true;
        }
        if let Err(fault) = self.learn_types(&asked).await {
            tracing::warn!(what = fault.what, "the database's types cannot be read: the stream begins again");
            self.rewind();
            self.reconnect.at = Instant::now() + Duration::from_secs(1);
            self.down.get_or_insert((Instant::now(), fault));
            return false;
        }
        let unseen = unknown(&self.types);
        let Some(since) = unseen.first().map(|oid| *self.unseen.entry(*oid).or_insert_with(Instant::now)) else {
            return true;
        };
        let table = format!("{}.{}", table.schema, table.name);
        if since.elapsed() > UNSEEN {
            tracing::warn!(table, oids = ?unseen, "types of columns are gone: their values are taken as text");
            unseen.iter().for_each(|oid| self.types.give_up(*oid));
            return true;
        }
        tracing::info!(table, oids = ?unseen, "a type of a column cannot be seen yet: the stream begins again");
        self.rewind();
        self.reconnect.at = Instant::now() + UNSEEN / 60;
        false
    }

    /// Reads the database's types, on a new connection where the old one has died.
    async fn learn_types(&mut self, oids: &[u32]) -> Result<(), Fault> {
        let late = |_| Fault::unavailable("the server does not answer", "check the server and the network");
        if self.control.is_closed() {
            let connecting = connect_sql(&self.config.source, "control");
            self.control = tokio::time::timeout(LOOK_UP, connecting).await.map_err(late)??;
        }
        let learnt = tokio::time::timeout(LOOK_UP, self.types.learn(&self.control, oids)).await.map_err(late)?;
        learnt.map_err(|error| self.control.fault(&error))
    }

    fn on_ended(&mut self, ended: StreamEnd) {
        self.stream = None;
        let needs = |reason| Some(LoopExit::NeedsPerson(NeedsPerson::repair(reason, ended.fault.what.clone())));
        match ended.fate {
            EndReason::Stopped => {}
            EndReason::Moved => {
                tracing::warn!(what = ended.fault.what, "comparing everything anew");
                self.ending = Some(LoopExit::Again);
            }
            EndReason::PublicationMissing => self.ending = needs(Reason::PublicationChanged),
            EndReason::SlotMissing => self.ending = needs(Reason::SlotMissing),
            EndReason::SlotLost => self.ending = needs(Reason::SlotLost),
            EndReason::SlotActive
                if self.down.as_ref().is_some_and(|(since, _)| since.elapsed() > Duration::from_secs(60)) =>
            {
                tracing::warn!("another process holds the slot: beginning again as standby");
                self.ending = Some(LoopExit::Again);
            }
            EndReason::Wedged => {
                let (at, times) = self.reconnect.wedged;
                let times = if at == self.engine.confirmed() { times + 1 } else { 1 };
                self.reconnect.wedged = (self.engine.confirmed(), times);
                if times >= WEDGED {
                    self.ending =
                        Some(LoopExit::NeedsPerson(NeedsPerson { reason: Reason::Wedged, fault: ended.fault.clone() }));
                }
            }
            // It may be away, or decode something long: then the same patience would end every try before its first word.
            EndReason::Silent => self.begin.patience = (self.begin.patience * 2).min(MOST_PATIENCE),
            EndReason::Transient | EndReason::SlotActive | EndReason::Shutdown | EndReason::Refused => {}
        }
        if ended.fate == EndReason::Stopped && self.down.is_none() {
            // StreamEnd by us, to begin again: at once.
            self.reconnect.at = Instant::now();
            return;
        }
        self.reconnect.failures += 1;
        let delay = crate::model::backoff::delay(self.reconnect.failures.min(6), None, fastrand::f64())
            .min(Duration::from_secs(10));
        self.reconnect.at = Instant::now() + delay;
        self.board.metrics.reconnects_total.inc();
        if self.reconnect.failures <= 3 || self.reconnect.failures.is_multiple_of(10) {
            tracing::warn!(
                what = ended.fault.what,
                remedy = ended.fault.remedy,
                again_in_ms = delay.as_millis(),
                "the stream has ended"
            );
        }
        let since = self.down.take().map_or_else(Instant::now, |(since, _)| since);
        self.down = Some((since, ended.fault));
    }

    /// Opens the stream again, from the durable checkpoint, when its time has come.
    pub(crate) fn reopen(&mut self) {
        if self.stream.is_some() || Instant::now() < self.reconnect.at || self.ending.is_some() {
            return;
        }
        if self.engine.confirmed() > self.begin.from {
            self.begin.patience = crate::runtime::PATIENCE;
        }
        self.begin.from = self.engine.confirmed();
        match Stream::open(self.config.source.clone(), self.begin.clone()) {
            Ok(stream) => {
                self.engine.stream_restarts();
                self.stream = Some(stream);
            }
            Err(error) => {
                tracing::error!(%error, "no thread for the stream");
                self.reconnect.at = Instant::now() + Duration::from_secs(5);
            }
        }
    }

    /// The stream is read again from the checkpoint: rows were left out that can be taken now.
    pub(crate) fn rewind(&mut self) {
        if let Some(stream) = self.stream.take() {
            tracing::info!(from = %self.engine.confirmed(), "reading the stream again from the checkpoint");
            stream.control.stop();
            self.tasks.spawn(stream.close(Duration::from_secs(5)));
        }
        self.reconnect.at = Instant::now();
    }
}

/// What does not fit, and the first thing to do about it.
fn misfit(faults: &[MappingFault]) -> (String, String) {
    let what = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    (what, faults.first().map(MappingFault::remedy).unwrap_or_default())
}
