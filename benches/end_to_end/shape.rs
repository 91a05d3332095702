//! The work that is measured: tables, how they are filled, and what is made of them.

use crate::harness::SectionText;
use crate::ours::section;

/// One kind of work.
pub struct Shape {
    /// For the table, and for names of slots.
    pub name: &'static str,
    /// Makes the tables.
    pub tables: String,
    /// Fills them.
    pub load: String,
    /// What is made of them.
    pub sections: Vec<SectionText>,
    /// Rows that the load inserts.
    pub rows: u64,
    /// JSON objects in each item.
    pub objects: u64,
}

/// The metric table of the measured limits: 147 bytes a message.
const METRIC: &str = "(id bigserial PRIMARY KEY, external_id text, dimension_id text, value float8, at timestamptz)";

fn metric(name: &str) -> SectionText {
    section(name, name).field("dimensionId", "dimension_id")
}

/// `rows` rows in transactions of `each`.
fn filled(name: &'static str, rows: u64, each: u64) -> Shape {
    let load = format!(
        "DO $$ BEGIN FOR i IN 1..{} LOOP INSERT INTO {name} (external_id, dimension_id, value, at) \
         SELECT 'company-' || (j % 1000), 'seats_used', j * 1.5, now() FROM generate_series(1, {each}) j; COMMIT; END LOOP; END $$",
        rows / each
    );
    Shape {
        name,
        tables: format!("CREATE TABLE {name} {METRIC}"),
        load,
        sections: vec![metric(name)],
        rows,
        objects: 1,
    }
}

/// Many transactions of 100 rows.
pub fn many(name: &'static str, rows: u64) -> Shape {
    filled(name, rows, 100)
}

/// One transaction.
pub fn one(rows: u64) -> Shape {
    filled("one", rows, rows)
}

/// Ten tables, ten sections, filled in turn.
pub fn ten_sections(rows: u64) -> Shape {
    let names: Vec<String> = (0..10).map(|n| format!("ten_{n}")).collect();
    let tables = names.iter().map(|name| format!("CREATE TABLE {name} {METRIC}")).collect::<Vec<_>>().join("; ");
    let inserts = names.iter().map(|name| {
        format!(
            "INSERT INTO {name} (external_id, dimension_id, value, at) SELECT 'company-' || j, 'seats_used', j * 1.5, now() \
             FROM generate_series(1, 10) j;"
        )
    });
    let load =
        format!("DO $$ BEGIN FOR i IN 1..{} LOOP {} COMMIT; END LOOP; END $$", rows / 100, inserts.collect::<String>());
    let sections = names.iter().map(|name| metric(name)).collect();
    Shape { name: "ten", tables, load, sections, rows, objects: 1 }
}

/// 200 columns, of which four are mapped.
pub fn wide(rows: u64) -> Shape {
    let columns = (0..194).map(|n| format!("c{n} int")).collect::<Vec<_>>().join(", ");
    let values = (0..194).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let tables = format!(
        "CREATE TABLE wide (id bigserial PRIMARY KEY, {columns}, external_id text, dimension_id text, value float8, at timestamptz, \
         last int)"
    );
    let load = format!(
        "DO $$ BEGIN FOR i IN 1..{} LOOP INSERT INTO wide SELECT (i - 1) * 100 + j, {values}, 'company-' || j, 'seats_used', j * 1.5, now(), 1 \
         FROM generate_series(1, 100) j; COMMIT; END LOOP; END $$",
        rows / 100
    );
    Shape { name: "wide", tables, load, sections: vec![metric("wide")], rows, objects: 1 }
}

/// Rows of 10 KB, carried whole.
pub fn long(rows: u64) -> Shape {
    let tables = "CREATE TABLE long (id bigserial PRIMARY KEY, user_id text, action text, payload text, at timestamptz); \
                  ALTER TABLE long ALTER payload SET STORAGE EXTERNAL";
    let load = format!(
        "DO $$ BEGIN FOR i IN 1..{} LOOP INSERT INTO long (user_id, action, payload, at) SELECT 'user-' || j, 'export', \
         repeat(md5(j::text), 313), now() FROM generate_series(1, 100) j; COMMIT; END LOOP; END $$",
        rows / 100
    );
    let section = SectionText::activity("long", "long")
        .set("flush", "500ms")
        .set("start", "now")
        .without("email")
        .without("weight")
        .field("info", "{ payload: payload }");
    Shape { name: "long", tables: tables.to_owned(), load, sections: vec![section], rows, objects: 2 }
}
