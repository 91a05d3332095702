//! How a table became a partition (FAULTS 200): rows that it held before never come by the stream, so it is told of, whether
//! the program ran or not, and however it was attached. One that was made as a partition had none, and nothing is said.

use std::time::Duration;

use crate::faults_stream_scene::{PATIENCE, Scene};
use crate::harness::{App, Cluster, ConfigText, SectionText, Version, eventually};
use crate::main_job_oracle::drain;
use crate::versions_main_job::on_some_versions;

on_some_versions!({ case_200_each_partition_that_came_with_rows_is_told_of_and_no_other });

const COLUMNS: &str = "(id bigint NOT NULL, external_id text, value float8, at timestamptz DEFAULT now())";

/// Partitions that come with rows, and how; each statement is a transaction of its own. `back_…` is one before.
fn with_rows(n: &str) -> [(String, Vec<String>); 4] {
    let row = |name: &str| format!("INSERT INTO {name} (id, external_id) VALUES (nextval('ids'), '{name}')");
    let attach = |name: &str, key: &str| format!("ALTER TABLE m ATTACH PARTITION {name} FOR VALUES IN ('{key}')");
    let (made, back, named) = (format!("made_{n}"), format!("back_{n}"), format!("named_{n}"));
    let (mid, leaf, young) = (format!("mid_{n}"), format!("leaf_{n}"), format!("young_{n}"));
    let in_one = format!("BEGIN; CREATE TABLE {made} {COLUMNS}; {}; {}; COMMIT", row(&made), attach(&made, &made));
    let again =
        format!("BEGIN; ALTER TABLE m DETACH PARTITION {back}; {}; {}; COMMIT", row(&back), attach(&back, &back));
    let below = vec![
        format!("CREATE TABLE {mid} {COLUMNS} PARTITION BY LIST (id)"),
        format!("CREATE TABLE {leaf} PARTITION OF {mid} DEFAULT"),
        row(&mid),
        attach(&mid, &mid),
    ];
    let renamed = format!("BEGIN; {}; ALTER TABLE {young} RENAME TO {named}; COMMIT", attach(&young, &named));
    let renamed = vec![
        format!("CREATE TABLE {young} {COLUMNS}"),
        format!("INSERT INTO {young} (id, external_id) VALUES (nextval('ids'), '{named}')"),
        renamed,
    ];
    [(made, vec![in_one]), (back, vec![again]), (leaf, below), (named, renamed)]
}

/// Partitions that never held a row which did not come by the stream.
fn without_rows(n: &str) -> [(String, Vec<String>); 3] {
    let (other, direct, empty) = (format!("other_{n}"), format!("direct_{n}"), format!("empty_{n}"));
    let owned = vec![
        format!("CREATE TABLE first_{n} PARTITION OF m FOR VALUES IN ('{other}')"),
        format!("ALTER TABLE first_{n} RENAME TO {other}"),
    ];
    let used = format!(
        "BEGIN; CREATE TABLE {direct} PARTITION OF m FOR VALUES IN ('{direct}');
         INSERT INTO m (id, external_id) VALUES (nextval('ids'), '{direct}'); COMMIT"
    );
    let hollow = format!(
        "BEGIN; CREATE TABLE {empty} {COLUMNS}; ALTER TABLE m ATTACH PARTITION {empty} FOR VALUES IN ('{empty}'); COMMIT"
    );
    [(other, owned), (direct, vec![used]), (empty, vec![hollow])]
}

async fn case_200_each_partition_that_came_with_rows_is_told_of_and_no_other(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    let scene = Scene::at(cluster).await;
    let made = format!(
        "DROP TABLE m; CREATE SEQUENCE ids; CREATE TABLE m {COLUMNS} PARTITION BY LIST (external_id);
         CREATE TABLE m_a PARTITION OF m FOR VALUES IN ('a');
         CREATE TABLE back_running PARTITION OF m FOR VALUES IN ('back_running');
         CREATE TABLE back_down PARTITION OF m FOR VALUES IN ('back_down')"
    );
    for statement in made.split(';') {
        scene.cluster.sql(statement).await;
    }
    let config =
        ConfigText::new(&scene.cluster, &scene.sim.url()).section(section().set("key", "id").set("start", "now"));
    let app = App::run(&config);
    scene.streaming(&app).await;
    // The floor of a first look, as it is written with the checkpoint.
    scene.cluster.sql("INSERT INTO m (id, external_id) VALUES (nextval('ids'), 'a')").await;
    scene.confirmed().await;
    let floor = "SELECT count(*) FROM pg2planhat.instance WHERE xmin_floor IS NOT NULL";
    eventually(PATIENCE, "a floor", async || (scene.cluster.number(floor).await == 1).then_some(())).await;
    histories(&scene, "running").await;
    told(&scene, &app, "running").await;
    drain(app, &scene.cluster).await;
    histories(&scene, "down").await;
    let app = App::run(&config);
    told(&scene, &app, "down").await;
    for (name, _) in with_rows("running") {
        assert!(!app.log().contains(&said(&name)), "told of once: {}", app.log());
    }
    // One that is open stands for those that follow.
    assert_eq!(scene.gaps().await, ["partition_attached"]);
    drain(app, &scene.cluster).await;
}

fn section() -> SectionText {
    SectionText::metric("m", "m").field("value", "id")
}

/// What the log says of a partition that came with rows. (A gap that is open is told of at the start, too.)
fn said(name: &str) -> String {
    format!("what=\"the partition {name} was attached")
}

async fn histories(scene: &Scene, n: &str) {
    let (with, without) = (with_rows(n), without_rows(n));
    for (_, statements) in without.iter().chain(&with) {
        for statement in statements {
            scene.cluster.sql(statement).await;
        }
    }
}

async fn told(scene: &Scene, app: &App, n: &str) {
    let seen = with_rows(n).map(|(name, _)| said(&name));
    let all = async || seen.iter().all(|said| app.log().contains(said)).then_some(());
    // What is not told of by then is not told of at all: three looks.
    let late = Duration::from_secs(15);
    eventually(late, "all to be told of", all).await;
    for (name, _) in without_rows(n) {
        assert!(!app.log().contains(&said(&name)), "{name}: {}", app.log());
    }
    let direct = "SELECT id FROM m WHERE external_id LIKE 'direct%'";
    for row in scene.cluster.rows(direct).await {
        let key: i64 = row[0].as_ref().unwrap().parse().unwrap();
        let came = async || (scene.accepted().get(&key) == Some(&1)).then_some(());
        eventually(PATIENCE, "the row of a partition made in its own transaction", came).await;
    }
}
