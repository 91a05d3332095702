//! Findings as lines of a page, grouped by subject. Pure.

use crate::model::{Finding, Severity};

/// The findings of one subject.
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
    /// The remedy in words.
    pub remedy: String,
    /// The part of the remedy that can be copied and run.
    pub sql: String,
}

/// Groups findings by subject, and keeps their order, which begins with the worst.
pub(crate) fn finding_groups(findings: &[&Finding]) -> Vec<FindingGroup> {
    let mut groups: Vec<FindingGroup> = Vec::new();
    for (number, finding) in findings.iter().enumerate() {
        let (class, icon) = match finding.severity {
            Severity::Error => ("is-stop", "stop"),
            Severity::Warning => ("is-warn", "warn"),
            Severity::Info => ("is-fill", "info"),
            Severity::Ok => ("is-flow", "ok"),
        };
        let (remedy, sql) = parted(&finding.remedy);
        let line = FindingLine {
            number,
            class,
            icon,
            message: finding.message.clone(),
            code: finding.code,
            remedy: remedy.to_owned(),
            sql: sql.to_owned(),
        };
        match groups.iter_mut().find(|group| group.subject == finding.subject) {
            Some(group) => group.findings.push(line),
            None => groups.push(FindingGroup { subject: finding.subject.clone(), findings: vec![line] }),
        }
    }
    groups
}

/// Text that can be run begins with one of these words.
const COMMANDS: [&str; 10] =
    ["ALTER ", "ANALYZE ", "CREATE ", "DROP ", "GRANT ", "REINDEX ", "REVOKE ", "SELECT ", "SET ", "pg2planhat "];

/// Splits a remedy into its words and the part to copy. That part begins at the first command that opens the remedy or
/// a line, or follows a colon.
fn parted(remedy: &str) -> (&str, &str) {
    let begins = |at: &usize| {
        let (before, rest) = remedy.split_at(*at);
        let open = before.is_empty() || before.ends_with('\n') || before.ends_with(": ");
        open && COMMANDS.iter().any(|command| rest.starts_with(command))
    };
    let at = remedy.char_indices().map(|(at, _)| at).find(begins).unwrap_or(remedy.len());
    let (words, sql) = remedy.split_at(at);
    (words.trim_end(), sql)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_from_what_can_be_copied() {
        for (remedy, words, sql) in [
            ("ALTER ROLE a REPLICATION;", "", "ALTER ROLE a REPLICATION;"),
            (
                "as much as there is:\nALTER SYSTEM SET x = 1;\nSELECT f();",
                "as much as there is:",
                "ALTER SYSTEM SET x = 1;\nSELECT f();",
            ),
            (
                "mend it; to set a new one: ALTER ROLE a PASSWORD '…'",
                "mend it; to set a new one:",
                "ALTER ROLE a PASSWORD '…'",
            ),
            (
                "let a DBA run the script of `pg2planhat setup --print-sql`",
                "let a DBA run the script of `pg2planhat setup --print-sql`",
                "",
            ),
            ("", "", ""),
        ] {
            assert_eq!(parted(remedy), (words, sql));
        }
    }
}
