//! The faults of set-up, slot and publication: tests/FAULTS.md, cases 18 to 26.

use std::time::Duration;

use pg2planhat::testing::sim::SimFault;

use crate::faults_stream_scene::{PATIENCE, Scene};
use crate::harness::{App, Cluster, Proxy, Stop, Version, eventually};

#[tokio::test]
async fn case_18_whoever_blocks_the_slot_is_named_and_waited_for() {
    let scene = Scene::new().await;
    let blocker = scene.cluster.client().await;
    blocker.batch_execute("BEGIN; INSERT INTO m (external_id, value) VALUES ('blocker', 1)").await.unwrap();
    scene.cluster.sql("BEGIN; INSERT INTO m (external_id, value) VALUES ('p', 2); PREPARE TRANSACTION 'held'").await;
    let pid = blocker.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get::<_, i32>(0);
    let app = App::run(&scene.config);
    app.wait_log("set-up waits for open transactions").await;
    let log = app.log();
    assert!(log.contains(&format!("pid {pid}")) && log.contains("prepared transaction held"), "{log}");
    let status = app.status().await;
    assert!(status["message"].as_str().unwrap().contains(&format!("pid {pid}")), "{status}");
    assert!(status["remedy"].as_str().unwrap().contains("pg_terminate_backend"), "{status}");
    blocker.batch_execute("COMMIT").await.unwrap();
    scene.cluster.sql("COMMIT PREPARED 'held'").await;
    scene.streaming(&app).await;
    assert_eq!(app.status().await["message"], serde_json::Value::Null);
    scene.exact().await;
}

#[tokio::test]
async fn case_19_publication_dropped_or_remade_while_running() {
    for remake in [false, true] {
        let scene = Scene::new().await;
        let app = scene.run().await;
        scene.insert(3).await;
        scene.exact().await;
        scene.cluster.sql("DROP PUBLICATION pg2planhat").await;
        if remake {
            scene.cluster.sql("CREATE PUBLICATION pg2planhat FOR TABLE m WITH (publish = 'insert')").await;
        }
        scene.needs_person(&app, "publication_changed").await;
        assert_eq!(scene.gaps().await, ["publication_changed"]);
        // And again at the next start: nothing is recreated, nothing streamed.
        scene.insert(2).await;
        let app = App::run(&scene.config);
        scene.needs_person(&app, "publication_changed").await;
        assert_eq!(scene.accepted().len(), 3);
        assert_eq!(scene.gaps().await, ["publication_changed"], "one gap, not two");
    }
}

#[tokio::test]
async fn case_19_publication_remade_while_down_with_rows_in_between() {
    for version in [Version::V15, Version::V18] {
        let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { continue };
        let scene = Scene::at(cluster).await;
        let app = scene.run().await;
        scene.insert(3).await;
        scene.exact().await;
        app.sigterm();
        assert_eq!(app.wait_exit(PATIENCE).await, 0);
        scene.cluster.sql("DROP PUBLICATION pg2planhat").await;
        scene.insert(2).await;
        scene.cluster.sql("CREATE PUBLICATION pg2planhat FOR TABLE m WITH (publish = 'insert')").await;
        let app = App::run(&scene.config);
        scene.needs_person(&app, "publication_changed").await;
        assert_eq!(scene.accepted().len(), 3);
    }
}

/// Does something to the publication or its table: the section must halt within 30 s, with a gap.
async fn halts(change: &str, because: &str) {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.insert(3).await;
    scene.exact().await;
    scene.cluster.sql(change).await;
    let halted = |status: &serde_json::Value| {
        let section = &status["sections"][0];
        (section["state"] == "halted").then(|| (section["reason"].to_string(), section["remedy"].to_string()))
    };
    let (reason, remedy) = app.wait_status("the section to halt", halted).await;
    assert!(reason.contains(because) && remedy.contains("repair --gap"), "{reason} {remedy}");
    let gap = || async { scene.gaps().await.pop() };
    assert_eq!(eventually(PATIENCE, "a gap", gap).await, "publication_changed");
    let floor =
        "SELECT count(*) FROM pg2planhat.gap WHERE section = 'm' AND from_lsn IS NOT NULL AND xmin_floor IS NOT NULL";
    assert_eq!(scene.cluster.number(floor).await, 1);
}

#[tokio::test]
async fn case_20_table_removed_from_the_publication() {
    let change = "CREATE TABLE o (id int PRIMARY KEY); ALTER PUBLICATION pg2planhat ADD TABLE o; \
                  ALTER PUBLICATION pg2planhat DROP TABLE m";
    halts(change, "no longer in the publication").await;
}

#[tokio::test]
async fn case_20_table_removed_and_put_back_between_two_looks() {
    let change = "ALTER PUBLICATION pg2planhat DROP TABLE m; INSERT INTO m (external_id) VALUES ('lost'); \
                  ALTER PUBLICATION pg2planhat ADD TABLE m";
    halts(change, "taken out of the publication").await;
}

#[tokio::test]
async fn case_20_row_filter_added() {
    // Before 15 there are neither filters nor column lists.
    if Version::usual() < Version::V15 {
        return;
    }
    halts("ALTER PUBLICATION pg2planhat SET TABLE m WHERE (id > 0)", "row filter").await;
}

#[tokio::test]
async fn case_20_column_list_added() {
    if Version::usual() < Version::V15 {
        return;
    }
    halts("ALTER PUBLICATION pg2planhat SET TABLE m (id)", "column list").await;
}

#[tokio::test]
async fn case_20_table_swapped_by_rename() {
    let change = "CREATE TABLE n (LIKE m INCLUDING ALL); ALTER TABLE m RENAME TO old; ALTER TABLE n RENAME TO m";
    halts(change, "replaced by a rename").await;
}

#[tokio::test]
async fn case_20_publish_without_insert() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.insert(3).await;
    scene.exact().await;
    scene.cluster.sql("ALTER PUBLICATION pg2planhat SET (publish = 'update')").await;
    scene.needs_person(&app, "publication_changed").await;
    assert_eq!(scene.gaps().await, ["publication_changed"]);
}

const DROP: &str = "PERFORM pg_drop_replication_slot('pg2planhat')";
const REMAKE: &str = "PERFORM pg_drop_replication_slot('pg2planhat'); \
                      PERFORM pg_create_logical_replication_slot('pg2planhat', 'pgoutput')";
const ADVANCE: &str = "PERFORM pg_replication_slot_advance('pg2planhat', pg_current_wal_lsn())";

/// Does something to the slot while the program runs, or while it is down and rows are written.
async fn slot_fault(sql: &str, running: bool, reasons: &[&str]) {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.insert(3).await;
    scene.exact().await;
    scene.confirmed().await;
    let app = if running {
        // A row that comes while the slot is not ours: whoever goes on blindly skips it.
        scene.sim.queue_fault(SimFault::Slow { millis: 300 });
        scene.insert(1).await;
        scene.with_the_slot_free(sql).await;
        app
    } else {
        app.sigterm();
        assert_eq!(app.wait_exit(PATIENCE).await, 0);
        scene.insert(2).await;
        scene.cluster.sql(&format!("DO $$ BEGIN {sql}; END $$")).await;
        App::run(&scene.config)
    };
    assert_eq!(app.wait_exit(Duration::from_secs(15)).await, 75, "{}", app.log());
    let recorded = scene.recorded_reason().await;
    assert!(reasons.contains(&&*recorded), "{recorded}\n{}", app.log());
    assert!(app.log().contains(&recorded) && app.log().contains("repair --gap"), "{}", app.log());
    assert_eq!(scene.gaps().await, [recorded]);
    assert!(scene.accepted().values().all(|times| *times == 1));
}

#[tokio::test]
async fn case_21_slot_dropped_while_running() {
    slot_fault(DROP, true, &["slot_missing"]).await;
}

#[tokio::test]
async fn case_21_slot_dropped_while_down() {
    slot_fault(DROP, false, &["slot_missing"]).await;
}

#[tokio::test]
async fn case_21_slot_recreated_while_down() {
    // A slot cannot be made in a transaction that has written: two statements.
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.insert(3).await;
    scene.exact().await;
    app.sigterm();
    assert_eq!(app.wait_exit(PATIENCE).await, 0);
    scene.insert(2).await;
    scene.cluster.sql("SELECT pg_drop_replication_slot('pg2planhat')").await;
    scene.cluster.sql("SELECT pg_create_logical_replication_slot('pg2planhat', 'pgoutput')").await;
    let app = App::run(&scene.config);
    scene.needs_person(&app, "slot_recreated").await;
    assert_eq!(scene.accepted().len(), 3);
}

#[tokio::test]
async fn case_21_slot_recreated_while_running() {
    behind_a_cut(REMAKE, "slot_recreated").await;
}

#[tokio::test]
async fn case_21_slot_advanced_while_running() {
    behind_a_cut(ADVANCE, "slot_moved").await;
}

/// The network is cut for a moment; meanwhile rows are written, and somebody does something to the slot.
async fn behind_a_cut(sql: &str, reason: &str) {
    let mut scene = Scene::new().await;
    let proxy = Proxy::to_port(scene.cluster.port());
    scene.config = scene.config.through(proxy.port());
    let app = scene.run().await;
    scene.insert(3).await;
    scene.exact().await;
    proxy.refuse();
    proxy.cut();
    let free = || async { (scene.walsender().await == 0).then_some(()) };
    eventually(PATIENCE, "the slot to be free", free).await;
    scene.insert(2).await;
    scene.cluster.sql(&format!("DO $$ BEGIN {sql}; END $$")).await;
    proxy.pass();
    assert_eq!(app.wait_exit(Duration::from_secs(20)).await, 75, "{}", app.log());
    assert_eq!(scene.recorded_reason().await, reason);
    assert_eq!(scene.gaps().await, [reason]);
    assert_eq!(scene.accepted().len(), 3);
}

#[tokio::test]
async fn case_21_slot_advanced_while_down() {
    slot_fault(ADVANCE, false, &["slot_moved", "slot_recreated"]).await;
}

#[tokio::test]
async fn case_21_slot_lost_to_max_slot_wal_keep_size() {
    let builder = Cluster::builder().setting("max_slot_wal_keep_size", "1MB").setting("max_wal_size", "32MB");
    let scene = Scene::on(builder.setting("min_wal_size", "32MB").setting("wal_keep_size", "0")).await;
    let app = scene.run().await;
    scene.insert(3).await;
    scene.exact().await;
    scene.sim.queue_fault(SimFault::status(503).times(0));
    scene.insert(1).await;
    scene.cluster.sql("CREATE TABLE filler (t text)").await;
    let lost = || async {
        let fill = "INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 10000); SELECT pg_switch_wal(); CHECKPOINT";
        scene.cluster.sql(fill).await;
        (!app.is_running()).then_some(())
    };
    eventually(PATIENCE, "the slot to be lost", lost).await;
    scene.needs_person(&app, "slot_lost").await;
    assert_eq!(scene.gaps().await, ["slot_lost"]);
}

/// Two processes: one standby, alive and not ready; it takes over when the first one ends.
async fn takes_over(end: impl AsyncFn(&App)) {
    let scene = Scene::new().await;
    let first = scene.run().await;
    let second = App::run(&scene.config);
    second.wait_status("standby", |status| (status["state"] == "standby").then_some(())).await;
    assert_eq!(second.get("/readyz").await.unwrap().status, 503);
    assert_eq!(second.get("/livez").await.unwrap().status, 200);
    scene.insert(5).await;
    scene.exact().await;
    end(&first).await;
    let leads = || async { (second.get("/readyz").await.ok()?.status == 200).then_some(()) };
    eventually(Duration::from_secs(15), "the standby to lead", leads).await;
    scene.insert(5).await;
    scene.exact_but_in_doubt().await;
}

#[tokio::test]
async fn case_22_the_standby_takes_over_after_sigkill() {
    takes_over(async |app| app.kill9().await).await;
}

#[tokio::test]
async fn case_22_the_standby_takes_over_after_sigterm() {
    takes_over(async |app| {
        app.sigterm();
        assert_eq!(app.wait_exit(PATIENCE).await, 0);
    })
    .await;
}

#[tokio::test]
async fn case_23_a_frozen_holder_loses_the_slot_and_stops_when_it_wakes() {
    frozen(true).await;
}

#[tokio::test]
async fn case_23_a_frozen_holder_with_nothing_to_do_stops_when_it_wakes() {
    frozen(false).await;
}

/// The holder freezes, with a request under way or idle.
async fn frozen(busy: bool) {
    let scene = Scene::new().await;
    let first = scene.run().await;
    let second = App::run(&scene.config);
    second.wait_status("standby", |status| (status["state"] == "standby").then_some(())).await;
    scene.insert(5).await;
    scene.exact().await;
    if busy {
        // Its rows are in doubt.
        scene.sim.queue_fault(SimFault::Slow { millis: 500 });
        scene.insert(5).await;
        scene.sim.wait_for(|stats| stats.metrics.under_way > 0, PATIENCE).await.unwrap();
    } else {
        scene.confirmed().await;
    }
    first.sigstop();
    scene.insert(5).await;
    let leads = || async { (second.get("/readyz").await.ok()?.status == 200).then_some(()) };
    eventually(PATIENCE, "the standby to lead", leads).await;
    scene.exact_but_in_doubt().await;
    first.sigcont();
    assert_eq!(first.wait_exit(Duration::from_secs(15)).await, 75, "{}", first.log());
    assert!(first.log().contains("fenced"), "{}", first.log());
    scene.insert(5).await;
    scene.exact_but_in_doubt().await;
    assert!(second.is_running());
}

#[tokio::test]
async fn case_24_a_rotated_password_is_read_anew_at_the_next_connection() {
    let mut scene = Scene::on(Cluster::builder().hba("host all all 127.0.0.1/32 scram-sha-256")).await;
    scene.cluster.sql("CREATE ROLE app SUPERUSER LOGIN REPLICATION PASSWORD 'one'").await;
    let directory = crate::harness::scratch::Scratch::new("secret");
    let secret = directory.path().join("password");
    std::fs::write(&secret, "one\n").unwrap();
    scene.config =
        scene.config.set("source.user", "app").set("source.password", format!("{{ file: {} }}", secret.display()));
    let app = scene.run().await;
    let walsender = scene.walsender().await;
    scene.cluster.sql("ALTER ROLE app PASSWORD 'two' NOLOGIN").await;
    scene.insert(5).await;
    scene.exact().await;
    assert_eq!(scene.walsender().await, walsender, "the running stream goes on");
    scene.cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'").await;
    app.wait_status("stalled", |status| (status["state"] == "stalled").then_some(())).await;
    scene.insert(5).await;
    std::fs::write(&secret, "two\n").unwrap();
    scene.cluster.sql("ALTER ROLE app LOGIN").await;
    scene.exact().await;
    app.wait_ready().await;
    assert!(!app.log().contains("one\n") && !app.log().contains("\"two\""));
}

#[tokio::test]
async fn case_25_restarts_and_a_crash_loop_are_lived_through() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    for stop in [Stop::Fast, Stop::Immediate, Stop::Immediate] {
        scene.insert(5).await;
        scene.cluster.stop(stop).await;
        scene.cluster.start_unready();
        let up = || async { scene.cluster.try_sql("SELECT 1").await.ok() };
        eventually(PATIENCE, "the server", up).await;
    }
    scene.insert(5).await;
    scene.exact().await;
    app.wait_ready().await;
    // Also where it is away from the start.
    app.sigterm();
    assert_eq!(app.wait_exit(PATIENCE).await, 0);
    scene.cluster.stop(Stop::Fast).await;
    let app = App::run(&scene.config);
    app.wait_status("stalled", |status| (status["state"] == "stalled").then_some(())).await;
    scene.cluster.start_again().await;
    scene.insert(5).await;
    scene.exact().await;
}

#[tokio::test]
async fn case_26_a_promoted_standby_without_the_slot_is_a_named_state() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.insert(3).await;
    scene.exact().await;
    let standby = scene.cluster.standby().await;
    app.sigterm();
    assert_eq!(app.wait_exit(PATIENCE).await, 0);
    standby.catch_up_with(&scene.cluster).await;
    scene.cluster.crash().await;
    standby.promote().await;
    let app = App::run(&scene.config.clone().through(standby.port()));
    assert_eq!(app.wait_exit(Duration::from_secs(15)).await, 75, "{}", app.log());
    assert!(app.log().contains("timeline_changed") && app.log().contains("repair --gap"), "{}", app.log());
    assert_eq!(standby.text("SELECT reason FROM pg2planhat.instance").await, "timeline_changed");
    assert_eq!(standby.number("SELECT count(*) FROM pg2planhat.gap WHERE xmin_floor IS NOT NULL").await, 1);
}

#[tokio::test]
async fn case_26_the_address_leads_to_another_server_while_running() {
    let mut scene = Scene::new().await;
    let standby = scene.cluster.standby().await;
    let proxy = Proxy::to_port(scene.cluster.port());
    scene.config = scene.config.through(proxy.port());
    let app = scene.run().await;
    scene.insert(3).await;
    scene.exact().await;
    scene.cluster.crash().await;
    standby.promote().await;
    // As a virtual address would: the same port, another server. The slot is made there by somebody's script.
    standby.sql("SELECT pg_create_logical_replication_slot('pg2planhat', 'pgoutput')").await;
    proxy.retarget(standby.port());
    assert_eq!(app.wait_exit(Duration::from_secs(20)).await, 75, "{}", app.log());
    assert!(app.log().contains("timeline_changed"), "{}", app.log());
}

/// A primary whose slots a standby keeps in step (PostgreSQL 17), and the network between them; none where there is no
/// such server.
pub async fn with_synced_slots(version: Version) -> Option<(Scene, Cluster, Proxy)> {
    let primary = Cluster::builder().version(version).start_or_skip().await?;
    let mut scene = Scene::at(primary).await;
    scene.cluster.sql("SELECT pg_create_physical_replication_slot('standby')").await;
    let standby = scene.cluster.standby().await;
    let network = Proxy::to_port(scene.cluster.port());
    let port = network.port();
    let conninfo = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres application_name=standby");
    standby.set("primary_conninfo", &conninfo).await;
    for (name, value) in
        [("primary_slot_name", "standby"), ("hot_standby_feedback", "on"), ("sync_replication_slots", "on")]
    {
        standby.set(name, value).await;
    }
    scene.config = scene.config.set("source.failover_slot", "true");
    Some((scene, standby, network))
}

/// Waits until the standby has the slot, and all that the primary has written.
pub async fn in_step(scene: &Scene, standby: &Cluster) {
    let synced =
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'pg2planhat' AND synced AND NOT temporary";
    let there = || async {
        // A slot is kept in step only once the primary's own has moved on.
        scene.cluster.sql("SELECT pg_logical_emit_message(false, 'test', repeat('x', 3000))").await;
        (standby.number(synced).await > 0).then_some(())
    };
    eventually(PATIENCE, "the slot at the standby", there).await;
    standby.catch_up_with(&scene.cluster).await;
}

#[tokio::test]
async fn case_26_a_promoted_standby_with_the_slot_is_gone_on_with() {
    let Some((mut scene, standby, _network)) = with_synced_slots(Version::V17).await else { return };
    let proxy = Proxy::to_port(scene.cluster.port());
    scene.config = scene.config.through(proxy.port());
    let app = scene.run().await;
    scene.insert(3).await;
    scene.exact().await;
    scene.confirmed().await;
    in_step(&scene, &standby).await;
    scene.cluster.crash().await;
    standby.promote().await;
    proxy.retarget(standby.port());
    standby.sql("INSERT INTO m (external_id, value) VALUES ('new', 1)").await;
    let there = |stats: &pg2planhat::testing::sim::Stats| stats.metrics.items >= 4;
    scene.sim.wait_for(there, PATIENCE).await.unwrap_or_else(|fault| panic!("{fault}\n{}", app.log()));
    app.wait_ready().await;
    assert_eq!(app.status().await["instance"]["timeline"], 2);
    assert!(scene.accepted().values().all(|times| *times == 1), "{:?}", scene.accepted());
}

#[tokio::test]
async fn case_26_a_checkpoint_past_the_promotion_is_a_named_state() {
    let Some((mut scene, standby, network)) = with_synced_slots(Version::V17).await else { return };
    // The state is elsewhere, and so knows of rows that the promoted standby never had.
    let state = Cluster::start().await;
    scene.config = scene.config.set("state.url", format!("\"{}?sslmode=disable\"", state.dsn()));
    let app = scene.run().await;
    scene.insert(3).await;
    scene.exact().await;
    in_step(&scene, &standby).await;
    network.refuse();
    network.cut();
    scene.insert(3).await;
    scene.exact().await;
    scene.confirmed().await;
    app.sigterm();
    assert_eq!(app.wait_exit(PATIENCE).await, 0);
    scene.cluster.crash().await;
    standby.promote().await;
    // More WAL than was lost: the end of the WAL says nothing.
    standby.sql("SELECT pg_logical_emit_message(false, 'test', repeat('x', 100000))").await;
    let app = App::run(&scene.config.clone().through(standby.port()));
    assert_eq!(app.wait_exit(Duration::from_secs(15)).await, 75, "{}", app.log());
    assert_eq!(state.text("SELECT reason FROM pg2planhat.instance").await, "timeline_changed");
    assert!(app.log().contains("before the checkpoint"), "{}", app.log());
}
