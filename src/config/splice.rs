//! Changes to a configuration's text that leave everything else as it is: comments, order, quotes, line ends. Pure.
//!
//! * In: the text, a section's name, keys and what they become.
//! * Out: the new text; or why the section must be written anew, or by hand.
//! * Never: a byte changed outside the keys that are named; a text that says anything else than was asked for.

use crate::config::yaml::{Node, NodeValue, parse};
use crate::config::yaml_spans::{SpannedEntry, SpannedNode, spans};

/// A key of a section, and what it becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyEdit {
    /// `["flush"]`, `["fields", "action"]`.
    pub path: Vec<String>,
    /// YAML in one line; none: the key goes.
    pub value: Option<String>,
}

/// Why a text is not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpliceError {
    /// Anchors, aliases or merges are in the section: it must be written anew.
    Shared,
    /// There is no section of this name.
    Absent,
    /// It is written in a way that is not understood well enough to change it.
    Odd,
}

/// Changes keys of a section.
///
/// # Errors
/// See [`SpliceError`]; nothing is changed then.
pub(crate) fn edit_section(text: &str, section: &str, edits: &[KeyEdit]) -> Result<String, SpliceError> {
    let mut spliced = text.to_owned();
    for edit in edits {
        spliced = edited(&spliced, section, edit)?;
    }
    if says(&spliced) != expected(text, section, edits) {
        return Err(SpliceError::Odd);
    }
    Ok(spliced)
}

/// Writes a section anew; `lines` are those of its mapping, without indentation.
///
/// # Errors
/// See [`SpliceError`]; also where an anchor in it is used elsewhere.
pub(crate) fn replace_section(text: &str, section: &str, lines: &[String]) -> Result<String, SpliceError> {
    let root = spans(text).ok_or(SpliceError::Odd)?;
    let item = item(&root, section).ok_or(SpliceError::Absent)?;
    if item.is_flow(text) {
        return Err(SpliceError::Odd);
    }
    let indent = " ".repeat(column(text, item.start));
    let body = lines.join(&format!("{}{indent}", line_end(text)));
    let spliced = format!("{}{body}{}", &text[..item.start], &text[item.end..]);
    let others = |text: &str| {
        let Some(YamlSays::Map(mut root)) = says(text) else { return None };
        for (key, value) in &mut root {
            if let (true, YamlSays::List(items)) = (key == "sections", value) {
                items.retain(|item| !is_named(item, section));
            }
        }
        Some(root)
    };
    if others(&spliced).is_none() || others(&spliced) != others(text) {
        return Err(SpliceError::Odd);
    }
    Ok(spliced)
}

/// Adds a section behind the last one.
///
/// # Errors
/// See [`SpliceError`].
pub(crate) fn add_section(text: &str, lines: &[String]) -> Result<String, SpliceError> {
    let root = spans(text).ok_or(SpliceError::Odd)?;
    let sections = root.entry("sections").ok_or(SpliceError::Absent)?;
    let last = sections.value.items().last().ok_or(SpliceError::Odd)?;
    if sections.value.is_flow(text) {
        return Err(SpliceError::Odd);
    }
    let dash = text[..last.start].rfind('-').ok_or(SpliceError::Odd)?;
    let indent = " ".repeat(column(text, dash));
    let mut added = String::new();
    for (at, line) in lines.iter().enumerate() {
        let lead = if at == 0 { "- " } else { "  " };
        added.push_str(&format!("{}{indent}{lead}{line}", line_end(text)));
    }
    let at = end_of_line(text, last.end);
    let spliced = format!("{}{added}{}", &text[..at], &text[at..]);
    let count = |text: &str| spans(text).and_then(|root| Some(root.entry("sections")?.value.items().len()));
    if count(&spliced) != Some(sections.value.items().len() + 1) {
        return Err(SpliceError::Odd);
    }
    Ok(spliced)
}

fn item<'a>(root: &'a SpannedNode, section: &str) -> Option<&'a SpannedNode> {
    let named = |item: &&SpannedNode| item.entry("name").and_then(|name| name.value.scalar()) == Some(section);
    root.entry("sections")?.value.items().iter().find(named)
}

fn edited(text: &str, section: &str, edit: &KeyEdit) -> Result<String, SpliceError> {
    let root = spans(text).ok_or(SpliceError::Odd)?;
    let item = item(&root, section).ok_or(SpliceError::Absent)?;
    if item.shared {
        return Err(SpliceError::Shared);
    }
    let (mut node, mut path, mut outer) = (item, edit.path.as_slice(), None);
    while let [first, rest @ ..] = path {
        match (node.entry(first), rest.is_empty()) {
            (Some(entry), false) if !entry.value.entries().is_empty() => {
                (node, path, outer) = (&entry.value, rest, Some((node, entry)));
            }
            _ => break,
        }
    }
    let [key, rest @ ..] = path else { return Err(SpliceError::Odd) };
    // What lies between is made with it: `info: { plan: plan }`.
    let value = edit
        .value
        .as_ref()
        .map(|value| rest.iter().rev().fold(value.clone(), |value, key| format!("{{ {}: {value} }}", scalar(key))));
    let change = match (node.entry(key), value) {
        (Some(entry), Some(value)) => (entry.behind_colon, entry.end(), format!(" {value}")),
        (Some(_), None) if !rest.is_empty() => return Ok(text.to_owned()),
        // An empty mapping is none.
        (Some(entry), None) => match outer {
            Some((map, whole)) if node.entries().len() == 1 => removal(text, map, whole),
            _ => removal(text, node, entry),
        },
        (None, Some(value)) => insertion(text, node, &scalar(key), &value),
        (None, None) => return Ok(text.to_owned()),
    };
    let (start, end, new) = change;
    Ok(format!("{}{new}{}", &text[..start], &text[end..]))
}

/// What goes with an entry: its lines; or, in brackets or behind a dash, itself and what separates it.
fn removal(text: &str, map: &SpannedNode, entry: &SpannedEntry) -> (usize, usize, String) {
    let entries = map.entries();
    let at = entries.iter().position(|other| other.start == entry.start).unwrap_or_default();
    let next = entries.get(at + 1);
    let line = text[..entry.start].rfind('\n').map_or(0, |at| at + 1);
    if map.is_flow(text) {
        return match (next, at) {
            (Some(next), _) => (entry.start, next.start, String::new()),
            (None, 0) => (entry.start, entry.end(), String::new()),
            (None, _) => (entries[at - 1].end(), entry.end(), String::new()),
        };
    }
    if text[line..entry.start].trim().is_empty() {
        let end = end_of_line(text, entry.end());
        let end = text[end..].find('\n').map_or(text.len(), |more| end + more + 1);
        return (line, end, String::new());
    }
    (entry.start, next.map_or(entry.end(), |next| next.start), String::new())
}

fn insertion(text: &str, map: &SpannedNode, key: &str, value: &str) -> (usize, usize, String) {
    if map.is_flow(text) {
        return match map.entries().last() {
            Some(last) => (last.end(), last.end(), format!(", {key}: {value}")),
            None => (map.start, map.end, format!("{{ {key}: {value} }}")),
        };
    }
    let indent = " ".repeat(map.entries().first().map_or(0, |first| column(text, first.start)));
    let at = end_of_line(text, map.end);
    (at, at, format!("{}{indent}{key}: {value}", line_end(text)))
}

fn line_end(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

fn column(text: &str, at: usize) -> usize {
    text[..at].rsplit('\n').next().unwrap_or_default().chars().count()
}

/// The end of the line that a place is in, its comment included and its break not.
fn end_of_line(text: &str, at: usize) -> usize {
    let end = text[at..].find('\n').map_or(text.len(), |more| at + more);
    if text[..end].ends_with('\r') { end - 1 } else { end }
}

/// A text as a scalar of YAML: plain where it means the same.
pub(crate) fn scalar(text: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-' | ' ');
    let reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(word)
        && !text.ends_with(' ')
        && !reserved.contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// What a text says, without where.
#[derive(Clone, Debug, PartialEq)]
enum YamlSays {
    Scalar(String, bool),
    List(Vec<YamlSays>),
    Map(Vec<(String, YamlSays)>),
}

fn said(node: &Node) -> YamlSays {
    match &node.value {
        NodeValue::Scalar(text, plain) => YamlSays::Scalar(text.clone(), *plain),
        NodeValue::List(items) => YamlSays::List(items.iter().map(said).collect()),
        NodeValue::Map(entries) => {
            YamlSays::Map(entries.iter().map(|(key, node)| (key.text.clone(), said(node))).collect())
        }
    }
}

fn says(text: &str) -> Option<YamlSays> {
    parse(text).ok().flatten().as_ref().map(said)
}

fn is_named(item: &YamlSays, section: &str) -> bool {
    let YamlSays::Map(entries) = item else { return false };
    entries.iter().any(|(key, value)| key == "name" && matches!(value, YamlSays::Scalar(name, _) if name == section))
}

/// What the text must say afterwards.
fn expected(text: &str, section: &str, edits: &[KeyEdit]) -> Option<YamlSays> {
    let YamlSays::Map(mut root) = says(text)? else { return None };
    let (_, YamlSays::List(items)) = root.iter_mut().find(|(key, _)| key == "sections")? else { return None };
    let item = items.iter_mut().find(|item| is_named(item, section))?;
    for edit in edits {
        let value = match &edit.value {
            Some(value) => match says(&format!("x: {value}")) {
                Some(YamlSays::Map(mut entries)) if entries.len() == 1 => Some(entries.remove(0).1),
                _ => return None,
            },
            None => None,
        };
        set(item, &edit.path, value);
    }
    Some(YamlSays::Map(root))
}

fn set(said: &mut YamlSays, path: &[String], value: Option<YamlSays>) {
    let (YamlSays::Map(entries), [key, rest @ ..]) = (said, path) else { return };
    let at = entries.iter().position(|(known, _)| known == key);
    match (at, rest.is_empty(), value) {
        (Some(at), true, Some(value)) => entries[at].1 = value,
        (Some(at), true, None) => drop(entries.remove(at)),
        (Some(at), false, value) => {
            if !matches!(&entries[at].1, YamlSays::Map(inner) if !inner.is_empty()) {
                if value.is_none() {
                    return;
                }
                entries[at].1 = YamlSays::Map(Vec::new());
            }
            set(&mut entries[at].1, rest, value);
            if matches!(&entries[at].1, YamlSays::Map(inner) if inner.is_empty()) {
                entries.remove(at);
            }
        }
        (None, true, Some(value)) => entries.push((key.clone(), value)),
        (None, false, Some(value)) => {
            let mut inner = YamlSays::Map(Vec::new());
            set(&mut inner, rest, Some(value));
            entries.push((key.clone(), inner));
        }
        (None, _, None) => {}
    }
}

#[cfg(test)]
#[path = "splice_tests.rs"]
mod tests;
