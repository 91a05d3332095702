//! The stand-in's own routes, and Planhat's read-back of metrics.
//!
//! * In: requests of tests, of people, of scripts.
//! * Out: what was received, the counters; faults are queued and cleared.
//! * Never: a change of what was received, but by `POST /sim/clear`.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::sim::answer;
use crate::sim::received::{Received, SinkKind};
use crate::sim::shared::Shared;
use crate::sim::sim_fault::{QueuedFault, Rate};

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/sim/received", get(received).delete(clear))
        .route("/sim/stats", get(stats))
        .route("/sim/faults", post(queue).delete(clear_faults))
        .route("/sim/rate", post(rate))
        .route("/sim/clear", post(clear))
        .route("/dimensiondata", get(read_back))
}

#[derive(Deserialize)]
struct Page {
    kind: Option<SinkKind>,
    #[serde(default)]
    offset: usize,
    #[serde(default = "default_limit")]
    limit: usize,
}

fn default_limit() -> usize {
    1000
}

async fn received(State(sim): State<Arc<Shared>>, Query(page): Query<Page>) -> Response {
    let all = sim.store.items(page.kind);
    let one = |received: &Received| {
        let Received { seq, kind, request, at, .. } = received;
        json!({ "seq": seq, "kind": kind, "request": request, "at": at.to_string(), "item": received.item() })
    };
    let items: Vec<Value> = all.iter().skip(page.offset).take(page.limit).map(one).collect();
    Json(json!({ "total": all.len(), "items": items })).into_response()
}

async fn stats(State(sim): State<Arc<Shared>>) -> Response {
    Json(sim.store.stats()).into_response()
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    Many(Vec<QueuedFault>),
    One(Box<QueuedFault>),
}

async fn queue(State(sim): State<Arc<Shared>>, Json(faults): Json<OneOrMany>) -> StatusCode {
    match faults {
        OneOrMany::Many(faults) => faults.into_iter().for_each(|fault| sim.plan.queue(fault)),
        OneOrMany::One(fault) => sim.plan.queue(*fault),
    }
    StatusCode::NO_CONTENT
}

async fn clear_faults(State(sim): State<Arc<Shared>>) -> StatusCode {
    sim.plan.clear();
    StatusCode::NO_CONTENT
}

async fn rate(State(sim): State<Arc<Shared>>, Json(rate): Json<Rate>) -> StatusCode {
    sim.plan.set_rate(rate);
    StatusCode::NO_CONTENT
}

async fn clear(State(sim): State<Arc<Shared>>) -> StatusCode {
    sim.store.clear();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadBack {
    c_id: Option<String>,
    dimid: Option<String>,
    from: Option<i64>,
    to: Option<i64>,
    #[serde(default)]
    offset: usize,
    #[serde(default = "default_limit")]
    limit: usize,
}

/// `GET /dimensiondata`: metrics by object (`cId` is compared with `externalId`), dimension and UTC days since 1970.
async fn read_back(State(sim): State<Arc<Shared>>, headers: HeaderMap, Query(query): Query<ReadBack>) -> Response {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let known = match (&sim.options.token, token) {
        (Some(expected), Some(token)) => expected == token,
        (None, Some(token)) => !token.is_empty(),
        (_, None) => false,
    };
    if !known {
        return answer::error(401, "unauthorized");
    }
    let metrics = sim.store.items(Some(SinkKind::Metric));
    let found = metrics.iter().filter_map(|received| {
        let item = received.item();
        let is = |field: &str, wanted: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| item.get(field).and_then(Value::as_str) == Some(wanted))
        };
        let day = day_of(&item).unwrap_or_else(|| days(received.at));
        let within = query.from.is_none_or(|from| day >= from) && query.to.is_none_or(|to| day <= to);
        (is("externalId", &query.c_id) && is("dimensionId", &query.dimid) && within)
            .then(|| with_id(item, received.seq))
    });
    Json(found.skip(query.offset).take(query.limit).collect::<Vec<_>>()).into_response()
}

fn day_of(item: &Value) -> Option<i64> {
    item.get("date")?.as_str()?.parse().ok().map(days)
}

fn days(at: Timestamp) -> i64 {
    at.as_second().div_euclid(24 * 60 * 60)
}

fn with_id(mut item: Value, seq: u64) -> Value {
    if let Some(fields) = item.as_object_mut() {
        fields.insert("_id".to_owned(), json!(seq.to_string()));
    }
    item
}
