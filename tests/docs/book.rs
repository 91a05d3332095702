//! `make docs`: the book is made without a warning, and every link in its pages leads to a file of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{hold, root};

fn html(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            html(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "html") {
            found.push(path);
        }
    }
}

/// The local files that a page leads to.
fn leads_to(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap_or_default());
    targets
        .filter(|target| !target.contains("://") && !target.starts_with(['#', 'm', 'd']) || target.ends_with(".html"))
        .map(|target| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains("://"))
}

#[test]
fn docs_book_needs_mdbook() {
    let out = tempfile::tempdir().unwrap();
    let made = Command::new("sh").arg(".ci/docs").current_dir(root()).env("OUT", out.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let book = out.path().join("html");
    let mut pages = Vec::new();
    html(&book, &mut pages);
    assert!(pages.len() > 20, "{pages:?}");
    assert!(book.join("index.html").exists() && book.join("docs/quickstart.html").exists());
    let mut offences = Vec::new();
    for page in pages.iter().filter(|page| !page.ends_with("404.html")) {
        for target in leads_to(&std::fs::read_to_string(page).unwrap()) {
            if !page.parent().unwrap().join(target).exists() {
                offences.push(format!("{}: {target}", page.strip_prefix(&book).unwrap().display()));
            }
        }
    }
    hold(&offences);
}
