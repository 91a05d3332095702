//! Backfills beside the running stream (FAULTS 35 to 42): exact whatever the key, resumable at the chunk, harmless.

use std::collections::BTreeSet;
use std::time::Duration;

use pg2planhat::testing::sim::{SimOptions, SinkKind};

use crate::harness::{App, Cluster, ConfigText, SectionText, eventually};
use crate::main_job_oracle::*;

fn metric_over(name: &str, table: &str) -> SectionText {
    SectionText::metric(name, table).field("externalId", "id").without("date").set("date", "receipt")
}

async fn slow_sink(millis: u64) -> pg2planhat::testing::sim::SimHandle {
    sink_like(SimOptions { latency: Duration::from_millis(millis), ..SimOptions::default() }).await
}

/// Keys of every allowed type, with values that order as numbers or times and not as text; some come late below the
/// ceiling, by the stream.
#[tokio::test]
async fn case_36_42_keys_of_every_allowed_type() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    // The n-th key of each type, ascending in n, from below zero (or before Christ) on.
    let types = [
        ("smallint", "(n - 1500)::smallint"),
        ("integer", "(n - 1500) * 1000000"),
        ("bigint", "(n - 1500) * 6000000000000000::bigint"),
        ("numeric", "(n - 1500) * 1234567.000100 + 0.5"),
        ("timestamp", "timestamp '2024-01-01 00:00:00.5' + (n - 1500) * interval '13 days 5 hours 0.125 s'"),
        ("timestamptz", "timestamptz '2024-01-01 00:00:00+00' + (n - 1500) * interval '700 days 1 s'"),
        ("date", "date '2024-01-01' + (n - 1500)"),
    ];
    let mut config = ConfigText::new(&cluster, &sim.url());
    for (ty, key) in types {
        cluster
            .sql(&format!(
                "CREATE TABLE by_{ty} (id {ty} PRIMARY KEY, n bigint);
                 INSERT INTO by_{ty} SELECT {key}, n FROM generate_series(1, 3000) n WHERE n % 3 > 0 ORDER BY n % 7"
            ))
            .await;
        let section = metric_over(ty, &format!("by_{ty}")).field("externalId", "n");
        let section = section.field("dimensionId", &format!("{{ value: {ty} }}")).field("value", "n");
        config = config.section(section.set("batch", "{ rows: 100 }"));
    }
    let app = App::run(&config);
    arrived(&sim, SinkKind::Metric, 1).await;
    for (ty, key) in types {
        let late = format!("INSERT INTO by_{ty} SELECT {key}, n FROM generate_series(1, 3000) n WHERE n % 3 = 0");
        cluster.sql(&late).await;
    }
    let items = arrived(&sim, SinkKind::Metric, types.len() * 3000).await;
    for (ty, _) in types {
        section_is(&app, ty, "streaming").await;
        let of_type = items.iter().filter(|item| text(item, "dimensionId") == ty).map(key).collect::<Vec<_>>();
        let old = of_type.iter().copied().filter(|n| n % 3 > 0).collect::<Vec<_>>();
        assert!(old.windows(2).all(|pair| pair[0] < pair[1]), "{ty}: a backfill is in the order of its key");
        assert_each_once(&(1..=3000).collect::<Vec<_>>(), of_type);
    }
    drain(app, &cluster).await;
    assert_eq!(sim.stats().metrics.items, 21_000);
    audited(&config).await;
}

/// Where sections begin, and what they begin with: all on one table or on small ones, all at once.
#[tokio::test]
async fn case_41_starts_of_all_kinds_and_tables_of_all_sizes() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    let table = |name: &str, rows: i64| {
        format!(
            "CREATE TABLE {name} (id bigserial PRIMARY KEY, value int DEFAULT 1);
             INSERT INTO {name} SELECT FROM generate_series(1, {rows});"
        )
    };
    cluster.sql(&[table("empty", 0), table("single", 1), table("many", 5000)].concat()).await;
    let section =
        |name: &str, table: &str| metric_over(name, table).field("dimensionId", &format!("{{ value: {name} }}"));
    let config = ConfigText::new(&cluster, &sim.url())
        .section(section("none", "empty"))
        .section(section("one", "single"))
        .section(section("all", "many"))
        .section(section("again", "many").set("batch", "{ rows: 77 }"))
        .section(section("new", "many").set("start", "now"))
        .section(section("after", "many").set("start", "{ after_key: 4900 }"))
        .section(section("beyond", "many").set("start", "{ after_key: 9000 }"))
        .section(section("off", "many").set("sync", "off"));
    let app = App::run(&config);
    let on = ["none", "one", "all", "again", "new", "after", "beyond"];
    for name in on {
        section_is(&app, name, "streaming").await;
    }
    arrived(&sim, SinkKind::Metric, 1 + 5000 + 5000 + 100).await;
    section_is(&app, "off", "off").await;
    cluster
        .sql("INSERT INTO empty DEFAULT VALUES; INSERT INTO single DEFAULT VALUES; INSERT INTO many DEFAULT VALUES")
        .await;
    let items = arrived(&sim, SinkKind::Metric, 10_101 + 2 + 5).await;
    drain(app, &cluster).await;
    let of = |name: &str| items.iter().filter(|item| text(item, "dimensionId") == name).map(key).collect::<Vec<_>>();
    let all = (1..=5001).collect::<Vec<_>>();
    assert_eq!((of("none"), of("one")), (vec![1], vec![1, 2]));
    assert_each_once(&all, of("all"));
    assert_each_once(&all, of("again"));
    assert_eq!((of("new"), of("after"), of("beyond")), (vec![5001], all[4900..].to_vec(), vec![5001]));
    assert_eq!(of("off").len(), 0);
    assert_eq!(sim.stats().metrics.items, 10_108);
    audited(&config).await;
}

/// The ceiling moves while rows above and below it commit, change and go: all that stay come once.
#[tokio::test]
async fn case_36_inserts_late_commits_updates_and_deletes_beside_a_backfill() {
    let (cluster, sim) = (Cluster::start().await, slow_sink(15).await);
    cluster
        .sql(
            "CREATE TABLE t (id bigint PRIMARY KEY, value int, filler text DEFAULT repeat('x', 1000));
             INSERT INTO t (id, value) SELECT g * 10, 1 FROM generate_series(1, 20000) g",
        )
        .await;
    // Wide rows, so that the table is many chunks and most of it is not read ahead.
    let section = SectionText::activity("t", "t").without("email").without("date").set("date", "receipt");
    let section = section.field("externalId", "id").field("action", "{ value: a }").field("weight", "value");
    let section = section.field("info", "{ f: filler }").set("batch", "{ rows: 200 }");
    let config = ConfigText::new(&cluster, &sim.url()).section(section);
    let app = App::run(&config);
    arrived(&sim, SinkKind::Activity, 1000).await;
    let late = cluster.client().await;
    // Keys that the cursor has passed, keys that it has not, keys above the ceiling.
    late.batch_execute("BEGIN; INSERT INTO t (id, value) VALUES (11, 2), (100011, 2), (199991, 2), (900001, 2)")
        .await
        .unwrap();
    let mut next = 200_010;
    for round in 0..40 {
        let own = round * 5000 + 7;
        cluster
            .sql(&format!(
                "INSERT INTO t (id, value) VALUES ({own}, 3), ({next}, 3);
                 UPDATE t SET value = value + 1 WHERE id BETWEEN {own} AND {own} + 2000;
                 DELETE FROM t WHERE id = {own} + 1003"
            ))
            .await;
        next += 10;
        if round == 20 {
            late.batch_execute("COMMIT").await.unwrap();
        }
    }
    section_is(&app, "t", "streaming").await;
    cluster.sql("INSERT INTO t (id, value) VALUES (1000000, 4)").await;
    let last = |items: &[pg2planhat::testing::sim::Received]| items.iter().any(|item| key(item) == 1_000_000);
    let came = || async { last(&sim.items(SinkKind::Activity)).then_some(()) };
    eventually(PATIENCE, "the last row", came).await;
    drain(app, &cluster).await;
    let got = keys(&sim.items(SinkKind::Activity));
    let there = table_keys(&cluster, "SELECT id FROM t").await;
    let once = got.iter().copied().collect::<BTreeSet<_>>();
    assert_eq!(once.len(), got.len(), "a row came twice");
    let missing = there.iter().filter(|key| !once.contains(key)).collect::<Vec<_>>();
    assert!(missing.is_empty(), "{missing:?}");
    audited(&config).await;
}

/// Killed in the middle, three times: goes on at the chunk; only batches under way are doubled, and the ledger names them.
#[tokio::test]
async fn case_35_a_kill_in_the_middle_of_a_backfill_resumes_at_the_chunk() {
    const ROWS: usize = 40_000;
    let (cluster, sim) = (Cluster::start().await, slow_sink(10).await);
    cluster
        .sql(&format!(
            "CREATE TABLE t (id bigserial PRIMARY KEY, value int DEFAULT 1);
             INSERT INTO t SELECT FROM generate_series(1, {ROWS})"
        ))
        .await;
    let config = ConfigText::new(&cluster, &sim.url()).section(metric_over("t", "t").set("batch", "{ rows: 250 }"));
    let mut before = 0;
    for until in [3_000, 12_000, 25_000] {
        let app = App::run(&config);
        arrived(&sim, SinkKind::Metric, until).await;
        cluster.sql("INSERT INTO t DEFAULT VALUES").await;
        app.kill9().await;
        let now = sim.stats().metrics.items;
        let cursor = cluster.number("SELECT cursor::bigint FROM pg2planhat.section").await;
        assert!(cursor > before, "the cursor did not move");
        before = cursor;
        eprintln!("killed at {now} items, cursor {cursor}");
    }
    let app = App::run(&config);
    section_is(&app, "t", "streaming").await;
    cluster.sql("INSERT INTO t DEFAULT VALUES").await;
    let all = (1..=ROWS as i64 + 4).collect::<Vec<_>>();
    let complete = || async {
        let got = keys(&sim.items(SinkKind::Metric)).into_iter().collect::<BTreeSet<_>>();
        (got.len() == all.len()).then_some(())
    };
    eventually(PATIENCE, "every key", complete).await;
    drain(app, &cluster).await;
    let mut rest = keys(&sim.items(SinkKind::Metric));
    for key in &all {
        rest.remove(rest.iter().position(|got| got == key).unwrap());
    }
    let named =
        "SELECT count(*), coalesce(sum(rows), 0) FROM pg2planhat.delivery WHERE outcome IN ('in_doubt', 'resent')";
    let named = &cluster.rows(named).await[0];
    let number = |at: usize| named[at].as_ref().unwrap().parse::<usize>().unwrap();
    // One request under way for each section: at most one batch in doubt at each kill.
    assert!(number(0) <= 3, "{} batches in doubt after three kills", number(0));
    assert!(rest.len() <= number(1), "{} rows doubled, {} named in doubt", rest.len(), number(1));
    for key in rest {
        let query = format!(
            "SELECT count(*) FROM pg2planhat.delivery WHERE outcome IN ('in_doubt', 'resent') \
             AND {key} BETWEEN first_key::bigint AND last_key::bigint"
        );
        assert!(cluster.number(&query).await > 0, "row {key} came twice, and no batch in doubt names it");
    }
}

/// A commit in the WAL before the section attached, that no snapshot sees yet: the synchronous standby is frozen. The
/// stream will never bring it; the xmin barrier waits for it.
#[tokio::test]
async fn case_37_a_commit_that_no_snapshot_sees_yet_is_waited_for() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster
        .sql(
            "CREATE TABLE first (id bigserial PRIMARY KEY, value int DEFAULT 1);
             CREATE TABLE second (id bigserial PRIMARY KEY, value int DEFAULT 1);
             INSERT INTO second SELECT FROM generate_series(1, 10)",
        )
        .await;
    let one = ConfigText::new(&cluster, &sim.url()).section(metric_over("first", "first"));
    let app = App::run(&one);
    section_is(&app, "first", "streaming").await;
    drain(app, &cluster).await;

    let standby = cluster.standby().await;
    cluster.set("synchronous_standby_names", "standby").await;
    let synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
    eventually(PATIENCE, "a synchronous standby", || async { (cluster.number(synchronous).await > 0).then_some(()) })
        .await;
    standby.freeze();
    let hidden = cluster.client().await;
    let hidden =
        tokio::spawn(async move { hidden.batch_execute("INSERT INTO second SELECT FROM generate_series(1, 5)").await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    eventually(PATIENCE, "the commit to wait", || async { (cluster.number(waits).await > 0).then_some(()) }).await;
    assert_eq!(cluster.number("SELECT count(*) FROM second").await, 10, "in the WAL, and not visible");

    // The publication gets its table from another hand: that commit must not wait for the standby.
    cluster.sql("SET synchronous_commit = local; ALTER PUBLICATION pg2planhat ADD TABLE second").await;
    let app = App::run(&one.clone().section(metric_over("second", "second")));
    section_is(&app, "second", "waiting").await;
    section_is(&app, "first", "streaming").await;
    // Case 39 as well: while the section waits to be attached, the other section goes on.
    cluster.sql("SET synchronous_commit = local; INSERT INTO first DEFAULT VALUES").await;
    arrived(&sim, SinkKind::Metric, 1).await;
    assert_eq!(cluster.number("SELECT count(*) FROM second").await, 10, "still not visible");
    assert_eq!(sim.stats().metrics.items, 1, "the xmin barrier has not passed");
    standby.thaw();
    hidden.await.unwrap().unwrap();
    section_is(&app, "second", "streaming").await;
    let items = arrived(&sim, SinkKind::Metric, 16).await;
    assert_each_once(&(1..=15).collect::<Vec<_>>(), keys(&items[1..]));
    drain(app, &cluster).await;
}

/// A backfill of 20,000 rows of 500 bytes, of which 200 have arrived.
async fn slow_backfill(sim: &pg2planhat::testing::sim::SimHandle) -> (Cluster, App) {
    let cluster = Cluster::start().await;
    cluster
        .sql(
            "CREATE TABLE t (id bigserial PRIMARY KEY, value int DEFAULT 1, filler text DEFAULT repeat('x', 500));
             INSERT INTO t SELECT FROM generate_series(1, 20000)",
        )
        .await;
    let section = SectionText::activity("t", "t").without("email").without("weight").without("date");
    let section = section.field("externalId", "id").field("action", "{ value: a }").field("info", "{ f: filler }");
    let section = section.set("date", "receipt").set("batch", "{ rows: 200 }");
    let app = App::run(&ConfigText::new(&cluster, &sim.url()).section(section));
    arrived(sim, SinkKind::Activity, 200).await;
    (cluster, app)
}

/// The age in seconds of the oldest transaction that VACUUM waits for, while `goes_on`.
async fn oldest_transaction(cluster: &Cluster, goes_on: impl Fn() -> bool) -> f64 {
    let client = cluster.client().await;
    let oldest = "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8
        FROM pg_stat_activity WHERE application_name LIKE 'pg2planhat%' AND backend_type = 'client backend'
        AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL OR state LIKE 'idle in transaction%')";
    let mut worst = 0f64;
    while goes_on() {
        worst = worst.max(client.query_one(oldest, &[]).await.unwrap().get(0));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    worst
}

/// No snapshot outlives a chunk: vacuum is not held back, however slow the sink is.
#[tokio::test]
async fn case_38_no_snapshot_is_older_than_a_chunk() {
    let sim = slow_sink(40).await;
    let (cluster, app) = slow_backfill(&sim).await;
    let begun = std::time::Instant::now();
    let worst = oldest_transaction(&cluster, || sim.stats().activities.items < 20_000).await;
    let took = begun.elapsed().as_secs_f64();
    assert!(took > 3.0 && worst < 1.0, "a transaction of {worst} s in a backfill of {took} s");
    drain(app, &cluster).await;
}

/// A chunk is used up in seconds here: what is left of the COPY is not waited with.
#[tokio::test]
async fn case_38_no_snapshot_waits_for_a_sink_that_hardly_answers() {
    let sim = slow_sink(1_000).await;
    let (cluster, app) = slow_backfill(&sim).await;
    let begun = std::time::Instant::now();
    let worst = oldest_transaction(&cluster, || begun.elapsed() < Duration::from_secs(6)).await;
    assert!(sim.stats().activities.items < 20_000 && worst < 1.0, "a transaction of {worst} s");
    app.kill9().await;
}

/// A section added later waits for its xmin barrier and is backfilled while the others stream without a pause.
#[tokio::test]
async fn case_39_a_section_added_later_does_not_pause_the_others() {
    let (cluster, sim) = (Cluster::start().await, slow_sink(5).await);
    cluster
        .sql(
            "CREATE TABLE old (id bigserial PRIMARY KEY, value int DEFAULT 1);
             CREATE TABLE young (id bigserial PRIMARY KEY, value int DEFAULT 1);
             INSERT INTO young SELECT FROM generate_series(1, 5000)",
        )
        .await;
    let one = ConfigText::new(&cluster, &sim.url()).section(metric_over("old", "old"));
    let app = App::run(&one);
    section_is(&app, "old", "streaming").await;
    cluster.sql("INSERT INTO old DEFAULT VALUES").await;
    arrived(&sim, SinkKind::Metric, 1).await;
    drain(app, &cluster).await;
    // Written before the table is published, committed after the section has attached: only the xmin barrier can find it.
    let open = cluster.client().await;
    open.batch_execute("BEGIN; INSERT INTO young SELECT FROM generate_series(1, 7)").await.unwrap();
    let young = metric_over("young", "young").set("batch", "{ rows: 50 }").field("dimensionId", "{ value: young }");
    let app = App::run(&one.section(young));
    section_is(&app, "young", "waiting").await;
    for number in 2..=20 {
        cluster.sql("INSERT INTO old DEFAULT VALUES").await;
        arrived(&sim, SinkKind::Metric, number).await;
    }
    assert_eq!(sim.items(SinkKind::Metric).len(), 20, "the xmin barrier has not passed");
    open.batch_execute("COMMIT").await.unwrap();
    arrived(&sim, SinkKind::Metric, 100).await;
    cluster.sql("INSERT INTO old DEFAULT VALUES; INSERT INTO young DEFAULT VALUES").await;
    let of = |name: &str| {
        let items = sim.items(SinkKind::Metric);
        items.iter().filter(|item| text(item, "dimensionId") == name).map(key).collect::<Vec<_>>()
    };
    eventually(PATIENCE, "the old section's row", || async { (of("seats_used").len() == 21).then_some(()) }).await;
    assert!(of("young").len() < 5008, "it came while the backfill ran");
    arrived(&sim, SinkKind::Metric, 21 + 5008).await;
    section_is(&app, "young", "streaming").await;
    drain(app, &cluster).await;
    assert_each_once(&(1..=21).collect::<Vec<_>>(), of("seats_used"));
    assert_each_once(&(1..=5008).collect::<Vec<_>>(), of("young"));
}
