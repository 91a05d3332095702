//! A section as a form: what the file says, what a person made of it, and the difference between the two. Pure.
//!
//! * In: a section of the configuration; a form that was sent.
//! * Out: a [`SectionDraft`]; edits of the file; the lines of a new section.
//! * Never: a key that the form does not know: it stays in the file as it is.

use crate::config::splice::{EditValue, KeyEdit, scalar};
use crate::config::{DiffMode, Flush, InDoubt, Kind, ReadMode, RowVersions, Section, Start, Sync};
use crate::console::draft_words::{DraftField, constant_yaml, duration, flatten, quoted, size, table_text, zone};
use crate::console::form_fields::FormFields;

/// The content of the form, field by field, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SectionDraft {
    pub name: String,
    pub kind: String,
    pub model: String,
    pub sync: String,
    pub table: String,
    pub key: String,
    /// `stream` or `diff`.
    pub read: String,
    /// Which versions of a streamed row are sent: `insert` or `insert_and_update`; empty where the file does not say.
    pub on: String,
    /// How often a result is compared: an interval, or `daily`, as in `flush`.
    pub every: String,
    pub every_at: String,
    pub every_zone: String,
    /// Which rows of a result are sent: `new_and_changed` or `new`.
    pub send: String,
    /// How old a row of a result may be, as a duration; empty where any age is sent.
    pub within: String,
    pub rows: String,
    pub bytes: String,
    /// How long a row waits for its batch, as a duration; `daily` where batches go at a time of day.
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

/// Returns a form that holds the default of each key. The file does not state a default.
fn defaults() -> SectionDraft {
    let text = str::to_owned;
    SectionDraft {
        model: text("Company"),
        sync: text("receive"),
        read: text("stream"),
        send: text("new_and_changed"),
        rows: text("10000"),
        bytes: text("8MiB"),
        flush: text("5s"),
        start: text("backfill"),
        in_doubt: text("resend"),
        ..SectionDraft::default()
    }
}

impl SectionDraft {
    /// Returns the form of a section; as an error the name in it that the form cannot show.
    pub(crate) fn of(section: &Section) -> Result<SectionDraft, String> {
        let mut draft = SectionDraft {
            name: section.name.to_string(),
            kind: section.kind.as_str().to_owned(),
            sync: if section.sync == Sync::Receive { "receive" } else { "off" }.to_owned(),
            table: table_text(&section.table),
            key: section.key.join(", "),
            rows: section.batch.rows.to_string(),
            bytes: size(section.batch.bytes),
            in_doubt: if section.in_doubt == InDoubt::Resend { "resend" } else { "hold" }.to_owned(),
            timezone: zone(section.timezone.as_ref()),
            date: if section.date_receipt { "receipt".to_owned() } else { String::new() },
            ..defaults()
        };
        if let Kind::CustomMetric(model) = section.kind {
            model.as_str().clone_into(&mut draft.model);
        }
        (draft.flush, draft.daily_at, draft.daily_zone) = schedule(&section.flush);
        match section.on {
            Some(RowVersions::Inserted) => "insert".clone_into(&mut draft.on),
            Some(RowVersions::Committed) => "insert_and_update".clone_into(&mut draft.on),
            None => {}
        }
        if let ReadMode::Diff(DiffMode { every, send_changed, within, query: _ }) = &section.read {
            "diff".clone_into(&mut draft.read);
            (draft.every, draft.every_at, draft.every_zone) = schedule(every);
            if !send_changed {
                "new".clone_into(&mut draft.send);
            }
            draft.within = within.map(|within| duration(within.as_millis())).unwrap_or_default();
        }
        match &section.start {
            Start::Backfill => {}
            Start::Now => "now".clone_into(&mut draft.start),
            Start::AfterKey(key) => {
                "after_key".clone_into(&mut draft.start);
                key.clone_into(&mut draft.after_key);
            }
        }
        if let Some(name) = section.key.iter().find(|name| name.contains(',') || name.trim() != *name) {
            return Err(name.clone());
        }
        flatten(&section.fields, "", &mut draft.fields)?;
        let columns = draft.fields.iter().map(|field| &field.column);
        let texts = columns.chain(&section.key).chain([&draft.table, &draft.after_key]);
        // A browser does not return line ends as they were.
        let odd = texts.into_iter().find(|text| text.chars().any(char::is_control)).cloned();
        odd.map_or(Ok(draft), Err)
    }

    /// Reads a form that a browser sent.
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
                column: (*column).to_owned(),
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
            table: form.exact("table").to_owned(),
            key: one("key"),
            read: one("read"),
            on: one("on"),
            every: one("every"),
            every_at: one("every_at"),
            every_zone: one("every_zone"),
            send: one("send"),
            within: one("within"),
            rows: one("rows").replace([',', ' '], ""),
            bytes: one("bytes").replace([',', ' '], ""),
            flush: one("flush"),
            daily_at: one("daily_at"),
            daily_zone: one("daily_zone"),
            start: one("start"),
            after_key: form.exact("after_key").to_owned(),
            in_doubt: one("in_doubt"),
            timezone: one("timezone"),
            date: one("date"),
            fields,
        }
    }

    /// Returns the edits of the file that turn `from` into `self`.
    pub(crate) fn edits(&self, from: &SectionDraft) -> Vec<KeyEdit> {
        let mut edits = Vec::new();
        let mut edit = |path: &[&str], from: &EditValue, value: &EditValue| {
            if (&from.short, &from.members) != (&value.short, &value.members) {
                let path = path.iter().map(|part| (*part).to_owned()).collect();
                edits.push(KeyEdit { path, from: from.clone(), value: value.clone() });
            }
        };
        for ((key, now), (_, before)) in self.values().into_iter().zip(from.values()) {
            edit(&key.split('.').collect::<Vec<_>>(), &before, &now);
        }
        let (now, before) = (self.sources(), from.sources());
        let in_fields = |name: &'_ str| -> Vec<String> {
            ["fields"].into_iter().chain(name.split('.')).map(str::to_owned).collect()
        };
        let outer = |name: &str| name.split_once('.').map(|(outer, _)| outer.to_owned());
        for (name, source) in before.iter().filter(|(name, _)| now.iter().all(|(other, _)| other != name)) {
            // The last member removes its object, too.
            let alone = outer(name).filter(|object| now.iter().all(|(other, _)| outer(other).as_ref() != Some(object)));
            let path = in_fields(alone.as_deref().unwrap_or(name));
            edit(&path.iter().map(String::as_str).collect::<Vec<_>>(), source, &EditValue::default());
        }
        for (name, source) in &now {
            let known = before.iter().find(|(other, _)| other == name).map(|(_, source)| source.clone());
            let path = in_fields(name);
            edit(&path.iter().map(String::as_str).collect::<Vec<_>>(), &known.unwrap_or_default(), source);
        }
        edits
    }

    /// Returns the keys beside `fields`, each with its YAML. A key without YAML is not written.
    fn values(&self) -> Vec<(&'static str, EditValue)> {
        let usual = defaults();
        let unless = |now: &str, default: &str| (now != default && !now.is_empty()).then(|| scalar(now));
        // A number stays a number, without quotes.
        let number = |now: &str, default: &str| (now != default && !now.is_empty()).then(|| now.to_owned());
        let single = |short: Option<String>, otherwise| EditValue { otherwise, ..EditValue::single(short) };
        let diff = self.read == "diff";
        let flush = schedule_yaml(&self.flush, &self.daily_at, &self.daily_zone, &usual.flush, Some("5s"));
        let every = match diff {
            true => schedule_yaml(&self.every, &self.every_at, &self.every_zone, "", None),
            false => EditValue { members: SCHEDULE.map(|key| (key, None)).to_vec(), ..EditValue::default() },
        };
        // A result is always compared from its beginning, and cannot tell an insert from an update.
        let (start, on) = if diff { ("backfill", "") } else { (self.start.as_str(), self.on.as_str()) };
        let after_key = start == "after_key";
        let start = EditValue {
            short: if after_key { None } else { unless(start, &usual.start) },
            members: vec![("after_key", after_key.then(|| quoted(&self.after_key)))],
            otherwise: Some("backfill"),
        };
        let of_diff = |text: &str, default: &str| if diff { unless(text, default) } else { None };
        let metric = self.kind == "custom_metric";
        let model = if metric { unless(&self.model, &usual.model) } else { None };
        vec![
            ("kind", single(Some(scalar(&self.kind)), None)),
            ("model", single(model, metric.then_some("Company"))),
            ("sync", single((self.sync == "off").then(|| "off".to_owned()), Some("receive"))),
            // A section that reads a query has no table to write.
            ("table", single((self.table != NO_TABLE).then(|| scalar(&self.table)), None)),
            ("key", single(self.key_yaml(), None)),
            ("read", single(of_diff(&self.read, &usual.read), (!diff).then_some("stream"))),
            ("every", every),
            ("send", single(of_diff(&self.send, &usual.send), diff.then_some("new_and_changed"))),
            ("within", single(of_diff(&self.within, ""), None)),
            ("on", single(unless(on, ""), None)),
            ("start", start),
            ("batch.rows", single(number(&self.rows, &usual.rows), Some("10000"))),
            ("batch.bytes", single(number(&self.bytes, &usual.bytes), Some("8MiB"))),
            ("flush", flush),
            ("in_doubt", single(unless(&self.in_doubt, &usual.in_doubt), Some("resend"))),
            ("timezone", single(unless(&self.timezone, ""), Some("UTC"))),
            ("date", single(unless(&self.date, ""), None)),
        ]
    }

    /// Returns the key as one column or a list; `None` stands for the primary key.
    fn key_yaml(&self) -> Option<String> {
        let columns: Vec<String> =
            self.key.split(',').map(str::trim).filter(|name| !name.is_empty()).map(scalar).collect();
        match columns.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            several => Some(format!("[{}]", several.join(", "))),
        }
    }

    /// Returns the fields, each with its YAML. A column alone is written short, unless the file has it as a mapping.
    fn sources(&self) -> Vec<(String, EditValue)> {
        let source = |field: &DraftField| {
            let column = (!field.column.is_empty()).then(|| scalar(&field.column));
            let constant = (!field.constant.is_empty()).then(|| constant_yaml(&field.constant));
            let (value, default) = if column.is_some() { (None, constant) } else { (constant, None) };
            let short = if default.is_none() { column.clone() } else { None };
            EditValue {
                short,
                members: vec![("value", value), ("column", column), ("default", default)],
                otherwise: None,
            }
        };
        self.fields.iter().map(|field| (field.name.clone(), source(field))).collect()
    }

    /// Returns the lines that a person writes by hand into the section to make the edits.
    pub(crate) fn by_hand(edits: &[KeyEdit]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut open: &[String] = &[];
        for edit in edits {
            let Some((key, outer)) = edit.path.split_last() else { continue };
            if outer != open {
                open = outer;
                let head = |(depth, part): (usize, &String)| format!("{}{}:", "  ".repeat(depth), scalar(part));
                lines.extend(outer.iter().enumerate().map(head));
            }
            let indent = "  ".repeat(outer.len());
            lines.push(match edit.value.written() {
                Some(value) => format!("{indent}{}: {value}", scalar(key)),
                None => format!("{indent}# remove {key}"),
            });
        }
        lines
    }

    /// Returns the whole section as lines of YAML.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("name: {}", scalar(&self.name))];
        let values = self.values();
        let batch: Vec<String> = values
            .iter()
            .filter_map(|(key, value)| Some(format!("{}: {}", key.strip_prefix("batch.")?, value.written()?)))
            .collect();
        for (key, value) in values.iter().filter(|(key, _)| !key.starts_with("batch.")) {
            if let Some(value) = value.written() {
                lines.push(format!("{key}: {value}"));
            }
        }
        if !batch.is_empty() {
            lines.push(format!("batch: {{ {} }}", batch.join(", ")));
        }
        lines.push("fields:".to_owned());
        let mut opened: Vec<String> = Vec::new();
        let written = |(name, source): (String, EditValue)| Some((name, source.written()?));
        let sources: Vec<(String, String)> = self.sources().into_iter().filter_map(written).collect();
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

/// The form's text for a section that has no table: the section reads a query, which stays in the file.
pub(crate) const NO_TABLE: &str = "\"\".\"\"";

/// The keys of a schedule by the time of day.
const SCHEDULE: [&str; 2] = ["daily_at", "timezone"];

/// Returns a schedule as the form has it: the interval or `daily`, the time of day, and its zone.
fn schedule(schedule: &Flush) -> (String, String, String) {
    match schedule {
        Flush::Every(every) => (duration(every.as_millis()), String::new(), String::new()),
        Flush::DailyAt(at, in_zone) => {
            let at = at.strftime(if at.second() == 0 { "%H:%M" } else { "%H:%M:%S" }).to_string();
            ("daily".to_owned(), at, zone(Some(in_zone)))
        }
    }
}

/// Returns a schedule as YAML: a time of day, or an interval, which is left out where it equals `usual`.
fn schedule_yaml(every: &str, at: &str, zone: &str, usual: &str, otherwise: Option<&'static str>) -> EditValue {
    let daily = every == "daily";
    let zone = if zone.is_empty() { "UTC" } else { zone };
    let [daily_at, timezone] = SCHEDULE;
    EditValue {
        short: (!daily && every != usual && !every.is_empty()).then(|| every.to_owned()),
        members: vec![(daily_at, daily.then(|| quoted(at))), (timezone, daily.then(|| scalar(zone)))],
        otherwise,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::config::keys::{FLUSH, FORM, KeySpec, SECTION, START, Shape};
    use crate::config::splice::{SpliceError, edit_section};

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

    /// What a browser sends of the form.
    fn sent(draft: &SectionDraft) -> SectionDraft {
        let mut fields: Vec<(String, String)> = Vec::new();
        let mut field = |name: &str, value: &str| fields.push((name.to_owned(), value.replace(['\r', '\n'], "")));
        for (name, value) in [
            ("name", &draft.name),
            ("kind", &draft.kind),
            ("model", &draft.model),
            ("sync", &draft.sync),
            ("table", &draft.table),
            ("key", &draft.key),
            ("read", &draft.read),
            ("on", &draft.on),
            ("every", &draft.every),
            ("every_at", &draft.every_at),
            ("every_zone", &draft.every_zone),
            ("send", &draft.send),
            ("within", &draft.within),
            ("rows", &draft.rows),
            ("bytes", &draft.bytes),
            ("flush", &draft.flush),
            ("daily_at", &draft.daily_at),
            ("daily_zone", &draft.daily_zone),
            ("start", &draft.start),
            ("after_key", &draft.after_key),
            ("in_doubt", &draft.in_doubt),
            ("timezone", &draft.timezone),
            ("date", &draft.date),
        ] {
            field(name, value);
        }
        let next = DraftField::default();
        for DraftField { name, column, constant } in draft.fields.iter().chain([&next]) {
            field("field", name);
            field("column", column);
            field("constant", constant);
        }
        SectionDraft::from_form(&FormFields(fields))
    }

    fn file(lines: &[&str]) -> String {
        let head = "source: { host: h, database: d, user: u }\nplanhat: { tenant: t }\nsections:\n  - name: a\n";
        lines.iter().fold(head.to_owned(), |text, line| text + &format!("    {line}\n"))
    }

    fn draft_of(text: &str) -> SectionDraft {
        let section =
            config::parse(text, "test").unwrap_or_else(|error| panic!("{text}\n{error:?}")).sections.remove(0);
        SectionDraft::of(&section).unwrap_or_else(|name| panic!("{text}\n{name}"))
    }

    /// Lines of a section that streams, and of one that compares; each beginning is a kind of its own.
    const STREAM: &[&str] = &["kind: user_activity # kind", "table: app_event"];
    const METRIC: &[&str] = &["kind: custom_metric # kind", "table: app_event"];
    const DIFF: &[&str] =
        &["kind: user_activity", "read: diff # read", "key: id # key", "every: 10m # every", "table: v"];
    const QUERY: &[&str] =
        &["kind: user_activity", "read: diff", "key: id", "every: 1h", "query: |", "  SELECT 1 # one"];
    const FIELDS: &[&str] = &["# fields", "fields:", "  externalId: e # e", "  date: \"d # d\" # d"];
    const OF_METRIC: &[&str] = &["  dimensionId: { value: x } # x", "  value: v"];

    /// Keys that the form shows: it may change them.
    const OF_THE_FORM: &[&str] = &[
        "kind",
        "model",
        "sync",
        "table",
        "key",
        "read",
        "on",
        "every",
        "send",
        "within",
        "start",
        "after_key",
        "batch",
        "rows",
        "bytes",
        "flush",
        "daily_at",
        "timezone",
        "in_doubt",
        "date",
        "fields",
        "externalId",
        "value",
        "column",
        "default",
    ];

    /// A line for a key: with a remark, and not its default.
    fn sample(key: &KeySpec) -> String {
        let value = match (key.name, key.shape) {
            ("after_key", _) => "\" 7 \"",
            ("query", _) => "SELECT 1",
            ("daily_at", _) => "\"07:00:30\"",
            (_, Shape::OneOf(words)) => words.last().unwrap(),
            (_, Shape::Duration | Shape::Flush | Shape::Every) => "90s",
            (_, Shape::Size) => "2MB",
            (_, Shape::Zone) => "Europe/Paris",
            (_, Shape::Start) => "now",
            (_, Shape::Where) => "{ plan: free }",
            (_, Shape::Bool) => "true",
            (_, Shape::Count | Shape::InFlight | Shape::Port) => "3",
            (_, _) => "other",
        };
        format!("{}: {value} # why {}", key.name, key.name)
    }

    /// Files that have the key, in each way to write it: those that load.
    fn written(lines: &[String]) -> Vec<String> {
        let mut files = Vec::new();
        for kind in [STREAM, METRIC, DIFF, QUERY] {
            let named = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
            let own: Vec<String> = lines.iter().map(|line| named(line)).collect();
            let is_other = |line: &&&str| {
                let name = named(line);
                !(own.contains(&name) || name == "table" && own.contains(&"query".to_owned()))
            };
            let kept = kind.iter().filter(is_other);
            let of_metric: &[&str] = if kind == METRIC { OF_METRIC } else { &[] };
            let fields = if own.contains(&"fields".to_owned()) { &[] } else { FIELDS };
            let fields = fields.iter().filter(|line| !(line.contains("date") && own.contains(&"date".to_owned())));
            let all = kept.copied().chain(lines.iter().map(String::as_str)).chain(fields.copied());
            let text = file(&all.chain(of_metric.iter().copied()).collect::<Vec<_>>());
            if config::parse(&text, "test").is_ok() {
                files.push(text);
            }
        }
        files
    }

    #[test]
    fn every_key_of_the_reference_goes_through_the_form_and_stays() {
        let nested = |key: &str, inner: &[KeySpec]| -> Vec<Vec<String>> {
            let member = |member: &KeySpec| {
                let mut lines = vec![format!("{key}: # why {key}")];
                let first = inner.iter().find(|known| known.required && known.name != member.name);
                lines.extend(first.into_iter().chain([member]).map(|known| format!("  {}", sample(known))));
                lines
            };
            inner.iter().map(member).collect()
        };
        let form = |key: &KeySpec| match key.name {
            "value" => vec!["fields:".to_owned(), format!("  externalId: {{ {}\n        }}", sample(key))],
            name => {
                let column = if name == "column" { String::new() } else { "column: c # col\n        , ".to_owned() };
                vec!["fields:".to_owned(), format!("  externalId: {{ {column}{}\n        }}", sample(key))]
            }
        };
        let mut ways: Vec<(&str, Vec<String>)> = Vec::new();
        for key in SECTION {
            if let Shape::Object(inner) = key.shape {
                ways.extend(nested(key.name, inner).into_iter().map(|lines| (key.name, lines)));
            } else if !matches!(key.shape, Shape::Sections | Shape::Fields | Shape::SectionName) {
                ways.push((key.name, vec![sample(key)]));
            }
        }
        ways.extend(nested("start", START).into_iter().map(|lines| ("start", lines)));
        ways.extend(nested("flush", FLUSH).into_iter().map(|lines| ("flush", lines)));
        ways.extend(nested("every", FLUSH).into_iter().map(|lines| ("every", lines)));
        ways.extend(FORM.iter().map(|key| (key.name, form(key))));
        for (key, lines) in ways {
            let files = written(&lines);
            assert!(!files.is_empty(), "no section of the test may have {key}: add a sample of it\n{lines:?}");
            for text in files {
                let before = draft_of(&text);
                assert_eq!(sent(&before), before, "{key}: the form does not give back what it was given\n{text}");
                assert_eq!(edit_section(&text, "a", &sent(&before).edits(&before)).unwrap(), text, "{key}");
                touch_everything_else(key, &text, &before);
            }
        }
    }

    /// Changes each part of the form that is not of `key`: its lines stay, and so does every comment.
    fn touch_everything_else(key: &str, text: &str, before: &SectionDraft) {
        let own: Vec<&str> = text.lines().filter(|line| line.contains(&format!("why {key}"))).collect();
        type Change = (&'static str, fn(&mut SectionDraft));
        let changes: &[Change] = &[
            ("sync", |draft| draft.sync = if draft.sync == "off" { "receive" } else { "off" }.to_owned()),
            ("batch", |draft| draft.rows = if draft.rows == "77" { "10000" } else { "77" }.to_owned()),
            ("batch", |draft| draft.bytes = "8MiB".to_owned()),
            ("batch", |draft| draft.rows = "10000".to_owned()),
            ("flush", |draft| {
                draft.flush = "daily".to_owned();
                draft.daily_at = "08:00".to_owned();
            }),
            ("flush", |draft| draft.flush = "7s".to_owned()),
            ("flush", |draft| draft.flush = "5s".to_owned()),
            ("start", |draft| draft.start = "now".to_owned()),
            ("on", |draft| draft.on = "insert_and_update".to_owned()),
            ("every", |draft| draft.every = "20m".to_owned()),
            ("every", |draft| {
                draft.every = "daily".to_owned();
                draft.every_at = "03:00".to_owned();
            }),
            ("send", |draft| draft.send = if draft.send == "new" { "new_and_changed" } else { "new" }.to_owned()),
            ("within", |draft| draft.within = "3d".to_owned()),
            ("in_doubt", |draft| draft.in_doubt = if draft.in_doubt == "hold" { "resend" } else { "hold" }.to_owned()),
            ("timezone", |draft| draft.timezone = "Asia/Tokyo".to_owned()),
            ("fields", |draft| draft.fields[0].column = "elsewhere".to_owned()),
            ("fields", |draft| draft.fields[0].constant = "none".to_owned()),
            ("fields", |draft| {
                draft.fields.push(DraftField { name: "info.x".into(), column: "x".into(), constant: String::new() });
            }),
        ];
        for (part, change) in changes {
            let mut draft = before.clone();
            change(&mut draft);
            let said = match edit_section(text, "a", &draft.edits(before)) {
                Ok(said) => said,
                // What cannot stay is named, and nothing is changed.
                Err(SpliceError::Loses { what, .. }) => {
                    assert!(what.contains('`'), "{key}, {part}: {what}");
                    continue;
                }
                Err(other) => panic!("{key}, {part}: {other:?}\n{text}"),
            };
            let remarks = |text: &str| {
                text.split('#')
                    .skip(1)
                    .map(|rest| rest.lines().next().unwrap_or_default().to_owned())
                    .collect::<Vec<_>>()
            };
            assert_eq!(remarks(&said), remarks(text), "{key}, {part}: a comment is gone\n{text}\n{said}");
            let of_part = *part == key || *part == "fields" && FORM.iter().any(|known| known.name == key);
            let of_form = |line: &str| {
                let mut words = line.split(['{', ',', ' ']).filter_map(|word| word.strip_suffix(':'));
                let last = words.rfind(|word| *word != "col").unwrap_or_default();
                OF_THE_FORM.contains(&last)
            };
            let untouched = |line: &&&str| !of_part || !of_form(line);
            for line in own.iter().filter(untouched) {
                // Its comment may stand farther on by now.
                let line = line.split(" #").next().unwrap_or_default();
                assert!(said.contains(line), "{key}, {part}: {line:?} is gone\n{text}\n{said}");
            }
        }
    }

    #[test]
    fn what_a_change_would_lose_is_named_and_can_be_written_by_hand() {
        let text = "source: { host: h, database: d, user: u }\nplanhat: { tenant: t }\nsections:\n  - name: a\n    kind: user_activity\n    \
            table: t\n    batch: &b { rows: 5, in_flight: 2 }\n    flush: &f 1m # f\n    fields: { email: e, action: &act { column: c, default: x } }\n  - name: b\n    \
            kind: user_activity\n    table: u\n    batch: *b\n    flush: *f\n    fields: { email: e, action: *act }\n";
        let sections = config::parse(text, "test").unwrap().sections;
        let changed = |at: usize, change: fn(&mut SectionDraft)| {
            let before = SectionDraft::of(&sections[at]).unwrap();
            let mut draft = before.clone();
            change(&mut draft);
            let edits = draft.edits(&before);
            (edit_section(text, &draft.name, &edits), SectionDraft::by_hand(&edits))
        };
        let loses = |key: &str, what: &str| Err(SpliceError::Loses { key: key.to_owned(), what: what.to_owned() });
        let rows: fn(&mut SectionDraft) = |draft| draft.rows = "6".to_owned();
        assert_eq!(changed(0, rows).0, loses("batch.rows", "what `&b` shares with another place"));
        assert_eq!(changed(1, rows).0, loses("batch.rows", "what stands in `*b`"));
        assert_eq!(changed(1, rows).1, ["batch:", "  rows: 6"]);
        let action: fn(&mut SectionDraft) = |draft| draft.fields[1].constant = "y".to_owned();
        assert_eq!(changed(1, action).0, loses("fields.action", "what stands in `*act`"));
        assert_eq!(changed(1, action).1, ["fields:", "  action: { column: c, default: \"y\" }"]);
        // What shares nothing is changed, and an alias of a single value yields to the value.
        let flush: fn(&mut SectionDraft) = |draft| draft.flush = "2m".to_owned();
        assert_eq!(changed(1, flush).0, Ok(text.replace("flush: *f", "flush: 2m")));
        let sync: fn(&mut SectionDraft) = |draft| draft.sync = "off".to_owned();
        assert_eq!(changed(0, sync).0, Ok(text.replacen("\n  - name: b", "\n    sync: off\n  - name: b", 1)));
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
    fn a_section_is_read_and_sent_as_the_form_says() {
        let loads = |draft: &SectionDraft| {
            let text = file(&draft.lines().iter().skip(1).map(String::as_str).collect::<Vec<_>>());
            let own = config::parse(&text, "test").unwrap_or_else(|error| panic!("{text}\n{error:?}"));
            own.sections.into_iter().next().unwrap()
        };
        let mut draft = SectionDraft::of(&section()).unwrap();
        draft.name = "a".to_owned();
        draft.on = "insert_and_update".to_owned();
        // Keys of the other way, as a browser sends what it hides: they are not written.
        (draft.every, draft.send, draft.within) = ("10m".to_owned(), "new".to_owned(), "7d".to_owned());
        let own = loads(&draft);
        assert!(own.is_streamed() && own.sends_updates());
        draft.read = "diff".to_owned();
        draft.start = "now".to_owned();
        draft.fields.push(DraftField { name: "date".into(), column: "at".into(), constant: String::new() });
        let own = loads(&draft);
        let diff = own.diff().unwrap();
        assert_eq!((diff.send_changed, own.on, &own.start), (false, None, &Start::Backfill));
        assert_eq!(diff.within, Some(std::time::Duration::from_secs(7 * 86_400)));
        assert_eq!(diff.every, Flush::Every(std::time::Duration::from_secs(600)));
        (draft.every, draft.every_at, draft.every_zone) = ("daily".into(), "03:30".into(), "Asia/Tokyo".into());
        let own = loads(&draft);
        let again = SectionDraft::of(&own).unwrap();
        assert_eq!(
            (again.every.as_str(), again.every_at.as_str(), again.every_zone.as_str()),
            ("daily", "03:30", "Asia/Tokyo")
        );
        assert_eq!((again.read.as_str(), again.send.as_str(), again.within.as_str()), ("diff", "new", "7d"));
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
