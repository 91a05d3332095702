//! Mending and ending: `repair` and `teardown`.

use std::time::Duration;

use serde_json::json;

use crate::cli_ops_look::{insert, json, received, stage, stop, wait_items};
use crate::harness::{App, Cluster, ConfigText, SectionText};

/// Ran, stopped, 10 rows more, and the slot is gone.
async fn without_slot() -> (Cluster, pg2planhat::testing::sim::SimHandle, ConfigText) {
    let (cluster, sim, config) = stage().await;
    let app = App::run(&config);
    wait_items(&sim, 100).await;
    app.wait_status("the stream", |status| (status["sections"][0]["state"] == "streaming").then_some(())).await;
    let floor = "SELECT count(*) FROM pg2planhat.instance WHERE xmin_floor IS NOT NULL";
    insert(&cluster, 20).await;
    wait_items(&sim, 120).await;
    let known = || async { (cluster.number(floor).await == 1).then_some(()) };
    crate::harness::eventually(Duration::from_secs(30), "an xmin floor", known).await;
    let busy = App::command(&config, &["repair", "--accept-loss", "--yes"]).await;
    assert_eq!(busy.code, 69, "{busy:?}");
    assert!(busy.stderr.contains("holds the slot"), "{busy:?}");
    stop(&app).await;
    assert_eq!(json(&config, &["repair", "--accept-loss"]).await, json!({ "repaired": null }));
    insert(&cluster, 10).await;
    cluster.sql("SELECT pg_drop_replication_slot('pg2planhat')").await;
    let refused = App::run(&config);
    assert_eq!(refused.wait_exit(Duration::from_secs(30)).await, 75, "{}", refused.log());
    (cluster, sim, config)
}

async fn goes_on(cluster: &Cluster, config: &ConfigText) -> App {
    let app = App::run(config);
    app.wait_status("the stream", |status| (status["sections"][0]["state"] == "streaming").then_some(())).await;
    insert(cluster, 5).await;
    app
}

#[tokio::test]
async fn a_loss_is_accepted_and_recorded() {
    let (cluster, sim, config) = without_slot().await;
    let asked = App::command(&config, &["repair", "--accept-loss"]).await;
    assert!(asked.code == 64 && asked.stderr.contains("never delivered"), "{asked:?}");
    let done = json(&config, &["repair", "--accept-loss", "--yes"]).await;
    assert_eq!(
        (done["repaired"]["reason"].as_str(), done["repaired"]["new_slot"].as_bool()),
        (Some("slot_missing"), Some(true))
    );
    let app = goes_on(&cluster, &config).await;
    wait_items(&sim, 125).await;
    let expected: Vec<_> = (1..=120).chain(131..=135).map(|user| (user, 1)).collect();
    assert_eq!(received(&sim), expected);
    let gap =
        "SELECT reason || ' ' || split_part(closed_by, ' by ', 1) || (to_lsn > from_lsn)::text FROM pg2planhat.gap";
    assert_eq!(cluster.text(gap).await, "slot_missing repair --accept-losstrue");
    assert_eq!(cluster.number("SELECT count(*) FROM pg2planhat.event WHERE action = 'repair'").await, 1);
    stop(&app).await;
}

#[tokio::test]
async fn case_21_26_a_gap_is_read_again_from_the_floor() {
    let (cluster, sim, config) = without_slot().await;
    let done = json(&config, &["repair", "--gap", "--yes"]).await;
    let floor = done["repaired"]["xmin_floor"].as_u64().unwrap();
    let rows = done["repaired"]["sections"][0]["rows"].as_u64().unwrap();
    let above = format!("SELECT count(*) FROM app_event WHERE xmin::text::bigint >= {floor}");
    assert_eq!(cluster.number(&above).await, i64::try_from(rows).unwrap());
    assert!((10..=30).contains(&rows), "the backfilled rows are older than the floor: {done}");
    let app = goes_on(&cluster, &config).await;
    wait_items(&sim, 120 + rows + 5).await;
    let times = received(&sim);
    assert_eq!(
        times.iter().map(|(user, _)| *user).collect::<Vec<_>>(),
        (1..=135).collect::<Vec<_>>(),
        "nothing is lost"
    );
    assert!(times.iter().all(|(user, times)| *times == 1 || (101..=120).contains(user)), "{times:?}");
    assert_eq!(sim.stats().activities.items, 120 + rows + 5);
    assert_eq!(cluster.number("SELECT count(*) FROM pg2planhat.section WHERE gap_floor IS NOT NULL").await, 0);
    stop(&app).await;
}

#[tokio::test]
async fn everything_is_read_again() {
    let (cluster, sim, config) = without_slot().await;
    let done = json(&config, &["repair", "--backfill", "--yes"]).await;
    assert_eq!(done["repaired"]["sections"][0]["rows"], 130);
    let app = goes_on(&cluster, &config).await;
    wait_items(&sim, 255).await;
    let expected: Vec<_> = (1..=135).map(|user| (user, if user <= 120 { 2 } else { 1 })).collect();
    assert_eq!(received(&sim), expected);
    stop(&app).await;
}

#[tokio::test]
async fn case_27_a_teardown_leaves_nothing() {
    let (cluster, sim, config) = stage().await;
    let app = App::run(&config);
    wait_items(&sim, 100).await;
    let busy = App::command(&config, &["teardown", "--yes"]).await;
    assert!(busy.code == 69 && busy.stderr.contains("holds the slot"), "{busy:?}");
    stop(&app).await;
    let asked = App::command(&config, &["teardown"]).await;
    assert!(asked.code == 64 && asked.stderr.contains("the replication slot pg2planhat"), "{asked:?}");
    let dropped = json(&config, &["teardown", "--yes"]).await;
    assert_eq!(
        dropped,
        json!({ "dropped": { "slot": "pg2planhat", "publication": "pg2planhat", "update_publication": null, "state_schema": "pg2planhat", "quarantined": 0 } })
    );
    assert_nothing_is_left(&cluster, &config).await;
}

/// Two instances with a slot and a state each share a publication: the end of one is not the end of the other.
#[tokio::test]
async fn case_275_a_teardown_leaves_the_publication_that_another_instance_streams_from() {
    let (cluster, sim, config) = stage().await;
    let app = App::run(&config);
    wait_items(&sim, 100).await;
    cluster.sql(&SectionText::metric_table("usage")).await;
    let two = ConfigText::new(&cluster, &sim.url()).set("source.slot", "two").set("state", "{ schema: two }");
    let two = two.section(SectionText::metric("seats", "usage"));
    let beside = App::run(&two);
    beside.wait_ready().await;
    stop(&beside).await;
    let dropped = json(&two, &["teardown", "--yes"]).await;
    let dropped = &dropped["dropped"];
    assert_eq!((&dropped["slot"], &dropped["publication"]), (&json!("two"), &json!(null)), "{dropped}");
    let why = dropped["kept"][0].as_str().unwrap();
    assert!(why.contains("which no section of this file reads"), "{why}");
    assert!(why.contains("the slot pg2planhat streams from it"), "{why}");
    let status = app.status().await;
    assert_eq!(status["sections"][0]["state"], "streaming", "{status}");
    stop(&app).await;
}

/// After a teardown: no slot, no publication, no state schema, and a second one has nothing to do.
pub async fn assert_nothing_is_left(cluster: &Cluster, config: &ConfigText) {
    let left = "SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_publication)
        + (SELECT count(*) FROM pg_namespace WHERE nspname = 'pg2planhat')";
    assert_eq!(cluster.number(left).await, 0);
    let again = App::command(config, &["teardown"]).await;
    assert!(again.code == 0 && again.stdout.contains("nothing to drop"), "{again:?}");
}

#[tokio::test]
async fn the_gap_of_one_section_is_mended_beside_the_others() {
    let (cluster, sim, config) = stage().await;
    cluster.sql(&SectionText::metric_table("usage")).await;
    let with = |switch: &str| {
        let off = SectionText::activity("logins", "app_event").set("sync", switch);
        ConfigText::new(&cluster, &sim.url()).section(off).section(SectionText::metric("seats", "usage"))
    };
    let (on, off) = (with("receive"), with("off"));
    drop(config);
    let streaming = |status: &serde_json::Value| {
        let all = status["sections"].as_array()?.iter().all(|one| one["state"] == "streaming" || one["state"] == "off");
        all.then_some(())
    };
    let app = App::run(&on);
    wait_items(&sim, 100).await;
    app.wait_status("the stream", streaming).await;
    let floor = "SELECT count(*) FROM pg2planhat.instance WHERE xmin_floor IS NOT NULL";
    let known = || async { (cluster.number(floor).await == 1).then_some(()) };
    crate::harness::eventually(Duration::from_secs(30), "an xmin floor", known).await;
    stop(&app).await;

    let app = App::run(&off);
    app.wait_status("the stream", streaming).await;
    insert(&cluster, 10).await;
    cluster.sql("INSERT INTO usage (external_id, value) VALUES ('c', 1)").await;
    sim.wait_for(|stats| stats.metrics.items == 1, Duration::from_secs(30)).await.unwrap();
    stop(&app).await;

    let done = json(&on, &["repair", "--gap", "--yes"]).await;
    let sections = done["repaired"]["sections"].as_array().unwrap();
    assert_eq!((sections.len(), sections[0]["section"].as_str()), (1, Some("logins")), "{done}");
    assert_eq!(done["repaired"]["new_slot"], false);
    let rows = sections[0]["rows"].as_u64().unwrap();
    assert_eq!(rows, 10, "only what came since the section was switched off");
    assert_eq!(json(&on, &["repair", "--gap", "--yes"]).await, json!({ "repaired": null }));
    let app = App::run(&on);
    wait_items(&sim, 100 + rows).await;
    app.wait_status("the stream", streaming).await;
    insert(&cluster, 1).await;
    wait_items(&sim, 101 + rows).await;
    assert_eq!(received(&sim).iter().map(|(user, _)| *user).collect::<Vec<_>>(), (1..=111).collect::<Vec<_>>());
    assert_eq!(sim.stats().metrics.items, 1, "the other section is not touched");
    stop(&app).await;
}
