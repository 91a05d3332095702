//! Changes to a configuration's text that leave everything else as it is: comments, order, quotes, line ends. Pure.
//!
//! * In: the text, a section's name, keys and what they become.
//! * Out: the new text; or what a change would lose.
//! * Never: a byte changed outside the keys that are named; a comment, an anchor or an unknown key lost; a text that
//!   says anything else than was asked for.

use crate::config::yaml_says::{YamlSays, says, set};
use crate::config::yaml_spans::{SpannedEntry, SpannedNode, SpannedValue, spans};

/// A key of a section, and what it becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyEdit {
    /// `["flush"]`, `["fields", "action"]`.
    pub path: Vec<String>,
    /// What the file says of it now.
    pub from: EditValue,
    pub value: EditValue,
}

/// What a key becomes. Each text is YAML in one line. With neither `short` nor a member the key goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EditValue {
    /// A single value. It yields to `members` where the file has a mapping already.
    pub short: Option<String>,
    /// All members of the mapping form that the form knows; those without a text go, others stay.
    pub members: Vec<(&'static str, Option<String>)>,
    /// What says the same as no key at all.
    pub otherwise: Option<&'static str>,
}

impl EditValue {
    /// A single value, or none.
    pub(crate) fn single(short: Option<String>) -> EditValue {
        EditValue { short, ..EditValue::default() }
    }

    fn has_members(&self) -> bool {
        self.members.iter().any(|(_, value)| value.is_some())
    }

    /// As a text of its own; none: it is not written.
    pub(crate) fn written(&self) -> Option<String> {
        self.short.clone().or_else(|| self.has_members().then(|| self.mapping()))
    }

    fn mapping(&self) -> String {
        let inner = self.members.iter().filter_map(|(key, value)| Some(format!("{key}: {}", value.as_ref()?)));
        format!("{{ {} }}", inner.collect::<Vec<_>>().join(", "))
    }
}

/// Why a text is not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SpliceError {
    /// There is no section of this name.
    Absent,
    /// The change of this key would lose, or change elsewhere, what is named.
    Loses { key: String, what: String },
    /// It is written in a way that is not understood well enough to change it.
    Odd,
}

/// One key that becomes one value, or goes.
#[derive(Clone, Debug)]
struct Step {
    path: Vec<String>,
    value: Option<String>,
    /// What the key may say instead of going.
    otherwise: Option<&'static str>,
}

type Spliced<T> = Result<T, SpliceError>;

/// Changes keys of a section.
///
/// # Errors
/// See [`SpliceError`]; nothing is changed then.
pub(crate) fn edit_section(text: &str, section: &str, edits: &[KeyEdit]) -> Spliced<String> {
    let mut spliced = text.to_owned();
    for edit in edits {
        for step in steps(&spliced, section, edit)? {
            spliced = stepped(&spliced, section, step)?;
        }
    }
    Ok(spliced)
}

/// Takes one step, and holds the result against what it was to say.
fn stepped(text: &str, section: &str, mut step: Step) -> Spliced<String> {
    let mut spliced = taken(text, section, &step);
    if let (Err(SpliceError::Loses { .. }), None, Some(same)) = (&spliced, &step.value, step.otherwise) {
        step.value = Some(same.to_owned());
        spliced = taken(text, section, &step);
    }
    let spliced = spliced?;
    if says(&spliced).is_some() && says(&spliced) == expected(text, section, &step) {
        return Ok(spliced);
    }
    let root = spans(text).ok_or(SpliceError::Odd)?;
    Err(match item(&root, section).and_then(|item| sharing(text, item)) {
        Some(mark) => loses(&step.path, format!("what `{mark}` shares with another place")),
        None => SpliceError::Odd,
    })
}

fn loses(path: &[String], what: impl Into<String>) -> SpliceError {
    SpliceError::Loses { key: path.join("."), what: what.into() }
}

/// What an edit is, key by key, in the file as it is written.
fn steps(text: &str, section: &str, edit: &KeyEdit) -> Spliced<Vec<Step>> {
    let root = spans(text).ok_or(SpliceError::Odd)?;
    let item = item(&root, section).ok_or(SpliceError::Absent)?;
    let KeyEdit { path, from, value } = edit;
    let step = |path: Vec<String>, new: Option<String>| Step { path, value: new, otherwise: value.otherwise };
    let written = entry_at(item, path).map(|entry| entry.value.entries()).unwrap_or_default();
    if written.is_empty() {
        return Ok(vec![step(path.clone(), value.written())]);
    }
    if value.has_members() {
        let before =
            |key: &str| from.members.iter().find(|(known, _)| *known == key).and_then(|(_, value)| value.clone());
        let changed = value.members.iter().filter(|(key, value)| before(key) != *value);
        let within = |key: &str| path.iter().cloned().chain([key.to_owned()]).collect();
        let mut steps: Vec<Step> = changed.map(|(key, value)| step(within(key), value.clone())).collect();
        // What comes, comes first: a mapping that is empty in between would go.
        steps.sort_by_key(|step| step.value.is_none());
        return Ok(steps);
    }
    let unknown = written.iter().find(|entry| value.members.iter().all(|(known, _)| *known != entry.key));
    if let (Some(unknown), false) = (unknown, value.members.is_empty()) {
        return Err(loses(path, format!("the key `{}`", unknown.key)));
    }
    Ok(vec![step(path.clone(), value.short.clone())])
}

fn entry_at<'a>(item: &'a SpannedNode, path: &[String]) -> Option<&'a SpannedEntry> {
    let (last, outer) = path.split_last()?;
    let map = outer.iter().try_fold(item, |node, key| Some(&node.entry(key)?.value))?;
    map.entry(last)
}

/// Adds a section behind the last one.
///
/// # Errors
/// See [`SpliceError`].
pub(crate) fn add_section(text: &str, lines: &[String]) -> Spliced<String> {
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

/// The lines of a section, its dash and its last comment included.
pub(crate) fn section_text(text: &str, section: &str) -> Option<String> {
    let root = spans(text)?;
    let item = item(&root, section)?;
    let begin = text[..item.start].rfind('\n').map_or(0, |at| at + 1);
    Some(text[begin..end_of_line(text, item.end)].to_owned())
}

/// The line on which a section begins, from 1.
pub(crate) fn section_line(text: &str, section: &str) -> Option<usize> {
    let start = item(&spans(text)?, section)?.start;
    Some(text.get(..start)?.matches('\n').count() + 1)
}

fn item<'a>(root: &'a SpannedNode, section: &str) -> Option<&'a SpannedNode> {
    let named = |item: &&SpannedNode| item.entry("name").and_then(|name| name.value.scalar()) == Some(section);
    root.entry("sections")?.value.items().iter().find(named)
}

fn taken(text: &str, section: &str, step: &Step) -> Spliced<String> {
    let root = spans(text).ok_or(SpliceError::Odd)?;
    let item = item(&root, section).ok_or(SpliceError::Absent)?;
    let (mut node, mut path, mut outer) = (item, step.path.as_slice(), None);
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
    let value = step
        .value
        .as_ref()
        .map(|value| rest.iter().rev().fold(value.clone(), |value, key| format!("{{ {}: {value} }}", scalar(key))));
    let change = match (node.entry(key), value) {
        (Some(entry), Some(value)) => {
            let old = &entry.value;
            let place = &step.path[..step.path.len() - rest.len()];
            let is_single = matches!(said_at(text, section, place), Some(YamlSays::Scalar(..)));
            if old.is_alias(text) && !is_single {
                return Err(loses(&step.path, format!("what stands in `{}`", &text[old.start..old.end])));
            }
            replacement(text, &root, entry, &value).map_err(|what| loses(&step.path, what))?
        }
        (Some(_), None) if !rest.is_empty() => return Ok(text.to_owned()),
        (Some(entry), None) => {
            // An empty mapping is none.
            let (map, entry) = match outer {
                Some((map, whole)) if node.entries().len() == 1 => (map, whole),
                _ => (node, entry),
            };
            removal(text, &root, map, entry, step.otherwise.is_some()).map_err(|what| loses(&step.path, what))?
        }
        (None, Some(value)) => insertion(text, node, &scalar(key), &value),
        (None, None) => return Ok(text.to_owned()),
    };
    let (start, end, new) = change;
    Ok(format!("{}{new}{}", &text[..start], &text[end..]))
}

/// From, to, and what stands there then.
type Change = (usize, usize, String);

/// A value in the place of another: what stands between the colon and the old one stays. Or what would be lost.
fn replacement(text: &str, root: &SpannedNode, entry: &SpannedEntry, value: &str) -> Result<Change, String> {
    let old = &entry.value;
    if old.end <= old.start || old.start < entry.behind_colon {
        return Ok((entry.behind_colon, entry.end(), format!(" {value}")));
    }
    if let Some(comment) = comments(text, root, old.start, old.end).first() {
        return Err(format!("the comment `{comment}`"));
    }
    let gap = &text[entry.behind_colon..old.start];
    // A mapping begins on a line of its own, a single value behind its key.
    if gap.contains('\n') && gap.trim().is_empty() {
        return Ok((entry.behind_colon, old.end, format!(" {value}")));
    }
    Ok((old.start, old.end, value.to_owned()))
}

/// What goes with an entry: its lines, whose comments stay; or, in brackets or behind a dash, itself and what separates
/// it. Or what would be lost: a comment, where it cannot stay; or any comment, where the entry need not go (`stays`).
fn removal(
    text: &str,
    root: &SpannedNode,
    map: &SpannedNode,
    entry: &SpannedEntry,
    stays: bool,
) -> Result<Change, String> {
    let entries = map.entries();
    let at = entries.iter().position(|other| other.start == entry.start).unwrap_or_default();
    let next = entries.get(at + 1);
    let line = text[..entry.start].rfind('\n').map_or(0, |at| at + 1);
    let own_line = !map.is_flow(text) && text[line..entry.start].trim().is_empty();
    let (start, end) = match (map.is_flow(text), next) {
        _ if own_line => {
            let end = end_of_line(text, entry.end());
            (line, text[end..].find('\n').map_or(text.len(), |more| end + more + 1))
        }
        (_, Some(next)) => (entry.start, next.start),
        (true, None) if at > 0 => (entries[at - 1].end(), entry.end()),
        (_, None) => (entry.start, entry.end()),
    };
    let comments = comments(text, root, start, end);
    if let (Some(comment), true) = (comments.first(), stays || !own_line) {
        return Err(format!("the comment `{comment}`"));
    }
    let kept: String =
        comments.iter().map(|comment| format!("{}{comment}{}", &text[line..entry.start], line_end(text))).collect();
    Ok((start, end, kept))
}

/// The comments between two places.
fn comments<'a>(text: &'a str, root: &SpannedNode, start: usize, end: usize) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut at = start;
    while let Some(next) = text[at..end].find('#').map(|next| at + next) {
        let begins = text[..next].chars().next_back().is_none_or(char::is_whitespace);
        at = next + 1;
        if begins && !root.holds(next) {
            let line = next + text[next..].find('\n').unwrap_or(text.len() - next);
            found.push(text[next..line].trim_end());
            at = line.min(end);
        }
    }
    found
}

/// An anchor or an alias in a node, as it is written.
fn sharing<'a>(text: &'a str, node: &SpannedNode) -> Option<&'a str> {
    let before = text[..node.start].trim_end();
    let word = &before[before.rfind(char::is_whitespace).map_or(0, |at| at + 1)..];
    if node.is_alias(text) {
        return Some(&text[node.start..node.end]);
    }
    if word.starts_with('&') {
        return Some(word);
    }
    match &node.value {
        SpannedValue::Scalar(_) => None,
        SpannedValue::List(items) => items.iter().find_map(|item| sharing(text, item)),
        SpannedValue::Map(entries) => entries.iter().find_map(|entry| sharing(text, &entry.value)),
    }
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

fn is_named(item: &YamlSays, section: &str) -> bool {
    let YamlSays::Map(entries) = item else { return false };
    entries.iter().any(|(key, value)| key == "name" && matches!(value, YamlSays::Scalar(name, _) if name == section))
}

/// What the text says of a key.
fn said_at(text: &str, section: &str, path: &[String]) -> Option<YamlSays> {
    let YamlSays::Map(root) = says(text)? else { return None };
    let (_, YamlSays::List(items)) = root.into_iter().find(|(key, _)| key == "sections")? else { return None };
    let item = items.into_iter().find(|item| is_named(item, section))?;
    path.iter().try_fold(item, |said, key| {
        let YamlSays::Map(entries) = said else { return None };
        entries.into_iter().find(|(known, _)| known == key).map(|(_, said)| said)
    })
}

/// What the text must say after a step.
fn expected(text: &str, section: &str, step: &Step) -> Option<YamlSays> {
    let YamlSays::Map(mut root) = says(text)? else { return None };
    let (_, YamlSays::List(items)) = root.iter_mut().find(|(key, _)| key == "sections")? else { return None };
    let item = items.iter_mut().find(|item| is_named(item, section))?;
    let value = match &step.value {
        Some(value) => match says(&format!("x: {value}")) {
            Some(YamlSays::Map(mut entries)) if entries.len() == 1 => Some(entries.remove(0).1),
            _ => return None,
        },
        None => None,
    };
    set(item, &step.path, value);
    Some(YamlSays::Map(root))
}

#[cfg(test)]
#[path = "splice_tests.rs"]
mod tests;
