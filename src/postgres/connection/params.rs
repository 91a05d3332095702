//! The values of a connection's parameters.
//!
//! * In: nothing.
//! * Out: hosts, passwords, TLS and session settings as types.
//! * Never: a password that `Debug` shows.

use std::fmt;
use std::path::PathBuf;

use crate::config::TlsMode;

/// Looks up an environment variable.
pub(crate) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerEndpoint {
    pub host: Host,
    /// TCP port, or the number in the Unix socket's name.
    pub port: u16,
    /// The role's password there.
    pub password: Option<Password>,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name or an address.
    Tcp(String),
    /// The directory of a Unix socket.
    Unix(PathBuf),
}

/// A password in memory. Its `Debug` form never shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// How the connection is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSetup {
    /// libpq's `sslmode`.
    pub mode: TlsMode,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM file of the client certificate (chain).
    pub cert: Option<PathBuf>,
    /// PEM file of its key.
    pub key: Option<PathBuf>,
    /// How TLS begins.
    pub negotiation: Negotiation,
}

/// libpq's `sslnegotiation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Negotiation {
    /// Ask in PostgreSQL's protocol first.
    #[default]
    Request,
    /// Begin with TLS at once (PostgreSQL 17).
    Direct,
}

/// libpq's `target_session_attrs`, as far as it is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SessionKind {
    /// Any server.
    #[default]
    Any,
    /// One that accepts writes: the primary.
    ReadWrite,
}

/// libpq's `channel_binding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Binding {
    Disable,
    /// Where the server offers it.
    #[default]
    Prefer,
    /// Or no connection.
    Require,
}

impl fmt::Display for ServerEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Tcp(name) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Host::Tcp(name) => write!(f, "{name}:{}", self.port),
            Host::Unix(directory) => write!(f, "{}:{}", directory.display(), self.port),
        }
    }
}
