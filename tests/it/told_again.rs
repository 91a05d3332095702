//! What the log says when a trouble is over: its last line is not that of the trouble.

use pg2planhat::testing::sim::SimFault;

use crate::faults_stream_scene::{PATIENCE, Scene};
use crate::harness::{App, eventually};

/// Waits until the log has so many lines with this.
async fn lines(app: &App, text: &str, times: usize) {
    let there = || async { (app.log().matches(text).count() >= times).then_some(()) };
    eventually(PATIENCE, &format!("{times} times {text:?} in the log"), there).await;
}

#[tokio::test]
async fn case_241_each_end_of_the_stream_is_followed_by_the_word_that_it_is_back() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    for round in 1..=6 {
        // A connection that ends and is there again at once, as by a proxy that is restarted.
        scene.cluster.sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots").await;
        lines(&app, "the stream has ended", round).await;
        scene.insert(3).await;
        scene.exact().await;
        lines(&app, "connected again: rows flow", round).await;
    }
    let log = app.log();
    assert!(log.rfind("connected again") > log.rfind("the stream has ended"), "{log}");
}

#[tokio::test]
async fn case_241_planhat_that_takes_rows_again_is_told_of() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.sim.queue_fault(SimFault::status(503).times(3));
    scene.insert(3).await;
    scene.exact().await;
    lines(&app, "received again", 1).await;
    let log = app.log();
    assert!(log.rfind("received again") > log.rfind("not received; it is tried again"), "{log}");
    scene.insert(3).await;
    scene.exact().await;
    assert_eq!(app.log().matches("received again").count(), 1, "once for each trouble");
}

#[tokio::test]
async fn case_241_a_backfill_that_goes_on_is_told_of() {
    let scene = Scene::new().await;
    scene.insert(30_000).await;
    scene.sim.queue_fault(SimFault::Slow { millis: 200 }.times(10));
    let app = App::run(&scene.config);
    let ended = || async {
        let readers = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%backfill%'";
        scene.cluster.sql(readers).await;
        app.log().contains("the backfill waits").then_some(())
    };
    eventually(PATIENCE, "an end of the backfill's connection", ended).await;
    lines(&app, "the backfill goes on", 1).await;
    scene.exact().await;
    let log = app.log();
    assert!(log.rfind("the backfill goes on") > log.rfind("the backfill waits"), "{log}");
}
