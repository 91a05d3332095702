//! The manifests: built by kustomize, valid by schema, and as careful as they say.

use crate::tools::{path, succeed, text, tool, yaml};
use serde_json::{Value, json};

const OVERLAYS: [&str; 2] = ["single", "standby"];

/// What an overlay builds; `None` where there is no kubectl that can.
fn built(overlay: &str) -> Option<String> {
    let mut kubectl = tool("kubectl")?;
    Some(succeed(kubectl.arg("kustomize").arg(path("deploy/kubernetes/overlays").join(overlay))))
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

fn each_overlay(check: impl Fn(&str, &[Value])) {
    for overlay in OVERLAYS {
        if let Some(built) = built(overlay) {
            check(overlay, &yaml(&built));
        }
    }
}

#[test]
fn every_overlay_is_valid_by_schema() {
    for overlay in OVERLAYS {
        let (Some(built), Some(mut validate)) = (built(overlay), tool("kubernetes-validate")) else { return };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("built.yaml");
        std::fs::write(&file, built).unwrap();
        succeed(validate.arg("--strict").arg(&file));
    }
}

#[test]
fn pods_are_as_restricted_as_can_be() {
    each_overlay(|overlay, objects| {
        let pod = &of_kind(objects, "Deployment")["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false, "{overlay}");
        assert_eq!(of_kind(objects, "ServiceAccount")["automountServiceAccountToken"], false);
        assert_eq!(pod["serviceAccountName"], of_kind(objects, "ServiceAccount")["metadata"]["name"]);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let container = &pod["containers"][0];
        let security = &container["securityContext"];
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
        assert!(pod["hostNetwork"].is_null() && pod["hostPID"].is_null());
        assert!(container["env"].is_null(), "secrets come as files, not as variables");
        assert!(container["resources"]["requests"]["memory"].is_string());
    });
}

#[test]
fn probes_and_rollouts_never_wait_for_each_other() {
    each_overlay(|overlay, objects| {
        let deployment = &of_kind(objects, "Deployment")["spec"];
        let container = &deployment["template"]["spec"]["containers"][0];
        assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/livez", "{overlay}");
        // Without the standby counting as ready, a surge with no pod to spare would wait for ever.
        assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz?standby=ok");
        assert_eq!(deployment["strategy"]["rollingUpdate"], json!({"maxSurge": 1, "maxUnavailable": 0}));
        assert_eq!(deployment["replicas"], if overlay == "standby" { 2 } else { 1 });
    });
}

#[test]
fn selectors_mean_these_pods_and_no_others() {
    each_overlay(|overlay, objects| {
        let ours = json!({"app.kubernetes.io/name": "pg2planhat"});
        let deployment = of_kind(objects, "Deployment");
        assert_eq!(deployment["spec"]["selector"]["matchLabels"], ours, "{overlay}");
        assert_eq!(deployment["spec"]["template"]["metadata"]["labels"], ours);
        assert_eq!(of_kind(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"], ours);
        assert_eq!(of_kind(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"], 1);
        assert_eq!(of_kind(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"], ours);
        assert_eq!(of_kind(objects, "NetworkPolicy")["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    });
}

#[test]
fn manifests_and_configuration_agree() {
    each_overlay(|_, objects| {
        let config = yaml(of_kind(objects, "ConfigMap")["data"]["pg2planhat.yaml"].as_str().unwrap()).remove(0);
        let pod = &of_kind(objects, "Deployment")["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let number =
            |text: &Value, unit: &str| text.as_str().unwrap().strip_suffix(unit).unwrap().parse::<i64>().unwrap();
        assert_eq!(pod["terminationGracePeriodSeconds"], number(&config["shutdown_grace"], "s") + 10);
        assert!(number(&container["resources"]["limits"]["memory"], "Mi") >= 3 * number(&config["memory"], "MiB"));
        let port = container["ports"][0]["containerPort"].to_string();
        assert_eq!(config["admin"]["listen"], format!("0.0.0.0:{port}"));
        let mounts =
            |mount: &str| container["volumeMounts"].as_array().unwrap().iter().any(|m| m["mountPath"] == mount);
        for secret in [&config["source"]["password"]["file"], &config["planhat"]["tenant"]["file"]] {
            assert!(mounts(secret.as_str().unwrap().rsplit_once('/').unwrap().0), "{secret} is not mounted");
        }
        let configured = container["args"][1].as_str().unwrap();
        assert!(mounts(configured.rsplit_once('/').unwrap().0), "{configured} is not mounted");
        assert_eq!(container["args"], json!(["--config", "/etc/pg2planhat/pg2planhat.yaml", "run", "--stay"]));
        let name = of_kind(objects, "ConfigMap")["metadata"]["name"].as_str().unwrap();
        assert!(name.starts_with("pg2planhat-"), "without the hash a new configuration is no rollout");
    });
}

#[test]
fn no_secret_is_in_the_manifests() {
    each_overlay(|overlay, objects| {
        assert!(objects.iter().all(|object| object["kind"] != "Secret"), "{overlay}");
    });
}

#[test]
fn the_operators_component_scrapes_each_pod_once() {
    let Some(mut kubectl) = tool("kubectl") else { return };
    let folder = tempfile::tempdir().unwrap();
    succeed(std::process::Command::new("cp").arg("-r").arg(path("deploy/kubernetes")).arg(folder.path()));
    let mine = folder.path().join("kubernetes/mine");
    std::fs::create_dir(&mine).unwrap();
    let kustomization = "resources: [../overlays/standby]\ncomponents: [../components/prometheus-operator]\n";
    std::fs::write(mine.join("kustomization.yaml"), kustomization).unwrap();
    let objects = yaml(&succeed(kubectl.arg("kustomize").arg(&mine)));
    let deployment = of_kind(&objects, "Deployment");
    assert!(deployment["spec"]["template"]["metadata"]["annotations"]["prometheus.io/scrape"].is_null());
    let monitor = &of_kind(&objects, "PodMonitor")["spec"];
    assert_eq!(monitor["selector"]["matchLabels"], deployment["spec"]["selector"]["matchLabels"]);
    assert_eq!(
        monitor["podMetricsEndpoints"][0]["port"],
        deployment["spec"]["template"]["spec"]["containers"][0]["ports"][0]["name"]
    );
}

#[test]
fn the_image_has_the_version_of_this_program() {
    let version = env!("CARGO_PKG_VERSION");
    for file in ["deploy/kubernetes/base/deployment.yaml", "deploy/compose.yaml"] {
        assert!(text(file).contains(&format!("pg2planhat:{version}\n")), "{file}");
    }
    assert!(text("deploy/Dockerfile").contains(&format!("org.opencontainers.image.version=\"{version}\"")));
}
