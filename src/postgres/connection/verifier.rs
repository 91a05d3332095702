//! Whether the server's certificate is trusted.
//!
//! * In: a certificate chain, and the mode of the configuration.
//! * Out: trust, or the reason against it.
//! * Never: a host name left unchecked under `verify-full`.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};

use crate::postgres::connection::x509;

/// What a server's certificate must prove.
#[derive(Debug)]
pub(crate) enum Trust {
    /// A chain to one of `roots`, which were made of `pinned` where a file gave them; and the host's name, where it
    /// is asked for.
    Chain { roots: RootCertStore, pinned: Vec<CertificateDer<'static>>, name: bool },
    /// Nothing but that the server holds its key.
    KeyOnly,
}

#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) trust: Trust,
    pub(crate) provider: Arc<CryptoProvider>,
}

/// A certificate that vouches for itself, and that nobody told us to trust.
#[derive(Debug, thiserror::Error)]
#[error("self-signed certificate")]
pub(crate) struct SelfSigned;

impl Verifier {
    fn verify_chain(
        &self,
        certificate: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        (roots, pinned): (&RootCertStore, &[CertificateDer<'static>]),
        now: UnixTime,
    ) -> Result<(), Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        match verify_server_cert_signed_by_trust_anchor(parsed, roots, intermediates, now, algorithms) {
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) if x509::is_self_issued(certificate) => {
                Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(SelfSigned)))))
            }
            // What `openssl req -x509` makes for a server is marked as an authority. webpki refuses that in its place,
            // after it has found the dates right; but it was given to us as trusted, byte for byte.
            Err(error) if is_authority_as_server(&error) && pinned.iter().any(|known| known == certificate) => Ok(()),
            verdict => verdict,
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Trust::Chain { roots, pinned, name } = &self.trust {
            let parsed = ParsedCertificate::try_from(end_entity)?;
            self.verify_chain(end_entity, &parsed, intermediates, (roots, pinned), now)?;
            if *name {
                verify_server_name(&parsed, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// webpki's own error is not reachable by type through rustls. A new wording fails closed.
pub(crate) fn is_authority_as_server(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(other)) = error else { return false };
    format!("{other:?}").contains("CaUsedAsEndEntity")
}
