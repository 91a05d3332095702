//! The first sections for a table, guessed from its columns' names and types. Pure.
//!
//! * In: a table's columns, and those that could be its key.
//! * Out: [`Guess`]es.
//! * Never: a section that the configuration's reader refuses.

use crate::config::TableName;
use crate::mapping::guessed_section::{Guess, Guessed, GuessedSource};
use crate::mapping::usual_names::{
    ACTION, CODE, COMPANY, DATE, DAY, DIMENSION, EMAIL, INFO, USER, VAGUE, VALUE, WEIGHT,
};
use crate::model::{Column, Type};

/// Guesses the sections of a table: one, but for a table of several numbers a day, where each number is a metric of its own.
/// `keys`: the columns of each unique index, the best first.
pub(crate) fn guess(table: &TableName, columns: &[Column], keys: &[Vec<String>]) -> Vec<Guess> {
    let mut guesser = Guesser { columns, taken: Vec::new(), fields: Vec::new() };
    let key = guesser.key(keys);
    let user = guesser.find(EMAIL, is_text).is_some() || guesser.find(USER, is_id).is_some();
    let event = guesser.find(ACTION, is_text).is_some();
    let dimension = guesser.find(DIMENSION, is_text).is_some();
    let numbers = guesser.numbers_of_a_wide_table();
    if !event && !dimension && !numbers.is_empty() {
        return numbers.iter().map(|number| wide(table, guesser.clone(), &key, number, &numbers)).collect();
    }
    let measured = guesser.find(VALUE, is_number).is_some() || dimension;
    let metric = if measured && !event && (!user || dimension) {
        Some(guesser.metric(table))
    } else {
        guesser.activity(table);
        None
    };
    let receipt = !guesser.take("date", DATE, is_time) && !guesser.any_time();
    vec![guesser.guessed(table, None, metric, key, receipt)]
}

/// The section of one number of a wide table.
fn wide(
    table: &TableName,
    mut guesser: Guesser<'_>,
    key: &(Vec<String>, String),
    number: &str,
    numbers: &[String],
) -> Guess {
    guesser.constant("dimensionId", dimension(number), "as the metric is called in Planhat");
    guesser.put("value", number.to_owned(), "guess: each column of numbers is a metric of its own");
    guesser.taken.extend(numbers.iter().cloned());
    let model = guesser.owner();
    let receipt = !guesser.take("date", DATE, is_time) && !guesser.any_time();
    guesser.guessed(table, Some(number.to_owned()), Some(model), key.clone(), receipt)
}

#[derive(Clone)]
struct Guesser<'a> {
    columns: &'a [Column],
    taken: Vec<String>,
    fields: Vec<Guessed>,
}

impl Guesser<'_> {
    /// What was guessed, as a section.
    fn guessed(
        self,
        table: &TableName,
        number: Option<String>,
        metric: Option<&'static str>,
        key: (Vec<String>, String),
        receipt: bool,
    ) -> Guess {
        let free = |name: &String| !self.taken.contains(name);
        let rest = self.columns.iter().map(|column| column.name.clone()).filter(free).collect();
        Guess { table: table.clone(), number, metric, key, receipt, fields: self.fields, rest, reading: None }
    }

    /// The numbers of a table that has nothing but them, a day or time, and whose they are: `account_id, day, logins,
    /// api_calls`. One number with a usual name is no wide table.
    fn numbers_of_a_wide_table(&self) -> Vec<String> {
        let free = || self.columns.iter().filter(|column| !self.taken.contains(&column.name));
        let is_id = |column: &&Column| fold(&column.name).ends_with("id");
        let Some(owner) = self.find(COMPANY, self::is_id).or_else(|| self.find(USER, self::is_id)) else {
            return Vec::new();
        };
        let says_more = |column: &Column| {
            (is_text(column.ty) || column.ty == Type::Json) && !is_id(&column) && column.name != owner
        };
        let is_day = |column: &Column| {
            let name = fold(&column.name);
            column.ty == Type::Date || (is_time(column.ty) && DAY.iter().any(|word| name.ends_with(word)))
        };
        if !free().any(is_day) || free().any(says_more) {
            return Vec::new();
        }
        let is_code = |column: &Column| {
            let name = fold(&column.name);
            CODE.iter().any(|word| name.ends_with(word))
        };
        let is_value =
            |column: &&Column| is_number(column.ty) && !is_id(column) && !is_code(column) && column.name != owner;
        let numbers: Vec<String> = free().filter(is_value).map(|column| column.name.clone()).collect();
        if numbers.len() == 1 && self.find(VALUE, is_number).is_some() { Vec::new() } else { numbers }
    }

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
        // A key for want of a better one is most of all what its name says: whose the row is, or when it was.
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
        let name = fold(&column);
        let others: Vec<&str> = self
            .columns
            .iter()
            .filter(|other| fits(other.ty) && other.name != column)
            .map(|other| other.name.as_str())
            .filter(|other| !self.taken.iter().any(|taken| taken == other) && is_named(&fold(other), names))
            .collect();
        let why = match others.as_slice() {
            [] if VAGUE.contains(&name.as_str()) => format!("{why}; guess: such a name says little"),
            [] => why,
            others => format!("{why}; guess: or is it {}?", others.join(" or ")),
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
        self.owner()
    }

    /// Whose metric it is.
    fn owner(&mut self) -> &'static str {
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
        let key = || self.taken.first().or(self.columns.first().map(|column| &column.name)).cloned();
        let column = free.map(|column| column.name.clone()).or_else(key);
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

/// Whether a folded name is one of these, or ends in a long one.
fn is_named(name: &str, names: &[&str]) -> bool {
    names.iter().any(|known| name == *known || (known.len() > 4 && name.ends_with(known)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::config::Kind;
    use proptest::prelude::*;
    use serde_json::json;

    fn columns(list: &[(&str, Type)]) -> Vec<Column> {
        list.iter().map(|(name, ty)| Column { name: (*name).to_owned(), ty: *ty }).collect()
    }

    fn table(name: &str) -> TableName {
        TableName { schema: "public".into(), name: name.into() }
    }

    fn guess(table: &TableName, columns: &[Column], keys: &[Vec<String>]) -> Guess {
        let mut all = super::guess(table, columns, keys);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
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
    fn a_wide_table_is_a_metric_for_each_number() {
        let wide = columns(&[
            ("account_id", Type::Int),
            ("day", Type::Date),
            ("logins", Type::Int),
            ("api calls", Type::Numeric),
            ("is_trial", Type::Bool),
        ]);
        let all = super::guess(&table("usage_daily"), &wide, &[]);
        let value = |guess: &Guess| {
            (
                guess.name(),
                guess.json()["fields"]["value"].clone(),
                guess.json()["fields"]["dimensionId"]["value"].clone(),
            )
        };
        let expected =
            [("usage_daily_logins", "logins", "logins"), ("usage_daily_api_calls", "api calls", "api_calls")];
        let expected = expected.map(|(name, column, metric)| (name.to_owned(), json!(column), json!(metric)));
        assert_eq!(all.iter().map(value).collect::<Vec<_>>(), expected);
        for guess in &all {
            assert_eq!(
                (&guess.json()["fields"]["externalId"], &guess.json()["fields"]["date"]),
                (&json!("account_id"), &json!("day"))
            );
            assert_eq!(load(guess).kind, Kind::CustomMetric(crate::config::Model::Company));
        }
        // Text tells of events, and ids are no measures.
        for more in [("page", Type::Text), ("payload", Type::Json)] {
            let mut columns = wide.clone();
            columns.extend(self::columns(&[more]));
            assert_eq!(super::guess(&table("t"), &columns, &[]).len(), 1);
        }
        let likes = columns(&[
            ("id", Type::Int),
            ("user_id", Type::Int),
            ("post_id", Type::Int),
            ("created_at", Type::Timestamp),
        ]);
        assert_eq!(guess(&table("likes"), &likes, &[vec!["id".into()]]).kind(), "user_activity");
    }

    #[test]
    fn what_could_be_another_column_is_marked() {
        let all = [
            ("id", Type::Int),
            ("organization_id", Type::Text),
            ("external_customer_id", Type::Text),
            ("user_id", Type::Int),
            ("type", Type::Text),
            ("timestamp", Type::Timestamp),
            ("created_at", Type::Timestamp),
        ];
        let yaml = guess(&table("t"), &columns(&all), &[vec!["id".into()]]).yaml();
        for wanted in [
            "guess: or is it external_customer_id?",
            "guess: such a name says little",
            "date: timestamp",
            "guess: or is it created_at?",
        ] {
            assert!(yaml.contains(wanted), "{wanted} in {yaml}");
        }
        let user = yaml.lines().find(|line| line.contains("externalId: user_id")).unwrap();
        assert!(!user.contains("guess"), "{yaml}");
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
            for guess in super::guess(&table(&name), &columns, &[]) {
                prop_assert_eq!(load(&guess).table.name, name.clone());
            }
        }
    }
}
