//! The whole room: bad files and their errors, the example against the tables, secrets, arbitrary text.

use crate::config::config_error::ConfigErrors;
use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use proptest::prelude::*;

use crate::config::keys::{ACTIVITY, KeySpec, METRIC, ROOT, SECTION, Shape, TABLES};
use crate::config::load::parse_with;
use crate::config::yaml::{Node, NodeValue};
use crate::model::Fault;

const EXAMPLE: &str = include_str!("../../deploy/pg2planhat.example.yaml");

/// The least that a file must say: the example without anything that has a default.
const MINIMAL: &str = r#"
source: { host: db.internal, port: 5432, database: app, user: pg2planhat, password: { file: /run/secrets/pg } }
planhat: { tenant: { env: PLANHAT_TENANT_UUID } }
sections:
  - name: logins
    kind: user_activity
    table: app_event
    key: id
    fields:
      email: user_email
      externalId: user_id
      action: { column: event_name, default: Login }
      weight: amount
      date: created_at
      companyExternalId: account_id
      info: { plan: plan, ip: client_ip, source: { value: app } }
  - name: seats
    kind: custom_metric
    table: usage_daily
    key: id
    fields: { dimensionId: { value: seats_used }, value: seats, externalId: account_id, date: day }
"#;

/// Reads no environment and no file: every secret is there, but for those whose name says otherwise.
fn pretend(secret: &Secret) -> Result<String, Fault> {
    match secret {
        Secret::Inline(text) => Ok(text.clone()),
        Secret::Env(name) if name == "MISSING" => {
            Err(Fault::usage("the environment variable MISSING is not set", "set it"))
        }
        Secret::Env(name) if name == "EMPTY" => Ok(String::new()),
        Secret::Env(name) if name == "STATE_URL" || name == "PG2PLANHAT_STATE_URL" => Ok("postgres://u:p@h/db".into()),
        Secret::Env(_) | Secret::File(_) => Ok("revealed".into()),
    }
}

fn read(text: &str) -> Result<Config, ConfigErrors> {
    parse_with(text, "f.yaml", &pretend)
}

fn good(text: &str) -> Config {
    read(text).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

/// A file with one section, whose lines are `section`; the first is line 4, its keys begin in column 5.
fn with_section(section: &str) -> String {
    let body = section.trim().lines().map(|line| format!("    {line}\n")).collect::<String>();
    format!("planhat: {{ tenant: t }}\nsections:\n  -\n{body}")
}

/// The same, of an activity that is whole; `extra` begins on line 8.
fn activity(extra: &str) -> String {
    with_section(&format!("name: a\nkind: user_activity\ntable: t\nkey: id\n{extra}"))
}

/// A file of which only the top is of interest; `top` begins on line 1.
fn top(top: &str) -> String {
    let tenant = if top.contains("planhat:") { "" } else { "planhat: { tenant: t }\n" };
    format!(
        "{top}\n{tenant}sections: [{{ name: a, kind: user_activity, table: t, key: id, fields: {{ email: e }} }}]\n"
    )
}

fn shown(text: &str) -> Vec<String> {
    match read(text) {
        Ok(_) => Vec::new(),
        Err(errors) => {
            errors.0.iter().map(|e| format!("{}:{}: {} | {}", e.line, e.column, e.message, e.remedy)).collect()
        }
    }
}

/// Each text has exactly one error, which begins and ends so.
#[track_caller]
fn one_error(text: &str, expected: &str, remedy: &str) {
    let errors = shown(text);
    assert_eq!(errors.len(), 1, "expected {expected:?} of\n{text}\ngot {errors:#?}");
    assert!(errors[0].starts_with(expected), "expected {expected:?} of\n{text}\ngot {errors:#?}");
    assert!(errors[0].contains(remedy), "expected the remedy {remedy:?} of\n{text}\ngot {errors:#?}");
}

#[test]
fn errors_of_the_whole_file() {
    one_error("", "1:1: the configuration is empty", "pg2planhat.example.yaml");
    one_error("# nothing\n", "1:1: the configuration is empty", "discover");
    one_error("[a]", "1:1: the file must be a mapping, not a list", "source, planhat");
    one_error("hello", "1:1: the file must be a mapping, not a single value", "source");
    one_error("a: b: c", "1:5: this is not YAML", "mend");
    one_error(&" ".repeat((1 << 20) + 1), "0:0: the configuration is larger", "discover");
    one_error(&top("sorce: {}"), "1:1: unknown key \"sorce\" at the top", "did you mean \"source\"?");
    one_error(&top("<<: {}"), "1:1: unknown key \"<<\" at the top", "merge keys");
    one_error(
        &top("memory: 32MiB\nmemory: 16MiB"),
        "2:1: the key \"memory\" at the top was given already, on line 1",
        "keep one",
    );
    one_error("planhat: { tenant: t }", "1:1: sections is missing", "write `sections: …`");
    one_error("planhat: { tenant: t }\nsections:", "2:1: sections has no value", "write `sections: …`");
    one_error("planhat: { tenant: t }\nsections: []", "2:11: sections has no section", "discover TABLE");
    one_error("planhat: { tenant: t }\nsections: {}", "2:11: sections must be a list, not a mapping", "add one");
    one_error(
        "planhat: { tenant: t }\nsections: [x]",
        "2:12: section 1 must be a mapping, not a single value",
        "name, kind",
    );
}

#[test]
fn errors_of_source() {
    let source = |body: &str| top(&format!("source:\n  {}", body.replace('\n', "\n  ")));
    one_error(&top("source: []"), "1:9: source must be a mapping, not a list", "url, host");
    one_error(&source("hots: x"), "2:3: unknown key \"hots\" in source", "did you mean \"host\"?");
    one_error(&source("url: postgres://h/db\nhost: h"), "3:3: host in source stands beside url", "keep one");
    one_error(&source("url: postgres://h/db\nport: 1"), "3:3: port in source stands beside url", "keep one");
    one_error(&source("url: postgres://h/db\ndatabase: h"), "3:3: database in source stands beside url", "keep one");
    one_error(&source("url: postgres://h/db\nuser: h"), "3:3: user in source stands beside url", "keep one");
    one_error(
        &source("url: postgres://u:x@h/db\npassword: y"),
        "3:13: password in source is given, and url",
        "keep one",
    );
    one_error(&source("url: mysql://h/db"), "2:8: url in source is not a connection URL", "postgres://");
    one_error(&source("port: 0"), "2:9: port in source: \"0\" is not a TCP port", "65535");
    one_error(&source("port: 70000"), "2:9: port in source: \"70000\" is not a TCP port", "65535");
    one_error(&source("port: [1]"), "2:9: port in source must be a single value, not a list", "TCP port");
    one_error(&source("host: \"\""), "2:9: host in source: an empty value", "remove the key");
    one_error(
        &source("tls: verify_full"),
        "2:8: tls in source: \"verify_full\" is not one of",
        "did you mean \"verify-full\"?",
    );
    one_error(&source("slot: My-Slot"), "2:9: slot in source: \"My-Slot\" is not a slot name", "a-z, 0-9 and _");
    one_error(&source("manage: maybe"), "2:11: manage in source: \"maybe\" is neither true nor false", "true or false");
    one_error(&source("cert: c.pem"), "2:9: cert in source is given without key", "add `key: PATH`");
    one_error(&source("key: c.pem"), "2:8: key in source is given without cert", "add `cert: PATH`");
    let long = "x".repeat(64);
    for name in ["schema", "publication", "database", "user"] {
        one_error(
            &source(&format!("{name}: {long}")),
            &format!("2:{}: {name} in source: the name", name.len() + 5),
            "63 bytes",
        );
    }
    one_error(
        &source("password: { env: MISSING }"),
        "2:13: password in source: the environment variable MISSING is not set",
        "set it",
    );
    one_error(&source("password: { env: EMPTY }"), "2:13: password in source is empty", "set EMPTY");
    one_error(
        &source("password: { evn: X }"),
        "2:13: password in source is neither a string nor {env: NAME}",
        "quote the string",
    );
    one_error(&source("password: { env: X, file: Y }"), "2:13: password in source is neither", "file: PATH");
    one_error(&source("password: [x]"), "2:13: password in source is neither", "file: PATH");
}

#[test]
fn errors_of_planhat_state_admin_and_limits() {
    one_error(
        "sections: [{ name: a, kind: user_activity, table: t, key: k, fields: { email: e } }]",
        "1:1: planhat is missing",
        "Where items go",
    );
    one_error(&top("planhat: {}"), "1:10: tenant in planhat is missing", "Tenant UUID");
    one_error(&top("planhat:\n  tenant:"), "2:3: tenant in planhat has no value", "Tenant UUID");
    one_error(&top("planhat: { tenant: 'a/b' }"), "1:20: tenant in planhat has characters", "the UUID alone");
    one_error(
        &top("planhat: { tenant: t, url: analytics.planhat.com }"),
        "1:28: url in planhat: the URL of Planhat begins",
        "https://",
    );
    one_error(
        &top("planhat: { tenant: t, url: 'https://x?y' }"),
        "1:28: url in planhat: the URL of Planhat has a query",
        "alone",
    );
    one_error(&top("planhat: { tenant: t, timeout: 0s }"), "1:32: timeout in planhat: a duration of zero", "1ms");
    one_error(
        &top("planhat: { tenant: t, halt_probe: 5 }"),
        "1:35: halt_probe in planhat: \"5\" is not a duration",
        "250ms, 5s",
    );
    one_error(
        &top("planhat: { tenant: t, bulk_activity_names: old }"),
        "1:44: bulk_activity_names in planhat: \"old\" is not",
        "current or legacy",
    );
    one_error(&top("state: { schema: pg_state }"), "1:18: schema in state: PostgreSQL reserves", "pg_");
    one_error(
        &top("state: { keep_deliveries: 30 days }"),
        "1:27: keep_deliveries in state: \"30 days\" is not a duration",
        "30d",
    );
    one_error(&top("state: { url: { env: X } }"), "1:15: url in state is not a connection URL", "postgres://");
    one_error(&top("admin: { listen: 9187 }"), "1:18: listen in admin: \"9187\" is not an address", "127.0.0.1:9187");
    let hosts = "1:17: hosts in admin must be a list, not a single value";
    one_error(&top("admin: { hosts: metrics.example.com }"), hosts, "[metrics.example.com]");
    one_error(&top("admin: { hosts: [a, \"b:9187\"] }"), "1:21: hosts in admin: \"b:9187\" is not a host", "port");
    one_error(&top("admin: { hosts: [{ a: b }] }"), "1:18: hosts in admin must hold names, not a mapping", "list");
    assert_eq!(good(&top("admin: { hosts: [a.example.com, b] }")).admin.hosts, ["a.example.com", "b"]);
    assert!(good(&top("admin: { hosts: }")).admin.hosts.is_empty());
    one_error(&top("shutdown_grace: soon"), "1:17: shutdown_grace: \"soon\" is not a duration", "5s");
    one_error(&top("memory: 64 MB extra"), "1:9: memory: \"64 MB extra\" is not a size", "64KiB");
    one_error(
        &top("memory: 16MB"),
        "1:9: memory is 16000000 bytes, less than two batches of section \"a\": 2 × 8388608 = 16777216 bytes",
        "memory: 16MiB",
    );
    let small = activity("batch: { bytes: 1KiB }\nfields: { email: e }");
    assert!(shown(&format!("memory: 4MiB\n{small}")).is_empty());
    one_error(&format!("memory: 4MB\n{small}"), "1:9: memory of 4000000 bytes is less than 4MiB", "at least 4MiB");
}

#[test]
fn errors_of_sections() {
    let fields = "fields: { email: e }";
    let extra = |line: &str| activity(&format!("{line}\n{fields}"));
    one_error(&extra("tabel: t"), "8:5: unknown key \"tabel\" in section \"a\"", "did you mean \"table\"?");
    one_error(&extra("table: u"), "8:5: the key \"table\" in section \"a\" was given already, on line 6", "keep one");
    one_error(
        &extra("sync: push"),
        "8:11: sync in section \"a\": \"push\" is not one of receive, off",
        "receive or off",
    );
    one_error(&extra("start: later"), "8:12: start in section \"a\": \"later\" is neither", "after_key: 123");
    one_error(&extra("start: {}"), "8:12: after_key in start in section \"a\" is missing", "");
    one_error(
        &extra("start: { after_key: 1, x: 2 }"),
        "8:28: unknown key \"x\" in start in section \"a\"",
        "after_key",
    );
    one_error(
        &extra("batch: { rows: 0 }"),
        "8:20: rows in batch in section \"a\": \"0\" is not a whole number of at least 1",
        "10000",
    );
    one_error(
        &extra("batch: { bytes: 31MB }"),
        "8:21: bytes in batch in section \"a\": \"31MB\" is 31000000 bytes",
        "30MB",
    );
    one_error(&extra("batch: { bytes: 0 }"), "8:21: bytes in batch in section \"a\": a batch of no bytes", "8MiB");
    one_error(&extra("flush: 0s"), "8:12: flush in section \"a\": a duration of zero", "1ms");
    one_error(&extra("flush: [5s]"), "8:12: flush in section \"a\" must be a single value", "");
    one_error(
        &extra("flush: { daily_at: \"24:00\" }"),
        "8:24: daily_at in flush in section \"a\": \"24:00\" is not a time",
        "23:59",
    );
    one_error(
        &extra("flush: { daily_at: \"02:00\", timezone: Mars }"),
        "8:43: timezone in flush in section \"a\": \"Mars\" is not",
        "",
    );
    one_error(
        &extra("timezone: Europe/Stockholme"),
        "8:15: timezone in section \"a\"",
        "did you mean \"Europe/Stockholm\"?",
    );
    one_error(&extra("in_doubt: drop"), "8:15: in_doubt in section \"a\": \"drop\" is not one of resend, hold", "hold");
    one_error(&extra("date: commit"), "8:11: date in section \"a\": \"commit\" is not one of receipt", "receipt");
    one_error(&extra("model: Company"), "8:5: model in section \"a\": a user activity has no model", "custom_metric");
    one_error(
        &activity("date: receipt\nfields: { email: e, date: d }"),
        "9:25: date is mapped, and date in section \"a\" says receipt",
        "keep one",
    );
}

#[test]
fn a_key_is_a_column_a_list_of_columns_or_left_to_the_primary_key() {
    let section =
        |key: &str| with_section(&format!("name: a\nkind: user_activity\ntable: t\n{key}fields: {{ email: e }}"));
    let key = |text: &str| parse(text, "test").unwrap().sections.remove(0).key;
    assert_eq!(key(&section("key: id\n")), ["id"]);
    assert_eq!(key(&section("key: [created_at, id]\n")), ["created_at", "id"]);
    assert!(key(&section("")).is_empty());
    one_error(&section("key: [id, id]\n"), "7:15: key in section \"a\" has the column \"id\" twice", "keep one");
    one_error(&section("key: []\n"), "7:10: key in section \"a\" has no columns", "[id, created_at]");
    one_error(&section("key: [{ a: b }]\n"), "7:11: key in section \"a\" must hold names", "[id, created_at]");
}

#[test]
fn errors_of_what_a_section_is() {
    let section = |lines: &str| with_section(&format!("{lines}\nfields: {{ email: e }}"));
    one_error(
        &section("name: a b\nkind: user_activity\ntable: t\nkey: k"),
        "4:11: name in section 1: \"a b\" is not a section name",
        "logins",
    );
    one_error(
        &section("name: a\nkind: user_activty\ntable: t\nkey: k"),
        "5:11: kind in section \"a\"",
        "did you mean \"user_activity\"?",
    );
    one_error(
        &section("name: a\nkind: user_activity\ntable: a.b.c\nkey: k"),
        "6:12: table in section \"a\": \"a.b.c\" is not a table name",
        "schema.table",
    );
    assert_eq!(
        shown(&section("sync: off")).iter().map(|e| e.split(" |").next().unwrap_or_default()).collect::<Vec<_>>(),
        [
            "4:5: kind in section 1 is missing",
            "4:5: name in section 1 is missing",
            "4:5: table in section 1 is missing"
        ],
    );
    one_error(
        &section("name: a\nkind: user_activity\ntable: t\nkey: k\nread: diff\nevery: 1h\non: insert_and_update"),
        "10:5: on in section \"a\": a result is compared",
        "send",
    );
    one_error(
        &section("name: a\nkind: user_activity\ntable: t\nkey: k\ntrue: insert\non: insert_and_update"),
        "9:5: the key \"on\" in section \"a\" was given already, on line 8",
        "keep one",
    );
    let twice = "planhat: { tenant: t }\nsections:\n  - &s { name: a, kind: user_activity, table: t, key: k, fields: { email: e } }\n  - { name: a, kind: user_activity, table: t, key: k, fields: { email: e } }\n";
    one_error(twice, "4:13: a second section with the name \"a\"; the first is on line 3", "a name of its own");
}

#[test]
fn errors_of_the_names_of_fields() {
    let field = |text: &str| activity(&format!("fields:\n  email: e\n  {text}"));
    one_error(&activity("flush: 5s"), "4:5: fields in section \"a\" is missing", "Planhat field");
    one_error(
        &activity("fields: [email]"),
        "8:13: fields in section \"a\" must be a mapping, not a list",
        "column's name",
    );
    one_error(
        &activity("fields: { action: a }"),
        "8:13: fields in section \"a\": a user activity needs email or externalId",
        "email: COLUMN",
    );
    one_error(
        &field("acton: a"),
        "10:7: fields in section \"a\": unknown field \"acton\" of a user activity",
        "did you mean \"action\"?",
    );
    one_error(&field("Email: a"), "10:7: fields in section \"a\": unknown field \"Email\"", "did you mean \"email\"?");
    one_error(&field("email: f"), "10:7: the field \"email\" was given already, on line 9", "keep one");
    one_error(
        &field("euExtId: a"),
        "10:7: fields in section \"a\": euExtId is the legacy spelling of externalId",
        "bulk_activity_names: legacy",
    );
    one_error(
        &field("cId: a"),
        "10:7: fields in section \"a\": cId is the legacy spelling of companyExternalId",
        "bulk_activity_names",
    );
    one_error(
        &field("count: a"),
        "10:7: fields in section \"a\": count is the legacy spelling of weight",
        "bulk_activity_names",
    );
    one_error(
        &field("weight: w\n  count: a"),
        "11:7: fields in section \"a\": count stands beside weight",
        "keep weight",
    );
    one_error(&field("model: a"), "10:7: fields in section \"a\": model is no field", "beside `fields:`");
}

#[test]
fn errors_of_the_forms_of_fields() {
    let field = |text: &str| activity(&format!("fields:\n  email: e\n  {text}"));
    one_error(
        &field("action: { value: }"),
        "10:15: fields.action in section \"a\": neither a column nor a constant",
        "column's name",
    );
    one_error(
        &field("action: { default: x }"),
        "10:15: fields.action in section \"a\": neither a column nor a constant",
        "column's name",
    );
    one_error(&field("action:"), "10:13: fields.action in section \"a\": no value", "column's name");
    one_error(
        &field("weight: 5"),
        "10:15: fields.weight in section \"a\": \"5\" would be a column's name",
        "{ value: 5 }",
    );
    one_error(&field("action: [a]"), "10:15: fields.action in section \"a\": a list", "column's name");
    one_error(
        &field("action: {}"),
        "10:15: fields.action in section \"a\": neither a column nor a constant",
        "column's name",
    );
    one_error(
        &field("action: { colum: a, column: b }"),
        "10:17: unknown key \"colum\" in fields.action in section \"a\"",
        "did you mean \"column\"?",
    );
    one_error(
        &field("action: { value: a, column: b }"),
        "10:24: fields.action in section \"a\": both a constant and a column",
        "default",
    );
    one_error(
        &field("action: { value: a, default: b }"),
        "10:27: fields.action in section \"a\": a constant with a default",
        "remove",
    );
    one_error(
        &field("weight: { value: much }"),
        "10:24: fields.weight in section \"a\": \"much\" is not a number",
        "finite",
    );
    one_error(
        &field("weight: { value: .inf }"),
        "10:24: fields.weight in section \"a\": \".inf\" is not a number that JSON has",
        "",
    );
    one_error(&field("weight: { value: [1] }"), "10:24: fields.weight in section \"a\": a list as a constant", "");
    one_error(
        &field("date: { value: yesterday }"),
        "10:22: fields.date in section \"a\": \"yesterday\" is not a UTC time",
        "2026-",
    );
}

#[test]
fn errors_of_info() {
    let field = |text: &str| activity(&format!("fields:\n  email: e\n  {text}"));
    one_error(&field("info: {}"), "10:13: fields.info in section \"a\": an object without names", "name: column");
    one_error(
        &field("info: { column: c }"),
        "10:13: fields.info in section \"a\": this could be a column or an object",
        "`info: COLUMN`",
    );
    one_error(
        &field("info: { column: c, default: 1 }"),
        "10:13: fields.info in section \"a\": this could be",
        "`info: COLUMN`",
    );
    one_error(&field("info: { a: { b: c } }"), "10:20: unknown key \"b\" in fields.info.a in section \"a\"", "");
    one_error(
        &field("info: { a: 007 }"),
        "10:18: fields.info.a in section \"a\": \"007\" would be a column's name",
        "quote",
    );
    one_error(&field("info: { a: b, a: c }"), "10:21: fields.info in section \"a\": the name \"a\" twice", "keep one");
    let metric =
        |fields: &str| with_section(&format!("name: m\nkind: custom_metric\ntable: t\nkey: id\nfields: {fields}"));
    one_error(
        &metric("{ value: v, externalId: e }"),
        "8:13: fields in section \"m\": a custom metric needs dimensionId",
        "dimensionId: { value",
    );
    one_error(
        &metric("{ dimensionId: d, externalId: e }"),
        "8:13: fields in section \"m\": a custom metric needs value",
        "value: COLUMN",
    );
    one_error(
        &metric("{ dimensionId: d, value: v }"),
        "8:13: fields in section \"m\": a custom metric needs externalId",
        "",
    );
    one_error(
        &metric("{ dimensionId: { value: seats used }, value: v, externalId: e }"),
        "8:37: fields.dimensionId in section \"m\": \"seats used\" has spaces",
        "seats_used",
    );
    one_error(
        &metric("{ dimensionId: { column: d, default: 'ä!' }, value: v, externalId: e }"),
        "8:50: fields.dimensionId in section \"m\": \"ä!\" has spaces or",
        "",
    );
    one_error(
        &metric("{ dimensionId: d, value: v, externalId: e, info: i }"),
        "8:56: fields in section \"m\": info is a field of user activities",
        "known here",
    );
    one_error(
        &metric("{ dimensionID: d, dimensionId: d, value: v, externalId: e }"),
        "8:15: fields in section \"m\": unknown field \"dimensionID\" of a custom metric",
        "did you mean \"dimensionId\"?",
    );
    one_error(
        &metric("{ dimensionId: d, value: v, externalId: e }\nmodel: Enduser"),
        "9:12: model in section \"m\": \"Enduser\" is not one of",
        "did you mean \"EndUser\"?",
    );
}

#[test]
fn all_errors_come_at_once_in_the_order_of_the_file() {
    let text = "memory: 1x\nadmin: { lisen: a }\nplanhat: { timeout: 0s }\nsections:\n  - { name: a, kind: user_activity, table: t, key: id, flush: 0s, fields: { emial: e } }\n";
    let errors = shown(text);
    let places: Vec<&str> = errors.iter().map(|e| e.split(": ").next().unwrap_or_default()).collect();
    assert_eq!(places, ["1:9", "2:10", "3:10", "3:21", "5:63", "5:75", "5:77"], "{errors:#?}");
    let printed = read(text).unwrap_err().to_string();
    assert!(printed.starts_with("f.yaml:1:9: memory: \"1x\" is not a size\n  remedy: "), "{printed}");
    assert_eq!(printed.matches("remedy: ").count(), 7, "{printed}");
}

#[test]
fn meanings() {
    let config = good(&activity(
        "sync: off\nstart: { after_key: 123 }\nflush: { daily_at: \"02:30\", timezone: Europe/Stockholm }\nin_doubt: hold\ndate: receipt\n\
         timezone: Europe/Paris\nfields:\n  externalId: { value: 42 }\n  weight: { column: w, default: 1.50 }\n  info: payload\n  action: \"5\"",
    ));
    let section = &config.sections[0];
    let zone = |name| jiff::tz::TimeZone::get(name).unwrap();
    assert_eq!(section.sync, Sync::Off);
    assert_eq!(section.start, Start::AfterKey("123".into()));
    assert_eq!(section.flush, Flush::DailyAt(jiff::civil::time(2, 30, 0, 0), zone("Europe/Stockholm")));
    assert_eq!((section.in_doubt, section.date_receipt), (InDoubt::Hold, true));
    assert_eq!(section.timezone, Some(zone("Europe/Paris")));
    let column = |name: &str, default| Field::Column { column: name.into(), default, as_text: false };
    let expected = [
        ("externalId", Field::Constant(Constant::Text("42".into()))),
        ("weight", column("w", Some(Constant::Number("1.50".into())))),
        ("info", column("payload", None)),
        ("action", column("5", None)),
    ];
    assert_eq!(section.fields, expected.map(|(name, field)| (name.to_owned(), field)));

    let info =
        "fields: { email: e, info: { value: { value: true }, n: { value: 007a }, column: { column: c }, d: dd } }";
    let Some((_, Field::Object(inner))) =
        good(&activity(info)).sections[0].fields.pop().filter(|(name, _)| name == "info")
    else {
        panic!("info is no object")
    };
    let expected = [
        ("value", Field::Constant(Constant::Bool(true))),
        ("n", Field::Constant(Constant::Text("007a".into()))),
        ("column", column("c", None)),
        ("d", column("dd", None)),
    ];
    assert_eq!(inner, expected.map(|(name, field)| (name.to_owned(), field)));

    let sync_false = good(&activity("sync: false\nstart: now\nflush: 250ms\nfields: { email: e }"));
    assert_eq!(sync_false.sections[0].sync, Sync::Off);
    assert_eq!(sync_false.sections[0].start, Start::Now);
    assert_eq!(sync_false.sections[0].flush, Flush::Every(Duration::from_millis(250)));

    // Tools that write YAML 1.1 turn a plain `on` into `true`.
    for (key, on) in
        [("on", RowVersions::Committed), ("true", RowVersions::Committed), ("\"on\"", RowVersions::Committed)]
    {
        let text = format!("{key}: insert_and_update\nfields: {{ email: e }}");
        assert_eq!(good(&activity(&text)).sections[0].on, Some(on));
    }
    let updates = |source: &str| good(&top(&format!("source: {{ host: h, {source} }}"))).source.update_publication();
    assert_eq!(updates("database: d"), "pg2planhat_updates");
    assert_eq!(updates("publication: app"), "app_updates");
    assert_eq!(updates("publication: app, update_publication: u"), "u");
    let long = updates(&format!("publication: {}", "é".repeat(31)));
    assert!(long.len() <= 63 && long.ends_with("é_updates"), "{long}");

    let config =
        good(&top("source: { schema: app, url: { env: STATE_URL }, tls: disable, manage: off }\nstate: { url: null }"));
    assert_eq!(config.sections[0].table, TableName { schema: "app".into(), name: "t".into() });
    assert_eq!((config.source.tls, config.source.manage), (Some(TlsMode::Disable), false));
    assert!(config.source.host.is_none() && config.state.url.is_none());
    assert_eq!(config.source.url, Some(Secret::Env("STATE_URL".into())));
}

#[test]
fn every_word_of_a_choice_has_a_meaning_of_its_own() {
    fn check<T: PartialEq + std::fmt::Debug>(name: &str, meaning: impl Fn(&str) -> Option<T>) {
        let all = TABLES.iter().flat_map(|(_, keys)| keys.iter()).filter(|key| key.name == name);
        let words: Vec<_> =
            all.filter_map(|key| if let Shape::OneOf(words) = key.shape { Some(words) } else { None }).collect();
        assert_eq!(words.len(), 1, "{name}");
        let meanings: Vec<T> =
            words[0].iter().map(|word| meaning(word).unwrap_or_else(|| panic!("{name}: {word}"))).collect();
        for (index, one) in meanings.iter().enumerate() {
            assert!(!meanings[..index].contains(one), "{name}: {one:?} twice");
        }
    }
    check("tls", endpoints::tls);
    check("bulk_activity_names", endpoints::activity_names);
    check("model", section::model);
    check("sync", section::switch);
    check("in_doubt", section::in_doubt);
}

#[test]
fn a_console_beyond_this_machine_needs_somebody_who_may_use_it() {
    let digest = "0".repeat(64);
    let token = format!("tokens: [{{ name: maria, role: operator, sha256: \"{digest}\" }}]");
    let open = "1:20: listen in console is beyond this machine, and nobody is named who may use the page";
    one_error(&top("console: { listen: \"0.0.0.0:9188\" }"), open, "console token");
    let closed = good(&top(&format!("console: {{ listen: \"0.0.0.0:9188\", {token} }}")));
    assert_eq!((closed.console.tokens.len(), closed.console.tokens[0].name.as_str()), (1, "maria"));
    for loopback in ["127.0.0.1:9188", "[::1]:9188", "localhost:9188"] {
        assert!(good(&top(&format!("console: {{ listen: \"{loopback}\" }}"))).console.tokens.is_empty());
    }
    assert!(good(MINIMAL).console.listen.is_none(), "off by default");
    let clear = "console: { tokens: [{ name: m, role: viewer, sha256: pg2planhat_0123 }] }";
    one_error(&top(clear), "1:54: sha256 in tokens in console is no SHA-256", "never the token itself");
    one_error(&top("console: { cert: a.pem }"), "1:18: cert in console is given without key", "key: PATH");
}

#[test]
fn the_example_loads_and_shows_the_defaults() {
    let example = good(EXAMPLE);
    let minimal = good(MINIMAL);
    let comparable = |mut config: Config| {
        // The example writes the default down; the type tells the two apart, the meaning is the same.
        for section in &mut config.sections {
            section.timezone.get_or_insert(jiff::tz::TimeZone::UTC);
        }
        config.source.tls.get_or_insert_default();
        format!("{config:#?}")
    };
    assert_eq!(comparable(example), comparable(minimal));
}

/// Every `key: value` of the example that has a default shows it, and each default is shown.
#[test]
fn every_default_is_in_the_example() {
    let root = yaml::parse(EXAMPLE).unwrap().unwrap();
    let mut shown = BTreeSet::new();
    walk(&root, ROOT, "", &mut |path, key, node| {
        if let (Some(default), NodeValue::Scalar(text, _)) = (key.default, &node.value) {
            assert_eq!(text, default, "{path}");
            shown.insert(path.to_owned());
        }
    });
    let mut defaults = BTreeSet::new();
    list(ROOT, "", &mut |path, key| {
        if key.default.is_some() {
            defaults.insert(path.to_owned());
        }
    });
    assert_eq!(shown, defaults);
}

/// Calls `visit` with each known key under `node`; unknown ones fail.
fn walk(node: &Node, keys: &'static [KeySpec], place: &str, visit: &mut dyn FnMut(&str, &'static KeySpec, &Node)) {
    let NodeValue::Map(entries) = &node.value else { panic!("{place} is not a mapping") };
    for (name, value) in entries {
        let path = format!("{place}.{}", name.text);
        let key = keys.iter().find(|key| key.name == name.text).unwrap_or_else(|| panic!("unknown: {path}"));
        visit(&path, key, value);
        match (key.shape, &value.value) {
            (Shape::Object(inner), _) => walk(value, inner, &path, visit),
            (Shape::Sections, NodeValue::List(items)) => {
                items.iter().for_each(|item| walk(item, SECTION, &path, visit))
            }
            (_, _) => {}
        }
    }
}

fn list(keys: &'static [KeySpec], place: &str, visit: &mut dyn FnMut(&str, &'static KeySpec)) {
    for key in keys {
        let path = format!("{place}.{}", key.name);
        visit(&path, key);
        if let Shape::Object(inner) = key.shape {
            list(inner, &path, visit);
        } else if matches!(key.shape, Shape::Sections) {
            list(SECTION, &path, visit);
        }
    }
}

/// Live, or behind a `#` without a space; and nothing else is behind such a `#`.
#[test]
fn every_key_and_field_is_in_the_example() {
    let names = |line: &str| -> Vec<String> {
        let spaced = line.replace(['{', ','], " ");
        spaced.split_whitespace().filter_map(|word| word.strip_suffix(':')).map(str::to_owned).collect()
    };
    let live = |line: &str| line.split(" #").next().unwrap_or_default().trim_start_matches([' ', '-']).to_owned();
    let mut seen = BTreeSet::new();
    let mut commented = BTreeSet::new();
    for line in EXAMPLE.lines() {
        let line = line.trim_start();
        match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c.is_ascii_alphabetic()) => commented.extend(names(&live(key))),
            Some(_) => {}
            None => seen.extend(names(&live(line))),
        }
    }
    seen.extend(commented.iter().cloned());
    let keys = TABLES.iter().flat_map(|(_, keys)| keys.iter()).map(|key| key.name);
    let known: BTreeSet<String> =
        keys.chain(ACTIVITY.iter().chain(METRIC).map(|field| field.name)).map(str::to_owned).collect();
    let missing: Vec<_> = known.difference(&seen).collect();
    assert!(missing.is_empty(), "not in the example: {missing:?}");
    let unknown: Vec<_> = commented.difference(&known).collect();
    assert!(unknown.is_empty(), "commented out, and unknown: {unknown:?}");
}

/// No key of the tables goes unread: a list is wrong everywhere but under `sections`.
#[test]
fn every_key_of_the_tables_is_read() {
    let wrong = |keys: &'static [KeySpec], wrap: &dyn Fn(&str) -> String| {
        for key in keys {
            let text = wrap(&format!("{}: [[]]", key.name));
            let errors = read(&text).unwrap_err().to_string();
            let about = |line: &str| line.contains(key.name) || (key.name == "sections" && line.contains("section 1"));
            assert!(
                errors
                    .lines()
                    .any(|line| about(line) && line.contains("list")
                        || line.contains(key.name) && line.contains("neither")),
                "{}: {errors}",
                key.name
            );
            assert!(!errors.contains("unknown key"), "{}: {errors}", key.name);
        }
    };
    let nest = |name: &'static str| move |inner: &str| format!("{name}: {{ {inner} }}");
    let in_section = |name: &'static str| move |inner: &str| format!("sections: [{{ {name}: {{ {inner} }} }}]");
    wrong(ROOT, &|inner| inner.to_owned());
    wrong(keys::SOURCE, &nest("source"));
    wrong(keys::PLANHAT, &nest("planhat"));
    wrong(keys::STATE, &nest("state"));
    wrong(keys::ADMIN, &nest("admin"));
    wrong(SECTION, &|inner| format!("sections: [{{ {inner} }}]"));
    wrong(keys::START, &in_section("start"));
    wrong(keys::BATCH, &in_section("batch"));
    wrong(keys::FLUSH, &|inner| format!("sections: [{{ flush: {{ {inner} }} }}]"));
}

/// The schema and the reference of the keys, as committed.
#[test]
fn the_committed_schema_is_current() {
    let schema = serde_json::to_string_pretty(&json_schema()).unwrap() + "\n";
    for (file, current) in [("deploy/pg2planhat.schema.json", schema), ("docs/configuration-keys.md", key_reference())]
    {
        let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &current).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == current,
            "{file} is not current: run `UPDATE=1 cargo test --lib config::tests::the_committed_schema`"
        );
    }
}

/// Every key of the example is a property of the schema, where it stands.
#[test]
fn the_schema_knows_the_example() {
    fn check(node: &Node, schema: &serde_json::Value, root: &serde_json::Value, path: &str) {
        let mut options = Vec::new();
        resolve(schema, root, &mut options);
        match &node.value {
            NodeValue::Scalar(..) => {}
            NodeValue::List(items) => {
                let item =
                    options.iter().find_map(|option| option.get("items")).unwrap_or_else(|| panic!("{path}: no list"));
                items.iter().enumerate().for_each(|(index, node)| check(node, item, root, &format!("{path}[{index}]")));
            }
            NodeValue::Map(entries) => {
                for (name, value) in entries {
                    let path = format!("{path}.{}", name.text);
                    let known = |option: &serde_json::Value| {
                        option["properties"]
                            .get(&name.text)
                            .cloned()
                            .or_else(|| option.get("additionalProperties").filter(|v| v.is_object()).cloned())
                    };
                    let found: Vec<_> = options.iter().filter_map(known).collect();
                    assert!(!found.is_empty(), "{path} is not in the schema");
                    check(value, &serde_json::json!({ "anyOf": found }), root, &path);
                }
            }
        }
    }
    /// The schema and all that it refers to, offers or implies.
    fn resolve<'a>(schema: &'a serde_json::Value, root: &'a serde_json::Value, into: &mut Vec<serde_json::Value>) {
        into.push(schema.clone());
        if let Some(name) = schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/")) {
            let target = root["$defs"].get(name).unwrap_or_else(|| panic!("no definition of {name}"));
            resolve(target, root, into);
        }
        for word in ["anyOf", "allOf"] {
            schema[word].as_array().into_iter().flatten().for_each(|option| resolve(option, root, into));
        }
        if let Some(then) = schema.get("then") {
            resolve(then, root, into);
        }
    }
    let schema = json_schema();
    check(&yaml::parse(EXAMPLE).unwrap().unwrap(), &schema, &schema, "");
}

#[test]
fn no_secret_is_in_a_debug_form_or_an_error() {
    const PLANTED: &str = "hunter2";
    let all = format!(
        "source: {{ url: 'postgres://u:{PLANTED}@h/db' }}\nstate: {{ url: 'postgres://{PLANTED}@h/db' }}\nplanhat: {{ tenant: {PLANTED} }}\n\
         sections: [{{ name: a, kind: user_activity, table: t, key: id, fields: {{ email: e }} }}]"
    );
    let config = good(&all);
    assert!(!format!("{config:?}{config:#?}").contains(PLANTED));
    assert_eq!(config.planhat.tenant.reveal().unwrap(), PLANTED);
    let text = |value: &str, password: &str| {
        format!(
            "source: {{ url: {value}, password: {password} }}\nstate: {{ url: {value} }}\nplanhat: {{ tenant: {value}, url: 'https://u:{PLANTED}@h' }}\n"
        )
    };
    for value in [
        format!("'postgres://u:{PLANTED}@h/db'"),
        format!("'mysql://u:{PLANTED}@h/db'"),
        format!("'{PLANTED}/'"),
        format!("{{ {PLANTED}: x }}"),
        format!("{{ {PLANTED} }}"),
        format!("{{ env: {PLANTED}, env: {PLANTED} }}"),
        format!("{{ env: '{PLANTED}!' }}"),
        format!("[{PLANTED}]"),
        format!("[[{PLANTED}"),
        format!("!{PLANTED} x"),
        format!("*{PLANTED}"),
        format!("\"{PLANTED}\\q\""),
        format!("'{PLANTED}' {PLANTED}"),
        format!("{{ env: {{ {PLANTED}: x }} }}"),
    ] {
        let errors = read(&text(&value, &value)).unwrap_err();
        let fault = Fault::from(errors.clone());
        let shown = format!("{errors}{errors:?}{fault}{fault:?}");
        assert!(!shown.contains(PLANTED), "{value}: {shown}");
    }
}

#[test]
fn files_are_read_and_their_faults_have_a_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.yaml");
    let missing = load(&path).unwrap_err();
    assert!(
        missing.0[0].message.starts_with("the configuration cannot be read") && missing.0[0].line == 0,
        "{missing}"
    );
    assert!(missing.to_string().starts_with(&format!("{}: the configuration", path.display())), "{missing}");

    std::fs::write(&path, b"memory: 64MiB\n# caf\xc3\xa9 \xff\n").unwrap();
    let error = &load(&path).unwrap_err().0[0];
    assert_eq!((error.line, error.column, error.message.as_str()), (2, 8, "this is not UTF-8"));

    let secret = folder.path().join("tenant");
    let text = top(&format!("planhat:\n  tenant: {{ file: '{}' }}", secret.display()));
    std::fs::write(&path, format!("\u{feff}{}", text.replace('\n', "\r\n"))).unwrap();
    let error = &load(&path).unwrap_err().0[0];
    assert_eq!((error.line, error.column), (2, 11), "{error}");
    assert!(error.message.contains("cannot be read"), "{error}");
    std::fs::write(&secret, "t-1\n").unwrap();
    assert_eq!(load(&path).unwrap().planhat.tenant.reveal().unwrap(), "t-1");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        prop_assert!(read(&text).err().is_none_or(|errors| !errors.0.is_empty()));
    }

    #[test]
    fn yaml_like_text_never_panics(text in "([-?:,\\[\\]{}#&*!|>'\"%@` \n\ta-c0]|name|fields|<<|---|\\.\\.\\.){0,60}") {
        prop_assert!(read(&text).err().is_none_or(|errors| !errors.0.is_empty()));
    }

    #[test]
    fn a_mutated_example_never_panics_and_its_errors_have_places(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..6, "[-?:,\\[\\]{}#&*!|>'\"%@` \n\ta-z0-9]{0,4}"), 1..4),
    ) {
        let mut text: Vec<char> = EXAMPLE.chars().collect();
        for (at, length, new) in cuts {
            let at = at.index(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, new.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(errors) = read(&text) {
            let lines = text.lines().count() + 1;
            prop_assert!(!errors.0.is_empty());
            for error in &errors.0 {
                prop_assert!((1..=lines).contains(&error.line) && error.column > 0, "{error}");
                prop_assert!(!error.message.is_empty() && !error.remedy.is_empty(), "{error:?}");
            }
        }
    }
}
