//! The Planhat stand-in: the contract of docs/planhat.md over a real socket, with faults on request.
//!
//! * In: HTTP requests, and faults queued or drawn from a seed.
//! * Out: what Planhat would answer; and, on routes of its own, what it received.
//! * Never: a request to another server; an item overwritten or deduplicated; an import of `planhat`, which it judges.
//!
//! Its own routes: `GET /sim/received?kind=&offset=&limit=`, `GET /sim/stats`, `POST /sim/faults` (one, or a list),
//! `DELETE /sim/faults`, `POST /sim/rate` (faults by probability, with a seed), `POST /sim/clear`.

pub(crate) mod answer;
pub(crate) mod count;
pub(crate) mod fault_plan;
pub(crate) mod http_server;
pub(crate) mod judge;
pub(crate) mod own;
pub(crate) mod received;
pub(crate) mod shared;
pub(crate) mod sim_fault;
pub(crate) mod sink;
#[cfg(test)]
pub(crate) mod tests;

pub use crate::sim::judge::Names;
pub use crate::sim::received::{Received, SinkKind, Stats};
use crate::sim::shared::Shared;
pub use crate::sim::shared::{Keep, SimOptions};
pub(crate) use crate::sim::sim_fault::QueuedFault;
pub(crate) use crate::sim::sim_fault::Rate;
pub use crate::sim::sim_fault::{SimFault, SinkRoute};

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::model::Fault;
use crate::sim::fault_plan::Plan;
use crate::sim::received::ReceivedStore;

#[derive(Debug)]
pub struct Sim;

impl Sim {
    /// Listens, and serves on the caller's runtime until the handle is stopped or dropped.
    pub async fn start(options: SimOptions) -> Result<SimHandle, Fault> {
        let listen = options.listen.clone();
        let shared = Arc::new(Shared { options, plan: Plan::default(), store: ReceivedStore::default() });
        let (address, running) = Running::start(&listen, &shared).await?;
        Ok(SimHandle { shared, address, running: Some(running) })
    }
}

/// The accepting task; dropping `stop` ends it too.
struct Running {
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(listen: &str, shared: &Arc<Shared>) -> Result<(SocketAddr, Running), Fault> {
        let unusable = |error: std::io::Error| {
            Fault::usage(format!("the stand-in cannot listen on {listen}: {error}"), "choose a free address:port")
        };
        let listener = tokio::net::TcpListener::bind(listen).await.map_err(unusable)?;
        let address = listener.local_addr().map_err(unusable)?;
        let (stop, stopped) = watch::channel(());
        let router = sink::routes().merge(own::routes()).with_state(shared.clone());
        let task = tokio::spawn(http_server::serve(listener, router, shared.clone(), stopped));
        Ok((address, Running { stop, task }))
    }
}

/// A running stand-in, as tests and commands hold it.
pub struct SimHandle {
    shared: Arc<Shared>,
    address: SocketAddr,
    running: Option<Running>,
}

impl std::fmt::Debug for SimHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimHandle").field("address", &self.address).finish_non_exhaustive()
    }
}

impl SimHandle {
    /// The base URL, as `planhat.url` wants it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Queues a fault: a [`SimFault`] for the next request of any sink route, or a [`QueuedFault`] that says more.
    pub fn queue_fault(&self, fault: impl Into<QueuedFault>) {
        self.shared.plan.queue(fault.into());
    }

    /// Draws a fault for each sink request with this probability, evenly from `faults`, by a generator with this seed.
    pub fn set_fault_rate(&self, seed: u64, probability: f64, faults: Vec<SimFault>) {
        self.shared.plan.set_rate(Rate { seed, probability, faults });
    }

    /// Forgets every fault, queued or by rate.
    pub fn clear_faults(&self) {
        self.shared.plan.clear();
    }

    /// The items accepted, in order of acceptance.
    pub fn items(&self, kind: SinkKind) -> Vec<Received> {
        self.shared.store.items(Some(kind))
    }

    /// At most `limit` of the items that were accepted after the one with this number (0: from the first), of all kinds.
    pub fn items_after(&self, seq: u64, limit: usize) -> Vec<Received> {
        self.shared.store.items_after(seq, limit)
    }

    pub fn stats(&self) -> Stats {
        self.shared.store.stats()
    }

    /// Forgets the items kept and sets the counters to 0.
    pub fn clear(&self) {
        self.shared.store.clear();
    }

    /// Waits until the counters fulfil the predicate.
    ///
    /// # Errors
    /// After `timeout`; the fault shows the counters as they are then.
    pub async fn wait_for(&self, mut predicate: impl FnMut(&Stats) -> bool, timeout: Duration) -> Result<Stats, Fault> {
        let mut stats = self.shared.store.watch();
        let found = tokio::time::timeout(timeout, stats.wait_for(|stats| predicate(stats))).await;
        match found {
            Ok(Ok(stats)) => Ok(stats.clone()),
            Ok(Err(_)) | Err(_) => Err(Fault::unavailable(
                format!("the stand-in did not see it within {timeout:?}; it has {:?}", self.stats()),
                "look at what should have sent the items",
            )),
        }
    }

    /// Stops listening and breaks all connections; what it received stays. The port refuses connections then.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            drop(running.stop);
            // The task ends only when asked to, or by a panic, which has printed its own message.
            running.task.await.unwrap_or_default();
        }
    }

    /// Listens again at the same address, with what it received before.
    pub async fn restart(&mut self) -> Result<(), Fault> {
        self.stop().await;
        self.running = Some(Running::start(&self.address.to_string(), &self.shared).await?.1);
        Ok(())
    }
}
