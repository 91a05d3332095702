//! The reference of every key, as Markdown. Made from the decoder's own tables, so the two cannot drift.
//!
//! * In: the tables of [`crate::config::keys`].
//! * Out: the text of `docs/configuration-keys.md`.
//! * Never: a key, a word or a default that the decoder does not have.

use crate::config::keys::{
    ACTIVITY, CONDITION, FLUSH, FORM, KeySpec, METRIC, PlanhatField, ROOT, SECRET, SECTION, START, Shape, Takes,
};

const HEAD: &str = "\
# Every key

<!-- Made from src/config/keys.rs by `pg2planhat schema --markdown`: do not edit. -->

What each key is for, its form and its default. [Configuration](../docs/configuration.md) explains how they work together;
[`deploy/pg2planhat.example.yaml`](../deploy/pg2planhat.example.yaml) shows all of them in one file.

* *Duration*: a whole number and its unit, `250ms`, `5s`, `10m`, `1h`, `30d`.
* *Size*: bytes, or a whole number and its unit, `64KiB`, `8MiB`, `64kB`, `8MB`.
* *Constant*: a text, a number, `true` or `false`.
* *Condition*: null, a constant, a list of conditions of which one must hold, or a mapping, [below](#conditions-of-a-column).
* *Secret*: a text, or a mapping of one key, [below](#secrets).
";

/// The reference of every key, as Markdown.
pub(crate) fn key_reference() -> String {
    let mut text = HEAD.to_owned();
    table(&mut text, "The file", ROOT);
    objects(&mut text, "", ROOT);
    table(&mut text, "sections", SECTION);
    objects(&mut text, "sections.", SECTION);
    table(&mut text, "sections.start", START);
    table(&mut text, "sections.flush", FLUSH);
    fields(&mut text, "Fields of a user activity", ACTIVITY);
    fields(&mut text, "Fields of a custom metric", METRIC);
    table(&mut text, "Forms of a field", FORM);
    table(&mut text, "Conditions of a column", CONDITION);
    table(&mut text, "Secrets", SECRET);
    text
}

/// A table for each mapping among the keys, and for those within it.
fn objects(text: &mut String, path: &str, keys: &[KeySpec]) {
    for key in keys {
        if let Shape::Object(inner) | Shape::List(inner) = key.shape {
            let path = format!("{path}{}", key.name);
            table(text, &path, inner);
            objects(text, &format!("{path}."), inner);
        }
    }
}

fn table(text: &mut String, title: &str, keys: &[KeySpec]) {
    heading(text, title, "| key | form | default | |\n|---|---|---|---|\n");
    for key in keys {
        let default = match (key.default, key.required) {
            (Some(default), _) => format!("`{default}`"),
            (None, true) => "mandatory".to_owned(),
            (None, false) => String::new(),
        };
        let form = form(key, if title == "The file" { "" } else { title });
        row(text, &[&format!("`{}`", key.name), &form, &default, key.about]);
    }
}

fn fields(text: &mut String, title: &str, known: &[PlanhatField]) {
    heading(text, title, "| field | takes | |\n|---|---|---|\n");
    for field in known {
        let takes = match field.takes {
            Takes::Text => "text",
            Takes::Dimension => "text without spaces and special characters",
            Takes::Number => "a finite number",
            Takes::Date => "a time",
            Takes::Object => "an object",
        };
        row(text, &[&format!("`{}`", field.name), takes, field.about]);
    }
}

fn heading(text: &mut String, title: &str, head: &str) {
    let title = if title.chars().all(|c| c.is_ascii_lowercase() || c == '.') { &format!("`{title}`") } else { title };
    text.push_str("\n## ");
    text.push_str(title);
    text.push_str("\n\n");
    text.push_str(head);
}

fn row(text: &mut String, cells: &[&str]) {
    for cell in cells {
        text.push_str("| ");
        text.push_str(&cell.replace('|', "\\|"));
        text.push(' ');
    }
    text.push_str("|\n");
}

/// The form of a key's value in words; `within` is the path of the mapping that the key is in.
fn form(key: &KeySpec, within: &str) -> String {
    let path = if within.is_empty() { key.name.to_owned() } else { format!("{within}.{}", key.name) };
    // A heading's anchor has no dots.
    let link = |word: &str| format!("[{word}](#{})", path.replace('.', ""));
    let words = |words: &[&str]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" · ");
    match key.shape {
        Shape::Text => "text".to_owned(),
        Shape::Identifier => "name, at most 63 bytes, as the catalog has it".to_owned(),
        Shape::Identifiers => "a column's name, or a list of them: `[created_at, id]`".to_owned(),
        Shape::SlotName => "1 to 63 of `a-z`, `0-9`, `_`".to_owned(),
        Shape::SectionName => "1 to 63 of `a-z`, `A-Z`, `0-9`, `_`, `-`".to_owned(),
        Shape::TableName => "`name` or `schema.name`".to_owned(),
        Shape::Path => "path".to_owned(),
        Shape::Url => "http or https URL".to_owned(),
        Shape::Listen => "`address:port`".to_owned(),
        Shape::Hosts => "list of host names".to_owned(),
        Shape::Texts => "list of texts".to_owned(),
        Shape::Secret => "[secret](#secrets)".to_owned(),
        Shape::Bool => words(&["true", "false"]),
        Shape::Port => "1 to 65535".to_owned(),
        Shape::Count => "whole number from 1".to_owned(),
        Shape::InFlight => "whole number from 1 to 8".to_owned(),
        Shape::Duration => "duration".to_owned(),
        Shape::Size => "size".to_owned(),
        Shape::Zone => "time zone, `Europe/Stockholm`".to_owned(),
        Shape::TimeOfDay => "time of day, `\"02:00\"`".to_owned(),
        Shape::Constant => "constant".to_owned(),
        Shape::OneOf(all) => words(all),
        Shape::Object(_) => link("mapping"),
        Shape::List(_) => format!("list of {}", link("mappings")),
        Shape::Sections => format!("list of {}", link("mappings")),
        Shape::Start => format!("{} · {}", words(&["backfill", "now"]), link("mapping")),
        Shape::Flush => "duration · [mapping](#sectionsflush)".to_owned(),
        Shape::Every => "`off` · duration · [mapping](#sectionsflush)".to_owned(),
        Shape::Where => "mapping of columns to [conditions](#conditions-of-a-column)".to_owned(),
        Shape::Condition => "[condition](#conditions-of-a-column)".to_owned(),
        Shape::Fields => "mapping of [activity](#fields-of-a-user-activity) or [metric](#fields-of-a-custom-metric) \
                          fields to columns or [forms](#forms-of-a-field)"
            .to_owned(),
    }
}
