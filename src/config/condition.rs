//! A section's `where`: what each named column must be for a row to be sent.
//!
//! * In: the mapping under `where`.
//! * Out: [`Condition`]s by column, in the order written; all of them must hold.
//! * Never: a condition that no row could meet, or that means two things.

use crate::config::config_error::{Complaint, Mark, shown};
use crate::config::decoder::Map;
use crate::config::keys::CONDITION;
use crate::config::yaml::{Node, NodeValue};
use crate::config::{Constant, fields, names};

/// What the value of one column must be. As in SQL, NULL is neither equal nor unequal to anything: it meets [`Condition::Null`] alone.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// It is NULL.
    Null,
    /// It equals the constant.
    Is(Constant),
    /// It is the constant or more.
    AtLeast(Constant),
    /// It is the constant or less.
    AtMost(Constant),
    /// The condition is false of it; as in SQL, that is less than "not true".
    Not(Box<Condition>),
    /// At least one of the conditions holds.
    Any(Vec<Condition>),
    /// All of the conditions hold.
    All(Vec<Condition>),
}

/// What becomes of a row in which a mandatory field is NULL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnNull {
    /// It goes into quarantine.
    #[default]
    Quarantine,
    /// It is left out, and counted as filtered.
    Skip,
}

impl Condition {
    /// Whether a NULL meets it; `None` where that is neither true nor false, as in SQL.
    pub(crate) fn of_null(&self) -> Option<bool> {
        match self {
            Condition::Null => Some(true),
            Condition::Is(_) | Condition::AtLeast(_) | Condition::AtMost(_) => None,
            Condition::Not(inner) => inner.of_null().map(|holds| !holds),
            Condition::Any(list) => list.iter().map(Condition::of_null).fold(Some(false), either),
            Condition::All(list) => list.iter().map(Condition::of_null).fold(Some(true), both),
        }
    }
}

/// SQL's OR.
pub(crate) fn either(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        (None, _) | (_, None) => None,
    }
}

/// SQL's AND.
pub(crate) fn both(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        (None, _) | (_, None) => None,
    }
}

const FORMS: &str = "write null, a value, a list of values, { not: VALUE }, { at_least: VALUE } or { at_most: VALUE }";

/// Decodes `where` of a section.
pub(crate) fn conditions(section: &Map<'_>) -> Vec<(String, Condition)> {
    let Some(node) = section.given("where") else { return Vec::new() };
    let place = section.path("where");
    let NodeValue::Map(entries) = &node.value else {
        let remedy = "write `where: { COLUMN: VALUE }`";
        section.report(node.at, format!("{place} must be a mapping, not {}", node.describe()), remedy);
        return Vec::new();
    };
    let mut conditions = Vec::new();
    for (index, (name, node)) in entries.iter().enumerate() {
        let decoder = ConditionDecoder { section, column: &name.text };
        if let Some((first, _)) = entries[..index].iter().find(|(earlier, _)| earlier.text == name.text) {
            let message = format!("the column was given already, on line {}", first.at.line);
            decoder.complain(name.at, &message, "join the two: all conditions of one column stand in one mapping");
            continue;
        }
        if let Err(complaint) = names::identifier(&name.text) {
            decoder.complain(name.at, &complaint.message, &complaint.remedy);
            continue;
        }
        conditions.extend(decoder.condition(node).map(|condition| (name.text.clone(), condition)));
    }
    conditions
}

struct ConditionDecoder<'m, 'a> {
    section: &'m Map<'a>,
    column: &'m str,
}

impl<'a> ConditionDecoder<'_, 'a> {
    fn condition(&self, node: &'a Node) -> Option<Condition> {
        match &node.value {
            _ if node.is_null() => Some(Condition::Null),
            NodeValue::Scalar(..) => self.constant(node).map(Condition::Is),
            NodeValue::List(list) if list.is_empty() => {
                self.complain(node.at, "an empty list, which no row could meet", FORMS);
                None
            }
            NodeValue::List(list) => {
                let list: Vec<Option<Condition>> = list.iter().map(|node| self.condition(node)).collect();
                list.into_iter().collect::<Option<Vec<_>>>().map(Condition::Any)
            }
            NodeValue::Map(_) => self.form(node),
        }
    }

    /// `{ not: … }`, `{ at_least: … }`, `{ at_most: … }`, or several of them.
    fn form(&self, node: &'a Node) -> Option<Condition> {
        let NodeValue::Map(entries) = &node.value else { return None };
        let map = self.section.within(node, CONDITION, &format!("where.{}", self.column));
        if !map.names_are_known() {
            return None;
        }
        let mut all = Vec::new();
        for (name, value) in entries {
            all.push(match name.text.as_str() {
                "not" => Condition::Not(Box::new(self.condition(value)?)),
                "at_least" => Condition::AtLeast(self.bound(value)?),
                _ => Condition::AtMost(self.bound(value)?),
            });
        }
        match all.len() {
            0 => {
                self.complain(node.at, "an empty mapping", FORMS);
                None
            }
            1 => all.pop(),
            _ => Some(Condition::All(all)),
        }
    }

    fn bound(&self, node: &Node) -> Option<Constant> {
        if node.is_null() {
            self.complain(node.at, "a bound without a value", "write a number or a time");
            return None;
        }
        self.constant(node)
    }

    fn constant(&self, node: &Node) -> Option<Constant> {
        match fields::constant(node, None) {
            Ok(constant) => Some(constant),
            Err(Complaint { message, remedy }) => {
                self.complain(node.at, &message, &remedy);
                None
            }
        }
    }

    fn complain(&self, at: Mark, message: &str, remedy: &str) {
        let place = self.section.path("where");
        self.section.report(at, format!("{place}, column {}: {message}", shown(self.column)), remedy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn section(keys: &str) -> String {
        format!(
            "source: {{host: h, database: d, user: u}}\nplanhat: {{tenant: t}}\nsections:\n  - name: a\n    kind: user_activity\n    \
             table: t\n    key: id\n    fields: {{externalId: e}}\n    {keys}\n"
        )
    }

    fn conditions(keys: &str) -> Vec<(String, Condition)> {
        parse(&section(keys), "test").unwrap_or_else(|errors| panic!("{errors}")).sections.remove(0).conditions
    }

    #[test]
    fn every_form_is_read() {
        let text = |text: &str| Condition::Is(Constant::Text(text.into()));
        let number = |digits: &str| Constant::Number(digits.into());
        let not = |condition| Condition::Not(Box::new(condition));
        let read = conditions(
            "where: { deleted_at: null, gone: ~, event_name: [login, null], plan: { not: free }, other: { not: [a, null] }, x: \
             { not: null }, n: 9007199254740993, amount: { at_least: 0.10, at_most: 7 }, ok: true, \"Odd Name\": \"7\", day: \
             { at_least: 2026-01-31 }, either: [null, { not: free }] }",
        );
        let expected = [
            ("deleted_at", Condition::Null),
            ("gone", Condition::Null),
            ("event_name", Condition::Any(vec![text("login"), Condition::Null])),
            ("plan", not(text("free"))),
            ("other", not(Condition::Any(vec![text("a"), Condition::Null]))),
            ("x", not(Condition::Null)),
            ("n", Condition::Is(number("9007199254740993"))),
            ("amount", Condition::All(vec![Condition::AtLeast(number("0.10")), Condition::AtMost(number("7"))])),
            ("ok", Condition::Is(Constant::Bool(true))),
            ("Odd Name", text("7")),
            ("day", Condition::AtLeast(Constant::Text("2026-01-31".into()))),
            ("either", Condition::Any(vec![Condition::Null, not(text("free"))])),
        ];
        assert_eq!(read, expected.map(|(name, condition)| (name.to_owned(), condition)));
        assert_eq!(conditions("sync: receive"), []);
        assert_eq!(conditions("where:"), []);
    }

    #[test]
    fn the_columns_are_read_like_mapped_ones() {
        let config = parse(&section("where: { e: x, plan: free, id: 1 }"), "test").unwrap();
        assert_eq!(config.sections[0].columns(), ["id", "e", "plan"]);
    }

    #[test]
    fn errors_name_the_column_and_the_form() {
        for (keys, wanted) in [
            ("where: plan", "where in section \"a\" must be a mapping, not"),
            ("where: { plan: [] }", "column \"plan\": an empty list"),
            ("where: { plan: {} }", "column \"plan\": an empty mapping"),
            ("where: { plan: { nto: free } }", "did you mean \"not\"?"),
            ("where: { n: { at_least: null } }", "column \"n\": a bound without a value"),
            ("where: { n: { at_least: [1] } }", "column \"n\": a list as a constant"),
            ("where: { n: 007 }", "quote it to send the text"),
            ("where: { n: 1, n: 2 }", "column \"n\": the column was given already"),
            ("where: { \"\": 1 }", "column \"\""),
            ("on_null: drop", "quarantine"),
        ] {
            let errors = parse(&section(keys), "test").unwrap_err().to_string();
            assert!(errors.contains(wanted), "{keys}: {errors}");
        }
    }

    #[test]
    fn null_is_neither_equal_nor_unequal() {
        for (keys, of_null) in [
            ("where: { p: null }", Some(true)),
            ("where: { p: { not: null } }", Some(false)),
            ("where: { p: a }", None),
            ("where: { p: { not: a } }", None),
            ("where: { p: { not: [a, null] } }", Some(false)),
            ("where: { p: [a, null] }", Some(true)),
            ("where: { p: [null, { not: a }] }", Some(true)),
            ("where: { p: { at_least: 1, not: null } }", Some(false)),
        ] {
            assert_eq!(conditions(keys)[0].1.of_null(), of_null, "{keys}");
        }
    }
}
