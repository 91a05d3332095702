//! The one writer of the state: lists of operations in order, many in one transaction where many wait.
//!
//! * In: numbered lists from the engine.
//! * Out: the number of the last list that is durable; or why nothing can be written any more.
//! * Never: two lists out of order; a list given up because a connection broke.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::model::Fault;
use crate::runtime::state_connector::StateConnector;
use crate::state::{Epoch, Op, StateError, Store};

/// Lists that one transaction takes, at most.
const GROUP: usize = 64;

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

/// Writes until the event loop goes.
pub(crate) async fn run(
    connector: StateConnector,
    mut store: Store,
    mut term: Epoch,
    mut lists: mpsc::UnboundedReceiver<(u64, Vec<Op>)>,
    told: mpsc::UnboundedSender<Written>,
) {
    loop {
        let (mut last, mut ops) = match tokio::time::timeout(IDLE, lists.recv()).await {
            Ok(Some(list)) => list,
            Ok(None) => return,
            // A process with nothing to write must still learn that another leads, for example when it was frozen and wakes.
            Err(_) => {
                if matches!(store.still_leads(&term).await, Err(StateError::Fenced)) {
                    // Where the receiver is gone, the event loop has ended already.
                    told.send(Written::Fenced).ok();
                    return;
                }
                if store.is_closed() {
                    // Nothing waits to be written: whoever has something says why it cannot be.
                    reconnect(&connector, &mut store, 1).await.ok();
                }
                continue;
            }
        };
        for _ in 1..GROUP {
            let Ok((number, more)) = lists.try_recv() else { break };
            last = number;
            ops.extend(more);
        }
        let mut failures = 0;
        loop {
            let result = if ops.is_empty() { Ok(()) } else { store.apply(&mut term, &ops).await };
            let told = match result {
                Ok(()) => {
                    if failures > 0 && told.send(Written::Recovered).is_err() {
                        return;
                    }
                    told.send(Written::Durable(last))
                }
                Err(StateError::Fenced) => told.send(Written::Fenced),
                Err(StateError::Unwritable(fault)) => told.send(Written::Unwritable(fault)),
                Err(StateError::Unavailable(fault)) => {
                    if told.send(Written::Waiting(fault)).is_err() {
                        return;
                    }
                    failures += 1;
                    // Why it cannot be reached says more than that it went away: a password, a certificate.
                    while let Err(fault) = reconnect(&connector, &mut store, failures).await {
                        failures += 1;
                        if told.send(Written::Waiting(fault)).is_err() {
                            return;
                        }
                    }
                    continue;
                }
            };
            if told.is_err() {
                return;
            }
            break;
        }
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
