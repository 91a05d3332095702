//! YAML text → a tree of nodes, each with its line and column, and each scalar as it was written.
//!
//! * In: text.
//! * Out: the one document's [`Node`], or what is wrong with the YAML itself.
//! * Never: a guess at a scalar's type (`off`, `007` and `1.50` keep their characters); unbounded depth or aliases.
//!
//! The parser's events are used, not its ready-made tree: that one stops at the first duplicate key, and has turned
//! numbers into machine numbers.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::config::config_error::{Complaint, Mark};

/// A value and where it begins.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: Mark,
    pub(crate) value: NodeValue,
}

#[derive(Clone, Debug)]
pub(crate) enum NodeValue {
    /// Text as written, and whether it was written plain (without quotes).
    Scalar(String, bool),
    List(Vec<Node>),
    /// In the order written; duplicates are still there.
    Map(Vec<(KeyName, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct KeyName {
    pub(crate) at: Mark,
    pub(crate) text: String,
}

impl Node {
    /// A plain scalar: how a default enters the tree.
    pub(crate) fn plain(at: Mark, text: &str) -> Node {
        Node { at, value: NodeValue::Scalar(text.to_owned(), true) }
    }

    /// Whether this is YAML's null: nothing, `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, NodeValue::Scalar(text, true) if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What it is, for a message.
    pub(crate) fn describe(&self) -> &'static str {
        match self.value {
            NodeValue::Scalar(..) => "a single value",
            NodeValue::List(_) => "a list",
            NodeValue::Map(_) => "a mapping",
        }
    }
}

/// How deep collections may nest. The deepest legal configuration has 6.
const DEPTH: usize = 32;
/// How many nodes aliases may bring in, all together.
const ALIASED: usize = 10_000;
/// How many bytes of text aliases may bring in, all together.
const ALIASED_BYTES: usize = 1 << 20;

type Located<T> = Result<T, (Mark, Complaint)>;

/// Reads the one document of `text`; `None` where there is nothing but white space and comments.
pub(crate) fn parse(text: &str) -> Located<Option<Node>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(at) = control_character(text) {
        return Err((
            at,
            Complaint::new("a control character, which YAML does not allow", "remove it, or write it as \"\\u0000\""),
        ));
    }
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let at = mark(*error.marker());
            (at, Complaint::new(format!("this is not YAML: {}", error.info()), "mend the line, or the one above it"))
        })?;
        builder.take(event, span)?;
    }
    Ok(builder.document.filter(|node| !node.is_null()))
}

fn mark(marker: saphyr_parser::Marker) -> Mark {
    Mark { line: marker.line(), column: marker.col() + 1 }
}

/// The first character that YAML forbids. The parser takes U+0000 for the end and would drop the rest unseen.
fn control_character(text: &str) -> Option<Mark> {
    let bad = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    let (offset, _) = text.char_indices().find(|(_, c)| bad(*c))?;
    Some(place_of(&text[..offset]))
}

/// The place right behind `before`.
pub(crate) fn place_of(before: &str) -> Mark {
    let line = before.rsplit('\n').next().unwrap_or_default();
    Mark { line: before.matches('\n').count() + 1, column: line.chars().count() + 1 }
}

/// A collection that is not finished.
struct OpenNode {
    at: Mark,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map(Vec<(KeyName, Node)>, Option<KeyName>),
}

#[derive(Default)]
struct Builder {
    open: Vec<OpenNode>,
    anchors: BTreeMap<usize, Node>,
    aliased: usize,
    aliased_bytes: usize,
    documents: usize,
    document: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Located<()> {
        let at = mark(span.start);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                match self.documents {
                    1 => Ok(()),
                    _ => fail(at, "a second YAML document", "keep one document to a file: remove this `---`"),
                }
            }
            Event::Alias(anchor) => self.alias(at, anchor),
            Event::Scalar(text, style, anchor, tag) => {
                let tagged = is_tagged_text(at, tag.as_deref())?;
                let plain = style == ScalarStyle::Plain && !tagged;
                self.put(Node { at, value: NodeValue::Scalar(text.into_owned(), plain) }, anchor)
            }
            Event::SequenceStart(anchor, tag) => self.begin(at, anchor, tag.as_deref(), Content::List(Vec::new())),
            Event::MappingStart(anchor, tag) => self.begin(at, anchor, tag.as_deref(), Content::Map(Vec::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(OpenNode { at, anchor, content }) = self.open.pop() else { return Ok(()) };
                let value = match content {
                    Content::List(items) => NodeValue::List(items),
                    Content::Map(entries, _) => NodeValue::Map(entries),
                };
                self.put(Node { at, value }, anchor)
            }
        }
    }

    fn begin(&mut self, at: Mark, anchor: usize, tag: Option<&Tag>, content: Content) -> Located<()> {
        if tag.is_some() {
            return fail(at, "a YAML tag, which has no meaning here", "remove the tag");
        }
        if self.open.len() >= DEPTH {
            return fail(
                at,
                "collections nested too deep",
                "no key of the configuration is so deep: check the brackets",
            );
        }
        self.open.push(OpenNode { at, anchor, content });
        Ok(())
    }

    fn alias(&mut self, at: Mark, anchor: usize) -> Located<()> {
        let Some(node) = self.anchors.get(&anchor) else {
            return fail(at, "an alias within the very value that it names", "write the value out");
        };
        self.aliased += size(node);
        self.aliased_bytes += bytes(node);
        if self.aliased > ALIASED || self.aliased_bytes > ALIASED_BYTES || depth(node) + self.open.len() > DEPTH {
            return fail(at, "aliases that bring in too much", "write the values out");
        }
        let node = node.clone();
        self.put(node, 0)
    }

    /// Puts a finished node where it belongs: into the open collection, or as the document.
    fn put(&mut self, node: Node, anchor: usize) -> Located<()> {
        if anchor > 0 {
            // Nested anchors are kept once for each level.
            self.aliased += size(&node);
            self.aliased_bytes += bytes(&node);
            if self.aliased > ALIASED || self.aliased_bytes > ALIASED_BYTES {
                return fail(node.at, "anchors that hold too much", "write the values out");
            }
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.document = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map(entries, pending)) => match pending.take() {
                Some(name) => entries.push((name, node)),
                None => match node.value {
                    NodeValue::Scalar(text, _) => *pending = Some(KeyName { at: node.at, text }),
                    NodeValue::List(_) | NodeValue::Map(_) => {
                        return fail(node.at, "a key that is a collection", "a key is a single word");
                    }
                },
            },
        }
        Ok(())
    }
}

fn fail<T>(at: Mark, message: &str, remedy: &str) -> Located<T> {
    Err((at, Complaint::new(message, remedy)))
}

/// Whether a scalar is tagged as text (`!!str`); other tags mean nothing here.
fn is_tagged_text(at: Mark, tag: Option<&Tag>) -> Located<bool> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(true),
        Some(_) => fail(at, "a YAML tag, which has no meaning here", "remove the tag; quote a value that is text"),
    }
}

/// Bytes of text in a node.
fn bytes(node: &Node) -> usize {
    match &node.value {
        NodeValue::Scalar(text, _) => text.len(),
        NodeValue::List(items) => items.iter().map(bytes).sum(),
        NodeValue::Map(entries) => entries.iter().map(|(name, node)| name.text.len() + bytes(node)).sum(),
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        NodeValue::Scalar(..) => 0,
        NodeValue::List(items) => items.iter().map(size).sum(),
        NodeValue::Map(entries) => entries.iter().map(|(_, node)| 1 + size(node)).sum(),
    }
}

fn depth(node: &Node) -> usize {
    match &node.value {
        NodeValue::Scalar(..) => 0,
        NodeValue::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        NodeValue::Map(entries) => 1 + entries.iter().map(|(_, node)| depth(node)).max().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> (usize, usize, String) {
        let (at, complaint) = parse(text).unwrap_err();
        (at.line, at.column, complaint.message)
    }

    #[test]
    fn scalars_keep_their_characters_and_their_quotes() {
        let node = parse("[off, 007, 1.50, 'off', !!str 5, ~]").unwrap().unwrap();
        let NodeValue::List(items) = node.value else { panic!("not a list") };
        let seen: Vec<(String, bool)> = items
            .iter()
            .map(|item| match &item.value {
                NodeValue::Scalar(text, plain) => (text.clone(), *plain),
                NodeValue::List(_) | NodeValue::Map(_) => panic!("not a scalar: {item:?}"),
            })
            .collect();
        let expected = [("off", true), ("007", true), ("1.50", true), ("off", false), ("5", false), ("~", true)];
        assert_eq!(seen, expected.map(|(text, plain)| (text.to_owned(), plain)));
        assert!(items[5].is_null() && !items[0].is_null());
    }

    #[test]
    fn nothing_is_no_document() {
        for text in ["", "  \n", "# only words\n", "---\n", "~", "\u{feff}"] {
            assert!(parse(text).unwrap().is_none(), "{text:?}");
        }
    }

    #[test]
    fn places_count_characters_from_one() {
        let node = parse("é: [ü, x]\nb:\n  - y\n").unwrap().unwrap();
        let NodeValue::Map(entries) = node.value else { panic!("not a mapping") };
        let NodeValue::List(first) = &entries[0].1.value else { panic!("not a list") };
        let NodeValue::List(second) = &entries[1].1.value else { panic!("not a list") };
        assert_eq!(first[1].at, Mark { line: 1, column: 8 });
        assert_eq!(entries[1].0.at, Mark { line: 2, column: 1 });
        assert_eq!(second[0].at, Mark { line: 3, column: 5 });
    }

    #[test]
    fn bad_yaml_has_its_place() {
        assert_eq!(error("a: [1, 2\nb: 3\n").0, 2);
        assert_eq!(error("a: 1\n\u{7}b: 2"), (2, 1, "a control character, which YAML does not allow".into()));
        assert_eq!(error("a: 1\n---\nb: 2\n"), (2, 1, "a second YAML document".into()));
        assert_eq!(error("a: !secret x").2, "a YAML tag, which has no meaning here");
        assert_eq!(error("? [a]\n: b").2, "a key that is a collection");
        assert_eq!(error("a: &x [*x]").2, "an alias within the very value that it names");
    }

    #[test]
    fn depth_and_aliases_are_bounded() {
        assert_eq!(error(&"[".repeat(100)).2, "collections nested too deep");
        assert_eq!(error(&"[".repeat(5000)).2, "this is not YAML: recursion limit exceeded");
        assert_eq!(error(&"- ".repeat(100_000)).2, "collections nested too deep");
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..9 {
            bomb += &format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", "));
        }
        assert_eq!(error(&bomb).2, "aliases that bring in too much");
    }

    #[test]
    fn an_alias_is_its_anchor() {
        let node = parse("a: &x {k: v}\nb: *x\n").unwrap().unwrap();
        let NodeValue::Map(entries) = node.value else { panic!("not a mapping") };
        assert!(matches!(&entries[1].1.value, NodeValue::Map(inner) if inner[0].0.text == "k"));
    }
}
