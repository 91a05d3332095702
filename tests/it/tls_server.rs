//! TLS and authentication against a real server, on the SQL connections and the replication connection alike: what is
//! accepted, and what is refused with its remedy and never with less protection than was asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{App, Cluster, Proxy, Version};
use crate::main_job_oracle::drain;
use crate::tls_scene::*;

const MODES: [&str; 3] = ["verify-full", "verify-ca", "require"];

#[tokio::test]
async fn every_mode_protects_every_connection_and_says_so_where_it_does_not() {
    let tls = TlsScene::new().await;
    for mode in MODES {
        works(&tls.with_ca("by_scram", mode), mode).await;
    }
    works(&tls.config("by_scram", "require"), "require without an authority").await;
    works(&tls.config("by_plain", "disable"), "disable").await;
    refused(&tls.config("by_scram", "disable"), "plaintext to hostssl", "no pg_hba.conf entry", "source.tls").await;

    let app = tls.scene.run().await;
    tls.scene.insert(3).await;
    tls.scene.exact().await;
    let ours = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'by_scram'";
    let count = async |more: &str| tls.scene.cluster.number(&format!("{ours} AND {more}")).await;
    assert_eq!(count("NOT ssl").await, 0, "a connection in plaintext");
    assert_eq!(count("ssl AND backend_type = 'walsender'").await, 1);
    assert!(count("ssl AND backend_type = 'client backend'").await >= 2);
    drain(app, &tls.scene.cluster).await;
}

#[tokio::test]
async fn certificates_that_prove_nothing_are_refused() {
    let tls = TlsScene::new().await;
    let mut old = leaf(&["localhost"]);
    old.not_before = rcgen::date_time_ymd(2019, 1, 1);
    old.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let own = self_signed(&leaf(&["localhost"]));
    let own_file = tls.file("own.pem", &own.0);
    let stranger = |name| Authority::new(name).sign(&leaf(&["localhost"]));
    let verify = &MODES[..2];
    let cases = [
        ("expired", tls.authority.sign(&old), verify, "has expired", "renew it"),
        ("wrong host", tls.authority.sign(&leaf(&["db.elsewhere"])), &MODES[..1], "is not for localhost", "verify-ca"),
        ("nameless", tls.authority.sign(&leaf(&[])), &MODES[..1], "no subjectAltName", "subjectAltName localhost"),
        ("self-signed", own, verify, "self-signed", "source.ca"),
        ("unknown authority", stranger("another"), verify, "authority that is not trusted", "source.ca"),
        ("authority of the same name", stranger("ours"), verify, "bears the name of one that is", "source.ca"),
    ];
    for (how, pair, modes, what, remedy) in cases {
        tls.present(pair).await;
        let before = tls.let_in("by_scram");
        for mode in modes {
            refused(&tls.with_ca("by_scram", mode), &format!("{how}, {mode}"), what, remedy).await;
        }
        assert_eq!(tls.let_in("by_scram"), before, "{how}: a connection was made all the same");
        // As libpq has it: an authority that is given is checked, also by `require`.
        works(&tls.config("by_scram", "require"), &format!("{how}, require")).await;
        if how == "wrong host" {
            works(&tls.with_ca("by_scram", "verify-ca"), "wrong host, verify-ca").await;
        }
        if how == "self-signed" {
            let trusted = tls.config("by_scram", "verify-full").set("source.ca", yaml(&own_file));
            works(&trusted, "self-signed, and given as trusted").await;
        }
    }
}

#[tokio::test]
async fn a_plaintext_server_gets_nothing() {
    let tls = TlsScene::new().await;
    tls.scene.cluster.set("ssl", "off").await;
    for mode in MODES {
        refused(&tls.with_ca("by_plain", mode), mode, "does not speak TLS", "ssl = on").await;
    }
    assert_eq!(tls.let_in("by_plain"), 0);
    works(&tls.config("by_plain", "disable"), "disable").await;
}

/// Somebody in between answers a reconnect in plaintext: neither connection gives way.
#[tokio::test]
async fn a_running_stream_is_not_downgraded_when_it_reconnects() {
    let mut tls = TlsScene::new().await;
    let plaintext = Cluster::builder().hba("host all all all trust").setting("log_connections", "on").start().await;
    plaintext.sql("CREATE ROLE by_scram SUPERUSER LOGIN REPLICATION").await;
    let proxy = Proxy::to_port(tls.scene.cluster.port());
    tls.scene.config = tls.scene.config.through(proxy.port());
    let app = tls.scene.run().await;
    tls.scene.insert(3).await;
    tls.scene.exact().await;
    proxy.retarget(plaintext.port());
    proxy.cut();
    tls.scene.insert(3).await;
    let shown = |status: &serde_json::Value| {
        let message = status["message"].as_str()?;
        (status["state"] == "stalled" && message.contains("does not speak TLS")).then_some(())
    };
    app.wait_status("the reason", shown).await;
    plaintext.wait_log("connection received").await;
    assert!(!plaintext.log().contains("user=by_scram"), "{}", plaintext.log());
    proxy.retarget(tls.scene.cluster.port());
    tls.scene.exact().await;
    app.wait_ready().await;
}

#[tokio::test]
async fn client_certificates_let_both_connections_in() {
    let mut tls = TlsScene::new().await;
    let with = |tls: &TlsScene, label: &str, (certificate, key): Pair| {
        let certificate = tls.file(&format!("{label}.crt"), &certificate);
        let key = tls.file(&format!("{label}.key"), &key);
        let config = tls.with_ca("by_cert", "verify-full").unset("source.password");
        config.set("source.cert", yaml(&certificate)).set("source.key", yaml(&key))
    };
    refused(&tls.with_ca("by_cert", "verify-full"), "none", "certificate", "source.cert").await;
    for name in ["another", "ours"] {
        let of_another = with(&tls, name, Authority::new(name).client("by_cert"));
        refused(&of_another, "of another authority", "alert", "source.cert").await;
    }
    let of_other = with(&tls, "other", tls.authority.client("by_scram"));
    refused(&of_other, "of another role", "28000", "source.cert").await;
    tls.scene.config = with(&tls, "good", tls.authority.client("by_cert"));
    works(&tls.scene.config, "good").await;
    let app = tls.scene.run().await;
    tls.scene.insert(3).await;
    tls.scene.exact().await;
    drain(app, &tls.scene.cluster).await;
}

#[tokio::test]
async fn channel_binding_is_there_where_it_is_demanded() {
    let tls = TlsScene::new().await;
    let demanding = async |config: crate::harness::ConfigText| {
        App::launch(&config).arguments(&["--json", "check"]).env("PGCHANNELBINDING", "require").output().await
    };
    for newest in ["TLSv1.3", "TLSv1.2"] {
        tls.scene.cluster.set("ssl_max_protocol_version", newest).await;
        let bound = demanding(tls.with_ca("by_scram", "verify-full")).await;
        assert_eq!(bound.code, 0, "{newest}: {bound:?}");
        tls.scene.cluster.wait_log(&format!("protocol={newest}")).await;
    }
    for (config, how) in [
        (tls.config("by_plain", "disable"), "no TLS"),
        (tls.with_ca("by_md5", "verify-full"), "MD5"),
        (tls.with_ca("by_clear", "verify-full"), "cleartext"),
    ] {
        let unbound = demanding(config).await;
        assert!(unbound.code == 1 && unbound.stdout.contains("without channel binding"), "{how}: {unbound:?}");
    }
}

/// Loopback is as good as private, so this one goes by an outer address of this machine.
#[tokio::test]
async fn a_readable_password_goes_only_to_a_server_that_is_verified_needs_network() {
    let address = outer_address().expect("an address beside the loopback interface's");
    let tls = TlsScene::on(Cluster::builder().setting("listen_addresses", "*")).await.expect("a server");
    tls.present(tls.authority.sign(&leaf(&[&address.to_string()]))).await;
    for (role, how) in [("by_md5", "MD5"), ("by_clear", "cleartext")] {
        let at = |config: crate::harness::ConfigText| config.set("source.host", address);
        for config in [tls.config(role, "require"), tls.config(role, "disable")] {
            let config = at(config);
            let before = tls.let_in(role);
            refused(&config, how, &format!("by {how}"), "scram-sha-256").await;
            assert_eq!(tls.let_in(role), before);
            works(&config.set("source.readable_password", "true"), &format!("{how}, said to be wanted")).await;
        }
        works(&at(tls.with_ca(role, "verify-full")), how).await;
        works(&at(tls.with_ca(role, "verify-ca")), how).await;
    }
    works(&tls.config("by_plain", "disable").set("source.host", address), "SCRAM needs no protection").await;
}

/// Notes the first byte of each connection, and passes it on.
async fn tap(port: u16) -> (u16, Arc<AtomicU8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    let first = Arc::new(AtomicU8::new(0xff));
    let seen = Arc::clone(&first);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let Ok(byte) = client.read_u8().await else { return };
                seen.store(byte, Ordering::Relaxed);
                server.write_u8(byte).await.unwrap();
                copy_bidirectional(&mut client, &mut server).await.ok();
            });
        }
    });
    (own, first)
}

/// TLS's ClientHello begins with 22; PostgreSQL's own request for TLS with the length 8.
#[tokio::test]
async fn tls_begins_at_once_where_the_server_can() {
    for version in [Version::V16, Version::V17, Version::V18] {
        let Some(mut tls) = TlsScene::on(Cluster::builder().version(version)).await else { continue };
        let (port, first) = tap(tls.scene.cluster.port()).await;
        let ca = tls.file("ca.pem", &tls.authority.pem);
        let url = |more: &str| {
            format!("\"postgres://by_scram@localhost:{port}/postgres?sslrootcert={}{more}\"", ca.display())
        };
        let at = |url: String| {
            let config = tls.with_ca("by_scram", "verify-full").unset("source.host").unset("source.port");
            config
                .unset("source.user")
                .unset("source.database")
                .unset("source.tls")
                .unset("source.ca")
                .set("source.url", url)
        };
        let (asked, direct) = (at(url("")), at(url("&sslnegotiation=direct")));
        works(&asked, "asked for").await;
        assert_eq!(first.load(Ordering::Relaxed), 0);
        if version < Version::V17 {
            let (code, found) = check(&direct).await;
            assert!(code == 1 && found[0]["remedy"].as_str().unwrap().contains("from 17 on"), "{found:?}");
            continue;
        }
        works(&direct, "direct").await;
        assert_eq!(first.load(Ordering::Relaxed), 22);
        tls.scene.config = direct;
        let app = tls.scene.run().await;
        tls.scene.insert(3).await;
        tls.scene.exact().await;
        drain(app, &tls.scene.cluster).await;
    }
}
