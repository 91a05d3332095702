//! The person who asks: named by a token, by the proxy, or by the browser's cookie.
//!
//! * In: a request's headers, and where it comes from.
//! * Out: a [`Person`], or nobody.
//! * Never: a proxy's header believed from anywhere else.

use std::net::IpAddr;
use std::time::Instant;

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HeaderName, ORIGIN};

use crate::config::Role;
use crate::console::app::Console;
use crate::console::lock::held;
use crate::console::people::Person;
use crate::console::problem::{cookie, host_of};

/// Returns the person who sends these headers. A request with a token is judged by the token alone. `used` says that the
/// person did something, which a page that follows the program by itself is not.
pub(crate) fn who(console: &Console, headers: &HeaderMap, peer: Option<IpAddr>, used: bool) -> Option<Person> {
    match bearer(headers) {
        Some(token) => held(&console.sessions).bearer(token),
        None => by_proxy(console, headers, peer).or_else(|| {
            sessions_of(console, headers)
                .into_iter()
                .find_map(|id| held(&console.sessions).of_cookie(id, Instant::now(), used))
        }),
    }
}

/// Returns the sessions that the request's cookies name, the one of an encrypted connection first.
pub(crate) fn sessions_of<'a>(console: &Console, headers: &'a HeaderMap) -> Vec<&'a str> {
    let host = host_of(headers);
    let plain = (!console.is_secure()).then(|| Console::cookie(host, false));
    let names = [Some(Console::cookie(host, true)), plain];
    names.into_iter().flatten().filter_map(|name| cookie(headers, &name)).collect()
}

/// Returns whether the browser came by TLS: to this port, or to a proxy in front of it. A browser says so by the origin of
/// its page, and by a cookie that it sends over TLS alone: both concern nobody but itself. A proxy says so by
/// `X-Forwarded-Proto`, which counts from its own address.
pub(crate) fn is_encrypted(console: &Console, headers: &HeaderMap, peer: Option<IpAddr>) -> bool {
    const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let config = console.config();
    let trusted =
        |peer| config.console.proxy.as_ref().is_some_and(|proxy| proxy.from.iter().any(|of| of.contains(peer)));
    console.is_secure()
        || text(ORIGIN).starts_with("https://")
        || cookie(headers, &Console::cookie(host_of(headers), true)).is_some()
        || (text(PROTO).eq_ignore_ascii_case("https") && peer.is_some_and(trusted))
}

/// Returns the token of a script.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// Returns the person whom the proxy names. The header counts only from the proxy's own address: any other client can
/// send it.
fn by_proxy(console: &Console, headers: &HeaderMap, peer: Option<IpAddr>) -> Option<Person> {
    let config = console.config();
    let proxy = config.console.proxy.as_ref()?;
    let peer = peer?;
    if !proxy.from.iter().any(|range| range.contains(peer)) {
        return None;
    }
    let header = |name: &str| {
        let mut given = headers.get_all(name).iter();
        // A second header means that the client added one of its own.
        match (given.next(), given.next()) {
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        }
    };
    let name: String = header(&proxy.user)?.chars().filter(|c| !c.is_control()).take(100).collect();
    let groups = proxy.groups.as_deref().and_then(header).unwrap_or_default();
    let role = if proxy.is_operator(&name, groups) { Role::Operator } else { Role::Viewer };
    (!name.trim().is_empty()).then_some(Person { name, role })
}
