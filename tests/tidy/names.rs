//! Names with one meaning each: types, files; and documents that exist where they are named.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Offence, Source};

/// Names that each file may have for itself: what every command calls its arguments, and what has a standard meaning.
const COMMON: &[&str] = &["Args"];

/// Rooms whose files mirror each other on purpose: a command and its operation have one name.
const MIRRORS: &[&str] = &["cli", "operations"];

/// Documents of the time before this repository: their names mean nothing to a reader.
const STRANGERS: &[&str] = &[
    concat!("DESI", "GN"),
    concat!("FAULTS", "2"),
    concat!("TABLES", ".md"),
    concat!("PLANHAT", ".md"),
    concat!("MEASURED", ".md"),
    concat!("STYLE", ".md"),
    concat!("ARCHITECTURE", ".md"),
];

/// A type's name that two files define.
pub(crate) fn types_twice(sources: &[Source]) -> Vec<Offence> {
    let mut first: BTreeMap<String, String> = BTreeMap::new();
    let mut found = Vec::new();
    for source in sources {
        for (line, text) in source.code() {
            let Some(name) = defined_type(text) else { continue };
            if COMMON.contains(&name.as_str()) {
                continue;
            }
            match first.get(&name) {
                Some(other) if *other != source.path => {
                    found.push(source.offence(line, format!("the type `{name}` is another one in {other}")));
                }
                Some(_) => {}
                None => {
                    first.insert(name, source.path.clone());
                }
            }
        }
    }
    found
}

fn defined_type(line: &str) -> Option<String> {
    let bare = line
        .strip_prefix("pub ")
        .or_else(|| line.split_once("pub(crate) ").filter(|(before, _)| before.is_empty()).map(|(_, rest)| rest))
        .unwrap_or(line);
    let rest = ["struct ", "enum ", "trait ", "type "].iter().find_map(|word| bare.strip_prefix(word))?;
    Some(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
}

/// A file's name that two folders have, but `mod.rs`.
pub(crate) fn files_twice(sources: &[Source]) -> Vec<Offence> {
    let mut first: BTreeMap<&str, &Source> = BTreeMap::new();
    let mut found = Vec::new();
    for source in sources {
        let name = source.path.rsplit('/').next().unwrap_or_default();
        let other = first.get(name).copied();
        let mirrored = other.is_some_and(|other| MIRRORS.contains(&other.room()) && MIRRORS.contains(&source.room()));
        if let Some(other) = other.filter(|_| name != "mod.rs" && !mirrored) {
            found.push(source.offence(1, format!("{} has the same file name", other.path)));
        }
        first.entry(name).or_insert(source);
    }
    found
}

/// Everything in the repository that people read: paths and texts.
pub(crate) fn texts(root: &Path) -> Vec<(String, String)> {
    let listed = std::process::Command::new("git").args(["ls-files"]).current_dir(root).output();
    let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let read = listed.lines().filter_map(|path| {
        let readable = [".rs", ".md", ".yaml", ".yml", ".toml", ".sql", ".html", ".js", ".css", ".sh", "Makefile"];
        let wanted = readable.iter().any(|end| path.ends_with(end)) || path.starts_with(".ci/");
        wanted.then(|| Some((path.to_owned(), std::fs::read_to_string(root.join(path)).ok()?)))?
    });
    read.collect()
}

/// A document that is named and is not there: `*.md`, from the root or beside the file that names it.
pub(crate) fn missing_documents(texts: &[(String, String)], exists: impl Fn(&str) -> bool) -> Vec<Offence> {
    let mut found = Vec::new();
    for (file, text) in texts {
        // Offenders of the tests name documents that are not there, and `.ci/docs` names those of a copy.
        if ["tests/tidy", "tests/docs", ".ci/docs"].iter().any(|strange| file.starts_with(strange)) {
            continue;
        }
        for (at, line) in text.lines().enumerate() {
            let mut offend = |what: String| found.push(Offence { file: file.clone(), line: at + 1, what });
            if let Some(stranger) = STRANGERS.iter().find(|name| names_word(line, name)) {
                offend(format!("names `{stranger}`, which is not in the repository"));
            }
            for word in line.split(|c: char| !(c.is_alphanumeric() || "/._-:".contains(c))) {
                let word = word.trim_matches(|c| ".:".contains(c)).trim_start_matches("./");
                let is_document =
                    word.ends_with(".md") && !word.contains("://") && !word.starts_with('/') && word.len() > 3;
                if !is_document || word.contains("..") {
                    continue;
                }
                let beside = file.rsplit_once('/').map_or(word.to_owned(), |(folder, _)| format!("{folder}/{word}"));
                if !exists(word) && !exists(&beside) {
                    offend(format!("names `{word}`, which is not there"));
                }
            }
        }
    }
    found
}

/// Whether `word` stands in the line as a word of its own.
fn names_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let letter = |c: char| c.is_alphanumeric() || "_/".contains(c);
        !line[..at].ends_with(letter) && !line[at + word.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
    })
}
