//! What people report of other consumers of logical replication, tried on this one (FAULTS 202 to 206).

use std::time::Duration;

use pg2planhat::testing::sim::{SimFault, SinkKind};

use crate::faults_stream_scene::{PATIENCE, Scene, section};
use crate::harness::{App, Cluster, ConfigText, SectionText, Version, eventually};
use crate::main_job_oracle::{drain, section_is};
use crate::versions_main_job::on_every_version;

on_every_version!({
    case_202_a_roles_transaction_timeout_ends_neither_an_attachment_nor_a_chunk
    case_203_savepoints_spilled_and_aborted_are_exact_across_kills
    case_205_a_section_that_begins_now_is_not_attached_before_its_updates_are_streamed
    case_206_a_walsender_that_waits_for_a_standby_is_shown
});

/// PostgreSQL 17 can end a transaction by its age. A look at the table as it was takes as long as an open writer lives.
async fn case_202_a_roles_transaction_timeout_ends_neither_an_attachment_nor_a_chunk(version: Version) {
    if version < Version::V17 {
        return;
    }
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    let scene = Scene::at(cluster).await;
    scene.cluster.sql(&SectionText::metric_table("b")).await;
    scene.cluster.sql("INSERT INTO b (external_id, value) SELECT 'c', g FROM generate_series(1, 100) g").await;
    drain(scene.run().await, &scene.cluster).await;
    let open = scene.cluster.client().await;
    scene.cluster.sql("ALTER ROLE CURRENT_USER SET transaction_timeout = '1s'").await;
    open.batch_execute(
        "BEGIN; UPDATE b SET value = value + 1 WHERE id <= 10;
         INSERT INTO b (external_id, value) SELECT 'c', g FROM generate_series(1, 5) g",
    )
    .await
    .unwrap();
    let named = |name: &str| {
        SectionText::metric(name, name).field("value", "id").field("dimensionId", &format!("{{ value: {name} }}"))
    };
    let grown =
        ConfigText::new(&scene.cluster, &scene.sim.url()).section(named("m")).section(named("b").set("start", "now"));
    let app = App::run(&grown);
    let waits = |status: &serde_json::Value| {
        let section = status["sections"].as_array()?.iter().find(|section| section["name"] == "b")?;
        section["reason"].as_str()?.contains("transactions have ended that wrote").then_some(())
    };
    app.wait_status("b to wait for the open transaction", waits).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    open.batch_execute("COMMIT").await.unwrap();
    section_is(&app, "b", "streaming").await;
    scene.cluster.sql("INSERT INTO b (external_id, value) VALUES ('c', 1)").await;
    let keys = || scene.accepted().into_keys().collect::<Vec<_>>();
    eventually(PATIENCE, "the last row", async || keys().contains(&106).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(keys(), (101..=106).collect::<Vec<_>>(), "{}", app.log());
    drop(app);
}

/// Savepoints by the hundred, a third of them rolled back, values out of line, speculative inserts, two transactions woven
/// into each other and a prepared one, all spilled to the server's disk; killed three times on the way.
async fn case_203_savepoints_spilled_and_aborted_are_exact_across_kills(version: Version) {
    let settings = Cluster::builder()
        .version(version)
        .setting("logical_decoding_work_mem", "64kB")
        .setting("max_prepared_transactions", "4");
    let Some(cluster) = settings.start_or_skip().await else { return };
    let mut scene = Scene::at(cluster).await;
    scene.config = ConfigText::new(&scene.cluster, &scene.sim.url()).section(section().set("batch", "{ rows: 40 }"));
    scene.cluster.sql("ALTER TABLE m ADD note text; ALTER TABLE m ALTER note SET STORAGE EXTERNAL").await;
    let app = scene.run().await;
    scene.sim.set_fault_rate(1, 1.0, vec![SimFault::Slow { millis: 30 }]);
    let rounds = |from: i32, to: i32| {
        format!(
            "DO $$ BEGIN FOR i IN {from}..{to} LOOP BEGIN
                INSERT INTO m (external_id, value, note)
                    SELECT 'c', g, CASE WHEN g % 4 = 0 THEN repeat(md5(g::text), 100) END FROM generate_series(1, 40) g;
                INSERT INTO m (external_id, note) VALUES ('x', repeat('y', 3000)) ON CONFLICT DO NOTHING;
                INSERT INTO m (id, external_id) SELECT max(id), 'x' FROM m ON CONFLICT (id) DO NOTHING;
                IF i % 3 = 0 THEN RAISE EXCEPTION 'no'; END IF;
             EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$"
        )
    };
    let (first, second, third) =
        (scene.cluster.client().await, scene.cluster.client().await, scene.cluster.client().await);
    for open in [&first, &second, &third] {
        open.batch_execute("BEGIN").await.unwrap();
    }
    for round in 0..4 {
        for (at, open) in (0_i32..).zip([&first, &second, &third]) {
            let from = (round * 3 + at) * 20 + 1;
            open.batch_execute(&rounds(from, from + 19)).await.unwrap();
        }
    }
    third.batch_execute("PREPARE TRANSACTION 'third'").await.unwrap();
    first.batch_execute("COMMIT").await.unwrap();
    let mut app = app;
    for so_many in [500, 2_000, 4_000] {
        scene.sim.wait_for(|stats| stats.metrics.items > so_many, PATIENCE).await.unwrap();
        app.kill9().await;
        if so_many == 500 {
            second.batch_execute("COMMIT").await.unwrap();
            scene.cluster.sql("COMMIT PREPARED 'third'").await;
        }
        app = App::run(&scene.config);
    }
    scene.sim.clear_faults();
    scene.exact_but_in_doubt().await;
    let (keys, accepted) = (scene.keys().await, scene.accepted());
    assert!(accepted.keys().all(|key| keys.contains(key)), "what was rolled back was sent");
    eprintln!("{version}: {} rows, doubled {}", keys.len(), accepted.values().filter(|times| **times > 1).count());
    drain(app, &scene.cluster).await;
}

/// A section of `start: now` that sends updates is added beside an open transaction, so that updates are not streamed yet:
/// each update behind its attachment arrives, and before it the section says that it waits.
async fn case_205_a_section_that_begins_now_is_not_attached_before_its_updates_are_streamed(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    let mut scene = Scene::at(cluster).await;
    scene.cluster.sql(&SectionText::metric_table("u")).await;
    scene.cluster.sql("INSERT INTO u (external_id, value) SELECT 'u', g FROM generate_series(1, 20) g").await;
    let named = |name: &str, value: &str| {
        SectionText::metric(name, name).field("value", value).field("dimensionId", &format!("{{ value: {name} }}"))
    };
    scene.config = ConfigText::new(&scene.cluster, &scene.sim.url()).section(named("m", "id"));
    drain(scene.run().await, &scene.cluster).await;
    let open = scene.cluster.client().await;
    open.batch_execute("CREATE TABLE other (); BEGIN; INSERT INTO other DEFAULT VALUES").await.unwrap();
    let updated = named("u", "value").set("on", "insert_and_update").set("start", "now");
    scene.config = scene.config.clone().section(updated);
    let app = App::run(&scene.config);
    let begun = |status: &serde_json::Value| {
        let section = status["sections"].as_array()?.iter().find(|section| section["name"] == "u")?;
        let waits = section["state"] == "waiting" && section["reason"].as_str()?.contains("updates");
        (section["state"] == "streaming" || waits).then(|| section["state"] == "streaming")
    };
    let attached = app.wait_status("u to wait, or to be attached", begun).await;
    scene.cluster.sql("UPDATE u SET value = 1000 + id WHERE id <= 5").await;
    open.batch_execute("COMMIT").await.unwrap();
    section_is(&app, "u", "streaming").await;
    scene.cluster.sql("UPDATE u SET value = 2000 + id WHERE id <= 5").await;
    let values = || -> Vec<i64> {
        let items = scene.sim.items(SinkKind::Metric);
        items.iter().map(|item| item.item()["value"].as_i64().unwrap()).collect()
    };
    let all = async || (2001..=2005).all(|value| values().contains(&value)).then_some(());
    eventually(PATIENCE, "the updates behind the attachment", all).await;
    let before = values().iter().filter(|value| (1001..=1005).contains(*value)).count();
    assert!(!attached || before == 5, "attached, and {before} of 5 updates arrived: {}", app.log());
    drain(app, &scene.cluster).await;
}

/// From 17 on a walsender of a failover slot sends nothing before the standbys of `synchronized_standby_slots` have it.
async fn case_206_a_walsender_that_waits_for_a_standby_is_shown(version: Version) {
    if version < Version::V17 {
        return;
    }
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    let mut scene = Scene::at(cluster).await;
    scene.config = scene.config.clone().set("source.failover_slot", "true");
    scene.cluster.sql("SELECT pg_create_physical_replication_slot('standby', true)").await;
    let app = scene.run().await;
    scene.insert(2).await;
    scene.exact().await;
    scene.cluster.set("synchronized_standby_slots", "standby").await;
    scene.insert(3).await;
    let said = |status: &serde_json::Value| status.to_string().contains("synchronized_standby_slots").then_some(());
    app.wait_status("the cause to be shown", said).await;
    scene.cluster.set("synchronized_standby_slots", "").await;
    scene.exact().await;
    drain(app, &scene.cluster).await;
}

/// The key's type changes beside a backfill: what the stream brought under the old text is the same row under the new one.
/// `restart`: the program ends after that, and another goes on.
async fn key_changes(table: &str, key: &str, change: &str, restart: bool) {
    let mut scene = Scene::new().await;
    scene.cluster.sql(table).await;
    let slow = SectionText::metric("k", "k").field("value", "value").set("batch", "{ rows: 100, bytes: 1KiB }");
    let slow = slow.set("key", key);
    scene.config = ConfigText::new(&scene.cluster, &scene.sim.url()).set("memory", "4MiB").section(slow);
    scene.sim.set_fault_rate(1, 1.0, vec![SimFault::Slow { millis: 60 }]);
    let fill = |from: i32, to: i32| {
        format!(
            "INSERT INTO k (id, made, external_id, value)
             SELECT 'a' || lpad(g::text, 5, '0'), timestamp '2026-01-01' + g * interval '1 minute', 'c', g
             FROM generate_series({from}, {to}, 2) g"
        )
    };
    scene.cluster.sql(&fill(2, 20_000)).await;
    let mut app = App::run(&scene.config);
    scene.sim.wait_for(|stats| stats.metrics.items > 300, PATIENCE).await.unwrap();
    scene.cluster.sql(&fill(15_001, 15_099)).await;
    eventually(PATIENCE, "the rows to come by the stream", async || {
        let read = [("section", "k"), ("phase", "stream")];
        (app.metric("pg2planhat_rows_read_total", &read).await == Some(50.0)).then_some(())
    })
    .await;
    scene.cluster.sql(change).await;
    if restart {
        drain(app, &scene.cluster).await;
        app = App::run(&scene.config);
    }
    scene.cluster.sql(&fill(15_101, 15_199)).await;
    scene.sim.clear_faults();
    scene.sim.wait_for(|stats| stats.metrics.items >= 10_100, PATIENCE).await.unwrap();
    section_is(&app, "k", "streaming").await;
    let mut times = std::collections::BTreeMap::new();
    for item in scene.sim.items(SinkKind::Metric) {
        *times.entry(item.item()["value"].as_i64().unwrap()).or_insert(0) += 1;
    }
    let doubled = times.values().filter(|times| **times > 1).count();
    assert_eq!((times.len(), doubled), (10_100, 0), "{change}, restart: {restart}\n{}", app.log());
    drain(app, &scene.cluster).await;
}

#[tokio::test]
async fn case_204_a_key_whose_text_changes_beside_a_backfill_is_not_sent_twice() {
    let columns = "external_id text, value int, at timestamptz DEFAULT now()";
    let padded = format!("CREATE TABLE k (id char(8) PRIMARY KEY, made timestamp, {columns})");
    key_changes(&padded, "id", "ALTER TABLE k ALTER COLUMN id TYPE text", false).await;
    let timed = format!("CREATE TABLE k (id text, made timestamp, {columns}, PRIMARY KEY (made, id))");
    key_changes(&timed, "[made, id]", "ALTER TABLE k ALTER COLUMN made TYPE timestamptz", true).await;
}
