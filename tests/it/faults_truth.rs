//! What is shown is so: tests/FAULTS.md, cases 87, 94, 95 and 181.

use pg2planhat::testing::sim::SimFault;

use crate::delivery_scene::{PATIENCE, Scene, of_section, seats};
use crate::faults_stream_scene;
use crate::harness::app::Output;
use crate::harness::{App, Cluster, ConfigText, SectionText, eventually};

/// `status` as a person runs it beside the instance.
async fn status(scene: &Scene, app: &App) -> Output {
    App::launch(&scene.config).beside(app).arguments(&["status"]).output().await
}

/// Waits until `/readyz` answers so.
async fn readiness(app: &App, code: u16) -> String {
    let answers = || async { app.get("/readyz").await.ok().filter(|answer| answer.status == code) };
    eventually(PATIENCE, &format!("/readyz to answer {code}"), answers).await.body
}

/// The text of a query comes in its own database's encoding.
#[tokio::test]
async fn case_87_a_query_of_another_encoding_that_holds_a_backfill_stops_nothing() {
    let scene = faults_stream_scene::Scene::new().await;
    scene.insert(3).await;
    let made = "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'";
    scene.cluster.sql(made).await;
    let neighbour = scene.cluster.client_of("latin").await;
    neighbour.batch_execute("BEGIN; CREATE TABLE café (name text); INSERT INTO café VALUES ('naïve')").await.unwrap();
    let app = App::run(&scene.config);
    let held = |status: &serde_json::Value| {
        let told = [&status["message"], &status["sections"][0]["reason"]];
        told.iter().any(|text| text.as_str().is_some_and(|text| text.contains("database"))).then_some(())
    };
    app.wait_status("whoever holds it", held).await;
    assert_eq!(app.get("/livez").await.unwrap().status, 200);
    neighbour.batch_execute("COMMIT").await.unwrap();
    scene.exact().await;
}

#[tokio::test]
async fn case_94_where_no_section_flows_the_instance_is_not_ready_and_where_one_does_the_other_is_named() {
    let scene = Scene::of(&[seats(), SectionText::activity("logins", "a")]).await;
    let app = scene.run().await;
    assert_eq!(status(&scene, &app).await.code, 0);
    scene.sim.queue_fault(SimFault::status(401).times(0));
    scene.insert(1, 1).await;
    let halted = |status: &serde_json::Value| (of_section(status, "seats")["state"] == "halted").then_some(());
    app.wait_status("the section to halt", halted).await;
    // One of two flows: ready, and the other one's name beside it.
    let body = readiness(&app, 200).await;
    assert!(body.contains("seats"), "{body}");
    assert_eq!(status(&scene, &app).await.code, 1);
    scene.cluster.sql("INSERT INTO a (user_id, action, weight) VALUES ('k1', 'login', 1)").await;
    let body = readiness(&app, 503).await;
    assert!(body.contains("seats") && body.contains("logins"), "{body}");
    let shown = app.status().await;
    assert!(shown["ready"] == false && shown["message"].as_str().unwrap().contains("no section flows"), "{shown}");
    assert_eq!(status(&scene, &app).await.code, 1);
    scene.sim.clear_faults();
    readiness(&app, 200).await;
    scene.metrics(1).await;
}

#[tokio::test]
async fn case_94_a_backfill_that_cannot_begin_is_not_ready() {
    let scene = Scene::new().await;
    scene.insert(1, 5).await;
    let holder = scene.cluster.client().await;
    holder.batch_execute("BEGIN; CREATE TABLE held ()").await.unwrap();
    let app = App::run(&scene.config);
    let held = |status: &serde_json::Value| {
        let told = [&status["message"], &status["sections"][0]["reason"]];
        told.iter().any(|text| text.as_str().is_some_and(|text| text.contains("pid "))).then_some(())
    };
    app.wait_status("whoever holds it", held).await;
    let answer = app.get("/readyz").await.unwrap();
    assert!(answer.status == 503 && answer.body.contains("pid "), "{answer:?}");
    assert_eq!(status(&scene, &app).await.code, 1);
    holder.batch_execute("COMMIT").await.unwrap();
    readiness(&app, 200).await;
    scene.metrics(5).await;
}

/// Sections that wait for a retry are late: not at once, but after a minute.
#[tokio::test]
async fn case_94_a_section_whose_rows_wait_for_a_minute_does_not_flow() {
    let scene = Scene::of(&[seats(), SectionText::activity("logins", "a")]).await;
    let app = scene.run().await;
    scene.sim.queue_fault(SimFault::status(503).times(0));
    scene.insert(1, 1).await;
    let retrying = || async { scene.sim.stats().metrics.requests.gt(&1).then_some(()) };
    eventually(PATIENCE, "two requests", retrying).await;
    let shown = app.status().await;
    assert_eq!(of_section(&shown, "seats")["flows"], true, "a moment's refusal is no fault: {shown}");
    assert_eq!(status(&scene, &app).await.code, 0);
    let late = |status: &serde_json::Value| (of_section(status, "seats")["flows"] == false).then_some(());
    for _ in 0..3 {
        if late(&app.status().await).is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_secs(25)).await;
    }
    app.wait_status("the section to be late", late).await;
    assert_eq!(status(&scene, &app).await.code, 1, "one section does not flow: not all is well");
    readiness(&app, 200).await;
}

/// Two instances on one host, with the names and the admin port that come of themselves.
#[tokio::test]
async fn case_95_status_does_not_show_another_instance_that_listens_where_its_own_would() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.insert(1, 7).await;
    scene.metrics(7).await;
    let other = Cluster::builder().own_identity().start().await;
    other.sql(&SectionText::metric_table("m")).await;
    let config = ConfigText::new(&other, &scene.sim.url()).section(seats());
    let shown = App::launch(&config).beside(&app).arguments(&["--json", "status"]).output().await;
    let document = shown.json();
    assert_eq!(of_section(&document, "seats")["rows_delivered"], 0, "{document}");
    assert!(document["message"].as_str().unwrap().contains("nothing has run here yet"), "{document}");
    assert_eq!(shown.code, 1);
    let own = App::launch(&scene.config).beside(&app).arguments(&["--json", "status"]).output().await.json();
    assert_eq!(of_section(&own, "seats")["rows_delivered"], 7, "{own}");
}

#[tokio::test]
async fn case_95_gaps_quarantine_and_doubt_are_shown_as_they_are_now() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.sim.queue_fault(SimFault::ResetAfterStoring);
    scene.insert(1, 2).await;
    scene.metrics(4).await;
    scene.cluster.sql("INSERT INTO m (external_id) VALUES ('k3')").await;
    let quarantined = |status: &serde_json::Value| (of_section(status, "seats")["quarantined_now"] == 1).then_some(());
    app.wait_status("the row in quarantine", quarantined).await;
    let shown = status(&scene, &app).await;
    assert!(
        shown.code == 0 && shown.stdout.contains("2 rows have been in doubt, 2 sent again, none is now"),
        "{shown:?}"
    );
    let dropped = App::launch(&scene.config).beside(&app).arguments(&["quarantine", "drop", "--all", "--yes"]);
    assert_eq!(dropped.output().await.code, 0);
    let none = |status: &serde_json::Value| (of_section(status, "seats")["quarantined_now"] == 0).then_some(());
    app.wait_status("an empty quarantine", none).await;
    let shown = status(&scene, &app).await;
    assert!(shown.stdout.contains("0 rows are quarantined now, 1 ever"), "{shown:?}");

    // Opened later than any audit began that finds nothing missing: that would close it.
    let gap = "INSERT INTO pg2planhat.gap (section, reason, detail, opened_at)
        VALUES ('seats', 'publication_changed', 'rows were skipped', now() + '1 hour')";
    scene.cluster.sql(gap).await;
    let open = |status: &serde_json::Value| (of_section(status, "seats")["open_gaps"] == 1).then_some(());
    app.wait_status("the gap", open).await;
    let shown = status(&scene, &app).await;
    assert!(shown.code == 1 && shown.stdout.contains("1 gap is open"), "{shown:?}");
    // From the state alone it is no other.
    app.sigterm();
    assert_eq!(app.wait_exit(PATIENCE).await, 0);
    let shown = App::command(&scene.config, &["status"]).await;
    assert!(shown.stdout.contains("1 gap is open") && shown.stdout.contains("0 rows are quarantined now"), "{shown:?}");
}

/// Rows that the mapping refuses meet no sink that could say so.
#[tokio::test]
async fn case_181_rows_that_the_mapping_refuses_are_told_of_in_the_log_and_do_not_flood_it() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    for _ in 0..5 {
        // Not more than nine in a row: ten halt the section.
        let most = "INSERT INTO m (external_id, value) SELECT 'k' || g, CASE g % 10 WHEN 0 THEN g END FROM generate_series(1, 500) g";
        scene.cluster.sql(most).await;
    }
    scene.number("SELECT count(*) FROM pg2planhat.quarantine", 2250).await;
    app.wait_log("rows are quarantined (not delivered)").await;
    let log = app.log();
    assert!(log.contains("quarantine list --section seats"), "{log}");
    let lines = log.lines().filter(|line| line.contains("quarantined")).count();
    assert!(lines <= 2, "{lines} lines:\n{log}");
}
