//! THE WAY OUT: batches over HTTP to Planhat, and what its answers mean.
//!
//! * In: the body of one request.
//! * Out: an [`Answer`], whose [`Verdict`] says what may be done next.
//! * Never: a Postgres type; a redirect followed; an answer read without bounds; the tenant in a text.

pub(crate) mod body;
pub(crate) mod client;
pub(crate) mod echo;
pub(crate) mod inflate;
pub(crate) mod match_rejections;
pub(crate) mod probe;
pub(crate) mod request;
pub(crate) mod response;

pub use crate::planhat::client::Client;
pub use crate::planhat::echo::Echo;
pub use crate::planhat::match_rejections::match_refused;
pub(crate) use crate::planhat::probe::probe;
pub use crate::planhat::request::Endpoint;
pub use crate::planhat::response::{Reply, read};

use std::time::Duration;

/// What came back for one request (the table in docs/planhat.md). Matched exhaustively: "surely not received",
/// "refused" and "unknown" are different fates.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// 2xx without errors: all items are received.
    Received,
    /// 2xx that refuses items; [`match_refused`] finds which.
    Partial(Vec<SinkRejection>),
    /// 400, 409, 422: some item is bad, and nothing of the request was taken.
    BadItem,
    /// 413: the request is too large, and nothing of it was taken.
    TooLarge,
    /// 401, 403, 404, 405, 410, 3xx, an HTML page: nothing was taken; the surroundings must be mended.
    Environment {
        /// What a person should do.
        remedy: String,
    },
    /// 408, 425, 429, 503: nothing was taken now; later it may be.
    Later {
        /// From `Retry-After`, capped at 15 minutes.
        retry_after: Option<Duration>,
    },
    /// No connection was made (refused, DNS, TLS): surely not received.
    NotSent,
    /// The connection was made and ended before the whole request had left: surely not received, and perhaps the request's
    /// own fault (a server may end what is too large for it without a word).
    Interrupted,
    /// The request was sent, and what came back proves nothing: no answer, or a 5xx that a gateway may give after the batch
    /// was stored. In doubt.
    Unknown,
    /// 2xx with a body that cannot be read: most likely received, and it may have refused items. Never sent again by itself.
    Unreadable,
}

/// One refusal in a 2xx.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkRejection {
    /// The item's echo; `None` where the answer did not echo it.
    pub item: Option<Echo>,
    /// Planhat's reason.
    pub error: String,
}

/// One request's end.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What it means.
    pub verdict: Verdict,
    /// HTTP status, where there was one.
    pub status: Option<u16>,
    /// What to put into the ledger and the log: short, redacted, empty where all went well.
    pub message: String,
}
