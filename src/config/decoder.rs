//! A cursor over one mapping of the file, bound to its table of keys.
//!
//! * In: a node and the [`KeySpec`]s that it may have.
//! * Out: values, one key at a time; what is wrong goes to the report, and the decoder goes on to the next key.
//! * Never: the text of a secret in an error; a second error for what is wrong already.
//!
//! serde with a library's spans would save some thousand lines, and was tried: it gives the first structural error alone, no
//! "did you mean", no place within a secret, and it changes the digits of constants. A person who writes this file by hand
//! gets every error at once instead, so the cursor stays.

use std::borrow::Cow;

use crate::config::config_error::{Complaint, ErrorCollector, Mark, shown};
use crate::config::keys::{KeySpec, RETIRED, SECRET, Shape};
use crate::config::yaml::{KeyName, Node, NodeValue};
use crate::config::{Secret, scalar};
use crate::model::Fault;
use crate::model::nearest::did_you_mean;

/// What all cursors of one file share.
pub(crate) struct DecodeContext<'a> {
    pub(crate) report: ErrorCollector,
    /// How secrets are read: [`Secret::reveal`], and something else in tests.
    pub(crate) reveal: &'a dyn Fn(&Secret) -> Result<String, Fault>,
}

pub(crate) struct Map<'a> {
    pub(crate) at: Mark,
    entries: &'a [(KeyName, Node)],
    keys: &'static [KeySpec],
    /// Where this is, in words: `source`, `section "logins"`. Empty at the top.
    place: String,
    context: &'a DecodeContext<'a>,
    /// It was of a wrong type: missing keys are no news.
    silent: bool,
}

/// A secret that the file gives, where, and what it says if it can be read.
pub(crate) struct GivenSecret {
    pub(crate) at: Mark,
    pub(crate) secret: Secret,
    pub(crate) text: Option<String>,
}

impl<'a> Map<'a> {
    /// Opens a mapping, and reports unknown and repeated keys.
    pub(crate) fn open(
        node: &'a Node,
        keys: &'static [KeySpec],
        place: String,
        context: &'a DecodeContext<'a>,
    ) -> Map<'a> {
        let mut map = Map { at: node.at, entries: &[], keys, place, context, silent: false };
        match &node.value {
            NodeValue::Map(entries) => {
                map.entries = entries;
                map.check_names();
            }
            NodeValue::Scalar(..) | NodeValue::List(_) if node.is_null() => {}
            NodeValue::Scalar(..) | NodeValue::List(_) => {
                map.silent = true;
                let place = if map.place.is_empty() { "the file" } else { &map.place };
                let message = format!("{place} must be a mapping, not {}", node.describe());
                context.report.add(node.at, message, format!("write keys and values: {}", names(keys).join(", ")));
            }
        }
        map
    }

    /// Opens the mapping under `name`; an absent one is empty, so that its keys have their defaults.
    pub(crate) fn object(&self, name: &'static str) -> Map<'a> {
        let place = self.path(name);
        let key = self.key(name);
        let Shape::Object(keys) = key.shape else { unreachable!("{name} is not an object in its table") };
        match self.given(name) {
            Some(node) => Map::open(node, keys, place, self.context),
            None => {
                if key.required {
                    self.missing(name);
                }
                let silent = self.silent || key.required;
                Map { at: self.at, entries: &[], keys, place, context: self.context, silent }
            }
        }
    }

    /// Opens `node` as a mapping within this one.
    pub(crate) fn within(&self, node: &'a Node, keys: &'static [KeySpec], name: &str) -> Map<'a> {
        Map::open(node, keys, self.path(name), self.context)
    }

    pub(crate) fn context(&self) -> &'a DecodeContext<'a> {
        self.context
    }

    fn check_names(&self) {
        let place = if self.place.is_empty() { "at the top".to_owned() } else { format!("in {}", self.place) };
        for (index, (name, _)) in self.entries.iter().enumerate() {
            let text = self.name_of(name);
            if !self.keys.iter().any(|key| key.name == text) {
                let retired = RETIRED.iter().find(|(name, _)| *name == text);
                let remedy = match (text, retired) {
                    ("<<", _) => "merge keys are not supported: write the keys out".to_owned(),
                    (_, Some((_, remedy))) => (*remedy).to_owned(),
                    (_, None) => did_you_mean(text, names(self.keys)),
                };
                self.report(name.at, format!("unknown key {} {place}", shown(text)), remedy);
            } else if let Some((first, _)) =
                self.entries[..index].iter().find(|(earlier, _)| self.name_of(earlier) == text)
            {
                let message = format!("the key {} {place} was given already, on line {}", shown(text), first.at.line);
                self.report(name.at, message, "keep one of the two");
            }
        }
    }

    /// The key's name: tools that write YAML 1.1 turn a plain `on` into `true`.
    fn name_of<'n>(&self, name: &'n KeyName) -> &'n str {
        let has_on = || self.keys.iter().any(|key| key.name == "on");
        if name.text == "true" && has_on() { "on" } else { &name.text }
    }

    fn key(&self, name: &str) -> &'static KeySpec {
        match self.keys.iter().find(|key| key.name == name) {
            Some(key) => key,
            None => unreachable!("{name} is not in the table of {}", self.place),
        }
    }

    fn entry(&self, name: &str) -> Option<&'a (KeyName, Node)> {
        self.entries.iter().find(|(given, _)| self.name_of(given) == name)
    }

    /// The node under `name`, unless it is absent or null.
    pub(crate) fn given(&self, name: &str) -> Option<&'a Node> {
        self.entry(name).map(|(_, node)| node).filter(|node| !node.is_null())
    }

    /// Whether no key was unknown.
    pub(crate) fn names_are_known(&self) -> bool {
        self.entries.iter().all(|(name, _)| self.keys.iter().any(|key| key.name == self.name_of(name)))
    }

    /// Where the key itself is written.
    pub(crate) fn key_mark(&self, name: &str) -> Option<Mark> {
        self.entry(name).map(|(name, _)| name.at)
    }

    /// A key in words.
    pub(crate) fn path(&self, name: &str) -> String {
        if self.place.is_empty() { name.to_owned() } else { format!("{name} in {}", self.place) }
    }

    pub(crate) fn report(&self, at: Mark, message: impl Into<String>, remedy: impl Into<String>) {
        self.context.report.add(at, message, remedy);
    }

    /// Reports that a key is missing.
    pub(crate) fn missing(&self, name: &str) {
        if self.silent {
            return;
        }
        let key = self.key(name);
        let path = self.path(key.name);
        let (at, message) = match self.entry(key.name) {
            Some((name, _)) => (name.at, format!("{path} has no value")),
            None => (self.at, format!("{path} is missing")),
        };
        self.report(at, message, format!("write `{}: …`. {}", key.name, key.about));
    }

    /// The node under `name`, or its default as a node; reports a mandatory one that is missing.
    pub(crate) fn value(&self, name: &str) -> Option<Cow<'a, Node>> {
        let key = self.key(name);
        match (self.given(name), key.default) {
            (Some(node), _) => Some(Cow::Borrowed(node)),
            (None, Some(default)) => Some(Cow::Owned(Node::plain(self.at, default))),
            (None, None) => {
                if key.required {
                    self.missing(name);
                }
                None
            }
        }
    }

    /// Reads a scalar by `parse`; `None` where there is none, or where it is wrong (and reported).
    pub(crate) fn read<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, Complaint>) -> Option<T> {
        self.read_marked(name, parse).map(|(_, value)| value)
    }

    /// As [`Map::read`], with the value's place.
    pub(crate) fn read_marked<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, Complaint>) -> Option<(Mark, T)> {
        let node = self.value(name)?;
        let NodeValue::Scalar(text, _) = &node.value else {
            self.report(
                node.at,
                format!("{} must be a single value, not {}", self.path(name), node.describe()),
                self.key(name).about,
            );
            return None;
        };
        match parse(text) {
            Ok(value) => Some((node.at, value)),
            Err(Complaint { message, remedy }) => {
                self.report(node.at, format!("{}: {message}", self.path(name)), remedy);
                None
            }
        }
    }

    /// Reads one of the words of the table.
    pub(crate) fn choice<T>(&self, name: &str, meaning: impl Fn(&str) -> Option<T>) -> Option<T> {
        let Shape::OneOf(words) = self.key(name).shape else { unreachable!("{name} is not a choice in its table") };
        let word = self.read(name, |text| scalar::one_of(text, words))?;
        meaning(word)
    }

    /// Reads a secret, and tries whether it can be revealed.
    pub(crate) fn secret(&self, name: &str) -> Option<GivenSecret> {
        let node = self.value(name)?;
        let Some(secret) = secret_of(&node) else {
            self.report(
                node.at,
                format!("{} is neither a string nor {{env: NAME}} nor {{file: PATH}}", self.path(name)),
                format!("write `{name}: {{ file: PATH }}`, or `{name}: {{ env: NAME }}`, or quote the string"),
            );
            return None;
        };
        if let Secret::Env(variable) = &secret
            && !is_variable_name(variable)
        {
            // The text is not shown: people have put the secret itself here.
            let message = format!("{}: what stands behind env is not a variable's name", self.path(name));
            self.report(node.at, message, "write the name of the variable: letters, digits and _");
            return None;
        }
        let text = match (self.context.reveal)(&secret) {
            Ok(text) if text.trim().is_empty() => {
                self.report(node.at, format!("{} is empty", self.path(name)), empty_remedy(&secret));
                None
            }
            Ok(text) => Some(text),
            Err(fault) => {
                self.report(node.at, format!("{}: {}", self.path(name), fault.what), fault.remedy);
                None
            }
        };
        Some(GivenSecret { at: node.at, secret, text })
    }
}

/// All names of a table.
fn names(keys: &'static [KeySpec]) -> Vec<&'static str> {
    keys.iter().map(|key| key.name).collect()
}

fn secret_of(node: &Node) -> Option<Secret> {
    let entry = match &node.value {
        NodeValue::Scalar(text, _) => return Some(Secret::Inline(text.clone())),
        NodeValue::List(_) => return None,
        NodeValue::Map(entries) => match entries.as_slice() {
            [entry] => entry,
            _ => return None,
        },
    };
    let (name, Node { value: NodeValue::Scalar(text, _), .. }) = entry else { return None };
    debug_assert!(SECRET.iter().all(|key| matches!(key.name, "env" | "file")), "the table knows more than this");
    match name.text.as_str() {
        _ if text.is_empty() => None,
        "env" => Some(Secret::Env(text.clone())),
        "file" => Some(Secret::File(text.into())),
        _ => None,
    }
}

fn is_variable_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn empty_remedy(secret: &Secret) -> String {
    match secret {
        Secret::Inline(_) => "write the secret, or remove the key".to_owned(),
        Secret::Env(name) => format!("set {name} to the secret"),
        Secret::File(path) => format!("write the secret into {}", path.display()),
    }
}
