//! The sink's routes: a body is read, judged, stored and answered, unless a fault comes between.
//!
//! * In: `POST /analytics/bulk/{tenant}`, `POST /analytics/{tenant}`, `POST /dimensiondata/{tenant}`.
//! * Out: Planhat's answers, or a fault.
//! * Never: an item stored under a fault that says that nothing was taken.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use crate::sim::count::Counter;
use crate::sim::http_server::RawConnection;
use crate::sim::judge::JudgedItem;
use crate::sim::received::{Brought, SinkKind, UnderWay};
use crate::sim::shared::{Keep, Shared};
use crate::sim::sim_fault::{SimFault, SinkRoute};
use crate::sim::{answer, judge};

/// The three routes.
pub(crate) fn routes() -> Router<Arc<Shared>> {
    let sink = |route: SinkRoute| {
        post(
            move |State(sim): State<Arc<Shared>>,
                  Path(tenant): Path<String>,
                  Extension(wire): Extension<RawConnection>,
                  head: HeaderMap,
                  body: Body| async move {
                let latency = sim.options.latency;
                let response = receive(&sim, route, &tenant, wire, length(&head), body).await;
                if !latency.is_zero() {
                    tokio::time::sleep(latency).await;
                }
                response
            },
        )
    };
    Router::new()
        .route("/analytics/bulk/{tenant}", sink(SinkRoute::Bulk))
        .route("/analytics/{tenant}", sink(SinkRoute::Single))
        .route("/dimensiondata/{tenant}", sink(SinkRoute::Metrics))
}

/// `Content-Length`; 0 where there is none.
fn length(head: &HeaderMap) -> u64 {
    let text = head.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

async fn receive(
    sim: &Shared,
    route: SinkRoute,
    tenant: &str,
    wire: RawConnection,
    length: u64,
    body: Body,
) -> Response {
    let kind = match route {
        SinkRoute::Bulk | SinkRoute::Single => SinkKind::Activity,
        SinkRoute::Metrics => SinkKind::Metric,
    };
    let request = Request { sim, kind, wire, under_way: sim.store.begin(kind) };
    let drawn = sim.plan.at_head(route, length);
    if drawn == Some(SimFault::ResetBeforeReading) {
        sim.store.faulted();
        return request.reset().await;
    }
    if drawn.as_ref().is_some_and(|fault| fault.refuses_head(length)) {
        sim.store.faulted();
        return answer::head_then_reset(413, request.wire.clone());
    }
    let Some(mut batch) = read(sim, body).await else { return answer::error(400, "the body broke off") };
    let fault = sim.plan.at_end(route, drawn, |fault| batch.fits(fault));
    if !sim.options.tenants.is_empty() && !sim.options.tenants.iter().any(|known| known == tenant) {
        return answer::error(404, "unknown tenant");
    }
    if batch.bytes > sim.options.max_body {
        return answer::error(413, "request entity too large");
    }
    match fault {
        None => match batch.judge(sim, kind, |_, _| None) {
            Ok(judged) => request.store(judged),
            Err(error) => answer::error(400, &error),
        },
        Some(fault) => {
            sim.store.faulted();
            request.commit(fault, &mut batch).await
        }
    }
}

/// A body, read.
struct SinkBatch {
    bytes: u64,
    /// The items counted, where they are not kept.
    counted: u64,
    /// The items themselves, or why they are none, where they are kept.
    items: Option<Result<Vec<JudgedItem>, String>>,
}

/// Reads to the end in any case: an answer before that can be lost to a reset, which is a fault of its own.
async fn read(sim: &Shared, body: Body) -> Option<SinkBatch> {
    let mut pieces = body.into_data_stream();
    let (mut whole, mut counter, mut bytes) = (BytesMut::new(), Counter::default(), 0u64);
    while let Some(piece) = pieces.next().await {
        let piece = piece.ok()?;
        bytes += piece.len() as u64;
        match sim.options.keep {
            Keep::Items if bytes <= sim.options.max_body => whole.extend_from_slice(&piece),
            Keep::Counts => counter.feed(&piece),
            Keep::Items | Keep::Bytes => {}
        }
    }
    let kept = sim.options.keep == Keep::Items && bytes <= sim.options.max_body;
    let items = kept.then(|| judge::items(&whole.freeze()));
    Some(SinkBatch { bytes, counted: counter.items(), items })
}

/// The accepted and the refused items of a batch.
struct Judged {
    brought: Brought,
    refused: Vec<(Bytes, String)>,
}

impl SinkBatch {
    /// Whether a fault has something to act on here. What was not parsed has no fields.
    fn fits(&self, fault: &SimFault) -> bool {
        let items = match &self.items {
            Some(Ok(items)) => items.as_slice(),
            Some(Err(_)) | None => &[],
        };
        match fault {
            SimFault::Refuse { field, equals, .. } | SimFault::Reject { field, equals, .. } => {
                items.iter().any(|item| has(item, field, equals))
            }
            SimFault::TooLarge { over } => self.bytes > *over,
            // Their time was before the body.
            SimFault::ResetBeforeReading | SimFault::TooLargeReset { .. } => false,
            SimFault::Status { .. }
            | SimFault::RefuseFirst { .. }
            | SimFault::RefuseWithoutEcho { .. }
            | SimFault::RefuseTwice { .. }
            | SimFault::Encoded { .. }
            | SimFault::Truncated
            | SimFault::WrongLength { .. }
            | SimFault::ManyHeaders { .. }
            | SimFault::Slow { .. }
            | SimFault::Hang { .. }
            | SimFault::ResetAfterStoring
            | SimFault::ResetMidAnswer
            | SimFault::Text { .. }
            | SimFault::Html { .. }
            | SimFault::Endless
            | SimFault::Drip { .. }
            | SimFault::Redirect { .. }
            | SimFault::GzipBomb => true,
        }
    }

    /// Accepts and refuses item by item; `more` may refuse further ones, by number.
    fn judge(
        &mut self,
        sim: &Shared,
        kind: SinkKind,
        more: impl Fn(usize, &JudgedItem) -> Option<String>,
    ) -> Result<Judged, String> {
        let mut brought = Brought { items: self.counted, bytes: self.bytes, ..Brought::default() };
        let mut refused = Vec::new();
        if let Some(items) = self.items.take() {
            for (n, item) in items?.into_iter().enumerate() {
                match judge::refusal(kind, sim.options.names, &item).or_else(|| more(n, &item)) {
                    Some(error) => refused.push((item.raw, error)),
                    None => brought.kept.push(item.raw),
                }
            }
            brought.items = brought.kept.len() as u64;
            brought.refused = refused.len() as u64;
        }
        Ok(Judged { brought, refused })
    }
}

fn has(item: &JudgedItem, field: &str, equals: &serde_json::Value) -> bool {
    item.fields.as_ref().is_some_and(|fields| fields.get(field) == Some(equals))
}

/// A request under way.
struct Request<'a> {
    sim: &'a Shared,
    kind: SinkKind,
    wire: RawConnection,
    under_way: UnderWay,
}

impl Request<'_> {
    fn store(&self, judged: Judged) -> Response {
        self.store_and_say(judged, None)
    }

    /// Stores; `said` is what the answer says of the refused items, if it is not the truth.
    fn store_and_say(&self, judged: Judged, said: Option<Vec<(Option<Bytes>, String)>>) -> Response {
        let accepted = judged.brought.items;
        self.sim.store.accept(self.kind, self.under_way.number, judged.brought);
        let truth = || judged.refused.into_iter().map(|(item, error)| (Some(item), error)).collect();
        answer::processed(self.kind, accepted, &said.unwrap_or_else(truth))
    }

    /// The peer gets RST; this request never comes to its end.
    async fn reset(&self) -> Response {
        self.wire.reset();
        std::future::pending().await
    }

    async fn commit(&self, fault: SimFault, batch: &mut SinkBatch) -> Response {
        let stores = fault.stores();
        let refuse = |n: usize, item: &JudgedItem| {
            if let SimFault::Refuse { field, equals, error } = &fault
                && has(item, field, equals)
            {
                return Some(error.clone());
            }
            if let SimFault::RefuseFirst { count, error } = &fault
                && n < *count
            {
                return Some(error.clone());
            }
            if let SimFault::RefuseWithoutEcho { count, error } = &fault
                && n < *count
            {
                return Some(error.clone());
            }
            if let SimFault::RefuseTwice { errors } = &fault
                && n == 0
            {
                return errors.first().cloned();
            }
            None
        };
        let (mut normal, mut accepted) = (None, 0);
        if stores {
            match batch.judge(self.sim, self.kind, refuse) {
                Ok(judged) => {
                    accepted = judged.brought.items;
                    let reasons = fault.reasons(&judged.refused);
                    normal = Some(self.store_and_say(judged, reasons));
                }
                Err(error) => return answer::error(400, &error),
            }
        }
        self.answer(fault, accepted, normal).await
    }

    /// The answer under this fault; `normal` is the answer without it.
    async fn answer(&self, fault: SimFault, accepted: u64, normal: Option<Response>) -> Response {
        let normal = normal.unwrap_or_default();
        match fault {
            SimFault::Status { status, retry_after, body, .. } => {
                let response = answer::with_type(status, "text/plain; charset=utf-8", body);
                match retry_after {
                    Some(text) => answer::with_header(response, header::RETRY_AFTER, &text),
                    None => response,
                }
            }
            SimFault::Refuse { .. }
            | SimFault::RefuseFirst { .. }
            | SimFault::RefuseWithoutEcho { .. }
            | SimFault::RefuseTwice { .. } => normal,
            SimFault::Encoded { encoding } => answer::encoded(accepted, &encoding),
            SimFault::Truncated => answer::truncated(accepted),
            SimFault::WrongLength { by } => answer::wrong_length(accepted, by),
            SimFault::ManyHeaders { count } => answer::many_headers(normal, count),
            SimFault::Reject { field, status, .. } => answer::error(status, &format!("{field} is not valid")),
            SimFault::TooLarge { .. } | SimFault::TooLargeReset { .. } => {
                answer::error(413, "request entity too large")
            }
            SimFault::Slow { millis } => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                normal
            }
            SimFault::Hang { .. } => std::future::pending().await,
            SimFault::ResetBeforeReading | SimFault::ResetAfterStoring => self.reset().await,
            SimFault::ResetMidAnswer => answer::cut(accepted, self.wire.clone()),
            SimFault::Text { body } => answer::with_type(200, "text/plain; charset=utf-8", body),
            SimFault::Html { status } => answer::with_type(
                status,
                "text/html; charset=utf-8",
                "<!DOCTYPE html>\n<html><title>Sign in</title></html>",
            ),
            SimFault::Endless => answer::endless(),
            SimFault::Drip { millis } => answer::drip(Duration::from_millis(millis)),
            SimFault::Redirect { status, location } => {
                answer::with_header(answer::with_type(status, "text/plain", ""), header::LOCATION, &location)
            }
            SimFault::GzipBomb => answer::gzip_bomb(),
        }
    }
}

impl SimFault {
    /// What it says of the items that were refused, where that is not simply each with its reason.
    fn reasons(&self, refused: &[(Bytes, String)]) -> Option<Vec<(Option<Bytes>, String)>> {
        if let SimFault::RefuseWithoutEcho { .. } = self {
            return Some(refused.iter().map(|(_, error)| (None, error.clone())).collect());
        }
        let SimFault::RefuseTwice { errors } = self else { return None };
        let (item, _) = refused.first()?;
        Some(errors.iter().map(|error| (Some(item.clone()), error.clone())).collect())
    }

    /// Whether the items are received in spite of the fault.
    fn stores(&self) -> bool {
        match self {
            SimFault::Status { store, .. } | SimFault::Hang { store } => *store,
            SimFault::Refuse { .. }
            | SimFault::RefuseFirst { .. }
            | SimFault::RefuseWithoutEcho { .. }
            | SimFault::RefuseTwice { .. }
            | SimFault::Encoded { .. }
            | SimFault::Truncated
            | SimFault::WrongLength { .. }
            | SimFault::ManyHeaders { .. }
            | SimFault::Slow { .. }
            | SimFault::ResetAfterStoring
            | SimFault::ResetMidAnswer
            | SimFault::Text { .. }
            | SimFault::Endless
            | SimFault::Drip { .. }
            | SimFault::GzipBomb => true,
            SimFault::Reject { .. }
            | SimFault::TooLarge { .. }
            | SimFault::TooLargeReset { .. }
            | SimFault::ResetBeforeReading
            | SimFault::Html { .. }
            | SimFault::Redirect { .. } => false,
        }
    }
}
