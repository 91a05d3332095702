//! The settings of one source (a URL, the environment), and how two sources are merged.
//!
//! * In: libpq's keywords with their values, from a URL or from environment variables.
//! * Out: a [`ConnectionSettings`].
//! * Never: a value that is guessed; a mode that lets an attacker choose plaintext.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::TlsMode;
use crate::model::Fault;
use crate::postgres::connection::hosts;
use crate::postgres::connection::hosts::{DEFAULT_PORT, HostPort};
use crate::postgres::connection::params::{Binding, Env, Negotiation, Password, SessionKind};

/// What one source of settings says; `None` is "nothing". Filled from stronger to weaker by [`ConnectionSettings::or`].
#[derive(Default)]
pub(crate) struct ConnectionSettings {
    pub hosts: Option<Vec<HostPort>>,
    pub ports: Option<Vec<u16>>,
    pub database: Option<String>,
    pub user: Option<String>,
    pub password: Option<Password>,
    pub passfile: Option<PathBuf>,
    pub tls: Option<TlsMode>,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub negotiation: Option<Negotiation>,
    pub options: Option<String>,
    pub application_name: Option<String>,
    pub session: Option<SessionKind>,
    pub channel_binding: Option<Binding>,
    pub connect_timeout: Option<Duration>,
}

impl ConnectionSettings {
    pub(crate) fn or(self, weaker: ConnectionSettings) -> ConnectionSettings {
        ConnectionSettings {
            hosts: self.hosts.or(weaker.hosts),
            ports: self.ports.or(weaker.ports),
            database: self.database.or(weaker.database),
            user: self.user.or(weaker.user),
            password: self.password.or(weaker.password),
            passfile: self.passfile.or(weaker.passfile),
            tls: self.tls.or(weaker.tls),
            ca: self.ca.or(weaker.ca),
            cert: self.cert.or(weaker.cert),
            key: self.key.or(weaker.key),
            negotiation: self.negotiation.or(weaker.negotiation),
            options: self.options.or(weaker.options),
            application_name: self.application_name.or(weaker.application_name),
            session: self.session.or(weaker.session),
            channel_binding: self.channel_binding.or(weaker.channel_binding),
            connect_timeout: self.connect_timeout.or(weaker.connect_timeout),
        }
    }

    /// Takes one setting by libpq's keyword. `Ok(false)`: no such keyword.
    pub(crate) fn set(&mut self, keyword: &str, value: &str) -> Result<bool, Fault> {
        let text = || Some(value.to_owned());
        let path = || Some(PathBuf::from(value));
        match keyword {
            "host" => self.hosts = Some(hosts::parse_hosts(value)?),
            "port" => self.ports = Some(parse_ports(value)?),
            "dbname" => self.database = text(),
            "user" => self.user = text(),
            "password" => self.password = Some(Password(value.to_owned())),
            "passfile" => self.passfile = path(),
            "sslmode" => self.tls = Some(parse_mode(value)?),
            // `system` is libpq's word for what is the default here.
            "sslrootcert" => self.ca = path().filter(|_| value != "system"),
            "sslcert" => self.cert = path(),
            "sslkey" => self.key = path(),
            "options" => self.options = text(),
            "application_name" => self.application_name = text(),
            "sslnegotiation" => {
                let words = [("postgres", Negotiation::Request), ("direct", Negotiation::Direct)];
                self.negotiation = Some(choose(keyword, value, &words)?);
            }
            "target_session_attrs" => {
                let words = [
                    ("any", SessionKind::Any),
                    ("read-write", SessionKind::ReadWrite),
                    ("primary", SessionKind::ReadWrite),
                ];
                self.session = Some(choose(keyword, value, &words)?);
            }
            "channel_binding" => {
                let words = [("disable", Binding::Disable), ("prefer", Binding::Prefer), ("require", Binding::Require)];
                self.channel_binding = Some(choose(keyword, value, &words)?);
            }
            "connect_timeout" => self.connect_timeout = parse_timeout(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// libpq's environment variables, and the keywords that they stand for.
pub(crate) const FILLS: &[(&str, &str)] = &[
    ("PGHOST", "host"),
    ("PGPORT", "port"),
    ("PGDATABASE", "dbname"),
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGPASSFILE", "passfile"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGOPTIONS", "options"),
    ("PGAPPNAME", "application_name"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
];

/// Settings that may fill a URL that stands alone.
pub(crate) const FILLS_ANY: &[(&str, &str)] = &[
    ("PGPASSFILE", "passfile"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
];

pub(crate) fn from_env(env: Env<'_>, fills: &[(&str, &str)]) -> Result<ConnectionSettings, Fault> {
    let mut given = ConnectionSettings::default();
    for (variable, keyword) in fills {
        // libpq takes an empty variable as not set.
        if let Some(value) = env(variable).filter(|value| !value.is_empty()) {
            given.set(keyword, &value).map_err(|fault| Fault {
                what: format!("the environment variable {variable}: {}", fault.what),
                ..fault
            })?;
        }
    }
    Ok(given)
}

fn choose<T: Copy>(keyword: &str, value: &str, words: &[(&str, T)]) -> Result<T, Fault> {
    words.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        Fault::usage(format!("{keyword} cannot be {value:?}"), format!("set it to one of: {}", known.join(", ")))
    })
}

fn parse_mode(value: &str) -> Result<TlsMode, Fault> {
    let words = [
        ("verify-full", TlsMode::VerifyFull),
        ("verify-ca", TlsMode::VerifyCa),
        ("require", TlsMode::Require),
        ("disable", TlsMode::Disable),
    ];
    if matches!(value, "prefer" | "allow") {
        return Err(Fault::usage(
            format!("sslmode={value} lets the server, or anyone in between, choose plaintext, and is not offered"),
            "set it to verify-full, verify-ca or require; or to disable where plaintext is meant",
        ));
    }
    choose("sslmode", value, &words)
}

fn parse_ports(value: &str) -> Result<Vec<u16>, Fault> {
    let port = |text: &str| if text.is_empty() { Some(DEFAULT_PORT) } else { text.parse().ok().filter(|p| *p > 0) };
    let ports: Option<Vec<u16>> = value.split(',').map(|text| port(text.trim())).collect();
    ports.ok_or_else(|| Fault::usage(format!("{value:?} is not a port"), "give 1 to 65535"))
}

fn parse_timeout(value: &str) -> Result<Option<Duration>, Fault> {
    let seconds: u64 = value
        .trim()
        .parse()
        .map_err(|_| Fault::usage(format!("connect_timeout cannot be {value:?}"), "give whole seconds"))?;
    // libpq reads 0 as "for ever", which would let one dead address hold a reconnect up.
    Ok(Some(seconds).filter(|seconds| *seconds > 0).map(Duration::from_secs))
}
