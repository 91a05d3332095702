//! What clap has to say about a command line, in the two lines that every error has: what happened, what to do.

use clap::error::ErrorKind;

use crate::model::Fault;

/// The fault of a command line that cannot be read; none where help or the version was asked for.
pub fn usage(error: &clap::Error) -> Option<Fault> {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        return None;
    }
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n");
    let what = paragraphs.next().unwrap_or_default();
    let what = one_line(what.strip_prefix("error: ").unwrap_or(what));
    let mut tips = Vec::new();
    let mut usage = None;
    for paragraph in paragraphs {
        if let Some(tip) = paragraph.trim_start().strip_prefix("tip: ") {
            tips.extend(tip.split("\n  tip: ").map(one_line));
        } else if let Some(text) = paragraph.strip_prefix("Usage: ") {
            usage = Some(format!("write it as: {}", one_line(text)));
        }
    }
    if error.kind() == ErrorKind::ArgumentConflict {
        // How to write it is said with what cannot stand together.
        return Some(Fault::usage(what, "leave out one of the two"));
    }
    let tips = (!tips.is_empty()).then(|| tips.join("; "));
    let remedy = tips.or(usage).unwrap_or_else(|| "see `pg2planhat --help`, or the command with --help".to_owned());
    Some(Fault::usage(what, remedy))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser as _;

    fn said(arguments: &[&str]) -> (String, String) {
        let error = Cli::try_parse_from([&["pg2planhat"], arguments].concat()).unwrap_err();
        let fault = usage(&error).unwrap_or_else(|| panic!("{arguments:?}: no fault"));
        assert!(!fault.to_string().contains('\x1b') && fault.exit.code() == 64);
        (fault.what, fault.remedy)
    }

    #[test]
    fn a_wrong_command_line_is_told_in_two_lines() {
        let (what, remedy) = said(&["chek"]);
        assert!(what == "unrecognized subcommand 'chek'" && remedy.contains("'check'"), "{what} {remedy}");
        let (what, remedy) = said(&["preview"]);
        assert!(what.ends_with("not provided: <SECTION>"), "{what}");
        assert_eq!(remedy, "write it as: pg2planhat preview <SECTION>");
        let (what, remedy) = said(&["logs", "--since", "yesterday"]);
        assert!(what.contains("2026-01-31T14:00:00Z") && remedy.starts_with("see `pg2planhat"), "{what} {remedy}");
        let (_, remedy) = said(&["query", "SELECT 1", "--format", "jason"]);
        assert!(remedy.contains("'json'"), "{remedy}");
        let (what, remedy) = said(&["audit", "--all", "logins"]);
        assert!(what.contains("'--all' cannot be used with"), "{what}");
        assert_eq!(remedy, "leave out one of the two", "case 258");
        for arguments in
            [&["preview", "logins", "-n", "-1"][..], &["logs", "-n", "-1"], &["quarantine", "list", "-n", "-1"]]
        {
            let (what, remedy) = said(arguments);
            assert!(what.contains("invalid value '-1'") && !remedy.contains("-- -1"), "case 258: {what} {remedy}");
        }
        let help = Cli::try_parse_from(["pg2planhat", "--help"]).unwrap_err();
        assert!(usage(&help).is_none());
    }
}
