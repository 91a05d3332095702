//! The plan of a chunk, on tables that were never analysed: the key's index, whatever the statistics say.

use crate::config::{self, Section, Source};
use crate::model::Key;
use crate::postgres::backfill::selection::{SESSION, Selection};
use crate::postgres::catalog::table;
use crate::postgres::catalog::types::Types;
use crate::postgres::connection::session::{connect_sql, first_value};
use crate::postgres::fixture::cluster;
use crate::postgres::preflight::key_findings::sorts;

fn section(table: &str, key: &str) -> Section {
    let text = format!(
        "source: {{host: h, database: d, user: u, schema: case_80a}}\nplanhat: {{tenant: t}}\nsections:\n  - {{name: m, kind: \
         custom_metric, table: {table}, key: {key}, fields: {{dimensionId: {{value: d}}, value: n, externalId: n, date: d}}}}\n"
    );
    config::parse(&text, "test").unwrap().sections.remove(0)
}

/// Every node of a plan: its type, and the condition that an index is searched by.
fn nodes(plan: &serde_json::Value, out: &mut Vec<(String, String)>) {
    if let Some(kind) = plan["Node Type"].as_str() {
        out.push((kind.to_owned(), plan["Index Cond"].as_str().unwrap_or_default().to_owned()));
    }
    for inner in plan["Plans"].as_array().into_iter().flatten() {
        nodes(inner, out);
    }
}

#[tokio::test]
async fn case_80a_a_chunk_is_read_along_the_keys_index_whatever_the_statistics() {
    let host = Some(cluster().directory.display().to_string());
    let source = Source { host, password: None, ..cluster().source("admin") };
    let session = connect_sql(&source, "test").await.unwrap();
    session
        .batch_execute(
            "CREATE SCHEMA case_80a; SET search_path = case_80a;
             CREATE TABLE by_int (id bigint PRIMARY KEY, n int, d date) WITH (autovacuum_enabled = off);
             CREATE TABLE by_uuid (id uuid PRIMARY KEY, n int, d date) WITH (autovacuum_enabled = off);
             CREATE TABLE by_two (a text, b date, n int, d date, PRIMARY KEY (a, b)) WITH (autovacuum_enabled = off);
             CREATE TABLE by_time (at timestamptz NOT NULL, id bigint PRIMARY KEY, n int, d date)
                WITH (autovacuum_enabled = off);
             CREATE INDEX ON by_time (at);
             CREATE TABLE by_part (id bigint, day date, n int, d date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
             CREATE TABLE by_part_1 PARTITION OF by_part FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
             CREATE TABLE by_part_2 PARTITION OF by_part FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
             INSERT INTO by_int SELECT g, 1 FROM generate_series(1, 20000) g;
             INSERT INTO by_uuid SELECT md5(g::text)::uuid, 1 FROM generate_series(1, 20000) g;
             INSERT INTO by_two SELECT 'a' || g % 50, date '2024-01-01' + g, 1 FROM generate_series(1, 20000) g;
             INSERT INTO by_time SELECT timestamptz '2024-01-01' + g / 10 * interval '1 s', g, 1 FROM generate_series(1, 20000) g;
             INSERT INTO by_part SELECT g, date '2024-01-01' + g % 60, 1 FROM generate_series(1, 20000) g",
        )
        .await
        .unwrap();
    session.batch_execute(SESSION).await.unwrap();
    let types = Types::load(&session).await.unwrap();
    let day = "2024-01-15";
    for (name, key, from, to) in [
        ("by_int", "id", vec!["5000"], vec!["20000"]),
        ("by_uuid", "id", vec!["11111111-1111-1111-1111-111111111111"], vec!["ffffffff-ffff-ffff-ffff-ffffffffffff"]),
        ("by_two", "[a, b]", vec!["a2", day], vec!["a9", day]),
        ("by_time", "[at, id]", vec!["2024-01-01 00:00:09+00", "5"], vec!["2025-01-01 00:00:00+00", "1"]),
        ("by_part", "[id, day]", vec!["5000", day], vec!["20000", day]),
    ] {
        let section = section(name, key);
        let info = table::by_name(&session, &section.table).await.unwrap().unwrap();
        let columns = info.row_columns(&types);
        let selection = Selection::new(&section, &info, &columns);
        let sql = selection.sql(Some(&Key::of_parts(&from)), &Key::of_parts(&to), 1000);
        let text = first_value(&session.simple_query(&format!("EXPLAIN (FORMAT JSON) {sql}")).await.unwrap()).unwrap();
        let plan: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut found = Vec::new();
        nodes(&plan[0]["Plan"], &mut found);
        assert!(!sorts(&plan), "{name}: {plan:#}");
        let scans: Vec<_> = found.iter().filter(|(kind, _)| kind.contains("Scan")).collect();
        assert!(!scans.is_empty(), "{name}: {plan:#}");
        assert!(
            scans.iter().all(|(kind, condition)| kind.starts_with("Index") && !condition.is_empty()),
            "{name}: {plan:#}"
        );
    }
}
