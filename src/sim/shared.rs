//! What the connections of one stand-in share.
//!
//! * In: [`SimOptions`].
//! * Out: the plan of faults and the store of what was received, behind one `Arc`.
//! * Never: a socket.

use crate::sim::fault_plan::Plan;
use crate::sim::judge::Names;
use crate::sim::received::ReceivedStore;
use std::time::Duration;
/// The options of a stand-in.
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

/// How a body is treated. A body that is not parsed is not judged: all of its items are accepted.
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

/// The state that all connections share.
pub(crate) struct Shared {
    pub(crate) options: SimOptions,
    pub(crate) plan: Plan,
    pub(crate) store: ReceivedStore,
}
