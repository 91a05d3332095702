//! The kustomize manifests: built, valid by schema, and held to the rules of `manifests`.

use crate::manifests;
use crate::tools::{path, succeed, text, tool, yaml};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

const OVERLAYS: [&str; 2] = ["single", "standby"];

fn built(folder: &Path) -> Vec<Value> {
    yaml(&succeed(tool("kubectl").arg("kustomize").arg(folder)))
}

fn each_overlay(check: impl Fn(&[Value])) {
    for overlay in OVERLAYS {
        eprintln!("overlay {overlay}");
        check(&built(&path("deploy/kubernetes/overlays").join(overlay)));
    }
}

/// The overlay with a standby and these components, as somebody's own kustomization has it.
fn with_components(components: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    for part in ["kubernetes", "prometheus", "grafana"] {
        succeed(Command::new("cp").arg("-r").arg(path("deploy").join(part)).arg(folder.path()));
    }
    let mine = folder.path().join("kubernetes/mine");
    std::fs::create_dir(&mine).unwrap();
    let kustomization = format!("resources: [../overlays/standby]\ncomponents: [{components}]\n");
    std::fs::write(mine.join("kustomization.yaml"), kustomization).unwrap();
    built(&mine)
}

mod needs_kubectl {
    use super::*;

    mod needs_kubernetes_validate {
        use super::*;

        #[test]
        fn every_overlay_is_valid_by_schema() {
            each_overlay(manifests::are_valid);
        }
    }

    #[test]
    fn pods_are_as_restricted_as_can_be() {
        each_overlay(manifests::pods_are_as_restricted_as_can_be);
    }

    #[test]
    fn probes_and_rollouts_never_wait_for_each_other() {
        each_overlay(manifests::probes_and_rollouts_never_wait_for_each_other);
        for (overlay, replicas) in [("single", 1), ("standby", 2)] {
            let objects = built(&path("deploy/kubernetes/overlays").join(overlay));
            let deployment = manifests::of_kind(&objects, "Deployment").next().unwrap();
            assert_eq!(deployment["spec"]["replicas"], replicas, "{overlay}");
        }
    }

    #[test]
    fn selectors_mean_their_pods_and_no_others() {
        each_overlay(manifests::selectors_mean_their_pods_and_no_others);
    }

    #[test]
    fn manifests_and_configuration_agree() {
        each_overlay(manifests::manifests_and_configuration_agree);
    }

    #[test]
    fn no_secret_is_in_the_manifests() {
        each_overlay(manifests::no_secret_is_in);
    }

    #[test]
    fn the_operators_component_scrapes_each_pod_once_and_carries_the_rules() {
        let objects = with_components("../components/prometheus-operator");
        manifests::are_as_careful_as_they_say(&objects);
        assert_eq!(manifests::of_kind(&objects, "PodMonitor").count(), 1);
        let rules = manifests::of_kind(&objects, "PrometheusRule").next().unwrap();
        let groups = yaml(&text("deploy/prometheus/rules.yaml")).remove(0)["groups"].take();
        assert_eq!(
            rules["spec"]["groups"], groups,
            "make deploy/kubernetes/components/prometheus-operator/prometheusrule.yaml"
        );
    }

    #[test]
    fn the_dashboards_component_carries_the_dashboard() {
        let objects = with_components("../components/dashboard");
        manifests::are_as_careful_as_they_say(&objects);
        let maps = manifests::of_kind(&objects, "ConfigMap")
            .filter(|map| map["metadata"]["labels"]["grafana_dashboard"] == "1");
        let maps: Vec<&Value> = maps.collect();
        assert_eq!(maps.len(), 1);
        assert_eq!(maps[0]["data"]["dashboard.json"], text("deploy/grafana/dashboard.json"));
    }

    #[test]
    fn the_consoles_component_lets_people_in_and_nobody_else() {
        let objects = with_components("../components/console");
        manifests::are_as_careful_as_they_say(&objects);
        let service = manifests::of_kind(&objects, "Service").next().unwrap();
        assert_eq!(service["spec"]["ports"][0]["targetPort"], "console");
        let pod = &manifests::of_kind(&objects, "Deployment").next().unwrap()["spec"]["template"];
        let ports = pod["spec"]["containers"][0]["ports"].to_string();
        assert!(ports.contains(r#"{"containerPort":9188,"name":"console"}"#), "{ports}");
        let selector = service["spec"]["selector"].as_object().unwrap();
        assert!(selector.iter().all(|(label, value)| pod["metadata"]["labels"][label] == *value), "{selector:?}");
        let policy = &manifests::of_kind(&objects, "NetworkPolicy").next().unwrap()["spec"]["ingress"];
        assert_eq!(policy.as_array().unwrap().len(), 2, "Prometheus to one port, people to the other: {policy}");
        assert_eq!(policy[1]["ports"][0]["port"], 9188);
        assert_eq!(policy[1]["from"].as_array().unwrap().len(), 1, "never from everywhere: {policy}");
        // The Ingress is for whoever has a name for it, and leads to the Service.
        assert_eq!(manifests::of_kind(&objects, "Ingress").count(), 0);
        let ingress = yaml(&text("deploy/kubernetes/components/console/ingress.yaml")).remove(0);
        let leads = &ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"];
        assert_eq!(
            (&leads["name"], &leads["port"]["name"]),
            (&service["metadata"]["name"], &service["spec"]["ports"][0]["name"])
        );
        let plain =
            built(&path("deploy/kubernetes/overlays/standby")).iter().any(|object| object.to_string().contains("9188"));
        assert!(!plain, "without the component nothing of it is there");
    }

    #[test]
    fn components_open_other_ways_through_the_policy() {
        let plain = built(&path("deploy/kubernetes/overlays/standby"));
        let objects = with_components("../components/node-local-dns");
        manifests::are_as_careful_as_they_say(&objects);
        let policy =
            |objects: &[Value]| manifests::of_kind(objects, "NetworkPolicy").next().unwrap()["spec"].to_string();
        assert!(policy(&objects).contains("169.254.20.10/32") && !policy(&plain).contains("169.254.20.10"));
    }

    #[test]
    fn case_195_openshift_chooses_the_user() {
        let objects = with_components("../components/openshift");
        manifests::are_as_careful_as_they_say(&objects);
        manifests::no_user_is_named(&objects);
        let policy = &manifests::of_kind(&objects, "NetworkPolicy").next().unwrap()["spec"]["egress"][0];
        assert!(policy.to_string().contains("openshift-dns") && policy.to_string().contains("5353"), "{policy}");
    }
}

#[test]
fn the_image_has_the_version_of_this_program() {
    let version = env!("CARGO_PKG_VERSION");
    for file in ["deploy/kubernetes/base/deployment.yaml", "deploy/compose.yaml"] {
        assert!(text(file).contains(&format!("pg2planhat:{version}\n")), "{file}");
    }
    assert!(text("deploy/Dockerfile").contains(&format!("org.opencontainers.image.version=\"{version}\"")));
    let chart = text("deploy/helm/pg2planhat/Chart.yaml");
    assert!(
        chart.contains(&format!("\nversion: {version}\n")) && chart.contains(&format!("\nappVersion: \"{version}\"\n"))
    );
}

/// The one copy of the rules, indented into a PrometheusRule: kustomize cannot read a plain file into an object.
#[test]
fn the_operators_rules_are_the_rules() {
    let rule = text("deploy/kubernetes/components/prometheus-operator/prometheusrule.yaml");
    let (head, body) = rule.split_once("\nspec:\n").unwrap();
    assert!(head.contains("kind: PrometheusRule"));
    let indented: String = text("deploy/prometheus/rules.yaml")
        .lines()
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") })
        .collect();
    assert_eq!(body, indented, "run `make rules`");
}
