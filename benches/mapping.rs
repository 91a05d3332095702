//! What one row costs in the mapping room: `cargo bench --bench mapping`.
//!
//! An iteration encodes 1,000 rows into a buffer that is emptied, not freed: as a batch's body is.

use std::time::Duration;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use pg2planhat::testing::config::{
    ActivityNames, BatchLimits, Constant, Field, Flush, InDoubt, Kind, Model, OnNull, Section, Start, Sync, TableName,
};
use pg2planhat::testing::mapping::Mapping;
use pg2planhat::testing::model::{Cell, Column, CommitTime, Row, Type};

const ROWS: usize = 1_000;
const COMMITTED: CommitTime = CommitTime::Micros(757_653_845_123_456);

fn main() {
    divan::main();
}

fn mapping(kind: Kind, fields: Vec<(&str, Field)>, columns: &[(&str, Type)]) -> Mapping {
    let section = Section {
        name: "bench".into(),
        kind,
        sync: Sync::Receive,
        table: TableName { schema: "public".into(), name: "bench".into() },
        key: vec!["id".into()],
        start: Start::Backfill,
        read: pg2planhat::testing::config::ReadMode::default(),
        batch: BatchLimits { rows: 10_000, bytes: 8 << 20, in_flight: 1 },
        flush: Flush::Every(Duration::from_secs(5)),
        in_doubt: InDoubt::Resend,
        conditions: Vec::new(),
        on: None,
        on_null: OnNull::Quarantine,
        fields: fields.into_iter().map(|(name, field)| (name.to_owned(), field)).collect(),
        date_receipt: false,
        timezone: None,
    };
    let columns: Vec<_> = columns.iter().map(|(name, ty)| Column { name: (*name).to_owned(), ty: *ty }).collect();
    Mapping::compile(&section, ActivityNames::Current, &columns).expect("the bench's own mapping compiles")
}

fn column(name: &str) -> Field {
    Field::Column { column: name.into(), default: None, as_text: false }
}

/// A row's bytes and cells.
fn row(values: &[Option<&str>]) -> (Vec<u8>, Vec<Cell>) {
    let mut data = Vec::new();
    let mut cells = Vec::new();
    for value in values {
        let start = u32::try_from(data.len()).expect("small");
        data.extend_from_slice(value.unwrap_or_default().as_bytes());
        let end = u32::try_from(data.len()).expect("small");
        cells.push(value.map_or(Cell::NULL, |_| Cell::text(start, end - start)));
    }
    (data, cells)
}

fn encode(bencher: Bencher<'_, '_>, mapping: &Mapping, values: &[Option<&str>]) {
    let (data, cells) = row(values);
    let mut out = Vec::new();
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        out.clear();
        for _ in 0..ROWS {
            let row = Row { data: black_box(&data), cells: black_box(&cells) };
            mapping.encode(&row, COMMITTED, &mut out).expect("the bench's own row is an item");
        }
        black_box(out.len())
    });
}

/// The metric of the measured table: id, external_id, dimension_id, value, at.
#[divan::bench]
fn metric(bencher: Bencher<'_, '_>) {
    let columns = [
        ("id", Type::Int),
        ("external_id", Type::Text),
        ("dimension_id", Type::Text),
        ("value", Type::Float),
        ("at", Type::TimestampTz),
    ];
    let fields = vec![
        ("dimensionId", column("dimension_id")),
        ("value", column("value")),
        ("externalId", column("external_id")),
        ("date", column("at")),
    ];
    let mapping = mapping(Kind::CustomMetric(Model::Company), fields, &columns);
    let at = "2024-01-04 03:24:05.123456+00";
    encode(bencher, &mapping, &[Some("1234567"), Some("company-001234"), Some("seats_used"), Some("1234.5"), Some(at)]);
}

/// A metric whose dimension is constant, and whose date is the commit time.
#[divan::bench]
fn metric_at_commit(bencher: Bencher<'_, '_>) {
    let columns = [("id", Type::Int), ("account", Type::Text), ("seats", Type::Int)];
    let fields = vec![
        ("dimensionId", Field::Constant(Constant::Text("seats_used".into()))),
        ("value", column("seats")),
        ("externalId", column("account")),
    ];
    let mapping = mapping(Kind::CustomMetric(Model::Company), fields, &columns);
    encode(bencher, &mapping, &[Some("1234567"), Some("company-001234"), Some("42")]);
}

/// An activity with a nested `info`, one member of it json, and one text that needs escapes.
#[divan::bench]
fn activity_with_info(bencher: Bencher<'_, '_>) {
    let columns = [
        ("id", Type::Int),
        ("user_email", Type::Text),
        ("user_id", Type::Int),
        ("event_name", Type::Text),
        ("amount", Type::Numeric),
        ("created_at", Type::TimestampTz),
        ("account_id", Type::Text),
        ("plan", Type::Text),
        ("client_ip", Type::Text),
        ("beta", Type::Bool),
        ("props", Type::Json),
        ("note", Type::Text),
    ];
    let info = ["plan", "client_ip", "beta", "props", "note"].map(|name| (name.to_owned(), column(name)));
    let fields = vec![
        ("email", column("user_email")),
        ("externalId", column("user_id")),
        ("action", column("event_name")),
        ("weight", column("amount")),
        ("date", column("created_at")),
        ("companyExternalId", column("account_id")),
        ("info", Field::Object(info.into())),
    ];
    let mapping = mapping(Kind::UserActivity, fields, &columns);
    let values = [
        "1234567",
        "zoe.larsson@example.com",
        "987654",
        "report exported",
        "1.50",
        "2024-01-04 03:24:05.123456+00",
        "company-001234",
        "enterprise",
        "192.0.2.17",
        "t",
        r#"{"pages": 12, "format": "pdf", "tags": ["a", "b"]}"#,
        "said \"très bien\"\nand left",
    ];
    encode(bencher, &mapping, &values.map(Some));
}
