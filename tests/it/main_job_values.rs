//! PostgreSQL is the oracle of values (FAULTS 31, 34): the same row by backfill and by stream is the same item, byte for
//! byte, and its digits are those that a SELECT shows.

use std::collections::HashMap;

use serde_json::value::RawValue;

use pg2planhat::testing::sim::{Received, SinkKind};

use crate::harness::{App, Cluster, ConfigText, SectionText};
use crate::main_job_oracle::*;

/// What a column's text becomes.
#[derive(Clone, Copy, PartialEq)]
enum As {
    Digits,
    Bool,
    Json,
    Naive,
    Instant,
    Day,
    Text,
}

/// Name, type, rule, ordinary values, and values at and over the edges; all as literals of that type.
type Column = (&'static str, &'static str, As, &'static [&'static str], &'static [&'static str]);

const COLUMNS: &[Column] = &[
    ("c_small", "smallint", As::Digits, &["0", "-7"], &["32767", "-32768"]),
    ("c_int", "integer", As::Digits, &["42", "-1"], &["2147483647", "-2147483648"]),
    ("c_big", "bigint", As::Digits, &["10000000000"], &["9223372036854775807", "-9223372036854775808"]),
    ("c_oid", "oid", As::Digits, &["1"], &["4294967295"]),
    (
        "c_num",
        "numeric",
        As::Digits,
        &["1.50", "0.10", "-3", "123456789012345678901234567890", "0.000000000000000000000000000001"],
        &[
            "NaN",
            "Infinity",
            "-Infinity",
            "1e400",
            "-1e308",
            "-0.0",
            "98765432109876543210.123456789012345678901234567890",
        ],
    ),
    ("c_num2", "numeric(38,10)", As::Digits, &["1", "-2.5"], &["9999999999999999999999999999.9999999999", "NaN"]),
    ("c_real", "real", As::Digits, &["1.1", "16777216"], &["3.4028235e38", "1e-45", "NaN", "-Infinity"]),
    ("c_float", "float8", As::Digits, &["0.1", "-2.5"], &["1.7976931348623157e308", "5e-324", "-0", "NaN", "Infinity"]),
    ("c_bool", "boolean", As::Bool, &["t", "f"], &["true"]),
    (
        "c_ts",
        "timestamp",
        As::Naive,
        &["2024-02-29 23:59:59.5", "1970-01-01 00:00:00"],
        &[
            "0044-03-15 12:00:00 BC",
            "infinity",
            "10000-01-01 00:00:00",
            "0001-01-01 00:00:00",
            "9999-12-31 23:59:59.999999",
            "2024-01-01 24:00:00",
        ],
    ),
    (
        "c_tz",
        "timestamptz",
        As::Instant,
        &["2024-03-31 02:30:00.123456+02", "1999-12-31 23:59:59-08"],
        &[
            "0044-03-15 12:00:00+00 BC",
            "-infinity",
            "9999-12-31 23:59:59-01",
            "0001-01-01 00:00:00+00",
            "2024-06-30 24:00:00+05:30",
        ],
    ),
    (
        "c_day",
        "date",
        As::Day,
        &["2024-02-29", "1970-01-01"],
        &["0001-01-01", "9999-12-31", "0001-12-31 BC", "infinity", "10000-01-01"],
    ),
    ("c_time", "time", As::Text, &["12:00", "00:00:00.000001"], &["24:00"]),
    ("c_timetz", "timetz", As::Text, &["12:00+02"], &["24:00-15:59"]),
    ("c_span", "interval", As::Text, &["1 day 02:03:04.5"], &["-178000000 years", "1 mon -1 day"]),
    (
        "c_json",
        "json",
        As::Json,
        &[r#"{"a": 1, "b": [true, null]}"#, r#"  {"z" :1}  "#, "null", "\"x\""],
        &[
            r#"{"a":1,"a":2}"#,
            r#"{"u":"\u0000"}"#,
            "123456789012345678901234567890.5",
            "{\"n\":\n\t[1]}",
            r#""\ud83d\ude00""#,
        ],
    ),
    ("c_jsonb", "jsonb", As::Json, &[r#"{"b": 1, "a": 2}"#, "[]"], &[r#"{"a":1,"a":2}"#, "1.10", "\"é😀\""]),
    (
        "c_text",
        "text",
        As::Text,
        &["plain", "ünïcödé 😀", "O'Reilly \"quoted\" \\ back"],
        &["", "\u{1}\t\n\r\u{8}\u{c}\u{7f}\u{2028}", "\\N", "\\.", "NULL", "\u{feff}bom", "👩‍👩‍👧‍👦"],
    ),
    ("c_char", "char(5)", As::Text, &["ab"], &["", "     ", "😀"]),
    ("c_uuid", "uuid", As::Text, &["11111111-2222-4333-8444-555555555555"], &["00000000-0000-0000-0000-000000000000"]),
    ("c_bytes", "bytea", As::Text, &["\\x00ff10"], &["\\x", "\\x5c27"]),
    ("c_mood", "mood", As::Text, &["sad", "so \"so\", é"], &["happy"]),
    ("c_dom", "positive", As::Digits, &["7"], &["9223372036854775807"]),
    ("c_dom2", "price", As::Digits, &["7.00"], &["0.00000000000000000001", "NaN"]),
    ("c_dom3", "note", As::Text, &["n"], &[""]),
    ("c_ints", "int[]", As::Text, &["{1,2}", "{}"], &["{{1,NULL},{3,4}}", "[0:1]={5,6}"]),
    ("c_texts", "text[]", As::Text, &["{a,\"b c\"}"], &["{\"\",NULL,\"NULL\",\"\\\"\\\\\"}"]),
    ("c_net", "inet", As::Text, &["10.0.0.1"], &["::1/64"]),
    ("c_range", "int4range", As::Text, &["[1,5)"], &["empty", "(,)"]),
    ("c_bits", "varbit", As::Text, &["101"], &[""]),
    ("c_money", "money", As::Text, &["1.50"], &["-92233720368547758.08"]),
];

const TYPES: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'so \"so\", é', 'happy');
    CREATE DOMAIN positive AS bigint CHECK (VALUE > 0); CREATE DOMAIN price AS numeric; CREATE DOMAIN note AS text;";

/// A role whose own settings would change every text, if they were not pinned.
const ROLE: &str = "
    CREATE ROLE streamer SUPERUSER LOGIN; ALTER ROLE streamer SET datestyle = 'German';
    ALTER ROLE streamer SET timezone = 'Asia/Kolkata'; ALTER ROLE streamer SET bytea_output = 'escape';
    ALTER ROLE streamer SET intervalstyle = 'iso_8601'; ALTER ROLE streamer SET extra_float_digits = -5;";

/// Which rows cannot be said in JSON, as PostgreSQL sees it.
const UNFIT: &str = "
    c_num IN ('NaN', 'Infinity', '-Infinity') OR abs(c_num) > 1.7976931348623157e308 OR c_num2 = 'NaN' OR c_dom2 = 'NaN'
    OR c_real IN ('NaN', 'Infinity', '-Infinity') OR c_float IN ('NaN', 'Infinity', '-Infinity')
    OR c_ts < '0001-01-01' OR c_ts >= '10000-01-01' OR c_tz < '0001-01-01 00:00+00' OR c_tz >= '10000-01-01 00:00+00'
    OR c_day < '0001-01-01' OR c_day >= '10000-01-01'";

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn table(name: &str) -> String {
    let columns = COLUMNS.iter().map(|(name, ty, ..)| format!("{name} {ty}")).collect::<Vec<_>>();
    format!("CREATE TABLE {name} (id bigint PRIMARY KEY, {})", columns.join(", "))
}

/// Random rows; most have ordinary values only, so that most are items.
fn rows(random: &mut fastrand::Rng, count: usize) -> String {
    let mut row = |id: usize| {
        let wild = if random.u8(..4) == 0 { 30 } else { 0 };
        let mut values = vec![id.to_string()];
        for (at, (_, _, _, ordinary, edges)) in COLUMNS.iter().enumerate() {
            // Each column's every value alone first, then all at random.
            let alone = id.checked_sub(1).map(|n| (n % COLUMNS.len(), n / COLUMNS.len()));
            values.push(match alone {
                Some((column, n)) if n < ordinary.len() + edges.len() && column == at => {
                    literal(ordinary.iter().chain(*edges).nth(n).unwrap())
                }
                _ if random.u8(..100) < 15 => "NULL".to_owned(),
                _ if random.u8(..100) < wild => literal(edges[random.usize(..edges.len())]),
                _ if *at_type(at) == "bigint" => random.i64(..).to_string(),
                _ if *at_type(at) == "float8" => format!("'{}'", f64_of(random)),
                _ if *at_type(at) == "numeric" => literal(&numeric(random)),
                _ => literal(ordinary[random.usize(..ordinary.len())]),
            });
        }
        format!("({})", values.join(", "))
    };
    (1..=count).map(&mut row).collect::<Vec<_>>().join(",\n")
}

fn at_type(at: usize) -> &'static &'static str {
    &COLUMNS[at].1
}

/// Any finite double: its bits at random.
fn f64_of(random: &mut fastrand::Rng) -> f64 {
    let value = f64::from_bits(random.u64(..));
    if value.is_finite() { value } else { 0.5 }
}

fn numeric(random: &mut fastrand::Rng) -> String {
    let mut digits = |most: usize| (0..random.usize(1..most)).map(|_| random.digit(10)).collect::<String>();
    format!("{}.{}", digits(60), digits(40))
}

fn section(name: &str, start: &str) -> SectionText {
    let info = COLUMNS.iter().map(|(name, ..)| format!("{name}: {name}")).collect::<Vec<_>>().join(", ");
    SectionText::activity(name, &format!("values_{name}"))
        .without("email")
        .field("externalId", "id")
        .field("action", "{ column: c_mood, default: none }")
        .field("weight", "c_dom2")
        .field("date", "c_tz")
        .field("info", &format!("{{ {info} }}"))
        .set("start", start)
}

/// What PostgreSQL says that the item's `info` must be, by column, less what is NULL.
fn expected(row: &[Option<String>]) -> HashMap<&'static str, String> {
    let value = |(column, text): (&Column, &Option<String>)| {
        let text = text.as_ref()?;
        let json = match column.2 {
            As::Digits => text.clone(),
            As::Bool => (if text == "t" { "true" } else { "false" }).to_owned(),
            As::Json => text.trim_matches([' ', '\t', '\n', '\r']).to_owned(),
            As::Naive => format!("\"{}Z\"", text.replace(' ', "T")),
            As::Instant => format!("\"{}Z\"", text.strip_suffix("+00").unwrap().replace(' ', "T")),
            As::Day => format!("\"{text}T00:00:00.000Z\""),
            As::Text => serde_json::to_string(text).unwrap(),
        };
        Some((column.0, json))
    };
    COLUMNS.iter().zip(row).filter_map(value).collect()
}

/// Compares one item with what PostgreSQL shows of its row: `id`, the columns in order, then `c_tz` in milliseconds.
fn assert_item(item: &Received, row: &[Option<String>]) {
    let fields: HashMap<&str, &RawValue> = serde_json::from_slice(&item.raw).unwrap();
    let info: HashMap<&str, &RawValue> = serde_json::from_str(fields["info"].get()).unwrap();
    let expected = expected(&row[1..=COLUMNS.len()]);
    for (column, _, rule, ..) in COLUMNS {
        let got = info.get(column).map(|value| value.get());
        let wanted = expected.get(column).map(String::as_str);
        if *rule == As::Text {
            // Escapes may be chosen; what they say may not.
            let read = |text: Option<&str>| text.map(|text| serde_json::from_str::<String>(text).unwrap());
            assert_eq!(read(got), read(wanted), "{column} of row {:?}", row[0]);
        } else {
            assert_eq!(got, wanted, "{column} of row {:?}", row[0]);
        }
    }
    let date = fields.get("date").map(|value| value.get().trim_matches('"').to_owned());
    // Without a date of its own a streamed row has its commit's, a backfilled one none.
    if let Some(wanted) = &row[COLUMNS.len() + 1] {
        assert_eq!(date.as_ref(), Some(wanted), "date of row {:?}", row[0]);
    }
}

#[tokio::test]
async fn case_31_34_a_row_by_backfill_and_by_stream_is_the_same_bytes_and_postgresql_is_the_oracle() {
    const ROWS: usize = 1200;
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("SEED={seed}");
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster.sql(TYPES).await;
    cluster.sql(ROLE).await;
    cluster.sql(&format!("{}; {}; {}", table("values_old"), table("values_new"), table("values_later"))).await;
    let mut random = fastrand::Rng::with_seed(seed);
    cluster.sql(&format!("INSERT INTO values_old VALUES {}", rows(&mut random, ROWS))).await;
    let unfit = table_keys(&cluster, &format!("SELECT id FROM values_old WHERE {UNFIT}")).await;
    let fit = ROWS - unfit.len();
    assert!(fit > ROWS / 2 && unfit.len() > 20, "{fit} rows fit");

    let config = ConfigText::new(&cluster, &sim.url())
        .set("source.user", "streamer")
        .section(section("old", "backfill"))
        .section(section("new", "now"))
        .section(section("later", "now"));
    let app = App::run(&config);
    section_is(&app, "old", "streaming").await;
    let backfilled = arrived(&sim, SinkKind::Activity, fit).await;
    // The mapping's date is left out where c_tz is NULL, so that both ways are the same.
    cluster.sql("INSERT INTO values_new SELECT * FROM values_old ORDER BY id").await;
    let all = arrived(&sim, SinkKind::Activity, 2 * fit).await;
    let streamed = &all[fit..];

    let shown = COLUMNS.iter().map(|(name, ..)| *name);
    let date = r#"to_char(c_tz AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"#;
    let query = format!(
        "SET extra_float_digits = 3; SET datestyle = ISO; SET timezone = 'UTC'; SELECT id, {}, {date} FROM values_old \
         WHERE ({UNFIT}) IS NOT TRUE ORDER BY id",
        shown.collect::<Vec<_>>().join(", ")
    );
    let oracle = cluster.rows(&query).await;
    assert_eq!(oracle.len(), fit);
    for ((old, new), row) in backfilled.iter().zip(streamed).zip(&oracle) {
        assert_eq!(key(old).to_string(), row[0].clone().unwrap(), "a row came that cannot, or did not come");
        assert_item(old, row);
        assert_item(new, row);
        let has_date = row[COLUMNS.len() + 1].is_some();
        let (old, new) = (String::from_utf8_lossy(&old.raw), String::from_utf8_lossy(&new.raw));
        assert!(!has_date || old == new, "not the same bytes:\n{old}\n{new}");
    }

    // What does not fit is held with the same reason and item, whichever way it came.
    let held = |section: &str| {
        format!("SELECT key, reason, item FROM pg2planhat.quarantine WHERE section = '{section}' ORDER BY key::bigint")
    };
    let shown = async |section: &str| {
        let rows = cluster.rows(&held(section)).await;
        // What is kept of a row that is no item is an object in no particular order.
        let row = |row: Vec<Option<String>>| {
            let item: serde_json::Value = serde_json::from_str(row[2].as_ref().unwrap()).unwrap();
            (row[0].clone().unwrap(), row[1].clone().unwrap(), item)
        };
        rows.into_iter().map(row).collect::<Vec<_>>()
    };
    let (old, new) = (shown("old").await, shown("new").await);
    assert_eq!(old, new);
    assert_eq!(sorted(old.iter().map(|(key, ..)| key.parse().unwrap()).collect::<Vec<i64>>()), unfit);

    // An enum's value added later, and a domain made later: new to a process that runs already.
    cluster.sql("ALTER TYPE mood ADD VALUE 'later 😀'").await;
    cluster
        .sql(
            "CREATE DOMAIN whole AS numeric(40, 2); ALTER TABLE values_later DROP COLUMN c_num, ADD COLUMN c_num whole;
             INSERT INTO values_later (id, c_mood, c_num) VALUES (1, 'later 😀', 12345678901234567890.10)",
        )
        .await;
    let all = arrived(&sim, SinkKind::Activity, 2 * fit + 1).await;
    let item = String::from_utf8_lossy(&all[2 * fit].raw).into_owned();
    assert!(item.contains(r#""c_num":12345678901234567890.10"#) && item.contains("later 😀"), "{item}");
    drain(app, &cluster).await;
}

/// A commit is in the WAL, and so in the stream, before any snapshot sees it: here for as long as a synchronous standby is away.
#[tokio::test]
async fn a_domain_that_no_snapshot_sees_yet_is_waited_for_and_never_taken_for_text() {
    let (cluster, sim) =
        (Cluster::start().await, pg2planhat::testing::sim::Sim::start(Default::default()).await.unwrap());
    cluster.sql("CREATE TABLE t (id bigint PRIMARY KEY, account text)").await;
    let mut section = SectionText::activity("s", "t").set("start", "now");
    for field in ["email", "weight", "date"] {
        section = section.without(field);
    }
    let section = section.field("externalId", "id").field("action", "account").field("info", "{ amount: amount }");
    cluster.sql("ALTER TABLE t ADD COLUMN amount numeric").await;
    let app = App::run(&ConfigText::new(&cluster, &sim.url()).section(section));
    section_is(&app, "s", "streaming").await;

    cluster.set("synchronous_standby_names", "nobody").await;
    let hidden = cluster.client().await;
    let hidden = tokio::spawn(async move {
        let change =
            "BEGIN; CREATE DOMAIN whole AS numeric(40, 2); ALTER TABLE t DROP COLUMN amount, ADD COLUMN amount whole;
            INSERT INTO t VALUES (1, 'acme', 12345678901234567890.10); COMMIT";
        hidden.batch_execute(change).await
    });
    app.wait_log("a type of a column cannot be seen yet").await;
    assert_eq!(sim.stats().activities.items, 0, "nothing is sent of what is not understood");
    cluster.set("synchronous_standby_names", "").await;
    hidden.await.unwrap().unwrap();
    let items = arrived(&sim, SinkKind::Activity, 1).await;
    let item = String::from_utf8_lossy(&items[0].raw).into_owned();
    assert!(item.contains(r#""amount":12345678901234567890.10"#), "{item}");
    drain(app, &cluster).await;
}
