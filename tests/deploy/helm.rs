//! The Helm chart: linted, rendered with every example, refused where values are wrong, and held to the rules of `manifests`.

use crate::manifests::{self, configuration, named, of_kind};
use crate::tools::{path, succeed, text, tool, yaml};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

const EXAMPLES: [&str; 5] = ["minimal", "many", "jobs", "console", "openshift"];

fn chart() -> std::path::PathBuf {
    path("deploy/helm/pg2planhat")
}

fn values(example: &str) -> std::path::PathBuf {
    chart().join("examples").join(example).with_extension("yaml")
}

fn helm(verb: &[&str]) -> Command {
    let mut helm = tool("helm");
    // Nothing of this user's own settings.
    let nowhere = std::env::temp_dir();
    for variable in ["HELM_CONFIG_HOME", "HELM_CACHE_HOME", "HELM_DATA_HOME"] {
        helm.env(variable, &nowhere);
    }
    helm.args(verb).arg(chart());
    helm
}

pub fn template(example: &str, more: &[&str]) -> Command {
    let mut template = helm(&["template", "rel", "--namespace", "planhat"]);
    template.arg("--values").arg(values(example)).args(more);
    template
}

pub fn rendered(example: &str, more: &[&str]) -> Vec<Value> {
    yaml(&succeed(&mut template(example, more))).into_iter().filter(|object| !object.is_null()).collect()
}

fn each_example(check: impl Fn(&[Value])) {
    for example in EXAMPLES {
        eprintln!("example {example}");
        check(&rendered(example, &[]));
    }
}

/// What it says as it refuses.
pub fn refused(mut template: Command) -> String {
    let output = template.output().unwrap();
    assert!(!output.status.success(), "it was taken: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn streamers(objects: &[Value]) -> Vec<(&Value, Value)> {
    let config = |deployment| yaml(configuration(objects, &deployment_pod(deployment)).1).remove(0);
    of_kind(objects, "Deployment").map(|deployment| (deployment, config(deployment))).collect()
}

fn deployment_pod(deployment: &Value) -> Value {
    deployment["spec"]["template"].clone()
}

mod needs_helm {
    use super::*;

    #[test]
    fn the_chart_is_without_a_fault_with_each_example() {
        for example in EXAMPLES {
            let mut lint = helm(&["lint", "--strict"]);
            succeed(lint.arg("--values").arg(values(example)));
        }
    }

    #[test]
    fn every_example_is_rendered_and_as_careful_as_the_kustomize_base() {
        each_example(manifests::are_as_careful_as_they_say);
    }

    mod needs_kubernetes_validate {
        use super::*;

        #[test]
        fn every_example_is_valid_by_schema() {
            each_example(manifests::are_valid);
        }
    }

    #[test]
    fn each_instance_has_a_slot_publications_schema_secret_and_job_of_its_own() {
        let objects = rendered("many", &[]);
        let streamers = streamers(&objects);
        assert_eq!(streamers.len(), 3);
        let set = |key: fn(&(&Value, Value)) -> String| streamers.iter().map(key).collect::<BTreeSet<String>>();
        let slots = ["pg2planhat_events", "pg2planhat_usage", "planhat_billing"];
        assert_eq!(
            set(|(_, config)| config["source"]["slot"].as_str().unwrap().to_owned()),
            slots.map(Into::into).into()
        );
        assert_eq!(set(|(_, config)| config["source"]["publication"].as_str().unwrap().to_owned()).len(), 3);
        assert_eq!(set(|(_, config)| config["state"]["schema"].as_str().unwrap().to_owned()).len(), 3);
        assert_eq!(set(|(_, config)| config["sections"][0]["name"].as_str().unwrap().to_owned()).len(), 3);
        let secret = |(deployment, _): &(&Value, Value)| {
            deployment["spec"]["template"]["spec"]["volumes"][1]["secret"]["secretName"].as_str().unwrap().to_owned()
        };
        assert_eq!(
            set(secret),
            ["billing-credentials", "rel-pg2planhat-events", "rel-pg2planhat-usage"].map(Into::into).into()
        );
        assert_eq!(of_kind(&objects, "PodMonitor").count(), 3, "one job a slot");
        assert_eq!(of_kind(&objects, "ExternalSecret").count(), 2, "billing's is made by hand");
        let replicas: Vec<&Value> = streamers.iter().map(|(deployment, _)| &deployment["spec"]["replicas"]).collect();
        assert_eq!(replicas, [1, 1, 2]);
        // What all share, and what one has of its own.
        let memory: Vec<&Value> = streamers.iter().map(|(_, config)| &config["memory"]).collect();
        assert_eq!(memory, ["128MiB", "256MiB", "128MiB"]);
        assert_eq!(streamers[1].0["spec"]["template"]["spec"]["nodeSelector"]["pool"], "workers");
    }

    #[test]
    fn what_a_monitor_and_a_dashboard_carry_is_the_one_copy() {
        let objects = rendered("many", &[]);
        let rules = of_kind(&objects, "PrometheusRule").next().unwrap();
        let mut known = text("deploy/prometheus/rules.yaml");
        known = known
            .replace("https://runbooks.example.com/pg2planhat", "https://git.example.com/pg2planhat/blob/main/deploy");
        assert_eq!(rules["spec"]["groups"], yaml(&known).remove(0)["groups"]);
        let name = Value::from("rel-pg2planhat-dashboard");
        let dashboard = named(&objects, "ConfigMap", &name)["data"]["pg2planhat.json"].as_str().unwrap();
        let one_copy: Value = serde_json::from_str(&text("deploy/grafana/dashboard.json")).unwrap();
        assert_eq!(serde_json::from_str::<Value>(dashboard).unwrap(), one_copy);
        // A packaged chart has them, too: Helm follows the links.
        let folder = tempfile::tempdir().unwrap();
        succeed(helm(&["package"]).arg("--destination").arg(folder.path()));
        let package = folder.path().join(format!("pg2planhat-{}.tgz", env!("CARGO_PKG_VERSION")));
        let mut unpack = Command::new("tar");
        succeed(unpack.arg("-xzf").arg(package).arg("-C").arg(folder.path()));
        for (inside, ours) in [
            ("files/rules.yaml", "deploy/prometheus/rules.yaml"),
            ("files/dashboard.json", "deploy/grafana/dashboard.json"),
            ("LICENSE", "LICENSE"),
        ] {
            let packed = std::fs::read_to_string(folder.path().join("pg2planhat").join(inside)).unwrap();
            assert_eq!(packed, text(ours), "{inside}");
        }
    }

    #[test]
    fn the_policy_opens_what_a_value_names() {
        let more = ["--set", "networkPolicy.postgresPorts={6543}", "--set", "networkPolicy.planhatPorts={443,8443}"];
        let objects = rendered("many", &more);
        let policy = named(&objects, "NetworkPolicy", &Value::from("rel-pg2planhat-billing"));
        let text = policy["spec"]["egress"].to_string();
        for word in ["169.254.20.10/32", "10.1.0.0/16", "6432", "6543", "8443"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(!text.contains("5432"), "the instance's own port instead of the default: {text}");
    }

    #[test]
    fn jobs_run_as_hooks_or_on_demand_beside_the_streamer() {
        let objects = rendered("jobs", &[]);
        let jobs: Vec<&Value> = of_kind(&objects, "Job").collect();
        assert_eq!(jobs.len(), 2);
        let script =
            rendered("jobs", &["--set", "jobs.script.enabled=true,jobs.setup.enabled=false,jobs.check.enabled=false"]);
        let script = of_kind(&script, "Job").next().unwrap();
        let container = &script["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(
            container["args"],
            serde_json::json!(["--config", "/etc/pg2planhat/pg2planhat.yaml", "setup", "--print-sql"])
        );
        // A hook has one name in all revisions, so that the next one makes way for it.
        let job = |name: &str| named(&objects, "Job", &Value::from(format!("rel-pg2planhat-app-{name}")));
        let weight = |name: &str| {
            let weight = &job(name)["metadata"]["annotations"]["helm.sh/hook-weight"];
            weight.as_str().unwrap().parse::<i64>().unwrap()
        };
        assert!(weight("setup") < weight("check"), "what is checked is there before");
        let config = |job: &Value| yaml(configuration(&objects, &job["spec"]["template"]).1).remove(0);
        let setup = job("setup");
        assert_eq!(config(setup)["source"]["user"], "app_owner");
        assert_eq!(config(job("check"))["source"]["user"], "pg2planhat");
        assert_eq!(setup["spec"]["template"]["spec"]["volumes"][1]["secret"]["secretName"], "pg2planhat-owner");
        let map = named(&objects, "ConfigMap", &setup["metadata"]["name"]);
        assert_eq!(map["metadata"]["annotations"]["helm.sh/hook"], setup["metadata"]["annotations"]["helm.sh/hook"]);
        assert_eq!(map["metadata"]["annotations"]["helm.sh/hook-weight"], "-10", "before its Job");

        let more = [
            "--set",
            "jobs.repair.enabled=true",
            "--set",
            "jobs.repair.confirmed=true",
            "--set",
            "jobs.setup.enabled=false",
        ];
        let objects = rendered("jobs", &more);
        let repair = named(&objects, "Job", &Value::from("rel-pg2planhat-app-repair-1"));
        assert!(repair["metadata"]["annotations"].is_null(), "no hook: on demand");
        let arguments = repair["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
        assert!(arguments.ends_with("\"repair\",\"--gap\",\"--yes\"]"), "{arguments}");
        manifests::are_as_careful_as_they_say(&objects);
    }

    #[test]
    fn the_console_is_off_unless_asked_for_and_then_has_a_service_an_ingress_and_its_hosts_name() {
        let plain = rendered("minimal", &[]);
        assert!(of_kind(&plain, "Service").next().is_none() && of_kind(&plain, "Ingress").next().is_none());
        assert!(streamers(&plain)[0].1["console"].is_null());
        let objects = rendered("console", &[]);
        let (deployment, config) = &streamers(&objects)[0];
        assert_eq!(config["console"]["listen"], "0.0.0.0:9188");
        assert_eq!(config["console"]["hosts"], serde_json::json!(["pg2planhat.example.com"]));
        let ports = &deployment["spec"]["template"]["spec"]["containers"][0]["ports"];
        assert_eq!(ports[1], serde_json::json!({"name": "console", "containerPort": 9188}));
        let service = named(&objects, "Service", &Value::from("rel-pg2planhat-app-console"));
        assert_eq!(service["spec"]["sessionAffinity"], "ClientIP", "a session is known to one pod");
        let ingress = of_kind(&objects, "Ingress").next().unwrap();
        let backend = &ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"];
        assert_eq!(backend["name"], service["metadata"]["name"]);
        assert_eq!(backend["port"]["name"], service["spec"]["ports"][0]["name"]);
        assert_eq!(ingress["spec"]["tls"][0]["hosts"][0], ingress["spec"]["rules"][0]["host"]);
    }

    #[test]
    fn wrong_values_are_refused_with_their_place() {
        let many = |more: &[&str]| refused(template("many", more));
        let one = |more: &[&str]| refused(template("minimal", more));
        let cases = [
            (one(&["--set", "instanses[0].name=a"]), "instanses"),
            (one(&["--set-json", "instances=[]"]), "instances"),
            (one(&["--set", "instances[0].name=No_Dns"]), "/instances/0/name"),
            (one(&["--set", "instances[0].name=a-name-of-more-than-24-signs"]), "/instances/0/name"),
            (one(&["--set", "instances[0].replica=2"]), "replica"),
            (one(&["--set-json", "instances[0].config.sections=[]"]), "/instances/0/config/sections"),
            (one(&["--set", "instances[0].config.admin.listen=0.0.0.0:1"]), "/instances/0/config/admin"),
            (one(&["--set", "image.digest=latest"]), "/image/digest"),
            (one(&["--set-json", "networkPolicy.metricsFrom=[]"]), "/networkPolicy/metricsFrom"),
            (one(&["--set", "networkPolicy.postgresPorts={65536}"]), "/networkPolicy/postgresPorts/0"),
            (one(&["--set", "networkPolicy.dns.nodeLocal=dns.local"]), "/networkPolicy/dns/nodeLocal"),
            (one(&["--set", "config.memory=64"]), "/config/memory"),
            (one(&["--set", "jobs.check.hook=pre-install"]), "/jobs/check/hook"),
            (one(&["--set", "jobs.check.instances={other}"]), "there is no instance other"),
            (one(&["--set", "jobs.repair.enabled=true"]), "jobs.repair: say how"),
            (one(&["--set", "jobs.repair.enabled=true,jobs.repair.how=gap"]), "jobs.repair: say how"),
            (one(&["--set", "console.enabled=true"]), "console.enabled needs config.console.tokens"),
            (one(&["--set", "instances[0].config.console.rows=viewer"]), "console.enabled is not"),
            (one(&["--set", "podMonitor.enabled=true,serviceMonitor.enabled=true"]), "scraped twice"),
            (one(&["--set", "externalSecret.enabled=true"]), "externalSecret.storeRef.name is missing"),
            (refused(template("console", &["--set", "console.ingress.host="])), "console.ingress.host is missing"),
            (many(&["--set", "instances[1].name=events"]), "two are called events"),
            (many(&["--set", "instances[1].config.source.slot=pg2planhat_events"]), "share the slot pg2planhat_events"),
            (many(&["--set", "instances[1].config.state.schema=pg2planhat_events"]), "share the state schema"),
        ];
        for (said, place) in cases {
            assert!(said.contains(place), "{place}: {said}");
        }
    }

    #[test]
    fn the_notes_say_which_secret_is_missing() {
        let notes = |example: &str| {
            let mut install = helm(&["install", "rel", "--dry-run=client", "--namespace", "planhat"]);
            succeed(install.arg("--values").arg(values(example)))
        };
        let said = notes("minimal");
        assert!(
            said.contains("create secret generic rel-pg2planhat-app --from-file=pg-password=… --from-file=tenant=…"),
            "{said}"
        );
        assert!(notes("console").contains("https://pg2planhat.example.com/"));
        let many = notes("many");
        assert!(
            many.contains("secret generic billing-credentials")
                && !many.contains("secret generic rel-pg2planhat-usage")
        );
    }

    /// Names stay within what Kubernetes takes, however long a release is called.
    #[test]
    fn names_fit_into_63_characters() {
        let long = "a-release-with-a-name-of-fifty-three-characters-in-al";
        let mut template = helm(&["template", long]);
        template.arg("--values").arg(values("jobs")).args(["--set", "instances[0].name=twenty-four-characters-x"]);
        for object in yaml(&succeed(&mut template)).iter().filter(|object| !object.is_null()) {
            let name = object["metadata"]["name"].as_str().unwrap();
            assert!(name.len() <= 63, "{name}");
        }
    }
}

/// Every key of the values is in the schema and is explained where it stands.
#[test]
fn values_and_their_schema_name_the_same_keys() {
    let values = yaml(&text("deploy/helm/pg2planhat/values.yaml")).remove(0);
    let schema: Value = serde_json::from_str(&text("deploy/helm/pg2planhat/values.schema.json")).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<String>>();
    let mut known = keys(&schema["properties"]);
    assert!(known.remove("global"), "Helm's own");
    assert_eq!(keys(&values), known);
}
