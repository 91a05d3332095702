//! What the tests of TLS and of libpq's habits share: an authority, certificates, a server that speaks TLS, and `check` read
//! by its codes.

use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};

use crate::faults_stream_scene::Scene;
use crate::harness::cluster::Builder;
use crate::harness::scratch::Scratch;
use crate::harness::{App, Cluster, ConfigText};

/// Everybody's password.
pub const PASSWORD: &str = "pass word:\\'%";

/// One role for each way of authentication.
const ROLES: [&str; 5] = ["by_scram", "by_plain", "by_cert", "by_clear", "by_md5"];

const HBA: &str = "hostssl all by_scram all scram-sha-256
hostssl all by_cert all cert
host all by_plain all scram-sha-256
host all by_md5 all md5
host all by_clear all password";

/// An authority of its own.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Certificate and key in PEM.
pub type Pair = (String, String);

/// A certificate's parameters, ready to be changed.
pub fn leaf(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    pub fn sign(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// A client's certificate for a role.
    pub fn client(&self, role: &str) -> Pair {
        let mut params = leaf(&[]);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, role);
        self.sign(&params)
    }
}

/// A certificate that vouches for itself.
pub fn self_signed(params: &CertificateParams) -> Pair {
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// A server that speaks TLS, its authority, and files for the client.
pub struct TlsScene {
    pub scene: Scene,
    pub authority: Authority,
    files: Scratch,
}

impl TlsScene {
    /// With a certificate for this machine's names. The configuration: `by_scram` at `localhost`, verify-full.
    pub async fn on(builder: Builder) -> Option<TlsScene> {
        let authority = Authority::new("ours");
        let (certificate, key) = authority.sign(&leaf(&["localhost", "127.0.0.1", "::1"]));
        let builder = builder.hba(HBA).file("server.crt", certificate).file("server.key", key);
        let builder =
            builder.file("ca.crt", authority.pem.as_bytes()).setting("ssl", "on").setting("ssl_ca_file", "ca.crt");
        let cluster = builder.setting("log_connections", "on").start_or_skip().await?;
        for role in ROLES {
            let quoted = PASSWORD.replace('\'', "''");
            let encryption = if role == "by_md5" { "md5" } else { "scram-sha-256" };
            let create = format!("CREATE ROLE {role} SUPERUSER LOGIN REPLICATION PASSWORD '{quoted}'");
            cluster.sql(&format!("SET password_encryption = '{encryption}'; {create}")).await;
        }
        let scene = Scene::at(cluster).await;
        let mut this = TlsScene { scene, authority, files: Scratch::new("certificates") };
        let ca = this.file("ca.pem", &this.authority.pem);
        this.scene.config = this.config("by_scram", "verify-full").set("source.ca", ca.display());
        Some(this)
    }

    pub async fn new() -> TlsScene {
        TlsScene::on(Cluster::builder()).await.expect("a server")
    }

    /// A configuration for this role and mode, with no authority given.
    pub fn config(&self, role: &str, mode: &str) -> ConfigText {
        let config =
            self.scene.config.clone().unset("source.ca").set("source.host", "localhost").set("source.tls", mode);
        config.set("source.user", role).set("source.password", format!("\"{}\"", PASSWORD.replace('\\', "\\\\")))
    }

    /// As [`TlsScene::config`], with the server's authority.
    pub fn with_ca(&self, role: &str, mode: &str) -> ConfigText {
        self.config(role, mode).set("source.ca", self.files.path().join("ca.pem").display())
    }

    /// A file for the client.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.files.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Another certificate for the server.
    pub async fn present(&self, (certificate, key): Pair) {
        let data = self.scene.cluster.data();
        // Written over, so that owner and rights stay.
        std::fs::write(data.join("server.crt"), certificate).unwrap();
        std::fs::write(data.join("server.key"), key).unwrap();
        self.scene.cluster.set("log_min_messages", "info").await;
    }

    /// How often a role has been let in so far.
    pub fn let_in(&self, role: &str) -> usize {
        let of_role = format!("connection authorized: user={role} ");
        self.scene.cluster.log().lines().filter(|line| line.contains(&of_role)).count()
    }
}

/// What `check` says of the connection: its exit code, and the findings about it.
pub async fn check(config: &ConfigText) -> (i32, Vec<serde_json::Value>) {
    let output = App::command(config, &["--json", "check"]).await;
    let about = |finding: &&serde_json::Value| {
        ["connected", "connect", "replication"].contains(&finding["code"].as_str().unwrap())
    };
    (output.code, output.json()["findings"].as_array().unwrap().iter().filter(about).cloned().collect())
}

/// Both connections work.
pub async fn works(config: &ConfigText, how: &str) {
    let (code, found) = check(config).await;
    let ok = |code: &str| found.iter().any(|finding| finding["code"] == code && finding["severity"] == "ok");
    assert!(code == 0 && ok("connected") && ok("replication"), "{how}: {code} {found:?}");
}

/// `check` refuses with the remedy, and so does `run`, which ends with 64.
pub async fn refused(config: &ConfigText, how: &str, what: &str, remedy: &str) {
    let (code, found) = check(config).await;
    let fits = |finding: &&serde_json::Value| {
        let holds = |key: &str, part: &str| finding[key].as_str().unwrap().contains(part);
        finding["severity"] == "error" && holds("message", what) && holds("remedy", remedy)
    };
    assert!(code == 1 && found.iter().any(|finding| fits(&finding)), "{how}: {code} {found:?}");
    assert!(!format!("{found:?}").contains("pass word"), "{how}: a password is shown");
    let app = App::run(config);
    assert_eq!(app.wait_exit(std::time::Duration::from_secs(15)).await, 64, "{how}: {}", app.log());
    assert!(app.log().contains(what), "{how}: {}", app.log());
}

/// An address of this machine that is not the loopback interface's.
pub fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // No packet is sent: the kernel only chooses the way.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback() && !address.is_unspecified())
}

/// As YAML text in double quotes.
pub fn yaml(path: &Path) -> String {
    format!("\"{}\"", path.display())
}
