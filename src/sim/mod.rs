//! The Planhat stand-in: PLANHAT.md's contract over a real socket, with faults on request.
//!
//! * In: HTTP requests, and faults queued or drawn from a seed.
//! * Out: what Planhat would answer; and, on routes of its own, what it received.
//! * Never: a request to anywhere; an item overwritten or deduplicated; an import of the way out, which it is the judge of.
//!
//! Its own routes: `GET /sim/received?kind=&offset=&limit=`, `GET /sim/stats`, `POST /sim/faults` (one, or a list),
//! `DELETE /sim/faults`, `POST /sim/rate` (faults by probability, with a seed), `POST /sim/clear`.

mod answer;
mod count;
mod fault;
mod judge;
mod own;
mod plan;
mod server;
mod sink;
mod store;

pub use fault::{QueuedFault, Rate, Route, SimFault};
pub use judge::Names;
pub use store::{KindStats, Received, SinkKind, Stats};

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::fault::Fault;
use plan::Plan;
use store::Store;

/// What a stand-in is like.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// `address:port`; port 0 takes a free one.
    pub listen: String,
    /// The tenants that it knows; empty: any. An unknown one gets 404, for the tenant is a part of the path.
    pub tenants: Vec<String>,
    /// Which names it takes in activities.
    pub names: Names,
    /// Bytes of a body, at most; more gets 413. Planhat's limit is 32 MB.
    pub max_body: u64,
    /// What it keeps.
    pub keep: Keep,
    /// Every answer waits this long.
    pub latency: Duration,
    /// The token that the read-back wants; `None`: any.
    pub token: Option<String>,
}

impl Default for SimOptions {
    fn default() -> Self {
        SimOptions {
            listen: "127.0.0.1:0".to_owned(),
            tenants: Vec::new(),
            names: Names::Any,
            max_body: 32_000_000,
            keep: Keep::Items,
            latency: Duration::ZERO,
            token: None,
        }
    }
}

/// What becomes of a body. What is not parsed is not judged: every item of it is accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Items are parsed, judged and kept.
    #[default]
    Items,
    /// Items are counted by their braces, without parsing, and forgotten: for benchmarks.
    Counts,
    /// Only requests and bytes are counted.
    Bytes,
}

/// Starts stand-ins.
#[derive(Debug)]
pub struct Sim;

impl Sim {
    /// Listens, and serves on the caller's runtime until the handle is stopped or dropped.
    ///
    /// # Errors
    /// Where the address cannot be listened on.
    pub async fn start(options: SimOptions) -> Result<SimHandle, Fault> {
        let listen = options.listen.clone();
        let shared = Arc::new(Shared { options, plan: Plan::default(), store: Store::default() });
        let (address, running) = Running::start(&listen, &shared).await?;
        Ok(SimHandle { shared, address, running: Some(running) })
    }
}

/// What all connections share.
struct Shared {
    options: SimOptions,
    plan: Plan,
    store: Store,
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
        let task = tokio::spawn(server::serve(listener, router, shared.clone(), stopped));
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

    /// Where it listens.
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

    /// The counters now.
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
    /// After `timeout`, with the counters as they are then.
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
            // It ends only by our asking, or by a panic, which its own message has told.
            running.task.await.unwrap_or_default();
        }
    }

    /// Listens again at the same address, with what it received before.
    ///
    /// # Errors
    /// Where somebody else has taken the address.
    pub async fn restart(&mut self) -> Result<(), Fault> {
        self.stop().await;
        self.running = Some(Running::start(&self.address.to_string(), &self.shared).await?.1);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
