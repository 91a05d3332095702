//! The documents, held to what is there: links and anchors, commands and flags, configuration, metrics, the book.
//!
//! Each rule is shown an offender at the end of its file.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the verdict")]

mod blocks;
mod book;
mod command_lines;
mod links;
mod markdown;
mod names;
mod says;

use std::path::Path;

use crate::markdown::Page;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document of the repository.
pub fn pages() -> Vec<Page> {
    let mut files: Vec<String> =
        ["README.md", "CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md", "deploy/RUNBOOK.md", "benches/README.md"]
            .map(str::to_owned)
            .to_vec();
    files.push("tests/FAULTS.md".to_owned());
    let mut docs: Vec<String> = std::fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".md"))
        .map(|name| format!("docs/{name}"))
        .collect();
    docs.sort();
    files.append(&mut docs);
    files.iter().map(|file| Page::new(file, std::fs::read_to_string(root().join(file)).unwrap())).collect()
}

/// Fails with all offences at once, each `file:line: what`.
pub fn hold(offences: &[String]) {
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}
