//! A section's `fields`: Planhat field → where its value comes from.
//!
//! * In: the mapping under `fields`, and the kind of the section.
//! * Out: fields in the order written, each a column, a constant, or (for `info`) an object of such.
//! * Never: a guess. A name that Planhat does not know, and a form that could mean two things, are errors.

use crate::config::config_error::{Complaint, Mark, shown};
use crate::config::decoder::Map;
use crate::config::keys::{ACTIVITY, FORM, METRIC, PlanhatField, Takes};
use crate::config::scalar::{Plain, plain};
use crate::config::yaml::{KeyName, Node, NodeValue};
use crate::config::{Constant, Field, Kind, names};
use crate::model::nearest::did_you_mean;

const FORMS: &str = "write a column's name, { value: constant } or { column: name, default: constant }";

/// Decodes `fields` of a section. `None` for a kind that is not known: then only the forms are checked.
pub(crate) fn fields(section: &Map<'_>, kind: Option<Kind>, date_receipt: bool) -> Vec<(String, Field)> {
    let Some(node) = section.given("fields") else {
        section.value("fields");
        return Vec::new();
    };
    let place = section.path("fields");
    let NodeValue::Map(entries) = &node.value else {
        section.report(node.at, format!("{place} must be a mapping, not {}", node.describe()), FORMS);
        return Vec::new();
    };
    let decoder = FieldDecoder { section, known: kind.map(known) };
    let mut fields = Vec::new();
    for (index, (name, value)) in entries.iter().enumerate() {
        if let Some((first, _)) = entries[..index].iter().find(|(earlier, _)| earlier.text == name.text) {
            let message = format!("the field {} was given already, on line {}", shown(&name.text), first.at.line);
            section.report(name.at, message, "keep one of the two");
            continue;
        }
        let takes = decoder.takes(name, entries);
        if let Some(field) = decoder.field(name, value, takes) {
            fields.push((name.text.clone(), field));
        }
    }
    if let Some(kind) = kind {
        mandatory(section, node.at, kind, entries);
    }
    if let (true, Some(date)) = (date_receipt, entries.iter().find(|(name, _)| name.text == "date")) {
        let message = format!("date is mapped, and {} says receipt", section.path("date"));
        section.report(date.0.at, message, "keep one of the two");
    }
    fields
}

fn known(kind: Kind) -> &'static [PlanhatField] {
    match kind {
        Kind::UserActivity => ACTIVITY,
        Kind::CustomMetric(_) => METRIC,
    }
}

fn mandatory(section: &Map<'_>, at: Mark, kind: Kind, entries: &[(KeyName, Node)]) {
    let has = |field: &str| entries.iter().any(|(name, _)| name.text == field);
    let place = section.path("fields");
    match kind {
        Kind::UserActivity if !has("email") && !has("externalId") => section.report(
            at,
            format!("{place}: a user activity needs email or externalId"),
            "map one of them: `email: COLUMN` or `externalId: COLUMN`",
        ),
        Kind::UserActivity => {}
        Kind::CustomMetric(_) => {
            for field in ["dimensionId", "value", "externalId"].into_iter().filter(|field| !has(field)) {
                let form = if field == "dimensionId" { "{ value: name_of_the_metric }" } else { "COLUMN" };
                section.report(
                    at,
                    format!("{place}: a custom metric needs {field}"),
                    format!("map it: `{field}: {form}`"),
                );
            }
        }
    }
}

struct FieldDecoder<'m, 'a> {
    section: &'m Map<'a>,
    known: Option<&'static [PlanhatField]>,
}

impl FieldDecoder<'_, '_> {
    /// What the field takes; `None` where it is not known (and reported, if the kind is).
    fn takes(&self, name: &KeyName, entries: &[(KeyName, Node)]) -> Option<Takes> {
        let known = self.known?;
        let text = name.text.as_str();
        if let Some(field) = known.iter().find(|field| field.name == text) {
            return Some(field.takes);
        }
        let kind = if std::ptr::eq(known, ACTIVITY) { "user activity" } else { "custom metric" };
        let current = match text {
            "euExtId" => Some("externalId"),
            "cId" => Some("companyExternalId"),
            "count" => Some("weight"),
            _ => None,
        };
        let (message, remedy) = match (kind, current) {
            ("user activity", Some(current)) => {
                let twice = entries.iter().any(|(name, _)| name.text == current);
                let message = match twice {
                    true => format!("{text} stands beside {current}, and is its legacy spelling"),
                    false => format!("{text} is the legacy spelling of {current}"),
                };
                let verb = if twice { "keep" } else { "write" };
                (message, format!("{verb} {current}; `bulk_activity_names: legacy` in planhat sends the legacy names"))
            }
            _ if text == "model" => {
                ("model is no field: it is a key of the section".to_owned(), "write `model:` beside `fields:`".into())
            }
            ("custom metric", _) if matches!(text, "info" | "weight" | "action" | "email") => (
                format!("{text} is a field of user activities, and this is a custom metric"),
                format!("remove it; known here: {}", METRIC.iter().map(|f| f.name).collect::<Vec<_>>().join(", ")),
            ),
            _ => (
                format!("unknown field {} of a {kind}", shown(text)),
                did_you_mean(text, known.iter().map(|field| field.name)),
            ),
        };
        self.section.report(name.at, format!("{}: {message}", self.section.path("fields")), remedy);
        None
    }

    fn field(&self, name: &KeyName, node: &Node, takes: Option<Takes>) -> Option<Field> {
        match &node.value {
            NodeValue::Map(entries) if takes == Some(Takes::Object) => self.object(name, node.at, entries),
            // Of an unknown kind: `info` may be meant as an object, and its errors would mislead.
            NodeValue::Map(_) if takes.is_none() && name.text == "info" => None,
            NodeValue::Scalar(..) | NodeValue::Map(_) | NodeValue::List(_) => self.simple(&name.text, node, takes),
        }
    }

    /// `info` as an object. Its names are free, also `value`, `column` and `default`; but what looks like a form is
    /// refused, for it would silently mean something else than in every other field.
    fn object(&self, name: &KeyName, at: Mark, entries: &[(KeyName, Node)]) -> Option<Field> {
        let is_word = |word: &KeyName| FORM.iter().any(|key| key.name == word.text);
        let is_form = entries.iter().all(|(name, _)| is_word(name))
            && entries.iter().any(|(_, node)| matches!(node.value, NodeValue::Scalar(..)));
        if entries.is_empty() {
            self.complain(at, &name.text, "an object without names", "add `name: column`, or remove it");
            return None;
        }
        if is_form {
            let word = &entries[0].0.text;
            self.complain(
                at,
                &name.text,
                "this could be a column or an object",
                &format!("write `{}: COLUMN` for a json column given whole, or `{{ {word}: {{ column: COLUMN }} }}` for an object with the name {word}", name.text),
            );
            return None;
        }
        let mut inner = Vec::new();
        for (index, (key, node)) in entries.iter().enumerate() {
            if entries[..index].iter().any(|(earlier, _)| earlier.text == key.text) {
                self.complain(key.at, &name.text, &format!("the name {} twice", shown(&key.text)), "keep one");
                continue;
            }
            let path = format!("{}.{}", name.text, key.text);
            inner.extend(self.simple(&path, node, None).map(|field| (key.text.clone(), field)));
        }
        Some(Field::Object(inner))
    }

    /// A column, or a constant.
    fn simple(&self, path: &str, node: &Node, takes: Option<Takes>) -> Option<Field> {
        match &node.value {
            _ if node.is_null() => self.complain(node.at, path, "no value", FORMS),
            NodeValue::Scalar(text, is_plain) => return self.column(path, node.at, text, *is_plain),
            NodeValue::List(_) => self.complain(node.at, path, "a list", FORMS),
            NodeValue::Map(_) => return self.form(path, node, takes),
        }
        None
    }

    fn column(&self, path: &str, at: Mark, text: &str, is_plain: bool) -> Option<Field> {
        if is_plain && plain(text) != Plain::Text {
            let message = format!("{} would be a column's name", shown(text));
            let remedy = format!("write {{ value: {text} }} for a constant, or quote the name of the column");
            self.complain(at, path, &message, &remedy);
            return None;
        }
        match names::identifier(text) {
            Ok(column) => Some(Field::Column { column, default: None, as_text: false }),
            Err(complaint) => {
                self.complain(at, path, &complaint.message, &complaint.remedy);
                None
            }
        }
    }

    /// `{ value: … }` or `{ column: …, default: … }`.
    fn form(&self, path: &str, node: &Node, takes: Option<Takes>) -> Option<Field> {
        let place = format!("fields.{path}");
        let map = self.section.within(node, FORM, &place);
        let (value, column) = (map.given("value"), map.given("column"));
        let constant = |node: &Node| match constant(node, takes) {
            Ok(constant) => Some(constant),
            Err(complaint) => {
                self.complain(node.at, path, &complaint.message, &complaint.remedy);
                None
            }
        };
        match (value, column) {
            (Some(value), None) => {
                if let Some(at) = map.key_mark("default") {
                    self.complain(at, path, "a constant with a default", "remove the default");
                }
                if let Some(at) = map.key_mark("as") {
                    self.complain(
                        at,
                        path,
                        "a constant is sent as it is written",
                        "remove `as`, and quote the constant",
                    );
                }
                constant(value).map(Field::Constant)
            }
            (None, Some(_)) => {
                let column = map.read("column", names::identifier)?;
                let default = map.given("default").map(constant);
                let as_text = map.choice("as", |word| (word == "text").then_some(true)).unwrap_or_default();
                if let (true, Some(takes), Some(at)) =
                    (as_text, takes.filter(|takes| !takes.is_text()), map.key_mark("as"))
                {
                    let message = format!("Planhat takes {} here, not text", takes.as_str());
                    self.complain(at, path, &message, "remove `as`: it is for the members of info");
                }
                Some(Field::Column { column, default: default.flatten(), as_text })
            }
            (Some(value), Some(_)) => {
                self.complain(value.at, path, "both a constant and a column", "use `default` for NULLs, or keep one");
                None
            }
            (None, None) => {
                // With an unknown key, that one is reported already.
                if map.names_are_known() {
                    self.complain(node.at, path, "neither a column nor a constant", FORMS);
                }
                None
            }
        }
    }

    fn complain(&self, at: Mark, path: &str, message: &str, remedy: &str) {
        let place = self.section.path(&format!("fields.{path}"));
        self.section.report(at, format!("{place}: {message}"), remedy);
    }
}

/// A constant, fit for what its field takes.
pub(crate) fn constant(node: &Node, takes: Option<Takes>) -> Result<Constant, Complaint> {
    let NodeValue::Scalar(text, is_plain) = &node.value else {
        return Err(Complaint::new(
            format!("{} as a constant", node.describe()),
            "write text, a number, true or false",
        ));
    };
    let meaning = if *is_plain { plain(text) } else { Plain::Text };
    let odd = || {
        let remedy = format!("write the number as JSON has it, or quote it to send the text: {text:?}");
        Complaint::new(format!("{} is not a number that JSON has", shown(text)), remedy)
    };
    match takes {
        None => match meaning {
            Plain::Bool(value) => Ok(Constant::Bool(value)),
            Plain::Number => Ok(Constant::Number(text.clone())),
            Plain::Text => Ok(Constant::Text(text.clone())),
            Plain::OddNumber => Err(odd()),
        },
        // Planhat takes text here, so that is what a number or a boolean becomes, with the characters written.
        Some(Takes::Text) if text.is_empty() => Err(Complaint::new("an empty constant", "write a value")),
        Some(Takes::Text) => Ok(Constant::Text(text.clone())),
        Some(Takes::Dimension) => dimension(text),
        Some(Takes::Number) => match plain(text) {
            Plain::Number => Ok(Constant::Number(text.clone())),
            Plain::OddNumber => Err(odd()),
            Plain::Bool(_) | Plain::Text => {
                Err(Complaint::new(format!("{} is not a number", shown(text)), "write a finite number, such as 1"))
            }
        },
        Some(Takes::Date) => match text.parse::<jiff::Timestamp>() {
            Ok(_) => Ok(Constant::Text(text.clone())),
            Err(_) => Err(Complaint::new(
                format!("{} is not a UTC time", shown(text)),
                "write it as \"2026-01-31T00:00:00.000Z\", or map a column",
            )),
        },
        Some(Takes::Object) => Err(Complaint::new("a single value", "write an object of columns")),
    }
}

/// Whether Planhat takes this for a `dimensionId`.
pub(crate) fn is_dimension(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

fn dimension(text: &str) -> Result<Constant, Complaint> {
    if is_dimension(text) {
        return Ok(Constant::Text(text.to_owned()));
    }
    let better: String =
        text.trim().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(64).collect();
    let better = if better.is_empty() { "seats_used".to_owned() } else { better };
    Err(Complaint::new(
        format!("{} has spaces or special characters, which Planhat refuses in a dimensionId", shown(text)),
        format!("write letters, digits, _, - and . only, such as {better}"),
    ))
}
