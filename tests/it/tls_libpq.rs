//! libpq's habits: the environment, password files, URLs, several hosts, sockets, IPv6; and passwords that are changed while
//! the stream runs.

use std::fs::{Permissions, set_permissions, write};
use std::os::unix::fs::PermissionsExt;

use crate::faults_stream_scene::Scene;
use crate::harness::scratch::Scratch;
use crate::harness::{App, Cluster, ConfigText};
use crate::main_job_oracle::drain;
use crate::tls_scene::*;

/// A login of its own for `query`.
fn reader() -> String {
    format!("{{ user: by_plain, password: \"{}\" }}", PASSWORD.replace('\\', "\\\\"))
}

/// With nothing of the connection in the file.
fn bare(config: &ConfigText) -> ConfigText {
    ["host", "port", "database", "user", "password", "tls", "ca"]
        .iter()
        .fold(config.clone(), |config, key| config.unset(&format!("source.{key}")))
}

#[tokio::test]
async fn the_environment_says_what_the_file_does_not() {
    let tls = TlsScene::new().await;
    let ca = tls.file("ca.pem", &tls.authority.pem).display().to_string();
    let port = tls.scene.cluster.port().to_string();
    let launch = |config: &ConfigText, mode: &str| {
        let launch = App::launch(config).env("PGHOST", "localhost").env("PGPORT", &port).env("PGDATABASE", "postgres");
        let launch = launch.env("PGUSER", "by_scram").env("PGPASSWORD", PASSWORD).env("PGSSLROOTCERT", &ca);
        launch.env("PGSSLMODE", mode).env("PGOPTIONS", "-c work_mem=5MB").env("PGAPPNAME", "mine")
    };
    let app = launch(&bare(&tls.scene.config), "verify-full").start();
    tls.scene.streaming(&app).await;
    tls.scene.insert(3).await;
    tls.scene.exact().await;
    let named = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'by_scram' AND application_name LIKE 'mine %'";
    assert!(tls.scene.cluster.number(named).await > 0);
    drain(app, &tls.scene.cluster).await;
    // What the file says explicitly is not weakened, not even where it is the default.
    tls.present(self_signed(&leaf(&["localhost"]))).await;
    let written = bare(&tls.scene.config).set("source.tls", "verify-full");
    let refused = launch(&written, "require").env("PGSSLROOTCERT", "").arguments(&["--json", "check"]).output().await;
    assert!(refused.code == 1 && refused.stdout.contains("self-signed"), "{refused:?}");
    let query = bare(&tls.scene.config).set("source.reader", reader());
    let shown =
        launch(&query, "require").env("PGSSLROOTCERT", "").arguments(&["query", "SHOW work_mem"]).output().await;
    assert!(shown.code == 0 && shown.stdout.contains("5MB"), "{shown:?}");
}

#[tokio::test]
async fn a_password_file_is_read_unless_others_may_read_it_too() {
    let tls = TlsScene::new().await;
    let config = tls.with_ca("by_scram", "verify-full").unset("source.password");
    let escaped = PASSWORD.replace('\\', "\\\\").replace(':', "\\:");
    let file =
        tls.file("pgpass", &format!("# one a line\nelsewhere:*:*:*:wrong\nlocalhost:*:postgres:by_scram:{escaped}\n"));
    set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let check = async || {
        let launch = App::launch(&config).env("PGPASSFILE", file.to_str().unwrap());
        launch.arguments(&["--json", "check"]).output().await
    };
    let good = check().await;
    assert_eq!(good.code, 0, "{good:?}");
    set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    let open = check().await;
    assert!(open.code == 1 && open.stdout.contains("chmod 0600") && open.stdout.contains("none is given"), "{open:?}");
}

#[tokio::test]
async fn a_url_says_everything_at_once() {
    let mut tls = TlsScene::new().await;
    let ca = tls.file("ca.pem", &tls.authority.pem);
    let (port, password) = (tls.scene.cluster.port(), "pass%20word%3A%5C%27%25");
    let more = "sslmode=verify-full&application_name=mine&options=-c%20work_mem%3D5MB&connect_timeout=5&channel_binding=require";
    let url = format!("postgresql://by_scram:{password}@localhost:{port}/postgres?{more}&sslrootcert={}", ca.display());
    tls.scene.config = bare(&tls.scene.config).set("source.url", format!("\"{url}\"")).set("source.reader", reader());
    let shown = App::command(&tls.scene.config, &["query", "SHOW work_mem"]).await;
    assert!(shown.stdout.contains("5MB"), "{shown:?}");
    let app = tls.scene.run().await;
    tls.scene.insert(3).await;
    tls.scene.exact().await;
    assert!(!app.log().contains("pass"), "{}", app.log());
    drain(app, &tls.scene.cluster).await;
}

#[tokio::test]
async fn of_several_hosts_the_primary_is_taken_by_both_connections() {
    let scene = Scene::new().await;
    let standby = scene.cluster.standby().await;
    let (first, second) = (standby.port(), scene.cluster.port());
    let hosts = format!("127.0.0.1:1,127.0.0.1:{first},127.0.0.1:{second}");
    for more in ["", "&target_session_attrs=read-write"] {
        let url = format!("\"postgres://postgres@{hosts}/postgres?sslmode=disable{more}\"");
        works(&bare(&scene.config).set("source.url", url), more).await;
    }
    let url = format!("\"postgres://postgres@{hosts}/postgres?sslmode=disable&target_session_attrs=any\"");
    let any = App::command(&bare(&scene.config).set("source.url", url), &["--json", "check"]).await;
    assert!(any.code == 1 && any.stdout.contains("\"standby\""), "{any:?}");
    let list = format!("\"127.0.0.1:{first},127.0.0.1:{second}\"");
    let scene = Scene { config: scene.config.clone().unset("source.port").set("source.host", list), ..scene };
    let app = scene.run().await;
    scene.insert(3).await;
    scene.exact().await;
    drain(app, &scene.cluster).await;
}

#[tokio::test]
async fn sockets_lead_there_too() {
    let scene = Scene::new().await;
    let socket = scene.cluster.socket_directory().display().to_string();
    let by_socket = scene.config.clone().unset("source.tls").set("source.host", format!("\"{socket}\""));
    works(&by_socket, "a socket, whatever TLS is asked for").await;
    let app = App::run(&by_socket);
    scene.streaming(&app).await;
    scene.insert(3).await;
    scene.exact().await;
    drain(app, &scene.cluster).await;
}

#[tokio::test]
async fn an_address_of_ipv6_leads_there_needs_ipv6() {
    let scene = Scene::on(Cluster::builder().setting("listen_addresses", "::1")).await;
    let port = scene.cluster.port();
    works(&scene.config.clone().set("source.host", "\"::1\""), "::1").await;
    let url = format!("\"postgres://postgres@[::1]:{port}/postgres?sslmode=disable\"");
    works(&bare(&scene.config).set("source.url", url), "[::1]").await;
}

/// The password is changed and the connections are cut: both find the new one, in a secret's file and in a password file.
#[tokio::test]
async fn case_24_a_rotated_password_is_found_by_both_connections() {
    for passfile in [false, true] {
        let mut scene = Scene::on(Cluster::builder().hba("host all all 127.0.0.1/32 scram-sha-256")).await;
        scene.cluster.sql("CREATE ROLE app SUPERUSER LOGIN REPLICATION PASSWORD 'one'").await;
        let directory = Scratch::new("secret");
        let file = directory.path().join("password");
        let keep = |password: &str| {
            let line = if passfile { format!("*:*:*:app:{password}") } else { password.to_owned() };
            // As a kubelet does it: a new file in the old one's place.
            let new = directory.path().join("new");
            write(&new, line + "\n").unwrap();
            set_permissions(&new, Permissions::from_mode(0o600)).unwrap();
            std::fs::rename(&new, &file).unwrap();
        };
        keep("one");
        scene.config = scene.config.set("source.user", "app");
        if !passfile {
            scene.config = scene.config.clone().set("source.password", format!("{{ file: {} }}", file.display()));
        }
        let app = App::launch(&scene.config).env("PGPASSFILE", file.to_str().unwrap()).start();
        scene.streaming(&app).await;
        scene.cluster.sql("ALTER ROLE app PASSWORD 'two'").await;
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
        scene.cluster.sql(cut).await;
        scene.insert(5).await;
        let refused = |status: &serde_json::Value| {
            let shown =
                status["message"].as_str()?.contains("28P01") && status["remedy"].as_str()?.contains("source.password");
            (shown && status["state"] == "stalled").then_some(())
        };
        app.wait_status("the refusal to be shown", refused).await;
        keep("two");
        scene.exact().await;
        app.wait_ready().await;
        for kind in ["walsender", "client backend"] {
            let back =
                format!("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND backend_type = '{kind}'");
            assert!(scene.cluster.number(&back).await > 0, "{kind}");
        }
        assert!(app.is_running());
    }
}
