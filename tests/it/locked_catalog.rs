//! A system catalog that somebody has locked: no session can be opened, perhaps nothing decoded (FAULTS 298).

use std::time::{Duration, Instant};

use crate::faults_stream_scene::Scene;
use crate::harness::{Cluster, Version};
use crate::versions_main_job::on_some_versions;

on_some_versions!({ case_298_whoever_locks_a_system_catalog_is_named });

async fn case_298_whoever_locks_a_system_catalog_is_named(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    let scene = Scene::at(cluster).await;
    let app = scene.run().await;
    // The monitor has looked once.
    tokio::time::sleep(Duration::from_secs(4)).await;
    for catalog in ["pg_publication_rel", "pg_class"] {
        let locker = scene.cluster.client().await;
        let pid: i32 = locker.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        locker
            .batch_execute(&format!("BEGIN; LOCK TABLE pg_catalog.{catalog} IN ACCESS EXCLUSIVE MODE"))
            .await
            .unwrap();
        let began = Instant::now();
        let named = format!("a system catalog of the server is locked: pid {pid}");
        app.wait_status("the holder to be named", |status| status.to_string().contains(&named).then_some(())).await;
        let took = began.elapsed();
        assert!(took < Duration::from_secs(15), "{catalog}: after {took:?}");
        // Not for a moment only.
        tokio::time::sleep(Duration::from_secs(14)).await;
        let status = app.status().await.to_string();
        assert!(status.contains(&named), "{catalog}: {status}");
        locker.batch_execute("ROLLBACK").await.unwrap();
        scene.streaming(&app).await;
        scene.insert(3).await;
        scene.exact().await;
    }
}
