//! The replication stream of the event loop: opened, read, let go, and opened again.
//!
//! * In: the stream's events; the durable checkpoint.
//! * Out: decoded items; what the end of a stream means for the loop.
//! * Never: a stream opened from behind the durable checkpoint.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::config::Source;
use crate::model::{Column, Fault, Lsn};
use crate::postgres::replication::event::{EndReason, StreamEnd, StreamEvent, StreamStart, UpdateStream};
use crate::postgres::replication::row_decoder::{DecodedItem, DecodedTable, Decoder};
use crate::postgres::replication::stream::Stream;
use crate::runtime::event_loop::loop_exit::LoopExit;
use crate::runtime::event_loop::type_catalog::{ColumnTypes, TypeCatalog};
use crate::runtime::start_error::NeedsPerson;
use crate::telemetry::status_document::Reason;
use crate::telemetry::{Age, Metrics};

/// The same end this often, with nothing confirmed in between, will come again.
const WEDGED: u32 = 3;
/// How long a server may be silent at the most before it is connected to again.
const MOST_PATIENCE: Duration = Duration::from_secs(300);
/// How long the slot may be held by another before this process waits as standby.
const SLOT_HELD: Duration = Duration::from_secs(60);
/// How often the server is asked how far it has read, while a chunk waits for it.
pub(crate) const PING: Duration = Duration::from_millis(5);

/// The plan for the next connection.
#[derive(Debug)]
struct Reconnect {
    at: Instant,
    failures: u32,
    /// How often in a row the server could not decode, and what was confirmed then.
    wedged: (Lsn, u32),
    /// How long the server may be silent, where it is not known to need more.
    patience: Duration,
}

/// The stream, and everything about its connection.
pub(crate) struct StreamSupervisor {
    source: Source,
    /// Whether there is a slot to be streamed at all.
    is_wanted: bool,
    /// No stream was opened since the one that the start began.
    is_first: bool,
    stream: Option<Stream>,
    decoder: Decoder,
    tables: StreamedTables,
    start: StreamStart,
    reconnect: Reconnect,
    /// Since when the stream is down, and why.
    down: Option<(Instant, Fault)>,
    pinged: Instant,
    gauges: StreamGauges,
}

/// The tables that the stream brings.
struct StreamedTables {
    types: TypeCatalog,
    /// Those that it has described last, for a section that is attached later: as many as the publication has.
    described: HashMap<u32, DecodedTable>,
    /// Their columns, in the order of rows.
    columns: HashMap<u32, Vec<Column>>,
}

/// What the metrics tell of the stream.
struct StreamGauges {
    metrics: Arc<Metrics>,
    /// The time since the server's last message.
    wire: Age,
}

impl StreamSupervisor {
    pub(crate) fn new(
        source: Source,
        (stream, start): (Option<Stream>, StreamStart),
        types: TypeCatalog,
        checkpoint: Lsn,
        metrics: Arc<Metrics>,
        wire: Age,
    ) -> StreamSupervisor {
        let now = Instant::now();
        let patience = start.patience;
        let decoder = Decoder::new(types.charset(&source));
        StreamSupervisor {
            source,
            is_wanted: stream.is_some(),
            is_first: true,
            stream,
            decoder,
            tables: StreamedTables { types, described: HashMap::new(), columns: HashMap::new() },
            start,
            reconnect: Reconnect { at: now, failures: 0, wedged: (checkpoint, 0), patience },
            down: None,
            pinged: now,
            gauges: StreamGauges { metrics, wire },
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether the stream is the one that the start began.
    pub(crate) fn is_first(&self) -> bool {
        self.is_first
    }

    /// The stream's next event. Never ends while there is no stream.
    pub(crate) async fn event(&mut self) -> Option<StreamEvent> {
        match &mut self.stream {
            Some(stream) => stream.events.recv().await,
            None => std::future::pending().await,
        }
    }

    /// Tells the stream's thread that the loop lives.
    pub(crate) fn beat(&self) {
        if let Some(stream) = &self.stream {
            stream.control.beat();
        }
    }

    /// Lets the slot move to `lsn`.
    pub(crate) fn confirm(&self, lsn: Lsn) {
        if let Some(stream) = &self.stream {
            stream.control.confirm(lsn);
        }
    }

    /// Asks the server how far it has read, at most once per [`PING`].
    pub(crate) fn ping(&mut self) {
        if self.pinged.elapsed() >= PING
            && let Some(stream) = &self.stream
        {
            self.pinged = Instant::now();
            stream.control.ping();
        }
    }

    /// How long the server has said nothing.
    pub(crate) fn silence(&self) -> Duration {
        self.stream.as_ref().map_or(Duration::ZERO, |stream| stream.control.silence())
    }

    /// Why the stream is down.
    pub(crate) fn fault(&self) -> Option<&Fault> {
        self.down.as_ref().map(|(_, fault)| fault)
    }

    /// The server has begun to stream.
    pub(crate) fn started(&mut self) {
        self.reconnect.failures = 0;
        self.down = None;
    }

    /// The server's bytes have come: their items follow.
    pub(crate) fn feed(&mut self, run: Bytes) {
        self.gauges.wire.touch();
        self.started();
        self.decoder.feed(run);
    }

    /// Whether not all that was fed is read.
    pub(crate) fn has_unread(&self) -> bool {
        self.decoder.has_unread()
    }

    /// The next item of what was fed.
    pub(crate) fn next_item(&mut self) -> Result<Option<DecodedItem<'_>>, LoopExit> {
        self.decoder.next_item().map_err(|error| {
            let fault = Fault::needs_person(
                format!("the replication stream cannot be read: {error}"),
                "report it with the server's version",
            );
            LoopExit::NeedsPerson(NeedsPerson { reason: Reason::Wedged, fault })
        })
    }

    /// Keeps what the stream says of a table.
    pub(crate) fn remember(&mut self, table: &DecodedTable) {
        self.tables.described.insert(table.oid, table.clone());
    }

    /// What the stream has said of a table.
    pub(crate) fn described(&self, oid: u32) -> Option<DecodedTable> {
        self.tables.described.get(&oid).cloned()
    }

    /// The columns of a table; where a type is not known yet, `Later`, and the stream is to be rewound.
    pub(crate) async fn columns(&mut self, table: &DecodedTable) -> ColumnTypes {
        self.tables.types.columns(&self.source, table).await
    }

    /// A table's rows have these columns from here on.
    pub(crate) fn name_columns(&mut self, oid: u32, columns: Vec<Column>) {
        self.tables.columns.insert(oid, columns);
    }

    /// What a column of a table's rows is called.
    pub(crate) fn column_name(&self, oid: u32, column: usize) -> Option<&str> {
        self.tables.columns.get(&oid)?.get(column).map(|column| column.name.as_str())
    }

    /// The stream has ended. Returns how the loop ends with it, if it does.
    pub(crate) fn on_ended(&mut self, ended: StreamEnd, confirmed: Lsn) -> Option<LoopExit> {
        self.stream = None;
        let exit = self.judge(&ended, confirmed);
        if ended.fate == EndReason::Stopped && self.down.is_none() {
            // The loop ended it, to begin again: at once.
            self.reconnect.at = Instant::now();
            return exit;
        }
        self.reconnect.failures += 1;
        let delay = crate::model::backoff::delay(self.reconnect.failures.min(6), None, fastrand::f64())
            .min(Duration::from_secs(10));
        self.reconnect.at = Instant::now() + delay;
        self.gauges.metrics.reconnects_total.inc();
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
        exit
    }

    fn judge(&mut self, ended: &StreamEnd, confirmed: Lsn) -> Option<LoopExit> {
        let repair = |reason| Some(LoopExit::repair(reason, ended.fault.what.clone()));
        match ended.fate {
            EndReason::Moved => {
                tracing::warn!(what = ended.fault.what, "the server or the slot has moved: comparing everything again");
                Some(LoopExit::Again)
            }
            EndReason::PublicationMissing => repair(Reason::PublicationChanged),
            EndReason::SlotMissing => repair(Reason::SlotMissing),
            EndReason::SlotLost => repair(Reason::SlotLost),
            EndReason::SlotActive if self.down.as_ref().is_some_and(|(since, _)| since.elapsed() > SLOT_HELD) => {
                tracing::warn!("another process holds the slot: beginning again as standby");
                Some(LoopExit::Again)
            }
            EndReason::Wedged => {
                let (at, times) = self.reconnect.wedged;
                let times = if at == confirmed { times + 1 } else { 1 };
                self.reconnect.wedged = (confirmed, times);
                let fault = || NeedsPerson { reason: Reason::Wedged, fault: ended.fault.clone() };
                (times >= WEDGED).then(|| LoopExit::NeedsPerson(fault()))
            }
            // It may be away, or decode something long: then the same patience would end every try before its first word.
            EndReason::Silent => {
                self.start.patience = (self.start.patience * 2).min(MOST_PATIENCE);
                None
            }
            EndReason::Stopped
            | EndReason::Transient
            | EndReason::SlotActive
            | EndReason::Shutdown
            | EndReason::Refused => None,
        }
    }

    /// Opens the stream again, from the durable checkpoint or from where what was read is to come once more, when its time has
    /// come. Returns whether it was opened.
    pub(crate) fn reopen(&mut self, confirmed: Lsn, again_from: Option<Lsn>) -> bool {
        if !self.is_wanted || self.stream.is_some() || Instant::now() < self.reconnect.at {
            return false;
        }
        if confirmed > self.start.from {
            self.start.patience = self.reconnect.patience;
        }
        (self.start.from, self.start.again_from) = (confirmed, again_from);
        self.is_first = false;
        match Stream::open(self.source.clone(), self.start.clone()) {
            Ok(stream) => {
                self.stream = Some(stream);
                // What the stream before has left comes again.
                self.decoder.feed(Bytes::new());
                true
            }
            Err(error) => {
                tracing::error!(%error, "no thread for the stream");
                self.reconnect.at = Instant::now() + Duration::from_secs(5);
                false
            }
        }
    }

    /// Whether the stream brings updates.
    pub(crate) fn carries_updates(&self) -> bool {
        self.start.named_updates().is_some()
    }

    /// The publication of updates is there by now.
    pub(crate) fn set_updates(&mut self, updates: UpdateStream) {
        self.start.updates = Some(updates);
    }

    /// From here on updates can be decoded.
    pub(crate) fn set_updates_from(&mut self, from: Lsn) {
        if let Some(updates) = &mut self.start.updates {
            updates.from = Some(from);
        }
    }

    /// From where the stream is to be opened again, so that it brings updates, where it does not yet.
    pub(crate) fn wants_updates_from(&self) -> Option<Lsn> {
        let updates = self.start.updates.as_ref().filter(|_| self.stream.is_some() && !self.carries_updates());
        updates.and_then(|updates| updates.from)
    }

    /// The stream is read again from the checkpoint: rows were left out that can be taken now.
    pub(crate) fn rewind(&mut self, confirmed: Lsn, tasks: &mut JoinSet<()>) {
        if let Some(stream) = self.stream.take() {
            tracing::info!(from = %confirmed, "reading the stream again from the checkpoint");
            stream.control.stop();
            tasks.spawn(stream.close(Duration::from_secs(5)));
        }
        self.reconnect.at = Instant::now();
    }

    /// The stream is read again after `wait`; where that is because of a fault, the stream counts as down.
    pub(crate) fn rewind_after(
        &mut self,
        wait: Duration,
        fault: Option<Fault>,
        confirmed: Lsn,
        tasks: &mut JoinSet<()>,
    ) {
        self.rewind(confirmed, tasks);
        self.reconnect.at = Instant::now() + wait;
        if let Some(fault) = fault {
            self.down.get_or_insert((Instant::now(), fault));
        }
    }

    /// The server goes down. The walsender is let go at once: a server's fast shutdown waits for it.
    pub(crate) fn let_go(&mut self, tasks: &mut JoinSet<()>) {
        if let Some(stream) = self.stream.take() {
            stream.control.stop();
            tasks.spawn(stream.close(Duration::from_secs(2)));
            self.reconnect.failures = self.reconnect.failures.max(2);
            self.reconnect.at = Instant::now() + Duration::from_millis(500);
            let fault = Fault::unavailable("the server is shutting down", "it is connected to again by itself");
            self.down.get_or_insert((Instant::now(), fault));
        }
    }

    /// Ends the stream for good, within `bound`.
    pub(crate) async fn close(&mut self, bound: Duration) {
        if let Some(stream) = self.stream.take() {
            stream.close(bound).await;
        }
    }
}
