//! `batch.in_flight`: several requests of one section side by side, and what a crash leaves of them.

use std::time::Duration;

use pg2planhat::testing::sim::{SimFault, SinkKind};

use crate::delivery_scene::{PATIENCE, Scene, of_section, received};
use crate::harness::{App, SectionText};

/// Batches of ten items, and so many requests at once.
fn events(in_flight: u8) -> SectionText {
    SectionText::activity("events", "a").set("batch", format!("{{ rows: 10, in_flight: {in_flight} }}"))
}

async fn insert(scene: &Scene, from: u64, to: u64) {
    let sql = format!("INSERT INTO a (user_id, action) SELECT 'k' || g, 'login' FROM generate_series({from}, {to}) g");
    scene.cluster.sql(&sql).await;
}

#[tokio::test]
async fn requests_of_a_section_go_side_by_side_and_never_more_than_allowed() {
    let scene = Scene::of(&[events(4)]).await;
    let app = scene.run().await;
    scene.sim.queue_fault(SimFault::Slow { millis: 300 }.times(0));
    insert(&scene, 1, 200).await;
    let mut most = 0;
    let seen = |stats: &pg2planhat::testing::sim::Stats| {
        most = most.max(stats.activities.under_way);
        stats.activities.items == 200
    };
    scene.sink(seen).await;
    assert_eq!(most, 4, "twenty batches, four at a time");
    let counts = received(&scene.sim, SinkKind::Activity);
    assert!(counts.len() == 200 && counts.values().all(|count| *count == 1), "{counts:?}");
    scene.number("SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'delivered'", 20).await;
    app.sigterm();
    assert_eq!(app.wait_exit(PATIENCE).await, 0);
    scene.assert_confirmed_behind_checkpoint().await;
}

#[tokio::test]
async fn a_kill_leaves_at_most_the_requests_under_way_in_doubt_each_by_name() {
    let scene = Scene::of(&[events(3)]).await;
    let app = scene.run().await;
    // The first of five is never answered; those beside it are, and wait for it.
    scene.sim.queue_fault(SimFault::Hang { store: true });
    insert(&scene, 1, 10).await;
    scene.sink(|stats| stats.activities.items == 10 && stats.activities.under_way == 1).await;
    insert(&scene, 11, 50).await;
    scene.sink(|stats| stats.activities.items == 30 && stats.activities.under_way == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(scene.sim.stats().activities.requests, 3, "no further request while the first is open");
    scene.number("SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'sending'", 3).await;
    app.kill9().await;
    let app = App::run(&scene.config);
    app.wait_ready().await;
    scene.sink(|stats| stats.activities.items == 80).await;
    scene.number("SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'resent'", 3).await;
    let counts = received(&scene.sim, SinkKind::Activity);
    assert!((1..=30).all(|number| counts[&number] == 2) && (31..=50).all(|number| counts[&number] == 1), "{counts:?}");
    let resent = |status: &serde_json::Value| (of_section(status, "events")["rows_resent"] == 30).then_some(());
    app.wait_status("the resent rows", resent).await;
}

#[tokio::test]
async fn a_request_that_fails_is_mended_before_those_beside_it_are_settled() {
    let scene = Scene::of(&[events(4)]).await;
    let app = scene.run().await;
    // The first answers late that it took nothing, the second that an item is bad, the others are taken at once.
    scene.sim.queue_fault(SimFault::status(503));
    scene.sim.queue_fault(SimFault::status(400).times(1));
    insert(&scene, 1, 100).await;
    scene.sink(|stats| stats.activities.items == 100).await;
    scene.number("SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'sending'", 0).await;
    let counts = received(&scene.sim, SinkKind::Activity);
    assert!(counts.len() == 100 && counts.values().all(|count| *count == 1), "{counts:?}");
    let settled = |status: &serde_json::Value| (of_section(status, "events")["rows_delivered"] == 100).then_some(());
    app.wait_status("all rows", settled).await;
}
