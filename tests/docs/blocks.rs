//! Blocks of code: configuration is read by the program's own decoder, JSON parses, SQL names tables that are there.

use pg2planhat::testing::config;

use crate::{hold, pages, root};

/// A configuration that lacks nothing, in parts, for fragments to be put into.
const SOURCE: &str = "source: { host: db, database: app, user: app, password: x }\n";
const PLANHAT: &str = "planhat: { tenant: 00000000-0000-0000-0000-000000000000 }\n";
const SECTION: &str = "sections:\n  - name: s\n    kind: user_activity\n    table: t\n    key: id\n    fields: { email: e, action: a, date: d }\n";

/// Whether the block is a whole configuration, or a part of one: keys of the file, a list of sections, or keys of one
/// section. The errors of the first reading where it is none.
fn reads(text: &str) -> Result<(), String> {
    // Secrets are not there in a test.
    let text = &unsecret(text);
    let read = |text: &str| config::parse(text, "block").map(|_| ()).map_err(|errors| errors.to_string());
    let indented: String = text.lines().map(|line| format!("    {line}\n")).collect();
    let list: String = text.lines().map(|line| format!("  {line}\n")).collect();
    let has = |key: &str| text.lines().any(|line| line.starts_with(&format!("{key}:")));
    let mut whole = text.clone();
    for (key, part) in [("source", SOURCE), ("planhat", PLANHAT), ("sections", SECTION)] {
        if !has(key) {
            whole.push_str(part);
        }
    }
    let first = read(&whole);
    // What the fragment says itself is not said twice.
    let section: String = SECTION
        .lines()
        .filter(|line| !line.trim().split_once(':').is_some_and(|(key, _)| has(key.trim_start_matches("- "))))
        .map(|line| format!("{line}\n"))
        .collect();
    let section = if has("name") { section.replace("sections:\n", "sections:\n  -\n") } else { section };
    if first.is_ok() || read(&format!("{SOURCE}{PLANHAT}{section}{indented}")).is_ok() {
        return Ok(());
    }
    if read(&format!("{SOURCE}{PLANHAT}sections:\n{list}")).is_ok() { Ok(()) } else { first }
}

/// The text with `{ env: NAME }` and `{ file: PATH }` as the secret's own text.
fn unsecret(text: &str) -> String {
    let mut plain = text.to_owned();
    for form in ["{ env: ", "{ file: "] {
        while let Some((before, after)) = plain.split_once(form) {
            let (name, behind) = after.split_once(" }").unwrap_or((after, ""));
            // A tenant is a UUID; a password may be anything.
            let tenant = name.to_lowercase().contains("tenant");
            let secret = if tenant { "00000000-0000-0000-0000-000000000000" } else { "x" };
            plain = format!("{before}{secret}{behind}");
        }
    }
    plain
}

#[test]
fn docs_blocks_are_what_they_say() {
    let mut offences = Vec::new();
    let mut seen = 0;
    for page in pages() {
        for block in page.blocks() {
            seen += 1;
            let wrong = match block.language.as_str() {
                "yaml" if block.text.contains("apiVersion:") => None,
                "yaml" => reads(&block.text).err(),
                "json" => serde_json::from_str::<serde_json::Value>(&block.text).err().map(|error| error.to_string()),
                "sh" | "sql" | "text" | "" => None,
                other => Some(format!("a block of {other:?}: say sh, yaml, json, sql or text")),
            };
            offences.extend(wrong.map(|what| format!("{}:{}: {what}", page.file, block.line)));
        }
    }
    assert!(seen > 15, "only {seen} blocks are found");
    hold(&offences);
}

/// Tables of the state schema that documents name are made by its migrations.
#[test]
fn docs_tables_of_the_state_are_there() {
    let mut made = String::new();
    for entry in std::fs::read_dir(root().join("src/state/migrations")).unwrap() {
        made.push_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    let mut offences = Vec::new();
    for page in pages() {
        let blocks = page.blocks();
        let sql = blocks.iter().filter(|block| block.language == "sql").map(|block| (block.line, block.text.clone()));
        for (line, text) in sql.chain(page.spans()) {
            for (at, _) in text.match_indices("pg2planhat.") {
                let before = text[..at].chars().last();
                let name: String =
                    text[at + 11..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                let file = ["yaml", "md", "service", "example", "schema"].contains(&name.as_str());
                let other = before.is_some_and(|c| c.is_alphanumeric() || "/._-".contains(c));
                if !file && !other && !name.is_empty() && !made.contains(&format!("{{schema}}.{name} ")) {
                    offences.push(format!("{}:{line}: the state has no table {name}", page.file));
                }
            }
        }
    }
    hold(&offences);
}

#[test]
fn docs_a_wrong_block_is_seen() {
    assert_eq!(reads("memory: 32MiB\n"), Ok(()));
    assert_eq!(reads("start: { after_key: 4711 }\n"), Ok(()));
    let section =
        "- name: a\n  kind: user_activity\n  table: t\n  key: id\n  fields: { email: e, action: a, date: d }\n";
    assert_eq!(reads(section), Ok(()));
    assert!(reads("start: { behind_key: 4711 }\n").is_err());
    assert!(reads("source: { hots: db }\n").unwrap_err().contains("hots"));
}
