//! The words of the form and their YAML: fields, constants, tables, durations, zones. Pure.
//!
//! * In: what a section says; what somebody typed.
//! * Out: words for the form; YAML in one line.
//! * Never: a text that the file would read as something else.

use crate::config::splice::scalar;
use crate::config::{Constant, Field};

/// A field of Planhat, and the source of its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DraftField {
    /// The path of the field, such as `action` or `info.plan`.
    pub name: String,
    /// The column; empty where the value is a constant.
    pub column: String,
    /// The constant. Beside a column it replaces NULL.
    pub constant: String,
}

/// Returns a table's name in the form that the file accepts.
pub(crate) fn table_text(table: &crate::config::TableName) -> String {
    let part = |name: &str| {
        let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
        if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
    };
    format!("{}.{}", part(&table.schema), part(&table.name))
}

pub(crate) fn zone(zone: Option<&jiff::tz::TimeZone>) -> String {
    zone.and_then(jiff::tz::TimeZone::iana_name).unwrap_or_default().to_owned()
}

pub(crate) fn duration(millis: u128) -> String {
    match millis {
        ms if ms > 0 && ms % 86_400_000 == 0 => format!("{}d", ms / 86_400_000),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

/// Returns a size as `8MiB` or `2MB`; as bytes where no unit expresses it exactly.
pub(crate) fn size(bytes: u64) -> String {
    let units = [(1 << 20, "MiB"), (1_000_000, "MB"), (1 << 10, "KiB"), (1000, "kB")];
    let fits = units.iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    fits.map_or_else(|| bytes.to_string(), |(unit, word)| format!("{}{word}", bytes / unit))
}

pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Returns a constant as the form shows it: plain text, unless the form would read that as something else.
fn constant_text(constant: &Constant) -> String {
    match constant {
        Constant::Bool(value) => value.to_string(),
        Constant::Number(digits) => digits.clone(),
        Constant::Text(text) if is_text(text) => text.clone(),
        Constant::Text(text) => quoted(text),
    }
}

/// Returns whether a word of the form is read as that same text.
fn is_text(word: &str) -> bool {
    !word.is_empty()
        && !word.chars().any(char::is_control)
        && !word.starts_with('"')
        && word.trim() == word
        && !matches!(word, "true" | "false" | "null")
        && serde_json::from_str::<serde_json::Number>(word).is_err()
}

pub(crate) fn constant_yaml(word: &str) -> String {
    let written = word.starts_with('"') && serde_json::from_str::<String>(word).is_ok();
    if written || !is_text(word) { word.to_owned() } else { scalar(word) }
}

/// Collects the fields by their paths. The error is a name that the form cannot show: it holds a dot, or nests too
/// deep.
pub(crate) fn flatten(fields: &[(String, Field)], within: &str, flat: &mut Vec<DraftField>) -> Result<(), String> {
    for (name, field) in fields {
        if name.contains('.') || name.trim() != name || name.chars().any(char::is_control) {
            return Err(name.clone());
        }
        let path = if within.is_empty() { name.clone() } else { format!("{within}.{name}") };
        let (column, constant) = match field {
            // The form has no place for `as`, which therefore stays in the file as it is.
            Field::Column { column, default, as_text: _ } => {
                (column.clone(), default.as_ref().map(constant_text).unwrap_or_default())
            }
            Field::Constant(value) => (String::new(), constant_text(value)),
            Field::Object(members) if within.is_empty() => {
                flatten(members, &path, flat)?;
                continue;
            }
            Field::Object(_) => return Err(path),
        };
        flat.push(DraftField { name: path, column, constant });
    }
    Ok(())
}
