//! Case 59 on every PostgreSQL: where a row stands must not depend on what else its walsender publishes.

use pg2planhat::testing::sim::SimFault;

use crate::faults_stream_scene::{PATIENCE, Scene, section};
use crate::harness::{Cluster, ConfigText, SectionText, Version, eventually};
use crate::versions_main_job::on_every_version;

on_every_version!({
    case_59_a_table_published_beside_an_open_transaction_moves_no_row
    case_59_a_table_taken_out_beside_an_open_transaction_moves_no_row
});

async fn case_59_a_table_published_beside_an_open_transaction_moves_no_row(version: Version) {
    beside_an_open_transaction(version, "ADD").await;
}

async fn case_59_a_table_taken_out_beside_an_open_transaction_moves_no_row(version: Version) {
    beside_an_open_transaction(version, "DROP").await;
}

/// T writes into `b`, whose publication changes beside it; a later commit brings the running walsender's cache up to date.
/// T's rows of `m` are then delivered by two walsenders, of which one sends the rows of `b` before them.
async fn beside_an_open_transaction(version: Version, change: &str) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    let mut scene = Scene::at(cluster).await;
    let rows = section().set("batch", "{ rows: 10, bytes: 8MiB }").set("flush", "100ms");
    scene.config = ConfigText::new(&scene.cluster, &scene.sim.url()).section(rows);
    scene.cluster.sql(&SectionText::metric_table("b")).await;
    let app = scene.run().await;
    if change == "DROP" {
        scene.cluster.sql("ALTER PUBLICATION pg2planhat ADD TABLE b").await;
    }
    let open = scene.cluster.client().await;
    open.batch_execute("BEGIN; INSERT INTO b (value) SELECT g FROM generate_series(1, 50) g").await.unwrap();
    scene.cluster.sql(&format!("ALTER PUBLICATION pg2planhat {change} TABLE b")).await;
    scene.cluster.sql("INSERT INTO b (value) VALUES (1)").await;
    scene.sim.queue_fault(SimFault::Slow { millis: 100 }.times(0));
    open.batch_execute("INSERT INTO m (external_id, value) SELECT 'c' || g, g FROM generate_series(1, 200) g; COMMIT")
        .await
        .unwrap();
    let some = scene.sim.wait_for(|stats| stats.metrics.items >= 80, PATIENCE).await;
    assert!(some.is_ok(), "{some:?}\n{}", app.log());
    app.kill9().await;
    assert!(scene.sim.stats().metrics.items < 190, "killed too late");
    scene.sim.clear_faults();
    let app = scene.run().await;
    scene.exact_but_in_doubt().await;
    let doubled = scene.accepted().values().filter(|times| **times > 1).count();
    assert!(doubled <= 10, "{doubled} rows came twice: more than the batch under way");
    scene.insert(5).await;
    scene.exact_but_in_doubt().await;
    drop(app);
}

/// Loads what version 2 of the state schema left inside a transaction of `m`, on a server that has that transaction.
async fn left_by_version_2(scene: &Scene) {
    let cluster = &scene.cluster;
    cluster.sql("CREATE PUBLICATION pg2planhat FOR TABLE ONLY m WITH (publish = 'insert', publish_via_partition_root = true)").await;
    cluster.sql("SELECT pg_create_logical_replication_slot('pg2planhat', 'pgoutput')").await;
    scene.insert(200).await;
    let begin = "SELECT encode(substr(data, 2, 8), 'hex') FROM pg_logical_slot_peek_binary_changes('pg2planhat', NULL, NULL, \
        'proto_version', '1', 'publication_names', 'pg2planhat') WHERE substr(data, 1, 1) = 'B' LIMIT 1";
    let commit = cluster.text(begin).await;
    let (high, low) = commit.split_at(8);
    let mut script = String::from("CREATE SCHEMA pg2planhat;\n");
    script.push_str(include_str!("../../src/state/migrations/0001_tables.sql"));
    script.push_str(include_str!("../../src/state/migrations/0002_gap_floor.sql"));
    let mut script = script.replace("{schema}", "pg2planhat");
    script.push_str(include_str!("states/version_2_inside_a_transaction.sql"));
    let checkpoint = "SELECT confirmed_flush_lsn FROM pg_replication_slots";
    for (word, query) in [
        ("{system_identifier}", "SELECT system_identifier FROM pg_control_system()"),
        ("{database_oid}", "SELECT oid FROM pg_database WHERE datname = current_database()"),
        ("{publication_oid}", "SELECT oid FROM pg_publication"),
        ("{table_oid}", "SELECT 'm'::regclass::oid"),
        ("{checkpoint}", checkpoint),
        ("{attach}", checkpoint),
    ] {
        script = script.replace(word, &cluster.text(query).await);
    }
    cluster.sql(&script.replace("{commit}", &format!("{high}/{low}"))).await;
}

/// Nothing says which rows the old ordinals mean: the whole transaction is sent again, and the ledger names it.
#[tokio::test]
async fn case_59_a_state_with_old_ordinals_names_their_transaction_and_loses_nothing() {
    let scene = Scene::new().await;
    left_by_version_2(&scene).await;
    let app = scene.run().await;
    scene.exact().await;
    assert_eq!(scene.accepted().len(), 200);
    scene.insert(1).await;
    scene.exact().await;
    let resent = "SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'resent' AND section = 'm'";
    let named = || async { (scene.cluster.number(resent).await == 2).then_some(()) };
    eventually(PATIENCE, "both doubts to be named", named).await;
    let rows = "SELECT sum(rows) FROM pg2planhat.delivery WHERE outcome = 'resent'";
    assert_eq!(scene.cluster.number(rows).await, 80, "70 rows of the position, 10 of the request");
    let status = app.status().await;
    assert_eq!(status["sections"][0]["rows_in_doubt"], 80);
    assert_eq!(status["sections"][0]["rows_resent"], 80);
}

/// As above, where a person decides.
#[tokio::test]
async fn case_59_a_state_with_old_ordinals_is_held_where_a_person_decides() {
    let mut scene = Scene::new().await;
    scene.config = ConfigText::new(&scene.cluster, &scene.sim.url()).section(section().set("in_doubt", "hold"));
    left_by_version_2(&scene).await;
    let app = scene.run().await;
    let held = "SELECT count(*) FROM pg2planhat.quarantine WHERE reason LIKE 'in_doubt%'";
    let all = || async { (scene.cluster.number(held).await == 200).then_some(()) };
    eventually(PATIENCE, "the transaction to be in quarantine", all).await;
    assert_eq!(scene.accepted().len(), 0);
    drop(app);
}
