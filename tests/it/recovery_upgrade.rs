//! The way through `pg_upgrade` that docs/upgrades.md describes: tests/FAULTS.md, case 100.

use std::process::Command;
use std::time::Duration;

use crate::cli_ops_look::{json, stop};
use crate::faults_stream_scene::{PATIENCE, Scene};
use crate::harness::scratch::{run, server_user};
use crate::harness::{App, Cluster, Stop, Version, eventually};

/// The distribution's server is the only one that comes with `pg_upgrade`, so it is upgraded to itself: what matters to the
/// program, another system identifier and no slot, is the same between versions.
#[tokio::test]
async fn case_100_pg_upgrade_by_the_documented_way_loses_and_doubles_nothing_needs_pg_upgrade() {
    let Some(old) = Cluster::builder().version(Version::V15).start_or_skip().await else { return };
    let scene = Scene::at(old).await;
    scene.insert(20).await;
    let app = scene.run().await;
    scene.insert(10).await;
    scene.exact().await;
    scene.confirmed().await;
    stop(&app).await;
    let new = Cluster::builder().version(Version::V15).own_identity().start().await;
    scene.cluster.stop(Stop::Fast).await;
    new.stop(Stop::Fast).await;
    let bin = new.program("pg_upgrade").parent().unwrap().to_owned();
    let mut upgrade = Command::new(new.program("pg_upgrade"));
    server_user().apply(&mut upgrade);
    upgrade
        .current_dir(new.socket_directory())
        .args(["-U", "postgres", "--no-sync", "-b"])
        .arg(&bin)
        .arg("-B")
        .arg(&bin);
    upgrade.arg("-d").arg(scene.cluster.data()).arg("-D").arg(new.data()).arg("-s").arg(new.socket_directory());
    upgrade.args(["-p", &scene.cluster.port().to_string(), "-P", &new.port().to_string()]);
    run(&mut upgrade).unwrap();
    new.start_again().await;
    let config = scene.config.clone().through(new.port());
    // Nothing is streamed before a person has decided.
    let refused = App::run(&config);
    assert_eq!(refused.wait_exit(Duration::from_secs(20)).await, 75, "{}", refused.log());
    assert!(refused.log().contains("other_server"), "{}", refused.log());
    let gap = App::command(&config, &["repair", "--gap", "--yes"]).await;
    assert_eq!(gap.code, 75, "the transactions of another server say nothing: {gap:?}");
    let plan = json(&config, &["repair", "--accept-loss", "--yes"]).await;
    assert_eq!(plan["repaired"]["new_slot"], true, "{plan}");
    let app = App::run(&config);
    scene.streaming(&app).await;
    new.sql("INSERT INTO m (external_id, value) SELECT 'after', g FROM generate_series(1, 5) g").await;
    let all = || async { (scene.accepted().len() == 35).then_some(()) };
    eventually(PATIENCE, "every row", all).await;
    stop(&app).await;
    assert!(scene.accepted().values().all(|times| *times == 1), "{:?}", scene.accepted());
    let audited = App::command(&config, &["--json", "audit", "m"]).await;
    assert_eq!(audited.code, 0, "{audited:?}");
}
