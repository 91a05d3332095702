//! What Helm makes of values that mean something else to it, and of clusters that are not like most.

use crate::agree::loads;
use crate::helm::{refused, rendered, streamers, template};
use crate::manifests::{self, configuration, of_kind};
use serde_json::{Value, json};

/// The example with these values laid over it.
fn rendered_with(example: &str, values: &str) -> Vec<Value> {
    let file = written(values);
    rendered(example, &["--values", file.path().to_str().unwrap()])
}

fn refused_with(example: &str, values: &str) -> String {
    let file = written(values);
    refused(template(example, &["--values", file.path().to_str().unwrap()]))
}

fn written(values: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    std::fs::write(file.path(), values).unwrap();
    file
}

/// An instance with these keys of its only section.
fn section(keys: &str) -> String {
    format!(
        "instances: [{{ name: app, config: {{ source: {{ host: h, database: d, user: u }}, sections: [{{ name: s, kind: user_activity, \
         table: t, key: id, {keys}, fields: {{ email: e, action: a, date: d }} }}] }} }}]\n"
    )
}

mod needs_helm {
    use super::*;

    /// To Helm's YAML the key `on` is true.
    #[test]
    fn case_194_a_section_of_updates_stays_one() {
        let objects = rendered_with("minimal", &section("on: insert_and_update, sync: off"));
        let (deployment, config) = &streamers(&objects)[0];
        assert_eq!(config["sections"][0]["on"], "insert_and_update");
        loads(configuration(&objects, &deployment["spec"]["template"]).1);
    }

    #[test]
    fn case_194_what_helm_would_change_is_refused() {
        for (keys, said) in [
            // 9007199254740992 to Helm: one row would be sent again.
            ("start: { after_key: 9007199254740993 }", "config.sections[0].start.after_key"),
            ("start: { after_key: 9223372036854775807 }", "config.sections[0].start.after_key"),
            ("where: { no: 1 }", "config.sections[0].where: a key is false"),
        ] {
            let refusal = refused_with("minimal", &section(keys));
            assert!(refusal.contains(said) && refusal.contains("in quotes"), "{refusal}");
        }
        let objects = rendered_with("minimal", &section("start: { after_key: \"9223372036854775807\" }"));
        let (deployment, config) = &streamers(&objects)[0];
        assert_eq!(config["sections"][0]["start"]["after_key"], "9223372036854775807");
        loads(configuration(&objects, &deployment["spec"]["template"]).1);
    }

    /// 0, an empty list and null are values, too.
    #[test]
    fn case_194_what_is_empty_counts() {
        let values = "pod: { tolerations: [{ key: a, operator: Exists }], nodeSelector: { a: b } }\n\
                      config: { source: { ca: /run/secrets/pg2planhat/ca.pem } }\n";
        let more = ["pod.tolerations=[]", "pod.nodeSelector=null", "config.source.ca=null", "replicas=0"];
        let file = written(values);
        let mut arguments = vec!["--values".to_owned(), file.path().to_str().unwrap().to_owned()];
        for one in more {
            arguments.extend(["--set-json".to_owned(), format!("instances[0].{one}")]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let objects = rendered("minimal", &arguments);
        let (deployment, config) = &streamers(&objects)[0];
        assert_eq!(deployment["spec"]["replicas"], 0);
        let pod = &deployment["spec"]["template"]["spec"];
        assert!(pod["tolerations"].is_null() && pod["nodeSelector"].is_null(), "{pod}");
        assert!(config["source"].get("ca").is_none(), "{config}");
        let untouched = rendered("minimal", &["--values", file.path().to_str().unwrap()]);
        let pod = &streamers(&untouched)[0].0["spec"]["template"]["spec"];
        assert_eq!(pod["tolerations"], json!([{ "key": "a", "operator": "Exists" }]));
    }

    /// A Job of a hook is no part of the release: with a name for each revision, all of them would stay for ever.
    #[test]
    fn case_194_hooks_of_later_revisions_make_way_for_each_other() {
        let objects = rendered("jobs", &[]);
        let hooks = objects.iter().filter(|object| !object["metadata"]["annotations"]["helm.sh/hook"].is_null());
        let hooks: Vec<&Value> = hooks.map(|hook| &hook["metadata"]["name"]).collect();
        assert!(hooks.len() >= 4, "{hooks:?}");
        assert!(hooks.iter().all(|name| !name.as_str().unwrap().ends_with(|c: char| c.is_ascii_digit())), "{hooks:?}");
    }

    #[test]
    fn case_195_openshift_chooses_the_user() {
        let objects = rendered("openshift", &["--set", "jobs.check.enabled=true"]);
        assert_eq!(of_kind(&objects, "Job").count(), 1);
        manifests::no_user_is_named(&objects);
        manifests::are_as_careful_as_they_say(&objects);
    }

    /// Probes come to the pod's address: in a cluster of IPv6 nobody reaches 0.0.0.0.
    #[test]
    fn case_195_pods_listen_where_a_cluster_of_ipv6_asks() {
        let objects = rendered("console", &["--set", "listenAddress=[::]"]);
        let (deployment, config) = &streamers(&objects)[0];
        assert_eq!(
            (&config["admin"]["listen"], &config["console"]["listen"]),
            (&json!("[::]:9187"), &json!("[::]:9188"))
        );
        loads(configuration(&objects, &deployment["spec"]["template"]).1);
    }
}
