//! The stream's faults: tests/FAULTS.md, cases 2 to 16.

use std::time::Duration;

use pg2planhat::testing::sim::SimFault;

use crate::faults_stream_scene::{PATIENCE, Scene, section};
use crate::harness::{App, Cluster, Direction, Proxy, SectionText, Stop, Version, eventually};

fn slow(millis: u64) -> SimFault {
    SimFault::Slow { millis }
}

/// Waits until a metric of the program is as wished.
async fn metric(app: &App, name: &str, labels: &[(&str, &str)], wished: impl Fn(f64) -> bool) -> f64 {
    let look = || async { app.metric(name, labels).await.filter(|value| wished(*value)) };
    eventually(PATIENCE, &format!("{name} {labels:?}"), look).await
}

#[tokio::test]
async fn case_02_a_sink_slower_than_wal_sender_timeout_keeps_the_connection() {
    let mut scene = Scene::on(Cluster::builder().setting("wal_sender_timeout", "1s")).await;
    scene.config = scene.config.set("memory", "16MiB");
    let app = scene.run().await;
    let walsender = scene.walsender().await;
    scene.sim.queue_fault(slow(4_000));
    // More than memory holds: the reader must stop reading, and go on telling.
    scene
        .cluster
        .sql("INSERT INTO m (external_id, value) SELECT repeat('x', 1000), g FROM generate_series(1, 30000) g")
        .await;
    scene.exact().await;
    assert_eq!(scene.walsender().await, walsender, "the connection was lost");
    assert!(app.rss() < 100 << 20, "{} bytes", app.rss());
}

#[tokio::test]
async fn case_03_a_large_backlog_behind_a_small_budget() {
    let mut scene = Scene::on(Cluster::builder().setting("wal_sender_timeout", "2s")).await;
    scene.config = scene.config.set("memory", "16MiB");
    let app = scene.run().await;
    app.sigterm();
    assert_eq!(app.wait_exit(PATIENCE).await, 0);
    scene
        .cluster
        .sql("INSERT INTO m (external_id, value) SELECT repeat('x', 1000), g FROM generate_series(1, 60000) g")
        .await;
    scene.sim.queue_fault(slow(300).times(20));
    let app = scene.run().await;
    scene.exact().await;
    assert!(app.rss() < 100 << 20, "{} bytes", app.rss());
}

#[tokio::test]
async fn case_05_a_frozen_server_is_shown_as_stalled_and_found_again() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.insert(3).await;
    scene.exact().await;
    scene.cluster.freeze();
    let stalled = || async {
        let status = app.status().await;
        (status["state"] == "stalled" && app.get("/readyz").await.unwrap().status == 503).then_some(())
    };
    eventually(Duration::from_secs(15), "the program to say that it is stalled", stalled).await;
    assert_eq!(app.get("/livez").await.unwrap().status, 200);
    scene.cluster.thaw();
    scene.insert(3).await;
    scene.exact().await;
    app.wait_ready().await;
}

/// What the slot keeps while nobody can look at it, and whether rows wait there, is not known: it is null, and not as it was.
#[tokio::test]
async fn case_267_what_is_not_known_of_a_server_that_is_away_is_null() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.insert(3).await;
    scene.exact().await;
    app.wait_status("the slot's figures", |status| status["slot"]["retained_bytes"].as_u64()).await;
    scene.cluster.stop(Stop::Fast).await;
    let unknown = |status: &serde_json::Value| {
        let slot = ["retained_bytes", "confirmed_lag_bytes", "safe_wal_bytes"];
        let section = &status["sections"][0];
        let is_unknown = slot.iter().all(|name| status["slot"][name].is_null()) && section["lag_seconds"].is_null();
        (is_unknown && section["flows"] == false && status["state"] == "stalled").then_some(())
    };
    app.wait_status("nothing to be known", unknown).await;
    assert!(app.metric("slot_retained_bytes", &[]).await.unwrap().is_nan());
    assert!(app.metric("confirmed_lag_bytes", &[]).await.unwrap().is_nan());
    assert!(app.metric("wal_bytes_per_second", &[]).await.unwrap().is_nan());
    scene.cluster.start_again().await;
    app.wait_ready().await;
    scene.insert(3).await;
    scene.exact().await;
    app.wait_status("the slot's figures again", |status| status["slot"]["retained_bytes"].as_u64()).await;
    app.wait_log("connected again: rows flow").await;
}

#[tokio::test]
async fn case_05_half_open_connections_are_noticed_by_our_own_ping() {
    // A server that never speaks first.
    let mut scene = Scene::on(Cluster::builder().setting("wal_sender_timeout", "0")).await;
    let proxy = Proxy::to_port(scene.cluster.port());
    scene.config = scene.config.through(proxy.port());
    let app = scene.run().await;
    let before = proxy.counters().accepted;
    proxy.half_open();
    let stalled = |status: &serde_json::Value| (status["state"] == "stalled").then_some(());
    app.wait_status("stalled", stalled).await;
    proxy.wait_connections(before + 1).await;
    app.wait_log("the server has been silent for").await;
    scene.insert(3).await;
    proxy.pass();
    scene.exact().await;
    app.wait_ready().await;
}

#[tokio::test]
async fn case_06_resets_at_any_byte_lose_and_double_nothing() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut scene = Scene::new().await;
    let proxy = Proxy::to_port(scene.cluster.port());
    scene.config = scene.config.through(proxy.port());
    let app = scene.run().await;
    for _ in 0..12 {
        let connections = proxy.counters().accepted;
        let direction = if random.u8(..4) == 0 { Direction::ToTarget } else { Direction::ToClient };
        proxy.cut_after(direction, random.u64(..6_000));
        scene.insert(random.u32(1..200)).await;
        proxy.wait_connections(connections + 1).await;
    }
    proxy.pass();
    scene.exact().await;
    drop(app);
}

#[tokio::test]
async fn case_08_keepalive_does_not_move_the_slot() {
    let scene = Scene::on(Cluster::builder().setting("wal_sender_timeout", "900ms")).await;
    let app = scene.run().await;
    scene.confirmed().await;
    scene.sim.queue_fault(SimFault::status(503).times(0));
    scene.insert(1).await;
    let after = scene.cluster.text("SELECT pg_current_wal_insert_lsn()").await;
    // Other WAL goes by, and keepalives tell of it, while the row waits.
    for _ in 0..5 {
        scene.cluster.sql("SELECT pg_logical_emit_message(false, 'test', repeat('x', 20000))").await;
        let requests = scene.sim.stats().metrics.requests;
        scene.sim.wait_for(|stats| stats.metrics.requests > requests, PATIENCE).await.unwrap();
        let past = format!("SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn >= '{after}'");
        assert_eq!(scene.cluster.number(&past).await, 0, "the slot moved past a row that was not delivered");
    }
    scene.sim.clear_faults();
    scene.exact().await;
    scene.confirmed_to(&after).await;
    drop(app);
}

#[tokio::test]
async fn case_09_sigkill_inside_a_transaction_resumes_by_ordinal() {
    let mut scene = Scene::new().await;
    let rows = section().set("batch", "{ rows: 500, bytes: 8MiB }");
    scene.config = crate::harness::ConfigText::new(&scene.cluster, &scene.sim.url()).section(rows);
    let app = scene.run().await;
    scene.sim.queue_fault(slow(20).times(0));
    scene.insert(10_000).await;
    scene.sim.wait_for(|stats| stats.metrics.items >= 3_000, PATIENCE).await.unwrap();
    app.kill9().await;
    assert!(scene.sim.stats().metrics.items < 10_000, "killed too late");
    let app = scene.run().await;
    scene.exact_but_in_doubt().await;
    let doubled = scene.accepted().values().filter(|times| **times > 1).count();
    assert!(doubled <= 500, "{doubled} rows came twice: more than the batch under way");
    drop(app);
}

#[tokio::test]
async fn case_10_a_server_crash_after_a_confirm_doubles_nothing() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    for _ in 0..2 {
        scene.insert(100).await;
        scene.exact().await;
        scene.confirmed().await;
        scene.insert(50).await;
        scene.exact().await;
        scene.cluster.crash().await;
        scene.cluster.start_again().await;
        scene.insert(10).await;
        scene.exact().await;
    }
    drop(app);
}

#[tokio::test]
async fn case_11_a_fast_shutdown_while_the_sink_is_down_is_not_held_up() {
    let mut scene = Scene::new().await;
    scene.config = scene.config.set("memory", "16MiB");
    let app = scene.run().await;
    scene.sim.stop().await;
    scene
        .cluster
        .sql("INSERT INTO m (external_id, value) SELECT repeat('x', 1000), g FROM generate_series(1, 40000) g")
        .await;
    metric(&app, "rows_read_total", &[], |rows| rows > 100.0).await;
    let took = scene.cluster.stop(Stop::Fast).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    scene.cluster.start_again().await;
    scene.sim.restart().await.unwrap();
    scene.exact().await;
}

#[tokio::test]
async fn case_13_what_was_rolled_back_is_never_sent() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    let client = scene.cluster.client().await;
    for sql in [
        "BEGIN; INSERT INTO m (value) VALUES (1); ROLLBACK",
        "BEGIN; SAVEPOINT a; INSERT INTO m (external_id, value) SELECT 'c', g FROM generate_series(1, 500) g; ROLLBACK TO a; \
         INSERT INTO m (external_id, value) VALUES ('c', 2); COMMIT",
        "BEGIN; INSERT INTO m (external_id, value) VALUES ('c', 4); SAVEPOINT b; RELEASE b; COMMIT",
        "BEGIN; INSERT INTO m (external_id, value) VALUES ('c', 5); PREPARE TRANSACTION 'x'",
        "ROLLBACK PREPARED 'x'",
        "BEGIN; INSERT INTO m (external_id, value) VALUES ('c', 6); PREPARE TRANSACTION 'y'",
        "COMMIT PREPARED 'y'",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    scene.exact().await;
    assert_eq!(scene.accepted().len(), 3);
    drop(app);
}

#[tokio::test]
async fn case_14_what_a_foreign_publication_sends_is_counted_and_skipped() {
    let scene = Scene::new().await;
    scene
        .cluster
        .sql(
            "CREATE TYPE mood AS ENUM ('good'); CREATE TABLE other (id int PRIMARY KEY, mood mood); \
             CREATE PUBLICATION pg2planhat FOR ALL TABLES WITH (publish = 'insert, update, delete, truncate')",
        )
        .await;
    let app = scene.run().await;
    scene.insert(5).await;
    let client = scene.cluster.client().await;
    for sql in [
        "UPDATE m SET value = 9",
        "INSERT INTO other VALUES (1, 'good')",
        "UPDATE other SET id = 2",
        "DELETE FROM other",
        "TRUNCATE other",
        "SELECT pg_logical_emit_message(true, 'a', 'b'), pg_logical_emit_message(false, 'a', 'b')",
        "SELECT pg_replication_origin_create('o')",
        "SELECT pg_replication_origin_session_setup('o')",
        "BEGIN; SELECT pg_replication_origin_xact_setup('0/1234', now()); \
         INSERT INTO m (external_id, value) VALUES ('origin', 1); COMMIT",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    scene.exact().await;
    for kind in ["update", "delete", "truncate", "origin", "type"] {
        metric(&app, "stream_messages_ignored_total", &[("kind", kind)], |count| count > 0.0).await;
    }
    assert!(app.is_running());
}

#[tokio::test]
async fn case_16_a_row_of_100_mb_is_quarantined_by_the_stream() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.cluster.sql("INSERT INTO m (external_id, value) VALUES ('before', 1)").await;
    scene.cluster.sql("INSERT INTO m (external_id, value) VALUES (repeat('x', 100000000), 2)").await;
    scene.cluster.sql("INSERT INTO m (external_id, value) VALUES ('after', 3)").await;
    scene.sim.wait_for(|stats| stats.metrics.items >= 2, PATIENCE).await.unwrap();
    quarantined(&scene).await;
    assert!(app.rss() < 130 << 20, "{} bytes", app.rss());
}

#[tokio::test]
async fn case_16_a_row_of_100_mb_is_quarantined_by_the_backfill() {
    let scene = Scene::new().await;
    scene.cluster.sql("INSERT INTO m (external_id, value) VALUES ('before', 1)").await;
    scene.cluster.sql("INSERT INTO m (external_id, value) VALUES (repeat('x', 100000000), 2)").await;
    scene.cluster.sql("INSERT INTO m (external_id, value) VALUES ('after', 3)").await;
    let app = scene.run().await;
    scene.sim.wait_for(|stats| stats.metrics.items >= 2, PATIENCE).await.unwrap();
    quarantined(&scene).await;
    assert!(app.rss() < 130 << 20, "{} bytes", app.rss());
}

/// The row 2 waits in quarantine, too large; its neighbours were delivered.
async fn quarantined(scene: &Scene) {
    let row = || async { scene.cluster.rows("SELECT key, reason FROM pg2planhat.quarantine").await.pop() };
    let row = eventually(PATIENCE, "the row in quarantine", row).await;
    assert_eq!(row[0].as_deref(), Some("2"));
    assert!(row[1].as_ref().unwrap().contains("too large"), "{row:?}");
    assert_eq!(scene.accepted().into_keys().collect::<Vec<_>>(), [1, 3]);
}

#[tokio::test]
async fn case_16_a_value_that_the_server_cannot_send_is_a_named_state() {
    let scene = Scene::new().await;
    scene.cluster.sql("ALTER TABLE m ADD COLUMN blob bytea").await;
    let app = scene.run().await;
    scene.insert(2).await;
    scene
        .cluster
        .sql("INSERT INTO m (external_id, value, blob) VALUES ('c', 1, convert_to(repeat('x', 600000000), 'UTF8'))")
        .await;
    assert_eq!(app.wait_exit(PATIENCE).await, 75, "{}", app.log());
    assert!(app.log().contains("wedged") && app.log().contains("repair --gap"), "{}", app.log());
    assert_eq!(scene.recorded_reason().await, "wedged");
    assert_eq!(scene.accepted().len(), 2, "what came before it was delivered");
}

#[tokio::test]
async fn case_15_a_row_moved_between_partitions_comes_again_and_an_attached_partition_is_told_of() {
    let scene = Scene::new().await;
    scene
        .cluster
        .sql(
            "DROP TABLE m; CREATE TABLE m (id bigint NOT NULL, external_id text, value float8, at timestamptz DEFAULT now()) \
             PARTITION BY LIST (external_id); CREATE TABLE m_a PARTITION OF m FOR VALUES IN ('a'); \
             CREATE TABLE m_b PARTITION OF m FOR VALUES IN ('b')",
        )
        .await;
    let app = scene.run().await;
    scene.cluster.sql("INSERT INTO m (id, external_id) VALUES (1, 'a'), (2, 'b')").await;
    scene.exact().await;
    // For the stream it is an insert like any other: PostgreSQL sends it as one, and the README names the limit.
    scene.cluster.sql("UPDATE m SET external_id = 'b' WHERE id = 1").await;
    scene.sim.wait_for(|stats| stats.metrics.items >= 3, PATIENCE).await.unwrap();
    assert_eq!(scene.accepted()[&1], 2);
    // The partitions that there are have been seen, by the first look.
    metric(&app, "slot_retained_bytes", &[], |bytes| bytes >= 0.0).await;
    for sql in [
        "CREATE TABLE m_c (id bigint NOT NULL, external_id text, value float8, at timestamptz)",
        "INSERT INTO m_c VALUES (3, 'c')",
        "CREATE TABLE m_d PARTITION OF m FOR VALUES IN ('d')",
        "ALTER TABLE m ATTACH PARTITION m_c FOR VALUES IN ('c')",
    ] {
        scene.cluster.sql(sql).await;
    }
    app.wait_log("m_c was attached").await;
    assert!(!app.log().contains("m_d was attached"), "a partition made empty hides nothing");
    if Version::usual() < Version::V15 {
        // What it skips until then is in the gap.
        scene.cluster.sql("INSERT INTO m (id, external_id) VALUES (6, 'c')").await;
        let anew = || async {
            scene.cluster.sql("SELECT pg_logical_emit_message(false, 'test', repeat('x', 2000))").await;
            app.log().contains("reading the stream again").then_some(())
        };
        eventually(PATIENCE, "the stream to be read anew", anew).await;
        let below =
            "SELECT count(*) FROM m WHERE id = 6 AND xmin::text::bigint < (SELECT xmin_floor FROM pg2planhat.gap)";
        assert_eq!(scene.cluster.number(below).await, 0, "a row below the gap's floor: no repair would find it");
    }
    scene.cluster.sql("INSERT INTO m (id, external_id) VALUES (4, 'c'), (5, 'd')").await;
    let both = |_: &pg2planhat::testing::sim::Stats| [4, 5].iter().all(|key| scene.accepted().contains_key(key));
    scene.sim.wait_for(both, PATIENCE).await.unwrap();
    metric(&app, "stream_messages_ignored_total", &[("kind", "attached_partition")], |count| count > 0.0).await;
    assert_eq!(scene.gaps().await, ["partition_attached"]);
}

#[tokio::test]
async fn case_06_a_section_of_activities_survives_resets_of_the_state_too() {
    // The state in the source database goes through the same network: no write of the ledger is lost or done twice.
    let mut scene = Scene::new().await;
    scene.cluster.sql(&SectionText::activity_table("a")).await;
    let proxy = Proxy::to_port(scene.cluster.port());
    scene.config = scene.config.through(proxy.port());
    let app = scene.run().await;
    for _ in 0..5 {
        scene.insert(20).await;
        proxy.cut();
    }
    scene.exact().await;
    let open = "SELECT count(*) FROM pg2planhat.delivery WHERE outcome NOT IN ('delivered')";
    let closed = || async { (scene.cluster.number(open).await == 0).then_some(()) };
    eventually(PATIENCE, "every batch to be recorded as delivered", closed).await;
    drop(app);
}
