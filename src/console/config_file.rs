//! The configuration's file: its text, whether this process may write it, and the writing.
//!
//! * In: a path.
//! * Out: its text and digest; the text without literal secrets; a new text in its place.
//! * Never: a secret shown; a file half written; a file replaced that somebody else has changed.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::config::yaml_spans::{SpannedNode, spans};
use crate::config::{Config, Secret};
use crate::console::people::{digest, hex};
use crate::model::Fault;

/// The content of the file at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileText {
    pub text: String,
    pub sha256: String,
}

impl FileText {
    /// Makes the content of a text, with its digest.
    pub(crate) fn of(text: String) -> FileText {
        FileText { sha256: hex(&digest(&text)), text }
    }
}

/// Reads the file.
///
/// # Errors
/// The file cannot be read, or is no UTF-8.
pub(crate) fn read(path: &Path) -> Result<FileText, Fault> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Fault::unavailable(format!("{} cannot be read: {error}", path.display()), "look at the file and its rights")
    })?;
    Ok(FileText::of(text))
}

/// Returns the secrets that the file holds as literal text.
pub(crate) fn literals(config: &Config) -> Vec<String> {
    let source = &config.source;
    let reader = source.reader.as_ref().and_then(|reader| reader.password.as_ref());
    let all = [
        source.url.as_ref(),
        source.password.as_ref(),
        reader,
        Some(&config.planhat.tenant),
        config.state.url.as_ref(),
    ];
    all.into_iter().flatten().filter_map(inline).collect()
}

/// Returns the digests of tokens. They belong in the file, and no page shows them.
pub(crate) fn digests(config: &Config) -> Vec<String> {
    config.console.tokens.iter().filter_map(|token| inline(&token.sha256)).collect()
}

fn inline(secret: &Secret) -> Option<String> {
    match secret {
        Secret::Inline(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
        Secret::Inline(_) | Secret::Env(_) | Secret::File(_) => None,
    }
}

/// The text that stands for a secret.
const MASK: &str = "••••••";

/// Returns the text with each literal secret masked, and the number of lines that held one.
pub(crate) fn masked(text: &str, literals: &[String]) -> (String, usize) {
    let Some(otherwise) = written_otherwise(text, literals) else {
        return ("The file is not shown: a secret in it is written in a way that cannot be masked.".to_owned(), 1);
    };
    let mut shown = text.to_owned();
    for place in otherwise.into_iter().rev() {
        shown.replace_range(place, MASK);
    }
    for secret in literals {
        shown = shown.replace(secret.as_str(), MASK);
    }
    let lines = shown.lines().filter(|line| line.contains(MASK)).count();
    (shown, lines)
}

/// Returns the lines that hold a literal secret: no patch may show them.
pub(crate) fn secret_lines(text: &str, literals: &[String]) -> BTreeSet<String> {
    let Some(otherwise) = written_otherwise(text, literals) else {
        return text.split_inclusive('\n').map(str::to_owned).collect();
    };
    let mut lines = BTreeSet::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let end = start + line.len();
        let holds = literals.iter().any(|secret| line.contains(secret.as_str()));
        if holds || otherwise.iter().any(|place| place.start < end && start < place.end) {
            lines.insert(line.to_owned());
        }
        start = end;
    }
    lines
}

/// Returns the places of secrets that the text writes in other characters than their own: with escapes, with doubled
/// quotes, or over several lines. `None` where there is one, and the places of the text's values are not known.
fn written_otherwise(text: &str, literals: &[String]) -> Option<Vec<Range<usize>>> {
    fn collect(node: &SpannedNode, text: &str, literals: &[String], places: &mut Vec<Range<usize>>) {
        let said = node.scalar().unwrap_or_default().trim();
        if literals.iter().any(|secret| secret == said && !text[node.start..node.end].contains(secret.as_str())) {
            places.push(node.start..node.end);
        }
        for inner in node.items().iter().chain(node.entries().iter().map(|entry| &entry.value)) {
            collect(inner, text, literals, places);
        }
    }
    let Some(root) = spans(text) else {
        return literals.iter().all(|secret| text.contains(secret.as_str())).then(Vec::new);
    };
    let mut places = Vec::new();
    collect(&root, text, literals, &mut places);
    Some(places)
}

/// Returns why this process cannot write the file; `None` where it can.
pub(crate) fn cannot_write(path: &Path, config: &Config) -> Option<String> {
    let name = path.display();
    if !config.console.edit {
        return Some("console.edit is false: the file is changed where it is kept".to_owned());
    }
    let Ok(meta) = std::fs::symlink_metadata(path) else { return Some(format!("{name} is not there")) };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let target = std::fs::read_link(path).unwrap_or_default();
    if target.components().any(|part| part.as_os_str() == "..data") || folder.join("..data").exists() {
        return Some(format!("{name} comes from a ConfigMap: apply the patch where that is kept"));
    }
    if !meta.is_file() {
        return Some(format!("{name} is a link or no regular file"));
    }
    let own = rustix::process::geteuid();
    if meta.uid() != own.as_raw() && !own.is_root() {
        // A replacement would belong to this process's user, and the owner might no longer read it.
        return Some(format!("{name} belongs to another user: the patch is for its owner"));
    }
    let free = |path: &Path, how| rustix::fs::access(path, how).is_ok();
    let writable = free(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
        && free(path, rustix::fs::Access::WRITE_OK);
    (!writable).then(|| format!("{name} is read-only for this process"))
}

/// Returns why no file can be made at this path; `None` where one can.
pub(crate) fn cannot_begin(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if std::fs::symlink_metadata(path).is_ok() {
        return Some(format!("{} is there already: start `pg2planhat ui` anew, which opens it", path.display()));
    }
    let how = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let why = rustix::fs::access(folder, how).err()?;
    Some(format!("the folder {} cannot be written ({why}): start `pg2planhat ui` in one that can", folder.display()))
}

/// Makes a file that does not exist yet.
///
/// # Errors
/// The file exists, or cannot be written.
pub(crate) fn begin(path: &Path, text: &str, mode: u32) -> Result<(), Fault> {
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error: std::io::Error| {
        Fault::unavailable(
            format!("{} cannot be made: {error}", path.display()),
            "remove what is there, or copy the file by hand",
        )
    })
}

/// Makes several files that do not exist yet: all of them, or none.
///
/// # Errors
/// One exists, or cannot be written.
pub(crate) fn begin_all(files: &[(PathBuf, String, u32)]) -> Result<(), Fault> {
    for (at, (path, text, mode)) in files.iter().enumerate() {
        begin(path, text, *mode).inspect_err(|_| {
            // Files of a set that is not whole would be in the way of the next one.
            for (made, ..) in &files[..at] {
                std::fs::remove_file(made).ok();
            }
        })?;
    }
    Ok(())
}

/// Replaces the file whose digest is `base` by a new text. The old text stays beside it as `NAME.bak`.
///
/// # Errors
/// The file has another digest by now (needs a person), or cannot be written.
pub(crate) fn save(path: &Path, base: &str, text: &str) -> Result<(), Fault> {
    let now = read(path)?;
    if now.sha256 != base {
        let what = format!("{} was changed by somebody else meanwhile; nothing was written", path.display());
        return Err(Fault::needs_person(
            what,
            "look at the Configuration, and make the change again on what it says now",
        ));
    }
    let failed = |what: &str, error: std::io::Error| {
        Fault::unavailable(
            format!("{what} of {} failed: {error}", path.display()),
            "nothing was changed; mend it, and save again",
        )
    };
    let beside = |ending: &str| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(ending);
        path.with_file_name(name)
    };
    let (new, old) = (beside(".new"), beside(".bak"));
    let meta = std::fs::metadata(path).map_err(|error| failed("a look", error))?;
    // Each write makes a new file: an existing one of this name may be a link to somewhere else.
    let made = |text: &str| {
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (meta.uid(), meta.gid()) {
            // Whoever could read the old file can read the new one.
            std::os::unix::fs::fchown(&file, Some(meta.uid()), Some(meta.gid()))?;
        }
        file.set_permissions(std::fs::Permissions::from_mode(meta.mode() & 0o7777))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    let write = || {
        made(&now.text)?;
        std::fs::rename(&new, &old)?;
        made(text)?;
        std::fs::rename(&new, path)
    };
    write().map_err(|error| {
        // Where the removal fails too, the file stays behind; no code reads it.
        std::fs::remove_file(&new).ok();
        failed("the writing", error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(extra: &str) -> Config {
        let text = format!(
            "source: {{ host: h, database: d, user: u, password: pass-word }}\nplanhat: {{ tenant: tenant-uuid }}\n{extra}sections:\n  - \
             {{ name: a, kind: custom_metric, table: t, key: id, fields: {{ dimensionId: {{ value: x }}, value: v, externalId: e, date: d }} }}\n"
        );
        crate::config::parse(&text, "test").unwrap()
    }

    #[test]
    fn literal_secrets_are_hidden_and_counted() {
        let literals = literals(&config(""));
        let (shown, lines) = masked("a: tenant-uuid # tenant-uuid\nb: { password: pass-word }\nc: 1", &literals);
        assert_eq!((shown.as_str(), lines), ("a: •••••• # ••••••\nb: { password: •••••• }\nc: 1", 2));
    }

    #[test]
    fn a_secret_that_is_written_in_other_characters_is_hidden() {
        let literals = ["it's \"one\"".to_owned(), "two words".to_owned()];
        for written in [r#""it's \"one\"" # why"#, "'it''s \"one\"'", r#""it\x27s \"one\"""#, "&a 'it''s \"one\"'"] {
            let text =
                format!("source:\n  host: h\n  password: {written}\n  user: u\nother: {{ url: \"two\n    words\" }}\n");
            let (shown, lines) = masked(&text, &literals);
            assert!(!shown.contains("one") && !shown.contains("two") && !shown.contains("words"), "{shown}");
            assert!(shown.contains("  user: u") && shown.contains("password: ") && lines == 2, "{shown}");
            let hidden = secret_lines(&text, &literals);
            assert_eq!((hidden.len(), hidden.contains("  user: u\n")), (3, false), "{hidden:?}");
        }
        // A key that is a mapping has no place that is known.
        let (shown, _) = masked("? { a: b }\n: \"it\\x27s \\\"one\\\"\"\n", &literals);
        assert!(!shown.contains("one\\"), "{shown}");
    }

    #[test]
    fn a_file_is_replaced_whole_and_only_as_it_was_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.yaml");
        std::fs::write(&path, "one").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let seen = read(&path).unwrap();
        save(&path, &seen.sha256, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(std::fs::read_to_string(folder.path().join("x.yaml.bak")).unwrap(), "one");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert!(save(&path, &seen.sha256, "three").is_err_and(|fault| fault.what.contains("somebody else")));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
    }

    #[test]
    fn case_285_of_several_files_all_are_made_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| (folder.path().join(name), name.to_owned(), 0o600);
        let files = [file("password"), file("tenant"), file("yaml")];
        std::fs::write(folder.path().join("tenant"), "old").unwrap();
        assert!(begin_all(&files).is_err_and(|fault| fault.what.contains("tenant")));
        let there = || std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!((there(), std::fs::read_to_string(&files[1].0).unwrap().as_str()), (1, "old"));
        std::fs::remove_file(&files[1].0).unwrap();
        begin_all(&files).unwrap();
        assert_eq!(there(), 3);
    }

    #[test]
    fn a_link_that_lies_beside_the_file_is_not_followed() {
        for beside in ["x.yaml.new", "x.yaml.bak"] {
            let folder = tempfile::tempdir().unwrap();
            let (path, victim) = (folder.path().join("x.yaml"), folder.path().join("victim"));
            std::fs::write(&path, "one").unwrap();
            std::fs::write(&victim, "precious").unwrap();
            std::os::unix::fs::symlink(&victim, folder.path().join(beside)).unwrap();
            save(&path, &read(&path).unwrap().sha256, "two").unwrap();
            assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious", "{beside}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        }
    }

    #[test]
    fn the_file_stays_its_owners() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.yaml");
        std::fs::write(&path, "one").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown(&path, Some(1234), Some(4321)).unwrap();
        save(&path, &read(&path).unwrap().sha256, "two").unwrap();
        for name in ["x.yaml", "x.yaml.bak"] {
            let meta = std::fs::metadata(folder.path().join(name)).unwrap();
            assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (1234, 4321, 0o640), "{name}");
        }
    }

    #[test]
    fn what_kubernetes_mounts_and_what_is_forbidden_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.yaml");
        std::fs::write(&path, "one").unwrap();
        assert_eq!(cannot_write(&path, &config("")), None);
        assert!(cannot_write(&path, &config("console: { edit: false }\n")).unwrap().contains("console.edit"));
        let data = folder.path().join("map").join("..2026");
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join("x.yaml"), "one").unwrap();
        std::os::unix::fs::symlink("..2026", folder.path().join("map/..data")).unwrap();
        std::os::unix::fs::symlink("..data/x.yaml", folder.path().join("map/x.yaml")).unwrap();
        assert!(cannot_write(&folder.path().join("map/x.yaml"), &config("")).unwrap().contains("ConfigMap"));
    }
}
