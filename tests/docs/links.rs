//! Links lead somewhere: files that are there, headings that are there.

use std::path::{Component, Path, PathBuf};

use crate::markdown::Page;
use crate::{hold, pages, root};

/// `a/b/../c` without its dots.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => plain.push(part),
        }
    }
    plain
}

/// The links of `page` that lead nowhere. `read` gives a file's text; `None` where it is not there.
fn broken(page: &Page, read: impl Fn(&Path) -> Option<String>) -> Vec<String> {
    let mut found = Vec::new();
    for link in page.links() {
        let mut offend = |what: &str| found.push(format!("{}:{}: {}: {what}", page.file, link.line, link.target));
        if link.target.starts_with("http://") {
            offend("a link without TLS");
        }
        if link.target.contains("://") {
            continue;
        }
        let (file, anchor) = link.target.split_once('#').unwrap_or((&link.target, ""));
        let path = match file {
            "" => PathBuf::from(&page.file),
            file => plain(&Path::new(&page.file).parent().unwrap().join(file)),
        };
        let Some(text) = read(&path) else {
            offend("is not there");
            continue;
        };
        if !anchor.is_empty() && !Page::new("", text).anchors().iter().any(|known| known == anchor) {
            offend("no heading of that name");
        }
    }
    found
}

/// A file's text; of a folder, nothing.
fn read(path: &Path) -> Option<String> {
    let path = root().join(path);
    if path.is_dir() {
        Some(String::new())
    } else {
        Some(String::from_utf8_lossy(&std::fs::read(path).ok()?).into_owned())
    }
}

#[test]
fn docs_links_lead_somewhere() {
    let pages = pages();
    assert!(pages.iter().map(|page| page.links().len()).sum::<usize>() > 50, "the links are not found");
    hold(&pages.iter().flat_map(|page| broken(page, read)).collect::<Vec<_>>());
}

/// Every page is a chapter of the book, once.
#[test]
fn docs_every_page_is_in_the_summary() {
    let pages = pages();
    let summary = pages.iter().find(|page| page.file == "docs/SUMMARY.md").unwrap();
    let mut chapters: Vec<String> =
        summary.links().iter().map(|link| plain(&Path::new("docs").join(&link.target)).display().to_string()).collect();
    chapters.sort();
    let mut wanted: Vec<String> = pages.iter().map(|page| page.file.clone()).collect();
    wanted.retain(|file| file != "docs/SUMMARY.md");
    wanted.sort();
    assert_eq!(chapters, wanted);
}

#[test]
fn docs_a_link_that_leads_nowhere_is_seen() {
    let text = "[a](b.md) [b](../c.md#there) [c](../c.md#gone) [d](#d) [e](http://x.test/)\n# D\n";
    let page = Page::new("docs/a.md", text.to_owned());
    let found = broken(&page, |path| match path.to_str().unwrap() {
        "c.md" => Some("# There\n".to_owned()),
        "docs/a.md" => Some(text.to_owned()),
        _ => None,
    });
    let what: Vec<&str> = found.iter().map(|offence| offence.rsplit(": ").next().unwrap()).collect();
    assert_eq!(what, ["is not there", "no heading of that name", "a link without TLS"]);
}
