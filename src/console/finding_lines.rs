//! Findings as lines of a page, by subject. Pure.

use crate::model::{Finding, Severity};

/// Findings of one subject.
pub(crate) struct FindingGroup {
    pub subject: String,
    pub findings: Vec<FindingLine>,
}

pub(crate) struct FindingLine {
    pub number: usize,
    pub class: &'static str,
    pub icon: &'static str,
    pub message: String,
    pub code: &'static str,
    pub remedy: String,
    pub sql: bool,
}

/// By subject, in the order of the worst.
pub(crate) fn finding_groups(findings: &[&Finding]) -> Vec<FindingGroup> {
    let mut groups: Vec<FindingGroup> = Vec::new();
    for (number, finding) in findings.iter().enumerate() {
        let (class, icon) = match finding.severity {
            Severity::Error => ("is-stop", "stop"),
            Severity::Warning => ("is-warn", "warn"),
            Severity::Info => ("is-fill", "info"),
            Severity::Ok => ("is-flow", "ok"),
        };
        let words = ["ALTER ", "CREATE ", "GRANT ", "SELECT ", "REINDEX ", "pg2planhat "];
        let line = FindingLine {
            number,
            class,
            icon,
            message: finding.message.clone(),
            code: finding.code,
            remedy: finding.remedy.clone(),
            sql: words.iter().any(|word| finding.remedy.contains(word)),
        };
        match groups.iter_mut().find(|group| group.subject == finding.subject) {
            Some(group) => group.findings.push(line),
            None => groups.push(FindingGroup { subject: finding.subject.clone(), findings: vec![line] }),
        }
    }
    groups
}
