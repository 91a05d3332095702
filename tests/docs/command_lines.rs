//! Commands and flags that documents name are the program's own, and the program's are documented.

use clap::error::ErrorKind;
use clap::{Command, CommandFactory as _, Parser as _};

use crate::{hold, pages, root};
use pg2planhat::testing::cli::Cli;

/// A command line in words, its quotes taken off; without what a shell does around it.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut some) = (String::new(), None, false);
    for c in line.chars() {
        match (c, quote) {
            (c, Some(end)) if c == end => quote = None,
            (c, Some(_)) => word.push(c),
            ('"' | '\'', None) => (quote, some) = (Some(c), true),
            (c, None) if c.is_whitespace() => {
                if some || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                some = false;
            }
            (c, None) => word.push(c),
        }
    }
    if some || !word.is_empty() {
        words.push(word);
    }
    words
}

/// The calls of the program in a line of a shell: from its name to the end of the command.
fn calls(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("pg2planhat ") {
        let before = line[..at].trim_end_matches("/usr/local/bin/");
        let begins = before.is_empty() || before.ends_with([' ', '(', '`', '$']) && !before.ends_with("-U ");
        // An option of another program may have this value: `-p pg2planhat …`.
        let value = before.trim_end().rsplit(' ').next().is_some_and(|word| word.starts_with('-') && word != "--");
        if begins && !value {
            let call = &line[at..];
            let end = [" #", " | ", " > ", " >", " && ", " & ", ";", ")"].iter().filter_map(|end| call.find(end)).min();
            found.push(call[..end.unwrap_or(call.len())].trim().to_owned());
        }
    }
    found
}

/// What the program would say of this call; values may be placeholders.
fn wrong(call: &str) -> Option<String> {
    let placeholders = ["…", "..."];
    let words = words(call).into_iter().filter(|word| !placeholders.contains(&word.as_str()));
    let error = Cli::try_parse_from(words).err()?;
    let fine = [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion, ErrorKind::ValueValidation].contains(&error.kind());
    (!fine).then(|| error.to_string().lines().next().unwrap_or_default().to_owned())
}

/// A span of prose names a command and some of its flags; what is mandatory may be left out there.
fn wrong_in_prose(span: &str) -> Option<String> {
    let words = words(span);
    // `[--json]`, `SECTION|--all`: the form of a command, for the table of docs/commands.md.
    if words.iter().any(|word| word.contains(['[', '|'])) {
        return None;
    }
    let error = Cli::try_parse_from(&words).err()?;
    let wrong = matches!(error.kind(), ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument);
    wrong.then(|| error.to_string().lines().next().unwrap_or_default().to_owned())
}

#[test]
fn docs_name_commands_that_are_there() {
    let mut offences = Vec::new();
    let mut seen = 0;
    for page in pages() {
        for (line, span) in page.spans().into_iter().filter(|(_, span)| span.starts_with("pg2planhat ")) {
            seen += 1;
            offences.extend(wrong_in_prose(&span).map(|what| format!("{}:{line}: `{span}`: {what}", page.file)));
        }
        for block in page.blocks().into_iter().filter(|block| block.language == "sh" || block.language.is_empty()) {
            for (at, line) in block.text.lines().enumerate() {
                for call in calls(line) {
                    seen += 1;
                    let line = block.line + at;
                    offences.extend(wrong(&call).map(|what| format!("{}:{line}: {call}: {what}", page.file)));
                }
            }
        }
    }
    assert!(seen > 60, "only {seen} calls are found");
    hold(&offences);
}

/// What `make` is asked for has a rule, and each rule is in CONTRIBUTING.md, README.md or a page.
#[test]
fn docs_name_rules_of_the_makefile_that_are_there() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    let rules: Vec<&str> = makefile
        .lines()
        .filter(|line| line.contains(": ##") || line.contains(": dist ##"))
        .map(|line| line.split(':').next().unwrap())
        .collect();
    assert!(rules.len() > 8, "{rules:?}");
    let mut offences = Vec::new();
    for page in pages() {
        let spans = page.spans().into_iter();
        let blocks = page.blocks();
        let lines = blocks
            .iter()
            .filter(|block| block.language == "sh")
            .flat_map(|block| block.text.lines().enumerate().map(|(at, line)| (block.line + at, line.to_owned())));
        for (line, text) in spans.chain(lines) {
            let Some(rule) = text.strip_prefix("make ").map(|rest| rest.split(' ').find(|word| !word.contains('=')))
            else {
                continue;
            };
            if let Some(rule) = rule.filter(|rule| !rules.contains(rule)) {
                offences.push(format!("{}:{line}: make has no rule `{rule}`", page.file));
            }
        }
    }
    hold(&offences);
}

/// The flags of a command and of those below it, hidden ones left out.
fn flags(command: &Command) -> Vec<String> {
    let own = command.get_arguments().filter(|arg| !arg.is_hide_set() && !arg.is_global_set());
    let own = own.filter_map(|arg| arg.get_long().filter(|long| *long != "help").map(|long| format!("--{long}")));
    own.chain(command.get_subcommands().filter(|below| below.get_name() != "help").flat_map(flags)).collect()
}

/// The table of docs/commands.md has a row for each command, with flags that the command has.
#[test]
fn docs_commands_has_each_command_with_flags_of_its_own() {
    let page = pages().into_iter().find(|page| page.file == "docs/commands.md").unwrap();
    let table: Vec<(usize, &str)> = page
        .prose()
        .filter(|(_, line)| line.starts_with("| `"))
        .take_while(|(_, line)| !line.starts_with("| `status`,"))
        .collect();
    let cli = Cli::command();
    let mut offences = Vec::new();
    for command in cli.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = command.get_name();
        let spans = |line: &str| line.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        let row = table.iter().find(|(_, line)| {
            let cell = line.trim_start_matches('|').split(" | ").next().unwrap_or_default();
            spans(cell).iter().any(|span| span.split(' ').next() == Some(name))
        });
        let Some((at, row)) = row else {
            if !page.text.contains(&format!("`pg2planhat {name} ")) {
                offences.push(format!("docs/commands.md: no row for `{name}`"));
            }
            continue;
        };
        let known = flags(command);
        for flag in row.split(|c: char| !(c.is_ascii_lowercase() || c == '-')).filter(|word| word.starts_with("--")) {
            let others = cli.get_subcommands().any(|other| flags(other).iter().any(|known| known == flag));
            if !known.iter().any(|known| known == flag) && !others {
                offences.push(format!("docs/commands.md:{at}: no command has `{flag}`"));
            }
        }
    }
    hold(&offences);
}

#[test]
fn docs_a_wrong_call_is_seen() {
    assert_eq!(calls("VAR=1 pg2planhat check # it"), ["pg2planhat check"]);
    assert_eq!(calls("journalctl -u pg2planhat --since x"), [""; 0]);
    assert_eq!(wrong("pg2planhat audit logins --deliver-missing"), None);
    assert_eq!(wrong("pg2planhat audti logins").unwrap(), "error: unrecognized subcommand 'audti'");
    assert_eq!(wrong("pg2planhat audit logins --al").unwrap(), "error: unexpected argument '--al' found");
    assert!(wrong_in_prose("pg2planhat resync --form-key 1").is_some());
    assert_eq!(wrong_in_prose("pg2planhat resync"), None);
    assert_eq!(words("a 'b c' \"d\""), ["a", "b c", "d"]);
}
