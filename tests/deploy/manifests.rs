//! What holds for every set of manifests, whether kustomize or Helm has made it.

use crate::agree::{loads, understood, words};
use crate::tools::{succeed, tool, yaml};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Kinds of the API that every cluster has; the validator knows no others.
const CORE: [&str; 9] = [
    "ConfigMap",
    "Deployment",
    "Ingress",
    "Job",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "Secret",
    "Service",
    "ServiceAccount",
];

/// All objects of a kind.
pub fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> + 'a {
    objects.iter().filter(move |object| object["kind"] == kind)
}

/// The object of a kind with a name.
pub fn named<'a>(objects: &'a [Value], kind: &str, name: &Value) -> &'a Value {
    let fits = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == *name;
    objects.iter().find(fits).unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// The pods of Deployments and Jobs.
fn pods(objects: &[Value]) -> Vec<&Value> {
    let owners = of_kind(objects, "Deployment").chain(of_kind(objects, "Job"));
    owners.map(|owner| &owner["spec"]["template"]).collect()
}

/// The configuration that a pod mounts.
pub fn configuration<'a>(objects: &'a [Value], pod: &Value) -> (&'a Value, &'a str) {
    let map = named(objects, "ConfigMap", &pod["spec"]["volumes"][0]["configMap"]["name"]);
    (map, map["data"]["pg2planhat.yaml"].as_str().unwrap())
}

/// Valid by the published schema of each kind.
pub fn are_valid(objects: &[Value]) {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (at, object) in objects.iter().enumerate() {
        let kind = object["kind"].as_str().unwrap();
        if CORE.contains(&kind) {
            let file = folder.path().join(format!("{at}.yaml"));
            std::fs::write(&file, object.to_string()).unwrap();
            files.push(file);
        } else {
            let group = object["apiVersion"].as_str().unwrap();
            assert!(group.contains(".coreos.com/") || group.contains("external-secrets.io/"), "{group} {kind}");
        }
    }
    succeed(tool("kubernetes-validate").arg("--strict").args(files));
}

pub fn pods_are_as_restricted_as_can_be(objects: &[Value]) {
    let account = of_kind(objects, "ServiceAccount").next().expect("a service account");
    assert_eq!(account["automountServiceAccountToken"], false);
    for pod in pods(objects).into_iter().map(|pod| &pod["spec"]) {
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["serviceAccountName"], account["metadata"]["name"]);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(pod["containers"].as_array().unwrap().len(), 1);
        let container = &pod["containers"][0];
        let security = &container["securityContext"];
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
        assert!(pod["hostNetwork"].is_null() && pod["hostPID"].is_null());
        assert!(container["env"].is_null(), "secrets come as files, not as variables");
        assert!(container["resources"]["requests"]["memory"].is_string());
        assert!(container["resources"]["limits"]["memory"].is_string());
    }
}

/// OpenShift gives each namespace users and groups of its own, and refuses all others.
pub fn no_user_is_named(objects: &[Value]) {
    for pod in pods(objects) {
        let security = &pod["spec"]["securityContext"];
        for key in ["runAsUser", "runAsGroup", "fsGroup"] {
            assert!(security[key].is_null(), "{security}");
            assert!(pod["spec"]["containers"][0]["securityContext"][key].is_null(), "{security}");
        }
    }
}

pub fn probes_and_rollouts_never_wait_for_each_other(objects: &[Value]) {
    for deployment in of_kind(objects, "Deployment").map(|deployment| &deployment["spec"]) {
        let container = &deployment["template"]["spec"]["containers"][0];
        assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/livez");
        // Without the standby counting as ready, a surge with no pod to spare would wait for ever.
        assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz?standby=ok");
        assert_eq!(deployment["strategy"]["rollingUpdate"], json!({"maxSurge": 1, "maxUnavailable": 0}));
        let spread = deployment["template"]["spec"]["topologySpreadConstraints"].is_array();
        assert_eq!(spread, deployment["replicas"].as_i64().unwrap() > 1, "a standby is on another node");
    }
}

/// Whether a selector means a pod with these labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object().unwrap();
    assert!(!selector.is_empty(), "an empty selector means every pod");
    selector.iter().all(|(key, value)| labels[key] == *value)
}

pub fn selectors_mean_their_pods_and_no_others(objects: &[Value]) {
    let labels: Vec<&Value> = pods(objects).into_iter().map(|pod| &pod["metadata"]["labels"]).collect();
    let policies: Vec<&Value> = of_kind(objects, "NetworkPolicy").collect();
    for labels in &labels {
        let fits = |policy: &&&Value| selects(&policy["spec"]["podSelector"]["matchLabels"], labels);
        assert_eq!(policies.iter().filter(fits).count(), 1, "each pod has one policy: {labels}");
    }
    for policy in policies {
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    }
    for deployment in of_kind(objects, "Deployment") {
        let own = &deployment["spec"]["template"]["metadata"]["labels"];
        let selector = &deployment["spec"]["selector"]["matchLabels"];
        let selected: Vec<&&Value> = labels.iter().filter(|labels| selects(selector, labels)).collect();
        assert_eq!(selected, [&own], "a Deployment's selector means its own pods alone");
        let budgets = of_kind(objects, "PodDisruptionBudget")
            .filter(|budget| budget["spec"]["selector"]["matchLabels"] == *selector);
        let budgets: Vec<&Value> = budgets.collect();
        assert_eq!(budgets.len(), 1);
        assert_eq!(budgets[0]["spec"]["maxUnavailable"], 1);
    }
    for service in of_kind(objects, "Service") {
        let selected = labels.iter().filter(|labels| selects(&service["spec"]["selector"], labels)).count();
        assert_eq!(selected, 1, "{service}");
    }
}

/// Where PostgreSQL is, as far as the configuration says it: its port.
fn policy_lets_through(objects: &[Value], pod: &Value, config: &Value) {
    let labels = &pod["metadata"]["labels"];
    let fits = |policy: &&Value| selects(&policy["spec"]["podSelector"]["matchLabels"], labels);
    let policy = of_kind(objects, "NetworkPolicy").find(fits).unwrap();
    let ports = |direction: &str| -> BTreeSet<i64> {
        let rules = policy["spec"][direction].as_array().unwrap().iter();
        rules.flat_map(|rule| rule["ports"].as_array().unwrap()).map(|port| port["port"].as_i64().unwrap()).collect()
    };
    let out = ports("egress");
    for port in [53, config["source"]["port"].as_i64().unwrap_or(5432), 443] {
        assert!(out.contains(&port), "{port} is closed: {out:?}");
    }
    let opened: BTreeSet<i64> = pod["spec"]["containers"][0]["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| port["containerPort"].as_i64().unwrap())
        .collect();
    assert!(opened.is_subset(&ports("ingress")), "{opened:?}");
}

pub fn manifests_and_configuration_agree(objects: &[Value]) {
    for pod in pods(objects) {
        let (_, text) = configuration(objects, pod);
        let config = yaml(text).remove(0);
        policy_lets_through(objects, pod, &config);
        let container = &pod["spec"]["containers"][0];
        let mounts = |file: &Value| {
            let folder = file.as_str().unwrap().rsplit_once('/').unwrap().0;
            container["volumeMounts"].as_array().unwrap().iter().any(|mount| mount["mountPath"] == folder)
        };
        for secret in
            [&config["source"]["password"]["file"], &config["planhat"]["tenant"]["file"], &container["args"][1]]
        {
            assert!(mounts(secret), "{secret} is not mounted");
        }
        understood(&words(&container["args"]));
        assert!(container["command"].is_null(), "the image's entry point is the program");
        loads(text);
    }
    for deployment in of_kind(objects, "Deployment") {
        let pod = &deployment["spec"]["template"];
        let (map, text) = configuration(objects, pod);
        let config = yaml(text).remove(0);
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["args"], json!(["--config", "/etc/pg2planhat/pg2planhat.yaml", "run", "--stay"]));
        let number =
            |text: &Value, unit: &str| text.as_str().unwrap().strip_suffix(unit).unwrap().parse::<i64>().unwrap();
        let grace = &config["shutdown_grace"];
        let grace = if grace.as_str().unwrap().ends_with('m') { 60 * number(grace, "m") } else { number(grace, "s") };
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], grace + 10);
        assert!(number(&container["resources"]["limits"]["memory"], "Mi") >= 3 * number(&config["memory"], "MiB"));
        let port = container["ports"][0]["containerPort"].to_string();
        assert_eq!(config["admin"]["listen"], format!("0.0.0.0:{port}"));
        let name = map["metadata"]["name"].as_str().unwrap();
        let (start, hash) = name.rsplit_once('-').unwrap();
        assert!(
            start.starts_with(deployment["metadata"]["name"].as_str().unwrap()) && hash.len() >= 10,
            "without the hash a new configuration is no rollout: {name}"
        );
    }
}

pub fn no_secret_is_in(objects: &[Value]) {
    assert_eq!(of_kind(objects, "Secret").count(), 0);
}

/// By annotations or by a monitor, and each Deployment under a job of its own.
pub fn each_pod_is_scraped_once(objects: &[Value]) {
    for deployment in of_kind(objects, "Deployment") {
        let pod = &deployment["spec"]["template"];
        let labels = &pod["metadata"]["labels"];
        let annotated = usize::from(pod["metadata"]["annotations"]["prometheus.io/scrape"] == "true");
        let of_pods = of_kind(objects, "PodMonitor").filter(|monitor| {
            assert_eq!(
                monitor["spec"]["podMetricsEndpoints"][0]["port"],
                pod["spec"]["containers"][0]["ports"][0]["name"]
            );
            selects(&monitor["spec"]["selector"]["matchLabels"], labels)
        });
        let of_services = of_kind(objects, "ServiceMonitor").filter(|monitor| {
            let chosen = of_kind(objects, "Service")
                .filter(|service| selects(&monitor["spec"]["selector"]["matchLabels"], &service["metadata"]["labels"]));
            let chosen: Vec<&Value> = chosen.collect();
            assert_eq!(chosen.len(), 1, "{monitor}");
            assert_eq!(monitor["spec"]["endpoints"][0]["port"], chosen[0]["spec"]["ports"][0]["name"]);
            selects(&chosen[0]["spec"]["selector"], labels)
        });
        assert_eq!(annotated + of_pods.count() + of_services.count(), 1, "{labels}");
    }
}

/// All of the rules at once, but for the validator's.
pub fn are_as_careful_as_they_say(objects: &[Value]) {
    pods_are_as_restricted_as_can_be(objects);
    probes_and_rollouts_never_wait_for_each_other(objects);
    selectors_mean_their_pods_and_no_others(objects);
    manifests_and_configuration_agree(objects);
    each_pod_is_scraped_once(objects);
    no_secret_is_in(objects);
}
