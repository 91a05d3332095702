//! The TLS of the console's port: a certificate and its key, read again when their files change.
//!
//! * In: two PEM files.
//! * Out: an acceptor for the next connection.
//! * Never: a port that drops TLS because a file is broken: the last good certificate stays.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::console::lock::held;
use crate::model::Fault;

/// The times at which the two files were changed last.
type Changed = [Option<SystemTime>; 2];

/// The certificate of the port, and the files that it comes from.
pub(crate) struct TlsPort {
    cert: PathBuf,
    key: PathBuf,
    current: Mutex<(TlsAcceptor, Changed)>,
}

impl TlsPort {
    /// Reads both files.
    ///
    /// # Errors
    /// A file cannot be read, or the two do not belong together.
    pub(crate) fn new(cert: &Path, key: &Path) -> Result<TlsPort, Fault> {
        let changed = changed(cert, key);
        let acceptor = read(cert, key)?;
        Ok(TlsPort { cert: cert.to_owned(), key: key.to_owned(), current: Mutex::new((acceptor, changed)) })
    }

    /// Returns the acceptor for the next connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        held(&self.current).0.clone()
    }

    /// Reads the files again where they have changed.
    pub(crate) fn renew(&self) {
        let changed = changed(&self.cert, &self.key);
        if held(&self.current).1 == changed {
            return;
        }
        match read(&self.cert, &self.key) {
            Ok(acceptor) => {
                tracing::info!(cert = %self.cert.display(), "the console's certificate was read again");
                *held(&self.current) = (acceptor, changed);
            }
            // It is said once for each change, because the two files may be written one after the other.
            Err(fault) => {
                tracing::warn!(
                    what = fault.what,
                    remedy = fault.remedy,
                    "the console goes on with the certificate it has"
                );
                held(&self.current).1 = changed;
            }
        }
    }
}

fn changed(cert: &Path, key: &Path) -> Changed {
    let at = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    [at(cert), at(key)]
}

fn read(cert: &Path, key: &Path) -> Result<TlsAcceptor, Fault> {
    let remedy = "name a PEM file that this process may read: console.cert (the chain) and console.key";
    let unread = |path: &Path, error: &dyn std::fmt::Display| {
        Fault::usage(format!("the console's {} cannot be read: {error}", path.display()), remedy)
    };
    let chain = CertificateDer::pem_file_iter(cert).and_then(|all| all.collect::<Result<Vec<_>, _>>());
    let chain = chain.map_err(|error| unread(cert, &error))?;
    if chain.is_empty() {
        return Err(unread(cert, &"it has no certificate"));
    }
    let own = PrivateKeyDer::from_pem_file(key).map_err(|error| unread(key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let built = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, own));
    let mut config = built.map_err(|error| {
        let what = format!("the console's {} and {} do not work: {error}", cert.display(), key.display());
        Fault::usage(what, "give a certificate and the key that it was made for")
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(folder: &Path, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(folder.join("tls.crt"), cert.pem()).unwrap();
        std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    #[test]
    fn a_broken_file_keeps_the_certificate_that_worked() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        assert!(TlsPort::new(&cert, &key).is_err_and(|fault| fault.what.contains("tls.crt")));
        let (_, first_key) = pair(folder.path(), "one.example");
        let port = TlsPort::new(&cert, &key).unwrap();
        let of = |port: &TlsPort| Arc::as_ptr(held(&port.current).0.config()) as usize;
        let first = of(&port);
        port.renew();
        assert_eq!(of(&port), first, "nothing has changed");
        let later = |path: &Path| {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::now() + std::time::Duration::from_secs(5)).unwrap();
        };
        std::fs::write(&cert, "no certificate").unwrap();
        later(&cert);
        port.renew();
        assert_eq!(of(&port), first, "the broken one is not taken");
        pair(folder.path(), "two.example");
        later(&key);
        port.renew();
        assert_ne!(of(&port), first, "the new one is");
        std::fs::write(&key, first_key).unwrap();
        assert!(TlsPort::new(&cert, &key).is_err(), "a key of another certificate");
    }
}
