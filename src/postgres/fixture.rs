//! A throwaway PostgreSQL for the tests of this room: one a test process, with certificates and one role for each way
//! of authentication.
//!
//! * In: the server's programs, in the newest `/usr/lib/postgresql/*/bin` or where `PGBIN` says.
//! * Out: [`cluster`], and a [`Source`] for it to be changed at will.
//! * Never: a server or a directory left behind: a watchdog waits for this process's end, however it comes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::config::{Secret, Source, TlsMode};
use crate::postgres::connection::params::{Negotiation, TlsSetup};
use crate::postgres::connection::{dial, tls};

pub(crate) const PASSWORD: &str = "pass word:\\'%";

pub(crate) struct Cluster {
    pub directory: PathBuf,
    pub port: u16,
    /// Its standard input is the sign that this process lives.
    _watchdog: Child,
}

/// A certificate's parameters, ready to be changed.
pub(crate) fn leaf(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// The authority of this process.
pub(crate) struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key in PEM.
    pub(crate) fn sign(&self, params: &CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

pub(crate) fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(Authority::new)
}

pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start().expect("a PostgreSQL server for the tests: install it, or set PGBIN"))
}

impl Cluster {
    fn start() -> std::io::Result<Cluster> {
        let directory = tempfile::Builder::new().prefix("pg2planhat-").tempdir()?.keep();
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (certificate, key) = authority().sign(&leaf(&["localhost", "127.0.0.1", "::1"]));
        std::fs::write(directory.join("server.crt"), certificate)?;
        std::fs::write(directory.join("server.key"), key)?;
        std::fs::write(directory.join("ca.crt"), &authority().pem)?;
        let mut client = leaf(&[]);
        client.distinguished_name = rcgen::DistinguishedName::new();
        client.distinguished_name.push(DnType::CommonName, "by_cert");
        let (certificate, key) = authority().sign(&client);
        std::fs::write(directory.join("client.crt"), certificate)?;
        std::fs::write(directory.join("client.key"), key)?;
        std::fs::write(directory.join("hba"), HBA)?;
        std::fs::write(directory.join("setup.sql"), setup_sql())?;
        std::fs::write(directory.join("start.sh"), START)?;

        let as_root = Command::new("id").arg("-u").output()?.stdout.starts_with(b"0\n");
        let shell = |script: &str| {
            let mut command = if as_root { Command::new("runuser") } else { Command::new("sh") };
            if as_root {
                command.args(["-u", "postgres", "--", "sh"]);
            }
            command.args(["-c", script]).env("DIR", &directory).env("PORT", port.to_string()).env("PGBIN", bin());
            command
        };
        if as_root {
            let status = Command::new("chown").args(["-R", "postgres"]).arg(&directory).status()?;
            assert!(status.success(), "chown");
        }
        // The watchdog comes first, so that a start that fails half-way is cleaned up as well.
        let end = "cat >/dev/null; \"$PGBIN/pg_ctl\" -D \"$DIR/data\" -m immediate stop; rm -rf \"$DIR\"";
        let quiet = || Stdio::null();
        let watchdog = shell(end).stdin(Stdio::piped()).stdout(quiet()).stderr(quiet()).spawn()?;
        let output = shell(". \"$DIR/start.sh\"").stdin(quiet()).output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(Cluster { directory, port, _watchdog: watchdog })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// `user` by TCP with verify-full, all else given too, so that this process's environment says nothing.
    pub(crate) fn source(&self, user: &str) -> Source {
        Source {
            url: None,
            host: Some("localhost".into()),
            port: Some(self.port),
            database: Some("app".into()),
            user: Some(user.into()),
            password: Some(Secret::Inline(PASSWORD.into())),
            tls: Some(TlsMode::VerifyFull),
            ca: Some(self.path("ca.crt")),
            cert: None,
            key: None,
            readable_password: false,
            schema: "public".into(),
            slot: "pg2planhat".into(),
            publication: "pg2planhat".into(),
            update_publication: None,
            manage: true,
            failover_slot: false,
            reader: None,
        }
    }
}

/// Somebody in between: ends TLS with a certificate of its own, and goes on to the cluster in plaintext or by TLS.
pub(crate) async fn front((certificate, key): (String, String), tls_behind: bool) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let behind = cluster().port;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.read_exact(&mut [0; 8]).await.unwrap();
            stream.write_all(b"S").await.unwrap();
            // The client breaks off here where it does not trust the certificate.
            let Ok(mut ours) = acceptor.accept(stream).await else { continue };
            let mut theirs = TcpStream::connect(("127.0.0.1", behind)).await.unwrap();
            tokio::spawn(async move {
                if tls_behind {
                    let negotiation = Negotiation::Request;
                    let setup = TlsSetup { mode: TlsMode::Require, ca: None, cert: None, key: None, negotiation };
                    let stream = dial::ask_for_tls(theirs, negotiation, "behind").await.unwrap();
                    let (mut theirs, _) = tls::begin(stream, &setup, "localhost", "behind").await.unwrap();
                    copy_bidirectional(&mut ours, &mut theirs).await.ok();
                } else {
                    copy_bidirectional(&mut ours, &mut theirs).await.ok();
                }
            });
        }
    });
    port
}

fn bin() -> PathBuf {
    if let Some(given) = std::env::var_os("PGBIN") {
        return given.into();
    }
    let versions = std::fs::read_dir(Path::new("/usr/lib/postgresql")).into_iter().flatten().flatten();
    let newest = versions.max_by_key(|entry| entry.file_name().to_string_lossy().parse::<u32>().unwrap_or(0));
    newest.expect("PostgreSQL's programs are not installed").path().join("bin")
}

/// Loopback is as good as private here, so plaintext is told from TLS by the rule alone.
const HBA: &str = "\
local all admin trust
local all by_peer peer
hostssl all by_scram all scram-sha-256
hostssl all by_cert all cert
host all by_scram_plain all scram-sha-256
host all by_md5 all md5
host all by_clear all password
";

fn setup_sql() -> String {
    let mut sql = String::new();
    for role in ["by_scram", "by_scram_plain", "by_cert", "by_clear", "by_peer", "not_in_hba"] {
        sql += &format!("CREATE ROLE {role} LOGIN REPLICATION PASSWORD '{}';\n", PASSWORD.replace('\'', "''"));
    }
    sql += "SET password_encryption = 'md5';\n";
    sql += &format!("CREATE ROLE by_md5 LOGIN REPLICATION PASSWORD '{}';\n", PASSWORD.replace('\'', "''"));
    // Settings of a role that must not come through.
    sql += "ALTER ROLE by_scram SET datestyle = 'German'; ALTER ROLE by_scram SET timezone = 'Asia/Tokyo';\n";
    sql += "CREATE DATABASE app ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0;\n";
    sql += "CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0;\n";
    for database in ["app", "ascii"] {
        sql += &format!("\\connect {database}\n");
        sql += "CREATE TABLE t (x text); CREATE PUBLICATION p FOR TABLE t WITH (publish = 'insert');\n";
    }
    sql
}

const START: &str = r#"set -e
chmod 0600 "$DIR"/*.key
"$PGBIN/initdb" -D "$DIR/data" -U admin -A trust --no-sync -E UTF8 --locale C >/dev/null
cp "$DIR/hba" "$DIR/data/pg_hba.conf"
cat >>"$DIR/data/postgresql.conf" <<END
listen_addresses = '127.0.0.1'
port = $PORT
unix_socket_directories = '$DIR'
wal_level = logical
fsync = off
ssl = on
ssl_cert_file = '$DIR/server.crt'
ssl_key_file = '$DIR/server.key'
ssl_ca_file = '$DIR/ca.crt'
END
"$PGBIN/pg_ctl" -D "$DIR/data" -w -l "$DIR/log" start >/dev/null
"$PGBIN/psql" -X -q -v ON_ERROR_STOP=1 -h "$DIR" -p "$PORT" -U admin -d postgres -f "$DIR/setup.sql"
chmod -R a+rX "$DIR"
chmod 0700 "$DIR/data"
chmod 0600 "$DIR"/server.key
"#;
