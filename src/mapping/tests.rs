//! The room's rules, through its door.

use super::*;
use proptest::prelude::*;
use serde::de::IgnoredAny;

use crate::config::{
    ActivityNames, BatchLimits, Constant, Field, Flush, InDoubt, Kind, Model, OnNull, Section, Start, Sync, TableName,
};
use crate::model::{Cell, Column, CommitTime, Row, Type};

const METRIC: Kind = Kind::CustomMetric(Model::EndUser);

fn section(kind: Kind, fields: Vec<(&str, Field)>) -> Section {
    Section {
        name: "s".into(),
        kind,
        sync: Sync::Receive,
        table: TableName { schema: "public".into(), name: "t".into() },
        key: vec!["id".into()],
        start: Start::Backfill,
        read: crate::config::ReadMode::default(),
        batch: BatchLimits { rows: 10_000, bytes: 8 << 20, in_flight: 1 },
        flush: Flush::Every(std::time::Duration::from_secs(5)),
        in_doubt: InDoubt::Resend,
        conditions: Vec::new(),
        on: None,
        on_null: OnNull::Quarantine,
        fields: fields.into_iter().map(|(name, field)| (name.to_owned(), field)).collect(),
        date_receipt: false,
        timezone: None,
    }
}

fn col(name: &str) -> Field {
    Field::Column { column: name.into(), default: None, as_text: false }
}

fn col_or(name: &str, default: Constant) -> Field {
    Field::Column { column: name.into(), default: Some(default), as_text: false }
}

fn text(value: &str) -> Field {
    Field::Constant(Constant::Text(value.into()))
}

fn object(members: Vec<(&str, Field)>) -> Field {
    Field::Object(members.into_iter().map(|(name, field)| (name.to_owned(), field)).collect())
}

fn columns(columns: &[(&str, Type)]) -> Vec<Column> {
    columns.iter().map(|(name, ty)| Column { name: (*name).to_owned(), ty: *ty }).collect()
}

/// A row whose first column is the key.
pub(crate) struct Cells(Vec<u8>, Vec<Cell>);

impl Cells {
    pub(crate) fn new(values: &[Option<&[u8]>]) -> Cells {
        let mut cells = Cells(Vec::new(), Vec::new());
        for value in values {
            cells.1.push(value.map_or(Cell::NULL, |value| {
                Cell::text(u32::try_from(cells.0.len()).unwrap(), u32::try_from(value.len()).unwrap())
            }));
            cells.0.extend_from_slice(value.unwrap_or_default());
        }
        cells
    }

    pub(crate) fn row(&self) -> Row<'_> {
        Row { data: &self.0, cells: &self.1 }
    }
}

fn encode(mapping: &Mapping, time: CommitTime, values: &[Option<&str>]) -> Result<String, String> {
    let cells = Cells::new(&values.iter().map(|value| value.map(str::as_bytes)).collect::<Vec<_>>());
    let mut out = b"[".to_vec();
    match mapping.encode(&cells.row(), time, &mut out) {
        Ok(()) => {
            let item = String::from_utf8(out).unwrap().split_off(1);
            assert!(serde_json::from_str::<IgnoredAny>(&item).is_ok(), "{item}");
            Ok(item)
        }
        Err(refusal) => {
            assert_eq!(out, b"[", "a refusal leaves the buffer as it was");
            Err(refusal.to_string())
        }
    }
}

fn metric_of(value: Type, more: Vec<(&str, Field)>) -> Mapping {
    let mut fields = vec![("dimensionId", text("seats")), ("value", col("n")), ("externalId", col("who"))];
    fields.extend(more);
    let columns = columns(&[
        ("id", Type::Int),
        ("n", value),
        ("who", Type::Text),
        ("at", Type::TimestampTz),
        ("day", Type::Date),
    ]);
    Mapping::compile(&section(METRIC, fields), ActivityNames::Current, &columns).unwrap()
}

fn activity(fields: Vec<(&str, Field)>, types: &[(&str, Type)], names: ActivityNames) -> Mapping {
    let columns: Vec<_> = std::iter::once(("id", Type::Int)).chain(types.iter().copied()).collect();
    Mapping::compile(&section(Kind::UserActivity, fields), names, &self::columns(&columns)).unwrap()
}

#[test]
fn a_metric_has_its_fields_in_order_then_model_then_commit_time() {
    let mapping = metric_of(Type::Numeric, vec![]);
    let time = CommitTime::Micros(757_653_845_123_456);
    assert_eq!(
        encode(&mapping, time, &[Some("1"), Some("12.50"), Some("acme")]).unwrap(),
        r#"{"dimensionId":"seats","value":12.50,"externalId":"acme","model":"EndUser","date":"2024-01-04T03:24:05.123Z"}"#
    );
    assert_eq!(
        encode(&mapping, CommitTime::Unknown, &[Some("1"), Some("12.50"), Some("acme")]).unwrap(),
        r#"{"dimensionId":"seats","value":12.50,"externalId":"acme","model":"EndUser"}"#
    );
    assert_eq!(mapping.key_columns(), [0]);
    assert_eq!(mapping.columns_used().collect::<Vec<_>>(), [0, 1, 2]);
    let never = encode(&mapping, CommitTime::Micros(i64::MAX), &[Some("1"), Some("1"), Some("a")]).unwrap_err();
    assert_eq!(never, "date: not within the years 0001 to 9999: \"9223372036854775807 µs since 2000\"");
}

#[test]
fn a_mapped_date_comes_where_it_is_written_and_is_left_out_where_null() {
    let mapping = metric_of(Type::Int, vec![("date", col("at"))]);
    let time = CommitTime::Micros(0);
    assert_eq!(
        encode(&mapping, time, &[Some("1"), Some("2"), Some("a"), Some("2024-01-02 03:04:05.12+00")]).unwrap(),
        r#"{"dimensionId":"seats","value":2,"externalId":"a","date":"2024-01-02T03:04:05.120Z","model":"EndUser"}"#
    );
    assert_eq!(
        encode(&mapping, time, &[Some("1"), Some("2"), Some("a"), None]).unwrap(),
        r#"{"dimensionId":"seats","value":2,"externalId":"a","model":"EndUser"}"#
    );
    assert!(encode(&mapping, time, &[Some("1"), Some("2"), Some("a"), Some("infinity")]).is_err());
    let mapping = metric_of(Type::Int, vec![("date", col("day"))]);
    let item = encode(&mapping, time, &[Some("1"), Some("2"), Some("a"), None, Some("2024-02-29")]).unwrap();
    assert!(item.contains(r#""date":"2024-02-29T00:00:00.000Z""#), "{item}");
}

#[test]
fn a_metric_without_its_mandatory_values_is_refused() {
    let mapping = metric_of(Type::Text, vec![]);
    let refused = |values: &[Option<&str>]| encode(&mapping, CommitTime::Unknown, values).unwrap_err();
    assert_eq!(refused(&[Some("1"), None, Some("a")]), "value is NULL");
    assert_eq!(refused(&[Some("1"), Some(""), Some("a")]), "value is empty");
    assert_eq!(refused(&[Some("1"), Some("NaN"), Some("a")]), "value: not a finite number: \"NaN\"");
    assert_eq!(refused(&[Some("1"), Some("2"), None]), "externalId is NULL");
    assert_eq!(refused(&[Some("1"), Some("2"), Some("")]), "externalId is empty");
    assert_eq!(refused(&[Some("1"), Some("2")]), "externalId is NULL", "a row of fewer columns");
}

#[test]
fn a_value_too_large_to_hold_is_refused_only_where_it_is_mapped() {
    let mapping = metric_of(Type::Int, vec![]);
    let mut cells = Cells::new(&[Some(b"1"), Some(b"2"), Some(b"a"), None]);
    cells.1[3] = Cell::OVERSIZE;
    let mut out = Vec::new();
    assert!(mapping.encode(&cells.row(), CommitTime::Unknown, &mut out).is_ok());
    cells.1[2] = Cell::OVERSIZE;
    let refusal = mapping.encode(&cells.row(), CommitTime::Unknown, &mut out).unwrap_err();
    assert_eq!((refusal.to_string().as_str(), refusal.word()), ("externalId is too large", "too_large"));
    assert_eq!(mapping.describe(&cells.row()), r#"{"id":"1","n":"2","who":"(too large to hold)"}"#);
}

#[test]
fn an_activity_needs_one_of_two_names() {
    let types = [("mail", Type::Text), ("uid", Type::Int), ("act", Type::Text)];
    let fields = vec![("email", col("mail")), ("externalId", col("uid")), ("action", col("act"))];
    let both = activity(fields, &types, ActivityNames::Current);
    let encoded = |values: &[Option<&str>]| encode(&both, CommitTime::Unknown, values);
    assert_eq!(
        encoded(&[Some("1"), Some("a@b"), Some("-9223372036854775808"), Some("")]).unwrap(),
        r#"{"email":"a@b","externalId":"-9223372036854775808","action":""}"#
    );
    assert_eq!(encoded(&[Some("1"), None, Some("7"), None]).unwrap(), r#"{"externalId":"7"}"#);
    assert_eq!(encoded(&[Some("1"), Some(""), Some("7"), None]).unwrap(), r#"{"externalId":"7"}"#);
    let neither = "email and externalId are both NULL or empty";
    assert_eq!(encoded(&[Some("1"), Some(""), None, Some("x")]).unwrap_err(), neither);

    let one = activity(vec![("email", col("mail"))], &types, ActivityNames::Current);
    assert_eq!(encode(&one, CommitTime::Unknown, &[Some("1"), Some("a@b")]).unwrap(), r#"{"email":"a@b"}"#);
    assert_eq!(encode(&one, CommitTime::Unknown, &[Some("1"), None]).unwrap_err(), "email is NULL");

    let fallback = vec![("email", col("mail")), ("externalId", col_or("uid", Constant::Number("0".into())))];
    let fallback = activity(fallback, &types, ActivityNames::Current);
    assert_eq!(encode(&fallback, CommitTime::Unknown, &[Some("1"), None, None]).unwrap(), r#"{"externalId":"0"}"#);

    let constant = activity(vec![("email", col("mail")), ("externalId", text("all"))], &types, ActivityNames::Current);
    assert_eq!(encode(&constant, CommitTime::Unknown, &[Some("1"), None]).unwrap(), r#"{"externalId":"all"}"#);
}

#[test]
fn legacy_names_are_for_bulk_activities_alone() {
    let types = [("uid", Type::Text), ("cid", Type::Text), ("n", Type::Float)];
    let fields = || {
        let info = object(vec![("weight", col("n"))]);
        vec![("externalId", col("uid")), ("companyExternalId", col("cid")), ("weight", col("n")), ("info", info)]
    };
    let row = [Some("1"), Some("u"), Some("c"), Some("1e+20")];
    assert_eq!(
        encode(&activity(fields(), &types, ActivityNames::Legacy), CommitTime::Unknown, &row).unwrap(),
        r#"{"euExtId":"u","cId":"c","count":1e+20,"info":{"weight":1e+20}}"#
    );
    assert_eq!(
        encode(&activity(fields(), &types, ActivityNames::Current), CommitTime::Unknown, &row).unwrap(),
        r#"{"externalId":"u","companyExternalId":"c","weight":1e+20,"info":{"weight":1e+20}}"#
    );
    let metric = vec![("dimensionId", text("d")), ("value", col("n")), ("externalId", col("uid"))];
    let columns = columns(&[("id", Type::Int), ("n", Type::Int), ("uid", Type::Text)]);
    let mapping = Mapping::compile(&section(METRIC, metric), ActivityNames::Legacy, &columns).unwrap();
    let item = encode(&mapping, CommitTime::Unknown, &[Some("1"), Some("2"), Some("u")]).unwrap();
    assert!(item.contains("externalId"), "{item}");
}

#[test]
fn info_takes_every_type_and_vanishes_when_empty() {
    let types = [
        ("uid", Type::Text),
        ("b", Type::Bool),
        ("i", Type::Int),
        ("n", Type::Numeric),
        ("at", Type::TimestampTz),
        ("d", Type::Date),
        ("j", Type::Json),
        ("t", Type::Text),
    ];
    let members = ["b", "i", "n", "at", "d", "j", "t"].map(|name| (name, col(name))).to_vec();
    let mapping = activity(vec![("externalId", col("uid")), ("info", object(members))], &types, ActivityNames::Current);
    let row = [
        "1",
        "u",
        "t",
        "-7",
        "123456789012345678901234567890.10",
        "2024-01-02 03:04:05.12+00",
        "2024-01-02",
        "{\"a\":1,\n\"a\":null}",
        "{1,\"zwei\",😀}",
    ];
    assert_eq!(
        encode(&mapping, CommitTime::Unknown, &row.map(Some)).unwrap(),
        "{\"externalId\":\"u\",\"info\":{\"b\":true,\"i\":-7,\"n\":123456789012345678901234567890.10,\
         \"at\":\"2024-01-02T03:04:05.12Z\",\"d\":\"2024-01-02T00:00:00.000Z\",\"j\":{\"a\":1,\n\"a\":null},\
         \"t\":\"{1,\\\"zwei\\\",😀}\"}}"
    );
    let nothing = [Some("1"), Some("u"), None, None, None, None, None, None, None];
    assert_eq!(encode(&mapping, CommitTime::Unknown, &nothing).unwrap(), r#"{"externalId":"u"}"#);
    let mut infinite = row.map(Some);
    infinite[4] = Some("Infinity");
    let refusal = encode(&mapping, CommitTime::Unknown, &infinite).unwrap_err();
    assert_eq!(refusal, "info.n: not a finite number: \"Infinity\"");
}

#[test]
fn info_given_whole_is_an_object_or_left_out() {
    let types = [("uid", Type::Text), ("j", Type::Json)];
    let mapping = activity(vec![("externalId", col("uid")), ("info", col("j"))], &types, ActivityNames::Current);
    let encoded = |json| encode(&mapping, CommitTime::Unknown, &[Some("1"), Some("u"), json]);
    assert_eq!(encoded(Some(r#"{"a": [1]}"#)).unwrap(), r#"{"externalId":"u","info":{"a": [1]}}"#);
    assert_eq!(encoded(None).unwrap(), r#"{"externalId":"u"}"#);
    assert_eq!(encoded(Some("null")).unwrap(), r#"{"externalId":"u"}"#);
    for other in ["[]", "[1]", "3", "\"x\"", " true"] {
        assert_eq!(encoded(Some(other)).unwrap(), r#"{"externalId":"u"}"#, "{other}");
    }
    assert_eq!(encoded(Some("{a")).unwrap_err(), "info: not valid JSON: \"{a\"");
}

#[test]
fn string_fields_are_strings_whatever_the_column() {
    for (ty, from, to) in [
        (Type::Int, "42", "\"42\""),
        (Type::Bool, "f", "\"false\""),
        (Type::Float, "NaN", "\"NaN\""),
        (Type::TimestampTz, "2024-01-02 03:04:05+00", "\"2024-01-02T03:04:05Z\""),
        (Type::Json, "\"x\\ny\"", "\"x\\ny\""),
        (Type::Json, "[1]", "\"[1]\""),
        (Type::Text, "a\"b", "\"a\\\"b\""),
    ] {
        let mapping = activity(vec![("externalId", col("c"))], &[("c", ty)], ActivityNames::Current);
        let item = encode(&mapping, CommitTime::Unknown, &[Some("1"), Some(from)]).unwrap();
        assert_eq!(item, format!("{{\"externalId\":{to}}}"));
    }
    let json = activity(vec![("externalId", col("c"))], &[("c", Type::Json)], ActivityNames::Current);
    assert_eq!(encode(&json, CommitTime::Unknown, &[Some("1"), Some("null")]).unwrap_err(), "externalId is NULL");
    assert_eq!(encode(&json, CommitTime::Unknown, &[Some("1"), Some("\"\"")]).unwrap_err(), "externalId is empty");
}

#[test]
fn identities_lose_the_blanks_of_a_char_n_and_other_text_keeps_them() {
    let fields = vec![
        ("externalId", col("c")),
        ("companyExternalId", col("c")),
        ("action", col("c")),
        ("info", object(vec![("c", col("c"))])),
    ];
    let mapping = activity(fields, &[("c", Type::Char)], ActivityNames::Current);
    assert_eq!(
        encode(&mapping, CommitTime::Unknown, &[Some("1"), Some("ab  ")]).unwrap(),
        r#"{"externalId":"ab","companyExternalId":"ab","action":"ab  ","info":{"c":"ab  "}}"#
    );
    assert_eq!(encode(&mapping, CommitTime::Unknown, &[Some("1"), Some("   ")]).unwrap_err(), "externalId is empty");
}

#[test]
fn as_text_makes_a_string_of_anything() {
    let as_text = |name: &str, default| Field::Column { column: name.into(), default, as_text: true };
    let info = object(vec![
        ("order", as_text("n", Some(Constant::Number("0".into())))),
        ("ok", as_text("b", None)),
        ("doc", as_text("j", None)),
    ]);
    let types = [("uid", Type::Text), ("n", Type::Int), ("b", Type::Bool), ("j", Type::Json)];
    let mapping = activity(vec![("externalId", col("uid")), ("info", info)], &types, ActivityNames::Current);
    let values = [Some("1"), Some("u"), Some("9007199254740993"), Some("t"), Some("[1]")];
    assert_eq!(
        encode(&mapping, CommitTime::Unknown, &values).unwrap(),
        r#"{"externalId":"u","info":{"order":"9007199254740993","ok":"true","doc":"[1]"}}"#
    );
    assert_eq!(
        encode(&mapping, CommitTime::Unknown, &[Some("1"), Some("u"), None, None, None]).unwrap(),
        r#"{"externalId":"u","info":{"order":"0"}}"#
    );
}

#[test]
fn defaults_stand_in_for_null_alone() {
    let fields = vec![
        ("externalId", col("uid")),
        ("action", col_or("act", Constant::Text("login".into()))),
        ("weight", col_or("n", Constant::Number("01.50".into()))),
        ("info", object(vec![("plan", col_or("plan", Constant::Bool(false))), ("v", text("2"))])),
    ];
    let types = [("uid", Type::Text), ("act", Type::Text), ("n", Type::Int), ("plan", Type::Text)];
    let mapping = activity(fields, &types, ActivityNames::Current);
    assert_eq!(
        encode(&mapping, CommitTime::Unknown, &[Some("1"), Some("u"), None, None, None]).unwrap(),
        r#"{"externalId":"u","action":"login","weight":1.50,"info":{"plan":false,"v":"2"}}"#
    );
    assert_eq!(
        encode(&mapping, CommitTime::Unknown, &[Some("1"), Some("u"), Some(""), Some("3"), Some("x")]).unwrap(),
        r#"{"externalId":"u","action":"","weight":3,"info":{"plan":"x","v":"2"}}"#
    );
}

#[test]
fn the_sections_timezone_reads_naive_times_and_constants() {
    let mut fields = vec![("dimensionId", text("d")), ("value", col("n")), ("externalId", col("n"))];
    fields.push(("date", col_or("at", Constant::Text("2024-07-01 12:00".into()))));
    let mut section = section(METRIC, fields);
    section.timezone = Some(TimeZone::get("Europe/Stockholm").unwrap());
    let columns = columns(&[("id", Type::Int), ("n", Type::Int), ("at", Type::Timestamp)]);
    let mapping = Mapping::compile(&section, ActivityNames::Current, &columns).unwrap();
    for at in [Some("2024-07-01 12:00:00"), None] {
        let item = encode(&mapping, CommitTime::Unknown, &[Some("1"), Some("2"), at]).unwrap();
        assert!(item.contains(r#""date":"2024-07-01T10:00:00.000Z""#), "{item}");
    }
}

#[test]
fn all_that_does_not_fit_is_said_at_once() {
    let fields = vec![
        ("dimensionId", col("j")),
        ("value", col("ok")),
        ("value", text("many")),
        ("date", col("n")),
        ("email", object(vec![])),
        ("info", col("t")),
        ("name", col("User_Nmae")),
        ("model", text("Company")),
        ("weight", Field::Column { column: "n".into(), default: Some(Constant::Bool(true)), as_text: false }),
    ];
    let columns = columns(&[
        ("ok", Type::Bool),
        ("j", Type::Json),
        ("n", Type::Int),
        ("t", Type::Text),
        ("user_name", Type::Text),
    ]);
    let faults = Mapping::compile(&section(METRIC, fields), ActivityNames::Current, &columns).unwrap_err();
    let found: Vec<_> = faults.iter().map(|fault| (fault.field.as_str(), fault.code())).collect();
    assert_eq!(
        found,
        [
            ("key", "column_unknown"),
            ("externalId", "field_missing"),
            ("dimensionId", "column_type"),
            ("value", "column_type"),
            ("value", "field_twice"),
            ("value", "constant_type"),
            ("date", "column_type"),
            ("email", "field_nested"),
            ("info", "column_type"),
            ("name", "column_unknown"),
            ("model", "field_twice"),
            ("weight", "constant_type"),
        ]
    );
    assert_eq!(faults[9].to_string(), "section s, name: table public.t has no column `User_Nmae`");
    assert!(faults[9].remedy().contains("`user_name` instead of `User_Nmae`"), "{}", faults[9].remedy());
    assert!(faults[0].remedy().contains("discover public.t"), "{}", faults[0].remedy());
}

#[test]
fn keys_are_of_any_type_and_of_several_columns() {
    for ty in [Type::Int, Type::Numeric, Type::Date, Type::Float, Type::Text, Type::Json, Type::Bool] {
        let fields = vec![("externalId", text("all"))];
        let columns = columns(&[("id", ty), ("at", Type::Timestamp)]);
        let mut section = section(Kind::UserActivity, fields);
        section.key = vec!["at".into(), "id".into()];
        let mapping = Mapping::compile(&section, ActivityNames::Current, &columns).unwrap();
        assert_eq!(mapping.key_columns(), [1, 0]);
        section.key.clear();
        let faults = Mapping::compile(&section, ActivityNames::Current, &columns).unwrap_err();
        assert_eq!(faults[0].code(), "key_missing");
    }
}

#[test]
fn rows_are_described_whatever_they_hold() {
    let mapping = metric_of(Type::Text, vec![]);
    let long = "ä".repeat(10_000);
    let cells = Cells::new(&[Some(b"1"), Some(b"\xFF\"\n"), Some(long.as_bytes())]);
    let described: serde_json::Value = serde_json::from_str(&mapping.describe(&cells.row())).unwrap();
    assert_eq!(described["n"], "\u{FFFD}\"\n");
    assert_eq!(described["who"], format!("{}… (20000 bytes)", "ä".repeat(8192)));
    let cells = Cells::new(&[Some(b"1"), None]);
    assert_eq!(mapping.describe(&cells.row()), r#"{"id":"1","n":null,"who":null}"#);
}

const TYPES: [Type; 9] = [
    Type::Bool,
    Type::Int,
    Type::Float,
    Type::Numeric,
    Type::Timestamp,
    Type::TimestampTz,
    Type::Date,
    Type::Json,
    Type::Text,
];

fn a_value() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![
        Just(None),
        any::<Vec<u8>>().prop_map(Some),
        prop::sample::select(vec![
            "t",
            "12",
            "-1.50",
            "NaN",
            "",
            "2024-01-02",
            "2024-01-02 03:04:05.1",
            "2024-01-02 03:04:05.1+00",
            "infinity",
            "{\"a\":1}",
            "null",
            "\"x\"",
            "Zoë 😀",
        ])
        .prop_map(|text| Some(text.as_bytes().to_vec())),
    ]
}

proptest! {
    /// Whatever the bytes: an item is one JSON object, a refusal leaves the buffer alone, a description is JSON.
    #[test]
    fn a_row_is_json_or_nothing(
        types in prop::collection::vec(prop::sample::select(&TYPES[..]), 4),
        values in prop::collection::vec(a_value(), 0..6),
        micros in any::<Option<i64>>(),
        zoned in any::<bool>(),
    ) {
        let info = object(vec![("a", col("a")), ("in\"ner", object(vec![("b", col("b"))]))]);
        let fields = vec![("externalId", col("c")), ("email", col("d")), ("info", info), ("name", col("b"))];
        let mut section = section(Kind::UserActivity, fields);
        section.timezone = zoned.then(|| TimeZone::get("America/New_York").unwrap());
        let names = ["a", "b", "c", "d"];
        let mut columns: Vec<_> = names.iter().zip(types).map(|(name, ty)| Column { name: (*name).to_owned(), ty }).collect();
        columns.push(Column { name: "id".into(), ty: Type::Int });
        let mapping = Mapping::compile(&section, ActivityNames::Legacy, &columns).unwrap();
        let values: Vec<_> = values.iter().map(Option::as_deref).collect();
        let cells = Cells::new(&values);
        let mut out = b"before".to_vec();
        let time = micros.map_or(CommitTime::Unknown, CommitTime::Micros);
        match mapping.encode(&cells.row(), time, &mut out) {
            Ok(()) => {
                let item = std::str::from_utf8(&out[6..]).unwrap();
                prop_assert!(item.starts_with('{') && serde_json::from_str::<IgnoredAny>(item).is_ok(), "{item}");
            }
            Err(_) => prop_assert_eq!(&out, b"before"),
        }
        let described = mapping.describe(&cells.row());
        prop_assert!(serde_json::from_str::<IgnoredAny>(&described).is_ok(), "{}", described);
    }
}
