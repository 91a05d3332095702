//! Locks have a bound, and their holders a name: tests/FAULTS.md, case 89.

use std::time::{Duration, Instant};

use crate::faults_stream_scene::Scene;
use crate::harness::App;

#[tokio::test]
async fn case_89_a_locked_table_is_named_by_check_and_preview() {
    let scene = Scene::new().await;
    scene.insert(3).await;
    let holder = scene.cluster.client().await;
    holder.batch_execute("BEGIN; LOCK TABLE m IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let pid = holder.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get::<_, i32>(0);
    let began = Instant::now();
    let checked = App::command(&scene.config, &["--json", "check"]).await.json();
    let findings = checked["findings"].as_array().unwrap();
    let locked = findings.iter().find(|finding| finding["code"] == "table_locked").expect("a finding");
    assert!(locked["message"].as_str().unwrap().contains(&format!("pid {pid} ")), "{locked}");
    let shown = App::command(&scene.config, &["preview", "m"]).await;
    assert!(shown.code == 69 && shown.stderr.contains(&format!("pid {pid} ")), "{shown:?}");
    assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(App::command(&scene.config, &["preview", "m"]).await.code, 0);
}

#[tokio::test]
async fn case_89_whoever_holds_the_start_up_lock_is_named() {
    let scene = Scene::new().await;
    let holder = scene.cluster.client().await;
    holder.batch_execute("SELECT pg_advisory_lock(hashtext('pg2planhat pg2planhat'))").await.unwrap();
    let pid = holder.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get::<_, i32>(0);
    let app = App::run(&scene.config);
    let named = |status: &serde_json::Value| {
        let message = status["message"].as_str()?;
        message.contains(&format!("pid {pid} ")).then_some(())
    };
    app.wait_status("the holder's name", named).await;
    app.wait_log("waiting for it").await;
    drop(holder);
    scene.streaming(&app).await;
    assert_eq!(app.status().await["message"], serde_json::Value::Null);
}
