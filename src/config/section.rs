//! One entry of `sections`.
//!
//! * In: its mapping, and the schema of unqualified tables.
//! * Out: a [`Section`].
//! * Never: an answer to whether the table is there; `check` says that.

use crate::config::config_error::{Complaint, shown};
use crate::config::decoder::Map;
use crate::config::keys::{FLUSH, START};
use crate::config::yaml::{Node, NodeValue};
use crate::config::{BatchLimits, Flush, InDoubt, Kind, Model, Section, Start, Sync, fields, names, scalar};
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
    Section {
        name: SectionName::from(name.as_str()),
        kind: kind.unwrap_or(Kind::UserActivity),
        sync: sync(map),
        table: map
            .read("table", |text| names::table(text, default_schema))
            .unwrap_or_else(|| crate::config::TableName { schema: String::new(), name: String::new() }),
        key: key(map),
        start: start(map),
        batch: batch(&map.object("batch"), kind),
        flush: flush(map),
        in_doubt: map.choice("in_doubt", in_doubt).unwrap_or_default(),
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
    if let Some(node) = map.given("flush")
        && matches!(node.value, NodeValue::Map(_))
    {
        let (at, zone) = daily(&map.within(node, FLUSH, "flush"));
        return Flush::DailyAt(at, zone);
    }
    Flush::Every(map.read("flush", scalar::positive_duration).unwrap_or_default())
}
