//! The one way in which the leader writes: a list of [`Op`]s, all or nothing, once, under its epoch.
//!
//! * In: the leader's [`Epoch`], and a list.
//! * Out: durable, or an error by fate. Two round trips: everything up to the last statement, then COMMIT.
//! * Never: half a list; a list twice; a list of a leader whose epoch is past.
//!
//! A COMMIT whose answer is lost may have happened. So every list has a number, which the fence writes beside the epoch
//! in the same transaction, with a digest of the list: applied again, the fence finds its own number there already.

use std::future::{Future, poll_fn};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::task::Poll;

use futures_util::future::{MaybeDone, maybe_done};
use tokio_postgres::Error;

use crate::model::Fault;
use crate::state::model::Op;
use crate::state::state_error::StateError;
use crate::state::store::{Epoch, Store};
use crate::state::writes::{BoundParam, Under, Write, statements};

const DOING: &str = "writing";

type Flight<'a> = Pin<Box<dyn Future<Output = Result<u64, Error>> + Send + 'a>>;

impl Store {
    /// Applies `ops` in order, in one transaction, if the term's epoch still holds.
    ///
    /// After [`StateError::Unavailable`], and where this future was dropped, nobody knows whether the list was applied:
    /// apply **the same list again with the same term** (on a new `Store`, where the connection broke) before any other.
    /// It is applied once.
    ///
    /// # Errors
    /// [`StateError::Fenced`] and [`StateError::Unwritable`] wrote nothing.
    pub(crate) async fn apply(&mut self, term: &mut Epoch, ops: &[Op]) -> Result<(), StateError> {
        let under = Under { epoch: term.epoch, seq: term.seq + 1, digest: digest(ops) };
        self.prepare(ops).await?;
        self.settle().await?;
        let store: &Store = self;
        let bound = statements(under, ops, |text| store.text(text));
        let written: Vec<Write> = bound.iter().map(|bound| bound.write).collect();
        let open = store.opening();
        let results = store.bounded(DOING, async { Ok(store.fly(bound).await) }).await?;
        let checked = store.check(&written, results);
        match checked {
            Ok(ApplyFate::Written) => {
                store.bounded(DOING, store.client.batch_execute("COMMIT")).await?;
                open.ended();
            }
            Ok(ApplyFate::NotOurs) => {
                store.rollback(open).await;
                store.why_not_ours(under).await?;
            }
            Err(error) => {
                store.rollback(open).await;
                return Err(error);
            }
        }
        term.seq = under.seq;
        Ok(())
    }

    /// Prepares what the list needs and was not prepared yet.
    async fn prepare(&mut self, ops: &[Op]) -> Result<(), StateError> {
        let tally = ops.iter().any(|op| matches!(op, Op::Keys { .. })).then_some(Write::Tally);
        let needed = ops.iter().filter_map(write_of).chain([Write::Fence]).chain(tally);
        for write in needed {
            if !self.prepared.contains_key(&write) {
                self.settle().await?;
                let sql = self.place.schema.sql(write.sql());
                let statement = self.bounded("preparing", self.client.prepare(&sql)).await?;
                self.prepared.insert(write, statement);
            }
        }
        Ok(())
    }

    /// Sends BEGIN and all statements at once, in order, and gathers their answers.
    async fn fly(&self, bound: Vec<BoundParam<'_>>) -> Vec<Result<u64, Error>> {
        let mut flights: Vec<MaybeDone<Flight<'_>>> = Vec::with_capacity(bound.len() + 1);
        let begin: Flight<'_> = Box::pin(async { self.client.batch_execute("BEGIN").await.map(|()| 0) });
        flights.push(maybe_done(begin));
        for BoundParam { write, params } in bound {
            let statement = &self.prepared[&write];
            let flight: Flight<'_> = Box::pin(self.client.execute_raw(statement, params));
            flights.push(maybe_done(flight));
        }
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
        let mut results = results.into_iter().map(|result| result.map_err(|error| self.place.classify(DOING, &error)));
        results.next().transpose()?;
        for (write, changed) in written.iter().zip(results) {
            match (write, changed?) {
                (Write::Fence, 0) => return Ok(ApplyFate::NotOurs),
                (Write::Checkpoint | Write::Halted, 0) => return Err(self.place.no_section(DOING)),
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
        Ok(ApplyFate::Written)
    }

    /// Why the fence found no row: the list was applied before (fine), or this is no longer the leader's state.
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
        Op::Handled { .. } => Some(Write::Handled),
        Op::Checkpoint { .. } => None,
    }
}

/// A digest that tells one list from another; only the process that wrote the list compares it.
fn digest(ops: &[Op]) -> i64 {
    let mut hasher = DefaultHasher::new();
    ops.hash(&mut hasher);
    hasher.finish().cast_signed()
}
