//! TLS to PostgreSQL, by rustls.
//!
//! * In: a TCP stream on which TLS may begin, and how it is to be verified.
//! * Out: a TLS stream and its channel's hash; or a fault that names the cause and what to do.
//! * Never: less verification than the mode says; a certificate accepted whose key the server does not hold.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::TlsMode;
use crate::model::Fault;
use crate::postgres::connection::faults::cause;
use crate::postgres::connection::params::{Negotiation, TlsSetup};
use crate::postgres::connection::verifier::{Trust, Verifier};
use crate::postgres::connection::{faults, x509};

/// PostgreSQL's name in ALPN; `sslnegotiation=direct` demands it.
const ALPN: &[u8] = b"postgresql";

/// Begins TLS. `name` is the host as it was given: what the certificate must be for.
pub(crate) async fn begin(
    stream: TcpStream,
    setup: &TlsSetup,
    name: &str,
    place: &str,
) -> Result<(TlsStream<TcpStream>, Option<Vec<u8>>), Fault> {
    let config = client_config(setup)?;
    // An absolute DNS name may end with a dot; certificates' names do not.
    let server = ServerName::try_from(name.strip_suffix('.').unwrap_or(name).to_owned()).map_err(|_| {
        Fault::usage(
            format!("{place}: {name:?} is neither a DNS name nor an address, as TLS wants it"),
            "mend source.host",
        )
    })?;
    let connected = TlsConnector::from(Arc::new(config)).connect(server, stream).await;
    let direct = setup.negotiation == Negotiation::Direct;
    let stream = connected.map_err(|error| match cause(&error) {
        None if direct => not_direct(place, &error),
        Some(_) | None => faults::describe_io(place, &error),
    })?;
    // Without ALPN any TLS server could answer, for example an HTTP server that a redirect led to (libpq checks it, too).
    if direct && stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        return Err(not_direct(place, &io::Error::other("the server did not choose the protocol postgresql by ALPN")));
    }
    let certificates = stream.get_ref().1.peer_certificates();
    let end_point = certificates.and_then(<[_]>::first).and_then(|certificate| x509::end_point(certificate));
    Ok((stream, end_point))
}

/// The fault of TLS that was begun at once, with a server that does not know of it.
fn not_direct(place: &str, error: &io::Error) -> Fault {
    Fault::unavailable(
        format!("{place}: TLS cannot begin at once (sslnegotiation=direct): {error}"),
        "PostgreSQL knows it from 17 on, and poolers and proxies may not: take sslnegotiation=direct out of the URL, or PGSSLNEGOTIATION; it is tried again",
    )
}

fn client_config(setup: &TlsSetup) -> Result<ClientConfig, Fault> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trust = match setup.mode {
        mode @ (TlsMode::VerifyFull | TlsMode::VerifyCa) => {
            let pinned = setup.ca.as_deref().map(certificates).transpose()?.unwrap_or_default();
            let roots = roots(setup.ca.as_deref(), &pinned)?;
            Trust::Chain { roots, pinned, name: mode == TlsMode::VerifyFull }
        }
        TlsMode::Require => Trust::KeyOnly,
        TlsMode::Disable => return Err(Fault::bug("TLS was begun where it is disabled")),
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::bug(format!("TLS cannot be set up: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { trust, provider }));
    let mut config = match (&setup.cert, &setup.key) {
        (Some(cert), Some(key)) => {
            builder.with_client_auth_cert(certificates(cert)?, private_key(key)?).map_err(|error| {
                Fault::usage(
                    format!(
                        "the client certificate {} and the key {} do not work: {error}",
                        cert.display(),
                        key.display()
                    ),
                    "give a certificate and the key that it was made for (RSA, ECDSA P-256/P-384 or Ed25519)",
                )
            })?
        }
        (None, None) => builder.with_no_client_auth(),
        (Some(_), None) | (None, Some(_)) => {
            return Err(Fault::usage(
                "of the client certificate and its key only one is given",
                "set both source.cert and source.key, or neither",
            ));
        }
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn roots(ca: Option<&Path>, pinned: &[CertificateDer<'static>]) -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca else {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::debug!(%error, "a system certificate was passed over");
        }
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(Fault::usage(
                "this system has no certificates of authorities",
                "set source.ca to the PEM file of the server's authority (of a cloud provider: its CA bundle), or install ca-certificates",
            ));
        }
        return Ok(roots);
    };
    for certificate in pinned {
        roots.add(certificate.clone()).map_err(|error| {
            Fault::usage(
                format!("the authorities' file {} holds a certificate that cannot be used: {error}", path.display()),
                "take it out of the file, or get a new file from whoever runs the server",
            )
        })?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(not_pem(path, "no certificate is in it")),
        Err(error) => Err(not_pem(path, &error.to_string())),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Fault> {
    let text = read(path)?;
    // PKCS#8 says so in its label, the older form in a header.
    if memchr::memmem::find(&text, b"ENCRYPTED").is_some() {
        let shown = path.display();
        return Err(Fault::usage(
            format!("the key {shown} is encrypted by a passphrase, and nobody is here to type it"),
            format!("openssl pkey -in {shown} -out plain.key, chmod 0600 plain.key, and set source.key to it"),
        ));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| not_pem(path, &error.to_string()))
}

fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    crate::config::bounded::read(path, 1 << 20).map_err(|error| {
        Fault::usage(
            format!("the file {} cannot be read: {error}", path.display()),
            "mend the path or the file's rights",
        )
    })
}

fn not_pem(path: &Path, why: &str) -> Fault {
    Fault::usage(
        format!("the file {} is not what it should be: {why}", path.display()),
        "give it in PEM form (-----BEGIN …); from DER: openssl x509 -inform der -in FILE",
    )
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use super::*;
    use crate::config::Source;
    use crate::model::Exit;
    use crate::postgres::connection::session::{Session, connect_sql};
    use crate::postgres::fixture::{authority, cluster, front, leaf};

    fn self_signed(params: &CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    /// Connects through a TLS end of its own with this certificate, to plaintext behind it.
    async fn through(pair: (String, String), change: impl FnOnce(&mut Source)) -> Result<Session, Fault> {
        let port = front(pair, false).await;
        let mut source = Source { port: Some(port), ..cluster().source("by_scram_plain") };
        change(&mut source);
        connect_sql(&source, "test").await
    }

    fn refused(outcome: Result<Session, Fault>, what: &str, remedy: &str) {
        let fault = outcome.err().expect("refused");
        assert_eq!(fault.exit, Exit::Usage, "{fault}");
        assert!(fault.what.contains(what) && fault.remedy.contains(remedy), "{fault}");
    }

    #[tokio::test]
    async fn a_certificate_for_another_host_is_named() {
        let pair = || authority().sign(&leaf(&["db.elsewhere", "10.0.0.1"]));
        let fault = "is not for localhost; it is for db.elsewhere, ";
        refused(through(pair(), |_| {}).await, fault, "verify-ca");
        assert!(through(pair(), |source| source.tls = Some(TlsMode::VerifyCa)).await.is_ok());
        let nameless = authority().sign(&leaf(&[]));
        refused(through(nameless, |_| {}).await, "no subjectAltName", "subjectAltName localhost");
    }

    #[tokio::test]
    async fn an_expired_certificate_is_refused_by_both_verifying_modes() {
        let mut params = leaf(&["localhost"]);
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        for mode in [TlsMode::VerifyFull, TlsMode::VerifyCa] {
            let outcome = through(authority().sign(&params), |source| source.tls = Some(mode)).await;
            refused(outcome, "has expired", "renew it");
        }
    }

    #[tokio::test]
    async fn a_self_signed_certificate_is_taken_when_it_is_given_or_nothing_is_verified() {
        let pair = || self_signed(&leaf(&["localhost"]));
        refused(through(pair(), |_| {}).await, "self-signed", "source.ca");
        let require = |source: &mut Source| (source.tls, source.ca) = (Some(TlsMode::Require), None);
        assert!(through(pair(), require).await.is_ok());

        // As `openssl req -x509` makes it.
        let mut params = leaf(&["localhost"]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        for params in [leaf(&["localhost"]), params] {
            let pair = self_signed(&params);
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &pair.0).unwrap();
            let ca = Some(file.path().to_owned());
            if let Err(fault) = through(pair, |source| source.ca = ca.clone()).await {
                panic!("{fault}");
            }
            let other = self_signed(&params);
            assert!(through(other, |source| source.ca = ca).await.is_err(), "another one of the same name");
        }
    }

    #[tokio::test]
    async fn an_unknown_authority_is_not_called_self_signed() {
        let stranger = crate::postgres::fixture::Authority::new();
        let outcome = through(stranger.sign(&leaf(&["localhost"])), |source| source.ca = None).await;
        refused(outcome, "authority that is not trusted", "source.ca");
    }

    #[tokio::test]
    async fn somebody_in_between_with_a_good_certificate_fails_by_channel_binding() {
        let port = front(authority().sign(&leaf(&["localhost"])), true).await;
        let source = Source { port: Some(port), ..cluster().source("by_scram") };
        assert!(connect_sql(&source, "test").await.is_err());
        let wire = crate::postgres::replication::connection::ReplicationConnection::connect(&source, "test").await;
        assert!(wire.err().expect("refused").what.contains("channel binding"));
    }

    #[tokio::test]
    async fn files_are_named_when_they_cannot_be_used() {
        let with = |cert: &str, key: &str| {
            let path = |name: &str| Some(cluster().path(name));
            Source { cert: path(cert), key: path(key), ..cluster().source("by_cert") }
        };
        let outcome = connect_sql(&with("nothing.crt", "client.key"), "test").await;
        refused(outcome, "nothing.crt cannot be read", "mend the path");
        let outcome = connect_sql(&with("client.key", "client.key"), "test").await;
        refused(outcome, "no certificate is in it", "PEM");
        let half = Source { key: None, ..with("client.crt", "client.key") };
        refused(connect_sql(&half, "test").await, "only one is given", "both");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "-----BEGIN ENCRYPTED PRIVATE KEY-----\n").unwrap();
        let encrypted = Source { key: Some(file.path().to_owned()), ..with("client.crt", "client.key") };
        refused(connect_sql(&encrypted, "test").await, "encrypted by a passphrase", "openssl pkey");
    }

    #[tokio::test]
    async fn a_server_without_tls_gets_nothing_in_plaintext() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 8]).await.unwrap();
            stream.write_all(b"N").await.unwrap();
            stream.read(&mut [0; 64]).await.unwrap_or(0)
        });
        let source = Source { host: Some("127.0.0.1".into()), port: Some(port), ..cluster().source("by_scram") };
        refused(connect_sql(&source, "test").await, "does not speak TLS", "ssl = on");
        assert_eq!(server.await.unwrap(), 0, "bytes after the refusal");
    }
}
