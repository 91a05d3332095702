//! A guessed section, and how it is shown. Pure.
//!
//! * In: what was guessed, each part with its reason.
//! * Out: YAML that loads as it is; the same as JSON.
//! * Never: a line without its reason, where there is one.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::config::TableName;

/// A guessed section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guess {
    pub(crate) table: TableName,
    /// The number that the section is for, where the table has several.
    pub(crate) number: Option<String>,
    pub(crate) metric: Option<&'static str>,
    pub(crate) key: (Vec<String>, String),
    /// `date: receipt`, for want of a column.
    pub(crate) receipt: bool,
    pub(crate) fields: Vec<Guessed>,
    /// Columns that nothing was guessed for.
    pub(crate) rest: Vec<String>,
    /// How it is read, where that is not the plain way.
    pub(crate) reading: Option<GuessedReading>,
}

/// A way of reading that the catalog suggests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuessedReading {
    /// A view or a foreign table: it has no log of its own.
    Diff,
    /// Rows with a key of their own business are updated, so often.
    Updates(i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guessed {
    pub(crate) field: &'static str,
    pub(crate) from: GuessedSource,
    pub(crate) why: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GuessedSource {
    Column(String),
    Constant(String),
}

impl Guess {
    /// The same, read as the catalog suggests: `is_result`, where it is no table that has a log; with so many updates of its
    /// rows, which have these unique keys.
    pub(crate) fn read_as(mut self, is_result: bool, updates: i64, keys: &[Vec<String>]) -> Guess {
        let is_upserted = self.metric.is_some() && updates > 0 && keys.iter().any(|key| key.len() > 1);
        if is_result {
            self.reading = Some(GuessedReading::Diff);
            if keys.is_empty() {
                "guess: it must tell the rows of the result apart".clone_into(&mut self.key.1);
            }
        } else if is_upserted {
            self.reading = Some(GuessedReading::Updates(updates));
        }
        self
    }

    /// As one item of the list `sections`.
    pub(crate) fn yaml(&self) -> String {
        let mut lines: Vec<(String, &str)> = vec![
            (format!("  - name: {}", scalar(&self.name())), "unique; the state is kept by it"),
            (format!("    kind: {}", self.kind()), "user_activity or custom_metric"),
        ];
        if let Some(model) = self.metric {
            lines.push((format!("    model: {model}"), "Company, EndUser, Project or Asset"));
        }
        lines.push((format!("    table: {}", scalar(&self.table_text())), ""));
        let updated = match self.reading {
            Some(GuessedReading::Updates(times)) => format!("guess: its rows were updated {times} times"),
            Some(GuessedReading::Diff) | None => String::new(),
        };
        match self.reading {
            Some(GuessedReading::Diff) => {
                lines.push(("    read: diff".into(), "it has no log of its own"));
                lines.push(("    every: 1h".into(), "guess: how often it is compared"));
            }
            Some(GuessedReading::Updates(_)) => lines.push(("    on: insert_and_update".into(), &updated)),
            None => {}
        }
        lines.push((format!("    key: {}", key_yaml(&self.key.0)), &self.key.1));
        if self.receipt {
            lines.push(("    date: receipt".into(), "no column looks like a date"));
        }
        lines.push(("    fields:".into(), ""));
        for guessed in &self.fields {
            let from = match &guessed.from {
                GuessedSource::Column(column) => scalar(column),
                GuessedSource::Constant(value) => format!("{{ value: {} }}", scalar(value)),
            };
            lines.push((format!("      {}: {from}", guessed.field), &guessed.why));
        }
        let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0).min(40);
        let mut yaml = String::new();
        for (line, why) in lines {
            let pad = " ".repeat(width.saturating_sub(line.chars().count()));
            let written = if why.is_empty() { writeln!(yaml, "{line}") } else { writeln!(yaml, "{line}{pad} # {why}") };
            written.ok();
        }
        if !self.rest.is_empty() {
            let rest: Vec<String> = self.rest.iter().map(|name| scalar(name)).collect();
            writeln!(yaml, "      # not mapped: {}", rest.join(", ")).ok();
        }
        yaml
    }

    /// The same as JSON.
    pub(crate) fn json(&self) -> Value {
        let fields: Map<String, Value> = self
            .fields
            .iter()
            .map(|guessed| {
                let from = match &guessed.from {
                    GuessedSource::Column(column) => json!(column),
                    GuessedSource::Constant(value) => json!({ "value": value }),
                };
                (guessed.field.to_owned(), from)
            })
            .collect();
        let mut section = json!({"name": self.name(), "kind": self.kind()});
        if let Some(model) = self.metric {
            section["model"] = json!(model);
        }
        section["table"] = json!(self.table_text());
        section["key"] = if let [only] = &self.key.0[..] { json!(only) } else { json!(self.key.0) };
        match self.reading {
            Some(GuessedReading::Diff) => (section["read"], section["every"]) = (json!("diff"), json!("1h")),
            Some(GuessedReading::Updates(_)) => section["on"] = json!("insert_and_update"),
            None => {}
        }
        if self.receipt {
            section["date"] = json!("receipt");
        }
        section["fields"] = Value::Object(fields);
        section
    }

    pub(crate) fn kind(&self) -> &'static str {
        if self.metric.is_some() { "custom_metric" } else { "user_activity" }
    }

    pub(crate) fn name(&self) -> String {
        let fine = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' };
        let whole = match &self.number {
            Some(number) => format!("{}_{number}", self.table.name),
            None => self.table.name.clone(),
        };
        let name: String = whole.chars().map(fine).take(63).collect();
        if name.is_empty() { "section".to_owned() } else { name }
    }

    /// The table as the file takes it.
    fn table_text(&self) -> String {
        let part = |name: &str| {
            let plain = name.chars().all(|c| c.is_alphanumeric() || c == '_');
            if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
        };
        format!("{}.{}", part(&self.table.schema), part(&self.table.name))
    }
}

/// One column, or a list of them.
fn key_yaml(columns: &[String]) -> String {
    match columns {
        [only] => scalar(only),
        several => format!("[{}]", several.iter().map(|name| scalar(name)).collect::<Vec<_>>().join(", ")),
    }
}

/// A YAML scalar: plain where it can only be that text.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
    let word = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"].contains(&text.to_lowercase().as_str());
    if plain && !word { text.to_owned() } else { Value::from(text).to_string() }
}
