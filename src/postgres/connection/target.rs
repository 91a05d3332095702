//! Where to connect, as whom and how protected: what was given, in the order in which it counts.
//!
//! * In: a [`Source`], its URL, libpq's environment variables, a password file.
//! * Out: a [`Target`] that is whole. Resolve it again before every connect, for password files are rotated.
//! * Never: a password in a `Debug` or `Display` form; a weaker protection than the one asked for.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Secret, Source, TlsMode};
use crate::model::Fault;
use crate::postgres::connection::hosts::{DEFAULT_PORT, HostPort};
use crate::postgres::connection::params::{
    Binding, Env, Host, Negotiation, Password, ServerEndpoint, SessionKind, TlsSetup,
};
use crate::postgres::connection::settings::{ConnectionSettings, FILLS, FILLS_ANY, from_env};
use crate::postgres::connection::{hosts, passfile, url};

const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything that a connection needs.
#[derive(Clone, Debug)]
pub struct Target {
    /// Servers to try, in order; at least one.
    pub endpoints: Vec<ServerEndpoint>,
    pub database: String,
    pub user: String,
    /// How the connection is protected.
    pub tls: TlsSetup,
    /// `-c name=value …` for the server, as given.
    pub options: Option<String>,
    /// Replaces `pg2planhat` at the front of `application_name`.
    pub application_name: Option<String>,
    /// Whether any server will do, or only the primary.
    pub session: SessionKind,
    /// Whether SCRAM must be bound to the TLS channel.
    pub channel_binding: Binding,
    /// Whether the password may go out readable where nothing proves who reads it.
    pub readable_password: bool,
    /// The bound on connecting to one address, hand-shake and authentication included.
    pub connect_timeout: Duration,
    /// Why a password file was ignored, for the error that a missing password will cause.
    pub passfile_note: Option<String>,
    /// The largest message that the server may send on an ordinary connection; `None`: as large as it likes.
    pub largest_message: Option<usize>,
}

impl Target {
    /// Resolves `source` with this process's environment and password file.
    ///
    /// # Errors
    /// A usage fault that names the setting.
    pub fn resolve(source: &Source) -> Result<Target, Fault> {
        Target::resolve_with(source, &process_env)
    }

    /// Resolves `source` with another environment.
    pub fn resolve_with(source: &Source, env: Env<'_>) -> Result<Target, Fault> {
        let given = gathered(source, env)?;
        let target = Target::settle(given, env)?;
        Ok(Target { readable_password: source.readable_password, ..target })
    }

    /// As [`Target::resolve`], for the login of `query`: the same servers and database, and no password but its own.
    pub fn resolve_reader(source: &Source) -> Result<Target, Fault> {
        Target::resolve_reader_with(source, &process_env)
    }

    fn resolve_reader_with(source: &Source, env: Env<'_>) -> Result<Target, Fault> {
        let Some(reader) = &source.reader else {
            return Err(Fault::usage(
                "source.reader is not set",
                "write `reader: { user: ROLE, password: … }` in source",
            ));
        };
        // A password file of the streaming role that cannot be read is not the reader's fault.
        let mut given = gathered(&Source { password: None, ..source.clone() }, env)?;
        let own = given.user.replace(reader.user.clone());
        given.database = given.database.or(own);
        given.password = reader.password.as_ref().map(Secret::reveal).transpose()?.map(Password);
        let target = Target::settle(given, env)?;
        Ok(Target { readable_password: source.readable_password, ..target })
    }

    /// Resolves a `postgres://…` URL that stands alone. PGHOST, PGPASSWORD and the like are the source's and do
    /// not fill it: a password must never reach a server that it is not for.
    pub fn resolve_url(secret: &Secret) -> Result<Target, Fault> {
        let given = url::parse(&secret.reveal()?)?;
        Target::settle(given.or(from_env(&process_env, FILLS_ANY)?), &process_env)
    }

    fn settle(given: ConnectionSettings, env: Env<'_>) -> Result<Target, Fault> {
        let user = given
            .user
            .or_else(|| ["USER", "LOGNAME"].into_iter().find_map(env))
            .ok_or_else(|| Fault::usage("no database user", "set source.user or PGUSER"))?;
        let database = given.database.unwrap_or_else(|| user.clone());
        let hosts = given.hosts.filter(|hosts| !hosts.is_empty()).unwrap_or_else(|| vec![HostPort::named("localhost")]);
        let mut endpoints = pair(hosts, given.ports.unwrap_or_default())?;
        let mut passfile_note = None;
        if let Some(password) = given.password {
            endpoints.iter_mut().for_each(|endpoint| endpoint.password = Some(password.clone()));
        } else if let Some(path) =
            given.passfile.or_else(|| env("HOME").map(|home| PathBuf::from(home).join(".pgpass")))
        {
            match passfile::read(&path) {
                Ok(text) => {
                    for endpoint in &mut endpoints {
                        endpoint.password = passfile::find(&text, endpoint, &database, &user).map(Password);
                    }
                }
                Err(reason) => passfile_note = reason,
            }
        }
        let session = given.session.unwrap_or(match endpoints.len() {
            1 => SessionKind::Any,
            _ => SessionKind::ReadWrite,
        });
        let mode = match given.tls.unwrap_or_default() {
            // As libpq does: an authority that is given is there to be checked.
            TlsMode::Require if given.ca.is_some() => TlsMode::VerifyCa,
            mode @ (TlsMode::VerifyFull | TlsMode::VerifyCa | TlsMode::Require | TlsMode::Disable) => mode,
        };
        let negotiation = given.negotiation.unwrap_or_default();
        if (mode, negotiation) == (TlsMode::Disable, Negotiation::Direct) {
            return Err(Fault::usage(
                "TLS is disabled, and sslnegotiation=direct wants to begin with it",
                "set source.tls to verify-full; or take sslnegotiation out of the URL and PGSSLNEGOTIATION",
            ));
        }
        Ok(Target {
            endpoints,
            database,
            user,
            tls: TlsSetup { mode, ca: given.ca, cert: given.cert, key: given.key, negotiation },
            options: given.options,
            application_name: given.application_name,
            session,
            channel_binding: given.channel_binding.unwrap_or_default(),
            readable_password: false,
            connect_timeout: given.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT),
            passfile_note,
            largest_message: None,
        })
    }

    /// Whether TLS proves whose server it is. Any certificate of the system's authorities is not proof without its name.
    pub fn verifies(&self) -> bool {
        match self.tls.mode {
            TlsMode::VerifyFull => true,
            TlsMode::VerifyCa => self.tls.ca.is_some(),
            TlsMode::Require | TlsMode::Disable => false,
        }
    }

    /// How errors name this target at one of its servers.
    pub fn at(&self, endpoint: &ServerEndpoint) -> String {
        format!("postgres://{}@{endpoint}/{}", self.user, self.database)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<String> = self.endpoints.iter().map(ServerEndpoint::to_string).collect();
        write!(f, "postgres://{}@{}/{}", self.user, servers.join(","), self.database)
    }
}

fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn pair(hosts: Vec<HostPort>, ports: Vec<u16>) -> Result<Vec<ServerEndpoint>, Fault> {
    if ports.len() > 1 && ports.len() != hosts.len() {
        return Err(Fault::usage(
            format!("{} ports are given for {} hosts", ports.len(), hosts.len()),
            "give one port for all hosts, or one for each",
        ));
    }
    let shared = ports.first().copied().filter(|_| ports.len() == 1);
    let endpoint = |(index, host): (usize, HostPort)| {
        let port = host.port.or(shared).or_else(|| ports.get(index).copied()).unwrap_or(DEFAULT_PORT);
        let host = if host.name.starts_with('/') { Host::Unix(host.name.into()) } else { Host::Tcp(host.name) };
        ServerEndpoint { host, port, password: None }
    };
    Ok(hosts.into_iter().enumerate().map(endpoint).collect())
}

/// The settings of the file, its URL and the environment, in this order.
fn gathered(source: &Source, env: Env<'_>) -> Result<ConnectionSettings, Fault> {
    let mut given = ConnectionSettings {
        hosts: source.host.as_deref().map(hosts::parse_hosts).transpose()?,
        ports: source.port.map(|port| vec![port]),
        database: source.database.clone(),
        user: source.user.clone(),
        password: source.password.as_ref().map(Secret::reveal).transpose()?.map(Password),
        tls: source.tls,
        ca: source.ca.clone(),
        cert: source.cert.clone(),
        key: source.key.clone(),
        ..ConnectionSettings::default()
    };
    if let Some(secret) = &source.url {
        given = given.or(url::parse(&secret.reveal()?)?);
    }
    Ok(given.or(from_env(env, FILLS)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Exit;

    fn nothing() -> Source {
        Source {
            url: None,
            host: None,
            port: None,
            database: None,
            user: None,
            password: None,
            tls: None,
            ca: None,
            cert: None,
            key: None,
            readable_password: false,
            schema: "public".into(),
            slot: "s".into(),
            publication: "p".into(),
            update_publication: None,
            manage: true,
            failover_slot: false,
            reader: None,
        }
    }

    fn resolve(source: &Source, env: &[(&str, &str)]) -> Result<Target, Fault> {
        Target::resolve_with(source, &|name| {
            env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn secret(text: &str) -> Option<Secret> {
        Some(Secret::Inline(text.into()))
    }

    #[test]
    fn the_file_counts_before_the_url_and_the_url_before_the_environment() {
        let source = Source {
            url: secret("postgres://u:url@h/d?sslmode=require&application_name=mine"),
            password: secret("file"),
            ..nothing()
        };
        let env = [("PGHOST", "e"), ("PGPORT", "6000"), ("PGUSER", "e"), ("PGPASSWORD", "e"), ("PGOPTIONS", "-c a=b")];
        let target = resolve(&source, &env).unwrap();
        assert_eq!(target.to_string(), "postgres://u@h:6000/d");
        assert_eq!(target.endpoints[0].password, Some(Password("file".into())));
        assert_eq!(target.tls.mode, TlsMode::Require);
        assert_eq!(target.options.as_deref(), Some("-c a=b"));
        assert_eq!(target.application_name.as_deref(), Some("mine"));
        // The environment does not weaken what the file says, even where the file repeats the default.
        let env = [&env[..], &[("PGSSLMODE", "disable")]].concat();
        for mode in [TlsMode::VerifyFull, TlsMode::VerifyCa, TlsMode::Require, TlsMode::Disable] {
            let written = Source { tls: Some(mode), ..source.clone() };
            assert_eq!(resolve(&written, &env).unwrap().tls.mode, mode);
        }
        assert_eq!(resolve(&source, &env).unwrap().tls.mode, TlsMode::Require, "the URL's");
        let alone = Source { url: None, ..source };
        assert_eq!(resolve(&alone, &env).unwrap().tls.mode, TlsMode::Disable, "the environment's");
        assert_eq!(resolve(&alone, &env[..5]).unwrap().tls.mode, TlsMode::VerifyFull, "the default");
    }

    #[test]
    fn defaults_fill_the_rest() {
        let target = resolve(&nothing(), &[("USER", "me"), ("PGHOST", "")]).unwrap();
        assert_eq!(target.to_string(), "postgres://me@localhost:5432/me");
        assert_eq!((target.tls.mode, target.session), (TlsMode::VerifyFull, SessionKind::Any));
        assert_eq!(target.connect_timeout, Duration::from_secs(10));
        assert_eq!(resolve(&nothing(), &[]).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn several_hosts_mean_the_primary() {
        let env = [("PGHOST", "a,/run/pg,::1"), ("PGPORT", "1,,3"), ("PGUSER", "u")];
        let target = resolve(&nothing(), &env).unwrap();
        assert_eq!(target.to_string(), "postgres://u@a:1,/run/pg:5432,[::1]:3/u");
        assert_eq!(target.endpoints[1].host, Host::Unix("/run/pg".into()));
        assert_eq!(target.session, SessionKind::ReadWrite);
        let any = [&env[..], &[("PGTARGETSESSIONATTRS", "any")]].concat();
        assert_eq!(resolve(&nothing(), &any).unwrap().session, SessionKind::Any);
        let odd = [("PGHOST", "a,b,c"), ("PGPORT", "1,2"), ("PGUSER", "u")];
        assert!(resolve(&nothing(), &odd).unwrap_err().what.contains("2 ports are given for 3 hosts"));
    }

    #[test]
    fn every_variable_is_read_and_named_when_wrong() {
        let env = [
            ("PGUSER", "u"),
            ("PGSSLMODE", "require"),
            ("PGSSLROOTCERT", "/ca"),
            ("PGSSLCERT", "/cert"),
            ("PGSSLKEY", "/key"),
            ("PGSSLNEGOTIATION", "direct"),
            ("PGCHANNELBINDING", "require"),
            ("PGCONNECT_TIMEOUT", "3"),
            ("PGAPPNAME", "mine"),
        ];
        let target = resolve(&nothing(), &env).unwrap();
        let tls = TlsSetup {
            // An authority that is given is there to be checked.
            mode: TlsMode::VerifyCa,
            ca: Some("/ca".into()),
            cert: Some("/cert".into()),
            key: Some("/key".into()),
            negotiation: Negotiation::Direct,
        };
        assert_eq!(target.tls, tls);
        assert_eq!((target.channel_binding, target.connect_timeout), (Binding::Require, Duration::from_secs(3)));
        assert!(target.verifies() && !target.readable_password);
        let fault = resolve(&nothing(), &[("PGUSER", "u"), ("PGSSLMODE", "disable"), ("PGSSLNEGOTIATION", "direct")]);
        assert!(fault.unwrap_err().what.contains("sslnegotiation=direct"));
        let fault = resolve(&nothing(), &[("PGSSLMODE", "prefer")]).unwrap_err();
        assert!(fault.what.contains("PGSSLMODE") && fault.remedy.contains("verify-full"), "{fault}");
    }

    #[test]
    fn a_password_file_fills_each_host_and_is_read_anew() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let env = [("PGHOST", "a,b"), ("PGUSER", "u"), ("PGPASSFILE", path)];
        for password in ["first", "second"] {
            std::fs::write(path, format!("a:*:*:u:{password}\n")).unwrap();
            let target = resolve(&nothing(), &env).unwrap();
            assert_eq!(target.endpoints[0].password, Some(Password(password.into())));
            assert_eq!(target.endpoints[1].password, None);
        }
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        assert!(resolve(&nothing(), &env).unwrap().passfile_note.unwrap().contains("chmod 0600"));
    }

    #[test]
    fn nothing_shows_a_password() {
        let source = Source { url: secret("postgres://u:hush@h/d"), ..nothing() };
        let target = resolve(&source, &[]).unwrap();
        assert!(!format!("{target} {target:?}").contains("hush"));
    }
}
