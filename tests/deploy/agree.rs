//! What is deployed agrees with the program: its command line, its configuration, its ports. Nothing here can drift unseen.

use crate::harness::port::Port;
use crate::harness::scratch::Scratch;
use crate::harness::{Cluster, eventually, http};
use crate::tools::{path, text, yaml};
use clap::Parser as _;
use pg2planhat::testing::cli::Cli;
use pg2planhat::testing::config;
use pg2planhat::testing::config::{Config, Secret};
use pg2planhat::testing::sim::{Sim, SimOptions, SinkKind, Stats};
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A command line, read as the program reads it.
pub fn understood(arguments: &[&str]) {
    let line = std::iter::once("pg2planhat").chain(arguments.iter().copied());
    Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
}

/// The words of a list.
pub fn words(list: &Value) -> Vec<&str> {
    list.as_array().unwrap_or_else(|| panic!("not a list: {list}")).iter().map(|word| word.as_str().unwrap()).collect()
}

/// A configuration, loaded by the program's own loader, with its secrets in a folder of ours.
fn loaded(file: &str, secrets: &str) -> Config {
    load(&text(file), file, secrets)
}

/// The text of a pod's configuration is one.
pub fn loads(written: &str) {
    load(written, "pg2planhat.yaml", "/run/secrets/pg2planhat");
}

fn load(written: &str, file: &str, secrets: &str) -> Config {
    let folder = Scratch::new("secrets");
    std::fs::write(folder.path().join("console-maria"), "5f".repeat(32)).unwrap();
    for name in ["pg-password", "tenant"] {
        std::fs::write(folder.path().join(name), "00000000-0000-4000-8000-000000000000\n").unwrap();
    }
    let written = written.replace(secrets, &folder.path().display().to_string());
    config::parse(&written, file).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Compose's services; its anchors are what this reader does not know.
fn services() -> Value {
    let compose = text("deploy/compose.yaml");
    let plain = compose.replace("&image ", "").replace("*image", "x").replace("&build ", "").replace("*build", "{}");
    yaml(&plain).remove(0)["services"].take()
}

fn port(address: &str) -> &str {
    address.rsplit(':').next().unwrap().trim_end_matches('/')
}

#[test]
fn every_command_line_is_one() {
    let deployment = yaml(&text("deploy/kubernetes/base/deployment.yaml")).remove(0);
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    understood(&words(&container["args"]));
    assert!(container["command"].is_null(), "the image's entry point is the program");

    let services = services();
    for service in ["planhat", "streamer"] {
        if let Some(command) = services[service]["command"].as_array() {
            understood(&words(&Value::from(command.clone())));
        }
    }
    let dockerfile = text("deploy/Dockerfile");
    let list = |start: &str| {
        let line = dockerfile.lines().find_map(|line| line.strip_prefix(start)).unwrap();
        serde_json::from_str::<Value>(line).unwrap()
    };
    understood(&words(&list("CMD ")));
    assert_eq!(words(&list("ENTRYPOINT ")).len(), 1);

    let unit = text("deploy/systemd/pg2planhat.service");
    let starts: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix("ExecStart=")).collect();
    assert_eq!(starts.len(), 1);
    understood(&starts[0].split(' ').skip(1).collect::<Vec<_>>());
}

#[test]
fn the_pods_configuration_loads_and_its_secrets_are_those_that_are_made() {
    let config = loaded("deploy/kubernetes/base/pg2planhat.yaml", "/run/secrets/pg2planhat");
    // What kustomization.yaml has one create.
    let kustomization = text("deploy/kubernetes/base/kustomization.yaml");
    let made: Vec<&str> =
        kustomization.split("--from-file=").skip(1).filter_map(|rest| rest.split('=').next()).collect();
    let file = |secret: &Secret| match secret {
        Secret::File(path) => path.file_name().unwrap().to_str().unwrap().to_owned(),
        Secret::Inline(_) | Secret::Env(_) => panic!("a secret of the pod is a file"),
    };
    let asked = [file(config.source.password.as_ref().unwrap()), file(&config.planhat.tenant)];
    assert_eq!(asked, [made[0], made[1]]);
    assert_eq!(config.sections.len(), 1);
}

#[test]
fn the_pods_ports_are_the_configurations() {
    let config = loaded("deploy/kubernetes/base/pg2planhat.yaml", "/run/secrets/pg2planhat");
    let admin: i64 = port(&config.admin.listen).parse().unwrap();
    let pod = yaml(&text("deploy/kubernetes/base/deployment.yaml")).remove(0)["spec"]["template"].take();
    assert_eq!(pod["spec"]["containers"][0]["ports"][0]["containerPort"], admin);
    assert_eq!(pod["metadata"]["annotations"]["prometheus.io/port"], admin.to_string());
    let policy = yaml(&text("deploy/kubernetes/base/networkpolicy.yaml")).remove(0)["spec"].take();
    assert_eq!(policy["ingress"][0]["ports"][0]["port"], admin);
    let out: Vec<i64> = policy["egress"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|rule| rule["ports"].as_array().unwrap())
        .map(|port| port["port"].as_i64().unwrap())
        .collect();
    assert!(out.contains(&i64::from(config.source.port.unwrap())), "PostgreSQL cannot be reached: {out:?}");
    assert!(config.planhat.url.starts_with("https://") && out.contains(&443), "Planhat cannot be reached: {out:?}");
    assert!(out.contains(&53), "no name can be looked up: {out:?}");
    assert!(text("deploy/Dockerfile").contains(&format!("\nEXPOSE {admin}\n")));
}

#[test]
fn the_units_secrets_are_where_its_comment_says_that_the_configuration_finds_them() {
    let unit = text("deploy/systemd/pg2planhat.service");
    for credential in unit.lines().filter_map(|line| line.strip_prefix("LoadCredential=")) {
        let (name, file) = credential.split_once(':').unwrap();
        assert!(unit.contains(&format!("{{ file: /run/credentials/pg2planhat.service/{name} }}")), "{name}");
        assert_eq!(file, format!("/etc/pg2planhat/secrets/{name}"));
    }
    let pod = text("deploy/kubernetes/base/pg2planhat.yaml");
    let config = pod.replace("/run/secrets/pg2planhat", "/run/credentials/pg2planhat.service");
    assert!(config.contains("/run/credentials/pg2planhat.service/tenant"), "the same configuration serves both");
}

#[test]
fn compose_is_wired_as_its_configurations_say() {
    let config = loaded("deploy/compose/pg2planhat.yaml", "/nowhere");
    let services = services();
    let host = |url: &str| url.rsplit("//").next().unwrap().split(':').next().unwrap().to_owned();
    assert!(services[config.source.host.as_deref().unwrap()].is_object(), "the database's host");
    assert!(services[host(&config.planhat.url)].is_object(), "the stand-in's host");
    let sim = words(&services["planhat"]["command"]);
    assert_eq!(port(sim[2]), port(&config.planhat.url), "the stand-in listens where the streamer sends");
    let published = services["streamer"]["ports"][0].as_str().unwrap();
    assert_eq!(port(published), port(&config.admin.listen));
    let mount = services["streamer"]["volumes"][0].as_str().unwrap();
    let cmd = text("deploy/Dockerfile");
    assert!(cmd.contains(&format!("\"{}\"", mount.split(':').nth(1).unwrap())), "{mount} is not what the image reads");
    let scrape = yaml(&text("deploy/compose/prometheus.yaml")).remove(0);
    let target = scrape["scrape_configs"][0]["static_configs"][0]["targets"][0].as_str().unwrap();
    assert_eq!(target.split(':').next(), Some("streamer"));
    assert_eq!(port(target), port(&config.admin.listen));
    let rules = scrape["rule_files"][0].as_str().unwrap();
    let mounts = |service: &str, inside: &str| {
        words(&services[service]["volumes"]).iter().any(|mount| mount.split(':').nth(1) == Some(inside))
    };
    assert!(mounts("prometheus", rules));
    // Grafana finds its source and its dashboard.
    let source = yaml(&text("deploy/grafana/provisioning/datasources/prometheus.yaml")).remove(0);
    let url = source["datasources"][0]["url"].as_str().unwrap();
    assert!(services[host(url)].is_object(), "{url}");
    let provider = yaml(&text("deploy/grafana/provisioning/dashboards/pg2planhat.yaml")).remove(0);
    let folder = provider["providers"][0]["options"]["path"].as_str().unwrap();
    assert!(mounts("grafana", &format!("{folder}/pg2planhat.json")), "{folder}");
    assert!(mounts("grafana", "/etc/grafana/provisioning"));
    assert!(path("deploy/grafana/dashboard.json").exists());
    let password = services["postgres"]["environment"]["POSTGRES_PASSWORD"].as_str().unwrap();
    assert_eq!(config.source.password.unwrap().reveal().unwrap(), password);
    assert_eq!(services["postgres"]["environment"]["POSTGRES_DB"], config.source.database.unwrap().as_str());
    assert_eq!(services["streamer"]["stop_grace_period"], format!("{}s", config.shutdown_grace.as_secs() + 10));
}

/// The demonstration of compose, without containers: its table, its writer's statement, its configuration.
#[tokio::test]
async fn what_compose_writes_is_what_its_streamer_delivers() {
    let cluster = Cluster::start().await;
    cluster.sql("CREATE DATABASE app").await;
    let database = cluster.client_of("app").await;
    database.batch_execute(&text("deploy/compose/source.sql")).await.unwrap();
    let sim = Sim::start(SimOptions::default()).await.unwrap();
    let (scratch, admin) = (Scratch::new("compose"), Port::reserve());
    let (file, listen) = (scratch.path().join("pg2planhat.yaml"), format!("127.0.0.1:{}", admin.number()));
    let config = text("deploy/compose/pg2planhat.yaml")
        .replace("host: postgres\n", &format!("host: 127.0.0.1\n  port: {}\n", cluster.port()))
        .replace("http://planhat:8480", &sim.url())
        .replace("0.0.0.0:9187", &listen);
    std::fs::write(&file, config).unwrap();
    let mut streamer = Command::new(env!("CARGO_BIN_EXE_pg2planhat"));
    streamer.arg("--config").arg(&file).arg("run").current_dir(scratch.path()).stderr(Stdio::null());
    let mut streamer = streamer.spawn().unwrap();
    let services = services();
    let script = words(&services["writer"]["command"])[2].to_owned();
    let insert = script.split('"').nth(1).expect("the statement in the writer's script").to_owned();
    let ready =
        || async { http::get(admin.number(), "/readyz").await.is_ok_and(|answer| answer.status == 200).then_some(()) };
    eventually(Duration::from_secs(30), "the streamer to be ready", ready).await;
    for _ in 0..10 {
        database.batch_execute(&insert).await.unwrap();
    }
    let rows: i64 = database.query_one("SELECT count(*) FROM app_event", &[]).await.unwrap().get(0);
    assert!(rows > 0);
    let all = |stats: &Stats| stats.activities.items == u64::try_from(rows).unwrap();
    sim.wait_for(all, Duration::from_secs(30)).await.unwrap();
    for item in sim.items(SinkKind::Activity) {
        let item = item.item();
        assert!(item["email"].as_str().unwrap().ends_with("@example.com") && item["action"] == "login", "{item}");
    }
    streamer.kill().unwrap();
    streamer.wait().unwrap();
}
