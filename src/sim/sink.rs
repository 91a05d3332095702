//! The sink's routes: a body is read, judged, stored and answered, unless a fault comes between.
//!
//! * In: `POST /analytics/bulk/{tenant}`, `POST /analytics/{tenant}`, `POST /dimensiondata/{tenant}`.
//! * Out: Planhat's answers, or a fault.
//! * Never: an item stored under a fault that says that nothing was taken.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
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
                  body: Body| async move {
                let latency = sim.options.latency;
                let response = receive(&sim, route, &tenant, wire, body).await;
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

async fn receive(sim: &Shared, route: SinkRoute, tenant: &str, wire: RawConnection, body: Body) -> Response {
    let kind = match route {
        SinkRoute::Bulk | SinkRoute::Single => SinkKind::Activity,
        SinkRoute::Metrics => SinkKind::Metric,
    };
    let request = Request { sim, kind, wire, under_way: sim.store.begin(kind) };
    let drawn = sim.plan.at_head(route);
    if drawn == Some(SimFault::ResetBeforeReading) {
        sim.store.faulted();
        return request.reset().await;
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

/// What of a batch is taken.
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
            // Its time was before the body.
            SimFault::ResetBeforeReading => false,
            SimFault::Status { .. }
            | SimFault::RefuseFirst { .. }
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
        let accepted = judged.brought.items;
        self.sim.store.accept(self.kind, self.under_way.number, judged.brought);
        answer::processed(self.kind, accepted, &judged.refused)
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
            None
        };
        let (mut normal, mut accepted) = (None, 0);
        if stores {
            match batch.judge(self.sim, self.kind, refuse) {
                Ok(judged) => {
                    accepted = judged.brought.items;
                    normal = Some(self.store(judged));
                }
                Err(error) => return answer::error(400, &error),
            }
        }
        self.answer(fault, accepted, normal).await
    }

    /// What the peer gets; `normal` is what it would have got.
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
            SimFault::Refuse { .. } | SimFault::RefuseFirst { .. } => normal,
            SimFault::Reject { field, status, .. } => answer::error(status, &format!("{field} is not valid")),
            SimFault::TooLarge { .. } => answer::error(413, "request entity too large"),
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
    /// Whether the items are received in spite of it.
    fn stores(&self) -> bool {
        match self {
            SimFault::Status { store, .. } | SimFault::Hang { store } => *store,
            SimFault::Refuse { .. }
            | SimFault::RefuseFirst { .. }
            | SimFault::Slow { .. }
            | SimFault::ResetAfterStoring
            | SimFault::ResetMidAnswer
            | SimFault::Text { .. }
            | SimFault::Endless
            | SimFault::Drip { .. }
            | SimFault::GzipBomb => true,
            SimFault::Reject { .. }
            | SimFault::TooLarge { .. }
            | SimFault::ResetBeforeReading
            | SimFault::Html { .. }
            | SimFault::Redirect { .. } => false,
        }
    }
}
