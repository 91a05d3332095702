//! Where each value of a YAML text stands, byte by byte: what an edit needs that leaves the rest as it is.
//!
//! * In: text that [`yaml`](crate::config::yaml) reads.
//! * Out: a tree of spans.
//! * Never: a meaning: that is the decoder's.

use saphyr_parser::{Event, Parser};

/// A value, and the bytes that it takes.
#[derive(Clone, Debug)]
pub(crate) struct SpannedNode {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) value: SpannedValue,
    /// An anchor, an alias or a merge is in it: its bytes are not its own alone.
    pub(crate) shared: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum SpannedValue {
    Scalar(String),
    List(Vec<SpannedNode>),
    Map(Vec<SpannedEntry>),
}

/// An entry of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct SpannedEntry {
    pub(crate) key: String,
    /// Where its key begins.
    pub(crate) start: usize,
    /// Behind its colon.
    pub(crate) behind_colon: usize,
    pub(crate) value: SpannedNode,
}

impl SpannedEntry {
    /// Where its value ends; behind the colon where it has none.
    pub(crate) fn end(&self) -> usize {
        self.value.end.max(self.behind_colon)
    }
}

impl SpannedNode {
    /// Whether it is written in brackets.
    pub(crate) fn is_flow(&self, text: &str) -> bool {
        text[self.start..].starts_with(['{', '['])
    }

    pub(crate) fn entries(&self) -> &[SpannedEntry] {
        match &self.value {
            SpannedValue::Map(entries) => entries,
            SpannedValue::Scalar(_) | SpannedValue::List(_) => &[],
        }
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&SpannedEntry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    pub(crate) fn items(&self) -> &[SpannedNode] {
        match &self.value {
            SpannedValue::List(items) => items,
            SpannedValue::Scalar(_) | SpannedValue::Map(_) => &[],
        }
    }

    pub(crate) fn scalar(&self) -> Option<&str> {
        match &self.value {
            SpannedValue::Scalar(text) => Some(text),
            SpannedValue::List(_) | SpannedValue::Map(_) => None,
        }
    }
}

/// A collection that is not finished.
struct OpenSpan {
    start: usize,
    shared: bool,
    list: Vec<SpannedNode>,
    /// Entries, and a key that waits for its value.
    map: Option<(Vec<SpannedEntry>, Option<WaitingKey>)>,
}

/// A key's text, and where it begins and ends.
type WaitingKey = (String, usize, usize);

/// Reads the spans of a text; none where it is no YAML, or says something in a way that is not edited.
pub(crate) fn spans(text: &str) -> Option<SpannedNode> {
    let offsets: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let byte = |index: usize| offsets.get(index).copied().unwrap_or(text.len());
    let mut open: Vec<OpenSpan> = Vec::new();
    let mut root = None;
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.ok()?;
        let (start, end) = (byte(span.start.index()), byte(span.end.index()));
        let node = match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                continue;
            }
            Event::Alias(_) => SpannedNode { start, end, value: SpannedValue::Scalar(String::new()), shared: true },
            Event::Scalar(content, _, anchor, tag) => {
                let end = start + text[start..end.max(start)].trim_end().len();
                let shared = anchor > 0 || tag.is_some();
                SpannedNode { start, end, value: SpannedValue::Scalar(content.into_owned()), shared }
            }
            Event::SequenceStart(anchor, _) => {
                open.push(OpenSpan { start, shared: anchor > 0, list: Vec::new(), map: None });
                continue;
            }
            Event::MappingStart(anchor, _) => {
                open.push(OpenSpan { start, shared: anchor > 0, list: Vec::new(), map: Some((Vec::new(), None)) });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => closed(open.pop()?, end, text),
        };
        put(&mut open, &mut root, node, text)?;
    }
    root
}

fn closed(span: OpenSpan, end: usize, text: &str) -> SpannedNode {
    let OpenSpan { start, shared, list, map } = span;
    // What is not in brackets ends with its last value; the parser notices the end only at what follows.
    let last = match &map {
        Some((entries, _)) => entries.last().map(SpannedEntry::end),
        None => list.last().map(|node| node.end),
    };
    let flow = text[start..].starts_with(['{', '[']);
    let end = if flow { end } else { last.unwrap_or(start) };
    let value = match map {
        Some((entries, _)) => SpannedValue::Map(entries),
        None => SpannedValue::List(list),
    };
    let inside = match &value {
        SpannedValue::Map(entries) => entries.iter().any(|entry| entry.value.shared || entry.key == "<<"),
        SpannedValue::List(items) => items.iter().any(|item| item.shared),
        SpannedValue::Scalar(_) => false,
    };
    SpannedNode { start, end, value, shared: shared || inside }
}

fn put(open: &mut [OpenSpan], root: &mut Option<SpannedNode>, node: SpannedNode, text: &str) -> Option<()> {
    let Some(inside) = open.last_mut() else {
        *root = Some(node);
        return Some(());
    };
    let Some((entries, waiting)) = &mut inside.map else {
        inside.list.push(node);
        return Some(());
    };
    match waiting.take() {
        None => {
            let SpannedValue::Scalar(key) = node.value else { return None };
            *waiting = Some((key, node.start, node.end));
        }
        Some((key, start, key_end)) => {
            let gap = text[key_end..].find(':')?;
            if !text[key_end..key_end + gap].trim().is_empty() {
                return None;
            }
            entries.push(SpannedEntry { key, start, behind_colon: key_end + gap + 1, value: node });
        }
    }
    Some(())
}
