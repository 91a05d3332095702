//! Refusals: each is a page or a problem document that says what happened and what to do, never a bare status.
//!
//! * In: a [`Fault`], or a rule of the guard.
//! * Out: status, title, what happened, what to do.
//! * Never: more about the program than the person who asks may know.

use axum::http::header::{ACCEPT, CONTENT_TYPE, COOKIE, HOST, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Response};

use crate::console::bare_pages;
use crate::model::{Exit, Fault};

/// A request that was refused, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub status: StatusCode,
    pub what: String,
    pub remedy: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, what: impl Into<String>, remedy: impl Into<String>) -> Refusal {
        Refusal { status, what: what.into(), remedy: remedy.into() }
    }

    /// Makes a refusal for more requests than are answered at once.
    pub(crate) fn busy(what: &str) -> Refusal {
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, what, "try again in a moment")
    }

    /// Makes a refusal for a parameter whose value is none of those that it may have. One that was passed over would make
    /// the answer another than the question.
    pub(crate) fn no_choice(name: &str, given: &str, known: &[&str]) -> Refusal {
        Fault::usage(format!("{name}: {given:?} is none of those there are"), format!("choose of {}", known.join(", ")))
            .into()
    }

    pub(crate) fn not_found(what: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, what, "the menu leads to everything that there is")
    }

    /// Draws the refusal in the form that the request asked for.
    pub(crate) fn draw(&self, headers: &HeaderMap, theme: &str) -> Response {
        let mut answer = if wants_json(headers) {
            let title = self.status.canonical_reason().unwrap_or("Refused");
            let document = serde_json::json!({
                "type": "about:blank", "title": title, "status": self.status.as_u16(), "detail": self.what,
                "remedy": self.remedy,
            });
            let kind = HeaderValue::from_static("application/problem+json");
            (self.status, [(CONTENT_TYPE, kind)], document.to_string()).into_response()
        } else {
            let page = bare_pages::error(theme, title(self.status), &self.what, &self.remedy, self.status.as_u16());
            (self.status, Html(page)).into_response()
        };
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
        }
        answer
    }
}

/// Returns the heading of a refusal for people. A script gets the words of HTTP.
fn title(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "Not logged in",
        StatusCode::FORBIDDEN => "Not allowed",
        StatusCode::NOT_FOUND => "Not here",
        StatusCode::METHOD_NOT_ALLOWED => "No page",
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => "Nothing was done",
        StatusCode::UNPROCESSABLE_ENTITY => "This cannot be used",
        StatusCode::TOO_MANY_REQUESTS => "Too much at once",
        StatusCode::MISDIRECTED_REQUEST => "Not this address",
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => "Not to be had now",
        StatusCode::INTERNAL_SERVER_ERROR => "A mistake of the program",
        _ => "Refused",
    }
}

/// Returns whether a script asks, which gets a JSON document.
pub(crate) fn wants_json(headers: &HeaderMap) -> bool {
    headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"))
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        let status = match fault.exit {
            Exit::Usage | Exit::Findings => StatusCode::UNPROCESSABLE_ENTITY,
            Exit::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Exit::NeedsPerson => StatusCode::CONFLICT,
            Exit::Bug | Exit::Done => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refusal::new(status, fault.what, fault.remedy)
    }
}

impl IntoResponse for Refusal {
    /// Attaches the refusal to the answer. The guard draws it, because it knows in which form.
    fn into_response(self) -> Response {
        let mut answer = self.status.into_response();
        answer.extensions_mut().insert(self);
        answer
    }
}

/// Returns the Host of a request, which the guard has checked.
pub(crate) fn host_of(headers: &HeaderMap) -> &str {
    headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
}

/// Returns the value of a cookie.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|cookies| cookies.split(';')).find_map(|cookie| {
        let (known, value) = cookie.trim().split_once('=')?;
        (known == name).then_some(value)
    })
}

/// Returns the theme that the person chose: `light`, `dark`, or empty for the system's.
pub(crate) fn theme(headers: &HeaderMap) -> &str {
    cookie(headers, "pg2planhat_theme").filter(|theme| ["light", "dark"].contains(theme)).unwrap_or_default()
}
