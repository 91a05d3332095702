//! What a YAML text says, without where: two texts that are written otherwise may say the same. Pure.

use crate::config::yaml::{Node, NodeValue, parse};

/// What a text says, without where.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum YamlSays {
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

/// What a text says; none where it is no YAML, or nothing.
pub(crate) fn says(text: &str) -> Option<YamlSays> {
    parse(text).ok().flatten().as_ref().map(said)
}

/// Makes a key say something else, or go; a mapping that is empty then goes with it.
pub(crate) fn set(said: &mut YamlSays, path: &[String], value: Option<YamlSays>) {
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
