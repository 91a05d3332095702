//! What somebody did to the publication between two looks, or while nothing ran: tests/FAULTS.md, case 73.

use std::collections::BTreeSet;

use crate::cli_ops_look::{json, stop};
use crate::faults_stream_scene::{PATIENCE, Scene};
use crate::harness::{App, Cluster, Version, eventually};

const OFF: &str = "ALTER PUBLICATION pg2planhat SET (publish = 'update')";
const ON: &str = "ALTER PUBLICATION pg2planhat SET (publish = 'insert')";

/// A scene on each version that is asked for.
async fn scenes() -> Vec<Scene> {
    let mut scenes = Vec::new();
    for version in Version::asked() {
        if let Some(cluster) = Cluster::builder().version(version).start_or_skip().await {
            scenes.push(Scene::at(cluster).await);
        }
    }
    scenes
}

/// Runs until the floor from which a repair reads again is known, and something was delivered.
pub async fn settled(scene: &Scene) -> App {
    let app = scene.run().await;
    scene.insert(5).await;
    scene.exact().await;
    let known = || async {
        let sql = "SELECT count(*) FROM pg2planhat.instance WHERE xmin_floor IS NOT NULL";
        (scene.cluster.number(sql).await == 1).then_some(())
    };
    eventually(PATIENCE, "an xmin floor", known).await;
    scene.confirmed().await;
    app
}

/// Repairs, goes on, and compares: every key is there, and came twice only where the plan named it.
async fn mended(scene: &Scene, how: &str) {
    let before = scene.accepted();
    let option = format!("--{how}");
    let plan = json(&scene.config, &["repair", &option, "--yes"]).await["repaired"].clone();
    assert_eq!(plan["reason"], "publication_changed", "{plan}");
    assert_eq!(plan["new_slot"], false, "the slot has what the publication carries: {plan}");
    let app = scene.run().await;
    scene.insert(3).await;
    let lost = |key: &i64| how == "accept-loss" && (6..=25).contains(key);
    let wanted: BTreeSet<i64> = scene.keys().await.into_iter().filter(|key| !lost(key)).collect();
    let arrived = || async { wanted.iter().all(|key| scene.accepted().contains_key(key)).then_some(()) };
    eventually(PATIENCE, "every key", arrived).await;
    stop(&app).await;
    let accepted = scene.accepted();
    assert!(accepted.keys().all(|key| wanted.contains(key)), "given up, and delivered all the same: {accepted:?}");
    let named = |key: &i64| {
        let keys = plan["sections"][0]["keys"].as_array().expect("keys");
        let number = |at: usize| keys[at].as_str().unwrap().parse::<i64>().unwrap();
        (number(0)..=number(1)).contains(key)
    };
    for (key, times) in &accepted {
        assert!(
            *times == 1 || *times == 2 && before.contains_key(key) && named(key),
            "{key} came {times} times: {plan}"
        );
    }
    if how == "accept-loss" {
        assert!(accepted.values().all(|times| *times == 1), "nothing was read again: {accepted:?}");
    }
    assert_eq!(json(&scene.config, &["repair", &option]).await["repaired"], serde_json::Value::Null, "it is mended");
}

#[tokio::test]
async fn case_73_publish_switched_and_back_between_two_looks_is_seen() {
    for scene in scenes().await {
        let app = settled(&scene).await;
        scene.cluster.sql(OFF).await;
        scene.insert(20).await;
        scene.cluster.sql(ON).await;
        scene.needs_person(&app, "publication_changed").await;
        assert_eq!(scene.gaps().await, ["publication_changed"]);
        let app = App::run(&scene.config);
        scene.needs_person(&app, "publication_changed").await;
        mended(&scene, "gap").await;
    }
}

#[tokio::test]
async fn case_73_publish_switched_and_back_while_nothing_ran_is_seen() {
    for how in ["gap", "accept-loss"] {
        for scene in scenes().await {
            stop(&settled(&scene).await).await;
            scene.cluster.sql(OFF).await;
            scene.insert(20).await;
            scene.cluster.sql(ON).await;
            let status = json(&scene.config, &["status"]).await;
            assert_eq!(status["reason"], "publication_changed", "{status}");
            let app = App::run(&scene.config);
            scene.needs_person(&app, "publication_changed").await;
            assert_eq!(scene.gaps().await, ["publication_changed"]);
            mended(&scene, how).await;
        }
    }
}

#[tokio::test]
async fn case_73_a_table_taken_out_and_put_back_while_nothing_ran_is_seen() {
    for how in ["gap", "accept-loss"] {
        for scene in scenes().await {
            stop(&settled(&scene).await).await;
            let other = "CREATE TABLE o (id int PRIMARY KEY); ALTER PUBLICATION pg2planhat ADD TABLE o";
            scene.cluster.sql(other).await;
            scene.cluster.sql("ALTER PUBLICATION pg2planhat DROP TABLE m").await;
            scene.insert(20).await;
            scene.cluster.sql("ALTER PUBLICATION pg2planhat ADD TABLE m").await;
            let app = App::run(&scene.config);
            let halted = |status: &serde_json::Value| {
                let section = &status["sections"][0];
                (section["state"] == "halted").then(|| section["reason"].to_string())
            };
            let reason = app.wait_status("the section to halt", halted).await;
            assert!(reason.contains("put back"), "{reason}");
            eventually(PATIENCE, "a gap", || async { scene.gaps().await.pop() }).await;
            stop(&app).await;
            mended(&scene, how).await;
        }
    }
}

#[tokio::test]
async fn case_73_a_state_of_an_earlier_version_takes_the_publication_as_it_is() {
    let scene = Scene::new().await;
    stop(&settled(&scene).await).await;
    let forget = "UPDATE pg2planhat.instance SET publication_version = NULL; \
                  UPDATE pg2planhat.section SET publication_entry = NULL";
    scene.cluster.sql(forget).await;
    let app = settled(&scene).await;
    let recorded = || async {
        let sql = "SELECT count(*) FROM pg2planhat.instance, pg2planhat.section WHERE publication_version IS NOT NULL \
                   AND publication_entry IS NOT NULL";
        (scene.cluster.number(sql).await == 1).then_some(())
    };
    eventually(PATIENCE, "the versions on record", recorded).await;
    stop(&app).await;
}
