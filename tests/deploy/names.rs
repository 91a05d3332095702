//! Every metric that a rule, a panel or the runbook names is one that the program shows.

use crate::tools::{alerts, text, yaml};
use pg2planhat::testing::telemetry::Metrics;
use std::collections::BTreeSet;

/// The words of a text that are metrics of ours, recording rules or process metrics.
pub fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words
        .filter(|w| ["pg2planhat_", "pg2planhat:", "process_"].iter().any(|p| w.starts_with(p)))
        .map(Into::into)
        .collect()
}

/// What Prometheus can know: the program's series, the process's, and those that the rules record.
pub fn known() -> BTreeSet<String> {
    let mut known: BTreeSet<String> = Metrics::names().collect();
    for declared in Metrics::DECLARED.iter().filter(|declared| !declared.buckets.is_empty()) {
        let name = format!("pg2planhat_{}", declared.name);
        known.extend(["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")));
        known.remove(&name);
    }
    let shown = Metrics::new().unwrap().render();
    known.extend(
        shown
            .lines()
            .filter_map(|line| line.split([' ', '{']).next())
            .filter(|n| n.starts_with("process_"))
            .map(Into::into),
    );
    let rules = yaml(&text("deploy/prometheus/rules.yaml")).remove(0);
    let rules = rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
    known.extend(rules.filter_map(|rule| Some(rule["record"].as_str()?.to_owned())));
    known
}

fn assert_known(place: &str, text: &str) {
    let unknown: Vec<String> = named(text).difference(&known()).cloned().collect();
    assert!(unknown.is_empty(), "{place} names what is not shown: {unknown:?}");
}

#[test]
fn rules_and_their_tests_name_metrics_that_exist() {
    assert!(alerts().len() >= 9);
    let rules = text("deploy/prometheus/rules.yaml");
    assert!(named(&rules).len() > 15, "the words were not found");
    assert_known("the rules", &rules);
    assert_known("the rules' tests", &text("deploy/prometheus/rules.test.yaml"));
}

#[test]
fn the_runbook_names_metrics_that_exist() {
    let runbook = text("deploy/RUNBOOK.md");
    assert_known("the runbook", &runbook);
    // There they are also called without their prefix.
    let words = runbook.split('`').skip(1).step_by(2);
    let endings = ["_bytes", "_seconds", "_total", "_until_lost"];
    let metrics = words
        .filter(|w| w.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && endings.iter().any(|e| w.ends_with(e)));
    let metrics: Vec<&str> = metrics.collect();
    assert!(!metrics.is_empty());
    for metric in metrics {
        assert!(Metrics::DECLARED.iter().any(|declared| declared.name == metric), "{metric}");
    }
}
