//! Public names that documents use are the program's own: keys of the configuration, metrics, and pages of the README.

use serde_json::Value;

use crate::{hold, pages, root};
use pg2planhat::testing::telemetry::Metrics;

/// Whether the schema has this path of keys.
fn has_key(schema: &Value, path: &str) -> bool {
    let mut places = vec![schema];
    for key in path.split('.') {
        let mut next = Vec::new();
        for place in &places {
            collect(place, schema, key.trim_end_matches("[]"), &mut next);
        }
        places = next;
    }
    !places.is_empty()
}

/// The schemas of `key` within `place`, through references, choices and lists.
fn collect<'a>(place: &'a Value, root: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    if let Some(name) = place["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/")) {
        collect(&root["$defs"][name], root, key, found);
    }
    if let Some(inner) = place["properties"].get(key) {
        found.push(inner);
    }
    for choice in ["anyOf", "oneOf", "allOf"] {
        place[choice].as_array().into_iter().flatten().for_each(|choice| collect(choice, root, key, found));
    }
    for inner in ["then", "items"] {
        if place[inner].is_object() {
            collect(&place[inner], root, key, found);
        }
    }
}

/// Whether this is written as a path of keys: `source.tls`, `sections[].start`.
fn path(span: &str) -> Option<&str> {
    let path = span.split([':', ' ']).next()?;
    let (first, rest) = path.split_once('.')?;
    let known = ["source", "planhat", "state", "audit", "admin", "console", "sections", "sections[]"];
    let word = |key: &str| !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || "_[]".contains(c));
    (known.contains(&first) && rest.split('.').all(word) && !rest.ends_with("rs")).then_some(path)
}

#[test]
fn docs_name_keys_that_are_there() {
    let schema = std::fs::read_to_string(root().join("deploy/pg2planhat.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let (mut offences, mut seen) = (Vec::new(), 0);
    for page in pages() {
        for (line, span) in page.spans() {
            let Some(path) = path(&span) else { continue };
            seen += 1;
            // A key that was, and is named as such.
            if path != "source.query_role" && !has_key(&schema, path) {
                offences.push(format!("{}:{line}: the configuration has no `{path}`", page.file));
            }
        }
    }
    assert!(seen > 20, "only {seen} keys are found");
    hold(&offences);
}

/// Names of metrics within a text.
fn metrics(text: &str) -> Vec<&str> {
    let starts = text.match_indices("pg2planhat_").map(|(at, _)| at);
    let starts = starts.filter(|at| !text[..*at].ends_with(|c: char| c.is_alphanumeric() || "_.'\"-/".contains(c)));
    starts
        .map(|at| text[at..].split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap_or_default())
        .collect()
}

#[test]
fn docs_name_metrics_that_are_there() {
    let declared: Vec<String> = Metrics::DECLARED.iter().map(|metric| format!("pg2planhat_{}", metric.name)).collect();
    assert!(declared.len() > 30, "{declared:?}");
    let mut offences = Vec::new();
    for page in pages() {
        for (line, text) in page.text.lines().enumerate() {
            // `pg2planhat_NAME`: a placeholder.
            for name in metrics(text).into_iter().filter(|name| !name.contains(char::is_uppercase)) {
                let bare = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
                // `pg2planhat_reader`: a role of the examples.
                if name != "pg2planhat_reader" && !declared.iter().any(|known| known == name || known == bare) {
                    offences.push(format!("{}:{}: no metric {name}", page.file, line + 1));
                }
            }
        }
    }
    hold(&offences);
}

/// A span that names a metric without its prefix, or a field of the status document.
fn short(span: &str) -> Option<&str> {
    let word = !span.is_empty() && span.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let ends = ["_total", "_bytes", "_seconds", "_missing_rows"].iter().any(|end| span.ends_with(end));
    (word && ends).then_some(span)
}

#[test]
fn docs_name_figures_by_names_that_are_there() {
    let fields = std::fs::read_to_string(root().join("docs/commands.md")).unwrap();
    let mut offences = Vec::new();
    for page in pages() {
        for (line, span) in page.spans() {
            let Some(name) = short(&span) else { continue };
            if !Metrics::DECLARED.iter().any(|metric| metric.name == name) && !fields.contains(&format!("\"{name}\"")) {
                offences.push(format!("{}:{line}: neither a metric nor a field: {name}", page.file));
            }
        }
    }
    hold(&offences);
}

/// docs/upgrades.md says which version of the state this program makes, and the quick start installs this program.
#[test]
fn docs_say_this_version_and_that_of_its_state() {
    let quickstart = std::fs::read_to_string(root().join("docs/quickstart.md")).unwrap();
    for (at, name) in quickstart.match_indices("pg2planhat-").chain(quickstart.match_indices("pg2planhat:")) {
        let rest = quickstart[at + name.len()..].trim_start_matches("chart-");
        let version = rest.starts_with(|c: char| c.is_ascii_digit());
        assert!(
            !version || rest.starts_with(env!("CARGO_PKG_VERSION")),
            "docs/quickstart.md: {:.40}",
            &quickstart[at..]
        );
    }
    let versions = std::fs::read_dir(root().join("src/state/migrations")).unwrap().filter_map(|entry| {
        entry.unwrap().file_name().to_str().and_then(|name| name.split('_').next()?.parse::<u32>().ok())
    });
    let newest = versions.max().unwrap();
    let page = pages().into_iter().find(|page| page.file == "docs/upgrades.md").unwrap();
    let row = format!("| {} | {newest} |", env!("CARGO_PKG_VERSION"));
    assert!(page.text.contains(&row), "docs/upgrades.md has no row {row}");
}

/// Every file below a folder, from the root.
fn files(folder: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().into_string().unwrap());
        if entry.path().is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// The files that a span of code names, and that are not among `files`.
fn missing_sources(span: &str, files: &[String]) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || "_/.".contains(c);
    let named = span.ends_with(".rs") && span.chars().all(word);
    named && !files.iter().any(|file| file == span || file.ends_with(&format!("/{span}")))
}

/// docs/architecture.md leads to files that are there, and knows every room.
#[test]
fn docs_architecture_knows_the_code() {
    let mut all = Vec::new();
    files("src", &mut all);
    let page = pages().into_iter().find(|page| page.file == "docs/architecture.md").unwrap();
    let mut offences = Vec::new();
    let mut seen = 0;
    for (line, span) in page.spans() {
        seen += usize::from(span.ends_with(".rs"));
        // `cli/NAME.rs` stands for any of them.
        if !span.contains("NAME") && missing_sources(&span, &all) && !root().join(&span).exists() {
            offences.push(format!("{}:{line}: {span} is not there", page.file));
        }
    }
    assert!(seen > 30, "only {seen} files are named");
    let spans: Vec<String> = page.spans().into_iter().map(|(_, span)| span).collect();
    for entry in
        std::fs::read_dir(root().join("src")).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir())
    {
        let room = entry.file_name().into_string().unwrap();
        if !spans.iter().any(|span| *span == room || span.starts_with(&format!("{room}/"))) {
            offences.push(format!("{}: no word about src/{room}", page.file));
        }
    }
    hold(&offences);
}

/// The README stays short: everything else is a page.
#[test]
fn docs_readme_is_short() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let lines = readme.lines().count();
    assert!(lines <= 150, "README.md has {lines} lines; 150 are enough");
}

#[test]
fn docs_wrong_names_are_seen() {
    let schema = std::fs::read_to_string(root().join("deploy/pg2planhat.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    assert!(has_key(&schema, "source.reader.user"));
    assert!(has_key(&schema, "sections[].start.after_key"));
    assert!(!has_key(&schema, "source.raeder"));
    assert_eq!(path("source.tls: disable"), Some("source.tls"));
    assert_eq!(path("state/writes.rs"), None);
    let files = ["src/state/writes.rs".to_owned()];
    assert!(missing_sources("state/write.rs", &files) && !missing_sources("state/writes.rs", &files));
    assert_eq!(metrics("`pg2planhat_rows` x_pg2planhat_no"), ["pg2planhat_rows"]);
    assert_eq!((short("slot_kept_bytes"), short("key_bytes: 1"), short("rows")), (Some("slot_kept_bytes"), None, None));
}
