//! The question that a request puts, and the person who puts it. The request has passed the guard.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, Query};
use axum::http::header::LOCATION;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::config::Role;
use crate::console::app::Console;
use crate::console::history::TimeSpan;
use crate::console::people::Person;
use crate::console::problem::{Refusal, theme, wants_json};
use crate::console::who::is_encrypted;
use crate::model::Fault;
use crate::state::Store;

/// A request's question, and the person who puts it.
pub(crate) struct Ask {
    pub console: Arc<Console>,
    pub person: Person,
    /// Whether a script asks, which gets a JSON document instead of a page.
    pub json: bool,
    /// Whether the browser came by TLS, as far as that is known.
    pub encrypted: bool,
    pub theme: String,
    pub query: HashMap<String, String>,
}

impl FromRequestParts<Arc<Console>> for Ask {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Ask, Refusal> {
        let nobody = || Refusal::new(StatusCode::UNAUTHORIZED, "nobody is logged in here", "log in with your token");
        let person = parts.extensions.get::<Person>().cloned().ok_or_else(nobody)?;
        let json = wants_json(&parts.headers);
        let theme = theme(&parts.headers).to_owned();
        let query =
            Query::<HashMap<String, String>>::try_from_uri(&parts.uri).map(|Query(query)| query).unwrap_or_default();
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
        let encrypted = is_encrypted(console, &parts.headers, peer);
        Ok(Ask { console: Arc::clone(console), person, json, encrypted, theme, query })
    }
}

/// Returns the number that a text is; `None` where it is empty.
pub(crate) fn number(name: &str, given: &str) -> Result<Option<i64>, Refusal> {
    let wrong = |_| Fault::usage(format!("{name}: {given:?} is no number"), "give the id that the list shows").into();
    if given.is_empty() { Ok(None) } else { given.parse().map(Some).map_err(wrong) }
}

impl Ask {
    /// Returns a parameter of the address, trimmed; an empty text where it is missing.
    pub(crate) fn given(&self, name: &str) -> &str {
        self.query.get(name).map_or("", |value| value.trim())
    }

    /// Checks that the parameter `section`, where it is given, names a section of the configuration or of the state: one that
    /// the configuration has no more has its history all the same.
    pub(crate) async fn known_section(&self, store: &Store) -> Result<(), Refusal> {
        let given = self.given("section");
        let config = self.console.config();
        let own: Vec<&str> = config.sections.iter().map(|section| section.name.as_str()).collect();
        if given.is_empty() || own.contains(&given) {
            return Ok(());
        }
        let recorded = store.sections().await.map_err(|error| error.fault())?;
        let known = recorded.iter().any(|row| row.name.as_str() == given);
        known.then_some(()).ok_or_else(|| Refusal::no_choice("section", given, &own))
    }

    /// Returns a parameter that is a number; `None` where it is missing.
    ///
    /// # Errors
    /// It is given, and no number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, Refusal> {
        number(name, self.given(name))
    }

    /// Returns the span of time that the plots show.
    pub(crate) fn span(&self) -> TimeSpan {
        TimeSpan::parse(self.given("span"))
    }

    /// Returns whether the person may change something.
    pub(crate) fn is_operator(&self) -> bool {
        self.person.role == Role::Operator
    }

    /// Returns whether the person may see the content of rows.
    pub(crate) fn sees_rows(&self) -> bool {
        self.console.config().console.rows.sees(self.person.role)
    }

    /// Redirects a browser to the page that shows the result of a change; answers a script with the document.
    pub(crate) fn leads_to(&self, path: &str, document: serde_json::Value) -> Result<Response, Refusal> {
        if self.json {
            return Ok(axum::Json(document).into_response());
        }
        let bad = |_| Refusal::new(StatusCode::BAD_REQUEST, "that is no address of this console", "begin at /");
        let path = HeaderValue::from_str(path).map_err(bad)?;
        Ok((StatusCode::SEE_OTHER, [(LOCATION, path)]).into_response())
    }
}
