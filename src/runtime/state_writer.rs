//! The one writer of the state: lists of operations in order, many in one transaction where many wait.
//!
//! * In: numbered lists from the engine.
//! * Out: the number of the last list that is durable; or why nothing can be written any more.
//! * Never: two lists out of order; a list given up because a connection broke.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::delivery::op_weight;
use crate::model::Fault;
use crate::runtime::state_connector::StateConnector;
use crate::state::apply::Launched;
use crate::state::{Epoch, Op, StateError, Store};

/// Lists that one transaction takes, at most.
const GROUP: usize = 64;

/// Transactions that are under way at once, at most: the next is sent before the one before is answered, so that a state far away
/// costs each batch one round trip and no wait for another batch's.
const UNDER_WAY: usize = 4;

/// Bytes from which on a group takes no further list, and with which no further group is sent: what is sent exists once more as a
/// message and again in the connection's buffer.
const GROUP_BYTES: usize = 256 << 10;
const BYTES_UNDER_WAY: usize = 1 << 20;

/// After so long without a write it checks whether it still leads.
const IDLE: Duration = Duration::from_secs(3);

/// A message of the writer.
#[derive(Debug)]
pub(crate) enum Written {
    /// Everything up to this list is durable.
    Durable(u64),
    /// The state cannot be written just now; it is tried again.
    Waiting(Fault),
    /// It can be written again.
    Recovered,
    /// Another process leads: stop at once.
    Fenced,
    /// A person must mend the state; nothing more is written.
    Unwritable(Fault),
}

/// Lists as one transaction, until they are durable.
struct WriteGroup {
    last: u64,
    weight: usize,
    ops: Arc<Vec<Op>>,
}

/// The writer's ends of its channels, and what is not durable yet.
struct Lists {
    incoming: mpsc::UnboundedReceiver<(u64, Vec<Op>)>,
    told: mpsc::UnboundedSender<Written>,
    /// In order. A group never changes once it is here: it may have been sent.
    groups: VecDeque<WriteGroup>,
    closed: bool,
}

/// Writes until the event loop goes.
pub(crate) async fn run(
    connector: StateConnector,
    mut store: Store,
    mut term: Epoch,
    incoming: mpsc::UnboundedReceiver<(u64, Vec<Op>)>,
    told: mpsc::UnboundedSender<Written>,
) {
    let mut lists = Lists { incoming, told, groups: VecDeque::new(), closed: false };
    let mut failures = 0;
    loop {
        if lists.groups.is_empty() {
            match tokio::time::timeout(IDLE, lists.receive()).await {
                Ok(()) if lists.closed => return,
                Ok(()) => {}
                // A process with nothing to write must still learn that another leads, for example when it was frozen and wakes.
                Err(_) => {
                    if matches!(store.still_leads(&term).await, Err(StateError::Fenced)) {
                        return lists.stop(Written::Fenced).await;
                    }
                    if store.is_closed() {
                        // Nothing waits to be written: whoever has something says why it cannot be.
                        reconnect(&connector, &mut store, 1).await.ok();
                    }
                }
            }
            continue;
        }
        let fault = match write(&mut store, &mut term, &mut lists, &mut failures).await {
            Ok(()) => continue,
            Err(StateError::Fenced) => return lists.stop(Written::Fenced).await,
            Err(StateError::Unwritable(fault)) => return lists.stop(Written::Unwritable(fault)).await,
            Err(StateError::Unavailable(fault)) => fault,
        };
        lists.tell(Written::Waiting(fault));
        failures += 1;
        // Why it cannot be reached says more than that it went away: a password, a certificate.
        while let Err(fault) = reconnect(&connector, &mut store, failures).await {
            failures += 1;
            if lists.told.send(Written::Waiting(fault)).is_err() {
                return;
            }
        }
    }
}

/// Writes the groups that wait and those that come meanwhile, up to [`UNDER_WAY`] at once, until none is left or the next needs a
/// statement that is not prepared.
async fn write(store: &mut Store, term: &mut Epoch, lists: &mut Lists, failures: &mut u32) -> Result<(), StateError> {
    if let Some(group) = lists.groups.front() {
        store.prepare(&group.ops).await?;
    }
    let store: &Store = store;
    let mut under_way: VecDeque<Launched<'_>> = VecDeque::new();
    loop {
        while under_way.len() < UNDER_WAY
            && lists.groups.iter().take(under_way.len()).map(|group| group.weight).sum::<usize>() < BYTES_UNDER_WAY
            && let Some(group) = lists.groups.get(under_way.len())
            && store.is_prepared_for(&group.ops)
        {
            under_way.push_back(store.launch(term, under_way.len(), Arc::clone(&group.ops)).await);
        }
        // What waits for a statement to be prepared waits for all before it.
        let open = !lists.closed && under_way.len() == lists.groups.len() && under_way.len() < UNDER_WAY;
        let Some(first) = under_way.front_mut() else { return Ok(()) };
        tokio::select! {
            // 1. An answer first: it makes room.
            biased;
            () = &mut *first => {}
            // 2. What comes meanwhile is sent behind it.
            () = lists.receive(), if open => continue,
        }
        let answer = Pin::new(first).take_output().unwrap_or(Ok(()));
        answer?;
        under_way.pop_front();
        term.durable();
        if std::mem::take(failures) > 0 {
            lists.tell(Written::Recovered);
        }
        if let Some(group) = lists.groups.pop_front() {
            lists.tell(Written::Durable(group.last));
        }
    }
}

impl Lists {
    /// Waits for a list, and takes with it what else has come, as one group.
    async fn receive(&mut self) {
        let Some((mut last, mut ops)) = self.incoming.recv().await else {
            self.closed = true;
            return;
        };
        let mut weight: usize = ops.iter().map(op_weight::weight).sum();
        for _ in 1..GROUP {
            if weight >= GROUP_BYTES {
                break;
            }
            let Ok((number, more)) = self.incoming.try_recv() else { break };
            last = number;
            weight += more.iter().map(op_weight::weight).sum::<usize>();
            ops.extend(more);
        }
        match self.groups.back_mut() {
            _ if !ops.is_empty() => self.groups.push_back(WriteGroup { last, weight, ops: Arc::new(ops) }),
            // It is durable when the one before is.
            Some(group) => group.last = last,
            None => self.tell(Written::Durable(last)),
        }
    }

    /// Where the receiver is gone, the event loop has ended already, and the next list says so.
    fn tell(&self, written: Written) {
        self.told.send(written).ok();
    }

    /// Tells why nothing more is written, and waits for the event loop to end.
    async fn stop(mut self, written: Written) {
        self.tell(written);
        while self.incoming.recv().await.is_some() {}
    }
}

/// A new connection after a while, where one is needed; or why there is none.
async fn reconnect(connector: &StateConnector, store: &mut Store, failures: u32) -> Result<(), Fault> {
    let delay = crate::model::backoff::delay(failures.min(6), None, fastrand::f64()).min(Duration::from_secs(10));
    tokio::time::sleep(delay).await;
    if store.is_closed() {
        let named = |fault: Fault| Fault { what: format!("the state cannot be reached: {}", fault.what), ..fault };
        *store = connector.store().await.map_err(named)?;
    }
    Ok(())
}
