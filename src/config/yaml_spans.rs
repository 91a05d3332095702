//! Where each value of a YAML text stands, byte by byte: what an edit needs that leaves the rest as it is.
//!
//! * In: text that [`yaml`](crate::config::yaml) reads.
//! * Out: a tree of spans.
//! * Never: a meaning: that is the decoder's.

use saphyr_parser::{Event, Parser, ScalarStyle};

/// A value, and the bytes that it takes.
#[derive(Clone, Debug)]
pub(crate) struct SpannedNode {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) value: SpannedValue,
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

    /// Whether it is an alias: what it says stands elsewhere.
    pub(crate) fn is_alias(&self, text: &str) -> bool {
        self.end > self.start && text[self.start..].starts_with('*') && matches!(self.value, SpannedValue::Scalar(_))
    }

    /// Whether a place is in one of its keys or single values.
    pub(crate) fn holds(&self, at: usize) -> bool {
        match &self.value {
            SpannedValue::Scalar(_) => (self.start..self.end).contains(&at),
            SpannedValue::List(items) => items.iter().any(|item| item.holds(at)),
            SpannedValue::Map(entries) => {
                entries.iter().any(|entry| (entry.start..entry.behind_colon).contains(&at) || entry.value.holds(at))
            }
        }
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
        let (start, end) = (unanchored(text, byte(span.start.index())), byte(span.end.index()));
        let node = match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                continue;
            }
            Event::Alias(_) => SpannedNode { start, end, value: SpannedValue::Scalar(String::new()) },
            Event::Scalar(content, style, ..) => {
                // The parser's span of a quoted text reaches to what follows, over a comment.
                let quoted = match style {
                    ScalarStyle::DoubleQuoted => quoted_end(text, start, '"', '\\'),
                    ScalarStyle::SingleQuoted => quoted_end(text, start, '\'', '\''),
                    ScalarStyle::Plain | ScalarStyle::Literal | ScalarStyle::Folded => None,
                };
                let end = quoted.unwrap_or(start + text[start..end.max(start)].trim_end().len());
                SpannedNode { start, end, value: SpannedValue::Scalar(content.into_owned()) }
            }
            Event::SequenceStart(..) => {
                open.push(OpenSpan { start, list: Vec::new(), map: None });
                continue;
            }
            Event::MappingStart(..) => {
                open.push(OpenSpan { start, list: Vec::new(), map: Some((Vec::new(), None)) });
                continue;
            }
            // Of a bracket the parser's span reaches to what follows, too.
            Event::SequenceEnd | Event::MappingEnd => closed(open.pop()?, byte(span.start.index()) + 1, text),
        };
        put(&mut open, &mut root, node, text)?;
    }
    root
}

/// Behind the anchor that a value begins with.
fn unanchored(text: &str, start: usize) -> usize {
    let rest = &text[start..];
    let Some(behind) = rest.strip_prefix('&').and_then(|name| name.find(char::is_whitespace)) else { return start };
    text.len() - rest[1 + behind..].trim_start().len()
}

/// Behind the closing quote; `escape` stands before a quote that closes nothing.
fn quoted_end(text: &str, start: usize, quote: char, escape: char) -> Option<usize> {
    let mut rest = text[start..].char_indices().skip(1).peekable();
    while let Some((at, c)) = rest.next() {
        let escapes = c == escape && (escape != quote || rest.peek().is_some_and(|(_, next)| *next == quote));
        if escapes {
            rest.next();
        } else if c == quote {
            return Some(start + at + quote.len_utf8());
        }
    }
    None
}

fn closed(span: OpenSpan, end: usize, text: &str) -> SpannedNode {
    let OpenSpan { start, list, map } = span;
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
    SpannedNode { start, end, value }
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
