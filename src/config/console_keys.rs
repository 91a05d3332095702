//! `console`: where the web page listens, and who may use it.
//!
//! * In: its mapping.
//! * Out: a [`ConsoleConfig`].
//! * Never: a console beyond loopback that anybody may open.

use std::path::PathBuf;

use crate::config::decoder::Map;
use crate::config::endpoints::hosts;
use crate::config::yaml::{Node, NodeValue};
use crate::config::{ConsoleProxy, Secret, console_proxy, names, scalar};

#[derive(Clone, Debug, Default)]
pub struct ConsoleConfig {
    /// `address:port` to listen on; none: no console.
    pub listen: Option<String>,
    /// Further names that a request's Host header may have.
    pub hosts: Vec<String>,
    /// PEM file of the certificate (chain): the page is served by TLS.
    pub cert: Option<PathBuf>,
    /// PEM file of the certificate's key.
    pub key: Option<PathBuf>,
    /// Who may use it.
    pub tokens: Vec<ConsoleToken>,
    /// A proxy that says who asks.
    pub proxy: Option<ConsoleProxy>,
    /// Who sees what stands in rows.
    pub rows: RowsFor,
    /// Whether the file may be written from the page.
    pub edit: bool,
}

/// A person or a script that may use the console.
#[derive(Clone, Debug)]
pub struct ConsoleToken {
    /// As it is recorded.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// SHA-256 of the token, as hexadecimal text.
    pub sha256: Secret,
}

/// What somebody may do at the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look.
    Viewer,
    /// Look, and do what the commands do.
    Operator,
}

impl Role {
    /// The word in the file and on the page.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
        }
    }
}

/// Who sees what stands in rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowsFor {
    /// Operators alone.
    #[default]
    Operator,
    /// Viewers, too.
    Viewer,
    Nobody,
}

impl RowsFor {
    /// Whether this role sees them.
    pub fn sees(self, role: Role) -> bool {
        match self {
            RowsFor::Operator => role == Role::Operator,
            RowsFor::Viewer => true,
            RowsFor::Nobody => false,
        }
    }
}

pub(crate) fn console(map: &Map<'_>) -> ConsoleConfig {
    let console = ConsoleConfig {
        listen: map.read("listen", names::listen),
        hosts: hosts(map),
        cert: map.read("cert", |text| names::text(text).map(PathBuf::from)),
        key: map.read("key", |text| names::text(text).map(PathBuf::from)),
        tokens: tokens(map),
        proxy: console_proxy::proxy(map),
        rows: map.choice("rows", rows).unwrap_or_default(),
        edit: map.read("edit", scalar::boolean).unwrap_or(true),
    };
    if let (Some(listen), Some(node)) = (&console.listen, map.given("listen"))
        && !is_loopback(listen)
        && console.tokens.is_empty()
        && console.proxy.is_none()
    {
        map.report(
            node.at,
            format!("{} is beyond this machine, and nobody is named who may use the page", map.path("listen")),
            "`pg2planhat console token --name NAME --role operator` makes a token and the line for `tokens`; or listen on \
             127.0.0.1",
        );
    }
    for (one, other) in [("cert", "key"), ("key", "cert")] {
        if let (Some(node), None) = (map.given(one), map.given(other)) {
            let message = format!("{} is given without {other}", map.path(one));
            map.report(node.at, message, format!("add `{other}: PATH`, or remove {one}"));
        }
    }
    console
}

/// Whether only this machine can reach the address.
pub(crate) fn is_loopback(listen: &str) -> bool {
    match listen.parse::<std::net::SocketAddr>() {
        Ok(address) => address.ip().is_loopback(),
        Err(_) => listen.rsplit_once(':').is_some_and(|(host, _)| host.eq_ignore_ascii_case("localhost")),
    }
}

fn rows(word: &str) -> Option<RowsFor> {
    match word {
        "operator" => Some(RowsFor::Operator),
        "viewer" => Some(RowsFor::Viewer),
        "nobody" => Some(RowsFor::Nobody),
        _ => None,
    }
}

fn role(word: &str) -> Option<Role> {
    match word {
        "viewer" => Some(Role::Viewer),
        "operator" => Some(Role::Operator),
        _ => None,
    }
}

fn tokens(map: &Map<'_>) -> Vec<ConsoleToken> {
    const REMEDY: &str = "`pg2planhat console token --name NAME --role viewer` prints a line of it";
    let Some(node) = map.given("tokens") else { return Vec::new() };
    let NodeValue::List(items) = &node.value else {
        map.report(node.at, format!("{} must be a list, not {}", map.path("tokens"), node.describe()), REMEDY);
        return Vec::new();
    };
    let mut tokens: Vec<ConsoleToken> = Vec::new();
    for item in items {
        let token = token(map, item);
        let Some(token) = token else { continue };
        if tokens.iter().any(|known| known.name == token.name) {
            let message = format!("{} has the name {:?} twice", map.path("tokens"), token.name);
            map.report(item.at, message, "give each token a name of its own: it is recorded with what was done");
        }
        tokens.push(token);
    }
    tokens
}

fn token(map: &Map<'_>, item: &Node) -> Option<ConsoleToken> {
    let own = Map::open(item, crate::config::keys::TOKEN, map.path("tokens"), map.context());
    let digest = own.secret("sha256");
    if let Some((at, text)) = digest.as_ref().and_then(|digest| Some((digest.at, digest.text.as_deref()?)))
        && !(text.trim().len() == 64 && text.trim().bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        let remedy =
            "give the SHA-256 that `pg2planhat console token` prints: 64 hexadecimal digits, never the token itself";
        own.report(at, format!("{} is no SHA-256", own.path("sha256")), remedy);
    }
    Some(ConsoleToken {
        name: own.read("name", names::section)?.to_string(),
        role: own.choice("role", role)?,
        sha256: digest?.secret,
    })
}
