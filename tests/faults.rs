//! The table of faults: every case has a test, and the table names it.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "in a test a panic is the verdict, and stderr its report")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

fn visit(directory: &Path, files: &mut Vec<String>) {
    for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            visit(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(fs::read_to_string(&path).unwrap());
        }
    }
}

/// The tests by case: `case_31_34_name` counts for both.
fn tests() -> BTreeMap<u32, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for directory in ["tests", "src"] {
        visit(&root.join(directory), &mut files);
    }
    let mut found: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    let names = files.iter().flat_map(|file| file.lines()).filter_map(|line| line.split("fn case_").nth(1));
    for name in names.filter_map(|rest| rest.split('(').next()) {
        for number in name.split('_').map_while(|part| part.parse().ok()) {
            found.entry(number).or_default().insert(format!("case_{name}"));
        }
    }
    found
}

#[test]
fn the_table_is_current_and_every_case_has_a_test() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/FAULTS.md");
    let table = fs::read_to_string(&path).unwrap();
    let tests = tests();
    let mut untested = Vec::new();
    let row = |line: &str| -> Option<String> {
        let mut columns = line.strip_prefix("| ")?.splitn(3, " | ");
        let (number, text) = (columns.next()?, columns.next()?);
        let names = tests.get(&number.parse().ok()?).cloned().unwrap_or_default();
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        Some(format!("| {number} | {text} | {} |", names.join("<br>")))
    };
    let mut lines = Vec::new();
    for line in table.lines() {
        let made = row(line);
        if made.as_ref().is_some_and(|made| made.ends_with("|  |")) {
            untested.push(line.to_owned());
        }
        lines.push(made.unwrap_or_else(|| line.to_owned()));
    }
    let made = lines.join("\n") + "\n";
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &made).unwrap();
    } else {
        assert_eq!(made, table, "tests/FAULTS.md is not current: UPDATE=1 cargo test --test faults");
    }
    assert_eq!(untested, Vec::<String>::new(), "cases without a test");
}
