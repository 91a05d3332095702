//! A first section for a table, guessed from its columns' names and types. Pure.
//!
//! * In: a table's columns, and those that could be its key.
//! * Out: a [`Guess`], as YAML that loads as it is, each line with its reason; and as JSON.
//! * Never: a section that the configuration's reader refuses.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::config::TableName;
use crate::mapping::usual_names::{ACTION, COMPANY, DATE, DIMENSION, EMAIL, INFO, USER, VALUE, WEIGHT};
use crate::model::{Column, Type};

/// A guessed section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guess {
    table: TableName,
    metric: Option<&'static str>,
    key: (Vec<String>, String),
    /// `date: receipt`, for want of a column.
    receipt: bool,
    fields: Vec<Guessed>,
    /// Columns that nothing was guessed for.
    rest: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Guessed {
    field: &'static str,
    from: GuessedSource,
    why: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum GuessedSource {
    Column(String),
    Constant(String),
}

/// Guesses a section. `keys`: the columns of each unique index, the best first.
pub(crate) fn guess(table: &TableName, columns: &[Column], keys: &[Vec<String>]) -> Guess {
    let mut guesser = Guesser { columns, taken: Vec::new(), fields: Vec::new() };
    let key = guesser.key(keys);
    let user = guesser.find(EMAIL, is_text).is_some() || guesser.find(USER, is_id).is_some();
    let event = guesser.find(ACTION, is_text).is_some();
    let measured = guesser.find(VALUE, is_number).is_some() || guesser.find(DIMENSION, is_text).is_some();
    let metric = if measured && !event && (!user || guesser.find(DIMENSION, is_text).is_some()) {
        Some(guesser.metric(table))
    } else {
        guesser.activity(table);
        None
    };
    let receipt = !guesser.take("date", DATE, is_time) && !guesser.any_time();
    let rest = columns.iter().map(|column| column.name.clone()).filter(|name| !guesser.taken.contains(name)).collect();
    Guess { table: table.clone(), metric, key, receipt, fields: guesser.fields, rest }
}

struct Guesser<'a> {
    columns: &'a [Column],
    taken: Vec<String>,
    fields: Vec<Guessed>,
}

impl Guesser<'_> {
    /// The first unique index; a single column of it is not taken for a field, for it tells rows apart and nothing else.
    fn key(&mut self, keys: &[Vec<String>]) -> (Vec<String>, String) {
        if let Some(key) = keys.first() {
            if let [only] = &key[..] {
                self.taken.push(only.clone());
            }
            return (key.clone(), "unique by an index".to_owned());
        }
        let fits = |column: &&Column| {
            matches!(column.ty, Type::Int | Type::Numeric | Type::Timestamp | Type::TimestampTz | Type::Date)
        };
        let (name, why) = match self.columns.iter().find(fits) {
            Some(column) => (column.name.clone(), "NOT UNIQUE by any index: choose another, or make one"),
            None => (
                self.columns.first().map_or_else(|| "id".to_owned(), |column| column.name.clone()),
                "NO unique index: add a key (bigint GENERATED ALWAYS AS IDENTITY)",
            ),
        };
        self.taken.push(name.clone());
        (vec![name], why.to_owned())
    }

    /// The column whose name comes first in `names`, else one that ends so; of a fitting type and not taken.
    fn find(&self, names: &[&str], fits: fn(Type) -> bool) -> Option<String> {
        self.look(names, fits).map(|(column, _)| column.name.clone())
    }

    /// As [`Guesser::find`], with the reason.
    fn look(&self, names: &[&str], fits: fn(Type) -> bool) -> Option<(&Column, String)> {
        let free = || self.columns.iter().filter(|column| fits(column.ty) && !self.taken.contains(&column.name));
        let exact = names.iter().find_map(|name| free().find(|column| fold(&column.name) == *name));
        if let Some(column) = exact {
            return Some((column, because("by its name", column.ty)));
        }
        let mut long = names.iter().filter(|name| name.len() > 4);
        long.find_map(|name| {
            let column = free().find(|column| fold(&column.name).ends_with(name))?;
            Some((column, because(&format!("its name ends in {name}"), column.ty)))
        })
    }

    fn take(&mut self, field: &'static str, names: &[&str], fits: fn(Type) -> bool) -> bool {
        let Some((column, why)) = self.look(names, fits).map(|(column, why)| (column.name.clone(), why)) else {
            return false;
        };
        self.put(field, column, &why);
        true
    }

    fn put(&mut self, field: &'static str, column: String, why: &str) {
        self.taken.push(column.clone());
        self.fields.push(Guessed { field, from: GuessedSource::Column(column), why: why.to_owned() });
    }

    fn constant(&mut self, field: &'static str, value: String, why: &str) {
        self.fields.push(Guessed { field, from: GuessedSource::Constant(value), why: why.to_owned() });
    }

    fn activity(&mut self, table: &TableName) {
        let email = self.take("email", EMAIL, is_text);
        let user = self.take("externalId", USER, is_id);
        if email && user {
            self.mark_two_people();
        }
        if !email && !user {
            self.any("externalId", is_id, "guess; no better column found: the end user's id in your system");
        }
        if !self.take("action", ACTION, is_text) {
            self.constant("action", table.name.clone(), "no column looks like the event's name");
        }
        self.take("companyExternalId", COMPANY, is_id);
        self.take("weight", WEIGHT, is_number);
        self.take("info", INFO, |ty| ty == Type::Json);
    }

    /// Says so where the address and the id seem to be those of two people: `customer_email` and `author_id`.
    fn mark_two_people(&mut self) {
        let of = |field: &str, words: &[&str]| {
            let guessed = self.fields.iter().find(|guessed| guessed.field == field)?;
            let GuessedSource::Column(column) = &guessed.from else { return None };
            let name = fold(column);
            let whose = words.iter().fold(name.clone(), |name, word| name.replace(word, ""));
            (!whose.is_empty() && whose != "user").then_some(whose)
        };
        let (email, user) = (of("email", &["emailaddress", "email", "mail"]), of("externalId", &["uuid", "id"]));
        if let (Some(email), Some(user)) = (email, user)
            && email != user
            && let Some(guessed) = self.fields.iter_mut().find(|guessed| guessed.field == "externalId")
        {
            guessed.why = format!("{}; guess: is it the same person as {email}'s email?", guessed.why);
        }
    }

    fn metric(&mut self, table: &TableName) -> &'static str {
        if !self.take("dimensionId", DIMENSION, is_text) {
            self.constant("dimensionId", dimension(&table.name), "as the metric is called in Planhat");
        }
        if !self.take("value", VALUE, is_number) {
            self.any("value", is_number, "guess; no better column found: the metric's value");
        }
        let models = [
            ("Company", COMPANY),
            ("EndUser", USER),
            ("Project", &["projectid", "project"] as &[&str]),
            ("Asset", &["assetid", "asset", "deviceid", "device"]),
        ];
        for (model, names) in models {
            if self.take("externalId", names, is_id) {
                return model;
            }
        }
        self.any("externalId", is_id, "guess; no better column found: whose metric it is");
        "Company"
    }

    /// Any time at all is better than that of the receipt: one that tells of another matter only where there is no other.
    fn any_time(&mut self) -> bool {
        let free = || self.columns.iter().filter(|column| is_time(column.ty) && !self.taken.contains(&column.name));
        let beside = |column: &&Column| {
            let name = fold(&column.name);
            ["updat", "modif", "chang", "delet", "expir", "archiv", "birth", "due", "until", "end"]
                .iter()
                .any(|word| name.contains(word))
        };
        let Some(column) = free().find(|column| !beside(column)).or_else(|| free().next()) else { return false };
        let column = column.name.clone();
        self.put("date", column, "guess; no better column found: when it happened");
        true
    }

    /// Any column that fits, the key for want of one.
    fn any(&mut self, field: &'static str, fits: fn(Type) -> bool, why: &str) {
        let free = self.columns.iter().find(|column| fits(column.ty) && !self.taken.contains(&column.name));
        let column = free.map(|column| column.name.clone()).or_else(|| self.taken.first().cloned());
        self.put(field, column.unwrap_or_else(|| "id".to_owned()), why);
    }
}

/// Text is said of many types (uuid, inet, an enum): that is no reason.
fn because(why: &str, ty: Type) -> String {
    if ty == Type::Text { why.to_owned() } else { format!("{why} and type ({})", word(ty)) }
}

/// A type, for people.
fn word(ty: Type) -> &'static str {
    match ty {
        Type::Bool => "boolean",
        Type::Int => "integer",
        Type::Float | Type::Numeric => "number",
        Type::Json => "json",
        Type::Timestamp | Type::TimestampTz => "time",
        Type::Date => "date",
        Type::Char | Type::Text => "text",
    }
}

fn is_text(ty: Type) -> bool {
    matches!(ty, Type::Char | Type::Text)
}

fn is_id(ty: Type) -> bool {
    matches!(ty, Type::Char | Type::Text | Type::Int)
}

fn is_number(ty: Type) -> bool {
    matches!(ty, Type::Int | Type::Float | Type::Numeric)
}

fn is_time(ty: Type) -> bool {
    matches!(ty, Type::Timestamp | Type::TimestampTz | Type::Date)
}

fn fold(name: &str) -> String {
    name.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect()
}

/// Without spaces and special characters.
fn dimension(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.is_empty() { "metric".to_owned() } else { name }
}

impl Guess {
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
        if self.receipt {
            section["date"] = json!("receipt");
        }
        section["fields"] = Value::Object(fields);
        section
    }

    fn kind(&self) -> &'static str {
        if self.metric.is_some() { "custom_metric" } else { "user_activity" }
    }

    fn name(&self) -> String {
        let fine = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' };
        let name: String = self.table.name.chars().map(fine).take(63).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::config::Kind;
    use proptest::prelude::*;

    fn columns(list: &[(&str, Type)]) -> Vec<Column> {
        list.iter().map(|(name, ty)| Column { name: (*name).to_owned(), ty: *ty }).collect()
    }

    fn table(name: &str) -> TableName {
        TableName { schema: "public".into(), name: name.into() }
    }

    fn load(guess: &Guess) -> crate::config::Section {
        let head = "source: {host: h, database: d, user: u}\nplanhat: {tenant: t}\nsections:\n";
        let text = format!("{head}{}", guess.yaml());
        let mut config = config::parse(&text, "guess").unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        config.sections.remove(0)
    }

    #[test]
    fn an_event_table_is_an_activity() {
        let columns = columns(&[
            ("id", Type::Int),
            ("user_email", Type::Text),
            ("user_id", Type::Int),
            ("event_name", Type::Text),
            ("amount", Type::Numeric),
            ("account_id", Type::Text),
            ("properties", Type::Json),
            ("created_at", Type::TimestampTz),
            ("client_ip", Type::Text),
        ]);
        let guess = guess(&table("app_event"), &columns, &[vec!["id".into()]]);
        let expected = json!({"name": "app_event", "kind": "user_activity", "table": "public.app_event", "key": "id", "fields": {
            "email": "user_email", "externalId": "user_id", "action": "event_name", "companyExternalId": "account_id",
            "weight": "amount", "info": "properties", "date": "created_at"}});
        assert_eq!(guess.json(), expected);
        assert!(guess.yaml().contains("# not mapped: client_ip"));
        assert_eq!(load(&guess).kind, Kind::UserActivity);
        crate::mapping::Mapping::compile(&load(&guess), config::ActivityNames::Current, &columns).unwrap();
    }

    #[test]
    fn a_table_of_numbers_is_a_metric() {
        let columns =
            columns(&[("id", Type::Int), ("account_id", Type::Int), ("day", Type::Date), ("seats", Type::Int)]);
        let guess = guess(&table("usage daily"), &columns, &[vec!["id".into()]]);
        let expected = json!({"name": "usage_daily", "kind": "custom_metric", "model": "Company",
            "table": "public.\"usage daily\"", "key": "id", "fields": {"dimensionId": {"value": "usage_daily"},
            "value": "seats", "externalId": "account_id", "date": "day"}});
        assert_eq!(guess.json(), expected);
        assert_eq!(load(&guess).table.name, "usage daily");
    }

    /// The usual names of a time, none of which is left to the receipt.
    #[test]
    fn a_time_column_is_the_date_and_never_the_receipt() {
        for name in [
            "start_time",
            "finished",
            "sent",
            "seen_at",
            "login_at",
            "clicked",
            "when",
            "event_ts",
            "datetime",
            "tstamp",
            "last_activity",
            "opened_on",
            "purchase_date",
            "valid_from",
            "stamp",
            "updated_at",
            "birthday",
        ] {
            let columns = columns(&[("id", Type::Int), ("user_id", Type::Int), (name, Type::Timestamp)]);
            let guess = guess(&table("t"), &columns, &[vec!["id".into()]]);
            assert_eq!(guess.json()["fields"]["date"], name, "{}", guess.yaml());
            assert!(guess.json().get("date").is_none());
        }
        let columns = columns(&[("id", Type::Int), ("deleted_at", Type::Timestamp), ("seen", Type::Timestamp)]);
        let guess = guess(&table("t"), &columns, &[vec!["id".into()]]);
        assert_eq!(guess.json()["fields"]["date"], "seen");
        assert!(guess.yaml().contains("guess; no better column found: when it happened"));
    }

    #[test]
    fn people_are_found_by_their_names_before_any_number() {
        for name in ["author_id", "actor_id", "created_by", "owner_id", "user_uuid", "subscriber_id", "distinct_id"] {
            let columns =
                columns(&[("id", Type::Int), ("size", Type::Int), (name, Type::Text), ("action", Type::Text)]);
            assert_eq!(guess(&table("t"), &columns, &[vec!["id".into()]]).json()["fields"]["externalId"], name);
        }
        let columns = columns(&[
            ("id", Type::Int),
            ("customer_email", Type::Text),
            ("author_id", Type::Int),
            ("action", Type::Text),
        ]);
        assert!(
            guess(&table("t"), &columns, &[vec!["id".into()]])
                .yaml()
                .contains("is it the same person as customer's email?")
        );
    }

    fn any_type() -> impl Strategy<Value = Type> {
        prop::sample::select(vec![
            Type::Bool,
            Type::Int,
            Type::Float,
            Type::Numeric,
            Type::Timestamp,
            Type::TimestampTz,
            Type::Date,
            Type::Json,
            Type::Text,
        ])
    }

    fn any_name() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-zA-Z_\"'. é#:{}-]{1,20}",
            prop::sample::select(vec![
                "id",
                "email",
                "user_id",
                "value",
                "account_id",
                "created_at",
                "no",
                "null",
                "event"
            ])
            .prop_map(str::to_owned),
        ]
    }

    proptest! {
        #[test]
        fn whatever_the_table_the_section_loads(
            name in any_name(),
            columns in prop::collection::vec((any_name(), any_type()), 1..8),
        ) {
            let columns: Vec<Column> = columns.into_iter().map(|(name, ty)| Column { name, ty }).collect();
            let section = load(&guess(&table(&name), &columns, &[]));
            prop_assert_eq!(section.table.name, name);
        }
    }
}
