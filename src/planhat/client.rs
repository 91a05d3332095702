//! One request over the wire, and its [`Answer`].
//!
//! * In: an [`Endpoint`] and a body.
//! * Out: an [`Answer`]; every failure is one of its verdicts.
//! * Never: a redirect followed; a request repeated; a wait without end; an answer kept without bounds; the tenant in a
//!   text, or shown to a proxy.
//!
//! "Surely not received" is not read off the library's error classes, which differ by version and stage, but off the
//! [`crate::planhat::body`]: while the body's last piece is held back, nobody can have the batch, be it DNS, the connection,
//! TLS or half of the sending that failed.

use std::error::Error as _;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header;
use reqwest::header::HeaderMap;
use tokio::time::{Instant, timeout_at};

use crate::config::{Planhat, Secret};
use crate::model::Fault;
use crate::planhat::body::{HandOver, pieces};
use crate::planhat::request::{Endpoint, base, check_tenant, redact};
use crate::planhat::response::{Reply, read_within};
use crate::planhat::{Answer, Verdict};

/// The bound on DNS, TCP and TLS together, within the bound on the whole request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of an answer that is no 2xx only the beginning is kept: its status has spoken.
const KEPT: usize = 64 * 1024;
/// Headers of an answer, at most.
const MOST_HEADERS: usize = 1000;
/// Room for an answer's own words, beside the echoes of all items.
const ANSWER_ROOM: usize = 4 * 1024 * 1024;

/// The HTTP client; cheap to clone, shared by all sections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    tenant: Secret,
    timeout: Duration,
}

impl Client {
    /// A client for the configured sink.
    ///
    /// # Errors
    /// A usage fault where the URL or the tenant cannot be used, or where https is asked for and the system has no
    /// certificate authorities.
    pub fn new(planhat: &Planhat) -> Result<Client, Fault> {
        let https = base(&planhat.url)?.scheme() == "https";
        Client::with_roots(planhat, if https { system_roots()? } else { rustls::RootCertStore::empty() })
    }

    fn with_roots(planhat: &Planhat, roots: rustls::RootCertStore) -> Result<Client, Fault> {
        let base = base(&planhat.url)?;
        check_tenant(planhat.tenant.reveal()?.trim())?;
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(roots)?)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            // A retry hidden in the library would be a batch doubled without a ledger row.
            .retry(reqwest::retry::never())
            .referer(false)
            .user_agent(concat!("pg2planhat/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT.min(planhat.timeout))
            // Node closes idle connections after 5 s. A request that crosses such a close is in doubt without need, so
            // ours are closed well before.
            .pool_idle_timeout(Duration::from_secs(2))
            // Proxies add headers of their own; what is over the bound is an answer that cannot be read.
            .http1_max_headers(MOST_HEADERS);
        // HTTPS_PROXY is honoured: its tunnel sees a host name only. A plain http request would show the proxy the tenant
        // in its path, and one to this machine has no need of it.
        let builder = if base.scheme() == "https" && !is_loopback(&base) { builder } else { builder.no_proxy() };
        let http = builder.build().map_err(|error| {
            Fault::usage(format!("the HTTP client cannot be set up: {}", causes(&error)), "check the proxy variables")
        })?;
        Ok(Client { http, tenant: planhat.tenant.clone(), timeout: planhat.timeout })
    }

    /// Sends one body (a JSON array), once, and reads what comes back. Takes at most the configured time-out. Who drops
    /// the future before its end must take the request as in doubt.
    pub async fn send(&self, endpoint: &Endpoint, body: Bytes) -> Answer {
        // Read each time: a mounted secret that a person has mended must heal a halted section by itself.
        let tenant = self.tenant.reveal().map(|tenant| tenant.trim().to_owned());
        let url = tenant.clone().and_then(|tenant| endpoint.url(&tenant));
        match (tenant, url) {
            (Ok(tenant), Ok(url)) => redacted(self.exchange(url, body).await, &tenant),
            (Err(fault), _) | (Ok(_), Err(fault)) => {
                Answer { verdict: Verdict::Environment { remedy: fault.remedy }, status: None, message: fault.what }
            }
        }
    }

    /// Requests a URL without a tenant; returns the answer, or why there is none.
    pub(crate) async fn look(&self, url: reqwest::Url) -> Result<Looked, String> {
        let deadline = Instant::now() + self.timeout.min(CONNECT_TIMEOUT);
        let response = match timeout_at(deadline, self.http.get(url).send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(causes(&error)),
            Err(_) => return Err("no answer in time".to_owned()),
        };
        let text =
            |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let (status, content_type, location) =
            (response.status().as_u16(), text(header::CONTENT_TYPE), text(header::LOCATION));
        Ok(Looked { status, content_type, location, body: keep(response, KEPT, deadline).await.body })
    }

    async fn exchange(&self, url: reqwest::Url, body: Bytes) -> Answer {
        let deadline = Instant::now() + self.timeout;
        let most = ANSWER_ROOM + body.len().saturating_mul(2);
        let (body, handover) = pieces(body);
        let request = self
            .http
            .post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT_ENCODING, "identity")
            .body(reqwest::Body::wrap(body));
        let response = match timeout_at(deadline, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return lost(&handover, &causes(&error)),
            Err(_) => return lost(&handover, &format!("no answer within {:?}", self.timeout)),
        };
        let early = !handover.handed();
        let (head, status) = (response.headers().clone(), response.status().as_u16());
        let most = if response.status().is_success() { most } else { KEPT };
        let kept = keep(response, most, deadline).await;
        // A 2xx that came before the whole batch had left does not prove that the batch was taken.
        if early && (200..300).contains(&status) {
            return lost(&handover, &format!("answered {status} before the request was sent"));
        }
        let nobody_has_it = handover.give_up();
        let mut answer = read_within(&reply(status, &head, &kept), SystemTime::now(), most);
        if let (Verdict::Unreadable, Some(why)) = (&answer.verdict, kept.broke) {
            answer.message = format!("{}: {why}", answer.message);
        }
        // An answer that proves nothing about a sent request is enough where the request was not sent.
        if matches!(answer.verdict, Verdict::Unknown) && nobody_has_it {
            answer.verdict = Verdict::Later { retry_after: None };
        }
        answer
    }
}

/// The result of [`Client::look`].
pub(crate) struct Looked {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) location: String,
    pub(crate) body: Vec<u8>,
}

/// The kept part of a body; `broke` says why it is not the whole.
struct KeptConnection {
    body: Vec<u8>,
    broke: Option<String>,
}

async fn keep(mut response: reqwest::Response, most: usize, deadline: Instant) -> KeptConnection {
    let mut body = Vec::new();
    let broke = loop {
        match timeout_at(deadline, response.chunk()).await {
            Ok(Ok(None)) => break None,
            Ok(Ok(Some(chunk))) if body.len() + chunk.len() > most => {
                body.extend_from_slice(&chunk[..most - body.len()]);
                break Some(format!("it is over {most} bytes long"));
            }
            Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
            Ok(Err(error)) => break Some(causes(&error)),
            Err(_) => break Some("it did not end in time".to_owned()),
        }
    };
    KeptConnection { body, broke }
}

fn reply<'a>(status: u16, head: &'a HeaderMap, kept: &'a KeptConnection) -> Reply<'a> {
    let text = |name| head.get(name).and_then(|value| value.to_str().ok());
    Reply {
        status,
        content_type: text(header::CONTENT_TYPE),
        content_encoding: text(header::CONTENT_ENCODING),
        retry_after: text(header::RETRY_AFTER),
        date: text(header::DATE),
        location: text(header::LOCATION),
        body: &kept.body,
        whole: kept.broke.is_none(),
    }
}

/// Decides, where no answer came, whether the request may have been received.
fn lost(handover: &HandOver, why: &str) -> Answer {
    if handover.give_up() {
        let verdict = if handover.begun() { Verdict::Interrupted } else { Verdict::NotSent };
        Answer { verdict, status: None, message: format!("not sent: {why}") }
    } else {
        Answer { verdict: Verdict::Unknown, status: None, message: format!("in doubt: {why}") }
    }
}

fn redacted(mut answer: Answer, tenant: &str) -> Answer {
    let clean = |text: &mut String| *text = redact(text, &[tenant]);
    clean(&mut answer.message);
    match &mut answer.verdict {
        Verdict::Partial(refused) => refused.iter_mut().for_each(|refused| clean(&mut refused.error)),
        Verdict::Environment { remedy } => clean(remedy),
        Verdict::Received
        | Verdict::BadItem
        | Verdict::TooLarge
        | Verdict::Later { .. }
        | Verdict::NotSent
        | Verdict::Interrupted
        | Verdict::Unknown
        | Verdict::Unreadable => {}
    }
    answer
}

/// An error's causes from the inside out, the innermost first: "connection refused" is what people look for. The outer
/// ones hold the URL, and so the tenant; they are left out.
fn causes(error: &reqwest::Error) -> String {
    let mut innermost = None;
    let mut source = error.source();
    while let Some(error) = source {
        innermost = Some(error.to_string());
        source = error.source();
    }
    innermost.unwrap_or_else(|| "the request failed".to_owned())
}

fn is_loopback(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn system_roots() -> Result<rustls::RootCertStore, Fault> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(Fault::usage(
            "this system has no certificate authorities, so no https server can be trusted",
            "install the package ca-certificates, or set SSL_CERT_FILE to a PEM file of authorities",
        ));
    }
    Ok(roots)
}

/// TLS with the provider named, not with the process's default, which others may set or not.
fn tls(roots: rustls::RootCertStore) -> Result<rustls::ClientConfig, Fault> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Fault::bug(format!("TLS cannot be set up: {error}")))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
