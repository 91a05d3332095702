//! The login and the logout.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::{ConnectInfo, Form, Query, State};
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Response};

use crate::console::app::Console;
use crate::console::bare_pages;
use crate::console::lock::held;
use crate::console::people::Login;
use crate::console::problem::{Refusal, host_of, theme, wants_json};
use crate::console::who::{is_encrypted, sessions_of};

type Given = HashMap<String, String>;

/// What is said where a login succeeded, and the browser does not send the session.
const NO_COOKIE: &str = "You were logged in, and your browser has not kept it: allow cookies for this address.";

/// `GET /login`
pub(crate) async fn page(headers: HeaderMap, Query(given): Query<Given>) -> Html<String> {
    let wrong = if given.contains_key("lost") { NO_COOKIE } else { "" };
    Html(bare_pages::login(theme(&headers), wrong, local(given.get("next"))))
}

/// Returns where the login leads: a path of this console, or the Overview.
fn local(next: Option<&String>) -> &str {
    let fine = |path: &&String| {
        path.starts_with('/')
            && !path.starts_with("//")
            && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    };
    next.filter(fine).map_or("/", String::as_str)
}

/// `POST /session`
pub(crate) async fn login(
    State(console): State<Arc<Console>>,
    peer: Option<Extension<ConnectInfo<std::net::SocketAddr>>>,
    headers: HeaderMap,
    Form(given): Form<Given>,
) -> Result<Response, Refusal> {
    let token = given.get("token").map(String::as_str).unwrap_or_default();
    let outcome = held(&console.sessions).login(token, Instant::now());
    let next = local(given.get("next"));
    match outcome {
        Login::In(id, person) => {
            tracing::info!(name = person.name, role = person.role.as_str(), "somebody has logged in at the console");
            let peer = peer.map(|Extension(ConnectInfo(peer))| peer.ip());
            // The browser forgets the session that it had: nobody else may go on with it.
            for before in sessions_of(&console, &headers) {
                held(&console.sessions).logout(before);
            }
            leads(next, &[set(&headers, is_encrypted(&console, &headers, peer), &id, 86_400)])
        }
        Login::Later => Err(Refusal::busy("too many have tried to log in just now")),
        Login::Wrong => {
            let peer = peer.map(|Extension(ConnectInfo(peer))| peer.ip().to_string()).unwrap_or_default();
            tracing::warn!(peer, "a login at the console has failed");
            let wrong = "This is no token, or a link that was used or is too old.";
            if wants_json(&headers) {
                return Err(Refusal::new(StatusCode::UNAUTHORIZED, wrong, "ask for a new one"));
            }
            Ok((StatusCode::UNAUTHORIZED, Html(bare_pages::login(theme(&headers), wrong, next))).into_response())
        }
    }
}

/// `POST /session/end`
pub(crate) async fn logout(State(console): State<Arc<Console>>, headers: HeaderMap) -> Result<Response, Refusal> {
    for id in sessions_of(&console, &headers) {
        held(&console.sessions).logout(id);
    }
    leads("/login", &[true, false].map(|encrypted| set(&headers, encrypted, "", 0)))
}

/// Returns the header that sets the session's cookie for so many seconds. One of an encrypted connection goes over no other.
fn set(headers: &HeaderMap, encrypted: bool, id: &str, seconds: u32) -> String {
    let name = Console::cookie(host_of(headers), encrypted);
    let secure = if encrypted { "; Secure" } else { "" };
    format!("{name}={id}; Path=/; HttpOnly; SameSite=Strict{secure}; Max-Age={seconds}")
}

fn leads(to: &str, cookies: &[String]) -> Result<Response, Refusal> {
    let bad = |_| Refusal::new(StatusCode::BAD_REQUEST, "that is no address of this console", "log in at /login");
    let mut answer = (StatusCode::SEE_OTHER, [(LOCATION, HeaderValue::from_str(to).map_err(bad)?)]).into_response();
    for cookie in cookies {
        answer.headers_mut().append(SET_COOKIE, HeaderValue::from_str(cookie).map_err(bad)?);
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_leads_nowhere_else() {
        for (given, leads) in [
            ("/sections/logins", "/sections/logins"),
            ("//evil.example", "/"),
            ("https://evil.example", "/"),
            ("/\\evil.example", "/"),
            ("", "/"),
        ] {
            assert_eq!(local(Some(&given.to_owned())), leads);
        }
        assert_eq!(local(None), "/");
    }
}
