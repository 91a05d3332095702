//! The command line itself: exit codes, two-line errors, what is generated from it.

use std::process::Command;

use crate::harness::scratch::Scratch;

fn program(arguments: &[&str]) -> (i32, String, String) {
    let scratch = Scratch::new("cli");
    let output =
        Command::new(env!("CARGO_BIN_EXE_pg2planhat")).current_dir(scratch.path()).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn usage_errors_end_with_64_and_help_with_0() {
    for arguments in [&["chek"][..], &[], &["preview"], &["resync", "a"], &["repair"], &["check", "--nonsense"]] {
        let (code, stdout, _) = program(arguments);
        assert_eq!((code, stdout.as_str()), (64, ""), "{arguments:?}");
    }
    let (code, stdout, _) = program(&["--help"]);
    assert_eq!(code, 0);
    for command in [
        "demo",
        "discover",
        "check",
        "setup",
        "preview",
        "run",
        "status",
        "logs",
        "pause",
        "resume",
        "resync",
        "quarantine",
    ] {
        assert!(stdout.contains(&format!("\n  {command}")), "{command} is not in\n{stdout}");
    }
    assert!(program(&["--version"]).1.starts_with("pg2planhat "));
}

#[test]
fn without_a_configuration_two_lines_say_where_to_get_one() {
    for command in [&["check"][..], &["setup"], &["preview", "logins"]] {
        let (code, stdout, stderr) = program(command);
        assert_eq!((code, stdout.as_str()), (64, ""), "{command:?}");
        let lines: Vec<&str> = stderr.lines().collect();
        assert!(
            matches!(lines.as_slice(), [what, remedy]
            if what.starts_with("error: there is no configuration pg2planhat.yaml") && remedy.starts_with("  remedy: ")
                // What is there wherever the program is: an installed one has no folder `deploy`.
                && remedy.contains("`pg2planhat ui` or `pg2planhat discover`")),
            "{stderr}"
        );
    }
}

#[test]
fn the_schema_is_the_one_that_is_committed() {
    let (code, stdout, _) = program(&["schema"]);
    assert_eq!(code, 0);
    let committed = include_str!("../../deploy/pg2planhat.schema.json");
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(parse(&stdout), parse(committed));
}

#[test]
fn completions_and_man_pages_are_written() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(program(&["completions", shell]).1.contains("pg2planhat"), "{shell}");
    }
    let scratch = Scratch::new("man");
    let directory = scratch.path().join("pages");
    assert_eq!(program(&["man", directory.to_str().unwrap()]).0, 0);
    let pages: Vec<String> =
        std::fs::read_dir(&directory).unwrap().map(|page| page.unwrap().file_name().into_string().unwrap()).collect();
    for page in ["pg2planhat.1", "pg2planhat-run.1", "pg2planhat-quarantine.1"] {
        assert!(pages.iter().any(|name| name == page), "{page} is not among {pages:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_fault() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_pg2planhat")).arg("schema").stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
}
