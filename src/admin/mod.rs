//! The admin port: probes, metrics, status.
//!
//! * In: the latest status document, the metrics, the pulse of the process's own tasks.
//! * Out: `/livez`, `/readyz`, `/metrics`, `/status`; GET and HEAD only.
//! * Never: a change of state; a secret or row data; an answer to a Host name that a stranger can own; a long connection.
//!
//! "Alive but not streaming" must not look like health: when a task is stuck, the snapshot is old, so what it says is overruled
//! here, alike for `/readyz`, `/status` and `/metrics`.

pub(crate) mod admin_request;
pub(crate) mod heartbeat;
pub(crate) mod host;
pub(crate) mod listener;
pub(crate) mod refresh;
#[cfg(test)]
pub(crate) mod tests;

pub use crate::admin::heartbeat::Heartbeat;
pub(crate) use crate::admin::heartbeat::Stuck;
pub use crate::admin::host::Hosts;
pub(crate) use crate::admin::refresh::RefreshHandle;
pub use crate::admin::refresh::RefreshRequests;

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Query, Request, State};
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::admin::listener::{Brief, DEADLINE};
use crate::model::{Exit, Fault};
use crate::telemetry::Metrics;
use crate::telemetry::status_document::{InstanceState, SectionState, Status};

/// What the pages show.
#[derive(Clone)]
pub struct AdminState {
    /// The latest status document.
    pub status: watch::Receiver<Status>,
    pub metrics: Arc<Metrics>,
    /// The pulse of the tasks.
    pub heartbeat: Arc<Heartbeat>,
    /// The Host names that are answered.
    pub hosts: Hosts,
    /// Requests to refresh the figures.
    pub refresh: RefreshRequests,
}

impl AdminState {
    /// The status, overruled where it is stale.
    pub(crate) async fn judged(&self) -> Status {
        self.refresh.fresh().await;
        judge(self.status.borrow().clone(), &self.heartbeat.stuck(Instant::now()))
    }
}

/// Overrules a snapshot where a task that should keep it true is stuck.
fn judge(mut status: Status, stuck: &[Stuck]) -> Status {
    if let Some(worst) = stuck.iter().max_by_key(|stuck| stuck.since) {
        status.ready = false;
        if matches!(status.state, InstanceState::Running | InstanceState::Starting | InstanceState::Standby) {
            status.state = InstanceState::Stalled;
        }
        status.message = Some(format!("the task {} has not moved for {} s", worst.task, worst.since.as_secs()));
        status.remedy = Some("restart the process (its liveness probe asks for it), and report the log".to_owned());
    }
    status
}

/// Opens the port.
pub async fn bind(listen: &str) -> Result<TcpListener, Fault> {
    TcpListener::bind(listen).await.map_err(|error| {
        Fault::new(
            Exit::Usage,
            format!("the admin port cannot listen on {listen}: {error}"),
            "set admin.listen to an address of this machine and a free port, as in 127.0.0.1:9187",
        )
    })
}

/// Serves until `stop` resolves, then finishes the answers under way, at most until their connections' deadlines.
pub async fn serve<F>(listener: TcpListener, state: AdminState, stop: F) -> std::io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    axum::serve(Brief::new(listener, DEADLINE), router(state)).with_graceful_shutdown(stop).await
}

fn router(state: AdminState) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .fallback(async || (StatusCode::NOT_FOUND, "there is /livez, /readyz, /metrics and /status\n"))
        .layer(middleware::from_fn_with_state(state.hosts.clone(), guard))
        .with_state(state)
}

/// Refuses requests with a foreign Host, and sets the headers of every answer.
async fn guard(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let mut answer = match meant_for(&hosts, &request) {
        Ok(()) => next.run(request).await,
        Err((status, why)) => (status, why).into_response(),
    };
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn meant_for(hosts: &Hosts, request: &Request) -> Result<(), (StatusCode, &'static str)> {
    let mut given = request.headers().get_all(HOST).iter();
    let host = match (given.next(), given.next()) {
        (Some(host), None) => Some(host.to_str().unwrap_or("")),
        // A load balancer may ask in this form; a browser, against which the guard stands, never does.
        (None, None) if request.version() == Version::HTTP_10 => None,
        (None, None) => return Err((StatusCode::BAD_REQUEST, "a Host header is needed\n")),
        (_, Some(_)) => return Err((StatusCode::BAD_REQUEST, "one Host header, not several\n")),
    };
    let authority = request.uri().authority().map(|authority| authority.as_str());
    if host.into_iter().chain(authority).all(|name| hosts.allow(name)) {
        return Ok(());
    }
    let why = "this Host is not ours: ask by IP address or by localhost, or list the name under admin.hosts\n";
    Err((StatusCode::MISDIRECTED_REQUEST, why))
}

async fn livez(State(state): State<AdminState>) -> Response {
    let stuck = state.heartbeat.stuck(Instant::now());
    if stuck.is_empty() {
        return "alive\n".into_response();
    }
    let line = |stuck: &Stuck| format!("{} has not moved for {} s\n", stuck.task, stuck.since.as_secs());
    (StatusCode::SERVICE_UNAVAILABLE, stuck.iter().map(line).collect::<String>()).into_response()
}

/// `/readyz?standby=ok` also says yes for a standby that only waits for the slot: what a rollout and a disruption budget must
/// count, or neither would ever let the holder of the slot go.
#[derive(Deserialize)]
struct Asked {
    standby: Option<String>,
}

async fn readyz(State(state): State<AdminState>, Query(asked): Query<Asked>) -> Response {
    let status = state.judged().await;
    if status.ready {
        return ready_page(&status).into_response();
    }
    if status.state == InstanceState::Standby && asked.standby.as_deref() == Some("ok") {
        return "standby\n".into_response();
    }
    let mut page = format!("not ready: {}", status.state);
    if let Some(reason) = status.reason {
        page.push_str(&format!(" ({reason})"));
    }
    page.push('\n');
    for (word, line) in [("because", &status.message), ("remedy", &status.remedy)] {
        if let Some(line) = line {
            page.push_str(&format!("{word}: {line}\n"));
        }
    }
    (StatusCode::SERVICE_UNAVAILABLE, page).into_response()
}

/// "ready", and the sections that are on and do not flow, by name.
fn ready_page(status: &Status) -> String {
    let mut page = "ready\n".to_owned();
    for section in status.sections.iter().filter(|section| section.state != SectionState::Off && !section.flows) {
        let reason = section.reason.as_deref().unwrap_or("a row waits longer than it should");
        page.push_str(&format!("does not flow: {} ({}): {reason}\n", section.name, section.state));
    }
    page
}

async fn metrics(State(state): State<AdminState>) -> Response {
    let page = state.metrics.scrape(&state.judged().await);
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, kind)], page).into_response()
}

async fn status(State(state): State<AdminState>) -> Json<Status> {
    Json(state.judged().await)
}
