//! The checks that every request passes, in this order: Host, origin, form, session, role; and the headers of every
//! answer.
//!
//! * In: a request for a [`ConsoleRoute`].
//! * Out: the request with its [`Person`], or a [`Refusal`].
//! * Never: a check that a page has to remember; a header that lets another site read or frame an answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, LOCATION, ORIGIN, REFERER,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;

use crate::console::app::Console;
use crate::console::compress::{FETCH_SITE, smaller};
use crate::console::finish::finished;
use crate::console::handlers::handler;
use crate::console::people::Person;
use crate::console::problem::{Refusal, theme, wants_json};
use crate::console::routes::{Access, ConsoleRoute};
use crate::console::who::{bearer, who};
use crate::operations::in_the_name_of;

/// A body has at most this many bytes.
const BODY: usize = 1 << 20;

/// An answer takes at most this long. It leaves a person's statement, which may take 30 s, time to be drawn.
const ANSWER: Duration = Duration::from_secs(45);

/// A login takes at most this long: anybody may try one.
const LOGIN: Duration = Duration::from_secs(5);

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Returns the router, which puts every route behind the guard.
pub(crate) fn router(console: &Arc<Console>) -> Router {
    let mut router = Router::new();
    for route in ConsoleRoute::ALL {
        let guarded: MethodRouter<Arc<Console>> =
            handler(*route).layer(middleware::from_fn_with_state((Arc::clone(console), Some(*route)), guard));
        router = router.route(route.path(), guarded);
    }
    let nothing = async || Refusal::not_found("there is no such page").into_response();
    let beside = middleware::from_fn_with_state((Arc::clone(console), None), guard);
    let outside = Router::new().fallback(nothing).layer(beside);
    router.with_state(Arc::clone(console)).fallback_service(outside).layer(DefaultBodyLimit::max(BODY))
}

/// Lets a request pass, or answers why it does not.
async fn guard(
    State((console, route)): State<(Arc<Console>, Option<ConsoleRoute>)>,
    mut request: Request,
    next: Next,
) -> Response {
    let headers = request.headers().clone();
    let theme = theme(&headers).to_owned();
    let of_set_up = console.in_set_up() && route.is_some_and(|route| !route.is_of_set_up());
    let checked = check(&console, route, &request);
    let mut answer = match checked {
        // Until a configuration exists, the wizard is all there is to see.
        Ok(_) if of_set_up => (StatusCode::SEE_OTHER, [(LOCATION, HeaderValue::from_static("/setup"))]).into_response(),
        Err(refusal) => refused(&console, route, &request, &refusal),
        Ok(person) => {
            let actor = person.as_ref().map(|person| format!("console:{}", person.name));
            if let Some(person) = person {
                request.extensions_mut().insert(person);
            }
            // Everything that a page does is recorded under this name, so that no page has to pass it on.
            let answer = in_the_name_of(actor.unwrap_or_else(|| "console".to_owned()), next.run(request));
            if route.is_some_and(ConsoleRoute::is_stream) {
                answer.await
            } else if route == Some(ConsoleRoute::CarryOut) {
                finished(answer).await
            } else {
                let limit = if route == Some(ConsoleRoute::Login) { LOGIN } else { ANSWER };
                let late = Refusal::new(StatusCode::GATEWAY_TIMEOUT, "the answer took too long", "try again");
                tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| late.into_response())
            }
        }
    };
    let refusal = answer.extensions_mut().remove::<Refusal>().or_else(|| bare(&answer));
    if let Some(refusal) = refusal {
        let allowed = answer.headers_mut().remove(ALLOW);
        answer = refusal.draw(&headers, &theme);
        answer.headers_mut().extend(allowed.map(|methods| (ALLOW, methods)));
    }
    let asset = route == Some(ConsoleRoute::Asset) && answer.status().is_success();
    dress(answer.headers_mut(), asset);
    smaller(&headers, answer).await
}

/// Returns the refusal for an answer that is a mere status: axum's own, where a method or a parameter does not fit.
fn bare(answer: &Response) -> Option<Refusal> {
    let status = answer.status();
    let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if status.as_u16() < 400 || kind.starts_with("text/html") || kind.contains("json") {
        return None;
    }
    let what = match status {
        StatusCode::METHOD_NOT_ALLOWED => "this address takes a form, and is no page of its own",
        _ => "the request cannot be read",
    };
    Some(Refusal::new(status, what, "go on from the Overview"))
}

/// Answers a refused request. A browser without a session is led to the login; a script is told.
fn refused(console: &Console, route: Option<ConsoleRoute>, request: &Request, refusal: &Refusal) -> Response {
    let page = request.method() == Method::GET && route.is_some_and(|route| !route.is_stream());
    if refusal.status == StatusCode::UNAUTHORIZED && page && !wants_json(request.headers()) {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let next: String = path
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
                other => format!("%{other:02X}"),
            })
            .collect();
        // A login led here, and the browser sends no session: it would be asked for the token again and again.
        let lost = if comes_from_login(request.headers()) { "&lost=1" } else { "" };
        let login = format!("/login?next={next}{lost}");
        if let Ok(login) = HeaderValue::from_str(&login) {
            return (StatusCode::SEE_OTHER, [(LOCATION, login)]).into_response();
        }
    }
    if refusal.status == StatusCode::UNAUTHORIZED {
        tracing::debug!(path = request.uri().path(), listen = console.listen, "a request without a session");
    }
    refusal.clone().into_response()
}

/// Returns whether the page that led here is the one that asks for the token.
fn comes_from_login(headers: &HeaderMap) -> bool {
    let from = headers.get(REFERER).and_then(|from| from.to_str().ok()?.parse::<Uri>().ok());
    from.is_some_and(|from| ["/login", "/session"].contains(&from.path()))
}

/// Makes all checks in their order, and returns the person who asks.
fn check(console: &Console, route: Option<ConsoleRoute>, request: &Request) -> Result<Option<Person>, Refusal> {
    let headers = request.headers();
    let host = host(console, request)?;
    if !request.method().is_safe() {
        same_origin(headers, &host, bearer(headers).is_some())?;
        form(headers)?;
    }
    let Some(route) = route else { return Ok(None) };
    let Access::Of(role) = route.access() else { return Ok(None) };
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    let person = who(console, headers, peer, !route.is_stream());
    let nobody = || Refusal::new(StatusCode::UNAUTHORIZED, "nobody is logged in here", "log in with your token");
    let person = person.ok_or_else(nobody)?;
    if person.role < role {
        let what = format!("this needs the role {}; {} is {}", role.as_str(), person.name, person.role.as_str());
        return Err(Refusal::new(StatusCode::FORBIDDEN, what, "ask for a token of that role"));
    }
    Ok(Some(person))
}

/// Checks that the request has one Host, and that the Host is ours.
fn host(console: &Console, request: &Request) -> Result<String, Refusal> {
    let ours = |name: &str| console.hosts.allow(name);
    let mut given = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (given.next(), given.next()) else {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "one Host header is needed", "ask as a browser does"));
    };
    let host = host.to_str().unwrap_or_default().to_owned();
    let authority = request.uri().authority().is_none_or(|authority| ours(authority.as_str()));
    if ours(&host) && authority {
        return Ok(host);
    }
    let remedy = "ask by IP address or by localhost, or list the name under console.hosts";
    Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, "this Host is not ours", remedy))
}

/// Checks that no other site made the browser send the request.
fn same_origin(headers: &HeaderMap, host: &str, bearer: bool) -> Result<(), Refusal> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let fine = match (text(FETCH_SITE), text(ORIGIN)) {
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => origin.split_once("://").is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(host)),
        (None, None) => bearer,
    };
    let what = "the request comes from another site, or does not say from where";
    fine.then_some(())
        .ok_or_else(|| Refusal::new(StatusCode::FORBIDDEN, what, "use the page's own buttons, or a token"))
}

/// Checks that the body is a form.
fn form(headers: &HeaderMap) -> Result<(), Refusal> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let fine = kind.is_none_or(|kind| kind.split(';').next() == Some("application/x-www-form-urlencoded"));
    let what = "the body is no form";
    let remedy = "send application/x-www-form-urlencoded";
    fine.then_some(()).ok_or_else(|| Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what, remedy))
}

/// Sets the headers of every answer.
fn dress(headers: &mut HeaderMap, asset: bool) {
    // A proxy that compresses an answer would hold back what a stream sends.
    let keep = if asset { "public, max-age=31536000, immutable" } else { "no-store, no-transform" };
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not `no-referrer`: under that a browser says `Origin: null` of the page's own forms, and over plain HTTP beyond
        // this machine it sends no Sec-Fetch-Site that would say it instead.
        (REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (CACHE_CONTROL, keep),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
