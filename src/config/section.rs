//! One entry of `sections`.
//!
//! * In: its mapping, and the schema of unqualified tables.
//! * Out: a [`Section`].
//! * Never: an answer to whether the table is there; `check` says that.

use std::time::Duration;

use crate::config::config_error::{Complaint, shown};
use crate::config::decoder::Map;
use crate::config::keys::{FLUSH, START};
use crate::config::yaml::{Node, NodeValue};
use crate::config::{
    BatchLimits, DiffMode, Field, Flush, InDoubt, Kind, Model, OnNull, ReadMode, RowVersions, Section, Start, Sync,
    TableName, condition, fields, names, scalar,
};
use crate::model::SectionName;

/// Planhat takes 32 MB a body; this is the safe side of it (docs/planhat.md).
const MOST_BYTES: u64 = 30_000_000;

/// Each of them can be in doubt after a crash.
const MOST_IN_FLIGHT: u8 = 8;

pub(crate) fn section(map: &Map<'_>, default_schema: &str) -> Section {
    let kind = kind(map);
    let name = map.read("name", names::section).unwrap_or_default();
    let date_receipt = map.choice("date", |word| (word == "receipt").then_some(true)).unwrap_or_default();
    let fields = fields::fields(map, kind, date_receipt);
    let read = read(map, &fields);
    let on = on(map, &read);
    Section {
        name: SectionName::from(name.as_str()),
        kind: kind.unwrap_or(Kind::UserActivity),
        sync: sync(map),
        table: table(map, default_schema),
        key: key(map),
        start: start(map),
        read,
        on,
        batch: batch(&map.object("batch"), kind),
        flush: flush(map),
        in_doubt: map.choice("in_doubt", in_doubt).unwrap_or_default(),
        conditions: condition::conditions(map),
        on_null: map.choice("on_null", on_null).unwrap_or_default(),
        fields,
        date_receipt,
        timezone: map.given("timezone").and_then(|_| map.read("timezone", scalar::zone)),
    }
}

/// The key's columns: one name, or a list of names.
fn key(map: &Map<'_>) -> Vec<String> {
    const REMEDY: &str = "write one column, or a list of them, such as [id, created_at]";
    let Some(Node { value: NodeValue::List(items), at }) = map.given("key") else {
        return map.read("key", names::identifier).into_iter().collect();
    };
    let mut columns: Vec<String> = Vec::new();
    for item in items {
        let NodeValue::Scalar(text, _) = &item.value else {
            map.report(item.at, format!("{} must hold names, not {}", map.path("key"), item.describe()), REMEDY);
            continue;
        };
        match names::identifier(text) {
            Ok(name) if columns.contains(&name) => {
                map.report(item.at, format!("{} has the column {} twice", map.path("key"), shown(&name)), "keep one");
            }
            Ok(name) => columns.push(name),
            Err(Complaint { message, remedy }) => {
                map.report(item.at, format!("{}: {message}", map.path("key")), remedy);
            }
        }
    }
    if items.is_empty() {
        map.report(*at, format!("{} has no columns", map.path("key")), REMEDY);
    }
    columns
}

/// The kind, or `None` where it is not known.
fn kind(map: &Map<'_>) -> Option<Kind> {
    let model = map.choice("model", model).unwrap_or_default();
    let kind = map.choice("kind", |word| match word {
        "user_activity" => Some(Kind::UserActivity),
        "custom_metric" => Some(Kind::CustomMetric(model)),
        _ => None,
    });
    if let (Some(Kind::UserActivity), Some(_), Some(at)) = (kind, map.given("model"), map.key_mark("model")) {
        let message = format!("{}: a user activity has no model", map.path("model"));
        map.report(at, message, "remove the key, or write `kind: custom_metric`");
    }
    kind
}

pub(crate) fn model(word: &str) -> Option<Model> {
    [Model::Company, Model::EndUser, Model::Project, Model::Asset].into_iter().find(|model| model.as_str() == word)
}

pub(crate) fn in_doubt(word: &str) -> Option<InDoubt> {
    match word {
        "resend" => Some(InDoubt::Resend),
        "hold" => Some(InDoubt::Hold),
        _ => None,
    }
}

/// The table; a query has the name of none.
fn table(map: &Map<'_>, default_schema: &str) -> TableName {
    let query = map.given("query");
    match (map.given("table"), query) {
        (Some(_), Some(_)) => {
            let at = map.key_mark("query").unwrap_or(map.at);
            let message = format!("{}: a section reads a table or a query, not both", map.path("query"));
            map.report(at, message, "remove `table` or `query`");
        }
        (None, None) => map.missing("table"),
        (Some(_), None) | (None, Some(_)) => {}
    }
    let named = map.read("table", |text| names::table(text, default_schema));
    named.unwrap_or_else(|| TableName { schema: String::new(), name: String::new() })
}

/// How rows are read. The keys of one way are refused beside the other: a key that does nothing would be believed.
fn read(map: &Map<'_>, fields: &[(String, Field)]) -> ReadMode {
    let is_diff = map.choice("read", |word| Some(word == "diff")).unwrap_or_default();
    let query = map.read("query", query);
    let send_changed = map.choice("send", |word| Some(word == "new_and_changed")).unwrap_or(true);
    let given = map.given("every").is_some();
    let every = given.then(|| schedule(map, "every", least_interval)).flatten();
    let within = map.read("within", scalar::positive_duration);
    if !is_diff {
        for name in ["query", "every", "send", "within"] {
            if let (Some(_), Some(at)) = (map.given(name), map.key_mark(name)) {
                let message = format!("{}: only a section with `read: diff` has this", map.path(name));
                map.report(at, message, "write `read: diff`, or remove the key");
            }
        }
        return ReadMode::Stream;
    }
    if let (Some(_), Some(at)) = (map.given("start"), map.key_mark("start")) {
        let message = format!("{}: `read: diff` begins with the whole result", map.path("start"));
        map.report(at, message, "remove `start`; narrow the result by `within`, or by a `query` with a WHERE");
    }
    if !given {
        let message = format!("{} is missing: `read: diff` compares at an interval", map.path("every"));
        map.report(
            map.key_mark("read").unwrap_or(map.at),
            message,
            "write `every: 10m`, or `every: { daily_at: \"02:00\" }`",
        );
    }
    if map.given("key").is_none() {
        map.missing("key");
    }
    let every = every.unwrap_or(Flush::Every(Duration::ZERO));
    let date = fields.iter().find(|(name, _)| name == "date");
    if let (Some(_), Some(at)) = (within, map.key_mark("within"))
        && !matches!(date, Some((_, Field::Column { .. })))
    {
        let message =
            format!("{}: it counts by the column of the field `date`, and none is mapped", map.path("within"));
        map.report(at, message, "map `date` to a column of a time type, or remove `within`");
    }
    ReadMode::Diff(DiffMode { query, every, send_changed, within })
}

/// Which versions of a row are sent; what is not written stays unknown, for `check` to ask.
fn on(map: &Map<'_>, read: &ReadMode) -> Option<RowVersions> {
    map.given("on")?;
    if let (ReadMode::Diff(_), Some(at)) = (read, map.key_mark("on")) {
        let message = format!("{}: a result is compared, and nothing tells an insert from an update", map.path("on"));
        map.report(at, message, "remove the key: `send` says whether a row is sent again when it changes");
    }
    map.choice("on", |word| match word {
        "insert" => Some(RowVersions::Inserted),
        "insert_and_update" => Some(RowVersions::Committed),
        _ => None,
    })
}

/// A query's text without what may stand behind it. That it is one SELECT is for the server to say: it is read as
/// `SELECT … FROM (query)`.
fn query(text: &str) -> Result<String, Complaint> {
    let text = text.trim().trim_end_matches(';').trim_end();
    let first: String = text.chars().take_while(char::is_ascii_alphabetic).collect();
    if ["select", "with", "values", "table"].contains(&first.to_ascii_lowercase().as_str()) {
        return Ok(text.to_owned());
    }
    Err(Complaint::new("a query is one SELECT", "begin it with SELECT or WITH; what writes is never run"))
}

/// An interval of at least a second.
fn least_interval(text: &str) -> Result<Duration, Complaint> {
    let interval = scalar::positive_duration(text)?;
    if interval < Duration::from_secs(1) {
        return Err(Complaint::new(format!("{} is less than a second", shown(text)), "write 1s or more, such as 10m"));
    }
    Ok(interval)
}

fn on_null(word: &str) -> Option<OnNull> {
    match word {
        "quarantine" => Some(OnNull::Quarantine),
        "skip" => Some(OnNull::Skip),
        _ => None,
    }
}

fn sync(map: &Map<'_>) -> Sync {
    // Tools that write YAML 1.1 turn a plain `off` into `false`.
    if let Some(Node { value: NodeValue::Scalar(text, true), .. }) = map.given("sync")
        && scalar::plain(text) == scalar::Plain::Bool(false)
    {
        return Sync::Off;
    }
    map.choice("sync", switch).unwrap_or_default()
}

pub(crate) fn switch(word: &str) -> Option<Sync> {
    match word {
        "receive" => Some(Sync::Receive),
        "off" => Some(Sync::Off),
        _ => None,
    }
}

fn start(map: &Map<'_>) -> Start {
    if let Some(node) = map.given("start")
        && matches!(node.value, NodeValue::Map(_))
    {
        let inner = map.within(node, START, "start");
        return inner.read("after_key", names::text).map_or(Start::Backfill, Start::AfterKey);
    }
    let word = |text: &str| match text {
        "backfill" => Ok(Start::Backfill),
        "now" => Ok(Start::Now),
        _ => Err(Complaint::new(
            format!("{} is neither backfill nor now nor {{ after_key: … }}", shown(text)),
            "write `start: backfill`, `start: now` or `start: { after_key: 123 }`",
        )),
    };
    map.read("start", word).unwrap_or_default()
}

fn batch(map: &Map<'_>, kind: Option<Kind>) -> BatchLimits {
    let bytes = |text: &str| match scalar::size(text)? {
        0 => Err(Complaint::new("a batch of no bytes", "write a size, such as 8MiB")),
        bytes if bytes > MOST_BYTES => Err(Complaint::new(
            format!("{} is {bytes} bytes, and Planhat takes no more than 30000000 in a request", shown(text)),
            "write at most 30MB, such as 8MiB",
        )),
        bytes => Ok(bytes),
    };
    BatchLimits {
        rows: map.read("rows", scalar::count).unwrap_or_default(),
        bytes: map.read("bytes", bytes).unwrap_or_default(),
        in_flight: in_flight(map, kind),
    }
}

/// Values of a metric must arrive in order, or the last one of a day is not the last: only activities may overtake.
fn in_flight(map: &Map<'_>, kind: Option<Kind>) -> u8 {
    let read = |text: &str| {
        let count = text.parse::<u8>().ok().filter(|count| (1..=MOST_IN_FLIGHT).contains(count));
        count.ok_or_else(|| {
            Complaint::new(
                format!("{} is not a number from 1 to {MOST_IN_FLIGHT}", shown(text)),
                "write a number from 1 to 8",
            )
        })
    };
    let count = map.read("in_flight", read).unwrap_or(1);
    if let (Some(Kind::CustomMetric(_)), 2.., Some(at)) = (kind, count, map.key_mark("in_flight")) {
        let message =
            format!("{}: the values of a custom metric are sent one request after the other", map.path("in_flight"));
        map.report(
            at,
            message,
            "remove the key: Planhat shows the last value of a day, and requests side by side overtake each other",
        );
    }
    count
}

/// Decodes `daily_at` and `timezone`.
pub(crate) fn daily(map: &Map<'_>) -> (jiff::civil::Time, jiff::tz::TimeZone) {
    let at = map.read("daily_at", scalar::time_of_day).unwrap_or_default();
    (at, map.read("timezone", scalar::zone).unwrap_or(jiff::tz::TimeZone::UTC))
}

fn flush(map: &Map<'_>) -> Flush {
    schedule(map, "flush", scalar::positive_duration).unwrap_or(Flush::Every(Duration::ZERO))
}

/// An interval, or a time of day.
fn schedule(
    map: &Map<'_>,
    name: &'static str,
    interval: impl Fn(&str) -> Result<Duration, Complaint>,
) -> Option<Flush> {
    if let Some(node) = map.given(name)
        && matches!(node.value, NodeValue::Map(_))
    {
        let (at, zone) = daily(&map.within(node, FLUSH, name));
        return Some(Flush::DailyAt(at, zone));
    }
    map.read(name, interval).map(Flush::Every)
}
