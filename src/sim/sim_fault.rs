//! The faults that a stand-in can commit, as Rust and as JSON. Pure.
//!
//! * In: JSON like `{"fault":"status","status":503,"retry_after":"2","times":3,"route":"metrics"}`.
//! * Out: [`QueuedFault`]s.
//! * Never: a decision when a fault applies: that is `fault_plan`'s.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One way to misbehave. "Stores" means that the items were received before it went wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum SimFault {
    /// Answers with a status; stores only if told so.
    Status {
        /// The status code, 200 to 999.
        status: u16,
        /// `Retry-After`, any text.
        #[serde(default)]
        retry_after: Option<String>,
        #[serde(default)]
        body: String,
        /// Whether the items are stored all the same.
        #[serde(default)]
        store: bool,
    },
    /// Refuses, in a 200, the items whose field has this value. Waits for a request with such an item.
    Refuse { field: String, equals: Value, error: String },
    /// Refuses, in a 200, the first items of the request.
    RefuseFirst { count: usize, error: String },
    /// Refuses, in a 200, the first items of the request, and does not say which.
    RefuseWithoutEcho { count: usize, error: String },
    /// Refuses, in a 200, the first item of the request for several reasons, each with its echo.
    RefuseTwice { errors: Vec<String> },
    /// Refuses a whole request that has an item whose field has this value. Waits for such a request.
    Reject { field: String, equals: Value, status: u16 },
    /// 413 for a body over so many bytes. Waits for such a request.
    TooLarge { over: u64 },
    /// 413 by the head of a request over so many bytes, then a reset: its body is not read. Waits for such a request.
    TooLargeReset { over: u64 },
    /// Stores, and answers after a while; after the client's time-out, if that is shorter.
    Slow { millis: u64 },
    /// Never answers; stores if told so.
    Hang {
        /// Whether the items are stored.
        #[serde(default)]
        store: bool,
    },
    /// Resets the connection without reading the body; stores nothing.
    ResetBeforeReading,
    /// Stores, then resets the connection without an answer: the case in doubt.
    ResetAfterStoring,
    /// Stores, answers half, then resets.
    ResetMidAnswer,
    /// Stores, and answers 200 with this text.
    Text { body: String },
    /// Stores nothing, and answers with a page of HTML.
    Html {
        #[serde(default = "ok")]
        status: u16,
    },
    /// Stores, and answers 200 with JSON that never ends.
    Endless,
    /// Stores, and answers 200 with one blank at a time, for ever.
    Drip {
        /// Time between two bytes.
        millis: u64,
    },
    /// Stores nothing, and answers with a redirect.
    Redirect { status: u16, location: String },
    /// Stores, and answers as always, but compressed, as a proxy does unasked.
    Encoded {
        /// `Content-Encoding`: gzip and deflate are what they say; under any other name come bytes that nobody can read.
        encoding: String,
    },
    /// Stores, and answers 200 with half of its JSON, as if that were all.
    Truncated,
    /// Stores, and answers as always under a `Content-Length` that is too large (or too small) by so much.
    WrongLength {
        /// Bytes too many, or too few.
        by: i64,
    },
    /// Stores, and answers as always behind so many headers.
    ManyHeaders { count: u16 },
    /// Stores, and answers 200 with a megabyte of gzip that unpacks to 160 megabytes and more.
    GzipBomb,
}

fn ok() -> u16 {
    200
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkRoute {
    /// `POST /analytics/bulk/{tenant}`
    Bulk,
    /// `POST /analytics/{tenant}`
    Single,
    /// `POST /dimensiondata/{tenant}`
    Metrics,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueuedFault {
    /// What goes wrong.
    #[serde(flatten)]
    pub fault: SimFault,
    /// Only on this route.
    #[serde(default)]
    pub route: Option<SinkRoute>,
    /// For so many requests; 0: until the faults are cleared.
    #[serde(default = "once")]
    pub times: u64,
}

fn once() -> u64 {
    1
}

impl QueuedFault {
    /// The same, for so many requests; 0: until the faults are cleared.
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// The same, on one route only.
    pub fn on(mut self, route: SinkRoute) -> Self {
        self.route = Some(route);
        self
    }
}

impl From<SimFault> for QueuedFault {
    fn from(fault: SimFault) -> Self {
        QueuedFault { fault, route: None, times: 1 }
    }
}

impl SimFault {
    /// A status without a body.
    pub fn status(status: u16) -> SimFault {
        SimFault::Status { status, retry_after: None, body: String::new(), store: false }
    }

    /// The same, for so many requests; 0: until the faults are cleared.
    pub fn times(self, times: u64) -> QueuedFault {
        QueuedFault::from(self).times(times)
    }

    /// The same, on one route only.
    pub fn on(self, route: SinkRoute) -> QueuedFault {
        QueuedFault::from(self).on(route)
    }
}

/// Faults by chance: the same seed and the same order of requests give the same faults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rate {
    /// The generator's seed.
    pub seed: u64,
    /// Of a fault at each request, from 0 to 1.
    pub probability: f64,
    /// What may go wrong.
    pub faults: Vec<SimFault>,
}
