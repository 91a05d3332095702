//! A range read COPY by COPY: whole, in order, and of one snapshot, whoever else is at the table.

use crate::config::{self, Section, Source};
use crate::model::{Key, Lsn};
use crate::postgres::backfill::range_reader::{RangeOpened, RangeReader, TableChunk, WholeRange};
use crate::postgres::backfill::selection::Selection;
use crate::postgres::catalog::table;
use crate::postgres::catalog::types::Types;
use crate::postgres::connection::session::{Session, connect_sql, first_value};
use crate::postgres::fixture::cluster;

fn section(name: &str) -> Section {
    let text = format!(
        "source: {{host: h, database: d, user: u, schema: ranges}}\nplanhat: {{tenant: t}}\nsections:\n  - {{name: m, kind: \
         custom_metric, table: {name}, key: id, fields: {{dimensionId: {{value: d}}, value: n, externalId: n, date: d}}}}\n"
    );
    config::parse(&text, "test").unwrap().sections.remove(0)
}

async fn session() -> Session {
    let host = Some(cluster().directory.display().to_string());
    connect_sql(&Source { host, password: None, ..cluster().source("admin") }, "test").await.unwrap()
}

/// A table of its own with rows 1 to `rows`, and how it is read.
async fn table_of(admin: &Session, name: &str, rows: u32) -> Selection {
    let sql = format!(
        "SELECT pg_advisory_lock(38); CREATE SCHEMA IF NOT EXISTS ranges; SELECT pg_advisory_unlock(38);
         CREATE TABLE ranges.{name} (id int PRIMARY KEY, n text, d date);
         INSERT INTO ranges.{name} SELECT g, 'row ' || g FROM generate_series(1, {rows}) g"
    );
    admin.batch_execute(&sql).await.unwrap();
    let section = section(name);
    let info = table::by_name(admin, &section.table).await.unwrap().unwrap();
    let columns = info.row_columns(&Types::load(admin).await.unwrap());
    Selection::new(&section, &info, &columns)
}

fn keys(selection: &Selection, chunk: &TableChunk) -> Vec<u32> {
    let key = |row| String::from_utf8(selection.key_text(&row).into_owned()).unwrap().parse().unwrap();
    chunk.rows.iter().map(key).collect()
}

/// The chunks of what is left of a range behind `after`.
async fn rest(reader: &mut RangeReader<'_>, selection: &Selection, after: Option<Key>, aim: usize) -> Vec<TableChunk> {
    let (mut after, mut chunks) = (after, Vec::new());
    loop {
        assert_eq!(reader.open(after.as_ref()).await.unwrap(), RangeOpened::Reading);
        while let Some(chunk) = reader.next(aim).await.unwrap() {
            after = selection.last_key(&chunk.rows).or(after);
            let last = chunk.last;
            chunks.push(chunk);
            if last {
                return chunks;
            }
        }
    }
}

async fn position(session: &Session) -> Lsn {
    let answer = session.simple_query("SELECT pg_current_wal_insert_lsn()").await.unwrap();
    first_value(&answer).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_range_is_read_whole_and_in_order_in_chunks_of_any_size() {
    let admin = session().await;
    let selection = table_of(&admin, "whole", 3_000).await;
    let (through, whole) = (Key::new("3000"), WholeRange { after: None });
    for (aim, early) in [(1, true), (1, false), (4_000, true), (4_000, false), (1 << 20, true), (1 << 20, false)] {
        let client = session().await;
        let mut reader = RangeReader::begin(&client, &selection, (&through, Some(&whole)), early, None).await.unwrap();
        let chunks = rest(&mut reader, &selection, None, aim).await;
        let read: Vec<u32> = chunks.iter().flat_map(|chunk| keys(&selection, chunk)).collect();
        assert_eq!(read, (1..=3_000).collect::<Vec<_>>(), "{aim} {early}");
        assert_eq!(chunks.last().unwrap().range_rows, Some(3_000));
        assert!(chunks.iter().all(|chunk| chunk.rows.weight() <= 2 * aim + 100), "{aim} {early}");
    }
}

#[tokio::test]
async fn case_38_what_is_given_up_of_a_copy_is_read_by_the_next_one() {
    let (admin, client) = (session().await, session().await);
    let selection = table_of(&admin, "given_up", 3_000).await;
    let through = Key::new("3000");
    let mut reader = RangeReader::begin(&client, &selection, (&through, None), true, Some(3_000)).await.unwrap();
    assert_eq!(reader.open(None).await.unwrap(), RangeOpened::Reading);
    let first = reader.next(1_000).await.unwrap().unwrap();
    reader.give_up().await.unwrap();
    let open = admin.query_one(
        "SELECT count(*) FROM pg_locks WHERE relation = 'ranges.given_up'::regclass AND mode = 'AccessShareLock'",
        &[],
    );
    assert_eq!(open.await.unwrap().get::<_, i64>(0), 0, "its transaction is over");
    assert_eq!(reader.limit(), first.rows.len(), "the next one asks for what was used of this one");
    let chunks = rest(&mut reader, &selection, selection.last_key(&first.rows), 1_000).await;
    let read: Vec<u32> = std::iter::once(&first).chain(&chunks).flat_map(|chunk| keys(&selection, chunk)).collect();
    assert_eq!(read, (1..=3_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_chunk_that_is_given_early_shows_nothing_that_is_behind_its_position() {
    let (admin, client) = (session().await, session().await);
    let selection = table_of(&admin, "early", 3_000).await;
    let through = Key::new("9000");
    let mut reader = RangeReader::begin(&client, &selection, (&through, None), true, Some(9_000)).await.unwrap();
    reader.open(None).await.unwrap();
    let before = position(&admin).await;
    let first = reader.next(1_000).await.unwrap().unwrap();
    admin.batch_execute("INSERT INTO ranges.early SELECT g FROM generate_series(3001, 9000) g").await.unwrap();
    let mut chunks = vec![first];
    while let Some(chunk) = reader.next(1_000).await.unwrap() {
        chunks.push(chunk);
    }
    let read: Vec<u32> = chunks.iter().flat_map(|chunk| keys(&selection, chunk)).collect();
    assert_eq!(read, (1..=3_000).collect::<Vec<_>>(), "one snapshot");
    assert!(chunks.iter().all(|chunk| chunk.wait_for <= before), "before the rows that it does not show");
}

#[tokio::test]
async fn case_60_the_snapshot_of_a_copy_is_younger_than_a_rewrite_that_it_waited_for() {
    let admin = session().await;
    let selection = table_of(&admin, "rewritten", 100).await;
    let through = Key::new("100");
    for early in [true, false] {
        let client = session().await;
        admin.batch_execute("BEGIN; ALTER TABLE ranges.rewritten ALTER COLUMN n TYPE varchar(99)").await.unwrap();
        admin.batch_execute("ALTER TABLE ranges.rewritten ALTER COLUMN n TYPE text USING n || '!'").await.unwrap();
        let mut reader = RangeReader::begin(&client, &selection, (&through, None), early, Some(1_000)).await.unwrap();
        let waits = async {
            let waiting = "SELECT FROM pg_locks WHERE relation = 'ranges.rewritten'::regclass AND NOT granted";
            while admin.query_opt(waiting, &[]).await.unwrap().is_none() {
                tokio::task::yield_now().await;
            }
            admin.batch_execute("COMMIT").await.unwrap();
        };
        let (opened, ()) = tokio::join!(reader.open(None), waits);
        assert_eq!(opened.unwrap(), RangeOpened::Reading);
        let chunk = reader.next(1 << 20).await.unwrap().unwrap();
        assert_eq!(chunk.rows.len(), 100, "early: {early}");
    }
}

#[tokio::test]
async fn a_table_that_another_one_took_the_name_of_is_not_read() {
    let (admin, client) = (session().await, session().await);
    let selection = table_of(&admin, "renamed", 10).await;
    let through = Key::new("10");
    let mut reader = RangeReader::begin(&client, &selection, (&through, None), true, None).await.unwrap();
    admin
        .batch_execute(
            "ALTER TABLE ranges.renamed RENAME TO renamed_too; CREATE TABLE ranges.renamed (LIKE ranges.renamed_too)",
        )
        .await
        .unwrap();
    assert_eq!(reader.open(None).await.unwrap(), RangeOpened::OtherTable);
}
