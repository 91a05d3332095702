//! The runbook has a section for each alert, whole, where the alert's link points.

use crate::tools::{alerts, text, yaml};
use std::collections::BTreeSet;

/// A heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}

#[test]
fn every_alert_has_a_section_that_says_four_things() {
    let runbook = text("deploy/RUNBOOK.md");
    let sections: Vec<(&str, &str)> =
        runbook.split("\n### ").skip(1).map(|section| section.split_once('\n').unwrap()).collect();
    let alerts = alerts();
    for (name, alert) in &alerts {
        let (_, body) =
            sections.iter().find(|(heading, _)| heading == name).unwrap_or_else(|| panic!("no section {name}"));
        for part in ["**Means.**", "**Look at.**", "**Do.**", "**Never.**"] {
            assert!(body.contains(part), "{name} lacks {part}");
        }
        let url = alert["annotations"]["runbook_url"].as_str().unwrap();
        assert!(url.ends_with(&format!("/RUNBOOK.md#{}", anchor(name))), "{url}");
        assert!(matches!(alert["labels"]["severity"].as_str(), Some("critical" | "warning")), "{name}");
        assert!(
            alert["annotations"]["summary"].is_string() && alert["annotations"]["description"].is_string(),
            "{name}"
        );
    }
    assert_eq!(sections.len(), alerts.len(), "a section without its alert");
}

#[test]
fn links_within_the_runbook_lead_somewhere() {
    let runbook = text("deploy/RUNBOOK.md");
    let headings = runbook.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#'));
    let anchors: BTreeSet<String> = headings.map(anchor).collect();
    for link in runbook.split("](#").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        assert!(anchors.contains(link), "#{link}");
    }
}

#[test]
fn every_alert_was_seen_to_fire_and_to_stay_quiet() {
    let tests = yaml(
        &text("deploy/prometheus/rules.test.yaml")
            .replace("alert_rule_test: *stalled", "alert_rule_test: []")
            .replace("alert_rule_test: &stalled", "alert_rule_test:"),
    )
    .remove(0);
    let cases: Vec<_> = tests["tests"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|t| t["alert_rule_test"].as_array().cloned().unwrap_or_default())
        .collect();
    for (name, _) in alerts() {
        let seen = |firing: bool| {
            cases
                .iter()
                .any(|c| c["alertname"] == name.as_str() && c["exp_alerts"].as_array().unwrap().is_empty() != firing)
        };
        assert!(seen(true), "{name} is never seen to fire");
        assert!(seen(false), "{name} is never seen to stay quiet");
    }
}
