//! What nobody can know after a repair or a promotion is in doubt by name, and a retry takes no other row for the one that
//! was held: tests/FAULTS.md, cases 70, 72 and 74.

use std::collections::BTreeSet;
use std::time::Duration;

use pg2planhat::testing::sim::SimFault;

use crate::cli_ops_look::{json, stop};
use crate::faults_slot::{in_step, with_synced_slots};
use crate::faults_stream_scene::{PATIENCE, Scene, section};
use crate::harness::{App, Cluster, Proxy, SectionText, Version, eventually};
use crate::recovery_publication::settled;

/// Killed under a request, and the slot is gone: what `repair --gap` makes of the rows in doubt.
async fn killed_and_repaired(policy: &str) -> Scene {
    let mut scene = Scene::new().await;
    let config = crate::harness::ConfigText::new(&scene.cluster, &scene.sim.url());
    scene.config = config.section(section().set("in_doubt", policy));
    let app = settled(&scene).await;
    // The sink takes the rows, and its answer never comes.
    scene.sim.queue_fault(SimFault::Slow { millis: 60_000 });
    scene.insert(10).await;
    scene.sim.wait_for(|stats| stats.metrics.under_way > 0, PATIENCE).await.unwrap();
    app.kill9().await;
    scene.insert(3).await;
    let gone = || async { (scene.walsender().await == 0).then_some(()) };
    eventually(PATIENCE, "the slot to be free", gone).await;
    scene.cluster.sql("SELECT pg_drop_replication_slot('pg2planhat')").await;
    json(&scene.config, &["repair", "--gap", "--yes"]).await;
    let doubted = "SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'in_doubt' AND rows = 10";
    assert_eq!(scene.cluster.number(doubted).await, 1, "by name");
    assert_eq!(scene.cluster.number("SELECT rows_in_doubt FROM pg2planhat.section").await, 10);
    scene
}

#[tokio::test]
async fn case_74_rows_in_doubt_are_held_after_a_repair() {
    let scene = killed_and_repaired("hold").await;
    let app = scene.run().await;
    let held = || async {
        let sql = "SELECT count(*) FROM pg2planhat.quarantine WHERE reason LIKE 'in_doubt:%'";
        (scene.cluster.number(sql).await == 10).then_some(())
    };
    eventually(PATIENCE, "the rows in quarantine", held).await;
    scene.insert(1).await;
    let last = scene.keys().await.pop_last().unwrap();
    eventually(PATIENCE, "the last row", || async { scene.accepted().contains_key(&last).then_some(()) }).await;
    stop(&app).await;
    assert_eq!(scene.cluster.text("SELECT outcome FROM pg2planhat.delivery WHERE rows = 10").await, "held");
    for key in 6..=15 {
        assert!(
            scene.accepted().get(&key).is_none_or(|times| *times == 1),
            "{key} was sent again: {:?}",
            scene.accepted()
        );
    }
    for key in 16..=18 {
        assert!(scene.accepted().contains_key(&key), "{key} is missing");
    }
}

#[tokio::test]
async fn case_74_rows_in_doubt_are_sent_again_by_name_after_a_repair() {
    let scene = killed_and_repaired("resend").await;
    let app = scene.run().await;
    scene.insert(1).await;
    scene.delivered().await;
    stop(&app).await;
    assert_eq!(
        scene.cluster.text("SELECT outcome FROM pg2planhat.delivery WHERE rows = 10 ORDER BY id LIMIT 1").await,
        "resent"
    );
}

/// The versions whose standbys keep slots in step.
async fn primaries() -> Vec<(Scene, Cluster, Proxy)> {
    let mut found = Vec::new();
    for version in [Version::V17, Version::V18] {
        if Version::asked().contains(&version) {
            found.extend(with_synced_slots(version).await);
        }
    }
    found
}

#[tokio::test]
async fn case_72_a_section_ahead_of_the_checkpoint_is_not_sent_again_after_a_promotion() {
    for (mut scene, standby, _network) in primaries().await {
        scene.cluster.sql(&SectionText::metric_table("n")).await;
        scene.cluster.sql("INSERT INTO n (external_id, value) VALUES ('held', 1000001)").await;
        let paused = SectionText::metric("n", "n").set("start", "now");
        scene.config = scene.config.clone().section(paused);
        let app = scene.run().await;
        scene.insert(3).await;
        scene.delivered().await;
        in_step(&scene, &standby).await;
        // One section holds the checkpoint; the other goes far ahead of it.
        json(&scene.config, &["pause", "n"]).await;
        tokio::time::sleep(Duration::from_secs(6)).await;
        scene.cluster.sql("INSERT INTO n (external_id, value) VALUES ('held', 1000002)").await;
        scene.insert(500).await;
        scene.delivered().await;
        let ahead = "SELECT count(*) FROM pg2planhat.section s, pg2planhat.instance i
            WHERE s.name = 'm' AND s.position_lsn > i.checkpoint";
        assert_eq!(scene.cluster.number(ahead).await, 1);
        app.kill9().await;
        standby.catch_up_with(&scene.cluster).await;
        scene.cluster.crash().await;
        standby.promote().await;
        let config = scene.config.clone().through(standby.port());
        let app = App::run(&config);
        app.wait_status("leading", |status| (status["instance"]["timeline"] == 2).then_some(())).await;
        json(&config, &["resume", "n"]).await;
        standby.sql("INSERT INTO m (external_id, value) VALUES ('after', 1)").await;
        let after: i64 = standby.number("SELECT max(id) FROM m").await;
        let there = || async {
            let accepted = scene.accepted();
            (accepted.contains_key(&after) && accepted.contains_key(&1_000_002)).then_some(())
        };
        eventually(PATIENCE, "the rows after the promotion", there).await;
        stop(&app).await;
        let doubled: Vec<_> = scene.accepted().into_iter().filter(|(_, times)| *times > 1).collect();
        assert_eq!(doubled, [], "{}", app.log());
    }
}

#[tokio::test]
async fn case_72_rows_that_only_the_lost_server_knew_delivered_are_in_doubt_by_name() {
    for (mut scene, standby, network) in primaries().await {
        let config = crate::harness::ConfigText::new(&scene.cluster, &scene.sim.url());
        scene.config = config.set("source.failover_slot", "true").section(section().set("flush", "6s"));
        let app = scene.run().await;
        scene.insert(3).await;
        scene.exact().await;
        in_step(&scene, &standby).await;
        // The standby has these rows, and not that they are delivered.
        scene.insert(10).await;
        standby.catch_up_with(&scene.cluster).await;
        network.refuse();
        network.cut();
        scene.exact().await;
        app.kill9().await;
        scene.cluster.crash().await;
        standby.promote().await;
        let config = scene.config.clone().through(standby.port());
        let app = App::run(&config);
        app.wait_status("leading", |status| (status["instance"]["timeline"] == 2).then_some(())).await;
        standby.sql("INSERT INTO m (external_id, value) VALUES ('after', 1)").await;
        let after: i64 = standby.number("SELECT max(id) FROM m").await;
        eventually(PATIENCE, "the row after", || async { scene.accepted().contains_key(&after).then_some(()) }).await;
        stop(&app).await;
        let doubled: BTreeSet<i64> =
            scene.accepted().into_iter().filter(|(_, times)| *times > 1).map(|(key, _)| key).collect();
        assert_eq!(doubled.len(), 10, "{}", app.log());
        let named = "SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'resent' AND error LIKE '%was promoted%'";
        assert_eq!(standby.number(named).await, 1);
        let counted = standby.number("SELECT rows_in_doubt FROM pg2planhat.section").await;
        assert_eq!(counted, 10, "each row that came twice is counted");
    }
}

#[tokio::test]
async fn case_70_a_retry_after_the_key_was_used_again_sends_no_other_row() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.sim.queue_fault(SimFault::status(400));
    scene.insert(1).await;
    let held = || async {
        let sql = "SELECT count(*) FROM pg2planhat.quarantine WHERE key = '1'";
        (scene.cluster.number(sql).await == 1).then_some(())
    };
    eventually(PATIENCE, "the row in quarantine", held).await;
    scene.cluster.sql("TRUNCATE m RESTART IDENTITY").await;
    scene.insert(2).await;
    scene.exact().await;
    let ended = || async {
        let sql = "SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'delivered'";
        (scene.cluster.number(sql).await > 0).then_some(())
    };
    eventually(PATIENCE, "the delivery on record", ended).await;
    let retried = json(&scene.config, &["quarantine", "retry", "--section", "m", "--yes"]).await;
    let result = retried["events"][0]["result"].as_str().unwrap().to_owned();
    assert!(result.contains("0 rows are sent again") && result.contains("another row has the key now"), "{result}");
    scene.insert(1).await;
    scene.exact().await;
    assert_eq!(scene.cluster.number("SELECT count(*) FROM pg2planhat.quarantine WHERE key = '1'").await, 1, "it stays");
    // A row that was changed, and not delivered since, is the row that was held.
    scene.sim.queue_fault(SimFault::status(400));
    scene.insert(1).await;
    let held = || async {
        let sql = "SELECT count(*) FROM pg2planhat.quarantine WHERE key = '4'";
        (scene.cluster.number(sql).await == 1).then_some(())
    };
    eventually(PATIENCE, "the second row in quarantine", held).await;
    scene.cluster.sql("UPDATE m SET external_id = 'mended' WHERE id = 4").await;
    json(&scene.config, &["quarantine", "retry", "--section", "m", "--yes"]).await;
    scene.exact().await;
    stop(&app).await;
}
