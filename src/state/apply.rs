//! The one way in which the leader writes: a list of [`Op`]s, all or nothing, once, under its epoch.
//!
//! * In: the leader's [`Epoch`], and a list.
//! * Out: durable, or an error by fate. One round trip: a statement that must change a row and finds none is an error, so that the
//!   COMMIT sent behind it is none. Several lists may be under way at once.
//! * Never: half a list; a list twice; a list of a leader whose epoch is past.
//!
//! A COMMIT whose answer is lost may have happened. So every list has a number, which the fence writes beside the epoch
//! in the same transaction, with a digest of the list: applied again, the fence finds its own number there already. The fence
//! takes only the number that follows, so that lists sent one behind the other are applied in order or not at all.

use std::future::{Future, poll_fn};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use futures_util::future::{MaybeDone, maybe_done};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::model::Fault;
use crate::state::model::Op;
use crate::state::state_error::StateError;
use crate::state::store::{Epoch, Store};
use crate::state::write_sql::Write;
use crate::state::writes::{BoundParam, Under, statements};

const DOING: &str = "writing";

/// A list that was sent; done when its answer is there.
pub(crate) type Launched<'a> = MaybeDone<Pin<Box<dyn Future<Output = Result<(), StateError>> + Send + 'a>>>;

/// The statements of an ordinary batch, from its announcement to its end.
const EVERY_BATCH: [Write; 6] =
    [Write::Fence, Write::Sending, Write::Ended, Write::Keys, Write::Tally, Write::Checkpoint];

type Flight<'a> = Pin<Box<dyn Future<Output = Result<u64, Error>> + Send + 'a>>;

impl Store {
    /// Sends a list, which is applied in order, in one transaction, if the term's epoch still holds; and does not wait for the answer.
    /// It is the list that comes `ahead` lists after the next one: the fence keeps them in order, so that one whose forerunner failed
    /// is not applied. The statements must have been prepared.
    ///
    /// After [`StateError::Unavailable`], and where the answer was not waited for, nobody knows whether the list was applied:
    /// send **the same lists again with the same term** (on a new `Store`, where the connection broke) before any other. Each is
    /// applied once. [`StateError::Fenced`] and [`StateError::Unwritable`] wrote nothing.
    pub(crate) async fn launch(&self, term: &mut Epoch, ahead: usize, ops: Arc<Vec<Op>>) -> Launched<'_> {
        let under = term.next(ahead, &ops);
        self.sent.store(term.sent, Ordering::Relaxed);
        let sent: Pin<Box<dyn Future<Output = Result<(), StateError>> + Send + '_>> =
            Box::pin(async move { self.write(under, &ops).await });
        let mut launched = maybe_done(sent);
        // The first poll is what sends it.
        let _answered: Poll<()> = poll_fn(|cx| Poll::Ready(Pin::new(&mut launched).poll(cx))).await;
        launched
    }

    /// Sends everything from BEGIN to COMMIT at once, and says what the answers mean. Where a statement fails, the server makes a
    /// rollback of the COMMIT behind it.
    async fn write(&self, under: Under, ops: &[Op]) -> Result<(), StateError> {
        let bound = statements(under, ops, |text| self.text(text));
        let written: Vec<Write> = bound.iter().map(|bound| bound.write).collect();
        let results = self.bounded(DOING, async { Ok(self.fly(bound).await) }).await?;
        match self.check(&written, results)? {
            ApplyFate::Written => Ok(()),
            ApplyFate::NotOurs => self.why_not_ours(under).await,
        }
    }

    /// Whether every statement of the list is prepared.
    pub(crate) fn is_prepared_for(&self, ops: &[Op]) -> bool {
        needed(ops).all(|write| self.prepared.contains_key(&write))
    }

    /// Prepares, in one round trip, what the list needs and was not prepared yet; at first what every batch needs. Nothing may
    /// be under way.
    pub(crate) async fn prepare(&mut self, ops: &[Op]) -> Result<(), StateError> {
        self.settle().await?;
        let mut missing: Vec<Write> = needed(ops).filter(|write| !self.prepared.contains_key(write)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        missing.extend(EVERY_BATCH.into_iter().filter(|write| !self.prepared.contains_key(write)));
        missing.sort_unstable();
        missing.dedup();
        let store: &Store = self;
        let prepared = missing.into_iter().map(async |write| {
            let sql = store.place.schema.sql(&write.checked_sql());
            Ok((write, store.bounded("preparing", store.client.prepare(&sql)).await?))
        });
        let prepared = futures_util::future::try_join_all(prepared).await?;
        self.prepared.extend(prepared);
        Ok(())
    }

    /// Sends BEGIN, all statements and COMMIT at once, in order, and gathers their answers.
    async fn fly(&self, bound: Vec<BoundParam<'_>>) -> Vec<Result<u64, Error>> {
        let mut flights: Vec<MaybeDone<Flight<'_>>> = Vec::with_capacity(bound.len() + 2);
        let plain = |sql| -> Flight<'_> { Box::pin(async move { self.client.batch_execute(sql).await.map(|()| 0) }) };
        flights.push(maybe_done(plain("BEGIN")));
        for BoundParam { write, params } in bound {
            let statement = &self.prepared[&write];
            let flight: Flight<'_> = Box::pin(self.client.execute_raw(statement, params));
            flights.push(maybe_done(flight));
        }
        flights.push(maybe_done(plain("COMMIT")));
        // The first poll of each is what sends it: in order. The answers come in order too.
        poll_fn(|cx| {
            for flight in &mut flights {
                let _answered: Poll<()> = Pin::new(flight).poll(cx);
            }
            Poll::Ready(())
        })
        .await;
        let mut results = Vec::with_capacity(flights.len());
        for mut flight in flights {
            Pin::new(&mut flight).await;
            results.extend(Pin::new(&mut flight).take_output());
        }
        results
    }

    /// What the answers mean. The fence is judged first: where the epoch is past, that is why later statements failed.
    fn check(&self, written: &[Write], results: Vec<Result<u64, Error>>) -> Result<ApplyFate, StateError> {
        let classified = |error: Error| self.place.classify(DOING, &error);
        let mut results = results.into_iter();
        results.next().transpose().map_err(classified)?;
        for (write, result) in written.iter().zip(&mut results) {
            let changed = match result {
                Err(error) if write.must_change() && error.code() == Some(&SqlState::DIVISION_BY_ZERO) => 0,
                result => result.map_err(classified)?,
            };
            match (write, changed) {
                (Write::Fence, 0) => return Ok(ApplyFate::NotOurs),
                (Write::Checkpoint | Write::Halted | Write::AttachXids | Write::Defined, 0) => {
                    return Err(self.place.no_section(DOING));
                }
                (Write::Sending, 0) => {
                    let what = "a ledger row that has ended was to be sent again under its old id";
                    return Err(StateError::Unwritable(Fault::bug(what)));
                }
                // The rows are settled all the same: to stop here would only send them again.
                (Write::Retrying | Write::Ended | Write::Unresolved, 0) => {
                    tracing::warn!("a row of the ledger was removed, or ended, while its batch was under way");
                }
                (_, _) => {}
            }
        }
        results.next().transpose().map_err(classified)?;
        Ok(ApplyFate::Written)
    }

    /// Why the fence found no row: the list was applied before (fine), or this is no longer the leader's state.
    ///
    /// A list that was sent after this one may have been applied since, which it can only have been on top of this one.
    async fn why_not_ours(&self, under: Under) -> Result<(), StateError> {
        let asked = "SELECT epoch, applied_seq, applied_digest FROM {schema}.instance WHERE id = 1";
        let rows = self.query(DOING, asked, &[]).await?;
        let row = rows.first().ok_or_else(|| self.place.no_instance())?;
        let (epoch, seq, digest): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        match (epoch.cmp(&under.epoch), seq.cmp(&under.seq)) {
            (std::cmp::Ordering::Equal, std::cmp::Ordering::Equal) if digest == under.digest => Ok(()),
            (std::cmp::Ordering::Equal, std::cmp::Ordering::Equal) => Err(StateError::Unwritable(Fault::bug(
                "another list of writes than the one whose answer was lost was applied after it",
            ))),
            (std::cmp::Ordering::Equal, std::cmp::Ordering::Less) | (std::cmp::Ordering::Less, _) => {
                Err(self.place.older_copy(seq, under.seq - 1))
            }
            (std::cmp::Ordering::Equal, std::cmp::Ordering::Greater) if seq <= self.sent.load(Ordering::Relaxed) => {
                Ok(())
            }
            // Another process took a later epoch, or writes under this one.
            (std::cmp::Ordering::Equal | std::cmp::Ordering::Greater, _) => Err(StateError::Fenced),
        }
    }
}

/// The fence's answer.
enum ApplyFate {
    Written,
    NotOurs,
}

impl Epoch {
    /// What the list is written under that comes `ahead` lists after the next one.
    fn next(&mut self, ahead: usize, ops: &[Op]) -> Under {
        let seq = self.seq + 1 + i64::try_from(ahead).unwrap_or(0);
        self.sent = self.sent.max(seq);
        Under { epoch: self.epoch, seq, digest: digest(ops) }
    }

    /// The next list is durable.
    pub(crate) fn durable(&mut self) {
        self.seq += 1;
    }
}

/// The statements of a list.
fn needed(ops: &[Op]) -> impl Iterator<Item = Write> {
    let tally = ops.iter().any(|op| matches!(op, Op::Keys { .. })).then_some(Write::Tally);
    ops.iter().filter_map(write_of).chain([Write::Fence]).chain(tally)
}

fn write_of(op: &Op) -> Option<Write> {
    match op {
        Op::Sending { .. } => Some(Write::Sending),
        Op::Retrying { .. } => Some(Write::Retrying),
        Op::Ended { .. } => Some(Write::Ended),
        Op::Keys { .. } => Some(Write::Keys),
        Op::Unresolved { .. } => Some(Write::Unresolved),
        Op::Withdrawn { .. } => Some(Write::Withdrawn),
        Op::SectionCheckpoint { .. } => Some(Write::Checkpoint),
        Op::Streamed { .. } => Some(Write::Streamed),
        Op::Quarantine(_) => Some(Write::Quarantine),
        Op::Unquarantine(_) => Some(Write::Unquarantine),
        Op::Published { .. } => Some(Write::Published),
        Op::Halted { .. } => Some(Write::Halted),
        Op::Attach { .. } => Some(Write::Attach),
        Op::Defined { .. } => Some(Write::Defined),
        Op::RulesSince { .. } => Some(Write::RulesSince),
        Op::AttachXids { .. } => Some(Write::AttachXids),
        Op::OpenGap(_) => Some(Write::OpenGap),
        Op::CoverGaps { .. } => Some(Write::CoverGaps),
        Op::CloseGaps { .. } => Some(Write::CloseGaps),
        Op::Handled { .. } => Some(Write::Handled),
        Op::Seen { .. } => Some(Write::Seen),
        Op::Forget { .. } => Some(Write::Forget),
        Op::Compared { .. } => Some(Write::Compared),
        Op::Checkpoint { .. } => None,
    }
}

/// A digest that tells one list from another; only the process that wrote the list compares it.
fn digest(ops: &[Op]) -> i64 {
    let mut hasher = DefaultHasher::new();
    ops.hash(&mut hasher);
    hasher.finish().cast_signed()
}
