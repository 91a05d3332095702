//! The requests to Planhat that are under way, and the log of their answers.
//!
//! * In: bodies to send.
//! * Out: [`Requested`], one for each; a line in the log for the first few of a kind.
//! * Never: more requests of one section at once than its `batch.in_flight` (the delivery core sees to that).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::{JoinError, JoinSet};

use crate::delivery::section::Trouble;
use crate::model::{SectionId, SectionName};
use crate::planhat::{Answer, Client, Endpoint, Verdict};
use crate::telemetry::log_output::{Passage, Throttle};

/// A request that has ended.
pub(crate) struct Requested {
    pub(crate) section: SectionId,
    pub(crate) id: i64,
    pub(crate) answer: Answer,
    pub(crate) took: Duration,
}

/// The requests under way.
pub(crate) struct SinkRequests {
    client: Client,
    under_way: JoinSet<Requested>,
    /// Keeps a sink's outage out of the log, but for its beginning.
    throttle: Throttle<(SectionId, &'static str)>,
    /// Since when the log says of a section that its batches are not received.
    refused: HashMap<SectionId, Instant>,
}

impl SinkRequests {
    pub(crate) fn new(client: Client) -> SinkRequests {
        let throttle = Throttle::new(3, Duration::from_secs(60));
        SinkRequests { client, under_way: JoinSet::new(), throttle, refused: HashMap::new() }
    }

    pub(crate) fn send(&mut self, section: SectionId, endpoint: Endpoint, id: i64, body: Bytes) {
        let client = self.client.clone();
        self.under_way.spawn(async move {
            let began = Instant::now();
            let answer = client.send(&endpoint, body).await;
            Requested { section, id, answer, took: began.elapsed() }
        });
    }

    pub(crate) async fn answer(&mut self) -> Option<Result<Requested, JoinError>> {
        self.under_way.join_next().await
    }

    pub(crate) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    pub(crate) fn abort(&mut self) {
        self.under_way.abort_all();
    }

    /// Logs what an answer means, the first few of a kind each minute.
    pub(crate) fn log(&mut self, name: &SectionName, requested: &Requested) {
        let (Requested { section, id, answer, .. }, word) = (requested, word(&requested.answer.verdict));
        if matches!(answer.verdict, Verdict::Received | Verdict::Partial(_))
            && let Some(since) = self.refused.remove(section)
        {
            tracing::info!(section = %name, seconds = since.elapsed().as_secs(), "received again");
        }
        if word.is_empty() {
            return;
        }
        let Passage::Log { suppressed } = self.throttle.event((*section, word), Instant::now()) else { return };
        match &answer.verdict {
            Verdict::Received | Verdict::Environment { .. } => {}
            Verdict::Partial(refused) => {
                tracing::warn!(section = %name, suppressed, refused = refused.len(), "Planhat refused items: they go into quarantine");
            }
            Verdict::BadItem | Verdict::TooLarge => {
                tracing::debug!(section = %name, status = answer.status, answer.message, "refused: halving");
            }
            Verdict::Later { .. } | Verdict::NotSent | Verdict::Interrupted => {
                self.refused.entry(*section).or_insert_with(Instant::now);
                tracing::warn!(section = %name, suppressed, status = answer.status, what = answer.message, "not received; it is tried again");
            }
            Verdict::Unknown => {
                tracing::warn!(section = %name, suppressed, delivery = id, status = answer.status, what = answer.message, "in doubt: nothing proves what became of the batch");
            }
            Verdict::Unreadable => {
                tracing::warn!(section = %name, suppressed, delivery = id, status = answer.status, what = answer.message, "in doubt for good: most likely received, and not sent again");
            }
        }
    }

    /// How many lines of each kind were left out of the log, once a storm is over.
    pub(crate) fn suppressed(&mut self) -> Vec<((SectionId, &'static str), u64)> {
        self.throttle.owed(Instant::now())
    }
}

/// The log's word for an answer; empty where nothing is logged.
fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Received | Verdict::Environment { .. } => "",
        Verdict::Partial(_) => "partial",
        Verdict::BadItem | Verdict::TooLarge => "halving",
        Verdict::Later { .. } => "later",
        Verdict::NotSent => "not_sent",
        Verdict::Interrupted => "interrupted",
        Verdict::Unknown => "unknown",
        Verdict::Unreadable => "unreadable",
    }
}

/// Why the batch of this answer is sent again, where that is all that happens.
pub(crate) fn retrying(answer: &Answer) -> Option<Trouble> {
    let remedy = match &answer.verdict {
        Verdict::Received
        | Verdict::Environment { .. }
        | Verdict::Partial(_)
        | Verdict::BadItem
        | Verdict::TooLarge
        | Verdict::Unreadable => return None,
        Verdict::Later { .. } => "nothing: the batch is sent again by itself, with growing pauses",
        Verdict::NotSent => "see that planhat.url can be reached from here; it goes on by itself",
        Verdict::Interrupted => {
            "nothing: the batch is sent again by itself, in halves where that repeats itself; see what stands between"
        }
        Verdict::Unknown => "nothing: see `in_doubt` of the section; `pg2planhat logs` names the batch",
    };
    Some(Trouble::new(answer.message.clone(), remedy))
}
