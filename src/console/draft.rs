//! A section as a form: what it says now, what somebody makes of it, and the changes between the two. Pure.
//!
//! * In: a section of the configuration; a form that was sent.
//! * Out: a [`SectionDraft`]; edits of the file; the lines of a new section.
//! * Never: a key that the form does not know: it stays in the file as it is.

use crate::config::splice::{KeyEdit, scalar};
use crate::config::{Constant, Field, Flush, InDoubt, Kind, Section, Start, Sync};
use crate::console::form_fields::FormFields;

/// Where a field's value comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DraftField {
    /// `action`, `info.plan`.
    pub name: String,
    /// The column; empty: a constant.
    pub column: String,
    /// The constant; behind a column, what stands for NULL.
    pub constant: String,
}

/// The form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SectionDraft {
    pub name: String,
    pub kind: String,
    pub model: String,
    pub sync: String,
    pub table: String,
    pub key: String,
    pub rows: String,
    pub bytes: String,
    /// A duration; `daily`: at a time of day.
    pub flush: String,
    pub daily_at: String,
    pub daily_zone: String,
    /// `backfill`, `now` or `after_key`.
    pub start: String,
    pub after_key: String,
    pub in_doubt: String,
    pub timezone: String,
    /// `receipt`, or empty.
    pub date: String,
    pub fields: Vec<DraftField>,
}

/// What a form's keys have by default: they are not written.
fn defaults() -> SectionDraft {
    let text = str::to_owned;
    SectionDraft {
        model: text("Company"),
        sync: text("receive"),
        rows: text("10000"),
        bytes: text("8388608"),
        flush: text("5s"),
        start: text("backfill"),
        in_doubt: text("resend"),
        ..SectionDraft::default()
    }
}

impl SectionDraft {
    /// The form of a section; none where its fields or its key are named in a way that the form cannot show.
    pub(crate) fn of(section: &Section) -> Option<SectionDraft> {
        let mut draft = SectionDraft {
            name: section.name.to_string(),
            kind: section.kind.as_str().to_owned(),
            sync: if section.sync == Sync::Receive { "receive" } else { "off" }.to_owned(),
            table: table_text(&section.table),
            key: section.key.join(", "),
            rows: section.batch.rows.to_string(),
            bytes: section.batch.bytes.to_string(),
            in_doubt: if section.in_doubt == InDoubt::Resend { "resend" } else { "hold" }.to_owned(),
            timezone: zone(section.timezone.as_ref()),
            date: if section.date_receipt { "receipt".to_owned() } else { String::new() },
            ..defaults()
        };
        if let Kind::CustomMetric(model) = section.kind {
            model.as_str().clone_into(&mut draft.model);
        }
        match &section.flush {
            Flush::Every(every) => draft.flush = duration(every.as_millis()),
            Flush::DailyAt(at, in_zone) => {
                "daily".clone_into(&mut draft.flush);
                draft.daily_at = at.strftime("%H:%M").to_string();
                draft.daily_zone = zone(Some(in_zone));
            }
        }
        match &section.start {
            Start::Backfill => {}
            Start::Now => "now".clone_into(&mut draft.start),
            Start::AfterKey(key) => {
                "after_key".clone_into(&mut draft.start);
                key.clone_into(&mut draft.after_key);
            }
        }
        if section.key.iter().any(|name| name.contains(',') || name.trim() != name) {
            return None;
        }
        flatten(&section.fields, "", &mut draft.fields)?;
        Some(draft)
    }

    /// What was sent.
    pub(crate) fn from_form(form: &FormFields) -> SectionDraft {
        let one = |name: &str| form.one(name).to_owned();
        let names: Vec<&str> = form.all("field").collect();
        let columns: Vec<&str> = form.all("column").collect();
        let constants: Vec<&str> = form.all("constant").collect();
        let gone: Vec<&str> = form.all("remove").collect();
        let mut fields: Vec<DraftField> = names
            .iter()
            .zip(&columns)
            .zip(&constants)
            .filter(|((name, _), _)| !name.trim().is_empty() && !gone.contains(name))
            .map(|((name, column), constant)| DraftField {
                name: name.trim().to_owned(),
                column: column.trim().to_owned(),
                constant: constant.trim().to_owned(),
            })
            .filter(|field| !field.column.is_empty() || !field.constant.is_empty())
            .collect();
        let added = one("add");
        if !added.is_empty() && fields.iter().all(|field| field.column != added) {
            fields.push(DraftField { name: format!("info.{added}"), column: added, constant: String::new() });
        }
        SectionDraft {
            name: one("name"),
            kind: one("kind"),
            model: one("model"),
            sync: one("sync"),
            table: one("table"),
            key: one("key"),
            rows: one("rows").replace([',', ' '], ""),
            bytes: one("bytes").replace([',', ' '], ""),
            flush: one("flush"),
            daily_at: one("daily_at"),
            daily_zone: one("daily_zone"),
            start: one("start"),
            after_key: one("after_key"),
            in_doubt: one("in_doubt"),
            timezone: one("timezone"),
            date: one("date"),
            fields,
        }
    }

    /// The edits that make `self` of what `from` says.
    pub(crate) fn edits(&self, from: &SectionDraft) -> Vec<KeyEdit> {
        let mut edits = Vec::new();
        let mut edit = |path: &[&str], value: Option<String>| {
            edits.push(KeyEdit { path: path.iter().map(|part| (*part).to_owned()).collect(), value });
        };
        for ((key, now), (_, before)) in self.values().into_iter().zip(from.values()) {
            if now != before {
                edit(&key.split('.').collect::<Vec<_>>(), now);
            }
        }
        let (now, before) = (self.sources(), from.sources());
        for (name, _) in before.iter().filter(|(name, _)| now.iter().all(|(other, _)| other != name)) {
            let alone = name.split_once('.').is_some_and(|(outer, _)| {
                let inside =
                    |(other, _): &&(String, String)| other.split_once('.').is_some_and(|(own, _)| own == outer);
                now.iter().filter(inside).count() == 0
            });
            let path = if alone { name.split('.').next().unwrap_or(name) } else { name };
            let mut whole = vec!["fields"];
            whole.extend(path.split('.'));
            edit(&whole, None);
        }
        for (name, source) in &now {
            if !before.iter().any(|(other, known)| other == name && known == source) {
                let mut whole = vec!["fields"];
                whole.extend(name.split('.'));
                edit(&whole, Some(source.clone()));
            }
        }
        edits
    }

    /// Keys beside `fields`, each with its YAML; none: it is not written.
    fn values(&self) -> Vec<(&'static str, Option<String>)> {
        let usual = defaults();
        let unless = |now: &str, default: &str| (now != default && !now.is_empty()).then(|| scalar(now));
        // A number stays a number.
        let number = |now: &str, default: &str| (now != default && !now.is_empty()).then(|| now.to_owned());
        let flush = match self.flush.as_str() {
            "daily" => {
                let zone = if self.daily_zone.is_empty() { "UTC" } else { self.daily_zone.as_str() };
                Some(format!("{{ daily_at: {}, timezone: {} }}", quoted(&self.daily_at), scalar(zone)))
            }
            every => number(every, &usual.flush),
        };
        let start = match self.start.as_str() {
            "after_key" => Some(format!("{{ after_key: {} }}", quoted(&self.after_key))),
            other => unless(other, &usual.start),
        };
        let metric = self.kind == "custom_metric";
        vec![
            ("kind", Some(scalar(&self.kind))),
            ("model", if metric { unless(&self.model, &usual.model) } else { None }),
            ("sync", (self.sync == "off").then(|| "off".to_owned())),
            ("table", Some(scalar(&self.table))),
            ("key", self.key_yaml()),
            ("start", start),
            ("batch.rows", number(&self.rows, &usual.rows)),
            ("batch.bytes", number(&self.bytes, &usual.bytes)),
            ("flush", flush),
            ("in_doubt", unless(&self.in_doubt, &usual.in_doubt)),
            ("timezone", unless(&self.timezone, "")),
            ("date", unless(&self.date, "")),
        ]
    }

    /// One column, or a list; none: the primary key.
    fn key_yaml(&self) -> Option<String> {
        let columns: Vec<String> =
            self.key.split(',').map(str::trim).filter(|name| !name.is_empty()).map(scalar).collect();
        match columns.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            several => Some(format!("[{}]", several.join(", "))),
        }
    }

    /// Fields, each with its YAML.
    fn sources(&self) -> Vec<(String, String)> {
        let source = |field: &DraftField| match (field.column.as_str(), field.constant.as_str()) {
            ("", constant) => format!("{{ value: {} }}", constant_yaml(constant)),
            (column, "") => scalar(column),
            (column, constant) => format!("{{ column: {}, default: {} }}", scalar(column), constant_yaml(constant)),
        };
        self.fields.iter().map(|field| (field.name.clone(), source(field))).collect()
    }

    /// The whole section as lines of YAML.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("name: {}", scalar(&self.name))];
        let values = self.values();
        let batch: Vec<String> = values
            .iter()
            .filter_map(|(key, value)| Some(format!("{}: {}", key.strip_prefix("batch.")?, value.as_ref()?)))
            .collect();
        for (key, value) in values.iter().filter(|(key, _)| !key.starts_with("batch.")) {
            if let Some(value) = value {
                lines.push(format!("{key}: {value}"));
            }
        }
        if !batch.is_empty() {
            lines.push(format!("batch: {{ {} }}", batch.join(", ")));
        }
        lines.push("fields:".to_owned());
        let mut opened: Vec<String> = Vec::new();
        let sources = self.sources();
        for (name, source) in &sources {
            match name.split_once('.') {
                None => lines.push(format!("  {}: {source}", scalar(name))),
                Some((outer, _)) if opened.iter().any(|known| known == outer) => {}
                Some((outer, _)) => {
                    opened.push(outer.to_owned());
                    lines.push(format!("  {}:", scalar(outer)));
                    let inside = sources.iter().filter_map(|(name, source)| {
                        let (own, inner) = name.split_once('.')?;
                        (own == outer).then(|| format!("    {}: {source}", scalar(inner)))
                    });
                    lines.extend(inside);
                }
            }
        }
        lines
    }
}

/// A table as the file takes it.
pub(crate) fn table_text(table: &crate::config::TableName) -> String {
    let part = |name: &str| {
        let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
        if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
    };
    format!("{}.{}", part(&table.schema), part(&table.name))
}

fn zone(zone: Option<&jiff::tz::TimeZone>) -> String {
    zone.and_then(jiff::tz::TimeZone::iana_name).unwrap_or_default().to_owned()
}

fn duration(millis: u128) -> String {
    match millis {
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A constant as the form has it: text as it is, unless it would be read as something else.
fn constant_text(constant: &Constant) -> String {
    match constant {
        Constant::Bool(value) => value.to_string(),
        Constant::Number(digits) => digits.clone(),
        Constant::Text(text) if is_text(text) => text.clone(),
        Constant::Text(text) => quoted(text),
    }
}

/// Whether a word of the form means itself.
fn is_text(word: &str) -> bool {
    !word.is_empty()
        && !word.starts_with('"')
        && word.trim() == word
        && !matches!(word, "true" | "false" | "null")
        && serde_json::from_str::<serde_json::Number>(word).is_err()
}

fn constant_yaml(word: &str) -> String {
    let written = word.starts_with('"') && serde_json::from_str::<String>(word).is_ok();
    if written || !is_text(word) { word.to_owned() } else { scalar(word) }
}

/// Fields by their paths; none where a name has a dot of its own, or fields nest deeper than the form shows.
fn flatten(fields: &[(String, Field)], within: &str, flat: &mut Vec<DraftField>) -> Option<()> {
    for (name, field) in fields {
        if name.contains('.') {
            return None;
        }
        let path = if within.is_empty() { name.clone() } else { format!("{within}.{name}") };
        let (column, constant) = match field {
            // The form has no place for it.
            Field::Column { as_text: true, .. } => return None,
            Field::Column { column, default, as_text: false } => {
                (column.clone(), default.as_ref().map(constant_text).unwrap_or_default())
            }
            Field::Constant(value) => (String::new(), constant_text(value)),
            Field::Object(members) if within.is_empty() => {
                flatten(members, &path, flat)?;
                continue;
            }
            Field::Object(_) => return None,
        };
        flat.push(DraftField { name: path, column, constant });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::config::splice::edit_section;

    const FILE: &str = "source: { host: h, database: d, user: u }\nplanhat: { tenant: t }\nsections:\n  - name: a # one\n    kind: \
        user_activity\n    table: app_event\n    key: id\n    flush: { daily_at: \"07:00\", timezone: Europe/Paris }\n    fields:\n      \
        email: email # who\n      action: { column: what, default: \"5\" }\n      weight: { value: 5 }\n      info:\n        plan: plan\n";

    fn section() -> Section {
        config::parse(FILE, "test").unwrap().sections.remove(0)
    }

    #[test]
    fn a_form_that_nobody_touched_changes_nothing() {
        let draft = SectionDraft::of(&section()).unwrap();
        assert_eq!(draft.edits(&draft), []);
        assert_eq!(draft.fields[1].constant, "\"5\"", "a text that looks like a number stays a text");
        assert_eq!(
            (draft.flush.as_str(), draft.daily_at.as_str(), draft.daily_zone.as_str()),
            ("daily", "07:00", "Europe/Paris")
        );
    }

    #[test]
    fn the_file_says_what_the_form_says() {
        let before = SectionDraft::of(&section()).unwrap();
        let mut draft = before.clone();
        "1m".clone_into(&mut draft.flush);
        draft.daily_at.clear();
        draft.daily_zone.clear();
        "500".clone_into(&mut draft.rows);
        "hold".clone_into(&mut draft.in_doubt);
        draft.fields.retain(|field| field.name != "weight" && field.name != "info.plan");
        draft.fields.push(DraftField { name: "externalId".into(), column: "user id".into(), constant: String::new() });
        draft.fields[1].constant = "off".into();
        let text = edit_section(FILE, "a", &draft.edits(&before)).unwrap();
        assert!(text.contains("email: email # who") && text.contains("name: a # one"), "{text}");
        let own = config::parse(&text, "test").unwrap().sections.remove(0);
        assert_eq!(SectionDraft::of(&own).unwrap(), draft);
    }

    #[test]
    fn a_new_section_loads_as_it_is_written() {
        let mut draft = SectionDraft::of(&section()).unwrap();
        "after_key".clone_into(&mut draft.start);
        "12".clone_into(&mut draft.after_key);
        let text = format!(
            "source: {{ host: h, database: d, user: u }}\nplanhat: {{ tenant: t }}\nsections:\n  - {}\n",
            draft.lines().join("\n    ")
        );
        let own = config::parse(&text, "test").unwrap_or_else(|error| panic!("{text}\n{error:?}")).sections.remove(0);
        assert_eq!(SectionDraft::of(&own).unwrap(), draft);
    }

    #[test]
    fn a_form_is_read_field_by_field() {
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let form = FormFields(vec![
            field("rows", "10,000"),
            field("field", "email"),
            field("column", "mail"),
            field("constant", ""),
            field("field", "action"),
            field("column", ""),
            field("constant", "Used"),
            field("field", "weight"),
            field("column", "w"),
            field("constant", ""),
            field("remove", "weight"),
            field("add", "plan"),
        ]);
        let draft = SectionDraft::from_form(&form);
        let names: Vec<&str> = draft.fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!((draft.rows.as_str(), names), ("10000", vec!["email", "action", "info.plan"]));
    }
}
