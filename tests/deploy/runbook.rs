//! The runbook has a section for each alert, whole, where the alert's link points.

use crate::agree::understood;
use crate::harness::Cluster;
use crate::tools::{alerts, path, succeed, text, tool, yaml};
use clap::CommandFactory as _;
use pg2planhat::testing::cli::Cli;
use pg2planhat::testing::telemetry::Reason;
use std::collections::BTreeSet;
use std::process::Command;

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

/// What stands in code: fenced lines with their language, and spans.
fn code(runbook: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (index, part) in runbook.split("```").enumerate() {
        if index % 2 == 1 {
            let (language, lines) = part.split_once('\n').unwrap();
            match language {
                "sql" => all.push(("sql".to_owned(), lines.to_owned())),
                _ => all.extend(lines.lines().map(|line| (language.to_owned(), line.trim().to_owned()))),
            }
        } else {
            let spans = part.split('`').skip(1).step_by(2);
            all.extend(spans.map(|span| ("span".to_owned(), span.split_whitespace().collect::<Vec<_>>().join(" "))));
        }
    }
    all
}

/// The words of a command, with names in the places of names.
fn filled(command: &str) -> Vec<String> {
    let command = command.split(" #").next().unwrap_or_default().split(" > ").next().unwrap_or_default();
    let fill = |word: &str| match word {
        "SECTION" => "seats".to_owned(),
        "ID" => "1".to_owned(),
        other => other.to_owned(),
    };
    command.split_whitespace().map(fill).collect()
}

#[test]
fn every_command_of_the_runbook_exists() {
    let cli = Cli::command();
    let known: BTreeSet<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
    let (mut ours, mut others) = (0, 0);
    for (_, line) in code(&text("deploy/RUNBOOK.md")) {
        let words = filled(&line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let arguments = match words.as_slice() {
            // Mentions.
            ["pg2planhat"] => continue,
            ["pg2planhat", command] if *command != "check" && *command != "status" => {
                assert!(known.contains(command), "{line}");
                continue;
            }
            ["pg2planhat", rest @ ..] => rest,
            ["kubectl", "exec", .., "--", "/usr/local/bin/pg2planhat", "--config", file, _] => {
                assert!(text("deploy/kubernetes/base/deployment.yaml").contains(file), "{file}");
                &words[words.iter().position(|word| *word == "--").unwrap() + 2..]
            }
            ["curl", "-s", url, ..] => {
                let page = url.strip_prefix("http://localhost:9187/").unwrap_or_else(|| panic!("{line}"));
                assert!(["livez", "readyz", "status", "metrics"].contains(&page), "{line}");
                continue;
            }
            ["kubectl", verb, rest @ ..] => {
                assert!(["get", "logs", "describe", "port-forward", "rollout", "exec"].contains(verb), "{line}");
                let label = "app.kubernetes.io/name=pg2planhat";
                assert!(rest.iter().all(|word| !word.contains('/') || *word == "deploy/pg2planhat" || *word == label));
                others += 1;
                continue;
            }
            ["systemctl", .., unit] => {
                assert!(path(&format!("deploy/systemd/{unit}.service")).exists(), "{line}");
                continue;
            }
            // A mere mention of a command, or words that begin like one.
            [first, flag, ..] if known.contains(first) && flag.starts_with("--") => &words[..],
            _ => continue,
        };
        understood(arguments);
        ours += 1;
    }
    assert!(ours > 25 && others > 5, "{ours} {others}: they were not found");
}

#[tokio::test]
async fn every_statement_of_the_runbook_runs() {
    let cluster = Cluster::start().await;
    cluster.sql("SELECT pg_create_logical_replication_slot('pg2planhat', 'pgoutput')").await;
    let mut ran = 0;
    for (kind, code) in code(&text("deploy/RUNBOOK.md")) {
        let statements = code.replace("<pid>", "0");
        if kind == "sql" || statements.starts_with("SELECT ") {
            for statement in statements.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
                cluster.sql(statement).await;
                ran += 1;
            }
        }
    }
    assert!(ran >= 8, "{ran}: they were not found");
}

#[test]
fn every_reason_that_needs_a_person_is_explained() {
    let runbook = text("deploy/RUNBOOK.md");
    for reason in Reason::ALL {
        assert!(
            runbook.lines().any(|line| line.starts_with("| ") && line.contains(&format!("`{reason}`"))),
            "{reason}"
        );
    }
}

/// The rules after the one substitution that their comment asks for, done as it says; and the address that it puts in.
fn substituted() -> (String, String) {
    let rules = text("deploy/prometheus/rules.yaml");
    let command = rules.lines().find_map(|line| line.strip_prefix("#   sed ")).expect("the comment's command");
    let address = command.split('#').nth(2).unwrap().to_owned();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rules.yaml"), &rules).unwrap();
    succeed(Command::new("sh").arg("-c").arg(format!("sed {command}")).current_dir(folder.path()));
    (std::fs::read_to_string(folder.path().join("rules.yaml")).unwrap(), address)
}

#[test]
fn after_one_substitution_every_link_leads_to_its_section() {
    let (written, address) = substituted();
    let lines: Vec<&str> = written.lines().filter(|line| line.contains("runbook_url: ")).collect();
    assert_eq!(lines.len(), alerts().len());
    let runbook = text("deploy/RUNBOOK.md");
    let anchors: BTreeSet<String> = runbook.lines().filter_map(|line| line.strip_prefix("### ")).map(anchor).collect();
    for line in lines {
        let url = line.trim().strip_prefix("runbook_url: ").unwrap();
        let place = url.strip_prefix(&format!("{address}/RUNBOOK.md#")).unwrap_or_else(|| panic!("{url}"));
        assert!(anchors.contains(place), "{url}");
    }
    assert!(!written.lines().any(|line| !line.starts_with('#') && line.contains("example.com")), "one is left");
}

#[test]
fn after_one_substitution_the_rules_are_accepted_needs_promtool() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rules.yaml"), substituted().0).unwrap();
    succeed(tool("promtool").args(["check", "rules", "rules.yaml"]).current_dir(folder.path()));
}
