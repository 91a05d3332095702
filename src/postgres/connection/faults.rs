//! What a failed connection means, in two lines: I/O errors, TLS alerts, certificates.
//!
//! * In: an error and the place that was dialled.
//! * Out: a fault with its remedy.
//! * Never: a secret.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

use crate::model::{Exit, Fault};
use crate::postgres::connection::faults;
use crate::postgres::connection::verifier::SelfSigned;

/// The fault of a stream that failed, by its cause.
#[allow(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which grows")]
pub(crate) fn describe_io(place: &str, error: &io::Error) -> Fault {
    if let Some(error) = faults::cause(error) {
        return faults::describe(place, error);
    }
    let remedy = match error.kind() {
        _ if is_out_of_files(error) => OUT_OF_FILES,
        io::ErrorKind::ConnectionRefused => {
            "is PostgreSQL running there, with listen_addresses that cover this host? Is the port right (source.port)? It is tried again"
        }
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "look at firewalls, security groups and routes between this host and the server; it is tried again"
        }
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "the connection was cut: look into the server's log, and at proxies in between; it is tried again"
        }
        io::ErrorKind::PermissionDenied => "this host's firewall or sandbox forbids the connection",
        _ => "look at the network between this host and the server; it is tried again",
    };
    Fault::unavailable(format!("{place}: {error}"), remedy)
}

/// EMFILE and ENFILE.
fn is_out_of_files(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}

const OUT_OF_FILES: &str = "this process has no file descriptor left: raise its limit (`ulimit -n`, LimitNOFILE= in the \
unit, the container's nofile), and see who holds them in /proc/PID/fd; it is tried again";

/// That the operating system gives no thread, or nothing for it to wait by. It may later: it is no bug.
pub(crate) fn no_thread(whose: &str, error: &io::Error) -> Fault {
    let remedy = if is_out_of_files(error) {
        OUT_OF_FILES
    } else {
        "raise this process's limit of threads (`ulimit -u`, TasksMax= in the unit, the container's pids limit), or its memory; it \
         is tried again"
    };
    Fault::unavailable(format!("there is no thread for {whose}: {error}"), remedy)
}

#[allow(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which grows")]
pub(crate) fn describe_unix(place: &str, path: &std::path::Path, error: &io::Error) -> Fault {
    let remedy = match error.kind() {
        _ if is_out_of_files(error) => OUT_OF_FILES,
        io::ErrorKind::NotFound => {
            "is PostgreSQL running there? SHOW unix_socket_directories and SHOW port tell where its socket is"
        }
        io::ErrorKind::PermissionDenied => {
            "let this process's user into the socket's directory (unix_socket_permissions, or the directory's rights)"
        }
        _ => "is PostgreSQL running there? It is tried again",
    };
    Fault::unavailable(format!("{place}: the socket {}: {error}", path.display()), remedy)
}

/// The TLS error in an I/O error, where that is its cause.
pub(crate) fn cause(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// The fault of a TLS error.
#[allow(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which grows")]
pub(crate) fn describe(place: &str, error: &Error) -> Fault {
    let (what, remedy) = match error {
        Error::InvalidCertificate(error) => describe_certificate(error),
        Error::AlertReceived(alert) => describe_alert(*alert),
        error => (
            format!("TLS failed: {error}"),
            "the server must speak TLS 1.2 or 1.3 (ssl_min_protocol_version, ssl_ciphers), with no proxy in between that speaks otherwise".to_owned(),
        ),
    };
    // Bytes that are not TLS say nothing about the configuration: a server that starts, or a proxy, may send them.
    let exit = if is_settled(error) { Exit::Usage } else { Exit::Unavailable };
    Fault::new(exit, format!("{place}: {what}"), remedy)
}

/// Whether somebody must change something before TLS can succeed.
#[allow(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which grows")]
fn is_settled(error: &Error) -> bool {
    !matches!(
        error,
        Error::InvalidMessage(_)
            | Error::PeerMisbehaved(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::DecryptError
    )
}

/// Whether waiting may help.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    cause(error).is_none_or(|error| !is_settled(error))
}

#[allow(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which grows")]
pub(crate) fn describe_certificate(error: &CertificateError) -> (String, String) {
    let trust = "set source.ca to the PEM file of the authority that signed it";
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            format!("the server's certificate, or one that it hangs on, has expired: {error}"),
            "renew it on the server, then SELECT pg_reload_conf(); if it is valid, set this machine's clock".to_owned(),
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            format!("the server's certificate is not valid yet: {error}"),
            "set the clock of this machine, or of the one that made the certificate".to_owned(),
        ),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            let names = presented_names(presented);
            (
                format!("the server's certificate is not for {expected}; {names}"),
                format!(
                    "set source.host to a name that the certificate has; or renew it with subjectAltName {expected}; or, to check its authority alone, set source.tls: verify-ca"
                ),
            )
        }
        CertificateError::BadSignature => (
            "the server's certificate was issued by an authority that is not trusted here, but bears the name of one that is"
                .to_owned(),
            format!("{trust}: the authority was made anew, or somebody stands in for the server"),
        ),
        CertificateError::UnknownIssuer => (
            "the server's certificate was issued by an authority that is not trusted here".to_owned(),
            format!(
                "{trust} (of a cloud provider: its CA bundle); or have the server send its intermediate certificates (ssl_cert_file)"
            ),
        ),
        CertificateError::Other(other) if other.0.is::<SelfSigned>() => (
            "the server's certificate is self-signed, and not among those trusted".to_owned(),
            format!(
                "{trust}, or to that certificate itself; or, to encrypt without knowing the server, set source.tls: require"
            ),
        ),
        error => (
            format!("the server's certificate is not accepted: {error}"),
            "renew it on the server: X.509 v3, subjectAltName, RSA of 2048 bits or more or ECDSA, SHA-256 or better"
                .to_owned(),
        ),
    }
}

pub(crate) fn presented_names(presented: &[String]) -> String {
    if presented.is_empty() {
        return "it has no subjectAltName at all (a common name alone does not count)".to_owned();
    }
    // rustls writes `DnsName("db.internal")`.
    let plain = |name: &String| match name.split_once("(\"") {
        Some((_, rest)) => rest.trim_end_matches("\")").to_owned(),
        None => name.clone(),
    };
    format!("it is for {}", presented.iter().map(plain).collect::<Vec<_>>().join(", "))
}

#[allow(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which grows")]
pub(crate) fn describe_alert(alert: AlertDescription) -> (String, String) {
    let what = format!("the server ended TLS with the alert {alert:?}");
    let remedy = match alert {
        AlertDescription::CertificateRequired
        | AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        // The signature does not fit the authority: another authority of the same name was made since.
        | AlertDescription::DecryptError
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown => {
            "the server wants a client certificate that its ssl_ca_file vouches for: set source.cert and source.key, or renew them"
        }
        _ => {
            "look into the server's log for its reason: TLS versions (ssl_min_protocol_version), ciphers, client certificates"
        }
    };
    (what, remedy.to_owned())
}
