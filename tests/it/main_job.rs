//! The main job, end to end (the promise of README.md): each key once, in commit order, in bounded memory, and a slot that
//! is never ahead of what is settled.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use pg2planhat::testing::sim::{Received, SimFault, SimOptions, SinkKind};

use crate::harness::metrics::Metrics;
use crate::harness::{App, Cluster, ConfigText, SectionText, Stop, eventually};
use crate::main_job_oracle::*;

/// Old rows of each table.
const OLD_EVENTS: usize = 120_000;
const OLD_USAGE: usize = 80_000;
/// New rows, over both tables.
const NEW_ROWS: usize = 100_000;

const TABLES: &str = "
    CREATE TABLE event (id bigserial PRIMARY KEY, email text, tx bigint DEFAULT pg_current_xact_id()::text::bigint,
        at timestamptz DEFAULT now());
    CREATE TABLE usage (id bigserial PRIMARY KEY, tx bigint DEFAULT pg_current_xact_id()::text::bigint,
        at timestamptz DEFAULT now());";

fn insert(table: &str, rows: usize) -> String {
    match table {
        "event" => {
            format!("INSERT INTO event (email) SELECT 'p' || g || '@example.com' FROM generate_series(1, {rows}) g")
        }
        _ => format!("INSERT INTO usage (at) SELECT now() FROM generate_series(1, {rows})"),
    }
}

fn events_section() -> SectionText {
    SectionText::activity("events", "event")
        .without("email")
        .field("externalId", "id")
        .field("action", "{ value: login }")
        .field("weight", "tx")
}

fn usage_section() -> SectionText {
    SectionText::metric("usage", "usage").field("externalId", "id").field("value", "tx")
}

fn two_sections(cluster: &Cluster, url: &str) -> ConfigText {
    ConfigText::new(cluster, url).section(events_section()).section(usage_section())
}

/// One of four writers: 25,000 rows in transactions of all kinds; what it rolls back does not count.
async fn writer(cluster: &Cluster, number: usize) {
    let client = cluster.client().await;
    let mut left = NEW_ROWS / 4;
    let mut round = number;
    while left > 0 {
        let table = if round.is_multiple_of(2) { "event" } else { "usage" };
        let rows = (50 + 37 * round % 400).min(left);
        let some = insert(table, rows);
        let other = insert("event", 7);
        let statements = match round % 6 {
            0 => format!("BEGIN; {some}; {other}; ROLLBACK; BEGIN; {some}; COMMIT"),
            1 => format!("BEGIN; SAVEPOINT a; {other}; ROLLBACK TO a; {some}; RELEASE a; COMMIT"),
            2 => format!("BEGIN; {other}; SAVEPOINT a; {some}; RELEASE a; SAVEPOINT b; {other}; ROLLBACK TO b; COMMIT"),
            _ => some,
        };
        client.batch_execute(&statements).await.unwrap();
        left -= if round.is_multiple_of(6) { 0 } else { rows };
        round += 1;
    }
}

/// Transactions that are open for seconds beside the writers, so that low keys commit late.
async fn holder(cluster: &Cluster, seconds: f64) {
    let (events, usage) = (insert("event", 300), insert("usage", 300));
    let late = format!("BEGIN; {events}; SELECT pg_sleep({seconds}); {usage}; COMMIT");
    cluster.sql(&late).await;
}

/// The xids in the order of their commits, as PostgreSQL decodes them for another slot.
async fn commit_order(cluster: &Cluster) -> HashMap<i64, usize> {
    let query = "SELECT ('x' || encode(substr(data, 18, 4), 'hex'))::bit(32)::bigint
        FROM pg_logical_slot_peek_binary_changes('oracle', NULL, NULL, 'proto_version', '1', 'publication_names', 'oracle')
        WHERE get_byte(data, 0) = ascii('B')";
    let rows = cluster.rows(query).await;
    rows.iter().enumerate().map(|(at, row)| (row[0].as_ref().unwrap().parse().unwrap(), at)).collect()
}

/// Streamed items are in commit order, and within a transaction in the order of its inserts.
fn assert_commit_order(items: &[Received], marker: &str, order: &HashMap<i64, usize>) -> usize {
    let place = |item: &Received| {
        let tx = item.item()[marker].as_i64().unwrap();
        order.get(&tx).map(|at| (*at, key(item)))
    };
    let places = items.iter().filter_map(place).collect::<Vec<_>>();
    let wrong = places.windows(2).find(|pair| pair[0] >= pair[1]);
    assert_eq!(wrong, None, "(commit, key) out of order among {}", places.len());
    places.len()
}

/// The promise as a whole, on a large volume.
#[tokio::test]
async fn case_01_13_36_the_whole_job_brings_each_key_once_in_commit_order() {
    let cluster = Cluster::start().await;
    cluster.sql(&format!("{TABLES} {}; {}", insert("event", OLD_EVENTS), insert("usage", OLD_USAGE))).await;
    cluster.sql("ANALYZE event, usage; CREATE PUBLICATION oracle FOR TABLE event, usage").await;
    let sim = sink_like(SimOptions { latency: Duration::from_millis(100), ..SimOptions::default() }).await;
    let config = two_sections(&cluster, &sim.url());

    // Open before the slot can be made, and committed after: neither the slot nor the backfill may lose it.
    let early = cluster.client().await;
    early.batch_execute(&format!("BEGIN; {}; {}", insert("event", 300), insert("usage", 300))).await.unwrap();
    let app = App::run(&config);
    let half_made = "SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn IS NULL";
    let waits = || async { (cluster.number(half_made).await > 0).then_some(()) };
    eventually(PATIENCE, "the slot's making to wait for the open transaction", waits).await;
    early.batch_execute("COMMIT").await.unwrap();
    section_is(&app, "events", "backfilling").await;
    section_is(&app, "usage", "backfilling").await;
    cluster.sql("SELECT pg_create_logical_replication_slot('oracle', 'pgoutput')").await;
    let begun = Instant::now();
    tokio::join!(
        writer(&cluster, 0),
        writer(&cluster, 1),
        writer(&cluster, 2),
        writer(&cluster, 3),
        holder(&cluster, 1.0),
        holder(&cluster, 2.5),
        holder(&cluster, 4.0)
    );
    eprintln!("written in {:?}", begun.elapsed());

    let (events, usage) =
        (table_keys(&cluster, "SELECT id FROM event").await, table_keys(&cluster, "SELECT id FROM usage").await);
    assert!(events.len() + usage.len() >= OLD_EVENTS + OLD_USAGE + NEW_ROWS);
    let activities = arrived(&sim, SinkKind::Activity, events.len()).await;
    let metrics = arrived(&sim, SinkKind::Metric, usage.len()).await;
    eprintln!("delivered in {:?}", begun.elapsed());
    section_is(&app, "events", "streaming").await;
    section_is(&app, "usage", "streaming").await;
    let stood = drain(app, &cluster).await;
    assert_each_once(&events, keys(&sim.items(SinkKind::Activity)));
    assert_each_once(&usage, keys(&sim.items(SinkKind::Metric)));

    let order = commit_order(&cluster).await;
    let streamed = assert_commit_order(&activities, "weight", &order) + assert_commit_order(&metrics, "value", &order);
    assert!(streamed >= NEW_ROWS, "{streamed} rows came by the stream");
    let is_new = |item: &Received, marker: &str| order.contains_key(&item.item()[marker].as_i64().unwrap());
    let first_new = activities.iter().position(|item| is_new(item, "weight")).unwrap();
    let last_old = activities.iter().rposition(|item| !is_new(item, "weight")).unwrap();
    assert!(first_new < last_old, "stream and backfill did not overlap: nothing was tried");

    // A restart sends nothing: the two rows written after it are all that comes.
    assert_eq!(confirmed(&cluster).await, stood);
    let app = App::run(&config);
    section_is(&app, "events", "streaming").await;
    cluster.sql(&format!("{}; {}", insert("event", 1), insert("usage", 1))).await;
    let activities = arrived(&sim, SinkKind::Activity, events.len() + 1).await;
    let metrics = arrived(&sim, SinkKind::Metric, usage.len() + 1).await;
    drain(app, &cluster).await;
    assert_eq!((activities.len(), metrics.len()), (events.len() + 1, usage.len() + 1));
    assert_eq!(ledger(&cluster, "'in_doubt', 'resent', 'held', 'sending'").await, 0);
}

/// Why this product exists: a poller beside it loses the row for ever.
#[tokio::test]
async fn case_01_a_late_commit_below_the_key_is_delivered_and_a_poller_loses_it() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster.sql(TABLES).await;
    let app = App::run(&two_sections(&cluster, &sim.url()));
    section_is(&app, "events", "streaming").await;

    let (late, prompt) = (cluster.client().await, cluster.client().await);
    let mut polled: Vec<i64> = Vec::new();
    let poll = |after: i64| {
        let cluster = &cluster;
        async move { table_keys(cluster, &format!("SELECT id FROM event WHERE id > {after}")).await }
    };
    late.batch_execute("BEGIN; INSERT INTO event (email) VALUES ('late')").await.unwrap();
    prompt.batch_execute("INSERT INTO event (email) VALUES ('prompt')").await.unwrap();
    polled.extend(poll(0).await);
    assert_eq!(keys(&arrived(&sim, SinkKind::Activity, 1).await), [2]);
    late.batch_execute("COMMIT").await.unwrap();
    polled.extend(poll(2).await);

    assert_eq!(keys(&arrived(&sim, SinkKind::Activity, 2).await), [2, 1], "commit order");
    assert_eq!(polled, [2], "the poller has lost row 1");
    drain(app, &cluster).await;
}

/// Each row of a huge transaction once; its first rows long before its last; memory flat; confirmed at its end.
#[tokio::test]
async fn case_12_a_transaction_of_a_million_rows_takes_bounded_memory() {
    const ROWS: usize = 1_000_000;
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster.sql(TABLES).await;
    let config = ConfigText::new(&cluster, &sim.url()).set("memory", "64MiB").section(usage_section());
    let app = App::run(&config);
    section_is(&app, "usage", "streaming").await;
    let before = confirmed(&cluster).await;
    // While the sink takes nothing, reading goes on until the budget is full, and no further.
    sim.queue_fault(
        SimFault::Status { status: 503, retry_after: Some("1".into()), body: String::new(), store: false }.times(0),
    );
    cluster.sql(&insert("usage", ROWS)).await;
    let committed = cluster.text("SELECT pg_current_wal_lsn()").await;
    let seen = Cell::new((0.0, 0.0));
    let full = || async {
        let shown = Metrics::parse(&app.get("/metrics").await.ok()?.body);
        let read = shown.get("rows_read_total", &[("phase", "stream")])?;
        let retries = shown.get("retries_total", &[("reason", "later")])?;
        let (read_before, retries_before) = seen.get();
        if retries > retries_before {
            seen.set((read, retries));
        }
        (read > 0.0 && read == read_before && retries > retries_before).then_some(read)
    };
    let read = eventually(PATIENCE, "reading to stop", full).await;
    assert!(read < ROWS as f64, "all {read} rows were read though none was taken");
    sim.clear_faults();

    arrived(&sim, SinkKind::Metric, 1).await;
    let read = app.metric("rows_read_total", &[("section", "usage"), ("phase", "stream")]).await.unwrap();
    assert!(read < ROWS as f64, "{read} rows were read when the first arrived");
    // Nothing of a transaction is confirmed before its end has been delivered.
    let inside = confirmed(&cluster).await;
    assert!(sim.stats().metrics.items < ROWS as u64, "too fast to have looked inside");
    let lsn = |text: &str| text.parse::<pg2planhat::testing::model::Lsn>().unwrap();
    assert!(lsn(&inside) < lsn(&committed), "{before} {inside} {committed}");

    let items = arrived(&sim, SinkKind::Metric, ROWS).await;
    wait_confirmed(&cluster, &committed).await;
    let peak = app.rss() >> 20;
    eprintln!("VmHWM {peak} MiB");
    assert!(peak < 152, "VmHWM {peak} MiB: over 160 MB");
    drain(app, &cluster).await;
    let keys = keys(&items);
    assert!(keys.len() == ROWS && keys.windows(2).all(|pair| pair[0] + 1 == pair[1]), "in order, without a gap");
}

/// WAL of unmapped tables and of other databases is confirmed by itself.
#[tokio::test]
async fn case_07_others_write_and_the_confirmed_lag_goes_back_to_zero() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster.sql(TABLES).await;
    cluster.sql("CREATE TABLE other (t text)").await;
    cluster.sql("CREATE DATABASE elsewhere").await;
    let app = App::run(&two_sections(&cluster, &sim.url()));
    section_is(&app, "usage", "streaming").await;
    let elsewhere = cluster.client_of("elsewhere").await;
    elsewhere.batch_execute("CREATE TABLE other (t text)").await.unwrap();
    let busy = "INSERT INTO other SELECT repeat(md5(g::text), 20) FROM generate_series(1, 20000) g";
    for client in [cluster.client().await, elsewhere] {
        client.batch_execute(busy).await.unwrap();
        let written = cluster.text("SELECT pg_current_wal_lsn()").await;
        wait_confirmed(&cluster, &written).await;
        let zero = |status: &serde_json::Value| (status["slot"]["confirmed_lag_bytes"] == 0).then_some(());
        app.wait_status("the confirmed lag to be 0", zero).await;
        let lag = "SELECT (pg_current_wal_lsn() - confirmed_flush_lsn)::bigint FROM pg_replication_slots";
        assert!(cluster.number(lag).await < 64 << 10, "what /status says is true");
    }
    assert_eq!((sim.stats().activities.requests, sim.stats().metrics.requests), (0, 0));
    drain(app, &cluster).await;
}

/// The server forgets what was confirmed to it (≤ 16, after a clean stop; any, after a crash): the checkpoint does not.
#[tokio::test]
async fn case_10_25_a_server_restarted_between_stop_and_start_brings_nothing_twice() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster.sql(&format!("{TABLES} {}", insert("event", 500))).await;
    let config = two_sections(&cluster, &sim.url());
    let mut expected = 500;
    for stop in [Stop::Fast, Stop::Immediate] {
        let app = App::run(&config);
        section_is(&app, "events", "streaming").await;
        for _ in 0..20 {
            cluster.sql(&insert("event", 20)).await;
            expected += 20;
            arrived(&sim, SinkKind::Activity, expected).await;
        }
        drain(app, &cluster).await;
        cluster.stop(stop).await;
        cluster.start_again().await;
    }
    let app = App::run(&config);
    section_is(&app, "events", "streaming").await;
    cluster.sql(&insert("event", 1)).await;
    let items = arrived(&sim, SinkKind::Activity, expected + 1).await;
    assert_each_once(&table_keys(&cluster, "SELECT id FROM event").await, keys(&items));

    // And under its feet, while rows wait.
    for stop in [Stop::Fast, Stop::Immediate] {
        cluster.sql(&insert("event", 2000)).await;
        cluster.stop(stop).await;
        cluster.start_again().await;
    }
    cluster.sql(&insert("event", 1)).await;
    let items = arrived(&sim, SinkKind::Activity, expected + 4002).await;
    assert_each_once(&table_keys(&cluster, "SELECT id FROM event").await, keys(&items));
    drain(app, &cluster).await;
    let per_outcome: BTreeMap<_, _> = cluster
        .rows("SELECT outcome, count(*) FROM pg2planhat.delivery GROUP BY 1")
        .await
        .into_iter()
        .map(|row| (row[0].clone().unwrap(), row[1].clone().unwrap()))
        .collect();
    assert_eq!(per_outcome.keys().collect::<Vec<_>>(), ["delivered"], "{per_outcome:?}");
}

/// Rows that commit while nobody is connected wait in the slot.
#[tokio::test]
async fn case_06_rows_committed_while_the_program_is_down_come_at_the_next_start() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster.sql(&format!("{TABLES} {}", insert("usage", 10))).await;
    let config = two_sections(&cluster, &sim.url());
    let app = App::run(&config);
    section_is(&app, "usage", "streaming").await;
    arrived(&sim, SinkKind::Metric, 10).await;
    let stood = drain(app, &cluster).await;
    for statements in [insert("usage", 700), format!("BEGIN; {}; ROLLBACK", insert("usage", 3)), insert("event", 30)] {
        cluster.sql(&statements).await;
    }
    assert_eq!(confirmed(&cluster).await, stood);
    let app = App::run(&config);
    let metrics = arrived(&sim, SinkKind::Metric, 710).await;
    let events = arrived(&sim, SinkKind::Activity, 30).await;
    assert_each_once(&table_keys(&cluster, "SELECT id FROM usage").await, keys(&metrics));
    assert_each_once(&table_keys(&cluster, "SELECT id FROM event").await, keys(&events));
    let idle = || async { (confirmed(&cluster).await != stood).then_some(()) };
    eventually(PATIENCE, "the slot to move", idle).await;
    drain(app, &cluster).await;
}
